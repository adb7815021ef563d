//! What is said on a segment about who has which address, by ARP and NDP: tcpdump hears it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader},
    net::IpAddr,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use arpeggio_lab::{Lab, Machine};

/// Questions and answers of ARP, and neighbour advertisements.
const FILTER: &str = "arp or (icmp6 and ip6[40] == 136)";

/// tcpdump is ready when it has said so, or after this time.
const READY: Duration = Duration::from_secs(1);

/// A machine that hears, from when it is started.
pub(crate) struct Hearing {
    tcpdump: Child,
    claims: Receiver<(Instant, IpAddr)>,
}

impl Hearing {
    /// Begins to hear on an interface of a machine.
    pub(crate) fn start(lab: &Lab, machine: Machine, interface: &str) -> anyhow::Result<Self> {
        let mut command = Command::new("tcpdump");
        command.args(["-n", "-l", "-t", "--immediate-mode", "-i", interface, FILTER]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut tcpdump = lab.namespace(machine).spawn(&mut command)?;
        let lines = BufReader::new(tcpdump.stdout.take().context("tcpdump has no output")?).lines();
        let (sender, claims) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let claim = claim(&line).map(|address| (Instant::now(), address));
                if claim.is_some_and(|claim| sender.send(claim).is_err()) {
                    return;
                }
            }
        });
        thread::sleep(READY);
        Ok(Self { tcpdump, claims })
    }

    /// When each of these addresses was claimed for the first time after `begin`, until all were or `patience` is over.
    pub(crate) fn until_all_are_claimed(
        mut self,
        addresses: &BTreeSet<IpAddr>,
        begin: Instant,
        patience: Duration,
    ) -> anyhow::Result<BTreeMap<IpAddr, Instant>> {
        let mut claimed = BTreeMap::new();
        while claimed.len() < addresses.len() {
            let left = (begin + patience).saturating_duration_since(Instant::now());
            let Ok((at, address)) = self.claims.recv_timeout(left) else { break };
            if at > begin && addresses.contains(&address) {
                claimed.entry(address).or_insert(at);
            }
        }
        self.tcpdump.kill().and_then(|()| self.tcpdump.wait()).context("cannot end tcpdump")?;
        Ok(claimed)
    }
}

/// The address whose owner a line is about, when the owner says it.
fn claim(line: &str) -> Option<IpAddr> {
    let words: Vec<&str> = line.split([' ', ',']).collect();
    let before = |word: &str| words.iter().position(|it| *it == word)?.checked_sub(1);
    let after = |word: &str| Some(words.iter().position(|it| *it == word)? + 1);
    let at = |place: usize| words.get(place).copied();
    let text = if line.contains("neighbor advertisement") {
        after("is").and_then(at)?
    } else if line.contains("is-at") {
        before("is-at").and_then(at)?
    } else {
        // Who asks for its own address announces it.
        let (asked, teller) = (after("who-has").and_then(at)?, after("tell").and_then(at)?);
        (asked == teller).then_some(asked)?
    };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_owners_words_are_claims() {
        let table = [
            ("ARP, Reply 192.168.0.240 is-at 02:00:c0:a8:00:0b, length 46", Some("192.168.0.240")),
            (
                "ARP, Request who-has 192.168.0.240 tell 192.168.0.240, length 46",
                Some("192.168.0.240"),
            ),
            (
                "ARP, Request who-has 192.168.0.240 (ff:ff:ff:ff:ff:ff) tell 192.168.0.240, length 46",
                Some("192.168.0.240"),
            ),
            ("ARP, Request who-has 192.168.0.240 tell 192.168.0.20, length 46", None),
            (
                "IP6 fe80::11 > ff02::1: ICMP6, neighbor advertisement, tgt is fd00:a0::240, length 32",
                Some("fd00:a0::240"),
            ),
            (
                "IP6 fe80::11 > ff02::1:ff00:240: ICMP6, neighbor solicitation, who has fd00:a0::240, length 32",
                None,
            ),
        ];
        for (line, expected) in table {
            assert_eq!(claim(line), expected.map(|it| it.parse().unwrap()), "{line}");
        }
    }
}

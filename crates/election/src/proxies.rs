//! Machines that answer for what others have (proxy ARP, NDP proxies): what such a one says of an address says little.
//!
//! A machine that is no node, and answers for an address of a node, may be that node with a new MAC address; one that answers for an
//! address that a node is to stand in for may have it. Whether it answers for others as well is found out by asking for some that nobody of us has, around the one in question: a machine that
//! answers for most of these too is a proxy. One with a few addresses of its own is not, nor is a node with a new MAC
//! address, which answers for what it announces, nor is a bridge that hides nodes behind its own MAC address.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::{net::IpAddr, time::Duration};

use ipnet::IpNet;

use crate::{
    bucket::Bucket,
    model::Timestamp,
    questions::{Purpose, Search, Step},
    settings::Settings,
    vacancy::Mac,
};

/// So many addresses are asked for, and for so many of them a proxy answers. They lie so far apart that a dozen addresses in a row
/// are not that many of them.
const ASKED: usize = 8;
const ENOUGH: usize = 5;

/// Two such addresses differ in one of so many of their last bits, or in that and the very last ones.
const BITS: u8 = 8;

/// For so long a machine that was found to be a proxy counts as one. It may be something else by then.
const KNOWN_FOR: Duration = Duration::from_mins(10);

/// So many proxies are known at most, those that were found last.
const MOST_KNOWN: usize = 8;

/// So many machines are tried at once, and then one more after each pause: whoever invents machines must not have everybody
/// asked all the time.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(20);

/// The machines that are known to answer for what others have, and the one that is being tried.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Proxies {
    known: BTreeMap<Mac, Timestamp>,
    trial: Option<Trial>,
    tries: Bucket,
}

impl Default for Proxies {
    fn default() -> Self {
        Self { known: BTreeMap::new(), trial: None, tries: Bucket::new(TRIES, PAUSE) }
    }
}

/// A machine of which is to be found out what it answers for.
#[derive(Debug, Clone, Hash)]
struct Trial {
    mac: Mac,
    /// What it has answered for first.
    around: IpAddr,
    search: Search,
    /// Those that somebody is to announce, and that it answers for.
    held_off: BTreeSet<IpAddr>,
    /// Those that nobody has, and whether it has answered.
    nobodys: BTreeMap<IpAddr, bool>,
}

impl Trial {
    fn answers(&self) -> usize {
        self.nobodys.values().filter(|answered| **answered).count()
    }
}

impl Proxies {
    /// Whether this machine answers for what others have.
    pub(crate) fn knows(&self, mac: Mac, now: Timestamp) -> bool {
        self.known.get(&mac).is_some_and(|found| now.since(*found) < KNOWN_FOR)
    }

    /// A machine answers for `address`, which a node may have, or is to stand in for. It is tried, if none is just now; `nobodys`: for what it may be asked.
    pub(crate) fn suspect(
        &mut self,
        mac: Mac,
        address: IpAddr,
        now: Timestamp,
        nobodys: impl FnOnce() -> Vec<IpAddr>,
    ) {
        if let Some(trial) = &mut self.trial {
            if trial.mac == mac {
                trial.held_off.insert(address);
            }
            return;
        }
        if !self.tries.has(now) {
            return;
        }
        let nobodys: BTreeMap<IpAddr, bool> =
            nobodys().into_iter().map(|address| (address, false)).collect();
        if nobodys.len() >= ENOUGH && self.tries.take(now) {
            let search = Search::new(Purpose::Trial, now);
            let held_off = [address].into();
            self.trial = Some(Trial { mac, around: address, search, held_off, nobodys });
        }
    }

    /// A machine answers for an address. If it is a proxy by that, returns what it has kept this node from.
    pub(crate) fn answered(
        &mut self,
        mac: Mac,
        address: IpAddr,
        now: Timestamp,
    ) -> Option<BTreeSet<IpAddr>> {
        let trial = self.trial.as_mut().filter(|trial| trial.mac == mac)?;
        *trial.nobodys.get_mut(&address)? = true;
        if trial.answers() < ENOUGH {
            return None;
        }
        self.known.retain(|_, found| now.since(*found) < KNOWN_FOR);
        if self.known.len() >= MOST_KNOWN {
            let oldest = self.known.iter().min_by_key(|(_, found)| **found).map(|(mac, _)| *mac);
            oldest.map(|oldest| self.known.remove(&oldest));
        }
        self.known.insert(mac, now);
        self.trial.take().map(|trial| trial.held_off)
    }

    /// What to ask everybody for now.
    pub(crate) fn ask(&mut self, now: Timestamp, settings: &Settings) -> Vec<IpAddr> {
        let Some(trial) = &mut self.trial else { return Vec::new() };
        let has_begun = trial.search.has_begun();
        match trial.search.look(now, settings) {
            Step::Wait => Vec::new(),
            // A proxy has answered once at least by the second time.
            Step::Ask if has_begun && trial.answers() == 0 => {
                self.trial = None;
                Vec::new()
            }
            Step::Ask => {
                let missing = trial.nobodys.iter().filter(|(_, answered)| !**answered);
                missing.map(|(address, _)| *address).collect()
            }
            Step::Unanswered(_) => {
                self.trial = None;
                Vec::new()
            }
        }
    }

    /// The addresses whose answers are awaited.
    pub(crate) fn asked(&self) -> impl Iterator<Item = IpAddr> {
        self.trial.iter().flat_map(|trial| trial.nobodys.keys().copied())
    }

    /// Around which address `address` is asked for, if it is one of those that nobody has.
    pub(crate) fn asked_around(&self, address: IpAddr) -> Option<IpAddr> {
        let trial = self.trial.as_ref().filter(|trial| trial.nobodys.contains_key(&address))?;
        Some(trial.around)
    }

    /// When [`Proxies::ask`] has something to do.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.trial.as_ref().map(|trial| trial.search.due())
    }
}

/// Some addresses around one that differ from it in one bit, or in one and the last ones, without those that `is_somebodys`. The
/// subnet of `address`, if it is in one, is `net`.
pub(crate) fn around(
    address: IpAddr,
    net: Option<IpNet>,
    is_somebodys: impl Fn(IpAddr) -> bool,
) -> Vec<IpAddr> {
    let room = net.map_or(BITS, |net| net.max_prefix_len() - net.prefix_len()).min(BITS);
    let differences = (0..room).flat_map(|last| (last..room).map(move |bit| (1 << bit) | last));
    let mut found = Vec::new();
    for other in differences.filter(|it| *it != 0).map(|it: u8| differing(address, it)) {
        let is_special = net.is_some_and(|net| other == net.network() || other == net.broadcast());
        if found.len() < ASKED && !is_special && !found.contains(&other) && !is_somebodys(other) {
            found.push(other);
        }
    }
    found
}

/// The address whose last byte differs in these bits.
fn differing(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => (address.to_bits() ^ u32::from(bits)).to_be_bytes().into(),
        IpAddr::V6(address) => (address.to_bits() ^ u128::from(bits)).to_be_bytes().into(),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 1];
    const OTHER: Mac = [2, 0, 0, 0, 0, 2];

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 168, 0, last])
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(millis))
    }

    fn around_100() -> Vec<IpAddr> {
        around(ip(100), Some("192.168.0.0/24".parse().unwrap()), |_| false)
    }

    /// One machine is tried, and answers for what `has` says. Returns what it has kept this node from, if it is a proxy.
    fn tried(proxies: &mut Proxies, has: impl Fn(IpAddr) -> bool) -> Option<BTreeSet<IpAddr>> {
        proxies.suspect(MAC, ip(100), at(0), around_100);
        proxies.suspect(MAC, ip(105), at(1), around_100);
        let mut freed = None;
        for now in (0..400).step_by(10) {
            for address in proxies.ask(at(now), &Settings::default()) {
                if has(address) {
                    freed = freed.or_else(|| proxies.answered(MAC, address, at(now)));
                }
            }
        }
        assert_eq!(proxies.due(), None, "it comes to an end");
        freed
    }

    #[test]
    fn what_is_asked_for_lies_far_apart() {
        let last = |it: &IpAddr| match it {
            IpAddr::V4(it) => it.octets()[3],
            IpAddr::V6(_) => 0,
        };
        let lasts = |found: Vec<IpAddr>| found.iter().map(last).collect::<Vec<_>>();
        assert_eq!(lasts(around_100()), [101, 102, 96, 108, 116, 68, 36, 228]);
        let net = Some("192.168.0.96/28".parse().unwrap());
        let all = lasts(around(ip(100), net, |_| false));
        assert!(all.iter().all(|it| (97..111).contains(it)), "{all:?}");
        let few = around(ip(1), Some("192.168.0.0/30".parse().unwrap()), |_| false);
        assert_eq!(lasts(few), [2], "the subnet's own addresses are nobody's in another way");
        let known = around(ip(100), None, |it| it == ip(101) || it == ip(102));
        assert_eq!(known.len(), ASKED);
        assert!(!known.contains(&ip(101)) && !known.contains(&ip(102)), "{known:?}");
    }

    #[test]
    fn who_answers_for_all_is_a_proxy_and_has_kept_nobody_from_anything() {
        let mut proxies = Proxies::default();
        assert_eq!(tried(&mut proxies, |_| true), Some([ip(100), ip(105)].into()));
        assert!(proxies.knows(MAC, at(1000)) && !proxies.knows(OTHER, at(1000)));
        assert!(!proxies.knows(MAC, at(600_001)), "it may be something else by then");
    }

    #[test]
    fn who_has_some_addresses_is_none() {
        let rows: [fn(u8) -> bool; 3] =
            [|_| false, |last| last == 101, |last| (96..112).contains(&last)];
        for has in rows {
            let mut proxies = Proxies::default();
            let freed = tried(&mut proxies, |it| (0..=255).any(|last| it == ip(last) && has(last)));
            assert_eq!(freed, None);
            assert!(!proxies.knows(MAC, at(1000)));
        }
    }

    #[test]
    fn what_another_machine_answers_says_nothing_of_this_one() {
        let mut proxies = Proxies::default();
        proxies.suspect(MAC, ip(100), at(0), around_100);
        for address in around_100() {
            assert_eq!(proxies.answered(OTHER, address, at(1)), None);
        }
        assert!(!proxies.knows(MAC, at(2)) && !proxies.knows(OTHER, at(2)));
    }

    #[test]
    fn where_too_few_addresses_are_nobodys_nothing_is_found_out() {
        let mut proxies = Proxies::default();
        proxies.suspect(MAC, ip(1), at(0), || vec![ip(2), ip(3), ip(4), ip(5)]);
        assert_eq!(proxies.asked().count(), 0);
    }

    #[test]
    fn machines_without_number_have_little_asked_and_little_kept() {
        let mut proxies = Proxies::default();
        let mut asked = 0;
        for now in (0_u64..600_000).step_by(10) {
            let [.., high, low] = (now / 10).to_be_bytes();
            let mac = [2, 0, 0, 0, high, low];
            proxies.suspect(mac, ip(100), at(now), around_100);
            let tried: Option<Mac> = proxies.trial.as_ref().map(|trial| trial.mac);
            for address in proxies.ask(at(now), &Settings::default()) {
                asked += 1;
                tried.and_then(|mac| proxies.answered(mac, address, at(now)));
            }
        }
        assert!((200..300).contains(&asked), "{asked} in ten minutes");
        assert!(proxies.known.len() <= MOST_KNOWN);
    }
}

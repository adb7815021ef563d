//! Something goes wrong while a client looks on, and what it saw.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{
    Machine,
    observe::{
        ArpReply, ArpSightings, ArpWatch, Outcome, Request, RequestLoop, Silence, answers,
        longest_silence,
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    home::{Home, first_address},
    install,
    page::page,
    streams::{Streams, StreamsSeen},
};

/// Where what was seen is kept, a file for each fault.
pub const FAULTS_SEEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/failures");

/// Where it is set, connections stay open meanwhile. They cost processor time, and tests judge by time: `make failures` sets it,
/// and what becomes of connections the scenario `keep-connections` tests.
const STREAMS_TOO: &str = "ARPEGGIO_STREAMS";

/// After so long without an answer an open connection counts as broken.
const STREAM_PATIENCE: Duration = Duration::from_secs(3);

/// How often the client asks who has the address.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// The client is told of a move, and fetches pages, at different times.
const MOVE_SEEN_WITHIN: Duration = Duration::from_millis(20);

/// What a client on the LAN saw of one fault, and what the user was told. A line of `docs/failures.md`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// What was done, in a few words.
    pub fault: String,
    /// The longest time without an answered request, in milliseconds; a request begins every 5 ms.
    pub outage_ms: u64,
    /// Requests that were not answered.
    pub failed: usize,
    /// Those of them whose connection was open when the address moved, and was broken. The new node knows nothing of
    /// the connection, and its backend refuses it: whatever announces the address at layer 2, open connections do not
    /// survive a move.
    pub cut: usize,
    /// What became of those that failed and were not cut, and when; as much of it as a person reads.
    pub unexplained: Vec<String>,
    /// All requests.
    pub requests: usize,
    /// The longest time without an answer to "who has the address?", in milliseconds.
    pub silence_ms: u64,
    /// Frames of nodes that gave way while another node announced the address as well.
    pub overlap: usize,
    /// Who answered, in order; twice who had it, lost it and got it again.
    pub owners: Vec<String>,
    /// The events on the Service meanwhile.
    pub told: Vec<String>,
    /// The Service's conditions that were others before.
    pub conditions: Vec<String>,
    /// What clients saw whose connections were open all the time. `None`: it was not looked at.
    #[serde(default)]
    pub streams: Option<StreamsSeen>,
    /// Whether the forwarder was installed.
    #[serde(default)]
    pub forwarder: bool,
}

/// Who says nothing for as long has ended to announce the address, being asked for it every 5 ms.
const PAUSE: Duration = Duration::from_secs(1);

/// So many failed requests are described.
const DESCRIBED: usize = 10;

/// Room for a busy test machine, but not for a time-out.
const GAP_MS: u64 = 500;

impl Seen {
    /// Checks that nobody was without an answer: only connections that were open when the address moved may have been
    /// broken.
    ///
    /// # Errors
    /// With all that was seen.
    pub fn without_a_gap(self) -> anyhow::Result<Self> {
        ensure!(self.failed == self.cut, "requests failed: {self:?}");
        ensure!(self.silence_ms < GAP_MS, "nobody answered for too long: {self:?}");
        Ok(self)
    }
}

impl Home {
    /// Does something while a client asks for [`first_address`] and for its page, and goes on for `after`. What it saw is
    /// kept below `target/failures`.
    ///
    /// # Errors
    /// When the client cannot look on, or it cannot be done.
    pub fn look_on(
        &self,
        fault: &str,
        after: Duration,
        act: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Seen> {
        let (before, conditions) = (self.events("web")?, self.conditions("web")?);
        let watch = ArpWatch::start(&self.lab, Machine::Client, first_address(), ASK_EVERY)?;
        let requests = RequestLoop::start(&self.lab.namespace(Machine::Client), page())?;
        let streams = std::env::var_os(STREAMS_TOO).map(|_| {
            Streams::start(
                &self.lab.namespace(Machine::Client),
                &[page().server],
                None,
                STREAM_PATIENCE,
            )
        });
        std::thread::sleep(Duration::from_secs(1));
        act()?;
        std::thread::sleep(after);
        let (sightings, requests) = (watch.stop()?, requests.stop()?);
        let mut seen = self.seen(fault, &sightings, &requests)?;
        seen.streams = streams.map(Streams::stop).transpose()?;
        let after = self.events("web")?.into_iter().filter(|event| !before.contains(event));
        seen.told = after.map(|event| format!("{}: {}", event.reason, event.note)).collect();
        let now = self.conditions("web")?.into_iter();
        seen.conditions = now.filter(|condition| !conditions.contains(condition)).collect();
        keep(&self.lab.name().to_string(), &seen)?;
        Ok(seen)
    }

    fn seen(&self, fault: &str, arp: &ArpSightings, requests: &[Request]) -> anyhow::Result<Seen> {
        let (begin, end) = arp.span().context("nobody asked")?;
        let outage = longest_silence(answers(requests), begin, end);
        let silence = arp.longest_silence().context("nobody asked")?;
        let moves = moves(&arp.replies);
        let failed = || requests.iter().filter(|request| !request.is_answered());
        let unexplained = failed().filter(|request| !is_cut(request, &moves));
        let mut owners: Vec<[u8; 6]> = spells(&arp.replies).iter().map(|spell| spell.mac).collect();
        owners.dedup();
        let is_node = |reply: &&ArpReply| self.machine_at(reply.mac).is_ok();
        let by_nodes: Vec<ArpReply> = arp.replies.iter().filter(is_node).copied().collect();
        let node = |mac| self.machine_at(mac).map(|node| node.to_string()).ok();
        let name = |mac| node(mac).unwrap_or_else(|| "a stranger".to_owned());
        let owners = owners.into_iter().map(name).collect();
        Ok(Seen {
            fault: fault.to_owned(),
            outage_ms: millis(outage),
            failed: failed().count(),
            cut: failed().filter(|request| is_cut(request, &moves)).count(),
            unexplained: unexplained.take(DESCRIBED).map(|it| described(it, begin)).collect(),
            requests: requests.len(),
            silence_ms: millis(silence),
            overlap: overlap(&by_nodes),
            owners,
            told: Vec::new(),
            conditions: Vec::new(),
            streams: None,
            forwarder: install::with_forwarder(),
        })
    }
}

fn described(request: &Request, begin: Instant) -> String {
    let after = |at: Instant| at.saturating_duration_since(begin).as_millis();
    let (started, ended) = (after(request.started), after(request.ended));
    format!("from {started} to {ended} ms: {:?}", request.outcome)
}

fn millis(silence: Silence) -> u64 {
    u64::try_from(silence.length().as_millis()).unwrap_or(u64::MAX)
}

/// When somebody else began to answer.
fn moves(replies: &[ArpReply]) -> Vec<Instant> {
    let pairs = replies.windows(2).filter(|pair| pair[0].mac != pair[1].mac);
    pairs.map(|pair| pair[1].at).collect()
}

/// Whether a connection was broken at one of these moves. One that nobody has answered was not: the address was away.
fn is_cut(request: &Request, moves: &[Instant]) -> bool {
    let is_under_way = |at: &Instant| {
        request.started <= *at + MOVE_SEEN_WITHIN && *at <= request.ended + MOVE_SEEN_WITHIN
    };
    matches!(request.outcome, Outcome::Broken(_)) && moves.iter().any(is_under_way)
}

/// A time in which one machine announced the address without a pause.
struct Spell {
    mac: [u8; 6],
    first: Instant,
    last: Instant,
    frames: Vec<Instant>,
}

/// Who announced the address, and when; in the order of the beginnings.
fn spells(replies: &[ArpReply]) -> Vec<Spell> {
    let mut spells: Vec<Spell> = Vec::new();
    for ArpReply { at, mac, .. } in replies.iter().copied() {
        let latest = spells.iter_mut().rfind(|spell| spell.mac == mac);
        match latest.filter(|spell| at - spell.last < PAUSE) {
            Some(spell) => {
                spell.last = at;
                spell.frames.push(at);
            }
            None => spells.push(Spell { mac, first: at, last: at, frames: vec![at] }),
        }
    }
    spells
}

/// How many frames came from machines that gave way while another one announced the address as well.
fn overlap(replies: &[ArpReply]) -> usize {
    let spells = spells(replies);
    let beside = |gone: &Spell, stays: &Spell| {
        let both = stays.first..=stays.last;
        let frames = gone.frames.iter().filter(|at| both.contains(*at));
        if gone.mac != stays.mac && gone.last < stays.last { frames.count() } else { 0 }
    };
    spells.iter().map(|gone| spells.iter().map(|stays| beside(gone, stays)).sum::<usize>()).sum()
}

fn keep(lab: &str, seen: &Seen) -> anyhow::Result<()> {
    let folder = Path::new(FAULTS_SEEN);
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let with = if seen.forwarder { "-with-forwarder" } else { "" };
    let file = folder.join(format!("{lab}-{}{with}.json", seen.fault.replace(' ', "-")));
    let text = serde_json::to_string_pretty(seen)?;
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_beside_another_announcer_are_an_overlap() {
        let start = Instant::now();
        let count = |frames: &[(u64, u8)]| {
            let reply = |(millis, last): &(u64, u8)| ArpReply {
                at: start + Duration::from_millis(*millis),
                mac: [2, 0, 0, 0, 0, *last],
                gratuitous: false,
            };
            overlap(&frames.iter().map(reply).collect::<Vec<_>>())
        };
        assert_eq!(count(&[]), 0);
        assert_eq!(count(&[(0, 1), (5, 1), (10, 2), (15, 2)]), 0);
        assert_eq!(count(&[(0, 1), (5, 1), (10, 2), (15, 1), (20, 1), (25, 2)]), 2);
        assert_eq!(count(&[(0, 1), (5, 2), (10, 1)]), 1, "somebody else for a moment");
        assert_eq!(count(&[(0, 1), (500, 2), (1_400, 2), (1_500, 1)]), 0, "there and back");
        assert_eq!(count(&[(0, 1), (500, 2), (1_400, 2), (1_500, 1), (1_505, 2), (1_510, 1)]), 1);
    }

    #[test]
    fn a_connection_that_breaks_at_a_move_is_cut() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let reply = |millis, last| ArpReply { at: at(millis), mac: [last; 6], gratuitous: false };
        let moves = moves(&[reply(0, 1), reply(95, 1), reply(100, 2), reply(105, 2)]);
        assert_eq!(moves, [at(100)]);
        let reset = || Outcome::Broken("reset".to_owned());
        let table = [
            (50, 150, reset(), true),
            (90, 95, reset(), true),
            (110, 115, reset(), true),
            (50, 950, Outcome::TimedOut, false),
            (10, 60, reset(), false),
            (130, 900, reset(), false),
        ];
        for (started, ended, outcome, expected) in table {
            let request = Request { started: at(started), ended: at(ended), outcome };
            assert_eq!(is_cut(&request, &moves), expected, "{request:?}");
        }
    }
}

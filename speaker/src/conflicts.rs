//! Strangers that announce addresses which this node announces.
//!
//! Each is told of, but of one address no more than a few: a host with two network cards is two strangers, and frames with
//! invented senders would be as many as there are MAC addresses.
//!
//! Such an address is defended, or clients would go to the stranger until their caches expire; but no more often than
//! RFC 5227 section 2.4 (c) allows, or two machines that both insist would flood the segment.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use arpeggio_election::Timestamp;
use arpeggio_wire::MacAddr;

/// `DEFEND_INTERVAL` of RFC 5227 section 1.1: the least time between two defences of one address.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// A conflict is over when the stranger has been silent for this time.
const QUIET: Duration = Duration::from_mins(2);
/// So many different strangers of one address are told of.
const STRANGERS: usize = 3;

/// The conflicts that go on.
#[derive(Debug, Default)]
pub(crate) struct Conflicts(BTreeMap<IpAddr, Conflict>);

#[derive(Debug)]
struct Conflict {
    /// The first few.
    strangers: Vec<MacAddr>,
    heard: Timestamp,
    defended: Timestamp,
}

/// What to do about a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reaction {
    /// Announce the address at once.
    pub(crate) defend: bool,
    /// Users were not told of this stranger yet.
    pub(crate) is_new: bool,
}

impl Conflicts {
    /// A stranger announces an address of ours.
    pub(crate) fn heard(&mut self, address: IpAddr, stranger: MacAddr, now: Timestamp) -> Reaction {
        let Some(known) = self.0.get_mut(&address).filter(|it| !it.is_over(now)) else {
            let conflict = Conflict { strangers: vec![stranger], heard: now, defended: now };
            self.0.insert(address, conflict);
            return Reaction { defend: true, is_new: true };
        };
        let defend = now.since(known.defended) >= DEFEND_INTERVAL;
        let is_new = known.strangers.len() < STRANGERS && !known.strangers.contains(&stranger);
        if is_new {
            known.strangers.push(stranger);
        }
        known.heard = now;
        if defend {
            known.defended = now;
        }
        Reaction { defend, is_new }
    }

    /// How many addresses are contested now. Those that are `announced` no longer do not count.
    pub(crate) fn count(&mut self, now: Timestamp, announced: impl Fn(&IpAddr) -> bool) -> usize {
        self.0.retain(|address, conflict| announced(address) && !conflict.is_over(now));
        self.0.len()
    }
}

impl Conflict {
    fn is_over(&self, now: Timestamp) -> bool {
        now.since(self.heard) >= QUIET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRANGER: MacAddr = MacAddr(2, 0, 0, 0, 0, 9);
    const BOTH: Reaction = Reaction { defend: true, is_new: true };
    const DEFEND: Reaction = Reaction { defend: true, is_new: false };
    const NOTHING: Reaction = Reaction { defend: false, is_new: false };

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 168, 0, last])
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs(secs))
    }

    #[test]
    fn each_address_is_defended_once_in_ten_seconds_and_users_are_told_once() {
        let mut conflicts = Conflicts::default();
        let mut heard = |last, now| conflicts.heard(address(last), STRANGER, at(now));
        assert_eq!(heard(1, 100), BOTH);
        assert_eq!(heard(1, 101), NOTHING);
        assert_eq!(heard(2, 102), BOTH);
        assert_eq!(heard(1, 109), NOTHING);
        assert_eq!(heard(1, 110), DEFEND);
        assert_eq!(heard(1, 119), NOTHING);
        assert_eq!(heard(1, 120), DEFEND);
    }

    #[test]
    fn a_few_strangers_are_worth_a_word_each_however_often_they_take_turns() {
        let mut conflicts = Conflicts::default();
        let mut news = |strangers: u8, frames: u8| {
            let macs = (0..frames).map(|frame| MacAddr(2, 0, 0, 0, 0, frame % strangers));
            macs.filter(|mac| conflicts.heard(address(1), *mac, at(100)).is_new).count()
        };
        assert_eq!(news(2, 200), 2);
        assert_eq!(news(250, 250), 1, "three of one address");
    }

    #[test]
    fn silence_ends_a_conflict() {
        let mut conflicts = Conflicts::default();
        conflicts.heard(address(1), STRANGER, at(100));
        conflicts.heard(address(2), STRANGER, at(200));
        assert_eq!(conflicts.count(at(219), |_| true), 2);
        assert_eq!(conflicts.count(at(220), |_| true), 1);
        assert_eq!(conflicts.count(at(221), |_| false), 0, "not ours any more");
        assert_eq!(conflicts.heard(address(1), STRANGER, at(222)), BOTH);
    }
}

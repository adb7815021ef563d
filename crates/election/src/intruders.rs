//! Machines that are no nodes and claim what this node announces.
//!
//! Such a claim is never right. It is kept in mind here and on the lock, so that people are told for as long as it lasts, whichever node or process
//! announces the address meanwhile. A machine that answers a client tells nobody else, so it is asked each minute
//! ([`Purpose::Contest`]).
//!
//! At most every address that is announced is kept in mind. Locks are written, and questions asked, no more often than a bucket each
//! allows: frames with invented senders for all addresses cost no more than that.

use alloc::{collections::BTreeMap, vec::Vec};
use core::{net::IpAddr, time::Duration};

use crate::{
    bucket::Bucket,
    model::Timestamp,
    questions::{Purpose, Search, Step},
    settings::Settings,
};

/// A machine that has answered none of its questions for so long does not have the address any more.
const MEMORY: Duration = Duration::from_mins(5);
/// Another machine is named when the one that was has been silent for so long: two questions.
const SUCCESSION: Duration = Duration::from_mins(2);
/// How often it is looked what is to be asked and noted.
const LOOK: Duration = Duration::from_millis(100);
/// So many questions are asked at once, of all addresses together.
const QUESTIONS_AT_ONCE: u32 = 50;
/// One more may be asked each time that this has passed.
const QUESTION_PAUSE: Duration = Duration::from_millis(20);
/// So many locks are written at once.
const NOTES_AT_ONCE: u32 = 50;
/// One more may be written each time that this has passed.
const NOTE_PAUSE: Duration = Duration::from_millis(500);

/// The machines that are known.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Intruders {
    known: BTreeMap<IpAddr, Intruder>,
    looked: Timestamp,
    questions: Bucket,
    notes: Bucket,
}

impl Default for Intruders {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            looked: Timestamp::default(),
            questions: Bucket::new(QUESTIONS_AT_ONCE, QUESTION_PAUSE),
            notes: Bucket::new(NOTES_AT_ONCE, NOTE_PAUSE),
        }
    }
}

/// Who claims an address. Of several machines one is named, and stays so while it is heard: a host has two cards, and invented senders
/// are many.
#[derive(Debug, Clone, Hash)]
struct Intruder {
    mac: [u8; 6],
    /// When this one was heard last.
    named: Timestamp,
    /// When any was.
    heard: Timestamp,
    /// It was named after another one, and the lock does not say so yet.
    is_successor: bool,
    search: Search,
}

impl Intruder {
    fn new(mac: [u8; 6], search: Search, now: Timestamp) -> Self {
        Self { mac, named: now, heard: now, is_successor: false, search }
    }

    fn is_over(&self, now: Timestamp) -> bool {
        now.since(self.heard) >= MEMORY
    }
}

impl Intruders {
    /// A machine claims an address that this node announces.
    pub(crate) fn heard(
        &mut self,
        address: IpAddr,
        mac: [u8; 6],
        now: Timestamp,
        settings: &Settings,
    ) {
        let asked_later = || Search::new(Purpose::Contest, now).later(settings);
        let known =
            self.known.entry(address).or_insert_with(|| Intruder::new(mac, asked_later(), now));
        known.heard = now;
        if known.mac == mac {
            known.named = now;
        } else if now.since(known.named) >= SUCCESSION {
            (known.mac, known.named, known.is_successor) = (mac, now, true);
        }
    }

    /// The lock of an address that this node holds names a machine: another node or process has heard it. It is asked at once whether it is
    /// still there.
    pub(crate) fn noted(&mut self, address: IpAddr, mac: [u8; 6], now: Timestamp) {
        let asked_now = || Intruder::new(mac, Search::new(Purpose::Contest, now), now);
        let known = self.known.entry(address).or_insert_with(asked_now);
        if known.mac != mac && !known.is_successor {
            (known.mac, known.named) = (mac, now);
        }
    }

    /// The lock is written. Of two processes that name different machines the later one is right from now on.
    pub(crate) fn written(&mut self, address: IpAddr) {
        if let Some(known) = self.known.get_mut(&address) {
            known.is_successor = false;
        }
    }

    /// The address is nobody's any more: what was claimed of it says nothing of the next Service that gets it.
    pub(crate) fn gone(&mut self, address: IpAddr) {
        self.known.remove(&address);
    }

    /// Whether none is known.
    pub(crate) fn are_none(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether it is time to look what is to be asked and noted; then it counts as looked.
    pub(crate) fn looks(&mut self, now: Timestamp) -> bool {
        let is_time = now.since(self.looked) >= LOOK;
        if is_time {
            self.looked = now;
        }
        is_time
    }

    /// Forgets those that are over and of which no lock `is_noted` any more.
    pub(crate) fn forget(&mut self, now: Timestamp, is_noted: impl Fn(IpAddr) -> bool) {
        self.known.retain(|address, it| !it.is_over(now) || is_noted(*address));
    }

    /// The addresses that everybody is to be asked for now: whether the machine still has them.
    pub(crate) fn due(&mut self, now: Timestamp, settings: &Settings) -> Vec<IpAddr> {
        let mut due = Vec::new();
        for (address, it) in &mut self.known {
            let is_due = it.search.due() <= now && self.questions.take(now);
            if is_due && matches!(it.search.look(now, settings), Step::Ask) {
                due.push(*address);
            }
        }
        due
    }

    /// Whether a lock may be written now; then it counts as written.
    pub(crate) fn may_note(&mut self, now: Timestamp) -> bool {
        self.notes.take(now)
    }

    /// The addresses that machines claim, or have claimed.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.known.keys().copied()
    }

    /// Whether anything is known of `address`; if not, what its lock says stands.
    pub(crate) fn knows(&self, address: IpAddr) -> bool {
        self.known.contains_key(&address)
    }

    /// The machine that claims `address`.
    pub(crate) fn at(&self, address: IpAddr, now: Timestamp) -> Option<[u8; 6]> {
        self.known.get(&address).filter(|it| !it.is_over(now)).map(|it| it.mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
    const C: [u8; 6] = [2, 0, 0, 0, 0, 0xc];

    fn address() -> IpAddr {
        IpAddr::from([192, 168, 0, 240])
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs(secs))
    }

    #[test]
    fn one_is_named_until_it_is_silent() {
        let (mut intruders, settings) = (Intruders::default(), Settings::default());
        let mut heard = |mac, now| {
            intruders.heard(address(), mac, at(now), &settings);
            intruders.at(address(), at(now)).unwrap()
        };
        let table = [(A, 0, A), (B, 60, A), (A, 100, A), (B, 219, A), (B, 220, B), (A, 221, B)];
        for (mac, now, named) in table {
            assert_eq!(heard(mac, now), named, "{now}");
        }
        assert_eq!(intruders.at(address(), at(221 + 299)), Some(B));
        assert_eq!(intruders.at(address(), at(221 + 300)), None);
    }

    /// The speaker of an upgrade and the one before it, of which each hears another machine.
    #[test]
    fn two_processes_do_not_undo_each_others_notes() {
        let settings = Settings::default();
        let mut both = [Intruders::default(), Intruders::default()];
        let mut writes = Vec::new();
        let mut lock = None;
        for now in 0..600 {
            for (process, first) in both.iter_mut().zip([B, C]) {
                // A goes; the two hear different ones of those that are left first.
                let heard = if now < 30 { A } else { first };
                process.heard(address(), heard, at(now), &settings);
                if let Some(mac) = lock {
                    process.noted(address(), mac, at(now));
                }
                let named = process.at(address(), at(now));
                if named != lock {
                    lock = named;
                    process.written(address());
                    writes.push(now);
                }
            }
        }
        assert!(writes.len() <= 8, "{writes:?}");
    }
}

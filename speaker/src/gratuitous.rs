//! When to tell the segment unasked.
//!
//! At once when an address is gained, since neighbours still have the old owner's MAC; then a few times more, because
//! one frame may be lost and Linux ignores changes of an entry that is younger than a second (`locktime`); then slowly
//! for ever, because a switch forgets a port (five minutes) before a router forgets a MAC (up to four hours), and
//! floods or drops until it hears from us.
//!
//! Slowly is slower the more addresses there are: each frame reaches everybody on the segment, and takes air time on a
//! wireless one. So all nodes together send no more than so many a second for that, and each knows its part: the locks of
//! all addresses are seen by every speaker. A switch knows the port of a node by whatever else the node sends, too.
//!
//! On each interface frames leave at a limited rate, so that a thousand addresses do not flood the segment. First
//! announcements have a rate of their own and go before all others: whatever is still to be repeated, an address that
//! is taken over now is told now.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    time::Duration,
};

use arpeggio_election::Timestamp;

use crate::pace::Pace;

/// The pauses after a gain; longer than Linux' locktime.
const BURST: [Duration; 4] = [Duration::from_millis(1100); 4];
/// The pause between later announcements, before jitter, where there are few addresses.
const REFRESH: Duration = Duration::from_mins(1);
/// Of later announcements, all nodes together send one frame in this time, if that takes longer: 50 a second. That begins
/// at 1,500 IPv4 addresses, and makes 400 s of the minute for 10,000.
const SHARE: Duration = Duration::from_millis(20);
/// Jitter adds up to this part of the pause, so that the announcements of many addresses do not stay together.
const JITTER: u32 = 4;

/// The rate of first announcements: 5,000 frames a second, and 200 at once. A thousand IPv4 addresses, with two frames
/// each, take 0.36 s.
const FIRST: Pace = Pace::new(Duration::from_micros(200), 200);
/// The rate of all others: 500 frames a second, and 50 at once. It is for the first repeats of many addresses.
const REPEATED: Pace = Pace::new(Duration::from_millis(2), 50);
/// What had to wait for its rate, or for room in the network card's queue, is looked at again after this time.
const PAUSE: Duration = Duration::from_millis(10);
/// Where there is no room so many times in a row, the pause is doubled each time, and so often at most: to 0.64 s.
const PATIENT: u32 = 8;
const MOST_DOUBLED: u32 = 6;

/// One address on one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Announcement {
    /// The interface's index.
    pub(crate) interface: u32,
    /// The address.
    pub(crate) address: IpAddr,
}

/// An announcement that is to leave now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    /// Which one.
    pub(crate) announcement: Announcement,
    /// Whether the rate cap has held it back.
    pub(crate) deferred: bool,
}

/// The announcements to come.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// By the interface's index.
    interfaces: BTreeMap<u32, Rounds>,
    /// How many frames announce each address once, whichever node has it.
    all: u32,
}

impl Schedule {
    /// Starts (again) with an announcement: it is due now.
    pub(crate) fn start(
        &mut self,
        Announcement { interface, address }: Announcement,
        now: Timestamp,
    ) {
        let rounds = self.interfaces.entry(interface).or_default();
        rounds.stop(address);
        rounds.insert(address, Next { at: now, sent: 0, refusals: 0 });
    }

    pub(crate) fn stop(&mut self, Announcement { interface, address }: Announcement) {
        if let Some(rounds) = self.interfaces.get_mut(&interface) {
            rounds.stop(address);
        }
    }

    /// Forgets the interfaces that are no more. Their numbers are not used again, and where containers come and go there are many.
    pub(crate) fn keep(&mut self, is_there: impl Fn(u32) -> bool) {
        self.interfaces.retain(|interface, _| is_there(*interface));
    }

    /// Some node may announce `address`.
    pub(crate) fn joined(&mut self, address: IpAddr) {
        self.all = self.all.saturating_add(frames(address));
    }

    /// No node will announce `address`, which had [`joined`](Self::joined).
    pub(crate) fn left(&mut self, address: IpAddr) {
        self.all = self.all.saturating_sub(frames(address));
    }

    /// The pause between later announcements of one address, before jitter. Where it is announced by others is not known:
    /// all are counted as if they were on one segment.
    fn refresh(&self) -> Duration {
        REFRESH.max(SHARE.saturating_mul(self.all))
    }

    /// The announcement that was [popped](Self::pop) did not leave. If it was the first one, nobody knows yet where the address
    /// is: it is due again soon. Others are made up for by the next one.
    pub(crate) fn refused(
        &mut self,
        Announcement { interface, address }: Announcement,
        now: Timestamp,
    ) {
        if let Some(rounds) = self.interfaces.get_mut(&interface)
            && let Some(refusals) =
                rounds.next.get(&address).filter(|it| it.sent == 1).map(|it| it.refusals)
        {
            rounds.stop(address);
            let at = now + PAUSE * 2_u32.pow(refusals.saturating_sub(PATIENT).min(MOST_DOUBLED));
            rounds.insert(address, Next { at, sent: 0, refusals: refusals.saturating_add(1) });
        }
    }

    /// When to [`pop`](Self::pop) next.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        let queues = self.interfaces.values().flat_map(|it| [&it.first, &it.repeated]);
        queues.filter_map(Queue::next).min()
    }

    /// An announcement that may leave now, first ones first. Its next turn is set hereby.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<Due> {
        let refresh = self.refresh();
        let mut first = self.interfaces.iter_mut();
        let due = first
            .find_map(|(interface, rounds)| Some((*interface, rounds.pop_first(now, refresh)?)));
        let (interface, (address, deferred)) = due.or_else(|| {
            let mut repeated = self.interfaces.iter_mut();
            repeated.find_map(|(interface, rounds)| {
                Some((*interface, rounds.pop_repeated(now, refresh)?))
            })
        })?;
        Some(Due { announcement: Announcement { interface, address }, deferred })
    }
}

/// The announcements of one interface.
#[derive(Debug)]
struct Rounds {
    first: Queue,
    repeated: Queue,
    next: BTreeMap<IpAddr, Next>,
}

#[derive(Debug)]
struct Next {
    at: Timestamp,
    sent: usize,
    /// How often the first one did not leave.
    refusals: u32,
}

impl Default for Rounds {
    fn default() -> Self {
        Self { first: Queue::new(FIRST), repeated: Queue::new(REPEATED), next: BTreeMap::new() }
    }
}

impl Rounds {
    fn stop(&mut self, address: IpAddr) {
        if let Some(next) = self.next.remove(&address) {
            self.queue(next.sent).due.remove(&(next.at, address));
        }
    }

    fn insert(&mut self, address: IpAddr, next: Next) {
        self.queue(next.sent).due.insert((next.at, address));
        self.next.insert(address, next);
    }

    fn queue(&mut self, sent: usize) -> &mut Queue {
        if sent == 0 { &mut self.first } else { &mut self.repeated }
    }

    fn pop_first(&mut self, now: Timestamp, refresh: Duration) -> Option<(IpAddr, bool)> {
        let due = self.first.pop(now)?;
        self.repeat(due.0, now, refresh);
        Some(due)
    }

    fn pop_repeated(&mut self, now: Timestamp, refresh: Duration) -> Option<(IpAddr, bool)> {
        let due = self.repeated.pop(now)?;
        self.repeat(due.0, now, refresh);
        Some(due)
    }

    fn repeat(&mut self, address: IpAddr, now: Timestamp, refresh: Duration) {
        let (sent, refusals) = self.next.get(&address).map_or((0, 0), |it| (it.sent, it.refusals));
        let later = || refresh + jitter(address, sent, refresh / JITTER);
        let pause = BURST.get(sent).copied().unwrap_or_else(later);
        self.insert(address, Next { at: now + pause, sent: sent.saturating_add(1), refusals });
    }
}

/// Announcements that share a rate.
#[derive(Debug)]
struct Queue {
    due: BTreeSet<(Timestamp, IpAddr)>,
    pace: Pace,
    /// When to look again, while more is due than may leave.
    behind: Option<Timestamp>,
}

impl Queue {
    const fn new(pace: Pace) -> Self {
        Self { due: BTreeSet::new(), pace, behind: None }
    }

    fn next(&self) -> Option<Timestamp> {
        let (at, _) = *self.due.first()?;
        Some(self.behind.map_or(at, |behind| behind.max(at)))
    }

    /// The address that is due for longest, and whether the rate has held it back.
    fn pop(&mut self, now: Timestamp) -> Option<(IpAddr, bool)> {
        let Some((at, address)) = self.due.first().copied().filter(|(at, _)| *at <= now) else {
            self.behind = None;
            return None;
        };
        if !self.pace.take(frames(address), now) {
            self.behind = Some(now + PAUSE);
            return None;
        }
        self.due.remove(&(at, address));
        Some((address, self.behind.is_some()))
    }
}

/// How many frames announce an address: a request and a reply by ARP, one advertisement by NDP.
const fn frames(address: IpAddr) -> u32 {
    if address.is_ipv4() { 2 } else { 1 }
}

fn jitter(address: IpAddr, round: usize, most: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    (address, round).hash(&mut hasher);
    let range = u64::try_from(most.as_millis()).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(hasher.finish() % range)
}

#[cfg(test)]
mod tests;

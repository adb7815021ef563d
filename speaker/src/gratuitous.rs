//! When to tell the segment unasked.
//!
//! At once when an address is gained, since neighbours still have the old owner's MAC; then a few times more, because
//! one frame may be lost and Linux ignores changes of an entry that is younger than a second (`locktime`); then slowly
//! for ever, because a switch forgets a port (five minutes) before a router forgets a MAC (up to four hours), and
//! floods or drops until it hears from us.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    time::Duration,
};

use arpeggio_election::Timestamp;

/// The pauses after a gain; longer than Linux' locktime.
const BURST: [Duration; 4] = [Duration::from_millis(1100); 4];
/// The pause between later announcements, before jitter.
const REFRESH: Duration = Duration::from_mins(1);
/// Jitter adds up to this much, so that the announcements of many addresses do not stay together.
const JITTER: Duration = Duration::from_secs(15);

/// The announcements to come.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    due: BTreeSet<(Timestamp, IpAddr)>,
    next: BTreeMap<IpAddr, Next>,
}

#[derive(Debug)]
struct Next {
    at: Timestamp,
    sent: usize,
}

impl Schedule {
    /// Starts (again) with `address`: it is due now.
    pub(crate) fn start(&mut self, address: IpAddr, now: Timestamp) {
        self.stop(address);
        self.insert(address, Next { at: now, sent: 0 });
    }

    pub(crate) fn stop(&mut self, address: IpAddr) {
        if let Some(next) = self.next.remove(&address) {
            self.due.remove(&(next.at, address));
        }
    }

    /// When something is due next.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// An address that is due, whose next turn is set hereby.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<IpAddr> {
        let (_, address) = *self.due.first().filter(|(at, _)| *at <= now)?;
        let sent = self.next.get(&address).map_or(0, |next| next.sent);
        self.stop(address);
        let pause = BURST.get(sent).copied().unwrap_or_else(|| REFRESH + jitter(address, sent));
        self.insert(address, Next { at: now + pause, sent: sent.saturating_add(1) });
        Some(address)
    }

    fn insert(&mut self, address: IpAddr, next: Next) {
        self.due.insert((next.at, address));
        self.next.insert(address, next);
    }
}

fn jitter(address: IpAddr, round: usize) -> Duration {
    let mut hasher = DefaultHasher::new();
    (address, round).hash(&mut hasher);
    let range = u64::try_from(JITTER.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(hasher.finish() % range)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 0, 240));

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(millis))
    }

    /// The pauses between the announcements of one address.
    fn pauses(count: usize) -> Vec<Duration> {
        let mut schedule = Schedule::default();
        schedule.start(ADDRESS, at(1000));
        let mut times = Vec::new();
        while times.len() <= count {
            let now = schedule.next().unwrap();
            assert_eq!(schedule.pop(now), Some(ADDRESS));
            assert_eq!(schedule.pop(now), None);
            times.push(now);
        }
        assert_eq!(times[0], at(1000), "the first is due at once");
        times.windows(2).map(|pair| pair[1].since(pair[0])).collect()
    }

    #[test]
    fn a_burst_spaced_by_more_than_a_second_then_a_slow_refresh() {
        let pauses = pauses(20);
        assert!(pauses[..4].iter().all(|pause| *pause > Duration::from_secs(1)));
        assert!(pauses[..4].iter().all(|pause| *pause < Duration::from_secs(2)));
        let refresh = REFRESH..REFRESH + JITTER;
        assert!(pauses[4..].iter().all(|pause| refresh.contains(pause)), "{pauses:?}");
        assert!(pauses[4..].windows(2).any(|pair| pair[0] != pair[1]), "jitter varies");
    }

    #[test]
    fn a_stopped_address_is_never_due() {
        let mut schedule = Schedule::default();
        schedule.start(ADDRESS, at(1000));
        schedule.stop(ADDRESS);
        assert_eq!(schedule.next(), None);
        assert_eq!(schedule.pop(at(100_000)), None);
    }
}

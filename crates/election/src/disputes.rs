//! Fellows that claim what this node holds, again and again.
//!
//! A claim is looked into: the lock is read and the session proved. Whoever claims wrongly (another load balancer on the
//! same nodes, a kernel that answers for Services, forged frames) would make this node ask the API server as often as it
//! likes. So after each claim that was wrong, further ones for the address are overheard for a while, and for longer each
//! time. And of all addresses together only so many claims are looked into: whoever claims one usually claims them all.
//! A claim that is right and overheard costs little, since the lock's own watch tells of it as well.

use alloc::collections::BTreeMap;
use core::{net::IpAddr, time::Duration};

use crate::{
    bucket::Bucket,
    model::{Node, Timestamp},
};

/// How long claims are overheard after the first one that was wrong; doubled with each further one.
const SHORTEST: Duration = Duration::from_secs(1);
/// A claim that is right all the same is looked into after this time at the latest.
const LONGEST: Duration = Duration::from_secs(10);
/// Who has been wrong so often is named.
const STUBBORN: u32 = 3;
/// Without another claim for so long, all is forgotten.
const MEMORY: Duration = Duration::from_mins(1);
/// So many claims are looked into at once, of all addresses together.
const AT_ONCE: u32 = 50;
/// One more may be looked into each time that this has passed.
const PAUSE: Duration = Duration::from_millis(500);

/// The claims that were wrong, and how many more may be looked into.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Disputes {
    wrong: BTreeMap<IpAddr, Dispute>,
    room: Bucket,
}

impl Default for Disputes {
    fn default() -> Self {
        Self { wrong: BTreeMap::new(), room: Bucket::new(AT_ONCE, PAUSE) }
    }
}

#[derive(Debug, Clone, Hash)]
struct Dispute {
    by: Node,
    times: u32,
    settled: Timestamp,
}

impl Dispute {
    fn lasts(&self) -> bool {
        self.times >= STUBBORN
    }

    fn pause(&self) -> Duration {
        LONGEST.min(SHORTEST.saturating_mul(2_u32.saturating_pow(self.times.saturating_sub(1))))
    }
}

impl Disputes {
    /// A claim by `by` for `address` was looked into, and was wrong.
    pub(crate) fn was_wrong(&mut self, address: IpAddr, by: Node, now: Timestamp) {
        let times = self.wrong.get(&address).map_or(0, |dispute| dispute.times);
        let times = times.saturating_add(1);
        self.wrong.insert(address, Dispute { by, times, settled: now });
    }

    /// Whether a claim for `address` is to be looked into now; then it counts as looked into.
    pub(crate) fn looks_into(&mut self, address: IpAddr, now: Timestamp) -> bool {
        let was_wrong = self.wrong.get(&address);
        was_wrong.is_none_or(|it| now.since(it.settled) >= it.pause()) && self.room.take(now)
    }

    /// The addresses that a fellow goes on claiming, and which one did so last.
    pub(crate) fn stubborn(&self) -> impl Iterator<Item = (IpAddr, &Node)> {
        let lasting = self.wrong.iter().filter(|(_, it)| it.lasts());
        lasting.map(|(address, dispute)| (*address, &dispute.by))
    }

    /// Which fellow goes on claiming `address`, and did so last.
    pub(crate) fn by(&self, address: IpAddr) -> Option<&Node> {
        self.wrong.get(&address).filter(|it| it.lasts()).map(|it| &it.by)
    }

    /// The address is nobody's any more: what was claimed of it says nothing of the next Service that gets it.
    pub(crate) fn gone(&mut self, address: IpAddr) {
        self.wrong.remove(&address);
    }

    /// Forgets those that are over.
    pub(crate) fn forget(&mut self, now: Timestamp) {
        self.wrong.retain(|_, dispute| now.since(dispute.settled) < MEMORY);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn the_more_often_a_claim_was_wrong_the_longer_the_next_ones_are_overheard() {
        let address = IpAddr::from([192, 168, 0, 240]);
        let at = |millis| Timestamp::from_origin(Duration::from_millis(millis));
        let mut disputes = Disputes::default();
        let mut looked_into = Vec::new();
        for now in (0..60_000).step_by(50) {
            if disputes.looks_into(address, at(now)) {
                looked_into.push(now);
                disputes.was_wrong(address, "node-2".into(), at(now));
            }
            assert_eq!(disputes.stubborn().count(), usize::from(now >= 3000), "{now}");
        }
        let expected = [0, 1000, 3000, 7000, 15_000, 25_000, 35_000, 45_000, 55_000];
        assert_eq!(looked_into, expected);
        disputes.forget(at(200_000));
        assert!(disputes.looks_into(address, at(200_000)) && disputes.wrong.is_empty());
    }

    #[test]
    fn of_many_addresses_some_claims_are_looked_into_at_once_and_the_others_little_by_little() {
        let at = |secs| Timestamp::from_origin(Duration::from_secs(secs));
        let mut disputes = Disputes::default();
        let mut looked_into = |now| {
            let all = (0..=255).map(|last| IpAddr::from([192, 168, 0, last]));
            all.filter(|address| disputes.looks_into(*address, at(now))).count()
        };
        assert_eq!(looked_into(0), 50);
        assert_eq!((1..=60).map(looked_into).sum::<usize>(), 120);
    }
}

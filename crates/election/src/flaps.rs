//! Addresses that follow their backends, and how often.
//!
//! Where traffic must not leave the node that announces an address, pods decide where that may be. Pods that are ready one moment
//! and not the next would have their address move, or announced and not announced by turns, as often as they like: each time a
//! write, an event, and connections that break. So an address follows its backends a number of times at once, which is more
//! than a rolling update takes, and from then on only now and then, until they have been quiet for a while. What is counted are
//! the locks' own changes, which every node sees: whoever gets such an address goes on with the count.
//!
//! Nothing else is held back: neither what is taken over from a node that is dead, nor what is moved on purpose.

use alloc::collections::{BTreeMap, BTreeSet};
use core::{net::IpAddr, time::Duration};

use crate::{bucket::Bucket, model::Timestamp};

/// So often at once.
const AT_ONCE: u32 = 20;
/// Once more each time that this has passed.
const PAUSE: Duration = Duration::from_secs(5);

/// What is done because backends come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Deed {
    /// The address moves to a node with backends.
    Move,
    /// Its lock says that it is not announced, or that it is again.
    Note,
    /// Users are told that nobody announces it.
    Tell,
}

/// How often each address has followed its backends of late.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct Flaps {
    done: BTreeMap<(IpAddr, Deed), Bucket>,
    held_back: BTreeSet<IpAddr>,
}

impl Flaps {
    /// It was done, by this node or another one.
    pub(crate) fn done(&mut self, address: IpAddr, deed: Deed, now: Timestamp) {
        self.done.entry((address, deed)).or_insert_with(|| Bucket::new(AT_ONCE, PAUSE)).spend(now);
    }

    /// Whether it may be done now, as far as is known here. If not, it is held back.
    pub(crate) fn may(&mut self, address: IpAddr, deed: Deed, now: Timestamp) -> bool {
        let may = self.done.get(&(address, deed)).is_none_or(|bucket| bucket.has(now));
        if !may {
            self.held_back.insert(address);
        }
        may
    }

    /// A decision begins: nothing is held back yet, and what is long over is forgotten.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        self.held_back.clear();
        self.done.retain(|_, bucket| !bucket.is_full(now));
    }

    /// What is held back, as of the last decision.
    pub(crate) fn held_back(&self) -> impl Iterator<Item = IpAddr> {
        self.held_back.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs(secs))
    }

    #[test]
    fn an_address_follows_often_at_once_and_seldom_from_then_on() {
        let [one, other]: [IpAddr; 2] = [[192, 168, 0, 1].into(), [192, 168, 0, 2].into()];
        let mut flaps = Flaps::default();
        let mut followed = 0;
        for now in 100..220 {
            flaps.begin(at(now));
            if flaps.may(one, Deed::Move, at(now)) {
                flaps.done(one, Deed::Move, at(now));
                followed += 1;
            }
        }
        assert_eq!(followed, 20 + 23, "in two minutes");
        assert!(flaps.held_back().eq([one]));
        assert!(flaps.may(one, Deed::Note, at(220)) && flaps.may(other, Deed::Move, at(220)));
        (0..1000).for_each(|_| flaps.done(one, Deed::Move, at(220)));
        assert!(!flaps.may(one, Deed::Move, at(224)));
        assert!(flaps.may(one, Deed::Move, at(225)), "others' haste is not paid for longer");
        flaps.begin(at(400));
        assert!(flaps.held_back().count() == 0 && flaps.done.is_empty(), "all is forgotten");
    }
}

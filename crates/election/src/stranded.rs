//! Addresses that no node may announce, and when somebody is told of them.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::{net::IpAddr, time::Duration};

use crate::{
    eligibility::Unfit,
    model::{Node, Timestamp},
};

/// A Service and its pods, or a node and its labels, come one after the other: what is missing for less is nobody's
/// mistake.
const PATIENCE: Duration = Duration::from_secs(5);

/// An address that no node may announce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranded {
    /// The address.
    pub address: IpAddr,
    /// Its traffic must not leave the node that announces it, and no node has a backend.
    pub backless: bool,
    /// The living nodes, by what forbids it there.
    pub why: BTreeMap<Unfit, Vec<Node>>,
}

/// The addresses that this node is to tell of.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct Strandings {
    known: BTreeMap<IpAddr, Stranding>,
}

#[derive(Debug, Clone, Hash)]
struct Stranding {
    since: Timestamp,
    told: bool,
}

impl Strandings {
    /// All that this node is to tell of at present; those of `ceased` it has announced until now. Returns those to tell
    /// of now: each once, for as long as it is so, and when it `may` be told.
    pub(crate) fn update(
        &mut self,
        all: &BTreeSet<IpAddr>,
        ceased: &[IpAddr],
        now: Timestamp,
        mut may: impl FnMut(IpAddr) -> bool,
    ) -> Vec<IpAddr> {
        self.known.retain(|address, _| all.contains(address));
        for address in all {
            self.known.entry(*address).or_insert(Stranding { since: now, told: false });
        }
        let due = |(address, it): &(&IpAddr, &mut Stranding)| {
            let is_due = now.since(it.since) >= PATIENCE || ceased.contains(address);
            !it.told && is_due && may(**address)
        };
        let due = self.known.iter_mut().filter(due);
        due.map(|(address, it)| {
            it.told = true;
            *address
        })
        .collect()
    }

    /// Whether there is nothing to tell, nor to forget.
    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn each_is_told_once_after_a_while_and_at_once_where_it_worked_before() {
        let [one, other]: [IpAddr; 2] = [[192, 168, 0, 1].into(), [192, 168, 0, 2].into()];
        let both = [one, other].into();
        let none = [] as [IpAddr; 0];
        let mut strandings = Strandings::default();
        let mut update = |all: &BTreeSet<IpAddr>, ceased: &[IpAddr], now, may: bool| {
            strandings.update(all, ceased, at(now), |_| may)
        };
        assert_eq!(update(&both, &[other], 10, true), [other]);
        assert_eq!(update(&both, &[], 14, true), none);
        assert_eq!(update(&both, &[], 15, false), none, "others were told too often");
        assert_eq!(update(&both, &[], 16, true), [one]);
        assert_eq!(update(&both, &[], 60, true), none);
        assert_eq!(update(&BTreeSet::new(), &[], 61, true), none);
        assert_eq!(update(&both, &[], 62, true), none, "it was well in between");
        assert_eq!(update(&both, &[], 67, true), [one, other]);
        assert_eq!(update(&BTreeSet::new(), &[], 68, true), none);
        assert!(strandings.is_empty());
    }
}

//! How fit this node is for each lock that it holds.

use alloc::collections::BTreeMap;
use core::net::IpAddr;

use crate::{
    eligibility::{Merit, Unfit},
    model::{Node, Version},
    view::View,
    writes::GiveReason,
};

/// This node's merits for the locks that name it as holder. Each decision asks for them, and they seldom change.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct OwnMerits {
    /// With the lock's version.
    known: BTreeMap<IpAddr, (Version, Result<Merit, Unfit>)>,
    /// What others should rather have, and why.
    unwanted: BTreeMap<IpAddr, GiveReason>,
}

impl OwnMerits {
    /// Works out what is not known; everything, when `anew`.
    pub(crate) fn update(&mut self, view: &View, me: &Node, anew: bool) {
        if anew {
            self.known.clear();
        }
        let is_own = |address| view.lock(address).is_some_and(|lock| lock.is_of(me));
        self.known.retain(|address, _| is_own(*address));
        for lock in view.locks_of(me) {
            let known = self.known.get(&lock.address);
            if known.is_none_or(|(version, _)| *version != lock.version) {
                self.known.insert(lock.address, (lock.version, view.merit(lock, me)));
            }
        }
        let reason = |merit: &(Version, Result<Merit, Unfit>)| GiveReason::of(merit.1);
        let unwanted = self.known.iter().filter_map(|(it, merit)| Some((*it, reason(merit)?)));
        self.unwanted = unwanted.collect();
    }

    /// The addresses that others should rather announce, and why.
    pub(crate) fn unwanted(&self) -> impl Iterator<Item = (IpAddr, GiveReason)> {
        self.unwanted.iter().map(|(address, reason)| (*address, *reason))
    }
}

//! How fit this node is for each lock that it holds.

use alloc::collections::{BTreeMap, BTreeSet};
use core::net::IpAddr;

use crate::{
    model::{Lock, Node},
    view::View,
    writes::GiveReason,
};

/// What speaks against this node for the locks that name it as holder. Each decision asks for it, and it seldom changes.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct OwnMerits {
    /// What others should rather have, and why.
    unwanted: BTreeMap<IpAddr, GiveReason>,
}

impl OwnMerits {
    /// Works it out for these addresses, whose locks have changed, or what speaks for nodes at them.
    pub(crate) fn update(&mut self, view: &View, me: &Node, changed: &BTreeSet<IpAddr>) {
        for address in changed {
            let lock = view.lock(*address).filter(|lock| lock.is_of(me));
            match lock.and_then(|lock| GiveReason::of(view.merit(lock, me))) {
                Some(reason) => _ = self.unwanted.insert(*address, reason),
                None => _ = self.unwanted.remove(address),
            }
        }
    }

    /// Works it out for all that this node holds: what is known of the node has changed.
    pub(crate) fn update_all(&mut self, view: &View, me: &Node) {
        let reason = |lock: &Lock| Some((lock.address, GiveReason::of(view.merit(lock, me))?));
        self.unwanted = view.locks_of(me).filter_map(reason).collect();
    }

    /// The addresses that others should rather announce, and why.
    pub(crate) fn unwanted(&self) -> impl Iterator<Item = (IpAddr, GiveReason)> {
        self.unwanted.iter().map(|(address, reason)| (*address, *reason))
    }
}

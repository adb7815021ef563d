//! Addresses that this node has given away and still announces.
//!
//! The successor announces first; then the old holder stops. It knows that the successor does when it hears it; one that
//! cannot be heard from here is believed after a while.

use alloc::collections::{BTreeMap, BTreeSet};
use core::{net::IpAddr, time::Duration};

use crate::model::{Node, Timestamp};

/// How long the successor's first announcement is waited for. Its watch and its first frame take some ten milliseconds.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What is given away.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    successors: BTreeMap<IpAddr, Successor>,
}

#[derive(Debug)]
struct Successor {
    node: Node,
    /// Until when it is waited for; `None` before it has the lock.
    until: Option<Timestamp>,
    heard: bool,
}

impl Leaving {
    /// The lock of `address` is being given to `node`.
    pub(crate) fn give(&mut self, address: IpAddr, node: Node) {
        self.successors.insert(address, Successor { node, until: None, heard: false });
    }

    /// Somebody, it turns out `node`, was to take the lock of `address`.
    pub(crate) fn expect(&mut self, address: IpAddr, node: &Node) {
        if !self.successors.contains_key(&address) {
            self.give(address, node.clone());
        }
    }

    /// The lock of `address`, which is announced from here, is held by `holder`. Whether it is to be announced from
    /// here for now.
    pub(crate) fn goes_on(&mut self, address: IpAddr, holder: &Node, now: Timestamp) -> bool {
        let Some(successor) = self.successors.get_mut(&address) else { return false };
        let until = *successor.until.get_or_insert(now + LONGEST_WAIT);
        successor.node == *holder && !successor.heard && now < until
    }

    /// `by` announces `address`. Whether that is the successor, who was waited for.
    pub(crate) fn heard(&mut self, address: IpAddr, by: &Node) -> bool {
        let successor = self.successors.get_mut(&address).filter(|it| it.node == *by);
        successor.map(|it| it.heard = true).is_some()
    }

    /// Whether the successor was heard announcing `address`.
    pub(crate) fn was_heard(&self, address: IpAddr) -> bool {
        self.successors.get(&address).is_some_and(|it| it.heard)
    }

    /// Keeps only those of these addresses.
    pub(crate) fn retain(&mut self, addresses: &BTreeSet<IpAddr>) {
        self.successors.retain(|address, _| addresses.contains(address));
    }
}

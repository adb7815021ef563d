//! How much each node has to announce, and what of it belongs together.

use alloc::collections::BTreeMap;
use core::net::IpAddr;

use crate::{
    model::{Lock, Node},
    view::View,
};

/// What each node holds, and what is placed on it in the course of one decision. The addresses of one Service belong on
/// one node, where they count once: whoever looks for a Service finds it in one place, and it moves once.
#[derive(Debug)]
pub(crate) struct Loads<'a> {
    view: &'a View,
    counts: BTreeMap<Node, usize>,
    placed: BTreeMap<IpAddr, Node>,
}

impl<'a> Loads<'a> {
    /// What the nodes rightly hold now.
    pub(crate) fn of(view: &'a View) -> Self {
        let count = |node: &Node| {
            let is_eldest = |lock: &&Lock| view.eldest(lock, node) == lock.address;
            view.rightly_held(node).filter(is_eldest).count()
        };
        let nodes = view.sessions().map(|seen| &seen.session.node);
        let counts = nodes.map(|node| (node.clone(), count(node))).collect();
        Self { view, counts, placed: BTreeMap::new() }
    }

    /// The address of `lock` is to be on `node`.
    pub(crate) fn place(&mut self, lock: &Lock, node: &Node) {
        if !self.has_relative(lock, node) {
            *self.counts.entry(node.clone()).or_default() += 1;
        }
        self.placed.insert(lock.address, node.clone());
    }

    /// How much `node` has.
    pub(crate) fn count(&self, node: &Node) -> usize {
        self.counts.get(node).copied().unwrap_or_default()
    }

    /// Whether another address of the Service of `lock` is, or is to be, on `node`.
    pub(crate) fn has_relative(&self, lock: &Lock, node: &Node) -> bool {
        self.view.relatives(lock).any(|relative| match self.placed.get(&relative) {
            Some(place) => place == node,
            None => self.view.holds(node, relative),
        })
    }
}

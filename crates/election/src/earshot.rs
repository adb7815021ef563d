//! Who is heard on which of this node's interfaces.
//!
//! Each interface may lead to another segment, and its card may be dead while the others are well. So what is heard on one says
//! nothing of what would be heard on another.

use alloc::{collections::BTreeMap, string::String};
use core::time::Duration;

use crate::model::{Node, Timestamp};

/// Whom this node hears, by the names of its interfaces.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct Earshot(BTreeMap<String, Heard>);

/// When each was heard last on one interface.
#[derive(Debug, Clone, Default, Hash)]
struct Heard {
    nodes: BTreeMap<Node, Timestamp>,
    gateway: Option<Timestamp>,
}

impl Earshot {
    /// A node was heard on an interface.
    pub(crate) fn node(&mut self, interface: String, node: Node, now: Timestamp) {
        self.0.entry(interface).or_default().nodes.insert(node, now);
    }

    /// A gateway was heard on an interface.
    pub(crate) fn gateway(&mut self, interface: String, now: Timestamp) {
        self.0.entry(interface).or_default().gateway = Some(now);
    }

    /// Whether another node than this one was heard there since `since`.
    pub(crate) fn hears_another(&self, interface: &str, node: &Node, since: Timestamp) -> bool {
        let nodes = self.0.get(interface).into_iter().flat_map(|heard| &heard.nodes);
        nodes.filter(|(other, _)| *other != node).any(|(_, heard)| *heard >= since)
    }

    /// Whether a gateway was heard there since `since`.
    pub(crate) fn hears_gateway(&self, interface: &str, since: Timestamp) -> bool {
        self.0.get(interface).is_some_and(|heard| heard.gateway >= Some(since))
    }

    /// Whether anybody was heard there since `since`.
    pub(crate) fn hears_anybody(&self, interface: &str, since: Timestamp) -> bool {
        self.0.get(interface).is_some_and(|heard| heard.is_since(since))
    }

    /// Whether anybody was heard on any interface since `since`.
    pub(crate) fn hears_anybody_anywhere(&self, since: Timestamp) -> bool {
        self.0.values().any(|heard| heard.is_since(since))
    }

    /// Whether a gateway, or another node than this one, was heard on any interface since `since`.
    pub(crate) fn hears_others_anywhere(&self, node: &Node, since: Timestamp) -> bool {
        let hears =
            |it: &String| self.hears_gateway(it, since) || self.hears_another(it, node, since);
        self.0.keys().any(hears)
    }

    /// Forgets who was not heard for `long`.
    pub(crate) fn forget(&mut self, long: Duration, now: Timestamp) {
        self.0.retain(|_, heard| {
            heard.nodes.retain(|_, heard| now.since(*heard) < long);
            heard.gateway = heard.gateway.filter(|heard| now.since(*heard) < long);
            !heard.nodes.is_empty() || heard.gateway.is_some()
        });
    }
}

impl Heard {
    fn is_since(&self, since: Timestamp) -> bool {
        self.gateway >= Some(since) || self.nodes.values().any(|heard| *heard >= since)
    }
}

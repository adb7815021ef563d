//! What cannot be as it was wanted, and why.

use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString as _},
    vec::Vec,
};
use core::net::IpAddr;

use arpeggio_election::Node;

use crate::known::{Address, Known, Life};

/// So many nodes are named at most, so that what is said stays short.
const MOST_NAMED: usize = 4;

/// What is to be told to people. All nodes that know the same say the same; one of them is to tell it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// The addresses that one node serves though all were to, and why.
    pub one_node: BTreeMap<IpAddr, OneNode>,
    /// Of addresses that are to be spread, the nodes that serve nothing though they might announce the address, and why.
    pub left_out: BTreeMap<IpAddr, BTreeMap<Node, LeftOut>>,
    /// Of addresses that are to be spread, the node whose forwarder tells people: that of the node that announces it, or, when that has
    /// none that works, the first one that does.
    pub tellers: BTreeMap<IpAddr, Node>,
}

/// The node whose forwarder tells people about an address.
pub(crate) fn teller<'a>(known: &'a Known, about: &Address) -> Option<&'a Node> {
    let (holder, holding) = known.nodes.get_key_value(about.holder.as_ref()?)?;
    if holding.passes() {
        return Some(holder);
    }
    let mut nodes = known.nodes.iter();
    nodes.find(|(_, fellow)| fellow.life == Life::Live && fellow.passes()).map(|(node, _)| node)
}

impl Notes {
    /// Why one node serves an address though all are to, for people; with what is the matter with the others, where that is why.
    pub fn why_one_node(&self, address: IpAddr) -> Option<String> {
        let why = self.one_node.get(&address)?;
        let others = match why {
            OneNode::TooFewNodes => self.left_out.get(&address),
            _ => None,
        };
        let others = others.filter(|others| !others.is_empty());
        Some(others.map_or_else(|| why.to_string(), |all| format!("{why} ({})", listed(all))))
    }
}

fn listed(left_out: &BTreeMap<Node, LeftOut>) -> String {
    let named = left_out.iter().take(MOST_NAMED);
    let mut texts: Vec<String> = named.map(|(node, why)| format!("{node}: {why}")).collect();
    let more = left_out.len().saturating_sub(MOST_NAMED);
    if more > 0 {
        texts.push(format!("{more} more"));
    }
    texts.join("; ")
}

/// Why an address is served by one node though all were to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OneNode {
    /// Nobody announces it.
    #[error("no node announces it yet")]
    NoHolder,
    /// There is nothing that could be divided.
    #[error("no Service behind it has a TCP or UDP port")]
    NoPort,
    /// The node that announces it has nothing that could pass packets on.
    #[error("{0}, which announces it, has no forwarder: install it there")]
    HolderHasNoForwarder(Node),
    /// The forwarder of the node that announces it does not run any more.
    #[error(
        "{0}, which announces it, has a forwarder that has not renewed its Lease for three minutes: see why it does not run"
    )]
    HolderForwarderStale(Node),
    /// The forwarder of the node that announces it says why it cannot pass packets on.
    #[error("{node}, which announces it, cannot pass packets on: {why}")]
    HolderTrouble {
        /// The node.
        node: Node,
        /// Why it cannot.
        why: String,
    },
    /// The node that announces it does so by radio.
    #[error("{node} announces it on {interface}, which is wireless")]
    Wireless {
        /// The node.
        node: Node,
        /// Its interface.
        interface: String,
    },
    /// Nobody but the node that announces it can.
    #[error("no other node can serve it")]
    TooFewNodes,
}

/// Why a node serves nothing of an address that is to be spread.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeftOut {
    /// No announce rule selects it, or Kubernetes says that it is not to serve load balancers, or cannot.
    #[error("it may not announce the address")]
    Unfit,
    /// Its session was ended, or it does not answer on the wire.
    #[error("it is away")]
    Away,
    /// It is being emptied.
    #[error("it is cordoned")]
    Cordoned,
    /// Kubernetes does not hear of it.
    #[error("it is not Ready")]
    NotReady,
    /// It has no forwarder.
    #[error("it has no forwarder: install it there")]
    NoForwarder,
    /// Its forwarder does not run any more.
    #[error("its forwarder has not renewed its Lease for three minutes: see why it does not run")]
    ForwarderStale,
    /// Its forwarder says why it cannot.
    #[error("its forwarder cannot pass packets on: {0}")]
    Trouble(String),
    /// It is on another segment than the node that announces the address.
    #[error("it is not on the segment where the address is announced")]
    Elsewhere,
    /// Its interface there is a radio.
    #[error("its interface {0} is wireless")]
    Wireless(String),
    /// `externalTrafficPolicy: Local`, and no Service behind the address has a ready endpoint there.
    #[error("no ready endpoint on it, and the Service has externalTrafficPolicy: Local")]
    NoEndpoint,
}

#[cfg(test)]
mod tests {
    use crate::known::{Fellow, Forwarder};

    use super::*;

    fn address() -> IpAddr {
        [192, 168, 0, 240].into()
    }

    #[test]
    fn what_is_said_names_some_of_the_others_and_counts_the_rest() {
        let left_out = |count: u8| {
            (0..count).map(|n| (Node::from(format!("node-{n}").as_str()), LeftOut::Away)).collect()
        };
        let says = |one_node, count| {
            let notes = Notes {
                one_node: [(address(), one_node)].into(),
                left_out: [(address(), left_out(count))].into(),
                ..Notes::default()
            };
            notes.why_one_node(address()).unwrap()
        };
        assert_eq!(says(OneNode::NoPort, 3), "no Service behind it has a TCP or UDP port");
        assert_eq!(says(OneNode::TooFewNodes, 0), "no other node can serve it");
        let one = "no other node can serve it (node-0: it is away)";
        assert_eq!(says(OneNode::TooFewNodes, 1), one);
        let many = says(OneNode::TooFewNodes, 200);
        assert!(many.ends_with("; node-100: it is away; 196 more)"), "{many}");
        assert_eq!(Notes::default().why_one_node(address()), None);
    }

    #[test]
    fn somebody_tells_also_where_the_announcing_node_cannot() {
        let node = |n: u8, life, trouble: Option<&str>| {
            let forwarder = Forwarder { trouble: trouble.map(Into::into), ..Forwarder::default() };
            let fellow = Fellow {
                life,
                epoch: arpeggio_election::Epoch(1),
                wire: crate::known::Wire::default(),
                reach: arpeggio_election::Reach::default(),
                macs: BTreeMap::new(),
                facts: None,
                forwarder: Some(forwarder),
            };
            (Node::from(format!("node-{n}").as_str()), fellow)
        };
        let away = Life::Ended(arpeggio_election::EndReason::NodeSilent);
        let nodes = [
            node(1, away, None),
            node(2, Life::Live, Some("no nf_tables")),
            node(3, Life::Live, None),
            node(4, Life::Live, None),
        ];
        let known = Known { nodes: nodes.into(), ..Known::default() };
        let of = |holder: Option<u8>| {
            let holder = holder.map(|n| Node::from(format!("node-{n}").as_str()));
            let about = Address { holder, ..Address::default() };
            teller(&known, &about).map(|node| node.as_str().to_string())
        };
        assert_eq!(of(Some(4)).as_deref(), Some("node-4"));
        assert_eq!(of(Some(2)).as_deref(), Some("node-3"));
        assert_eq!(of(None), None);
    }
}

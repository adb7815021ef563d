//! What cannot be as it was wanted, and why.

use alloc::{collections::BTreeMap, string::String};
use core::net::IpAddr;

use arpeggio_election::Node;

/// What is to be told to people. All nodes that know the same say the same; the holder of an address is the one to tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// The addresses that one node serves though all were to, and why.
    pub one_node: BTreeMap<IpAddr, OneNode>,
    /// Of addresses that are to be spread, the nodes that serve nothing though they might announce the address, and why.
    pub left_out: BTreeMap<IpAddr, BTreeMap<Node, LeftOut>>,
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
    /// The node that announces it cannot pass packets on.
    #[error("{0}, which announces it, has no forwarder that works: install it there")]
    HolderHasNoForwarder(Node),
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
    /// Its session was ended.
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

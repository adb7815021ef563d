//! What one node is to do with packets.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    sync::Arc,
    vec::Vec,
};
use core::net::IpAddr;

use arpeggio_election::{Node, Timestamp};

use crate::{
    known::{Mac, Port},
    packet::SpreadBy,
};

/// What one node is to do with packets to addresses. It says nothing of packets that conntrack knows (state established or
/// related): those stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The MAC addresses of the other nodes. A packet with one of them as its source comes *from a fellow*, every other one
    /// *from outside*.
    pub fellows: BTreeSet<Mac>,
    /// What is to be done for each address. Of an address that is not here every packet stays.
    pub addresses: BTreeMap<IpAddr, PlannedAddress>,
}

impl Plan {
    /// How packets get to other nodes, by whatever is in the plan; a way that many packets take comes as often.
    pub fn hops(&self) -> impl Iterator<Item = &Hop> {
        self.addresses.values().flat_map(PlannedAddress::ways).filter_map(Way::hop)
    }
}

impl PlannedAddress {
    fn ways(&self) -> impl Iterator<Item = &Way> {
        let spread = self.spread.values().flat_map(|it| it.ways());
        let Passing { from_outside, from_fellow } = &self.passing;
        [from_outside, from_fellow].into_iter().chain(spread)
    }
}

impl Spread {
    pub(crate) fn ways(&self) -> impl Iterator<Item = &Way> {
        [&self.first, &self.others, &self.below].into_iter().flatten()
    }
}

impl Way {
    /// How a packet that goes there gets to the other node. `None`: it stays.
    pub fn hop(&self) -> Option<&Hop> {
        match self {
            Self::Local => None,
            Self::To(hop) => Some(hop),
        }
    }
}

/// What is to be done with packets to one address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlannedAddress {
    /// For packets of [`Kind::Other`](crate::Kind::Other) to ports that are not in `spread`, and for
    /// [`Kind::IcmpError`](crate::Kind::IcmpError), when conntrack does not know them.
    pub passing: Passing,
    /// The UDP ports on which QUIC is spoken, whether or not they are in `spread`. On all others UDP is
    /// [`Kind::First`](crate::Kind::First).
    pub quic: BTreeSet<u16>,
    /// The ports whose connections all nodes serve. Empty: the address is served by one node.
    pub spread: BTreeMap<Port, Arc<Spread>>,
    /// Which TCP packets of [`Kind::Other`](crate::Kind::Other) that conntrack does not know, and that would stay here, are answered by
    /// a reset. Whoever has an open connection is told at once, whether or not a backend would have told.
    pub reset: Reset,
    /// The names of this node's interfaces on which it would announce the address: where packets from outside come in. Only where
    /// `spread` has something.
    pub interfaces: Vec<String>,
}

/// What of unknown connections is reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reset {
    /// Nothing: a backend answers.
    #[default]
    Nothing,
    /// What a fellow gives that is in no bucket. This node does not serve the address, and nobody is left to ask: whoever was skipped is
    /// dead, though this node may not have heard of that.
    FromFellow,
    /// Everything: a node that has served the address is dead.
    Everything,
}

/// Where packets of unknown connections go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passing {
    /// Those from outside.
    pub from_outside: Way,
    /// Those from a fellow.
    pub from_fellow: Way,
}

/// Where a packet goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Way {
    /// It stays at this node.
    #[default]
    Local,
    /// To another node.
    To(Arc<Hop>),
}

/// How a packet gets to another node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hop {
    /// The node.
    pub node: Node,
    /// The interface of this node by which the packet leaves.
    pub interface: String,
    /// The other node's own address on that segment, of the family of the packet.
    pub next_hop: IpAddr,
    /// The MAC address of that.
    pub mac: Mac,
    /// The MAC address of `interface`.
    pub own_mac: Mac,
    /// The node takes packets that are marked. Any other one would have a backend reset them, so that they go nowhere instead.
    pub knows_mark: bool,
}

/// How the connections to one port are divided among nodes. Each list has an entry for each of the 1024 buckets.
///
/// 1. Before conntrack, on [`PlannedAddress::interfaces`], a packet from outside goes where `first` says when it is
///    [`Kind::First`](crate::Kind::First), and where `others` says when it is [`Kind::Other`](crate::Kind::Other). A packet from a
///    fellow stays. So does each fragment of a TCP packet, and is looked at when it is whole.
/// 2. After conntrack, a packet of [`Kind::Other`](crate::Kind::Other) that conntrack does not know: from a fellow it goes where
///    `below` says. From outside (it was a fragment, or came in somewhere else) it goes where `others` says; when that says that it
///    stays, where `below` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread {
    /// What chooses the bucket.
    pub by: SpreadBy,
    /// The seed of the hash.
    pub seed: u32,
    /// Where a new connection goes.
    pub first: Vec<Way>,
    /// Who is asked first for a connection that is not new.
    pub others: Vec<Way>,
    /// Who is asked after this node.
    pub below: Vec<Way>,
}

/// The addresses whose connections this node is to count, since others give it packets of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Draining {
    /// The addresses.
    pub addresses: BTreeMap<IpAddr, Drain>,
}

/// That the connections to an address run out here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// When the others stop giving packets to this node.
    pub until: Timestamp,
    /// It is known that this node served the address, so that a count of zero is published, too. Otherwise it has just started and
    /// does not know what it did before: then only what is there is worth telling.
    pub served: bool,
    /// The UDP ports whose connections are counted ([`PlannedAddress::quic`]): of other UDP nothing is given to this node.
    pub quic: BTreeSet<u16>,
}

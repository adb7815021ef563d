//! What one forwarder knows of its cluster.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
};
use core::{fmt, net::IpAddr};

use arpeggio_election::{
    AnnounceTerms, EndReason, Epoch, Node, NodeFacts, Reach, Renewal, Version,
};

/// A MAC address, EUI-48.
pub type Mac = [u8; 6];

/// All that a forwarder knows. Who knows the same decides the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The nodes that have had a session, this one among them.
    pub nodes: BTreeMap<Node, Fellow>,
    /// The addresses that have locks.
    pub addresses: BTreeMap<IpAddr, Address>,
    /// The API server tells this node nothing at present, so that somebody may have died whom this node takes for alive.
    pub deaf: bool,
}

impl Known {
    /// What is known when these nodes are silent on the wire, though their sessions do not say so yet.
    #[must_use]
    pub fn without(&self, silent: &BTreeSet<Node>) -> Self {
        let mut known = self.clone();
        for (_, fellow) in known.nodes.iter_mut().filter(|(node, _)| silent.contains(*node)) {
            fellow.life = Life::Ended(EndReason::NodeSilent);
        }
        known
    }

    /// What is known when this node has asked others on the wire, and this is what came of it ([`Decision::ask`](crate::Decision)).
    #[must_use]
    pub fn asked(&self, wire: &BTreeMap<Node, Wire>) -> Self {
        let mut known = self.clone();
        for (node, fellow) in &mut known.nodes {
            fellow.wire = wire.get(node).copied().unwrap_or_default();
        }
        known
    }

    /// What is known when the forwarders of these nodes have not renewed their Leases for [`STALE`](crate::STALE).
    #[must_use]
    pub fn with_stale(&self, stale: &BTreeSet<Node>) -> Self {
        let mut known = self.clone();
        for (_, fellow) in known.nodes.iter_mut().filter(|(node, _)| stale.contains(*node)) {
            fellow.forwarder.iter_mut().for_each(|it| it.stale = true);
        }
        known
    }
}

/// What is known of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fellow {
    /// Whether its session counts.
    pub life: Life,
    /// Which of its sessions that is.
    pub epoch: Epoch,
    /// What this node has found out by asking it.
    pub wire: Wire,
    /// The interfaces that it announces on, as its session says (annotation `arpeggio.dev/interfaces`). Stays as it was when the
    /// session has ended.
    pub reach: Reach,
    /// The MAC addresses of those interfaces, by the node's own addresses on them (annotation `arpeggio.dev/link-addresses`).
    pub macs: BTreeMap<IpAddr, Mac>,
    /// What Kubernetes says of the node. `None`: not known, which speaks against nobody.
    pub facts: Option<NodeFacts>,
    /// Its forwarder, when that has a Lease of its own which still counts. `None`: it has none, or that is gone.
    pub forwarder: Option<Forwarder>,
}

/// Whether a node's session counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Life {
    /// It does, also while somebody accuses it.
    Live,
    /// It was ended.
    Ended(EndReason),
}

/// Whether a node answers at its own address on the segment, where another one would give packets to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Wire {
    /// It was not asked, or not for long enough to say.
    #[default]
    Unasked,
    /// It has answered just now.
    Answers,
    /// It has not, though it was asked again and again.
    Silent,
    /// It cannot be asked.
    Unknown,
}

/// What the forwarder of a node says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarder {
    /// Why it cannot pass packets on (its kernel lacks something, say), for people. `None`: it can.
    pub trouble: Option<String>,
    /// The connections that it counts of addresses that it does not serve, by the addresses that it counts them of. A zero says
    /// that none is left. `None`: it has not counted yet.
    pub connections: Option<BTreeMap<IpAddr, u32>>,
    /// It has not renewed its Lease for so long that it does not run any more, though nobody has taken back what it said.
    pub stale: bool,
    /// It drops packets that are marked where nobody is left to ask. One of a release that does not would have a backend reset them.
    pub knows_mark: bool,
    /// Its last write, which tells what it says now from what it said before.
    pub written: Written,
}

/// A write of a forwarder, as its Lease shows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// The version of the Lease, which others change as well.
    pub version: Version,
    /// What they do not change. `None`: the Lease does not say.
    pub renewal: Option<Renewal>,
}

impl Written {
    /// Whether the forwarder has written since `earlier`. Where the Lease does not tell, each change counts.
    pub(crate) fn is_renewal_of(self, earlier: Self) -> bool {
        self.renewal != earlier.renewal || self.renewal.is_none() && self.version != earlier.version
    }

    /// Whether it comes after `earlier`. What the API server shows once it was put back to an earlier state does not.
    pub(crate) fn is_after(self, earlier: Self) -> bool {
        let is_another = self.renewal.is_some() && self.renewal != earlier.renewal;
        is_another && self.version > earlier.version
    }
}

/// What is known of one address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Address {
    /// The node that its lock names, whether or not that node's session counts.
    pub holder: Option<Node>,
    /// Where it may be announced, as its lock says.
    pub terms: AnnounceTerms,
    /// All nodes that can are to serve it: one of the Services behind it, or the pool's announce rule, says so.
    pub spread: bool,
    /// What is behind it, of all Services that share it.
    pub services: BTreeMap<Port, Service>,
}

/// Where a Service is reached at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// `ServicePort.protocol`.
    pub protocol: Protocol,
    /// `ServicePort.port`.
    pub number: u16,
}

/// The transport protocols that are looked into. SCTP is not: its packets stay where they arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP, QUIC among it.
    Udp,
}

/// One port of a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// `spec.sessionAffinity: ClientIP`: all connections of a client go to the same node.
    pub affinity: bool,
    /// It speaks QUIC: UDP, and port 443 or an `appProtocol` that says so.
    pub quic: bool,
    /// Who takes its traffic.
    pub endpoints: Endpoints,
}

/// Who takes the traffic of a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Endpoints {
    /// `externalTrafficPolicy: Cluster`: every node, since each hands it on to any endpoint.
    #[default]
    Anywhere,
    /// `externalTrafficPolicy: Local`: the nodes that have endpoints, and how many of them are ready. A node whose endpoints only
    /// end is not among them.
    OnNodes(BTreeMap<Node, u32>),
}

impl Protocol {
    /// Its name in a Service.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// As `kubectl` writes it: `443/TCP`.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_write_is_no_renewal() {
        let written = |version, renewal: Option<i64>| Written {
            version: Version(version),
            renewal: renewal.map(Renewal),
        };
        let table = [
            (written(7, Some(1)), written(8, Some(1)), false),
            (written(7, Some(1)), written(8, Some(2)), true),
            (written(7, Some(1)), written(6, Some(0)), true),
            (written(7, None), written(7, None), false),
            (written(7, None), written(8, None), true),
        ];
        for (earlier, later, expected) in table {
            assert_eq!(later.is_renewal_of(earlier), expected, "{earlier:?} {later:?}");
        }
    }

    #[test]
    fn only_a_later_write_of_its_own_is_after_another_one() {
        let written = |version, renewal: Option<i64>| Written {
            version: Version(version),
            renewal: renewal.map(Renewal),
        };
        let earlier = written(7, Some(1));
        let table = [
            (earlier, false),
            (written(8, Some(1)), false),
            (written(8, Some(2)), true),
            (written(6, Some(0)), false),
            (written(8, None), false),
        ];
        for (later, expected) in table {
            assert_eq!(later.is_after(earlier), expected, "{later:?}");
        }
    }
}

//! On which terms Services share an address.

use alloc::collections::BTreeSet;
use core::fmt;

use crate::{names::SharingKey, selector::Labels};

/// On which terms a Service shares its address: with those that have the same key and backend, and other ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sharing {
    /// The key that all sharers have.
    pub key: SharingKey,
    /// Where its traffic goes.
    pub backend: Backend,
    /// What it listens on.
    pub ports: BTreeSet<Port>,
}

/// Where the traffic of a shared address goes. One node announces an address for all that share it, so all of them must
/// be served by any node, or all by the same pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// Every node serves it (`externalTrafficPolicy: Cluster`).
    Anywhere,
    /// Only nodes with the pods that this selects serve it (`externalTrafficPolicy: Local`). Services without a
    /// selector have endpoints of their own and share with nobody.
    Local(Labels),
}

/// A port that a Service listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

/// The protocols of `Service.spec.ports[].protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        };
        write!(f, "{protocol}/{}", self.number)
    }
}

//! What is counted.

use std::net::IpAddr;

use arpeggio_forwarding::{Hop, Mac};

/// What one named counter counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counting {
    /// Packets of unknown connections to an address that came from outside and went to another node.
    PassedFromOutside(IpAddr),
    /// The same, but a fellow had given them to this node.
    PassedFromFellow(IpAddr),
    /// Packets of connections that no living node knows, and that were reset.
    Reset(IpAddr),
    /// Packets to a spread address that this node, which announces it, gave to another one.
    Spread {
        /// The address.
        address: IpAddr,
        /// The name of the node that got them.
        node: String,
        /// The MAC address by which it got them.
        mac: Mac,
        /// The device by which they left.
        interface: String,
    },
    /// Packets to a spread address that stayed at this node, which announces it.
    Stayed(IpAddr),
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// What it counts.
    pub counting: Counting,
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Counting {
    /// To a node.
    pub(super) fn spread(address: IpAddr, hop: &Hop) -> Self {
        let node = hop.node.to_string();
        Self::Spread { address, node, mac: hop.mac, interface: hop.interface.clone() }
    }

    /// The name in the kernel. It has no node's name, which may be longer than the kernel takes.
    pub(super) fn name(&self) -> String {
        match self {
            Self::PassedFromOutside(address) => format!("passed {address}"),
            Self::PassedFromFellow(address) => format!("passed further {address}"),
            Self::Reset(address) => format!("reset {address}"),
            Self::Spread { address, mac, interface, .. } => {
                let mac: Vec<_> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("to {address} {} {interface}", mac.join(":"))
            }
            Self::Stayed(address) => format!("stayed {address}"),
        }
    }
}

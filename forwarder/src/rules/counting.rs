//! What is counted.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use arpeggio_forwarding::{Hop, Mac};
use arpeggio_netfilter::{Error, Netfilter, Table};

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

/// The counters of some rules.
#[derive(Debug, Clone)]
pub struct Counters {
    pub(super) tables: Vec<Table>,
    /// What they count, by their names.
    pub(super) counting: Arc<BTreeMap<String, Counting>>,
}

impl Counters {
    /// What was counted, by address and kind, since the rules of that kind were made.
    ///
    /// # Errors
    ///
    /// When the kernel does not list its counters.
    pub fn read(&self, netfilter: &mut Netfilter) -> Result<Vec<Counter>, Error> {
        let mut counters = Vec::new();
        for table in &self.tables {
            let counted = netfilter.counters(table)?;
            let known = counted.into_iter().filter_map(|counted| {
                let counting = self.counting.get(&counted.name)?.clone();
                Some(Counter { counting, packets: counted.packets, bytes: counted.bytes })
            });
            counters.extend(known);
        }
        Ok(counters)
    }
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

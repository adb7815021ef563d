//! The kernel's knowledge of where the other nodes are.
//!
//! A packet that is passed on to a node whose MAC address the kernel does not know waits for the answer to a question. With
//! IPv6 it then goes to the wrong neighbour: the kernel asks for the packet's destination instead of the node (seen with 6.18). So the
//! kernel is told beforehand what sessions say. It makes sure of that by itself, as of everything that it has not used for long.

use std::{collections::BTreeSet, net::IpAddr};

use arpeggio_forwarding::Hop;
use netlink_packet_route::neighbour::NeighbourState;
use nix::net::if_::if_nametoindex;
use rtnetlink::Handle;

/// What "it is there already" is called (`EEXIST`).
const EXISTS: i32 = 17;

/// Tells the kernel of neighbours. A clone tells the same kernel.
#[derive(Debug, Clone)]
pub struct Neighbours {
    handle: Handle,
}

impl Neighbours {
    /// Opens what they are told by. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When there is no such socket.
    pub fn new() -> std::io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Tells the kernel of each node that packets are given to and that it does not know yet. Returns what it refused.
    pub async fn tell(&self, hops: &BTreeSet<Hop>) -> Vec<(IpAddr, rtnetlink::Error)> {
        let mut refused = Vec::new();
        for hop in hops {
            let Ok(index) = if_nametoindex(hop.interface.as_str()) else { continue };
            let told = self.handle.neighbours().add(index, hop.next_hop);
            let told = told.link_layer_address(&hop.mac).state(NeighbourState::Stale);
            match told.execute().await {
                Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -EXISTS => {}
                Err(error) => refused.push((hop.next_hop, error)),
                Ok(()) => {}
            }
        }
        refused
    }
}

//! The kernel's knowledge of where the other nodes are.
//!
//! A packet that is passed on to a node whose MAC address the kernel does not know waits for the answer to a question. With
//! IPv6 it then goes to the wrong neighbour: the kernel asks for the packet's destination instead of the node (seen with 6.18). So the
//! kernel is told beforehand what sessions say. It makes sure of that by itself, as of everything that it has not used for long.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use arpeggio_forwarding::{Hop, Mac};
use futures::TryStreamExt as _;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use nix::net::if_::if_nametoindex;
use rtnetlink::{Error, Handle};

/// What "it is there already" is called (`EEXIST`).
const EXISTS: i32 = 17;

/// A neighbour's place: the device and the address.
type Place = (u32, IpAddr);

/// Tells the kernel of neighbours.
#[derive(Debug)]
pub struct Neighbours {
    handle: Handle,
    /// What the kernel was told last.
    told: BTreeMap<Place, Mac>,
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
        Ok(Self { handle, told: BTreeMap::new() })
    }

    /// Tells the kernel of each node that packets are given to: what it does not know yet, has not found, and what is not so any
    /// more. Returns what it refused.
    pub async fn tell(&mut self, hops: &BTreeSet<Hop>) -> Vec<(IpAddr, Error)> {
        if hops.is_empty() {
            return Vec::new();
        }
        let mut refused = Vec::new();
        let before = std::mem::take(&mut self.told);
        // What the kernel does not list it is told as well as it can be.
        let not_found = self.not_found().await.unwrap_or_default();
        for hop in hops {
            let Ok(index) = if_nametoindex(hop.interface.as_str()) else { continue };
            let place = (index, hop.next_hop);
            let is_other = before.get(&place).is_some_and(|mac| *mac != hop.mac);
            match self.tell_one(index, hop, is_other || not_found.contains(&place)).await {
                Err(error) => refused.push((hop.next_hop, error)),
                Ok(()) => drop(self.told.insert(place, hop.mac)),
            }
        }
        refused
    }

    /// The neighbours that the kernel has asked for, and that have not answered.
    async fn not_found(&self) -> Result<BTreeSet<Place>, Error> {
        let all: Vec<_> = self.handle.neighbours().get().execute().try_collect().await?;
        let is_lost = |it: &&NeighbourMessage| {
            matches!(it.header.state, NeighbourState::Failed | NeighbourState::Incomplete)
        };
        Ok(all.iter().filter(is_lost).filter_map(place).collect())
    }

    /// What the kernel has found out by itself stays, unless that `is_wrong`.
    async fn tell_one(&self, device: u32, hop: &Hop, is_wrong: bool) -> Result<(), Error> {
        let told = self.handle.neighbours().add(device, hop.next_hop);
        let told = told.link_layer_address(&hop.mac).state(NeighbourState::Stale);
        let told = if is_wrong { told.replace() } else { told };
        match told.execute().await {
            Err(Error::NetlinkError(error)) if error.raw_code() == -EXISTS => Ok(()),
            other => other,
        }
    }
}

fn place(neighbour: &NeighbourMessage) -> Option<Place> {
    let address = neighbour.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(it)) => Some(IpAddr::from(*it)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(it)) => Some(IpAddr::from(*it)),
        _ => None,
    });
    Some((neighbour.header.ifindex, address?))
}

//! What one node sees of the segment and of Services: what it is asked, and what it answers, as JSON between two programs of
//! ours. A field that one side does not know is ignored by it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What a node is to find out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Questions {
    /// The addresses to ask the segment for.
    pub ask: Vec<Wanted>,
    /// Where to open a TCP connection.
    pub connect: Vec<SocketAddr>,
    /// Where to send a UDP datagram with nothing in it.
    pub knock: Vec<SocketAddr>,
    /// The addresses that DHCP servers are asked for.
    pub lease: Vec<Ipv4Addr>,
}

/// An address to ask the segment for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    /// The address.
    pub address: IpAddr,
    /// Where it should be: asked there by unicast, after everybody was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Where to ask, if not where the node would announce the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

/// What a node has found out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Survey {
    /// Who has answered, for each address asked for.
    pub answers: Vec<Answers>,
    /// Who has asked for this node's own addresses meanwhile.
    pub heard: Vec<Heard>,
    /// What became of the connections.
    pub connects: Vec<Connect>,
    /// What became of the datagrams. No error: nobody has refused it, which is all that can be known.
    pub knocks: Vec<Connect>,
    /// What DHCP servers would give out.
    pub offers: Vec<Offer>,
    /// Why no DHCP server was asked, where one should have been.
    pub unleased: Vec<String>,
    /// What kube-proxy says of its mode on this node.
    pub proxy_mode: Option<String>,
    /// Whether the kernel answers ARP only for addresses of the interface that was asked on (`arp_ignore`).
    pub strict_arp: Option<bool>,
    /// The subnets of the interfaces that have neighbours.
    pub subnets: Vec<IpNet>,
    /// Where the kernel drops what comes from beyond a router.
    pub strict_paths: Vec<StrictPath>,
    /// The kernel's tables of neighbours, as far as the node's kernel lets its network see them.
    pub neighbours: Vec<Neighbours>,
}

/// An interface on which the kernel takes nothing from machines that it would answer by another one (`rp_filter`), while its default
/// route leaves by another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StrictPath {
    /// Its name.
    pub interface: String,
    /// Its subnets, IPv4.
    pub subnets: Vec<IpNet>,
    /// The interface by which the default route leaves.
    pub default_by: String,
}

/// A kernel's table of the neighbours of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Neighbours {
    /// The setting that says how many there may be (`net.ipv4.neigh.default.gc_thresh3`).
    pub setting: String,
    /// How many there are.
    pub entries: u32,
    /// How many there may be.
    pub limit: u32,
}

impl Neighbours {
    /// Whether the table is full, or will soon be.
    pub fn are_many(&self) -> bool {
        u64::from(self.entries) * 10 >= u64::from(self.limit) * 9
    }
}

/// Who has answered for an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answers {
    /// The address.
    pub address: IpAddr,
    /// How many answers came to questions to everybody, by MAC address.
    pub broadcast: BTreeMap<String, u32>,
    /// How many came to questions by unicast. `None`: there were no such questions.
    pub unicast: Option<BTreeMap<String, u32>>,
    /// Why nobody was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unasked: Option<String>,
}

impl Answers {
    /// Everybody who has answered.
    pub fn macs(&self) -> impl Iterator<Item = &str> {
        let unicast = self.unicast.iter().flatten().map(|(mac, _)| mac);
        let unicast = unicast.filter(|mac| !self.broadcast.contains_key(*mac));
        self.broadcast.keys().chain(unicast).map(String::as_str)
    }
}

/// Somebody who has asked for an address of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heard {
    /// The asker's address.
    pub address: IpAddr,
    /// How many of the questions were to everybody.
    pub broadcast: u32,
    /// How many were to this node only.
    pub unicast: u32,
}

/// What a DHCP server would give a machine that asks it for an address. Nobody has taken it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// What it was asked for.
    pub wanted: Ipv4Addr,
    /// What it offers.
    pub address: Ipv4Addr,
    /// The server.
    pub server: Ipv4Addr,
}

/// What became of a TCP connection, or of a UDP datagram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connect {
    /// Where to.
    pub to: SocketAddr,
    /// Why it failed; `None`: it has not.
    pub error: Option<String>,
}

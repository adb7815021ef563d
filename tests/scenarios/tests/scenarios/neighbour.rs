//! What a machine's kernel knows of an address: an entry of its neighbour table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::Context as _;
use arpeggio_lab::{Machine, plan::mac_text};
use arpeggio_scenarios::Home;

/// An entry of a machine's neighbour table.
#[derive(Debug)]
pub(crate) struct Neighbour {
    /// The MAC address, if one is known.
    pub(crate) mac: Option<String>,
    /// `REACHABLE`, `STALE` and so on.
    pub(crate) state: String,
}

impl Neighbour {
    /// The node with that MAC address.
    pub(crate) fn node(&self, home: &Home) -> anyhow::Result<Machine> {
        let nodes = home.lab.options().node_machines();
        let is = |node: &Machine| node.mac().map(mac_text).is_some_and(|mac| Some(mac) == self.mac);
        let node = nodes.into_iter().find(is);
        node.with_context(|| format!("{:?} ({}) is no node", self.mac, self.state))
    }
}

/// What `machine` knows of `address`.
pub(crate) fn neighbour(
    home: &Home,
    machine: Machine,
    address: IpAddr,
) -> anyhow::Result<Neighbour> {
    let family = if address.is_ipv4() { "-4" } else { "-6" };
    let namespace = home.lab.namespace(machine);
    let entry = namespace.run("ip", &[family, "neighbour", "show", "to", &address.to_string()])?;
    let words: Vec<&str> = entry.split_whitespace().collect();
    let after = |word: &str| {
        let position = words.iter().position(|it| *it == word)?;
        words.get(position + 1).map(|it| (*it).to_owned())
    };
    let state = words.last().with_context(|| format!("{machine} knows nothing of {address}"))?;
    Ok(Neighbour { mac: after("lladdr"), state: (*state).to_owned() })
}

/// Sends a datagram to nobody in particular at `address`, so that the kernel needs its neighbour.
pub(crate) fn touch(home: &Home, machine: Machine, address: IpAddr) -> anyhow::Result<()> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let sent = home.lab.namespace(machine).enter(|| {
        let socket = UdpSocket::bind((any, 0))?;
        socket.send_to(b"?", SocketAddr::new(address, 9))
    })?;
    sent.with_context(|| format!("{machine} cannot send")).map(drop)
}

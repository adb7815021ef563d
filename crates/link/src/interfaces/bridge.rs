//! Bridges: where their frames come in.

use std::{collections::BTreeMap, io};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{Medium, decode, layers, message::Message};
use crate::calls::uninterrupted;

/// What the kernel calls bridges, and their ports.
const BRIDGE: &str = "bridge";

/// What one read takes: the kernel fills up to 32 KiB at a time when it lists things.
const READ: usize = 32 * 1024;

/// A bridge of this network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Its own MAC address: that of the frames which the bridge takes for this machine. Its ports may have others.
    pub mac: [u8; 6],
    /// The indexes of its ports, by their names.
    pub ports: BTreeMap<String, u32>,
}

impl Bridge {
    /// Looks whether the interface with this index is one. Waits for nothing but the kernel. Needs no privilege.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn look(index: u32) -> io::Result<Option<Self>> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let mut itself = LinkMessage::default();
        itself.header.index = index;
        let Some(mac) = ask(&socket, itself, NLM_F_ACK)?.iter().find_map(mac_of_a_bridge) else {
            return Ok(None);
        };
        let mut below = LinkMessage::default();
        below.attributes.push(LinkAttribute::Controller(index));
        let ports = ask(&socket, below, NLM_F_DUMP)?;
        Ok(Some(Self { mac, ports: ports.iter().filter_map(|it| port(it, index)).collect() }))
    }
}

/// The interfaces that the kernel answers with.
fn ask(socket: &Socket, question: LinkMessage, flags: u16) -> io::Result<Vec<LinkMessage>> {
    let question = Message(Some(RouteNetlinkMessage::GetLink(question)));
    let mut question = NetlinkMessage::new(NetlinkHeader::default(), question.into());
    question.header.flags = NLM_F_REQUEST | flags;
    question.finalize();
    let mut bytes = vec![0; question.buffer_len()];
    question.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (mut links, mut buffer) = (Vec::new(), Vec::with_capacity(READ));
    loop {
        buffer.clear();
        uninterrupted(|| socket.recv(&mut buffer, 0))?;
        if read(&buffer, &mut links)? {
            return Ok(links);
        }
    }
}

/// Whether that was the last of the answer.
fn read(mut bytes: &[u8], links: &mut Vec<LinkMessage>) -> io::Result<bool> {
    while !bytes.is_empty() {
        let message = NetlinkMessage::<Message>::deserialize(bytes).map_err(io::Error::other)?;
        let length = (message.header.length as usize).next_multiple_of(4).max(4);
        match message.payload {
            NetlinkPayload::InnerMessage(Message(Some(RouteNetlinkMessage::NewLink(link)))) => {
                links.push(link);
            }
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(true),
            _ => {}
        }
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(false)
}

fn mac_of_a_bridge(link: &LinkMessage) -> Option<[u8; 6]> {
    let found = decode::interface(link);
    match found.medium {
        Medium::Ethernet(mac) if found.kind.as_deref() == Some(BRIDGE) => Some(mac.octets()),
        _ => None,
    }
}

/// A kernel may list more than it was asked for.
fn port(link: &LinkMessage, bridge: u32) -> Option<(String, u32)> {
    let found = decode::interface(link);
    let is_port = found.member_of.as_deref() == Some(BRIDGE) && layers::upper(link) == Some(bridge);
    is_port.then_some((found.name, found.index))
}

//! Bridges: where their frames come in.

use std::{collections::BTreeMap, io};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, InfoPortKind, LinkAttribute, LinkInfo, LinkMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::message::Message;

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
        match socket.recv(&mut buffer, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
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

fn infos(link: &LinkMessage) -> impl Iterator<Item = &LinkInfo> {
    let infos = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    infos.flatten()
}

fn mac_of_a_bridge(link: &LinkMessage) -> Option<[u8; 6]> {
    let is_bridge = infos(link).any(|info| matches!(info, LinkInfo::Kind(InfoKind::Bridge)));
    let mac = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(mac) => mac.as_slice().try_into().ok(),
        _ => None,
    });
    mac.filter(|_| is_bridge)
}

/// A kernel may list more than it was asked for.
fn port(link: &LinkMessage, bridge: u32) -> Option<(String, u32)> {
    let is_port = infos(link).any(|info| matches!(info, LinkInfo::PortKind(InfoPortKind::Bridge)))
        && link.attributes.contains(&LinkAttribute::Controller(bridge));
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.filter(|_| is_port).map(|name| (name, link.header.index))
}

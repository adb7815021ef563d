//! Neighbour discovery for IPv6 on Ethernet (RFC 4861): solicitations and advertisements.
//!
//! [`NdpFrame`] is what is on the wire; as with ARP it means a [`Question`], a [`Claim`] or both.

use core::net::Ipv6Addr;
use core::ops::Deref;

use pnet_base::MacAddr;
use pnet_packet::Packet;
use pnet_packet::ethernet::{EtherType, EtherTypes, EthernetPacket};
use pnet_packet::icmpv6::ndp::{NeighborAdvertPacket, NeighborSolicitPacket};
use pnet_packet::icmpv6::{self, Icmpv6Packet};
use pnet_packet::ipv6::Ipv6Packet;

mod error;
mod options;

use crate::ethernet::{self, is_station, is_vlan_tag};
use crate::ipv6::{self, ALL_NODES, ICMPV6, ON_LINK_HOP_LIMIT, multicast_mac, solicited_node};
use crate::{Asker, Claim, Question};
pub use error::NdpError;
use options::{LINK_ADDRESS_LEN, link_address, link_address_option};

/// Bytes of a message without options: type, code, checksum, flags, target.
const MESSAGE_LEN: usize = 24;
/// Where the message begins in a frame.
const MESSAGE: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;

/// What an NDP frame does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NdpMessage {
    /// Type 135: asks for the target (RFC 4861 section 4.3).
    Solicitation,
    /// Type 136: tells the target's link-layer address (RFC 4861 section 4.4).
    Advertisement {
        /// R: the target forwards for others.
        router: bool,
        /// S: somebody asked; proves that both directions work.
        solicited: bool,
        /// O: replaces what the receiver knew.
        overriding: bool,
    },
}

/// One neighbour solicitation or advertisement in its Ethernet frame.
///
/// What [`parse`](Self::parse) returns keeps the rules of RFC 4861 sections 7.1.1 and 7.1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NdpFrame {
    /// Ethernet destination.
    pub destination: MacAddr,
    /// Ethernet source.
    pub source: MacAddr,
    /// IPv6 source; `::` in a probe.
    pub sender: Ipv6Addr,
    /// IPv6 destination.
    pub receiver: Ipv6Addr,
    /// Type and flags.
    pub message: NdpMessage,
    /// The address that it is about.
    pub target: Ipv6Addr,
    /// The link-layer address option: the sender's in a solicitation, the target's in an
    /// advertisement. May be missing when the receiver is known to know it.
    pub link_address: Option<MacAddr>,
}

impl NdpFrame {
    /// Bytes of a frame with the one option that we know. Frames of others can have more options,
    /// so they can be longer.
    pub const MAX_LEN: usize = MESSAGE + MESSAGE_LEN + LINK_ADDRESS_LEN;

    /// Reads a frame that starts with its Ethernet header. Bytes after the IPv6 payload are padding
    /// and ignored, whatever they hold.
    ///
    /// # Errors
    /// A reason why this is no solicitation or advertisement, or one that RFC 4861 sections 7.1.1
    /// and 7.1.2 tell to discard.
    pub fn parse(bytes: &[u8]) -> Result<Self, NdpError> {
        let ethernet = EthernetPacket::new(bytes).ok_or(NdpError::Truncated)?;
        check_ethernet_type(ethernet.get_ethertype())?;
        let packet = Ipv6Packet::new(ethernet.payload()).ok_or(NdpError::Truncated)?;
        check_packet(&packet)?;
        let icmp = Icmpv6Packet::new(packet.payload()).ok_or(NdpError::Truncated)?;
        let content = Content::of(&icmp)?;
        if icmp.get_checksum()
            != icmpv6::checksum(&icmp, &packet.get_source(), &packet.get_destination())
        {
            return Err(NdpError::Checksum);
        }
        Self {
            destination: ethernet.get_destination(),
            source: ethernet.get_source(),
            sender: packet.get_source().octets().into(),
            receiver: packet.get_destination().octets().into(),
            message: content.message,
            target: content.target,
            link_address: link_address(content.options, content.message.link_address_kind())?,
        }
        .checked()
    }

    /// The rules that join several fields.
    fn checked(self) -> Result<Self, NdpError> {
        let is_probe = self.message == NdpMessage::Solicitation && self.sender.is_unspecified();
        if self.target.is_multicast() {
            return Err(NdpError::MulticastTarget);
        }
        if is_probe && self.receiver != solicited_node(self.target) {
            return Err(NdpError::ProbeDestination);
        }
        if is_probe && self.link_address.is_some() {
            return Err(NdpError::ProbeLinkAddress);
        }
        match self.message {
            NdpMessage::Advertisement { solicited: true, .. } if self.receiver.is_multicast() => {
                Err(NdpError::SolicitedMulticast)
            }
            _ => Ok(self),
        }
    }

    /// The frame as it goes on the wire, checksum included.
    pub fn to_bytes(&self) -> NdpBytes {
        let option_len = if self.link_address.is_some() { LINK_ADDRESS_LEN } else { 0 };
        let message = MESSAGE..MESSAGE + MESSAGE_LEN + option_len;
        let mut bytes = [0; Self::MAX_LEN];
        let header = ethernet::header(self.destination, self.source, EtherTypes::Ipv6);
        bytes[..ethernet::HEADER_LEN].copy_from_slice(&header);
        bytes[MESSAGE] = self.message.type_number();
        bytes[MESSAGE + 4] = self.message.flags();
        bytes[MESSAGE + 8..MESSAGE + MESSAGE_LEN].copy_from_slice(&self.target.octets());
        if let Some(mac) = self.link_address {
            let option = link_address_option(self.message.link_address_kind(), mac);
            bytes[MESSAGE + MESSAGE_LEN..].copy_from_slice(&option);
        }
        #[expect(clippy::cast_possible_truncation, reason = "24 or 32")]
        let length = message.len() as u16;
        let header = ipv6::header(self.sender, self.receiver, length);
        bytes[ethernet::HEADER_LEN..MESSAGE].copy_from_slice(&header);
        let sum = ipv6::checksum(self.sender, self.receiver, length, &bytes[message.clone()]);
        bytes[MESSAGE + 2..MESSAGE + 4].copy_from_slice(&sum.to_be_bytes());
        NdpBytes { bytes, length: message.end }
    }

    /// What the frame asks, if it asks and can be answered.
    ///
    /// Without a link-layer address option the answer goes to where the frame came from (RFC 4861
    /// section 7.2.4 leaves it to the sender of a unicast solicitation to omit it). A sender at a
    /// group or zero MAC is not answered.
    pub fn question(&self) -> Option<Question<Ipv6Addr>> {
        let mac = self.link_address.unwrap_or(self.source);
        let is_question = self.message == NdpMessage::Solicitation
            && self.sender != self.target
            && is_station(mac);
        is_question.then(|| Question {
            address: self.target,
            asker: Asker { mac, address: specified(self.sender) },
        })
    }

    /// Whose MAC the frame tells: the target's in an advertisement, the sender's in a solicitation
    /// with its link-layer address. A probe claims nothing.
    pub fn claim(&self) -> Option<Claim<Ipv6Addr>> {
        let (address, mac) = match self.message {
            NdpMessage::Solicitation => (self.sender, self.link_address?),
            NdpMessage::Advertisement { .. } => {
                (self.target, self.link_address.unwrap_or(self.source))
            }
        };
        specified(address).map(|address| Claim { address, mac })
    }
}

/// A frame of ours, ready to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NdpBytes {
    bytes: [u8; NdpFrame::MAX_LEN],
    length: usize,
}

impl Deref for NdpBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl NdpMessage {
    const fn type_number(self) -> u8 {
        match self {
            Self::Solicitation => 135,
            Self::Advertisement { .. } => 136,
        }
    }

    /// The option that goes with the message: 1, source link-layer address, or 2, target's.
    const fn link_address_kind(self) -> u8 {
        match self {
            Self::Solicitation => 1,
            Self::Advertisement { .. } => 2,
        }
    }

    const fn flags(self) -> u8 {
        match self {
            Self::Solicitation => 0,
            Self::Advertisement { router, solicited, overriding } => {
                (router as u8) << 7 | (solicited as u8) << 6 | (overriding as u8) << 5
            }
        }
    }

    fn advertisement(flags: u8) -> Self {
        let has = |bit: u8| flags >> bit & 1 == 1;
        Self::Advertisement { router: has(7), solicited: has(6), overriding: has(5) }
    }
}

impl Question<Ipv6Addr> {
    /// The question to all whose address ends like the one asked for: to its solicited-node group
    /// (RFC 4861 section 7.2.2), and as a probe (RFC 4862 section 5.4.2) if the asker has no
    /// address.
    pub fn multicast(self) -> NdpFrame {
        let group = solicited_node(self.address);
        self.sent_to(multicast_mac(group), group)
    }

    /// The question to one machine only, which answers if the address is still its own (RFC 4861
    /// section 7.3.3). A probe goes to the group of the address also then: receivers discard any
    /// other.
    pub fn unicast(self, to: MacAddr) -> NdpFrame {
        let receiver = self.asker.address.map_or(solicited_node(self.address), |_| self.address);
        self.sent_to(to, receiver)
    }

    fn sent_to(self, destination: MacAddr, receiver: Ipv6Addr) -> NdpFrame {
        NdpFrame {
            destination,
            source: self.asker.mac,
            sender: self.asker.address.unwrap_or(Ipv6Addr::UNSPECIFIED),
            receiver,
            message: NdpMessage::Solicitation,
            target: self.address,
            link_address: self.asker.address.map(|_| self.asker.mac),
        }
    }

    /// The advertisement "it is at `mac`": to the asker, or to everybody when the asker has no
    /// address yet, since it listens to groups only (RFC 4861 section 7.2.4).
    ///
    /// It overrides: the address is announced by one machine only, and an asker that still knows
    /// the last one is to forget it. Its source is the address itself.
    pub fn answer(self, mac: MacAddr) -> NdpFrame {
        let claim = Claim { address: self.address, mac };
        match self.asker.address {
            Some(asker) => NdpFrame {
                destination: self.asker.mac,
                receiver: asker,
                message: NdpMessage::Advertisement {
                    router: false,
                    solicited: true,
                    overriding: true,
                },
                ..claim.advertisement()
            },
            None => claim.advertisement(),
        }
    }
}

impl Claim<Ipv6Addr> {
    /// The claim told to everybody unasked (RFC 4861 section 7.2.6).
    ///
    /// It goes to all nodes, which includes the routers that RFC 9131 tells to remember a neighbour
    /// from it that they have not talked to yet.
    pub fn advertisement(self) -> NdpFrame {
        NdpFrame {
            destination: multicast_mac(ALL_NODES),
            source: self.mac,
            sender: self.address,
            receiver: ALL_NODES,
            message: NdpMessage::Advertisement {
                router: false,
                solicited: false,
                overriding: true,
            },
            target: self.address,
            link_address: Some(self.mac),
        }
    }
}

/// What stands in an ICMPv6 message.
struct Content<'a> {
    message: NdpMessage,
    target: Ipv6Addr,
    options: &'a [u8],
}

impl<'a> Content<'a> {
    fn of(icmp: &'a Icmpv6Packet) -> Result<Self, NdpError> {
        let bytes = icmp.packet();
        let options = bytes.get(MESSAGE_LEN..).ok_or(NdpError::Truncated)?;
        let (message, target) = match icmp.get_icmpv6_type().0 {
            135 => {
                let view = NeighborSolicitPacket::new(bytes).ok_or(NdpError::Truncated)?;
                (NdpMessage::Solicitation, view.get_target_addr().octets())
            }
            136 => {
                let view = NeighborAdvertPacket::new(bytes).ok_or(NdpError::Truncated)?;
                (NdpMessage::advertisement(view.get_flags()), view.get_target_addr().octets())
            }
            _ => return Err(NdpError::MessageType),
        };
        match icmp.get_icmpv6_code().0 {
            0 => Ok(Self { message, target: target.into(), options }),
            _ => Err(NdpError::Code),
        }
    }
}

fn check_ethernet_type(content: EtherType) -> Result<(), NdpError> {
    match content {
        EtherTypes::Ipv6 => Ok(()),
        tag if is_vlan_tag(tag) => Err(NdpError::VlanTagged),
        _ => Err(NdpError::NotIpv6),
    }
}

fn check_packet(packet: &Ipv6Packet) -> Result<(), NdpError> {
    if packet.get_version() != 6 {
        return Err(NdpError::NotIpv6);
    }
    if packet.get_next_header().0 != ICMPV6 {
        return Err(NdpError::NotIcmpv6);
    }
    if packet.get_hop_limit() != ON_LINK_HOP_LIMIT {
        return Err(NdpError::HopLimit);
    }
    if packet.get_source().is_multicast() {
        return Err(NdpError::MulticastSource);
    }
    if packet.payload().len() < usize::from(packet.get_payload_length()) {
        return Err(NdpError::Truncated);
    }
    Ok(())
}

fn specified(address: Ipv6Addr) -> Option<Ipv6Addr> {
    (!address.is_unspecified()).then_some(address)
}

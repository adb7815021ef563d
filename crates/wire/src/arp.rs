//! The address resolution protocol for IPv4 on Ethernet (RFC 826, RFC 5227).
//!
//! [`ArpFrame`] is what is on the wire. What a frame *means* is one or both of two things: a
//! [`Question`] (who has this address?) and a [`Claim`] (this address is at that MAC). Nearly
//! every frame claims, a question too: it names the address and MAC of its asker.

use core::net::Ipv4Addr;

use pnet_base::MacAddr;
use pnet_packet::Packet;
use pnet_packet::arp::{ArpHardwareTypes, ArpOperations, ArpPacket};
use pnet_packet::ethernet::{EtherType, EtherTypes, EthernetPacket};

use crate::ethernet::{HEADER_LEN, MIN_FRAME_LEN, header, is_station, is_vlan_tag};
use crate::{Asker, Claim, Question};

/// `ar$hln`: bytes of an Ethernet address.
const HARDWARE_LEN: u8 = 6;
/// `ar$pln`: bytes of an IPv4 address.
const PROTOCOL_LEN: u8 = 4;

/// Why bytes are not an ARP frame for IPv4 on Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ArpError {
    /// The frame ends before its last ARP field.
    #[error("the frame is shorter than an Ethernet header and an ARP message")]
    Truncated,
    /// The frame carries a VLAN tag (IEEE 802.1Q or 802.1ad): it belongs to another network.
    #[error("the frame carries a VLAN tag, so it belongs to another network")]
    VlanTagged,
    /// The Ethernet type is not 0x0806.
    #[error("the Ethernet type is not ARP")]
    NotArp,
    /// `ar$hrd` is not 1, Ethernet.
    #[error("the hardware type is not Ethernet")]
    HardwareType,
    /// `ar$pro` is not 0x0800, IPv4.
    #[error("the protocol type is not IPv4")]
    ProtocolType,
    /// `ar$hln` is not 6 or `ar$pln` is not 4.
    #[error("the address lengths are not those of Ethernet and IPv4")]
    AddressLength,
    /// `ar$op` is neither request nor reply (reverse and inverse ARP, for instance).
    #[error("the operation is neither request nor reply")]
    Operation,
}

impl ArpError {
    /// A stable name in `snake_case` for a metric's `reason` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::VlanTagged => "vlan_tagged",
            Self::NotArp => "not_arp",
            Self::HardwareType => "hardware_type",
            Self::ProtocolType => "protocol_type",
            Self::AddressLength => "address_length",
            Self::Operation => "operation",
        }
    }
}

/// What an ARP frame does (`ar$op`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ArpOperation {
    /// 1: asks for the target protocol address.
    Request,
    /// 2: tells the sender's hardware address.
    Reply,
}

impl ArpOperation {
    const fn to_wire(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Reply => 2,
        }
    }
}

/// One ARP message in its Ethernet frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArpFrame {
    /// Ethernet destination.
    pub destination: MacAddr,
    /// Ethernet source. Usually, but not necessarily, the sender's hardware address.
    pub source: MacAddr,
    /// `ar$op`.
    pub operation: ArpOperation,
    /// `ar$sha`.
    pub sender_hardware: MacAddr,
    /// `ar$spa`; 0.0.0.0 in a probe (RFC 5227 section 1.1).
    pub sender_protocol: Ipv4Addr,
    /// `ar$tha`; without meaning in a request.
    pub target_hardware: MacAddr,
    /// `ar$tpa`.
    pub target_protocol: Ipv4Addr,
}

impl ArpFrame {
    /// Bytes of a frame without padding: Ethernet header and ARP message.
    pub const LEN: usize = HEADER_LEN + 28;

    /// Reads a frame that starts with its Ethernet header. Bytes after the ARP message are padding
    /// and ignored, whatever they hold.
    ///
    /// # Errors
    /// The first reason, in the order of the fields, why this is no ARP frame for IPv4 on Ethernet.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArpError> {
        let ethernet = EthernetPacket::new(bytes).ok_or(ArpError::Truncated)?;
        check_ethernet_type(ethernet.get_ethertype())?;
        let arp = ArpPacket::new(ethernet.payload()).ok_or(ArpError::Truncated)?;
        check_types(&arp)?;
        Ok(Self {
            destination: ethernet.get_destination(),
            source: ethernet.get_source(),
            operation: operation(&arp)?,
            sender_hardware: arp.get_sender_hw_addr(),
            sender_protocol: arp.get_sender_proto_addr().octets().into(),
            target_hardware: arp.get_target_hw_addr(),
            target_protocol: arp.get_target_proto_addr().octets().into(),
        })
    }

    /// The frame as it goes on the wire, padded with zeros to the shortest Ethernet frame.
    pub fn to_bytes(&self) -> [u8; MIN_FRAME_LEN] {
        let mut bytes = [0; MIN_FRAME_LEN];
        let ethernet = header(self.destination, self.source, EtherTypes::Arp);
        bytes[..HEADER_LEN].copy_from_slice(&ethernet);
        bytes[14..16].copy_from_slice(&ArpHardwareTypes::Ethernet.0.to_be_bytes());
        bytes[16..18].copy_from_slice(&EtherTypes::Ipv4.0.to_be_bytes());
        bytes[18] = HARDWARE_LEN;
        bytes[19] = PROTOCOL_LEN;
        bytes[20..22].copy_from_slice(&self.operation.to_wire().to_be_bytes());
        bytes[22..28].copy_from_slice(&self.sender_hardware.octets());
        bytes[28..32].copy_from_slice(&self.sender_protocol.octets());
        bytes[32..38].copy_from_slice(&self.target_hardware.octets());
        bytes[38..42].copy_from_slice(&self.target_protocol.octets());
        bytes
    }

    /// What the frame asks, if it asks and can be answered.
    ///
    /// A request for the sender's own address is an announcement (RFC 5227 section 3), not a
    /// question. A sender at a group or zero MAC is not answered: one frame would reach everybody
    /// or nobody (RFC 1812 section 3.3.2 forbids to believe it).
    pub fn question(&self) -> Option<Question<Ipv4Addr>> {
        let is_question = self.operation == ArpOperation::Request
            && self.sender_protocol != self.target_protocol
            && is_station(self.sender_hardware);
        is_question.then(|| Question {
            address: self.target_protocol,
            asker: Asker { mac: self.sender_hardware, address: specified(self.sender_protocol) },
        })
    }

    /// Whose MAC the frame tells: any frame with a sender address does (RFC 5227 section 2.4),
    /// whatever its operation. A probe (sender 0.0.0.0) claims nothing.
    pub fn claim(&self) -> Option<Claim<Ipv4Addr>> {
        specified(self.sender_protocol).map(|address| Claim { address, mac: self.sender_hardware })
    }
}

impl Question<Ipv4Addr> {
    /// The question as a request to everybody on the segment.
    pub fn broadcast(self) -> ArpFrame {
        self.unicast(MacAddr::broadcast())
    }

    /// The question as a request to one machine only, which answers if the address is still its
    /// own (RFC 1122 section 2.3.2.1, unicast poll).
    pub fn unicast(self, to: MacAddr) -> ArpFrame {
        ArpFrame {
            destination: to,
            source: self.asker.mac,
            operation: ArpOperation::Request,
            sender_hardware: self.asker.mac,
            sender_protocol: self.asker.address.unwrap_or(Ipv4Addr::UNSPECIFIED),
            target_hardware: MacAddr::zero(),
            target_protocol: self.address,
        }
    }

    /// The reply "it is at `mac`", to the asker only. A probe is answered with target 0.0.0.0.
    pub fn answer(self, mac: MacAddr) -> ArpFrame {
        ArpFrame {
            destination: self.asker.mac,
            source: mac,
            operation: ArpOperation::Reply,
            sender_hardware: mac,
            sender_protocol: self.address,
            target_hardware: self.asker.mac,
            target_protocol: self.asker.address.unwrap_or(Ipv4Addr::UNSPECIFIED),
        }
    }
}

impl Claim<Ipv4Addr> {
    /// The claim told to everybody unasked: a gratuitous ARP.
    ///
    /// As a request it is the announcement of RFC 5227 section 3 (target hardware address zero); as
    /// a reply that of RFC 5944 section 4.6 (target hardware address as the sender's). Some
    /// receivers update their cache on the one only, some on the other only: send both.
    pub fn announcement(self, operation: ArpOperation) -> ArpFrame {
        ArpFrame {
            destination: MacAddr::broadcast(),
            source: self.mac,
            operation,
            sender_hardware: self.mac,
            sender_protocol: self.address,
            target_hardware: match operation {
                ArpOperation::Request => MacAddr::zero(),
                ArpOperation::Reply => self.mac,
            },
            target_protocol: self.address,
        }
    }
}

fn check_ethernet_type(content: EtherType) -> Result<(), ArpError> {
    match content {
        EtherTypes::Arp => Ok(()),
        tag if is_vlan_tag(tag) => Err(ArpError::VlanTagged),
        _ => Err(ArpError::NotArp),
    }
}

fn check_types(arp: &ArpPacket) -> Result<(), ArpError> {
    if arp.get_hardware_type() != ArpHardwareTypes::Ethernet {
        return Err(ArpError::HardwareType);
    }
    if arp.get_protocol_type() != EtherTypes::Ipv4 {
        return Err(ArpError::ProtocolType);
    }
    if (arp.get_hw_addr_len(), arp.get_proto_addr_len()) != (HARDWARE_LEN, PROTOCOL_LEN) {
        return Err(ArpError::AddressLength);
    }
    Ok(())
}

fn operation(arp: &ArpPacket) -> Result<ArpOperation, ArpError> {
    match arp.get_operation() {
        ArpOperations::Request => Ok(ArpOperation::Request),
        ArpOperations::Reply => Ok(ArpOperation::Reply),
        _ => Err(ArpError::Operation),
    }
}

fn specified(address: Ipv4Addr) -> Option<Ipv4Addr> {
    (!address.is_unspecified()).then_some(address)
}

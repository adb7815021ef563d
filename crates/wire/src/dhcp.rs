//! The first two messages of DHCP for IPv4 (RFC 2131): a client asks, servers offer.
//!
//! Nothing else of it is here, and on purpose: who never requests what was offered takes nothing from anybody.

use core::net::Ipv4Addr;

use pnet_base::MacAddr;
use pnet_packet::Packet;
use pnet_packet::ethernet::{EtherTypes, EthernetPacket};
use pnet_packet::ipv4::Ipv4Packet;
use pnet_packet::udp::UdpPacket;

use crate::ethernet::{HEADER_LEN, header, is_vlan_tag};

/// Where clients listen.
const CLIENT_PORT: u16 = 68;
/// Where servers listen.
const SERVER_PORT: u16 = 67;
const UDP: u8 = 17;

const IP_LEN: usize = 20;
const UDP_LEN: usize = 8;
/// The fixed fields, without options.
const FIXED_LEN: usize = 236;
/// With options; the shortest message that every server and relay takes (RFC 1542 section 2.1).
const MESSAGE_LEN: usize = 300;
/// What options begin with.
const COOKIE: [u8; 4] = [99, 130, 83, 99];

const REQUESTED_ADDRESS: u8 = 50;
const MESSAGE_TYPE: u8 = 53;
const SERVER: u8 = 54;
const WANTED_OPTIONS: u8 = 55;
const END: u8 = 255;
const PAD: u8 = 0;

/// `DHCPDISCOVER`, `DHCPOFFER`.
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
/// The answer is to go to everybody, since the client has no address yet.
const BROADCAST: u16 = 0x8000;

/// A question to all DHCP servers: what would this client get? (`DHCPDISCOVER`)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DhcpDiscover {
    /// Ethernet source: who sends the frame.
    pub source: MacAddr,
    /// `chaddr`: the client that the servers are to think of.
    pub client: MacAddr,
    /// `xid`: comes back in the answers.
    pub transaction: u32,
    /// The address that the client would like. A server offers it when it may give it out and nobody has it (RFC 2131
    /// section 4.3.1).
    pub wanted: Option<Ipv4Addr>,
}

impl DhcpDiscover {
    /// Bytes of a frame.
    pub const LEN: usize = HEADER_LEN + IP_LEN + UDP_LEN + MESSAGE_LEN;

    /// The frame as it goes on the wire, to everybody.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (ethernet, rest) = bytes.split_at_mut(HEADER_LEN);
        ethernet.copy_from_slice(&header(MacAddr::broadcast(), self.source, EtherTypes::Ipv4));
        let (ip, rest) = rest.split_at_mut(IP_LEN);
        ip.copy_from_slice(&ip_header());
        let (udp, message) = rest.split_at_mut(UDP_LEN);
        // No checksum: IPv4 leaves it to the sender (RFC 768).
        udp[0..2].copy_from_slice(&CLIENT_PORT.to_be_bytes());
        udp[2..4].copy_from_slice(&SERVER_PORT.to_be_bytes());
        udp[4..6].copy_from_slice(&length(UDP_LEN + MESSAGE_LEN));
        self.write(message);
        bytes
    }

    fn write(self, message: &mut [u8]) {
        message[0] = 1; // op: BOOTREQUEST
        message[1] = 1; // htype: Ethernet
        message[2] = 6; // hlen
        message[4..8].copy_from_slice(&self.transaction.to_be_bytes());
        message[10..12].copy_from_slice(&BROADCAST.to_be_bytes());
        message[28..34].copy_from_slice(&self.client.octets());
        message[FIXED_LEN..FIXED_LEN + 4].copy_from_slice(&COOKIE);
        let mut options = &mut message[FIXED_LEN + 4..];
        // The subnet mask and the router are what each client asks for.
        for option in [&[MESSAGE_TYPE, 1, DISCOVER][..], &[WANTED_OPTIONS, 2, 1, 3]] {
            options = put(options, option);
        }
        if let Some(wanted) = self.wanted {
            let [a, b, c, d] = wanted.octets();
            options = put(options, &[REQUESTED_ADDRESS, 4, a, b, c, d]);
        }
        put(options, &[END]);
    }
}

/// Writes it to the beginning; what is left.
fn put<'a>(bytes: &'a mut [u8], option: &[u8]) -> &'a mut [u8] {
    let (begin, rest) = bytes.split_at_mut(option.len());
    begin.copy_from_slice(option);
    rest
}

#[expect(clippy::cast_possible_truncation, reason = "a message has some hundred bytes")]
const fn length(bytes: usize) -> [u8; 2] {
    (bytes as u16).to_be_bytes()
}

/// From nobody to everybody.
fn ip_header() -> [u8; IP_LEN] {
    let mut bytes = [0; IP_LEN];
    bytes[0] = 0x45; // version 4, five words
    bytes[2..4].copy_from_slice(&length(IP_LEN + UDP_LEN + MESSAGE_LEN));
    bytes[8] = 64; // time to live
    bytes[9] = UDP;
    bytes[16..20].copy_from_slice(&Ipv4Addr::BROADCAST.octets());
    let sum = pnet_packet::util::checksum(&bytes, 5);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// What a DHCP server would give a client (`DHCPOFFER`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DhcpOffer {
    /// `xid`: which question it answers.
    pub transaction: u32,
    /// `chaddr`: for whom.
    pub client: MacAddr,
    /// `yiaddr`: the address.
    pub address: Ipv4Addr,
    /// Who offers it.
    pub server: Ipv4Addr,
}

impl DhcpOffer {
    /// Reads a frame that starts with its Ethernet header. `None`: it is something else, or no valid one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let ethernet = EthernetPacket::new(bytes)?;
        let content = ethernet.get_ethertype();
        if is_vlan_tag(content) || content != EtherTypes::Ipv4 {
            return None;
        }
        let ip = Ipv4Packet::new(ethernet.payload())?;
        let is_first = ip.get_fragment_offset() == 0;
        if ip.get_version() != 4 || ip.get_next_level_protocol().0 != UDP || !is_first {
            return None;
        }
        let udp = UdpPacket::new(ip.payload())?;
        let ports = (udp.get_source(), udp.get_destination());
        if ports != (SERVER_PORT, CLIENT_PORT) {
            return None;
        }
        Self::of(udp.payload(), ip.get_source().octets().into())
    }

    fn of(message: &[u8], sender: Ipv4Addr) -> Option<Self> {
        let is_reply = message.get(..3)? == [2, 1, 6];
        let has_options = message.get(FIXED_LEN..FIXED_LEN + 4)? == COOKIE;
        let options = || message.get(FIXED_LEN + 4..);
        let is_offer = option(options()?, MESSAGE_TYPE)? == [OFFER];
        let server = option(options()?, SERVER).and_then(|it| <[u8; 4]>::try_from(it).ok());
        let address = Ipv4Addr::from(<[u8; 4]>::try_from(message.get(16..20)?).ok()?);
        let client: [u8; 6] = message.get(28..34)?.try_into().ok()?;
        (is_reply && has_options && is_offer && !address.is_unspecified()).then_some(Self {
            transaction: u32::from_be_bytes(message.get(4..8)?.try_into().ok()?),
            client: client.into(),
            address,
            server: server.map_or(sender, Ipv4Addr::from),
        })
    }
}

/// What an option says; the first of its kind.
fn option(mut options: &[u8], kind: u8) -> Option<&[u8]> {
    loop {
        match *options {
            [PAD, ref rest @ ..] => options = rest,
            [END, ..] | [] | [_] => return None,
            [found, length, ref rest @ ..] => {
                let content = rest.get(..usize::from(length))?;
                if found == kind {
                    return Some(content);
                }
                options = rest.get(usize::from(length)..)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const NODE: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);
    const CLIENT: MacAddr = MacAddr(6, 0, 0, 0, 0, 1);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 241);

    fn discover() -> DhcpDiscover {
        DhcpDiscover { source: NODE, client: CLIENT, transaction: 7, wanted: Some(ADDRESS) }
    }

    /// The offer that answers it, made of the question as servers make theirs.
    fn offer() -> Vec<u8> {
        let mut bytes = discover().to_bytes().to_vec();
        bytes[34..38].copy_from_slice(&[0, 67, 0, 68]);
        let message = &mut bytes[HEADER_LEN + IP_LEN + UDP_LEN..];
        message[0] = 2;
        message[16..20].copy_from_slice(&ADDRESS.octets());
        let options = [PAD, MESSAGE_TYPE, 1, OFFER, SERVER, 4, 192, 168, 0, 1, END];
        message[FIXED_LEN + 4..FIXED_LEN + 4 + options.len()].copy_from_slice(&options);
        bytes
    }

    #[test]
    fn a_question_is_as_servers_expect_it() {
        let bytes = discover().to_bytes();
        let ethernet = EthernetPacket::new(&bytes).unwrap();
        assert_eq!(
            (ethernet.get_destination(), ethernet.get_source()),
            (MacAddr::broadcast(), NODE)
        );
        let ip = Ipv4Packet::new(ethernet.payload()).unwrap();
        assert_eq!(ip.get_checksum(), pnet_packet::ipv4::checksum(&ip));
        assert_eq!(usize::from(ip.get_total_length()), bytes.len() - HEADER_LEN);
        let udp = UdpPacket::new(ip.payload()).unwrap();
        assert_eq!(usize::from(udp.get_length()), ip.payload().len());
        let message = udp.payload();
        assert_eq!(message[28..34], CLIENT.octets());
        let options = &message[FIXED_LEN + 4..];
        assert_eq!(option(options, MESSAGE_TYPE), Some(&[DISCOVER][..]));
        assert_eq!(option(options, REQUESTED_ADDRESS), Some(&ADDRESS.octets()[..]));
        assert_eq!(option(options, SERVER), None);
    }

    #[test]
    fn an_offer_tells_the_address_and_the_server() {
        let server = Ipv4Addr::new(192, 168, 0, 1);
        let expected = DhcpOffer { transaction: 7, client: CLIENT, address: ADDRESS, server };
        assert_eq!(DhcpOffer::parse(&offer()), Some(expected));
    }

    #[test]
    fn nothing_else_is_an_offer() {
        assert_eq!(DhcpOffer::parse(&discover().to_bytes()), None, "a question");
        let changed = |at: usize, value: u8| {
            let mut bytes = offer();
            bytes[at] = value;
            DhcpOffer::parse(&bytes)
        };
        let options = HEADER_LEN + IP_LEN + UDP_LEN + FIXED_LEN;
        for (at, what) in [
            (12, "no IPv4"),
            (23, "no UDP"),
            (37, "another port"),
            (42, "no reply"),
            (options, "no cookie"),
            (options + 7, "no offer"),
        ] {
            assert_eq!(changed(at, 5), None, "{what}");
        }
        assert!((0..options + 8).all(|length| DhcpOffer::parse(&offer()[..length]).is_none()));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read(at in 0_usize..342, value: u8, length in 0_usize..=342) {
            let mut bytes = offer();
            bytes[at] = value;
            let _ = DhcpOffer::parse(&bytes[..length]);
        }
    }
}

//! What NDP needs of IPv6 (RFC 8200, RFC 4291): the header, groups and the checksum.

use core::net::Ipv6Addr;

use pnet_base::MacAddr;

/// Bytes of the header without extensions (RFC 8200 section 3).
pub(crate) const HEADER_LEN: usize = 40;
/// The next header of what carries NDP (RFC 4443 section 2.1).
pub(crate) const ICMPV6: u8 = 58;
/// What a packet has that no router has forwarded: it comes from this segment (RFC 4861
/// section 7.1).
pub(crate) const ON_LINK_HOP_LIMIT: u8 = 255;

/// The group of every machine of the segment, routers too (RFC 4291 section 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The group that questions for `address` are sent to (RFC 4291 section 2.7.1). Addresses that end
/// in the same 24 bits share it.
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | a as u16, u16::from_be_bytes([b, c]))
}

/// The Ethernet address of a group (RFC 2464 section 7).
pub const fn multicast_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr(0x33, 0x33, a, b, c, d)
}

/// The header of a packet with `length` bytes of ICMPv6 from and for this segment.
pub(crate) fn header(source: Ipv6Addr, destination: Ipv6Addr, length: u16) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[0] = 6 << 4;
    bytes[4..6].copy_from_slice(&length.to_be_bytes());
    bytes[6] = ICMPV6;
    bytes[7] = ON_LINK_HOP_LIMIT;
    bytes[8..24].copy_from_slice(&source.octets());
    bytes[24..40].copy_from_slice(&destination.octets());
    bytes
}

/// The checksum of an ICMPv6 message whose own checksum field is zero (RFC 4443 section 2.3).
pub(crate) fn checksum(source: Ipv6Addr, destination: Ipv6Addr, length: u16, icmp: &[u8]) -> u16 {
    let pseudo_header = source.segments().into_iter().chain(destination.segments());
    let fixed = pseudo_header.chain([length, u16::from(ICMPV6)]);
    let words = icmp.chunks(2).map(|pair| match *pair {
        [high, low] => u16::from_be_bytes([high, low]),
        [high, ..] => u16::from_be_bytes([high, 0]),
        [] => 0,
    });
    !fixed.chain(words).fold(0, add_ones_complement)
}

/// Adds with the carry brought round (RFC 1071 section 2).
fn add_ones_complement(sum: u16, word: u16) -> u16 {
    let (sum, carry) = sum.overflowing_add(word);
    sum + u16::from(carry)
}

//! The order in which nodes are asked for a connection.

use core::net::IpAddr;

use arpeggio_election::Node;
use siphasher::sip::SipHasher13;

/// A node's rank for the packets to an address; no two nodes have the same.
///
/// It follows from the two names alone. Neither bucket nor port nor how the address is served is part of it, since nodes may be of different
/// minds about those: a packet would then go down by one order here and by another one there, and come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank<'a>(u64, &'a Node);

impl<'a> Rank<'a> {
    pub(crate) fn of(address: IpAddr, node: &'a Node) -> Self {
        Self(address_chance(address, node), node)
    }
}

fn address_chance(address: IpAddr, node: &Node) -> u64 {
    match address {
        IpAddr::V4(it) => chance(&it.octets(), node),
        IpAddr::V6(it) => chance(&it.octets(), node),
    }
}

/// How well a node and a bucket fit together.
pub(crate) fn bucket_chance(bucket: u16, node: &Node) -> u64 {
    chance(&bucket.to_be_bytes(), node)
}

/// SipHash-1-3 with the zero key, over bytes: the same on every machine, whatever its words are like.
fn chance(what: &[u8], node: &Node) -> u64 {
    let name = node.as_str().as_bytes();
    let mut bytes = alloc::vec::Vec::with_capacity(what.len() + name.len());
    bytes.extend(what);
    bytes.extend(name);
    SipHasher13::new().hash(&bytes)
}

/// The seed by which clients of an address fall into buckets. Never zero.
pub(crate) fn seed(address: IpAddr) -> u32 {
    let bytes = address_chance(address, &Node::from("")).to_be_bytes();
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3] | 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Releases that differ would be of different minds about the order.
    #[test]
    fn ranks_and_seeds_never_change() {
        let (v4, v6) = (IpAddr::from([192, 168, 0, 240]), "fd00::240".parse().unwrap());
        let node = Node::from("node-1");
        let numbers = [
            address_chance(v4, &node),
            address_chance(v6, &node),
            bucket_chance(513, &node),
            u64::from(seed(v4)),
            u64::from(seed(v6)),
        ];
        let expected = [
            0x192f_3a5c_f354_4891,
            0x630b_e0ef_b81c_ae8d,
            0xe861_8c7e_b22b_f204,
            0xa7f0_3b8b,
            0xee4b_2315,
        ];
        assert_eq!(numbers, expected);
    }
}

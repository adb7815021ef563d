//! Addresses that are given to nobody.

use alloc::string::String;
use core::{fmt, net::IpAddr};

use crate::range::{AddressRange, MAPPED_IPV4};

/// Why an address is given to nobody for now. The caller knows and says so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Reservation {
    /// It is a node's own.
    #[error("it is an address of node {0}")]
    Node(String),
    /// It is a router's.
    #[error("it is the gateway of node {0}")]
    Gateway(String),
    /// It is the first address of a subnet that a node is in.
    #[error("it is the network address of {0}")]
    Network(String),
    /// It is the last address of an IPv4 subnet that a node is in.
    #[error("it is the broadcast address of {0}")]
    Broadcast(String),
    /// Its lock has a format that only a newer release understands.
    #[error(
        "its lock was written by a newer release of Arpeggio (format {0}): upgrade the controller"
    )]
    Newer(String),
    /// Another machine answers there: its MAC address, with the node's name if it is one.
    ///
    /// As text it is for those who do not get the address: which machine that is is not theirs to know.
    #[error("another machine answers at it")]
    Quarantined(String),
    /// It was given back a short while ago.
    #[error("it was given back a short while ago, and is given again after {0}")]
    CoolingDown(String),
}

/// Addresses that no Service can be reached at, whatever a pool says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Special {
    /// `0.0.0.0/8` (RFC 1122 section 3.2.1.3) and `::` (RFC 4291 section 2.5.2).
    Unspecified,
    /// `127.0.0.0/8` (RFC 1122 section 3.2.1.3) and `::1` (RFC 4291 section 2.5.3).
    Loopback,
    /// `169.254.0.0` (RFC 3927) and `fe80::` (RFC 4291 section 2.6.1): they mean the link, not a host.
    LinkLocalNetwork,
    /// `::ffff:0:0/96` (RFC 4291 section 2.5.5.2).
    MappedIpv4,
    /// `224.0.0.0/4` (RFC 5771) and `ff00::/8` (RFC 4291 section 2.7).
    Multicast,
    /// `255.255.255.255` (RFC 919).
    Broadcast,
}

/// Every special address of one family, by number: first, last, what they are.
pub(crate) const SPECIAL: [(AddressRange, Special); 10] = {
    use crate::range::Family::{V4, V6};
    let range = AddressRange::between;
    [
        (range(V4, 0, 0x00ff_ffff), Special::Unspecified),
        (range(V4, 0x7f00_0000, 0x7fff_ffff), Special::Loopback),
        (range(V4, 0xa9fe_0000, 0xa9fe_0000), Special::LinkLocalNetwork),
        (range(V4, 0xe000_0000, 0xefff_ffff), Special::Multicast),
        (range(V4, 0xffff_ffff, 0xffff_ffff), Special::Broadcast),
        (range(V6, 0, 0), Special::Unspecified),
        (range(V6, 1, 1), Special::Loopback),
        (MAPPED_IPV4, Special::MappedIpv4),
        (range(V6, 0xfe80 << 112, 0xfe80 << 112), Special::LinkLocalNetwork),
        (range(V6, 0xff << 120, u128::MAX), Special::Multicast),
    ]
};

impl Special {
    /// What `address` is, if it is special.
    pub fn of(address: IpAddr) -> Option<Self> {
        SPECIAL.iter().find(|(range, _)| range.contains(address)).map(|(_, special)| *special)
    }
}

impl fmt::Display for Special {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "an unspecified address",
            Self::Loopback => "a loopback address",
            Self::LinkLocalNetwork => "a network's own address",
            Self::MappedIpv4 => "an IPv4 address in IPv6 form",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_and_their_neighbours() {
        let table = [
            ("0.1.2.3", Some(Special::Unspecified)),
            ("1.0.0.0", None),
            ("127.255.255.255", Some(Special::Loopback)),
            ("128.0.0.0", None),
            ("169.254.0.0", Some(Special::LinkLocalNetwork)),
            ("169.254.0.1", None),
            ("239.255.255.255", Some(Special::Multicast)),
            ("240.0.0.0", None),
            ("255.255.255.255", Some(Special::Broadcast)),
            ("::", Some(Special::Unspecified)),
            ("::1", Some(Special::Loopback)),
            ("::2", None),
            ("::ffff:10.0.0.1", Some(Special::MappedIpv4)),
            ("fe80::", Some(Special::LinkLocalNetwork)),
            ("fe80::1", None),
            ("ff02::1", Some(Special::Multicast)),
        ];
        for (text, expected) in table {
            assert_eq!(Special::of(text.parse().unwrap()), expected, "{text}");
        }
    }
}

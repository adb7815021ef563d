//! The filter for NDP.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::ops::Range;

use arpeggio_link::filter::{MAX_INSTRUCTIONS, NdpFilter};
use proptest::prelude::*;

use crate::interpreter::{FOR_US, HERE, Received};
use crate::{Subject, check_sizes};

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

impl Subject for NdpFilter {
    type Address = Ipv6Addr;

    const LENGTH: usize = 78;
    const DAMAGED: Range<usize> = 12..62;
    const MOST_STEPS: usize = 102;

    fn new(ours: BTreeSet<Ipv6Addr>, peers: BTreeSet<Ipv6Addr>) -> Self {
        Self { ours, peers }
    }

    fn is_wanted(&self, frame: &Received) -> bool {
        let Some(bytes) = frame.bytes.get(..78) else {
            return false;
        };
        let target = Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[62..78]).unwrap());
        let is_icmp = bytes[12..14] == [0x86, 0xdd] && bytes[20] == 58;
        let ours = self.ours.contains(&target);
        let message = match bytes[54] {
            SOLICITATION => ours,
            ADVERTISEMENT => ours || self.peers.contains(&target),
            _ => false,
        };
        is_icmp && FOR_US.contains(&frame.packet_type) && frame.interface == HERE && message
    }

    /// Often differing in one word only.
    fn addresses() -> BoxedStrategy<Ipv6Addr> {
        let word = || prop_oneof![4 => 0..3_u32, 1 => u32::MAX - 1..=u32::MAX];
        let last = prop_oneof![0..40_u32, u32::MAX - 40..=u32::MAX];
        let joined =
            |words: [u32; 4]| words.into_iter().fold(0, |bits, word| bits << 32 | u128::from(word));
        (word(), word(), word(), last)
            .prop_map(move |(a, b, c, d)| Ipv6Addr::from(joined([a, b, c, d])))
            .boxed()
    }

    fn frames() -> BoxedStrategy<Vec<u8>> {
        (134..138_u8, Self::addresses()).prop_map(|(kind, target)| frame(kind, target)).boxed()
    }

    fn about(address: Ipv6Addr) -> Vec<Vec<u8>> {
        vec![frame(SOLICITATION, address), frame(ADVERTISEMENT, address)]
    }

    /// One in four is in a /96 of its own; the others share one.
    fn scattered(number: u32) -> Option<Ipv6Addr> {
        number.is_multiple_of(2).then(|| Self::any(number))
    }

    fn any(number: u32) -> Ipv6Addr {
        let upper = if number.is_multiple_of(8) { 7 * number } else { 0 };
        address(upper, number)
    }
}

/// An NDP frame as on the wire, as far as filters look.
fn frame(kind: u8, target: Ipv6Addr) -> Vec<u8> {
    let mut bytes = vec![0xff; 12];
    bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255]);
    bytes.extend([0xee; 32]);
    bytes.extend([kind, 0, 0xcc, 0xcc, 0, 0, 0, 0]);
    bytes.extend(target.octets());
    bytes
}

/// `upper` is the third word, where interface identifiers made from MAC addresses differ.
fn address(upper: u32, last: u32) -> Ipv6Addr {
    Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(upper) << 32 | u128::from(last))
}

#[test]
fn sizes() {
    let adjacent = |count: u32| (0..count).map(|it| address(0, it)).collect();
    let in_one = |count: u32| (0..count).map(|it| address(0, 2 * it)).collect();
    let scattered = |count: u32| (0..count).map(|it| address(7 * it, 2 * it)).collect();
    check_sizes::<NdpFilter>(&[
        ("none", BTreeSet::new(), 28),
        ("one", adjacent(1), 38),
        ("1,000 adjacent", adjacent(1_000), 38),
        ("200 scattered in one /96", in_one(200), 900),
        ("200 scattered", scattered(200), 3100),
        ("10,000 scattered", scattered(10_000), MAX_INSTRUCTIONS),
    ]);
}

//! The filter for ARP.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::Range;

use arpeggio_link::filter::{ArpFilter, MAX_INSTRUCTIONS};
use proptest::prelude::*;

use crate::interpreter::{FOR_US, HERE, Received};
use crate::{Subject, check_sizes};

impl Subject for ArpFilter {
    type Address = Ipv4Addr;

    const LENGTH: usize = 42;
    const DAMAGED: Range<usize> = 12..22;
    const MOST_STEPS: usize = 82;

    fn new(ours: BTreeSet<Ipv4Addr>, peers: BTreeSet<Ipv4Addr>) -> Self {
        Self { ours, peers }
    }

    fn is_wanted(&self, frame: &Received) -> bool {
        let Some(bytes) = frame.bytes.get(..42) else {
            return false;
        };
        let address =
            |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
        let (sender, target) = (address(28), address(38));
        let is_arp_for_ipv4 = bytes[12..20] == [0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4];
        let is_reply = bytes[20..22] == [0, 2];
        is_arp_for_ipv4
            && FOR_US.contains(&frame.packet_type)
            && frame.interface == HERE
            && (self.ours.contains(&target)
                || self.ours.contains(&sender)
                || is_reply && self.peers.contains(&sender))
    }

    /// At both ends and in the middle of all.
    fn addresses() -> BoxedStrategy<Ipv4Addr> {
        prop_oneof![0..=40_u32, 0xc0a8_0100..=0xc0a8_01ff_u32, u32::MAX - 40..=u32::MAX]
            .prop_map(Ipv4Addr::from)
            .boxed()
    }

    fn frames() -> BoxedStrategy<Vec<u8>> {
        (0..4_u8, Self::addresses(), Self::addresses())
            .prop_map(|(operation, sender, target)| frame(operation, sender, target))
            .boxed()
    }

    fn about(address: Ipv4Addr) -> Vec<Vec<u8>> {
        let nobody = Ipv4Addr::BROADCAST;
        vec![frame(1, nobody, address), frame(2, address, nobody)]
    }

    fn scattered(number: u32) -> Option<Ipv4Addr> {
        number.is_multiple_of(2).then(|| Self::any(number))
    }

    fn any(number: u32) -> Ipv4Addr {
        Ipv4Addr::from(0x0a00_0000 + number)
    }
}

/// An ARP frame as on the wire.
fn frame(operation: u8, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![0xff; 12];
    bytes.extend([0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, operation]);
    bytes.extend([0x02, 0, 0, 0, 0, 1]);
    bytes.extend(sender.octets());
    bytes.extend([0; 6]);
    bytes.extend(target.octets());
    bytes
}

#[test]
fn sizes() {
    let adjacent = |count: u32| (0..count).map(ArpFilter::any).collect();
    let scattered = |count: u32| (0..2 * count).filter_map(ArpFilter::scattered).collect();
    check_sizes::<ArpFilter>(&[
        ("none", BTreeSet::new(), 28),
        ("one", adjacent(1), 28),
        ("10,000 adjacent", adjacent(10_000), 28),
        ("200 scattered", scattered(200), 850),
        ("700 scattered", scattered(700), 2900),
        ("10,000 scattered", scattered(10_000), MAX_INSTRUCTIONS),
    ]);
}

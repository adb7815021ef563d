//! Packet filters, run by an interpreter of their instructions, against a plain statement of what
//! is wanted.
#![cfg(test)]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use arpeggio_link::filter::{ArpFilter, FrameFilter, MAX_INSTRUCTIONS, MIN_INSTRUCTIONS};
use proptest::prelude::*;

mod interpreter;
use interpreter::{FOR_US, NOT_FOR_US, Received, accepts, run};

/// What the documentation of `ArpFilter` says, word by word.
fn is_wanted(filter: &ArpFilter, frame: &Received) -> bool {
    let Some(bytes) = frame.bytes.get(..42) else {
        return false;
    };
    let address = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    let (sender, target) = (address(28), address(38));
    let is_arp_for_ipv4 = bytes[12..20] == [0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4];
    let is_reply = bytes[20..22] == [0, 2];
    is_arp_for_ipv4
        && FOR_US.contains(&frame.packet_type)
        && (filter.ours.contains(&target)
            || filter.ours.contains(&sender)
            || is_reply && filter.peers.contains(&sender))
}

/// An ARP frame as on the wire.
fn arp(operation: u8, sender: Ipv4Addr, target: Ipv4Addr) -> Received {
    let mut bytes = vec![0xff; 12];
    bytes.extend([0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, operation]);
    bytes.extend([0x02, 0, 0, 0, 0, 1]);
    bytes.extend(sender.octets());
    bytes.extend([0; 6]);
    bytes.extend(target.octets());
    Received { bytes, packet_type: *FOR_US.start() }
}

/// Few enough addresses that sets and frames meet, at both ends and in the middle of all.
fn addresses() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![0..=40_u32, 0xc0a8_0100..=0xc0a8_01ff_u32, u32::MAX - 40..=u32::MAX]
        .prop_map(Ipv4Addr::from)
}

fn filters(most: usize) -> impl Strategy<Value = ArpFilter> {
    let set = || prop::collection::btree_set(addresses(), 0..most);
    (set(), set()).prop_map(|(ours, peers)| ArpFilter { ours, peers })
}

prop_compose! {
    /// Mostly sound frames, some with a damaged byte, cut short or not for us.
    fn received()(
        (operation, sender, target) in (0..4_u8, addresses(), addresses()),
        damage in prop::option::weighted(0.3, (12..22_usize, any::<u8>())),
        length in prop_oneof![4 => Just(42), 1 => 0..42_usize],
        packet_type in prop_oneof![4 => FOR_US, 1 => NOT_FOR_US],
    ) -> Received {
        let mut frame = arp(operation, sender, target);
        if let Some((position, value)) = damage {
            frame.bytes[position] = value;
        }
        frame.bytes.truncate(length);
        Received { packet_type, ..frame }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn exactly_the_wanted_frames_pass(filter in filters(150), frame in received()) {
        let program = filter.program(MAX_INSTRUCTIONS);
        prop_assert_eq!(accepts(&program, &frame), is_wanted(&filter, &frame));
    }

    #[test]
    fn a_coarse_program_keeps_its_limit_and_passes_the_wanted_frames(
        filter in filters(150),
        frame in received(),
        limit in 0..400_usize,
    ) {
        let program = filter.program(limit);
        prop_assert!(program.len() <= limit.max(MIN_INSTRUCTIONS));
        prop_assert!(accepts(&program, &frame) || !is_wanted(&filter, &frame));
    }
}

fn every_other(count: u32) -> BTreeSet<Ipv4Addr> {
    let first = u32::from(Ipv4Addr::new(10, 0, 0, 0));
    (0..count).map(|it| Ipv4Addr::from(first + 2 * it)).collect()
}

/// Programs of all lengths around and beyond what a conditional jump can reach.
#[test]
fn programs_of_every_length_are_exact_and_fast() {
    for count in (0..300).chain([450, 700]) {
        let filter = ArpFilter { ours: every_other(count), peers: every_other(count / 2) };
        let program = filter.program(MAX_INSTRUCTIONS);
        let first = u32::from(Ipv4Addr::new(10, 0, 0, 0));
        for address in (first - 1..=first + 2 * count).map(Ipv4Addr::from) {
            let nobody = Ipv4Addr::BROADCAST;
            for frame in [arp(1, nobody, address), arp(2, address, nobody)] {
                let (verdict, steps) = run(&program, &frame);
                assert_eq!(verdict != 0, is_wanted(&filter, &frame), "{address} of {count}");
                assert!(steps < 80, "{steps} steps for {address} of {count}");
            }
        }
    }
}

#[test]
fn sizes() {
    let adjacent = |count: u32| (0..count).map(|it| Ipv4Addr::from(0x0a00_0000 + it)).collect();
    let table: [(&str, BTreeSet<Ipv4Addr>, usize); 6] = [
        ("none", BTreeSet::new(), 26),
        ("one", adjacent(1), 26),
        ("10,000 adjacent", adjacent(10_000), 26),
        ("200 scattered", every_other(200), 850),
        ("700 scattered", every_other(700), 2900),
        ("10,000 scattered", every_other(10_000), MAX_INSTRUCTIONS),
    ];
    for (name, ours, most) in table {
        let filter = ArpFilter { ours, peers: BTreeSet::new() };
        let length = filter.program(MAX_INSTRUCTIONS).len();
        println!("{name}: {length} instructions");
        assert!(length <= most, "{name}: {length} instructions, expected {most} at most");
    }
}

#[test]
fn a_hundred_thousand_addresses_still_fit() {
    let filter = ArpFilter { ours: every_other(100_000), peers: every_other(50_000) };
    for limit in [MIN_INSTRUCTIONS, 128, 1000, MAX_INSTRUCTIONS] {
        let program = filter.program(limit);
        assert!(program.len() <= limit, "{} > {limit}", program.len());
        let last = *filter.ours.last().unwrap();
        assert!(accepts(&program, &arp(1, Ipv4Addr::UNSPECIFIED, last)));
    }
}

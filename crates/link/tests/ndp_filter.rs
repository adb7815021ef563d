//! Packet filters, run by an interpreter of their instructions, against a plain statement of what
//! is wanted.
#![cfg(test)]

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use arpeggio_link::filter::{FrameFilter, MAX_INSTRUCTIONS, MIN_INSTRUCTIONS, NdpFilter};
use proptest::prelude::*;

mod interpreter;
use interpreter::{FOR_US, NOT_FOR_US, Received, accepts, run};

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// What the documentation of `NdpFilter` says, word by word.
fn is_wanted(filter: &NdpFilter, frame: &Received) -> bool {
    let Some(bytes) = frame.bytes.get(..78) else {
        return false;
    };
    let target = Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[62..78]).unwrap());
    let is_icmp = bytes[12..14] == [0x86, 0xdd] && bytes[20] == 58;
    let ours = filter.ours.contains(&target);
    let message = match bytes[54] {
        SOLICITATION => ours,
        ADVERTISEMENT => ours || filter.peers.contains(&target),
        _ => false,
    };
    is_icmp && FOR_US.contains(&frame.packet_type) && message
}

/// An NDP frame as on the wire, as far as filters look.
fn ndp(message: u8, target: Ipv6Addr) -> Received {
    let mut bytes = vec![0xff; 12];
    bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255]);
    bytes.extend([0xee; 32]);
    bytes.extend([message, 0, 0xcc, 0xcc, 0, 0, 0, 0]);
    bytes.extend(target.octets());
    Received { bytes, packet_type: *FOR_US.start() }
}

/// Few enough words that sets and frames meet, and often differ in one word only.
fn addresses() -> impl Strategy<Value = Ipv6Addr> {
    let word = || prop_oneof![4 => 0..3_u32, 1 => u32::MAX - 1..=u32::MAX];
    let last = prop_oneof![0..40_u32, u32::MAX - 40..=u32::MAX];
    (word(), word(), word(), last).prop_map(|(a, b, c, d)| {
        Ipv6Addr::from([a, b, c, d].into_iter().fold(0, |bits, word| bits << 32 | u128::from(word)))
    })
}

fn filters(most: usize) -> impl Strategy<Value = NdpFilter> {
    let set = || prop::collection::btree_set(addresses(), 0..most);
    (set(), set()).prop_map(|(ours, peers)| NdpFilter { ours, peers })
}

prop_compose! {
    /// Mostly sound frames, some with a damaged byte, cut short or not for us.
    fn received()(
        (message, target) in (134..138_u8, addresses()),
        damage in prop::option::weighted(0.3, (12..62_usize, any::<u8>())),
        length in prop_oneof![4 => Just(78), 1 => 0..78_usize],
        packet_type in prop_oneof![4 => FOR_US, 1 => NOT_FOR_US],
    ) -> Received {
        let mut frame = ndp(message, target);
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
    fn exactly_the_wanted_frames_pass(filter in filters(100), frame in received()) {
        let program = filter.program(MAX_INSTRUCTIONS);
        prop_assert_eq!(accepts(&program, &frame), is_wanted(&filter, &frame));
    }

    #[test]
    fn a_coarse_program_keeps_its_limit_and_passes_the_wanted_frames(
        filter in filters(100),
        frame in received(),
        limit in 0..400_usize,
    ) {
        let program = filter.program(limit);
        prop_assert!(program.len() <= limit.max(MIN_INSTRUCTIONS));
        prop_assert!(accepts(&program, &frame) || !is_wanted(&filter, &frame));
    }
}

/// Addresses in one /64 that end in every other number.
fn every_other(count: u32) -> BTreeSet<Ipv6Addr> {
    (0..count).map(|it| address(0, 2 * it)).collect()
}

/// `upper` is the third word, where interface identifiers made from MAC addresses differ.
fn address(upper: u32, last: u32) -> Ipv6Addr {
    Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(upper) << 32 | u128::from(last))
}

/// Programs of all lengths around and beyond what a conditional jump can reach.
#[test]
fn programs_of_every_length_are_exact_and_fast() {
    for count in (0..200).chain([300, 450]) {
        let scattered = (0..count / 4).map(|it| address(7 * it, 2 * it)).collect();
        let filter = NdpFilter { ours: every_other(count), peers: scattered };
        let program = filter.program(MAX_INSTRUCTIONS);
        for it in 0..=2 * count {
            for target in [address(0, it), address(7 * it, 2 * it), address(7 * it + 1, 2 * it)] {
                for frame in [ndp(SOLICITATION, target), ndp(ADVERTISEMENT, target)] {
                    let (verdict, steps) = run(&program, &frame);
                    assert_eq!(verdict != 0, is_wanted(&filter, &frame), "{target} of {count}");
                    assert!(steps < 100, "{steps} steps for {target} of {count}");
                }
            }
        }
    }
}

#[test]
fn sizes() {
    let adjacent = |count: u32| (0..count).map(|it| address(0, it)).collect();
    let scattered = |count: u32| (0..count).map(|it| address(7 * it, 2 * it)).collect();
    let table: [(&str, BTreeSet<Ipv6Addr>, usize); 6] = [
        ("none", BTreeSet::new(), 26),
        ("one", adjacent(1), 36),
        ("1,000 adjacent", adjacent(1_000), 36),
        ("200 scattered in one /96", every_other(200), 900),
        ("200 scattered", scattered(200), 3100),
        ("10,000 scattered", scattered(10_000), MAX_INSTRUCTIONS),
    ];
    for (name, ours, most) in table {
        let filter = NdpFilter { ours, peers: BTreeSet::new() };
        let length = filter.program(MAX_INSTRUCTIONS).len();
        println!("{name}: {length} instructions");
        assert!(length <= most, "{name}: {length} instructions, expected {most} at most");
    }
}

#[test]
fn a_hundred_thousand_addresses_still_fit() {
    let filter = NdpFilter { ours: every_other(100_000), peers: BTreeSet::new() };
    for limit in [MIN_INSTRUCTIONS, 128, 1000, MAX_INSTRUCTIONS] {
        let program = filter.program(limit);
        assert!(program.len() <= limit, "{} > {limit}", program.len());
        let last = *filter.ours.last().unwrap();
        assert!(accepts(&program, &ndp(SOLICITATION, last)));
    }
}

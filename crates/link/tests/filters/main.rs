//! Packet filters, run by an interpreter of their instructions, against a plain statement of what
//! is wanted. What holds for both protocols is said once, for a [`Subject`].
#![cfg(test)]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::ops::Range;

use arpeggio_link::filter::{
    ArpFilter, FrameFilter, MAX_INSTRUCTIONS, MIN_INSTRUCTIONS, NdpFilter,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

mod arp;
mod dhcp;
mod interpreter;
mod ndp;

use interpreter::{FOR_US, HERE, NOT_FOR_US, Received, accepts, run};

/// A filter under test.
trait Subject: FrameFilter + Debug + Clone {
    type Address: Debug + Copy + Ord;

    /// How long a frame has to be to be judged.
    const LENGTH: usize;
    /// The bytes in which a damaged frame differs.
    const DAMAGED: Range<usize>;
    /// No frame takes more steps than this.
    const MOST_STEPS: usize;

    fn new(ours: BTreeSet<Self::Address>, peers: BTreeSet<Self::Address>) -> Self;
    /// What the filter's documentation says, word by word.
    fn is_wanted(&self, frame: &Received) -> bool;
    /// Few enough addresses that sets and frames meet.
    fn addresses() -> BoxedStrategy<Self::Address>;
    /// Sound frames of all kinds, also of some that nobody wants.
    fn frames() -> BoxedStrategy<Vec<u8>>;
    /// Frames that ask for an address and that claim it.
    fn about(address: Self::Address) -> Vec<Vec<u8>>;
    /// An address for each number, with gaps in between; `None` for the numbers in the gaps.
    fn scattered(number: u32) -> Option<Self::Address>;
    /// An address for each number, also for those in the gaps.
    fn any(number: u32) -> Self::Address;
}

/// The filter with the first `count` scattered addresses and as many peers as it may have.
fn scattered<S: Subject>(count: u32) -> S {
    let some = |count: u32| (0..2 * count).filter_map(S::scattered).collect();
    S::new(some(count), some(count / 2))
}

fn received(bytes: Vec<u8>) -> Received {
    Received { bytes, packet_type: *FOR_US.start(), interface: HERE }
}

fn filters<S: Subject>(most: usize) -> impl Strategy<Value = S> {
    let set = || prop::collection::btree_set(S::addresses(), 0..most);
    (set(), set()).prop_map(|(ours, peers)| S::new(ours, peers))
}

/// Mostly sound frames, some with a damaged byte, cut short, not for us or for another interface.
fn some_received<S: Subject>() -> impl Strategy<Value = Received> {
    let damage = prop::option::weighted(0.3, (S::DAMAGED, any::<u8>()));
    let length = prop_oneof![4 => Just(S::LENGTH), 1 => 0..S::LENGTH];
    let packet_type = prop_oneof![4 => FOR_US, 1 => NOT_FOR_US];
    let interface = prop_oneof![8 => Just(HERE), 1 => any::<u32>()];
    let parts = (S::frames(), damage, length, packet_type, interface);
    parts.prop_map(|(mut bytes, damage, length, packet_type, interface)| {
        if let Some((position, value)) = damage {
            bytes[position] = value;
        }
        bytes.truncate(length);
        Received { bytes, packet_type, interface }
    })
}

fn check<T: Debug>(cases: impl Strategy<Value = T>, holds: impl Fn(T)) {
    let mut runner = TestRunner::new(ProptestConfig::with_cases(500));
    let outcome = runner.run(&cases, |case| {
        holds(case);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

fn exactly_the_wanted_frames_pass<S: Subject>() {
    check((filters::<S>(100), some_received::<S>()), |(filter, frame)| {
        let program = filter.program(HERE, MAX_INSTRUCTIONS);
        assert_eq!(accepts(&program, &frame), filter.is_wanted(&frame));
    });
}

fn a_coarse_program_keeps_its_limit_and_passes_the_wanted_frames<S: Subject>() {
    let cases = (filters::<S>(150), some_received::<S>(), 0..400_usize);
    check(cases, |(filter, frame, limit)| {
        let program = filter.program(HERE, limit);
        assert!(program.len() <= limit.max(MIN_INSTRUCTIONS));
        assert!(accepts(&program, &frame) || !filter.is_wanted(&frame));
    });
}

/// Programs of all lengths around and beyond what a conditional jump can reach.
fn programs_of_every_length_are_exact_and_fast<S: Subject>() {
    for count in (0..200).chain([300, 450]) {
        let filter = scattered::<S>(count);
        let program = filter.program(HERE, MAX_INSTRUCTIONS);
        for frame in (0..=2 * count).flat_map(|number| S::about(S::any(number))).map(received) {
            let (verdict, steps) = run(&program, &frame);
            assert_eq!(verdict != 0, filter.is_wanted(&frame), "{frame:?} of {count}");
            assert!(steps < S::MOST_STEPS, "{steps} steps for {frame:?} of {count}");
        }
    }
}

fn a_hundred_thousand_addresses_still_fit<S: Subject>() {
    let filter = scattered::<S>(100_000);
    let last = (0..200_000).rev().find_map(S::scattered).unwrap();
    for limit in [MIN_INSTRUCTIONS, 128, 1000, MAX_INSTRUCTIONS] {
        let program = filter.program(HERE, limit);
        assert!(program.len() <= limit, "{} > {limit}", program.len());
        assert!(S::about(last).into_iter().all(|bytes| accepts(&program, &received(bytes))));
    }
}

/// Prints and checks the lengths of programs for some sets of addresses.
fn check_sizes<S: Subject>(table: &[(&str, BTreeSet<S::Address>, usize)]) {
    for (name, ours, most) in table {
        let filter = S::new(ours.clone(), BTreeSet::new());
        let length = filter.program(HERE, MAX_INSTRUCTIONS).len();
        println!("{name}: {length} instructions");
        assert!(length <= *most, "{name}: {length} instructions, expected {most} at most");
    }
}

macro_rules! check_both {
    ($($property:ident)*) => {
        mod of_arp { $(#[test] fn $property() { super::$property::<super::ArpFilter>(); })* }
        mod of_ndp { $(#[test] fn $property() { super::$property::<super::NdpFilter>(); })* }
    };
}

check_both! {
    exactly_the_wanted_frames_pass
    a_coarse_program_keeps_its_limit_and_passes_the_wanted_frames
    programs_of_every_length_are_exact_and_fast
    a_hundred_thousand_addresses_still_fit
}

//! Labs for real: needs root. `ARPEGGIO_SKIP_LAB_TESTS=1` skips them, nothing else does.

// Clippy takes only `#[test]` functions for tests, and these are run by a main of their own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod lifecycle;
mod traces;

use arpeggio_lab::{LabError, guard, programs};
use libtest_mimic::{Arguments, Failed, Trial};

/// What a test returns: its failure in words.
pub(crate) type Verdict = Result<(), Failed>;
type Test = fn() -> Verdict;

fn main() {
    guard::run_if_asked();
    lifecycle::own_a_lab_if_asked();
    let mut arguments = Arguments::from_args();
    // Each starts a cluster, and some compare the whole machine before and after.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials()).exit();
}

fn trials() -> Vec<Trial> {
    let tests: [(&str, Test); 6] = [
        ("pods_run_and_a_node_loses_power_and_returns", cluster::power),
        ("faults_do_what_they_say", cluster::faults),
        ("a_control_plane_on_a_node_dies_with_it", cluster::control_on_node),
        ("two_labs_side_by_side", lifecycle::two_labs),
        ("nothing_is_left_when_the_owner_is_killed", lifecycle::owner_killed),
        ("the_next_lab_removes_one_whose_guard_was_killed", lifecycle::guard_killed),
    ];
    let skipped = std::env::var_os("ARPEGGIO_SKIP_LAB_TESTS").is_some();
    let trial = |(name, test): (&str, Test)| {
        Trial::test(name, move || programs::check_host().map_err(failed).and_then(|()| test()))
            .with_ignored_flag(skipped)
    };
    tests.into_iter().map(trial).collect()
}

fn failed(error: LabError) -> Failed {
    error.into()
}

//! End-to-end tests: each starts a cluster of its own with Arpeggio installed, and can be run alone and read alone.
//!
//! `make scenarios ONLY=NAME` runs those whose names contain NAME. When one fails, everything that is known about it is
//! written below `target/lab`.

#![forbid(unsafe_code)]

mod allocation;
mod bad_input;
mod commands;
mod controllers;
mod failover;
mod formats;
mod ipv6;
mod moves;
mod restarts;

use std::panic::{self, AssertUnwindSafe};

use arpeggio_lab::{Options, guard};
use arpeggio_scenarios::Home;
use libtest_mimic::{Arguments, Trial};

type Scenario = fn(&Home) -> anyhow::Result<()>;

const SCENARIOS: &[(&str, Scenario)] = &[
    ("failover", failover::an_address_outlives_its_node),
    ("ipv6-failover", ipv6::an_ipv6_address_outlives_its_node),
    ("ipv6-doubts", ipv6::a_clients_doubts_are_answered),
    ("ipv6-duplicate", ipv6::nobody_can_take_an_announced_address),
    ("no-pool", allocation::without_a_pool_a_service_waits_and_says_why),
    ("annotations", allocation::every_spelling_of_the_annotation_names_the_pool),
    ("delete", allocation::a_deleted_service_leaves_nothing),
    ("no-sharing", allocation::two_services_never_share),
    ("left-alone", allocation::what_is_not_ours_is_left_alone),
    ("bad-input", bad_input::bad_pools_are_refused_or_marked_and_the_rest_goes_on),
    ("commands", commands::the_speakers_pod_answers_a_users_questions),
    ("config-map", formats::a_config_map_declares_pools),
    ("metallb", formats::metallb_s_objects_are_read_as_they_are),
    ("speaker-killed", restarts::a_killed_speaker_comes_back_and_nothing_moves),
    ("handover", restarts::a_stopped_speaker_hands_over_first),
    ("upgrade", restarts::new_speakers_take_nothing_and_miss_nothing),
    ("drain", moves::a_drained_node_hands_over_first),
    ("exclusion", moves::an_excluded_node_hands_over_and_the_last_one_stays),
    ("leader-power-cut", controllers::a_follower_takes_over_when_the_leader_has_no_power),
    ("leader-stopped", controllers::a_leader_that_is_asked_to_stop_hands_over_at_once),
    ("two-controllers", controllers::two_controllers_at_once_give_no_address_twice),
    ("controller-killed", restarts::a_killed_controller_keeps_every_address),
];

fn main() {
    guard::run_if_asked();
    let trials = SCENARIOS.iter().map(|(name, scenario)| {
        Trial::test(*name, || run(name, *scenario).map_err(|error| format!("{error:#}").into()))
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

fn run(name: &str, scenario: Scenario) -> anyhow::Result<()> {
    let home = Home::start(&format!("test-{name}"), Options::default())?;
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| scenario(&home)));
    if !matches!(outcome, Ok(Ok(()))) {
        home.collect();
    }
    home.lab.stop()?;
    outcome.unwrap_or_else(|panic| panic::resume_unwind(panic))
}

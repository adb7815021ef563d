//! Every history with a few faults: the real [`arpeggio_election::Elector`]s among an API server and a segment, in
//! coarse time, explored breadth first.
//!
//! **The world** ([`world`], with the [`segment`] and the API [`server`]). Three nodes, two addresses. Time goes in ticks; within a tick everything that is not held
//! up by a fault arrives and is reacted to, until nothing more happens. Writes about one record reach the API server in
//! every order.
//!
//! **Faults** ([`fault`]) strike at every point between two steps, also between a write and its answer, and are mended
//! at every moment of rest: all histories with one fault. Of those with two, both strike one part (hosts and wire, the
//! API server, processes) or the API server and then another part, at rest, and the second one lasts until all is mended.
//! Two of the wire take a minute and more, and are a part of `make test-all` (`make model`).
//! `MODEL_FAULTS=n` explores all histories with any `n` faults at every point; two are millions of states. One fault also
//! strikes at every point after somebody has asked for an address to be moved.
//!
//! **What must hold** ([`law`]) is looked at in every state; from every state at rest it is also tried whether the
//! cluster settles with exactly one announcer for each address when everything is mended.
//!
//! Two states whose futures are the same count as one ([`fingerprint`]): only how long ago something happened matters,
//! not when.

mod explorer;
mod fault;
mod fingerprint;
mod law;
mod mutations;
mod segment;
mod server;
mod world;

use explorer::explore;
use fault::Place;
use mutations::Mutation;
use world::World;

fn check(start: &World) {
    let report = explore(start);
    println!("{report}");
    assert!(
        report.broken.is_none(),
        "{}",
        report.broken.map(|it| it.to_string()).unwrap_or_default()
    );
}

#[test]
fn every_history_with_one_fault() {
    let faults = std::env::var("MODEL_FAULTS").ok().and_then(|text| text.parse().ok());
    check(&World::booting(3, &vec![Place::Any; faults.unwrap_or(1)], Mutation::None));
}

#[test]
fn one_fault_at_rest() {
    check(&World::calm(3, &[Place::Any], Mutation::None));
}

#[test]
fn two_of_five_hosts_lose_power() {
    check(&World::calm(5, &[Place::Power; 2], Mutation::None));
}

#[test]
fn a_fault_while_somebody_asks_for_a_move() {
    check(&World::moving(3, &[Place::Any]));
}

#[test]
#[ignore = "takes a minute and more: run 'make model'"]
fn two_faults_of_the_wire() {
    check(&World::calm(3, &[Place::Wire; 2], Mutation::None));
}

#[test]
fn two_faults_of_the_api() {
    check(&World::calm(3, &[Place::Api; 2], Mutation::None));
}

#[test]
#[ignore = "takes half a minute: run 'make model'"]
fn a_fault_of_the_wire_after_one_of_the_api() {
    check(&World::calm(3, &[Place::Wire, Place::Api], Mutation::None));
}

#[test]
fn a_fault_of_a_process_after_one_of_the_api() {
    check(&World::calm(3, &[Place::Process, Place::Api], Mutation::None));
}

#[test]
#[ignore = "takes half a minute: run 'make model'"]
fn two_faults_of_processes() {
    check(&World::calm(3, &[Place::Process; 2], Mutation::None));
}

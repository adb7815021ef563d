//! Both addresses of a Service, one of each family, are on one node where they can be.

use std::net::IpAddr;

use arpeggio_election::NodeFacts;

use crate::sim::{Sim, ip, millis, secs};

const SERVICES: u8 = 9;
const NODES: usize = 3;

fn both(last: u8) -> [IpAddr; 2] {
    [ip(last), [0xfd00, 0, 0, 0, 0, 0, 0, last.into()].into()]
}

/// Services with two addresses each, settled.
fn settled() -> Sim {
    let mut sim = Sim::new(NODES);
    for last in 0..SERVICES {
        sim.create_locks_of(&format!("service-{last}"), &both(last));
        sim.run(millis(20));
    }
    sim.run(secs(3));
    sim
}

/// The node that announces both addresses.
fn home(sim: &Sim, last: u8) -> usize {
    let [one, other] = both(last).map(|address| sim.only_announcer(address));
    assert_eq!(one, other, "apart: {:#?}", sim.log);
    one
}

fn homes(sim: &Sim) -> Vec<usize> {
    (0..SERVICES).map(|last| home(sim, last)).collect()
}

fn count(homes: &[usize], node: usize) -> usize {
    homes.iter().filter(|home| **home == node).count()
}

#[test]
fn they_are_placed_together_and_evenly() {
    let homes = homes(&settled());
    assert!((0..NODES).all(|node| count(&homes, node) == 3), "{homes:?}");
}

#[test]
fn they_are_created_at_once_and_placed_evenly() {
    let mut sim = Sim::new(NODES);
    for last in 0..SERVICES {
        sim.create_locks_of(&format!("service-{last}"), &both(last));
    }
    sim.run(secs(3));
    let homes = homes(&sim);
    assert!((0..NODES).all(|node| count(&homes, node) == 3), "{homes:?}");
}

#[test]
fn they_go_to_one_heir_and_the_heirs_share() {
    let mut sim = settled();
    sim.power_off(0);
    sim.run(secs(2));
    let homes = homes(&sim);
    assert_eq!(count(&homes, 0), 0);
    assert!((4..=5).contains(&count(&homes, 1)), "{homes:?}");
}

#[test]
fn they_are_given_away_together() {
    let mut sim = settled();
    sim.set_facts(0, NodeFacts { cordoned: true, ..NodeFacts::default() });
    sim.run(secs(2));
    let homes = homes(&sim);
    assert_eq!(count(&homes, 0), 0);
    assert!((4..=5).contains(&count(&homes, 1)), "{homes:?}");
}

#[test]
fn without_the_api_server_one_stands_in_for_both() {
    let mut sim = settled();
    sim.api_down();
    sim.run(secs(2));
    sim.power_off(0);
    sim.run(secs(5));
    assert_eq!(count(&homes(&sim), 0), 0);
    sim.api_up();
    sim.run(secs(20));
    assert_eq!(count(&homes(&sim), 0), 0);
}

#[test]
fn one_that_must_go_goes_alone_and_nothing_follows() {
    let mut sim = settled();
    let [v4, v6] = both(0);
    let owner = home(&sim, 0);
    let other = (owner + 1) % NODES;
    sim.set_backends(v6, &[other], &[]);
    sim.run(secs(2));
    assert_eq!((sim.only_announcer(v4), sim.only_announcer(v6)), (owner, other));
    sim.set_backends(v6, &[0, 1, 2], &[]);
    sim.run(secs(5));
    assert_eq!((sim.only_announcer(v4), sim.only_announcer(v6)), (owner, other));
    // Whoever is to have one of them joins the other.
    sim.power_off(owner);
    sim.run(secs(2));
    assert_eq!(home(&sim, 0), other);
}

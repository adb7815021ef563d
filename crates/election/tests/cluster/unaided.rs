//! What happens while the API server is away, one fault at a time.

use crate::sim::{Sim, ip, millis, secs};

/// Some nodes and one address, settled, and the API server gone for a while.
fn alone(nodes: usize) -> (Sim, usize) {
    let mut sim = Sim::new(nodes);
    sim.create_lock(ip(240));
    sim.run(secs(3));
    let owner = sim.only_announcer(ip(240));
    sim.api_down();
    sim.run(secs(20));
    assert_eq!(sim.only_announcer(ip(240)), owner);
    (sim, owner)
}

#[test]
fn an_owner_that_dies_is_replaced_within_two_seconds() {
    for nodes in 2..6 {
        let (mut sim, owner) = alone(nodes);
        sim.power_off(owner);
        sim.run(secs(2));
        let successor = sim.only_announcer(ip(240));
        assert_ne!(successor, owner);
        assert_eq!(sim.longest_overlap, millis(0));
        sim.api_up();
        sim.run(secs(20));
        sim.only_announcer(ip(240));
        assert_eq!(sim.holder(ip(240)), Some(sim.only_announcer(ip(240))));
        assert!(sim.longest_overlap <= millis(10), "{:?}", sim.longest_overlap);
    }
}

#[test]
fn an_owner_that_takes_the_api_server_with_it_is_replaced_within_two_seconds() {
    for nodes in 2..6 {
        let mut sim = Sim::new(nodes);
        sim.create_lock(ip(240));
        sim.run(secs(3));
        let owner = sim.only_announcer(ip(240));
        sim.api_down();
        sim.power_off(owner);
        sim.run(secs(2));
        assert_ne!(sim.only_announcer(ip(240)), owner);
    }
}

#[test]
fn an_owner_that_was_paused_asks_for_its_address_and_goes_on() {
    let (mut sim, owner) = alone(3);
    sim.pause(owner);
    sim.run(secs(30));
    assert!(sim.announcers(ip(240)).is_empty(), "its kernel answers: nobody stands in");
    sim.resume(owner);
    sim.run(secs(2));
    assert_eq!(sim.only_announcer(ip(240)), owner);
}

#[test]
fn a_node_whose_cable_is_out_stands_in_for_nobody() {
    let (mut sim, owner) = alone(3);
    let cut_off = (owner + 1) % 3;
    sim.cable_out(cut_off);
    sim.run(secs(20));
    assert_eq!(sim.only_announcer(ip(240)), owner);
}

#[test]
fn an_owner_whose_cable_comes_back_finds_its_successor_and_a_lone_one_goes_on() {
    let (mut sim, owner) = alone(3);
    sim.cable_out(owner);
    sim.run(secs(2));
    sim.cable_in(owner);
    sim.run(secs(5));
    let successor = sim.only_announcer(ip(240));
    assert_ne!(successor, owner);
    assert_eq!(sim.longest_overlap, millis(0));

    let (mut sim, owner) = alone(1);
    sim.cable_out(owner);
    sim.run(secs(2));
    sim.cable_in(owner);
    sim.run(millis(500));
    assert_eq!(sim.only_announcer(ip(240)), owner, "nobody answered");
}

#[test]
fn an_owner_that_loses_answers_when_its_cable_comes_back_does_not_take_itself_for_the_only_one() {
    let (mut sim, owner) = alone(3);
    sim.cable_out(owner);
    sim.run(secs(2));
    let successor = sim.announcers(ip(240)).into_iter().find(|it| *it != owner).unwrap();
    sim.cut_between(owner, successor);
    sim.cable_in(owner);
    for _ in 0..100 {
        sim.answers_lost(owner);
        sim.run(millis(20));
    }
    sim.heal_between(owner, successor);
    sim.run(secs(2));
    assert_eq!(sim.only_announcer(ip(240)), successor);
    assert_eq!(sim.longest_overlap, millis(0));
}

#[test]
fn an_owner_that_returns_with_power_waits_for_the_api_server() {
    let (mut sim, owner) = alone(3);
    sim.power_off(owner);
    sim.run(secs(2));
    let successor = sim.only_announcer(ip(240));
    sim.power_on(owner);
    sim.api_cut(owner);
    sim.run(secs(20));
    assert_eq!(sim.only_announcer(ip(240)), successor);
    sim.api_up();
    sim.run(secs(20));
    assert_eq!(sim.holder(ip(240)), Some(sim.only_announcer(ip(240))));
    assert!(sim.longest_overlap <= millis(10), "{:?}", sim.longest_overlap);
}

#[test]
fn an_owner_that_lost_everybody_finds_its_successor_when_the_segment_is_whole_again() {
    let mut sim = Sim::new(2);
    sim.create_lock(ip(240));
    sim.run(secs(3));
    let owner = sim.only_announcer(ip(240));
    sim.api_cut(owner);
    sim.cut_between(0, 1);
    sim.run(secs(20));
    assert_eq!(sim.announcers(ip(240)), [0, 1], "neither can know of the other");
    sim.heal_between(0, 1);
    sim.run(secs(2));
    assert_eq!(sim.only_announcer(ip(240)), 1 - owner);
    assert!(sim.longest_overlap <= millis(250), "{:?}", sim.longest_overlap);
}

#[test]
fn a_successor_that_dies_too_is_replaced() {
    let (mut sim, owner) = alone(4);
    sim.power_off(owner);
    sim.run(secs(2));
    let successor = sim.only_announcer(ip(240));
    sim.power_off(successor);
    sim.run(secs(5));
    let last = sim.only_announcer(ip(240));
    assert!(last != owner && last != successor);
}

#[test]
fn forged_frames_of_a_fellow_keep_an_address_dark_for_a_small_part_of_the_time() {
    for shift in 1..3 {
        let (mut sim, owner) = alone(3);
        let mut announced = 0;
        for step in 0..6000_u32 {
            if step % 300 == 0 {
                sim.forge(owner, ip(240), (owner + shift) % 3);
            }
            sim.run(millis(10));
            announced += usize::from(sim.announcers(ip(240)) == [owner]);
        }
        assert!(announced > 4800, "{} of 60 s", announced / 100);
    }
}

#[test]
fn a_fellow_that_goes_on_announcing_is_left_to_it() {
    let mut sim = Sim::new(2);
    sim.create_lock(ip(240));
    sim.run(secs(3));
    let owner = sim.only_announcer(ip(240));
    sim.api_cut(owner);
    sim.cable_out(owner);
    sim.run(secs(20));
    assert_eq!(sim.holder(ip(240)), Some(1 - owner), "it has the lock");
    sim.cable_in(owner);
    sim.run(secs(60));
    assert_eq!(sim.only_announcer(ip(240)), 1 - owner);
    assert!(sim.longest_overlap <= millis(10), "{:?}", sim.longest_overlap);
}

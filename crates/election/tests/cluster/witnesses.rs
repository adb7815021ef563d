//! Who notices that a node has failed, in clusters that are not one segment of three nodes.

// A test's own subnets: what cannot be must stop the test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use arpeggio_election::{Interface, Reach};

use crate::sim::{Sim, ip, millis, secs};

/// A failover that nobody had to wait for: three questions, two writes and what the simulation's wire and API server take.
const FAST: u64 = 500;

/// The interfaces in these subnets.
fn reach(subnets: &[&str]) -> Reach {
    let interface = |(index, subnet): (usize, &&str)| Interface {
        name: format!("eth{index}"),
        subnets: vec![subnet.parse().unwrap()],
        ..Interface::default()
    };
    Reach { interfaces: subnets.iter().enumerate().map(interface).collect() }
}

/// Addresses of each node's own, wherever they are announced from.
fn with_addresses(sim: &mut Sim, count: u8) {
    (0..count).for_each(|last| sim.create_lock(ip(last)));
    sim.run(secs(5));
}

/// Cuts the power of some nodes at once, and sees that what they announced is announced elsewhere soon.
fn die_at_once(sim: &mut Sim, nodes: &[usize], addresses: u8, soon: u64) {
    nodes.iter().for_each(|node| sim.power_off(*node));
    sim.run(millis(soon));
    for last in 0..addresses {
        let owner = sim.only_announcer(ip(last));
        assert!(!nodes.contains(&owner), "{last}: {:?}", sim.log);
    }
    assert!(!sim.log_has("Expired"), "{nodes:?}: {:?}", sim.log);
    // Two may take themselves for the heir when a better one has died as well: until the first frame.
    assert!(sim.longest_overlap <= millis(2), "{:?}", sim.longest_overlap);
}

#[test]
fn any_two_of_six_nodes_that_die_at_once_are_replaced_as_fast_as_one() {
    for one in 0..6 {
        for other in (0..6).filter(|other| *other != one) {
            let mut sim = Sim::new(6);
            with_addresses(&mut sim, 12);
            die_at_once(&mut sim, &[one, other], 12, FAST);
        }
    }
}

#[test]
fn any_three_of_seven_nodes_that_die_at_once_are_replaced_by_the_second_in_line_at_the_latest() {
    for skip in 1..=3 {
        for first in 0..7 {
            let mut sim = Sim::new(7);
            with_addresses(&mut sim, 14);
            die_at_once(
                &mut sim,
                &[first, (first + skip) % 7, (first + 2 * skip) % 7],
                14,
                FAST + 250,
            );
        }
    }
}

#[test]
fn half_of_the_nodes_that_die_one_after_the_other_are_replaced_as_fast_as_one() {
    for gap in [0, 20, 60, 130, 200, 310] {
        let mut sim = Sim::new(8);
        with_addresses(&mut sim, 16);
        for node in 0..4 {
            sim.power_off(node);
            sim.run(millis(gap));
        }
        sim.run(millis(FAST + 150));
        (0..16).for_each(|last| assert!(sim.only_announcer(ip(last)) >= 4, "{gap}: {:?}", sim.log));
        assert!(!sim.log_has("Expired"), "{gap}: {:?}", sim.log);
    }
}

#[test]
fn who_cannot_hear_a_node_that_lives_stops_accusing_it() {
    for cut in 1..5 {
        let mut sim = Sim::new(5);
        with_addresses(&mut sim, 10);
        sim.cut_between(0, cut);
        sim.run(secs(60));
        let accusations = sim.log.iter().filter(|line| line.contains("Accuse")).count();
        assert!(accusations <= 4, "{cut}: {accusations}: {:?}", sim.log);
        let held: Vec<u8> = (0..10).filter(|last| sim.holder(ip(*last)) == Some(0)).collect();
        assert_eq!(held.len(), 2, "{cut}: nothing has moved: {:?}", sim.log);
        die_at_once(&mut sim, &[0], 10, FAST);
    }
}

#[test]
fn a_node_on_another_network_neither_confirms_nor_delays() {
    for far in 0..3 {
        // It says so in one cluster. In the other one its tunnel has the subnet of the segment.
        for says_so in [true, false] {
            let mut sim = Sim::new(3);
            sim.segments.insert(far, [9].into());
            for node in 0..3 {
                let is_elsewhere = node == far && says_so;
                let subnet = if is_elsewhere { "10.8.0.2/24" } else { "192.168.0.11/24" };
                sim.set_reach(node, reach(&[subnet]));
            }
            with_addresses(&mut sim, 6);
            let near: Vec<usize> = (0..3).filter(|node| *node != far).collect();
            sim.power_off(near[0]);
            sim.run(millis(FAST));
            let own: BTreeSet<usize> = (0..6).flat_map(|last| sim.announcers(ip(last))).collect();
            assert!(own.contains(&near[1]), "{far} {says_so}: {:?}", sim.log);
            let dark = (0..6).filter(|last| sim.announcers(ip(*last)).is_empty()).count();
            assert_eq!(dark, 0, "{far} {says_so}: {:?}", sim.log);
            assert!(!sim.log_has("Expired"), "{far} {says_so}: {:?}", sim.log);
        }
    }
}

#[test]
fn each_of_two_segments_has_its_witnesses() {
    for dying in 0..8 {
        let mut sim = Sim::new(8);
        for node in 0..8 {
            let subnet = if node < 4 { "192.168.0.11/24" } else { "192.168.1.11/24" };
            sim.segments.insert(node, [u8::from(node >= 4)].into());
            sim.set_reach(node, reach(&[subnet]));
        }
        with_addresses(&mut sim, 16);
        let before = sim.broadcasts;
        sim.run(secs(10));
        assert_eq!(sim.broadcasts - before, 0, "at rest nobody is asked by broadcast");
        sim.power_off(dying);
        sim.run(millis(FAST));
        assert!(sim.log_has("NodeSilent"), "{dying}: {:?}", sim.log);
        assert!((0..16).all(|last| sim.announcers(ip(last)).len() == 1), "{dying}: {:?}", sim.log);
    }
}

/// They are on one wire all the same: each subnet contains the addresses of the other nodes.
#[test]
fn a_node_whose_subnet_has_another_length_is_watched_and_watches() {
    let table = [
        ("192.168.0.11/16", ["192.168.0.12/24", "192.168.0.13/24"]),
        ("192.168.0.11/24", ["192.168.0.12/16", "192.168.0.13/16"]),
        ("192.168.0.11/25", ["192.168.0.12/16", "192.168.0.13/24"]),
    ];
    for (first, others) in table {
        for dying in 0..3 {
            let mut sim = Sim::new(3);
            for (node, subnet) in [first].into_iter().chain(others).enumerate() {
                sim.set_reach(node, reach(&[subnet]));
            }
            with_addresses(&mut sim, 6);
            sim.power_off(dying);
            sim.run(millis(FAST));
            let text = format!("{first} {others:?} {dying}: {:?}", sim.log);
            assert!(sim.log_has("NodeSilent"), "{text}");
            let dark = (0..6).filter(|last| sim.announcers(ip(*last)).is_empty()).count();
            assert_eq!(dark, 0, "{text}");
        }
    }
}

/// They do not hear the three, but their wide subnet contains the addresses of these.
#[test]
fn many_with_a_wide_subnet_on_another_segment_take_no_watcher_away() {
    for first in 0..11 {
        let mut sim = Sim::new(13);
        for node in 0..13 {
            let is_near = (first..first + 3).contains(&node);
            sim.segments.insert(node, [u8::from(!is_near)].into());
            let (third, length) = if is_near { (1, 24) } else { (2, 16) };
            let mut reach = reach(&[&format!("10.0.{third}.{}/{length}", node + 11)]);
            reach.interfaces[0].default_ipv4 = true;
            sim.set_reach(node, reach);
        }
        with_addresses(&mut sim, 26);
        sim.power_off(first);
        sim.run(millis(FAST));
        assert!(sim.log_has("NodeSilent"), "{first}: {:?}", sim.log);
        assert!((0..26).all(|last| sim.announcers(ip(last)).len() == 1), "{first}: {:?}", sim.log);
    }
}

#[test]
fn nodes_that_do_not_hear_each_other_cost_no_broadcast_at_rest() {
    let mut sim = Sim::new(6);
    (0..6).for_each(|node| drop(sim.segments.insert(node, [u8::try_from(node).unwrap()].into())));
    with_addresses(&mut sim, 6);
    let before = sim.broadcasts;
    sim.run(secs(30));
    assert_eq!(sim.broadcasts - before, 0);
    assert!(!sim.log_has("Accuse") && !sim.log_has("End"), "{:?}", sim.log);
}

#[test]
fn a_node_whose_mac_address_changes_is_not_silent() {
    for node in 0..3 {
        let mut sim = Sim::new(3);
        with_addresses(&mut sim, 6);
        sim.moved_macs.insert(node);
        sim.run(secs(3));
        assert!(!sim.log_has("End"), "{:?}", sim.log);
        sim.record_is_outdated(node);
        sim.run(millis(30));
        sim.moved_macs.clear();
        sim.run(secs(3));
        assert!(!sim.log_has("End"), "{:?}", sim.log);
    }
}

#[test]
fn one_link_between_two_of_many_that_is_broken_accuses_nobody_wrongly() {
    for one in 0..5 {
        for other in (0..5).filter(|other| *other != one) {
            let mut sim = Sim::new(5);
            with_addresses(&mut sim, 10);
            sim.cut_between(one, other);
            sim.run(secs(20));
            assert!(!sim.log_has("End"), "{one} {other}: {:?}", sim.log);
        }
    }
}

#[test]
fn at_rest_only_renewals_are_written_and_those_as_often_as_ever() {
    let mut sim = Sim::new(8);
    with_addresses(&mut sim, 8);
    let before = sim.writes;
    sim.run(secs(30));
    let writes = sim.writes - before;
    assert!((72..=88).contains(&writes), "{writes} writes in 30 s by eight nodes");
}

#[test]
fn speakers_of_an_earlier_release_watch_as_they_did() {
    for dying in 0..4 {
        for earlier in [&[0, 1][..], &[2, 3], &[0, 1, 2, 3]] {
            let mut sim = Sim::new(4);
            earlier.iter().for_each(|index| sim.is_of_earlier_release(*index));
            with_addresses(&mut sim, 8);
            die_at_once(&mut sim, &[dying], 8, FAST);
        }
    }
}

/// Two watch it; all others would be refused.
#[test]
fn who_watches_a_node_ends_its_session_when_it_expires_and_the_others_need_not() {
    let mut sim = Sim::new(12);
    sim.run(secs(5));
    sim.api_cut(11);
    let before = sim.ends_in_vain;
    sim.run(secs(15));
    assert!(sim.log_has("Expired"), "{:?}", sim.log);
    let in_vain = sim.ends_in_vain - before;
    assert!(in_vain <= 1, "{in_vain}");
}

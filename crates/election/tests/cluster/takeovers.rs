//! The owner of many addresses fails, and the API server needs its time for the locks.

use std::net::IpAddr;

use crate::sim::{Sim, millis, secs};

const ADDRESSES: u8 = 150;
/// Of the addresses of one of three nodes.
const LOST: usize = 50;
/// What the API server needs for a lock; for all of those that are lost, longer than any speaker is patient.
const LOCK_TAKES: u64 = 20;
/// Until a node is known to be silent, and its session is ended.
const NOTICED: u64 = 350;

fn addresses() -> Vec<IpAddr> {
    (0..ADDRESSES).map(|last| IpAddr::from([10, 0, 0, last])).collect()
}

/// Three nodes with as many addresses each.
fn settled() -> Sim {
    let mut sim = Sim::resumed(3, &addresses());
    sim.run(secs(3));
    assert_eq!(sim.announced_per_node(), [LOST; 3]);
    sim.lock_takes = (0..3).map(|index| (index, LOCK_TAKES)).collect();
    sim
}

fn has_exactly_one_announcer_for_each(sim: &Sim) -> bool {
    addresses().into_iter().all(|address| sim.announcers(address).len() == 1)
}

#[test]
fn the_last_address_of_a_dead_node_is_back_as_soon_as_the_first() {
    let mut sim = settled();
    sim.power_off(0);
    sim.run(millis(NOTICED));
    assert!(has_exactly_one_announcer_for_each(&sim), "{:#?}", sim.log);
    assert!(sim.log.iter().filter(|line| line.contains("Take")).count() < LOST / 2);
    sim.run(secs(3));
    assert!(has_exactly_one_announcer_for_each(&sim));
    assert_eq!(sim.announced_per_node(), [0, LOST * 3 / 2, LOST * 3 / 2]);
    assert!(addresses().into_iter().all(|address| sim.holder(address) != Some(0)));
    assert_eq!(sim.in_vain, 0, "{:#?}", sim.log);
    assert_eq!(sim.longest_overlap, millis(0));
}

#[test]
fn nobody_is_in_the_way_of_who_is_at_work() {
    let mut sim = settled();
    sim.api_cut(0);
    sim.run(secs(20));
    assert_eq!(sim.announced_per_node(), [0, LOST * 3 / 2, LOST * 3 / 2]);
    assert_eq!(sim.in_vain, 0, "{:#?}", sim.log);
}

#[test]
fn an_heir_that_is_heard_is_left_alone_though_its_writes_take_long() {
    let mut sim = settled();
    sim.lock_takes.insert(1, 400);
    sim.power_off(0);
    sim.run(secs(3));
    assert_eq!(sim.announced_per_node(), [0, LOST * 3 / 2, LOST * 3 / 2], "{:#?}", sim.log);
    assert_eq!(sim.in_vain, 0, "{:#?}", sim.log);
    assert_eq!(sim.longest_overlap, millis(0));
}

#[test]
fn an_heir_that_dies_at_work_is_replaced_by_the_next_one() {
    let mut sim = settled();
    sim.power_off(0);
    sim.run(millis(NOTICED + 100));
    sim.power_off(1);
    sim.run(secs(5));
    assert_eq!(sim.announced_per_node(), [0, 0, usize::from(ADDRESSES)], "{:#?}", sim.log);
}

#[test]
fn an_owner_whose_session_was_ended_wrongly_stops_when_it_hears_its_heirs() {
    for lag in [0, 1000] {
        let mut sim = settled();
        sim.lags.insert(0, lag);
        sim.run(secs(1)); // It does not learn of it from a renewal by chance.
        sim.end_session(0);
        sim.run(millis(200));
        assert!(has_exactly_one_announcer_for_each(&sim), "{lag}: {:#?}", sim.log);
        sim.run(secs(5));
        assert!(has_exactly_one_announcer_for_each(&sim), "{lag}: {:#?}", sim.log);
        assert!(sim.longest_overlap <= millis(120), "{lag}: {:?}", sim.longest_overlap);
    }
}

/// Its heirs announce before they have the locks, which still name it: only its session tells. Whatever it is about to
/// hear of that takes long.
#[test]
fn an_owner_that_reads_its_name_on_the_lock_stops_all_the_same() {
    for phase in 0..12 {
        let mut sim = settled();
        sim.lags.insert(0, 5000);
        sim.session_takes.insert(0, 2000);
        sim.lock_takes.extend([(1, 5000), (2, 5000)]);
        sim.run(millis(3000 + 250 * phase));
        sim.end_session(0);
        sim.run(secs(2));
        assert!(has_exactly_one_announcer_for_each(&sim), "{phase}: {:#?}", sim.log);
        assert!(sim.longest_overlap <= millis(700), "{phase}: {:?}", sim.longest_overlap);
    }
}

#[test]
fn what_was_replaced_while_the_api_server_was_away_stays_where_it_is() {
    let mut sim = settled();
    sim.api_down();
    sim.run(secs(2));
    sim.power_off(0);
    sim.run(secs(2));
    assert!(has_exactly_one_announcer_for_each(&sim));
    let before = sim.announced_per_node();
    sim.api_up();
    sim.run(secs(2));
    sim.power_on(0);
    sim.run(secs(10));
    assert_eq!(sim.announced_per_node(), before, "{:#?}", sim.log);
}

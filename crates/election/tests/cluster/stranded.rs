//! Addresses that no node may announce: one node says so, and why.

use arpeggio_election::{NodeFacts, Unfit};

use crate::sim::{Sim, ip, millis, secs, settled};

fn excluded() -> NodeFacts {
    NodeFacts { excluded: true, ..NodeFacts::default() }
}

#[test]
fn one_node_tells_of_an_address_without_a_candidate_once_and_why() {
    let mut sim = Sim::new(3);
    (0..3).for_each(|index| sim.set_facts(index, excluded()));
    sim.run(secs(2));
    sim.create_lock(ip(240));
    sim.run(secs(4));
    assert_eq!(sim.stranded, [], "the label may go at any moment");
    sim.run(secs(20));
    let [told] = &sim.stranded[..] else { panic!("{:?}", sim.stranded) };
    assert_eq!((told.address, told.backless), (ip(240), false));
    let why = ["node-0", "node-1", "node-2"].map(Into::into).to_vec();
    assert_eq!(told.why, [(Unfit::Excluded, why)].into());

    sim.set_facts(1, NodeFacts::default());
    sim.run(secs(2));
    assert_eq!(sim.only_announcer(ip(240)), 1);
    assert_eq!(sim.stranded.len(), 1);
}

#[test]
fn when_who_has_told_is_gone_another_one_tells() {
    let mut sim = Sim::new(3);
    (0..3).for_each(|index| sim.set_facts(index, excluded()));
    sim.create_lock(ip(240));
    sim.run(secs(10));
    assert_eq!(sim.stranded.len(), 1);
    // Any of them may have been the one.
    for index in 0..2 {
        sim.power_off(index);
        sim.run(secs(10));
    }
    assert!((2..=3).contains(&sim.stranded.len()), "{:?}", sim.stranded);
}

#[test]
fn pods_that_start_later_than_their_service_are_nobodys_mistake() {
    let mut sim = Sim::new(3);
    sim.create_lock(ip(240));
    sim.set_backends(ip(240), &[], &[]);
    sim.run(secs(4));
    sim.set_backends(ip(240), &[2], &[]);
    sim.run(secs(20));
    assert_eq!(sim.only_announcer(ip(240)), 2);
    assert_eq!(sim.stranded, []);
}

#[test]
fn the_last_backend_ends_on_a_node_that_has_not_announced_yet() {
    let (mut sim, owner) = settled();
    let other = (owner + 1) % 3;
    sim.set_backends(ip(240), &[owner, other], &[]);
    sim.run(secs(1));
    // The gift is on its way when its backend ends, too.
    sim.set_backends(ip(240), &[other], &[]);
    sim.run(millis(6));
    sim.set_backends(ip(240), &[], &[]);
    sim.run(secs(20));
    assert!(sim.announcers(ip(240)).is_empty());
    assert!(!sim.stranded.is_empty() && sim.stranded.len() <= 2, "{:?}", sim.stranded);
    assert!(sim.stranded.iter().all(|it| it.backless), "{:?}", sim.stranded);
}

//! Addresses that a node of the cluster has for itself, as keepalived and kube-vip put that of an API server on one.

use std::time::Duration;

use crate::sim::{Sim, ip, millis, node_mac, secs, settled};

/// Longer than three questions take, and the turns of all who may ask.
const ASKED: u64 = 3000;

/// A machine that is no node.
const STRANGER: [u8; 6] = [6, 0, 0, 0, 0, 1];

#[test]
fn an_address_that_a_node_has_is_announced_by_nobody_until_it_has_gone() {
    for owner in 0..3 {
        let mut sim = Sim::new(3);
        sim.run(secs(3));
        sim.kernels.insert(ip(240), owner);
        sim.create_lock(ip(240));
        sim.run(millis(ASKED));
        assert_eq!(sim.announcers(ip(240)), [], "{owner}: {:#?}", sim.log);
        assert_eq!(sim.holder(ip(240)), None, "{owner}");
        assert_eq!(sim.stranger(ip(240)), Some(node_mac(owner)), "{owner}");
        sim.kernels.clear();
        sim.run(secs(35));
        sim.only_announcer(ip(240));
        assert_eq!(sim.stranger(ip(240)), None, "{owner}");
    }
}

#[test]
fn an_address_that_a_node_gets_between_two_questions_is_not_announced() {
    let mut sim = Sim::new(3);
    sim.run(secs(3));
    sim.create_lock(ip(240));
    sim.run(millis(100));
    sim.kernels.insert(ip(240), 1);
    sim.run(millis(ASKED));
    assert_eq!((sim.announcers(ip(240)), sim.holder(ip(240))), (vec![], None), "{:#?}", sim.log);
}

#[test]
fn a_speaker_that_has_just_lost_an_address_is_not_taken_for_its_owner() {
    for lag in [0, 2000] {
        let mut sim = Sim::new(3);
        (0..9).for_each(|last| sim.create_lock(ip(last)));
        sim.run(secs(3));
        sim.lags.insert(0, lag);
        (0..9).for_each(|last| sim.delete_lock(ip(last)));
        sim.run(millis(10));
        // One more, so that not all come back to where they were.
        (0..10).rev().for_each(|last| sim.create_lock(ip(last)));
        sim.run(secs(5));
        (0..10).for_each(|last| _ = sim.only_announcer(ip(last)));
        assert!(!sim.log_has("Quarantine"), "{lag}: {:#?}", sim.log);
    }
}

#[test]
fn a_speaker_that_cannot_know_what_it_has_lost_is_not_taken_for_its_owner() {
    let (mut sim, owner) = settled();
    sim.api_cut(owner);
    sim.delete_lock(ip(240));
    sim.run(secs(60));
    assert_eq!(sim.only_announcer(ip(240)), owner, "it does not know");
    sim.create_lock(ip(240));
    sim.run(secs(3));
    assert!(sim.holder(ip(240)).is_some_and(|holder| holder != owner));
    assert!(!sim.log_has("Quarantine"), "{:#?}", sim.log);
}

#[test]
fn what_its_last_holder_has_for_itself_is_known_a_session_later() {
    let (mut sim, owner) = settled();
    sim.delete_lock(ip(240));
    sim.kernels.insert(ip(240), owner);
    sim.run(secs(15));
    sim.create_lock(ip(240));
    sim.run(millis(ASKED));
    assert_eq!(sim.announcers(ip(240)), [], "{:#?}", sim.log);
    assert_eq!(sim.stranger(ip(240)), Some(node_mac(owner)));
}

#[test]
fn an_address_whose_owners_answers_may_be_lost_is_not_taken() {
    let mut sim = Sim::new(3);
    sim.run(secs(3));
    sim.create_lock(ip(240));
    lose_answers(&mut sim, secs(3));
    assert_eq!(sim.holder(ip(240)), None, "{:#?}", sim.log);
    sim.strangers.insert(ip(240), STRANGER);
    sim.run(millis(ASKED));
    assert_eq!((sim.announcers(ip(240)), sim.holder(ip(240))), (vec![], None), "{:#?}", sim.log);
    assert_eq!(sim.stranger(ip(240)), Some(STRANGER));
}

#[test]
fn nobody_keeps_a_new_address_dark_by_a_flood() {
    let mut sim = Sim::new(3);
    sim.run(secs(3));
    sim.create_lock(ip(240));
    lose_answers(&mut sim, secs(13));
    sim.only_announcer(ip(240));
}

/// All speakers lose answers again and again.
fn lose_answers(sim: &mut Sim, span: Duration) {
    const OFTEN: Duration = Duration::from_millis(20);
    for _ in 0..span.as_millis() / OFTEN.as_millis() {
        (0..3).for_each(|index| sim.answers_lost(index));
        sim.run(OFTEN);
    }
}

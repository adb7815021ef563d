//! One fault at a time, with its stated outcome.

use arpeggio_election::{AnnounceTerms, Claimant, Places};

use crate::sim::{Sim, ip, millis, secs, settled};

#[test]
fn a_new_address_is_announced_by_exactly_one_node_when_nobody_has_answered_for_it() {
    let mut sim = Sim::new(3);
    sim.run(secs(3));
    sim.create_lock(ip(240));
    sim.run(millis(200));
    assert_eq!(sim.announced_per_node(), [0; 3], "it is asked for first");
    sim.run(millis(150));
    sim.only_announcer(ip(240));
}

#[test]
fn a_strangers_address_is_announced_by_nobody_until_the_stranger_has_gone() {
    let mut sim = Sim::new(3);
    sim.run(secs(3));
    sim.strangers.insert(ip(240), [2, 0, 0, 0, 0, 9]);
    sim.create_lock(ip(240));
    sim.run(secs(100));
    assert_eq!(sim.announced_per_node(), [0; 3]);
    let told = sim.log.iter().filter(|line| line.contains("Quarantine")).count();
    assert_eq!(told, 1, "written down once: {:?}", sim.log);
    sim.strangers.clear();
    sim.run(secs(31));
    sim.only_announcer(ip(240));
}

#[test]
fn addresses_are_spread_within_one() {
    let mut sim = Sim::new(3);
    sim.run(secs(3));
    for last in 0..20 {
        sim.create_lock(ip(last));
    }
    sim.run(secs(1));
    let counts = sim.announced_per_node();
    assert!(counts.iter().all(|count| (6..=7).contains(count)), "{counts:?}");
}

#[test]
fn an_owner_that_loses_power_is_replaced_within_half_a_second() {
    let (mut sim, owner) = settled();
    sim.power_off(owner);
    sim.run(millis(500));
    assert_ne!(sim.only_announcer(ip(240)), owner);
    assert!(sim.log_has("NodeSilent"), "{:?}", sim.log);
    assert_eq!(sim.longest_overlap, millis(0));
}

#[test]
fn an_address_without_an_owner_is_counted_by_everybody_until_it_is_taken() {
    let (mut sim, owner) = settled();
    let other = (owner + 1) % 3;
    assert_eq!(sim.ownerless(other), 0);
    sim.create_lock(ip(241));
    sim.run(millis(100));
    assert_eq!(sim.ownerless(other), 1, "it is asked for first");
    sim.run(millis(300));
    assert_eq!(sim.ownerless(other), 0);
    sim.set_terms(ip(241), AnnounceTerms { places: Places::ByRules(Vec::new()), probing: true });
    let holder = sim.holder(ip(241)).unwrap();
    sim.power_off(holder);
    sim.run(secs(1));
    assert_eq!(sim.ownerless((holder + 1) % 3), 0, "what nobody may announce wants for no owner");
}

#[test]
fn both_deputies_confirm_before_a_session_ends() {
    let (mut sim, owner) = settled();
    // One deputy alone stops hearing the owner: a switch that drops unicast between two ports.
    let deputy = (owner + 1) % 3;
    sim.cut_between(owner, deputy);
    sim.run(secs(20));
    assert_eq!(sim.only_announcer(ip(240)), owner);
    assert!(sim.log_has("Accuse") && !sim.log_has("End"), "{:?}", sim.log);
}

#[test]
fn who_has_lost_answers_accuses_nobody_by_what_it_did_not_hear() {
    let (mut sim, owner) = settled();
    let others: Vec<usize> = (0..3).filter(|index| *index != owner).collect();
    others.iter().for_each(|other| sim.cut_between(owner, *other));
    for _ in 0..100 {
        (0..3).for_each(|index| sim.answers_lost(index));
        sim.run(millis(20));
    }
    assert!(!sim.log_has("NodeSilent"), "{:?}", sim.log);
    assert_eq!(sim.only_announcer(ip(240)), owner);
    sim.run(millis(500));
    assert!(sim.log_has("NodeSilent"), "nothing gets lost any more: {:?}", sim.log);
}

#[test]
fn a_node_whose_cable_is_out_accuses_nobody_and_its_addresses_move() {
    let (mut sim, owner) = settled();
    sim.cable_out(owner);
    sim.run(secs(1));
    assert!(sim.announcers(ip(240)).iter().any(|node| *node != owner));
    assert!(!sim.log.iter().any(|line| line.starts_with(&format!("node-{owner} End"))));
    sim.cable_in(owner);
    sim.run(secs(1));
    assert_ne!(sim.only_announcer(ip(240)), owner);
}

#[test]
fn a_node_whose_cable_comes_back_asks_before_it_announces() {
    let (mut sim, owner) = settled();
    sim.cable_out(owner);
    sim.api_cut(owner);
    sim.run(secs(5));
    sim.cable_in(owner);
    sim.run(secs(2));
    let successor = sim.only_announcer(ip(240));
    assert_ne!(successor, owner, "it asked the segment: {:?}", sim.log);
    sim.api_heal(owner);
    sim.run(secs(20));
    assert_eq!(sim.only_announcer(ip(240)), successor);
    assert_eq!(sim.longest_overlap, millis(0));
}

#[test]
fn a_cable_that_is_out_for_a_moment_costs_one_renewal() {
    let (mut sim, owner) = settled();
    sim.cable_out(owner);
    sim.run(millis(50));
    sim.cable_in(owner);
    sim.run(millis(1));
    assert!(sim.announcers(ip(240)).is_empty(), "not before it is known that nobody has taken it");
    sim.run(millis(20));
    assert_eq!(sim.only_announcer(ip(240)), owner);
    assert!(!sim.log_has("End"), "{:?}", sim.log);
}

#[test]
fn a_node_that_returns_takes_nothing_back() {
    let (mut sim, owner) = settled();
    sim.power_off(owner);
    sim.run(secs(5));
    let successor = sim.only_announcer(ip(240));
    sim.power_on(owner);
    sim.run(secs(30));
    assert_eq!(sim.only_announcer(ip(240)), successor);
}

#[test]
fn a_speaker_that_restarts_resumes_its_session_and_nothing_moves() {
    let (mut sim, owner) = settled();
    sim.restart_speaker(owner);
    sim.run(millis(300));
    assert_eq!(sim.only_announcer(ip(240)), owner);
    sim.run(secs(20));
    assert_eq!(sim.only_announcer(ip(240)), owner);
    assert!(!sim.log_has("End"), "{:?}", sim.log);
}

#[test]
fn a_speaker_that_stops_hands_over_without_a_gap() {
    let (mut sim, owner) = settled();
    sim.stop_speaker(owner);
    for _ in 0..500 {
        sim.run(millis(1));
        assert!(!sim.announcers(ip(240)).is_empty(), "{:?}", sim.log);
    }
    assert_ne!(sim.only_announcer(ip(240)), owner);
    // From the new owner's first frame until the old one has seen the lock.
    assert!(sim.longest_overlap <= millis(10), "{:?}", sim.longest_overlap);
}

#[test]
fn a_speaker_that_stops_without_the_api_server_gives_way_for_good() {
    let (mut sim, owner) = settled();
    sim.api_cut(owner);
    sim.stop_speaker(owner);
    sim.run(secs(20));
    assert_ne!(sim.only_announcer(ip(240)), owner, "{:?}", sim.log);
    assert!(sim.longest_overlap <= millis(5), "{:?}", sim.longest_overlap);
}

#[test]
fn a_speaker_that_stops_alone_goes_on_as_long_as_it_lives() {
    let mut sim = Sim::new(1);
    sim.create_lock(ip(240));
    sim.run(secs(3));
    sim.stop_speaker(0);
    sim.run(secs(4));
    assert_eq!(sim.only_announcer(ip(240)), 0);
}

#[test]
fn a_speaker_that_stands_still_loses_its_session_before_it_expires() {
    for nodes in 2..6 {
        let mut sim = Sim::new(nodes);
        sim.create_lock(ip(240));
        sim.run(secs(10));
        let owner = sim.only_announcer(ip(240));
        sim.pause(owner);
        sim.run(millis(4900));
        assert!(!sim.log_has("End"), "a restart may take this long: {:?}", sim.log);
        sim.run(millis(1600));
        assert_ne!(sim.only_announcer(ip(240)), owner);
        assert!(sim.log_has("SpeakerSilent") && !sim.log_has("Expired"), "{:?}", sim.log);
        sim.resume(owner);
        sim.run(secs(20));
        assert_ne!(sim.only_announcer(ip(240)), owner);
        assert_eq!(sim.longest_overlap, millis(0));
    }
}

#[test]
fn a_speaker_that_restarts_slowly_keeps_its_session() {
    let (mut sim, owner) = settled();
    sim.run(secs(10));
    sim.pause(owner);
    sim.run(secs(4));
    sim.restart_speaker(owner);
    sim.run(secs(20));
    assert_eq!(sim.only_announcer(ip(240)), owner);
    assert!(!sim.log_has("End") && !sim.log_has("Accuse"), "{:?}", sim.log);
}

#[test]
fn a_speaker_that_one_deputy_alone_does_not_hear_keeps_its_session() {
    let (mut sim, owner) = settled();
    sim.run(secs(10));
    sim.deaf_to_speakers.insert((owner + 1) % 3);
    sim.run(secs(30));
    assert_eq!(sim.only_announcer(ip(240)), owner);
    assert!(sim.log_has("Accuse") && !sim.log_has("End"), "{:?}", sim.log);
}

#[test]
fn a_speaker_that_holds_nothing_and_stays_away_loses_its_session_by_expiry() {
    let (mut sim, owner) = settled();
    let idle = (owner + 1) % 3;
    sim.pause(idle);
    sim.run(secs(12));
    assert_eq!(sim.only_announcer(ip(240)), owner);
    assert!(sim.log_has("Expired"), "{:?}", sim.log);
}

#[test]
fn a_speaker_that_was_paused_answers_nothing_before_it_knows_better() {
    let (mut sim, owner) = settled();
    sim.pause(owner);
    sim.run(secs(30));
    let successor = sim.only_announcer(ip(240));
    sim.resume(owner);
    sim.run(secs(10));
    assert_eq!(sim.only_announcer(ip(240)), successor);
    assert_eq!(sim.longest_overlap, millis(0));
}

#[test]
fn losing_the_api_server_stops_no_announcement_and_its_return_moves_nothing() {
    let (mut sim, owner) = settled();
    sim.api_down();
    sim.run(secs(300));
    assert_eq!(sim.only_announcer(ip(240)), owner);
    sim.api_up();
    sim.run(secs(30));
    assert_eq!(sim.only_announcer(ip(240)), owner);
    assert!(!sim.log_has("End"), "{:?}", sim.log);
}

#[test]
fn an_api_server_that_refuses_all_writes_is_not_taken_for_one_that_is_away() {
    let (mut sim, owner) = settled();
    sim.refused = [0, 1, 2].into();
    sim.run(secs(60));
    assert_eq!(sim.only_announcer(ip(240)), owner);
    sim.power_off(owner);
    sim.run(secs(5));
    assert!(sim.announcers(ip(240)).is_empty(), "nobody stands in where locks can be read");
    sim.refused.clear();
    sim.run(secs(4));
    assert_ne!(sim.only_announcer(ip(240)), owner);
    assert!(!sim.log_has("Expired"), "the others were refused as well: {:?}", sim.log);
}

#[test]
fn an_owner_whose_writes_are_refused_gives_way_to_its_successor() {
    let (mut sim, owner) = settled();
    sim.refused.insert(owner);
    sim.run(secs(6));
    assert_eq!(sim.only_announcer(ip(240)), owner);
    sim.run(secs(10));
    assert_ne!(sim.only_announcer(ip(240)), owner);
    assert!(sim.longest_overlap <= millis(15), "{:?}", sim.longest_overlap);
}

#[test]
fn an_owner_cut_off_from_the_api_goes_on_until_a_fellow_is_heard() {
    let (mut sim, owner) = settled();
    sim.api_cut(owner);
    sim.run(secs(6));
    assert_eq!(sim.only_announcer(ip(240)), owner);
    sim.run(secs(10));
    assert_ne!(sim.only_announcer(ip(240)), owner);
    // The old owner hears the new one's announcement, knows that it cannot read the lock, and stops.
    assert!(sim.longest_overlap <= millis(5), "{:?}", sim.longest_overlap);
}

#[test]
fn a_deleted_lock_ends_the_announcement() {
    let (mut sim, _) = settled();
    sim.delete_lock(ip(240));
    sim.run(millis(200));
    assert!(sim.announcers(ip(240)).is_empty());
}

#[test]
fn two_nodes_fail_over_when_a_gateway_vouches_for_the_survivor() {
    let mut sim = Sim::new(2);
    sim.create_lock(ip(240));
    sim.run(secs(3));
    let owner = sim.only_announcer(ip(240));
    sim.power_off(owner);
    sim.run(millis(500));
    assert_ne!(sim.only_announcer(ip(240)), owner);
}

#[test]
fn two_nodes_dying_at_once_leave_the_third_as_owner() {
    let mut sim = Sim::new(3);
    for last in 0..6 {
        sim.create_lock(ip(last));
    }
    sim.run(secs(3));
    sim.power_off(0);
    sim.power_off(1);
    sim.run(secs(1));
    assert_eq!(sim.announced_per_node(), [0, 0, 6]);
}

#[test]
fn at_rest_only_sessions_are_written() {
    let mut sim = with_locks(3, 100);
    let before = sim.writes;
    sim.run(secs(30));
    let writes = sim.writes - before;
    assert!((27..=33).contains(&writes), "{writes} writes in 30 s by three nodes");
}

/// How often something was written on a lock for people.
fn notes(sim: &Sim) -> usize {
    sim.log.iter().filter(|line| line.contains("Note")).count()
}

/// This many nodes, with as many addresses.
fn with_locks(nodes: usize, addresses: u8) -> Sim {
    let mut sim = Sim::new(nodes);
    (0..addresses).for_each(|last| sim.create_lock(ip(last)));
    sim.run(secs(5));
    sim
}

#[test]
fn a_fellow_that_claims_what_it_does_not_hold_costs_little_and_is_named() {
    let (mut sim, owner) = settled();
    let fellow = (owner + 1) % 3;
    let (writes, reads) = (sim.writes, sim.reads);
    let mut dark = 0;
    for now in 0..60_000 {
        if now % 10 == 0 {
            sim.forge(owner, ip(240), fellow);
        }
        sim.run(millis(1));
        dark += usize::from(sim.announcers(ip(240)).is_empty());
    }
    assert_eq!((sim.only_announcer(ip(240)), dark), (owner, 0), "{:?}", sim.log);
    assert!(sim.reads - reads <= 10, "{} reads in a minute", sim.reads - reads);
    assert!(sim.writes - writes <= 60 + 10, "{} renewals of three nodes", sim.writes - writes);
    assert_eq!(sim.disputed(owner), [(ip(240), format!("node-{fellow}"))]);
    let by = |sim: &Sim| sim.noted_dispute(ip(240));
    assert_eq!(by(&sim), Some(Claimant::Node(format!("node-{fellow}").as_str().into())));
    assert_eq!(notes(&sim), 1, "{:?}", sim.log);
    sim.run(secs(70));
    assert_eq!(sim.disputed(owner), [], "it has ceased");
    assert_eq!((by(&sim), notes(&sim)), (None, 2), "{:?}", sim.log);
}

#[test]
fn a_stranger_that_claims_what_a_node_announces_is_on_its_lock_while_it_does() {
    let (mut sim, owner) = settled();
    let mac = [2, 0, 0, 0, 0, 9];
    sim.strangers.insert(ip(240), mac);
    sim.contest(owner, ip(240), mac);
    // From now on it says so to those only who ask, and it has more than one card.
    sim.contest(owner, ip(240), [2, 0, 0, 0, 0, 10]);
    for _ in 0..600 {
        sim.run(secs(1));
        assert_eq!(sim.only_announcer(ip(240)), owner);
    }
    assert_eq!(sim.noted_dispute(ip(240)), Some(Claimant::Stranger(mac)));
    assert_eq!(notes(&sim), 1, "{:?}", sim.log);
    sim.strangers.clear();
    sim.run(secs(310));
    assert_eq!((sim.noted_dispute(ip(240)), notes(&sim)), (None, 2), "{:?}", sim.log);
}

#[test]
fn a_stranger_stays_on_the_lock_whoever_holds_it_and_whichever_process() {
    let mac = [2, 0, 0, 0, 0, 9];
    let happens: [fn(&mut Sim, usize); 3] = [
        |sim, owner| sim.restart_speaker(owner),
        |sim, owner| sim.ask_to_move(ip(240), (owner + 1) % 3),
        |sim, owner| sim.power_off(owner),
    ];
    for happens in happens {
        let (mut sim, owner) = settled();
        sim.strangers.insert(ip(240), mac);
        sim.contest(owner, ip(240), mac);
        sim.run(secs(90));
        happens(&mut sim, owner);
        for _ in 0..600 {
            sim.run(secs(1));
            assert_eq!(sim.noted_dispute(ip(240)), Some(Claimant::Stranger(mac)), "{:?}", sim.log);
        }
        sim.strangers.clear();
        sim.run(secs(320));
        assert_eq!(sim.noted_dispute(ip(240)), None, "{:?}", sim.log);
        assert_eq!(notes(&sim), 2, "{:?}", sim.log);
    }
}

#[test]
fn whoever_follows_a_stranger_at_an_address_is_named_and_a_new_lock_says_nothing() {
    let (first, second) = ([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 10]);
    let (mut sim, owner) = settled();
    sim.strangers.insert(ip(240), first);
    sim.contest(owner, ip(240), first);
    sim.run(secs(90));
    sim.strangers.insert(ip(240), second);
    sim.run(secs(300));
    assert_eq!(sim.noted_dispute(ip(240)), Some(Claimant::Stranger(second)), "{:?}", sim.log);
    sim.strangers.clear();
    sim.delete_lock(ip(240));
    sim.run(secs(1));
    sim.create_lock(ip(240));
    sim.run(secs(10));
    assert_eq!(sim.noted_dispute(ip(240)), None, "{:?}", sim.log);
}

#[test]
fn every_address_that_a_stranger_claims_is_noted_in_time() {
    let mut sim = with_locks(1, 200);
    for last in 0..200 {
        sim.strangers.insert(ip(last), [2, 0, 0, 0, 0, last]);
        sim.contest(0, ip(last), [2, 0, 0, 0, 0, last]);
    }
    sim.run(secs(400));
    let noted = (0..200).filter(|last| sim.noted_dispute(ip(*last)).is_some()).count();
    assert_eq!(noted, 200);
}

#[test]
fn invented_strangers_at_every_address_cost_a_bounded_number_of_writes() {
    let mut sim = with_locks(3, 240);
    let owners: Vec<usize> = (0..240).map(|last| sim.only_announcer(ip(last))).collect();
    let writes = sim.writes;
    for now in 0..20_u8 {
        for (last, owner) in (0..240).zip(&owners) {
            sim.contest(*owner, ip(last), [2, 0, 0, 0, now, last]);
        }
        sim.run(secs(1));
    }
    let writes = sim.writes - writes;
    assert!(writes <= 20 + 3 * 10 + 3 * (50 + 40), "{writes} writes in 20 s");
}

#[test]
fn a_fellow_that_claims_everything_costs_little_more_than_one_that_claims_an_address() {
    let mut sim = with_locks(3, 240);
    let owners: Vec<usize> = (0..240).map(|last| sim.only_announcer(ip(last))).collect();
    let (writes, reads) = (sim.writes, sim.reads);
    for now in 0..60_000 {
        if now % 50 == 0 {
            for (last, owner) in (0..240).zip(&owners) {
                sim.forge(*owner, ip(last), (owner + 1) % 3);
            }
        }
        sim.run(millis(1));
        let announced: usize = sim.announced_per_node().iter().sum();
        assert_eq!(announced, 240, "{now}: {:?}", sim.log);
    }
    let (writes, reads) = (sim.writes - writes, sim.reads - reads);
    assert!(reads <= 3 * (50 + 120), "{reads} reads by three nodes in a minute");
    // An address is noted as disputed after three claims that were looked into.
    let notes = 3 * (50 + 120) / 3;
    assert!(
        writes <= 60 + 3 * 30 + notes,
        "{writes} renewals and notes of three nodes in a minute"
    );
    let after: Vec<usize> = (0..240).map(|last| sim.only_announcer(ip(last))).collect();
    assert_eq!(after, owners);
    assert_eq!(sim.longest_overlap, millis(0));
}

#[test]
fn who_has_lost_very_many_addresses_unnoticed_stops_announcing_all_of_them_at_once() {
    let mut sim = with_locks(3, 240);
    let owner = sim.only_announcer(ip(0));
    sim.end_session(owner);
    sim.run(secs(1));
    (0..240).for_each(|last| _ = sim.only_announcer(ip(last)));
    assert!(sim.longest_overlap <= millis(15), "{:?}", sim.longest_overlap);
}

#[test]
fn a_fellow_that_was_wrong_before_and_is_right_now_is_believed() {
    let (mut sim, owner) = settled();
    for _ in 0..6000 {
        sim.forge(owner, ip(240), (owner + 1) % 3);
        sim.run(millis(5));
    }
    sim.end_session(owner);
    sim.run(secs(1));
    sim.only_announcer(ip(240));
    assert!(sim.longest_overlap <= millis(15), "{:?}", sim.longest_overlap);
}

//! Addresses that move on purpose: nobody is without an answer meanwhile.

use arpeggio_election::{AnnounceTerms, Interface, NodeFacts, Places, Reach, Rule};

use crate::sim::{Sim, ip, millis, secs, settled};

/// Runs for `count` ms and fails when nobody announces the address meanwhile, or two do for long.
fn watch(sim: &mut Sim, count: u64) {
    for _ in 0..count {
        sim.run(millis(1));
        assert!(!sim.announcers(ip(240)).is_empty(), "nobody announces: {:?}", sim.log);
    }
    // From the new owner's first frame until the old one has heard it.
    assert!(sim.longest_overlap <= millis(5), "{:?}", sim.longest_overlap);
}

fn cordoned() -> NodeFacts {
    NodeFacts { cordoned: true, ..NodeFacts::default() }
}

fn excluded() -> NodeFacts {
    NodeFacts { excluded: true, ..NodeFacts::default() }
}

#[test]
fn a_cordoned_node_hands_over_and_takes_nothing_back() {
    let (mut sim, owner) = settled();
    sim.set_facts(owner, cordoned());
    watch(&mut sim, 500);
    let successor = sim.only_announcer(ip(240));
    assert_ne!(successor, owner);
    sim.set_facts(owner, NodeFacts::default());
    watch(&mut sim, 5000);
    assert_eq!(sim.only_announcer(ip(240)), successor);
}

/// The nodes cannot hear each other, but their clients hear both.
#[test]
fn who_takes_back_what_it_still_announces_tells_the_segment_anew() {
    let (mut sim, owner) = settled();
    let (successor, other) = ((owner + 1) % 3, (owner + 2) % 3);
    sim.set_facts(other, excluded());
    sim.cut_between(owner, successor);
    sim.cut_between(owner, other);
    sim.run(secs(2));
    sim.set_facts(owner, cordoned());
    sim.run(secs(1));
    sim.set_facts(owner, NodeFacts::default());
    assert_eq!(sim.holder(ip(240)), Some(successor), "{:#?}", sim.log);
    assert_eq!(sim.believed(ip(240)), Some(successor));
    sim.power_off(successor);
    sim.run(secs(15));
    assert_eq!(sim.only_announcer(ip(240)), owner);
    assert_eq!(sim.believed(ip(240)), Some(owner), "{:#?}", sim.log);
}

#[test]
fn with_nobody_else_the_address_stays_on_a_cordoned_node() {
    let (mut sim, owner) = settled();
    for index in (0..3).filter(|index| *index != owner) {
        sim.set_facts(index, cordoned());
    }
    sim.set_facts(owner, cordoned());
    watch(&mut sim, 20_000);
    assert_eq!(sim.only_announcer(ip(240)), owner);
    assert!(!sim.log_has("Give"), "{:?}", sim.log);
}

#[test]
fn a_node_that_is_excluded_hands_over_to_whom_is_left() {
    let (mut sim, owner) = settled();
    let last = (owner + 1) % 3;
    sim.set_facts((owner + 2) % 3, excluded());
    sim.set_facts(last, cordoned());
    sim.set_facts(owner, excluded());
    watch(&mut sim, 500);
    assert_eq!(sim.only_announcer(ip(240)), last, "rather a cordoned one than none");
}

#[test]
fn an_owner_that_loses_its_interface_hands_over_at_once() {
    let (mut sim, owner) = settled();
    let subnets = vec!["192.168.0.1/24".parse().unwrap()];
    let lan = Interface { name: "eth0".into(), subnets, ..Interface::default() };
    for index in 0..3 {
        sim.set_reach(index, Reach { interfaces: vec![lan.clone()] });
    }
    watch(&mut sim, 1000);
    assert_eq!(sim.only_announcer(ip(240)), owner);
    sim.set_reach(owner, Reach::default());
    sim.run(millis(50));
    assert_ne!(sim.only_announcer(ip(240)), owner);
}

#[test]
fn an_address_follows_the_backends_that_its_traffic_must_stay_with() {
    let (mut sim, owner) = settled();
    let (second, third) = ((owner + 1) % 3, (owner + 2) % 3);
    sim.set_backends(ip(240), &[owner, second], &[]);
    watch(&mut sim, 1000);
    assert_eq!(sim.only_announcer(ip(240)), owner, "it has one");
    sim.set_backends(ip(240), &[second], &[owner]);
    watch(&mut sim, 500);
    assert_eq!(sim.only_announcer(ip(240)), second, "the last one on the owner ends");
    sim.set_backends(ip(240), &[third], &[]);
    watch(&mut sim, 500);
    assert_eq!(sim.only_announcer(ip(240)), third);
    assert_eq!(sim.stranded, []);
    sim.set_backends(ip(240), &[], &[]);
    sim.run(millis(500));
    assert!(sim.announcers(ip(240)).is_empty(), "with none left nobody announces it");
    let told: Vec<_> = sim.stranded.iter().map(|it| (it.address, it.backless)).collect();
    assert_eq!(told, [(ip(240), true)], "which is said once, and at once");
    assert!(sim.is_noted_unannounced(ip(240)), "{:?}", sim.log);
    sim.set_backends(ip(240), &[owner], &[]);
    sim.run(millis(500));
    assert_eq!(sim.only_announcer(ip(240)), owner);
    assert!(!sim.is_noted_unannounced(ip(240)), "{:?}", sim.log);
}

#[test]
fn an_address_whose_backends_return_to_its_holder_is_noted_as_announced() {
    let (mut sim, owner) = settled();
    for _ in 0..3 {
        sim.set_backends(ip(240), &[], &[]);
        sim.run(millis(500));
        assert!(sim.is_noted_unannounced(ip(240)));
        sim.set_backends(ip(240), &[owner], &[]);
        sim.run(millis(500));
        assert!(!sim.is_noted_unannounced(ip(240)));
    }
    let noted = sim.log.iter().filter(|line| line.contains("Note")).count();
    assert_eq!(noted, 6, "{:?}", sim.log);
}

#[test]
fn an_owner_that_its_pool_does_not_allow_any_more_hands_over() {
    let (mut sim, owner) = settled();
    let labels = |index: usize| [("node".to_owned(), index.to_string())].into();
    for index in 0..3 {
        sim.set_facts(index, NodeFacts { labels: labels(index), ..NodeFacts::default() });
    }
    let other = (owner + 1) % 3;
    let nodes =
        vec![arpeggio_labels::Selector::default().with_label("node", &other.to_string()).unwrap()];
    let rule = Rule { nodes, ..Rule::default() };
    sim.set_terms(ip(240), AnnounceTerms { places: Places::ByRules(vec![rule]), probing: true });
    watch(&mut sim, 500);
    assert_eq!(sim.only_announcer(ip(240)), other);
    sim.set_terms(ip(240), AnnounceTerms { places: Places::ByRules(Vec::new()), probing: true });
    sim.run(millis(200));
    assert!(sim.announcers(ip(240)).is_empty(), "its pool is announced nowhere");
}

#[test]
fn an_address_goes_where_somebody_asks_for_it_and_stays_there() {
    let (mut sim, owner) = settled();
    let other = (owner + 1) % 3;
    sim.ask_to_move(ip(240), other);
    watch(&mut sim, 500);
    assert_eq!(sim.only_announcer(ip(240)), other);
    assert!(!sim.is_asked_to_move(ip(240)));
    assert!(sim.log_has("Requested"), "{:?}", sim.log);
    watch(&mut sim, 20_000);
    assert_eq!(sim.only_announcer(ip(240)), other);
}

#[test]
fn a_request_that_cannot_be_obeyed_is_taken_back_with_the_reason() {
    let refused = |reason: &str, prevent: fn(&mut Sim, usize)| {
        let (mut sim, owner) = settled();
        let other = (owner + 1) % 3;
        prevent(&mut sim, other);
        sim.run(secs(1));
        sim.ask_to_move(ip(240), if reason == "AlreadyThere" { owner } else { other });
        watch(&mut sim, 500);
        assert_eq!(sim.only_announcer(ip(240)), owner);
        assert!(!sim.is_asked_to_move(ip(240)));
        assert!(sim.log_has(reason), "{reason}: {:?}", sim.log);
    };
    refused("AlreadyThere", |_, _| {});
    refused("NotAlive", Sim::power_off);
    refused("Unfit(Excluded)", |sim, other| sim.set_facts(other, excluded()));
    refused("Worse(Cordoned)", |sim, other| sim.set_facts(other, cordoned()));
}

#[test]
fn a_successor_that_cannot_learn_of_its_luck_leaves_no_gap() {
    let (mut sim, owner) = settled();
    let other = (owner + 1) % 3;
    sim.ask_to_move(ip(240), other);
    sim.api_cut(other);
    watch(&mut sim, 30_000);
    assert!(sim.log_has("Give"), "{:?}", sim.log);
    assert_ne!(sim.only_announcer(ip(240)), other, "its session is over");
}

#[test]
fn a_request_ends_with_the_holder_that_it_was_for() {
    let (mut sim, owner) = settled();
    sim.power_off(owner);
    sim.ask_to_move(ip(240), owner);
    sim.run(secs(20));
    assert_ne!(sim.only_announcer(ip(240)), owner);
    assert!(!sim.is_asked_to_move(ip(240)));
    sim.power_on(owner);
    sim.run(secs(20));
    assert_ne!(sim.only_announcer(ip(240)), owner);
}

/// A speaker that starts has the locks before it has the `EndpointSlice`s.
#[test]
fn a_speaker_that_does_not_know_the_backends_yet_changes_nothing() {
    for ready in [true, false] {
        let (mut sim, owner) = settled();
        let backends: &[usize] = if ready { &[owner] } else { &[] };
        sim.set_backends(ip(240), backends, &[]);
        sim.run(secs(2));
        assert_eq!(sim.is_noted_unannounced(ip(240)), !ready);
        let (log, told) = (sim.log.len(), sim.stranded.len());
        (0..3).for_each(|index| {
            sim.restart_speaker(index);
            sim.backends_unknown(index, ip(240));
        });
        sim.run(millis(200));
        for _ in 0..3000 {
            sim.run(millis(1));
            let expected: &[usize] = if ready { &[owner] } else { &[] };
            assert_eq!(sim.announcers(ip(240)), expected, "{:?}", sim.log);
        }
        sim.set_backends(ip(240), backends, &[]);
        sim.run(secs(2));
        assert_eq!(sim.announcers(ip(240)).len(), usize::from(ready));
        assert_eq!(sim.log[log..], [] as [String; 0], "nothing is written");
        assert!(!ready || sim.stranded.len() == told, "nothing is told: {:?}", sim.stranded);
    }
}

#[test]
fn what_has_unknown_backends_is_not_taken_before_they_are_known() {
    let mut sim = Sim::new(3);
    sim.run(secs(2));
    (0..3).for_each(|index| sim.backends_unknown(index, ip(240)));
    sim.create_lock(ip(240));
    sim.run(secs(2));
    assert!(sim.announcers(ip(240)).is_empty(), "{:?}", sim.log);
    sim.set_backends(ip(240), &[1], &[]);
    sim.run(secs(1));
    assert_eq!(sim.only_announcer(ip(240)), 1);
    assert!(!sim.log_has("Give"), "{:?}", sim.log);
}

/// One node is on another network, from which a default route leads to the address.
#[test]
fn who_is_elsewhere_announces_only_while_nobody_else_can() {
    let mut sim = Sim::new(3);
    let away = Interface {
        name: "vpn0".into(),
        subnets: vec!["10.8.0.3/24".parse().unwrap()],
        default_ipv4: true,
        ..Interface::default()
    };
    let lan = |index: usize| Interface {
        name: "eth0".into(),
        subnets: vec![format!("192.168.0.{}/24", index + 1).parse().unwrap()],
        default_ipv4: true,
        ..Interface::default()
    };
    sim.set_reach(2, Reach { interfaces: vec![away.clone()] });
    for index in 0..2 {
        sim.set_reach(index, Reach { interfaces: vec![lan(index)] });
    }
    sim.run(secs(3));
    for last in 1..=9 {
        sim.create_lock(ip(last));
    }
    sim.run(secs(3));
    let owners = |sim: &Sim| (1..=9).map(|last| sim.only_announcer(ip(last))).collect::<Vec<_>>();
    assert!(owners(&sim).iter().all(|owner| *owner < 2), "{:?}", owners(&sim));

    for index in 0..2 {
        sim.set_reach(index, Reach { interfaces: vec![away.clone()] });
        sim.run(secs(5));
        // The second time nobody is where the address is, and nothing is better elsewhere.
        assert_eq!(owners(&sim), [1; 9], "{:#?}", sim.log);
    }
    sim.set_reach(0, Reach { interfaces: vec![lan(0)] });
    sim.run(secs(15));
    assert_eq!(owners(&sim), [0; 9], "all go where the address is: {:#?}", sim.log);
}

/// Writes on the lock by which an address has followed its backends.
fn followed(sim: &Sim) -> usize {
    sim.log.iter().filter(|line| line.contains("Give") || line.contains("Note")).count()
}

#[test]
fn an_address_follows_backends_that_come_and_go_often_at_first_and_then_seldom() {
    for is_alternating in [true, false] {
        let (mut sim, owner) = settled();
        let other = (owner + 1) % 3;
        sim.set_backends(ip(240), &[owner, other], &[]);
        sim.run(millis(500));
        for round in 0..240 {
            let ready: &[usize] = match (round % 2, is_alternating) {
                (0, true) => &[other],
                (0, false) => &[],
                _ => &[owner],
            };
            sim.set_backends(ip(240), ready, &[]);
            sim.run(millis(250));
        }
        // In a minute; each of both kinds of writes.
        let most = if is_alternating { 20 + 13 } else { 20 + 13 + 1 };
        let writes = followed(&sim);
        assert!((20..=most).contains(&writes), "{is_alternating}: {writes}: {:?}", sim.log);
        assert!(sim.stranded.len() <= 34, "{is_alternating}: {}", sim.stranded.len());
        // When they are quiet it is where they are, and its lock says so.
        sim.set_backends(ip(240), &[other], &[]);
        sim.run(millis(6000));
        assert_eq!(sim.only_announcer(ip(240)), other, "{is_alternating}: {:?}", sim.log);
        assert!(!sim.is_noted_unannounced(ip(240)), "{is_alternating}: {:?}", sim.log);
        sim.run(millis(110_000));
        sim.set_backends(ip(240), &[owner], &[]);
        sim.run(millis(100));
        assert_eq!(sim.only_announcer(ip(240)), owner, "it follows at once: {:?}", sim.log);
    }
}

/// However often its pods came and went: what its owner's death costs is the same.
#[test]
fn an_address_whose_backends_came_and_went_is_taken_over_as_fast_as_any() {
    let (mut sim, owner) = settled();
    let other = (owner + 1) % 3;
    for round in 0..60 {
        let ready = if round % 2 == 0 { other } else { owner };
        sim.set_backends(ip(240), &[ready], &[]);
        sim.run(millis(200));
    }
    let owner = sim.only_announcer(ip(240));
    sim.set_backends(ip(240), &[0, 1, 2], &[]);
    sim.run(millis(1000));
    sim.power_off(owner);
    sim.run(millis(500));
    assert_ne!(sim.only_announcer(ip(240)), owner, "{:?}", sim.log);
}

//! The roles that a node has for an address, one after the other.

use arpeggio_election::Role::{
    self, Asker, Bystander, Doubter, Heir, Holder, Leaver, Returner, StandIn,
};

use crate::sim::{Sim, ip, millis, name, secs, settled};

/// Those of each of the three nodes, while all run for so many milliseconds.
fn roles(sim: &mut Sim, span: u64) -> [Vec<Role>; 3] {
    let mut roles = [0, 1, 2].map(|index| vec![sim.role(index, ip(240))]);
    for _ in 0..span {
        sim.run(millis(1));
        for (index, roles) in roles.iter_mut().enumerate() {
            roles.push(sim.role(index, ip(240)));
        }
    }
    roles.iter_mut().for_each(Vec::dedup);
    roles
}

#[test]
fn who_takes_a_new_address_asks_for_it_first() {
    let mut sim = Sim::new(3);
    sim.create_lock(ip(240));
    let roles = roles(&mut sim, 3000);
    assert_eq!(roles[sim.only_announcer(ip(240))], [Bystander, Asker, Holder]);
}

#[test]
fn who_takes_over_is_the_heir_first() {
    let (mut sim, owner) = settled();
    sim.power_off(owner);
    let roles = roles(&mut sim, 3000);
    assert_eq!(roles[sim.only_announcer(ip(240))], [Bystander, Heir, Holder]);
}

#[test]
fn who_stands_in_is_the_heir_when_the_api_server_is_back() {
    let (mut sim, owner) = settled();
    sim.api_down();
    sim.run(secs(20));
    sim.power_off(owner);
    let away = roles(&mut sim, 3000);
    let next = sim.only_announcer(ip(240));
    assert_eq!(away[next], [Bystander, StandIn]);
    sim.api_up();
    let [_, first, .., last] = roles(&mut sim, 20_000)[next][..] else { panic!("it has to move") };
    // It may have the lock before its session is renewed, and does not rely on it so long.
    assert_eq!([first, last], [Heir, Holder]);
}

/// The node's forwarder is told, and gives that node nothing any more.
#[test]
fn who_announces_in_the_place_of_another_node_says_of_which() {
    for is_api_there in [true, false] {
        let (mut sim, owner) = settled();
        if !is_api_there {
            sim.api_down();
            sim.run(secs(20));
        }
        sim.power_off(owner);
        let mut said = 0;
        for _ in 0..3000 {
            sim.run(millis(1));
            for index in (0..3).filter(|index| *index != owner) {
                let is_unaided = matches!(sim.role(index, ip(240)), Heir | StandIn);
                let expected = is_unaided.then(|| name(owner)).into_iter().collect();
                assert_eq!(sim.stands_in_for(index), expected);
                said += usize::from(is_unaided);
            }
        }
        assert!(said > 0, "{is_api_there}");
    }
}

#[test]
fn who_gives_an_address_away_leaves_it_later() {
    let (mut sim, owner) = settled();
    let next = (owner + 1) % 3;
    sim.ask_to_move(ip(240), next);
    let roles = roles(&mut sim, 3000);
    assert_eq!(roles[owner], [Holder, Leaver, Bystander]);
    assert_eq!(roles[next], [Bystander, Holder]);
}

#[test]
fn who_stops_leaves_everything() {
    let (mut sim, owner) = settled();
    sim.stop_speaker(owner);
    assert_eq!(roles(&mut sim, 3000)[owner], [Holder, Leaver, Bystander]);
}

#[test]
fn who_was_cut_off_returns_when_its_session_is_proved() {
    let (mut sim, owner) = settled();
    sim.cable_out(owner);
    sim.run(millis(50));
    sim.cable_in(owner);
    assert_eq!(roles(&mut sim, 3000)[owner], [Holder, Returner, Holder]);
}

#[test]
fn who_hears_a_fellow_doubts_and_gives_way_when_it_cannot_be_sure() {
    let (mut sim, owner) = settled();
    let other = (owner + 1) % 3;
    sim.forge(owner, ip(240), other);
    let (sure, unsure) = (Doubter { yielded: false }, Doubter { yielded: true });
    assert_eq!(roles(&mut sim, 3000)[owner], [Holder, sure, Holder]);
    sim.api_down();
    sim.run(secs(20));
    sim.forge(owner, ip(240), other);
    assert_eq!(roles(&mut sim, 3000)[owner], [Holder, unsure, StandIn]);
}

//! What becomes of a machine's interfaces, addresses and routes while its speaker runs.

use std::net::{IpAddr, Ipv4Addr};

use arpeggio_api::terms::WrittenAnnounceTerms;
use arpeggio_election::{Families, LockChange, Node};
use arpeggio_link::interfaces::AddressState;

use super::{
    cluster::{Cluster, Host, ip, ip6, millis, secs},
    machine::Card,
};

/// How often any lock was taken or given away.
fn moves(cluster: &Cluster) -> usize {
    cluster.lock_changes(|it| matches!(it, LockChange::Take { .. } | LockChange::Give { .. }))
}

/// Nobody was accused, and each address stayed where it was, and answered.
fn check_undisturbed(cluster: &Cluster, what: &str) {
    assert!(cluster.charges().is_empty(), "{what}: {cluster:?}");
    assert_eq!(moves(cluster), 0, "{what}: {cluster:?}");
    assert_eq!(cluster.longest_dark, millis(0), "{what}: {cluster:?}");
}

/// What all machines have on both segments. The second interface of one of them fails for a while: others answer for what it
/// had there, it keeps what it has elsewhere, nobody is accused, and when it is well again it serves there, too.
fn fails_for_a_while(what: &str, fail: impl Fn(&Cluster, usize, bool)) {
    let lost = [ip(1, 100), ip(1, 101), ip6(1, 102)];
    let others = [ip(0, 100), ip(0, 101), ip6(0, 102)];
    let mut cluster = Cluster::on(&[&[0, 1][..]; 4]);
    cluster.settle(&[lost, others].concat());
    let victim = cluster.owner(lost[0]).unwrap();
    let owners = others.map(|it| cluster.owner(it));
    cluster.mark();
    fail(&cluster, victim, true);
    cluster.claim(ip(1, 103));
    cluster.run(secs(10));
    for address in lost.into_iter().chain([ip(1, 103)]) {
        let successor = cluster.owner(address);
        assert!(successor.is_some_and(|it| it != victim), "{what}: {address}: {cluster:?}");
    }
    assert!(moves(&cluster) <= 2 * (lost.len() + 1), "{what}: {cluster:?}");
    fail(&cluster, victim, false);
    cluster.run(secs(10));
    assert_eq!(others.map(|it| cluster.owner(it)), owners, "{what}: {cluster:?}");
    assert!(cluster.charges().is_empty(), "{what}: {cluster:?}");
    let lines = cluster.log().lines().count();
    assert!(lines <= 40, "{what}: {lines}: {}", cluster.log());
    for other in (0..4).filter(|it| *it != victim) {
        cluster.power_off(other);
    }
    cluster.run(secs(30));
    assert_eq!(cluster.owner(ip(1, 103)), Some(victim), "{what}: {cluster:?}");
    assert_eq!(cluster.owner(lost[0]), Some(victim), "{what}: {cluster:?}");
}

#[test]
fn an_interface_whose_frames_the_kernel_keeps_announces_nothing_for_as_long() {
    fails_for_a_while("deaf", |cluster, victim, is_so| {
        cluster.machines[victim].speaker.as_ref().unwrap().ways.hand_over_nothing(2, is_so);
    });
}

/// The one that is without an owner when the kernel has no memory for a filter is the new one.
#[test]
fn an_interface_whose_filters_the_kernel_refuses_announces_again_when_it_does_not() {
    let mut cluster = Cluster::settled(3, &[ip(0, 100), ip(0, 101), ip(0, 102)]);
    let victim = cluster.owner(ip(0, 100)).unwrap();
    let refuse = |cluster: &Cluster, is_so| {
        cluster.machines[victim].speaker.as_ref().unwrap().ways.refuse_filters(1, is_so);
    };
    refuse(&cluster, true);
    (103..109).for_each(|last| cluster.claim(ip(0, last)));
    cluster.run(secs(10));
    for last in 103..109 {
        let owner = cluster.owner(ip(0, last));
        assert!(owner.is_some_and(|it| it != victim), "{last}: {owner:?} {cluster:?}");
    }
    refuse(&cluster, false);
    cluster.run(secs(5));
    for other in (0..3).filter(|it| *it != victim) {
        cluster.power_off(other);
    }
    cluster.run(secs(30));
    for last in 100..109 {
        assert_eq!(cluster.owner(ip(0, last)), Some(victim), "{last}: {cluster:?}");
    }
}

/// By DHCP, say. Others read of it at once or late; the machine has an address of the other family, or none.
#[test]
fn a_machine_whose_own_address_changes_is_no_dead_one() {
    for (lag, keeps_other) in [(0, false), (0, true), (1000, true), (1000, false)] {
        for machines in [2, 3, 5] {
            let addresses: Vec<_> = (100..106).map(|last| ip(0, last)).collect();
            let cluster = Cluster::renumbered(
                machines,
                &addresses,
                (lag, keeps_other),
                |cluster, index, _| {
                    cluster.links_changed(index);
                },
            );
            let what = format!("{lag} {keeps_other} {machines}");
            check_undisturbed(&cluster, &what);
        }
    }
}

/// Another machine has it, or its time is over: the kernel does not answer for it any more, or does still.
#[test]
fn a_machine_whose_own_address_is_not_used_any_more_is_no_dead_one() {
    use AddressState::{Deprecated, Duplicate, Tentative};
    for state in [Deprecated, Duplicate, Tentative] {
        for (machines, lag) in [(2, 0), (3, 1000)] {
            let addresses = [ip(0, 100), ip(0, 101), ip6(0, 102)];
            let mut cluster = Cluster::settled(machines, &addresses);
            cluster.machines.iter_mut().for_each(|it| it.lag = lag);
            for index in 0..machines {
                let card = &mut cluster.machines[index].cards[0];
                card.states.insert(card.nets[0], state);
                cluster.links_changed(index);
                cluster.run(millis(4100));
            }
            let what = format!("{state:?} {machines} {lag}");
            check_undisturbed(&cluster, &what);
        }
    }
}

#[test]
fn an_interface_with_another_name_announces_as_before_unless_a_rule_names_it() {
    let by_name = ip(0, 101);
    let mut cluster = Cluster::new(3);
    let terms: WrittenAnnounceTerms =
        serde_json::from_str(r#"{"rules":[{"interfaces":["eth0"]}]}"#).unwrap();
    cluster.claim_on(by_name, terms);
    cluster.settle(&[ip(0, 100)]);
    for (address, stays) in [(ip(0, 100), true), (by_name, false)] {
        let owner = cluster.owner(address).unwrap();
        cluster.mark();
        cluster.machines[owner].cards[0].name = Some("lan0");
        cluster.links_changed(owner);
        cluster.run(secs(5));
        let now = cluster.owner(address).unwrap();
        assert_eq!(now == owner, stays, "{address}: {cluster:?}");
        assert!(cluster.charges().is_empty(), "{address}: {cluster:?}");
        assert!(cluster.longest_dark <= millis(100), "{address}: {cluster:?}");
        cluster.machines[owner].cards[0].name = None;
        cluster.links_changed(owner);
        cluster.run(secs(5));
    }
}

/// The kernel tells of a lost carrier once a second at most.
#[test]
fn a_cable_that_comes_and_goes_all_the_time_costs_little() {
    let addresses: Vec<_> = (100..105).map(|last| ip(0, last)).collect();
    let mut cluster = Cluster::on(&[&[0, 1][..]; 3]);
    cluster.settle(&addresses);
    let owner = cluster.owner(addresses[0]).unwrap();
    for _ in 0..60 {
        cluster.cable(owner, 0, false);
        cluster.run(millis(500));
        cluster.cable(owner, 0, true);
        cluster.run(millis(500));
    }
    let (writes, lines) = (cluster.orders.len(), cluster.log().lines().count());
    assert!(writes <= 60 + 2 * 60 + 10, "at rest it is 60: {writes}: {cluster:?}");
    assert!(lines <= 140, "{lines}: {}", cluster.log());
    assert!(moves(&cluster) <= addresses.len(), "{cluster:?}");
    assert!(cluster.charges().is_empty(), "{cluster:?}");
    for address in addresses {
        assert!(cluster.owner(address).is_some_and(|it| it != owner), "{address}: {cluster:?}");
    }
}

/// A stranger has the address, and the card is full when it is asked for.
#[test]
fn a_question_that_has_not_left_is_not_one_that_nobody_answers() {
    for outage in [100, 400, 2000] {
        let address = ip(0, 100);
        let mut cluster = Cluster::new(3);
        let mac = arpeggio_wire::MacAddr(2, 0, 0, 5, 5, 5);
        cluster.hosts.push(Host { segment: 0, mac, addresses: vec![address] });
        cluster.run(secs(8));
        let fill = |cluster: &Cluster, is_so| {
            let speakers = cluster.machines.iter().map(|it| it.speaker.as_ref().unwrap());
            speakers.for_each(|it| it.ways.take_no_frames(1, is_so));
        };
        cluster.mark();
        fill(&cluster, true);
        cluster.claim(address);
        cluster.run(millis(outage));
        fill(&cluster, false);
        cluster.run(secs(10));
        assert!(cluster.owners(address).is_empty(), "{outage}: {cluster:?}");
        assert!(cluster.quarantines() > 0, "{outage}: {cluster:?}");
    }
}

/// Cards of all machines are full for a moment, as under a flood: what is not sent is not missed by who sends it.
#[test]
fn a_card_that_is_full_for_a_moment_makes_nobody_silent() {
    let addresses = [ip(0, 100), ip(0, 101), ip(0, 102), ip6(0, 103)];
    for machines in [2, 3, 5] {
        let mut cluster = Cluster::settled(machines, &addresses);
        for index in 0..machines {
            let ways = |cluster: &Cluster, is_so| {
                cluster.machines[index].speaker.as_ref().unwrap().ways.take_no_frames(1, is_so);
            };
            ways(&cluster, true);
            cluster.run(millis(4000));
            ways(&cluster, false);
            cluster.run(millis(1000));
        }
        assert!(cluster.charges().is_empty(), "{machines}: {cluster:?}");
        assert_eq!(moves(&cluster), 0, "{machines}: {cluster:?}");
    }
}

/// A packet filter lets nothing leave that a machine's speaker says, or its card stands still while its kernel still answers.
#[test]
fn a_node_that_may_not_send_keeps_no_address_dark() {
    let addresses: Vec<_> = (100..106).map(|last| ip(0, last)).collect();
    for machines in [3, 4] {
        let mut cluster = Cluster::settled(machines, &addresses);
        let mute = (0..machines).find(|index| cluster.owner(addresses[0]) != Some(*index)).unwrap();
        let refuse = |cluster: &Cluster, is_so| {
            cluster.machines[mute].speaker.as_ref().unwrap().ways.take_no_frames(1, is_so);
        };
        refuse(&cluster, true);
        // Whoever else holds something dies, one after the other.
        let dies = (0..machines).find(|index| *index != mute).unwrap();
        cluster.power_off(dies);
        cluster.run(secs(12));
        let all_owned = |cluster: &mut Cluster, what: &str| {
            for address in &addresses {
                let owner = cluster.owner(*address);
                assert!(owner.is_some_and(|it| it != mute), "{what}: {owner:?} {cluster:?}");
            }
        };
        all_owned(&mut cluster, "after the patience");
        cluster.mark();
        cluster.run(secs(60));
        assert!(cluster.longest_dark <= millis(6500), "{cluster:?}");
        assert!(moves(&cluster) <= 4 * addresses.len(), "{cluster:?}");
        all_owned(&mut cluster, "a minute later");
        refuse(&cluster, false);
        cluster.run(secs(80));
        let survivors = (0..machines).filter(|index| ![mute, dies].contains(index));
        survivors.for_each(|index| cluster.power_off(index));
        cluster.run(secs(15));
        for address in &addresses {
            assert_eq!(cluster.owner(*address), Some(mute), "it can send again: {cluster:?}");
        }
    }
}

/// An address in no subnet is announced where the default route leads to.
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 240));

fn route(cluster: &mut Cluster, index: usize, routes: &[(usize, u32)]) {
    cluster.machines[index].routes = routes.to_vec();
    cluster.links_changed(index);
}

#[test]
fn an_address_outside_of_all_subnets_follows_the_default_routes() {
    let mut cluster = Cluster::on(&[&[0, 1][..]; 3]);
    for index in 0..3 {
        route(&mut cluster, index, &[(0, 100)]);
    }
    cluster.settle(&[OUTSIDE]);
    let owner = cluster.owner(OUTSIDE).unwrap();
    // A second one, which counts for less; then one that counts for more, to a segment where the client is not.
    route(&mut cluster, owner, &[(0, 100), (1, 200)]);
    cluster.run(secs(5));
    assert_eq!((cluster.owner(OUTSIDE), moves(&cluster)), (Some(owner), 0), "{cluster:?}");
    route(&mut cluster, owner, &[(1, 50), (0, 100)]);
    cluster.run(secs(5));
    assert_eq!(cluster.owners(OUTSIDE).len(), 0, "it is on the other segment: {cluster:?}");
    route(&mut cluster, owner, &[(0, 100)]);
    cluster.run(secs(5));
    assert_eq!((cluster.owner(OUTSIDE), moves(&cluster)), (Some(owner), 0), "{cluster:?}");
    cluster.mark();
    route(&mut cluster, owner, &[]);
    cluster.run(secs(5));
    let next = cluster.owner(OUTSIDE).unwrap();
    assert_ne!(next, owner, "it has none any more");
    assert!(cluster.longest_dark <= millis(200), "{cluster:?}");
    cluster.mark();
    (0..3).for_each(|index| route(&mut cluster, index, &[]));
    cluster.run(secs(60));
    assert_eq!(cluster.owners(OUTSIDE).len(), 0, "nobody has one: {cluster:?}");
    assert!(moves(&cluster) <= 2, "{cluster:?}");
    assert!(cluster.news().len() <= 3 && cluster.log().lines().count() <= 6, "{}", cluster.log());
    (0..3).for_each(|index| route(&mut cluster, index, &[(0, 100)]));
    cluster.run(secs(5));
    assert!(cluster.owner(OUTSIDE).is_some(), "{cluster:?}");
}

/// As DHCP clients and network managers do it when they start again.
#[test]
fn a_default_route_that_is_away_for_a_moment_moves_an_address_once() {
    let mut cluster = Cluster::settled(3, &[OUTSIDE, ip(0, 100)]);
    let owner = cluster.owner(OUTSIDE).unwrap();
    for _ in 0..20 {
        route(&mut cluster, owner, &[]);
        cluster.run(millis(30));
        route(&mut cluster, owner, &[(0, 0)]);
        cluster.run(millis(470));
    }
    assert!(moves(&cluster) <= 2, "{cluster:?}");
    assert!(cluster.longest_dark <= millis(200), "{cluster:?}");
    assert!(cluster.charges().is_empty(), "{cluster:?}");
}

/// Its first interface is made anew with another MAC address, as when a container's cable is laid again.
#[test]
fn an_interface_that_is_made_anew_announces_as_the_old_one() {
    let addresses = [ip(0, 100), ip6(0, 101)];
    let mut cluster = Cluster::on(&[&[0, 1][..]; 3]);
    cluster.settle(&addresses);
    for (last, address) in (0..).zip(addresses) {
        let owner = cluster.owner(address).unwrap();
        let node: Node = cluster.machines[owner].node.clone();
        cluster.mark();
        cluster.cable(owner, 0, false);
        cluster.machines[owner].cards[0].mac = arpeggio_wire::MacAddr(2, 0, 0, 7, 7, last);
        cluster.run(millis(40));
        cluster.cable(owner, 0, true);
        cluster.run(secs(5));
        assert!(cluster.owner(address).is_some(), "{node}: {cluster:?}");
        assert!(cluster.charges().is_empty(), "{node}: {cluster:?}");
        assert!(cluster.longest_dark <= millis(600), "{node}: {cluster:?}");
    }
}

/// A packet filter drops what a node says by IPv6, and nothing else.
#[test]
fn a_node_that_may_not_send_by_one_protocol_keeps_what_it_has_by_the_other() {
    for (ipv4, ipv6) in [(false, true), (true, false)] {
        let addresses: Vec<_> = (100..104).flat_map(|last| [ip(0, last), ip6(0, last)]).collect();
        let mut cluster = Cluster::settled(3, &addresses);
        let dead = |address: &IpAddr| address.is_ipv6() == ipv6;
        let mute = cluster.owner(addresses[0]).unwrap();
        let kept = |cluster: &mut Cluster| -> Vec<bool> {
            let mine = addresses.iter().filter(|it| !dead(it));
            mine.map(|it| cluster.owner(*it) == Some(mute)).collect()
        };
        let before = kept(&mut cluster);
        cluster.machines[mute]
            .speaker
            .as_ref()
            .unwrap()
            .ways
            .take_no_frames_of(1, Families { ipv4, ipv6 });
        // It would tell of a new one, or of one that it takes over.
        for last in 110..113 {
            cluster.claim(if ipv4 { ip(0, last) } else { ip6(0, last) });
        }
        cluster.run(secs(20));
        for address in addresses.iter().filter(|it| dead(it)) {
            let owner = cluster.owner(*address);
            assert!(owner.is_some_and(|it| it != mute), "{address}: {owner:?}: {cluster:?}");
        }
        assert_eq!(kept(&mut cluster), before, "{ipv4} {ipv6}: {cluster:?}");
        cluster.mark();
        cluster.run(secs(60));
        // Each try of the mute protocol's leaves what the other one has as it is.
        assert_eq!(kept(&mut cluster), before, "{ipv4} {ipv6}: {cluster:?}");
        assert_eq!(cluster.longest_dark, millis(0), "{ipv4} {ipv6}: {cluster:?}");
        // What is left of the cluster is the mute one: the one protocol's addresses are answered for.
        (0..3).filter(|index| *index != mute).for_each(|index| cluster.power_off(index));
        cluster.run(secs(15));
        for address in addresses.iter().filter(|it| !dead(it)) {
            assert_eq!(cluster.owner(*address), Some(mute), "{address}: {cluster:?}");
        }
    }
}

/// By a network manager, say: the card becomes a port of a bridge, which gets its MAC address, its addresses and its routes.
#[test]
fn a_card_that_becomes_a_port_of_a_bridge_moves_nothing() {
    let addresses = [ip(0, 100), ip6(0, 101), OUTSIDE];
    for machines in [2, 3] {
        let mut cluster = Cluster::settled(machines, &addresses);
        for index in 0..machines {
            let card = cluster.machines[index].cards[0].clone();
            let port = Card { segment: 99, nets: Vec::new(), name: Some("eth0"), ..card.clone() };
            let bridge = Card { name: Some("br0"), ..card };
            cluster.machines[index].cards = vec![port, bridge];
            cluster.machines[index].routes = vec![(1, 0)];
            cluster.links_changed(index);
            cluster.run(secs(5));
        }
        assert!(cluster.charges().is_empty(), "{machines}: {cluster:?}");
        assert_eq!(moves(&cluster), 0, "{machines}: {cluster:?}");
        assert!(cluster.longest_dark <= millis(100), "{machines}: {cluster:?}");
        let victim = cluster.owner(addresses[0]).unwrap();
        cluster.mark();
        cluster.power_off(victim);
        cluster.run(secs(5));
        assert!(cluster.longest_dark <= millis(600), "{machines}: {cluster:?}");
    }
}

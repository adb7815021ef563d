//! Segments that carry frames in one direction only, and segments that bring them twice and back to who has sent them.

use std::net::IpAddr;

use arpeggio_election::Write;
use arpeggio_wire::MacAddr;

use super::cluster::{Cluster, REPLACED, ip, ip6, millis, secs};

/// Where a way is broken in one direction, each of both asks, and neither gets an answer. So often each accuses the other until it
/// has learned that it is the way.
const ACCUSATIONS: usize = 2 * 2;

/// How often anybody wanted another node's session ended.
fn ends(cluster: &Cluster) -> usize {
    cluster.orders.iter().filter(|it| matches!(it.2, Write::End { .. })).count()
}

fn pairs(machines: usize) -> impl Iterator<Item = (usize, usize)> {
    let all = (0..machines).flat_map(move |from| (0..machines).map(move |to| (from, to)));
    all.filter(|(from, to)| from != to)
}

/// One does not hear the other, who hears it: all others hear both.
#[test]
fn a_way_that_carries_in_one_direction_only_moves_nothing_and_hides_no_death() {
    for machines in [3, 5] {
        for (from, to) in pairs(machines).filter(|(from, _)| machines == 3 || *from == 0) {
            let addresses: Vec<_> = (100..105).map(|last| ip(0, last)).collect();
            let mut cluster = Cluster::settled(machines, &addresses);
            cluster.one_way.insert((from, to));
            cluster.run(secs(20));
            let what = format!("{machines} machines, from {from} to {to}");
            assert_eq!((ends(&cluster), cluster.takes()), (0, 0), "{what}: {cluster:?}");
            let charges = cluster.charges();
            assert!(charges.len() <= ACCUSATIONS, "{what}: {charges:?}");
            let are_both = |it: &&(u64, usize, Write)| it.1 == from || it.1 == to;
            assert!(charges.iter().all(are_both), "nobody else does: {what}: {charges:?}");
            assert_eq!(cluster.longest_dark, millis(0), "{what}: {cluster:?}");
            cluster.mark();
            cluster.run(secs(20));
            assert!(cluster.charges().is_empty(), "it has learned: {what}: {cluster:?}");
            // Either of the two dies, and then one that heard both.
            let victim = if (from + to) % 2 == 0 { from } else { to };
            cluster.mark();
            cluster.power_off(victim);
            cluster.run(secs(5));
            assert!(cluster.longest_dark <= REPLACED, "{what}: {victim}: {cluster:?}");
            cluster.power_on(victim);
            cluster.run(secs(15));
            let victim = (0..machines).find(|it| *it != from && *it != to).unwrap();
            cluster.mark();
            cluster.power_off(victim);
            cluster.run(secs(5));
            // Of three machines nobody is left who hears both ways.
            let most = if machines == 3 { REPLACED * 2 } else { REPLACED };
            assert!(cluster.longest_dark <= most, "{what}: {victim}: {cluster:?}");
        }
    }
}

/// Each is to itself a living machine beside a dead one, and nobody else is there. So both replace each other, once.
#[test]
fn two_machines_between_which_a_way_is_broken_come_to_rest() {
    for (from, to) in pairs(2) {
        let addresses: Vec<_> = (100..104).map(|last| ip(0, last)).collect();
        let mut cluster = Cluster::settled(2, &addresses);
        cluster.one_way.insert((from, to));
        cluster.run(secs(20));
        assert!(ends(&cluster) <= 2, "{from} {to}: {cluster:?}");
        assert!(cluster.longest_dark <= REPLACED, "{from} {to}: {cluster:?}");
        cluster.mark();
        cluster.run(secs(60));
        assert!(cluster.charges().is_empty(), "{from} {to}: {cluster:?}");
        assert_eq!(cluster.takes(), 0, "{from} {to}: {cluster:?}");
        assert!(addresses.iter().all(|it| cluster.owner(*it).is_some()), "{cluster:?}");
    }
}

/// A card that only sends, or only receives, serves nobody.
#[test]
fn a_card_that_works_in_one_direction_only_is_replaced_as_fast_as_a_dead_one() {
    for machines in [3, 5] {
        for is_mute in [true, false] {
            let addresses: Vec<IpAddr> =
                (100..106).flat_map(|last| [ip(0, last), ip6(0, last)]).collect();
            let mut cluster = Cluster::settled(machines, &addresses);
            let victim = cluster.owner(addresses[0]).unwrap();
            let lost = if is_mute { &mut cluster.mute } else { &mut cluster.deaf };
            lost.insert((victim, 0));
            cluster.run(secs(10));
            let what = format!("{machines} machines, mute: {is_mute}");
            assert!(cluster.longest_dark <= REPLACED, "{what}: {cluster:?}");
            assert!(
                cluster.charges().iter().all(|it| it.1 != victim),
                "it accuses nobody: {what}: {cluster:?}"
            );
            for address in &addresses {
                let owner = cluster.owner(*address);
                assert!(owner.is_some_and(|it| it != victim), "{what}: {address}: {cluster:?}");
            }
            cluster.mark();
            cluster.run(secs(60));
            assert_eq!((ends(&cluster), cluster.takes()), (0, 0), "{what}: {cluster:?}");
            assert_eq!(cluster.longest_dark, millis(0), "{what}: {cluster:?}");
        }
    }
}

#[test]
fn frames_that_come_twice_and_back_to_their_sender_change_nothing() {
    for machines in [2, 3, 5] {
        let addresses = [ip(0, 100), ip(0, 101), ip(0, 102), ip6(0, 100)];
        let mut cluster = Cluster::new(machines);
        cluster.mirrored.insert(0);
        cluster.settle(&addresses);
        cluster.run(secs(60));
        assert!(cluster.charges().is_empty(), "{machines}: {cluster:?}");
        assert_eq!(cluster.takes(), 0, "{machines}: {cluster:?}");
        assert_eq!(cluster.news(), [""; 0], "{machines}: {cluster:?}");
        assert_eq!(cluster.longest_dark, millis(0), "{machines}: {cluster:?}");
        // Its own frames come back under the MAC address that it had.
        let owner = cluster.owner(addresses[0]).unwrap();
        cluster.change_mac(owner, 0, MacAddr(2, 0, 0, 8, 8, 8));
        cluster.run(secs(10));
        assert!(cluster.charges().is_empty(), "{machines}: {cluster:?}");
        assert_eq!(cluster.owner(addresses[0]), Some(owner), "{machines}: {cluster:?}");
        assert_eq!(cluster.news(), [""; 0], "{machines}: {cluster:?}");
        cluster.mark();
        cluster.power_off(owner);
        cluster.run(secs(5));
        assert!(cluster.longest_dark <= REPLACED, "{machines}: {cluster:?}");
        assert_eq!(cluster.longest_overlap, millis(0), "{machines}: {cluster:?}");
    }
}

/// Who stands in asks everybody, and hears its own questions.
#[test]
fn frames_that_come_back_keep_nobody_from_standing_in() {
    for machines in [2, 4] {
        let addresses = [ip(0, 100), ip(0, 101), ip6(0, 100)];
        let mut cluster = Cluster::new(machines);
        cluster.mirrored.insert(0);
        cluster.settle(&addresses);
        cluster.api_down();
        cluster.run(secs(5));
        let victim = cluster.owner(addresses[0]).unwrap();
        cluster.mark();
        cluster.power_off(victim);
        cluster.run(secs(10));
        assert!(cluster.longest_dark <= secs(2), "{machines}: {cluster:?}");
        assert!(addresses.iter().all(|it| cluster.owner(*it).is_some()), "{cluster:?}");
    }
}

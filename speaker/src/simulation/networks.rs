//! Networks and machines that are not what one would expect.

use std::{net::IpAddr, time::Duration};

use arpeggio_election::{EndReason, Node, Write};
use arpeggio_wire::MacAddr;

use super::{
    cluster::{Cluster, Host, ip, ip6, millis, secs},
    machine::Card,
};

/// See `deaths.rs`.
const REPLACED: Duration = millis(600);

fn own_address(index: usize) -> IpAddr {
    ip(0, u8::try_from(11 + index).unwrap())
}

#[test]
fn one_dead_card_of_three_costs_only_what_was_announced_there() {
    let mut cluster = Cluster::on(&[&[0, 1, 2][..]; 4]);
    let addresses: Vec<_> =
        [0, 1, 2].into_iter().flat_map(|it| [ip(it, 100), ip6(it, 101)]).collect();
    cluster.settle(&addresses);
    for segment in [0, 1, 2] {
        let victim = cluster.owner(ip(segment, 100)).unwrap();
        let elsewhere = ip((segment + 1) % 3, 100);
        let owner = cluster.owner(elsewhere);
        cluster.mark();
        cluster.cable(victim, segment.into(), false);
        cluster.run(secs(5));
        let successor = cluster.owner(ip(segment, 100));
        assert!(successor.is_some_and(|it| it != victim), "{segment}: {cluster:?}");
        assert_eq!(cluster.owner(elsewhere), owner, "{segment}: {cluster:?}");
        assert!(cluster.longest_dark <= REPLACED, "{segment}: {cluster:?}");
        assert!(cluster.charges().is_empty(), "the node lives: {segment}: {cluster:?}");
        cluster.cable(victim, segment.into(), true);
        cluster.run(secs(5));
    }
}

/// As when it is set up anew: the old name's session counts until it expires.
#[test]
fn a_machine_with_a_new_name_serves_under_it_and_is_replaced_when_it_dies() {
    for name in ["a-new-name", "z-new-name"] {
        let addresses = [ip(0, 100), ip(0, 101), ip6(0, 100)];
        let mut cluster = Cluster::settled(3, &addresses);
        let old = cluster.machines[0].node.clone();
        cluster.power_off(0);
        cluster.run(millis(50));
        cluster.machines[0].node = Node::from(name);
        cluster.power_on(0);
        cluster.run(secs(30));
        assert!(addresses.into_iter().all(|it| cluster.owner(it).is_some()), "{name}: {cluster:?}");
        let is_accused = |it: &&(u64, usize, Write)| match &it.2 {
            Write::End { node, reason, .. } => {
                node.as_str() == name && *reason == EndReason::NodeSilent
            }
            _ => false,
        };
        assert_eq!(cluster.charges().into_iter().find(is_accused), None, "{name}: {cluster:?}");
        // Now what it holds dies with it.
        cluster.power_off(1);
        cluster.run(secs(5));
        cluster.power_off(2);
        cluster.run(secs(20));
        cluster.power_on(1);
        cluster.power_on(2);
        cluster.run(secs(20));
        assert!(
            addresses.into_iter().all(|it| cluster.owner(it) == Some(0)),
            "{name}: {cluster:?}"
        );
        cluster.mark();
        cluster.power_off(0);
        cluster.run(secs(5));
        let dark = cluster.longest_dark;
        assert!(dark <= REPLACED, "{name}, which was {old}: {dark:?}: {cluster:?}");
    }
}

/// A router that answers for all machines with its own MAC address, dead ones too (`proxy_arp`).
#[test]
fn a_router_that_answers_for_everybody_hides_no_death() {
    for after in [0, 10] {
        let addresses = [ip(0, 100), ip(0, 101)];
        let mut cluster = Cluster::settled(4, &addresses);
        let mac = MacAddr(2, 0, 0, 2, 0, 1);
        let all = (0..4).map(own_address).collect();
        cluster.hosts.push(Host { segment: 0, mac, addresses: all });
        cluster.run(secs(after));
        assert!(cluster.charges().is_empty(), "{cluster:?}");
        let victim = cluster.owner(addresses[0]).unwrap();
        cluster.mark();
        cluster.power_off(victim);
        cluster.run(secs(15));
        // Another MAC address may be the node's new one, for two seconds.
        let most = if after == 0 { secs(3) } else { REPLACED };
        assert!(cluster.longest_dark <= most, "after {after} s: {cluster:?}");
        assert_eq!(cluster.longest_overlap, millis(0), "after {after} s: {cluster:?}");
    }
}

/// Two cards in one segment: its kernel answers for the node's addresses on both (`arp_ignore=0`).
#[test]
fn a_machine_with_two_cards_in_one_segment_is_one_machine() {
    let addresses: Vec<_> = (100..104).map(|last| ip(0, last)).collect();
    let mut cluster = Cluster::new(3);
    for index in 0..3 {
        let last = u8::try_from(31 + index).unwrap();
        cluster.machines[index].cards.push(Card::new(0, last));
        cluster.start_speaker(index);
    }
    cluster.settle(&addresses);
    cluster.run(secs(20));
    assert!(cluster.charges().is_empty(), "{cluster:?}");
    assert_eq!(cluster.news(), [""; 0]);
    let victim = cluster.owner(addresses[0]).unwrap();
    // The card that announces, and not the other one.
    cluster.mark();
    cluster.cable(victim, 0, false);
    cluster.run(secs(5));
    assert!(cluster.longest_dark <= REPLACED, "{cluster:?}");
    cluster.mark();
    cluster.power_off(victim);
    cluster.run(secs(5));
    assert!(cluster.longest_dark <= REPLACED, "{cluster:?}");
    assert_eq!(cluster.longest_overlap, millis(0), "{cluster:?}");
}

#[test]
fn a_fellow_without_the_api_server_does_not_take_a_new_mac_address_for_a_dead_machine() {
    for machines in [2, 3, 5] {
        let address = ip(0, 100);
        let mut cluster = Cluster::settled(machines, &[address]);
        let owner = cluster.owner(address).unwrap();
        let others: Vec<usize> = (0..machines).filter(|index| *index != owner).collect();
        others.iter().for_each(|other| cluster.api_cut(*other));
        cluster.run(secs(5));
        cluster.change_mac(owner, 0, MacAddr(2, 0, 0, 9, 9, 9));
        cluster.run(secs(20));
        assert_eq!(cluster.owner(address), Some(owner), "{machines}: {cluster:?}");
        assert_eq!(cluster.longest_overlap, millis(0), "{machines}: {cluster:?}");
        assert!(cluster.longest_dark <= millis(100), "{machines}: {cluster:?}");
    }
}

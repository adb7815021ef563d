//! Networks and machines that are not what one would expect.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use arpeggio_election::{EndReason, LockChange, Node, Write};
use arpeggio_wire::{Asker, MacAddr, Question};
use ipnet::IpNet;

use super::{
    cluster::{Bridge, Cluster, Host, REPLACED, SPEAKER_REPLACED, ip, ip6, millis, secs, v4},
    machine::Card,
    starts::by_rules,
};

/// Until an address is answered for again whose node finds out that its own card is dead.
const CUT_OFF: Duration = secs(6);

/// A session counts for so long, and a little more until that is found out.
const EXPIRED: Duration = secs(13);

/// How often somebody wanted a node's session ended at different times: of two that write at once, one wins.
fn ended(cluster: &Cluster, ended: &Node) -> usize {
    let ends = cluster.orders.iter();
    let ends = ends.filter(|it| matches!(&it.2, Write::End { node, .. } if node == ended));
    ends.map(|it| it.0 / 100).collect::<BTreeSet<_>>().len()
}

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

/// What both segments have, of which the second one is to fail for one machine, in one way or the other: what that machine has
/// there is answered for by others, for good. Its kernel is heard all the while. `ends`: how often its session is ended.
fn fails_on_one_segment(case: &str, ends: usize, fail: impl Fn(&mut Cluster, usize)) {
    for lost in [ip(1, 100), ip(1, 101), ip6(1, 102)] {
        let mut cluster = Cluster::on(&[&[0, 1][..]; 4]);
        let addresses = [ip(0, 100), ip(0, 101), ip6(0, 102), ip(1, 100), ip(1, 101), ip6(1, 102)];
        cluster.settle(&addresses);
        let victim = cluster.owner(lost).unwrap();
        let node = cluster.machines[victim].node.clone();
        fail(&mut cluster, victim);
        cluster.run(secs(15));
        let successor = cluster.owner(lost);
        assert!(successor.is_some_and(|it| it != victim), "{case}: {lost}: {cluster:?}");
        assert!(cluster.longest_dark <= SPEAKER_REPLACED, "{case}: {lost}: {cluster:?}");
        assert_eq!(ended(&cluster, &node), ends, "{case}: {lost}: {cluster:?}");
        assert!(cluster.takes() <= addresses.len(), "{case}: {lost}: {cluster:?}");
        assert!(addresses.iter().all(|it| cluster.owner(*it).is_some()), "{case}: {cluster:?}");
    }
}

/// Its cable leads to a switch that has lost its own. It finds that out itself, and keeps what it has elsewhere.
#[test]
fn a_data_card_that_is_dead_beside_a_living_management_card_is_found_out_though_it_has_a_carrier() {
    fails_on_one_segment("severed", 0, |cluster, victim| _ = cluster.severed.insert((victim, 1)));
}

/// Its speaker crashes as often as it likes, or the machine is rebooted: what nobody can ask for on the card stays away from it, new
/// addresses and those of dead machines too, until the switch is mended.
#[test]
fn a_card_that_was_found_dead_stays_cut_off_when_its_speaker_starts_again() {
    let starts: [&[Duration]; 3] =
        [&[millis(0)], &[millis(0), millis(500), millis(500)], &[secs(60)]];
    for starts in starts {
        let mut cluster = Cluster::on(&[&[0, 1][..]; 4]);
        let there = [100, 101, 110, 111, 112, 113].map(|last| ip(1, last));
        cluster.settle(&[ip(0, 100), ip(1, 100), ip(1, 101)]);
        let victim = cluster.owner(ip(1, 100)).unwrap();
        cluster.severed.insert((victim, 1));
        cluster.run(secs(15));
        cluster.mark();
        for after in starts {
            cluster.power_off(victim);
            cluster.run(*after);
            cluster.power_on(victim);
            cluster.run(millis(500));
        }
        (110..114).for_each(|last| cluster.claim(ip(1, last)));
        let other = (victim + 1) % 4;
        cluster.power_off(other);
        cluster.run(secs(20));
        let node = cluster.machines[victim].node.clone();
        let got = cluster.orders.iter().find(|(_, by, write)| match write {
            Write::Lock { address, change, .. } if there.contains(address) => match change {
                LockChange::Take { .. } => *by == victim,
                LockChange::Give { to, .. } => *to == node,
                _ => false,
            },
            _ => false,
        });
        assert_eq!(got, None, "{starts:?}: {cluster:?}");
        cluster.power_on(other);
        cluster.severed.clear();
        cluster.run(secs(15));
        (0..4).filter(|it| *it != victim).for_each(|it| cluster.power_off(it));
        cluster.run(secs(20));
        assert_eq!(cluster.owner(ip(1, 100)), Some(victim), "{starts:?}: {cluster:?}");
    }
}

/// The switch behind a card is started again and has lost its own cable: the carrier comes back, and nobody answers behind it.
#[test]
fn a_card_that_comes_back_dead_is_found_so_and_gets_nothing() {
    let mut cluster = Cluster::on(&[&[0, 1][..]; 4]);
    cluster.settle(&[ip(0, 100), ip(1, 100), ip(1, 101)]);
    let victim = cluster.owner(ip(1, 100)).unwrap();
    cluster.cable(victim, 1, false);
    cluster.run(secs(2));
    cluster.severed.insert((victim, 1));
    cluster.cable(victim, 1, true);
    cluster.run(secs(10));
    cluster.mark();
    (110..114).for_each(|last| cluster.claim(ip(1, last)));
    let other = (victim + 1) % 4;
    cluster.power_off(other);
    cluster.run(secs(20));
    for last in [100, 101, 110, 111, 112, 113] {
        let owner = cluster.owner(ip(1, last));
        assert!(owner.is_some_and(|it| it != victim), "{last}: {owner:?} {cluster:?}");
    }
}

/// How long an address on the second segment is dark that the first of three machines alone may announce, when some of them start again
/// after a minute and others stay off. Before that something happens to their cards, which is mended when they start.
fn dark_after_a_restart(
    happens: impl FnOnce(&mut Cluster),
    off: &[usize],
    back: &[usize],
) -> Duration {
    let mut cluster = Cluster::on(&[&[0, 1][..]; 3]);
    cluster.claim_on(ip(1, 100), by_rules(&[("node-0", &["eth1"])]));
    cluster.run(secs(15));
    happens(&mut cluster);
    off.iter().for_each(|index| cluster.power_off(*index));
    cluster.run(secs(60));
    cluster.mark();
    cluster.severed.clear();
    for index in back {
        cluster.machines[*index].cards[1].plug_in();
        cluster.power_on(*index);
    }
    cluster.run(secs(15));
    assert_eq!(cluster.owner(ip(1, 100)), Some(0), "{off:?} {back:?}: {cluster:?}");
    cluster.longest_dark
}

/// Of such a card nothing was found but that its cable was out.
#[test]
fn a_cable_that_is_plugged_in_while_a_machine_is_off_costs_no_time() {
    let all = &[0, 1, 2][..];
    let table = [
        (&[0][..], all, &[0][..]),
        (&[0], all, all),
        (all, all, all),
        (&[0], &[0], &[0]),
        (all, &[0], &[0]),
    ];
    for case @ (out, off, back) in table {
        let pull = |cluster: &mut Cluster| {
            out.iter().for_each(|index| cluster.cable(*index, 1, false));
            cluster.run(secs(15));
        };
        let dark = dark_after_a_restart(pull, off, back);
        assert!(dark <= millis(50), "{case:?}: {dark:?}");
    }
}

/// It stays cut off for as long only as somebody could answer in its place and nobody answers there.
#[test]
fn a_card_that_was_found_dead_and_is_mended_while_its_machine_is_off_costs_little_time() {
    // What happened on a card that was dead is found out before anything is announced there.
    let table = [(false, millis(350)), (true, millis(50))];
    for (others_leave, most) in table {
        let sever = |cluster: &mut Cluster| {
            cluster.severed.insert((0, 1));
            cluster.run(secs(15));
            cluster.power_off(0);
            let leaving = (1..3).filter(|_| others_leave);
            leaving.for_each(|index| cluster.cable(index, 1, false));
        };
        let dark = dark_after_a_restart(sever, &[0], &[0]);
        assert!(dark <= most, "{others_leave}: {dark:?}");
    }
}

#[test]
fn a_speaker_that_answers_on_one_segment_and_not_on_the_other_is_found_out() {
    fails_on_one_segment("stuck", 1, |cluster, victim| {
        cluster.machines[victim].speaker.as_ref().unwrap().ways.stop_listening(2);
    });
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

/// A node leaves the cluster for good, and a machine with its address, another name and another card comes into it.
#[test]
fn a_node_that_is_gone_confuses_nobody_about_its_successor() {
    for name in ["a-new-name", "z-new-name"] {
        let addresses = [ip(0, 100), ip(0, 101), ip6(0, 100)];
        let mut cluster = Cluster::settled(4, &addresses);
        cluster.power_off(3);
        cluster.run(secs(15));
        cluster.remove_session(3);
        cluster.run(secs(5));
        cluster.machines[3].node = Node::from(name);
        cluster.machines[3].cards[0].mac = MacAddr(2, 0, 0, 8, 8, 8);
        cluster.mark();
        cluster.power_on(3);
        cluster.run(secs(30));
        assert!(cluster.charges().is_empty(), "{name}: {cluster:?}");
        assert_eq!(cluster.longest_dark, millis(0), "{name}: {cluster:?}");
        assert_eq!(cluster.news(), [""; 0], "{name}: {cluster:?}");
        // All that the others have goes to it, and dies with it.
        for index in 0..3 {
            cluster.stop_speaker(index);
            cluster.run(secs(8));
        }
        assert!(addresses.iter().all(|it| cluster.owner(*it) == Some(3)), "{name}: {cluster:?}");
        assert_eq!(cluster.longest_dark, millis(0), "{name}: {cluster:?}");
        (0..3).for_each(|index| cluster.start_speaker(index));
        cluster.run(secs(8));
        cluster.mark();
        cluster.power_off(3);
        cluster.run(secs(5));
        assert!(cluster.longest_dark <= REPLACED, "{name}: {cluster:?}");
    }
}

/// Its cable leads to a switch that has lost its own. It hears nobody, and accuses nobody.
#[test]
fn a_card_that_is_dead_behind_its_carrier_is_the_one_that_is_replaced() {
    for machines in [3, 5] {
        let addresses = [ip(0, 100), ip6(0, 101)];
        let mut cluster = Cluster::settled(machines, &addresses);
        let victim = cluster.owner(addresses[0]).unwrap();
        cluster.severed.insert((victim, 0));
        cluster.run(secs(10));
        assert!(cluster.longest_dark <= REPLACED, "{machines}: {cluster:?}");
        let own = cluster.charges().into_iter().filter(|it| it.1 == victim);
        assert_eq!(own.count(), 0, "{machines}: {cluster:?}");
        assert!(addresses.iter().all(|it| cluster.owner(*it).is_some()), "{machines}: {cluster:?}");
    }
}

/// A router, or another node, that answers for all machines with its own MAC address, dead ones too (`proxy_arp`).
#[test]
fn a_machine_that_answers_for_everybody_hides_no_death() {
    for (after, is_node) in [(0, false), (10, false), (0, true), (10, true)] {
        let addresses = [ip(0, 100), ip(0, 101)];
        let mut cluster = Cluster::settled(4, &addresses);
        let victim = cluster.owner(addresses[0]).unwrap();
        let router = MacAddr(2, 0, 0, 2, 0, 1);
        let node = cluster.machines[(victim + 1) % 4].cards[0].mac;
        let mac = if is_node { node } else { router };
        let all = (0..4).map(own_address).collect();
        cluster.hosts.push(Host { segment: 0, mac, addresses: all });
        cluster.run(secs(after));
        assert!(cluster.charges().is_empty(), "{cluster:?}");
        cluster.mark();
        cluster.power_off(victim);
        cluster.run(secs(15));
        // A MAC address that is nobody's may be the node's new one, for two seconds.
        let most = if after == 0 && !is_node { secs(3) } else { REPLACED };
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

/// Wireless clients that bridge, and virtual machines behind them. No machine outside hears them under their own MAC addresses:
/// they are replaced when their sessions expire, and nobody accuses them.
#[test]
fn machines_behind_a_bridge_that_hides_their_mac_addresses_keep_what_they_have() {
    for (behind, lets_in) in [(1, false), (1, true), (2, false), (2, true)] {
        let bridge = Bridge { mac: MacAddr(2, 0, 0, 7, 7, 7), lets_in };
        let behind = 5 - behind..5;
        let addresses: Vec<_> = (100..105).map(|last| ip(0, last)).collect();
        let mut cluster = Cluster::new(5);
        cluster.bridged.extend(behind.clone().map(|index| (index, bridge)));
        cluster.settle(&addresses);
        cluster.run(secs(60));
        assert!(cluster.charges().is_empty(), "{behind:?}: {cluster:?}");
        assert_eq!(cluster.takes(), 0, "{behind:?}: {cluster:?}");
        assert_eq!(cluster.longest_dark, millis(0), "{behind:?}: {cluster:?}");
        cluster.power_off(4);
        cluster.run(secs(20));
        assert!(cluster.longest_dark <= EXPIRED, "{behind:?}: {cluster:?}");
        for victim in 0..3 {
            cluster.mark();
            cluster.power_off(victim);
            cluster.run(secs(5));
            assert!(cluster.longest_dark <= REPLACED, "{behind:?}: {victim}: {cluster:?}");
            cluster.power_on(victim);
            cluster.run(secs(10));
        }
    }
}

/// As when a bridge comes between a machine and the others while it runs: it may be taken for dead once, and not again.
#[test]
fn a_machine_that_moves_behind_such_a_bridge_is_accused_once_at_most() {
    for lets_in in [false, true] {
        let addresses: Vec<_> = (100..104).map(|last| ip(0, last)).collect();
        let mut cluster = Cluster::settled(4, &addresses);
        cluster.bridged.insert(3, Bridge { mac: MacAddr(2, 0, 0, 7, 7, 7), lets_in });
        cluster.run(secs(10));
        let node = cluster.machines[3].node.clone();
        assert!(ended(&cluster, &node) <= 1, "{lets_in}: {cluster:?}");
        cluster.mark();
        cluster.run(secs(60));
        assert!(cluster.charges().is_empty(), "{lets_in}: {cluster:?}");
        assert_eq!(cluster.takes(), 0, "{lets_in}: {cluster:?}");
        assert!(addresses.iter().all(|it| cluster.owner(*it).is_some()), "{lets_in}: {cluster:?}");
    }
}

/// The other card of a bond has a MAC address of its own, with `fail_over_mac=active`; the bond itself keeps its carrier.
#[test]
fn a_bond_that_fails_over_with_another_mac_address_moves_nothing() {
    let addresses = [ip(0, 100), ip6(0, 100)];
    let mut cluster = Cluster::settled(4, &addresses);
    for (last, address) in (0..).zip(addresses) {
        let owner = cluster.owner(address).unwrap();
        cluster.change_mac(owner, 0, MacAddr(2, 0, 0, 8, 8, last));
        cluster.run(secs(5));
        assert_eq!(cluster.owner(address), Some(owner), "{cluster:?}");
    }
    assert_eq!(cluster.takes(), 0, "{cluster:?}");
    assert!(cluster.charges().is_empty(), "{cluster:?}");
    assert_eq!(cluster.longest_overlap, millis(0), "{cluster:?}");
}

/// Nobody knows how long a card will be without carrier. Waiting for it would be an outage each time that a cable is pulled,
/// while a move costs a moment. It is one move: what has moved stays, and the node's session goes on.
#[test]
fn a_carrier_that_is_lost_for_a_moment_moves_addresses_once() {
    for outage in [30, 100] {
        let addresses = [ip(0, 100), ip6(0, 100)];
        let mut cluster = Cluster::settled(4, &addresses);
        let owner = cluster.owner(addresses[0]).unwrap();
        let others = cluster.owner(addresses[1]).filter(|it| *it != owner);
        cluster.cable(owner, 0, false);
        cluster.run(millis(outage));
        cluster.change_mac(owner, 0, MacAddr(2, 0, 0, 8, 8, 8));
        cluster.cable(owner, 0, true);
        cluster.run(secs(10));
        let successor = cluster.owner(addresses[0]);
        assert!(successor.is_some_and(|it| it != owner), "{outage} ms: {cluster:?}");
        assert!(others.is_none_or(|it| cluster.owner(addresses[1]) == Some(it)), "{cluster:?}");
        assert!(cluster.takes() <= addresses.len(), "{outage} ms: {cluster:?}");
        assert!(cluster.charges().is_empty(), "{outage} ms: {cluster:?}");
        assert!(cluster.longest_dark <= millis(100), "{outage} ms: {cluster:?}");
        assert_eq!(cluster.longest_overlap, millis(0), "{outage} ms: {cluster:?}");
    }
}

/// Cloned virtual machines: the switch delivers to the one that has sent last. Each loses what it holds once, since it can
/// hardly be reached, and its users are told. Who watches one of them, or is watched by it, accuses twice at most until it has
/// learned that the way is broken.
#[test]
fn two_machines_with_one_mac_address_lose_their_addresses_once_and_are_named() {
    let addresses: Vec<_> = (100..106).map(|last| ip(0, last)).collect();
    let mut cluster = Cluster::settled(4, &addresses);
    let mac = cluster.machines[0].cards[0].mac;
    cluster.change_mac(1, 0, mac);
    cluster.run(secs(60));
    let (pairs_with_a_clone, accusations) = (4 * 3 - 2, 2);
    let charges = cluster.charges().len();
    assert!(charges <= pairs_with_a_clone * accusations, "{charges}: {cluster:?}");
    for index in 0..4 {
        let node = cluster.machines[index].node.clone();
        assert!(ended(&cluster, &node) <= usize::from(index < 2), "{node}: {cluster:?}");
    }
    assert!(cluster.takes() <= addresses.len(), "{cluster:?}");
    let news = cluster.news();
    let named = news.iter().filter(|it| it.contains(&format!("the same MAC address ({mac})")));
    assert!(named.count() >= 1, "{news:#?}");
    assert!(news.len() <= 2 * addresses.len(), "{news:#?}");
    cluster.mark();
    cluster.run(secs(120));
    assert!(cluster.charges().is_empty(), "{cluster:?}");
    assert_eq!(cluster.takes(), 0, "{cluster:?}");
    assert!(addresses.iter().all(|it| cluster.owner(*it).is_some()), "{cluster:?}");
}

/// Two of the machines lose what the second segment is to them; each of the two is a witness of the other, and of those that are
/// well. Whoever is well keeps what it has, and all is answered for.
fn two_fail_on_one_segment(machines: usize, two: [usize; 2], fail: impl Fn(&mut Cluster, usize)) {
    let mut cluster = Cluster::on(&vec![&[0, 1][..]; machines]);
    let v4 = (100..104).map(|last| ip(1, last));
    let addresses: Vec<_> = v4.chain([ip6(1, 110), ip(0, 100)]).collect();
    cluster.settle(&addresses);
    for index in two {
        fail(&mut cluster, index);
        cluster.run(secs(1));
    }
    cluster.run(secs(12));
    for address in &addresses[..5] {
        let owner = cluster.owner(*address);
        assert!(owner.is_some_and(|it| !two.contains(&it)), "{address}: {owner:?}: {cluster:?}");
    }
    assert!(cluster.longest_dark <= CUT_OFF, "{cluster:?}");
    let ends = cluster.charges().into_iter().find(|it| matches!(it.2, Write::End { .. }));
    assert_eq!(ends, None, "all of them live: {cluster:?}");
}

#[test]
fn two_data_cards_that_are_dead_at_once_hide_no_address_and_no_living_card() {
    for two in [[0, 1], [1, 3]] {
        two_fail_on_one_segment(4, two, |cluster, index| _ = cluster.severed.insert((index, 1)));
    }
}

/// They do not take those for silent whom they cannot ask any more.
#[test]
fn two_machines_that_lose_a_cable_accuse_nobody_on_its_segment() {
    two_fail_on_one_segment(4, [1, 3], |cluster, index| cluster.cable(index, 1, false));
}

/// Whose card on a segment is dead takes nobody for dead there: what it hears elsewhere says nothing of that segment. The others keep
/// their sessions and what they have.
fn a_dead_card_ends_nobody(
    case: &str,
    mut cluster: Cluster,
    victim: usize,
    fail: impl Fn(&mut Cluster),
) {
    let addresses: Vec<_> = (100..104).map(|last| ip(1, last)).collect();
    cluster.settle(&addresses);
    let owners: Vec<_> = addresses.iter().map(|it| cluster.owner(*it)).collect();
    fail(&mut cluster);
    cluster.run(secs(15));
    for index in (0..cluster.machines.len()).filter(|index| *index != victim) {
        let node = cluster.machines[index].node.clone();
        assert_eq!(ended(&cluster, &node), 0, "{case}: {node}: {cluster:?}");
    }
    for (address, owner) in addresses.iter().zip(owners) {
        let now = cluster.owner(*address);
        assert!(now.is_some(), "{case}: {address}: {cluster:?}");
        assert!(owner == Some(victim) || owner == now, "{case}: {address}: {cluster:?}");
    }
}

#[test]
fn a_dead_card_ends_nobody_though_other_nodes_are_heard_elsewhere() {
    let on = || Cluster::on(&[&[0][..], &[0, 1], &[1], &[1]]);
    a_dead_card_ends_nobody("severed", on(), 1, |cluster| _ = cluster.severed.insert((1, 1)));
    a_dead_card_ends_nobody("deaf", on(), 1, |cluster| _ = cluster.deaf.insert((1, 1)));
    a_dead_card_ends_nobody("flap", on(), 1, |cluster| {
        cluster.cable(1, 1, false);
        cluster.run(millis(100));
        cluster.severed.insert((1, 1));
        cluster.cable(1, 1, true);
    });
}

#[test]
fn a_dead_card_ends_nobody_though_a_gateway_is_heard_elsewhere() {
    let mut cluster = Cluster::on(&[&[0, 1][..], &[1], &[1], &[1]]);
    cluster.machines[0].routes = vec![(0, 0)];
    cluster.links_changed(0);
    a_dead_card_ends_nobody("severed", cluster, 0, |cluster| _ = cluster.severed.insert((0, 1)));
}

/// A node's segment is where addresses are, and not where all have given it one length.
#[test]
fn a_dead_card_ends_nobody_though_its_node_gives_the_segment_another_length() {
    for (own, others) in [(24, 16), (16, 24)] {
        let mut cluster = Cluster::on(&[&[0, 1][..], &[1], &[1]]);
        cluster.machines[0].routes = vec![(0, 0)];
        for index in 0..3 {
            let card = cluster.machines[index].cards.last_mut().unwrap();
            let length = if index == 0 { own } else { others };
            card.nets = vec![IpNet::new(card.nets[0].addr(), length).unwrap()];
            cluster.links_changed(index);
        }
        let case = format!("/{own} and /{others}");
        a_dead_card_ends_nobody(&case, cluster, 0, |cluster| _ = cluster.severed.insert((0, 1)));
    }
}

/// Of two that die one is often the control plane. Whoever is left hears nobody where they were, and the world by another card.
#[test]
fn all_that_die_on_a_segment_without_a_gateway_are_replaced_without_the_api_server() {
    for gap in [0, 3000] {
        let addresses: Vec<_> = (100..106).map(|last| ip(1, last)).collect();
        let mut cluster = Cluster::on(&[&[0, 1][..], &[1], &[1]]);
        cluster.machines[0].routes = vec![(0, 0)];
        for index in 1..3 {
            cluster.machines[index].routes.clear();
        }
        (0..3).for_each(|index| cluster.links_changed(index));
        cluster.settle(&addresses);
        cluster.api_down();
        cluster.run(secs(15));
        cluster.power_off(1);
        cluster.run(millis(gap));
        cluster.power_off(2);
        cluster.run(secs(5));
        for address in &addresses {
            assert_eq!(cluster.owner(*address), Some(0), "{gap}: {address}: {cluster:?}");
        }
    }
}

/// As a cable and a radio have that lead to one network. Other nodes are asked by the cable, whose switch has lost its own, and the gateway
/// by both.
#[test]
fn a_dead_card_ends_nobody_though_a_gateway_is_heard_by_another_card_in_the_same_subnet() {
    let mut cluster = Cluster::on(&[&[1][..]; 4]);
    cluster.machines[3].cards.push(Card::new(1, 34));
    cluster.machines[3].routes = vec![(0, 100), (1, 600)];
    cluster.start_speaker(3);
    a_dead_card_ends_nobody("uplink", cluster, 3, |cluster| {
        cluster.machines[3].cards[0].segment = 9;
    });
}

/// Who has a card on a second segment hears those who are there as well, though it asks them on the first one.
#[test]
fn a_node_that_only_one_segment_has_is_replaced_by_those_who_have_both() {
    let addresses: Vec<_> = (100..104).map(|last| ip(1, last)).collect();
    for machines in [&[&[0, 1][..], &[0, 1], &[0, 1], &[1]], &[&[0, 1][..], &[0, 1], &[1], &[1]]] {
        let mut cluster = Cluster::on(machines);
        cluster.settle(&addresses);
        cluster.power_off(3);
        cluster.run(secs(5));
        assert!(cluster.longest_dark <= REPLACED, "{machines:?}: {cluster:?}");
        assert!(addresses.iter().all(|it| cluster.owner(*it).is_some()), "{cluster:?}");
    }
}

/// Without the API server it cannot be known to be dead. Who asks for an address on it, and hears others on another one, does not take it
/// for one that nobody has.
#[test]
fn nobody_stands_in_on_a_dead_card() {
    let addresses: Vec<_> = (100..116).map(|last| ip(1, last)).collect();
    let mut cluster = Cluster::on(&[&[0, 1][..]; 4]);
    cluster.settle(&addresses);
    cluster.api_down();
    cluster.run(secs(5));
    let (deaf, victim) = (0, 1);
    let owners: Vec<_> = addresses.iter().map(|it| cluster.owner(*it)).collect();
    let lost = addresses.iter().zip(owners).filter(|(_, owner)| *owner == Some(victim));
    let lost: Vec<_> = lost.map(|(address, _)| *address).collect();
    cluster.severed.insert((deaf, 1));
    cluster.mark();
    cluster.power_off(victim);
    cluster.run(secs(5));
    for address in lost {
        assert!(!cluster.told_on[&address].contains(&(deaf, 1)), "{address}: {cluster:?}");
        let owner = cluster.owner(address);
        assert!(owner.is_some_and(|it| it > victim), "{address}: {cluster:?}");
    }
}

/// It lives, and hears the other's kernel elsewhere; it cannot confirm what is so on a segment that it is cut off from.
#[test]
fn a_machine_that_is_cut_off_delays_nobody_who_finds_a_stuck_speaker() {
    let mut cluster = Cluster::on(&[&[0, 1][..]; 3]);
    let addresses: Vec<_> = (100..106).map(|last| ip(1, last)).collect();
    cluster.settle(&addresses);
    cluster.cable(0, 1, false);
    cluster.run(secs(4));
    cluster.mark();
    let victim = cluster.owner(addresses[0]).unwrap();
    cluster.machines[victim].speaker.as_ref().unwrap().ways.stop_listening(2);
    cluster.run(secs(15));
    assert!(cluster.longest_dark <= SPEAKER_REPLACED, "{cluster:?}");
    let all = addresses.iter().all(|it| cluster.owner(*it).is_some_and(|it| it != victim));
    assert!(all, "{cluster:?}");
}

/// They hang on one switch. Who is cut off from the dead one's only segment lives elsewhere, and says at once that it hears the dead
/// one no more: nobody waits for its word.
#[test]
fn a_machine_that_loses_the_segment_on_which_another_one_dies_delays_nobody() {
    for (before, after) in [(0, 0), (20, 0), (0, 20), (0, 60)] {
        let addresses: Vec<_> = (100..106).map(|last| ip(1, last)).collect();
        let mut cluster = Cluster::on(&[&[0, 1][..], &[0, 1], &[1]]);
        cluster.settle(&addresses);
        cluster.run(millis(2000));
        cluster.mark();
        cluster.run(millis(after));
        cluster.cable(0, 1, false);
        cluster.run(millis(before));
        cluster.power_off(2);
        cluster.run(secs(15));
        let dark = cluster.longest_dark;
        assert!(dark <= REPLACED * 2, "{before} {after}: {dark:?}: {cluster:?}");
    }
}

/// Its interface, VLAN or own address there is gone (a network card that was pulled, `ip link del`, a lease of DHCP that is over).
/// Whom it has asked there lives, and it cannot ask that one elsewhere.
#[test]
fn a_machine_that_loses_an_interface_for_good_accuses_nobody_who_announces_there() {
    for machines in [2, 3] {
        for loses_all in [true, false] {
            let addresses = [ip(1, 100), ip(1, 101), ip(0, 100), ip6(1, 102)];
            let mut cluster = Cluster::on(&vec![&[0, 1][..]; machines]);
            cluster.settle(&addresses);
            let victim = cluster.owner(addresses[0]).unwrap();
            let loser = (victim + 1) % machines;
            if loses_all {
                cluster.machines[loser].cards.pop();
            } else {
                cluster.machines[loser].cards[1].nets.clear();
            }
            cluster.links_changed(loser);
            cluster.run(secs(30));
            let what = format!("{machines} {loses_all}");
            assert!(cluster.charges().is_empty(), "{what}: {cluster:?}");
            assert_eq!(cluster.owner(addresses[0]), Some(victim), "{what}: {cluster:?}");
        }
    }
}

/// Half of the cards of one segment, those of most of the witnesses among them, while the machines live on the other one.
#[test]
fn three_of_six_cards_that_are_dead_at_once_hide_no_address_and_no_living_card() {
    for dead in [[0, 1, 2], [0, 2, 4], [3, 4, 5]] {
        let addresses: Vec<_> = (100..106).flat_map(|last| [ip(0, last), ip(1, last)]).collect();
        let mut cluster = Cluster::on(&[&[0, 1][..]; 6]);
        cluster.settle(&addresses);
        let before: Vec<_> = addresses.iter().map(|it| cluster.owner(*it).unwrap()).collect();
        dead.iter().for_each(|index| _ = cluster.severed.insert((*index, 0)));
        cluster.run(secs(20));
        let dark = cluster.longest_dark;
        assert!(dark <= SPEAKER_REPLACED, "{dead:?}: {dark:?}: {cluster:?}");
        for (address, before) in addresses.iter().zip(before) {
            let now = cluster.owner(*address);
            let may_have_moved = dead.contains(&before);
            assert!(
                now.is_some() && (may_have_moved || now == Some(before)),
                "{dead:?}: {address}: {cluster:?}"
            );
        }
    }
}

/// Its frames come to nobody, and it hears nobody, while all reach the API server: a tunnel, or a network that isolates its
/// clients. `after`: for so long all is well before.
#[test]
fn a_peer_that_cannot_be_heard_costs_no_broadcast_at_rest() {
    let isolated: &[(usize, usize)] = &[(0, 1), (0, 2), (1, 2)];
    for (cuts, after, rests_after) in
        [(isolated, 0, 8), (&isolated[..2], 0, 8), (&isolated[..2], 8, 40)]
    {
        let mut cluster = Cluster::new(3);
        cluster.run(secs(after));
        cluster.cuts.extend(cuts);
        cluster.run(secs(rests_after));
        cluster.mark();
        cluster.run(secs(10));
        let asked = cluster.broadcasts.values().sum::<usize>();
        assert_eq!(asked, 0, "{cuts:?} after {after} s: {cluster:?}");
        let frames = cluster.frames_sent.values().sum::<usize>();
        assert!(frames <= 3 * 2 * 10 * 11, "{cuts:?} after {after} s: {frames} frames");
    }
}

/// Nor does a dead card beside a living one, nor a machine that is off.
#[test]
fn a_dead_card_and_a_dead_machine_cost_no_broadcast_at_rest() {
    let mut cluster = Cluster::on(&[&[0, 1][..]; 4]);
    cluster.run(secs(8));
    cluster.severed.insert((0, 1));
    cluster.power_off(3);
    cluster.run(secs(25));
    cluster.mark();
    cluster.run(secs(10));
    let asked = cluster.broadcasts.values().sum::<usize>();
    assert_eq!(asked, 0, "{cluster:?}");
}

/// Nor does a machine that is off while no session can be ended: for as long as the API server is away it is still asked for.
#[test]
fn a_dead_machine_costs_few_broadcasts_while_the_api_server_is_away() {
    for (machines, has_router) in [(2, true), (4, true), (4, false)] {
        let mut cluster = Cluster::settled(machines, &[ip(0, 100)]);
        cluster.api_down();
        cluster.run(secs(5));
        let victim = cluster.owner(ip(0, 100)).unwrap();
        cluster.power_off(victim);
        if !has_router {
            cluster.hosts.clear();
        }
        cluster.run(secs(40));
        assert!(cluster.owner(ip(0, 100)).is_some(), "somebody stands in: {cluster:?}");
        cluster.mark();
        cluster.run(secs(10));
        // Who stands in asks once a second who else does, and tells the segment now and then.
        let asked = cluster.broadcasts.values().sum::<usize>();
        let most = if has_router { 25 } else { 25 + 10 * machines };
        assert!(asked <= most, "{machines} {has_router}: {asked}: {:?}", cluster.asked_everybody);
    }
}

/// Access points learn from a question without a sender that the asker has the address. Whoever asks again, or stands in, therefore
/// names itself.
#[test]
fn only_what_was_never_used_is_asked_for_without_a_name() {
    let (used, occupied) = (ip(0, 100), ip(0, 101));
    let mut cluster = Cluster::settled(3, &[used]);
    let mac = MacAddr(2, 0, 0, 7, 0, 1);
    cluster.hosts.push(Host { segment: 0, mac, addresses: vec![occupied] });
    cluster.claim(occupied);
    cluster.run(secs(5));
    assert_eq!(cluster.owners(occupied), [0; 0], "{cluster:?}");
    assert!(cluster.nameless > 0, "before the first use");
    cluster.mark();
    cluster.run(secs(70));
    let asked: usize = cluster.broadcasts.values().sum();
    assert!(asked > 4, "it is asked for again: {asked}");
    cluster.api_down();
    cluster.run(secs(5));
    let victim = cluster.owner(used).unwrap();
    cluster.power_off(victim);
    cluster.run(secs(5));
    assert!(cluster.owner(used).is_some(), "somebody stands in: {cluster:?}");
    assert_eq!(cluster.nameless, 0, "{cluster:?}");
}

/// kube-proxy in IPVS mode without strict ARP: every node's kernel has the address, answers for it, and asks for others in its
/// name. That is no fellow that announces it, neither while locks can be read nor while they cannot.
#[test]
fn kernels_that_have_what_is_for_services_are_no_speakers() {
    for with_api in [false, true] {
        for owner_dies in [false, true] {
            let address = ip(0, 100);
            let mut cluster = Cluster::new(4);
            cluster.machines.iter_mut().for_each(|it| it.services.push(address));
            (0..4).for_each(|index| cluster.links_changed(index));
            cluster.settle(&[address]);
            if !with_api {
                cluster.api_down();
                cluster.run(secs(5));
            }
            let owner = cluster.owner(address).unwrap();
            let what = format!("{with_api} {owner_dies}");
            if owner_dies {
                cluster.power_off(owner);
            }
            for _ in 0..100 {
                let alive = (0..4).filter(|index| cluster.machines[*index].powered);
                let fellows: Vec<usize> = alive.filter(|index| *index != owner).collect();
                let to = cluster.machines[owner].cards[0].mac;
                for index in fellows {
                    let mac = cluster.machines[index].cards[0].mac;
                    cluster.forge(0, &in_passing(address, mac));
                    cluster.forge(0, &reply_of(address, mac, to));
                }
                cluster.run(millis(200));
            }
            let most = if owner_dies { secs(1) } else { millis(0) };
            assert!(cluster.longest_dark <= most, "{what}: {cluster:?}");
            // Two that stand in at once hear it by their next questions.
            let overlap = millis(if owner_dies && !with_api { 250 } else { 0 });
            assert!(cluster.longest_overlap <= overlap, "{what}: {cluster:?}");
            let now = cluster.owner(address);
            assert_eq!(now == Some(owner), !owner_dies, "{what}: {cluster:?}");
            assert!(now.is_some(), "{what}: {cluster:?}");
            assert!(cluster.news().iter().all(|it| !it.contains("as well")), "{what}");
        }
    }
}

/// What a kernel at `mac` asks that sends from `address`.
fn in_passing(address: IpAddr, mac: MacAddr) -> Vec<u8> {
    let asker = Asker { mac, address: Some(v4(address)) };
    Question { address: v4(ip(0, 1)), asker }.broadcast().to_bytes().to_vec()
}

/// What a kernel at `mac` replies to `to` that has `address` as well.
fn reply_of(address: IpAddr, mac: MacAddr, to: MacAddr) -> Vec<u8> {
    let asker = Asker { mac: to, address: None };
    Question { address: v4(address), asker }.answer(mac).to_bytes().to_vec()
}

//! Machines that die, move and change.

use std::net::IpAddr;

use arpeggio_election::Write;
use arpeggio_wire::MacAddr;
use ipnet::IpNet;

use super::{
    cluster::{Cluster, REPLACED, SPEAKER_REPLACED, ip, ip6, millis, secs},
    machine::{Card, gateway},
};

#[test]
fn the_addresses_of_a_dead_machine_are_answered_for_again_in_clusters_of_any_size() {
    for machines in [2, 3, 5, 8] {
        let addresses = [ip(0, 100), ip(0, 101), ip6(0, 100)];
        let mut cluster = Cluster::settled(machines, &addresses);
        let victim = cluster.owner(addresses[0]).unwrap();
        cluster.power_off(victim);
        cluster.run(secs(10));
        let dark = cluster.longest_dark;
        assert!(dark <= REPLACED, "{machines} machines: {dark:?}: {cluster:?}");
        assert_eq!(cluster.longest_overlap, millis(0), "{machines} machines: {cluster:?}");
        cluster.power_on(victim);
        cluster.mark();
        cluster.run(secs(10));
        assert_eq!(cluster.longest_dark, millis(0), "a machine returns: {cluster:?}");
    }
}

#[test]
fn two_of_six_that_die_at_once_are_replaced_as_fast_as_one() {
    let pairs = (0..6).flat_map(|one| (one + 1..6).map(move |other| (one, other)));
    for (one, other) in pairs {
        let addresses: Vec<_> = (100..112).map(|last| ip(0, last)).collect();
        let mut cluster = Cluster::settled(6, &addresses);
        cluster.power_off(one);
        cluster.power_off(other);
        cluster.run(secs(3));
        let dark = cluster.longest_dark;
        assert!(dark <= REPLACED, "{one} and {other}: {dark:?}: {cluster:?}");
    }
}

/// Each of the two is the one that would have to confirm that the other is silent. Who hears nobody but the router doubts itself
/// for three times as long.
#[test]
fn two_of_three_that_die_at_once_leave_all_to_the_third() {
    for survivor in 0..3 {
        let addresses: Vec<_> = (100..106).map(|last| ip(0, last)).collect();
        let mut cluster = Cluster::settled(3, &addresses);
        (0..3).filter(|index| *index != survivor).for_each(|index| cluster.power_off(index));
        cluster.run(secs(3));
        let dark = cluster.longest_dark;
        assert!(dark <= REPLACED * 2, "{survivor}: {dark:?}: {cluster:?}");
    }
}

/// It has a way out on another side, and routes for the others.
#[test]
fn a_dead_machine_that_was_the_gateway_of_the_others_is_replaced_as_fast_as_any() {
    for has_ipv6 in [false, true] {
        let addresses: Vec<_> = (100..106).map(|last| ip(0, last)).collect();
        let mut cluster = Cluster::new(3);
        cluster.hosts.clear();
        let routes_for_others = &mut cluster.machines[0];
        routes_for_others.routes.clear();
        let nets = &mut routes_for_others.cards[0].nets;
        nets[0] = IpNet::new(gateway(0), 24).unwrap();
        nets.retain(|net| has_ipv6 || net.addr().is_ipv4());
        cluster.links_changed(0);
        cluster.settle(&addresses);
        assert!(addresses.iter().any(|it| cluster.owner(*it) == Some(0)), "{cluster:?}");
        cluster.power_off(0);
        cluster.run(secs(12));
        let dark = cluster.longest_dark;
        assert!(dark <= REPLACED, "{has_ipv6}: {dark:?}: {cluster:?}");
    }
}

#[test]
fn each_of_two_segments_has_its_own_witnesses() {
    let segments: [&[u8]; 6] = [&[0], &[0], &[0, 1], &[0, 1], &[1], &[1]];
    for victim in [0, 2, 5] {
        let addresses: Vec<_> =
            [0, 1].into_iter().flat_map(|it| [ip(it, 100), ip(it, 101), ip6(it, 102)]).collect();
        let mut cluster = Cluster::on(&segments);
        cluster.settle(&addresses);
        cluster.power_off(victim);
        cluster.run(secs(12));
        let dark = cluster.longest_dark;
        assert!(dark <= REPLACED, "{victim}: {dark:?}: {cluster:?}");
        assert_eq!(cluster.longest_overlap, millis(0), "{victim}: {cluster:?}");
    }
}

/// Of all machines, those that rank highest for one of the three are mostly among the many, which cannot hear it.
#[test]
fn a_small_segment_beside_a_large_one_has_its_own_witnesses() {
    let segments: Vec<&[u8]> = [&[0][..]; 3].into_iter().chain([&[1][..]; 12]).collect();
    let addresses = [ip(0, 100), ip(0, 101), ip(0, 102)];
    for address in addresses {
        let mut cluster = Cluster::on(&segments);
        cluster.settle(&addresses);
        let victim = cluster.owner(address).unwrap();
        cluster.power_off(victim);
        cluster.run(secs(3));
        let dark = cluster.longest_dark;
        assert!(dark <= REPLACED, "{victim}: {dark:?}: {cluster:?}");
    }
}

#[test]
fn a_machine_with_a_new_mac_address_is_not_accused_and_answers_by_it() {
    for machines in [2, 3, 5] {
        let addresses = [ip(0, 100), ip(0, 101), ip6(0, 100)];
        let mut cluster = Cluster::settled(machines, &addresses);
        for index in 0..machines {
            let last = u8::try_from(index).unwrap();
            cluster.change_mac(index, 0, MacAddr(2, 0, 0, 9, 9, last));
            cluster.run(secs(5));
        }
        assert!(cluster.charges().is_empty(), "{machines}: {cluster:?}");
        assert_eq!(cluster.takes(), 0, "{machines}: {cluster:?}");
        assert!(cluster.longest_dark <= millis(100), "{machines}: {cluster:?}");
    }
}

/// Answers to questions that everybody got under the node's new MAC address are what speaks for it until then.
#[test]
fn a_machine_with_a_new_mac_address_is_not_accused_by_those_who_read_of_it_late() {
    for machines in [2, 3, 5] {
        let addresses = [ip(0, 100), ip(0, 101)];
        let mut cluster = Cluster::settled(machines, &addresses);
        cluster.machines.iter_mut().for_each(|it| it.lag = 1000);
        for index in 0..machines {
            let last = u8::try_from(index).unwrap();
            cluster.change_mac(index, 0, MacAddr(2, 0, 0, 9, 9, last));
            cluster.run(millis(4100));
        }
        assert!(cluster.charges().is_empty(), "{machines}: {cluster:?}");
    }
}

/// The others hear of it late, so that who does not wait for them leaves a gap.
#[test]
fn a_speaker_that_is_asked_to_stop_hands_over_without_a_gap() {
    let addresses: Vec<_> = (100..104).flat_map(|last| [ip(0, last), ip6(0, last)]).collect();
    let mut cluster = Cluster::settled(3, &addresses);
    cluster.machines.iter_mut().for_each(|it| it.lag = 200);
    for index in 0..3 {
        cluster.stop_speaker(index);
        cluster.run(secs(8));
        assert!(cluster.machines[index].speaker.is_none(), "{cluster:?}");
        cluster.start_speaker(index);
        cluster.run(secs(5));
    }
    assert_eq!(cluster.longest_dark, millis(0), "{cluster:?}");
    assert!(
        cluster.charges().iter().all(
            |it| matches!(&it.2, Write::End { node, .. } if *node == cluster.machines[it.1].node)
        ),
        "{cluster:?}"
    );
}

/// Whoever comes is a witness, and a candidate, of whom the others do not know yet what it hears.
#[test]
fn a_death_while_a_machine_joins_is_noticed_as_fast() {
    for (victim, delay) in [(0, 0), (1, 200), (2, 700)] {
        let addresses: Vec<_> = (100..106).map(|last| ip(0, last)).collect();
        let mut cluster = Cluster::new(4);
        cluster.power_off(3);
        cluster.settle(&addresses);
        cluster.power_on(3);
        cluster.run(millis(delay));
        cluster.power_off(victim);
        cluster.run(secs(3));
        let dark = cluster.longest_dark;
        assert!(dark <= REPLACED, "{victim} after {delay} ms: {dark:?}: {cluster:?}");
    }
}

/// Whoever starts again has heard nobody yet, though its session says whom the process before it heard.
#[test]
fn a_death_while_a_witness_starts_again_is_noticed_as_fast() {
    for (machines, after) in [(3, 300), (4, 0), (5, 100)] {
        let addresses = [ip(0, 100), ip(0, 101)];
        for witness in 1..machines {
            let mut cluster = Cluster::settled(machines, &addresses);
            let victim = cluster.owner(addresses[0]).unwrap();
            let witness = (victim + witness) % machines;
            cluster.start_speaker(witness);
            cluster.run(millis(after));
            cluster.power_off(victim);
            cluster.run(secs(3));
            let dark = cluster.longest_dark;
            let what = format!("{machines} machines, {witness} starts {after} ms before");
            assert!(dark <= REPLACED, "{what}: {dark:?}: {cluster:?}");
        }
    }
}

/// One that was a witness of the dead one's is on its way out, or is gone with its session.
#[test]
fn a_death_while_another_machine_leaves_is_noticed_as_fast() {
    for (victim, leaver) in [(0, 1), (1, 2), (2, 0)] {
        let addresses: Vec<_> = (100..106).map(|last| ip(0, last)).collect();
        let mut cluster = Cluster::settled(4, &addresses);
        cluster.stop_speaker(leaver);
        cluster.run(millis(20));
        cluster.power_off(victim);
        cluster.run(secs(3));
        let dark = cluster.longest_dark;
        assert!(dark <= REPLACED, "{victim} beside {leaver}: {dark:?}: {cluster:?}");
    }
}

#[test]
fn a_death_while_a_node_is_removed_is_noticed_as_fast() {
    for (victim, removed) in [(0, 3), (1, 3), (2, 3)] {
        let addresses: Vec<_> = (100..106).map(|last| ip(0, last)).collect();
        let mut cluster = Cluster::settled(5, &addresses);
        cluster.power_off(removed);
        cluster.run(secs(3));
        cluster.mark();
        cluster.remove_session(removed);
        cluster.power_off(victim);
        cluster.run(secs(3));
        let dark = cluster.longest_dark;
        assert!(dark <= REPLACED, "{victim}: {dark:?}: {cluster:?}");
    }
}

/// A speaker that stands still confirms nothing. What its own node holds is taken over when it has been silent for some seconds or, where
/// the dead one would have had to confirm that, when its session has expired.
#[test]
fn a_death_while_a_speaker_stands_still_is_noticed_as_fast() {
    for (machines, offset) in [(4, 1), (4, 2), (4, 3), (5, 1), (5, 4)] {
        let addresses: Vec<_> = (100..106).map(|last| ip(0, last)).collect();
        let mut cluster = Cluster::settled(machines, &addresses);
        let victim = cluster.owner(addresses[0]).unwrap();
        let frozen = (victim + offset) % machines;
        let of = |owner, cluster: &mut Cluster| -> Vec<IpAddr> {
            addresses.iter().copied().filter(|it| cluster.owner(*it) == Some(owner)).collect()
        };
        let of_victim = of(victim, &mut cluster);
        cluster.machines[frozen].paused = true;
        cluster.run(millis(50));
        cluster.power_off(victim);
        cluster.run(REPLACED);
        for address in of_victim {
            let owner = cluster.owner(address);
            assert!(owner.is_some(), "{machines}, {offset}: {address}: {cluster:?}");
        }
        cluster.run(secs(11));
        for address in &addresses {
            let owner = cluster.owner(*address);
            assert!(owner.is_some(), "{machines}, {offset}: {address}: {cluster:?}");
        }
    }
}

/// Whoever watches it in the dead one's place has never heard its speaker, so it has no word in that.
#[test]
fn a_speaker_that_stands_still_while_a_witness_of_it_dies_is_found_out_as_fast() {
    for (machines, offset) in [(4, 1), (4, 2), (4, 3), (5, 1), (5, 2), (5, 3), (5, 4)] {
        let mut cluster = Cluster::settled(machines, &[ip(0, 100)]);
        let frozen = cluster.owner(ip(0, 100)).unwrap();
        cluster.machines[frozen].paused = true;
        cluster.run(millis(50));
        cluster.power_off((frozen + offset) % machines);
        cluster.run(secs(12));
        let dark = cluster.longest_dark;
        assert!(dark <= SPEAKER_REPLACED, "{machines}, {offset}: {dark:?}: {cluster:?}");
    }
}

#[test]
fn a_death_whose_witness_dies_with_its_word_given_is_noticed_as_fast() {
    for machines in [4, 6] {
        let addresses: Vec<_> = (100..108).map(|last| ip(0, last)).collect();
        let mut cluster = Cluster::settled(machines, &addresses);
        let victim = cluster.owner(addresses[0]).unwrap();
        cluster.power_off(victim);
        let who_says_so = |it: &(u64, usize, Write)| {
            matches!(it.2, Write::Accuse { .. } | Write::End { .. }).then_some(it.1)
        };
        let mut witness = None;
        for _ in 0..500 {
            cluster.run(millis(1));
            witness = cluster.orders.iter().find_map(who_says_so);
            if witness.is_some() {
                break;
            }
        }
        cluster.power_off(witness.unwrap());
        cluster.run(secs(3));
        let dark = cluster.longest_dark;
        assert!(dark <= REPLACED * 2, "{machines}: {dark:?}: {cluster:?}");
    }
}

/// It has the old one's name, and its session, but neither its MAC address nor its own address.
#[test]
fn a_machine_that_is_exchanged_for_another_of_its_name_is_replaced_and_serves_again() {
    for (after, dark_for) in [(0, SPEAKER_REPLACED), (100, REPLACED), (2000, REPLACED)] {
        let addresses = [ip(0, 100), ip(0, 101), ip(0, 102)];
        let mut cluster = Cluster::settled(3, &addresses);
        let victim = cluster.owner(addresses[0]).unwrap();
        cluster.power_off(victim);
        cluster.run(millis(after));
        cluster.machines[victim].cards = vec![Card::new(0, 77)];
        cluster.power_on(victim);
        cluster.run(secs(12));
        let dark = cluster.longest_dark;
        assert!(dark <= dark_for, "{after}: {dark:?}: {cluster:?}");
        cluster.mark();
        let other = (victim + 1) % 3;
        let others = (victim + 2) % 3;
        cluster.power_off(other);
        cluster.power_off(others);
        cluster.run(secs(3));
        let dark = cluster.longest_dark;
        assert!(dark <= REPLACED * 2, "{after}: it is a candidate: {dark:?}: {cluster:?}");
    }
}

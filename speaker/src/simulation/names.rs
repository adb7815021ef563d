//! Machines with several names, and addresses of several machines.

use arpeggio_election::{Node, Write};

use super::cluster::{Cluster, REPLACED, ip, ip6, millis, secs};

/// Machine 3, which has no power, comes as a second speaker of machine 2, under this name.
fn is_machine_2_as_well(cluster: &mut Cluster, name: &str) {
    cluster.machines[3].cards = cluster.machines[2].cards.clone();
    cluster.machines[3].node = Node::from(name);
    cluster.one_machine.insert((2, 3));
    cluster.power_on(3);
}

/// A node is registered anew under another name while the speaker of its old name still runs: both have its cards.
#[test]
fn two_speakers_of_one_machine_are_both_heard() {
    for name in ["a-new-name", "z-new-name"] {
        let addresses: Vec<_> = (100..106).flat_map(|last| [ip(0, last), ip6(0, last)]).collect();
        let mut cluster = Cluster::new(4);
        cluster.run(secs(1));
        cluster.power_off(3);
        cluster.settle(&addresses);
        cluster.remove_session(3);
        is_machine_2_as_well(&mut cluster, name);
        cluster.run(secs(30));
        assert!(cluster.charges().is_empty(), "{name}: {cluster:?}");
        assert_eq!(cluster.takes(), 0, "{name}: {cluster:?}");
        assert_eq!(cluster.longest_dark, millis(0), "{name}: {cluster:?}");
        // What the old name has goes to others, the new name among them.
        cluster.stop_speaker(2);
        cluster.run(secs(10));
        assert_eq!(cluster.longest_dark, millis(0), "{name}: {cluster:?}");
        for index in [0, 1] {
            cluster.stop_speaker(index);
            cluster.run(secs(8));
        }
        let all_there = addresses.iter().all(|it| cluster.owner(*it) == Some(3));
        assert!(all_there, "{name}: {cluster:?}");
        assert_eq!(cluster.longest_dark, millis(0), "{name}: {cluster:?}");
        [0, 1].into_iter().for_each(|index| cluster.start_speaker(index));
        cluster.run(secs(8));
        cluster.mark();
        cluster.power_off(2);
        cluster.power_off(3);
        cluster.run(secs(5));
        assert!(cluster.longest_dark <= REPLACED, "{name}: {cluster:?}");
    }
}

/// Both die with the machine.
#[test]
fn two_speakers_of_one_machine_are_replaced_together() {
    for name in ["a-new-name", "z-new-name"] {
        let addresses: Vec<_> = (100..112).map(|last| ip(0, last)).collect();
        let mut cluster = Cluster::new(4);
        cluster.power_off(3);
        is_machine_2_as_well(&mut cluster, name);
        cluster.settle(&addresses);
        cluster.run(secs(20));
        assert!(cluster.charges().is_empty(), "{name}: {cluster:?}");
        let owners: Vec<_> = addresses.iter().map(|it| cluster.owner(*it)).collect();
        assert!([2, 3].iter().all(|it| owners.contains(&Some(*it))), "{name}: {owners:?}");
        cluster.mark();
        cluster.power_off(2);
        cluster.power_off(3);
        cluster.run(secs(5));
        assert!(cluster.longest_dark <= REPLACED, "{name}: {cluster:?}");
    }
}

/// The speaker of one name stands still, while that of the other answers.
#[test]
fn of_two_speakers_of_one_machine_the_one_that_is_stuck_is_found_out() {
    for (name, stuck) in
        [("a-new-name", 2), ("a-new-name", 3), ("z-new-name", 2), ("z-new-name", 3)]
    {
        let addresses: Vec<_> = (100..112).map(|last| ip(0, last)).collect();
        let mut cluster = Cluster::new(4);
        cluster.power_off(3);
        is_machine_2_as_well(&mut cluster, name);
        cluster.settle(&addresses);
        cluster.run(secs(10));
        cluster.mark();
        cluster.machines[stuck].speaker.as_ref().unwrap().ways.stop_listening(1);
        cluster.run(secs(15));
        assert!(cluster.longest_dark <= secs(8), "{name}: {stuck}: {cluster:?}");
        let all = addresses.iter().all(|it| cluster.owner(*it).is_some_and(|it| it != stuck));
        assert!(all, "{name}: {stuck}: {cluster:?}");
        let node = cluster.machines[stuck].node.clone();
        let only_that = cluster.charges().into_iter().all(
            |it| matches!(&it.2, Write::Accuse { node: it, .. } | Write::End { node: it, .. } if *it == node),
        );
        assert!(only_that, "{name}: {stuck}: {cluster:?}");
    }
}

/// Somebody has given two machines one address of their own: as its Node says, they are one.
#[test]
fn two_machines_with_one_address_of_their_own_are_told_apart_by_their_mac_addresses() {
    for machines in [3, 5] {
        let addresses: Vec<_> = (100..105).map(|last| ip(0, last)).collect();
        let mut cluster = Cluster::settled(machines, &addresses);
        let nets = cluster.machines[0].cards[0].nets.clone();
        cluster.machines[1].cards[0].nets = nets;
        cluster.links_changed(1);
        cluster.run(secs(30));
        assert!(cluster.charges().is_empty(), "{machines}: {cluster:?}");
        assert_eq!(cluster.takes(), 0, "{machines}: {cluster:?}");
        assert_eq!(cluster.longest_dark, millis(0), "{machines}: {cluster:?}");
        for victim in [0, 1] {
            cluster.mark();
            cluster.power_off(victim);
            cluster.run(secs(5));
            assert!(cluster.longest_dark <= REPLACED, "{machines}: {victim}: {cluster:?}");
            cluster.power_on(victim);
            cluster.run(secs(10));
        }
    }
}

/// A machine that was taken out of the cluster goes on answering for its own address, without a speaker.
#[test]
fn a_machine_that_is_no_node_any_more_is_no_witness_and_nobodys_voice() {
    let addresses: Vec<_> = (100..106).map(|last| ip(0, last)).collect();
    let mut cluster = Cluster::settled(4, &addresses);
    cluster.stop_speaker(3);
    cluster.run(secs(8));
    cluster.remove_session(3);
    cluster.mark();
    cluster.run(secs(20));
    assert!(cluster.charges().is_empty(), "{cluster:?}");
    assert_eq!((cluster.takes(), cluster.longest_dark), (0, millis(0)), "{cluster:?}");
    for victim in 0..3 {
        cluster.mark();
        cluster.power_off(victim);
        cluster.run(secs(5));
        assert!(cluster.longest_dark <= REPLACED, "{victim}: {cluster:?}");
        cluster.power_on(victim);
        cluster.run(secs(10));
    }
}

//! Machines whose MAC addresses and addresses change at a bad moment, again and again, or all at one time.

use arpeggio_wire::MacAddr;
use ipnet::IpNet;

use super::{
    cluster::{Cluster, REPLACED, ip, ip6, millis, secs},
    machine::Card,
};

/// Nobody was accused, and nothing has moved.
fn check_undisturbed(cluster: &Cluster, what: &str) {
    assert!(cluster.charges().is_empty(), "{what}: {cluster:?}");
    assert_eq!(cluster.takes(), 0, "{what}: {cluster:?}");
    assert_eq!(cluster.longest_overlap, millis(0), "{what}: {cluster:?}");
}

/// The two cards of a bond lose their cables by turns, or a bridge gets and loses ports with lower MAC addresses: each time the
/// MAC address is another one, and the carrier stays.
#[test]
fn a_mac_address_that_changes_all_the_time_moves_nothing() {
    for (machines, lag, pause, of_two) in [
        (2, 0, 700, true),
        (3, 0, 300, true),
        (3, 300, 700, true),
        (4, 0, 300, false),
        (3, 300, 1500, false),
    ] {
        let addresses = [ip(0, 100), ip(0, 101), ip(0, 102), ip6(0, 100)];
        let mut cluster = Cluster::settled(machines, &addresses);
        cluster.machines.iter_mut().for_each(|it| it.lag = lag);
        let owner = cluster.owner(addresses[0]).unwrap();
        for turn in 0..40_u8 {
            let last = if of_two { turn % 2 } else { turn };
            cluster.change_mac(owner, 0, MacAddr(2, 0, 0, 8, 8, last));
            cluster.run(millis(pause));
        }
        check_undisturbed(&cluster, &format!("{machines} {lag} {pause} {of_two}"));
        assert!(cluster.longest_dark <= millis(100), "{machines} {lag} {pause}: {cluster:?}");
    }
}

/// As a network manager does that sets up the interface anew.
#[test]
fn a_machine_whose_mac_address_and_address_change_at_once_is_no_dead_one() {
    for (lag, keeps_other) in [(0, true), (0, false), (1000, true), (1000, false)] {
        for machines in [2, 3, 5] {
            let addresses: Vec<_> = (100..110).map(|last| ip(0, last)).collect();
            let cluster = Cluster::renumbered(
                machines,
                &addresses,
                (lag, keeps_other),
                |cluster, index, last| cluster.change_mac(index, 0, MacAddr(2, 0, 0, 9, 9, last)),
            );
            check_undisturbed(&cluster, &format!("{lag} {keeps_other} {machines}"));
        }
    }
}

/// What has changed, and then nothing does any more: it is as dead as any other.
#[test]
fn a_machine_that_dies_after_its_mac_address_has_changed_is_replaced_as_fast() {
    for machines in [3, 5] {
        for delay in [0, 20, 50, 100, 300, 1000] {
            let addresses: Vec<_> = (100..106).map(|last| ip(0, last)).collect();
            let mut cluster = Cluster::settled(machines, &addresses);
            let owner = cluster.owner(addresses[0]).unwrap();
            let witness = (owner + 1) % machines;
            cluster.change_mac(owner, 0, MacAddr(2, 0, 0, 8, 8, 8));
            cluster.change_mac(witness, 0, MacAddr(2, 0, 0, 8, 8, 9));
            cluster.run(millis(delay));
            cluster.power_off(owner);
            cluster.run(secs(5));
            let what = format!("{machines} {delay}");
            assert!(cluster.longest_dark <= REPLACED, "{what}: {cluster:?}");
            assert_eq!(cluster.longest_overlap, millis(0), "{what}: {cluster:?}");
            cluster.mark();
            cluster.run(secs(20));
            assert!(cluster.charges().is_empty(), "{what}: {cluster:?}");
        }
    }
}

/// The time of day dates what people read. An hour is more than any session lasts, and than anything else that is waited for.
#[test]
fn a_time_of_day_that_jumps_changes_nothing() {
    let all = |hours| vec![hours; 4];
    for ahead in [vec![1, 0, 0, 0], vec![-1, 0, 0, 0], all(1), all(-1), vec![-1, 1, 0, 8760]] {
        let addresses = [ip(0, 100), ip(0, 101), ip6(0, 100), ip(0, 102)];
        let mut cluster = Cluster::new(4);
        // Before the Unix epoch nothing can be dated.
        cluster.machines.iter_mut().for_each(|it| it.hours_ahead = 10);
        cluster.settle(&addresses);
        for turn in [1, 0, 1] {
            for (machine, hours) in cluster.machines.iter_mut().zip(&ahead) {
                machine.hours_ahead = 10 + turn * hours;
            }
            cluster.run(secs(40));
        }
        let what = format!("{ahead:?}");
        check_undisturbed(&cluster, &what);
        assert_eq!(cluster.longest_dark, millis(0), "{what}: {cluster:?}");
        assert_eq!(cluster.news(), [""; 0], "{what}");
        for victim in 0..2 {
            cluster.mark();
            cluster.power_off(victim);
            cluster.machines.iter_mut().for_each(|it| it.hours_ahead = 20 - it.hours_ahead);
            cluster.run(secs(5));
            assert!(cluster.longest_dark <= REPLACED, "{what} {victim}: {cluster:?}");
            cluster.power_on(victim);
            cluster.run(secs(10));
        }
    }
}

/// It is deleted and made anew, as by a container runtime or a network manager: the same in all but its number.
#[test]
fn an_interface_with_another_number_announces_as_before() {
    for has_api in [true, false] {
        let addresses = [ip(0, 100), ip6(0, 100), ip(0, 101), ip(0, 102)];
        let mut cluster = Cluster::settled(3, &addresses);
        if !has_api {
            cluster.api_down();
            cluster.run(secs(5));
            cluster.mark();
        }
        for index in 0..3 {
            let card = Card { name: Some("eth0"), ..cluster.machines[index].cards[0].clone() };
            let gone = Card { segment: 99, cable: false, nets: Vec::new(), ..card.clone() };
            let gone = Card { name: Some("gone0"), ..gone };
            cluster.machines[index].cards = vec![gone, card];
            cluster.machines[index].routes = vec![(1, 0)];
            cluster.links_changed(index);
            cluster.run(secs(5));
        }
        check_undisturbed(&cluster, &format!("{has_api}"));
        assert!(cluster.longest_dark <= millis(400), "{has_api}: {cluster:?}");
        assert!(addresses.iter().all(|it| cluster.owner(*it).is_some()), "{has_api}: {cluster:?}");
    }
}

/// Who watches a machine, and who holds its addresses next, lose their carriers for a moment by turns, or two of them at once.
#[test]
fn carriers_that_are_lost_for_a_moment_by_turns_keep_no_address_dark() {
    for (machines, at_once, has_api) in
        [(3, 1, true), (4, 2, true), (5, 2, true), (4, 1, false), (4, 2, false)]
    {
        let addresses: Vec<_> = (100..106).flat_map(|last| [ip(0, last), ip6(0, last)]).collect();
        let mut cluster = Cluster::settled(machines, &addresses);
        if !has_api {
            cluster.api_down();
            cluster.run(secs(5));
            cluster.mark();
        }
        for turn in 0..12 {
            let lost = (0..at_once).map(|it| (turn + it) % machines);
            lost.clone().for_each(|it| cluster.cable(it, 0, false));
            cluster.run(millis(100));
            lost.for_each(|it| cluster.cable(it, 0, true));
            cluster.run(millis(1400));
        }
        cluster.run(secs(5));
        let what = format!("{machines} {at_once} {has_api}");
        // Without the API server nobody can say that its card is without a carrier.
        assert!(cluster.charges().is_empty() || !has_api, "{what}: {cluster:?}");
        assert_eq!(cluster.longest_overlap, millis(0), "{what}: {cluster:?}");
        assert!(cluster.longest_dark <= secs(1), "{what}: {:?} {cluster:?}", cluster.longest_dark);
        for address in &addresses {
            assert!(cluster.owner(*address).is_some(), "{what}: {address}: {cluster:?}");
        }
    }
}

/// With addresses of one family only, and a neighbour that dies in the same moment as another one's address changes.
#[test]
fn where_there_is_only_ipv6_deaths_and_changes_are_told_apart() {
    for machines in [3, 5] {
        let addresses: Vec<_> = (100..110).map(|last| ip6(0, last)).collect();
        let mut cluster = Cluster::new(machines);
        cluster.machines.iter_mut().for_each(|it| _ = it.cards[0].nets.remove(0));
        (0..machines).for_each(|index| cluster.links_changed(index));
        cluster.run(secs(8));
        cluster.settle(&addresses);
        for (index, lag) in (0..machines).zip([0, 1000].into_iter().cycle()) {
            cluster.machines.iter_mut().for_each(|it| it.lag = lag);
            let last = u8::try_from(60 + index).unwrap();
            let card = &mut cluster.machines[index].cards[0];
            card.nets[0] = IpNet::new(ip6(0, last), 64).unwrap();
            card.nets[1] = format!("fe80::{last}/64").parse().unwrap();
            cluster.change_mac(index, 0, MacAddr(2, 0, 0, 9, 9, last));
            cluster.run(millis(4100));
        }
        check_undisturbed(&cluster, &format!("{machines}"));
        cluster.machines.iter_mut().for_each(|it| it.lag = 0);
        cluster.run(secs(2));
        cluster.mark();
        let victim = cluster.owner(addresses[0]).unwrap();
        let changes = (victim + 1) % machines;
        cluster.power_off(victim);
        cluster.change_mac(changes, 0, MacAddr(2, 0, 0, 9, 9, 200));
        cluster.run(secs(5));
        assert!(cluster.longest_dark <= REPLACED * 2, "{machines}: {cluster:?}");
        assert!(addresses.iter().all(|it| cluster.owner(*it).is_some()), "{cluster:?}");
    }
}

/// One of its witnesses does not hear the machine, and says so, shortly before or after the MAC address changes.
#[test]
fn a_mac_address_that_changes_while_somebody_accuses_the_machine_is_no_silence() {
    for machines in [3, 4] {
        for delay in [0, 60, 120, 180, 240, 400] {
            let addresses: Vec<_> = (100..106).map(|last| ip(0, last)).collect();
            let mut cluster = Cluster::settled(machines, &addresses);
            let owner = cluster.owner(addresses[0]).unwrap();
            let witness = (owner + 1) % machines;
            cluster.one_way.insert((owner, witness));
            cluster.run(millis(delay));
            cluster.change_mac(owner, 0, MacAddr(2, 0, 0, 8, 8, 8));
            cluster.run(millis(600));
            cluster.one_way.clear();
            cluster.run(secs(5));
            let what = format!("{machines} {delay}");
            assert_eq!(cluster.takes(), 0, "{what}: {cluster:?}");
            assert_eq!(cluster.owner(addresses[0]), Some(owner), "{what}: {cluster:?}");
            cluster.mark();
            cluster.power_off(owner);
            cluster.run(secs(3));
            // Whoever was wrong once is patient from then on.
            assert!(cluster.longest_dark <= REPLACED * 2, "{what}: {cluster:?}");
        }
    }
}

/// All lose their carrier at one time, and have it back at one time or one after the other. Where the API server is behind
/// the same switch it comes back a little later.
#[test]
fn a_switch_that_starts_again_moves_nothing() {
    for (outage, apart, has_api) in [
        (100, 0, true),
        (100, 0, false),
        (3000, 0, false),
        (30_000, 0, false),
        (30_000, 700, false),
    ] {
        for machines in [2, 3, 5] {
            let addresses: Vec<_> =
                (100..106).flat_map(|last| [ip(0, last), ip6(0, last)]).collect();
            let mut cluster = Cluster::settled(machines, &addresses);
            if !has_api {
                cluster.api_down();
            }
            (0..machines).for_each(|index| cluster.cable(index, 0, false));
            cluster.run(millis(outage));
            for index in 0..machines {
                cluster.cable(index, 0, true);
                cluster.run(millis(apart));
            }
            cluster.run(millis(1000));
            (0..machines).for_each(|index| cluster.api_heal(index));
            cluster.run(secs(5));
            let what = format!("{outage} {apart} {has_api} {machines}");
            for address in &addresses {
                assert!(cluster.owner(*address).is_some(), "{what}: {address}: {cluster:?}");
            }
            assert!(cluster.charges().is_empty(), "{what}: {cluster:?}");
            assert_eq!(cluster.longest_overlap, millis(0), "{what}: {cluster:?}");
            let most = millis(outage + apart * 5) + secs(2);
            assert!(cluster.longest_dark <= most, "{what}: {:?} {cluster:?}", cluster.longest_dark);
            cluster.mark();
            cluster.run(secs(20));
            assert!(cluster.charges().is_empty(), "{what}: {cluster:?}");
            assert_eq!(cluster.takes(), 0, "{what}: {cluster:?}");
            assert_eq!(cluster.longest_dark, millis(0), "{what}: {cluster:?}");
        }
    }
}

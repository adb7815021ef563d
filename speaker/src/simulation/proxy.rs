//! Machines that answer for addresses of others (proxy ARP), the pool's among them.

use std::{net::IpAddr, time::Duration};

use arpeggio_election::LockChange;
use arpeggio_wire::{ArpOperation, Claim, MacAddr};

use super::cluster::{Cluster, Host, Proxy, REPLACED, ip, ip6, millis, secs, v4};

/// Without the API server: until a silent node counts as such, and nobody has answered three questions.
const STOOD_IN: Duration = secs(1);

/// The router of the segment, and a machine that is neither a node nor a router.
const ROUTER: MacAddr = MacAddr(2, 0, 0, 2, 0, 1);
const OTHER: MacAddr = MacAddr(2, 0, 0, 7, 0, 1);

/// From now on `mac` answers for every address of the pool, and for the machines' own.
fn answers_for_all(cluster: &mut Cluster, mac: MacAddr) {
    let all = (11..=15).chain(100..=120).map(|last| ip(0, last)).collect();
    cluster.hosts.push(Host { segment: 0, mac, addresses: all });
}

/// From now on the machine that is no router answers for all addresses of a subnet.
fn is_proxy_for(cluster: &mut Cluster, net: &str) {
    cluster.proxies.push(Proxy { segment: 0, mac: OTHER, net: net.parse().unwrap() });
}

fn without_api(machines: usize, mac: MacAddr) -> Cluster {
    let addresses = [ip(0, 100), ip(0, 101), ip(0, 102)];
    let mut cluster = Cluster::settled(machines, &addresses);
    cluster.api_down();
    cluster.run(secs(5));
    answers_for_all(&mut cluster, mac);
    cluster.run(secs(5));
    cluster.mark();
    cluster
}

#[test]
fn who_answers_for_all_addresses_takes_none_from_its_owner() {
    for mac in [ROUTER, OTHER] {
        let mut cluster = without_api(3, mac);
        let owner = cluster.owner(ip(0, 100));
        cluster.run(secs(60));
        assert_eq!(cluster.owner(ip(0, 100)), owner, "{mac}: {cluster:?}");
        assert_eq!(cluster.longest_dark, millis(0), "{mac}: {cluster:?}");
        assert_eq!(cluster.longest_overlap, millis(0), "{mac}: {cluster:?}");
        assert!(cluster.charges().is_empty(), "{mac}: {cluster:?}");
    }
}

#[test]
fn a_router_that_answers_for_all_addresses_keeps_nobody_from_standing_in() {
    for machines in [2, 4] {
        let mut cluster = without_api(machines, ROUTER);
        let victim = cluster.owner(ip(0, 100)).unwrap();
        cluster.power_off(victim);
        cluster.run(secs(30));
        assert!(cluster.longest_dark <= STOOD_IN, "{machines}: {cluster:?}");
        assert!(cluster.owner(ip(0, 100)).is_some(), "{machines}: {cluster:?}");
    }
}

/// Somebody else may have it by now: it asks. But a router that answers for all says nothing of that.
#[test]
fn a_router_that_answers_for_all_addresses_keeps_no_owner_from_going_on() {
    for is_pulled in [true, false] {
        let mut cluster = without_api(2, ROUTER);
        let owner = cluster.owner(ip(0, 100)).unwrap();
        if is_pulled {
            cluster.cable(owner, 0, false);
            cluster.run(millis(60));
            cluster.cable(owner, 0, true);
        } else {
            cluster.machines[owner].paused = true;
            cluster.run(millis(2200));
            cluster.machines[owner].paused = false;
        }
        cluster.run(secs(5));
        cluster.mark();
        cluster.run(secs(10));
        assert_eq!(cluster.longest_dark, millis(0), "pulled: {is_pulled}: {cluster:?}");
        assert!(cluster.owner(ip(0, 100)).is_some(), "pulled: {is_pulled}: {cluster:?}");
    }
}

/// With the API server nobody asks who else has what was announced before.
#[test]
fn who_answers_for_all_addresses_delays_no_failover() {
    let mut cluster = Cluster::settled(3, &[ip(0, 100), ip(0, 101)]);
    cluster.run(secs(2));
    answers_for_all(&mut cluster, ROUTER);
    cluster.run(secs(10));
    assert!(cluster.charges().is_empty(), "{cluster:?}");
    cluster.mark();
    let victim = cluster.owner(ip(0, 100)).unwrap();
    cluster.power_off(victim);
    cluster.run(secs(5));
    assert!(cluster.longest_dark <= REPLACED, "{cluster:?}");
}

/// What it says of a new address may be true.
#[test]
fn a_new_address_that_a_router_answers_for_is_not_announced() {
    let mut cluster = Cluster::settled(3, &[ip(0, 100)]);
    answers_for_all(&mut cluster, ROUTER);
    cluster.run(secs(5));
    cluster.claim(ip(0, 110));
    cluster.run(secs(10));
    assert_eq!(cluster.owners(ip(0, 110)), [0; 0], "{cluster:?}");
    assert_eq!(cluster.quarantines(), 1, "{cluster:?}");
}

/// Of a machine that is no router nobody knows better: it may be the owner itself, whose MAC address has changed.
#[test]
fn nobody_stands_in_over_a_stranger_that_has_the_address() {
    for has_all in [false, true] {
        let mut cluster = Cluster::settled(3, &[ip(0, 100)]);
        cluster.api_down();
        cluster.run(secs(5));
        let victim = cluster.owner(ip(0, 100)).unwrap();
        cluster.power_off(victim);
        if has_all {
            answers_for_all(&mut cluster, OTHER);
        } else {
            cluster.hosts.push(Host { segment: 0, mac: OTHER, addresses: vec![ip(0, 100)] });
        }
        cluster.run(secs(20));
        assert_eq!(cluster.owners(ip(0, 100)), [0; 0], "{has_all}: {cluster:?}");
    }
}

/// What answers for addresses that nobody has answers for those that somebody had, too: an extender of a wireless network, a
/// machine with proxy ARP for a tunnel.
#[test]
fn who_answers_for_addresses_that_nobody_has_keeps_nobody_from_standing_in() {
    for net in ["192.168.0.0/24", "192.168.0.64/26", "192.168.0.96/27"] {
        for machines in [2, 4] {
            let mut cluster = Cluster::settled(machines, &[ip(0, 100), ip(0, 101), ip(0, 102)]);
            cluster.api_down();
            is_proxy_for(&mut cluster, net);
            cluster.run(secs(10));
            cluster.mark();
            let victim = cluster.owner(ip(0, 100)).unwrap();
            cluster.power_off(victim);
            cluster.run(secs(30));
            assert!(cluster.longest_dark <= STOOD_IN, "{net} {machines}: {cluster:?}");
            assert_eq!(cluster.longest_overlap, millis(0), "{net} {machines}: {cluster:?}");
            assert!(cluster.owner(ip(0, 100)).is_some(), "{net} {machines}: {cluster:?}");
        }
    }
}

#[test]
fn the_same_holds_for_ipv6() {
    let mut cluster = Cluster::settled(3, &[ip6(0, 100), ip6(0, 101)]);
    cluster.api_down();
    is_proxy_for(&mut cluster, "2001:db8::ffff:0/120");
    cluster.run(secs(10));
    cluster.mark();
    let victim = cluster.owner(ip6(0, 100)).unwrap();
    cluster.power_off(victim);
    cluster.run(secs(30));
    assert!(cluster.longest_dark <= STOOD_IN, "{cluster:?}");
    assert_eq!(cluster.longest_overlap, millis(0), "{cluster:?}");
}

#[test]
fn who_answers_for_addresses_that_nobody_has_keeps_no_owner_from_going_on() {
    let mut cluster = Cluster::settled(2, &[ip(0, 100), ip(0, 101)]);
    cluster.api_down();
    cluster.run(secs(5));
    is_proxy_for(&mut cluster, "192.168.0.0/24");
    let owner = cluster.owner(ip(0, 100)).unwrap();
    cluster.cable(owner, 0, false);
    cluster.run(millis(60));
    cluster.cable(owner, 0, true);
    cluster.run(secs(5));
    cluster.mark();
    cluster.run(secs(10));
    assert_eq!(cluster.longest_dark, millis(0), "{cluster:?}");
    assert!(cluster.owner(ip(0, 100)).is_some(), "{cluster:?}");
}

/// What the one says of all, the other may say of the one that it has.
#[test]
fn nobody_stands_in_over_a_machine_that_has_the_address_beside_one_that_answers_for_all() {
    let mut cluster = Cluster::settled(3, &[ip(0, 100)]);
    cluster.api_down();
    is_proxy_for(&mut cluster, "192.168.0.0/24");
    cluster.run(secs(5));
    let victim = cluster.owner(ip(0, 100)).unwrap();
    cluster.power_off(victim);
    let mac = MacAddr(2, 0, 0, 7, 0, 2);
    cluster.hosts.push(Host { segment: 0, mac, addresses: vec![ip(0, 100)] });
    cluster.run(secs(40));
    assert_eq!(cluster.owners(ip(0, 100)), [0; 0], "{cluster:?}");
}

/// Whoever invents a machine each time has no more asked than one machine does.
#[test]
fn many_machines_that_answer_for_one_address_cost_little() {
    let mut cluster = Cluster::settled(3, &[ip(0, 100)]);
    cluster.api_down();
    cluster.run(secs(5));
    let victim = cluster.owner(ip(0, 100)).unwrap();
    cluster.power_off(victim);
    for last in 0..=255 {
        let mac = MacAddr(2, 0, 0, 8, 0, last);
        cluster.hosts.push(Host { segment: 0, mac, addresses: vec![ip(0, 100)] });
    }
    cluster.mark();
    cluster.run(secs(60));
    let is_somebodys = |it: &IpAddr| {
        *it == ip(0, 1) || *it == ip(0, 100) || (11..14).any(|last| *it == ip(0, last))
    };
    let nobodys = cluster.asked_everybody.iter().filter(|(it, _)| !is_somebodys(it));
    let asked: usize = nobodys.map(|(_, count)| count).sum();
    assert!((24..=2 * 6 * 24).contains(&asked), "{asked}: {:?}", cluster.asked_everybody);
    assert_eq!(cluster.owners(ip(0, 100)), [0; 0], "{cluster:?}");
}

/// The last question for a silent node goes to everybody, and such a machine answers. It is not the node.
#[test]
fn who_answers_for_addresses_that_nobody_has_delays_no_failover() {
    let all = &["192.168.0.0/24"][..];
    let all_but_the_router = &["192.168.0.8/29", "192.168.0.16/28", "192.168.0.32/27"][..];
    for (mac, nets) in [(ROUTER, all), (OTHER, all), (OTHER, all_but_the_router)] {
        let mut cluster = Cluster::settled(3, &[ip(0, 100), ip(0, 101)]);
        for net in nets {
            let net = net.parse().unwrap();
            cluster.proxies.push(Proxy { segment: 0, mac, net });
        }
        cluster.run(secs(10));
        assert!(cluster.charges().is_empty(), "{mac}: {cluster:?}");
        cluster.mark();
        let victim = cluster.owner(ip(0, 100)).unwrap();
        cluster.power_off(victim);
        cluster.run(secs(5));
        assert!(cluster.longest_dark <= REPLACED, "{mac} {nets:?}: {cluster:?}");
    }
}

/// It says so once to everybody, and from then on to those that ask. A single node awaits no answers but this one.
#[test]
fn who_has_what_a_node_announces_is_asked_each_minute_whether_it_still_has_it() {
    let mac = MacAddr(2, 0, 0, 7, 0, 1);
    for machines in [1, 3] {
        let mut cluster = Cluster::settled(machines, &[ip(0, 100)]);
        cluster.hosts.push(Host { segment: 0, mac, addresses: vec![ip(0, 100)] });
        let claim = Claim { address: v4(ip(0, 100)), mac };
        cluster.forge(0, &claim.announcement(ArpOperation::Request).to_bytes());
        cluster.run(secs(100));
        let owner = cluster.owner(ip(0, 100)).unwrap();
        cluster.stop_speaker(owner);
        cluster.run(secs(5));
        cluster.start_speaker(owner);
        cluster.run(secs(700));
        let noted = |cluster: &Cluster, is_so: bool| {
            cluster.lock_changes(|it| {
                matches!(it, LockChange::Note { disputed_by, .. } if disputed_by.is_some() == is_so)
            })
        };
        assert_eq!((noted(&cluster, true), noted(&cluster, false)), (1, 0), "{cluster:?}");
        cluster.hosts.clear();
        cluster.run(secs(360));
        assert_eq!((noted(&cluster, true), noted(&cluster, false)), (1, 1), "{cluster:?}");
    }
}

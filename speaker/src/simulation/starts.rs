//! Speakers that start: what is not known yet is not taken for what is not so.

use arpeggio_api::terms::WrittenAnnounceTerms;
use arpeggio_election::{Target, Write};
use serde_json::json;

use super::cluster::{Cluster, HOST, ip, ip6, millis, secs};

/// What a speaker has wanted written before it had listed all that it judges by.
fn hasty(cluster: &Cluster, since: u64, index: usize) -> Vec<&(u64, usize, Write)> {
    let listed = cluster.machines[index].speaker.as_ref().unwrap().listed;
    let is_hasty = |it: &&(u64, usize, Write)| {
        it.1 == index
            && it.0 >= since
            && listed.iter().any(|listed| listed.is_none_or(|listed| it.0 < listed))
            && it.2.target() != Target::OwnSession
    };
    cluster.orders.iter().filter(is_hasty).collect()
}

#[test]
fn nothing_is_judged_before_the_lists_are_there() {
    let addresses: Vec<_> = (100..104).flat_map(|last| [ip(0, last), ip6(0, last)]).collect();
    for (leases, nodes) in [(3000, 10), (10, 2500), (2500, 10), (1000, 1500)] {
        for machines in [2, 5] {
            let mut cluster = Cluster::settled(machines, &addresses);
            for index in 0..machines {
                cluster.machines[index].lists_take = [leases, nodes];
                cluster.start_speaker(index);
                cluster.run(secs(6));
            }
            for index in 0..machines {
                let hasty = hasty(&cluster, 0, index);
                let of_its_predecessor = hasty.iter().all(|it| it.0 < 18_000 + 6000 * index as u64);
                assert!(of_its_predecessor, "{leases} {nodes}: {hasty:?} {cluster:?}");
            }
            let charges = cluster.charges();
            assert!(charges.is_empty(), "{leases} {nodes}: {charges:?}");
            let gap = millis(leases.max(nodes) + 200);
            assert!(cluster.longest_dark <= gap, "{leases} {nodes}: {cluster:?}");
            assert_eq!(cluster.longest_overlap, millis(0), "{leases} {nodes}: {cluster:?}");
        }
    }
}

#[test]
fn all_speakers_that_start_at_once_take_up_what_they_had() {
    let addresses: Vec<_> = (100..108).map(|last| ip(0, last)).collect();
    let mut cluster = Cluster::settled(5, &addresses);
    let before: Vec<_> = addresses.iter().map(|it| cluster.owner(*it)).collect();
    for index in 0..5 {
        cluster.machines[index].lists_take = [500 * index as u64, 700];
        cluster.start_speaker(index);
    }
    cluster.run(secs(8));
    let after: Vec<_> = addresses.iter().map(|it| cluster.owner(*it)).collect();
    assert_eq!(before, after, "{cluster:?}");
    assert!(cluster.charges().is_empty(), "{cluster:?}");
}

/// A speaker that starts does not know yet where the pods are: that is not the same as that there are none.
#[test]
fn pods_that_are_not_listed_yet_are_not_taken_for_none() {
    for slices in [500, 3000] {
        let addresses = [ip(0, 100), ip6(0, 100)];
        let mut cluster = Cluster::new(3);
        addresses.iter().for_each(|address| cluster.claim_local(*address, &[1]));
        cluster.run(secs(8));
        cluster.mark();
        for index in [1, 0, 2] {
            cluster.machines[index].slices_take = slices;
            cluster.start_speaker(index);
            cluster.run(secs(8));
            assert!(addresses.iter().all(|it| cluster.owner(*it) == Some(1)), "{cluster:?}");
        }
        assert_eq!(of_locks(&cluster), 0, "{slices}: {cluster:?}");
        assert_eq!(cluster.news(), [""; 0], "{slices}: {cluster:?}");
        // However long the slices take: it has what it held before as soon as Leases and Nodes are there.
        assert!(cluster.longest_dark <= millis(250), "{slices}: {cluster:?}");
    }
}

/// A speaker that starts does not know yet which labels its node has: that is not the same as that it has none. What all rules
/// say of interfaces is known all the same.
#[test]
fn labels_that_are_not_listed_yet_are_not_taken_for_none() {
    for nodes in [500, 2500, 6000] {
        let terms = by_rules(&[("node-1", &[])]);
        let addresses = [ip(0, 100), ip6(0, 100)];
        let mut cluster = Cluster::new(3);
        addresses.iter().for_each(|address| cluster.claim_on(*address, terms.clone()));
        cluster.run(secs(8));
        cluster.mark();
        for index in [1, 0, 2] {
            cluster.machines[index].lists_take = [10, nodes];
            cluster.start_speaker(index);
            cluster.run(secs(12));
            assert!(addresses.iter().all(|it| cluster.owner(*it) == Some(1)), "{cluster:?}");
        }
        assert_eq!(of_locks(&cluster), 0, "{nodes}: {cluster:?}");
        assert_eq!(cluster.news(), [""; 0], "{nodes}: {cluster:?}");
        let gap = millis(nodes.min(3000) + 200);
        assert!(cluster.longest_dark <= gap, "{nodes}: {cluster:?}");
    }
}

/// Nobody knows where the address is to be announced, until the controller has written it anew.
#[test]
fn rules_that_nobody_can_read_are_told_once_and_announced_when_they_can_be_read() {
    let mut cluster = Cluster::settled(3, &[ip(0, 100)]);
    let address = ip(0, 101);
    cluster.claim_unreadably(address);
    cluster.run(secs(5));
    let news = cluster.news();
    let [told] = &news[..] else { panic!("{news:?}: {cluster:?}") };
    assert!(told.contains("The announce rules on the Lease of") && told.contains("cannot be read"));
    assert_eq!(cluster.owner(address), None, "{cluster:?}");
    cluster.claim(address);
    cluster.run(secs(5));
    assert!(cluster.owner(address).is_some(), "{cluster:?}");
}

/// Where rules name other interfaces for other nodes, a speaker that does not know its labels announces on none.
#[test]
fn an_interface_that_is_named_for_another_node_is_not_announced_on_before_the_labels_are_there() {
    for nodes in [500, 4500, 6000] {
        let terms = by_rules(&[("node-1", &["eth0"]), ("node-0", &["eth1"])]);
        let address = ip(0, 100);
        let mut cluster = Cluster::on(&[&[0, 1][..]; 3]);
        cluster.claim_on(address, terms);
        cluster.run(secs(8));
        let owner = cluster.owner(address).unwrap();
        assert_eq!(owner, 1, "{cluster:?}");
        cluster.mark();
        for index in [1, 0, 2] {
            cluster.machines[index].lists_take = [10, nodes];
            cluster.start_speaker(index);
            cluster.run(secs(12));
            assert_eq!(cluster.owner(address), Some(1), "{nodes}: {cluster:?}");
        }
        assert_eq!(cluster.told_on[&address], [(1, 0)].into(), "{nodes}: {cluster:?}");
        assert_eq!(cluster.news(), [""; 0], "{nodes}: {cluster:?}");
        assert!(cluster.longest_dark <= millis(nodes + 400), "{nodes}: {cluster:?}");
        // Fellows take a speaker for stuck that has not answered for five seconds.
        if nodes < 5000 {
            assert_eq!(of_locks(&cluster), 0, "{nodes}: {cluster:?}");
        }
    }
}

/// An address that waits for a node whose labels are not known is not stranded.
#[test]
fn nobody_is_told_of_an_address_while_labels_are_not_known() {
    let address = ip(0, 100);
    let mut cluster = Cluster::new(2);
    cluster.run(secs(8));
    cluster.mark();
    for index in [0, 1] {
        cluster.machines[index].lists_take = [10, 20_000];
        cluster.start_speaker(index);
    }
    cluster.run(secs(5));
    cluster.claim_on(address, by_rules(&[("node-1", &[])]));
    cluster.run(secs(13));
    assert_eq!(cluster.news(), [""; 0], "{cluster:?}");
    assert_eq!(cluster.takes(), 0, "{cluster:?}");
    cluster.run(secs(5));
    assert_eq!(cluster.owner(address), Some(1), "{cluster:?}");
}

/// Rules for one node each, and the interfaces that they name.
pub(super) fn by_rules(rules: &[(&str, &[&str])]) -> WrittenAnnounceTerms {
    let rule = |(node, interfaces): &(&str, &[&str])| {
        let selector = json!({ "matchLabels": { HOST: node } });
        json!({ "nodeSelectors": [selector], "interfaces": interfaces })
    };
    let rules: Vec<_> = rules.iter().map(rule).collect();
    serde_json::from_value(json!({ "rules": rules })).unwrap()
}

/// How many orders were about other things than a speaker's own session.
fn of_locks(cluster: &Cluster) -> usize {
    cluster.orders.iter().filter(|it| it.2.target() != Target::OwnSession).count()
}

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arpeggio_election::Node;
use arpeggio_forwarding::{BUCKETS, Passing, PlannedAddress, Port, Protocol, Spread, SpreadBy};
use arpeggio_netfilter::Batch;

use super::*;

const DEVICE: &str = "eth0";
/// The number of a node that does not know the mark.
const EARLIER: u8 = 9;

fn address(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn here() -> Here {
    Here { devices: [(DEVICE.to_owned(), 2)].into(), ..Here::default() }
}

fn to(node: u8) -> Way {
    Way::To(Arc::new(Hop {
        node: Node::from(format!("node-{node}").as_str()),
        interface: DEVICE.to_owned(),
        next_hop: address(node),
        mac: [2, 0, 0, 0, 0, node],
        own_mac: [2, 0, 0, 0, 0, 1],
        knows_mark: node != EARLIER,
    }))
}

fn passing() -> PlannedAddress {
    let passing = Passing { from_outside: to(2), from_fellow: Way::Local };
    PlannedAddress { passing, ..PlannedAddress::default() }
}

/// One bucket of the port goes to another node, all others stay.
fn spread(bucket: usize) -> PlannedAddress {
    let mut ways = vec![Way::Local; usize::from(BUCKETS)];
    ways[bucket] = to(2);
    let spread = Spread {
        by: SpreadBy::ClientAndPort,
        seed: 1,
        first: ways.clone(),
        others: ways.clone(),
        below: ways,
    };
    PlannedAddress {
        spread: [(Port { protocol: Protocol::Tcp, number: 80 }, Arc::new(spread))].into(),
        interfaces: vec![DEVICE.to_owned()],
        ..PlannedAddress::default()
    }
}

fn plan(addresses: impl IntoIterator<Item = (u8, PlannedAddress)>) -> Plan {
    let addresses = addresses.into_iter().map(|(last, planned)| (address(last), planned)).collect();
    Plan { fellows: [[2, 0, 0, 0, 0, 2]].into(), addresses }
}

fn tables(plan: &Plan) -> Tables {
    compile(plan, &here(), "arpeggio-1").tables
}

fn families(plan: &Plan) -> Vec<Family> {
    tables(plan).into_keys().map(|table| table.family).collect()
}

#[test]
fn addresses_of_which_all_stays_cost_nothing() {
    assert_eq!(families(&Plan::default()), []);
    assert_eq!(families(&plan([(200, PlannedAddress::default())])), []);
}

#[test]
fn an_address_that_has_moved_needs_no_table_of_devices() {
    assert_eq!(families(&plan([(200, passing())])), [Family::Ip]);
    assert_eq!(families(&plan([(200, spread(0))])), [Family::Ip, Family::Netdev]);
}

#[test]
fn who_serves_a_spread_address_without_announcing_it_needs_no_table_of_devices() {
    let elsewhere = PlannedAddress { interfaces: Vec::new(), ..spread(0) };
    assert_eq!(families(&plan([(200, elsewhere)])), [Family::Ip]);
}

#[test]
fn what_would_leave_by_a_missing_device_stays() {
    let plan = plan([(200, passing()), (201, spread(0))]);
    assert_eq!(compile(&plan, &Here::default(), "arpeggio-1").tables, Tables::new());
    assert_eq!(device_names(&plan), BTreeSet::from([DEVICE]));
}

/// How many rules a chain has.
fn rules_of(planned: PlannedAddress, chain: &str) -> usize {
    let tables = tables(&plan([(200, planned)]));
    let contents = tables.into_iter().find(|(table, _)| table.family == Family::Ip).unwrap().1;
    contents.chains[chain].rules.len()
}

#[test]
fn what_is_marked_goes_to_no_node_that_does_not_know_the_mark() {
    let chain = "pass 192.0.2.200";
    let passing = |from_outside, from_fellow| PlannedAddress {
        passing: Passing { from_outside, from_fellow },
        ..PlannedAddress::default()
    };
    let rules = rules_of(passing(to(2), to(3)), chain);
    assert_eq!(rules_of(passing(to(EARLIER), to(3)), chain), rules + 1);
    assert_eq!(rules_of(passing(to(2), to(EARLIER)), chain), rules + 1);
    assert_eq!(rules_of(passing(to(EARLIER), to(EARLIER)), chain), rules + 2);
}

#[test]
fn of_buckets_only_those_of_nodes_that_do_not_know_the_mark_drop_what_is_marked() {
    let port = Port { protocol: Protocol::Tcp, number: 80 };
    let mut planned = spread(5);
    let one = Arc::make_mut(planned.spread.get_mut(&port).unwrap());
    one.others[7] = to(EARLIER);
    let tables = tables(&plan([(200, planned)]));
    let (_, contents) = tables.into_iter().find(|(table, _)| table.family == Family::Ip).unwrap();
    let sets = contents.sets.iter().filter(|(name, _)| name.starts_with("unmarked "));
    let sets: Vec<_> = sets.map(|(name, set)| (name.as_str(), set.elements.clone())).collect();
    let buckets = [(7_u32.to_ne_bytes().to_vec(), Data::Nothing)].into();
    assert_eq!(sets, [("unmarked others 192.0.2.200 80/TCP", buckets)]);
}

#[test]
fn a_bucket_that_changes_is_named_and_no_other() {
    let (old, new) = (tables(&plan([(200, spread(5))])), tables(&plan([(200, spread(6))])));
    // In each of two maps, which two others would be like, one element goes and one comes.
    assert_eq!(Batch::between(&old, &new).len(), 4);
}

/// Each map has up to 1024 elements.
#[test]
fn addresses_that_are_spread_alike_have_their_maps_together() {
    let elements = |plan: &Plan| -> usize {
        let tables = tables(plan);
        let sets = tables.values().flat_map(|contents| contents.sets.values());
        sets.map(|set| set.elements.len()).sum()
    };
    let all = || {
        let ways = vec![to(2); usize::from(BUCKETS)];
        let mut planned = spread(0);
        for spread in planned.spread.values_mut() {
            *spread = Arc::new(Spread {
                by: SpreadBy::ClientAndPort,
                seed: 1,
                first: ways.clone(),
                others: ways.clone(),
                below: ways.clone(),
            });
        }
        planned
    };
    let of = |count: u8| plan((1..=count).map(|last| (last, all())));
    let (one, hundred) = (elements(&of(1)), elements(&of(100)));
    assert!(one > 2 * 1024 && hundred < one + 100 * 10, "{one} {hundred}");
    // One that differs has its own, and the others do not change.
    let differs = plan((1..=100).map(|last| (last, if last == 50 { spread(7) } else { all() })));
    let batch = Batch::between(&tables(&of(100)), &tables(&differs));
    assert!(batch.len() < 30, "{}", batch.len());
    assert!(elements(&differs) < hundred + 10);
}

#[test]
fn an_address_that_comes_leaves_the_others_alone() {
    let old = tables(&plan([(200, passing())]));
    let new = tables(&plan([(200, passing()), (201, passing())]));
    // A counter, two chains, an element, and the rules: two for what conntrack knows, four for what it does not, four of the way.
    assert_eq!(Batch::between(&old, &new).len(), 1 + 2 + 1 + 6 + 4);
    assert!(Batch::between(&new, &new.clone()).is_empty());
}

/// A plan is compiled whole when anything in it changes. Generous, since other programs run meanwhile.
#[test]
fn a_move_among_a_thousand_addresses_costs_little() {
    let many = |moved: bool| Plan {
        fellows: [[2, 0, 0, 0, 0, 2]].into(),
        addresses: (0..1000_u16)
            .map(|number| {
                let [high, low] = number.to_be_bytes();
                let planned =
                    if moved && number == 500 { PlannedAddress::default() } else { passing() };
                (IpAddr::from([10, 0, high, low]), planned)
            })
            .collect(),
    };
    let (before, plan) = (tables(&many(false)), many(true));
    let begin = Instant::now();
    let after = tables(&plan);
    let compiled = begin.elapsed();
    let batch = Batch::between(&before, &after);
    let spent = begin.elapsed();
    println!(
        "1000 addresses: compiled in {compiled:?}, and {} changes found after {spent:?}",
        batch.len()
    );
    assert!(batch.len() < 20, "{} changes for one address", batch.len());
    assert!(spent < Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 }), "{spent:?}");
}

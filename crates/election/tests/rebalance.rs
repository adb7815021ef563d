//! Plans for whole clusters: nothing is left to plan after one, and large ones take little time.

// A test's own machinery: what cannot be must stop the test.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use arpeggio_election::{
    AnnounceTerms, Backends, Epoch, Holder, Lock, Node, NodeFacts, Session, Version,
    rebalance::{Census, Leveling},
};
use proptest::prelude::*;

fn node(number: usize) -> Node {
    Node::from(format!("node-{number}").as_str())
}

fn address(number: usize) -> IpAddr {
    IpAddr::from((0x0a00_0000 + u32::try_from(number).unwrap()).to_be_bytes())
}

/// Who holds each address, and where each may be: anywhere when that is not said.
#[derive(Debug, Clone)]
struct Cluster {
    nodes: usize,
    cordoned: BTreeSet<usize>,
    holders: Vec<usize>,
    backends: Vec<Option<BTreeSet<usize>>>,
}

impl Cluster {
    fn census(&self) -> Census {
        let mut census = Census::default();
        for number in 0..self.nodes {
            census.add_session(Session::live(node(number), Epoch(1), Version(1)));
            let cordoned = self.cordoned.contains(&number);
            census.add_node(node(number), NodeFacts { cordoned, ..NodeFacts::default() });
        }
        for (number, (holder, backends)) in self.holders.iter().zip(&self.backends).enumerate() {
            census.add_lock(Lock {
                address: address(number),
                holder: Some(Holder { node: node(*holder), epoch: Epoch(1) }),
                service: None,
                terms: AnnounceTerms::default(),
                stranger: None,
                move_to: None,
                unannounced: false,
                disputed_by: None,
                version: Version(1),
            });
            if let Some(backends) = backends {
                let ready = backends.iter().map(|it| node(*it)).collect();
                census.add_backends(address(number), Backends { ready, ..Backends::default() });
            }
        }
        census
    }

    fn after(&self, plan: &Leveling) -> Self {
        let mut after = self.clone();
        let number = |wanted: &Node| (0..self.nodes).find(|it| node(*it) == *wanted).unwrap();
        for it in &plan.moves {
            let place = (0..self.holders.len()).find(|place| address(*place) == it.address);
            after.holders[place.unwrap()] = number(&it.to);
        }
        after
    }
}

fn cluster() -> impl Strategy<Value = Cluster> {
    (2..6usize, 0..30usize).prop_flat_map(|(nodes, addresses)| {
        let some_nodes = prop::collection::btree_set(0..nodes, 0..nodes);
        let holders = prop::collection::vec(0..nodes, addresses);
        let backends =
            prop::collection::vec(prop::option::weighted(0.4, some_nodes.clone()), addresses);
        (some_nodes, holders, backends).prop_map(move |(cordoned, holders, backends)| Cluster {
            nodes,
            cordoned,
            holders,
            backends,
        })
    })
}

proptest! {
    #[test]
    fn after_a_plan_there_is_nothing_left_to_plan(cluster in cluster()) {
        let plan = cluster.census().plan();
        let second = cluster.after(&plan).census().plan();
        prop_assert_eq!(&second.before, &plan.after);
        prop_assert_eq!(second.moves, []);
    }

    #[test]
    fn what_may_be_anywhere_ends_within_one_of_each_other(cluster in cluster()) {
        let backends = vec![None; cluster.holders.len()];
        let cluster = Cluster { backends, cordoned: BTreeSet::new(), ..cluster };
        prop_assert!(cluster.census().plan().spread <= 1);
    }

    #[test]
    fn every_move_goes_where_the_address_may_be(cluster in cluster()) {
        for it in cluster.census().plan().moves {
            let to = (0..cluster.nodes).find(|number| node(*number) == it.to).unwrap();
            let place = (0..cluster.holders.len()).find(|number| address(*number) == it.address);
            let place = place.unwrap();
            prop_assert!(!cluster.cordoned.contains(&to));
            prop_assert_eq!(node(cluster.holders[place]), it.from);
            prop_assert!(cluster.backends[place].as_ref().is_none_or(|ready| ready.contains(&to)));
        }
    }
}

#[test]
fn ten_thousand_addresses_of_one_node_are_spread_over_a_hundred() {
    let cluster = Cluster {
        nodes: 100,
        cordoned: BTreeSet::new(),
        holders: vec![0; 10_000],
        backends: vec![None; 10_000],
    };
    let began = Instant::now();
    let plan = cluster.census().plan();
    println!("{} moves planned in {:.1?}", plan.moves.len(), began.elapsed());
    assert_eq!(plan.moves.len(), 9_900);
    assert_eq!(plan.spread, 0);
    assert!(began.elapsed() < Duration::from_secs(20));
}

//! What the kernel is told of other nodes, in network namespaces of the test's own.
#![cfg(test)]

mod segment;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use arpeggio_election::Node;
use arpeggio_forwarder::neighbours::Neighbours;
use arpeggio_forwarding::{Hop, Mac, Wire};
use segment::{Segment, both, mac};

fn hop(segment: &Segment, mac: Mac) -> Hop {
    let hop = segment.hop(1, 2).hop().unwrap().clone();
    Hop { mac, ..hop }
}

fn known(segment: &Segment) -> String {
    segment.node(1).command(&format!("ip neigh show {} dev eth0", segment.version.node(2)))
}

/// Does something on the first node.
fn on_first_node(segment: &Segment, work: impl AsyncFnOnce(&mut Neighbours) + Send) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    segment.node(1).run(|| {
        runtime.block_on(async { work(&mut Neighbours::new().unwrap()).await });
    });
}

#[test]
fn a_node_whose_mac_address_has_changed_gets_its_packets() {
    both(|segment| {
        let node = segment.node(1);
        node.command("ip neigh flush dev eth0");
        on_first_node(segment, async |neighbours| {
            for (mac, text) in [(mac(2), "02:00:00:00:00:02"), (mac(9), "02:00:00:00:00:09")] {
                for _ in 0..2 {
                    let refused = neighbours.tell(&[hop(segment, mac)].into()).await;
                    assert!(refused.is_empty(), "{refused:?}");
                    assert!(known(segment).contains(text), "{}", known(segment));
                }
            }
        });
    });
}

#[test]
fn what_the_kernel_knows_by_itself_stays() {
    both(|segment| {
        let node = segment.node(1);
        let address = segment.version.node(2);
        node.command(&format!(
            "ip neigh replace {address} lladdr 02:00:00:00:00:07 dev eth0 nud stale"
        ));
        on_first_node(segment, async |neighbours| {
            assert!(neighbours.tell(&[hop(segment, mac(2))].into()).await.is_empty());
        });
        assert!(known(segment).contains("02:00:00:00:00:07"), "{}", known(segment));
    });
}

/// The kernel has asked for a node while it was dead, and would ask for the wrong one when the node is back.
#[test]
fn a_node_that_was_not_found_is_told_of_again() {
    both(|segment| {
        let node = segment.node(1);
        node.command("ip neigh flush dev eth0");
        let address = segment.version.node(2);
        on_first_node(segment, async |neighbours| {
            for _ in 0..2 {
                node.command(&format!("ip neigh replace {address} dev eth0 nud failed"));
                let refused = neighbours.tell(&[hop(segment, mac(2))].into()).await;
                assert!(refused.is_empty(), "{refused:?}");
                assert!(known(segment).contains("02:00:00:00:00:02"), "{}", known(segment));
            }
        });
    });
}

/// Asks until `expected` is found, and says after how many milliseconds that was.
async fn find(neighbours: &mut Neighbours, way: &Hop, expected: Wire) -> u128 {
    let begun = Instant::now();
    loop {
        let found = neighbours.ask(&[way.clone()].into()).await;
        if found.get(&way.node) == Some(&expected) {
            return begun.elapsed().as_millis();
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{expected:?}: {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Some switches close a port that sends more than fifteen ARP frames a second.
#[test]
fn however_many_are_asked_there_are_few_questions() {
    both(|segment| {
        let node = segment.node(1);
        node.command("ip neigh flush dev eth0");
        let ways: BTreeSet<Hop> = (10..60)
            .map(|n| {
                let name = Node::from(format!("node-{n}").as_str());
                let next_hop = segment.version.address(n);
                Hop { node: name, next_hop, ..hop(segment, mac(9)) }
            })
            .collect();
        on_first_node(segment, async |neighbours| {
            let begun = Instant::now();
            let mut found = BTreeMap::new();
            while begun.elapsed() < Duration::from_secs(1) {
                found = neighbours.ask(&ways).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(found.len() == 50 && found.values().all(|it| *it == Wire::Unasked));
        });
        let all = node.command("ip neigh show dev eth0");
        let asked = all.lines().filter(|line| line.contains("02:00:00:00:00:09")).count();
        assert!((2..=11).contains(&asked), "{asked}: {all}");
    });
}

/// Also where it was never found, and when it is back.
#[test]
fn a_node_answers_for_as_long_as_it_is_there() {
    both(|segment| {
        let node = segment.node(1);
        on_first_node(segment, async |neighbours| {
            let way = hop(segment, mac(2));
            node.command("ip neigh flush dev eth0");
            let answers = find(neighbours, &way, Wire::Answers).await;
            // With IPv6, its own address has to be proved first.
            assert!(answers < 10_000, "{answers}");
            segment.plug(2, false);
            let silent = find(neighbours, &way, Wire::Silent).await;
            assert!((1_000..10_000).contains(&silent), "{silent}");
            // The kernel has given it up, too, and finds it again.
            tokio::time::sleep(Duration::from_secs(4)).await;
            segment.plug(2, true);
            find(neighbours, &way, Wire::Answers).await;
            assert!(neighbours.ask(&[].into()).await.is_empty());
            let nowhere = Hop { interface: "eth9".into(), ..way };
            find(neighbours, &nowhere, Wire::Unknown).await;
        });
    });
}

#[test]
fn who_was_never_there_is_silent() {
    both(|segment| {
        on_first_node(segment, async |neighbours| {
            let way = Hop { next_hop: segment.version.address(77), ..hop(segment, mac(9)) };
            let found = neighbours.ask(&[way.clone()].into()).await;
            assert_eq!(found.get(&way.node), Some(&Wire::Unasked));
            find(neighbours, &way, Wire::Silent).await;
        });
    });
}

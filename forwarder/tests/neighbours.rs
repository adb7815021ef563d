//! What the kernel is told of other nodes, in network namespaces of the test's own.
#![cfg(test)]

mod segment;

use arpeggio_forwarder::neighbours::Neighbours;
use arpeggio_forwarding::{Hop, Mac};
use segment::{Segment, both, mac};

fn hop(segment: &Segment, mac: Mac) -> Hop {
    let hop = segment.hop(1, 2).hop().unwrap().clone();
    Hop { mac, ..hop }
}

fn known(segment: &Segment) -> String {
    segment.node(1).command(&format!("ip neigh show {} dev eth0", segment.version.node(2)))
}

#[test]
fn a_node_whose_mac_address_has_changed_gets_its_packets() {
    both(|segment| {
        let node = segment.node(1);
        node.command("ip neigh flush dev eth0");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        node.run(|| {
            runtime.block_on(async {
                let mut neighbours = Neighbours::new().unwrap();
                for (mac, text) in [(mac(2), "02:00:00:00:00:02"), (mac(9), "02:00:00:00:00:09")] {
                    for _ in 0..2 {
                        let refused = neighbours.tell(&[hop(segment, mac)].into()).await;
                        assert!(refused.is_empty(), "{refused:?}");
                        assert!(known(segment).contains(text), "{}", known(segment));
                    }
                }
            });
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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        node.run(|| {
            runtime.block_on(async {
                let mut neighbours = Neighbours::new().unwrap();
                assert!(neighbours.tell(&[hop(segment, mac(2))].into()).await.is_empty());
            });
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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        node.run(|| {
            runtime.block_on(async {
                let mut neighbours = Neighbours::new().unwrap();
                for _ in 0..2 {
                    node.command(&format!("ip neigh replace {address} dev eth0 nud failed"));
                    let refused = neighbours.tell(&[hop(segment, mac(2))].into()).await;
                    assert!(refused.is_empty(), "{refused:?}");
                    assert!(known(segment).contains("02:00:00:00:00:02"), "{}", known(segment));
                }
            });
        });
    });
}

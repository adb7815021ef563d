//! What nodes and the cluster itself use.
//!
//! Nodes' gateways, and the network and broadcast addresses of their subnets, are for their speakers to see; where those
//! publish them they join what [`Surroundings::reserved`] collects.

use std::{collections::BTreeMap, net::IpAddr};

use arpeggio_api::cluster::{ClusterRange, node_addresses};
use arpeggio_ipam::Reservation;
use k8s_openapi::api::{core::v1::Node, networking::v1::ServiceCIDR};
use kube::ResourceExt as _;

use crate::index::{Index, Watched};

/// What is known of nodes and of the cluster's ranges.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    nodes: BTreeMap<String, Uses>,
    service_cidrs: BTreeMap<String, Vec<ClusterRange>>,
    changed: bool,
}

/// What one node uses.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Uses {
    addresses: Vec<IpAddr>,
    pods: Vec<ClusterRange>,
}

impl Uses {
    fn of(node: &Node) -> Self {
        Self { addresses: node_addresses(node), pods: ClusterRange::of_node(node) }
    }
}

impl Surroundings {
    /// Tells the index, if there is something new.
    pub(super) fn tell(&mut self, index: &mut Index) {
        if std::mem::take(&mut self.changed) {
            index.set_reserved(self.reserved());
            index.set_cluster_ranges(self.ranges());
        }
    }

    fn reserved(&self) -> BTreeMap<IpAddr, Reservation> {
        let of_node = |(name, uses): (&String, &Uses)| {
            let reservation = Reservation::Node(name.clone());
            uses.addresses.iter().map(move |it| (*it, reservation.clone())).collect::<Vec<_>>()
        };
        self.nodes.iter().flat_map(of_node).collect()
    }

    fn ranges(&self) -> Vec<ClusterRange> {
        let pods = self.nodes.values().flat_map(|uses| &uses.pods);
        self.service_cidrs.values().flatten().chain(pods).cloned().collect()
    }
}

impl Watched<Node> for Surroundings {
    /// Nodes report every few minutes that they are well, which is no change.
    fn apply(&mut self, node: Node) {
        let uses = Uses::of(&node);
        let before = self.nodes.insert(node.name_any(), uses.clone());
        self.changed |= before.as_ref() != Some(&uses);
    }

    fn delete(&mut self, node: Node) {
        self.changed |= self.nodes.remove(&node.name_any()).is_some();
    }

    fn reset(&mut self, nodes: Vec<Node>) {
        self.nodes = nodes.iter().map(|node| (node.name_any(), Uses::of(node))).collect();
        self.changed = true;
    }
}

impl Watched<ServiceCIDR> for Surroundings {
    fn apply(&mut self, cidr: ServiceCIDR) {
        self.service_cidrs.insert(cidr.name_any(), ClusterRange::of_service_cidr(&cidr));
        self.changed = true;
    }

    fn delete(&mut self, cidr: ServiceCIDR) {
        self.changed |= self.service_cidrs.remove(&cidr.name_any()).is_some();
    }

    fn reset(&mut self, cidrs: Vec<ServiceCIDR>) {
        let ranges = cidrs.iter().map(|it| (it.name_any(), ClusterRange::of_service_cidr(it)));
        self.service_cidrs = ranges.collect();
        self.changed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, address: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "podCIDRs": ["10.244.0.0/24"] },
            "status": { "addresses": [{ "type": "InternalIP", "address": address }] },
        }))
        .unwrap()
    }

    #[test]
    fn nodes_keep_their_addresses_and_pods_theirs() {
        let mut surroundings = Surroundings::default();
        surroundings.reset(vec![node("n1", "192.168.0.11"), node("n2", "192.168.0.12")]);
        let address = "192.168.0.12".parse().unwrap();
        assert_eq!(surroundings.reserved()[&address], Reservation::Node("n2".to_owned()));
        assert_eq!(surroundings.ranges().len(), 2);
        surroundings.delete(node("n2", "192.168.0.12"));
        assert!(!surroundings.reserved().contains_key(&address));
    }

    #[test]
    fn only_what_matters_is_a_change() {
        let mut surroundings = Surroundings::default();
        surroundings.apply(node("n1", "192.168.0.11"));
        assert!(std::mem::take(&mut surroundings.changed));
        let mut heartbeat = node("n1", "192.168.0.11");
        heartbeat.metadata.resource_version = Some("2".to_owned());
        surroundings.apply(heartbeat);
        assert!(!surroundings.changed);
        surroundings.apply(node("n1", "192.168.0.13"));
        assert!(surroundings.changed);
    }
}

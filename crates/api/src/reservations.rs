//! Addresses that pools must not give, since nodes, routers and subnets have them.
//!
//! | where it stands | what it is |
//! |---|---|
//! | `Node`, `status.addresses` | the node's own |
//! | session Lease, interfaces | the node's own, their gateways, and what their subnets need themselves |
//! | session Lease, own addresses | the node's own that no interface's subnet says: single ones (`/32`, `/128`), and those on interfaces without neighbours |

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use arpeggio_election::{Interface, Reach, own_address};
use arpeggio_ipam::Reservation;
use ipnet::IpNet;

/// What nodes and their neighbourhood use. An address that is used in several ways has the weightiest reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reservations(BTreeMap<IpAddr, Reservation>);

impl Reservations {
    /// Adds addresses of the node itself.
    pub fn add_node(&mut self, node: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            self.add(address, Reservation::Node(node.to_owned()));
        }
    }

    /// Adds what the node's speaker reports of its interfaces.
    pub fn add_reach(&mut self, node: &str, reach: &Reach) {
        for Interface { subnets, gateways, .. } in &reach.interfaces {
            self.add_node(node, subnets.iter().filter_map(own_address));
            for gateway in gateways {
                self.add(*gateway, Reservation::Gateway(node.to_owned()));
            }
            subnets.iter().for_each(|subnet| self.add_subnet(*subnet));
        }
    }

    /// A subnet that is a link between two (`/31`, RFC 3021; `/127`, RFC 6164) or a single address needs nothing for
    /// itself.
    fn add_subnet(&mut self, subnet: IpNet) {
        let subnet = subnet.trunc();
        if subnet.max_prefix_len() - subnet.prefix_len() < 2 {
            return;
        }
        // In IPv6 it belongs to the subnet's routers (RFC 4291 section 2.6.1), and there is no broadcast address.
        self.add(subnet.network(), Reservation::Network(subnet.to_string()));
        if let IpNet::V4(v4) = subnet {
            self.add(v4.broadcast().into(), Reservation::Broadcast(subnet.to_string()));
        }
    }

    fn add(&mut self, address: IpAddr, reason: Reservation) {
        let known = self.0.entry(address).or_insert_with(|| reason.clone());
        if reason < *known {
            *known = reason;
        }
    }

    /// Which node or gateway has this address: a machine that would be cut off if somebody else announced it.
    pub fn machine_at(&self, address: IpAddr) -> Option<&Reservation> {
        let found = self.0.get(&address);
        found.filter(|it| matches!(it, Reservation::Node(_) | Reservation::Gateway(_)))
    }

    /// The addresses that are another machine's here than there, or of one and there of none.
    pub fn moved_machines<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = IpAddr> + 'a {
        let addresses: BTreeSet<&IpAddr> = self.0.keys().chain(before.0.keys()).collect();
        let is_moved = move |it: &&IpAddr| self.machine_at(**it) != before.machine_at(**it);
        addresses.into_iter().filter(is_moved).copied()
    }

    /// Whether a node has this address.
    pub fn is_of_node(&self, address: IpAddr) -> bool {
        matches!(self.0.get(&address), Some(Reservation::Node(_)))
    }

    /// Every address with its reason, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &Reservation)> {
        self.0.iter().map(|(address, reason)| (*address, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(subnets: &[&str], gateways: &[&str]) -> Vec<String> {
        let subnets = subnets.iter().map(|it| it.parse().unwrap()).collect();
        let gateways = gateways.iter().map(|it| it.parse().unwrap()).collect();
        let lan = Interface { subnets, gateways, ..Interface::default() };
        let mut reservations = Reservations::default();
        reservations.add_reach("n1", &Reach { interfaces: vec![lan] });
        reservations.iter().map(|(address, reason)| format!("{address}: {reason}")).collect()
    }

    #[test]
    fn what_a_subnet_and_its_router_need() {
        let table: [(&[&str], &[&str], &[&str]); 9] = [
            (
                &["10.5.0.0/24"],
                &[],
                &[
                    "10.5.0.0: it is the network address of 10.5.0.0/24",
                    "10.5.0.255: it is the broadcast address of 10.5.0.0/24",
                ],
            ),
            (&["fd05::/64"], &[], &["fd05::: it is the network address of fd05::/64"]),
            (
                &["192.168.0.11/24"],
                &["192.168.0.1"],
                &[
                    "192.168.0.0: it is the network address of 192.168.0.0/24",
                    "192.168.0.1: it is the gateway of node n1",
                    "192.168.0.11: it is an address of node n1",
                    "192.168.0.255: it is the broadcast address of 192.168.0.0/24",
                ],
            ),
            (
                &["fd00::11/64"],
                &["fe80::1"],
                &[
                    "fd00::: it is the network address of fd00::/64",
                    "fd00::11: it is an address of node n1",
                    "fe80::1: it is the gateway of node n1",
                ],
            ),
            (&["10.0.0.2/31"], &[], &["10.0.0.2: it is an address of node n1"]),
            (&["10.0.0.2/32"], &[], &["10.0.0.2: it is an address of node n1"]),
            (&["fd00::2/127"], &[], &["fd00::2: it is an address of node n1"]),
            (&["fd00::2/128"], &[], &["fd00::2: it is an address of node n1"]),
            (
                &["10.0.0.1/30"],
                &[],
                &[
                    "10.0.0.0: it is the network address of 10.0.0.0/30",
                    "10.0.0.1: it is an address of node n1",
                    "10.0.0.3: it is the broadcast address of 10.0.0.0/30",
                ],
            ),
        ];
        for (subnets, gateways, expected) in table {
            assert_eq!(told(subnets, gateways), expected, "{subnets:?}");
        }
    }

    #[test]
    fn of_two_reasons_the_weightier_one_is_told() {
        let mut reservations = Reservations::default();
        let reach = |gateway: &str| {
            let gateways = vec![gateway.parse().unwrap()];
            Reach { interfaces: vec![Interface { gateways, ..Interface::default() }] }
        };
        reservations.add_reach("n1", &reach("10.0.0.1"));
        reservations.add_node("n2", ["10.0.0.1".parse().unwrap()]);
        reservations.add_reach("n0", &reach("10.0.0.1"));
        let told: Vec<_> = reservations.iter().map(|(_, reason)| reason.to_string()).collect();
        assert_eq!(told, ["it is an address of node n2"]);
    }
}

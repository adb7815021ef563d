//! Addresses that the cluster uses itself, so that pools should keep away from them.
//!
//! | object | what is read |
//! |---|---|
//! | `Node` | `status.addresses`, which are never given out; `spec.podCIDRs`, where its pods are |
//! | `ServiceCIDR` | `spec.cidrs`, where cluster addresses of Services are |

use std::net::IpAddr;

use arpeggio_ipam::{AddressRange, Pool};
use k8s_openapi::api::{core::v1::Node, networking::v1::ServiceCIDR};
use kube::ResourceExt as _;

/// A range that the cluster uses for its pods or Services.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterRange {
    /// The addresses.
    pub range: AddressRange,
    /// What they are for.
    pub user: RangeUser,
}

/// What a [`ClusterRange`] is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum RangeUser {
    /// The pods of a node.
    #[error("the pods of node {0}")]
    Pods(String),
    /// The cluster addresses of Services, by the name of the `ServiceCIDR`.
    #[error("the cluster addresses of Services (ServiceCIDR {0})")]
    Services(String),
}

impl RangeUser {
    /// One CamelCase word, for a condition's reason.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Pods(_) => "PodAddresses",
            Self::Services(_) => "ServiceAddresses",
        }
    }
}

impl ClusterRange {
    /// Where the pods of `node` are. Empty when the network plugin assigns ranges by itself, unknown to Kubernetes.
    pub fn of_node(node: &Node) -> Vec<Self> {
        let cidrs = node.spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten());
        let user = RangeUser::Pods(node.name_any());
        cidrs.filter_map(|cidr| Self::parse(cidr, user.clone())).collect()
    }

    /// Where cluster addresses of Services are.
    pub fn of_service_cidr(cidr: &ServiceCIDR) -> Vec<Self> {
        let cidrs = cidr.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
        let user = RangeUser::Services(cidr.name_any());
        cidrs.filter_map(|cidr| Self::parse(cidr, user.clone())).collect()
    }

    fn parse(cidr: &str, user: RangeUser) -> Option<Self> {
        Some(Self { range: cidr.parse().ok()?, user })
    }

    /// The addresses that `pool` has in it, if any.
    pub fn shared_with(&self, pool: &Pool) -> Option<AddressRange> {
        pool.ranges.iter().find_map(|range| range.intersection(&self.range))
    }
}

/// The node's own addresses (`status.addresses`), whatever they are for; names are left out.
pub fn node_addresses(node: &Node) -> Vec<IpAddr> {
    let listed = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    listed.filter_map(|entry| one_address(&entry.address)).collect()
}

/// The address in a text that nobody has checked: with blanks around it, with the interface that it is on (`fe80::1%eth0`), as
/// part of a subnet (`10.0.0.1/24`), with zeros before its numbers (`010.000.000.001`, which Kubernetes reads as decimal), or an
/// IPv4 address in IPv6 form.
pub(crate) fn one_address(text: &str) -> Option<IpAddr> {
    let plain = text.trim().split(['%', '/']).next()?;
    let address = plain.parse::<IpAddr>().ok().or_else(|| without_zeros(plain)?.parse().ok());
    address.map(|address| address.to_canonical())
}

/// An IPv4 address without the zeros that stand before its numbers.
fn without_zeros(text: &str) -> Option<String> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit());
    let number = |part: &str| {
        Some(part.trim_start_matches('0')).filter(|it| !it.is_empty()).unwrap_or("0").to_owned()
    };
    let parts: Vec<&str> = text.split('.').collect();
    let is_address = parts.len() == 4 && parts.iter().all(|it| is_number(it));
    is_address.then(|| parts.into_iter().map(number).collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": "n1" },
            "spec": { "podCIDRs": ["10.244.1.0/24", "fd00:244:1::/64", "nonsense"] },
            "status": { "addresses": [
                { "type": "InternalIP", "address": "192.168.0.11" },
                { "type": "InternalIP", "address": "fd00::11" },
                { "type": "Hostname", "address": "n1" },
            ] },
        }))
        .unwrap()
    }

    #[test]
    fn what_a_node_uses() {
        let addresses: Vec<String> =
            node_addresses(&node()).iter().map(IpAddr::to_string).collect();
        assert_eq!(addresses, ["192.168.0.11", "fd00::11"]);
        let shown: Vec<String> = ClusterRange::of_node(&node())
            .iter()
            .map(|it| format!("{}: {}", it.range, it.user))
            .collect();
        assert_eq!(shown[0], "10.244.1.0-10.244.1.255: the pods of node n1");
        assert_eq!(shown.len(), 2);
        assert!(ClusterRange::of_node(&Node::default()).is_empty());
    }

    #[test]
    fn an_address_of_a_node_counts_however_it_is_written() {
        let table = [
            ("::ffff:192.168.0.11", Some("192.168.0.11")),
            (" 192.168.0.11\n", Some("192.168.0.11")),
            ("192.168.0.11/24", Some("192.168.0.11")),
            ("fe80::11%eth0", Some("fe80::11")),
            ("FD00:0:0::11", Some("fd00::11")),
            ("192.168.000.011", Some("192.168.0.11")),
            ("192.168.0.0256", None),
            ("1.2.3.4.5", None),
            ("node-1.example.com", None),
            ("10.0.0", None),
            ("", None),
        ];
        for (text, expected) in table {
            let mut node = node();
            node.status.as_mut().unwrap().addresses.as_mut().unwrap()[0].address = text.to_owned();
            let read: Vec<String> =
                node_addresses(&node).iter().map(IpAddr::to_string).take(1).collect();
            assert_eq!(read, [expected.unwrap_or("fd00::11")], "{text:?}");
        }
    }

    #[test]
    fn what_services_use_and_what_a_pool_shares_with_them() {
        let cidr = serde_json::from_value(json!({
            "metadata": { "name": "kubernetes" },
            "spec": { "cidrs": ["10.96.0.0/16"] },
        }))
        .unwrap();
        let ranges = ClusterRange::of_service_cidr(&cidr);
        let pool = |range: &str| Pool::new("home".into(), vec![range.parse().unwrap()]);
        let shared = ranges[0].shared_with(&pool("10.96.255.0-10.97.0.9")).unwrap();
        assert_eq!(shared.to_string(), "10.96.255.0-10.96.255.255");
        assert_eq!(ranges[0].shared_with(&pool("10.97.0.0/24")), None);
    }
}

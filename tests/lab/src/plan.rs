//! Who is who in a lab: names, addresses and MACs, all derived from the lab's name and a machine's
//! number. Pure.
//!
//! | where | IPv4 | IPv6 |
//! |---|---|---|
//! | LAN | 192.168.0.0/24 | `fd00:a0::/64` |
//! | router on the LAN | .1 | `::1` |
//! | control plane | .10 | `::10` |
//! | nodes 1 to 9 | .11 to .19 | `::11` to `::19` |
//! | client | .20 | `::20` |
//! | bare hosts, where a measurement adds such | .21 to .220 | `::21` to `::220` |
//! | free for pools | .2 to .9, .221 to .254; .200 to .220 without so many hosts | the rest |
//! | WAN: router, internet host | 203.0.113.1, .2 | `2001:db8::1`, `::2` |
//! | pods of node N | 10.244.N.0/24 | `fd00:a4:N::/64` |
//! | Services | 10.96.0.0/16 | `fd00:a6::/112` |
//!
//! The addresses are the same in every lab, because each lab has namespaces of its own.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::LabError;

/// The most nodes that the address plan has room for.
pub const MOST_NODES: u8 = 9;
/// The most bare hosts.
pub const MOST_HOSTS: u8 = 200;
/// The addresses that the Service `kubernetes.default` may have: the first one of each network of Services.
pub const API_SERVICES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xa6, 0, 0, 0, 0, 0, 1)),
];
/// Where kube-apiserver listens.
pub const API_PORT: u16 = 6443;

/// Which kinds of addresses the machines on the LAN, the pods and the Services have, in the order in which Kubernetes is
/// told of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Families {
    /// Both, IPv4 first.
    #[default]
    Ipv4First,
    /// Both, IPv6 first.
    Ipv6First,
    /// Nothing but IPv4.
    Ipv4Only,
    /// Nothing but IPv6.
    Ipv6Only,
}

impl Families {
    /// Whether there is any IPv4.
    pub fn have_ipv4(self) -> bool {
        self != Self::Ipv6Only
    }

    /// Whether there is any IPv6.
    pub fn have_ipv6(self) -> bool {
        self != Self::Ipv4Only
    }

    /// Those of two that there are, in their order.
    pub fn of<T>(self, ipv4: T, ipv6: T) -> Vec<T> {
        match self {
            Self::Ipv4First => vec![ipv4, ipv6],
            Self::Ipv6First => vec![ipv6, ipv4],
            Self::Ipv4Only => vec![ipv4],
            Self::Ipv6Only => vec![ipv6],
        }
    }

    /// Every Service's cluster IP comes from here, comma-separated.
    pub fn service_cidrs(self) -> String {
        self.of("10.96.0.0/16", "fd00:a6::/112").join(",")
    }

    /// Every pod's address comes from here, comma-separated.
    pub fn pod_cidrs(self) -> String {
        self.of("10.244.0.0/16", "fd00:a4::/32").join(",")
    }

    /// The networks of the pods of a node; none if it is no node.
    pub fn pod_cidrs_of(self, machine: Machine) -> Vec<String> {
        let cidrs = machine.pod_cidrs().map(|[ipv4, ipv6]| self.of(ipv4, ipv6));
        cidrs.unwrap_or_default()
    }

    /// The machine's addresses on the LAN; none if it is not on the LAN.
    pub fn addresses_of(self, machine: Machine) -> Vec<IpAddr> {
        let both = machine.lan_v4().zip(machine.lan_v6());
        both.map(|(ipv4, ipv6)| self.of(ipv4.into(), ipv6.into())).unwrap_or_default()
    }

    /// What stands for any address of a machine.
    pub(crate) fn any_address(self) -> IpAddr {
        if self.have_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
    }
}

/// The name of a lab: part of the names of everything that it creates.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabName(String);

impl LabName {
    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The network namespace of a machine: `<lab>-<machine>`.
    pub fn namespace(&self, machine: Machine) -> String {
        format!("{self}-{machine}")
    }

    /// The machine that a namespace of this name belongs to, if it is one of this lab.
    pub fn machine_of(&self, namespace: &str) -> Option<Machine> {
        namespace.strip_prefix(&self.0)?.strip_prefix('-')?.parse().ok()
    }
}

impl FromStr for LabName {
    type Err = LabError;

    fn from_str(name: &str) -> Result<Self, LabError> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let good = (1..=24).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && !name.ends_with('-')
            && name.chars().all(allowed);
        good.then(|| Self(name.to_owned())).ok_or_else(|| LabError::BadName(name.to_owned()))
    }
}

impl TryFrom<String> for LabName {
    type Error = LabError;

    fn try_from(name: String) -> Result<Self, LabError> {
        name.parse()
    }
}

impl From<LabName> for String {
    fn from(name: LabName) -> Self {
        name.0
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One of the lab's machines: a network namespace with a place in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Machine {
    /// Holds the LAN's bridge, and nothing else.
    Switch,
    /// Between LAN and WAN, as a home router is.
    Router,
    /// A host on the WAN.
    Internet,
    /// A host on the LAN.
    Client,
    /// etcd, kube-apiserver, kube-controller-manager and kube-scheduler.
    Control,
    /// A Kubernetes node, counted from 1.
    Node(u8),
    /// A bare host on the LAN, counted from 1: nothing runs on it but what somebody starts there.
    Host(u8),
}

impl Machine {
    /// The last number of the machine's LAN addresses, or `None` if it is not on the LAN.
    pub fn host_number(self) -> Option<u8> {
        match self {
            Self::Switch | Self::Internet => None,
            Self::Router => Some(1),
            Self::Control => Some(10),
            Self::Node(number) => Some(10 + number),
            Self::Client => Some(20),
            Self::Host(number) => Some(20 + number),
        }
    }

    /// The machine's IPv4 address on the LAN.
    pub fn lan_v4(self) -> Option<Ipv4Addr> {
        self.host_number().map(|n| Ipv4Addr::new(192, 168, 0, n))
    }

    /// The machine's IPv6 address on the LAN: the same digits as in IPv4, to be recognised by eye.
    pub fn lan_v6(self) -> Option<Ipv6Addr> {
        let digits = u16::from(self.host_number()?);
        let looks_decimal = digits / 100 * 256 + digits / 10 % 10 * 16 + digits % 10;
        Some(Ipv6Addr::new(0xfd00, 0xa0, 0, 0, 0, 0, 0, looks_decimal))
    }

    /// The MAC of the machine's LAN interface: locally administered, ending in the IPv4 address.
    pub fn mac(self) -> Option<[u8; 6]> {
        let [a, b, c, d] = self.lan_v4()?.octets();
        Some([0x02, 0x00, a, b, c, d])
    }

    /// The name of the machine's LAN interface inside its namespace.
    pub fn interface(self) -> &'static str {
        if self == Self::Router { "lan" } else { "eth0" }
    }

    /// The networks of the pods of a node, IPv4 and IPv6, or `None` if it is no node.
    pub fn pod_cidrs(self) -> Option<[String; 2]> {
        match self {
            Self::Node(number) => {
                Some([format!("10.244.{number}.0/24"), format!("fd00:a4:{number}::/64")])
            }
            _ => None,
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch => f.pad("switch"),
            Self::Router => f.pad("router"),
            Self::Internet => f.pad("internet"),
            Self::Client => f.pad("client"),
            Self::Control => f.pad("control"),
            Self::Node(number) => f.pad(&format!("node-{number}")),
            Self::Host(number) => f.pad(&format!("host-{number}")),
        }
    }
}

/// A word that names no machine of the plan.
#[derive(Debug, thiserror::Error)]
#[error(
    "'{0}' is no machine: router, internet, client, control, switch, node-1 to node-9, or host-1 to host-200"
)]
pub struct UnknownMachine(String);

impl FromStr for Machine {
    type Err = UnknownMachine;

    fn from_str(name: &str) -> Result<Self, UnknownMachine> {
        let fixed = [Self::Switch, Self::Router, Self::Internet, Self::Client, Self::Control];
        let nodes = (1..=MOST_NODES).map(Self::Node);
        fixed
            .into_iter()
            .chain(nodes)
            .chain((1..=MOST_HOSTS).map(Self::Host))
            .find(|machine| machine.to_string() == name)
            .ok_or_else(|| UnknownMachine(name.to_owned()))
    }
}

/// Shows a MAC the way `ip` does.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_labs() {
        for good in ["a", "arpeggio-demo", "x1", "abcdefghijklmnopqrstuvwx"] {
            assert!(good.parse::<LabName>().is_ok(), "{good}");
        }
        let too_long = "a".repeat(25);
        for bad in ["", "1a", "-a", "a-", "A", "a_b", "a/b", "a b", ".", "ä", &too_long] {
            assert!(bad.parse::<LabName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn families_have_what_their_names_say() {
        let table = [
            (Families::Ipv4First, vec![4, 6]),
            (Families::Ipv6First, vec![6, 4]),
            (Families::Ipv4Only, vec![4]),
            (Families::Ipv6Only, vec![6]),
        ];
        for (families, expected) in table {
            assert_eq!(families.of(4, 6), expected);
            assert_eq!(families.have_ipv4(), expected.contains(&4));
            assert_eq!(families.have_ipv6(), expected.contains(&6));
        }
    }

    #[test]
    fn a_namespace_belongs_to_one_lab_only() {
        let short: LabName = "x".parse().unwrap();
        let long: LabName = "x-node-1".parse().unwrap();
        let namespace = long.namespace(Machine::Node(1));
        assert_eq!(namespace, "x-node-1-node-1");
        assert_eq!(long.machine_of(&namespace), Some(Machine::Node(1)));
        assert_eq!(short.machine_of(&namespace), None);
        assert_eq!(short.machine_of("x-node-1"), Some(Machine::Node(1)));
        assert_eq!(long.machine_of("x-node-1"), None);
    }

    #[test]
    fn addresses() {
        let table = [
            (Machine::Router, "192.168.0.1", "fd00:a0::1", "02:00:c0:a8:00:01"),
            (Machine::Control, "192.168.0.10", "fd00:a0::10", "02:00:c0:a8:00:0a"),
            (Machine::Node(1), "192.168.0.11", "fd00:a0::11", "02:00:c0:a8:00:0b"),
            (Machine::Node(9), "192.168.0.19", "fd00:a0::19", "02:00:c0:a8:00:13"),
            (Machine::Client, "192.168.0.20", "fd00:a0::20", "02:00:c0:a8:00:14"),
            (Machine::Host(200), "192.168.0.220", "fd00:a0::220", "02:00:c0:a8:00:dc"),
        ];
        for (machine, v4, v6, mac) in table {
            assert_eq!(machine.lan_v4().unwrap().to_string(), v4);
            assert_eq!(machine.lan_v6().unwrap().to_string(), v6);
            assert_eq!(mac_text(machine.mac().unwrap()), mac);
        }
        assert_eq!(Machine::Internet.lan_v4(), None);
        assert_eq!(Machine::Node(2).pod_cidrs().unwrap(), ["10.244.2.0/24", "fd00:a4:2::/64"]);
    }

    proptest! {
        #[test]
        fn a_machine_is_read_as_it_is_written(number in 1..=MOST_NODES) {
            let machine = Machine::Node(number);
            prop_assert_eq!(machine.to_string().parse::<Machine>().unwrap(), machine);
        }

        #[test]
        fn reading_any_word_is_no_crash(word in ".*") {
            let _ = word.parse::<Machine>();
            let _ = word.parse::<LabName>();
        }
    }
}

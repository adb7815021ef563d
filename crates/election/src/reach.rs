//! Which of a node's interfaces an address belongs to.

use alloc::{string::String, vec::Vec};
use core::{cmp::Reverse, iter, net::IpAddr};

use ipnet::IpNet;

use crate::pattern::Pattern;

/// The interfaces of one node that neighbours are found on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Reach {
    /// In the order of their indices.
    pub interfaces: Vec<Interface>,
}

/// An interface that leads to neighbours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[allow(clippy::struct_excessive_bools)] // Facts that have nothing to do with one another.
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The node's addresses on it, with the prefix length of their subnets.
    pub subnets: Vec<IpNet>,
    /// For each of `subnets`, how many other interfaces the node rather uses for the same subnet; 0 where nothing is said.
    pub ranks: Vec<u8>,
    /// Whether IPv4's default route leaves by it.
    pub default_ipv4: bool,
    /// Whether IPv6's default route leaves by it.
    pub default_ipv6: bool,
    /// The default routers behind it.
    pub gateways: Vec<IpAddr>,
    /// It is a radio: answers come late now and then.
    pub wireless: bool,
    /// It cannot announce now: it is down, say, or hears nobody. The addresses of its subnets belong there all the same.
    pub cut_off: bool,
}

impl Reach {
    /// The interfaces on which the node announces `address`.
    ///
    /// With `patterns` those whose names one of them matches. Without, the one whose subnet contains the address, which
    /// means the most specific of such subnets; when no subnet does, the one of the default route, since the router there
    /// may have a route to addresses outside of the segment's subnet. A subnet of one address (`/32`, `/128`) has no room
    /// for neighbours and counts for nothing.
    ///
    /// One that is cut off announces nothing. Nor does another one for it, unless it is in the same subnet: a wider subnet
    /// or the default route leads to another segment, where the address would be in nobody's reach while another node may
    /// still have it in its own.
    pub fn announcing(&self, address: IpAddr, patterns: &[Pattern]) -> Vec<&Interface> {
        if patterns.is_empty() {
            return self.fitting(address).into_iter().collect();
        }
        self.named(patterns).collect()
    }

    /// Whether there is any.
    pub(crate) fn is_announcing(&self, address: IpAddr, patterns: &[Pattern]) -> bool {
        if patterns.is_empty() {
            return self.fitting(address).is_some();
        }
        self.named(patterns).next().is_some()
    }

    fn named(&self, patterns: &[Pattern]) -> impl Iterator<Item = &Interface> {
        let is_named = |it: &&Interface| patterns.iter().any(|pattern| pattern.matches(&it.name));
        self.usable().filter(is_named)
    }

    fn usable(&self) -> impl Iterator<Item = &Interface> {
        self.interfaces.iter().filter(|it| !it.cut_off)
    }

    fn fitting(&self, address: IpAddr) -> Option<&Interface> {
        let subnet = self.interfaces.iter().filter_map(|it| it.subnet_of(address)).min();
        let Some((most_specific, _)) = subnet else {
            return self.usable().find(|it| it.is_default(address));
        };
        let there = self.usable().filter_map(|it| Some((it.subnet_of(address)?, it)));
        let there = there.filter(|((length, _), _)| *length == most_specific);
        there.min_by_key(|((_, rank), _)| *rank).map(|(_, it)| it)
    }
}

impl Interface {
    /// The prefix length and the rank of the most specific of this interface's subnets that contain `address`.
    fn subnet_of(&self, address: IpAddr) -> Option<(Reverse<u8>, u8)> {
        let ranks = self.ranks.iter().copied().chain(iter::repeat(0));
        let contains =
            |net: &IpNet| net.prefix_len() < net.max_prefix_len() && net.contains(&address);
        let subnets = self.subnets.iter().zip(ranks).filter(|(net, _)| contains(net));
        subnets.map(|(net, rank)| (Reverse(net.prefix_len()), rank)).min()
    }

    fn is_default(&self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.default_ipv4 } else { self.default_ipv6 }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn interface(name: &str, subnets: &[&str]) -> Interface {
        let subnets = subnets.iter().map(|net| net.parse().unwrap()).collect();
        Interface { name: name.into(), subnets, ..Interface::default() }
    }

    fn reach() -> Reach {
        let wan = Interface { default_ipv4: true, ..interface("wan", &["203.0.113.2/30"]) };
        let lan = interface("lan", &["192.168.0.11/16", "fd00::11/64", "100.64.0.9/32"]);
        let off =
            Interface { cut_off: true, ..interface("off", &["10.0.0.1/8", "192.168.9.13/24"]) };
        let radio = interface("radio", &["192.168.7.2/24", "10.0.0.2/8", "172.16.0.2/12"]);
        let radio = Interface { ranks: vec![1, 1], ..radio };
        let cable = interface("cable", &["192.168.7.1/24", "172.16.0.1/12"]);
        let cable = Interface { ranks: vec![0, 1], ..cable };
        Reach { interfaces: vec![lan, radio, cable, wan, off] }
    }

    #[test]
    fn the_most_specific_subnet_counts_then_the_default_route() {
        let table = [
            ("192.168.0.240", &[][..], &["lan"][..]),
            ("192.168.7.240", &[], &["cable"]),
            ("172.16.0.240", &[], &["radio"]),
            ("fd00::240", &[], &["lan"]),
            ("100.64.0.9", &[], &["wan"]),
            ("10.9.9.9", &[], &["radio"]),
            ("192.168.9.240", &[], &[]),
            ("fd01::1", &[], &[]),
            ("192.168.7.240", &["lan", "w*"], &["lan", "wan"]),
            ("192.168.7.240", &["eth*", "off"], &[]),
        ];
        for (address, patterns, expected) in table {
            let patterns: Vec<Pattern> = patterns.iter().map(|it| Pattern::from(*it)).collect();
            let reach = reach();
            let found = reach.announcing(address.parse().unwrap(), &patterns);
            let names: Vec<&str> = found.iter().map(|it| it.name.as_str()).collect();
            assert_eq!(names, expected, "{address}");
        }
    }
}

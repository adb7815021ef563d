//! Which of a node's interfaces an address belongs to.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::{cmp::Reverse, iter, net::IpAddr};

use ipnet::IpNet;

use crate::{families::Families, pattern::Pattern};

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
    /// The node's addresses on it, with the prefix length of their subnets; of a subnet in which the node has no address, the
    /// subnet itself (see [`own_address`]).
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
    /// The families whose addresses it cannot announce now: it is down, say, or hears nobody. The addresses of its subnets
    /// belong there all the same.
    pub cut_off: Families,
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
        self.named(address, patterns).collect()
    }

    /// Whether there is any.
    pub(crate) fn is_announcing(&self, address: IpAddr, patterns: &[Pattern]) -> bool {
        if patterns.is_empty() {
            return self.fitting(address).is_some();
        }
        self.named(address, patterns).next().is_some()
    }

    /// Whether one of its subnets contains `address`, also when the interface there is cut off.
    pub(crate) fn is_beside(&self, address: IpAddr) -> bool {
        self.interfaces.iter().any(|it| it.subnet_of(address).is_some())
    }

    /// The subnets in which it finds neighbours now.
    pub(crate) fn subnets(&self) -> impl Iterator<Item = IpNet> {
        self.nets().map(|net| net.trunc())
    }

    /// The same, with the node's own addresses in them.
    pub(crate) fn nets(&self) -> impl Iterator<Item = IpNet> {
        let nets =
            self.interfaces.iter().flat_map(|it| it.subnets.iter().map(move |net| (it, net)));
        let nets = nets.filter(|(it, net)| has_neighbours(net) && !it.cut_off.contain(net.addr()));
        nets.map(|(_, net)| *net)
    }

    fn named(&self, address: IpAddr, patterns: &[Pattern]) -> impl Iterator<Item = &Interface> {
        let is_named = |it: &&Interface| patterns.iter().any(|pattern| pattern.matches(&it.name));
        self.usable_for(address).filter(is_named)
    }

    fn usable_for(&self, address: IpAddr) -> impl Iterator<Item = &Interface> {
        self.interfaces.iter().filter(move |it| !it.cut_off.contain(address))
    }

    fn fitting(&self, address: IpAddr) -> Option<&Interface> {
        let subnet = self.interfaces.iter().filter_map(|it| it.subnet_of(address)).min();
        let Some((most_specific, _)) = subnet else {
            return self.usable_for(address).find(|it| it.is_default(address));
        };
        let there = self.usable_for(address).filter_map(|it| Some((it.subnet_of(address)?, it)));
        let there = there.filter(|((length, _), _)| *length == most_specific);
        there.min_by_key(|((_, rank), _)| *rank).map(|(_, it)| it)
    }
}

impl Interface {
    /// The prefix length and the rank of the most specific of this interface's subnets that contain `address`.
    fn subnet_of(&self, address: IpAddr) -> Option<(Reverse<u8>, u8)> {
        let ranks = self.ranks.iter().copied().chain(iter::repeat(0));
        let contains = |net: &IpNet| has_neighbours(net) && net.contains(&address);
        let subnets = self.subnets.iter().zip(ranks).filter(|(net, _)| contains(net));
        subnets.map(|(net, rank)| (Reverse(net.prefix_len()), rank)).min()
    }

    fn is_default(&self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.default_ipv4 } else { self.default_ipv6 }
    }
}

/// The node's address that a subnet of its [`Interface`] names, if it has one there: none is the first address of a subnet with
/// room for others, which means the subnet itself (RFC 1122 section 3.2.1.3) or any of its routers (RFC 4291 section 2.6.1).
pub fn own_address(net: &IpNet) -> Option<IpAddr> {
    let has_room = net.max_prefix_len() - net.prefix_len() >= 2;
    (!has_room || net.addr() != net.network()).then(|| net.addr())
}

/// A subnet of one address has no room for any.
pub(crate) fn has_neighbours(net: &IpNet) -> bool {
    net.prefix_len() < net.max_prefix_len()
}

/// The subnets in which nodes find neighbours, and how many times each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Subnets {
    counts: BTreeMap<IpNet, usize>,
    /// How many of them are of a family and have a length.
    lengths: BTreeMap<(bool, u8), usize>,
}

impl Subnets {
    /// A node says something else than before of where it is. Returns the subnets that are new, or in which nobody is any
    /// more.
    pub(crate) fn replace(&mut self, old: Option<&Reach>, new: Option<&Reach>) -> Vec<IpNet> {
        let new: Vec<IpNet> = new.into_iter().flat_map(Reach::subnets).collect();
        let mut changed: Vec<IpNet> = new.into_iter().filter(|net| self.add(*net)).collect();
        for net in old.into_iter().flat_map(Reach::subnets) {
            if self.remove(net) {
                changed.push(net);
            }
        }
        changed
    }

    /// Whether one of them contains `address`.
    pub(crate) fn contain(&self, address: IpAddr) -> bool {
        self.around(address).next().is_some()
    }

    /// Those that contain `address`, the widest first.
    pub(crate) fn around(&self, address: IpAddr) -> impl Iterator<Item = IpNet> {
        let lengths = self.lengths.keys().filter(move |(is_ipv6, _)| *is_ipv6 == address.is_ipv6());
        let nets = lengths.filter_map(move |(_, length)| IpNet::new(address, *length).ok());
        nets.map(|net| net.trunc()).filter(|net| self.counts.contains_key(net))
    }

    /// Whether it is new.
    fn add(&mut self, net: IpNet) -> bool {
        let count = self.counts.entry(net).or_default();
        *count += 1;
        let is_new = *count == 1;
        if is_new {
            *self.lengths.entry(kind(net)).or_default() += 1;
        }
        is_new
    }

    /// Whether it was the last one.
    fn remove(&mut self, net: IpNet) -> bool {
        let was_last = take_one(&mut self.counts, &net);
        if was_last {
            take_one(&mut self.lengths, &kind(net));
        }
        was_last
    }
}

/// What is looked at to find the subnet of an address.
fn kind(net: IpNet) -> (bool, u8) {
    (matches!(net, IpNet::V6(_)), net.prefix_len())
}

/// Counts one less. Whether it was the last one.
fn take_one<Key: Ord>(counts: &mut BTreeMap<Key, usize>, key: &Key) -> bool {
    let Some(count) = counts.get_mut(key) else { return false };
    *count -= 1;
    if *count > 0 {
        return false;
    }
    counts.remove(key);
    true
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
        let off = Interface {
            cut_off: Families::ALL,
            ..interface("off", &["10.0.0.1/8", "192.168.9.13/24"])
        };
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

    #[test]
    fn the_subnets_of_all_nodes_are_counted() {
        let mut subnets = Subnets::default();
        let one = Reach { interfaces: vec![interface("eth0", &["192.168.0.11/24", "fd00::1/64"])] };
        let two = Reach { interfaces: vec![interface("eth0", &["192.168.0.12/24", "10.0.0.1/8"])] };
        let nets = |texts: &[&str]| -> Vec<IpNet> {
            texts.iter().map(|net| net.parse().unwrap()).collect()
        };
        assert_eq!(subnets.replace(None, Some(&one)), nets(&["192.168.0.0/24", "fd00::/64"]));
        assert_eq!(subnets.replace(None, Some(&two)), nets(&["10.0.0.0/8"]));
        let contained = |subnets: &Subnets| {
            ["192.168.0.240", "192.168.1.1", "10.9.9.9", "fd00::2", "::10.0.0.1"]
                .map(|address| subnets.contain(address.parse().unwrap()))
        };
        assert_eq!(contained(&subnets), [true, false, true, true, false]);
        assert_eq!(subnets.replace(Some(&one), Some(&one)), []);
        assert_eq!(subnets.replace(Some(&one), None), nets(&["fd00::/64"]));
        assert_eq!(contained(&subnets), [true, false, true, false, false]);
        assert_eq!(subnets.replace(Some(&two), None), nets(&["192.168.0.0/24", "10.0.0.0/8"]));
        assert_eq!(subnets, Subnets::default());
    }

    #[test]
    fn where_nobody_has_neighbours_is_no_subnet() {
        let mut subnets = Subnets::default();
        let mut off = interface("off", &["10.0.0.1/8"]);
        off.cut_off = Families::ALL;
        let reach = Reach { interfaces: vec![off, interface("lo", &["192.0.2.1/32"])] };
        assert_eq!(subnets.replace(None, Some(&reach)), []);
    }
}

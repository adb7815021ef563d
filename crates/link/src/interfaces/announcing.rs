//! On which interface an address is announced.
//!
//! The rule itself is [`Reach::announcing`], which every node applies to what every other one says
//! of itself. Here is what this node says, and why there may be no interface for an address.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::snapshot::is_link_local;
use super::{DefaultRoute, Family, Flaw, Interface, Links};
use arpeggio_election::{self as election, Families, Pattern, Reach};

/// A node tells the others of at most this many interfaces, so that one with a thousand does not
/// write them all down every few seconds.
const MOST_INTERFACES: usize = 64;

/// A node tells the others of at most this many subnets, for the same reason.
const MOST_SUBNETS: usize = 256;

/// Why this node cannot announce an address now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// No subnet contains the address and there is no default route of its family.
    #[error(
        "no interface's subnet contains {0} and there is no default route: \
         give this node an address in that subnet, or exclude the node"
    )]
    NoInterface(IpAddr),
    /// No interface has a name that is wanted.
    #[error("no interface here has a name like {}", list(.0))]
    NoSuchName(Vec<Pattern>),
    /// The interface that the address belongs to cannot be used.
    #[error("interface {interface} {flaw}")]
    Interface {
        /// Its name.
        interface: String,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// The interface leads nowhere, and its name is not said.
    #[error(
        "interface {0} has neither a subnet nor a default route: a rule has to name it in full, \
         without * and ?"
    )]
    NotNamed(String),
    /// There are too many interfaces.
    #[error(
        "this node has more than {MOST_INTERFACES} interfaces with subnets, or more than \
         {MOST_SUBNETS} subnets, so that some are left out, and addresses outside of the other \
         subnets are announced nowhere: see 'arpeggio interfaces'"
    )]
    TooMany,
}

impl Links {
    /// The interfaces that lead to neighbours, as this node tells the others; marked are those that
    /// cannot announce now.
    ///
    /// Also told is one that has neither a subnet nor a default route, since a rule may name it
    /// ([`Interface::may_be_named`]): to answer on a segment takes no address there. It is told before
    /// a rule does, so that all nodes know of one another's when they choose among them.
    pub fn reach(&self, named: &[Pattern]) -> Reach {
        let (mut interfaces, left_out) = self.told(named);
        // What is outside of all subnets that are told may be in one of the others, and the default
        // route leads to another segment.
        if left_out.iter().any(|it| !it.subnets.is_empty()) {
            for interface in &mut interfaces {
                (interface.default_ipv4, interface.default_ipv6) = (false, false);
            }
        }
        Reach { interfaces }
    }

    /// The names of the interfaces that [`reach`](Self::reach) leaves out since there are too many, or some of whose subnets.
    pub fn left_out(&self, named: &[Pattern]) -> Vec<String> {
        let (_, left_out) = self.told(named);
        left_out.into_iter().map(|it| it.name).collect()
    }

    /// The interfaces that others are told of, and those for which there is no room.
    fn told(&self, named: &[Pattern]) -> (Vec<election::Interface>, Vec<election::Interface>) {
        let outside = self.interfaces.iter().filter(|it| it.flaw() != Some(Flaw::Loopback));
        let counts = |(interface, segment): &(&Interface, election::Interface)| {
            leads_somewhere(segment) || interface.flaw().is_none() && interface.may_be_named(named)
        };
        let counting = outside.map(|it| (it, self.segment(it))).filter(counts);
        let told =
            counting.map(|(it, segment)| (segment.subnets.len() - it.on_link.len(), segment));
        let mut told: Vec<(usize, election::Interface)> = told.collect();
        if told.len() > MOST_INTERFACES {
            let is_default = |it: &election::Interface| it.default_ipv4 || it.default_ipv6;
            told.sort_by_key(|(_, it)| {
                (!is_default(it), it.subnets.is_empty(), it.cut_off == Families::ALL)
            });
        }
        let mut left_out: Vec<election::Interface> =
            told.split_off(told.len().min(MOST_INTERFACES)).into_iter().map(|(_, it)| it).collect();
        left_out.extend(shorten(&mut told));
        (told.into_iter().map(|(_, it)| it).collect(), left_out)
    }

    /// This node's own addresses, in ascending order and on whatever interface: those that its kernel answers for, apart
    /// from Services' ([`Interface::is_for_services`]). Not those that every machine has: loopback and link-local IPv6
    /// addresses.
    pub fn own_addresses(&self) -> BTreeSet<IpAddr> {
        let own = self.interfaces.iter().filter(|it| !it.is_for_services());
        let usable = own.flat_map(Interface::usable_addresses).map(|it| it.net.addr());
        usable.filter(|it| !is_link_local(*it) && !it.is_loopback()).collect()
    }

    fn segment(&self, interface: &Interface) -> election::Interface {
        let here = |route: &&DefaultRoute| route.interface == interface.index;
        let routes = self.default_routes.iter().filter(here);
        let subnets: Vec<IpNet> = interface.subnets().into_iter().map(|it| it.net).collect();
        let mut ranks: Vec<u8> = subnets.iter().map(|it| self.rank(interface, *it)).collect();
        if ranks.iter().all(|rank| *rank == 0) {
            ranks.clear();
        }
        let is_default = |family| self.default_interface(family) == Some(interface.index);
        election::Interface {
            name: interface.name.clone(),
            subnets,
            ranks,
            default_ipv4: is_default(Family::V4),
            default_ipv6: is_default(Family::V6),
            gateways: routes.filter_map(|route| route.gateway).collect(),
            wireless: interface.wireless,
            cut_off: if interface.flaw().is_some() { Families::ALL } else { Families::NONE },
        }
    }

    /// How many other interfaces lead to one of this one's subnets better.
    fn rank(&self, interface: &Interface, subnet: IpNet) -> u8 {
        let way = interface.way_into(subnet);
        let on_segments = self.interfaces.iter().filter(|it| it.is_on_segment());
        let others = on_segments.filter(|it| it.index != interface.index);
        let better = others.filter_map(|it| it.way_into(subnet)).filter(|it| Some(*it) < way);
        u8::try_from(better.count()).unwrap_or(u8::MAX)
    }

    /// The index of the interface that the default route leaves by: the preferred one of those that
    /// can be used, and of equal ones one that is no radio.
    pub fn default_interface(&self, family: Family) -> Option<u32> {
        let routes = self.default_routes.iter().filter(|route| route.family == family);
        let ways = routes.filter_map(|route| Some((route, self.interface(route.interface)?)));
        let usable = ways.filter(|(_, interface)| interface.flaw().is_none());
        let best = usable
            .min_by_key(|(route, interface)| (route.metric, route.preference, interface.wireless));
        best.map(|(_, interface)| interface.index)
    }

    /// The interface on which this node announces `address` when no rule names others: see
    /// [`Reach::announcing`].
    ///
    /// # Errors
    /// Why there is none. If several subnets contain the address, the flaw is that of the most
    /// specific one.
    pub fn announcing(&self, address: IpAddr) -> Result<&Interface, Unfit> {
        let by_default = self.announcing_by(address, &[])?;
        by_default.first().copied().ok_or(Unfit::NoInterface(address))
    }

    /// The interfaces, by rising index, on which this node announces `address` by a rule that names
    /// `patterns`; without a pattern the one that [`announcing`](Self::announcing) finds.
    ///
    /// # Errors
    /// Why there is none.
    pub fn announcing_by(
        &self,
        address: IpAddr,
        patterns: &[Pattern],
    ) -> Result<Vec<&Interface>, Unfit> {
        let reach = self.reach(patterns);
        let chosen = reach.announcing(address, patterns);
        let is_chosen = |it: &&Interface| chosen.iter().any(|chosen| chosen.name == it.name);
        let found: Vec<&Interface> = self.interfaces.iter().filter(is_chosen).collect();
        if found.is_empty() { Err(self.unfit(address, patterns)) } else { Ok(found) }
    }

    /// The subnets of an interface that another one announces the addresses of, and which one that is.
    pub fn announced_elsewhere(&self, interface: &Interface) -> Vec<(IpNet, &Interface)> {
        let mut subnets: Vec<IpNet> = interface.nets_with_neighbours().collect();
        subnets.sort_by_key(IpNet::trunc);
        subnets.dedup_by_key(|net| net.trunc());
        let other = |net: IpNet| {
            let other = self.announcing(net.addr()).ok()?;
            let is_twin = other.subnet_of(net.addr()) == Some(net.trunc());
            (is_twin && other.index != interface.index).then_some((net.trunc(), other))
        };
        subnets.into_iter().filter_map(other).collect()
    }

    /// Why no interface can be used.
    fn unfit(&self, address: IpAddr, patterns: &[Pattern]) -> Unfit {
        let meant =
            if patterns.is_empty() { self.belonging(address) } else { self.named(patterns) };
        match meant.map(|it| (it.name.clone(), it.flaw())) {
            Some((interface, Some(flaw))) => Unfit::Interface { interface, flaw },
            Some(_) if !self.left_out(patterns).is_empty() => Unfit::TooMany,
            Some((interface, None)) => Unfit::NotNamed(interface),
            None if patterns.is_empty() => Unfit::NoInterface(address),
            None => Unfit::NoSuchName(patterns.to_vec()),
        }
    }

    /// The interface that an address belongs to, whether it can be used or not.
    fn belonging(&self, address: IpAddr) -> Option<&Interface> {
        let subnet = |it: &Interface| it.subnet_of(address).map(|net| net.prefix_len());
        let containing = self.interfaces.iter().filter(|it| subnet(it).is_some());
        let family = Family::of(address);
        let mut routes = self.default_routes.iter().filter(|route| route.family == family);
        let default = || routes.find_map(|route| self.interface(route.interface));
        let usable_first = |it: &&Interface| (Reverse(subnet(it)), it.flaw().is_some());
        containing.min_by_key(usable_first).or_else(default)
    }

    fn named(&self, patterns: &[Pattern]) -> Option<&Interface> {
        self.interfaces.iter().find(|it| patterns.iter().any(|pattern| pattern.matches(&it.name)))
    }
}

/// Leaves no more subnets than others are told of: first those that addresses name, how many of each interface is given; then
/// those that only routes name. Returns the interfaces of which addresses' own subnets have no room, with these.
///
/// A program can write any number of routes: what is left out of those takes nothing away from the others.
fn shorten(told: &mut [(usize, election::Interface)]) -> Vec<election::Interface> {
    let named: usize = told.iter().map(|(named, _)| *named).sum();
    let (mut room, mut routed_room) = (MOST_SUBNETS, MOST_SUBNETS.saturating_sub(named));
    let mut left_out = Vec::new();
    for (named, interface) in told {
        let mut routed = interface.subnets.split_off(*named);
        let unnamed = interface.subnets.split_off(interface.subnets.len().min(room));
        room -= interface.subnets.len();
        routed.truncate(routed_room);
        routed_room -= routed.len();
        interface.subnets.extend(routed);
        interface.ranks.truncate(interface.subnets.len());
        if !unnamed.is_empty() {
            let name = interface.name.clone();
            left_out.push(election::Interface { name, subnets: unnamed, ..Default::default() });
        }
    }
    left_out
}

fn leads_somewhere(segment: &election::Interface) -> bool {
    !segment.subnets.is_empty()
        || !segment.gateways.is_empty()
        || segment.default_ipv4
        || segment.default_ipv6
}

fn list(patterns: &[Pattern]) -> String {
    patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(" or ")
}

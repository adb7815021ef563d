//! Who is who on the wire.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    ops::Bound,
    time::Duration,
};

use arpeggio_api::session::LinkAddress;
use arpeggio_election::{self as election, Event, Node, Reach, Timestamp};
use arpeggio_link::interfaces::{Family, Interface, Links};
use arpeggio_wire::{Claim, MacAddr};

use crate::{
    gateways::{Gateways, gateways},
    listener::Sighting,
};

/// A session names at most this many addresses; the first one that another node can reach is used.
const MOST_LINK_ADDRESSES: usize = 64;

/// For at most this many of its addresses a node is asked that does not answer.
const MOST_ASKED: usize = 4;

/// What the sessions say about where nodes are found, and what this node's routes say about gateways.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    nodes: BTreeMap<Node, Known>,
    /// Those of them that have no session, and since when.
    gone: BTreeMap<Node, Timestamp>,
    /// The nodes that machines answer for whose MAC addresses are not theirs: which, and since when each, those that came last at the
    /// end.
    moved: BTreeMap<Node, Vec<(MacAddr, Timestamp)>>,
    gateways: Gateways,
    /// The nodes that were heard under a MAC address of theirs since their sessions began.
    heard: BTreeSet<Node>,
}

/// A node, as its session describes it.
#[derive(Debug, PartialEq, Eq)]
struct Known {
    links: Vec<LinkAddress>,
    /// Whether its session counts. One machine can have several names, of which one counts.
    is_live: bool,
}

/// For how long a node without a session is still a node. One whose Leases were deleted by hand, and that has no API server
/// to write them anew, is no stranger; a machine that was taken out of the cluster is one.
const TRUST: Duration = Duration::from_mins(10);

/// For so long another MAC address may answer for a node until the node's session names it. A bond, a bridge or an administrator
/// changes the MAC address of a node that is well; a machine that goes on answering for a node that is not is another one.
const RENAMED_WITHIN: Duration = Duration::from_secs(2);

/// So many MAC addresses may do so for one node within [`TRUST`]. More, and it is no card that was exchanged.
const MOST_RENAMED: usize = 4;

/// A question to a neighbour, and the interface to ask it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probe {
    /// The interface's index.
    pub(crate) interface: u32,
    /// The address asked for.
    pub(crate) address: IpAddr,
    /// This node's own address that asks.
    pub(crate) source: Option<IpAddr>,
    /// Whom to ask; `None` for everybody.
    pub(crate) to: Option<MacAddr>,
}

impl Probe {
    /// The question, and the same to everybody: the MAC address may have changed.
    pub(crate) fn and_to_everybody(self) -> [Self; 2] {
        [self, Self { to: None, ..self }]
    }

    /// Whether a radio is on its way: on this side, or on the other, which has this `reach`.
    pub(crate) fn is_wireless(&self, reach: Option<&Reach>, links: &Links) -> bool {
        let here = links.interface(self.interface).is_some_and(|it| it.wireless);
        let has =
            |it: &&election::Interface| it.subnets.iter().any(|net| net.addr() == self.address);
        let there = reach.and_then(|reach| reach.interfaces.iter().find(has));
        here || there.is_some_and(|it| it.wireless)
    }
}

impl Neighbours {
    /// Takes over what a session says; returns whether that is news.
    pub(crate) fn learn(&mut self, node: Node, links: Vec<LinkAddress>, is_live: bool) -> bool {
        let known = Known { links, is_live };
        self.gone.remove(&node);
        let is_news = self.nodes.get(&node) != Some(&known);
        if is_news {
            self.moved.remove(&node);
        }
        if !is_live {
            self.heard.remove(&node);
        }
        self.nodes.insert(node, known);
        is_news
    }

    /// A node has no session any more.
    pub(crate) fn lost(&mut self, node: &Node, now: Timestamp) {
        if let Some(known) = self.nodes.get_mut(node) {
            known.is_live = false;
            self.heard.remove(node);
            self.gone.entry(node.clone()).or_insert(now);
        }
    }

    /// Forgets the nodes that have had no session for long; returns whether there are any.
    pub(crate) fn forget(&mut self, now: Timestamp) -> bool {
        let before = self.gone.len();
        self.gone.retain(|node, gone| {
            let stays = now.since(*gone) < TRUST;
            if !stays {
                self.nodes.remove(node);
                self.moved.remove(node);
                self.heard.remove(node);
            }
            stays
        });
        self.gone.len() < before
    }

    /// The node that has an interface with this MAC address.
    pub(crate) fn node_at(&self, mac: MacAddr) -> Option<&Node> {
        let mac = mac.octets();
        self.node_with(|link| link.mac == mac)
    }

    /// The node whose speaker has told of an address at this MAC address. A machine may have several names, each with a speaker of
    /// its own: rather the one that is the `holder` of the address.
    pub(crate) fn speaking_at(&self, mac: MacAddr, holder: Option<&Node>) -> Option<&Node> {
        let mac_of = mac.octets();
        let is_there = |known: &&Known| known.links.iter().any(|link| link.mac == mac_of);
        let holder = holder.and_then(|it| self.nodes.get_key_value(it));
        let holder = holder.filter(|(_, known)| known.is_live && is_there(known));
        holder.map(|(node, _)| node).or_else(|| self.node_at(mac))
    }

    /// Whether a machine that is no node is a router: it may answer for what others have (proxy ARP). Of no other machine is that
    /// known: what answers for a node may be the node itself, with a new MAC address.
    pub(crate) fn is_router(&self, mac: MacAddr) -> bool {
        self.gateways.is_router(mac)
    }

    /// The node that has such a link address, rather one whose session counts.
    fn node_with(&self, is: impl Fn(&LinkAddress) -> bool) -> Option<&Node> {
        let having = self.nodes.iter().filter(|(_, known)| known.links.iter().any(&is));
        having.min_by_key(|(_, known)| !known.is_live).map(|(node, _)| node)
    }

    /// All nodes that have such a link address and whose sessions count; if none does, one of the others.
    fn nodes_with(&self, is: impl Fn(&LinkAddress) -> bool) -> Vec<Node> {
        let having = self.nodes.iter().filter(|(_, known)| known.links.iter().any(&is));
        let live = having.filter(|(_, known)| known.is_live).map(|(node, _)| node.clone());
        let live: Vec<Node> = live.collect();
        if live.is_empty() { self.node_with(is).cloned().into_iter().collect() } else { live }
    }

    fn links_of(&self, node: &Node) -> Option<&[LinkAddress]> {
        self.nodes.get(node).map(|known| &known.links[..])
    }

    /// What a reply on the wire proves: of all names that a machine has, that it lives. A reply in a node's name from another
    /// node's MAC address (proxy ARP) proves nothing, nor does one from another segment than the node's: there a pod may say
    /// what it likes. One from a MAC address that is nobody's proves something for a moment only.
    ///
    /// A node may be the default gateway of others. Its answer counts as the node's first: that a gateway was heard is no
    /// evidence against the node that it is.
    pub(crate) fn answered(
        &mut self,
        sighting: &Sighting,
        links: &Links,
        now: Timestamp,
    ) -> Vec<Event> {
        let claim = sighting.claim;
        let asked = (sighting.interface, claim.address);
        let is_gateway = self.gateways.answered(asked, claim.mac, links);
        let mut events = self.node_answered(sighting, links);
        if is_gateway {
            let interface = links.interface(sighting.interface).map(|it| it.name.clone());
            events.extend(interface.map(Event::GatewayAnswered));
        } else if events.is_empty() && reaches(links, sighting) {
            let node = self.node_with(|link| link.address == claim.address).cloned();
            events.extend(node.and_then(|node| self.moved(&node, claim, now)));
        }
        events
    }

    /// The nodes that a reply speaks for: those that have the address at the MAC address, on the segment where it was heard.
    fn node_answered(&mut self, sighting: &Sighting, links: &Links) -> Vec<Event> {
        if !reaches(links, sighting) {
            return Vec::new();
        }
        let Claim { address, mac } = sighting.claim;
        let mac = mac.octets();
        let nodes = self.nodes_with(|link| link.address == address && link.mac == mac);
        self.heard.extend(nodes.iter().cloned());
        nodes.into_iter().map(Event::NodeAnswered).collect()
    }

    /// What a reply proves for what `node` has, or holds: its MAC address has changed, it seems, and its session does not say so
    /// yet. One that was never heard under its own has not changed: something between it and this node puts another one in its
    /// place. Were its answers counted for a moment, it would be missed after that, each time that its session begins anew.
    pub(crate) fn moved(
        &mut self,
        node: &Node,
        Claim { address, mac }: Claim<IpAddr>,
        now: Timestamp,
    ) -> Option<Event> {
        let is_live = self.nodes.get(node).is_some_and(|known| known.is_live);
        let is_anothers = self.node_at(mac).is_some() || self.is_router(mac);
        if !is_live || !self.heard.contains(node) || is_anothers {
            return None;
        }
        let since = self.renamed(node, mac, now)?;
        let moved = Event::AnsweredAs { node: node.clone(), address, mac: mac.octets() };
        (now.since(since) < RENAMED_WITHIN).then_some(moved)
    }

    /// Since when a MAC address answers for a node that is not the node's. Each has its own time, whatever other ones did before;
    /// one for which there is no room has none.
    fn renamed(&mut self, node: &Node, mac: MacAddr, now: Timestamp) -> Option<Timestamp> {
        let moved = self.moved.entry(node.clone()).or_default();
        if let Some((_, since)) = moved.iter().find(|(known, _)| *known == mac) {
            return Some(*since);
        }
        if moved.len() >= MOST_RENAMED {
            moved.first().filter(|(_, since)| now.since(*since) >= TRUST)?;
            moved.remove(0);
        }
        moved.push((mac, now));
        Some(now)
    }

    /// How to ask for the default gateways.
    pub(crate) fn gateway_probes(&mut self, links: &Links, now: Timestamp) -> Vec<Probe> {
        self.gateways.probes(links, now)
    }

    /// How to ask `node` for its own address; `None` when no interface here shares a subnet with it, or has an address to
    /// ask from.
    pub(crate) fn probe(&self, node: &Node, links: &Links) -> Option<Probe> {
        self.links_of(node)?.iter().find_map(|link| {
            let interface = on_link(links, link.address)?;
            probe(interface, link.address, Some(link.mac.into()))
        })
    }

    /// How to ask the node, and everybody, for all its addresses where [`probe`](Self::probe) asks for one. Its MAC address may
    /// have changed, or it may have lost the one address, and its session does not say so yet.
    pub(crate) fn probes_anywhere(&self, node: &Node, links: &Links) -> Vec<Probe> {
        let Some(usual) = self.probe(node, links) else { return Vec::new() };
        let here = self.links_of(node).into_iter().flatten();
        let here = here.filter_map(|link| {
            let interface =
                on_link(links, link.address).filter(|it| it.index == usual.interface)?;
            probe(interface, link.address, Some(link.mac.into()))
        });
        here.take(MOST_ASKED).flat_map(Probe::and_to_everybody).collect()
    }

    /// Where the other nodes are found that share a subnet with this interface of `me`: each once, those first that follow
    /// `me` by name, so that not all ask the same ones.
    pub(crate) fn members(
        &self,
        me: &Node,
        interface: &Interface,
    ) -> impl Iterator<Item = &LinkAddress> {
        let after = self.nodes.range::<Node, _>((Bound::Excluded(me), Bound::Unbounded));
        let before = self.nodes.range::<Node, _>((Bound::Unbounded, Bound::Excluded(me)));
        let others = after.chain(before).filter(|(_, known)| known.is_live);
        others.filter_map(|(_, known)| {
            known.links.iter().find(|link| interface.has_neighbour(link.address))
        })
    }

    /// Whether it is on this interface that [`probe`](Self::probe) asks for `node`.
    pub(crate) fn is_asked_on(&self, node: &Node, interface: u32, links: &Links) -> bool {
        self.probe(node, links).is_none_or(|probe| probe.interface == interface)
    }

    /// Whether this node has a neighbour with this MAC address on one of its interfaces, and not on this one.
    pub(crate) fn is_elsewhere(&self, mac: MacAddr, interface: u32, links: &Links) -> bool {
        let mac = mac.octets();
        let its = self.nodes.values().flat_map(|known| &known.links).filter(|it| it.mac == mac);
        let near: Vec<u32> = its.flat_map(|link| reaching(links, link.address)).collect();
        !near.is_empty() && !near.contains(&interface)
    }

    /// How to ask the speaker of `node` for an `address` that it announces `there`, if that is known: at the node's interface on
    /// a segment where this node would announce it, or else at the first that is reached. On another segment than `there`
    /// nobody would answer.
    pub(crate) fn speaker_probe(
        &self,
        (node, address): (&Node, IpAddr),
        there: Option<&[&election::Interface]>,
        places: &[&election::Interface],
        links: &Links,
    ) -> Option<Probe> {
        let is_there = |link: &&LinkAddress| {
            let mut nets = there.into_iter().flatten().flat_map(|it| &it.subnets);
            there.is_none() || nets.any(|net| net.contains(&link.address))
        };
        let near = self.links_of(node)?.iter().filter(is_there);
        let near = near.filter_map(|link| Some((on_link(links, link.address)?, link.mac)));
        let is_place = |it: &Interface| places.iter().any(|place| place.name == it.name);
        let (interface, mac) = near.min_by_key(|(it, _)| !is_place(it))?;
        let source = interface.source_for(address)?;
        Some(Probe {
            interface: interface.index,
            address,
            source: Some(source),
            to: Some(mac.into()),
        })
    }

    /// The addresses whose answers are awaited on one interface.
    pub(crate) fn awaited(&self, interface: &Interface, links: &Links) -> BTreeSet<IpAddr> {
        let nodes = self.nodes.values().flat_map(|known| &known.links).map(|link| link.address);
        let nodes = nodes.filter(|address| interface.has_neighbour(*address));
        let gateways = gateways(links).filter(|(index, _)| *index == interface.index);
        nodes.chain(gateways.map(|(_, gateway)| gateway)).collect()
    }
}

/// Where this node is found: on the interface of the default route first, since other subnets may exist on every node
/// without being one segment (a container bridge, for instance). IPv4 comes before IPv6, so that a node with both is
/// asked by ARP.
///
/// The kernel answers for no address that is still being checked. Of several in one subnet one is enough: one that lasts.
///
/// Where an interface of `reach` has no such address, its link-local one tells the others at least that the MAC address is
/// this node's, so that they do not take it for a stranger's; it does not say on which segment it is. Where there is none
/// either, no address is named.
pub(crate) fn own_links(links: &Links, reach: &Reach) -> Vec<LinkAddress> {
    let turn = |index| {
        let here = links.default_routes.iter().filter(|route| route.interface == index);
        let best = here.map(|route| (route.metric, route.preference)).min();
        (best.is_none(), best)
    };
    let mut usable: Vec<&Interface> =
        links.interfaces.iter().filter(|it| it.flaw().is_none()).collect();
    usable.sort_by_key(|it| (turn(it.index), it.wireless, it.index));
    let mut addresses: Vec<LinkAddress> = usable.iter().flat_map(|it| link_addresses(it)).collect();
    addresses.sort_by_key(|link| Family::of(link.address));
    usable.retain(|it| reach.interfaces.iter().any(|told| told.name == it.name));
    for (interface, mac) in usable.iter().filter_map(|it| Some((it, it.mac()?.octets()))) {
        if addresses.iter().all(|known| known.mac != mac) {
            let link_local = interface.usable_addresses().map(|it| it.net.addr()).next();
            let address = link_local.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            addresses.push(LinkAddress { address, mac });
        }
    }
    let mut seen = BTreeSet::new();
    // A subnet that only a route names may contain an address that names one itself.
    addresses.retain(|link| seen.insert((link.address, link.mac)));
    shortened(addresses)
}

/// One address in each subnet of an interface.
fn link_addresses(interface: &Interface) -> Vec<LinkAddress> {
    let Some(mac) = interface.mac() else { return Vec::new() };
    let own = interface.subnets().into_iter().filter_map(|it| it.own);
    own.map(|address| LinkAddress { address, mac: mac.octets() }).collect()
}

/// No more than a session names. Each MAC address is named, as far as possible, before one is named twice.
fn shortened(mut addresses: Vec<LinkAddress>) -> Vec<LinkAddress> {
    while addresses.len() > MOST_LINK_ADDRESSES {
        let mac = |at: usize| addresses.get(at).map(|it| it.mac);
        let repeated = |at: &usize| (0..*at).any(|earlier| mac(earlier) == mac(*at));
        let last = (0..addresses.len()).rev().find(repeated).unwrap_or(MOST_LINK_ADDRESSES);
        addresses.remove(last);
    }
    addresses
}

/// The MAC address of an interface here that somebody with these links has in the same subnet.
pub(crate) fn shared_mac(theirs: &[LinkAddress], links: &Links) -> Option<MacAddr> {
    let is_shared = |it: &&Interface, mac: MacAddr| {
        theirs.iter().any(|link| link.mac == mac.octets() && it.has_neighbour(link.address))
    };
    let mut own = links.interfaces.iter().filter_map(|it| Some((it, it.mac()?)));
    own.find(|(it, mac)| is_shared(it, *mac)).map(|(_, mac)| mac)
}

/// The interfaces that hear their segments now, and did not when `before` was seen or at a moment since.
pub(crate) fn returned<'a>(before: &Links, now: &'a Links) -> impl Iterator<Item = &'a Interface> {
    let usable = now.interfaces.iter().filter(|it| it.flaw().is_none());
    usable.filter(|it| {
        let known = before.interface(it.index).filter(|known| known.flaw().is_none());
        known.is_none_or(|known| it.has_returned(known))
    })
}

/// From `::` nothing is asked but whether anybody has an address (RFC 4862): a neighbour that is just asking that for its own
/// would take this node for another machine that wants it.
pub(crate) fn probe(interface: &Interface, address: IpAddr, to: Option<MacAddr>) -> Option<Probe> {
    let source = interface.source_for(address);
    let may_ask = source.is_some() || address.is_ipv4();
    may_ask.then_some(Probe { interface: interface.index, address, source, to })
}

fn on_link(links: &Links, address: IpAddr) -> Option<&Interface> {
    let usable = links.interfaces.iter().filter(|it| it.flaw().is_none());
    usable.filter(|it| it.has_neighbour(address)).min_by_key(|it| it.way_to(address))
}

/// The indices of the interfaces in whose subnets a neighbour is.
fn reaching(links: &Links, neighbour: IpAddr) -> impl Iterator<Item = u32> {
    links.interfaces.iter().filter(move |it| it.has_neighbour(neighbour)).map(|it| it.index)
}

/// Whether the interface that something was heard on has a subnet that the address is in.
fn reaches(links: &Links, sighting: &Sighting) -> bool {
    let interface = links.interface(sighting.interface);
    interface.is_some_and(|it| it.has_neighbour(sighting.claim.address))
}

#[cfg(test)]
pub(crate) mod tests {
    use arpeggio_election::Pattern;
    use arpeggio_link::interfaces::{
        Address, AddressState, DefaultRoute, Medium, OnLink, RouterPreference,
    };
    use arpeggio_wire::Claim;

    use ipnet::IpNet;

    use super::*;
    use crate::listener::Said;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);

    fn mac(last: u8) -> MacAddr {
        MacAddr(2, 0, 0, 0, 0, last)
    }

    pub(crate) fn interface(index: u32, nets: &[&str]) -> Interface {
        let medium = Medium::Ethernet(mac(u8::try_from(index).unwrap()));
        let addresses = nets.iter().map(|net| net.parse::<IpNet>().unwrap().into()).collect();
        Interface { addresses, ..Interface::new(index, format!("eth{index}"), medium) }
    }

    /// The router's link-local address, which is another's on another segment.
    const GATEWAY_V6: &str = "fe80::1";

    /// A container bridge that every node has, and the segment with the default routes.
    pub(crate) fn links() -> Links {
        let route = |family, gateway| DefaultRoute {
            family,
            interface: 2,
            gateway: Some(gateway),
            metric: 0,
            preference: RouterPreference::Medium,
        };
        Links {
            interfaces: vec![
                interface(1, &["172.17.0.1/16", "fe80::11/64"]),
                interface(2, &["192.168.0.11/24", "fe80::11/64", "2001:db8::11/64"]),
            ],
            default_routes: vec![
                route(Family::V4, GATEWAY.into()),
                route(Family::V6, GATEWAY_V6.parse().unwrap()),
            ],
        }
    }

    fn link(text: &str, last: u8) -> LinkAddress {
        LinkAddress { address: text.parse().unwrap(), mac: mac(last).octets() }
    }

    fn neighbours() -> Neighbours {
        let mut neighbours = Neighbours::default();
        let addresses =
            vec![link("192.168.0.12", 12), link("172.17.0.1", 13), link("2001:db8::12", 12)];
        neighbours.learn("node-2".into(), addresses, true);
        neighbours.learn("node-3".into(), vec![link("2001:db8::13", 14)], true);
        neighbours
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(millis))
    }

    fn sighting(interface: u32, address: &str, mac: MacAddr) -> Sighting {
        let claim = Claim { address: address.parse().unwrap(), mac };
        Sighting { interface, claim, said: Said::Replied }
    }

    #[test]
    fn a_node_is_found_on_the_segment_that_both_share() {
        let table = [
            ("node-2", "192.168.0.12", mac(12), "192.168.0.11"),
            ("node-3", "2001:db8::13", mac(14), "2001:db8::11"),
        ];
        for (node, address, mac, source) in table {
            let expected = Probe {
                interface: 2,
                address: address.parse().unwrap(),
                source: source.parse().ok(),
                to: Some(mac),
            };
            assert_eq!(neighbours().probe(&node.into(), &links()), Some(expected));
        }
    }

    #[test]
    fn a_speaker_is_asked_on_the_segment_of_the_address() {
        let mut neighbours = neighbours();
        let near = vec![link("172.17.0.4", 41), link("192.168.0.14", 42)];
        neighbours.learn("node-4".into(), near, true);
        let asked_there = |node: &str,
                           address: &str,
                           patterns: &[Pattern],
                           there: Option<election::Interface>| {
            let (address, reach) = (address.parse().unwrap(), links().reach(patterns));
            let places = reach.announcing(address, patterns);
            let asked = (&node.into(), address);
            let there = there.as_ref().map(|it| vec![it]);
            let probe = neighbours.speaker_probe(asked, there.as_deref(), &places, &links());
            probe.map(|it| (it.interface, it.to.unwrap(), it.source.unwrap().to_string()))
        };
        let asked = |node: &str, address: &str, patterns: &[Pattern]| {
            asked_there(node, address, patterns, None)
        };
        let table = [
            ("node-4", "192.168.0.240", Some((2, mac(42), "192.168.0.11"))),
            ("node-4", "172.17.0.240", Some((1, mac(41), "172.17.0.1"))),
            ("node-4", "2001:db8::240", Some((2, mac(42), "2001:db8::11"))),
            ("node-3", "192.168.0.240", Some((2, mac(14), "192.168.0.11"))),
            ("node-9", "192.168.0.240", None),
        ];
        for (node, address, expected) in table {
            let expected = expected.map(|(index, mac, source)| (index, mac, source.to_owned()));
            assert_eq!(asked(node, address, &[]), expected, "{node} {address}");
        }
        let by_rule = asked("node-4", "172.17.0.240", &["eth2".into()]);
        assert_eq!(by_rule.map(|(index, ..)| index), Some(2));
        for (subnet, expected) in
            [("172.17.0.4/16", Some(1)), ("192.168.0.14/24", Some(2)), ("10.0.0.4/8", None)]
        {
            let subnets = vec![subnet.parse().unwrap()];
            let there = election::Interface { subnets, ..election::Interface::default() };
            let asked = asked_there("node-4", "192.168.0.240", &[], Some(there));
            assert_eq!(asked.map(|(index, ..)| index), expected, "announced in {subnet}");
        }
    }

    #[test]
    fn this_node_names_the_interface_of_the_default_route_first_and_ipv4_before_ipv6() {
        let addresses: Vec<String> = own_links(&links(), &links().reach(&[]))
            .iter()
            .map(|link| link.address.to_string())
            .collect();
        assert_eq!(addresses, ["192.168.0.11", "172.17.0.1", "2001:db8::11"]);
    }

    /// The nodes have their addresses by DHCP, alone, and the router says what is on the link.
    #[test]
    fn an_address_is_in_the_subnet_that_only_a_route_names() {
        let mut links = links();
        links.interfaces = vec![interface(2, &["2001:db8::11/128", "fe80::11/64"])];
        let probe = |links: &Links| neighbours().probe(&"node-3".into(), links);
        let told = |links: &Links| -> Vec<String> {
            own_links(links, &links.reach(&[])).iter().map(|it| it.address.to_string()).collect()
        };
        assert_eq!(probe(&links), None);
        let net = "2001:db8::/64".parse().unwrap();
        links.interfaces[0].on_link = vec![OnLink { net, metric: 256 }];
        let asked = probe(&links).map(|it| (it.interface, it.source));
        assert_eq!(asked, Some((2, "2001:db8::11".parse().ok())));
        assert_eq!(told(&links), ["2001:db8::11"]);
        assert_eq!(shared_mac(&[link("2001:db8::11", 2)], &links), None, "it is its own");
        let nets = &links.reach(&[]).interfaces[0].subnets;
        assert_eq!(nets[..], ["2001:db8::11/64".parse().unwrap()], "as others understand it");
        links.interfaces[0].on_link[0].net = "2001:db8:9::/64".parse().unwrap();
        assert_eq!(told(&links), ["2001:db8::11"], "it has no address there that it could name");
        links.interfaces = vec![interface(2, &["2001:db8::11/64"])];
        let net = "2001:db8::/32".parse().unwrap();
        links.interfaces[0].on_link = vec![OnLink { net, metric: 256 }];
        assert_eq!(told(&links), ["2001:db8::11"], "once, though it is in two subnets");
    }

    #[test]
    fn of_equal_interfaces_the_wired_one_is_named_first() {
        let mut links = links();
        links.interfaces =
            vec![interface(2, &["192.168.0.11/24"]), interface(3, &["192.168.0.14/24"])];
        links.interfaces[0].wireless = true;
        let first = |links: &Links| own_links(links, &Reach::default())[0].mac[5];
        assert_eq!(first(&links), 2, "it has the default route");
        let wired = links.default_routes.iter().map(|it| DefaultRoute { interface: 3, ..*it });
        links.default_routes = [&links.default_routes[..], &wired.collect::<Vec<_>>()].concat();
        assert_eq!(first(&links), 3);
        links.default_routes[0].metric = 0;
        links.default_routes[2].metric = 600;
        links.default_routes[3].metric = 600;
        assert_eq!(first(&links), 2, "the kernel prefers it");
        let probe = neighbours().probe(&"node-2".into(), &links).unwrap();
        assert_eq!(probe.interface, 3, "of equal routes to the subnet");
    }

    #[test]
    fn every_interface_that_announces_tells_its_mac_as_far_as_there_is_room() {
        let macs = |links: &Links, named: &[Pattern]| -> Vec<u8> {
            own_links(links, &links.reach(named)).iter().map(|link| link.mac[5]).collect()
        };
        let mut links = links();
        links.interfaces = vec![
            interface(2, &["fe80::11/64"]),
            Interface { kind: Some("veth".to_owned()), ..interface(3, &["fe80::12/64"]) },
            interface(4, &[]),
        ];
        assert_eq!(macs(&links, &[]), [2, 4], "not that of a pod");
        assert_eq!(macs(&links, &["eth3".into()]), [2, 3, 4], "but one that a rule names");
        let unnamed = own_links(&links, &links.reach(&[])).pop().unwrap();
        assert!(unnamed.address.is_unspecified());
        let many: Vec<String> = (1..=70).map(|it| format!("10.{it}.0.1/16")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        links.interfaces = vec![interface(2, &many), interface(3, &["10.77.0.1/16"])];
        assert_eq!(macs(&links, &[]), [&[2; 63][..], &[3]].concat());
    }

    #[test]
    fn of_two_names_of_one_machine_the_one_counts_whose_session_does() {
        for live in ["node-2", "renamed"] {
            let mut neighbours = Neighbours::default();
            for name in ["node-2", "renamed"] {
                neighbours.learn(name.into(), vec![link("192.168.0.12", 12)], name == live);
            }
            assert_eq!(neighbours.node_at(mac(12)), Some(&live.into()));
            let answer =
                neighbours.answered(&sighting(2, "192.168.0.12", mac(12)), &links(), at(0));
            assert_eq!(answer, [Event::NodeAnswered(live.into())]);
        }
    }

    #[test]
    fn an_answer_speaks_for_all_names_of_a_machine_that_count_and_its_speaker_for_the_holder() {
        let mut neighbours = Neighbours::default();
        let names = ["a", "b", "c"];
        for name in names {
            neighbours.learn(name.into(), vec![link("192.168.0.12", 12)], name != "a");
        }
        let answers = neighbours.answered(&sighting(2, "192.168.0.12", mac(12)), &links(), at(0));
        assert_eq!(answers, ["b", "c"].map(|name| Event::NodeAnswered(name.into())));
        for (holder, expected) in
            [(None, "b"), (Some("c"), "c"), (Some("a"), "b"), (Some("d"), "b")]
        {
            let holder = holder.map(Node::from);
            let found = neighbours.speaking_at(mac(12), holder.as_ref());
            assert_eq!(found, Some(&expected.into()), "{holder:?}");
        }
    }

    #[test]
    fn who_has_answered_last_for_a_gateway_is_a_router() {
        let mut neighbours = neighbours();
        let mut are_routers = |address, mac| {
            neighbours.answered(&sighting(2, address, mac), &links(), at(0));
            [60, 61, 70].map(|last| neighbours.is_router(self::mac(last)))
        };
        assert_eq!(are_routers("192.168.0.1", mac(60)), [true, false, false]);
        assert_eq!(are_routers("192.168.0.12", mac(70)), [true, false, false]);
        assert_eq!(are_routers("192.168.0.1", mac(61)), [false, true, false]);
    }

    #[test]
    fn a_machine_that_has_left_the_cluster_is_a_stranger_after_a_while() {
        let at = |seconds| Timestamp::from_origin(Duration::from_secs(seconds));
        let mut neighbours = neighbours();
        neighbours.lost(&"node-2".into(), at(100));
        neighbours.lost(&"node-2".into(), at(600));
        assert!(!neighbours.forget(at(699)));
        assert_eq!(neighbours.node_at(mac(12)), Some(&"node-2".into()));
        assert!(neighbours.forget(at(700)));
        assert_eq!(neighbours.node_at(mac(12)), None);

        neighbours.lost(&"node-3".into(), at(800));
        neighbours.learn("node-3".into(), vec![link("2001:db8::13", 14)], true);
        assert!(!neighbours.forget(at(9000)), "it has come back");
    }

    #[test]
    fn only_the_nodes_own_mac_proves_that_it_answers() {
        let mut neighbours = neighbours();
        let mut answered =
            |address, mac| neighbours.answered(&sighting(2, address, mac), &links(), at(0));
        for address in ["192.168.0.12", "2001:db8::12"] {
            let answer = answered(address, mac(12));
            assert_eq!(answer, [Event::NodeAnswered("node-2".into())]);
            assert_eq!(answered(address, mac(14)), [], "another node's");
            let of_a_pod =
                self::neighbours().answered(&sighting(1, address, mac(12)), &links(), at(0));
            assert_eq!(of_a_pod, [], "on another segment");
        }
    }

    #[test]
    fn a_node_is_elsewhere_when_another_interface_leads_to_it() {
        let mut neighbours = neighbours();
        neighbours.learn("far".into(), vec![link("10.0.0.9", 77), link("fe80::9", 77)], true);
        let table = [(1, 12, true), (2, 12, false), (2, 13, false), (1, 77, false)];
        for (interface, last, expected) in table {
            let is_elsewhere = neighbours.is_elsewhere(mac(last), interface, &links());
            assert_eq!(is_elsewhere, expected, "{last} on {interface}");
        }
    }

    #[test]
    fn a_new_mac_address_answers_for_a_node_for_a_moment_and_then_its_session_must_name_it() {
        let mut neighbours = neighbours();
        let mut answered = |millis, mac| {
            !neighbours.answered(&sighting(2, "192.168.0.12", mac), &links(), at(millis)).is_empty()
        };
        assert!(!answered(0, mac(99)), "it was never heard under its own, so it has not changed");
        assert!(answered(0, mac(12)));
        let heard = [0, 100, 1900, 2100, 60_000].map(|millis| answered(millis, mac(99)));
        assert_eq!(
            heard,
            [true, true, true, false, false],
            "as of a machine that took the address"
        );
        assert!(answered(60_001, mac(12)));
        neighbours.learn("node-2".into(), vec![link("192.168.0.12", 99)], true);
        let answer =
            neighbours.answered(&sighting(2, "192.168.0.12", mac(98)), &links(), at(70_000));
        assert!(!answer.is_empty(), "it has changed again");
        neighbours.learn("node-2".into(), vec![link("192.168.0.12", 99)], false);
        let answer =
            neighbours.answered(&sighting(2, "192.168.0.12", mac(97)), &links(), at(70_001));
        assert!(answer.is_empty(), "it has no session");
        neighbours.learn("node-2".into(), vec![link("192.168.0.12", 99)], true);
        let answer =
            neighbours.answered(&sighting(2, "192.168.0.12", mac(97)), &links(), at(70_002));
        assert!(answer.is_empty(), "it has a new session, in which it was not heard yet");
    }

    /// A short conflict of addresses, or a router that answers for everybody, was weeks ago.
    #[test]
    fn each_new_mac_address_answers_for_a_node_for_a_moment_whoever_did_before() {
        let mut neighbours = neighbours();
        let mut answered = |seconds, last| {
            let now = Timestamp::from_origin(Duration::from_secs(seconds));
            let sighting = sighting(2, "192.168.0.12", mac(last));
            !neighbours.answered(&sighting, &links(), now).is_empty()
        };
        assert!(answered(0, 12));
        assert!(answered(1, 99));
        assert!(answered(2, 12));
        assert!(!answered(80_000, 99), "it has had its moment");
        assert!(answered(80_001, 98), "a bond's other card has none yet");
        assert!(!answered(80_004, 98) && !answered(80_005, 99), "no second moment");
        let some = (100..120).filter(|last| answered(90_000, *last)).count();
        assert!(some < 10, "who changes its address all the time hides no death: {some}");
        assert!(answered(900_000, 150), "that was long ago");
    }

    #[test]
    fn addresses_that_are_not_in_use_are_not_named_and_ask_nobody() {
        use AddressState::{Deprecated, Duplicate, Preferred, Temporary, Tentative};
        let table = [
            (&[Preferred, Preferred][..], &["2001:db8::11"][..], Some("::11")),
            (&[Temporary, Preferred], &["2001:db8::12"], Some("::12")),
            (&[Deprecated, Temporary], &["2001:db8::12"], Some("::12")),
            (&[Tentative, Deprecated], &["2001:db8::12"], Some("::12")),
            (&[Tentative, Duplicate], &[], None),
        ];
        for (states, named, source) in table {
            let mut links = links();
            let addresses = ["2001:db8::11/64", "2001:db8::12/64"].into_iter().zip(states);
            links.interfaces[1].addresses = addresses
                .map(|(net, state)| Address {
                    state: *state,
                    ..net.parse::<IpNet>().unwrap().into()
                })
                .collect();
            let found: Vec<String> = own_links(&links, &Reach::default())
                .iter()
                .filter(|link| link.mac[5] == 2)
                .map(|link| link.address.to_string())
                .collect();
            assert_eq!(found, named, "{states:?}");
            let told = own_links(&links, &links.reach(&[]));
            assert!(told.iter().any(|link| link.mac[5] == 2), "{states:?}: it is no stranger's");
            let probe = neighbours().probe(&"node-3".into(), &links);
            let asks = probe.and_then(|it| it.source).map(|it| it.to_string());
            let source = source.map(|it| format!("2001:db8{it}"));
            assert_eq!(asks, source, "{states:?}");
        }
    }

    #[test]
    fn a_mac_address_is_shared_with_another_machine_in_the_same_subnet() {
        let table = [
            ("192.168.0.12", 2, true),
            ("192.168.0.12", 1, false),
            ("10.0.0.12", 2, false),
            ("192.168.0.11", 2, false),
        ];
        for (address, last, expected) in table {
            let shared = shared_mac(&[link(address, last)], &links());
            assert_eq!(shared, expected.then(|| mac(last)), "{address} {last}");
        }
    }

    #[test]
    fn gateways_are_asked_and_recognised_whatever_their_mac() {
        let probes = neighbours().gateway_probes(&links(), at(0));
        let asked: Vec<_> = probes.iter().map(|it| (it.interface, it.source, it.to)).collect();
        let source = |text: &str| text.parse().ok();
        assert_eq!(asked, [(2, source("192.168.0.11"), None), (2, source("fe80::11"), None)]);
        let answered = |interface, gateway| {
            neighbours().answered(&sighting(interface, gateway, mac(77)), &links(), at(0))
        };
        for gateway in ["192.168.0.1", GATEWAY_V6] {
            assert_eq!(answered(2, gateway), [Event::GatewayAnswered("eth2".into())]);
            assert_eq!(answered(1, gateway), [], "another machine on another segment");
        }
    }

    /// A node has a radio or a way out on another side, and routes for the others.
    #[test]
    fn a_node_that_is_the_gateway_of_others_answers_as_both() {
        let mut neighbours = Neighbours::default();
        neighbours.learn("node-1".into(), vec![link("192.168.0.1", 60)], true);
        let mut answered = |interface, mac| {
            neighbours.answered(&sighting(interface, "192.168.0.1", mac), &links(), at(0))
        };
        // As the node first, so that it does not count as somebody else who is heard while the node is missed.
        let gateway = || Event::GatewayAnswered("eth2".into());
        let both = [Event::NodeAnswered("node-1".into()), gateway()];
        assert_eq!(answered(2, mac(60)), both);
        assert_eq!(answered(2, mac(61)), [gateway()], "another router has its place");
        assert_eq!(answered(1, mac(60)), [], "another machine on another segment");
    }

    #[test]
    fn answers_are_awaited_only_from_the_interfaces_own_subnets() {
        let links = links();
        let awaited = neighbours().awaited(&links.interfaces[1], &links);
        let expected = ["192.168.0.1", "192.168.0.12", GATEWAY_V6, "2001:db8::12", "2001:db8::13"];
        assert_eq!(awaited, expected.map(|text| text.parse().unwrap()).into());
    }

    #[test]
    fn an_interface_returns_when_it_was_gone_off_or_without_carrier_however_short() {
        let changed = |change: fn(&mut Interface)| {
            let mut links = links();
            links.interfaces.iter_mut().skip(1).for_each(change);
            links
        };
        let many = |count| {
            let mut links = changed(|it| it.only_cable = None);
            links.interfaces[1].carrier_ups = count;
            links
        };
        let table = [
            (links(), links(), &[][..]),
            (changed(|it| it.carrier = false), links(), &["eth2"]),
            (changed(|it| it.up = false), links(), &["eth2"]),
            (changed(|it| it.carrier_ups = 0), links(), &["eth2"]),
            (changed(|it| it.addresses.clear()), links(), &[]),
            (Links::default(), links(), &["eth1", "eth2"]),
            // A cable goes on when another one is put in, or taken out.
            (links(), many(7), &[]),
            (many(7), links(), &[]),
            (many(7), many(8), &["eth2"]),
            // Its only cable is another one than before: it had none meanwhile.
            (changed(|it| it.only_cable = Some(77)), links(), &["eth2"]),
        ];
        for (before, now, expected) in table {
            let names: Vec<&str> = returned(&before, &now).map(|it| it.name.as_str()).collect();
            assert_eq!(names, expected, "{before:?} {now:?}");
        }
        let gone = changed(|it| it.carrier = false);
        assert_eq!(returned(&links(), &gone).count(), 0, "it is gone, and has not returned");
    }
}

//! Who is who on the wire.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use arpeggio_api::session::LinkAddress;
use arpeggio_election::{Event, Node};
use arpeggio_link::interfaces::{Family, Interface, Links};
use arpeggio_wire::{Asker, Claim, MacAddr, Question};
use ipnet::IpNet;

/// A session names at most this many addresses; the first one that another node can reach is used.
const MOST_LINK_ADDRESSES: usize = 8;

/// What the sessions say about where nodes are found, and what this node's routes say about gateways.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    nodes: BTreeMap<Node, Vec<LinkAddress>>,
}

/// A question to one neighbour, and the interface to ask it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probe {
    /// The interface's index.
    pub(crate) interface: u32,
    /// The question, with this node as the asker.
    pub(crate) question: Question<Ipv4Addr>,
    /// Whom to ask.
    pub(crate) to: MacAddr,
}

impl Neighbours {
    pub(crate) fn learn(&mut self, node: Node, links: Vec<LinkAddress>) {
        self.nodes.insert(node, links);
    }

    pub(crate) fn forget(&mut self, node: &Node) {
        self.nodes.remove(node);
    }

    /// The node that has an interface with this MAC address.
    pub(crate) fn node_at(&self, mac: MacAddr) -> Option<&Node> {
        let mac = mac.octets();
        let has = |links: &Vec<LinkAddress>| links.iter().any(|link| link.mac == mac);
        self.nodes.iter().find(|(_, links)| has(links)).map(|(node, _)| node)
    }

    /// What a reply on the wire proves. A reply in a node's name from another MAC address (proxy ARP) proves nothing.
    pub(crate) fn answered(&self, claim: Claim<Ipv4Addr>, links: &Links) -> Option<Event> {
        if gateways(links).any(|gateway| gateway == claim.address) {
            return Some(Event::GatewayAnswered);
        }
        let is = |link: &LinkAddress| {
            link.address == IpAddr::V4(claim.address) && link.mac == claim.mac.octets()
        };
        let node = self.nodes.iter().find(|(_, links)| links.iter().any(is))?.0;
        Some(Event::NodeAnswered(node.clone()))
    }

    /// How to ask `node` for its own address; `None` when no interface here shares a subnet with it.
    pub(crate) fn probe(&self, node: &Node, links: &Links) -> Option<Probe> {
        let addresses = self.nodes.get(node)?.iter().filter_map(|link| Some((v4(link)?, link.mac)));
        addresses.into_iter().find_map(|(address, mac)| {
            let interface = on_link(links, address)?;
            let question = question(interface, address)?;
            Some(Probe { interface: interface.index, question, to: mac.into() })
        })
    }

    /// The addresses whose answers are awaited on one interface.
    pub(crate) fn awaited(&self, interface: &Interface, links: &Links) -> BTreeSet<Ipv4Addr> {
        let nodes = self.nodes.values().flatten().filter_map(v4);
        nodes.chain(gateways(links)).filter(|address| contains(interface, *address)).collect()
    }
}

/// How to ask for the default gateways: by broadcast, since their MAC addresses are nobody's promise.
pub(crate) fn gateway_probes(links: &Links) -> Vec<Probe> {
    let probe = |gateway| {
        let interface = on_link(links, gateway)?;
        let question = question(interface, gateway)?;
        Some(Probe { interface: interface.index, question, to: MacAddr::broadcast() })
    };
    gateways(links).filter_map(probe).collect()
}

/// Where this node is found: on the interface of the default route first, since other subnets may exist on every node
/// without being one segment (a container bridge, for instance).
pub(crate) fn own_addresses(links: &Links) -> Vec<LinkAddress> {
    let preferred: Vec<u32> = links.default_routes.iter().map(|route| route.interface).collect();
    let mut usable: Vec<&Interface> = links.interfaces.iter().filter(|it| is_segment(it)).collect();
    usable.sort_by_key(|it| (!preferred.contains(&it.index), it.index));
    let of = |interface: &Interface| {
        let mac = interface.mac().map(|mac| mac.octets());
        let addresses = interface.addresses.iter().map(IpNet::addr);
        let addresses: Vec<IpAddr> = addresses.filter(IpAddr::is_ipv4).collect();
        addresses.into_iter().filter_map(move |address| Some(LinkAddress { address, mac: mac? }))
    };
    usable.into_iter().flat_map(of).take(MOST_LINK_ADDRESSES).collect()
}

/// Whether neighbours can be found on an interface by ARP now.
pub(crate) fn is_segment(interface: &Interface) -> bool {
    let has_neighbours = |net: &IpNet| net.addr().is_ipv4() && net.prefix_len() < 32;
    interface.flaw().is_none() && interface.addresses.iter().any(has_neighbours)
}

fn question(interface: &Interface, address: Ipv4Addr) -> Option<Question<Ipv4Addr>> {
    let asker = Asker { mac: interface.mac()?, address: interface.source_for(address) };
    Some(Question { address, asker })
}

fn on_link(links: &Links, address: Ipv4Addr) -> Option<&Interface> {
    links.interfaces.iter().find(|it| is_segment(it) && contains(it, address))
}

fn contains(interface: &Interface, address: Ipv4Addr) -> bool {
    let address = IpAddr::V4(address);
    interface.addresses.iter().any(|net| net.contains(&address) && net.addr() != address)
}

fn gateways(links: &Links) -> impl Iterator<Item = Ipv4Addr> {
    let routes = links.default_routes.iter().filter(|route| route.family == Family::V4);
    routes.filter_map(|route| match route.gateway {
        Some(IpAddr::V4(gateway)) => Some(gateway),
        Some(IpAddr::V6(_)) | None => None,
    })
}

fn v4(link: &LinkAddress) -> Option<Ipv4Addr> {
    match link.address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use arpeggio_link::interfaces::{DefaultRoute, Medium};

    use super::*;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);

    fn mac(last: u8) -> MacAddr {
        MacAddr(2, 0, 0, 0, 0, last)
    }

    fn interface(index: u32, net: &str) -> Interface {
        Interface {
            index,
            name: format!("eth{index}"),
            medium: Medium::Ethernet(mac(u8::try_from(index).unwrap())),
            kind: None,
            member_of: None,
            up: true,
            carrier: true,
            addresses: vec![net.parse().unwrap()],
        }
    }

    /// A container bridge that every node has, and the segment with the default route.
    fn links() -> Links {
        Links {
            interfaces: vec![interface(1, "172.17.0.1/16"), interface(2, "192.168.0.11/24")],
            default_routes: vec![DefaultRoute {
                family: Family::V4,
                interface: 2,
                gateway: Some(GATEWAY.into()),
                metric: 0,
            }],
        }
    }

    fn neighbours() -> Neighbours {
        let mut neighbours = Neighbours::default();
        let link = |text: &str, last| LinkAddress {
            address: text.parse().unwrap(),
            mac: mac(last).octets(),
        };
        let addresses = vec![link("192.168.0.12", 12), link("172.17.0.1", 13)];
        neighbours.learn("node-2".into(), addresses);
        neighbours
    }

    #[test]
    fn a_node_is_found_on_the_segment_that_both_share() {
        let probe = neighbours().probe(&"node-2".into(), &links()).unwrap();
        assert_eq!((probe.interface, probe.to), (2, mac(12)));
        assert_eq!(probe.question.address, Ipv4Addr::new(192, 168, 0, 12));
        assert_eq!(probe.question.asker.address, Some(Ipv4Addr::new(192, 168, 0, 11)));
    }

    #[test]
    fn this_node_names_the_interface_of_the_default_route_first() {
        let addresses: Vec<String> =
            own_addresses(&links()).iter().map(|link| link.address.to_string()).collect();
        assert_eq!(addresses, ["192.168.0.11", "172.17.0.1"]);
    }

    #[test]
    fn only_the_nodes_own_mac_proves_that_it_answers() {
        let answered = |mac| {
            let claim = Claim { address: Ipv4Addr::new(192, 168, 0, 12), mac };
            neighbours().answered(claim, &links())
        };
        assert_eq!(answered(mac(12)), Some(Event::NodeAnswered("node-2".into())));
        assert_eq!(answered(mac(99)), None);
    }

    #[test]
    fn gateways_are_asked_and_recognised_whatever_their_mac() {
        let probes = gateway_probes(&links());
        assert_eq!(probes.len(), 1);
        assert_eq!((probes[0].interface, probes[0].to), (2, MacAddr::broadcast()));
        let claim = Claim { address: GATEWAY, mac: mac(77) };
        assert_eq!(neighbours().answered(claim, &links()), Some(Event::GatewayAnswered));
    }

    #[test]
    fn answers_are_awaited_only_from_the_interfaces_own_subnet() {
        let links = links();
        let awaited = neighbours().awaited(&links.interfaces[1], &links);
        assert_eq!(awaited, [GATEWAY, Ipv4Addr::new(192, 168, 0, 12)].into());
    }
}

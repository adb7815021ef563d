//! Spread: before conntrack, on the devices where an address comes in.

use std::{collections::BTreeMap, net::IpAddr};

use arpeggio_forwarding::{Hop, Plan, PlannedAddress, Port, Protocol, Spread, SpreadBy, Way};
use arpeggio_netfilter::{Chain, Data, Expression, Field, Hook, Rule, SetValue, Verdict};

use super::{
    compile::{Division, FELLOWS, Filling},
    counting::Counting,
    here::Here,
    prerouting::port_key,
    steps::{self, Version, rule},
};

/// Before other programs' rules that have the usual priority 0.
const PRIORITY: i32 = -150;

/// The table of the devices.
pub(super) fn fill(plan: &Plan, here: &Here) -> Filling {
    let mut table = Making { filling: Filling::default(), here };
    for (address, planned) in
        plan.addresses.iter().filter(|(_, planned)| !planned.spread.is_empty())
    {
        let entrances: Vec<_> =
            planned.interfaces.iter().flat_map(|it| entrances(it, here)).collect();
        if !entrances.is_empty() {
            table.address(*address, planned);
            entrances.iter().for_each(|entrance| table.comes_in(*address, entrance));
        }
    }
    table.filling
}

/// A device by which frames for this node come in.
struct Entrance<'a> {
    device: &'a str,
    index: u32,
    /// What tells that a frame is for this node.
    is_ours: Vec<Expression>,
}

/// Those by which frames of an interface come in: itself, and the ports of a bridge. Frames between its ports are not ours.
fn entrances<'a>(interface: &'a str, here: &'a Here) -> Vec<Entrance<'a>> {
    let Some(index) = here.devices.get(interface).copied() else { return Vec::new() };
    let itself = Entrance { device: interface, index, is_ours: steps::for_this_node() };
    let ports = here.bridges.get(interface).into_iter().flat_map(|bridge| {
        let port = |(device, index): (&'a String, &u32)| Entrance {
            device,
            index: *index,
            is_ours: steps::for_mac(bridge.mac),
        };
        bridge.ports.iter().map(port)
    });
    [itself].into_iter().chain(ports).collect()
}

struct Making<'a> {
    filling: Filling,
    here: &'a Here,
}

impl Making<'_> {
    /// The base chain of a device has an address.
    fn comes_in(&mut self, address: IpAddr, entrance: &Entrance<'_>) {
        let Entrance { device, index, ref is_ours } = *entrance;
        let version = Version::of(address);
        let map = format!("{} {device}", version.name());
        let verdict = Data::Verdict(Verdict::Goto(format!("address {address}")));
        let addresses = self.filling.set(&map, &[version.field()], SetValue::Verdict);
        addresses.insert(steps::octets(address), verdict);

        let hook = Hook::Ingress { device: device.to_owned(), index, priority: PRIORITY };
        let chains = &mut self.filling.contents.chains;
        let chain = chains.entry(format!("ingress {device}")).or_default();
        chain.hook = Some(hook);
        let by_destination = steps::by_destination(version, &map);
        let rule = rule([steps::untagged(version), is_ours.clone(), by_destination]);
        if !chain.rules.contains(&rule) {
            chain.rules.push(rule);
        }
    }

    fn address(&mut self, address: IpAddr, planned: &PlannedAddress) {
        let version = Version::of(address);
        let ports = format!("ports {}", version.name());
        let fragments = format!("fragments {address}");
        let key = [version.field(), Field::Protocol, Field::Port];
        // Rules name it also where all buckets stay.
        self.nodes(version);
        let mut first_maps = BTreeMap::new();
        for (port, spread) in &planned.spread {
            let first = self.buckets(address, format!("first {address} {port}"), &spread.first);
            let quic = planned.quic.contains(&port.number);
            let chain = self.port((address, *port), spread, &first, quic);
            let elements = self.filling.set(&ports, &key, SetValue::Verdict);
            elements.insert(port_key(address, *port), Data::Verdict(Verdict::Goto(chain)));
            first_maps.insert(*port, first);
        }
        let of_udp = fragments_of_udp(version, planned, &first_maps);
        self.chain(&fragments, of_udp.into_iter().collect());
        let rules = vec![
            rule([steps::from_fellow(FELLOWS), steps::accept()]),
            rule([steps::fragment(version), steps::goto(&fragments)]),
            steps::by_port(version, &ports),
        ];
        self.chain(&format!("address {address}"), rules);
    }

    /// The chain of a spread port.
    fn port(
        &mut self,
        (address, port): (IpAddr, Port),
        spread: &Spread,
        first: &str,
        quic: bool,
    ) -> String {
        let version = Version::of(address);
        let (begins, goes_on) = kinds(port.protocol, quic);
        let mut rules = vec![rule([begins, steps::by_bucket(version, spread, first)])];
        if let Some(goes_on) = goes_on {
            let others = self.buckets(address, format!("others {address} {port}"), &spread.others);
            rules.push(rule([goes_on, steps::by_bucket(version, spread, &others)]));
        }
        let stayed = self.filling.counter(Counting::Stayed(address));
        rules.push(vec![Expression::NamedCounter(stayed)]);
        let name = format!("port {address} {port}");
        self.chain(&name, rules);
        name
    }

    /// A map from buckets to nodes, by their MAC addresses. For each of them there is a chain that sends frames for the address to it.
    fn buckets(&mut self, address: IpAddr, name: String, ways: &[Way]) -> String {
        let mut nodes = Vec::new();
        let division = Division::of(ways, &self.here.devices, |hop, device| {
            nodes.push((hop, device));
            hop.mac.to_vec()
        });
        for (hop, device) in nodes {
            self.to(address, hop, device);
        }
        self.filling.buckets(name, &[Field::Mac], division)
    }

    fn to(&mut self, address: IpAddr, hop: &Hop, device: u32) {
        let version = Version::of(address);
        let counter = Counting::spread(address, hop);
        let name = counter.name();
        if !self.filling.contents.chains.contains_key(&name) {
            let counter = self.filling.counter(counter);
            self.chain(&name, vec![steps::readdress(hop.mac, hop.own_mac, device, &counter)]);
            let of_address = [steps::octets(address), hop.mac.to_vec(), vec![0; 2]].concat();
            self.nodes(version).insert(of_address, Data::Verdict(Verdict::Goto(name)));
        }
    }

    /// By an address and a node: the chain that sends frames there.
    fn nodes(&mut self, version: Version) -> &mut BTreeMap<Vec<u8>, Data> {
        let key = [version.field(), Field::Mac];
        self.filling.set(&steps::nodes_map(version), &key, SetValue::Verdict)
    }

    fn chain(&mut self, name: &str, rules: Vec<Rule>) {
        self.filling.contents.chains.insert(name.to_owned(), Chain { hook: None, rules });
    }
}

/// What begins a connection, and what goes on with one, where that can be told.
fn kinds(protocol: Protocol, quic: bool) -> (Vec<Expression>, Option<Vec<Expression>>) {
    match (protocol, quic) {
        (Protocol::Tcp, _) => (steps::tcp_first(), Some(steps::tcp_other())),
        (Protocol::Udp, true) => (steps::quic_first(), Some(steps::quic_other())),
        (Protocol::Udp, false) => (Vec::new(), None),
    }
}

/// Only the first of several parts of a datagram has a port. So all parts go where the first UDP port of the address would have them
/// go, which the client's address alone decides.
fn fragments_of_udp(
    version: Version,
    planned: &PlannedAddress,
    first_maps: &BTreeMap<Port, String>,
) -> Option<Rule> {
    let mut ports = planned.spread.iter();
    let (port, spread) = ports
        .find(|(port, spread)| port.protocol == Protocol::Udp && spread.by == SpreadBy::Client)?;
    let udp = steps::protocol(steps::number_of(Protocol::Udp));
    Some(rule([udp, steps::by_bucket(version, spread, first_maps.get(port)?)]))
}

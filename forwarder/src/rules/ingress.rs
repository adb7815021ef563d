//! Spread: before conntrack, on the devices where an address comes in.

use std::{collections::BTreeMap, net::IpAddr};

use arpeggio_forwarding::{Hop, Plan, PlannedAddress, Port, Protocol, Spread, SpreadBy, Way};
use arpeggio_netfilter::{Chain, Data, Expression, Field, Hook, Rule, SetValue, Verdict};

use super::{
    compile::{FELLOWS, Filling, hop},
    counting::Counting,
    prerouting::port_key,
    steps::{self, Version, rule},
};

/// Before other programs' rules that have the usual priority 0.
const PRIORITY: i32 = -150;

/// The table of the devices.
pub(super) fn fill(plan: &Plan, devices: &BTreeMap<String, u32>) -> Filling {
    let mut table = Making { filling: Filling::default(), devices };
    for (address, planned) in
        plan.addresses.iter().filter(|(_, planned)| !planned.spread.is_empty())
    {
        let here: Vec<_> =
            planned.interfaces.iter().filter(|name| devices.contains_key(*name)).collect();
        if !here.is_empty() {
            table.address(*address, planned);
            here.into_iter().for_each(|device| table.comes_in(*address, device));
        }
    }
    table.filling
}

struct Making<'a> {
    filling: Filling,
    devices: &'a BTreeMap<String, u32>,
}

impl Making<'_> {
    /// The base chain of a device has an address.
    fn comes_in(&mut self, address: IpAddr, device: &str) {
        let version = Version::of(address);
        let map = format!("{} {device}", version.name());
        let verdict = Data::Verdict(Verdict::Goto(format!("address {address}")));
        let addresses = self.filling.set(&map, &[version.field()], SetValue::Verdict);
        addresses.insert(steps::octets(address), verdict);

        let index = self.devices[device];
        let hook = Hook::Ingress { device: device.to_owned(), index, priority: PRIORITY };
        let chains = &mut self.filling.contents.chains;
        let chain = chains.entry(format!("ingress {device}")).or_default();
        chain.hook = Some(hook);
        let rule = rule([steps::untagged(version), steps::by_destination(version, &map)]);
        if !chain.rules.contains(&rule) {
            chain.rules.push(rule);
        }
    }

    fn address(&mut self, address: IpAddr, planned: &PlannedAddress) {
        let version = Version::of(address);
        let ports = format!("ports {}", version.name());
        let fragments = format!("fragments {address}");
        let key = [version.field(), Field::Protocol, Field::Port];
        for (port, spread) in &planned.spread {
            let chain = self.port(address, *port, spread, planned.quic.contains(&port.number));
            let elements = self.filling.set(&ports, &key, SetValue::Verdict);
            elements.insert(port_key(address, *port), Data::Verdict(Verdict::Goto(chain)));
        }
        self.chain(&fragments, fragments_of_udp(address, planned).into_iter().collect());
        let rules = vec![
            rule([steps::from_fellow(FELLOWS), steps::accept()]),
            rule([steps::fragment(version), steps::goto(&fragments)]),
            steps::by_port(version, &ports),
        ];
        self.chain(&format!("address {address}"), rules);
    }

    /// The chain of a spread port.
    fn port(&mut self, address: IpAddr, port: Port, spread: &Spread, quic: bool) -> String {
        let version = Version::of(address);
        let first = self.buckets(address, first_map(address, port), &spread.first);
        let (begins, goes_on) = kinds(port.protocol, quic);
        let mut rules = vec![rule([begins, steps::by_bucket(version, spread, &first)])];
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

    /// A verdict map from buckets to nodes.
    fn buckets(&mut self, address: IpAddr, name: String, ways: &[Way]) -> String {
        let mut elements = Vec::new();
        for (bucket, way) in (0_u32..).zip(ways) {
            if let Some((hop, device)) = hop(way, self.devices) {
                let chain = self.to(address, hop, device);
                elements.push((bucket.to_ne_bytes().to_vec(), Data::Verdict(Verdict::Goto(chain))));
            }
        }
        self.filling.set(&name, &[Field::Number], SetValue::Verdict).extend(elements);
        name
    }

    /// The chain that sends frames to another node.
    fn to(&mut self, address: IpAddr, hop: &Hop, device: u32) -> String {
        let counter = Counting::spread(address, hop);
        let name = counter.name();
        if !self.filling.contents.chains.contains_key(&name) {
            let counter = self.filling.counter(counter);
            self.chain(&name, vec![steps::readdress(hop.mac, hop.own_mac, device, &counter)]);
        }
        name
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

fn first_map(address: IpAddr, port: Port) -> String {
    format!("first {address} {port}")
}

/// Only the first of several parts of a datagram has a port. So all parts go where the first UDP port of the address would have them
/// go, which the client's address alone decides.
fn fragments_of_udp(address: IpAddr, planned: &PlannedAddress) -> Option<Rule> {
    let mut ports = planned.spread.iter();
    let (port, spread) = ports
        .find(|(port, spread)| port.protocol == Protocol::Udp && spread.by == SpreadBy::Client)?;
    let udp = steps::protocol(steps::number_of(Protocol::Udp));
    Some(rule([udp, steps::by_bucket(Version::of(address), spread, &first_map(address, *port))]))
}

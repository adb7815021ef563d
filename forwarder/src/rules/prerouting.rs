//! What conntrack does not know: between conntrack and the translation to a backend.

use std::net::IpAddr;

use arpeggio_forwarding::{Passing, Plan, PlannedAddress, Port, Reset, Spread, Way};
use arpeggio_netfilter::{Chain, Data, Expression, Field, Hook, Rule, SetValue, Verdict};

use super::{
    compile::{Division, FELLOWS, Filling, hop},
    counting::Counting,
    here::Here,
    steps::{self, Version, rule},
};

/// Behind conntrack (-200), before the translation of destinations (-100).
const PRIORITY: i32 = -150;
const ADDRESSES: &str = "addresses";
const PORTS: &str = "ports";
const QUIC: &str = "quic";

/// The table of one version of IP.
pub(super) fn fill(plan: &Plan, version: Version, here: &Here) -> Filling {
    let mut table = Making { filling: Filling::default(), version, here };
    let of_version = plan.addresses.iter().filter(|(address, _)| Version::of(**address) == version);
    for (address, planned) in of_version {
        table.address(*address, planned);
    }
    if !table.filling.contents.chains.is_empty() {
        let hook = Some(Hook::Prerouting { priority: PRIORITY });
        let rules = vec![steps::by_destination(version, ADDRESSES)];
        table.filling.contents.chains.insert("prerouting".to_owned(), Chain { hook, rules });
    }
    table.filling
}

struct Making<'a> {
    filling: Filling,
    version: Version,
    here: &'a Here,
}

impl Making<'_> {
    fn address(&mut self, address: IpAddr, planned: &PlannedAddress) {
        let pass = self.pass(address, planned);
        let mut spread = false;
        for (port, of_port) in &planned.spread {
            spread |= self.port(address, *port, of_port, planned.reset == Reset::Everything);
        }
        if pass.is_none() && !spread {
            return;
        }
        let rules = self.rules_of_address(address, planned, pass.as_deref(), spread);
        let name = format!("address {address}");
        self.chain(&name, rules);
        let addresses = self.filling.set(ADDRESSES, &[self.version.field()], SetValue::Verdict);
        addresses.insert(steps::octets(address), Data::Verdict(Verdict::Goto(name)));
    }

    fn rules_of_address(
        &mut self,
        address: IpAddr,
        planned: &PlannedAddress,
        pass: Option<&str>,
        spread: bool,
    ) -> Vec<Rule> {
        let mut rules = vec![rule([steps::known_to_conntrack(), steps::accept()])];
        if !self.here.strict {
            rules.push(rule([steps::tcp_that_does_not_fit(), steps::mark(self.version)]));
        }
        let mut kinds = vec![steps::tcp_other()];
        if !planned.quic.is_empty() {
            self.quic(address, planned);
            kinds.push(rule([steps::quic_other(), steps::to_port_in(self.version, QUIC)]));
        }
        if spread {
            rules.extend(
                kinds.iter().map(|kind| rule([kind.clone(), steps::by_port(self.version, PORTS)])),
            );
        }
        if let Some(pass) = pass {
            kinds.extend(steps::icmp_errors(self.version));
            rules.extend(kinds.into_iter().map(|kind| rule([kind, steps::goto(pass)])));
        }
        rules
    }

    fn quic(&mut self, address: IpAddr, planned: &PlannedAddress) {
        let key = [self.version.field(), Field::Port];
        let ports = self.filling.set(QUIC, &key, SetValue::Nothing);
        ports.extend(planned.quic.iter().map(|port| {
            let port = [port.to_be_bytes(), [0; 2]].concat();
            ([steps::octets(address), port].concat(), Data::Nothing)
        }));
    }

    /// The chain for what is passed on whatever the bucket. `None`: all of it stays.
    fn pass(&mut self, address: IpAddr, planned: &PlannedAddress) -> Option<String> {
        let Passing { from_outside, from_fellow } = &planned.passing;
        let given = steps::from_fellow(FELLOWS);
        let from_fellow = self.way(&given, from_fellow, Counting::PassedFromFellow(address));
        let from_outside = self.way(&[], from_outside, Counting::PassedFromOutside(address));
        if from_fellow.is_none() && from_outside.is_none() && planned.reset == Reset::Nothing {
            return None;
        }
        let resets_given = planned.reset != Reset::Nothing;
        let mut rules =
            from_fellow.unwrap_or_else(|| self.stays(&given, address, resets_given).into());
        let resets_all = planned.reset == Reset::Everything;
        rules.extend(from_outside.unwrap_or_else(|| self.stays(&[], address, resets_all).into()));
        let name = format!("pass {address}");
        self.chain(&name, rules);
        Some(name)
    }

    /// What becomes of packets that are not passed on.
    fn stays(&mut self, which: &[Expression], address: IpAddr, reset: bool) -> [Rule; 2] {
        if !reset {
            return steps::stays(self.version, which, steps::accept());
        }
        let counter = self.filling.counter(Counting::Reset(address));
        let name = format!("reset {address}");
        self.chain(&name, vec![steps::reset(&counter)]);
        steps::stays(self.version, which, steps::goto(&name))
    }

    /// The rules for packets that go this way, by what tells which these are.
    fn way(&mut self, which: &[Expression], way: &Way, counting: Counting) -> Option<Vec<Rule>> {
        let (hop, device) = hop(way, &self.here.devices)?;
        let counter = self.filling.counter(counting);
        Some(steps::pass(self.version, which, (hop, device), &counter))
    }

    /// The chain of a spread port. `false`: there is none, since all of it stays.
    fn port(&mut self, address: IpAddr, port: Port, spread: &Spread, reset: bool) -> bool {
        let others = self.buckets(format!("others {address} {port}"), &spread.others);
        let below = self.buckets(format!("below {address} {port}"), &spread.below);
        if others.is_none() && below.is_none() {
            return false;
        }
        let mut pass = |map: &String, counting| {
            let counter = self.filling.counter(counting);
            let unmarked = Some(unmarked_name(map)).filter(|set| self.filling.has_set(set));
            steps::pass_by_bucket(self.version, spread, (map, unmarked), &counter)
        };
        let further = below.iter().flat_map(|map| pass(map, Counting::PassedFromFellow(address)));
        let further: Vec<_> = further.collect();
        let outside: Vec<_> = others
            .iter()
            .chain(&below)
            .flat_map(|map| pass(map, Counting::PassedFromOutside(address)))
            .collect();
        let stays = self.stays(&[], address, reset);
        let below = format!("below {address} {port}");
        self.chain(&below, further.into_iter().chain(stays.clone()).collect());
        let mut rules = vec![rule([steps::from_fellow(FELLOWS), steps::goto(&below)])];
        rules.extend(outside.into_iter().chain(stays));
        let name = format!("port {address} {port}");
        self.chain(&name, rules);
        let key = [self.version.field(), Field::Protocol, Field::Port];
        let ports = self.filling.set(PORTS, &key, SetValue::Verdict);
        ports.insert(port_key(address, port), Data::Verdict(Verdict::Goto(name)));
        true
    }

    /// A map from buckets to next hops. `None`: all stay.
    fn buckets(&mut self, name: String, ways: &[Way]) -> Option<String> {
        let division = Division::of(ways, &self.here.devices, |hop, device| {
            [steps::octets(hop.next_hop), device.to_ne_bytes().to_vec()].concat()
        });
        let value = [self.version.field(), Field::Device];
        if division.is_empty() {
            return None;
        }
        let map = self.filling.buckets(name, &value, division);
        self.unmarked(&map, ways);
        Some(map)
    }

    /// The set of the buckets of a map whose nodes do not know the mark. There is none where all know it. It is no lookup of the next hop,
    /// since nft 1.0.6 lists no rule that looks up what comes from a map.
    fn unmarked(&mut self, map: &str, ways: &[Way]) {
        let is_such =
            |way: &Way| hop(way, &self.here.devices).is_some_and(|(hop, _)| !hop.knows_mark);
        let such = (0_u32..).zip(ways).filter(|(_, way)| is_such(way));
        let buckets: Vec<_> =
            such.map(|(bucket, _)| (bucket.to_ne_bytes().to_vec(), Data::Nothing)).collect();
        if !buckets.is_empty() {
            let set = self.filling.set(&unmarked_name(map), &[Field::Number], SetValue::Nothing);
            set.extend(buckets);
        }
    }

    fn chain(&mut self, name: &str, rules: Vec<Rule>) {
        self.filling.contents.chains.insert(name.to_owned(), Chain { hook: None, rules });
    }
}

fn unmarked_name(map: &str) -> String {
    format!("unmarked {map}")
}

/// Address, protocol and port, each filled up to four bytes.
pub(super) fn port_key(address: IpAddr, port: Port) -> Vec<u8> {
    let [high, low] = port.number.to_be_bytes();
    let protocol = steps::number_of(port.protocol);
    [steps::octets(address), vec![protocol, 0, 0, 0, high, low, 0, 0]].concat()
}

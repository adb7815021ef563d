//! Nodes on one segment, with one address, and what becomes of packets to it.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use arpeggio_election::{EndReason, Interface, Node, NodeFacts, Reach, Timestamp, Version};
use arpeggio_forwarding::{
    Address, Decision, Endpoints, Fellow, Forwarder, Forwarding, Kind, Known, Life, Mac,
    PlannedAddress, Port, Protocol, Service, Settings, Way, bucket, explain,
};

pub(crate) const KEEP: Duration = Duration::from_mins(5);
pub(crate) const PORT: Port = Port { protocol: Protocol::Tcp, number: 80 };
/// Of the router that all clients are behind.
const ROUTER: Mac = [2, 0, 0, 0, 0, 1];

pub(crate) fn address() -> IpAddr {
    IpAddr::from([192, 168, 0, 240])
}

pub(crate) fn name(n: usize) -> Node {
    Node::from(format!("node-{n}").as_str())
}

/// A node that lives, with a forwarder, on the segment.
pub(crate) fn fellow(n: usize) -> Fellow {
    let last = u8::try_from(11 + n).unwrap();
    let (own, mac) = (IpAddr::from([192, 168, 0, last]), [2, 0, 0, 0, 0, last]);
    let subnets = vec![format!("{own}/24").parse().unwrap()];
    let lan = Interface { name: "eth0".into(), subnets, ..Interface::default() };
    Fellow {
        life: Life::Live,
        reach: Reach { interfaces: vec![lan] },
        macs: BTreeMap::from([(own, mac)]),
        facts: Some(NodeFacts::default()),
        forwarder: Some(Forwarder::default()),
    }
}

/// A client's connection.
pub(crate) type Client = (IpAddr, u16);

pub(crate) fn client(n: u16) -> Client {
    let [high, low] = n.wrapping_mul(31).to_be_bytes();
    (IpAddr::from([10, 0, high, low]), 1024 + n.wrapping_mul(7))
}

/// One machine.
pub(crate) struct Machine {
    pub(crate) forwarding: Forwarding,
    pub(crate) decision: Decision,
    /// What it knows; perhaps not the latest.
    pub(crate) view: Known,
    /// The connections that its kernel knows.
    pub(crate) conntrack: BTreeSet<Client>,
}

/// Where a packet went.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) nodes: Vec<usize>,
    /// It came to its end.
    pub(crate) ended: bool,
}

impl Trace {
    pub(crate) fn end(&self) -> usize {
        *self.nodes.last().unwrap()
    }
}

pub(crate) struct Cluster {
    pub(crate) now: Timestamp,
    pub(crate) truth: Known,
    pub(crate) machines: Vec<Machine>,
    /// When each node was last the one that serves a connection.
    pub(crate) served: BTreeMap<(usize, Client), Timestamp>,
    version: u64,
}

impl Cluster {
    /// Of so many nodes. The first one holds the address.
    pub(crate) fn of(count: usize, spread: bool) -> Self {
        let nodes = (0..count).map(|n| (name(n), fellow(n))).collect();
        let about = Address {
            holder: Some(name(0)),
            spread,
            services: BTreeMap::from([(PORT, Service::default())]),
            ..Address::default()
        };
        let truth = Known { nodes, addresses: BTreeMap::from([(address(), about)]) };
        // Their forwarders have run for long.
        let now = Timestamp::from_origin(Duration::from_hours(1));
        let machine = |n| Machine {
            forwarding: Forwarding::new(name(n), Settings { keep: KEEP }, Timestamp::default()),
            decision: Decision::default(),
            view: truth.clone(),
            conntrack: BTreeSet::new(),
        };
        let machines = (0..count).map(machine).collect();
        let mut cluster = Self { now, truth, machines, served: BTreeMap::new(), version: 1 };
        cluster.tell_all();
        cluster
    }

    pub(crate) fn about(&mut self) -> &mut Address {
        self.truth.addresses.get_mut(&address()).unwrap()
    }

    pub(crate) fn fellow(&mut self, n: usize) -> &mut Fellow {
        self.truth.nodes.get_mut(&name(n)).unwrap()
    }

    pub(crate) fn lives(&self, n: usize) -> bool {
        self.truth.nodes[&name(n)].life == Life::Live
    }

    pub(crate) fn holder(&self) -> usize {
        let holder = self.truth.addresses[&address()].holder.clone();
        (0..self.machines.len()).find(|n| holder == Some(name(*n))).unwrap()
    }

    pub(crate) fn some_living(&self) -> Option<usize> {
        (0..self.machines.len()).find(|n| self.lives(*n))
    }

    /// The node hears of all that has happened.
    pub(crate) fn tell(&mut self, n: usize) {
        let machine = &mut self.machines[n];
        machine.view = self.truth.clone();
        machine.decision = machine.forwarding.decide(&machine.view, self.now);
    }

    pub(crate) fn tell_all(&mut self) {
        (0..self.machines.len())
            .filter(|n| self.lives(*n))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|n| self.tell(n));
    }

    /// The node has heard nothing new, but time has passed.
    pub(crate) fn ask_again(&mut self) {
        for machine in &mut self.machines {
            machine.decision = machine.forwarding.decide(&machine.view, self.now);
        }
    }

    /// The power is cut.
    pub(crate) fn kill(&mut self, n: usize) {
        let fellow = self.fellow(n);
        fellow.life = Life::Ended(EndReason::NodeSilent);
        fellow.forwarder = None;
        self.machines[n].conntrack.clear();
        if self.holder() == n
            && let Some(heir) = self.some_living()
        {
            self.about().holder = Some(name(heir));
        }
    }

    pub(crate) fn boot(&mut self, n: usize) {
        self.version += 1;
        let version = Version(self.version);
        self.fellow(n).life = Life::Live;
        self.fellow(n).forwarder = Some(Forwarder { version, ..Forwarder::default() });
        self.restart(n);
    }

    /// Its forwarder forgets.
    pub(crate) fn restart(&mut self, n: usize) {
        let settings = Settings { keep: KEEP };
        self.machines[n].forwarding = Forwarding::new(name(n), settings, self.now);
    }

    /// Its forwarder renews its Lease, and says what it counts.
    pub(crate) fn publish(&mut self, n: usize) {
        self.version += 1;
        let version = Version(self.version);
        let count = u32::try_from(self.machines[n].conntrack.len()).unwrap();
        let drain = self.machines[n].decision.draining.addresses.get(&address());
        let counted = drain.filter(|drain| drain.served || count > 0).map(|_| (address(), count));
        if let Some(forwarder) = self.fellow(n).forwarder.as_mut() {
            forwarder.connections = Some(counted.into_iter().collect());
            forwarder.version = version;
        }
    }

    pub(crate) fn weigh(&mut self, weights: &[u32]) {
        let weights = weights.iter().enumerate().map(|(n, weight)| (name(n), *weight));
        let endpoints = Endpoints::OnNodes(weights.collect());
        self.about().services.insert(PORT, Service { endpoints, ..Service::default() });
    }

    /// Remembers, for the judgement, who serves these connections now.
    pub(crate) fn note(&mut self, clients: &BTreeSet<Client>) {
        for client in clients {
            let server = explain(&self.truth, (address(), PORT), *client).node;
            let server = (0..self.machines.len()).find(|n| server == Some(name(*n)));
            if let Some(server) = server {
                self.served.insert((server, *client), self.now);
            }
        }
    }

    /// A client's packet comes in at a node, and is followed to its end, or for longer than it may take.
    pub(crate) fn send(&self, entry: usize, client: Client, kind: Kind) -> Trace {
        let mut trace = Trace { nodes: vec![entry], ended: false };
        let mut source = ROUTER;
        while trace.nodes.len() <= self.machines.len() + 2 {
            let machine = &self.machines[trace.end()];
            let Way::To(hop) = judged(machine, client, kind, source) else {
                trace.ended = true;
                break;
            };
            let next = (0..self.machines.len()).find(|n| name(*n) == hop.node).unwrap();
            source = hop.own_mac;
            trace.nodes.push(next);
        }
        trace
    }

    /// A client begins a connection.
    pub(crate) fn connect(&mut self, entry: usize, client: Client) -> Trace {
        let trace = self.send(entry, client, Kind::First);
        self.machines[trace.end()].conntrack.insert(client);
        trace
    }

    /// The nodes that know a connection, live, and were its server at some time that still counts.
    pub(crate) fn must_be_asked(&self, client: Client) -> Vec<usize> {
        let knows = |n: &usize| self.lives(*n) && self.machines[*n].conntrack.contains(&client);
        let counts =
            |n: &usize| self.served.get(&(*n, client)).is_some_and(|at| *at + KEEP > self.now);
        (0..self.machines.len()).filter(knows).filter(counts).collect()
    }
}

/// What a node's kernel does with a packet, by its plan: the words of the plan's documentation.
fn judged(machine: &Machine, client: Client, kind: Kind, source: Mac) -> Way {
    let is_known = machine.conntrack.contains(&client);
    let plan = &machine.decision.plan;
    let is_fellow = plan.fellows.contains(&source);
    let Some(planned) = plan.addresses.get(&address()) else { return Way::Local };
    let spread = planned.spread.get(&PORT).filter(|_| kind != Kind::IcmpError);
    let Some(spread) = spread else {
        return passed(planned, kind, is_known, is_fellow);
    };
    let bucket = usize::from(bucket(spread.by, spread.seed, client.0, client.1));
    let early = if kind == Kind::First { &spread.first[bucket] } else { &spread.others[bucket] };
    if !is_fellow && *early != Way::Local {
        return early.clone();
    }
    if kind == Kind::First || is_known { Way::Local } else { spread.below[bucket].clone() }
}

fn passed(planned: &PlannedAddress, kind: Kind, is_known: bool, is_fellow: bool) -> Way {
    if kind == Kind::First || is_known {
        return Way::Local;
    }
    let passing = &planned.passing;
    if is_fellow { passing.from_fellow.clone() } else { passing.from_outside.clone() }
}

//! Nodes on one segment, with one address, and what becomes of packets to it.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use arpeggio_election::{
    EndReason, Epoch, Interface, Node, NodeFacts, Reach, Renewal, Timestamp, Version,
};
use arpeggio_forwarding::{
    Address, Decision, Endpoints, Fellow, Forwarder, Forwarding, Kind, Known, Life, Mac,
    PlannedAddress, Port, Protocol, Reset, Service, Settings, Way, Wire, Written, bucket, explain,
};

pub(crate) const KEEP: Duration = Duration::from_mins(5);
/// Forwarders renew their Leases so often.
const RENEWAL: Duration = Duration::from_mins(1);
/// They look this often, at least, whether others have.
const LOOK: Duration = Duration::from_secs(5);
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
        epoch: Epoch(1),
        wire: Wire::default(),
        reach: Reach { interfaces: vec![lan] },
        macs: BTreeMap::from([(own, mac)]),
        facts: Some(NodeFacts::default()),
        forwarder: Some(Forwarder { knows_mark: true, ..Forwarder::default() }),
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
    /// The nodes in whose place its speaker announces, though the API server does not say so.
    pub(crate) silent: BTreeSet<Node>,
    /// The connections that its kernel knows.
    pub(crate) conntrack: BTreeSet<Client>,
    /// Since when its forwarder knows all that has moved.
    informed: Timestamp,
    /// It has power, and its cable is in.
    pub(crate) powered: bool,
    /// When its forwarder has renewed its Lease.
    pub(crate) renewed: Timestamp,
    /// Its forwarder runs: without it the kernel has no rules.
    pub(crate) runs: bool,
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
    /// When each node last held the address.
    held: BTreeMap<usize, Timestamp>,
    /// When a forwarder was last new, or the address was spread: more nodes may know a connection then than have held the address.
    many_may_know: Option<Timestamp>,
    writes: u32,
    /// The nodes know that the API server is away.
    pub(crate) deaf: bool,
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
        let addresses = BTreeMap::from([(address(), about)]);
        let truth = Known { nodes, addresses, deaf: false };
        // Their forwarders have run for long.
        let now = Timestamp::from_origin(Duration::from_hours(1));
        let machine = |n| Machine {
            forwarding: Forwarding::new(name(n), Settings { keep: KEEP }, Timestamp::default()),
            decision: Decision::default(),
            view: truth.clone(),
            silent: BTreeSet::new(),
            conntrack: BTreeSet::new(),
            informed: Timestamp::default(),
            powered: true,
            renewed: now,
            runs: true,
        };
        let machines = (0..count).map(machine).collect();
        let (served, held) = (BTreeMap::new(), BTreeMap::new());
        let mut cluster = Self {
            now,
            truth,
            machines,
            served,
            held,
            many_may_know: None,
            writes: 1,
            deaf: false,
        };
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
        self.machines[n].powered
    }

    /// Whether it reaches the API server.
    pub(crate) fn is_in_touch(&self, n: usize) -> bool {
        self.truth.nodes[&name(n)].life == Life::Live
    }

    pub(crate) fn holder(&self) -> usize {
        let holder = self.truth.addresses[&address()].holder.clone();
        (0..self.machines.len()).find(|n| holder == Some(name(*n))).unwrap()
    }

    pub(crate) fn some_living(&self) -> Option<usize> {
        (0..self.machines.len()).find(|n| self.is_in_touch(*n))
    }

    /// The node hears of all that has happened.
    pub(crate) fn tell(&mut self, n: usize) {
        self.machines[n].view = self.truth.clone();
        self.ask_wire(n);
    }

    pub(crate) fn tell_all(&mut self) {
        for n in 0..self.machines.len() {
            if self.is_in_touch(n) {
                self.tell(n);
            } else {
                self.ask_wire(n);
            }
        }
    }

    /// The nodes have heard nothing new, but time has passed.
    pub(crate) fn ask_again(&mut self) {
        (0..self.machines.len()).for_each(|n| self.ask_wire(n));
    }

    /// The node decides, asks those on the wire that it is to ask, and decides again.
    fn ask_wire(&mut self, n: usize) {
        for _ in 0..2 {
            let asked = self.machines[n].decision.ask.iter().map(|hop| &hop.node);
            let answers = |node: &Node| self.lives(self.index(node));
            let found = |node: &Node| {
                (node.clone(), if answers(node) { Wire::Answers } else { Wire::Silent })
            };
            let wire: BTreeMap<Node, Wire> = asked.map(found).collect();
            let machine = &mut self.machines[n];
            if !machine.runs {
                return;
            }
            let mut known = machine.view.asked(&wire).without(&machine.silent);
            known.deaf = self.deaf;
            machine.decision = machine.forwarding.decide(&known, self.now);
        }
    }

    fn index(&self, node: &Node) -> usize {
        (0..self.machines.len()).find(|n| name(*n) == *node).unwrap()
    }

    /// The power is cut. Of a node that is cut off already nobody can say so.
    pub(crate) fn kill(&mut self, n: usize) {
        if self.is_in_touch(n) {
            let fellow = self.fellow(n);
            fellow.life = Life::Ended(EndReason::NodeSilent);
            fellow.forwarder = None;
        }
        self.machines[n].conntrack.clear();
        self.machines[n].powered = false;
        self.replace(n);
    }

    /// It does not reach the API server any more, and its session is ended since it was not renewed; if there is anybody who ends it.
    pub(crate) fn cut_off(&mut self, n: usize) {
        if self.is_in_touch(n) && self.has_others(n) {
            self.fellow(n).life = Life::Ended(EndReason::Expired);
            self.replace(n);
        }
    }

    fn has_others(&self, n: usize) -> bool {
        (0..self.machines.len()).any(|other| other != n && self.is_in_touch(other))
    }

    /// Its pod is deleted, and takes back what it has said; the machine goes on. Where nobody takes over, nothing is to be kept.
    pub(crate) fn stop_pod(&mut self, n: usize) {
        if !self.is_in_touch(n) || !self.has_others(n) {
            return;
        }
        let fellow = self.fellow(n);
        fellow.life = Life::Ended(EndReason::Stopped);
        fellow.forwarder = None;
        let machine = &mut self.machines[n];
        (machine.runs, machine.decision) = (false, Decision::default());
        self.replace(n);
    }

    /// The power is cut, and nobody can say so but the speaker of the node that stands in for it, if it holds the address. Returns the
    /// node that announces the address then.
    pub(crate) fn kill_unnoticed(&mut self, n: usize, heir: usize) -> usize {
        self.machines[n].conntrack.clear();
        self.machines[n].powered = false;
        let holder = self.holder();
        if holder != n {
            return holder;
        }
        self.machines[heir].silent.insert(name(n));
        heir
    }

    /// Somebody who can takes over what it held.
    fn replace(&mut self, n: usize) {
        if self.holder() == n
            && let Some(heir) = self.some_living()
        {
            self.about().holder = Some(name(heir));
        }
    }

    /// It reaches the API server again, or has another pod, begins a session, and its forwarder renews its Lease.
    pub(crate) fn heal(&mut self, n: usize) {
        if !self.lives(n) || self.is_in_touch(n) {
            return;
        }
        if self.machines[n].runs {
            self.begin_session(n);
            self.begin_anew(n);
            self.publish(n);
        } else {
            self.boot(n);
        }
    }

    fn begin_anew(&mut self, n: usize) {
        self.machines[n].informed = self.now;
        self.many_may_know = Some(self.now);
    }

    fn begin_session(&mut self, n: usize) {
        let fellow = self.fellow(n);
        fellow.life = Life::Live;
        fellow.epoch = Epoch(fellow.epoch.0 + 1);
    }

    fn write(&mut self) -> Written {
        self.writes += 1;
        let renewal = Some(Renewal(self.writes.into()));
        Written { version: Version(self.writes.into()), renewal }
    }

    pub(crate) fn boot(&mut self, n: usize) {
        let written = self.write();
        self.machines[n].renewed = self.now;
        (self.machines[n].powered, self.machines[n].runs) = (true, true);
        self.begin_session(n);
        self.fellow(n).forwarder =
            Some(Forwarder { written, knows_mark: true, ..Forwarder::default() });
        self.restart(n);
    }

    /// Its forwarder forgets.
    pub(crate) fn restart(&mut self, n: usize) {
        let settings = Settings { keep: KEEP };
        self.machines[n].forwarding = Forwarding::new(name(n), settings, self.now);
        self.begin_anew(n);
    }

    /// Time passes, in which forwarders look whether others have renewed their Leases, and renew their own.
    pub(crate) fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.now = end.min(self.now + LOOK);
            let running = self.machines.iter_mut().filter(|machine| machine.runs);
            running.for_each(|it| _ = it.forwarding.hear(&it.view, self.deaf, self.now));
        }
        for n in 0..self.machines.len() {
            let machine = &self.machines[n];
            let is_due = machine.renewed + RENEWAL <= self.now;
            if is_due && machine.runs && machine.powered && self.is_in_touch(n) {
                self.publish(n);
            }
        }
    }

    /// Its forwarder renews its Lease, and says what it counts.
    pub(crate) fn publish(&mut self, n: usize) {
        let written = self.write();
        self.machines[n].renewed = self.now;
        let count = u32::try_from(self.machines[n].conntrack.len()).unwrap();
        let drain = self.machines[n].decision.draining.addresses.get(&address());
        let counted = drain.filter(|drain| drain.served || count > 0).map(|_| (address(), count));
        if let Some(forwarder) = self.fellow(n).forwarder.as_mut() {
            forwarder.connections = Some(counted.into_iter().collect());
            forwarder.written = written;
        }
    }

    pub(crate) fn weigh(&mut self, weights: &[u32]) {
        let weights = weights.iter().enumerate().map(|(n, weight)| (name(n), *weight));
        let endpoints = Endpoints::OnNodes(weights.collect());
        self.about().services.insert(PORT, Service { endpoints, ..Service::default() });
    }

    /// Remembers, for the judgement, who serves these connections now.
    pub(crate) fn note(&mut self, clients: &BTreeSet<Client>) {
        self.held.insert(self.holder(), self.now);
        if self.truth.addresses[&address()].spread {
            self.many_may_know = Some(self.now);
        }
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
            let way =
                if machine.powered { judged(machine, client, kind, source) } else { Way::Local };
            let Way::To(hop) = way else {
                trace.ended = true;
                break;
            };
            let next = (0..self.machines.len()).find(|n| name(*n) == hop.node).unwrap();
            source = hop.own_mac;
            trace.nodes.push(next);
        }
        trace
    }

    /// Whether a client whose packet went so is told what has become of its connection: it is known where the packet ended, or is reset
    /// there. Where the forwarder has just started, or is cut off from the API server, it does not know who served before, and a backend
    /// may have to tell.
    pub(crate) fn is_told(&self, client: Client, trace: &Trace) -> bool {
        let machine = &self.machines[trace.end()];
        if !self.is_in_touch(trace.end()) || self.still_counts(Some(&machine.informed)) {
            return trace.ended && machine.powered;
        }
        let planned = machine.decision.plan.addresses.get(&address());
        let is_reset = planned.is_some_and(|planned| match planned.reset {
            Reset::Nothing => false,
            Reset::FromFellow => trace.nodes.len() > 1,
            Reset::Everything => true,
        });
        trace.ended && machine.powered && (is_reset || machine.conntrack.contains(&client))
    }

    /// A client begins a connection.
    pub(crate) fn connect(&mut self, entry: usize, client: Client) -> Trace {
        let trace = self.send(entry, client, Kind::First);
        self.machines[trace.end()].conntrack.insert(client);
        trace
    }

    fn still_counts(&self, at: Option<&Timestamp>) -> bool {
        at.is_some_and(|at| *at + KEEP > self.now)
    }

    /// Whether a node was the one that serves a connection, at some time that still counts.
    pub(crate) fn has_served(&self, n: usize, client: Client) -> bool {
        self.still_counts(self.served.get(&(n, client)))
    }

    /// The nodes that know a connection, live, and were its server at some time that still counts. One that is cut off from the API
    /// server does not know what has moved since, so it is asked when nobody else may know the connection.
    pub(crate) fn must_be_asked(&self, client: Client) -> Vec<usize> {
        let knows = |n: &usize| self.lives(*n) && self.machines[*n].conntrack.contains(&client);
        let counts = |n: &usize| self.has_served(*n, client);
        let all = 0..self.machines.len();
        let others = |n: usize| {
            let mut others = all.clone().filter(|it| ![n, self.holder()].contains(it));
            self.still_counts(self.many_may_know.as_ref())
                || others.any(|it| self.lives(it) && self.still_counts(self.held.get(&it)))
        };
        let is_asked = |n: &usize| self.is_in_touch(*n) || !others(*n);
        all.clone().filter(knows).filter(counts).filter(is_asked).collect()
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

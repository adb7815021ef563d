//! The decision.

use alloc::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    string::String,
    sync::Arc,
    vec::Vec,
};
use core::{cmp::Reverse, net::IpAddr, time::Duration};

use arpeggio_election::{Node, Timestamp};

use crate::{
    hops::hop,
    known::{Address, Fellow, Known, Mac, Port, Protocol, Service, Wire},
    memory::{Memory, Moment, SETTLE, Served, Serving, Start},
    notes::{Notes, teller},
    packet::BUCKETS,
    plan::{Drain, Draining, Hop, Passing, Plan, PlannedAddress, Reset, Spread, Way},
    rank::{self, Rank},
    serving::{self, Tables, places},
};

/// A MAC address that no node says any more is taken for a fellow's for so long.
const MACS_REMEMBERED: Duration = Duration::from_hours(1);

/// What can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// For how long a node that no longer serves an address is given packets of connections that others do not know. Zero: never.
    pub keep: Duration,
}

/// Five minutes.
impl Default for Settings {
    fn default() -> Self {
        Self { keep: Duration::from_mins(5) }
    }
}

/// What is to be done now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// What the kernel is to do.
    pub plan: Plan,
    /// What is to be counted and published.
    pub draining: Draining,
    /// The nodes that this one is to ask on the wire whether they are there ([`Known::asked`]), and by which ways: it would give
    /// them packets, and what Kubernetes says of them may be wrong.
    pub ask: BTreeSet<Hop>,
    /// What people are to be told.
    pub notes: Notes,
    /// When to ask again, though nothing has changed until then. `None`: nothing depends on the time.
    pub next: Option<Timestamp>,
}

/// One node's decisions, and its memory of who served what.
#[derive(Debug, Clone)]
pub struct Forwarding {
    node: Node,
    settings: Settings,
    /// Of what was before it started it knows nothing.
    start: Start,
    addresses: BTreeMap<IpAddr, Memory>,
    /// When each was last said by a node, this one or another.
    macs: BTreeMap<Mac, Timestamp>,
    tables: Tables,
}

impl Forwarding {
    /// For `node`, of a forwarder that starts `now`.
    pub fn new(node: Node, settings: Settings, now: Timestamp) -> Self {
        Self {
            node,
            settings,
            start: Start {
                at: now,
                epoch: None,
                said: BTreeMap::new(),
                latest: BTreeMap::new(),
                deaf: false,
                listened: now,
            },
            addresses: BTreeMap::new(),
            macs: BTreeMap::new(),
            tables: Tables::default(),
        }
    }

    /// Takes in which forwarders have renewed their Leases, of which nobody says that it is news: at rest nothing is decided by that. To be
    /// called often, since each renewal counts from when it is taken in. Whether it is to be decided anew.
    pub fn hear(&mut self, known: &Known, deaf: bool, now: Timestamp) -> bool {
        let news = self.start.hear(known, deaf, &self.node, now);
        news.stale || news.any && self.awaits_renewals(now)
    }

    /// Whether a node that says the same once more, that it has no connection left, may say something new by it.
    fn awaits_renewals(&self, now: Timestamp) -> bool {
        let is_early = self.start.at + self.settings.keep > now;
        is_early || self.addresses.values().any(Memory::has_any_left)
    }

    /// What is to be done when this is known. `now` never lies before that of an earlier call.
    pub fn decide(&mut self, known: &Known, now: Timestamp) -> Decision {
        self.start.hear(known, known.deaf, &self.node, now);
        let stale = self.start.stale(&self.node);
        let known = if stale.is_empty() {
            Cow::Borrowed(known)
        } else {
            Cow::Owned(known.with_stale(&stale))
        };
        self.decide_all(&known, now)
    }

    fn decide_all(&mut self, known: &Known, now: Timestamp) -> Decision {
        let fellows = self.fellows(known, now);
        self.addresses.retain(|address, _| known.addresses.contains_key(address));
        let mut decision =
            Decision { plan: Plan { fellows, ..Plan::default() }, ..Decision::default() };
        for (address, about) in &known.addresses {
            self.decide_one(*address, about, known, now, &mut decision);
        }
        self.tables.turn();
        decision.next = self.next(known, now);
        decision
    }

    fn fellows(&mut self, known: &Known, now: Timestamp) -> BTreeSet<Mac> {
        let said = known.nodes.values().flat_map(|fellow| fellow.macs.values());
        self.macs.extend(said.map(|mac| (*mac, now)));
        self.macs.retain(|_, said| now.since(*said) < MACS_REMEMBERED);
        let own: BTreeSet<&Mac> =
            known.nodes.get(&self.node).into_iter().flat_map(|it| it.macs.values()).collect();
        self.macs.keys().filter(|mac| !own.contains(mac)).copied().collect()
    }

    fn decide_one(
        &mut self,
        address: IpAddr,
        about: &Address,
        known: &Known,
        now: Timestamp,
        decision: &mut Decision,
    ) {
        let serving = self.serving(address, about, known, &mut decision.notes);
        let moment = Moment { now, keep: self.settings.keep, start: &self.start, known };
        let memory = self.addresses.entry(address).or_default();
        memory.observe(serving, &moment);
        if let Some(drain) = drain(about, memory, &self.node, &moment) {
            decision.draining.addresses.insert(address, drain);
        }
        let asked = Asked { address, about, memory, moment, node: &self.node };
        let planned = asked.plan();
        decision.ask.extend(asked.doubtful(planned.as_ref()));
        if let Some(planned) = planned {
            decision.plan.addresses.insert(address, planned);
        }
    }

    /// Who serves an address now.
    fn serving(
        &mut self,
        address: IpAddr,
        about: &Address,
        known: &Known,
        notes: &mut Notes,
    ) -> Serving {
        let whole = || Serving { whole: about.holder.clone(), ports: BTreeMap::new() };
        if !about.spread {
            return whole();
        }
        let (crew, reason) = serving::crew(known, address, about);
        notes.left_out.insert(address, crew.left_out);
        notes.tellers.extend(teller(known, about).map(|node| (address, node.clone())));
        if let Some(reason) = reason {
            notes.one_node.insert(address, reason);
            return whole();
        }
        Serving { whole: None, ports: serving::tables(about, &crew.able, &mut self.tables) }
    }

    fn next(&self, known: &Known, now: Timestamp) -> Option<Timestamp> {
        let moment = Moment { now, keep: self.settings.keep, start: &self.start, known };
        if moment.keep.is_zero() {
            return None;
        }
        let start = [SETTLE, moment.keep].map(|span| self.start.at + span);
        let start = start.into_iter().filter(|at| *at > now && moment.is_early());
        let memories = self.addresses.values().filter_map(|memory| memory.next(&moment));
        memories.chain(start).min()
    }
}

/// Whether this node is to count connections that run out.
fn drain(about: &Address, memory: &Memory, node: &Node, moment: &Moment<'_>) -> Option<Drain> {
    if memory.serves(node) || moment.keep.is_zero() {
        return None;
    }
    let quic = || quic(about).collect();
    if let Some(left) = memory.left(node) {
        return Some(Drain { until: left + moment.keep, served: true, quic: quic() });
    }
    let until = moment.start.at + moment.keep;
    moment.is_early().then(|| Drain { until, served: false, quic: quic() })
}

/// The UDP ports on which QUIC is spoken.
fn quic(about: &Address) -> impl Iterator<Item = u16> {
    let is_quic =
        |(port, service): &(&Port, &Service)| service.quic && port.protocol == Protocol::Udp;
    about.services.iter().filter(is_quic).map(|(port, _)| port.number)
}

/// One address, at one node, at one moment.
struct Asked<'a> {
    address: IpAddr,
    about: &'a Address,
    memory: &'a Memory,
    moment: Moment<'a>,
    node: &'a Node,
}

/// A node that may be asked for connections.
struct Asking<'a> {
    rank: Rank<'a>,
    node: &'a Node,
    /// Whether it asks others in turn.
    passes: bool,
    way: Way,
    /// It may know every connection to the address.
    all: bool,
}

impl Asked<'_> {
    /// `None`: every packet stays.
    fn plan(&self) -> Option<PlannedAddress> {
        let passing = self.passing();
        let is_spread = self.memory.serving().whole.is_none()
            && self.memory.serving().ports.values().any(|served| served.table.is_some());
        let reset = self.reset(&passing);
        if !is_spread && reset == Reset::Nothing && passing == Passing::default() {
            return None;
        }
        let spread = if is_spread { self.spread() } else { BTreeMap::new() };
        let interfaces = if spread.is_empty() { Vec::new() } else { self.interfaces() };
        Some(PlannedAddress {
            passing,
            quic: quic(self.about).collect(),
            spread,
            reset,
            interfaces,
        })
    }

    /// Where this node serves the address, a backend here may yet know a connection that conntrack has forgotten.
    fn reset(&self, passing: &Passing) -> Reset {
        let is_last = passing.from_fellow == Way::Local && passing.from_outside != Way::Local;
        if self.memory.has_lost_a_node(self.address, &self.moment) {
            Reset::Everything
        } else if is_last && !self.memory.serves(self.node) {
            Reset::FromFellow
        } else {
            Reset::Nothing
        }
    }

    fn interfaces(&self) -> Vec<String> {
        let own = self.moment.known.nodes.get(self.node);
        let places = own.map(|own| places(self.address, self.about, own)).unwrap_or_default();
        places.into_iter().map(|it| it.name.clone()).collect()
    }

    /// For packets of no bucket. All nodes pass them on to the one that has the address, also before it moves to them: who gets
    /// it has the rule before the first packet. Where nothing is kept there is still more than one node that may know the
    /// connection of an ICMP error, if the address is spread.
    fn passing(&self) -> Passing {
        if self.moment.keep.is_zero() && self.memory.serving().whole.is_some() {
            return Passing::default();
        }
        let nodes = self.asked(|node| self.may_know(node));
        let own = Rank::of(self.address, self.node);
        let others = nodes.iter().filter(|it| it.node != self.node);
        let below = nodes.iter().filter(|it| it.rank < own);
        Passing { from_outside: first_of(others), from_fellow: first_of(below) }
    }

    /// Whether a node may know a connection to the address.
    fn may_know(&self, node: &Node) -> bool {
        self.memory.serves(node)
            || self.memory.may_know_some(self.address, node, &self.moment)
            || self.memory.may_know_all(self.address, node, &self.moment)
    }

    /// The ways to nodes whose death may not be known, and which would get packets: those whose session was not renewed; where packets of
    /// unknown connections come by, those that have served the address; and others of which nobody would tell this node. Who was silent is
    /// asked until it answers, though it gets no packets meanwhile.
    fn doubtful(&self, planned: Option<&PlannedAddress>) -> Vec<Hop> {
        if self.moment.keep.is_zero() {
            return Vec::new();
        }
        let untold = planned.map(|it| self.untold(it)).unwrap_or_default();
        let is_doubtful = |(node, fellow): &(&Node, &Fellow)| {
            *node != self.node
                && fellow.is_not_said_to_be_dead()
                && if fellow.is_out_of_touch() || fellow.wire == Wire::Silent {
                    self.may_know(node)
                } else {
                    untold.contains(node) || self.has_served_before_or_after(node)
                }
        };
        let doubtful = self.moment.known.nodes.iter().filter(is_doubtful);
        doubtful.filter_map(|(node, _)| self.hop(node)).collect()
    }

    /// Whether the address has moved between this node and another one. Of who serves it beside this node the speakers tell.
    fn has_served_before_or_after(&self, node: &Node) -> bool {
        let both_serve = self.memory.serves(self.node) && self.memory.serves(node);
        self.is_involved(self.node) && self.is_involved(node) && !both_serve
    }

    fn is_involved(&self, node: &Node) -> bool {
        self.memory.may_know_some(self.address, node, &self.moment)
    }

    /// The nodes that this one gives packets to and of whose death it may not hear, or not soon: all of them while it hears of nothing;
    /// and those that are asked whatever they have served, as long as forwarders know nothing of what was before them.
    fn untold<'a>(&self, planned: &'a PlannedAddress) -> BTreeSet<&'a Node> {
        let Passing { from_outside, from_fellow } = &planned.passing;
        let from_outside = Some(from_outside).filter(|_| self.comes_in_here());
        let passed = from_outside.into_iter().chain([from_fellow]);
        let spread = planned.spread.values().flat_map(|it| it.ways());
        let (is_early, is_deaf) = (self.moment.is_early(), self.moment.known.deaf);
        let passed = passed.filter(|_| is_early || is_deaf);
        let ways = passed.chain(spread.filter(|_| is_deaf));
        ways.filter_map(Way::hop).map(|hop| &hop.node).collect()
    }

    /// Whether this node may announce the address: it holds it, has held it, or somebody has to stand in for who holds it.
    fn comes_in_here(&self) -> bool {
        let holder = self.about.holder.as_ref().and_then(|it| self.moment.known.nodes.get(it));
        self.is_involved(self.node) || holder.is_none_or(|holder| !holder.lives())
    }

    /// The nodes that `may_know` allows, and that this node can reach or is; in the order of their ranks.
    fn asked(&self, may_know: impl Fn(&Node) -> bool) -> Vec<Asking<'_>> {
        let fellows = self.moment.known.nodes.iter();
        let chosen = fellows.filter(|&(node, fellow)| fellow.lives() && may_know(node));
        let mut asked: Vec<Asking<'_>> = chosen.filter_map(|(node, _)| self.asking(node)).collect();
        asked.sort_by_key(|it| Reverse(it.rank));
        asked
    }

    fn asking<'a>(&'a self, node: &'a Node) -> Option<Asking<'a>> {
        let fellow = self.moment.known.nodes.get(node)?;
        let is_own = node == self.node;
        let way = if is_own { Way::Local } else { Way::To(Arc::new(self.hop(node)?)) };
        let all = self.memory.may_know_all(self.address, node, &self.moment);
        let rank = Rank::of(self.address, node);
        Some(Asking { rank, node, passes: is_own || fellow.asks_others(), way, all })
    }

    fn hop(&self, node: &Node) -> Option<Hop> {
        let known = self.moment.known;
        let (own, to) = (known.nodes.get(self.node)?, known.nodes.get(node)?);
        hop(self.address, self.about, own, (node, to))
    }

    fn spread(&self) -> BTreeMap<Port, Arc<Spread>> {
        let nodes = self.asked(|_| true);
        let of = |(port, served): (&Port, &Served)| {
            (*port, Arc::new(self.spread_port(*port, served, &nodes)))
        };
        self.memory.serving().ports.iter().map(of).collect()
    }

    /// Where nobody serves (there are no ready endpoints) new connections stay, and are refused there.
    fn spread_port(&self, port: Port, served: &Served, nodes: &[Asking<'_>]) -> Spread {
        let primaries = served.table.as_ref().map_or(&[][..], |table| table.primaries.as_slice());
        let indexes: BTreeMap<&Node, usize> =
            nodes.iter().enumerate().map(|(index, it)| (it.node, index)).collect();
        let was = self.was_primary(port, nodes);
        // Most buckets are like others: few nodes have them, or have had them.
        let mut alike: BTreeMap<(Option<usize>, Vec<usize>), [Way; 3]> = BTreeMap::new();
        let (mut first, mut others, mut below) = (Vec::new(), Vec::new(), Vec::new());
        for bucket in 0..usize::from(BUCKETS) {
            let primary = primaries.get(bucket).and_then(|node| indexes.get(node).copied());
            let before = was.iter().filter(|(_, times)| {
                let time = times.get(bucket).copied().flatten();
                time.is_some_and(|at| at + self.moment.keep > self.moment.now)
            });
            let key = (primary, before.map(|(index, _)| *index).collect());
            let [to_primary, other, further] = alike
                .entry(key)
                .or_insert_with_key(|(primary, before)| self.ways(nodes, *primary, before));
            first.push(to_primary.clone());
            others.push(other.clone());
            below.push(further.clone());
        }
        Spread { by: served.by, seed: rank::seed(self.address), first, others, below }
    }

    /// Those that may know connections which they got as primaries of some bucket, and when they were that last.
    fn was_primary<'a>(
        &'a self,
        port: Port,
        nodes: &[Asking<'_>],
    ) -> Vec<(usize, &'a [Option<Timestamp>])> {
        let may_know = nodes
            .iter()
            .enumerate()
            .filter(|(_, it)| self.memory.may_know_some(self.address, it.node, &self.moment));
        let was = may_know.map(|(index, it)| (index, self.memory.was_primary(port, it.node)));
        was.filter(|(_, times)| !times.is_empty()).collect()
    }

    /// Where packets of a bucket go: new ones, others, and those that come from a fellow. `before`: who was its primary before.
    fn ways(&self, nodes: &[Asking<'_>], primary: Option<usize>, before: &[usize]) -> [Way; 3] {
        let own = Rank::of(self.address, self.node);
        let all = nodes.iter().enumerate();
        let may_know =
            all.filter(|(index, it)| it.all || primary == Some(*index) || before.contains(index));
        let may_know = may_know.map(|(_, it)| it);
        let to_primary = primary.and_then(|index| nodes.get(index));
        let to_primary = to_primary.map(|it| it.way.clone()).unwrap_or_default();
        let below = may_know.clone().filter(|it| it.rank < own);
        [to_primary, first_of(may_know), first_of(below)]
    }
}

/// The first that asks others in turn. One that does not (it has no forwarder, or does not know what has moved) ends the search, so it
/// comes after all of those.
fn first_of<'a>(mut nodes: impl Iterator<Item = &'a Asking<'a>> + Clone) -> Way {
    let passing = nodes.clone().find(|it| it.passes);
    passing.or_else(|| nodes.next()).map(|it| it.way.clone()).unwrap_or_default()
}

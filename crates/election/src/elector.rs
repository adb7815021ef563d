//! One speaker's decisions.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use core::{net::IpAddr, time::Duration};

use crate::{
    eligibility::{Backends, Merit, NodeFacts, Standing, Unfit},
    leaving::Leaving,
    model::{EndReason, Lock, Node, Session, SessionState, Timestamp},
    own::OwnSession,
    placement::{Charges, deputies, ranking},
    reach::{Interface, Reach},
    settings::{HEARTBEAT, Settings},
    speakers::SpeakerWatch,
    unaided::Unaided,
    vacancy::{Finding, Vacancies},
    view::{FreeLock, SeenSession, View},
    wire::WireWatch,
    writes::{GiveReason, Outcome, TakeReason, Write, Writes},
};

mod alone;
mod moving;

/// Something that a speaker learns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// Every record has been listed once. Nothing is decided before.
    Synced,
    /// A session record, from a watch, a list or the answer to a write.
    Session(Session),
    /// A session record no longer exists.
    SessionGone(Node),
    /// A lock record, from a watch, a list or the answer to a write.
    Lock(Lock),
    /// A lock record no longer exists.
    LockGone(IpAddr),
    /// A node answered a probe on the wire.
    NodeAnswered(Node),
    /// A default gateway answered a probe on the wire.
    GatewayAnswered,
    /// A fellow speaker announces an address on the wire.
    Heard {
        /// The address.
        address: IpAddr,
        /// The node that says that it is there.
        by: Node,
    },
    /// What Kubernetes says of a node.
    Node {
        /// The node.
        node: Node,
        /// What is said.
        facts: NodeFacts,
    },
    /// A Node object no longer exists.
    NodeGone(Node),
    /// Where the backends of an address are.
    Backends {
        /// The address.
        address: IpAddr,
        /// `None`: its traffic may leave the node that announces it.
        backends: Option<Backends>,
    },
    /// What this node can reach now. Its session is renewed at once when it says something else.
    Reach(Reach),
    /// This node's interface of this name hears its segment again after it did not, for however short a time. What
    /// [`Event::Reach`] says is fed before.
    CarrierReturned(String),
    /// A machine that is no fellow answers for an address that was asked for ([`Effect::ProbeAddress`]).
    StrangerAnswered {
        /// The address.
        address: IpAddr,
        /// The machine's MAC address.
        mac: [u8; 6],
    },
    /// The process is asked to stop, and there is no second one on this node: hand everything over. Done when
    /// [`Elector::announcing`] is empty.
    Stopping,
    /// A write has ended. The record that resulted, or that was in its way, is fed before.
    Wrote {
        /// The write.
        write: Write,
        /// How it ended.
        outcome: Outcome,
    },
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send this to the API server.
    Write(Write),
    /// Ask for a node's own address on the wire, by unicast.
    ProbeNode(Node),
    /// Ask a node's speaker on the wire, by unicast, for an address that the node holds. Its answer is [`Event::Heard`].
    ProbeSpeaker {
        /// The node.
        node: Node,
        /// The address.
        address: IpAddr,
    },
    /// Ask for the default gateways on the wire.
    ProbeGateway,
    /// Ask on the wire who has an address that nobody has announced yet.
    ProbeAddress(IpAddr),
}

/// What [`Elector::decide`] wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// To be carried out now.
    pub effects: Vec<Effect>,
    /// The addresses that are to be announced from now on, and were not before.
    pub gained: Vec<IpAddr>,
    /// When to ask again at the latest.
    pub next: Timestamp,
}

/// One speaker's view and its decisions. The crate's page has the contract.
///
/// Two that are equal by their hashes decide the same from there on; a clone is a second future of the same speaker. The
/// model check is built on both.
#[derive(Debug, Clone, Hash)]
pub struct Elector {
    me: Node,
    settings: Settings,
    synced: bool,
    stopping: bool,
    decided: Timestamp,
    view: View,
    own: OwnSession,
    wire: WireWatch,
    speakers: SpeakerWatch,
    charges: Charges,
    writes: Writes,
    vacancies: Vacancies,
    announcing: BTreeSet<IpAddr>,
    ownerless: usize,
    leaving: Leaving,
    contests: BTreeMap<IpAddr, Contest>,
    /// The interfaces that heard nobody, and since when they hear their segments again. Somebody else may have taken over
    /// there unheard: nothing is announced on them until the session is proved, or the segment was asked.
    returned: BTreeMap<String, Timestamp>,
    unaided: Unaided,
}

/// A fellow speaker was heard announcing what we announce; the lock is being read.
#[derive(Debug, Clone, Hash)]
struct Contest {
    since: Timestamp,
    yielded: bool,
}

impl Elector {
    /// A speaker on node `me` that starts now and announces nothing.
    pub fn new(me: Node, settings: Settings, now: Timestamp) -> Self {
        let mut own = OwnSession::default();
        own.woke(now);
        Self {
            me,
            settings,
            synced: false,
            stopping: false,
            decided: now,
            view: View::default(),
            own,
            wire: WireWatch::default(),
            speakers: SpeakerWatch::default(),
            charges: Charges::default(),
            writes: Writes::default(),
            vacancies: Vacancies::default(),
            announcing: BTreeSet::new(),
            ownerless: 0,
            leaving: Leaving::default(),
            contests: BTreeMap::new(),
            returned: BTreeMap::new(),
            unaided: Unaided::default(),
        }
    }

    /// The addresses to announce, as of the last decision.
    pub fn announcing(&self) -> &BTreeSet<IpAddr> {
        &self.announcing
    }

    /// The addresses that were asked for, and whose answers are awaited: before their first use, and when the API server
    /// is away.
    pub fn asking(&self) -> impl Iterator<Item = IpAddr> {
        self.vacancies.asked().chain(self.unaided.asked())
    }

    /// How many addresses had nobody with a session that counts to hold them, though some node could, at the last
    /// decision.
    pub fn ownerless(&self) -> usize {
        self.ownerless
    }

    /// The addresses that fellow speakers are asked for, to hear whether they live.
    pub fn awaited(&self) -> impl Iterator<Item = IpAddr> {
        self.speakers.awaited()
    }

    /// The interfaces, out of those that this node has now, on which it announces `address` or asks for it first.
    pub fn interfaces<'a>(&self, address: IpAddr, reach: &'a Reach) -> Vec<&'a Interface> {
        let Some(lock) = self.view.lock(address) else { return Vec::new() };
        lock.terms.interfaces(address, self.view.facts(&self.me), reach)
    }

    /// Whether this node's session is known to count.
    pub fn established(&self) -> bool {
        self.own.is_proved() && self.view.session(&self.me).is_some_and(is_live)
    }

    /// The nodes whose sessions count, as far as this speaker knows.
    pub fn live(&self, now: Timestamp) -> BTreeSet<Node> {
        self.view.live(now, self.settings.session, self.own.in_touch_since())
    }

    /// Takes in what has happened.
    pub fn handle(&mut self, now: Timestamp, event: Event) {
        match event {
            Event::Synced => self.synced(),
            Event::Stopping => self.stopping = true,
            Event::Session(session) => self.session_seen(session, now),
            Event::SessionGone(node) => self.view.session_gone(&node),
            Event::Lock(lock) => {
                if let Some(holder) = lock.holder.as_ref().filter(|holder| holder.node == self.me) {
                    self.own.saw_epoch(holder.epoch);
                }
                self.view.lock_seen(lock);
            }
            Event::LockGone(address) => self.view.lock_gone(address),
            Event::NodeAnswered(node) => self.wire.answered(&node, now, &self.settings),
            Event::GatewayAnswered => self.wire.gateway_answered(now),
            Event::Heard { address, by } => self.heard(address, &by, now),
            Event::Node { node, facts } => self.view.node_seen(node, facts),
            Event::NodeGone(node) => self.view.node_gone(&node),
            Event::Backends { address, backends } => self.view.backends_seen(address, backends),
            Event::Reach(reach) => self.view.own_reach_is(self.me.clone(), reach),
            Event::CarrierReturned(interface) => self.carrier_returned(interface, now),
            Event::StrangerAnswered { address, mac } => {
                self.vacancies.answered(address, mac);
                self.unaided.heard(address, now, self.settings.recheck);
            }
            Event::Wrote { write, outcome } => self.wrote(&write, outcome, now),
        }
    }

    fn session_seen(&mut self, session: Session, now: Timestamp) {
        if session.node == self.me {
            self.own.saw_epoch(session.epoch);
        }
        let known = self.view.session(&session.node);
        if known.is_some_and(|known| known.epoch < session.epoch) {
            // What made us end the session before is no reason to end this one.
            self.wire.forget(&session.node);
            self.speakers.forget(&session.node);
        }
        self.view.session_seen(session, now);
    }

    /// Only the first list tells that a session was deleted: later ones may be older than the answers to our writes.
    fn synced(&mut self) {
        if !self.synced {
            self.view.listed();
        }
        self.synced = true;
    }

    fn heard(&mut self, address: IpAddr, by: &Node, now: Timestamp) {
        self.speakers.answered(by, address, now, &self.settings);
        if *by == self.me || self.give_way_unaided(address, by, now) {
            return;
        }
        if !self.announcing.contains(&address) {
            return;
        }
        if self.stopping {
            self.leaving.expect(address, by);
        }
        let is_expected = self.leaving.heard(address, by);
        // It may have got the lock in another way than from us, whose gift has failed.
        if !is_expected || self.view.lock(address).is_some_and(|lock| lock.is_of(&self.me)) {
            self.contests.entry(address).or_insert(Contest { since: now, yielded: false });
        }
    }

    fn wrote(&mut self, write: &Write, outcome: Outcome, now: Timestamp) {
        let target = write.target();
        let sent = self.writes.ended(&target, outcome, now, &self.settings);
        match (write, outcome) {
            (Write::Start { .. } | Write::Renew { .. }, Outcome::Done) => {
                let sent = sent.unwrap_or_default();
                self.own.proved(sent);
                self.returned.retain(|_, since| *since > sent);
            }
            (Write::Start { .. } | Write::Renew { .. }, Outcome::Failed) => self.own.lost_touch(),
            (Write::Read { address }, Outcome::Done | Outcome::Conflict) => {
                self.contests.remove(address);
                self.speakers.read(*address, now, &self.settings);
            }
            (Write::Read { address }, Outcome::Failed) => self.give_way(*address),
            _ => {}
        }
    }

    /// That nobody was heard on the interface says nothing of the others, who may have gone on without this node.
    fn carrier_returned(&mut self, interface: String, now: Timestamp) {
        if !self.view.may_reach_by(&self.me, &interface) {
            return;
        }
        self.own.doubted(now);
        self.wire.excuse();
        self.returned.insert(interface, now);
        let stand_ins = self.unaided.announced().map(|(address, _)| address);
        let stand_ins: Vec<IpAddr> =
            stand_ins.filter(|address| self.has_returned(*address)).collect();
        for address in stand_ins {
            self.unaided.heard(address, now, Duration::ZERO);
        }
    }

    /// Whether `address` is announced on an interface that heard nobody for a while.
    fn has_returned(&self, address: IpAddr) -> bool {
        let is_on = |interface: &String| self.view.is_on(address, &self.me, interface);
        self.returned.keys().any(is_on)
    }

    fn give_way(&mut self, address: IpAddr) {
        if let Some(contest) = self.contests.get_mut(&address) {
            contest.yielded = true;
        }
    }

    /// Decides what to do now, with all that was fed before.
    pub fn decide(&mut self, now: Timestamp) -> Decision {
        if now.since(self.decided) > self.settings.freshness {
            self.own.woke(now);
            self.unaided.forget();
        }
        self.decided = now;
        let (mut effects, mut gained) = (Vec::new(), Vec::new());
        if self.synced {
            self.view.mark_free(now);
            self.writes.prune(now);
            self.keep_session(now, &mut effects);
            if !self.stopping {
                self.watch_wire(now, &mut effects);
            }
            self.ownerless = 0;
            if self.established() && !self.stopping {
                self.judge_sessions(now, &mut effects);
                self.take_locks(now, &mut effects);
                self.give_locks(now, &mut effects);
                self.obey_requests(now, &mut effects);
            }
            self.settle_contests(now, &mut effects);
            self.stand_in(now, &mut effects);
            gained = self.update_announcing(now);
            effects.extend(self.leaving.ask(now).into_iter().map(Effect::ProbeAddress));
        }
        let heartbeat = now + HEARTBEAT;
        let probes =
            [self.wire.due(), self.speakers.due(), self.vacancies.due(), self.unaided.due()];
        let next =
            probes.into_iter().flatten().filter(|due| *due > now).fold(heartbeat, Timestamp::min);
        Decision { effects, gained, next }
    }

    fn keep_session(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let session = self.view.session(&self.me);
        let write = match session {
            // The session's end frees its locks; we announce them until somebody has taken them.
            Some(session) if self.stopping => is_live(session).then(|| Write::End {
                node: session.node.clone(),
                expected: session.version,
                reason: EndReason::Stopped,
            }),
            _ => self.own.due(session, self.view.has_unsaid_reach(), now, &self.settings),
        };
        if let Some(write) = write {
            self.send(write, now, effects);
        }
    }

    /// Asks on the wire for the nodes that this one watches.
    fn watch_wire(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let (live, alone) = (self.live(now), self.is_alone(now));
        self.charges.update(&live, alone, &self.me);
        let probes = self.wire.tick(now, self.charges.nodes(), &self.settings);
        effects.extend(probes.nodes.into_iter().map(Effect::ProbeNode));
        if probes.gateway {
            effects.push(Effect::ProbeGateway);
        }
        let nodes = self.charges.nodes();
        let asked = self.speakers.tick(now, nodes, &self.view, &self.wire, &self.settings);
        effects.extend(asked.map(|(node, address)| Effect::ProbeSpeaker { node, address }));
    }

    /// Ends the sessions that are over.
    fn judge_sessions(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        for address in self.speakers.unread(now, &self.settings) {
            self.send(Write::Read { address }, now, effects);
        }
        let live = self.live(now);
        let others = self.view.sessions().filter(|seen| seen.session.node != self.me);
        let writes: Vec<Write> = others.filter_map(|seen| self.verdict(seen, &live, now)).collect();
        for write in writes {
            self.send(write, now, effects);
        }
    }

    /// What to write about another node's session, if anything.
    fn verdict(&self, seen: &SeenSession, live: &BTreeSet<Node>, now: Timestamp) -> Option<Write> {
        let SessionState::Live { accused_by } = &seen.session.state else {
            return None;
        };
        let node = seen.session.node.clone();
        let expected = seen.session.version;
        let end = |reason| Write::End { node: node.clone(), expected, reason };
        // Those who watch the node speak first, so that not all nodes write at once.
        let manners = u32::from(!self.charges.nodes().contains(&node));
        let longest = self.settings.session + self.settings.patience * manners;
        if seen.expired(now, longest, self.own.in_touch_since()) {
            return Some(end(EndReason::Expired));
        }
        let reason = self.silence(&node, now)?;
        match self.other_deputy(&node, live, now) {
            None => Some(end(reason)),
            Some(other) if accused_by.as_ref() == Some(&other) => Some(end(reason)),
            Some(_) if accused_by.as_ref() == Some(&self.me) => None,
            Some(_) => Some(Write::Accuse { node, expected }),
        }
    }

    /// The other deputy of `node`, if it lives as far as this one can hear.
    fn other_deputy(&self, node: &Node, live: &BTreeSet<Node>, now: Timestamp) -> Option<Node> {
        let both = deputies(node, live.iter()).into_iter();
        both.filter(|deputy| *deputy != self.me).find(|deputy| self.silence(deputy, now).is_none())
    }

    /// What this node misses of another one that it watches.
    fn silence(&self, node: &Node, now: Timestamp) -> Option<EndReason> {
        if self.wire.silent(node, &self.settings) {
            return Some(EndReason::NodeSilent);
        }
        let silent = self.speakers.silent(node, &self.view, now, &self.settings);
        silent.then_some(EndReason::SpeakerSilent)
    }

    fn take_locks(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let free = self.view.free(&self.me);
        if free.is_empty() {
            return self.vacancies.retain(&BTreeSet::new());
        }
        let candidates = self.candidates(now);
        let mut loads = self.view.loads();
        let mut mine = Vec::new();
        for free in free {
            let fit = self.fit(free.lock, &candidates);
            let ranked = ranking(free.lock.address, last_holder(&free), &fit, &loads);
            if let Some(first) = ranked.first() {
                *loads.entry(first.clone()).or_default() += 1;
                self.ownerless += 1;
            }
            let announces = self.unaided.announces(free.lock.address);
            if announces || self.is_my_turn(&ranked, free.since, now) {
                mine.extend(self.take(&free).map(|take| (take, free.lock.clone())));
            }
        }
        self.vacancies.retain(&mine.iter().map(|(_, lock)| lock.address).collect());
        for (take, lock) in mine {
            self.take_vacant(take, &lock, now, effects);
        }
    }

    /// Takes a lock; one that nobody has held before only when nobody else has its address.
    fn take_vacant(&mut self, take: Write, lock: &Lock, now: Timestamp, effects: &mut Vec<Effect>) {
        let Lock { address, version: expected, .. } = *lock;
        let probing = lock.terms.probing && !self.settings.first_probe.is_zero();
        if lock.holder.is_some() || !probing {
            return self.send(take, now, effects);
        }
        let taken = lock.stranger.is_some();
        match self.vacancies.look(address, taken, now, &self.settings) {
            Finding::Wait => {}
            Finding::Ask => effects.push(Effect::ProbeAddress(address)),
            Finding::Free => self.send(take, now, effects),
            Finding::Taken(_) if taken => {}
            Finding::Taken(stranger) => {
                self.send(Write::Quarantine { address, expected, stranger }, now, effects);
            }
        }
    }

    /// Gives away what others should rather announce. With nobody else, it stays.
    fn give_locks(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let reason = |lock| GiveReason::of(self.view.merit(lock, &self.me));
        let unwanted: Vec<(&Lock, GiveReason)> =
            self.view.locks_of(&self.me).filter_map(|lock| Some((lock, reason(lock)?))).collect();
        if unwanted.is_empty() {
            return;
        }
        let mut candidates = self.candidates(now);
        candidates.remove(&self.me);
        let mut loads = self.view.loads();
        let mut gives = Vec::new();
        for (lock, reason) in unwanted {
            let Some(to) = self.successor(lock, reason, &candidates, &loads) else { continue };
            *loads.entry(to.clone()).or_default() += 1;
            gives.extend(self.give(lock, to, reason));
        }
        for give in gives {
            self.hand_over(give, now, effects);
        }
    }

    /// Gives a lock away, and goes on announcing until the successor does.
    fn hand_over(&mut self, give: Write, now: Timestamp, effects: &mut Vec<Effect>) {
        if let Write::Give { address, to, .. } = &give
            && self.writes.free(&give.target(), now)
        {
            self.leaving.give(*address, to.clone());
        }
        self.send(give, now, effects);
    }

    /// Who should have a lock instead of this node. Where this node may still announce the address, it is given only to
    /// one that nothing speaks against.
    fn successor(
        &self,
        lock: &Lock,
        reason: GiveReason,
        candidates: &BTreeSet<Node>,
        loads: &BTreeMap<Node, usize>,
    ) -> Option<Node> {
        let mut fit = self.fit(lock, candidates);
        if !matches!(reason, GiveReason::Unfit(_)) {
            fit.retain(|_, merit| merit.standing == Standing::Good);
        }
        ranking(lock.address, None, &fit, loads).into_iter().next()
    }

    fn give(&self, lock: &Lock, to: Node, reason: GiveReason) -> Option<Write> {
        let epoch = self.view.session(&to)?.epoch;
        Some(Write::Give { address: lock.address, expected: lock.version, to, epoch, reason })
    }

    /// Those of `candidates` that may announce the address, and what speaks for them.
    fn fit(&self, lock: &Lock, candidates: &BTreeSet<Node>) -> BTreeMap<Node, Merit> {
        let merit = |node: &Node| Some((node.clone(), self.view.merit(lock, node).ok()?));
        candidates.iter().filter_map(merit).collect()
    }

    /// The nodes that locks may be placed on: alive, and not under suspicion.
    fn candidates(&self, now: Timestamp) -> BTreeSet<Node> {
        let mut candidates = self.live(now);
        candidates.retain(|node| {
            let accused = self.view.session(node).is_some_and(is_accused);
            !accused && self.silence(node, now).is_none()
        });
        // That somebody accuses us says nothing: we are about to renew, which clears it.
        candidates.insert(self.me.clone());
        candidates
    }

    fn is_my_turn(&self, ranked: &[Node], free_since: Timestamp, now: Timestamp) -> bool {
        let rank = ranked.iter().position(|node| *node == self.me);
        let rank = rank.and_then(|rank| u32::try_from(rank).ok());
        rank.is_some_and(|rank| now.since(free_since) >= self.settings.patience * rank)
    }

    fn take(&self, free: &FreeLock<'_>) -> Option<Write> {
        Some(Write::Take {
            address: free.lock.address,
            expected: free.lock.version,
            epoch: self.view.session(&self.me)?.epoch,
            reason: free.reason.clone(),
        })
    }

    fn settle_contests(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let contested: Vec<IpAddr> = self.contests.keys().copied().collect();
        for address in contested {
            self.send(Write::Read { address }, now, effects);
        }
        for contest in self.contests.values_mut() {
            contest.yielded |= now.since(contest.since) > self.settings.retry;
        }
    }

    /// Who holds a lock under the present session may begin to announce; who already announces goes on until somebody
    /// else holds the lock, so that an API server or a session that is gone stops nobody. Returns what is gained.
    fn update_announcing(&mut self, now: Timestamp) -> Vec<IpAddr> {
        let epoch = self.view.session(&self.me).filter(|own| is_live(own)).map(|own| own.epoch);
        let mut announcing = BTreeSet::new();
        if self.own.trusted() {
            let mine = self.view.locks_of(&self.me);
            let allowed = mine.filter(|lock| self.may_announce(lock));
            let rightly = allowed.filter(|lock| {
                self.announcing.contains(&lock.address)
                    || lock.holder.as_ref().map(|holder| holder.epoch) == epoch
            });
            announcing.extend(rightly.map(|lock| lock.address));
            announcing.append(&mut self.leaving(now));
        }
        if self.stopping {
            // Whatever the API server says, or cannot say: it is announced elsewhere.
            announcing.retain(|address| !self.leaving.was_heard(*address));
        }
        self.leaving.retain(&announcing);
        self.contests.retain(|address, _| self.view.lock(*address).is_some());
        announcing.retain(|address| !self.contests.get(address).is_some_and(|c| c.yielded));
        announcing.retain(|address| !self.has_returned(*address));
        announcing.extend(self.unaided.announced().map(|(address, _)| address));
        let gained = announcing.difference(&self.announcing).copied().collect();
        self.announcing = announcing;
        gained
    }

    /// What others have been given on purpose, and are not heard announcing yet.
    fn leaving(&mut self, now: Timestamp) -> BTreeSet<IpAddr> {
        let mut leaving = BTreeSet::new();
        for address in &self.announcing {
            let lock = self.view.lock(*address);
            let holder = lock.and_then(|lock| lock.holder.as_ref()).map(|holder| &holder.node);
            let Some(successor) = holder.filter(|holder| **holder != self.me) else { continue };
            if self.stopping {
                self.leaving.expect(*address, successor);
            }
            if self.leaving.goes_on(*address, successor, now, self.settings.session * 2) {
                leaving.insert(*address);
            }
        }
        leaving
    }

    /// Whether an address may be announced from here until somebody else takes it. Not when its pool is not announced
    /// any more, or nobody anywhere would answer behind it.
    fn may_announce(&self, lock: &Lock) -> bool {
        match self.view.merit(lock, &self.me) {
            Err(Unfit::NotAnnounced) => false,
            Err(Unfit::NoBackend) => self.view.has_backends(lock.address),
            _ => true,
        }
    }

    fn send(&mut self, write: Write, now: Timestamp, effects: &mut Vec<Effect>) {
        let target = write.target();
        if self.writes.free(&target, now) {
            self.writes.sent(target, now);
            effects.push(Effect::Write(write));
        }
    }
}

fn is_live(session: &Session) -> bool {
    matches!(session.state, SessionState::Live { .. })
}

fn is_accused(session: &Session) -> bool {
    matches!(session.state, SessionState::Live { accused_by: Some(_) })
}

fn last_holder<'a>(free: &'a FreeLock<'_>) -> Option<&'a Node> {
    match free.reason {
        TakeReason::New => None,
        TakeReason::Ours | TakeReason::Over { .. } => {
            free.lock.holder.as_ref().map(|holder| &holder.node)
        }
    }
}

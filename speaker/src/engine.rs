//! The thread that decides and acts.
//!
//! Each turn takes in everything that has happened, decides once, and carries the decision out: frames and tables at
//! once, while orders to write come out of [`Engine::turn`]. It never waits for the API server. What it knows of time, the wire
//! and the API server comes in by [`Outlets`], [`Wire`] and [`Input`], so that a simulation can drive it.

mod report;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use arpeggio_api::{
    lock::LockRecord,
    session::{HeardOn, LinkAddress, SessionRecord, Whereabouts, named_addresses},
};
use arpeggio_election::{
    Effect, Elector, Event, Families, LockChange, Node, Occupant, Outcome, Pattern, Purpose,
    Question, Session, Settings, Target, Timestamp, Version, Write,
};
use arpeggio_link::interfaces::{Interface, Links};
use arpeggio_runtime::health::Awaited;
use arpeggio_wire::{Claim, MacAddr};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded, select};
use ipnet::IpNet;
use tokio::sync::{oneshot, watch};

use crate::{
    announcer::{Announcer, Demand},
    backends::LocalBackends,
    clock::Clock,
    conflicts::Conflicts,
    doubles::Doubles,
    failovers::Failovers,
    frames::Frames,
    hearing::{Around, Hearing},
    identity::Identity,
    input::Input,
    listener::{Freshness, Losses, Said, Sighting},
    metrics::Metrics,
    neighbours::{Neighbours, Probe, own_links, probe, returned, shared_mac},
    news::News,
    notices::{Notices, Trouble},
    orders::Order,
    paths::{Choice, Paths},
    protocol::{Arp, Ndp, Protocol as _},
    rehearsals::Rehearsals,
    renewals::Shown,
    segment::Wiring,
    unclear::UnclearLeases,
    wire::Wire,
};

/// Sightings that wait for a turn; more are lost, and repeated by whoever is there.
const SIGHTINGS: usize = 1024;

/// Inputs taken in before the next decision, so that a flood of them cannot delay it for long.
const BATCH: usize = 4096;

/// A turn that comes so much later than it was due says that this process got no time.
const LATE_TURN: Duration = Duration::from_millis(5);

/// Why users are warned when somebody else has an address of ours.
const CONFLICT: &str = "AddressConflict";

/// A stopping speaker waits so long for others to take what it announces; less than the pod's grace period.
const HANDOVER: Duration = Duration::from_secs(5);

/// While a speaker stands still it looks this often whether it may go on.
const STILL: Duration = Duration::from_millis(50);

/// So many nodes on an interface are asked whether this node hears anybody there: the one that is missed may be among them.
const OTHERS: usize = 4;

/// How long decisions wait for the list of Nodes when that of Leases is there.
const WITHOUT_NODES: Duration = Duration::from_secs(3);

/// What the engine is joined to.
pub(crate) struct Outlets {
    /// What it judges by.
    pub(crate) clock: Clock,
    /// What it reaches its segments by.
    pub(crate) wire: Arc<dyn Wire>,
    /// To users.
    pub(crate) news: News,
    /// To whoever counts.
    pub(crate) metrics: Arc<Metrics>,
    /// Where the last frames are kept.
    pub(crate) frames: Frames,
    /// By which profile every way to a node is asked, in words; `None`: each by the one that it has earned.
    pub(crate) fixed_profile: Option<String>,
    /// Told when this node has its session.
    pub(crate) established: Awaited,
    /// Told in whose place this node announces addresses without a lock: they are silent.
    pub(crate) silent: watch::Sender<BTreeSet<String>>,
    /// Told when `EndpointSlice`s are to be watched.
    pub(crate) slices_wanted: oneshot::Sender<()>,
}

/// One speaker at work.
pub(crate) struct Engine {
    clock: Clock,
    me: Identity,
    settings: Settings,
    elector: Elector,
    announcer: Announcer,
    neighbours: Neighbours,
    conflicts: Conflicts,
    doubles: Doubles,
    failovers: Failovers,
    paths: Paths,
    hearing: Hearing,
    rehearsals: Rehearsals,
    /// By which profile every way to a node is asked, in words; `None`: each by the one that it has earned.
    fixed_profile: Option<String>,
    /// When the next turn was due at the latest.
    due: Timestamp,
    notices: Notices,
    /// When the last decision was made.
    decided: Timestamp,
    nodes_listed: bool,
    /// Since when everything but the Nodes has been listed.
    leases_listed: Option<Timestamp>,
    locks: BTreeMap<IpAddr, LockRecord>,
    /// The rules of a lock have changed since it was last looked at which interfaces rules name.
    rules_changed: bool,
    unclear: UnclearLeases,
    backends: LocalBackends,
    freshness: Freshness,
    sightings: Receiver<Sighting>,
    /// Answers to this node's own questions. They come first.
    answers: Receiver<Sighting>,
    losses: Losses,
    /// How many answers may have been lost before the last turn.
    lost: u64,
    news: News,
    silent: watch::Sender<BTreeSet<String>>,
    metrics: Arc<Metrics>,
    established: Option<Awaited>,
    /// This process has written its session once.
    had_session: bool,
    twin: Twin,
    /// Set when the process is asked to stop: when it ends at the latest.
    ends: Option<Timestamp>,
}

/// Another process of this node, as in an upgrade or before a restart.
#[derive(Debug, Default)]
struct Twin {
    /// By this node's session that was there when this process began, or the API server went back to an earlier state. Its writer may
    /// have ended since.
    first: Option<Shown>,
    /// When it last renewed the session.
    renewed: Option<Timestamp>,
    /// This process has wanted the session written. What it said before is an earlier process's word, be it of the same pod.
    has_spoken: bool,
}

impl Twin {
    /// This node's session was seen, as this process wrote it or another one did; returns whether it is another one's word.
    fn own_session_seen(&mut self, session: &Session, is_ours: bool, now: Timestamp) -> bool {
        let first = *self.first.get_or_insert_with(|| Shown::by(session));
        if !is_ours && first.is_renewed_by(session) {
            self.renewed = Some(now);
        }
        !is_ours || !self.has_spoken
    }

    /// Versions begin anew: the history that they were of is no more. What is shown next is what somebody has left there.
    fn rewound(&mut self) {
        self.first = None;
    }
}

impl Engine {
    /// A speaker that starts now; it announces nothing yet.
    pub(crate) fn new(
        me: Identity,
        settings: Settings,
        links: Arc<Links>,
        outlets: Outlets,
    ) -> Self {
        let (sender, sightings) = bounded(SIGHTINGS);
        let (answer, answers) = bounded(SIGHTINGS);
        let now = (outlets.clock)();
        let (freshness, losses) = (Freshness::by(outlets.clock), Losses::default());
        let wiring = Wiring {
            sightings: sender,
            answers: answer,
            losses: losses.clone(),
            freshness: freshness.clone(),
            metrics: outlets.metrics.clone(),
            frames: outlets.frames,
            wire: outlets.wire,
        };
        let announcer = Announcer::new(links, wiring);
        let mut elector = Elector::new(me.node.clone(), settings, now);
        elector.handle(now, Event::Reach(announcer.reach().clone()));
        Self {
            clock: outlets.clock,
            elector,
            me,
            settings,
            announcer,
            neighbours: Neighbours::default(),
            conflicts: Conflicts::default(),
            doubles: Doubles::default(),
            failovers: Failovers::default(),
            paths: Paths::default(),
            hearing: Hearing::default(),
            rehearsals: Rehearsals::default(),
            fixed_profile: outlets.fixed_profile,
            due: now,
            notices: Notices::default(),
            decided: now,
            nodes_listed: false,
            leases_listed: None,
            locks: BTreeMap::new(),
            rules_changed: false,
            unclear: UnclearLeases::default(),
            backends: LocalBackends::new(outlets.slices_wanted),
            freshness,
            sightings,
            answers,
            losses,
            lost: 0,
            news: outlets.news,
            silent: outlets.silent,
            metrics: outlets.metrics,
            established: Some(outlets.established),
            had_session: false,
            twin: Twin::default(),
            ends: None,
        }
    }

    /// Runs until everything is handed over after [`Input::Stop`], or until nobody can send any more. What is to be written
    /// goes to `submit`, which does not wait; `next_round` is called several times a second.
    pub(crate) fn run(
        mut self,
        inputs: &Receiver<Input>,
        next_round: impl Fn(),
        mut submit: impl FnMut(Order),
    ) {
        loop {
            let next = self.turn(&mut submit);
            next_round();
            if self.has_ended()
                || !self.take_in(inputs, next.since(self.now()))
                || !self.stand_still(inputs, &next_round)
            {
                break;
            }
        }
        self.freshness.end();
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Whether everything is handed over after [`Input::Stop`].
    pub(crate) fn has_ended(&self) -> bool {
        self.ends.is_some_and(|end| self.elector.announcing().is_empty() || end <= self.now())
    }

    /// Waits for something to happen, and takes in all that has; `false` when nothing more can come.
    fn take_in(&mut self, inputs: &Receiver<Input>, patience: Duration) -> bool {
        let (answers, sightings) = (self.answers.clone(), self.sightings.clone());
        select! {
            recv(answers) -> sighting => if let Ok(sighting) = sighting { self.sighted(sighting) },
            recv(inputs) -> input => match input {
                Ok(input) => self.input(input),
                Err(_) => return false,
            },
            recv(sightings) -> sighting => if let Ok(sighting) = sighting { self.sighted(sighting) },
            default(patience) => {}
        }
        self.take_in_more(inputs);
        true
    }

    /// Takes in what has happened, without waiting.
    pub(crate) fn take_in_more(&mut self, inputs: &Receiver<Input>) {
        let (answers, sightings) = (self.answers.clone(), self.sightings.clone());
        answers.try_iter().take(BATCH).for_each(|sighting| self.sighted(sighting));
        sightings.try_iter().take(BATCH).for_each(|sighting| self.sighted(sighting));
        inputs.try_iter().take(BATCH).for_each(|input| self.input(input));
    }

    /// Does nothing, and has nothing answered, for as long as somebody rehearses that this node is silent: as if the process
    /// were paused, and with the same consequences when it goes on. `false` when nothing more can come.
    fn stand_still(&mut self, inputs: &Receiver<Input>, next_round: impl Fn()) -> bool {
        if !self.rehearsals.is_silent(&self.me.node, self.now()) {
            return true;
        }
        self.freshness.end();
        tracing::warn!("somebody rehearses that this node is silent: this speaker stands still");
        let mut waiting = Vec::new();
        let mut asked_to_stop = false;
        while !asked_to_stop && self.rehearsals.is_silent(&self.me.node, self.now()) {
            next_round();
            match inputs.recv_timeout(STILL) {
                Ok(input) => {
                    if let Input::Session(SessionRecord { session, silence, .. }) = &input {
                        self.rehearsals.seen(session, *silence, self.now());
                    }
                    asked_to_stop = matches!(input, Input::Stop);
                    waiting.push(input);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        tracing::info!("the rehearsed silence is over");
        waiting.into_iter().for_each(|input| self.input(input));
        true
    }

    /// Steps aside for a second process of this node, which answers the same; else hands everything over.
    fn stop(&mut self) {
        let recent = |seen: Timestamp| self.now().since(seen) < self.elector.renewal() * 2;
        if self.twin.renewed.is_some_and(recent) {
            tracing::info!(
                "another speaker runs on this node: this one stops and leaves everything to it"
            );
            self.ends = Some(self.now());
        } else {
            tracing::info!("handing over to other nodes");
            self.ends = Some(self.now() + HANDOVER);
            self.elector.handle(self.now(), Event::Stopping);
        }
    }

    fn input(&mut self, input: Input) {
        let event = match input {
            Input::Election(Event::Synced) => {
                self.leases_listed.get_or_insert(self.now());
                self.hearing.listed();
                return self.begin();
            }
            Input::Election(event) => event,
            Input::Session(record) => self.session_seen(record),
            Input::Lock(record) => self.lock_seen(*record),
            Input::NewerLock(address, format) => {
                return self.unclear.lock_is_newer(address, &format);
            }
            Input::LockRefused { address, why } => return self.lock_refused(address, &why),
            Input::SessionGone(node, until) => {
                if until.is_some_and(|until| self.elector.session_version(&node) > Some(until)) {
                    return;
                }
                self.failovers.session_gone(&node);
                self.rehearsals.gone(&node);
                self.neighbours.lost(&node, self.now());
                self.doubles.gone(&node);
                self.paths.forget(&node);
                self.hearing.gone(&node);
                Event::SessionGone(node)
            }
            Input::LockGone(address, until) => {
                let known = self.locks.get(&address).map(|record| record.lock.version);
                if until.is_some_and(|until| known > Some(until)) {
                    return;
                }
                self.unclear.lock_gone(address);
                self.notices.gone(address);
                if self.locks.remove(&address).is_some() {
                    self.announcer.released(address);
                }
                self.rules_changed = true;
                let backends = self.backends.lock_gone(address);
                self.learn(backends);
                Event::LockGone(address)
            }
            Input::Backends(changes) => {
                let events = self.backends.changed(changes);
                return self.learn(events);
            }
            Input::NoBackends => {
                let events = self.backends.forgo();
                return self.learn(events);
            }
            Input::Nodes(events) => return self.nodes_seen(events),
            Input::Links(links) => return self.follow(links),
            Input::Stop => return self.stop(),
        };
        match &event {
            Event::Rewound => self.rewound(),
            Event::Wrote { write, outcome } => self.wrote(write, *outcome),
            _ => {}
        }
        self.elector.handle(self.now(), event);
    }

    /// Any version of a record is newer than one of a history that is no more.
    fn rewound(&mut self) {
        self.twin.rewound();
        self.rehearsals.rewound();
        self.hearing.rewound();
        self.failovers.rewound();
        self.doubles.forget();
        self.locks.values_mut().for_each(|record| record.lock.version = Version(0));
    }

    fn wrote(&mut self, write: &Write, outcome: Outcome) {
        if let Write::Lock { address, change: LockChange::Take { .. }, .. } = write
            && matches!(outcome, Outcome::Done | Outcome::Conflict)
        {
            self.failovers.answered(*address);
        }
        if outcome == Outcome::Done {
            self.count_lost_session(write);
            self.report(write);
        }
    }

    /// What is known of this node decides by which rules it announces.
    fn nodes_seen(&mut self, events: Vec<Event>) {
        self.announcer.reconsider();
        self.learn(events);
        self.nodes_listed = true;
        self.begin();
    }

    /// Has the elector decide from now on, if all is there that it goes by: else it would take what is not known yet for
    /// what is not so. Nodes that cannot be listed are waited for a while.
    fn begin(&mut self) {
        let Some(since) = self.leases_listed else { return };
        if self.nodes_listed || self.now().since(since) >= WITHOUT_NODES {
            self.leases_listed = None;
            self.elector.handle(self.now(), Event::Synced);
        }
    }

    fn session_seen(&mut self, record: SessionRecord) -> Event {
        let SessionRecord { session, newer, instance, links, heard_on, silence, .. } = record;
        if self.rehearsals.seen(&session, silence, self.now()) {
            tracing::warn!(node = %session.node, ?silence, "somebody rehearses that a node is silent");
        }
        self.unclear.session_is(&session.node, newer.as_deref());
        if session.node == self.me.node {
            let is_ours = instance == self.me.instance;
            if self.twin.own_session_seen(&session, is_ours, self.now()) {
                self.hearing.inherit(
                    places_dead(&session, &links),
                    places_heard(&session, &heard_on),
                    self.now(),
                );
            }
        } else {
            self.look_for_double(&session, &links);
            self.hearing.said(&session, heard_on, self.now());
        }
        let is_live = session.is_live();
        if self.neighbours.learn(session.node.clone(), links, is_live) {
            self.announcer.reconsider();
        }
        if self.elector.epoch(&session.node).is_some_and(|known| known < session.epoch) {
            self.paths.forget(&session.node);
        }
        self.failovers.session_seen(&session, self.now());
        Event::Session(session)
    }

    /// Two nodes with one MAC address cannot both be reached.
    fn look_for_double(&mut self, session: &Session, links: &[LinkAddress]) {
        let shared = shared_mac(links, self.announcer.links());
        if self.doubles.seen(session, shared) {
            let (node, mac) = (&session.node, shared.unwrap_or_default());
            tracing::warn!(%node, %mac, "another node has the same MAC address as this one");
        }
    }

    fn lock_seen(&mut self, record: LockRecord) -> Event {
        let known = self.locks.get(&record.lock.address);
        let record = self.unclear.completed(record, known);
        let lock = record.lock.clone();
        let holder = lock.holder.as_ref().map(|holder| &holder.node);
        self.failovers.lock_seen(lock.address, holder, &self.me.node);
        self.remember(record);
        Event::Lock(lock)
    }

    /// The interfaces have changed. Those that heard nobody for a while are named: what happened there meanwhile has to be
    /// found out before anything is answered on them.
    fn follow(&mut self, links: Arc<Links>) {
        let returned = returned(self.announcer.links(), &links);
        let returned: Vec<Event> =
            returned.map(|it| Event::CarrierReturned(it.name.clone(), Families::ALL)).collect();
        let before = self.whereabouts();
        self.announcer.follow(links);
        let whereabouts = self.whereabouts();
        if whereabouts.links != before.links || whereabouts.own != before.own {
            self.elector.handle(self.now(), Event::Outdated);
            self.doubles.forget();
        }
        // First: the session that says where this node is does not name whom it has not heard there yet.
        let asked_on: Vec<Event> =
            self.elector.watched().iter().filter_map(|node| self.asked_on(node)).collect();
        let reach = Event::Reach(self.announcer.reach().clone());
        self.learn(asked_on.into_iter().chain([reach]).chain(returned));
    }

    /// On which interface a node is asked for its own address.
    fn asked_on(&self, node: &Node) -> Option<Event> {
        let links = self.announcer.links();
        let probe = self.neighbours.probe(node, links)?;
        let interface = links.interface(probe.interface)?.name.clone();
        Some(Event::AskedOn { node: node.clone(), interface })
    }

    /// An interface of a kind that each pod has one of is one that this node can announce on if a rule names it.
    fn look_at_rules(&mut self) {
        if !std::mem::take(&mut self.rules_changed) {
            return;
        }
        let named: BTreeSet<&Pattern> =
            self.locks.values().flat_map(|record| record.lock.terms.named()).collect();
        if self.announcer.name(named.into_iter().cloned().collect()) {
            self.learn([Event::Reach(self.announcer.reach().clone())]);
        }
    }

    /// An interface whose sockets cannot be opened is one that this node cannot announce on.
    fn look_at_opened(&mut self) {
        let Some(opened) = self.announcer.look_at_opened() else { return };
        let reach = Event::Reach(self.announcer.reach().clone());
        self.learn([reach].into_iter().chain(opened.into_iter().map(carrier_returned)));
    }

    /// An interface that is dead behind its carrier is one that this node cannot announce on.
    fn look_at_hearing(&mut self, now: Timestamp) {
        let (links, neighbours) = (self.announcer.links(), &self.neighbours);
        let questions = self.hearing.tick(Around { me: &self.me.node, links, neighbours }, now);
        questions.into_iter().for_each(|probe| _ = self.announcer.ask(probe));
        let Some(revived) = self.announcer.bury(self.hearing.dead()) else { return };
        let dead = self.hearing.dead().into_iter();
        let dead: Vec<&str> = dead
            .filter_map(|it| Some(self.announcer.links().interface(it)?.name.as_str()))
            .collect();
        if !dead.is_empty() {
            tracing::warn!(
                interfaces = dead.join(", "),
                "nobody answers this node here, though others hear one another: nothing is announced on these interfaces"
            );
        }
        if !revived.is_empty() {
            let names: Vec<&str> = revived.iter().map(|(name, _)| name.as_str()).collect();
            tracing::info!(interfaces = names.join(", "), "these interfaces can announce again");
        }
        let reach = Event::Reach(self.announcer.reach().clone());
        self.learn([reach].into_iter().chain(revived.into_iter().map(carrier_returned)));
    }

    fn learn(&mut self, events: impl IntoIterator<Item = Event>) {
        events.into_iter().for_each(|event| self.elector.handle(self.now(), event));
    }

    /// Keeps the newest record of a lock, whichever way it came.
    fn remember(&mut self, record: LockRecord) {
        let address = record.lock.address;
        let known = self.locks.get(&address).map(|known| &known.lock);
        if known.is_none_or(|known| known.version < record.lock.version) {
            if known.is_none_or(|known| known.terms != record.lock.terms) {
                self.announcer.reconsider();
                self.rules_changed = true;
            }
            let backends = self.backends.lock_seen(&record);
            self.learn(backends);
            if self.locks.insert(address, record).is_none() {
                self.announcer.allocated(address);
            }
        }
    }

    fn sighted(&mut self, sighting: Sighting) {
        let claim = sighting.claim;
        if sighting.said == Said::Replied {
            let (links, now) = (self.announcer.links(), self.now());
            let events = self.neighbours.answered(&sighting, links, now);
            let is_of_machine = !events.is_empty();
            for event in events {
                self.heard_on(&sighting, &event);
                self.answered(event, sighting.interface);
            }
            // A node's own address, or a router's, may be in a pool, too.
            if is_of_machine && !self.locks.contains_key(&claim.address) {
                return;
            }
        }
        if self.announcer.has(claim.mac) || !self.is_of_its_segment(&sighting) {
            return;
        }
        let announced = self.elector.announcing().contains(&claim.address);
        let holder = self.locks.get(&claim.address).and_then(|it| it.lock.holder.as_ref());
        let holder = holder.map(|holder| &holder.node);
        match self.neighbours.speaking_at(claim.mac, holder).cloned() {
            Some(node) if node == self.me.node => {}
            Some(node) => self.fellow(&sighting, node, announced),
            None if announced => self.stranger(&sighting),
            None if sighting.said == Said::Asked => {
                let Claim { address, mac } = claim;
                self.elector.handle(self.now(), Event::Wanted { address, mac: mac.octets() });
            }
            None => {
                self.moved(&sighting);
                self.occupied(claim.address, claim.mac, None);
            }
        }
    }

    /// A machine that is nobody's answers for what a node holds that does not answer itself. It may be the node, of which the
    /// session says neither the MAC address nor any address right.
    fn moved(&mut self, sighting: &Sighting) {
        let holder = self.locks.get(&sighting.claim.address).and_then(|it| it.lock.holder.as_ref());
        let missed = holder.map(|holder| &holder.node).filter(|node| self.elector.misses(node));
        let Some(node) = missed.filter(|_| sighting.said == Said::Replied) else { return };
        let now = self.now();
        if let Some(event) = self.neighbours.moved(node, sighting.claim, now) {
            self.answered(event, sighting.interface);
        }
    }

    fn heard_on(&mut self, sighting: &Sighting, event: &Event) {
        let node = match event {
            Event::NodeAnswered(node) | Event::AnsweredAs { node, .. } => Some(node),
            _ => None,
        };
        self.hearing.heard(sighting.interface, node, self.now());
    }

    /// A node or a gateway has answered. One whose silence is rehearsed is not heard. An answer on another interface than the
    /// node is asked on says nothing of that one; but this node hears there, whoever else is asked.
    fn answered(&mut self, event: Event, interface: u32) {
        let (links, now) = (self.announcer.links(), self.now());
        match &event {
            Event::AnsweredAs { mac, .. } if self.elector.is_proxy(*mac, now) => return,
            Event::NodeAnswered(node) | Event::AnsweredAs { node, .. } => {
                if self.rehearsals.is_silent(node, now) {
                    return;
                }
                if let Some(heard_on) = links.interface(interface) {
                    let (node, interface) = (node.clone(), heard_on.name.clone());
                    self.elector.handle(now, Event::HeardOn { node, interface });
                }
                if !self.neighbours.is_asked_on(node, interface, links) {
                    return;
                }
                self.failovers.node_heard(node, now);
                self.judge_path(&node.clone());
            }
            Event::GatewayAnswered(_) => self.paths.gateway_answered(now),
            _ => {}
        }
        self.elector.handle(self.now(), event);
    }

    /// Whether what was heard comes from where this node would announce the address itself. On another segment, a bridge of
    /// pods for instance, somebody may say anything.
    fn is_of_its_segment(&self, Sighting { interface, claim, .. }: &Sighting) -> bool {
        let places = self.elector.interfaces(claim.address, self.announcer.reach());
        let links = self.announcer.links();
        if places.is_empty() {
            return !self.neighbours.is_elsewhere(claim.mac, *interface, links);
        }
        let heard_on = links.interface(*interface);
        heard_on.is_some_and(|heard_on| places.iter().any(|it| it.name == heard_on.name))
    }

    /// A fellow node announces an address: its speaker does, or its kernel has the address.
    fn fellow(&mut self, sighting: &Sighting, by: Node, announced: bool) {
        let address = sighting.claim.address;
        if announced {
            self.count_conflict(sighting, "fellow");
        }
        let links = self.announcer.links();
        let holds = self.locks.get(&address).and_then(|it| it.lock.holder.as_ref());
        let holds = holds.is_some_and(|holder| holder.node == by);
        if is_by_speaker(sighting.said, links.is_for_services(address), holds) {
            self.failovers.speaker_heard(&by, self.now());
            self.elector.handle(self.now(), Event::Heard { address, by: by.clone() });
        }
        if sighting.said == Said::Replied && self.elector.misses(&by) {
            // Its session says of its own addresses what is not so any more, perhaps.
            self.answered(Event::NodeAnswered(by.clone()), sighting.interface);
        }
        // A fellow's speaker may ask for the same address. And where this node's service proxy has it, the fellow's has it
        // as well: it is nobody's own address.
        let is_its_own = sighting.said != Said::Asked;
        if is_its_own && !announced && !self.announcer.links().is_for_services(address) {
            self.occupied(address, sighting.claim.mac, Some(by));
        }
    }

    /// A machine has an address that this node does not announce.
    fn occupied(&mut self, address: IpAddr, mac: MacAddr, by: Option<Node>) {
        let by = match by {
            Some(node) => Occupant::Node(node),
            None if self.neighbours.is_router(mac) => Occupant::Router,
            None => Occupant::Stranger,
        };
        self.elector.handle(self.now(), Event::Occupied { address, mac: mac.octets(), by });
    }

    /// A stranger announces an address of ours: we insist.
    fn stranger(&mut self, sighting: &Sighting) {
        self.count_conflict(sighting, "stranger");
        let Claim { address, mac } = sighting.claim;
        self.elector.handle(self.now(), Event::Contested { address, mac: mac.octets() });
        let reaction = self.conflicts.heard(address, mac, self.now());
        if reaction.defend {
            self.announcer.insist(address);
        }
        if self.notices.tell(address, Trouble::Stranger, reaction.is_new, self.now()) {
            tracing::warn!(%address, %mac, "a machine that is no node of this cluster announces an address of ours");
            let note = format!(
                "A machine that is no node of this cluster ({mac}) announces {address} as well: clients may reach the wrong \
                 machine. {} keeps defending the address. Give that machine another address.",
                self.me.node
            );
            self.warn(address, &note, CONFLICT);
        }
    }

    /// Tells users of the fellow nodes that go on claiming what this node holds.
    fn name_fellows(&mut self, now: Timestamp) {
        let disputed: Vec<(IpAddr, Node)> =
            self.elector.disputed().map(|(address, by)| (address, by.clone())).collect();
        for (address, by) in disputed {
            if !self.notices.tell(address, Trouble::Fellow, false, now) {
                continue;
            }
            tracing::warn!(%address, %by, "a node goes on answering for an address of ours, though it does not hold it");
            let note = format!(
                "Node {by} answers for {address} as well, though {} announces it: clients may reach the wrong node. \
                 Another load balancer on {by}, or kube-proxy in IPVS mode without strictARP, may do so: switch that off.",
                self.me.node
            );
            self.warn(address, &note, CONFLICT);
        }
    }

    /// Tells users of the nodes that have the MAC address at which this node announces something.
    fn name_doubles(&mut self, now: Timestamp) {
        if self.doubles.are_none() {
            return;
        }
        let announced: Vec<IpAddr> = self.elector.announcing().iter().copied().collect();
        for address in announced {
            let Some((by, mac)) = self.double_of(address) else { continue };
            if self.notices.tell(address, Trouble::Double, false, now) {
                let note = format!(
                    "Node {by} has the same MAC address ({mac}) as {}, which announces {address}: clients may reach the \
                     wrong node, or none. Machines that were cloned need a MAC address each.",
                    self.me.node
                );
                self.warn(address, &note, CONFLICT);
            }
        }
    }

    /// Tells users of the addresses that follow their pods only now and then.
    fn name_flapping(&mut self, now: Timestamp) {
        let flapping: Vec<IpAddr> = self.elector.held_back().collect();
        self.metrics.flapping.set(i64::try_from(flapping.len()).unwrap_or(i64::MAX));
        for address in flapping {
            if !self.notices.tell(address, Trouble::Flapping, false, now) {
                continue;
            }
            tracing::warn!(%address, "the pods behind an address become ready and unready too often for it to follow them each time");
            let note = format!(
                "The pods behind {address} become ready and unready so often that the address follows them only every few \
                 seconds now (externalTrafficPolicy: Local): clients may get no answer in between. See why they do."
            );
            self.warn(address, &note, "EndpointsFlapping");
        }
    }

    /// The node that has the MAC address at which this node announces `address`.
    fn double_of(&self, address: IpAddr) -> Option<(Node, MacAddr)> {
        let places = self.elector.interfaces(address, self.announcer.reach());
        let here = &self.announcer.links().interfaces;
        let here = here.iter().filter(|it| places.iter().any(|place| place.name == it.name));
        here.filter_map(Interface::mac).find_map(|mac| Some((self.doubles.of(mac)?.clone(), mac)))
    }

    /// Tells users that the API server does not let this node write the lock of an address.
    fn lock_refused(&mut self, address: IpAddr, why: &str) {
        if self.notices.tell(address, Trouble::Refused, false, self.now()) {
            let note = format!(
                "{} cannot write the Lease of {address}, so who announces the address cannot change: {why}",
                self.me.node
            );
            self.warn(address, &note, "ApiRefused");
        }
    }

    /// Tells users of the addresses whose announce rules cannot be read, where this node was chosen to.
    fn name_unreadable(&mut self, now: Timestamp) {
        for address in self.unclear.without_rules() {
            let is_spokesman = self.elector.speaks_for(address);
            if is_spokesman && self.notices.tell(address, Trouble::Rules, false, now) {
                let note = format!(
                    "The announce rules on the Lease of {address} cannot be read, until the controller writes them anew. A \
                     speaker goes by the last ones that it could read; one that knows none does not announce the address."
                );
                self.warn(address, &note, "AnnounceRulesUnknown");
            }
        }
    }

    fn warn(&self, address: IpAddr, note: &str, reason: &'static str) {
        if let Some(record) = self.locks.get(&address) {
            self.news.warn(&record.claim.services, reason, note);
        }
    }

    fn count_conflict(&self, sighting: &Sighting, by: &str) {
        let interface = self.announcer.links().interface(sighting.interface);
        let name = interface.map_or("", |it| it.name.as_str());
        let protocol = if sighting.claim.address.is_ipv4() { Arp::LABEL } else { Ndp::LABEL };
        self.metrics.conflicts.with_label_values(&[name, protocol, by]).inc();
    }

    /// Takes note of how a node has answered.
    fn judge_path(&mut self, node: &Node) {
        let Some(answer) = self.paths.answered(node, self.now()) else { return };
        self.metrics.probe_seconds.observe(answer.latency.as_secs_f64());
        for tempo in answer.wrongly {
            self.metrics.would_have_accused.with_label_values(&[tempo.as_str()]).inc();
        }
    }

    /// Has each node asked as the way to it has earned.
    fn choose_profiles(&mut self, now: Timestamp) {
        if self.fixed_profile.is_some() {
            return;
        }
        for (node, Choice { tempo, why }) in self.paths.changed(now) {
            tracing::info!(%node, profile = tempo.as_str(), ?why, "how the node is asked on the wire");
            let profile = Some(tempo.profile());
            self.elector.handle(now, Event::Profile { node, profile });
        }
    }

    /// Decides once and carries it out; what is to be written goes to `submit`. Returns when the next turn is due at the
    /// latest.
    pub(crate) fn turn(&mut self, submit: &mut dyn FnMut(Order)) -> Timestamp {
        let now = self.now();
        // Whoever's answers came while this process was kept waiting is not late itself.
        if now.since(self.due) > LATE_TURN {
            self.paths.excuse();
        }
        // What was not heard on purpose says nothing of the way.
        self.rehearsals.over(now).iter().for_each(|node| self.paths.forget(node));
        self.choose_profiles(now);
        self.look_at_rules();
        self.begin();
        self.count_ownerless(now);
        if self.neighbours.forget(now) {
            self.announcer.reconsider();
        }
        if self.elector.misses_somebody(now) && self.has_backlog() {
            self.elector.handle(now, Event::Backlog);
        }
        // After the backlog: what has been read by now has been counted before.
        if std::mem::replace(&mut self.lost, self.losses.count()) != self.lost {
            self.elector.handle(now, Event::AnswersLost);
            self.paths.excuse();
            self.hearing.excuse();
        }
        self.look_at_hearing(now);
        let decision = self.elector.decide(now);
        self.note_takeovers(&decision);
        self.tell_of_silent_nodes();
        // In this order: after a pause, what is in the table is not to be answered for before it is looked at.
        self.attend(now);
        self.announcer.begin_anew(&decision.gained, now);
        self.look_at_opened();
        self.freshness.extend(now + self.settings.freshness);
        self.count_failovers(&decision.gained, now);
        decision.stranded.iter().for_each(|stranded| self.report_stranded(stranded));
        self.name_fellows(now);
        self.name_doubles(now);
        self.name_flapping(now);
        self.name_unreadable(now);
        decision.effects.into_iter().filter_map(|effect| self.act(effect)).for_each(submit);
        self.announcer.tell(now);
        self.update_health(now);
        let due = [self.announcer.next(), self.hearing.due()];
        self.due = due.into_iter().flatten().fold(decision.next, Timestamp::min);
        self.due
    }

    /// Tells the forwarder of this node, if it has one: it is not to wait until the API server does.
    fn tell_of_silent_nodes(&self) {
        let latest = self.elector.stands_in_for().into_iter().map(ToString::to_string).collect();
        self.silent.send_if_modified(|told| {
            let is_new = *told != latest;
            *told = latest;
            is_new
        });
    }

    /// Whether answers may have come that this thread does not know of. Asked in the order in which they come.
    fn has_backlog(&self) -> bool {
        self.announcer.has_backlog() || !self.answers.is_empty()
    }

    fn attend(&mut self, now: Timestamp) {
        let elector = &self.elector;
        let demand = Demand {
            announced: Cow::Borrowed(elector.announcing()),
            asked: elector.asking().collect(),
            awaited: elector.awaited().collect(),
        };
        self.announcer.attend_to(
            demand,
            |address, reach| elector.interfaces(address, reach),
            &self.neighbours,
            now,
        );
    }

    /// Carries out what can be done here and now. The rest is an order.
    fn act(&mut self, effect: Effect) -> Option<Order> {
        match effect {
            Effect::Ask(question) => self.ask(question),
            Effect::Write(write) if self.unclear.bar(&write) => {
                let outcome = Outcome::Failed;
                self.elector.handle(self.now(), Event::Wrote { write, outcome });
            }
            Effect::Write(write) => return Some(self.order(write)),
        }
        None
    }

    /// Puts a question on the wire.
    fn ask(&mut self, question: Question) {
        let links = self.announcer.links();
        match question {
            Question::Node(node) => self.ask_node(node, false),
            Question::NodeAnywhere(node) => self.ask_node(node, true),
            Question::Speaker { node, address } => {
                let places = self.elector.interfaces(address, self.announcer.reach());
                let probe = self.speaker_probe(&node, address, &places);
                let (is_beside, now) = (links.is_beside(address), self.now());
                let around = Around { me: &self.me.node, links, neighbours: &self.neighbours };
                let is_cut_off = places.is_empty() && is_beside;
                let probe = probe
                    .filter(|it| !is_cut_off && !self.hearing.is_deaf(it.interface, around, now));
                if !probe.is_some_and(|it| self.announcer.ask(it)) {
                    self.elector.handle(now, Event::SpeakerUnasked(node, address));
                }
            }
            Question::Others { on } => self.ask_others(&on),
            Question::Address { address, purpose } => self.ask_everybody(address, purpose),
        }
    }

    /// How to ask a node's speaker for what it announces, where this node would announce it at these `places`.
    fn speaker_probe(
        &self,
        node: &Node,
        address: IpAddr,
        places: &[&arpeggio_election::Interface],
    ) -> Option<Probe> {
        let there = self.elector.interfaces_of(node, address);
        let links = self.announcer.links();
        self.neighbours.speaker_probe((node, address), there.as_deref(), places, links)
    }

    /// Asks the default gateways, and some of the nodes that are found on these interfaces. Where this node has one only, whoever is
    /// there is asked as it is.
    fn ask_others(&mut self, on: &BTreeSet<String>) {
        let now = self.now();
        self.paths.gateway_asked(now);
        let (me, links) = (&self.me.node, self.announcer.links());
        let gateways = self.neighbours.gateway_probes(links, now);
        let has_several = self.announcer.reach().interfaces.len() > 1;
        let there = links.interfaces.iter().filter(|it| has_several && on.contains(&it.name));
        let nodes = there.filter(|it| it.flaw().is_none()).flat_map(|it| {
            let members = self.neighbours.members(me, it).take(OTHERS);
            members.filter_map(|link| probe(it, link.address, Some(link.mac.into())))
        });
        gateways.into_iter().chain(nodes).for_each(|probe| _ = self.announcer.ask(probe));
    }

    /// Asks for a node's own address: the node, and everybody `as_well`, then for its others, too, and its speaker. The node may
    /// have lost all of them, and its session does not say so yet.
    fn ask_node(&mut self, node: Node, as_well: bool) {
        let before = self.now();
        let links = self.announcer.links();
        let probes = if as_well {
            self.neighbours.probes_anywhere(&node, links)
        } else {
            self.neighbours.probe(&node, links).into_iter().collect()
        };
        let asked = probes.iter().filter(|probe| self.announcer.ask(**probe)).count();
        let Some(probe) = probes.first().filter(|_| asked > 0) else {
            return self.elector.handle(before, Event::Unasked(node));
        };
        if as_well {
            self.ask_speaker_beside(&node, probe.interface);
        }
        let wireless = probe.is_wireless(self.elector.reach(&node), self.announcer.links());
        self.paths.asked(&node, wireless, before);
        let asked_on = self.asked_on(&node);
        self.learn(asked_on);
    }

    /// Asks a node's speaker, and everybody, for what it announces on this interface. An answer shows that the node lives.
    fn ask_speaker_beside(&self, node: &Node, interface: u32) {
        for address in self.elector.asked_of(node) {
            let places = self.elector.interfaces(address, self.announcer.reach());
            let probe = self.speaker_probe(node, address, &places);
            let probe = probe.filter(|it| it.interface == interface);
            for probe in probe.into_iter().flat_map(Probe::and_to_everybody) {
                self.announcer.ask(probe);
            }
        }
    }

    /// Asks everybody for an address, this node's own kernel as well, which does not answer itself on the wire.
    fn ask_everybody(&mut self, address: IpAddr, purpose: Purpose) {
        let interfaces = self.elector.interfaces(address, self.announcer.reach());
        let has_left = self.announcer.ask_everybody(&interfaces, address, purpose);
        let links = self.announcer.links();
        if links.own_addresses().contains(&address) {
            let mut asked = interfaces.iter().map(|it| it.name.as_str());
            if let Some(mac) = asked.find_map(|name| links.mac_of(name)) {
                self.occupied(address, mac, Some(self.me.node.clone()));
            }
        }
        if !has_left && purpose.silence_counts() {
            self.elector.handle(self.now(), Event::AnswersLost);
        }
    }

    fn order(&mut self, write: Write) -> Order {
        self.twin.has_spoken |= matches!(write, Write::Start { .. } | Write::Renew { .. });
        let (whereabouts, lock) = match write.target() {
            Target::OwnSession => (self.whereabouts(), None),
            Target::Lock(address) => (Whereabouts::default(), self.locks.get(&address).cloned()),
            Target::Session(_) => (Whereabouts::default(), None),
        };
        Order { write, whereabouts, lock }
    }

    fn whereabouts(&self) -> Whereabouts {
        let links = self.announcer.links();
        let reach = self.announcer.reach().clone();
        let mut paths = self.paths.described();
        let mut asked_by = |node: &Node| self.fixed_profile.clone().or_else(|| paths.remove(node));
        let watched = self.elector.watched().iter();
        let paths = watched.filter_map(|node| Some((node.clone(), asked_by(node)?))).collect();
        let own = named_addresses(&links.own_addresses(), &reach, |it| self.locks.contains_key(it));
        let own_links = own_links(links, &reach);
        let heard_on = self.hearing.hears(links, self.now());
        Whereabouts { reach, links: own_links, own, paths, heard_on }
    }

    fn update_health(&mut self, now: Timestamp) {
        self.notices.forget(now);
        let announced = self.announcer.announced();
        let contested = self.conflicts.count(now, |address| announced.contains(address));
        let announced = announced.len();
        let silent = self.elector.announcing().len().saturating_sub(announced);
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.announced.set(gauge(announced));
        self.metrics.contested.set(gauge(contested));
        self.metrics.unannounceable.set(gauge(silent));
        self.metrics.sessions.set(gauge(self.elector.live_count()));
        self.metrics.ownerless.set(gauge(self.elector.ownerless()));
        self.metrics.unclear.set(gauge(self.unclear.locks()));
        if self.elector.established()
            && let Some(established) = self.established.take()
        {
            established.done();
        }
    }
}

fn carrier_returned((interface, families): (String, Families)) -> Event {
    Event::CarrierReturned(interface, families)
}

/// The interfaces on which somebody was heard when a session was written, and those on which nobody could be.
fn places_heard(session: &Session, heard_on: &HeardOn) -> Vec<String> {
    let nets: BTreeSet<IpNet> = heard_on.values().flatten().copied().collect();
    let is_heard = |net: &IpNet| nets.contains(&net.trunc());
    places(session, |it| it.cut_off == Families::ALL || it.subnets.iter().any(is_heard))
}

/// The interfaces that were found dead behind their carriers when a session was written. One without a carrier is not named among the
/// `links`: of it nothing was found, and its cable may be in by now.
fn places_dead(session: &Session, links: &[LinkAddress]) -> Vec<String> {
    let is_named = |net: &IpNet| links.iter().any(|link| link.address == net.addr());
    places(session, |it| it.cut_off == Families::ALL && it.subnets.iter().any(is_named))
}

fn places(
    session: &Session,
    is_such: impl Fn(&arpeggio_election::Interface) -> bool,
) -> Vec<String> {
    let interfaces = session.reach.iter().flat_map(|reach| &reach.interfaces);
    interfaces.filter(|it| is_such(it)).map(|it| it.name.clone()).collect()
}

/// Whether what a fellow node says of an address can be its speaker's word. Where the service proxies of all nodes have the
/// address (kube-proxy in IPVS mode), their kernels answer for it as well, unless `strictARP` is set, and ask for others in its
/// name; but kernels tell nobody of it unasked. Speakers ask in the name of their nodes.
fn is_by_speaker(said: Said, is_for_services: bool, holds: bool) -> bool {
    let can_be_kernels = matches!(said, Said::Replied | Said::Passing);
    !can_be_kernels || !is_for_services || holds
}

#[cfg(test)]
mod tests {
    use arpeggio_election::{Epoch, Renewal};

    use super::*;

    #[test]
    fn only_a_renewal_after_the_start_shows_that_another_process_lives() {
        let at = |seconds| Timestamp::from_origin(Duration::from_secs(seconds));
        let shown = |version| Session::live("node-1".into(), Epoch(1), Version(version));
        let mut twin = Twin::default();
        twin.own_session_seen(&shown(7), false, at(1));
        twin.own_session_seen(&shown(7), false, at(2));
        assert_eq!(twin.renewed, None, "the list shows what a predecessor left");
        twin.own_session_seen(&shown(8), true, at(3));
        assert_eq!(twin.renewed, None);
        twin.own_session_seen(&shown(9), false, at(4));
        assert_eq!(twin.renewed, Some(at(4)));
    }

    #[test]
    fn another_process_is_noticed_after_the_api_server_went_back_to_an_earlier_state() {
        let at = |seconds| Timestamp::from_origin(Duration::from_secs(seconds));
        let shown = |version, renewal| Session {
            renewal: Some(Renewal(renewal)),
            ..Session::live("node-1".into(), Epoch(1), Version(version))
        };
        let mut twin = Twin::default();
        twin.own_session_seen(&shown(70, 7), true, at(1));
        twin.rewound();
        twin.own_session_seen(&shown(5, 1), false, at(2));
        assert_eq!(twin.renewed, None, "whoever wrote it then may have ended long ago");
        twin.own_session_seen(&shown(6, 8), true, at(3));
        twin.own_session_seen(&shown(7, 9), false, at(4));
        assert_eq!(twin.renewed, Some(at(4)));
    }

    #[test]
    fn where_kernels_have_what_is_for_services_only_what_is_told_unasked_is_a_speakers_word() {
        let table = [
            (Said::Replied, false, false, true),
            (Said::Replied, true, false, false),
            (Said::Replied, true, true, true),
            (Said::Passing, true, false, false),
            (Said::Passing, false, false, true),
            (Said::Told, true, false, true),
            (Said::Asked, true, false, true),
        ];
        for (said, is_for_services, holds, expected) in table {
            assert_eq!(is_by_speaker(said, is_for_services, holds), expected, "{said:?}");
        }
    }
}

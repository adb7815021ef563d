//! The thread that decides and acts.
//!
//! Each turn takes in everything that has happened, decides once, and carries the decision out: frames and tables at
//! once, writes by way of the [`Writer`]. It never waits for the API server.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use arpeggio_api::{lock::LockRecord, session::SessionRecord};
use arpeggio_election::{
    Effect, Elector, Event, GiveReason, Node, Outcome, Settings, TakeReason, Target, Timestamp,
    Write,
};
use arpeggio_link::{clock, interfaces::Links};
use arpeggio_runtime::health::{Awaited, Heartbeat};
use crossbeam_channel::{Receiver, bounded, select};
use tokio::sync::oneshot;

use crate::{
    backends::LocalBackends,
    gratuitous::Schedule,
    input::Input,
    metrics::Metrics,
    neighbours::{Neighbours, address_probe, gateway_probes, own_addresses, reach},
    news::News,
    segment::{Freshness, Sighting, Wiring},
    segments::Segments,
    writer::{Order, Writer},
};

/// Sightings that wait for a turn; more are lost, and repeated by whoever is there.
const SIGHTINGS: usize = 1024;

/// Inputs taken in before the next decision, so that a flood of them cannot delay it for long.
const BATCH: usize = 4096;

/// A stranger that insists is logged once in this time.
const STRANGER_LOG: Duration = Duration::from_secs(10);

/// A stopping speaker waits so long for others to take what it announces; less than the pod's grace period.
const HANDOVER: Duration = Duration::from_secs(5);

/// Who this process is.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Its node.
    pub(crate) node: Node,
    /// Which of the node's speakers it is: its pod's name.
    pub(crate) instance: String,
}

/// Where the engine's decisions go.
pub(crate) struct Outlets {
    /// To the API server.
    pub(crate) writer: Writer,
    /// To users.
    pub(crate) news: News,
    /// To whoever counts.
    pub(crate) metrics: Arc<Metrics>,
    /// Told when this node has its session.
    pub(crate) established: Awaited,
    /// Told when `EndpointSlice`s are to be watched.
    pub(crate) slices_wanted: oneshot::Sender<()>,
}

/// One speaker at work.
pub(crate) struct Engine {
    me: Identity,
    settings: Settings,
    elector: Elector,
    links: Arc<Links>,
    neighbours: Neighbours,
    locks: BTreeMap<IpAddr, LockRecord>,
    backends: LocalBackends,
    segments: Segments,
    schedule: Schedule,
    freshness: Freshness,
    sightings: Receiver<Sighting>,
    writer: Writer,
    news: News,
    metrics: Arc<Metrics>,
    established: Option<Awaited>,
    stranger_logged: Option<Timestamp>,
    /// When another process of this node last renewed the session.
    other_instance: Option<Timestamp>,
    /// Set when the process is asked to stop: when it ends at the latest.
    ends: Option<Timestamp>,
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
        let freshness = Freshness::default();
        let wiring = Wiring {
            sightings: sender,
            freshness: freshness.clone(),
            metrics: outlets.metrics.clone(),
        };
        let mut segments = Segments::new(wiring);
        segments.follow(&links);
        let mut elector = Elector::new(me.node.clone(), settings, now());
        elector.handle(now(), Event::Reach(reach(&links)));
        Self {
            elector,
            me,
            settings,
            links,
            neighbours: Neighbours::default(),
            locks: BTreeMap::new(),
            backends: LocalBackends::new(outlets.slices_wanted),
            segments,
            schedule: Schedule::default(),
            freshness,
            sightings,
            writer: outlets.writer,
            news: outlets.news,
            metrics: outlets.metrics,
            established: Some(outlets.established),
            stranger_logged: None,
            other_instance: None,
            ends: None,
        }
    }

    /// Runs until everything is handed over after [`Input::Stop`], or until nobody can send any more.
    pub(crate) fn run(mut self, inputs: &Receiver<Input>, beat: &Heartbeat) {
        loop {
            let next = self.turn();
            beat.beat();
            if self.has_ended() || !self.take_in(inputs, next.since(now())) {
                break;
            }
        }
        self.freshness.end();
    }

    fn has_ended(&self) -> bool {
        self.ends.is_some_and(|end| self.elector.announcing().is_empty() || end <= now())
    }

    /// Waits for something to happen, and takes in all that has; `false` when nothing more can come.
    fn take_in(&mut self, inputs: &Receiver<Input>, patience: Duration) -> bool {
        let sightings = self.sightings.clone();
        select! {
            recv(inputs) -> input => match input {
                Ok(input) => self.input(input),
                Err(_) => return false,
            },
            recv(sightings) -> sighting => if let Ok(sighting) = sighting { self.sighted(sighting) },
            default(patience) => {}
        }
        sightings.try_iter().take(BATCH).for_each(|sighting| self.sighted(sighting));
        inputs.try_iter().take(BATCH).for_each(|input| self.input(input));
        true
    }

    /// Steps aside for a second process of this node, which answers the same; else hands everything over.
    fn stop(&mut self) {
        let recent = |seen: Timestamp| now().since(seen) < self.settings.renewal * 2;
        if self.other_instance.is_some_and(recent) {
            tracing::info!("another speaker runs on this node, leaving everything to it");
            self.ends = Some(now());
        } else {
            tracing::info!("handing over to other nodes");
            self.ends = Some(now() + HANDOVER);
            self.elector.handle(now(), Event::Stopping);
        }
    }

    fn input(&mut self, input: Input) {
        let event = match input {
            Input::Election(event) => event,
            Input::Session(SessionRecord { session, instance, links }) => {
                if session.node == self.me.node && instance != self.me.instance {
                    self.other_instance = Some(now());
                }
                self.neighbours.learn(session.node.clone(), links);
                Event::Session(session)
            }
            Input::Lock(record) => {
                let lock = record.lock.clone();
                self.remember(record);
                Event::Lock(lock)
            }
            Input::LockGone(address) => {
                self.locks.remove(&address);
                let backends = self.backends.lock_gone(address);
                self.learn(backends);
                Event::LockGone(address)
            }
            Input::Backends { service, backends } => {
                let events = self.backends.service_seen(service, backends);
                return self.learn(events);
            }
            Input::Links(links) => {
                self.links = links;
                self.segments.follow(&self.links);
                Event::Reach(reach(&self.links))
            }
            Input::Stop => return self.stop(),
        };
        match &event {
            Event::SessionGone(node) => self.neighbours.forget(node),
            Event::Wrote { write, outcome: Outcome::Done } => self.report(write),
            _ => {}
        }
        self.elector.handle(now(), event);
    }

    fn learn(&mut self, events: impl IntoIterator<Item = Event>) {
        events.into_iter().for_each(|event| self.elector.handle(now(), event));
    }

    /// Keeps the newest record of a lock, whichever way it came.
    fn remember(&mut self, record: LockRecord) {
        let address = record.lock.address;
        let newer = |known: &LockRecord| known.lock.version < record.lock.version;
        if self.locks.get(&address).is_none_or(newer) {
            let backends = self.backends.lock_seen(&record);
            self.learn(backends);
            self.locks.insert(address, record);
        }
    }

    fn sighted(&mut self, sighting: Sighting) {
        let claim = sighting.claim;
        if sighting.reply
            && let Some(event) = self.neighbours.answered(&sighting, &self.links)
        {
            return self.elector.handle(now(), event);
        }
        let address = claim.address;
        match self.neighbours.node_at(claim.mac) {
            Some(node) if *node == self.me.node => {}
            Some(node) => {
                self.metrics.conflicts.with_label_values(&["fellow"]).inc();
                let by = node.clone();
                self.elector.handle(now(), Event::Heard { address, by });
            }
            None if self.elector.announcing().contains(&address) => self.stranger(sighting),
            None => {
                let mac = claim.mac.octets();
                self.elector.handle(now(), Event::StrangerAnswered { address, mac });
            }
        }
    }

    fn stranger(&mut self, sighting: Sighting) {
        self.metrics.conflicts.with_label_values(&["stranger"]).inc();
        let recent = |logged: Timestamp| now().since(logged) < STRANGER_LOG;
        if !self.stranger_logged.is_some_and(recent) {
            self.stranger_logged = Some(now());
            let claim = sighting.claim;
            tracing::warn!(address = %claim.address, mac = %claim.mac, "a stranger announces our address");
        }
    }

    /// Decides once and carries it out; returns when the next turn is due at the latest.
    fn turn(&mut self) -> Timestamp {
        let now = now();
        let decision = self.elector.decide(now);
        self.freshness.extend(now + self.settings.freshness);
        self.announce(now);
        decision.effects.into_iter().for_each(|effect| self.act(effect));
        self.update_health(now);
        self.schedule.next().map_or(decision.next, |due| due.min(decision.next))
    }

    fn announce(&mut self, now: Timestamp) {
        // Before anything is asked: an answer must pass the filter.
        let ask = |address| address_probe(address, &self.links);
        let asked: Vec<_> = self.elector.asking().filter_map(ask).collect();
        let announcing = self.elector.announcing();
        let changes = self.segments.announce(announcing, &asked, &self.links, &self.neighbours);
        changes.lost.into_iter().for_each(|address| self.schedule.stop(address));
        changes.gained.into_iter().for_each(|address| self.schedule.start(address, now));
        while let Some(address) = self.schedule.pop(now) {
            self.segments.tell(address);
        }
    }

    fn act(&self, effect: Effect) {
        match effect {
            Effect::ProbeNode(node) => {
                if let Some(probe) = self.neighbours.probe(&node, &self.links) {
                    self.segments.ask(probe);
                }
            }
            Effect::ProbeGateway => {
                gateway_probes(&self.links).into_iter().for_each(|probe| self.segments.ask(probe));
            }
            Effect::ProbeAddress(address) => {
                address_probe(address, &self.links)
                    .into_iter()
                    .for_each(|probe| self.segments.ask(probe));
            }
            Effect::Write(write) => self.writer.submit(self.order(write)),
        }
    }

    fn order(&self, write: Write) -> Order {
        let lock = match write.target() {
            Target::Lock(address) => self.locks.get(&address).cloned(),
            Target::OwnSession | Target::Session(_) => None,
        };
        Order { write, links: own_addresses(&self.links), reach: reach(&self.links), lock }
    }

    /// Tells users and counters of a write that has succeeded.
    fn report(&self, write: &Write) {
        match write {
            Write::Start { epoch, .. } => tracing::info!(epoch = epoch.0, "session started"),
            Write::Accuse { node, .. } => {
                tracing::warn!(%node, "node is silent on the wire, asking the other deputy");
            }
            Write::End { node, reason, .. } => {
                self.metrics.ended.with_label_values(&[reason.as_str()]).inc();
                tracing::warn!(%node, %reason, "session ended");
            }
            Write::Take { address, reason, .. } => self.report_taken(*address, reason),
            Write::Give { address, to, reason, .. } => self.report_given(*address, to, *reason),
            Write::Renew { .. } | Write::Quarantine { .. } | Write::Read { .. } => {}
        }
    }

    fn report_taken(&self, address: IpAddr, reason: &TakeReason) {
        self.metrics.takes.with_label_values(&[reason.as_str()]).inc();
        tracing::info!(%address, %reason, "lock taken");
        let Some(record) = self.locks.get(&address) else { return };
        if *reason != TakeReason::Ours {
            let place = match self.links.announcing(address) {
                Ok(interface) => match interface.mac() {
                    Some(mac) => format!("{}, {mac}", interface.name),
                    None => interface.name.clone(),
                },
                Err(unfit) => unfit.to_string(),
            };
            let note = format!("{address} is announced from {} ({place}): {reason}", self.me.node);
            self.news.tell(&record.claim.services, "nodeAssigned", &note);
        }
    }

    fn report_given(&self, address: IpAddr, to: &Node, reason: GiveReason) {
        self.metrics.gives.with_label_values(&[reason.as_str()]).inc();
        tracing::info!(%address, %to, %reason, "lock given");
        let Some(record) = self.locks.get(&address) else { return };
        let from = &self.me.node;
        let note = format!("{address} is announced from {to}: given by {from}, since {reason}");
        self.news.tell(&record.claim.services, "nodeAssigned", &note);
    }

    fn update_health(&mut self, now: Timestamp) {
        let announced = self.segments.announced();
        let held: &BTreeSet<IpAddr> = self.elector.announcing();
        let silent = held.len().saturating_sub(announced);
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.announced.set(gauge(announced));
        self.metrics.unannounceable.set(gauge(silent));
        self.metrics.sessions.set(gauge(self.elector.live(now).len()));
        if self.elector.established()
            && let Some(established) = self.established.take()
        {
            established.done();
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_origin(clock::now())
}

//! Speakers, an API server and a segment, in ticks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    rc::Rc,
    time::Duration,
};

use arpeggio_election::{
    Effect, Elector, Event, Node, Outcome, Question, Settings, Timestamp, Write,
};

use super::{
    fault::{Fault, Kind, Place},
    law::{self, Witness},
    mutations::Mutation,
};
use crate::{
    sim::{INTERFACE, answered, ip},
    store::Store,
};

/// The unit of time; all settings are small multiples of it.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// A client waits this long for the API server.
pub(crate) const TIME_LIMIT: Duration = TICK;

/// One process of a node's speaker.
#[allow(clippy::struct_excessive_bools, reason = "they are independent faults and facts")]
#[derive(Debug, Clone)]
pub(crate) struct Speaker {
    pub(crate) home: usize,
    pub(crate) elector: Elector,
    pub(crate) running: bool,
    pub(crate) paused: bool,
    pub(crate) stopping: bool,
    pub(crate) api: bool,
    /// The watch tells nothing new for now.
    pub(crate) lags: bool,
    pub(crate) watch: Vec<Event>,
    pub(crate) inbox: Vec<Event>,
    /// Writes whose answers are awaited.
    pub(crate) awaited: Vec<(Timestamp, Write)>,
    pub(crate) announced: BTreeSet<IpAddr>,
    pub(crate) decided: Timestamp,
    /// Whether a session write that was sent since it last woke, and heard its segment again, has succeeded.
    pub(crate) proved: bool,
    /// What it has asked for since then, without an answer.
    pub(crate) asked: BTreeSet<IpAddr>,
    /// Has to decide though nothing was told.
    pub(crate) due: bool,
    /// What its clock lags behind.
    pub(crate) slept: Duration,
}

/// One host and its cable.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Host {
    pub(crate) name: Node,
    pub(crate) power: bool,
    pub(crate) frozen: bool,
    pub(crate) cable: bool,
}

/// A write on its way to the API server.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Request {
    pub(crate) from: usize,
    pub(crate) write: Write,
    pub(crate) held: bool,
    pub(crate) answer_lost: bool,
}

/// Everything there is.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) hosts: Vec<Host>,
    /// A state shares the speakers that it has not touched with the one before.
    pub(crate) speakers: Vec<Rc<Speaker>>,
    pub(crate) store: Store,
    pub(crate) requests: Vec<Request>,
    pub(crate) cuts: BTreeSet<(usize, usize)>,
    /// Where the faults strike that are still to come, the last one first.
    pub(crate) plan: Vec<Place>,
    /// Faults strike only when nothing else happens.
    pub(crate) calm: bool,
    /// The kinds of the faults so far, sorted.
    pub(crate) faults: Vec<Kind>,
    pub(crate) witness: Witness,
    pub(crate) mutation: Mutation,
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The API server does the write at this place, and all that no other one competes with.
    Serve(usize),
    /// Every speaker takes in what it was told, and decides.
    React,
    /// Nothing more happens now; time goes on.
    Tick,
    /// Something breaks.
    Break(Fault),
    /// Something is mended.
    Mend(Fault),
}

pub(crate) fn settings() -> Settings {
    Settings {
        session: TICK * 3,
        renewal: TICK,
        probe: TICK,
        answer: TICK,
        misses: 2,
        speaker_probe: TICK,
        speaker_patience: TICK * 2,
        freshness: TICK,
        retry: TICK,
        patience: TICK,
        first_probe: TICK,
        recheck: TICK * 3,
    }
}

impl World {
    /// `nodes` nodes that start at this moment, and two addresses.
    pub(crate) fn booting(nodes: usize, plan: &[Place], mutation: Mutation) -> Self {
        let now = Timestamp::from_origin(TICK * 100);
        let host = |index| Host {
            name: Node::from(format!("node-{index}").as_str()),
            power: true,
            frozen: false,
            cable: true,
        };
        let mut store = Store::default();
        (1..=2).for_each(|last| drop(store.create_lock(ip(last), None)));
        let mut world = Self {
            now,
            hosts: (0..nodes).map(host).collect(),
            speakers: Vec::new(),
            store,
            requests: Vec::new(),
            cuts: BTreeSet::new(),
            plan: plan.to_vec(),
            calm: false,
            faults: Vec::new(),
            witness: Witness::default(),
            mutation,
        };
        (0..nodes).for_each(|home| world.start(home));
        world
    }

    /// The same when all has come to rest; faults strike only at rest.
    pub(crate) fn calm(nodes: usize, plan: &[Place], mutation: Mutation) -> Self {
        let mut world = Self::booting(nodes, plan, mutation);
        world.calm = true;
        let end = world.now + TICK * 10;
        while world.now < end {
            world.take(Step::Tick);
            world.come_to_rest();
        }
        world
    }

    /// The same, but somebody has just asked for an address to be moved, and faults strike at any point from now on.
    pub(crate) fn moving(nodes: usize, plan: &[Place]) -> Self {
        let mut world = Self { calm: false, ..Self::calm(nodes, plan, Mutation::None) };
        let address = addresses(&world)[0];
        let lock = world.store.locks[&address].clone();
        let holder = lock.holder.map(|holder| holder.node);
        let other = world.hosts.iter().find(|host| Some(&host.name) != holder.as_ref());
        let to = other.map(|host| host.name.clone());
        let (record, _) = world.store.swap_lock(address, lock.version, |lock| lock.move_to = to);
        world.broadcast(record.as_ref());
        world
    }

    /// Lets everything happen that happens now.
    pub(crate) fn come_to_rest(&mut self) {
        while self.proceeding()[0] != Step::Tick {
            self.take(self.proceeding()[0]);
        }
    }

    /// A new process on a host, in the place of one that ended if there is one.
    pub(crate) fn start(&mut self, home: usize) {
        let elector = Elector::new(self.hosts[home].name.clone(), settings(), self.now);
        let speaker = Speaker {
            home,
            elector,
            running: true,
            paused: false,
            stopping: false,
            api: true,
            lags: false,
            watch: self.store.list().collect(),
            inbox: Vec::new(),
            awaited: Vec::new(),
            announced: BTreeSet::new(),
            decided: self.now,
            proved: false,
            asked: BTreeSet::new(),
            due: true,
            slept: Duration::ZERO,
        };
        match self.speakers.iter().position(|old| old.home == home && !old.running) {
            Some(place) => {
                self.requests.retain(|request| request.from != place);
                self.speakers[place] = Rc::new(speaker);
            }
            None => self.speakers.push(Rc::new(speaker)),
        }
    }

    /// All that may happen next. Faults aside it is one thing, or one of several writes about the same record.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut steps = self.proceeding();
        if let Some(place) = self.plan.last().filter(|_| !self.calm || steps[0] == Step::Tick) {
            let faults = self.possible_faults().into_iter().filter(|fault| fault.is_at(*place));
            steps.extend(faults.map(Step::Break));
        }
        // Who has lost power stays without it until all is mended, so that larger clusters can be explored.
        let mendable = self.plan.last() != Some(&Place::Power);
        if steps[0] == Step::Tick && mendable && !(self.calm && self.plan.is_empty()) {
            steps.extend(self.present_faults().into_iter().map(Step::Mend));
        }
        steps
    }

    /// What happens next when nothing breaks or is mended.
    pub(crate) fn proceeding(&self) -> Vec<Step> {
        let waiting: Vec<usize> =
            (0..self.requests.len()).filter(|place| !self.requests[*place].held).collect();
        if !waiting.is_empty() {
            let record = |place: &usize| self.record(&self.requests[*place]);
            let contested = waiting.iter().find(|place| {
                waiting.iter().filter(|other| record(other) == record(place)).count() > 1
            });
            return match contested {
                None => vec![Step::Serve(waiting[0])],
                Some(first) => {
                    let same = waiting.iter().filter(|place| record(place) == record(first));
                    same.map(|place| Step::Serve(*place)).collect()
                }
            };
        }
        let told = |speaker: &Rc<Speaker>| speaker.has_something_to_do() && self.is_awake(speaker);
        vec![if self.speakers.iter().any(told) { Step::React } else { Step::Tick }]
    }

    pub(crate) fn take(&mut self, step: Step) {
        match step {
            Step::Serve(place) => self.serve_from(place),
            Step::React => self.react(),
            Step::Tick => self.tick(),
            Step::Break(fault) => {
                self.plan.pop();
                self.faults.push(fault.kind());
                self.faults.sort_unstable();
                self.break_(fault);
            }
            Step::Mend(fault) => self.mend(fault),
        }
        law::look(self);
    }

    // Time.

    fn tick(&mut self) {
        self.now = self.now + TICK;
        for speaker in self.speakers.iter_mut().map(Rc::make_mut) {
            if speaker.paused && self.mutation == Mutation::ClockStops {
                speaker.slept += TICK;
            }
            speaker.due = true;
            let (over, awaited) = speaker
                .awaited
                .drain(..)
                .partition(|(sent, _)| self.now.since(*sent) >= TIME_LIMIT);
            speaker.awaited = awaited;
            let over: Vec<(Timestamp, Write)> = over;
            let failed = |(_, write)| {
                let outcome = self.mutation.of_failure(&write);
                Event::Wrote { write, outcome }
            };
            speaker.inbox.extend(over.into_iter().map(failed));
        }
        self.react();
        self.refresh();
    }

    // Speakers.

    pub(crate) fn speaker(&mut self, index: usize) -> &mut Speaker {
        Rc::make_mut(&mut self.speakers[index])
    }

    pub(crate) fn is_awake(&self, speaker: &Speaker) -> bool {
        let host = &self.hosts[speaker.home];
        speaker.running && !speaker.paused && host.power && !host.frozen
    }

    /// Whether process `index` answers who asks for `address`.
    pub(crate) fn answers(&self, index: usize, address: IpAddr) -> bool {
        let speaker = &self.speakers[index];
        let fresh = self.now.since(speaker.decided) <= settings().freshness;
        self.is_awake(speaker) && fresh && speaker.announced.contains(&address)
    }

    fn react(&mut self) {
        for index in 0..self.speakers.len() {
            let speaker = &self.speakers[index];
            if speaker.has_something_to_do() && self.is_awake(speaker) {
                self.react_one(index);
            }
        }
    }

    fn react_one(&mut self, index: usize) {
        let speaker = Rc::make_mut(&mut self.speakers[index]);
        let at = self.now - speaker.slept;
        if self.now.since(speaker.decided) > settings().freshness {
            speaker.forget_proofs();
        }
        speaker.decided = self.now;
        speaker.due = false;
        let watched = if speaker.lags { Vec::new() } else { std::mem::take(&mut speaker.watch) };
        let told = std::mem::take(&mut speaker.inbox);
        for event in watched.into_iter().chain(told) {
            speaker.proved |= proves(&event);
            speaker.elector.handle(at, event);
        }
        let decision = speaker.elector.decide(at);
        speaker.announced = speaker.elector.announcing().clone();
        if speaker.stopping && speaker.announced.is_empty() {
            speaker.running = false;
        }
        decision.gained.into_iter().for_each(|address| self.tell_segment(index, address));
        decision.effects.into_iter().for_each(|effect| self.act(index, at, effect));
    }

    fn act(&mut self, index: usize, at: Timestamp, effect: Effect) {
        let home = self.speakers[index].home;
        match effect {
            Effect::Ask(Question::Node(node) | Question::NodeAnywhere(node)) => {
                let there = self.hosts.iter().position(|host| host.name == node);
                if there.is_some_and(|there| self.connected(home, there)) {
                    answered(node)
                        .into_iter()
                        .for_each(|event| self.speaker(index).elector.handle(at, event));
                }
            }
            Effect::Ask(Question::Speaker { node, address }) => {
                self.ask_speaker(index, at, node, address);
            }
            Effect::Ask(Question::Others { .. }) => {
                if self.hosts[home].cable {
                    let event = Event::GatewayAnswered(INTERFACE.into());
                    self.speaker(index).elector.handle(at, event);
                }
            }
            Effect::Ask(Question::Address { address, .. }) => self.ask_segment(index, at, address),
            Effect::Write(write) => {
                let now = self.now;
                self.speaker(index).awaited.push((now, write.clone()));
                if self.speakers[index].api {
                    let request = Request { from: index, write, held: false, answer_lost: false };
                    self.requests.push(request);
                }
            }
        }
    }
}

impl Speaker {
    /// What was made sure of says nothing any more.
    pub(crate) fn forget_proofs(&mut self) {
        self.proved = false;
        self.asked.clear();
    }

    fn has_something_to_do(&self) -> bool {
        self.due || !self.inbox.is_empty() || !(self.lags || self.watch.is_empty())
    }
}

fn proves(event: &Event) -> bool {
    matches!(
        event,
        Event::Wrote { write: Write::Start { .. } | Write::Renew { .. }, outcome: Outcome::Done }
    )
}

/// The addresses, in order.
pub(crate) fn addresses(world: &World) -> Vec<IpAddr> {
    world.store.locks.keys().copied().collect()
}

/// For each address the hosts that announce it.
pub(crate) fn announcers(world: &World) -> BTreeMap<IpAddr, BTreeSet<usize>> {
    let of = |address| {
        let indices = (0..world.speakers.len()).filter(move |index| world.answers(*index, address));
        (address, indices.map(|index| world.speakers[index].home).collect())
    };
    addresses(world).into_iter().map(of).collect()
}

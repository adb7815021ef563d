//! A cluster in virtual time, in steps of one millisecond: electors, a store with compare-and-swap, a segment.

// A test's own machinery: what cannot be must stop the test. The flags are independent faults.
#![allow(clippy::unwrap_used, clippy::panic, clippy::struct_excessive_bools)]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use arpeggio_election::{
    AnnounceTerms, Backends, Claimant, Effect, Elector, EndReason, Epoch, Event, Families, Lock,
    LockChange, Node, NodeFacts, Occupant, Outcome, Question, Reach, Role, Settings, Stranded,
    TakeReason, Target, Timestamp, Version, Write,
};

use crate::store::Store;

/// From the write that leaves to the answer that is back; half of it until the server has done it.
const ROUND_TRIP: u64 = 6;
/// From a change in the store to the watch event.
const WATCH_DELAY: u64 = 4;
/// From a frame that leaves to a frame that is back.
const WIRE_ROUND_TRIP: u64 = 1;
/// When a simulation begins; all that was long ago must fit before.
const START: u64 = 10_000;
/// A client gives up waiting for the API server.
const TIME_LIMIT: u64 = 1000;

/// A process that is asked to stop ends after this time, whatever it has not handed over.
const GRACE: u64 = 5000;

/// The interface on which all of them hear each other.
pub(crate) const INTERFACE: &str = "eth0";

pub(crate) fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(crate) fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Three nodes and one address, settled, and which of them announces it.
pub(crate) fn settled() -> (Sim, usize) {
    let mut sim = Sim::new(3);
    sim.create_lock(ip(240));
    sim.run(secs(3));
    let owner = sim.only_announcer(ip(240));
    (sim, owner)
}

pub(crate) fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 168, 0, last])
}

pub(crate) fn name(index: usize) -> Node {
    Node::from(format!("node-{index}").as_str())
}

struct Speaker {
    elector: Elector,
    running: bool,
    /// When it was asked to stop.
    stopped: Option<u64>,
    paused: bool,
    cable: bool,
    /// The cable was put in, and the segment is to be told of all that is still announced.
    replugged: bool,
    api: bool,
    next: u64,
    /// What it will learn, by when and in which order.
    inbox: BTreeMap<(u64, u64), Event>,
    announced: BTreeSet<IpAddr>,
}

/// A node has told the segment that it has an address.
#[derive(Debug, Clone)]
struct Told {
    by: usize,
    /// The other nodes that heard it.
    heard: BTreeSet<usize>,
}

pub(crate) struct Sim {
    now: u64,
    speakers: Vec<Speaker>,
    store: Store,
    cuts: BTreeSet<(usize, usize)>,
    arriving: VecDeque<(u64, usize, Write)>,
    /// How long the API server takes for each write of a speaker to a lock; those of one speaker wait for one another.
    /// Sessions wait for nothing.
    pub(crate) lock_takes: BTreeMap<usize, u64>,
    locks_done: BTreeMap<usize, u64>,
    /// How much longer the API server takes for what a speaker writes of its own session.
    pub(crate) session_takes: BTreeMap<usize, u64>,
    /// Those whose writes the API server refuses. They read as ever.
    pub(crate) refused: BTreeSet<usize>,
    /// How much later than others a speaker is told of changes.
    pub(crate) lags: BTreeMap<usize, u64>,
    /// What users were told that no node may announce.
    pub(crate) stranded: Vec<Stranded>,
    pub(crate) log: Vec<String>,
    pub(crate) writes: usize,
    pub(crate) reads: usize,
    /// How many locks were to be taken that had just been taken.
    pub(crate) in_vain: usize,
    /// How many sessions somebody else had ended, or their nodes renewed, meanwhile.
    pub(crate) ends_in_vain: usize,
    /// The longest time that two powered, awake nodes with cables announced one address.
    pub(crate) longest_overlap: Duration,
    overlaps: BTreeMap<IpAddr, u64>,
    /// What two or more announce; worked out again when announcements have moved.
    doubles: Vec<IpAddr>,
    moved: bool,
    told: u64,
    /// Nodes whose MAC address is not what their sessions say.
    pub(crate) moved_macs: BTreeSet<usize>,
    /// Which segments a node has a cable to. All are in the same where nothing is said.
    pub(crate) segments: BTreeMap<usize, BTreeSet<u8>>,
    /// How many questions were put to everybody.
    pub(crate) broadcasts: usize,
    /// Those that do not hear what speakers answer them.
    pub(crate) deaf_to_speakers: BTreeSet<usize>,
    /// Machines that are none of ours, by the address that they answer for.
    pub(crate) strangers: BTreeMap<IpAddr, [u8; 6]>,
    /// Nodes whose kernels have an address.
    pub(crate) kernels: BTreeMap<IpAddr, usize>,
    /// Who has told the segment last where an address is. Clients hear all that have cables.
    believed: BTreeMap<IpAddr, Told>,
}

impl Sim {
    pub(crate) fn new(nodes: usize) -> Self {
        Self::with(nodes, Store::default())
    }

    /// A cluster whose speakers have all just been restarted: each resumes its session and its share of the addresses.
    pub(crate) fn resumed(nodes: usize, addresses: &[IpAddr]) -> Self {
        let mut store = Store::default();
        for index in 0..nodes {
            let start = Write::Start {
                epoch: Epoch(1),
                expected: None,
                lasts: secs(10),
                hears: BTreeSet::new(),
            };
            store.perform(&name(index), &start);
        }
        for (address, index) in addresses.iter().zip((0..nodes).cycle()) {
            let lock = store.create_lock(*address, None);
            let take = LockChange::Take { epoch: Epoch(1), reason: TakeReason::New };
            store.perform(&name(index), &Write::on(&lock, take));
        }
        Self::with(nodes, store)
    }

    fn with(nodes: usize, store: Store) -> Self {
        let start = START;
        let mut sim = Self {
            now: start,
            speakers: (0..nodes).map(|index| speaker(index, start)).collect(),
            store,
            cuts: BTreeSet::new(),
            arriving: VecDeque::new(),
            lock_takes: BTreeMap::new(),
            locks_done: BTreeMap::new(),
            session_takes: BTreeMap::new(),
            refused: BTreeSet::new(),
            lags: BTreeMap::new(),
            stranded: Vec::new(),
            log: Vec::new(),
            writes: 0,
            reads: 0,
            in_vain: 0,
            ends_in_vain: 0,
            longest_overlap: Duration::ZERO,
            overlaps: BTreeMap::new(),
            doubles: Vec::new(),
            moved: false,
            told: 0,
            moved_macs: BTreeSet::new(),
            segments: BTreeMap::new(),
            broadcasts: 0,
            deaf_to_speakers: BTreeSet::new(),
            strangers: BTreeMap::new(),
            kernels: BTreeMap::new(),
            believed: BTreeMap::new(),
        };
        (0..nodes).for_each(|index| sim.list(index));
        sim
    }

    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + u64::try_from(span.as_millis()).unwrap();
        while self.now < end {
            self.now += 1;
            self.serve_writes();
            (0..self.speakers.len()).for_each(|index| self.step(index));
            self.measure_overlap();
        }
    }

    fn at(&self) -> Timestamp {
        Timestamp::from_origin(millis(self.now))
    }

    fn step(&mut self, index: usize) {
        let at = self.at();
        let speaker = &mut self.speakers[index];
        if !speaker.running || speaker.paused {
            return;
        }
        if speaker.stopped.is_some_and(|stopped| self.now >= stopped + GRACE) {
            self.moved |= !speaker.announced.is_empty();
            speaker.announced.clear();
            return;
        }
        let mut busy = self.now >= speaker.next;
        while let Some(first) = speaker.inbox.first_entry().filter(|it| it.key().0 <= self.now) {
            speaker.elector.handle(at, first.remove());
            busy = true;
        }
        if !busy {
            return;
        }
        let decision = speaker.elector.decide(at);
        let next = decision.next.as_duration().as_millis();
        speaker.next = u64::try_from(next).unwrap();
        assert!(speaker.next > self.now, "a decision must not ask to be repeated at once");
        if speaker.announced != *speaker.elector.announcing() {
            speaker.announced = speaker.elector.announcing().clone();
            self.moved = true;
        }
        if std::mem::take(&mut speaker.replugged) {
            let announced = speaker.announced.clone();
            announced.into_iter().for_each(|address| self.clients_hear(index, address));
        }
        self.stranded.extend(decision.stranded);
        decision.gained.iter().for_each(|address| self.gratuitous(index, *address));
        decision.effects.into_iter().for_each(|effect| self.act(index, effect));
    }

    fn act(&mut self, index: usize, effect: Effect) {
        let is_broadcast =
            matches!(effect, Effect::Ask(Question::Others { .. } | Question::NodeAnywhere(_)));
        self.broadcasts += usize::from(is_broadcast);
        match effect {
            Effect::Ask(Question::Node(node)) => {
                let other = node.as_str().trim_start_matches("node-").parse().unwrap();
                let is_found = !self.moved_macs.contains(&other);
                if is_found && self.connected(index, other) {
                    answered(node)
                        .into_iter()
                        .for_each(|event| self.tell(index, WIRE_ROUND_TRIP, event));
                }
            }
            Effect::Ask(Question::NodeAnywhere(node)) => {
                let other = node.as_str().trim_start_matches("node-").parse().unwrap();
                if self.connected(index, other) {
                    answered(node)
                        .into_iter()
                        .for_each(|event| self.tell(index, WIRE_ROUND_TRIP, event));
                }
            }
            Effect::Ask(Question::Speaker { node, address }) => {
                let other = node.as_str().trim_start_matches("node-").parse().unwrap();
                let deaf = self.deaf_to_speakers.contains(&index);
                if !deaf && self.connected(index, other) && self.answers(other, address) {
                    self.tell(index, WIRE_ROUND_TRIP, Event::Heard { address, by: node });
                }
            }
            Effect::Ask(Question::Others { .. }) => {
                if self.speakers[index].cable {
                    self.tell(index, WIRE_ROUND_TRIP, Event::GatewayAnswered(INTERFACE.into()));
                }
            }
            Effect::Ask(Question::Address { address, .. }) => self.ask_segment(index, address),
            Effect::Write(write) if self.speakers[index].api => {
                let when = self.now + ROUND_TRIP / 2 + self.session_is_done(index, &write);
                let when = when.max(self.lock_is_done(index, &write));
                let place = self.arriving.partition_point(|(other, ..)| *other <= when);
                self.arriving.insert(place, (when, index, write));
            }
            Effect::Write(write) => {
                self.tell(index, TIME_LIMIT, Event::Wrote { write, outcome: Outcome::Failed });
            }
        }
    }

    /// As the engine of a speaker tells what it hears: by a MAC address, a node's speaker and its kernel are one.
    fn ask_segment(&mut self, index: usize, address: IpAddr) {
        let kernel = self.kernels.get(&address).copied();
        let fellows = self.announcers(address).into_iter().chain(kernel);
        for other in fellows
            .filter(|other| *other == index || self.connected(index, *other))
            .collect::<Vec<_>>()
        {
            let (by, mac) = (name(other), node_mac(other));
            if other != index {
                self.tell(index, WIRE_ROUND_TRIP, Event::Heard { address, by: by.clone() });
            } else if kernel != Some(index) {
                continue;
            }
            self.tell(
                index,
                WIRE_ROUND_TRIP,
                Event::Occupied { address, mac, by: Occupant::Node(by) },
            );
        }
        if let Some(mac) = self.strangers.get(&address).copied() {
            let claims = if self.announcers(address).contains(&index) {
                Event::Contested { address, mac }
            } else {
                Event::Occupied { address, mac, by: Occupant::Stranger }
            };
            self.tell(index, WIRE_ROUND_TRIP, claims);
        }
    }

    fn gratuitous(&mut self, from: usize, address: IpAddr) {
        self.clients_hear(from, address);
        for other in 0..self.speakers.len() {
            if other != from && self.connected(from, other) {
                let by = name(from);
                self.tell(other, WIRE_ROUND_TRIP, Event::Heard { address, by });
            }
        }
    }

    fn clients_hear(&mut self, from: usize, address: IpAddr) {
        if self.speakers[from].cable {
            let others = (0..self.speakers.len()).filter(|other| self.connected(from, *other));
            let heard = others.filter(|other| !self.speakers[*other].paused).collect();
            self.believed.insert(address, Told { by: from, heard });
        }
    }

    /// Hosts answer as long as they have power and cable, whatever their speakers do.
    fn connected(&self, one: usize, other: usize) -> bool {
        let up = |index: usize| self.speakers[index].running && self.speakers[index].cable;
        let cut = self.cuts.contains(&(one, other)) || self.cuts.contains(&(other, one));
        up(one) && up(other) && !cut && self.share_segment(one, other)
    }

    fn share_segment(&self, one: usize, other: usize) -> bool {
        let segments = |index: usize| self.segments.get(&index).cloned().unwrap_or([0].into());
        !segments(one).is_disjoint(&segments(other))
    }

    fn tell(&mut self, index: usize, delay: u64, event: Event) {
        self.told += 1;
        self.speakers[index].inbox.insert((self.now + delay, self.told), event);
    }

    // The API server.

    /// When the API server has done what a speaker wants of it, if that is about a lock.
    fn lock_is_done(&mut self, index: usize, write: &Write) -> u64 {
        if !matches!(write, Write::Lock { .. }) {
            return 0;
        }
        let done = self.locks_done.entry(index).or_default();
        *done = (*done).max(self.now) + self.lock_takes.get(&index).copied().unwrap_or_default();
        *done
    }

    fn session_is_done(&self, index: usize, write: &Write) -> u64 {
        let takes = self.session_takes.get(&index).filter(|_| write.target() == Target::OwnSession);
        takes.copied().unwrap_or_default()
    }

    fn serve_writes(&mut self) {
        while self.arriving.front().is_some_and(|(when, ..)| *when <= self.now) {
            let (_, index, write) = self.arriving.pop_front().unwrap();
            if self.refused.contains(&index) && !matches!(write, Write::Read { .. }) {
                let outcome = Outcome::Refused { retry_after: None };
                self.tell(index, ROUND_TRIP / 2, Event::Wrote { write, outcome });
                continue;
            }
            let (record, outcome) = self.store.perform(&name(index), &write);
            self.reads += usize::from(matches!(write, Write::Read { .. }));
            let is_take = matches!(write, Write::Lock { change: LockChange::Take { .. }, .. });
            self.in_vain += usize::from(is_take && outcome == Outcome::Conflict);
            let is_end = matches!(write, Write::End { .. });
            self.ends_in_vain += usize::from(is_end && outcome == Outcome::Conflict);
            if outcome == Outcome::Done && !matches!(write, Write::Read { .. }) {
                self.writes += 1;
                if !matches!(write, Write::Renew { .. }) {
                    self.log.push(format!("{} {write:?}", name(index)));
                }
            }
            if let Some(record) = record {
                if write.expected().is_some_and(|expected| version(&record) < Some(expected)) {
                    // As the speaker's writer and its watch do.
                    self.tell(index, ROUND_TRIP / 2, Event::Rewound);
                    self.list(index);
                }
                if outcome == Outcome::Done {
                    self.broadcast(&record);
                }
                self.tell(index, ROUND_TRIP / 2, record);
            }
            self.tell(index, ROUND_TRIP / 2, Event::Wrote { write, outcome });
        }
    }

    fn broadcast(&mut self, event: &Event) {
        for index in 0..self.speakers.len() {
            if self.speakers[index].api {
                let lag = self.lags.get(&index).copied().unwrap_or_default();
                self.tell(index, WATCH_DELAY + lag, event.clone());
            }
        }
    }

    fn list(&mut self, index: usize) {
        let all: Vec<Event> = self.store.list().collect();
        all.into_iter().for_each(|event| self.tell(index, ROUND_TRIP, event));
    }

    pub(crate) fn create_lock(&mut self, address: IpAddr) {
        let lock = self.store.create_lock(address, None);
        self.broadcast(&Event::Lock(lock));
    }

    /// The locks of one Service's addresses.
    pub(crate) fn create_locks_of(&mut self, service: &str, addresses: &[IpAddr]) {
        for address in addresses {
            let lock = self.store.create_lock(*address, Some(service));
            self.broadcast(&Event::Lock(lock));
        }
    }

    /// Changes where an address may be announced.
    pub(crate) fn set_terms(&mut self, address: IpAddr, terms: AnnounceTerms) {
        let version = self.store.locks[&address].version;
        let (record, _) = self.store.swap_lock(address, version, |lock| lock.terms = terms);
        self.broadcast(&record.unwrap());
    }

    /// Somebody asks for an address to be moved.
    pub(crate) fn ask_to_move(&mut self, address: IpAddr, to: usize) {
        let Some(version) = self.store.locks.get(&address).map(|lock| lock.version) else { return };
        let mark = |lock: &mut Lock| lock.move_to = Some(name(to));
        let (record, _) = self.store.swap_lock(address, version, mark);
        self.broadcast(&record.unwrap());
    }

    /// Whether a request to move an address stands on its lock.
    pub(crate) fn is_asked_to_move(&self, address: IpAddr) -> bool {
        self.store.locks[&address].move_to.is_some()
    }

    /// Who claims the address, by what its lock says.
    pub(crate) fn noted_dispute(&self, address: IpAddr) -> Option<Claimant> {
        self.store.locks[&address].disputed_by.clone()
    }

    /// Whether the lock of an address says that nobody announces it.
    pub(crate) fn is_noted_unannounced(&self, address: IpAddr) -> bool {
        self.store.locks[&address].unannounced
    }

    /// What Kubernetes says of a node.
    pub(crate) fn set_facts(&mut self, index: usize, facts: NodeFacts) {
        self.broadcast(&Event::Node { node: name(index), facts });
    }

    /// Where the backends of an address are.
    pub(crate) fn set_backends(&mut self, address: IpAddr, ready: &[usize], ending: &[usize]) {
        let nodes = |indices: &[usize]| indices.iter().map(|index| name(*index)).collect();
        let backends = Some(Backends { ready: nodes(ready), ending: nodes(ending) });
        self.broadcast(&Event::Backends { address, backends });
    }

    /// A frame comes to a speaker that says that another node announces an address.
    pub(crate) fn forge(&mut self, index: usize, address: IpAddr, by: usize) {
        self.tell(index, 0, Event::Heard { address, by: name(by) });
    }

    /// A frame of a machine that is no node comes to a speaker, for an address that it announces.
    pub(crate) fn contest(&mut self, index: usize, address: IpAddr, mac: [u8; 6]) {
        self.tell(index, 0, Event::Contested { address, mac });
    }

    /// Which of its addresses a speaker would tell users of, since a fellow goes on claiming them.
    pub(crate) fn disputed(&self, index: usize) -> Vec<(IpAddr, String)> {
        let disputed = self.speakers[index].elector.disputed();
        disputed.map(|(address, by)| (address, by.to_string())).collect()
    }

    /// A speaker does not know yet where the backends of an address are.
    pub(crate) fn backends_unknown(&mut self, index: usize, address: IpAddr) {
        self.tell(index, 0, Event::BackendsUnknown(address));
    }

    /// What a node's interfaces are.
    pub(crate) fn set_reach(&mut self, index: usize, reach: Reach) {
        self.store.reaches.insert(name(index), reach.clone());
        self.tell(index, 0, Event::Reach(reach));
    }

    /// A node's speaker is of an earlier release: its session does not say whom it hears.
    pub(crate) fn is_of_earlier_release(&mut self, index: usize) {
        self.store.earlier.insert(name(index));
    }

    /// A node notices that its session does not say what is so any more.
    pub(crate) fn record_is_outdated(&mut self, index: usize) {
        self.tell(index, 0, Event::Outdated);
    }

    /// The records as they are now.
    pub(crate) fn backup(&self) -> Store {
        self.store.clone()
    }

    /// Puts the API server back to an earlier state; all watches break, and list what there is.
    pub(crate) fn restore(&mut self, backup: Store) {
        self.store = backup;
        self.arriving.clear();
        (0..self.speakers.len()).for_each(|index| self.list(index));
    }

    /// A list shows that there is no such lock.
    pub(crate) fn absent(&mut self, address: IpAddr) {
        self.broadcast(&Event::LockGone(address));
    }

    pub(crate) fn delete_lock(&mut self, address: IpAddr) {
        self.store.locks.remove(&address);
        self.broadcast(&Event::LockGone(address));
    }

    // Faults.

    /// Somebody ends a node's session, whatever the node does.
    pub(crate) fn end_session(&mut self, index: usize) {
        let expected = self.store.sessions[&name(index)].version;
        let write = Write::End { node: name(index), expected, reason: EndReason::NodeSilent };
        let other = (index + 1) % self.speakers.len();
        self.arriving.push_front((self.now, other, write));
    }

    pub(crate) fn power_off(&mut self, index: usize) {
        self.speakers[index].running = false;
        self.speakers[index].announced.clear();
        self.moved = true;
        self.arriving.retain(|(_, from, _)| *from != index);
    }

    pub(crate) fn power_on(&mut self, index: usize) {
        self.speakers[index] = speaker(index, self.now);
        self.list(index);
    }

    pub(crate) fn restart_speaker(&mut self, index: usize) {
        self.power_off(index);
        self.power_on(index);
    }

    pub(crate) fn stop_speaker(&mut self, index: usize) {
        self.speakers[index].stopped.get_or_insert(self.now);
        self.tell(index, 0, Event::Stopping);
    }

    pub(crate) fn pause(&mut self, index: usize) {
        self.speakers[index].paused = true;
    }

    pub(crate) fn resume(&mut self, index: usize) {
        self.speakers[index].paused = false;
    }

    pub(crate) fn cable_out(&mut self, index: usize) {
        self.speakers[index].cable = false;
    }

    pub(crate) fn cable_in(&mut self, index: usize) {
        if !std::mem::replace(&mut self.speakers[index].cable, true) {
            self.speakers[index].replugged = true;
            self.tell(index, 0, Event::CarrierReturned("eth0".to_owned(), Families::ALL));
        }
    }

    /// A speaker has lost frames, answers among them perhaps.
    pub(crate) fn answers_lost(&mut self, index: usize) {
        self.tell(index, 0, Event::AnswersLost);
    }

    pub(crate) fn cut_between(&mut self, one: usize, other: usize) {
        self.cuts.insert((one, other));
    }

    pub(crate) fn heal_between(&mut self, one: usize, other: usize) {
        self.cuts.remove(&(one, other));
    }

    pub(crate) fn api_heal(&mut self, index: usize) {
        self.speakers[index].api = true;
        self.list(index);
    }

    /// Everything works again.
    pub(crate) fn heal_all(&mut self) {
        self.cuts.clear();
        for index in 0..self.speakers.len() {
            self.cable_in(index);
            self.speakers[index].paused = false;
            if !self.speakers[index].running || self.speakers[index].stopped.is_some() {
                self.power_on(index);
            } else if !self.speakers[index].api {
                self.api_heal(index);
            }
        }
    }

    pub(crate) fn api_down(&mut self) {
        (0..self.speakers.len()).for_each(|index| self.api_cut(index));
    }

    pub(crate) fn api_up(&mut self) {
        (0..self.speakers.len()).for_each(|index| self.api_heal(index));
    }

    pub(crate) fn api_cut(&mut self, index: usize) {
        self.speakers[index].api = false;
    }

    // What is seen.

    /// How long it has run.
    pub(crate) fn age(&self) -> Duration {
        millis(self.now - START)
    }

    fn answers(&self, index: usize, address: IpAddr) -> bool {
        let speaker = &self.speakers[index];
        let fresh = self.now < speaker.next + 2000;
        speaker.running && !speaker.paused && fresh && speaker.announced.contains(&address)
    }

    pub(crate) fn announcers(&self, address: IpAddr) -> Vec<usize> {
        (0..self.speakers.len()).filter(|index| self.answers(*index, address)).collect()
    }

    pub(crate) fn role(&self, index: usize, address: IpAddr) -> Role {
        self.speakers[index].elector.role(address)
    }

    pub(crate) fn only_announcer(&self, address: IpAddr) -> usize {
        match self.announcers(address)[..] {
            [only] => only,
            ref several => panic!("{address} is announced by {several:?}: {:#?}", self.log),
        }
    }

    /// Where a client takes an address to be.
    pub(crate) fn believed(&self, address: IpAddr) -> Option<usize> {
        self.believed.get(&address).map(|it| it.by)
    }

    /// Whether clients take an address to be elsewhere than at the node that announces it, though that one could know.
    pub(crate) fn misleads(&self, address: IpAddr) -> bool {
        let announcer = self.only_announcer(address);
        let told = self.believed.get(&address);
        told.is_none_or(|it| it.by != announcer && it.heard.contains(&announcer))
    }

    /// Which node's lock it is, whether its session counts or not.
    pub(crate) fn holder(&self, address: IpAddr) -> Option<usize> {
        let holder = self.store.locks.get(&address)?.holder.as_ref()?;
        (0..self.speakers.len()).find(|index| name(*index) == holder.node)
    }

    /// The MAC address that the lock of an address says has it.
    pub(crate) fn stranger(&self, address: IpAddr) -> Option<[u8; 6]> {
        self.store.locks[&address].stranger
    }

    pub(crate) fn announced_per_node(&self) -> Vec<usize> {
        let count = |speaker: &Speaker| {
            if speaker.running { speaker.announced.len() } else { 0 }
        };
        self.speakers.iter().map(count).collect()
    }

    /// In whose place a speaker announces something.
    pub(crate) fn stands_in_for(&self, index: usize) -> BTreeSet<Node> {
        self.speakers[index].elector.stands_in_for().into_iter().cloned().collect()
    }

    /// How many addresses have no owner, as one node sees it.
    pub(crate) fn ownerless(&self, index: usize) -> usize {
        self.speakers[index].elector.ownerless()
    }

    pub(crate) fn log_has(&self, word: &str) -> bool {
        self.log.iter().any(|line| line.contains(word))
    }

    fn announced_twice(&self) -> Vec<IpAddr> {
        let (mut once, mut twice) = (BTreeSet::new(), BTreeSet::new());
        for address in self.speakers.iter().flat_map(|speaker| &speaker.announced) {
            if !once.insert(*address) {
                twice.insert(*address);
            }
        }
        twice.into_iter().collect()
    }

    /// Two announcers that cannot hear each other can confuse nobody.
    fn measure_overlap(&mut self) {
        if std::mem::take(&mut self.moved) {
            self.doubles = self.announced_twice();
            self.overlaps.retain(|address, _| self.doubles.contains(address));
        }
        for address in self.doubles.clone() {
            let several = self.announcers(address);
            let pairs =
                several.iter().flat_map(|one| several.iter().map(move |other| (one, other)));
            if pairs.into_iter().any(|(one, other)| one < other && self.connected(*one, *other)) {
                let span = self.overlaps.entry(address).or_default();
                *span += 1;
                self.longest_overlap = self.longest_overlap.max(millis(*span));
            } else {
                self.overlaps.remove(&address);
            }
        }
    }
}

/// The MAC address of a node.
pub(crate) fn node_mac(index: usize) -> [u8; 6] {
    [2, 0, 0, 0, 1, u8::try_from(index).unwrap()]
}

/// What a speaker tells when a node has answered it.
pub(crate) fn answered(node: Node) -> [Event; 3] {
    let interface = || INTERFACE.to_owned();
    [
        Event::AskedOn { node: node.clone(), interface: interface() },
        Event::HeardOn { node: node.clone(), interface: interface() },
        Event::NodeAnswered(node),
    ]
}

fn version(record: &Event) -> Option<Version> {
    match record {
        Event::Session(session) => Some(session.version),
        Event::Lock(lock) => Some(lock.version),
        _ => None,
    }
}

fn speaker(index: usize, now: u64) -> Speaker {
    let at = Timestamp::from_origin(millis(now));
    Speaker {
        elector: Elector::new(name(index), Settings::default(), at),
        running: true,
        stopped: None,
        paused: false,
        cable: true,
        replugged: false,
        api: true,
        next: now,
        inbox: BTreeMap::new(),
        announced: BTreeSet::new(),
    }
}

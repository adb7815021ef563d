//! One interface and protocol: who listens there, and what is sent unasked.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use arpeggio_election::Timestamp;
use arpeggio_link::{interfaces::Interface, packet::SocketError};
use arpeggio_runtime::telemetry::causes;
use arpeggio_wire::{Asker, Claim, MacAddr, Question};
use crossbeam_channel::Sender;

use crate::{
    frames::{Direction, Frames, Recorder, Subject},
    listener::{Freshness, Listener, Losses, Sighting, Table, Task},
    metrics::{Metrics, SegmentMetrics},
    protocol::Protocol,
    voice::Voice,
    wire::{Ear, Wire},
};

/// Groups are joined for so long in one turn, and further ones in the next: the deciding thread has more to do.
const JOINING: Duration = Duration::from_millis(50);

/// What the answering threads tell the engine, and by what they are told to be silent.
#[derive(Debug, Clone)]
pub(crate) struct Wiring {
    /// Bounded; what does not fit is lost, and said again by whoever said it.
    pub(crate) sightings: Sender<Sighting>,
    /// The same for answers to this node's own questions.
    pub(crate) answers: Sender<Sighting>,
    /// How many answers may have been lost.
    pub(crate) losses: Losses,
    /// When the thread must be silent.
    pub(crate) freshness: Freshness,
    /// Where it counts.
    pub(crate) metrics: Arc<Metrics>,
    /// Where the last frames are kept.
    pub(crate) frames: Frames,
    /// What opens the ways to segments.
    pub(crate) wire: Arc<dyn Wire>,
}

impl Wiring {
    /// By the clock that decisions are judged by.
    pub(crate) fn now(&self) -> Timestamp {
        self.freshness.now()
    }

    /// Has somebody listen who judges by what is in `table`.
    fn open<P: Protocol>(
        &self,
        task: Task,
        interface: &Interface,
        mac: MacAddr,
        table: Arc<ArcSwap<Table<P>>>,
        voice: &Voice,
    ) -> Result<Box<dyn Ear<P>>, SocketError> {
        let sightings = match task {
            Task::Answer => &self.sightings,
            Task::Hear => &self.answers,
        };
        let listener = Listener {
            task,
            index: interface.index,
            interface: interface.name.clone(),
            mac,
            table,
            sightings: sightings.clone(),
            freshness: self.freshness.clone(),
            losses: self.losses.clone(),
            metrics: self.metrics.of_segment(&interface.name, P::LABEL),
            recorder: self.frames.of_interface(&interface.name),
            voice: voice.clone(),
        };
        P::open(&*self.wire, interface, listener)
    }
}

/// The addresses that an interface has to do with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Concern<Address> {
    /// Those that are announced.
    pub(crate) announced: BTreeSet<Address>,
    /// Those that are asked for before their first use.
    pub(crate) asked: BTreeSet<Address>,
    /// Those of neighbours whose answers are awaited.
    pub(crate) peers: BTreeSet<Address>,
}

impl<Address> Default for Concern<Address> {
    fn default() -> Self {
        Self { announced: BTreeSet::new(), asked: BTreeSet::new(), peers: BTreeSet::new() }
    }
}

impl<Address: Copy + Ord> Concern<Address> {
    /// The addresses that nobody else should have.
    fn ours(&self) -> BTreeSet<Address> {
        self.announced.union(&self.asked).copied().collect()
    }

    /// The addresses whose answers are awaited: neighbours', and those that nobody should have.
    fn answers(&self) -> BTreeSet<Address> {
        self.peers.union(&self.asked).copied().collect()
    }
}

/// One interface that answers. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Segment<P: Protocol> {
    interface: Interface,
    mac: MacAddr,
    wiring: Wiring,
    /// Answers.
    own: Box<dyn Ear<P>>,
    /// What it answers from.
    table: Arc<ArcSwap<Table<P>>>,
    /// Hears the answers to this node's questions; opened with the first one that is awaited here.
    peers: Option<Box<dyn Ear<P>>>,
    /// For which addresses whatever it hears is an answer.
    awaited: Arc<ArcSwap<Table<P>>>,
    /// A group is missing; it is tried again with every decision.
    unjoined: bool,
    /// What the kernel has refused last: a filter for it, or the second socket.
    refused: Option<Concern<P::Address>>,
    concern: Concern<P::Address>,
    /// What the filters let in: questions for our addresses, and answers.
    let_in: (BTreeSet<P::Address>, BTreeSet<P::Address>),
    voice: Voice,
    /// Users were told that the voice is lost.
    told_of_voice: bool,
    metrics: SegmentMetrics,
    recorder: Recorder,
}

impl<P: Protocol> Segment<P> {
    /// Has somebody listen; nothing is announced yet.
    pub(crate) fn open(
        interface: Interface,
        mac: MacAddr,
        wiring: &Wiring,
    ) -> Result<Self, SocketError> {
        let table: Arc<ArcSwap<Table<P>>> = Arc::default();
        let voice = Voice::default();
        Ok(Self {
            mac,
            wiring: wiring.clone(),
            own: wiring.open(Task::Answer, &interface, mac, table.clone(), &voice)?,
            table,
            peers: None,
            awaited: Arc::default(),
            unjoined: false,
            refused: None,
            concern: Concern::default(),
            let_in: Default::default(),
            voice,
            told_of_voice: false,
            metrics: wiring.metrics.of_segment(&interface.name, P::LABEL),
            recorder: wiring.frames.of_interface(&interface.name),
            interface,
        })
    }

    /// The interface as it was when it was opened.
    pub(crate) fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Whether it still answers for `interface` with the right MAC address.
    pub(crate) fn serves(&self, interface: &Interface) -> bool {
        self.interface.name == interface.name
            && interface.mac() == Some(self.mac)
            && !self.has_ended()
    }

    /// Whether the interface is gone. Another one may have got its index since.
    pub(crate) fn has_ended(&self) -> bool {
        self.own.has_ended() || self.peers.as_ref().is_some_and(|it| it.has_ended())
    }

    /// Whether answers may have come that nobody has told of yet.
    pub(crate) fn has_backlog(&self) -> bool {
        self.peers.as_ref().is_some_and(|it| it.has_backlog())
    }

    /// Whether the kernel has refused what is needed to announce here, or to hear who answers; or hands over no frames, or
    /// lets none leave.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.is_some()
            || self.voice.is_lost(self.wiring.now())
            || self.own.is_deaf()
            || self.peers.as_ref().is_some_and(|it| it.is_deaf())
    }

    /// Whether the kernel refuses something here, or did until a while ago. That is known only as long as this is open.
    pub(crate) fn is_in_trouble(&self) -> bool {
        self.is_refused() || self.voice.was_refused(self.wiring.now())
    }

    /// Whether something is announced or asked for here.
    pub(crate) fn is_needed(&self) -> bool {
        !self.concern.announced.is_empty() || !self.concern.asked.is_empty()
    }

    /// Announces and listens for exactly `concern` from now on; `false` when that has to be tried again.
    ///
    /// Groups are joined and the filter is widened before the table, so that no question in between is lost.
    pub(crate) fn attend_to(&mut self, concern: Concern<P::Address>) -> bool {
        if concern != self.concern || self.unjoined {
            self.join(&concern.ours());
        }
        if concern == self.concern && self.refused.is_none() {
            return !self.unjoined;
        }
        let kept = &concern.announced & &self.concern.announced;
        if kept != self.concern.announced {
            // What is not ours any more is answered for no more, whatever the kernel says to the new filter.
            self.answer_for(kept.clone(), &self.concern.asked);
            self.concern.announced = kept;
        }
        if concern != self.concern {
            if !self.let_in(&concern) {
                self.refused = Some(concern);
                return false;
            }
            self.answer_for(concern.announced.clone(), &concern.asked);
            self.own.leave_all_but(&concern.ours());
            self.concern = concern;
        }
        self.try_again() && !self.unjoined
    }

    /// Looks whether the kernel does now what it has refused: others have taken over what this node could not announce here,
    /// so that nobody else would ask it to. `false` when it still refuses.
    fn try_again(&mut self) -> bool {
        let Some(refused) = self.refused.clone() else { return true };
        if self.let_in(&refused) && self.let_in(&self.concern.clone()) {
            self.refused = None;
            tracing::info!(interface = self.interface.name, "addresses can be announced again");
        }
        self.refused.is_none()
    }

    /// Replaces each filter that is to let in something else. A refusal is said once, and tried again with every decision.
    fn let_in(&mut self, concern: &Concern<P::Address>) -> bool {
        let replaced = self.filter(concern.ours(), concern.answers());
        if let Err(error) = &replaced
            && self.refused.is_none()
        {
            tracing::error!(
                interface = self.interface.name,
                error = %causes(error),
                "addresses not announced"
            );
        }
        replaced.is_ok()
    }

    /// Has the sockets let in what concerns `ours`, and the `answers` of these; no new socket for nobody's.
    fn filter(
        &mut self,
        ours: BTreeSet<P::Address>,
        answers: BTreeSet<P::Address>,
    ) -> Result<(), SocketError> {
        if self.peers.is_none() && !answers.is_empty() {
            let (interface, table) = (&self.interface, self.awaited.clone());
            let ear = self.wiring.open(Task::Hear, interface, self.mac, table, &self.voice);
            self.peers = Some(ear?);
        }
        if let Some(peers) = self.peers.as_ref().filter(|_| self.let_in.1 != answers) {
            peers.let_in(&P::filter(BTreeSet::new(), answers.clone()))?;
            self.let_in.1 = answers;
        }
        if self.let_in.0 != ours {
            self.own.let_in(&P::filter(ours.clone(), BTreeSet::new()))?;
            self.let_in.0 = ours;
        }
        Ok(())
    }

    fn answer_for(&self, announced: BTreeSet<P::Address>, asked: &BTreeSet<P::Address>) {
        let announced = announced.into_iter().collect();
        let asked: HashSet<P::Address> = asked.iter().copied().collect();
        if self.awaited.load().asked != asked {
            let awaited = Table { announced: HashSet::new(), asked: asked.clone() };
            self.awaited.store(Arc::new(awaited));
        }
        self.table.store(Arc::new(Table { announced, asked }));
    }

    /// Joins what is missing. Without it the addresses are announced all the same: on a segment whose switches do not
    /// snoop they can be reached.
    fn join(&mut self, ours: &BTreeSet<P::Address>) {
        let joined = self.own.join(ours, JOINING);
        if let Err(error) = &joined
            && !self.unjoined
        {
            tracing::error!(
                interface = self.interface.name,
                error = %causes(error),
                "switches may not deliver questions for announced addresses"
            );
        }
        self.unjoined = !matches!(joined, Ok(true));
    }

    /// IPv6 was away here: the kernel may have forgotten the groups, though their sockets have not.
    pub(crate) fn join_again(&mut self) {
        self.own.leave_all_but(&BTreeSet::new());
        self.unjoined = true;
    }

    /// Tells everybody that `address` is here, and says whether all of that has left. `deferred`: later than it was due.
    pub(crate) fn tell(&self, address: P::Address, deferred: bool) -> bool {
        if deferred {
            self.metrics.deferred.inc();
        }
        let mut all = true;
        for frame in P::announcements(Claim { address, mac: self.mac }) {
            match self.send(Subject::Address, &frame) {
                Ok(()) => {
                    self.voice.carried();
                    self.metrics.gratuitous.inc();
                }
                // Then nobody is there to be told, and the interface is given up for that.
                Err(SocketError::InterfaceDown | SocketError::InterfaceGone) => all = false,
                Err(_) => {
                    self.voice.refused(self.wiring.now());
                    all = false;
                }
            }
        }
        all
    }

    /// Tells users, once, that nothing leaves here, and when it does again.
    pub(crate) fn tell_of_voice(&mut self) {
        let interface = &self.interface.name;
        let is_lost = self.voice.is_lost(self.wiring.now());
        if is_lost && !self.told_of_voice {
            tracing::error!(
                interface,
                protocol = P::LABEL,
                "the kernel refuses every frame that announces an address: is there a packet filter, or a card that stands still?"
            );
            self.told_of_voice = true;
        } else if self.told_of_voice && self.voice.is_well() {
            tracing::info!(interface, protocol = P::LABEL, "frames leave again");
            self.told_of_voice = false;
        }
    }

    /// Asks for `address`: one machine, or everybody. In the name of this node's address `source`; without one it is a
    /// question that nobody remembers the asker by. Says whether it has left; it does not where no answer could be heard.
    pub(crate) fn ask(
        &self,
        address: P::Address,
        source: Option<P::Address>,
        to: Option<MacAddr>,
    ) -> bool {
        // Who claims what is announced is heard where it is answered.
        let is_heard_beside = self.concern.announced.contains(&address) && !self.own.is_deaf();
        if !is_heard_beside && self.peers.as_ref().is_none_or(|it| it.is_deaf()) {
            return false;
        }
        let asker = Asker { mac: self.mac, address: source };
        let Concern { announced, asked, .. } = &self.concern;
        let is_ours = announced.contains(&address) || asked.contains(&address);
        let subject = if is_ours { Subject::Address } else { Subject::Neighbour };
        self.send(subject, &P::ask(Question { address, asker }, to)).is_ok()
    }

    fn send(&self, subject: Subject, frame: &[u8]) -> Result<(), SocketError> {
        let sent = self.own.send(frame);
        if let Err(error) = &sent {
            self.metrics.refused.inc();
            tracing::debug!(
                interface = self.interface.name,
                error = %causes(&error),
                "frame not sent"
            );
        }
        if sent.is_ok() {
            self.recorder.keep(subject, Direction::Out, Instant::now(), frame);
        }
        sent
    }
}

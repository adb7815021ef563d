//! One interface and protocol: the sockets, the threads that listen on them, and what is sent unasked.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use arc_swap::ArcSwap;
use arpeggio_election::Pattern;
use arpeggio_link::{
    interfaces::{Interface, is_wireless},
    packet::{FrameSocket, SocketError},
};
use arpeggio_runtime::telemetry::causes;
use arpeggio_wire::{Asker, Claim, MacAddr, Question};
use crossbeam_channel::Sender;

use crate::{
    listener::{Freshness, Listener, Losses, Sighting, Table, Task},
    metrics::{Metrics, SegmentMetrics},
    protocol::{Groups, Protocol},
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
    /// Interfaces, besides wireless ones, whose cards are told to let everything in.
    pub(crate) promiscuous: Arc<[Pattern]>,
}

impl Wiring {
    fn is_promiscuous(&self, name: &str) -> bool {
        is_wireless(name) || self.promiscuous.iter().any(|pattern| pattern.matches(name))
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

/// A socket and the thread that reads it. Dropping it ends the thread.
#[derive(Debug)]
struct Ear<P: Protocol> {
    socket: Arc<FrameSocket<P::Filter>>,
    table: Arc<ArcSwap<Table<P>>>,
    stop: Arc<AtomicBool>,
    busy: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl<P: Protocol> Ear<P> {
    /// Opens the socket and starts the thread, which hears nothing yet.
    fn open(
        task: Task,
        interface: &Interface,
        mac: MacAddr,
        wiring: &Wiring,
    ) -> Result<Self, SocketError> {
        let socket = Arc::new(FrameSocket::open(interface.index, &P::Filter::default())?);
        if wiring.is_promiscuous(&interface.name) {
            socket.hear_everything()?;
        }
        let (sightings, mark) = match task {
            Task::Answer => (&wiring.sightings, ""),
            Task::Hear => (&wiring.answers, "h"),
        };
        let table = Arc::new(ArcSwap::from_pointee(Table::default()));
        let [stop, busy] = [false; 2].map(|it| Arc::new(AtomicBool::new(it)));
        let listener = Listener::<P> {
            task,
            index: interface.index,
            interface: interface.name.clone(),
            mac,
            socket: socket.clone(),
            table: table.clone(),
            stop: stop.clone(),
            busy: busy.clone(),
            sightings: sightings.clone(),
            freshness: wiring.freshness.clone(),
            losses: wiring.losses.clone(),
            metrics: wiring.metrics.of_segment(&interface.name, P::LABEL),
        };
        let thread = thread::Builder::new()
            .name(format!("{}{mark}-{}", P::LABEL, interface.name))
            .spawn(move || listener.listen())
            .map_err(SocketError::Io)?;
        Ok(Self { socket, table, stop, busy, thread })
    }

    /// Whether frames have come that the thread has not told of yet.
    fn has_backlog(&self) -> bool {
        self.socket.has_unread() || self.busy.load(Ordering::Acquire)
    }
}

impl<P: Protocol> Drop for Ear<P> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// One interface that answers. Dropping it ends its threads.
#[derive(Debug)]
pub(crate) struct Segment<P: Protocol> {
    interface: Interface,
    mac: MacAddr,
    wiring: Wiring,
    /// Answers.
    own: Ear<P>,
    /// Hears the answers to this node's questions; opened with the first one that is awaited here.
    peers: Option<Ear<P>>,
    groups: P::Groups,
    /// A group is missing; it is tried again with every decision.
    unjoined: bool,
    /// The kernel has refused the last filter, or the second socket.
    refused: bool,
    concern: Concern<P::Address>,
    /// What the filters let in: questions for our addresses, and answers.
    let_in: (BTreeSet<P::Address>, BTreeSet<P::Address>),
    metrics: SegmentMetrics,
}

impl<P: Protocol> Segment<P> {
    /// Opens the socket and starts the thread; nothing is announced yet.
    pub(crate) fn open(
        interface: Interface,
        mac: MacAddr,
        wiring: &Wiring,
    ) -> Result<Self, SocketError> {
        Ok(Self {
            mac,
            wiring: wiring.clone(),
            own: Ear::open(Task::Answer, &interface, mac, wiring)?,
            peers: None,
            groups: P::Groups::new(interface.index),
            unjoined: false,
            refused: false,
            concern: Concern::default(),
            let_in: Default::default(),
            metrics: wiring.metrics.of_segment(&interface.name, P::LABEL),
            interface,
        })
    }

    /// The interface as it was when the socket was opened.
    pub(crate) fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Whether the thread still answers for `interface` with the right MAC address.
    pub(crate) fn serves(&self, interface: &Interface) -> bool {
        self.interface.name == interface.name
            && interface.mac() == Some(self.mac)
            && !self.has_ended()
    }

    /// Whether the thread has found that the interface is gone. Another one may have got its index since.
    pub(crate) fn has_ended(&self) -> bool {
        self.own.thread.is_finished()
            || self.peers.as_ref().is_some_and(|it| it.thread.is_finished())
    }

    /// Whether answers may have come that the thread has not told of yet.
    pub(crate) fn has_backlog(&self) -> bool {
        self.peers.as_ref().is_some_and(Ear::has_backlog)
    }

    /// Whether the kernel has refused what is needed to announce here, or to hear who answers.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused
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
        if concern == self.concern {
            return !self.unjoined;
        }
        let kept = &concern.announced & &self.concern.announced;
        if kept != self.concern.announced {
            // What is not ours any more is answered for no more, whatever the kernel says to the new filter.
            self.answer_for(kept.clone(), &self.concern.asked);
            self.concern.announced = kept;
        }
        if !self.let_in(&concern) {
            return false;
        }
        self.answer_for(concern.announced.clone(), &concern.asked);
        self.groups.leave_all_but(&concern.ours());
        self.concern = concern;
        !self.unjoined
    }

    /// Replaces each filter that is to let in something else. A refusal is said once, and tried again with every decision.
    fn let_in(&mut self, concern: &Concern<P::Address>) -> bool {
        let replaced = self.filter(concern.ours(), concern.answers());
        if let Err(error) = &replaced
            && !self.refused
        {
            tracing::error!(
                interface = self.interface.name,
                error = %causes(error),
                "addresses not announced"
            );
        }
        self.refused = replaced.is_err();
        !self.refused
    }

    /// Has the sockets let in what concerns `ours`, and the `answers` of these; no new socket for nobody's.
    fn filter(
        &mut self,
        ours: BTreeSet<P::Address>,
        answers: BTreeSet<P::Address>,
    ) -> Result<(), SocketError> {
        if self.peers.is_none() && !answers.is_empty() {
            let ear = Ear::open(Task::Hear, &self.interface, self.mac, &self.wiring)?;
            self.peers = Some(ear);
        }
        if let Some(peers) = self.peers.as_ref().filter(|_| self.let_in.1 != answers) {
            peers.socket.set_filter(&P::filter(BTreeSet::new(), answers.clone()))?;
            self.let_in.1 = answers;
        }
        if self.let_in.0 != ours {
            self.own.socket.set_filter(&P::filter(ours.clone(), BTreeSet::new()))?;
            self.let_in.0 = ours;
        }
        Ok(())
    }

    fn answer_for(&self, announced: BTreeSet<P::Address>, asked: &BTreeSet<P::Address>) {
        let announced = announced.into_iter().collect();
        self.own.table.store(Arc::new(Table { announced, asked: asked.iter().copied().collect() }));
    }

    /// Joins what is missing. Without it the addresses are announced all the same: on a segment whose switches do not
    /// snoop they can be reached.
    fn join(&mut self, ours: &BTreeSet<P::Address>) {
        let joined = self.groups.join(ours, JOINING);
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

    /// Tells everybody that `address` is here, and says whether all of that has left. `deferred`: later than it was due.
    pub(crate) fn tell(&self, address: P::Address, deferred: bool) -> bool {
        if deferred {
            self.metrics.deferred.inc();
        }
        let mut all = true;
        for frame in P::announcements(Claim { address, mac: self.mac }) {
            if self.send(&frame) {
                self.metrics.gratuitous.inc();
            } else {
                all = false;
            }
        }
        all
    }

    /// Asks for `address`: one machine, or everybody. In the name of this node's address `source`; without one it is a
    /// question that nobody remembers the asker by. Says whether it has left.
    pub(crate) fn ask(
        &self,
        address: P::Address,
        source: Option<P::Address>,
        to: Option<MacAddr>,
    ) -> bool {
        let asker = Asker { mac: self.mac, address: source };
        self.send(&P::ask(Question { address, asker }, to))
    }

    /// Sends a frame; says whether it left.
    fn send(&self, frame: &[u8]) -> bool {
        let sent = self.own.socket.send(frame);
        if let Err(error) = &sent {
            tracing::debug!(
                interface = self.interface.name,
                error = %causes(&error),
                "frame not sent"
            );
        }
        sent.is_ok()
    }
}

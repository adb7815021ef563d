//! One interface and protocol: a socket, the thread that answers on it, and what is sent unasked.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
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
    listener::{Freshness, Listener, Sighting, Table},
    metrics::{Metrics, SegmentMetrics},
    protocol::{Groups, Protocol},
};

/// What the answering threads tell the engine, and by what they are told to be silent.
#[derive(Debug, Clone)]
pub(crate) struct Wiring {
    /// Bounded; what does not fit is lost, and said again by whoever said it.
    pub(crate) sightings: Sender<Sighting>,
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
}

/// One interface that answers. Dropping it ends its thread.
#[derive(Debug)]
pub(crate) struct Segment<P: Protocol> {
    interface: Interface,
    mac: MacAddr,
    socket: Arc<FrameSocket<P::Filter>>,
    groups: P::Groups,
    /// A group is missing; it is tried again with every decision.
    unjoined: bool,
    /// The kernel has refused the last filter.
    refused: bool,
    table: Arc<ArcSwap<Table<P>>>,
    concern: Concern<P::Address>,
    /// What the filter lets in: questions for our addresses, and neighbours' answers.
    let_in: (BTreeSet<P::Address>, BTreeSet<P::Address>),
    stop: Arc<AtomicBool>,
    busy: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    metrics: SegmentMetrics,
}

impl<P: Protocol> Segment<P> {
    /// Opens the socket and starts the thread; nothing is announced yet.
    pub(crate) fn open(
        interface: Interface,
        mac: MacAddr,
        wiring: &Wiring,
    ) -> Result<Self, SocketError> {
        let socket = Arc::new(FrameSocket::open(interface.index, &P::Filter::default())?);
        if wiring.is_promiscuous(&interface.name) {
            socket.hear_everything()?;
        }
        let table = Arc::new(ArcSwap::from_pointee(Table::default()));
        let [stop, busy] = [false; 2].map(|it| Arc::new(AtomicBool::new(it)));
        let metrics = wiring.metrics.of_segment(&interface.name, P::LABEL);
        let listener = Listener::<P> {
            index: interface.index,
            interface: interface.name.clone(),
            mac,
            socket: socket.clone(),
            table: table.clone(),
            stop: stop.clone(),
            busy: busy.clone(),
            sightings: wiring.sightings.clone(),
            freshness: wiring.freshness.clone(),
            metrics: metrics.clone(),
        };
        let thread = thread::Builder::new()
            .name(format!("{}-{}", P::LABEL, interface.name))
            .spawn(move || listener.listen())
            .map_err(SocketError::Io)?;
        Ok(Self {
            mac,
            socket,
            groups: P::Groups::new(interface.index),
            unjoined: false,
            refused: false,
            table,
            concern: Concern::default(),
            let_in: Default::default(),
            stop,
            busy,
            thread,
            metrics,
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
        self.thread.is_finished()
    }

    /// Whether frames have come that the thread has not told of yet.
    pub(crate) fn has_backlog(&self) -> bool {
        self.socket.has_unread() || self.busy.load(Ordering::Acquire)
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

    /// Replaces the filter, if it is to let in something else. A refusal is said once, and tried again with every decision.
    fn let_in(&mut self, concern: &Concern<P::Address>) -> bool {
        let wanted = (concern.ours(), concern.peers.clone());
        if wanted == self.let_in {
            return true;
        }
        let replaced = self.socket.set_filter(&P::filter(wanted.0.clone(), wanted.1.clone()));
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
        if !self.refused {
            self.let_in = wanted;
        }
        !self.refused
    }

    fn answer_for(&self, announced: BTreeSet<P::Address>, asked: &BTreeSet<P::Address>) {
        let announced = announced.into_iter().collect();
        self.table.store(Arc::new(Table { announced, asked: asked.iter().copied().collect() }));
    }

    /// Joins what is missing. Without it the addresses are announced all the same: on a segment whose switches do not
    /// snoop they can be reached.
    fn join(&mut self, ours: &BTreeSet<P::Address>) {
        let joined = self.groups.join(ours);
        if let Err(error) = &joined
            && !self.unjoined
        {
            tracing::error!(
                interface = self.interface.name,
                error = %causes(error),
                "switches may not deliver questions for announced addresses"
            );
        }
        self.unjoined = joined.is_err();
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
        let sent = self.socket.send(frame);
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

impl<P: Protocol> Drop for Segment<P> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

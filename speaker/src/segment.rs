//! One interface and protocol: a socket, the thread that answers on it, and the table that it answers from.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use arpeggio_election::Timestamp;
use arpeggio_link::{
    clock,
    interfaces::Interface,
    packet::{FrameSocket, SocketError},
};
use arpeggio_runtime::telemetry::causes;
use arpeggio_wire::{Asker, Claim, MacAddr, Question};
use crossbeam_channel::Sender;
use prometheus::{IntCounter, IntCounterVec};

use crate::{
    metrics::Metrics,
    protocol::{Groups, Protocol},
};

/// The pause after an error of the socket that nothing is known about.
const RETRY: Duration = Duration::from_millis(250);

/// The longest frame of a segment without jumbo frames. A longer one is cut: ARP loses padding, and a solicitation with
/// so many options is refused as truncated.
const LONGEST_FRAME: usize = 1514;

/// Somebody says where an address is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sighting {
    /// The index of the interface on which it was heard.
    pub(crate) interface: u32,
    /// What was said.
    pub(crate) claim: Claim<IpAddr>,
    /// Whether it was said as a reply to this machine, not unasked or in passing.
    pub(crate) reply: bool,
}

/// Until when the last decision to announce holds. One for all interfaces; read for every answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Freshness(Arc<AtomicU64>);

impl Freshness {
    /// Lets the decision hold until `until`.
    pub(crate) fn extend(&self, until: Timestamp) {
        let nanos = u64::try_from(until.as_duration().as_nanos()).unwrap_or(u64::MAX);
        self.0.store(nanos, Ordering::Release);
    }

    /// Lets nothing hold any more.
    pub(crate) fn end(&self) {
        self.0.store(0, Ordering::Release);
    }

    fn holds(&self) -> bool {
        u128::from(self.0.load(Ordering::Acquire)) > clock::now().as_nanos()
    }
}

/// What the answering thread tells the engine, and by what it is told to be silent.
#[derive(Debug, Clone)]
pub(crate) struct Wiring {
    /// Bounded; what does not fit is lost, and said again by whoever said it.
    pub(crate) sightings: Sender<Sighting>,
    /// When the thread must be silent.
    pub(crate) freshness: Freshness,
    /// Where it counts.
    pub(crate) metrics: Arc<Metrics>,
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
    announced: Arc<ArcSwap<HashSet<P::Address>>>,
    ours: BTreeSet<P::Address>,
    awaited: BTreeSet<P::Address>,
    stop: Arc<AtomicBool>,
    gratuitous: IntCounter,
}

impl<P: Protocol> Segment<P> {
    /// Opens the socket and starts the thread; nothing is announced yet.
    pub(crate) fn open(
        interface: Interface,
        mac: MacAddr,
        wiring: &Wiring,
    ) -> Result<Self, SocketError> {
        let socket = Arc::new(FrameSocket::open(interface.index, &P::Filter::default())?);
        let announced = Arc::new(ArcSwap::from_pointee(HashSet::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let listener = Listener::<P> {
            mac,
            socket: socket.clone(),
            announced: announced.clone(),
            stop: stop.clone(),
            wiring: wiring.clone(),
            requests: wiring.metrics.requests.with_label_values(&[&interface.name, P::LABEL]),
            replies: wiring.metrics.replies.with_label_values(&[&interface.name, P::LABEL]),
            ignored: wiring.metrics.ignored.clone(),
            index: interface.index,
            interface: interface.name.clone(),
        };
        thread::Builder::new()
            .name(format!("{}-{}", P::LABEL, interface.name))
            .spawn(move || listener.listen())
            .map_err(SocketError::Io)?;
        Ok(Self {
            mac,
            socket,
            groups: P::Groups::new(interface.index),
            unjoined: false,
            announced,
            ours: BTreeSet::new(),
            awaited: BTreeSet::new(),
            stop,
            gratuitous: wiring.metrics.gratuitous.with_label_values(&[&interface.name, P::LABEL]),
            interface,
        })
    }

    /// The interface as it was when the socket was opened.
    pub(crate) fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Whether the thread still answers for `interface` with the right MAC address.
    pub(crate) fn serves(&self, interface: &Interface) -> bool {
        self.interface.name == interface.name && interface.mac() == Some(self.mac)
    }

    /// Announces exactly `ours` from now on, and awaits the answers of `awaited`. Groups are joined and the filter is
    /// widened before the table, so that no question in between is lost.
    pub(crate) fn announce(&mut self, ours: BTreeSet<P::Address>, awaited: BTreeSet<P::Address>) {
        let same = ours == self.ours;
        if !same || self.unjoined {
            self.join(&ours);
        }
        if same && awaited == self.awaited {
            return;
        }
        match self.socket.set_filter(&P::filter(ours.clone(), awaited.clone())) {
            Ok(()) => {
                self.announced.store(Arc::new(ours.iter().copied().collect()));
                self.groups.leave_all_but(&ours);
                self.ours = ours;
                self.awaited = awaited;
            }
            // Tried again with the next decision, since the filter is still another one.
            Err(error) => {
                tracing::error!(
                    interface = self.interface.name,
                    error = %causes(&error),
                    "addresses not announced"
                );
            }
        }
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

    /// Tells everybody that `address` is here.
    pub(crate) fn tell(&self, address: P::Address) {
        for frame in P::announcements(Claim { address, mac: self.mac }) {
            if self.send(&frame) {
                self.gratuitous.inc();
            }
        }
    }

    /// Asks for `address`, in the name of this node's address `source`: one machine, or everybody.
    pub(crate) fn ask(&self, address: P::Address, source: Option<P::Address>, to: Option<MacAddr>) {
        let asker = Asker { mac: self.mac, address: source };
        self.send(&P::ask(Question { address, asker }, to));
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

/// The answering thread.
struct Listener<P: Protocol> {
    index: u32,
    interface: String,
    mac: MacAddr,
    socket: Arc<FrameSocket<P::Filter>>,
    announced: Arc<ArcSwap<HashSet<P::Address>>>,
    stop: Arc<AtomicBool>,
    wiring: Wiring,
    requests: IntCounter,
    replies: IntCounter,
    ignored: IntCounterVec,
}

impl<P: Protocol> Listener<P> {
    fn listen(&self) {
        let mut buffer = [0; LONGEST_FRAME];
        while !self.stop.load(Ordering::Acquire) {
            match self.socket.recv(&mut buffer) {
                Ok(Some(length)) => self.frame(buffer.get(..length).unwrap_or(&buffer)),
                Ok(None) | Err(SocketError::InterfaceDown) => {}
                Err(SocketError::InterfaceGone) => return,
                Err(error) => {
                    tracing::warn!(
                        interface = self.interface,
                        error = %causes(&error),
                        "cannot receive"
                    );
                    thread::sleep(RETRY);
                }
            }
        }
    }

    fn frame(&self, bytes: &[u8]) {
        let frame = match P::parse(bytes) {
            Ok(frame) => frame,
            Err(reason) => return self.ignore(reason),
        };
        let announced = self.announced.load();
        if let Some(claim) = P::claim(&frame) {
            let reply = P::is_reply(&frame);
            if reply || announced.contains(&claim.address) {
                let claim = claim.of_any_family();
                self.sighted(Sighting { interface: self.index, claim, reply });
            }
        }
        if let Some(question) = P::question(&frame) {
            self.answer(question, &announced);
        }
    }

    fn answer(&self, question: Question<P::Address>, announced: &HashSet<P::Address>) {
        if !announced.contains(&question.address) {
            return self.ignore("not_announced");
        }
        self.requests.inc();
        if !self.wiring.freshness.holds() {
            return self.ignore("stale_decision");
        }
        match self.socket.send(&P::answer(question, self.mac)) {
            Ok(()) => self.replies.inc(),
            Err(_) => self.ignore("send_failed"),
        }
    }

    fn sighted(&self, sighting: Sighting) {
        if self.wiring.sightings.try_send(sighting).is_err() {
            self.ignore("sightings_overflow");
        }
    }

    fn ignore(&self, reason: &str) {
        self.ignored.with_label_values(&[self.interface.as_str(), P::LABEL, reason]).inc();
    }
}

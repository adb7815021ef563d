//! One interface: a socket, the thread that answers on it, and the table that it answers from.

use std::{
    collections::{BTreeSet, HashSet},
    net::Ipv4Addr,
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
    filter::ArpFilter,
    interfaces::Interface,
    packet::{ArpSocket, SocketError},
};
use arpeggio_runtime::telemetry::causes;
use arpeggio_wire::{ArpFrame, ArpOperation, Claim, MacAddr, Question};
use crossbeam_channel::Sender;
use prometheus::{IntCounter, IntCounterVec};

use crate::metrics::Metrics;

/// The pause after an error of the socket that nothing is known about.
const RETRY: Duration = Duration::from_millis(250);

/// Somebody says where an address is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sighting {
    /// What was said.
    pub(crate) claim: Claim<Ipv4Addr>,
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
pub(crate) struct Segment {
    interface: Interface,
    mac: MacAddr,
    socket: Arc<ArpSocket>,
    announced: Arc<ArcSwap<HashSet<Ipv4Addr>>>,
    filter: ArpFilter,
    stop: Arc<AtomicBool>,
    gratuitous: IntCounter,
}

impl Segment {
    /// Opens the socket and starts the thread; nothing is announced yet.
    pub(crate) fn open(
        interface: Interface,
        mac: MacAddr,
        wiring: &Wiring,
    ) -> Result<Self, SocketError> {
        let filter = ArpFilter::default();
        let socket = Arc::new(ArpSocket::open(interface.index, &filter)?);
        let announced = Arc::new(ArcSwap::from_pointee(HashSet::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let name = interface.name.as_str();
        let listener = Listener {
            mac,
            socket: socket.clone(),
            announced: announced.clone(),
            stop: stop.clone(),
            wiring: wiring.clone(),
            requests: wiring.metrics.requests.with_label_values(&[name]),
            replies: wiring.metrics.replies.with_label_values(&[name]),
            ignored: wiring.metrics.ignored.clone(),
            interface: name.to_owned(),
        };
        thread::Builder::new()
            .name(format!("arp-{name}"))
            .spawn(move || listener.listen())
            .map_err(SocketError::Io)?;
        let gratuitous = wiring.metrics.gratuitous.with_label_values(&[name]);
        Ok(Self { interface, mac, socket, announced, filter, stop, gratuitous })
    }

    /// The interface as it was when the socket was opened.
    pub(crate) fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Whether the thread still answers for `interface` with the right MAC address.
    pub(crate) fn serves(&self, interface: &Interface) -> bool {
        self.interface.name == interface.name && interface.mac() == Some(self.mac)
    }

    /// Announces exactly `ours` from now on, and awaits the answers of `awaited`. The filter is widened before the
    /// table, so that no request in between is lost.
    pub(crate) fn announce(&mut self, ours: BTreeSet<Ipv4Addr>, awaited: BTreeSet<Ipv4Addr>) {
        let filter = ArpFilter { ours, peers: awaited };
        if filter == self.filter {
            return;
        }
        match self.socket.set_filter(&filter) {
            Ok(()) => {
                let ours = filter.ours.iter().copied().collect();
                self.announced.store(Arc::new(ours));
                self.filter = filter;
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

    /// Tells everybody that `address` is here.
    pub(crate) fn tell(&self, address: Ipv4Addr) {
        let claim = Claim { address, mac: self.mac };
        for operation in [ArpOperation::Request, ArpOperation::Reply] {
            if self.send(&claim.announcement(operation)) {
                self.gratuitous.inc();
            }
        }
    }

    /// Sends a frame; says whether it left.
    pub(crate) fn send(&self, frame: &ArpFrame) -> bool {
        let sent = self.socket.send(&frame.to_bytes());
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

impl Drop for Segment {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// The answering thread.
struct Listener {
    interface: String,
    mac: MacAddr,
    socket: Arc<ArpSocket>,
    announced: Arc<ArcSwap<HashSet<Ipv4Addr>>>,
    stop: Arc<AtomicBool>,
    wiring: Wiring,
    requests: IntCounter,
    replies: IntCounter,
    ignored: IntCounterVec,
}

impl Listener {
    fn listen(&self) {
        // Longer frames are cut, which costs padding only.
        let mut buffer = [0; 64];
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
        let frame = match ArpFrame::parse(bytes) {
            Ok(frame) => frame,
            Err(error) => return self.ignore(error.label()),
        };
        let announced = self.announced.load();
        if let Some(claim) = frame.claim() {
            let reply = frame.operation == ArpOperation::Reply;
            if reply || announced.contains(&claim.address) {
                self.sighted(Sighting { claim, reply });
            }
        }
        if let Some(question) = frame.question() {
            self.answer(question, &announced);
        }
    }

    fn answer(&self, question: Question<Ipv4Addr>, announced: &HashSet<Ipv4Addr>) {
        if !announced.contains(&question.address) {
            return self.ignore("not_announced");
        }
        self.requests.inc();
        if !self.wiring.freshness.holds() {
            return self.ignore("stale_decision");
        }
        match self.socket.send(&question.answer(self.mac).to_bytes()) {
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
        self.ignored.with_label_values(&[self.interface.as_str(), reason]).inc();
    }
}

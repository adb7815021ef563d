//! The thread that answers on one interface by one protocol, and the table that it answers from.

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use arpeggio_election::Timestamp;
use arpeggio_link::{
    clock,
    packet::{FrameSocket, SocketError},
};
use arpeggio_runtime::telemetry::causes;
use arpeggio_wire::{Claim, MacAddr, Question};
use crossbeam_channel::Sender;

use crate::{metrics::SegmentMetrics, protocol::Protocol};

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
    /// What was said. Of an address that is asked for before its first use also what somebody else asks who wants it
    /// too: one of both has to do without (RFC 5227 section 2.1.1, RFC 4862 section 5.4.3).
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

/// What the thread answers from and listens for; replaced as a whole.
#[derive(Debug)]
pub(crate) struct Table<P: Protocol> {
    /// What is answered for.
    pub(crate) announced: HashSet<P::Address>,
    /// What is asked for before its first use.
    pub(crate) asked: HashSet<P::Address>,
}

impl<P: Protocol> Default for Table<P> {
    fn default() -> Self {
        Self { announced: HashSet::new(), asked: HashSet::new() }
    }
}

impl<P: Protocol> Table<P> {
    fn concerns(&self, address: P::Address) -> bool {
        self.announced.contains(&address) || self.asked.contains(&address)
    }
}

/// The answering thread.
pub(crate) struct Listener<P: Protocol> {
    /// The interface's index.
    pub(crate) index: u32,
    /// Its name, for logs.
    pub(crate) interface: String,
    /// The MAC address that is told.
    pub(crate) mac: MacAddr,
    pub(crate) socket: Arc<FrameSocket<P::Filter>>,
    pub(crate) table: Arc<ArcSwap<Table<P>>>,
    /// Ends the thread.
    pub(crate) stop: Arc<AtomicBool>,
    /// Bounded; what does not fit is lost, and said again by whoever said it.
    pub(crate) sightings: Sender<Sighting>,
    pub(crate) freshness: Freshness,
    pub(crate) metrics: SegmentMetrics,
}

impl<P: Protocol> Listener<P> {
    /// Answers until it is told to stop or the interface is gone.
    pub(crate) fn listen(&self) {
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
        let received = Instant::now();
        let frame = match P::parse(bytes) {
            Ok(frame) => frame,
            Err(reason) => return self.metrics.ignored(reason),
        };
        let table = self.table.load();
        let reply = P::is_reply(&frame);
        let claim = P::claim(&frame).filter(|it| reply || table.concerns(it.address));
        let question = P::question(&frame);
        if let Some(claim) = claim {
            self.sighted(claim, reply);
        }
        if let Some(question) = question {
            self.asked(question, &table, received);
        }
        if claim.is_none() && question.is_none() {
            self.metrics.ignored("no_question");
        }
    }

    fn asked(&self, question: Question<P::Address>, table: &Table<P>, received: Instant) {
        let Question { address, asker } = question;
        if table.announced.contains(&address) {
            self.answer(question, received);
        } else if table.asked.contains(&address) && asker.address.is_none() {
            self.sighted(Claim { address, mac: asker.mac }, false);
        } else {
            self.metrics.ignored("not_announced");
        }
    }

    fn answer(&self, question: Question<P::Address>, received: Instant) {
        self.metrics.requests.inc();
        if !self.freshness.holds() {
            return self.metrics.ignored("stale_decision");
        }
        match self.socket.send(&P::answer(question, self.mac)) {
            Ok(()) => {
                self.metrics.replies.inc();
                self.metrics.reply_seconds.observe(received.elapsed().as_secs_f64());
            }
            Err(_) => self.metrics.ignored("send_failed"),
        }
    }

    fn sighted(&self, claim: Claim<P::Address>, reply: bool) {
        let claim = claim.of_any_family();
        let sighting = Sighting { interface: self.index, claim, reply };
        if self.sightings.try_send(sighting).is_err() {
            self.metrics.ignored("sightings_overflow");
        }
    }
}

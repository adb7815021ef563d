//! The threads that listen on one interface by one protocol, and the table that one of them answers from.
//!
//! The answers that this node judges by have a socket, a thread and a queue of their own: however many questions or claims
//! come, none of them takes the place of a neighbour's answer.

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
    packet::{BATCH, FrameSocket, Inbox, Outbox, SocketError},
};
use arpeggio_runtime::telemetry::causes;
use arpeggio_wire::{Claim, MacAddr, Question};
use crossbeam_channel::Sender;

use crate::{metrics::SegmentMetrics, protocol::Protocol};

/// The pause after an error of the socket that nothing is known about.
const RETRY: Duration = Duration::from_millis(250);

/// Somebody says where an address is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sighting {
    /// The index of the interface on which it was heard.
    pub(crate) interface: u32,
    /// What was said. Of an address that is asked for before its first use also what somebody else asks who wants it
    /// too: one of both has to do without (RFC 5227 section 2.1.1, RFC 4862 section 5.4.3).
    pub(crate) claim: Claim<IpAddr>,
    /// In which way it was said.
    pub(crate) said: Said,
}

/// In which way a machine says where an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// As a reply to this machine.
    Replied,
    /// Unasked, or in passing.
    Told,
    /// By asking whether it may have the address itself.
    Asked,
}

/// Until when the last decision to announce holds. One for all interfaces; judged for every answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Freshness(Arc<AtomicU64>);

/// Until when a decision holds: nanoseconds of [`clock::now`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Deadline(u64);

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

    /// Whether the last decision holds still.
    pub(crate) fn is_given(&self) -> bool {
        self.holds(self.deadline())
    }

    /// The deadline of the last decision. The table, if it is loaded afterwards, is of that decision or a later one.
    fn deadline(&self) -> Deadline {
        Deadline(self.0.load(Ordering::Acquire))
    }

    /// Whether a decision with this deadline holds still. A newer one does not prolong it: whoever was paused meanwhile
    /// has an old table in hands.
    fn holds(&self, deadline: Deadline) -> bool {
        let Deadline(until) = deadline.min(self.deadline());
        u128::from(until) > clock::now().as_nanos()
    }
}

/// How many answers to this node's own questions may have been lost here. One for all interfaces.
#[derive(Debug, Clone, Default)]
pub(crate) struct Losses(Arc<AtomicU64>);

impl Losses {
    /// So many more.
    fn add(&self, frames: u64) {
        if frames > 0 {
            self.0.fetch_add(frames, Ordering::AcqRel);
        }
    }

    /// All since the start.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
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

/// What one thread listens for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Questions for what the table has, and claims to it.
    Answer,
    /// Answers to this node's own questions.
    Hear,
}

/// One thread.
pub(crate) struct Listener<P: Protocol> {
    /// What for.
    pub(crate) task: Task,
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
    /// Set while the thread has frames in hand, and a moment before.
    pub(crate) busy: Arc<AtomicBool>,
    /// Bounded; what does not fit is lost, and said again by whoever said it.
    pub(crate) sightings: Sender<Sighting>,
    pub(crate) freshness: Freshness,
    /// Counts what is lost of what a [`Task::Hear`] listens for.
    pub(crate) losses: Losses,
    pub(crate) metrics: SegmentMetrics,
}

/// The answers to one batch of frames.
struct Answers<P: Protocol> {
    frames: Vec<P::Bytes>,
    outbox: Outbox,
}

impl<P: Protocol> Answers<P> {
    /// None so far, with room for a batch.
    fn new() -> Self {
        Self { frames: Vec::with_capacity(BATCH), outbox: Outbox::new() }
    }
}

impl<P: Protocol> Listener<P> {
    /// Answers until it is told to stop or the interface is gone.
    pub(crate) fn listen(&self) {
        let mut inbox = Inbox::new();
        let mut answers = Answers::new();
        loop {
            self.busy.store(false, Ordering::Release);
            let received =
                self.socket.recv_batch(&mut inbox, || self.busy.store(true, Ordering::Release));
            self.lost(u64::from(self.socket.lost()), "socket_overflow");
            // What came just now is for whoever took this one's place: perhaps at another MAC address.
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            match received {
                Ok(()) => self.batch(&inbox, &mut answers),
                Err(SocketError::InterfaceDown) => {}
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

    fn batch(&self, inbox: &Inbox, answers: &mut Answers<P>) {
        let received = Instant::now();
        let deadline = self.freshness.deadline();
        let table = self.table.load();
        answers.frames.clear();
        inbox.frames().for_each(|bytes| self.frame(bytes, &table, &mut answers.frames));
        if !answers.frames.is_empty() {
            self.answer(answers, deadline, received);
        }
    }

    fn frame(&self, bytes: &[u8], table: &Table<P>, answers: &mut Vec<P::Bytes>) {
        let frame = match P::parse(bytes) {
            Ok(frame) => frame,
            Err(reason) => return self.metrics.ignored(reason, 1),
        };
        let reply = P::is_reply(&frame);
        let concerns = |claim: &Claim<P::Address>| match self.task {
            Task::Answer => table.concerns(claim.address),
            Task::Hear => reply,
        };
        let claim = P::claim(&frame).filter(concerns);
        let question = P::question(&frame).filter(|_| self.task == Task::Answer);
        if let Some(claim) = claim {
            self.sighted(claim, if reply { Said::Replied } else { Said::Told });
        }
        if let Some(question) = question {
            self.asked(question, table, answers);
        }
        if self.task == Task::Answer && claim.is_none() && question.is_none() {
            self.metrics.ignored("no_question", 1);
        }
    }

    fn asked(&self, question: Question<P::Address>, table: &Table<P>, answers: &mut Vec<P::Bytes>) {
        let Question { address, asker } = question;
        if table.announced.contains(&address) {
            answers.push(P::answer(question, self.mac));
        } else if table.asked.contains(&address) && asker.address.is_none() {
            self.sighted(Claim { address, mac: asker.mac }, Said::Asked);
        } else {
            self.metrics.ignored("not_announced", 1);
        }
    }

    /// Sends the answers if the decision behind them holds to this moment.
    fn answer(&self, answers: &mut Answers<P>, deadline: Deadline, received: Instant) {
        let Answers { frames, outbox } = answers;
        self.metrics.requests.inc_by(count(frames.len()));
        if !self.freshness.holds(deadline) {
            return self.metrics.ignored("stale_decision", count(frames.len()));
        }
        let sent = self.socket.send_batch(outbox, frames);
        self.metrics.replied(count(sent), received.elapsed());
        self.metrics.ignored("send_failed", count(frames.len().saturating_sub(sent)));
    }

    fn sighted(&self, claim: Claim<P::Address>, said: Said) {
        let claim = claim.of_any_family();
        let sighting = Sighting { interface: self.index, claim, said };
        if self.sightings.try_send(sighting).is_err() {
            self.lost(1, "sightings_overflow");
        }
    }

    /// Frames came for which there was no room, here or in the kernel.
    fn lost(&self, frames: u64, reason: &str) {
        self.metrics.ignored(reason, frames);
        if self.task == Task::Hear {
            self.losses.add(frames);
        }
    }
}

fn count(frames: usize) -> u64 {
    u64::try_from(frames).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_holds_until_its_deadline_and_no_newer_one_prolongs_it() {
        let now = Timestamp::from_origin(clock::now());
        let (old, later) = (Duration::from_millis(20), Duration::from_mins(1));
        let freshness = Freshness::default();
        assert!(!freshness.is_given(), "nothing is decided");
        freshness.extend(now + later);
        let deadline = freshness.deadline();
        assert!(freshness.holds(deadline));
        freshness.extend(now + old);
        let deadline = freshness.deadline();
        thread::sleep(old);
        freshness.extend(now + later);
        assert!(!freshness.holds(deadline), "the table in hands is of the old decision");
        assert!(freshness.is_given());
        let deadline = freshness.deadline();
        freshness.end();
        assert!(!freshness.holds(deadline), "it has been revoked");
    }
}

//! What is heard on one interface by one protocol, and the table that questions are answered from.
//!
//! The answers that this node judges by have a socket, a thread and a queue of their own: however many questions or claims
//! come, none of them takes the place of a neighbour's answer. Only claims to an address that is asked for before its first use
//! come there as well, since they are answers, too.

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use arpeggio_election::Timestamp;
use arpeggio_link::packet::BATCH;
use arpeggio_wire::{Claim, MacAddr, Question};
use crossbeam_channel::Sender;

use crate::{
    clock::Clock,
    frames::{Direction, Recorder, Subject},
    metrics::SegmentMetrics,
    protocol::Protocol,
    voice::Voice,
};

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
    /// Unasked.
    Told,
    /// In passing, by asking for another address.
    Passing,
    /// By asking whether it may have the address itself.
    Asked,
}

/// Until when the last decision to announce holds. One for all interfaces; judged for every answer.
#[derive(Debug, Clone)]
pub(crate) struct Freshness {
    until: Arc<AtomicU64>,
    clock: Clock,
}

/// Until when a decision holds: nanoseconds of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Deadline(u64);

impl Freshness {
    /// Nothing is decided yet.
    pub(crate) fn by(clock: Clock) -> Self {
        Self { until: Arc::default(), clock }
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Lets the decision hold until `until`.
    pub(crate) fn extend(&self, until: Timestamp) {
        let nanos = u64::try_from(until.as_duration().as_nanos()).unwrap_or(u64::MAX);
        self.until.store(nanos, Ordering::Release);
    }

    /// Lets nothing hold any more.
    pub(crate) fn end(&self) {
        self.until.store(0, Ordering::Release);
    }

    /// Whether the last decision holds still.
    pub(crate) fn is_given(&self) -> bool {
        self.holds(self.deadline())
    }

    /// The deadline of the last decision. The table, if it is loaded afterwards, is of that decision or a later one.
    fn deadline(&self) -> Deadline {
        Deadline(self.until.load(Ordering::Acquire))
    }

    /// Whether a decision with this deadline holds still. A newer one does not prolong it: whoever was paused meanwhile
    /// has an old table in hands.
    fn holds(&self, deadline: Deadline) -> bool {
        let Deadline(until) = deadline.min(self.deadline());
        u128::from(until) > self.now().as_duration().as_nanos()
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

/// What a listener answers from and listens for; replaced as a whole. One that only hears answers has nothing to answer for.
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

/// What one listens for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Questions for what the table has, and claims to it.
    Answer,
    /// Answers to this node's own questions.
    Hear,
}

/// Judges the frames of one way to a segment.
#[derive(Debug)]
pub(crate) struct Listener<P: Protocol> {
    /// What for.
    pub(crate) task: Task,
    /// The interface's index.
    pub(crate) index: u32,
    /// Its name, for logs.
    pub(crate) interface: String,
    /// The MAC address that is told.
    pub(crate) mac: MacAddr,
    pub(crate) table: Arc<ArcSwap<Table<P>>>,
    /// Bounded; what does not fit is lost, and said again by whoever said it.
    pub(crate) sightings: Sender<Sighting>,
    pub(crate) freshness: Freshness,
    /// Counts what is lost of what a [`Task::Hear`] listens for.
    pub(crate) losses: Losses,
    pub(crate) metrics: SegmentMetrics,
    pub(crate) recorder: Recorder,
    /// Whether answers leave here.
    pub(crate) voice: Voice,
}

/// The answers to one batch of frames.
pub(crate) struct Answers<P: Protocol>(Vec<P::Bytes>);

impl<P: Protocol> Answers<P> {
    /// None so far, with room for a batch.
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(BATCH))
    }
}

impl<P: Protocol> Listener<P> {
    /// The name of the thread that reads for it.
    pub(crate) fn thread_name(&self) -> String {
        let mark = match self.task {
            Task::Answer => "",
            Task::Hear => "h",
        };
        format!("{}{mark}-{}", P::LABEL, self.interface)
    }

    /// Takes in a batch of frames. What is to be answered is answered by `send`, which says how many frames have left.
    pub(crate) fn hear<'a>(
        &self,
        frames: impl Iterator<Item = &'a [u8]>,
        answers: &mut Answers<P>,
        send: impl FnOnce(&[P::Bytes]) -> usize,
    ) {
        let received = Instant::now();
        let deadline = self.freshness.deadline();
        let table = self.table.load();
        let Answers(answers) = answers;
        answers.clear();
        frames.for_each(|bytes| self.frame(bytes, received, &table, answers));
        if !answers.is_empty() {
            self.answer(answers, deadline, received, send);
        }
    }

    fn frame(
        &self,
        bytes: &[u8],
        received: Instant,
        table: &Table<P>,
        answers: &mut Vec<P::Bytes>,
    ) {
        let frame = match P::parse(bytes) {
            Ok(frame) => frame,
            Err(reason) => return self.metrics.ignored(reason, 1),
        };
        let reply = P::is_reply(&frame);
        let concerns = |claim: &Claim<P::Address>| match self.task {
            Task::Answer => table.concerns(claim.address),
            // A question without a name is answered to everybody.
            Task::Hear => reply || table.asked.contains(&claim.address),
        };
        let claim = P::claim(&frame).filter(concerns);
        let question = P::question(&frame).filter(|_| self.task == Task::Answer);
        if claim.is_some() || question.is_some_and(|question| table.concerns(question.address)) {
            self.recorder.keep(self.subject(), Direction::In, received, bytes);
        }
        if let Some(claim) = claim {
            let said = match question {
                _ if reply => Said::Replied,
                Some(_) => Said::Passing,
                None => Said::Told,
            };
            self.sighted(claim, said);
        }
        if let Some(question) = question {
            self.asked(question, table, answers);
        }
        if self.task == Task::Answer && claim.is_none() && question.is_none() {
            self.metrics.ignored("no_question", 1);
        }
    }

    fn subject(&self) -> Subject {
        match self.task {
            Task::Answer => Subject::Address,
            Task::Hear => Subject::Neighbour,
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
    fn answer(
        &self,
        frames: &[P::Bytes],
        deadline: Deadline,
        received: Instant,
        transmit: impl FnOnce(&[P::Bytes]) -> usize,
    ) {
        self.metrics.requests.inc_by(count(frames.len()));
        if !self.freshness.holds(deadline) {
            return self.metrics.ignored("stale_decision", count(frames.len()));
        }
        let sent = transmit(frames);
        if sent > 0 {
            self.voice.carried();
        } else {
            self.voice.refused(self.freshness.now());
        }
        self.metrics.replied(count(sent), received.elapsed());
        let now = Instant::now();
        let left = frames.iter().take(sent);
        left.for_each(|frame| self.recorder.keep(Subject::Address, Direction::Out, now, frame));
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
    pub(crate) fn lost(&self, frames: u64, reason: &str) {
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
    use std::{thread, time::Duration};

    use super::*;
    use crate::clock::of_this_machine;

    #[test]
    fn a_decision_holds_until_its_deadline_and_no_newer_one_prolongs_it() {
        let now = of_this_machine();
        let (old, later) = (Duration::from_millis(20), Duration::from_mins(1));
        let freshness = Freshness::by(of_this_machine);
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

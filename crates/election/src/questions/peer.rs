//! A peer that is probed on the wire, and its answer history.

use core::time::Duration;

use crate::model::Timestamp;

/// Fewer answers than this say nothing about a peer's habit to answer.
const ANSWERS_TO_TRUST: u32 = 3;

/// Of whom so many questions in a row could not be asked, nothing is known any more: others wait for the word of whoever says
/// that it hears a peer.
const UNASKED_TO_FORGET: u32 = 50;

/// How many times as long as usual an answer is waited for that may have come already.
const LONGEST_WAIT: u32 = 3;

/// How a peer is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Between two questions to one that answers.
    pub(crate) interval: Duration,
    /// How long an answer may take. Who has not answered by then is asked again at once.
    pub(crate) answer: Duration,
    /// Misses are counted up to this many.
    pub(crate) most_misses: u32,
    /// Who used to answer, and has not for so long, is asked less often.
    pub(crate) patience: Duration,
    /// Who has never answered, and missed so many questions, is asked seldom.
    pub(crate) misses: u32,
    /// Between two questions to one that has never answered.
    pub(crate) rest: Duration,
    /// Between two questions to one that has not answered for long.
    pub(crate) often: Duration,
}

/// What is known of one peer.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct Peer {
    /// Counted up to [`ANSWERS_TO_TRUST`].
    answers: u32,
    last_answer: Option<Timestamp>,
    unanswered_since: Option<Timestamp>,
    /// In a row, counted up to [`Pace::most_misses`].
    misses: u32,
    /// When the last of the questions was asked that it has missed.
    missed: Option<Timestamp>,
    asked: Option<Timestamp>,
    /// When it is to be asked again if it answers.
    again: Timestamp,
    /// It has not answered for so long that it is asked seldom.
    rests: bool,
    /// It has lived on once already when its silence was taken for its end.
    disproved: bool,
    /// How many questions in a row could not be put to it.
    unasked: u32,
    /// When to look again: for the answer while one is awaited, else to ask.
    due: Timestamp,
}

impl Peer {
    /// When it is to be looked at again.
    pub(crate) fn due(&self) -> Timestamp {
        self.due
    }

    /// When it answered last.
    pub(crate) fn last_answer(&self) -> Option<Timestamp> {
        self.last_answer
    }

    /// When the question was asked whose answer is awaited.
    pub(crate) fn asked(&self) -> Option<Timestamp> {
        self.asked
    }

    /// When the first question was asked that it has not answered since.
    pub(crate) fn unanswered_since(&self) -> Option<Timestamp> {
        self.unanswered_since
    }

    /// When the last of the questions was asked that it has missed. Who has heard somebody else since would have heard
    /// its answer.
    pub(crate) fn missed(&self) -> Option<Timestamp> {
        self.missed
    }

    /// How many answers in a row did not come in time.
    pub(crate) fn misses(&self) -> u32 {
        self.misses
    }

    /// Whether it has answered so often that its silence says something.
    pub(crate) fn used_to_answer(&self) -> bool {
        self.answers >= ANSWERS_TO_TRUST
    }

    /// Whether it has not answered for so long that it is asked seldom.
    pub(crate) fn rests(&self) -> bool {
        self.rests
    }

    /// It lives, though it was taken for dead since it answered last. Whether that is so for the second time: a renewal may
    /// have been under way when it died.
    pub(crate) fn is_disproved_again(&mut self) -> bool {
        core::mem::replace(&mut self.disproved, true)
    }

    pub(crate) fn answered(&mut self, now: Timestamp) {
        self.answers = ANSWERS_TO_TRUST.min(self.answers.saturating_add(1));
        self.last_answer = Some(now);
        (self.unanswered_since, self.missed, self.misses) = (None, None, 0);
        (self.rests, self.disproved, self.unasked) = (false, false, 0);
        if self.asked.take().is_some() {
            self.due = self.again;
        }
    }

    /// Notes that it is asked now, and whether it has missed the question before.
    pub(crate) fn ask(&mut self, now: Timestamp, pace: Pace) {
        // A look that comes late says that this process was starved, not that nobody answered.
        let starved = now.since(self.due) > pace.answer / 2;
        if self.asked.is_some() && !starved {
            self.misses = pace.most_misses.min(self.misses.saturating_add(1));
            self.missed = self.asked;
        }
        self.unanswered_since.get_or_insert(now);
        self.asked = Some(now);
        self.again = now + pace.interval;
        self.rests = if self.used_to_answer() {
            self.unanswered_since.is_some_and(|since| now.since(since) >= pace.patience)
        } else {
            self.misses >= pace.misses
        };
        self.due = now
            + match self.rests {
                // It may be back at any time, and until then it is said to be silent.
                true if self.used_to_answer() => pace.often,
                true => pace.rest,
                false => pace.answer,
            };
    }

    /// It is to be asked as often as `pace` says from now on, also when that was less often before.
    pub(crate) fn keep_pace(&mut self, now: Timestamp, pace: Pace) {
        self.again = self.again.min(now + pace.interval);
        if self.asked.is_none() {
            self.due = self.due.min(self.again);
        }
    }

    /// Its answer may have come, and waits to be looked at: it is not missed yet, if that does not go on for too long.
    /// Whether it is waited for.
    pub(crate) fn wait(&mut self, now: Timestamp, pace: Pace) -> bool {
        let in_time = |asked: Timestamp| now.since(asked) < pace.answer * LONGEST_WAIT;
        let waits = self.asked.is_some_and(in_time);
        if waits {
            self.due = now + pace.answer / 8;
        }
        waits
    }

    /// The question has not left after all, so that there is no answer to be missed. After a while nothing is known of the peer
    /// any more: no way leads to it.
    pub(crate) fn unasked(&mut self) {
        self.unasked = UNASKED_TO_FORGET.min(self.unasked.saturating_add(1));
        if self.unasked == UNASKED_TO_FORGET {
            self.answers = 0;
        }
        if self.used_to_answer() && self.asked.take().is_some() {
            self.due = self.again;
            if self.misses == 0 {
                self.unanswered_since = None;
            }
        }
    }

    /// It is asked on another interface from now on, of which no more is known than whether it used to answer there.
    pub(crate) fn begin_anew(&mut self, used_to_answer: bool) {
        let answers = if used_to_answer { ANSWERS_TO_TRUST } else { 0 };
        let Self { asked, again, .. } = *self;
        // That it did not answer elsewhere is no reason to ask it seldom here.
        let due = if self.rests { Timestamp::default() } else { self.due };
        *self = Self { answers, asked, again, due, ..Self::default() };
    }

    /// What it did not answer counts for nothing.
    pub(crate) fn excuse(&mut self) {
        (self.asked, self.unanswered_since, self.missed, self.misses) = (None, None, None, 0);
        if core::mem::take(&mut self.rests) {
            self.due = Timestamp::default();
        }
    }
}

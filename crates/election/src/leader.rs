//! One leader among equal processes: whoever renews one record leads.
//!
//! A [`Candidate`] is one process's view of that record. Its owner feeds it with [`Candidate::saw`] and
//! [`Candidate::answered`], asks [`Candidate::decide`] what to write, and acts only before [`Candidate::leads_until`].
//!
//! Each process judges by its own clock. A follower takes the record over when it has not seen it renewed for the whole
//! [`LeaseTimes::duration`], whatever else is written on it; the leader stops [`LeaseTimes::lead`] after it *sent* the last
//! renewal that was answered, which is earlier, by however much the renewal and the news of it were delayed. So two leaders are never active at one moment,
//! as long as their clocks run at the same speed and none is paused between looking at the clock and acting. Where that
//! is not enough, what a leader does must itself be guarded.

use alloc::{borrow::ToOwned, string::String};
use core::time::Duration;

use crate::model::{Renewal, Timestamp, Version};

/// The durations of leadership. [`LeaseTimes::default`] is what is documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimes {
    /// How long the record counts after it was last seen to be renewed.
    pub duration: Duration,
    /// How long a leader acts after it sent a renewal that succeeded; shorter than `duration`.
    pub lead: Duration,
    /// How often the leader renews; shorter than `lead`.
    pub renewal: Duration,
    /// How long to wait after a write that was not done.
    pub retry: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(6),
            lead: Duration::from_secs(4),
            renewal: Duration::from_secs(2),
            retry: Duration::from_millis(500),
        }
    }
}

/// The record of who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// The leader; nobody once it has stepped down.
    pub holder: Option<String>,
    /// How long the record counts after it was last seen to be renewed, in its holder's words.
    pub duration: Duration,
    /// Its last renewal. `None`: it does not say, and each change counts as one.
    pub renewal: Option<Renewal>,
    /// The record's version.
    pub version: Version,
}

impl Leader {
    /// Whether it shows the same renewal as `earlier`: only others have written on it since.
    fn is_of_same_renewal_as(&self, earlier: &Self) -> bool {
        self.renewal.is_some() && self.renewal == earlier.renewal && self.holder == earlier.holder
    }
}

/// A write to the record. All but the first carry the version that it must still have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Create the record, with us as the leader.
    Create,
    /// Become the leader after another one.
    Take {
        /// The version that the record must have.
        expected: Version,
    },
    /// Stay the leader.
    Renew {
        /// The version that the record must have.
        expected: Version,
    },
    /// Step down: empty the record, so that another one may lead at once.
    StepDown {
        /// The version that the record must have.
        expected: Version,
    },
}

impl Write {
    /// The version that the record must still have, if there is to be one.
    pub fn expected(&self) -> Option<Version> {
        match self {
            Self::Create => None,
            Self::Take { expected } | Self::Renew { expected } | Self::StepDown { expected } => {
                Some(*expected)
            }
        }
    }
}

/// What came of a [`Write`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was done; this is the record now.
    Written(Leader),
    /// It was refused, since the record is this one, or is gone.
    Found(Option<Leader>),
    /// There was no answer, or one that says nothing about the record.
    Nothing,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What to write. Its answer must be fed back before the next question.
    pub write: Option<Write>,
    /// When to ask again, unless something is seen before.
    pub next: Timestamp,
}

/// What is known of the record.
#[derive(Debug)]
enum Known {
    /// It was not read yet.
    Nothing,
    /// It does not exist.
    Absent,
    /// Its last renewal was first seen at this time.
    Record(Leader, Timestamp),
}

/// One process that may lead.
#[derive(Debug)]
pub struct Candidate {
    /// Unlike every other process's.
    name: String,
    terms: LeaseTimes,
    known: Known,
    /// When the last write that made or kept us the leader was sent.
    proven_at: Option<Timestamp>,
    /// When the write that is under way was sent.
    sent_at: Timestamp,
    /// Nothing is written before.
    patient_until: Timestamp,
}

impl Candidate {
    /// A process that knows nothing yet. No other one may have this `name`, not even its own predecessor.
    pub fn new(name: &str, terms: LeaseTimes) -> Self {
        Self {
            name: name.to_owned(),
            terms,
            known: Known::Nothing,
            proven_at: None,
            sent_at: Timestamp::default(),
            patient_until: Timestamp::default(),
        }
    }

    /// The name in the record when this process leads.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Until when this process may act as the leader; `None` when it does not lead.
    pub fn leads_until(&self) -> Option<Timestamp> {
        self.proven_at.map(|proven| proven + self.terms.lead)
    }

    /// The record was seen, or seen to be gone. News that is older than what is known changes nothing.
    pub fn saw(&mut self, record: Option<Leader>, now: Timestamp) {
        let Some(record) = record else {
            // Who leads goes on until its time is up: others have to create the record first.
            self.known = Known::Absent;
            return;
        };
        let mut renewed = now;
        if let Known::Record(known, since) = &self.known {
            if known.version >= record.version {
                return;
            }
            if record.is_of_same_renewal_as(known) {
                renewed = *since;
            }
        }
        if record.holder.as_ref() != Some(&self.name) {
            self.proven_at = None;
        }
        self.known = Known::Record(record, renewed);
    }

    /// The write that [`Self::decide`] asked for last has come to this.
    pub fn answered(&mut self, answer: Answer, now: Timestamp) {
        match answer {
            Answer::Written(record) => {
                let ours = record.holder.as_ref() == Some(&self.name);
                self.saw(Some(record), now);
                self.proven_at = ours.then_some(self.sent_at);
            }
            Answer::Found(record) => {
                self.saw(record, now);
                self.patient_until = now + self.terms.retry;
            }
            Answer::Nothing => self.patient_until = now + self.terms.retry,
        }
    }

    /// What to do now.
    pub fn decide(&mut self, now: Timestamp) -> Step {
        let due = self.due().max(self.patient_until);
        if now < due {
            return Step { write: None, next: due };
        }
        self.sent_at = now;
        Step { write: self.write(), next: now + self.terms.retry }
    }

    /// Steps down at once; what to write so that others know. Afterwards nothing must be asked any more.
    pub fn step_down(&mut self) -> Option<Write> {
        self.proven_at = None;
        match &self.known {
            Known::Record(record, _) if record.holder.as_ref() == Some(&self.name) => {
                Some(Write::StepDown { expected: record.version })
            }
            _ => None,
        }
    }

    /// When there is something to write.
    fn due(&self) -> Timestamp {
        match &self.known {
            Known::Nothing | Known::Absent => Timestamp::default(),
            Known::Record(record, since) => match (&record.holder, self.proven_at) {
                (None, _) => Timestamp::default(),
                (Some(holder), None) if *holder == self.name => Timestamp::default(),
                (Some(_), Some(proven)) => proven + self.terms.renewal,
                (Some(_), None) => *since + record.duration,
            },
        }
    }

    fn write(&self) -> Option<Write> {
        match &self.known {
            Known::Nothing => None,
            Known::Absent => Some(Write::Create),
            Known::Record(record, _) if record.holder.as_ref() == Some(&self.name) => {
                Some(Write::Renew { expected: record.version })
            }
            Known::Record(record, _) => Some(Write::Take { expected: record.version }),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{string::ToString as _, vec::Vec};

    use super::*;

    const ME: &str = "me";

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(millis))
    }

    fn record(holder: &str, version: u64) -> Leader {
        let holder = (!holder.is_empty()).then(|| holder.to_string());
        let duration = Duration::from_secs(6);
        Leader { holder, duration, renewal: None, version: Version(version) }
    }

    fn candidate() -> Candidate {
        Candidate::new(ME, LeaseTimes::default())
    }

    /// A candidate that became the leader at `millis` by writing version 1.
    fn leader(millis: u64) -> Candidate {
        let mut leader = candidate();
        leader.saw(None, at(millis));
        assert_eq!(leader.decide(at(millis)).write, Some(Write::Create));
        leader.answered(Answer::Written(record(ME, 1)), at(millis + 50));
        leader
    }

    #[test]
    fn what_is_written_follows_from_what_was_seen() {
        let expected = Version(3);
        // (what was seen at 0, when it is decided, what is written)
        let table = [
            (None, 0, Some(Write::Create)),
            (Some(record("", 3)), 0, Some(Write::Take { expected })),
            (Some(record("other", 3)), 5_999, None),
            (Some(record("other", 3)), 6_000, Some(Write::Take { expected })),
            // A write of ours was done, and its answer lost.
            (Some(record(ME, 3)), 0, Some(Write::Renew { expected })),
        ];
        for (seen, millis, expected) in table {
            let mut candidate = candidate();
            candidate.saw(seen.clone(), at(0));
            assert_eq!(candidate.decide(at(millis)).write, expected, "{seen:?} at {millis}");
            assert_eq!(candidate.leads_until(), None, "nothing was written yet");
        }
    }

    #[test]
    fn nothing_is_written_before_the_record_was_read() {
        assert_eq!(candidate().decide(at(60_000)).write, None);
    }

    #[test]
    fn a_record_that_is_renewed_stays_with_its_holder() {
        let mut candidate = candidate();
        for version in 1..20 {
            let now = at(version * 2_000);
            candidate.saw(Some(record("other", version)), now);
            let step = candidate.decide(now);
            assert_eq!((step.write, step.next), (None, now + Duration::from_secs(6)));
        }
    }

    #[test]
    fn the_same_version_seen_again_is_no_sign_of_life() {
        let mut candidate = candidate();
        candidate.saw(Some(record("other", 3)), at(0));
        candidate.saw(Some(record("other", 3)), at(5_000));
        assert!(candidate.decide(at(6_000)).write.is_some());
    }

    /// A program that labels all that it finds, say: nobody would ever lead after a leader that has died.
    #[test]
    fn what_others_write_on_the_record_is_no_sign_of_life() {
        let renewed = |renewal, version| Leader {
            renewal: Some(Renewal(renewal)),
            ..record("other", version)
        };
        let mut candidate = candidate();
        candidate.saw(Some(renewed(7, 1)), at(0));
        candidate.saw(Some(renewed(7, 2)), at(5_000));
        assert_eq!(candidate.decide(at(5_999)).next, at(6_000));
        let expected = Version(2);
        assert_eq!(candidate.decide(at(6_000)).write, Some(Write::Take { expected }));
        candidate.saw(Some(renewed(8, 3)), at(6_100));
        assert_eq!(candidate.decide(at(7_000)).next, at(12_100));
    }

    #[test]
    fn the_holder_says_how_long_its_record_counts() {
        let mut candidate = candidate();
        let duration = Duration::from_secs(15);
        candidate.saw(Some(Leader { duration, ..record("other", 3) }), at(0));
        assert_eq!(candidate.decide(at(14_999)).next, at(15_000));
    }

    #[test]
    fn a_leader_counts_from_before_its_write_and_renews_in_time() {
        let mut leader = leader(1_000);
        assert_eq!(leader.leads_until(), Some(at(5_000)));
        assert_eq!(leader.decide(at(1_100)), Step { write: None, next: at(3_000) });
        let renew = Write::Renew { expected: Version(1) };
        assert_eq!(leader.decide(at(3_000)).write, Some(renew));
        leader.answered(Answer::Written(record(ME, 2)), at(3_900));
        assert_eq!(leader.leads_until(), Some(at(7_000)));
    }

    #[test]
    fn a_leader_that_gets_no_answer_tries_again_and_its_time_runs_out() {
        let mut leader = leader(0);
        let mut tried = Vec::new();
        for millis in (2_000..8_000).step_by(100) {
            if leader.decide(at(millis)).write.is_some() {
                tried.push(millis);
                leader.answered(Answer::Nothing, at(millis));
            }
        }
        assert_eq!(tried, (2_000..8_000).step_by(500).collect::<Vec<_>>());
        assert_eq!(leader.leads_until(), Some(at(4_000)));
    }

    #[test]
    fn whoever_sees_another_leader_leads_no_more() {
        let mut deposed = leader(0);
        deposed.saw(Some(record("other", 2)), at(1_000));
        assert_eq!(deposed.leads_until(), None);
        assert_eq!(deposed.decide(at(6_999)).write, None);

        let mut refused = leader(0);
        refused.decide(at(2_000));
        refused.answered(Answer::Found(Some(record("other", 2))), at(2_050));
        assert_eq!(refused.leads_until(), None);
    }

    #[test]
    fn old_news_changes_nothing() {
        let mut leader = leader(0);
        leader.saw(Some(record("other", 0)), at(100));
        assert_eq!(leader.leads_until(), Some(at(4_000)));
    }

    #[test]
    fn a_deleted_record_is_made_again() {
        let mut leader = leader(0);
        leader.saw(None, at(2_500));
        assert_eq!(leader.decide(at(2_500)).write, Some(Write::Create));
        leader.answered(Answer::Written(record(ME, 9)), at(2_550));
        assert_eq!(leader.leads_until(), Some(at(6_500)));
    }

    #[test]
    fn only_the_leader_has_something_to_step_down_from() {
        let mut leader = leader(0);
        assert_eq!(leader.step_down(), Some(Write::StepDown { expected: Version(1) }));
        assert_eq!(leader.leads_until(), None);
        let mut follower = candidate();
        follower.saw(Some(record("other", 3)), at(0));
        assert_eq!(follower.step_down(), None);
    }
}

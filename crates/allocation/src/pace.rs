//! How often something is written: so many times a minute of each subject, whoever makes it necessary.
//!
//! Two programs that change by turns what we write, or one that changes a lock or the status of a pool, would have it written
//! for ever. What is left out meanwhile is decided anew when it may be written.

use std::collections::BTreeMap;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};

use super::setbacks::Work;
use crate::effect::Subject;

/// So much may be written at once of a subject that nothing was written of for a while. A user who changes a Service and
/// changes it back has some ten writes made.
const AT_ONCE: i32 = 20;

/// The time in which one more may be written.
const EACH: SignedDuration = SignedDuration::from_secs(5);

/// What was written lately, by subject.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When all that was written of a subject is made up for.
    made_up: BTreeMap<(Subject, Work), Time>,
    /// With how many subjects those are forgotten of which nothing was written lately.
    crowd: usize,
}

impl Pace {
    /// From when on something may be written of `subject`; `None`: now.
    pub(super) fn waits_until(&self, subject: &Subject, work: Work, now: &Time) -> Option<Time> {
        let made_up = self.made_up.get(&(subject.clone(), work))?;
        let from = made_up.0.checked_sub(EACH * (AT_ONCE - 1)).ok().map(Time)?;
        (from > *now && is_real(made_up, now)).then_some(from)
    }

    /// Takes note that something is written.
    pub(super) fn note(&mut self, subject: &Subject, work: Work, now: &Time) {
        if self.made_up.len() >= self.crowd {
            self.made_up.retain(|_, made_up| *made_up > *now);
            self.crowd = 64.max(2 * self.made_up.len());
        }
        let made_up = self.made_up.entry((subject.clone(), work)).or_insert_with(|| now.clone());
        let from = if is_real(made_up, now) { made_up.0.max(now.0) } else { now.0 };
        *made_up = from.checked_add(EACH).map_or_else(|_| now.clone(), Time);
    }
}

/// A clock that has gone back makes nobody wait for longer.
fn is_real(made_up: &Time, now: &Time) -> bool {
    made_up.0.duration_since(now.0) <= EACH * AT_ONCE
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    #[test]
    fn what_is_written_all_the_time_is_written_twelve_times_a_minute() {
        let (mut pace, subject) = (Pace::default(), Subject::Pool("home".to_owned()));
        let mut counts = Vec::new();
        for minute in 0..3 {
            let mut count = 0;
            for second in 0..60 {
                let now = Time(Timestamp::from_second(minute * 60 + second).unwrap());
                while pace.waits_until(&subject, Work::Status, &now).is_none() {
                    pace.note(&subject, Work::Status, &now);
                    count += 1;
                }
            }
            counts.push(count);
        }
        assert_eq!(counts, [31, 12, 12]);
        let before = Time(Timestamp::from_second(-1000).unwrap());
        assert_eq!(pace.waits_until(&subject, Work::Status, &before), None, "the clock was set");
        assert_eq!(pace.waits_until(&subject, Work::Locks, &before), None, "another kind");
    }

    #[test]
    fn who_is_left_alone_is_forgotten() {
        let mut pace = Pace::default();
        for second in 0..10_000 {
            let now = Time(Timestamp::from_second(second).unwrap());
            pace.note(&Subject::Pool(second.to_string()), Work::Status, &now);
        }
        assert!(pace.made_up.len() <= 64, "{}", pace.made_up.len());
    }
}

//! What becomes of the times that this process waits for when somebody puts its clock back.
//!
//! They are remembered as times of day, as those are that locks and statuses say. Were they left as they are, a pause of
//! a minute would last as long as the clock was wrong.

use std::collections::BTreeMap;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};

use super::{Index, setbacks::Setback};

/// Clocks of two controllers, and of one before and after it was set right by a bit, differ by less.
const APART: SignedDuration = SignedDuration::from_mins(1);

/// Whether a time that should have come by `now` is so far ahead that the clock was wrong which it was written by.
pub(super) fn is_far_ahead(time: &Time, now: &Time) -> bool {
    time.0.duration_since(now.0) > APART
}

impl Index {
    /// It is `now`. Where it was later before, what is waited for comes earlier by as much.
    pub(super) fn note_time(&mut self, now: &Time) {
        let before = self.now.replace(now.clone());
        let back = before.map(|before| before.0.duration_since(now.0));
        if let Some(back) = back.filter(SignedDuration::is_positive) {
            if back.as_secs() > 0 {
                tracing::warn!("the clock was put back by {} s", back.as_secs());
            }
            self.put_back(back);
        }
    }

    fn put_back(&mut self, back: SignedDuration) {
        let earlier = |time: &mut Time| {
            if let Ok(put_back) = time.0.checked_sub(back) {
                *time = Time(put_back);
            }
        };
        self.orphaned.values_mut().flat_map(BTreeMap::values_mut).for_each(earlier);
        self.untold.values_mut().for_each(earlier);
        self.lacking.values_mut().for_each(earlier);
        self.parting_since.values_mut().for_each(earlier);
        self.rivals.values_mut().map(|it| &mut it.last).for_each(earlier);
        self.setbacks.values_mut().flat_map(Setback::times).for_each(earlier);
        self.declarations.times().for_each(earlier);
        let alarms = std::mem::take(&mut self.alarms).into_iter();
        self.alarms = alarms
            .map(|(mut time, subject)| {
                earlier(&mut time);
                (time, subject)
            })
            .collect();
    }
}

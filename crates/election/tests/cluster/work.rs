//! What a change costs the thread that decides, here and in the simulation of whole speakers, which reads this file, too.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// What a change may cost: what is promised. Without optimisation, and where all that is announced is looked at in each turn, it
/// takes about twice as long.
pub(crate) const LIMIT: Duration =
    Duration::from_millis(if cfg!(debug_assertions) { 150 } else { 50 });

/// What this thread does from here on, and not how long it takes while others are at work, too.
pub(crate) struct Work(Duration);

impl Work {
    pub(crate) fn begin() -> Self {
        Self(Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap()))
    }

    pub(crate) fn done(&self) -> Duration {
        Self::begin().0.saturating_sub(self.0)
    }
}

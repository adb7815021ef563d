//! Whether what a node says of its addresses leaves by an interface.
//!
//! The kernel can refuse a frame: a packet filter or a security module drops it, or the network card's queue is full. One
//! that is refused is no harm, and said again. But where nothing leaves for a while, an address is announced in vain: others
//! may do better. This node gives way then, and tries again after a pause, which is longer each time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arpeggio_election::Timestamp;

/// The voice is lost when everything was refused for this time, which is what fellows have patience with a silent speaker
/// for: a queue that is full for a moment costs nobody an address.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest pause before the next try. The first one is as long as the patience was, and each doubles the time.
const LONGEST: Duration = Duration::from_mins(10);

/// What has become of the last frames. One for an interface and a protocol, shared by all who send there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Voice(Arc<Refusals>);

/// Nanoseconds of the clock.
#[derive(Debug, Default)]
struct Refusals {
    /// Since when everything was refused; zero when the last frame has left.
    since: AtomicU64,
    /// When a frame was refused last.
    last: AtomicU64,
}

impl Voice {
    /// A frame has left.
    pub(crate) fn carried(&self) {
        if self.0.since.load(Ordering::Acquire) != 0 {
            self.0.since.store(0, Ordering::Release);
        }
    }

    /// The kernel has refused a frame.
    pub(crate) fn refused(&self, now: Timestamp) {
        let now = nanos(now.as_duration());
        let last = self.0.last.swap(now, Ordering::AcqRel);
        let since = self.0.since.load(Ordering::Acquire);
        if since == 0 || is_over(since, last, now) {
            self.0.since.store(now, Ordering::Release);
        }
    }

    /// Whether the last frame was refused, not too long ago to say something of the next one.
    pub(crate) fn was_refused(&self, now: Timestamp) -> bool {
        let since = self.0.since.load(Ordering::Acquire);
        let last = self.0.last.load(Ordering::Acquire);
        since != 0 && !is_over(since, last, nanos(now.as_duration()))
    }

    /// Whether the last frame has left.
    pub(crate) fn is_well(&self) -> bool {
        self.0.since.load(Ordering::Acquire) == 0
    }

    /// Whether it is not worth trying now.
    pub(crate) fn is_lost(&self, now: Timestamp) -> bool {
        let since = self.0.since.load(Ordering::Acquire);
        let last = self.0.last.load(Ordering::Acquire);
        let now = nanos(now.as_duration());
        since != 0
            && last.saturating_sub(since) >= nanos(PATIENCE)
            && now.saturating_sub(last) < nanos(pause(since, last))
    }
}

/// Whether what was refused from `since` to `last`, and nothing later, is so long ago that it says nothing of now.
fn is_over(since: u64, last: u64, now: u64) -> bool {
    now.saturating_sub(last) > nanos(pause(since, last) * 2)
}

/// The pause after everything was refused from `since` to `last`.
fn pause(since: u64, last: u64) -> Duration {
    Duration::from_nanos(last.saturating_sub(since)).clamp(PATIENCE, LONGEST)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(millis))
    }

    #[test]
    fn what_is_refused_for_a_moment_costs_nothing() {
        let voice = Voice::default();
        for start in [1000, 20_000] {
            for now in (start..start + 4900).step_by(10) {
                voice.refused(at(now));
                assert!(!voice.is_lost(at(now)));
            }
            voice.carried();
            assert!(!voice.is_lost(at(start + 10_000)));
        }
    }

    #[test]
    fn one_frame_that_is_refused_now_and_then_is_no_lost_voice() {
        let voice = Voice::default();
        for now in (1000..1_000_000).step_by(67_000) {
            voice.refused(at(now));
            assert!(!voice.is_lost(at(now)), "{now}");
        }
    }

    #[test]
    fn what_was_refused_is_remembered_for_twice_the_pause() {
        let voice = Voice::default();
        assert!(!voice.was_refused(at(1000)));
        // For eight seconds, after which it is not tried for eight more.
        (1000..=9000).step_by(1000).for_each(|now| voice.refused(at(now)));
        let table = [
            (9000, true, true),
            (16_900, true, true),
            (17_100, false, true),
            (24_900, false, true),
            (25_100, false, false),
        ];
        for (now, is_lost, was_refused) in table {
            let found = (voice.is_lost(at(now)), voice.was_refused(at(now)));
            assert_eq!(found, (is_lost, was_refused), "{now}");
        }
        voice.carried();
        assert!(!voice.was_refused(at(9000)));
    }

    #[test]
    fn what_stays_refused_is_tried_again_less_and_less_often() {
        let voice = Voice::default();
        let mut tried = Vec::new();
        for now in 100..10_000 {
            if !voice.is_lost(at(now * 1000)) {
                tried.push(now);
                voice.refused(at(now * 1000));
            }
        }
        let pauses: Vec<u64> = tried.windows(2).map(|it| it[1] - it[0]).collect();
        let (first, later) = pauses.split_at(5);
        assert_eq!(first, [1; 5], "{tried:?}");
        assert_eq!(later[..8], [5, 10, 20, 40, 80, 160, 320, 600], "{tried:?}");
        assert!(later[8..].iter().all(|pause| *pause == 600), "{tried:?}");
        voice.carried();
        assert!(!voice.is_lost(at(10_000_001)));
    }
}

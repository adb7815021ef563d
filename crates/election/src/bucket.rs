//! A bound on how often something may be done.

use core::time::Duration;

use crate::model::Timestamp;

/// A token bucket: so much at once, and one more each time that a pause has passed. It begins full.
#[derive(Debug, Clone, Hash)]
pub struct Bucket {
    size: u32,
    pause: Duration,
    /// When it is full again.
    full: Timestamp,
}

impl Bucket {
    /// `size`: how much may be done at once; at least 1. `pause`: after which one more may be done.
    pub fn new(size: u32, pause: Duration) -> Self {
        Self { size: size.max(1), pause, full: Timestamp::default() }
    }

    /// Whether it may be done now; then it counts as done.
    pub fn take(&mut self, now: Timestamp) -> bool {
        let may = self.has(now);
        if may {
            self.full = self.full.max(now) + self.pause;
        }
        may
    }

    /// It is done now, whether it may be or not.
    pub fn spend(&mut self, now: Timestamp) {
        self.full = (self.full.max(now) + self.pause).min(now + self.pause * self.size);
    }

    /// Whether nothing is left of what was done.
    pub fn is_full(&self, now: Timestamp) -> bool {
        self.full <= now
    }

    /// Whether it may be done now.
    pub fn has(&self, now: Timestamp) -> bool {
        self.full.since(now) <= self.pause * (self.size - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_much_may_be_done_at_once_and_then_one_more_after_each_pause() {
        let at = |millis| Timestamp::from_origin(Duration::from_millis(millis));
        let mut bucket = Bucket::new(3, Duration::from_secs(2));
        let mut taken = |from: u64, to: u64| {
            (from..to)
                .step_by(100)
                .filter(|now| bucket.take(at(*now)))
                .collect::<alloc::vec::Vec<_>>()
        };
        assert_eq!(taken(10_000, 10_500), [10_000, 10_100, 10_200]);
        assert_eq!(taken(10_500, 16_100), [12_000, 14_000, 16_000]);
        assert_eq!(taken(60_000, 60_500), [60_000, 60_100, 60_200], "full again");
    }
}

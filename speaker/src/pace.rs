//! A steady rate of frames, with some in advance.

use std::time::Duration;

use arpeggio_election::Timestamp;

/// Says when one more frame may leave: at most `burst` at once, then one in each `interval`.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    burst: u32,
    /// When the frames that have left would have left one by one.
    used_until: Timestamp,
}

impl Pace {
    pub(crate) const fn new(interval: Duration, burst: u32) -> Self {
        Self { interval, burst, used_until: Timestamp::from_origin(Duration::ZERO) }
    }

    /// Whether `frames` may leave now; they count as sent then. They go together, also when the last of them exceed the
    /// burst.
    pub(crate) fn take(&mut self, frames: u32, now: Timestamp) -> bool {
        let free = self.used_until + self.interval <= now + self.interval * self.burst;
        if free {
            self.used_until = self.used_until.max(now) + self.interval * frames;
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(millis))
    }

    #[test]
    fn a_burst_then_the_steady_rate() {
        let mut pace = Pace::new(Duration::from_millis(10), 5);
        let mut sent = |now| (0..100).take_while(|_| pace.take(1, at(now))).count();
        assert_eq!(sent(1000), 5, "as many as the burst has");
        assert_eq!(sent(1009), 0);
        assert_eq!(sent(1010), 1);
        assert_eq!(sent(1040), 3);
        assert_eq!(sent(60_000), 5, "what was not used is not saved up");
    }
}

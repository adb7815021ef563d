//! The durations that ownership is decided with.

use core::time::Duration;

/// Fewer answers than this say nothing about a peer's habit to answer.
pub(crate) const ANSWERS_TO_TRUST: u32 = 3;

/// The slowest pace of decisions; also the resolution of every deadline.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(100);

/// The durations that ownership is decided with. [`Settings::default`] is what is measured and documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a session counts after it was last seen to change.
    pub session: Duration,
    /// How often it is renewed.
    pub renewal: Duration,
    /// How often a deputy asks for a node on the wire that answers.
    pub probe: Duration,
    /// How long an answer may take. Who has not answered by then is asked again at once.
    pub answer: Duration,
    /// How many unanswered probes in a row make a node silent.
    pub misses: u32,
    /// How long a decision to announce stays fresh; a process that was paused for longer answers nothing until it has
    /// made sure that it still may.
    pub freshness: Duration,
    /// How long a write that failed is left alone.
    pub retry: Duration,
    /// How much later than the one before it each further candidate takes a lock that nobody has taken.
    pub patience: Duration,
    /// The pause after each question for an address that is to be announced for the first time; after the third one it
    /// counts as free.
    pub first_probe: Duration,
    /// When an address at which a stranger answered is asked for again.
    pub recheck: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            session: Duration::from_secs(10),
            renewal: Duration::from_secs(3),
            probe: Duration::from_millis(100),
            answer: Duration::from_millis(50),
            misses: 3,
            freshness: Duration::from_secs(2),
            retry: Duration::from_millis(500),
            patience: Duration::from_millis(250),
            first_probe: Duration::from_millis(70),
            recheck: Duration::from_secs(30),
        }
    }
}

/// Why settings are refused: with them a living node would lose its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnsafeSettings {
    /// One lost renewal would end a session.
    #[error(
        "the session ({session:?}) must last at least three renewal intervals ({renewal:?} each)"
    )]
    SessionTooShort {
        /// [`Settings::session`].
        session: Duration,
        /// [`Settings::renewal`].
        renewal: Duration,
    },
    /// Scheduling alone would look like silence.
    #[error("{0:?} is too short a time for an answer: use 20 ms or more")]
    AnswerTooShort(Duration),
    /// A probe would be sent while the answer to the one before is awaited.
    #[error("probes every {probe:?} are too fast when an answer may take {answer:?}")]
    ProbeTooFast {
        /// [`Settings::probe`].
        probe: Duration,
        /// [`Settings::answer`].
        answer: Duration,
    },
    /// One lost frame would end a session.
    #[error("{0} misses are too few: use 2 or more")]
    TooFewMisses(u32),
}

impl Settings {
    /// Checks that the settings fit together.
    ///
    /// # Errors
    /// When they would make living nodes lose their addresses.
    pub fn checked(self) -> Result<Self, UnsafeSettings> {
        if self.session < self.renewal.saturating_mul(3) {
            return Err(UnsafeSettings::SessionTooShort {
                session: self.session,
                renewal: self.renewal,
            });
        }
        if self.answer < Duration::from_millis(20) {
            return Err(UnsafeSettings::AnswerTooShort(self.answer));
        }
        if self.probe < self.answer {
            return Err(UnsafeSettings::ProbeTooFast { probe: self.probe, answer: self.answer });
        }
        if self.misses < 2 {
            return Err(UnsafeSettings::TooFewMisses(self.misses));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_safe_and_unsafe_ones_are_refused() {
        let safe = Settings::default();
        assert_eq!(safe.checked(), Ok(safe));
        let renewal = Duration::from_secs(4);
        assert!(Settings { renewal, ..safe }.checked().is_err());
        let answer = Duration::from_millis(5);
        assert!(Settings { answer, ..safe }.checked().is_err());
        assert!(Settings { probe: Duration::from_millis(40), ..safe }.checked().is_err());
        assert!(Settings { misses: 1, ..safe }.checked().is_err());
    }
}

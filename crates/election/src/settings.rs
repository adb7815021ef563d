//! The durations that ownership is decided with.

use core::time::Duration;

/// The slowest pace of decisions; also the resolution of every deadline.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(100);

/// A process that is started anew may take this long until it has read the locks and announces again.
const LONGEST_RESTART: Duration = Duration::from_secs(3);

/// In less time than this a machine that is busy does not answer.
const SHORTEST_ANSWER: Duration = Duration::from_millis(20);

/// The durations that ownership is decided with. [`Settings::default`] is what is measured and documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Settings {
    /// How long a session counts after it was last seen to change.
    pub session: Duration,
    /// How often it is renewed.
    pub renewal: Duration,
    /// How often a deputy asks for a node on the wire that answers.
    pub probe: Duration,
    /// How long an answer may take. Who has not answered by then is asked again at once.
    pub answer: Duration,
    /// How many unanswered probes in a row make a node silent; a speaker, too, but not before [`Settings::speaker_patience`].
    pub misses: u32,
    /// How often a deputy asks a node's speaker for an address that the node holds. As long may an answer take.
    pub speaker_probe: Duration,
    /// How long a speaker may not answer while its node does: longer than a restart takes, so that none moves an address,
    /// and shorter than a session, or there would be no point in asking.
    pub speaker_patience: Duration,
    /// How long a decision to announce stays fresh; a process that was paused for longer answers nothing until it has
    /// made sure that it still may.
    pub freshness: Duration,
    /// How long a write that failed is left alone.
    pub retry: Duration,
    /// How much later than the one before it each further candidate takes a lock that nobody has taken.
    pub patience: Duration,
    /// The pause after each question for an address that is to be announced for the first time; after the third one it
    /// counts as free. Zero: nothing is asked.
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
            speaker_probe: Duration::from_secs(1),
            speaker_patience: Duration::from_secs(5),
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
    /// A speaker that is restarted would lose its session.
    #[error(
        "{0:?} is too short a patience with a speaker: one that is restarted needs up to {LONGEST_RESTART:?}"
    )]
    RestartTooShort(Duration),
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
        if self.answer < SHORTEST_ANSWER {
            return Err(UnsafeSettings::AnswerTooShort(self.answer));
        }
        if !self.first_probe.is_zero() && self.first_probe < SHORTEST_ANSWER {
            return Err(UnsafeSettings::AnswerTooShort(self.first_probe));
        }
        if self.probe < self.answer {
            return Err(UnsafeSettings::ProbeTooFast { probe: self.probe, answer: self.answer });
        }
        if self.speaker_probe < SHORTEST_ANSWER {
            return Err(UnsafeSettings::AnswerTooShort(self.speaker_probe));
        }
        if self.speaker_patience < LONGEST_RESTART {
            return Err(UnsafeSettings::RestartTooShort(self.speaker_patience));
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
        let first_probe = Duration::from_millis(5);
        assert!(Settings { first_probe, ..safe }.checked().is_err());
        assert!(Settings { first_probe: Duration::ZERO, ..safe }.checked().is_ok());
        assert!(Settings { misses: 1, ..safe }.checked().is_err());
        assert!(Settings { speaker_probe: Duration::ZERO, ..safe }.checked().is_err());
        let speaker_patience = Duration::from_secs(2);
        assert!(Settings { speaker_patience, ..safe }.checked().is_err());
    }
}

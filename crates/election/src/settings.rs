//! The durations that ownership is decided with.

use core::time::Duration;

/// The slowest pace of decisions; also the resolution of every deadline.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(100);

/// A process that is started anew may take this long until it has read the locks and announces again.
const LONGEST_RESTART: Duration = Duration::from_secs(3);

/// How many renewals a second all nodes together may come to. The API server tells every node of each: among 200 nodes
/// that is 4,000 messages a second, of some 1.7 kB.
const RENEWALS_PER_SECOND: u32 = 20;

/// Renewed more often than this, sessions are a load on the API server and prove nothing more.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(1);

/// The shortest answer timeout: a busy machine may need this long.
const SHORTEST_ANSWER: Duration = Duration::from_millis(20);

/// Nothing waits for longer than this: who writes more means another unit.
const LONGEST: Duration = Duration::from_hours(24);

/// The durations that ownership is decided with. [`Settings::default`] is what is measured and documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Settings {
    /// How long a session counts after it was last seen to change; longer in a large cluster.
    pub session: Duration,
    /// How often it is renewed; less often in a large cluster.
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

/// How a node is asked on the wire, and when its silence counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Profile {
    /// How often it is asked while it answers.
    pub probe: Duration,
    /// How long an answer may take; after that it is asked again at once.
    pub answer: Duration,
    /// How many unanswered questions in a row make it silent.
    pub misses: u32,
}

impl Profile {
    /// For a wired link that was seen to answer at once.
    pub const FAST: Self = Self::new(40, 20, 4);
    /// For a link of which nothing is known.
    pub const STANDARD: Self = Self::new(100, 50, 3);
    /// For radios, and other links that are slow now and then: longer than a radio's scan for other networks takes, or its
    /// sleep.
    pub const PATIENT: Self = Self::new(150, 150, 5);

    /// For switches that let through no more than 15 ARP frames a second from one port.
    pub const SPARSE: Self = Self::new(500, 200, 4);

    /// Times in milliseconds.
    const fn new(probe: u64, answer: u64, misses: u32) -> Self {
        Self { probe: Duration::from_millis(probe), answer: Duration::from_millis(answer), misses }
    }

    /// How long a node is silent before that counts.
    pub fn silence(&self) -> Duration {
        self.answer.saturating_mul(self.misses)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            session: Duration::from_secs(10),
            renewal: Duration::from_secs(3),
            probe: Profile::STANDARD.probe,
            answer: Profile::STANDARD.answer,
            misses: Profile::STANDARD.misses,
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
    /// The API server would have nothing else to do.
    #[error("renewing the session every {0:?} makes too many writes: use 1 s or more")]
    RenewalTooOften(Duration),
    /// Scheduling alone would look like silence.
    #[error("{setting} ({given:?}) is too short: use {SHORTEST_ANSWER:?} or more")]
    AnswerTooShort {
        /// The setting, as it is given.
        setting: &'static str,
        /// What was given.
        given: Duration,
    },
    /// Nobody could wait for it, and no clock could tell when it is over.
    #[error("{setting} ({given:?}) is too long: use a day or less")]
    TooLong {
        /// The setting, as it is given.
        setting: &'static str,
        /// What was given.
        given: Duration,
    },
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
        "--speaker-patience ({0:?}) is too short: a restart of the speaker takes up to {LONGEST_RESTART:?}"
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
        let too_long = self.named().into_iter().find(|(_, given)| *given > LONGEST);
        if let Some((setting, given)) = too_long {
            return Err(UnsafeSettings::TooLong { setting, given });
        }
        if self.session < self.renewal.saturating_mul(3) {
            return Err(UnsafeSettings::SessionTooShort {
                session: self.session,
                renewal: self.renewal,
            });
        }
        if self.renewal < SHORTEST_RENEWAL {
            return Err(UnsafeSettings::RenewalTooOften(self.renewal));
        }
        for (setting, given) in self.awaited() {
            if given < SHORTEST_ANSWER {
                return Err(UnsafeSettings::AnswerTooShort { setting, given });
            }
        }
        if self.probe < self.answer {
            return Err(UnsafeSettings::ProbeTooFast { probe: self.probe, answer: self.answer });
        }
        if self.speaker_patience < LONGEST_RESTART {
            return Err(UnsafeSettings::RestartTooShort(self.speaker_patience));
        }
        if self.misses < 2 {
            return Err(UnsafeSettings::TooFewMisses(self.misses));
        }
        Ok(self)
    }

    /// What is given as a time, by the arguments' names.
    fn named(&self) -> [(&'static str, Duration); 8] {
        [
            ("--session-duration", self.session),
            ("--session-renewal", self.renewal),
            ("--probe-interval", self.probe),
            ("--probe-timeout", self.answer),
            ("--speaker-probe-interval", self.speaker_probe),
            ("--speaker-patience", self.speaker_patience),
            ("--address-probe-pause", self.first_probe),
            ("--conflict-recheck", self.recheck),
        ]
    }

    /// Those of them in which an answer has to come.
    fn awaited(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let pause = Some(self.first_probe).filter(|pause| !pause.is_zero());
        let pause = pause.map(|pause| ("--address-probe-pause", pause));
        [("--probe-timeout", self.answer), ("--speaker-probe-interval", self.speaker_probe)]
            .into_iter()
            .chain(pause)
    }

    /// How nodes are asked for which there is no other profile.
    pub fn profile(&self) -> Profile {
        Profile { probe: self.probe, answer: self.answer, misses: self.misses }
    }

    /// The same with another profile.
    #[must_use]
    pub fn with(self, profile: Profile) -> Self {
        let Profile { probe, answer, misses } = profile;
        Self { probe, answer, misses, ..self }
    }

    /// How long a session counts after a renewal in a cluster where `sessions` nodes have one: as set, or whole seconds
    /// so many that all renewals together stay below 20 a second.
    pub fn session_among(&self, sessions: usize) -> Duration {
        let sessions = u32::try_from(sessions).unwrap_or(u32::MAX);
        let slowest = Duration::from_secs(1).saturating_mul(sessions) / RENEWALS_PER_SECOND;
        if slowest <= self.renewal {
            return self.session;
        }
        let exact = scaled(self.session, slowest, self.renewal);
        Duration::from_secs(exact.as_secs() + u64::from(exact.subsec_nanos() > 0))
    }

    /// How often a session that counts for `session` after a renewal is renewed: in the same proportion as set.
    pub fn renewal_of(&self, session: Duration) -> Duration {
        scaled(self.renewal, session, self.session)
    }
}

/// `span`, multiplied by `numerator` and divided by `denominator`.
fn scaled(span: Duration, numerator: Duration, denominator: Duration) -> Duration {
    let nanos = span.as_nanos().saturating_mul(numerator.as_nanos());
    let nanos = nanos.checked_div(denominator.as_nanos()).unwrap_or_default();
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn the_defaults_are_safe_and_unsafe_ones_are_refused() {
        let safe = Settings::default();
        for profile in [Profile::FAST, Profile::STANDARD, Profile::PATIENT, Profile::SPARSE] {
            assert_eq!(safe.with(profile).checked(), Ok(safe.with(profile)));
            assert_eq!(safe.with(profile).profile(), profile);
        }
        let renewal = Duration::from_secs(4);
        assert!(Settings { renewal, ..safe }.checked().is_err());
        let (session, renewal) = (Duration::from_secs(2), Duration::from_millis(500));
        assert!(Settings { session, renewal, ..safe }.checked().is_err());
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

    #[test]
    fn what_no_clock_could_tell_is_refused_by_the_name_of_its_argument() {
        let (safe, endless) = (Settings::default(), Duration::from_secs(u64::MAX));
        let error = |settings: Settings| settings.checked().unwrap_err().to_string();
        let table = [
            (Settings { session: endless, ..safe }, "--session-duration"),
            (Settings { renewal: endless, session: endless, ..safe }, "--session-duration"),
            (Settings { probe: endless, ..safe }, "--probe-interval"),
            (Settings { answer: endless, probe: endless, ..safe }, "--probe-interval"),
            (Settings { speaker_probe: endless, ..safe }, "--speaker-probe-interval"),
            (Settings { speaker_patience: endless, ..safe }, "--speaker-patience"),
            (Settings { first_probe: endless, ..safe }, "--address-probe-pause"),
            (Settings { recheck: endless, ..safe }, "--conflict-recheck"),
        ];
        for (settings, name) in table {
            let error = error(settings);
            assert!(error.starts_with(name) && error.ends_with("use a day or less"), "{error}");
        }
        let speaker_probe = Duration::ZERO;
        let said = error(Settings { speaker_probe, ..safe });
        assert_eq!(said, "--speaker-probe-interval (0ns) is too short: use 20ms or more");
        let day = Duration::from_hours(24);
        assert!(Settings { session: day, ..safe }.checked().is_ok());
    }

    #[test]
    fn sessions_of_many_nodes_last_longer_and_are_renewed_less_often() {
        let usual = Settings::default();
        let renewal = Duration::from_secs(1);
        let quick = Settings { session: Duration::from_secs(4), renewal, ..usual };
        let table = [
            (usual, 0, 10, 3000),
            (usual, 3, 10, 3000),
            (usual, 60, 10, 3000),
            (usual, 61, 11, 3300),
            (usual, 200, 34, 10_200),
            (usual, 1000, 167, 50_100),
            (usual, 5000, 834, 250_200),
            (quick, 20, 4, 1000),
            (quick, 21, 5, 1250),
            (quick, 200, 40, 10_000),
        ];
        for (settings, sessions, lasts, renewed_after) in table {
            let session = settings.session_among(sessions);
            assert_eq!(session, Duration::from_secs(lasts), "{sessions}");
            let renewal = settings.renewal_of(session);
            assert_eq!(renewal, Duration::from_millis(renewed_after), "{sessions}");
            assert!(Settings { session, renewal, ..settings }.checked().is_ok());
            let all: u32 = u32::try_from(sessions).unwrap() * 1000;
            assert!(u128::from(all) <= 20 * renewal.as_millis(), "{sessions}");
        }
    }
}

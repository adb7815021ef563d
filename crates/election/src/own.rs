//! This node's own session.

use alloc::collections::BTreeSet;
use core::time::Duration;

use crate::{
    bucket::Bucket,
    model::{Epoch, Node, Session, SessionState, Timestamp},
    settings::{HEARTBEAT, Settings},
    writes::Write,
};

/// Renewals that do not wait for their time, since others give reasons for them: so many at once, and one more after each
/// pause. Each one is told to all nodes.
const OF_OTHERS: (u32, Duration) = (8, Duration::from_secs(2));

/// The same, since something has become of this node's own interfaces. Others must know of it before they miss answers
/// there: a cable that comes and goes does so twice a second for as long as it likes.
const OF_ITSELF: (u32, Duration) = (16, Duration::from_millis(400));

/// Why a renewal is not to wait for its time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct News {
    /// What others do is a reason.
    pub(crate) of_others: bool,
    /// What has become of this node is a reason.
    pub(crate) of_itself: bool,
}

/// Bounds the renewals that do not wait for their time.
#[derive(Debug, Clone, Hash)]
struct Early {
    of_others: Bucket,
    of_itself: Bucket,
}

impl Default for Early {
    fn default() -> Self {
        let [of_others, of_itself] =
            [OF_OTHERS, OF_ITSELF].map(|(size, pause)| Bucket::new(size, pause));
        Self { of_others, of_itself }
    }
}

impl Early {
    fn has_room(&self, news: News, now: Timestamp) -> bool {
        news.of_itself && self.of_itself.has(now) || news.of_others && self.of_others.has(now)
    }

    fn take(&mut self, news: News, now: Timestamp) {
        let taken = news.of_itself && self.of_itself.take(now);
        if !taken && news.of_others {
            self.of_others.take(now);
        }
    }
}

/// What this node knows of its own session, and whether it may rely on it.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct OwnSession {
    /// When the process last began to run: at its start, or after a pause.
    awake_since: Timestamp,
    /// Since when the session is to be proved though the process was awake all the time.
    doubted_since: Timestamp,
    /// When the last successful session write was sent. It proves that nobody had ended the session before.
    proven_at: Option<Timestamp>,
    /// Since when session writes have succeeded without a failure between them.
    in_touch_since: Option<Timestamp>,
    /// Since when the session's record says something of this node that is not so any more.
    outdated_since: Option<Timestamp>,
    /// Bounds the renewals that do not wait for their time.
    early: Early,
    /// The last session write got no answer.
    out_of_touch: bool,
    /// The highest epoch that was ever seen of this node, in its session and in locks.
    highest: Epoch,
}

impl OwnSession {
    /// Notes that the process runs again after a pause.
    pub(crate) fn woke(&mut self, now: Timestamp) {
        self.awake_since = now;
    }

    /// Somebody may have ended the session unnoticed: it is proved at once.
    pub(crate) fn doubted(&mut self, now: Timestamp) {
        self.doubted_since = now;
    }

    /// What the session's record says of this node is not so any more. The next write will say what is.
    pub(crate) fn outdated(&mut self, now: Timestamp) {
        self.outdated_since = Some(now);
    }

    /// Whether the session's record says something of this node that is not so any more.
    pub(crate) fn is_outdated(&self) -> bool {
        self.outdated_since.is_some()
    }

    /// Notes an epoch of this node, wherever it stands.
    pub(crate) fn saw_epoch(&mut self, epoch: Epoch) {
        self.highest = self.highest.max(epoch);
    }

    /// A session write that was sent at `sent` has succeeded.
    pub(crate) fn proved(&mut self, sent: Timestamp) {
        self.proven_at = self.proven_at.max(Some(sent));
        self.outdated_since = self.outdated_since.filter(|since| *since > sent);
        self.in_touch_since.get_or_insert(sent);
        self.out_of_touch = false;
    }

    /// A session write got no answer.
    pub(crate) fn lost_touch(&mut self) {
        self.in_touch_since = None;
        self.out_of_touch = true;
    }

    /// The API server answers, but has refused a session write. It may refuse those of others for the same cause.
    pub(crate) fn refused(&mut self) {
        self.in_touch_since = None;
        self.out_of_touch = false;
    }

    /// Whether the API server did not answer the last session write.
    pub(crate) fn is_out_of_touch(&self) -> bool {
        self.out_of_touch
    }

    /// Since when the API server has done every session write. While it does not, the silence of other sessions says
    /// nothing about them.
    pub(crate) fn in_touch_since(&self) -> Option<Timestamp> {
        self.in_touch_since
    }

    /// Whether the process has made sure, since it last woke, that its session had not been ended.
    pub(crate) fn trusted(&self) -> bool {
        self.proven_at.is_some_and(|proven| proven >= self.awake_since)
    }

    /// Whether it has done so since there was last a reason to doubt it.
    pub(crate) fn is_proved(&self) -> bool {
        let needed = self.awake_since.max(self.doubted_since);
        self.proven_at.is_some_and(|proven| proven >= needed)
    }

    /// Whether a session write that was sent at `since` or later has succeeded.
    pub(crate) fn proved_since(&self, since: Timestamp) -> bool {
        self.proven_at >= Some(since)
    }

    /// Whether what others do may be a reason now to prove the session before its time.
    pub(crate) fn may_prove(&self, now: Timestamp) -> bool {
        self.early.of_others.has(now)
    }

    /// The session write that is due.
    pub(crate) fn due(
        &self,
        session: Option<&Session>,
        news: News,
        says: Says,
        now: Timestamp,
        settings: &Settings,
    ) -> Option<Write> {
        let Says { lasts, hears } = says;
        let Some(session) = session else {
            return Some(Write::Start { epoch: self.highest.next(), expected: None, lasts, hears });
        };
        match session.state {
            SessionState::Live { .. } => {
                let pause = settings.renewal_of(promised(session, lasts));
                let due = self.renewal_due(news, pause, now);
                let Session { epoch, version: expected, .. } = *session;
                due.then_some(Write::Renew { epoch, expected, lasts, hears })
            }
            SessionState::Ended { .. } => {
                let epoch = self.highest.max(session.epoch).next();
                Some(Write::Start { epoch, expected: Some(session.version), lasts, hears })
            }
        }
    }

    /// A renewal is sent, where the next one was due after `pause`.
    pub(crate) fn renews(&mut self, news: News, pause: Duration, now: Timestamp) {
        if self.is_proved() && self.proven_at.is_some_and(|proven| now.since(proven) < pause) {
            self.early.take(news, now);
        }
    }

    /// However many reasons there are not to wait, renewals keep a distance.
    fn renewal_due(&self, news: News, pause: Duration, now: Timestamp) -> bool {
        let pause = if self.early.has_room(news, now) { HEARTBEAT.min(pause) } else { pause };
        !self.is_proved() || self.proven_at.is_none_or(|proven| now.since(proven) >= pause)
    }
}

/// What a session is to say when it is written now.
#[derive(Debug)]
pub(crate) struct Says {
    /// How long it counts.
    pub(crate) lasts: Duration,
    /// The nodes whose silence its node could confirm.
    pub(crate) hears: BTreeSet<Node>,
}

/// How long others let a session count: what was written last. A longer time does not count before it is written, and a
/// shorter one is kept to at once.
pub(crate) fn promised(session: &Session, lasts: Duration) -> Duration {
    session.lasts.map_or(lasts, |written| written.min(lasts))
}

//! Renewals of a session, told from what others write on it: accusations, labels, the mark of a rehearsal.

use arpeggio_election::{Epoch, Renewal, Session, Version};

/// What a session has shown.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shown {
    version: Version,
    renewal: Option<(Epoch, Renewal)>,
}

impl Shown {
    /// By this session.
    pub(crate) fn by(session: &Session) -> Self {
        Self { version: session.version, renewal: session.shown_renewal() }
    }

    /// Versions begin anew: the history that they were of is no more.
    pub(crate) fn rewound(&mut self) {
        self.version = Version(0);
    }

    /// Whether `session` shows a renewal that was not shown then. Where it does not say which one it is, all that is no
    /// accusation counts.
    pub(crate) fn is_renewed_by(&self, session: &Session) -> bool {
        let is_own = match session.shown_renewal() {
            None => !session.is_accused(),
            shown => shown != self.renewal,
        };
        is_own && session.is_live() && session.version > self.version
    }
}

#[cfg(test)]
mod tests {
    use arpeggio_election::{EndReason, SessionState};

    use super::*;

    fn session(epoch: u64, version: u64, renewal: Option<i64>) -> Session {
        let renewal = renewal.map(Renewal);
        Session { renewal, ..Session::live("node-1".into(), Epoch(epoch), Version(version)) }
    }

    fn accused(session: Session) -> Session {
        Session { state: SessionState::Live { accused_by: Some("node-3".into()) }, ..session }
    }

    #[test]
    fn what_others_write_is_no_renewal() {
        let by = "node-3".into();
        let ended = SessionState::Ended { by, reason: EndReason::NodeSilent };
        let shown = Shown::by(&session(1, 7, Some(1)));
        let unsaid = Shown::by(&session(1, 7, None));
        let table = [
            (shown, session(1, 7, Some(1)), false),
            (shown, session(1, 8, Some(1)), false),
            (shown, accused(session(1, 8, Some(1))), false),
            (shown, session(1, 8, Some(2)), true),
            (shown, accused(session(1, 8, Some(2))), true),
            (shown, session(2, 8, Some(1)), true),
            (shown, session(1, 6, Some(0)), false),
            (shown, Session { state: ended, ..session(1, 8, Some(2)) }, false),
            (unsaid, session(1, 8, None), true),
            (unsaid, accused(session(1, 8, None)), false),
            (Shown::default(), session(1, 1, Some(1)), true),
        ];
        for (shown, session, expected) in table {
            assert_eq!(shown.is_renewed_by(&session), expected, "{shown:?}, {session:?}");
        }
    }
}

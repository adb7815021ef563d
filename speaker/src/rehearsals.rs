//! Silences that somebody rehearses (`arpeggio drill`), by a mark on a node's session.
//!
//! The node's own speaker stands still for that time, as if it had been paused, and the others do not hear what the node's
//! kernel answers them. Everything that follows is as it is with a node that is silent indeed.
//!
//! A mark counts from when this process sees it appear on a session that it knew without it: what is old is rehearsed no
//! more. It counts for one session only, and for a bounded time, by this machine's own clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use arpeggio_election::{Epoch, Node, Session, Timestamp, Version};

/// The sessions with and without marks, as they were seen last.
#[derive(Debug, Default)]
pub(crate) struct Rehearsals {
    seen: BTreeMap<Node, Seen>,
    /// The nodes whose silence somebody is to be told of when it is over.
    silent: BTreeSet<Node>,
}

#[derive(Debug)]
struct Seen {
    epoch: Epoch,
    version: Version,
    marked: bool,
    /// Until when the node is silent.
    until: Option<Timestamp>,
}

impl Rehearsals {
    /// A session was seen, and for how long its node's silence is rehearsed according to it. Whether that has just begun.
    pub(crate) fn seen(
        &mut self,
        session: &Session,
        silence: Option<Duration>,
        now: Timestamp,
    ) -> bool {
        let known = self.seen.get(&session.node);
        if known.is_some_and(|known| known.version >= session.version) {
            return false;
        }
        let was_unmarked = known.is_some_and(|known| known.epoch == session.epoch && !known.marked);
        let begins = was_unmarked && session.is_live() && silence.is_some();
        let until = match silence {
            Some(silence) if begins => Some(now + silence),
            // Who takes the mark away ends it.
            None => None,
            Some(_) => known.and_then(|known| known.until),
        };
        let ended = known.and_then(|known| known.until).filter(|_| until.is_none());
        // It is over, and somebody is to be told: see `over`.
        let until = until.or(ended.map(|_| now));
        let seen = Seen {
            epoch: session.epoch,
            version: session.version,
            marked: silence.is_some(),
            until,
        };
        if until.is_some() {
            self.silent.insert(session.node.clone());
        }
        self.seen.insert(session.node.clone(), seen);
        begins
    }

    /// A node has no session any more.
    pub(crate) fn gone(&mut self, node: &Node) {
        self.seen.remove(node);
        self.silent.remove(node);
    }

    /// Versions begin anew: the history that they were of is no more.
    pub(crate) fn rewound(&mut self) {
        self.seen.values_mut().for_each(|seen| seen.version = Version(0));
    }

    /// Whether nobody is to hear `node`.
    pub(crate) fn is_silent(&self, node: &Node, now: Timestamp) -> bool {
        self.seen.get(node).and_then(|seen| seen.until).is_some_and(|until| now < until)
    }

    /// The nodes whose silence is over since the last call.
    pub(crate) fn over(&mut self, now: Timestamp) -> Vec<Node> {
        let mut is_over = |node: &Node| {
            let seen = self.seen.get_mut(node);
            seen.is_none_or(|it| it.until.take_if(|until| *until <= now).is_some())
        };
        let over: Vec<Node> = self.silent.iter().filter(|node| is_over(node)).cloned().collect();
        over.iter().for_each(|node| _ = self.silent.remove(node));
        over
    }
}

#[cfg(test)]
mod tests {
    use arpeggio_election::{EndReason, SessionState};

    use super::*;

    const SILENCE: Option<Duration> = Some(Duration::from_secs(5));

    fn session(epoch: u64, version: u64) -> Session {
        Session::live("node-1".into(), Epoch(epoch), Version(version))
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs(seconds))
    }

    fn silent(rehearsals: &Rehearsals, seconds: u64) -> bool {
        rehearsals.is_silent(&"node-1".into(), at(seconds))
    }

    #[test]
    fn a_mark_counts_for_its_time_and_once() {
        let mut rehearsals = Rehearsals::default();
        assert!(!rehearsals.seen(&session(1, 1), None, at(0)));
        assert!(rehearsals.seen(&session(1, 2), SILENCE, at(1)));
        assert!(silent(&rehearsals, 5) && !silent(&rehearsals, 6));
        let ended = SessionState::Ended { by: "node-2".into(), reason: EndReason::NodeSilent };
        let ended = Session { state: ended, ..session(1, 3) };
        assert!(!rehearsals.seen(&ended, SILENCE, at(2)), "the mark stays on the ended session");
        assert!(silent(&rehearsals, 5), "and so does the silence");
        assert!(rehearsals.over(at(5)).is_empty());
        assert_eq!(rehearsals.over(at(6)), ["node-1".into()]);
        assert!(rehearsals.over(at(7)).is_empty(), "told once");
        assert!(!rehearsals.seen(&session(1, 4), SILENCE, at(8)), "it is not fresh any more");
        assert!(!silent(&rehearsals, 8));
    }

    #[test]
    fn an_old_mark_does_not_count() {
        let mut rehearsals = Rehearsals::default();
        assert!(!rehearsals.seen(&session(1, 1), SILENCE, at(0)), "it was there before");
        assert!(!silent(&rehearsals, 1));
        assert!(!rehearsals.seen(&session(2, 2), SILENCE, at(1)), "another session");
        assert!(!silent(&rehearsals, 2));
        assert!(!rehearsals.seen(&session(2, 1), None, at(2)), "old news");
        assert!(!rehearsals.seen(&session(2, 3), SILENCE, at(2)));
    }

    #[test]
    fn who_takes_the_mark_away_ends_the_silence() {
        let mut rehearsals = Rehearsals::default();
        rehearsals.seen(&session(1, 1), None, at(0));
        rehearsals.seen(&session(1, 2), SILENCE, at(1));
        rehearsals.seen(&session(1, 3), None, at(2));
        assert!(!silent(&rehearsals, 2));
        assert_eq!(rehearsals.over(at(2)), ["node-1".into()]);
        assert!(rehearsals.seen(&session(1, 4), SILENCE, at(3)), "and can be put there again");
    }
}

//! How long an address was dark when its owner failed, as the node that announces it now can tell.
//!
//! It counts from the last sign of life of the old owner that this node has seen. One that watches it has heard it on
//! the wire a tenth of a second before; another one knows its last renewal only, which may be three seconds older.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use arpeggio_election::{EndReason, Node, Session, TakeReason, Timestamp};

use crate::renewals::Shown;

/// What was last seen of other nodes, and of whom this node has just taken over.
#[derive(Debug, Default)]
pub(crate) struct Failovers {
    signs: BTreeMap<Node, Signs>,
    /// Taken from owners that have failed, and not announced yet. The record of a lock may show that it is taken before the
    /// answer to the write does.
    takeovers: BTreeMap<IpAddr, Takeover>,
}

/// The lock of an address is being taken, or was.
#[derive(Debug)]
struct Takeover {
    from: Node,
    /// Since when the address may be dark.
    dark: Timestamp,
    /// Whether it is known what came of it.
    answered: bool,
}

/// The last signs of life of one node.
#[derive(Debug, Clone, Copy, Default)]
struct Signs {
    kernel: Option<Timestamp>,
    speaker: Option<Timestamp>,
    /// By its session, when its speaker was last seen to have written it.
    shown: Shown,
}

impl Failovers {
    /// A node's kernel has answered on the wire.
    pub(crate) fn node_heard(&mut self, node: &Node, now: Timestamp) {
        self.signs.entry(node.clone()).or_default().kernel = Some(now);
    }

    /// A node's speaker was heard to announce something.
    pub(crate) fn speaker_heard(&mut self, node: &Node, now: Timestamp) {
        self.signs.entry(node.clone()).or_default().speaker = Some(now);
    }

    /// A session was seen. Only what its own speaker has written, and was not seen before, is a sign of life.
    pub(crate) fn session_seen(&mut self, session: &Session, now: Timestamp) {
        let signs = self.signs.entry(session.node.clone()).or_default();
        if signs.shown.is_renewed_by(session) {
            (signs.speaker, signs.shown) = (Some(now), Shown::by(session));
        }
    }

    /// Versions begin anew: the history that they were of is no more.
    pub(crate) fn rewound(&mut self) {
        self.signs.values_mut().for_each(|signs| signs.shown.rewound());
    }

    /// A session's record no longer exists.
    pub(crate) fn session_gone(&mut self, node: &Node) {
        self.signs.remove(node);
    }

    /// The lock of an address that this node does not announce yet is about to be taken.
    pub(crate) fn takes(&mut self, address: IpAddr, reason: &TakeReason) {
        let TakeReason::Over { holder, reason } = reason else { return };
        let sign = match reason {
            Some(EndReason::Stopped) => None, // It goes on until it hears us.
            Some(EndReason::NodeSilent) => self.last_sign(holder),
            Some(EndReason::SpeakerSilent | EndReason::Expired) | None => {
                self.signs.get(holder).and_then(|signs| signs.speaker)
            }
        };
        let takeover = sign.map(|dark| Takeover { from: holder.clone(), dark, answered: false });
        self.takeovers.extend(takeover.map(|it| (address, it)));
    }

    /// It is known by now whether the lock was taken. If it was, the address is announced by the next decision.
    pub(crate) fn answered(&mut self, address: IpAddr) {
        if let Some(takeover) = self.takeovers.get_mut(&address) {
            takeover.answered = true;
        }
    }

    /// The lock of an address was seen. Somebody else may have taken it.
    pub(crate) fn lock_seen(&mut self, address: IpAddr, holder: Option<&Node>, me: &Node) {
        let lost = |it: &Takeover| holder.is_some_and(|holder| holder != me && *holder != it.from);
        if self.takeovers.get(&address).is_some_and(lost) {
            self.takeovers.remove(&address);
        }
    }

    /// `address`, whose lock `holder` has, is announced from now on, and was not before. How long it may have been dark, if an
    /// owner has failed.
    pub(crate) fn announced(
        &mut self,
        address: IpAddr,
        holder: Option<&Node>,
        me: &Node,
        now: Timestamp,
    ) -> Option<Duration> {
        let taken = self.takeovers.remove(&address).map(|it| it.dark);
        let stood_in_for = holder.filter(|holder| *holder != me);
        let sign = taken.or_else(|| self.last_sign(stood_in_for?));
        sign.map(|sign| now.since(sign))
    }

    /// What was taken is announced by now, or will not be for another reason.
    pub(crate) fn settle(&mut self) {
        self.takeovers.retain(|_, it| !it.answered);
    }

    fn last_sign(&self, node: &Node) -> Option<Timestamp> {
        self.signs.get(node).and_then(|signs| signs.kernel.max(signs.speaker))
    }
}

#[cfg(test)]
mod tests {
    use arpeggio_election::{Epoch, SessionState, Version};

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 0, 240));

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(millis))
    }

    fn session(version: u64, accused: bool) -> Session {
        let accused_by = accused.then(|| Node::from("node-3"));
        let state = SessionState::Live { accused_by };
        Session { state, ..Session::live("node-1".into(), Epoch(1), Version(version)) }
    }

    /// node-1 renewed its session at 1 s, its speaker was heard at 2 s and its kernel at 3 s.
    fn seen() -> Failovers {
        let mut failovers = Failovers::default();
        failovers.session_seen(&session(7, false), at(1000));
        failovers.speaker_heard(&"node-1".into(), at(2000));
        failovers.node_heard(&"node-1".into(), at(3000));
        failovers
    }

    fn announced(failovers: &mut Failovers, holder: &str, now: u64) -> Option<u64> {
        let holder = Node::from(holder);
        let dark = failovers.announced(ADDRESS, Some(&holder), &"node-2".into(), at(now));
        dark.map(|dark| u64::try_from(dark.as_millis()).unwrap())
    }

    #[test]
    fn an_address_is_dark_since_the_last_sign_of_what_has_failed() {
        let over = |reason| TakeReason::Over { holder: "node-1".into(), reason };
        let table = [
            (over(Some(EndReason::NodeSilent)), Some(250)),
            (over(Some(EndReason::SpeakerSilent)), Some(1250)),
            (over(Some(EndReason::Expired)), Some(1250)),
            (over(None), Some(1250)),
            (over(Some(EndReason::Stopped)), None),
            (TakeReason::New, None),
            (TakeReason::Ours, None),
        ];
        for (reason, expected) in table {
            let mut failovers = seen();
            failovers.takes(ADDRESS, &reason);
            assert_eq!(announced(&mut failovers, "node-2", 3250), expected, "{reason:?}");
        }
    }

    #[test]
    fn who_stands_in_counts_from_the_last_sign_of_the_holder() {
        assert_eq!(announced(&mut seen(), "node-1", 3700), Some(700));
        assert_eq!(announced(&mut seen(), "node-9", 3700), None, "never seen");
    }

    /// node-2 is about to take the address over from node-1, whose speaker is silent.
    fn taking() -> Failovers {
        let mut failovers = seen();
        let reason = Some(EndReason::SpeakerSilent);
        failovers.takes(ADDRESS, &TakeReason::Over { holder: "node-1".into(), reason });
        failovers
    }

    #[test]
    fn who_announces_first_and_takes_then_counts_from_the_same_sign() {
        let mut failovers = taking();
        assert_eq!(announced(&mut failovers, "node-1", 7000), Some(5000), "not the kernel's");
        failovers.answered(ADDRESS);
        assert_eq!(announced(&mut failovers, "node-2", 7100), None, "once");
    }

    #[test]
    fn a_takeover_counts_also_when_the_lock_is_seen_before_the_answer() {
        let mut failovers = taking();
        failovers.settle();
        failovers.lock_seen(ADDRESS, Some(&"node-2".into()), &"node-2".into());
        assert_eq!(announced(&mut failovers, "node-2", 7000), Some(5000));
    }

    #[test]
    fn what_somebody_else_has_taken_counts_there() {
        let mut failovers = taking();
        failovers.lock_seen(ADDRESS, Some(&"node-1".into()), &"node-2".into());
        assert!(failovers.takeovers.contains_key(&ADDRESS), "old news");
        failovers.lock_seen(ADDRESS, Some(&"node-3".into()), &"node-2".into());
        assert_eq!(announced(&mut failovers, "node-2", 7000), None);
    }

    #[test]
    fn what_is_settled_counts_no_more() {
        let mut failovers = taking();
        failovers.answered(ADDRESS);
        failovers.settle();
        assert_eq!(
            announced(&mut failovers, "node-2", 9000),
            None,
            "announced again after a pause"
        );
    }

    #[test]
    fn a_record_that_was_seen_before_or_that_others_wrote_is_no_sign_of_life() {
        let mut failovers = Failovers::default();
        failovers.session_seen(&session(7, false), at(1000));
        failovers.session_seen(&session(7, false), at(5000));
        failovers.session_seen(&session(8, true), at(6000));
        assert_eq!(announced(&mut failovers, "node-1", 6100), Some(5100));
        failovers.session_seen(&session(9, false), at(6200));
        assert_eq!(announced(&mut failovers, "node-1", 6300), Some(100));
        failovers.rewound();
        failovers.session_seen(&session(2, false), at(6400));
        assert_eq!(announced(&mut failovers, "node-1", 6500), Some(100), "versions begin anew");
        failovers.session_gone(&"node-1".into());
        assert_eq!(announced(&mut failovers, "node-1", 6600), None);
    }
}

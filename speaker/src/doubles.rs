//! Nodes that have one MAC address, as cloned virtual machines do.
//!
//! The switch delivers to one of them at a time, so that clients may reach the wrong one, or none. A session that is not
//! renewed any more says nothing: the machine may have got another name.

use std::collections::BTreeMap;

use arpeggio_election::{Node, Session};
use arpeggio_wire::MacAddr;

use crate::renewals::Shown;

/// The other nodes that have a MAC address of this one.
#[derive(Debug, Default)]
pub(crate) struct Doubles {
    /// By its session when that named the MAC address first.
    named: BTreeMap<Node, Shown>,
    certain: BTreeMap<Node, MacAddr>,
}

impl Doubles {
    /// Another node's session names a MAC address that this node has in the same subnet, if `shared`. Returns whether that
    /// is certain now, and was not before.
    pub(crate) fn seen(&mut self, session: &Session, shared: Option<MacAddr>) -> bool {
        let Some(mac) = shared.filter(|_| session.is_live()) else {
            self.gone(&session.node);
            return false;
        };
        let named = self.named.entry(session.node.clone()).or_insert_with(|| Shown::by(session));
        named.is_renewed_by(session) && self.certain.insert(session.node.clone(), mac).is_none()
    }

    /// A node has no session any more.
    pub(crate) fn gone(&mut self, node: &Node) {
        self.named.remove(node);
        self.certain.remove(node);
    }

    /// Begins anew: versions, or the MAC addresses of this node, are others.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Whether no node is known to have a MAC address of this one.
    pub(crate) fn are_none(&self) -> bool {
        self.certain.is_empty()
    }

    /// The node that has this MAC address of this node's as well.
    pub(crate) fn of(&self, mac: MacAddr) -> Option<&Node> {
        self.certain.iter().find(|(_, shared)| **shared == mac).map(|(node, _)| node)
    }
}

#[cfg(test)]
mod tests {
    use arpeggio_election::{EndReason, Epoch, SessionState, Version};

    use super::*;

    const MAC: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);

    fn session(version: u64, state: SessionState) -> Session {
        Session { state, ..Session::live("node-2".into(), Epoch(1), Version(version)) }
    }

    fn live(version: u64) -> Session {
        session(version, SessionState::Live { accused_by: None })
    }

    #[test]
    fn who_renews_its_session_under_a_mac_address_of_ours_is_a_double() {
        let mut doubles = Doubles::default();
        assert!(!doubles.seen(&live(5), Some(MAC)), "the session of a machine's old name");
        assert!(!doubles.seen(&live(5), Some(MAC)), "it is listed again");
        let accused = SessionState::Live { accused_by: Some("node-3".into()) };
        assert!(!doubles.seen(&session(6, accused), Some(MAC)), "nor is that a renewal");
        assert_eq!(doubles.of(MAC), None);
        assert!(doubles.seen(&live(7), Some(MAC)));
        assert!(!doubles.seen(&live(8), Some(MAC)), "that is known");
        assert_eq!(doubles.of(MAC), Some(&"node-2".into()));
        assert_eq!(doubles.of(MacAddr(2, 0, 0, 0, 0, 2)), None);
    }

    #[test]
    fn a_double_that_changes_or_ends_is_none_any_more() {
        let ended = SessionState::Ended { by: "node-3".into(), reason: EndReason::NodeSilent };
        for (session, shared) in [(live(7), None), (session(7, ended), Some(MAC))] {
            let mut doubles = Doubles::default();
            doubles.seen(&live(5), Some(MAC));
            assert!(doubles.seen(&live(6), Some(MAC)));
            assert!(!doubles.seen(&session, shared));
            assert_eq!(doubles.of(MAC), None, "{session:?}");
        }
    }
}

//! What this node is to an address, and from what that follows.

/// What a speaker is to an address. Nobody stores it: it follows from what is known ([`Facts`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Announces what a dead node held, while the lock is being written.
    Heir,
    /// Announces what nobody answers for, without the API server.
    StandIn,
    /// Has to make sure that what it holds is still its own.
    Returner,
    /// Has heard a fellow announce what it announces, and looks into it.
    Doubter {
        /// It has given way until it knows.
        yielded: bool,
    },
    /// Announces what it has the lock of.
    Holder,
    /// Announces what it has given away, until its successor does.
    Leaver,
    /// Is about to take a lock that nobody has held.
    Asker,
    /// Is about to take a lock whose holder's session is over.
    Taker,
    /// Has nothing to do with it.
    Bystander,
}

/// Whom a lock names as its holder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Named {
    /// There is no holder, or no lock.
    #[default]
    Nobody,
    ThisNode,
    Another,
}

/// What is known of whoever is to announce the address after this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Successor {
    /// There is none, or it is not waited for any more.
    #[default]
    None,
    /// It has the lock, and was not heard yet.
    Awaited,
    Heard,
}

/// All that the role of this node for one address depends on.
#[allow(clippy::struct_excessive_bools, reason = "they are independent facts")]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Facts {
    pub(crate) named: Named,
    /// The lock names the session of this node that counts.
    pub(crate) holds: bool,
    /// Nobody has the lock, or the session that it was held under is over.
    pub(crate) free: bool,
    /// It is for this node to take it now.
    pub(crate) turn: bool,
    /// Its pool is announced somewhere, and somebody somewhere would answer behind it.
    pub(crate) permitted: bool,
    /// The last decision was to announce it.
    pub(crate) announced: bool,
    /// This node announces it without a lock that it can show.
    pub(crate) unaided: bool,
    /// The session was proved since this process last woke.
    pub(crate) trusted: bool,
    /// Its interface heard nobody, and the session was not proved since.
    pub(crate) returned: bool,
    /// A fellow claims it, too: whether this node has given way.
    pub(crate) contest: Option<bool>,
    pub(crate) successor: Successor,
    /// This process was asked to stop.
    pub(crate) stopping: bool,
}

/// By which right an address is announced with the lock in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Title {
    /// The lock names this node.
    Held,
    /// It did, and the one that it names now is not heard yet.
    Given,
}

impl Role {
    /// The first line that applies counts.
    pub(crate) fn of(facts: &Facts) -> Self {
        let is_doubtful = !facts.trusted || facts.returned;
        match (facts.title(), facts.contest) {
            // Nobody else was heard: what locks and sessions say is no obstacle.
            _ if facts.unaided && facts.free => Self::Heir,
            _ if facts.unaided => Self::StandIn,
            (Some(Title::Held), _) if is_doubtful => Self::Returner,
            // Its successor has the lock: nothing is left to return to.
            (Some(Title::Given), _) if is_doubtful => Self::Bystander,
            (Some(_), Some(yielded)) => Self::Doubter { yielded },
            (Some(Title::Held), None) if !facts.stopping => Self::Holder,
            (Some(_), None) => Self::Leaver,
            (None, _) if facts.turn && facts.named == Named::Nobody => Self::Asker,
            (None, _) if facts.turn => Self::Taker,
            (None, _) => Self::Bystander,
        }
    }

    /// Whether this node answers for the address.
    pub fn announces(self) -> bool {
        match self {
            Self::Heir | Self::StandIn | Self::Holder | Self::Leaver => true,
            Self::Doubter { yielded } => !yielded,
            Self::Returner | Self::Asker | Self::Taker | Self::Bystander => false,
        }
    }
}

impl Facts {
    /// Whether this node goes on announcing it, or may begin to, when nothing comes in between.
    pub(crate) fn are_in_favour(&self) -> bool {
        self.trusted && self.title().is_some()
    }

    /// Who holds a lock under the present session may begin to announce; who already announces goes on until somebody
    /// else holds the lock, so that an API server or a session that is gone stops nobody.
    fn title(&self) -> Option<Title> {
        // Whatever the API server says, or cannot say: it is announced elsewhere, and for good.
        let is_done = self.stopping && self.successor == Successor::Heard;
        if !self.permitted || is_done {
            return None;
        }
        let is_awaited = self.successor == Successor::Awaited;
        match self.named {
            Named::ThisNode if self.announced || self.holds => Some(Title::Held),
            Named::Another if self.announced && is_awaited => Some(Title::Given),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> Facts {
        Facts {
            named: Named::ThisNode,
            holds: true,
            permitted: true,
            announced: true,
            trusted: true,
            ..Facts::default()
        }
    }

    fn given() -> Facts {
        let (named, successor) = (Named::Another, Successor::Awaited);
        Facts { named, holds: false, successor, ..held() }
    }

    /// Another node's, and announced here.
    fn unaided() -> Facts {
        Facts { unaided: true, successor: Successor::None, ..given() }
    }

    /// In this node's hands no more, and for it to take.
    fn free() -> Facts {
        Facts { announced: false, holds: false, free: true, turn: true, ..held() }
    }

    fn check(rows: &[(&str, Facts, Role)]) {
        for (what, facts, role) in rows {
            assert_eq!(Role::of(facts), *role, "{what}");
        }
    }

    #[test]
    fn each_role_has_its_facts() {
        let nobodys = Facts { named: Named::Nobody, ..free() };
        let anothers = Facts { named: Named::Another, ..free() };
        let contested = |yielded| Facts { contest: Some(yielded), ..held() };
        check(&[
            ("announced while the lock is taken", Facts { free: true, ..unaided() }, Role::Heir),
            ("announced though the lock is another's", unaided(), Role::StandIn),
            ("the interface heard nobody", Facts { returned: true, ..held() }, Role::Returner),
            ("the process was paused", Facts { trusted: false, ..held() }, Role::Returner),
            ("a fellow is heard", contested(false), Role::Doubter { yielded: false }),
            ("and has been for long", contested(true), Role::Doubter { yielded: true }),
            ("just taken", Facts { announced: false, ..held() }, Role::Holder),
            ("the session is over", Facts { holds: false, free: true, ..held() }, Role::Holder),
            ("given away", given(), Role::Leaver),
            ("the process stops", Facts { stopping: true, ..held() }, Role::Leaver),
            ("nobody has held it", nobodys, Role::Asker),
            ("its holder's session is over", anothers, Role::Taker),
            ("it was this node's under an earlier session", free(), Role::Taker),
            ("nothing is known", Facts::default(), Role::Bystander),
        ]);
    }

    #[test]
    fn of_several_roles_the_first_one_counts() {
        let heard = Successor::Heard;
        let all_at_once = Facts { trusted: false, returned: true, contest: Some(true), ..held() };
        let lost = Facts { announced: false, ..given() };
        let doubtful = Facts { returned: true, contest: Some(false), ..held() };
        let stops = Facts { stopping: true, ..held() };
        check(&[
            (
                "a claim that nobody contradicts",
                Facts { unaided: true, ..all_at_once },
                Role::StandIn,
            ),
            ("and the lock is gone", Facts { permitted: false, ..unaided() }, Role::StandIn),
            ("and it is time to take it", Facts { unaided: true, ..free() }, Role::Heir),
            ("back, and a fellow is heard", doubtful, Role::Returner),
            ("stopping, and back", Facts { returned: true, ..stops }, Role::Returner),
            (
                "stopping, and its successor is heard",
                Facts { successor: heard, ..stops },
                Role::Bystander,
            ),
            (
                "and it is back",
                Facts { successor: heard, returned: true, ..stops },
                Role::Bystander,
            ),
            (
                "to be given away, and the other is heard",
                Facts { successor: heard, ..held() },
                Role::Holder,
            ),
            (
                "given away, and the other is heard",
                Facts { successor: heard, ..given() },
                Role::Bystander,
            ),
            ("given away, and back", Facts { returned: true, ..given() }, Role::Bystander),
            ("given away, and paused", Facts { trusted: false, ..given() }, Role::Bystander),
            (
                "given away, and a third is heard",
                Facts { contest: Some(false), ..given() },
                Role::Doubter { yielded: false },
            ),
            ("given away, and not announced any more", lost, Role::Bystander),
            (
                "not permitted, and just taken",
                Facts { permitted: false, ..held() },
                Role::Bystander,
            ),
            ("lost, and a fellow is heard", Facts { contest: Some(true), ..lost }, Role::Bystander),
            (
                "the session is over, and it is time to take it",
                Facts { announced: true, ..free() },
                Role::Holder,
            ),
        ]);
    }
}

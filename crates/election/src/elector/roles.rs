//! What this node is to each address.

use alloc::collections::BTreeSet;
use core::net::IpAddr;

use super::Elector;
use crate::{
    model::{Lock, Node},
    role::{Facts, Named, Role, Successor},
};

impl Elector {
    /// What this node is to an address, with what was decided last.
    pub fn role(&self, address: IpAddr) -> Role {
        Role::of(&self.facts(address))
    }

    /// The addresses whose roles announce.
    pub(super) fn announced_by_role(&self) -> BTreeSet<IpAddr> {
        let named = self.view.locks_of(&self.me).map(|lock| lock.address);
        let concerned = named.chain(self.announcing.iter().copied());
        let concerned: BTreeSet<IpAddr> = concerned.chain(self.unaided.announced()).collect();
        concerned.into_iter().filter(|address| self.role(*address).announces()).collect()
    }

    pub(super) fn facts(&self, address: IpAddr) -> Facts {
        let lock = self.view.lock(address);
        let own = self.view.session(&self.me);
        let free = self.view.free_since(address).is_some();
        Facts {
            named: self.named(lock),
            holds: own.zip(lock).is_some_and(|(own, lock)| own.holds(lock)),
            free,
            turn: free && self.may_take(address),
            permitted: lock.is_some_and(|lock| self.may_announce(lock)),
            announced: self.announcing.contains(&address),
            unaided: self.unaided.announces(address),
            trusted: self.own.trusted(),
            returned: self.has_returned(address),
            contest: self.contests.get(&address).map(|contest| contest.yielded),
            successor: self.successor(address, lock),
            stopping: self.stopping,
        }
    }

    /// Whether none of the facts can be other ones in the next turn, unless locks change, or what speaks for the nodes. Then
    /// nothing needs to be looked at. What is added to the facts, and does not follow from those, is to be added here: in
    /// tests each turn makes sure that the roles announce what is announced.
    pub(super) fn is_calm(&self) -> bool {
        let sure = self.own.trusted() && self.returned.is_empty() && self.contests.is_empty();
        sure && !self.stopping && self.unaided.is_idle() && self.leaving.is_idle()
    }

    fn named(&self, lock: Option<&Lock>) -> Named {
        match lock {
            Some(lock) if lock.is_of(&self.me) => Named::ThisNode,
            Some(lock) if lock.holder.is_some() => Named::Another,
            _ => Named::Nobody,
        }
    }

    /// The other node that a lock names as its holder.
    pub(super) fn other_holder<'a>(&self, lock: &'a Lock) -> Option<&'a Node> {
        lock.holder.as_ref().map(|holder| &holder.node).filter(|node| **node != self.me)
    }

    /// Whether it is for this node to take a lock that is free.
    fn may_take(&self, address: IpAddr) -> bool {
        let (view, settings) = (&self.view, &self.settings);
        self.has_a_say()
            && !view.are_backends_unknown(address)
            && self.succession.is_turn(&self.me, address, view, self.decided, settings)
    }

    fn successor(&self, address: IpAddr, lock: Option<&Lock>) -> Successor {
        let other = lock.and_then(|lock| self.other_holder(lock));
        let is_awaited = |other: &Node| {
            self.leaving.awaits(address, other, self.decided, self.session_lasts() * 2)
        };
        if self.leaving.was_heard(address) {
            Successor::Heard
        } else if other.is_some_and(is_awaited) {
            Successor::Awaited
        } else {
            Successor::None
        }
    }

    /// Whether an address may be announced from here until somebody else takes it. Not when its pool is not announced
    /// any more, or nobody anywhere would answer behind it.
    pub(super) fn may_announce(&self, lock: &Lock) -> bool {
        !lock.terms.is_nowhere() && !self.view.is_backless(lock.address)
    }
}

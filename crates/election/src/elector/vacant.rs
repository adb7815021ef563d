//! Addresses that nobody announces yet, and that somebody else may have.

use alloc::vec::Vec;
use core::net::IpAddr;

use super::Elector;
use crate::{
    exchange::{Effect, Occupant},
    model::{Lock, Node, Session, Timestamp},
    questions::Question,
    vacancy::{Finding, Mac},
    writes::{LockChange, Write},
};

impl Elector {
    /// Takes a lock; one that nobody has held before only when nobody else has its address.
    pub(super) fn take_vacant(&mut self, lock: &Lock, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(take) = self.take(lock) else { return };
        let probing = lock.terms.probing && !self.settings.first_probe.is_zero();
        if lock.holder.is_some() || !probing {
            return self.send(take, now, effects);
        }
        let taken = lock.stranger.is_some();
        match self.vacancies.look(lock.address, taken, now, &self.settings) {
            Finding::Wait => {}
            Finding::Ask(purpose) => {
                effects.push(Effect::Ask(Question::Address { address: lock.address, purpose }));
            }
            Finding::Free => self.send(take, now, effects),
            Finding::Taken(_) if taken => {}
            Finding::Taken(stranger) => {
                self.send(Write::on(lock, LockChange::Quarantine { stranger }), now, effects);
            }
        }
    }

    /// A machine has an address that was asked for, or says so. A router, or whoever else answers for what others have,
    /// keeps nobody from an address that was announced before. Of a new one it may be the only word.
    pub(super) fn occupied(&mut self, address: IpAddr, mac: Mac, by: &Occupant, now: Timestamp) {
        match by {
            Occupant::Stranger => {
                self.vacancies.answered(address, mac);
                self.held_off(address, mac, now);
            }
            Occupant::Router => self.vacancies.answered(address, mac),
            Occupant::Node(node) if self.has_it(node, address, now) => {
                self.vacancies.answered(address, mac);
            }
            Occupant::Node(_) => {}
        }
    }

    /// Somebody asks for an address that was asked for, to have it.
    pub(super) fn wanted(&mut self, address: IpAddr, mac: Mac, now: Timestamp) {
        self.vacancies.wanted(address, mac, now);
        self.unaided.rests(address, now, self.settings.recheck);
    }

    /// Whether a node of ours that answers for `address` has it as its own, as far as can be told from here. No speaker
    /// answers for an address whose lock has no holder, but for one that has just lost it: it may not know yet, or
    /// cannot know while the API server does not hear it, and goes on until a fellow has the lock.
    fn has_it(&self, node: &Node, address: IpAddr, now: Timestamp) -> bool {
        if *node == self.me {
            return true;
        }
        let is_held = self.view.lock(address).is_some_and(|lock| lock.holder.is_some());
        let is_live = self.view.session(node).is_some_and(Session::is_live);
        let patience = if is_live { Some(self.session_lasts()) } else { None };
        !is_held && !self.former.may_answer(node, address, now, patience)
    }

    /// The lock of `address` is gone, or is not held any more.
    pub(super) fn holder_lost(&mut self, address: IpAddr, now: Timestamp) {
        if let Some(holder) = self.view.lock(address).and_then(|lock| lock.holder.as_ref()) {
            self.former.lost(address, holder.node.clone(), now);
        }
    }
}

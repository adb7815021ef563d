//! What users are to be told by this node.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::net::IpAddr;

use super::Elector;
use crate::{
    eligibility::Unfit,
    exchange::Effect,
    flaps::Deed,
    model::{Lock, Node, Timestamp},
    stranded::Stranded,
    writes::{LockChange, Write},
};

impl Elector {
    /// The addresses that no node may announce, of which it falls to this node to tell now. `ceased`: those that it has
    /// just ceased to announce therefore.
    pub(super) fn tell_of_stranded(&mut self, ceased: &[IpAddr], now: Timestamp) -> Vec<Stranded> {
        let all = self.stranded();
        if all.is_empty() && self.strandings.is_empty() {
            return Vec::new();
        }
        let flaps = &mut self.flaps;
        let due = self.strandings.update(&all, ceased, now, |address| {
            let may = flaps.may(address, Deed::Tell, now);
            if may {
                flaps.done(address, Deed::Tell, now);
            }
            may
        });
        if due.is_empty() {
            return Vec::new();
        }
        let candidates = self.candidates(now);
        let locks = due.into_iter().filter_map(|address| self.view.lock(address));
        locks.map(|lock| self.explained(lock, &candidates)).collect()
    }

    /// Takes note of a lock that is about to be taken over, if it says that its address has followed its backends.
    pub(super) fn note_flaps(&mut self, lock: &Lock, now: Timestamp) {
        let address = lock.address;
        let known = self.view.lock(address).filter(|known| known.version < lock.version);
        let Some(known) = known.filter(|_| self.view.backends(address).is_some()) else { return };
        let [before, after] = [known, lock].map(|it| it.holder.as_ref().map(|it| &it.node));
        // What is taken from one whose session is over has not followed anything.
        let was_given = before.is_some_and(|it| after != before && self.view.holds(it, address));
        let was_noted = known.unannounced != lock.unannounced;
        if was_given {
            self.flaps.done(address, Deed::Move, now);
        }
        if was_noted {
            self.flaps.done(address, Deed::Note, now);
        }
    }

    /// Notes on the locks of this node which of their addresses it does not announce for want of a backend anywhere, which
    /// somebody else goes on claiming, and which of that is over. Who claims one is noted once: two can take turns.
    pub(super) fn note_trouble(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let unwanted = self.merits.unwanted().map(|(address, _)| address);
        let disputed = self.disputes.addresses();
        let concerned: BTreeSet<IpAddr> =
            unwanted.chain(disputed).chain(self.view.noted()).collect();
        let own = concerned.into_iter().filter(|address| self.view.holds(&self.me, *address));
        let note = |address| {
            let lock = self.view.lock(address)?;
            let announced = !self.view.is_backless(address);
            let by = self.disputes.by(address);
            let is_news =
                announced == lock.unannounced || by.is_some() != lock.disputed_by.is_some();
            let note = || LockChange::Note { announced, disputed_by: by.clone() };
            is_news.then(|| (address, Write::on(lock, note())))
        };
        let notes: Vec<(IpAddr, Write)> = own.filter_map(note).collect();
        for (address, note) in notes {
            if self.flaps.may(address, Deed::Note, now) {
                self.send(note, now, effects);
            }
        }
    }

    /// What nobody holds, where this node was chosen to speak, and what it holds itself and nobody would answer behind.
    fn stranded(&self) -> BTreeSet<IpAddr> {
        let nobodys = self.succession.stranded(&self.view, &self.me);
        // That a pool is announced nowhere is somebody's wish, and the controller's to tell.
        // Nor is it known whom rules select before the Nodes are.
        let is_so = |lock: &&Lock| !lock.terms.is_nowhere() && !self.view.are_labels_unknown(lock);
        let nobodys = nobodys.filter(is_so).map(|lock| lock.address);
        let own = self.merits.unwanted().map(|(address, _)| address);
        let own = own.filter(|it| self.view.is_backless(*it) && self.view.holds(&self.me, *it));
        nobodys.chain(own).collect()
    }

    fn explained(&self, lock: &Lock, candidates: &BTreeSet<Node>) -> Stranded {
        let mut why: BTreeMap<Unfit, Vec<Node>> = BTreeMap::new();
        for node in candidates {
            if let Err(unfit) = self.view.merit(lock, node) {
                why.entry(unfit).or_default().push(node.clone());
            }
        }
        let address = lock.address;
        Stranded { address, backless: self.view.is_backless(address), why }
    }
}

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
    model::{Lock, Node, Timestamp},
    stranded::Stranded,
    writes::Write,
};

impl Elector {
    /// The addresses that no node may announce, of which it falls to this node to tell now. `ceased`: those that it has
    /// just ceased to announce therefore.
    pub(super) fn tell_of_stranded(&mut self, ceased: &[IpAddr], now: Timestamp) -> Vec<Stranded> {
        let all = self.stranded();
        if all.is_empty() && self.strandings.is_empty() {
            return Vec::new();
        }
        let due = self.strandings.update(&all, ceased, now);
        if due.is_empty() {
            return Vec::new();
        }
        let candidates = self.candidates(now);
        let locks = due.into_iter().filter_map(|address| self.view.lock(address));
        locks.map(|lock| self.explained(lock, &candidates)).collect()
    }

    /// Notes on the locks of this node which of their addresses it does not announce for want of a backend anywhere, and
    /// which it announces again.
    pub(super) fn note_unannounced(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let unwanted = self.merits.unwanted().map(|(address, _)| address);
        let concerned = unwanted.chain(self.view.unannounced());
        let own = concerned.filter(|address| self.view.holds(&self.me, *address));
        let note = |address| {
            let Lock { version: expected, unannounced, .. } = *self.view.lock(address)?;
            let announced = !self.view.is_backless(address);
            (announced == unannounced).then_some(Write::Note { address, expected, announced })
        };
        let notes: Vec<Write> = own.filter_map(note).collect();
        for note in notes {
            self.send(note, now, effects);
        }
    }

    /// What nobody holds, where this node was chosen to speak, and what it holds itself and nobody would answer behind.
    fn stranded(&self) -> BTreeSet<IpAddr> {
        let nobodys = self.succession.stranded(&self.view, &self.me);
        // That a pool is announced nowhere is somebody's wish, and the controller's to tell.
        let nobodys = nobodys.filter(|lock| !lock.terms.is_nowhere()).map(|lock| lock.address);
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

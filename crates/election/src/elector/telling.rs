//! What users are to be told by this node.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::net::IpAddr;

use super::Elector;
use crate::{
    eligibility::Unfit,
    model::{Lock, Node, Timestamp},
    stranded::Stranded,
};

impl Elector {
    /// The addresses that no node may announce, of which it falls to this node to tell now. `ceased`: those that it has
    /// just ceased to announce therefore.
    pub(super) fn tell_of_stranded(&mut self, ceased: &[IpAddr], now: Timestamp) -> Vec<Stranded> {
        let all = self.stranded();
        if all.is_empty() && self.strandings.is_empty() {
            return Vec::new();
        }
        let due = self.strandings.update(&all, ceased, now).into_iter();
        let due = due.filter_map(|address| self.view.lock(address));
        due.map(|lock| self.explained(lock, now)).collect()
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

    fn explained(&self, lock: &Lock, now: Timestamp) -> Stranded {
        let mut why: BTreeMap<Unfit, Vec<Node>> = BTreeMap::new();
        for node in self.candidates(now) {
            if let Err(unfit) = self.view.merit(lock, &node) {
                why.entry(unfit).or_default().push(node);
            }
        }
        let address = lock.address;
        Stranded { address, backless: self.view.is_backless(address), why }
    }
}

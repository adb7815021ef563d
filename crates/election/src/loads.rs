//! How much each node has to announce, and what of it belongs together.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::net::IpAddr;

use crate::{
    eligibility::{Candidate, Merit},
    model::{Lock, Node},
    view::View,
};

/// What each candidate holds, and what is placed on it in the course of one decision. The addresses of one Service belong
/// on one node, where they count once: whoever looks for a Service finds it in one place, and it moves once.
#[derive(Debug)]
pub(crate) struct Loads<'a> {
    view: &'a View,
    /// In the order of their names.
    candidates: Vec<(Candidate<'a>, usize)>,
    placed: BTreeMap<IpAddr, &'a Node>,
}

/// A candidate that may announce the address of a lock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fit<'a> {
    pub(crate) node: &'a Node,
    pub(crate) merit: Merit,
    /// How much it has.
    pub(crate) load: usize,
}

impl<'a> Loads<'a> {
    /// What these nodes rightly hold now.
    pub(crate) fn of(view: &'a View, candidates: &'a BTreeSet<Node>) -> Self {
        let count = |node: &Node| {
            let is_eldest = |lock: &&Lock| view.eldest(lock, node) == lock.address;
            view.rightly_held(node).filter(is_eldest).count()
        };
        let candidates = candidates.iter().map(|node| (view.candidate(node), count(node)));
        Self { view, candidates: candidates.collect(), placed: BTreeMap::new() }
    }

    /// The address of `lock` is to be on `node`, which is a candidate.
    pub(crate) fn place(&mut self, lock: &Lock, node: &Node) {
        let is_new = !self.homes(lock).contains(&node);
        let found = self.candidates.binary_search_by(|(it, _)| it.node.cmp(node));
        let Some((candidate, load)) = found.ok().and_then(|at| self.candidates.get_mut(at)) else {
            return;
        };
        *load += usize::from(is_new);
        self.placed.insert(lock.address, candidate.node);
    }

    /// The candidates that may announce the address of `lock`.
    pub(crate) fn fit(&self, lock: &Lock) -> Vec<Fit<'a>> {
        let backends = self.view.backends(lock.address);
        let fit = |(candidate, load): &(Candidate<'a>, usize)| {
            let merit = candidate.merit(lock.address, &lock.terms, backends).ok()?;
            Some(Fit { node: candidate.node, merit, load: *load })
        };
        self.candidates.iter().filter_map(fit).collect()
    }

    /// Where the other addresses of the Service of `lock` are, or are to be.
    pub(crate) fn homes(&self, lock: &Lock) -> Vec<&'a Node> {
        let home = |relative: IpAddr| match self.placed.get(&relative) {
            Some(place) => Some(*place),
            None => self.view.rightful_holder(relative),
        };
        self.view.relatives(lock).filter_map(home).collect()
    }
}

//! Addresses that this node has given away and still announces.
//!
//! The successor announces first; then the old holder stops. It knows that the successor does when it hears it, and asks
//! when it has heard nothing for a second. One that cannot be heard from here is believed after a while: when its
//! session would be over, and the lock taken by another node, had it not noticed that it holds the lock.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::{net::IpAddr, time::Duration};

use crate::{
    model::{Node, Timestamp},
    questions::{Purpose, Question, Search, Step},
    settings::Settings,
};

/// What is given away.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct Leaving {
    successors: BTreeMap<IpAddr, Successor>,
}

#[derive(Debug, Clone, Hash)]
struct Successor {
    node: Node,
    /// Since when it has the lock, as far as is known here.
    since: Option<Timestamp>,
    /// It is asked for from when it has had the lock for a while.
    search: Option<Search>,
    heard: bool,
}

impl Leaving {
    /// The lock of `address` is being given to `node`.
    pub(crate) fn give(&mut self, address: IpAddr, node: Node) {
        let successor = Successor { node, since: None, search: None, heard: false };
        self.successors.insert(address, successor);
    }

    /// The expected successor for `address` has turned out to be `node`.
    pub(crate) fn expect(&mut self, address: IpAddr, node: &Node) {
        if !self.successors.contains_key(&address) {
            self.give(address, node.clone());
        }
    }

    /// Somebody else has the lock of `address`, which is announced from here.
    pub(crate) fn has_lock(&mut self, address: IpAddr, now: Timestamp, settings: &Settings) {
        if let Some(successor) = self.successors.get_mut(&address) {
            successor.since.get_or_insert(now);
            let search = || Search::new(Purpose::Successor, now).later(settings);
            successor.search.get_or_insert_with(search);
        }
    }

    /// Whether `holder`, who has the lock of `address`, is the successor and still to be heard. `longest`: one that is not
    /// heard is believed after that.
    pub(crate) fn awaits(
        &self,
        address: IpAddr,
        holder: &Node,
        now: Timestamp,
        longest: Duration,
    ) -> bool {
        self.successors.get(&address).is_some_and(|it| {
            let is_late = it.since.is_some_and(|since| now >= since + longest);
            it.node == *holder && !it.heard && !is_late
        })
    }

    /// What to ask now for successors that should have been heard.
    pub(crate) fn ask(&mut self, now: Timestamp, settings: &Settings) -> Vec<Question> {
        let unheard = self.successors.iter_mut().filter(|(_, successor)| !successor.heard);
        let searches = unheard.filter_map(|(it, successor)| Some((it, successor.search.as_mut()?)));
        let due = searches.filter_map(|(address, search)| {
            let asks = search.look(now, settings) == Step::Ask;
            let purpose = Purpose::Successor;
            asks.then_some(Question::Address { address: *address, purpose })
        });
        due.collect()
    }

    /// `by` announces `address`. Whether that is the successor, who was waited for.
    pub(crate) fn heard(&mut self, address: IpAddr, by: &Node) -> bool {
        let successor = self.successors.get_mut(&address).filter(|it| it.node == *by);
        successor.map(|it| it.heard = true).is_some()
    }

    /// Another one than the successor announces `address`, and no lock can be read: whoever it is, this node is needed no
    /// more.
    pub(crate) fn replaced(&mut self, address: IpAddr) {
        if let Some(successor) = self.successors.get_mut(&address) {
            successor.heard = true;
        }
    }

    /// Whether the successor was heard announcing `address`.
    pub(crate) fn was_heard(&self, address: IpAddr) -> bool {
        self.successors.get(&address).is_some_and(|it| it.heard)
    }

    /// Forgets those of these addresses that another node has had the lock of meanwhile, and returns them: they are given away no more.
    pub(crate) fn take_back(&mut self, is_held: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
        let is_back =
            |address: &IpAddr, it: &mut Successor| it.since.is_some() && is_held(*address);
        self.successors.extract_if(.., is_back).map(|(address, _)| address).collect()
    }

    /// What is given away.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.successors.keys().copied()
    }

    /// Whether nothing is given away.
    pub(crate) fn is_idle(&self) -> bool {
        self.successors.is_empty()
    }

    /// Keeps only those of these addresses.
    pub(crate) fn retain(&mut self, addresses: &BTreeSet<IpAddr>) {
        self.successors.retain(|address, _| addresses.contains(address));
    }
}

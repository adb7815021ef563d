//! Whose turn it is to take each free lock.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::net::IpAddr;

use crate::{
    loads::Loads,
    model::{Lock, Node, Timestamp, Version},
    placement::{ranking, spokesman},
    settings::Settings,
    view::View,
};

/// The candidates for each free lock. A line is drawn up once, when its lock becomes free: what is taken afterwards, and is
/// seen in another order elsewhere, changes nobody's turn.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct Succession {
    candidates: BTreeSet<Node>,
    lines: BTreeMap<IpAddr, Line>,
    /// When each candidate was last seen to take one of these locks. Who has many to take needs time for them.
    at_work: BTreeMap<Node, Timestamp>,
    /// Who announces what others hold, or nobody does.
    stand_ins: BTreeMap<IpAddr, StandIn>,
}

/// The candidates for one lock, best first.
#[derive(Debug, Clone, Hash)]
struct Line {
    /// The lock's.
    version: Version,
    ranked: Vec<Node>,
}

/// Who announces an address without its lock, this node or another one.
#[derive(Debug, Clone, Hash)]
struct StandIn {
    /// The lock's.
    version: Version,
    node: Node,
    heard: Timestamp,
}

impl Succession {
    /// Forgets what was taken, and draws up lines for what has become free. With other candidates all lines are drawn up
    /// anew.
    pub(crate) fn update(&mut self, view: &View, candidates: BTreeSet<Node>, now: Timestamp) {
        self.forget_taken(view, now);
        if self.candidates != candidates {
            self.candidates = candidates;
            self.begin_anew();
        }
        let is_new = |lock: &Lock| !self.lines.contains_key(&lock.address);
        let new: Vec<&Lock> =
            view.free().map(|(lock, _)| lock).filter(|lock| is_new(lock)).collect();
        if new.is_empty() {
            return;
        }
        let mut loads = Loads::of(view);
        for (address, line) in &self.lines {
            if let Some(lock) = view.lock(*address) {
                line.burden(lock, &mut loads);
            }
        }
        for lock in new {
            let stand_in = self.stand_ins.get(&lock.address).map(|it| &it.node);
            let holder = lock.holder.as_ref().map(|holder| &holder.node);
            let fit = view.fit(lock, &self.candidates);
            let ranked = ranking(lock, stand_in.or(holder), &fit, &loads);
            let line = Line { version: lock.version, ranked };
            line.burden(lock, &mut loads);
            self.lines.insert(lock.address, line);
        }
    }

    /// Other things speak for the candidates than before.
    pub(crate) fn begin_anew(&mut self) {
        self.lines.clear();
    }

    fn forget_taken(&mut self, view: &View, now: Timestamp) {
        let at_work = &mut self.at_work;
        self.lines.retain(|address, line| {
            let lock = view.lock(*address);
            let stays = lock.is_some_and(|lock| lock.version == line.version);
            if let Some(holder) = lock.and_then(|lock| lock.holder.as_ref()).filter(|_| !stays) {
                at_work.insert(holder.node.clone(), now);
            }
            stays && view.is_known_free(*address)
        });
        let version = |address| view.lock(address).map(|lock| lock.version);
        self.stand_ins.retain(|address, it| version(*address) == Some(it.version));
        if self.lines.is_empty() {
            self.at_work.clear();
        }
    }

    /// Whether it is `me` whose turn it is to take a lock that is free since `since`: the first in line may at once, each
    /// further one when those before have done nothing for a while longer. What is announced already can wait.
    pub(crate) fn is_turn_of(
        &self,
        me: &Node,
        address: IpAddr,
        since: Timestamp,
        now: Timestamp,
        settings: &Settings,
    ) -> bool {
        let Some(line) = self.lines.get(&address) else { return false };
        let Some(rank) = line.ranked.iter().position(|node| node == me) else { return false };
        let (before, _) = line.ranked.split_at(rank);
        let at_work = before.iter().filter_map(|node| self.at_work.get(node).copied());
        let stand_in = self.stand_ins.get(&address).filter(|it| before.contains(&it.node));
        let announced = stand_in.map(|it| it.heard + settings.renewal);
        let since = at_work.chain(announced).fold(since, Timestamp::max);
        now >= since + settings.patience * u32::try_from(rank).unwrap_or(u32::MAX)
    }

    /// Whether `me` is the first in line for an address that nobody has announced since its lock became free.
    pub(crate) fn is_heir(&self, me: &Node, address: IpAddr) -> bool {
        let first = self.lines.get(&address).and_then(|line| line.ranked.first());
        first == Some(me) && !self.stand_ins.contains_key(&address)
    }

    /// `by` announces an address whose lock it does not hold.
    pub(crate) fn stands_in(&mut self, lock: &Lock, by: &Node, now: Timestamp) {
        let stand_in = StandIn { version: lock.version, node: by.clone(), heard: now };
        self.stand_ins.insert(lock.address, stand_in);
    }

    /// Who announces an address holds its lock.
    pub(crate) fn holds(&mut self, address: IpAddr) {
        self.stand_ins.remove(&address);
    }

    /// How many addresses nobody announces, as far as is known, though somebody could.
    pub(crate) fn ownerless(&self) -> usize {
        let waits = |(address, line): &(&IpAddr, &Line)| {
            !line.ranked.is_empty() && !self.stand_ins.contains_key(*address)
        };
        self.lines.iter().filter(waits).count()
    }

    /// The free locks whose addresses no node may announce, and of which `me` is to tell.
    pub(crate) fn stranded<'a>(
        &'a self,
        view: &'a View,
        me: &'a Node,
    ) -> impl Iterator<Item = &'a Lock> {
        let nobodys = self.lines.iter().filter(|(_, line)| line.ranked.is_empty());
        let locks = nobodys.filter_map(|(address, _)| view.lock(*address));
        locks.filter(move |lock| spokesman(lock, &self.candidates) == Some(me))
    }

    /// Whether there is nothing that could be out of date.
    pub(crate) fn is_idle(&self) -> bool {
        self.lines.is_empty() && self.stand_ins.is_empty()
    }
}

impl Line {
    /// Adds the lock to what the first in line has.
    fn burden(&self, lock: &Lock, loads: &mut Loads<'_>) {
        if let Some(first) = self.ranked.first() {
            loads.place(lock, first);
        }
    }
}

//! Services that got less than they ask for.
//!
//! They are served in the order in which they began to wait, which their condition says, and so any controller knows. Those
//! of whom no controller has said so yet come after them, in the order of their creation. When an address comes free, as
//! many of them are looked at as it takes to give it away: the others would only learn what they know. When more may have
//! changed (a pool, who shares an address), all of them are; when a Service that shares has other terms, those with its key.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use arpeggio_api::service::ADDRESS_ALLOCATED;
use arpeggio_ipam::{Owner, SharingKey};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::{Index, askers::sharing, clock::is_far_ahead};
use crate::effect::Task;

/// When it is whose turn: those who are known to wait first, the longest first; then the older one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    is_new: bool,
    waits_since: Option<Timestamp>,
    created: Option<Timestamp>,
}

/// The place of a Service in the queue.
type Turn = (Rank, Owner);

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    queue: BTreeSet<Turn>,
    turns: BTreeMap<Owner, Rank>,
    /// How many addresses have come free that nobody was offered yet.
    freed: usize,
}

impl Waiting {
    pub(super) fn insert(&mut self, owner: Owner, rank: Rank) {
        self.remove(&owner);
        self.queue.insert((rank, owner.clone()));
        self.turns.insert(owner, rank);
    }

    pub(super) fn remove(&mut self, owner: &Owner) {
        if let Some(rank) = self.turns.remove(owner) {
            self.queue.remove(&(rank, owner.clone()));
        }
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.turns.len()
    }

    fn after(&self, turn: Option<&Turn>) -> Option<Turn> {
        let from = turn.map_or(Bound::Unbounded, Bound::Excluded);
        self.queue.range((from, Bound::Unbounded)).next().cloned()
    }

    fn take_all(&mut self) -> impl Iterator<Item = Owner> {
        self.queue.clear();
        std::mem::take(&mut self.turns).into_keys()
    }
}

impl Index {
    /// There may be an address for any of those who got none.
    pub(super) fn wake_waiting(&mut self) {
        self.waiting.freed = 0;
        self.dirty.extend(self.waiting.take_all());
    }

    /// There may be room at an address for those who wait with one of these sharing keys.
    pub(super) fn wake_sharers(&mut self, keys: &BTreeSet<SharingKey>) {
        let shares = |owner: &&Owner| {
            let sharing = self.services.get(*owner).and_then(sharing);
            sharing.is_some_and(|it| keys.contains(&it.key))
        };
        self.dirty.extend(self.waiting.turns.keys().filter(shares).cloned());
    }

    /// One more address is free.
    pub(super) fn address_freed(&mut self) {
        self.waiting.freed += 1;
        self.strangers_dirty = true;
    }

    /// Has the Service wait for its turn.
    pub(super) fn queue_up(&mut self, owner: &Owner) {
        let rank = self.rank(owner);
        self.waiting.insert(owner.clone(), rank);
    }

    /// When it is the turn of the Service.
    pub(super) fn rank(&self, owner: &Owner) -> Rank {
        let Some(record) = self.services.get(owner) else { return Rank::default() };
        let waits = record.condition(ADDRESS_ALLOCATED).filter(|it| it.status == "False");
        // By a clock that was wrong it says nothing.
        let is_wrong = |time: &Time| self.now.as_ref().is_some_and(|now| is_far_ahead(time, now));
        let since = waits.map(|it| &it.last_transition_time).filter(|it| !is_wrong(it));
        let waits_since = since.map(|time| time.0);
        let created = record.created.as_ref().map(|time| time.0);
        Rank { is_new: waits_since.is_none(), waits_since, created }
    }

    /// Offers what has come free to those who wait, before anybody else may have it.
    pub(super) fn serve_waiting(&mut self, now: &Time) -> Vec<Task> {
        let mut tasks = Vec::new();
        let mut turn = None;
        while self.waiting.freed > 0 {
            let Some(next) = self.waiting.after(turn.as_ref()) else { break };
            if self.gains(&next.1, now) && !self.is_busy(&next.1) {
                let task = self.decide_service(&next.1, now);
                let claims = self.claiming.contains_key(&next.1);
                self.waiting.freed = self.waiting.freed.saturating_sub(claims.into());
                tasks.extend(task);
            }
            turn = Some(next);
        }
        self.waiting.freed = 0;
        tasks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_in_order() {
        let mut waiting = Waiting::default();
        let at = |second| Rank {
            created: Some(Timestamp::from_second(second).unwrap()),
            ..Rank::default()
        };
        for (name, second) in [("z", 1), ("a", 3), ("m", 2), ("b", 3)] {
            waiting.insert(name.into(), at(second));
        }
        waiting.insert("m".into(), at(4));
        waiting.remove(&"b".into());
        let mut order = Vec::new();
        let mut turn = None;
        while let Some(next) = waiting.after(turn.as_ref()) {
            order.push(next.1.to_string());
            turn = Some(next);
        }
        assert_eq!(order, ["z", "a", "m"]);
        assert_eq!(waiting.take_all().count(), 3);
        assert!(waiting.queue.is_empty());
    }
}

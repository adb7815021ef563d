//! What is not told at once, since what is missing may be on its way: the pool of a Service, be it new, changed, or the only
//! one that is replaced; or the advertisement of a new pool.

use std::{collections::BTreeMap, net::IpAddr};

use arpeggio_api::{service::ADDRESS_ALLOCATED, terms::Announcement};
use arpeggio_ipam::{Owner, Refusal, UnfitAddress, Unfitness};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};

use super::{
    Index,
    outcome::{Outcome, Reason},
    setbacks::later,
};
use crate::effect::Subject;

/// How long something must be so before anybody is told.
pub(super) const TELL_AFTER: SignedDuration = SignedDuration::from_secs(5);

impl Index {
    /// Whether it is too early to tell a Service that there is no such pool. It is looked at again when it is not.
    pub(super) fn is_premature(&mut self, owner: &Owner, outcome: &Outcome, now: &Time) -> bool {
        let Some(record) = self.services.get(owner).filter(|_| misses_pool(outcome)) else {
            return false;
        };
        let is_new = record.conditions.is_empty() && outcome.addresses.is_empty();
        let ripe = record.created.as_ref().filter(|_| is_new).and_then(ripe_at);
        if let Some(ripe) = ripe.filter(|ripe| is_ahead(ripe, now)) {
            self.alarms.insert((ripe, Subject::Service(owner.clone())));
            return true;
        }
        // What is to change besides does not wait.
        let is_all = outcome.releasing.is_empty() && record.ingress.addresses == outcome.addresses;
        let is_told = record.condition(ADDRESS_ALLOCATED).is_some_and(|it| it.status == "False");
        is_all && !is_told && self.hesitates(owner, now)
    }

    /// Takes note of whether the Service lacks a pool, or is to leave others. It is looked at again when that has lasted.
    pub(super) fn note_lack(&mut self, owner: &Owner, outcome: &Outcome, now: &Time) {
        // Nothing was planned.
        if matches!(outcome.refusal, Some(Reason::ApiRefused(_))) {
            return;
        }
        let lacks = !outcome.in_doubt.is_empty() || misses_pool(outcome);
        let was_lacking = self.lacking.contains_key(owner);
        let lacking = note_since(&mut self.lacking, owner, lacks, now);
        if was_lacking && outcome.in_doubt.is_empty() {
            // By which pool its locks go rests on that, and nothing is written on them that would have them looked at.
            self.suspects.extend(self.locked_by(owner));
        }
        let parts = !outcome.parting.is_empty();
        let parting = note_since(&mut self.parting_since, owner, parts, now);
        for since in [lacking, parting].into_iter().flatten() {
            let end = later(&since, self.periods.patience);
            if is_ahead(&end, now) {
                self.alarms.insert((end, Subject::Service(owner.clone())));
            }
        }
    }

    /// Whether a pool that the Service lacks may still be about to come, or to come back.
    pub(super) fn hesitates(&self, owner: &Owner, now: &Time) -> bool {
        self.is_recent(self.lacking.get(owner), now)
    }

    /// Whether the Service and those whom it is to leave may still be about to agree again.
    pub(super) fn may_stay(&self, owner: &Owner, now: &Time) -> bool {
        self.is_recent(self.parting_since.get(owner), now)
    }

    /// Whether something that is so, since then or from now on, has not been so for long.
    fn is_recent(&self, since: Option<&Time>, now: &Time) -> bool {
        let patience = self.periods.patience;
        match since {
            Some(since) => is_ahead(&later(since, patience), now),
            None => !patience.is_zero(),
        }
    }

    /// Whether the pool that has `address` is so new that what says where it is announced may be on its way.
    pub(super) fn is_fresh(&self, address: IpAddr, now: &Time) -> bool {
        self.fresh_until(address).is_some_and(|until| is_ahead(&until, now))
    }

    /// Has a Service looked at when the pools that it has silent addresses of are no longer new.
    pub(super) fn await_advertisements(&mut self, owner: &Owner, outcome: &Outcome, now: &Time) {
        let silent = outcome.addresses.iter().filter(|it| self.is_announced_nowhere(**it));
        let ends = silent.filter_map(|it| self.fresh_until(*it)).filter(|end| is_ahead(end, now));
        let alarms: Vec<_> = ends.map(|end| (end, Subject::Service(owner.clone()))).collect();
        self.alarms.extend(alarms);
    }

    fn fresh_until(&self, address: IpAddr) -> Option<Time> {
        let pool = self.allocator.pool_of(address)?;
        let declaration = self.declarations.iter().find(|it| *it.name() == pool.name)?;
        let lacks_advertisement = declaration.announcement == Announcement::Nowhere;
        declaration.created.as_ref().filter(|_| lacks_advertisement).and_then(ripe_at)
    }
}

/// Takes note of whether something is so of `owner`, and says since when.
fn note_since(
    noted: &mut BTreeMap<Owner, Time>,
    owner: &Owner,
    is_so: bool,
    now: &Time,
) -> Option<Time> {
    if is_so {
        return Some(noted.entry(owner.clone()).or_insert_with(|| now.clone()).clone());
    }
    noted.remove(owner);
    None
}

fn ripe_at(created: &Time) -> Option<Time> {
    created.0.checked_add(TELL_AFTER).ok().map(Time)
}

/// Whether a time for which patience lasts is still to come. One that is further away than patience lasts, twice over, is
/// none: the API server's clock and ours differ, and nobody waits until they agree.
fn is_ahead(end: &Time, now: &Time) -> bool {
    let left = end.0.duration_since(now.0);
    left > SignedDuration::ZERO && left <= TELL_AFTER * 2
}

/// Whether a pool that is applied now, or labels that a namespace, a pool's rules or the Service gets, could be all that is
/// missing.
fn misses_pool(outcome: &Outcome) -> bool {
    let Some(Reason::NoneToGive(refusal, _)) = &outcome.refusal else { return false };
    let is_elsewhere = |why: &Unfitness| matches!(why, Unfitness::Unknown | Unfitness::Outsider(_));
    match refusal {
        Refusal::NoPools => true,
        Refusal::Pools { pools, .. } => {
            pools.is_empty() || pools.iter().any(|it| is_elsewhere(&it.why))
        }
        Refusal::Address { why, .. } => {
            matches!(why, UnfitAddress::NoPool | UnfitAddress::Outsider { .. })
        }
        Refusal::OneAddressForTwo { .. } => false,
    }
}

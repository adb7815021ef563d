//! What is not told at once, since what is missing may be on its way: the pool of a new Service, or the advertisement of
//! a new pool.

use std::net::IpAddr;

use arpeggio_api::terms::Announcement;
use arpeggio_ipam::{Owner, Refusal, UnfitAddress, Unfitness};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};

use super::{
    Index,
    outcome::{Outcome, Reason},
};
use crate::effect::Subject;

/// How long something must be so before anybody is told.
pub(super) const TELL_AFTER: SignedDuration = SignedDuration::from_secs(5);

impl Index {
    /// Whether it is too early to tell a new Service that there is no such pool. It is looked at again when it is not.
    pub(super) fn is_premature(&mut self, owner: &Owner, outcome: &Outcome, now: &Time) -> bool {
        let Some(record) = self.services.get(owner) else { return false };
        let Some(ripe) = record.created.as_ref().and_then(ripe_at) else { return false };
        let is_new = record.conditions.is_empty() && outcome.addresses.is_empty();
        let early = is_new && misses_pool(outcome) && is_ahead(&ripe, now);
        if early {
            self.alarms.insert((ripe, Subject::Service(owner.clone())));
        }
        early
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

fn ripe_at(created: &Time) -> Option<Time> {
    created.0.checked_add(TELL_AFTER).ok().map(Time)
}

/// Whether a time for which patience lasts is still to come. One that is further away than patience lasts, twice over, is
/// none: the API server's clock and ours differ, and nobody waits until they agree.
fn is_ahead(end: &Time, now: &Time) -> bool {
    let left = end.0.duration_since(now.0);
    left > SignedDuration::ZERO && left <= TELL_AFTER * 2
}

/// Whether a pool that is applied now could be all that is missing.
fn misses_pool(outcome: &Outcome) -> bool {
    let Some(Reason::NoneToGive(refusal, _)) = &outcome.refusal else { return false };
    match refusal {
        Refusal::NoPools => true,
        Refusal::Pools { pools, .. } => {
            pools.iter().any(|it| matches!(*it.why, Unfitness::Unknown))
        }
        Refusal::Address { why, .. } => *why == UnfitAddress::NoPool,
        Refusal::OneAddressForTwo { .. } => false,
    }
}

//! Services that exchange their addresses.
//!
//! Each asks by name for the address that another one has, and keeps its own until it gets it, so that they would wait for each
//! other for ever. One of them has to let go first, for a moment in which it has none. Nobody else may get an address of
//! theirs meanwhile, and no address may have two owners:
//!
//! 1. Each address of the ring is promised to the one who is to get it: the lock says so. None is given up before all are.
//! 2. The first one of the ring, by name, gives up its address in its status, as it would with any that it leaves.
//! 3. It takes itself off the lock, and puts the one on it whom the address is promised to, in one write: the address is free
//!    at no time. That one claims it, has it written in its status, and passes its own on, and so on to the first one.
//!
//! Only Services do so that have one address, ask for one, and share none. An address that would rest when it is given
//! back, or at which a stranger answers, is not passed on: those who have it wait as before.

use std::{collections::BTreeSet, net::IpAddr};

use arpeggio_api::{
    lock::Amendment,
    service::{ADDRESS_ALLOCATED, ServiceRecord},
};
use arpeggio_ipam::{Families, Grace, Owner, Refusal, Request, UnfitAddress};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Index, known_lock::KnownLock};

/// No longer ring is looked for.
const LONGEST: usize = 32;

/// What a Service of a ring does next, if anything.
#[derive(Debug, PartialEq)]
pub(super) enum Exchange {
    /// It has the lock of its address say whom that is promised to.
    Promise(IpAddr, Owner),
    /// It waits for these: who have not promised theirs, or else for the first one.
    Wait(Vec<Owner>),
    /// It waits for one whose status or lock could not be written: until that is tried again, if that is known.
    WaitUntil(Option<Time>),
    /// It gives its address up.
    GiveUp,
}

/// A Service that would leave its address for another one, which somebody else has.
struct Wish {
    has: IpAddr,
    /// Who has the other one.
    of: Owner,
}

impl Index {
    /// What `owner` does, if it is in a ring.
    pub(super) fn exchange(&self, owner: &Owner) -> Option<Exchange> {
        let ring = self.ring(owner)?;
        // Who asks for the address of the first one is the last one.
        let heirs = ring.iter().map(|(owner, _)| owner).cycle().skip(ring.len() - 1);
        let lacking: Vec<&(Owner, Wish)> = ring
            .iter()
            .zip(heirs)
            .filter(|((_, wish), heir)| !self.is_promised(wish.has, heir))
            .map(|(member, _)| member)
            .collect();
        let (heir, _) = ring.last()?;
        if let Some((_, own)) = lacking.iter().find(|(it, _)| it == owner) {
            return Some(Exchange::Promise(own.has, heir.clone()));
        }
        let first = ring.iter().map(|(it, _)| it).min()?;
        Some(match lacking.as_slice() {
            // Who cannot be told of a new address would leave the first one without any.
            [] if !ring.iter().all(|(it, _)| self.can_be_told(it, owner)) => {
                let ends = ring.iter().filter_map(|(it, _)| self.hindered_until(it));
                Exchange::WaitUntil(ends.max())
            }
            [] if first == owner => Exchange::GiveUp,
            [] => Exchange::Wait(vec![first.clone()]),
            lacking => Exchange::Wait(lacking.iter().map(|(it, _)| it.clone()).collect()),
        })
    }

    /// Whether the status of a Service can be written, as far as is known: it says that the Service waits, and nothing that
    /// was to be done for it since is undone.
    fn can_be_told(&self, member: &Owner, owner: &Owner) -> bool {
        let record = self.services.get(member);
        let condition = record.and_then(|record| record.condition(ADDRESS_ALLOCATED));
        condition.is_some_and(|it| it.status == "False")
            && (member == owner || !self.is_busy(member))
            && self.hindered_until(member).is_none()
    }

    fn is_promised(&self, address: IpAddr, heir: &Owner) -> bool {
        let lock = self.locks.get(&address);
        lock.is_some_and(|lock| lock.promised_to.as_ref() == Some(heir))
    }

    /// Has all looked at who are in a ring with `owner`, of which one more has promised its address.
    pub(super) fn look_at_ring(&mut self, owner: &Owner) {
        let ring = self.ring(owner).unwrap_or_default();
        self.dirty.extend(ring.into_iter().map(|(owner, _)| owner));
    }

    /// Those who wait for each other, from `owner` on: each wants what the next one has.
    fn ring(&self, owner: &Owner) -> Option<Vec<(Owner, Wish)>> {
        let mut ring: Vec<(Owner, Wish)> = Vec::new();
        let mut next = owner.clone();
        while ring.len() < LONGEST && ring.iter().all(|(known, _)| *known != next) {
            let wish = self.wish(&next)?;
            let of = wish.of.clone();
            ring.push((next, wish));
            if of == *owner {
                return Some(ring);
            }
            next = of;
        }
        None
    }

    /// What `owner` would leave its address for, if nothing but its owner is in the way.
    fn wish(&self, owner: &Owner) -> Option<Wish> {
        let record = self.services.get(owner)?;
        let (request, wants) = self.only_wish(record)?;
        let ingress = &record.ingress;
        let ours = ingress.is_ours() && !ingress.has_others;
        let &[has] = ingress.addresses.as_slice() else { return None };
        if !ours || self.locked_by(owner) != [has] || !self.may_be_passed_on(has) {
            return None;
        }
        if self.locks.get(&has)?.services != [record.service.clone()] {
            return None;
        }
        let plan = self.allocator.plan(owner, &request, &[self.held(has)], Grace::Lasts);
        let held = |refusal: &Refusal| matches!(refusal, Refusal::Address { address, why: UnfitAddress::Held(_) } if *address == wants);
        if plan.keep != [has] || !plan.refusal.as_ref().is_some_and(held) {
            return None;
        }
        let mut holders = self.allocator.holders(wants);
        let of = holders.next()?.clone();
        holders.next().is_none().then_some(Wish { has, of })
    }

    /// The only address that a Service will do with, for itself alone.
    fn only_wish(&self, record: &ServiceRecord) -> Option<(Request, IpAddr)> {
        let ends = record.deleting_since.is_some()
            || self.ending_namespaces.contains(&record.service.namespace);
        let request = record.request.as_ref()?.as_ref().ok().filter(|_| !ends)?;
        let request = self.complete(request)?;
        let is_one = matches!(request.families, Families::One(_)) && request.sharing.is_none();
        let &[wants] = request.addresses.as_slice() else { return None };
        is_one.then_some((request, wants))
    }

    /// Whether an address may go from one Service to another one at once.
    fn may_be_passed_on(&self, address: IpAddr) -> bool {
        let is_plain = |lock: &KnownLock| {
            !lock.is_newer
                && !lock.is_damaged
                && lock.reservation.is_none()
                && lock.stranger_mac.is_none()
        };
        let pool = self.allocator.pool_of(address);
        self.locks.get(&address).is_some_and(is_plain)
            && pool.is_some_and(|pool| pool.cool_down.is_zero())
    }

    /// How the lock of `address`, which those `leaving` it leave, goes to the one whom it is promised to, if that one still
    /// wants it.
    pub(super) fn passed_on(
        &self,
        leaving: &BTreeSet<Owner>,
        address: IpAddr,
        now: &Time,
    ) -> Option<Amendment> {
        let lock = self.locks.get(&address)?;
        let [owner] = lock.owners.as_slice() else { return None };
        let heir = lock.promised_to.as_ref().filter(|heir| *heir != owner)?;
        let record = self.services.get(heir)?;
        let (_, wants) = self.only_wish(record)?;
        let leaves = self.is_served(owner) && leaving.contains(owner);
        let is_free = self.may_be_passed_on(address) && self.rest_of(address, now).is_none();
        let may = wants == address && leaves && is_free;
        may.then(|| lock.unchanged(address, vec![record.service.clone()]))
    }
}

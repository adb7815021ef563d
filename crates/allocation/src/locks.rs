//! Locks: who has claimed which address.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
    time::Duration,
};

use arpeggio_api::lock::{self, ServiceRef};
use arpeggio_ipam::{Clash, Family, Held, Owner, PoolName, Reservation, SharingTerms};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ObjectMeta;

use super::{
    Index, Watched,
    known_lock::{KnownLock, address, foreign_owner, known, without_label},
    setbacks::later,
    version, version_in,
};
use crate::effect::Subject;

/// For how long nobody gets an address whose lock's name a Lease of somebody else has, before it is tried once more.
const FOREIGN_LEASE: Duration = Duration::from_mins(1);

impl Watched<Lease> for Index {
    fn apply(&mut self, lease: Lease) {
        self.locks_seen = self.locks_seen.max(version(&lease));
        if let Some((address, lock)) = known(&lease) {
            self.lock_applied(address, lock);
        }
    }

    fn gone(&mut self, lease: &ObjectMeta) {
        self.locks_seen = self.locks_seen.max(version_in(lease));
        if let Some(address) = lease.name.as_deref().and_then(lock::address_of) {
            self.lock_gone(address);
        }
    }

    fn reset(&mut self, leases: Vec<Lease>) {
        let present: BTreeSet<IpAddr> = leases.iter().filter_map(address).collect();
        let gone: Vec<IpAddr> =
            self.locks.keys().filter(|it| !present.contains(it)).copied().collect();
        for address in gone {
            self.lock_gone(address);
        }
        for lease in leases {
            self.apply(lease);
        }
        self.listed.locks = true;
    }
}

impl Index {
    /// A lock that a claim made or found, which the watch may not have shown yet.
    pub(super) fn lock_found(&mut self, lease: &Lease, claimed: Option<IpAddr>) {
        match known(lease) {
            // The watch is past this point and does not know it: it has been deleted since.
            Some((address, lock))
                if lock.version <= self.locks_seen && !self.locks.contains_key(&address) => {}
            Some((address, lock)) => self.lock_applied(address, lock),
            None => match without_label(lease) {
                Some((address, lock)) => self.lock_applied(address, lock),
                None => self.name_is_taken(claimed),
            },
        }
    }

    /// Somebody else's Lease has the name of a lock. Its address is nobody's for a while.
    fn name_is_taken(&mut self, claimed: Option<IpAddr>) {
        let Some(address) = claimed else { return };
        tracing::warn!(
            lease = lock::name(address),
            "a Lease that is not ours has the name of a lock: delete it"
        );
        self.hold(&[foreign_owner(address)], address);
        if let Some(now) = &self.now {
            self.alarms.insert((later(now, FOREIGN_LEASE), Subject::Lock(address)));
        }
    }

    /// Somebody else's Lease may be gone by now: who wants its address tries once more.
    pub(super) fn try_foreign(&mut self, address: IpAddr) {
        if self.allocator.release(&foreign_owner(address), address) {
            self.address_freed();
        }
    }

    fn lock_applied(&mut self, address: IpAddr, lock: KnownLock) {
        if self.locks.get(&address).is_some_and(|known| known.version > lock.version) {
            return;
        }
        self.suspects.insert(address);
        let mut concerned = lock.owners.clone();
        let before = self.forget(address);
        let lock = lock.following(before.as_ref());
        let unmet = self.unmet(&lock, before.as_ref());
        let promise_before = before.as_ref().and_then(|before| before.promised_to.clone());
        let is_promised = lock.promised_to.is_some() && lock.promised_to != promise_before;
        let was_asked = before.as_ref().and_then(KnownLock::asked).is_some();
        self.strangers_dirty |= !was_asked && lock.asked().is_some();
        let owners = lock.owners.clone();
        concerned.extend(before.into_iter().flat_map(|before| before.owners));
        self.remember(address, self.with_stranger_named(KnownLock { unmet, ..lock }));
        concerned.iter().for_each(|owner| self.touch(owner));
        if is_promised {
            owners.first().into_iter().for_each(|owner| self.look_at_ring(owner));
        }
    }

    /// Who is on `lock`, which was as `before`, without ever having been seen.
    fn unmet(&self, lock: &KnownLock, before: Option<&KnownLock>) -> Vec<Owner> {
        let was_met = |owner: &Owner| {
            before.is_some_and(|it| it.owners.contains(owner) && !it.unmet.contains(owner))
        };
        let is_met = |owner: &Owner| self.services.contains_key(owner) || was_met(owner);
        lock.owners.iter().filter(|owner| !is_met(owner)).cloned().collect()
    }

    /// Takes note that the Service of `owner` has been seen.
    pub(super) fn meet(&mut self, owner: &Owner) {
        for address in self.locked_by(owner) {
            if let Some(lock) = self.locks.get_mut(&address) {
                lock.unmet.retain(|it| it != owner);
            }
        }
    }

    fn remember(&mut self, address: IpAddr, mut lock: KnownLock) {
        if let Some(former) = &lock.former {
            self.formers.entry(former.clone()).or_default().insert(address);
        }
        if let Some(successor) = self.successor(&lock) {
            (lock.owners, lock.reservation) = (vec![successor], None);
        }
        if let Some(reason) = &lock.reservation {
            self.allocator.reserve(address, reason.clone());
        }
        if lock.stranger().is_some() {
            self.quarantined.insert(address);
        }
        self.allocator.set_asked(address, lock.asked());
        let (owners, is_damaged) = (lock.owners.clone(), lock.is_damaged);
        for owner in &owners {
            self.locked.entry(owner.clone()).or_default().insert(address);
        }
        self.locks.insert(address, lock);
        if is_damaged {
            self.recall_sharers(&owners, address);
        } else {
            self.hold(&owners, address);
        }
    }

    /// The Service that may have a resting address at once: one with the name of the Service that was deleted while it
    /// had it.
    fn successor(&self, lock: &KnownLock) -> Option<Owner> {
        let former = lock.former.as_ref().filter(|_| lock.services.is_empty())?;
        let rests = matches!(lock.reservation, Some(Reservation::CoolingDown(_)));
        (rests && self.is_served(former)).then(|| former.clone())
    }

    /// Looks again at resting addresses that `owner` may have before others, since it has come or gone.
    pub(super) fn heirlooms_of(&mut self, owner: &Owner) {
        for address in self.formers.get(owner).cloned().unwrap_or_default() {
            self.look_anew(address, |_, lock| {
                let (owners, reservation) = (Vec::new(), lock.resting());
                KnownLock { owners, reservation, ..lock }
            });
        }
    }

    /// Has a lock count as something else than before, and looked at again with all who are on it.
    pub(super) fn look_anew(
        &mut self,
        address: IpAddr,
        change: impl FnOnce(&Self, KnownLock) -> KnownLock,
    ) {
        let Some(lock) = self.forget(address) else { return };
        let lock = change(self, lock);
        let owners = lock.owners.clone();
        self.remember(address, lock);
        self.suspects.insert(address);
        owners.iter().for_each(|owner| self.touch(owner));
    }

    /// Forgets the lock of `address`.
    fn forget(&mut self, address: IpAddr) -> Option<KnownLock> {
        let lock = self.locks.remove(&address)?;
        if let Some(former) = &lock.former
            && let Entry::Occupied(mut addresses) = self.formers.entry(former.clone())
        {
            addresses.get_mut().remove(&address);
            if addresses.get().is_empty() {
                addresses.remove();
            }
        }
        for owner in &lock.owners {
            if let Entry::Occupied(mut locked) = self.locked.entry(owner.clone()) {
                locked.get_mut().remove(&address);
                if locked.get().is_empty() {
                    locked.remove();
                }
            }
        }
        self.allocator.set_asked(address, None);
        if let Some(reason) = &lock.reservation {
            self.allocator.unreserve(address, reason);
            self.quarantined.remove(&address);
            self.address_freed();
        }
        Some(lock)
    }

    /// A lock counts more than what anybody else may think to hold.
    fn hold(&mut self, owners: &[Owner], address: IpAddr) {
        let strangers = self.allocator.holders(address).filter(|it| !owners.contains(it));
        for displaced in strangers.cloned().collect::<Vec<_>>() {
            self.allocator.release(&displaced, address);
            self.touch(&displaced);
            // Their ports are free.
            self.wake_waiting();
        }
        self.recall_sharers(owners, address);
    }

    /// Brings the terms of all who are on a lock up to date, whatever they were before. Earlier sharers win, but for those
    /// who have changed. Who only inherits the place of a Service that is gone comes last.
    fn recall_sharers(&mut self, owners: &[Owner], address: IpAddr) {
        let inherits = |owner: &&Owner| {
            let record = self.services.get(*owner);
            record.is_some_and(|it| !self.names(&it.service, address))
        };
        let (heirs, others): (Vec<&Owner>, Vec<&Owner>) = owners.iter().partition(inherits);
        let in_order: Vec<(Owner, SharingTerms)> = others
            .into_iter()
            .chain(heirs)
            .map(|owner| (owner.clone(), self.terms(owner)))
            .collect();
        let shared = in_order.iter().any(|(_, terms)| matches!(terms, SharingTerms::Shared(_)));
        let before = self.parting(owners, address);
        let changed = self.allocator.recall_all(address, in_order);
        self.address_changed(changed, shared);
        let after = self.parting(owners, address);
        self.dirty.extend(before.symmetric_difference(&after).cloned());
    }

    /// Those of these who clash with somebody who has been at `address` before them.
    fn parting(&self, owners: &[Owner], address: IpAddr) -> BTreeSet<Owner> {
        let parts = |owner: &&Owner| self.allocator.parting(owner, address).is_some();
        owners.iter().filter(parts).cloned().collect()
    }

    /// As far as is known, on which terms `owner` holds addresses.
    pub(super) fn terms(&self, owner: &Owner) -> SharingTerms {
        match self.services.get(owner).filter(|record| record.request.is_some()) {
            Some(record) => record.sharing.clone().into(),
            None => SharingTerms::Unknown,
        }
    }

    /// Holds `address` on the present terms of `owner` and of all others who are on its lock.
    pub(super) fn renew_terms(&mut self, owner: &Owner, address: IpAddr) {
        let on_lock = self.locks.get(&address).map(|lock| lock.owners.clone());
        if let Some(owners) = on_lock.filter(|owners| owners.contains(owner)) {
            self.recall_sharers(&owners, address);
        } else {
            // Refused where it clashes with those of somebody else, which the decision will see.
            let _ = self.keep(owner, address);
        }
    }

    /// Holds `address`, which is new to `owner`, on its present terms.
    pub(super) fn take(&mut self, owner: &Owner, address: IpAddr) -> Result<(), Clash> {
        let terms = self.terms(owner);
        let shared = matches!(terms, SharingTerms::Shared(_));
        let changed = self.allocator.claim(owner, address, terms)?;
        self.address_changed(changed, shared);
        Ok(())
    }

    /// Holds `address`, which the status of `owner` lists, on its present terms.
    fn keep(&mut self, owner: &Owner, address: IpAddr) -> Result<(), Clash> {
        let terms = self.terms(owner);
        let shared = matches!(terms, SharingTerms::Shared(_));
        let changed = self.allocator.keep(owner, address, terms)?;
        self.address_changed(changed, shared);
        Ok(())
    }

    /// Where an address is shared from now on, somebody may join who waits.
    fn address_changed(&mut self, changed: bool, shared: bool) {
        self.pools_dirty |= changed;
        if changed && shared {
            self.wake_waiting();
        }
    }

    /// The address is free, unless the Services that have it in their status claim it again.
    fn lock_gone(&mut self, address: IpAddr) {
        self.suspects.remove(&address);
        self.orphaned.remove(&address);
        self.forget_setbacks(&Subject::Lock(address));
        if let Some(lock) = self.forget(address) {
            lock.owners.iter().for_each(|owner| self.touch(owner));
        }
    }

    /// The lock of this version is gone. A later one of the same name is not concerned.
    pub(super) fn lock_deleted(&mut self, address: IpAddr, version: u64) {
        if self.locks.get(&address).is_some_and(|lock| lock.version <= version) {
            self.lock_gone(address);
        }
    }

    /// Whether the lock of `address` names this very Service, and not only one of the same name.
    pub(super) fn names(&self, service: &ServiceRef, address: IpAddr) -> bool {
        self.locks.get(&address).is_some_and(|lock| lock.services.contains(service))
    }

    /// Whether `owner` has a lock for `address`.
    pub(super) fn has_lock(&self, owner: &Owner, address: IpAddr) -> bool {
        self.locks.get(&address).is_some_and(|lock| lock.owners.contains(owner))
    }

    /// Whether the lock of `address` was written for the Service with this uid when it had this `version`.
    pub(super) fn is_claimed_for(&self, uid: &str, version: u64, address: IpAddr) -> bool {
        let claimed_for = self.locks.get(&address).and_then(|lock| lock.claimed_for.as_ref());
        claimed_for.is_some_and(|it| it.uid == uid && it.version == version)
    }

    /// The addresses whose locks name `owner`, in ascending order, whether or not it has a right to them.
    pub(super) fn locked_by(&self, owner: &Owner) -> Vec<IpAddr> {
        self.locked.get(owner).into_iter().flatten().copied().collect()
    }

    /// `address` as the allocator judges it: with the pool that it came from.
    pub(super) fn held(&self, address: IpAddr) -> Held {
        let origin = self.locks.get(&address).and_then(|lock| lock.pool.clone());
        Held { address, origin }
    }

    /// The MAC address of the stranger who answers at `address` instead of us.
    pub(super) fn stranger_at(&self, address: IpAddr) -> Option<&str> {
        self.locks.get(&address)?.stranger()
    }

    /// The addresses at which strangers answer, counted by pool and family.
    pub fn quarantined(&self) -> BTreeMap<(&PoolName, Family), u64> {
        let mut counts = BTreeMap::new();
        for address in &self.quarantined {
            if let Some(pool) = self.allocator.pool_of(*address) {
                *counts.entry((&pool.name, Family::of(*address))).or_default() += 1;
            }
        }
        counts
    }
}

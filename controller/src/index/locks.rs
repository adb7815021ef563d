//! Locks: who has claimed which address.

use std::{
    collections::{BTreeSet, btree_map::Entry},
    net::IpAddr,
};

use arpeggio_api::{
    lease::Kind,
    lock::{self, Amendment, ClaimedFor, LockRecord, ServiceRef},
    terms::WrittenTerms,
};
use arpeggio_election::Version;
use arpeggio_ipam::{Clash, Held, Owner, PoolName, Reservation, Terms};
use k8s_openapi::{
    api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration,
};
use kube::ResourceExt as _;

use super::{Index, Watched, version};
use crate::effect::{Change, Effect, Release, Subject, Task};

/// A lock, as far as the controller is concerned.
#[derive(Debug)]
pub(super) struct KnownLock {
    /// Who has it, in the order in which they came. Of a damaged Lease, somebody who does not exist: nobody gets the
    /// address before somebody repairs or deletes it.
    pub(super) owners: Vec<Owner>,
    pub(super) services: Vec<ServiceRef>,
    pub(super) pool: Option<PoolName>,
    terms: WrittenTerms,
    claimed_for: Option<ClaimedFor>,
    resting_until: Option<Time>,
    lease_uid: String,
    pub(super) version: u64,
}

/// Whom a Service is to the allocator.
pub(super) fn owner_of(service: &ServiceRef) -> Owner {
    Owner::named(&service.uid, &format!("{}/{}", service.namespace, service.name))
}

impl KnownLock {
    fn parse(lease: &Lease) -> Self {
        lock::parse(lease).map_or_else(
            |error| {
                tracing::warn!(%error, "nobody gets the address of a damaged lock");
                Self::damaged(lease)
            },
            |record| Self::understood(lease, record),
        )
    }

    fn understood(lease: &Lease, record: LockRecord) -> Self {
        let pool = Some(record.claim.pool).filter(|pool| !pool.is_empty());
        Self {
            owners: record.claim.services.iter().map(owner_of).collect(),
            services: record.claim.services,
            pool: pool.map(PoolName::from),
            terms: record.claim.terms,
            claimed_for: record.claimed_for,
            resting_until: record.resting_until,
            lease_uid: lease.uid().unwrap_or_default(),
            version: record.lock.version.0,
        }
    }

    fn damaged(lease: &Lease) -> Self {
        let lease_uid = lease.uid().unwrap_or_default();
        Self {
            owners: vec![Owner::from(format!("damaged Lease {lease_uid}"))],
            services: Vec::new(),
            pool: None,
            terms: WrittenTerms::default(),
            claimed_for: None,
            resting_until: None,
            lease_uid,
            version: version(lease),
        }
    }

    /// The lock with `service` on it, claimed for it.
    pub(super) fn joined(&self, address: IpAddr, service: ServiceRef, seen: u64) -> Amendment {
        let claimed_for = ClaimedFor { uid: service.uid.clone(), version: seen };
        let mut services = self.services.clone();
        if !services.contains(&service) {
            services.push(service);
        }
        Amendment { claimed_for: Some(claimed_for), ..self.unchanged(address, services) }
    }

    /// How the lock changes when `owner` leaves. The last one deletes it, unless the address rests until some time.
    fn left(&self, address: IpAddr, owner: &Owner, resting_until: Option<Time>) -> Change {
        let stays = |service: &&ServiceRef| service.uid != owner.as_str();
        let services: Vec<ServiceRef> = self.services.iter().filter(stays).cloned().collect();
        if !services.is_empty() {
            return Change::Amend(self.unchanged(address, services));
        }
        match resting_until {
            None => self.deleted(),
            until => Change::Amend(Amendment {
                resting_until: until,
                ..self.unchanged(address, services)
            }),
        }
    }

    fn deleted(&self) -> Change {
        Change::Delete { lease_uid: self.lease_uid.clone(), version: self.version }
    }

    fn unchanged(&self, address: IpAddr, services: Vec<ServiceRef>) -> Amendment {
        let expected = Version(self.version);
        let terms = self.terms.clone();
        Amendment { address, expected, services, terms, claimed_for: None, resting_until: None }
    }

    fn reservation(&self) -> Option<Reservation> {
        self.resting_until.as_ref().map(|until| Reservation::CoolingDown(until.0.to_string()))
    }
}

/// The address whose lock this is by its name, whatever else is wrong with it.
fn address(lease: &Lease) -> Option<IpAddr> {
    (Kind::of(lease) == Some(Kind::Lock)).then(|| lock::address_of(&lease.name_any())).flatten()
}

impl Watched<Lease> for Index {
    fn apply(&mut self, lease: Lease) {
        self.locks_seen = self.locks_seen.max(version(&lease));
        if let Some(address) = address(&lease) {
            self.lock_applied(address, KnownLock::parse(&lease));
        }
    }

    fn delete(&mut self, lease: Lease) {
        self.locks_seen = self.locks_seen.max(version(&lease));
        if let Some(address) = address(&lease) {
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
        let known = KnownLock::parse(lease);
        match address(lease) {
            // The watch is past this point and does not know it: it has been deleted since.
            Some(address)
                if known.version <= self.locks_seen && !self.locks.contains_key(&address) => {}
            Some(address) => self.lock_applied(address, known),
            None => self.name_is_taken(lease, claimed),
        }
    }

    /// Somebody else's Lease has the name of a lock. Its address is nobody's as long as this process lives.
    fn name_is_taken(&mut self, lease: &Lease, claimed: Option<IpAddr>) {
        let name = lease.metadata.name.as_deref().unwrap_or_default();
        tracing::warn!(lease = name, "a Lease that is not ours has a lock's name: delete it");
        if let Some(address) = claimed {
            self.hold(&[Owner::from(format!("foreign Lease {name}"))], address);
        }
    }

    fn lock_applied(&mut self, address: IpAddr, lock: KnownLock) {
        if self.locks.get(&address).is_some_and(|known| known.version > lock.version) {
            return;
        }
        self.suspects.insert(address);
        self.dirty.extend(lock.owners.iter().cloned());
        if let Some(before) = self.forget(address) {
            self.dirty.extend(before.owners);
        }
        if let Some(reason) = lock.reservation() {
            self.allocator.reserve(address, reason);
        }
        let owners = lock.owners.clone();
        for owner in &owners {
            self.locked.entry(owner.clone()).or_default().insert(address);
        }
        self.locks.insert(address, lock);
        self.hold(&owners, address);
    }

    /// Forgets the lock of `address`.
    fn forget(&mut self, address: IpAddr) -> Option<KnownLock> {
        let lock = self.locks.remove(&address)?;
        for owner in &lock.owners {
            if let Entry::Occupied(mut locked) = self.locked.entry(owner.clone()) {
                locked.get_mut().remove(&address);
                if locked.get().is_empty() {
                    locked.remove();
                }
            }
        }
        if let Some(reason) = lock.reservation() {
            self.allocator.unreserve(address, &reason);
            self.wake_waiting();
        }
        Some(lock)
    }

    /// A lock counts more than what anybody else may think to hold.
    fn hold(&mut self, owners: &[Owner], address: IpAddr) {
        let strangers = self.allocator.holders(address).filter(|it| !owners.contains(it));
        for displaced in strangers.cloned().collect::<Vec<_>>() {
            self.allocator.release(&displaced, address);
            self.dirty.insert(displaced);
            // Their ports are free.
            self.wake_waiting();
        }
        self.recall_sharers(owners, address);
    }

    /// Brings the terms of all who are on a lock up to date. Whoever came first has the better right, and who does not
    /// go together with them does not hold the address.
    fn recall_sharers(&mut self, owners: &[Owner], address: IpAddr) {
        for owner in owners {
            let terms = self.terms(owner);
            let shared = matches!(terms, Terms::Shared(_));
            let changed = self.allocator.recall(owner, address, terms);
            self.address_changed(changed.unwrap_or_default(), shared);
        }
    }

    /// As far as is known, on which terms `owner` holds addresses.
    pub(super) fn terms(&self, owner: &Owner) -> Terms {
        let request = self.services.get(owner).and_then(|record| record.request.as_ref());
        match request {
            Some(Ok(request)) => request.sharing.clone().into(),
            _ => Terms::Unknown,
        }
    }

    /// Holds `address` on the present terms of `owner` and of all others who are on its lock.
    pub(super) fn renew_terms(&mut self, owner: &Owner, address: IpAddr) {
        let on_lock = self.locks.get(&address).map(|lock| lock.owners.clone());
        if let Some(owners) = on_lock.filter(|owners| owners.contains(owner)) {
            self.recall_sharers(&owners, address);
        } else {
            // Refused where it clashes with those of somebody else, which the decision will see.
            let _ = self.take(owner, address);
        }
    }

    /// Holds `address` on the present terms of `owner`.
    pub(super) fn take(&mut self, owner: &Owner, address: IpAddr) -> Result<(), Clash> {
        let terms = self.terms(owner);
        let shared = matches!(terms, Terms::Shared(_));
        let changed = self.allocator.claim(owner, address, terms)?;
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
        if let Some(lock) = self.forget(address) {
            self.dirty.extend(lock.owners);
        }
    }

    /// The lock of this version is gone. A later one of the same name is not concerned.
    pub(super) fn lock_deleted(&mut self, address: IpAddr, version: u64) {
        if self.locks.get(&address).is_some_and(|lock| lock.version <= version) {
            self.lock_gone(address);
        }
    }

    /// Whether `owner` has a lock for `address`.
    pub(super) fn has_lock(&self, owner: &Owner, address: IpAddr) -> bool {
        self.locks.get(&address).is_some_and(|lock| lock.owners.contains(owner))
    }

    /// Whether the lock of `address` was written for `owner` when its Service had this `version`.
    pub(super) fn is_claimed_for(&self, owner: &Owner, version: u64, address: IpAddr) -> bool {
        let claimed_for = self.locks.get(&address).and_then(|lock| lock.claimed_for.as_ref());
        claimed_for.is_some_and(|it| it.uid == owner.as_str() && it.version == version)
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

    /// Releases locks whose Service is not known, and those that have rested long enough. That a Service does not exist
    /// is not certain, since the watch of Services may be behind that of locks: whoever performs the release asks once
    /// more.
    pub(super) fn release_orphans(&mut self, now: &Time) -> Vec<Task> {
        let suspects = std::mem::take(&mut self.suspects);
        let mut tasks = Vec::new();
        for address in suspects {
            if self.busy.contains(&Subject::Lock(address)) {
                self.suspects.insert(address);
            } else {
                tasks.extend(self.release_orphan(address, now));
            }
        }
        tasks
    }

    fn release_orphan(&mut self, address: IpAddr, now: &Time) -> Option<Task> {
        let lock = self.locks.get(&address)?;
        if let Some(until) = lock.resting_until.clone() {
            return self.end_rest(address, &until, now);
        }
        let orphan = lock.owners.iter().find(|owner| !self.services.contains_key(owner))?.clone();
        self.release(&orphan, address, now)
    }

    fn end_rest(&mut self, address: IpAddr, until: &Time, now: &Time) -> Option<Task> {
        if now < until {
            self.alarms.insert((until.clone(), Subject::Lock(address)));
            return None;
        }
        let change = self.locks.get(&address)?.deleted();
        let release = Release { address, service: None, change };
        self.task(Subject::Lock(address), Effect::Release(release))
    }

    /// The task to take `owner` off the lock of `address`, if it is on one that may be changed.
    pub(super) fn release(&mut self, owner: &Owner, address: IpAddr, now: &Time) -> Option<Task> {
        let rest = self.rest_of(address, now);
        let lock = self.locks.get(&address)?;
        let service = lock.services.iter().find(|it| it.uid == owner.as_str())?.clone();
        let change = lock.left(address, owner, rest);
        let release = Release { address, service: Some(service), change };
        self.task(Subject::Lock(address), Effect::Release(release))
    }

    /// Until when the address is given to nobody, were it given back now.
    fn rest_of(&self, address: IpAddr, now: &Time) -> Option<Time> {
        let cool_down = self.allocator.pool_of(address)?.cool_down;
        let rest = SignedDuration::try_from(cool_down).ok().filter(|it| !it.is_zero())?;
        now.0.checked_add(rest).ok().map(Time)
    }
}

//! Locks: who has claimed which address.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
    time::Duration,
};

use arpeggio_api::{
    lease::Kind,
    lock::{self, Amendment, ClaimedFor, Expiry, LockRecord, ServiceRef},
    terms::WrittenAnnounceTerms,
};
use arpeggio_election::{Node, Version};
use arpeggio_ipam::{Clash, Family, Held, Owner, PoolName, Reservation, SharingTerms};
use k8s_openapi::{
    api::coordination::v1::Lease,
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};
use kube::ResourceExt as _;

use super::{Index, Watched, setbacks::later, version};
use crate::effect::{Change, Effect, Release, Subject, Task};

/// For how long nobody gets an address whose lock's name a Lease of somebody else has, before it is tried once more.
const FOREIGN_LEASE: Duration = Duration::from_mins(1);

/// A lock, as far as the controller is concerned.
#[derive(Debug)]
pub(super) struct KnownLock {
    /// Who has it, in the order in which they came.
    pub(super) owners: Vec<Owner>,
    pub(super) services: Vec<ServiceRef>,
    /// The Service that was deleted while it had the address, which rests since.
    former: Option<Owner>,
    expiring: Vec<Expiry>,
    /// Something of it was not understood: others may have it, too, who are not on it any more.
    is_damaged: bool,
    /// It is of a format that only a newer release understands.
    pub(super) is_newer: bool,
    pub(super) pool: Option<PoolName>,
    pub(super) terms: WrittenAnnounceTerms,
    /// The node that announces the address.
    pub(super) holder: Option<Node>,
    /// It does not at present, since no node has a backend.
    pub(super) is_backless: bool,
    /// Since when it does.
    pub(super) since: Option<MicroTime>,
    claimed_for: Option<ClaimedFor>,
    resting_until: Option<Time>,
    /// Why the address is given to nobody for now.
    pub(super) reservation: Option<Reservation>,
    lease_uid: String,
    pub(super) version: u64,
}

/// Whom a Service is to the allocator: its namespace and name. A Service that is created again is the same owner, and so
/// inherits what its predecessor had; which of the two a lock was written for, its uid tells.
pub(super) fn owner_of(service: &ServiceRef) -> Owner {
    Owner::from(service.path())
}

impl KnownLock {
    fn of(record: LockRecord) -> Self {
        if let Some(damage) = &record.damage {
            tracing::warn!(%damage, "a lock is written anew");
        }
        if let Some(format) = &record.newer {
            let address = record.lock.address;
            tracing::warn!(%address, format, "a newer release wrote the lock: it is left alone");
        }
        let reservation = record.reservation();
        let pool = Some(record.claim.pool).filter(|pool| !pool.is_empty());
        Self {
            owners: record.claim.services.iter().map(owner_of).collect(),
            expiring: record.expiring,
            former: record.last_service.map(Owner::from),
            services: record.claim.services,
            is_damaged: record.damage.is_some() || record.newer.is_some(),
            is_newer: record.newer.is_some(),
            pool: pool.map(PoolName::from),
            terms: record.claim.terms,
            is_backless: record.lock.unannounced,
            holder: record.lock.holder.map(|holder| holder.node),
            since: record.since,
            claimed_for: record.claimed_for,
            resting_until: record.resting_until,
            reservation,
            lease_uid: record.uid,
            version: record.lock.version.0,
        }
    }

    /// The lock with `service` on it, claimed for it.
    pub(super) fn joined(&self, address: IpAddr, service: ServiceRef, seen: u64) -> Amendment {
        let claimed_for = ClaimedFor { uid: service.uid.clone(), version: seen };
        let mut services = self.services.clone();
        match services.iter_mut().find(|it| it.path() == service.path()) {
            Some(predecessor) => *predecessor = service,
            None => services.push(service),
        }
        Amendment { claimed_for: Some(claimed_for), ..self.unchanged(address, services) }
    }

    /// How the lock changes when `owner` leaves. The last one deletes it, unless the address rests until some time.
    fn left(&self, address: IpAddr, owner: &Owner, resting_until: Option<Time>) -> Change {
        let stays = |service: &&ServiceRef| owner_of(service) != *owner;
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

    pub(super) fn unchanged(&self, address: IpAddr, services: Vec<ServiceRef>) -> Amendment {
        let expected = Version(self.version);
        let terms = self.terms.clone();
        let stays = |expiry: &&Expiry| services.iter().any(|it| it.uid == expiry.uid);
        let expiring = self.expiring.iter().filter(stays).cloned().collect();
        Amendment {
            address,
            expected,
            services,
            terms,
            claimed_for: None,
            resting_until: None,
            last_service: None,
            expiring,
        }
    }

    /// Since when the Service with this uid has the address for a grace period only.
    pub(super) fn expiring_since(&self, uid: &str) -> Option<&Time> {
        self.expiring.iter().find(|it| it.uid == uid).map(|it| &it.since)
    }

    /// The lock, where the grace period of the Service with this uid begins at that time, or is none.
    pub(super) fn marked(&self, address: IpAddr, uid: &str, since: Option<Time>) -> Amendment {
        let mut amendment = self.unchanged(address, self.services.clone());
        amendment.expiring.retain(|it| it.uid != uid);
        amendment.expiring.extend(since.map(|since| Expiry { uid: uid.to_owned(), since }));
        amendment
    }

    /// Why nobody gets the address of a lock without Services.
    fn resting(&self) -> Option<Reservation> {
        let until = || Some(Reservation::CoolingDown(self.resting_until.as_ref()?.0.to_string()));
        self.reservation.clone().or_else(until)
    }

    /// The MAC address of the machine that answers at the address, with the node's name if it is one.
    fn stranger(&self) -> Option<&str> {
        match &self.reservation {
            Some(Reservation::Quarantined(stranger)) => Some(stranger),
            _ => None,
        }
    }
}

/// The address whose lock this is.
fn address(lease: &Lease) -> Option<IpAddr> {
    (Kind::of(lease) == Some(Kind::Lock)).then(|| lock::address_of(&lease.name_any())).flatten()
}

/// The lock, if the Lease is one.
fn known(lease: &Lease) -> Option<(IpAddr, KnownLock)> {
    let address = address(lease)?;
    let record = lock::parse(lease).inspect_err(|error| tracing::warn!(%error, "no lock")).ok()?;
    Some((address, KnownLock::of(record)))
}

/// A lock whose label somebody has removed, or a restored backup has lost. The watch does not show it, and it is written
/// anew like one that is damaged.
fn without_label(lease: &Lease) -> Option<(IpAddr, KnownLock)> {
    let address = lock::address_of(lease.metadata.name.as_deref()?)?;
    let lock = KnownLock::of(lock::parse(lease).ok()?);
    (!lock.services.is_empty()).then_some((address, KnownLock { is_damaged: true, ..lock }))
}

/// Who holds an address whose lock's name a Lease of somebody else has.
fn foreign_owner(address: IpAddr) -> Owner {
    Owner::from(format!("foreign Lease {}", lock::name(address)))
}

impl Watched<Lease> for Index {
    fn apply(&mut self, lease: Lease) {
        self.locks_seen = self.locks_seen.max(version(&lease));
        if let Some((address, lock)) = known(&lease) {
            self.lock_applied(address, lock);
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
    fn try_foreign(&mut self, address: IpAddr) {
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
        concerned.extend(self.forget(address).into_iter().flat_map(|before| before.owners));
        self.remember(address, self.with_stranger_named(lock));
        concerned.iter().for_each(|owner| self.touch(owner));
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
        let exists = self.services.get(former).is_some_and(|record| record.request.is_some());
        (rests && exists).then(|| former.clone())
    }

    /// Looks again at resting addresses that `owner` may have before others, since it has come or gone.
    pub(super) fn heirlooms_of(&mut self, owner: &Owner) {
        for address in self.formers.get(owner).cloned().unwrap_or_default() {
            if let Some(lock) = self.forget(address) {
                let (owners, reservation) = (Vec::new(), lock.resting());
                self.remember(address, KnownLock { owners, reservation, ..lock });
                self.suspects.insert(address);
            }
        }
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

    /// Brings the terms of all who are on a lock up to date. Whoever came first has the better right, and who does not
    /// go together with them does not hold the address.
    fn recall_sharers(&mut self, owners: &[Owner], address: IpAddr) {
        for owner in owners {
            let terms = self.terms(owner);
            let shared = matches!(terms, SharingTerms::Shared(_));
            let changed = self.allocator.recall(owner, address, terms);
            self.address_changed(changed.unwrap_or_default(), shared);
        }
    }

    /// As far as is known, on which terms `owner` holds addresses.
    pub(super) fn terms(&self, owner: &Owner) -> SharingTerms {
        let request = self.services.get(owner).and_then(|record| record.request.as_ref());
        match request {
            Some(Ok(request)) => request.sharing.clone().into(),
            _ => SharingTerms::Unknown,
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

    /// Releases locks whose Service is not known, and those that have rested long enough; brings the terms of others in
    /// line. That a Service does not exist is not certain, since the watch of Services may be behind that of locks:
    /// whoever performs the release asks once more.
    pub(super) fn tend_locks(&mut self, now: &Time) -> Vec<Task> {
        let suspects = std::mem::take(&mut self.suspects);
        let mut tasks = Vec::new();
        for address in suspects {
            if self.busy.contains_key(&Subject::Lock(address)) {
                self.suspects.insert(address);
            } else {
                tasks.extend(self.tend_lock(address, now));
            }
        }
        tasks
    }

    fn tend_lock(&mut self, address: IpAddr, now: &Time) -> Option<Task> {
        let Some(lock) = self.locks.get(&address) else {
            self.try_foreign(address);
            return None;
        };
        if let Some(until) = lock.resting_until.clone() {
            return self.end_rest(address, &until, now);
        }
        let orphan = lock.owners.iter().find(|owner| !self.services.contains_key(owner)).cloned();
        let is_damaged = lock.is_damaged;
        let Some(orphan) = orphan else {
            self.orphaned.remove(&address);
            return if is_damaged { self.mend(address) } else { self.amend_terms(address) };
        };
        if self.awaits_successor(address, now) { None } else { self.release(&orphan, address, now) }
    }

    /// Whether a Service that is gone may be on its way back: `kubectl replace --force` deletes and creates it again.
    fn awaits_successor(&mut self, address: IpAddr, now: &Time) -> bool {
        let end = now.0.checked_add(self.periods.succession).map_or_else(|_| now.clone(), Time);
        let end = self.orphaned.entry(address).or_insert(end).clone();
        if end <= *now {
            return false;
        }
        self.alarms.insert((end, Subject::Lock(address)));
        true
    }

    /// Writes a damaged lock anew, when all who have the address are on it. Who is not joins it first.
    fn mend(&mut self, address: IpAddr) -> Option<Task> {
        let lock = self.locks.get(&address)?;
        if self.allocator.holders(address).any(|it| !lock.owners.contains(it)) {
            return None;
        }
        // Rules that are not understood read like none. The speakers go by the last ones that they have understood, and
        // that is better than to write "nowhere" while no pool says what is right.
        let is_ruled = || self.announce_terms(address, &lock.services).is_some();
        if lock.terms.is_nowhere() && !lock.owners.is_empty() && !is_ruled() {
            return None;
        }
        let effect = if lock.owners.is_empty() {
            Effect::Release(Release { address, service: None, change: lock.deleted() })
        } else {
            Effect::Amend(self.with_terms(lock.unchanged(address, lock.services.clone())))
        };
        self.task(Subject::Lock(address), effect)
    }

    fn end_rest(&mut self, address: IpAddr, until: &Time, now: &Time) -> Option<Task> {
        if self.locks.get(&address).is_some_and(|lock| !lock.owners.is_empty()) {
            // Its heir claims it, or says that it does not want it.
            return None;
        }
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
        let Some(service) = lock.services.iter().find(|it| owner_of(it) == *owner).cloned() else {
            return self.disown(address);
        };
        let gone = !self.services.contains_key(owner);
        let change = match lock.left(address, owner, rest) {
            Change::Amend(amendment) => {
                let last_service = gone.then(|| service.path());
                Change::Amend(self.with_terms(Amendment { last_service, ..amendment }))
            }
            deletion @ Change::Delete { .. } => deletion,
        };
        let release = Release { address, service: Some(service), change };
        self.task(Subject::Lock(address), Effect::Release(release))
    }

    /// The task to let an address rest for everybody, since its heir does not want it.
    fn disown(&mut self, address: IpAddr) -> Option<Task> {
        let lock = self.locks.get(&address).filter(|lock| lock.services.is_empty())?;
        let resting_until = lock.resting_until.clone();
        let amendment = Amendment { resting_until, ..lock.unchanged(address, Vec::new()) };
        let release = Release { address, service: None, change: Change::Amend(amendment) };
        self.task(Subject::Lock(address), Effect::Release(release))
    }

    /// Until when the address is given to nobody, were it given back now: as its pool says, and as long as a stranger may
    /// have it.
    fn rest_of(&self, address: IpAddr, now: &Time) -> Option<Time> {
        let cool_down = self.allocator.pool_of(address).map(|pool| pool.cool_down);
        let quarantine = self.stranger_at(address).map(|_| self.periods.quarantine);
        let rest = cool_down.max(quarantine).filter(|rest| !rest.is_zero())?;
        now.0.checked_add(rest).ok().map(Time)
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

//! Locks: who has claimed which address.

use std::{collections::BTreeSet, net::IpAddr};

use arpeggio_api::{
    lease::Kind,
    lock::{self, ServiceRef},
};
use arpeggio_ipam::Owner;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;

use super::{Index, Watched, version};
use crate::effect::{Effect, Release, Subject, Task};

/// A lock, as far as the controller is concerned.
#[derive(Debug)]
pub(super) struct KnownLock {
    pub(super) owner: Owner,
    /// `None`: the Lease is damaged. Nobody gets its address before somebody repairs or deletes it.
    pub(super) service: Option<ServiceRef>,
    lease_uid: String,
    version: u64,
}

impl KnownLock {
    fn parse(lease: &Lease) -> Self {
        let lease_uid = lease.metadata.uid.clone().unwrap_or_default();
        let damaged = || Owner::from(format!("damaged Lease {lease_uid}"));
        let (service, version) = match lock::parse(lease) {
            Ok(record) => (record.claim.services.into_iter().next(), record.lock.version.0),
            Err(error) => {
                tracing::warn!(%error, "nobody gets the address of a damaged lock");
                (None, version(lease))
            }
        };
        let owner = service.as_ref().map_or_else(damaged, |it| Owner::from(it.uid.as_str()));
        Self { owner, service, lease_uid, version }
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
            self.hold(&Owner::from(format!("foreign Lease {name}")), address);
        }
    }

    fn lock_applied(&mut self, address: IpAddr, lock: KnownLock) {
        if self.locks.get(&address).is_some_and(|known| known.version > lock.version) {
            return;
        }
        self.hold(&lock.owner, address);
        self.dirty.insert(lock.owner.clone());
        self.suspects.insert(address);
        if let Some(before) = self.locks.insert(address, lock) {
            self.dirty.insert(before.owner);
        }
    }

    /// A lock counts more than what anybody else may think to hold.
    fn hold(&mut self, owner: &Owner, address: IpAddr) {
        if let Some(displaced) = self.allocator.holder(address).filter(|it| *it != owner).cloned() {
            self.allocator.release(&displaced, address);
            self.dirty.insert(displaced);
        }
        // Cannot fail: nobody else holds it now.
        if self.allocator.claim(owner, address).is_ok() {
            self.pools_dirty = true;
        }
    }

    /// The address is free, unless the Service that has it in its status claims it again.
    fn lock_gone(&mut self, address: IpAddr) {
        self.suspects.remove(&address);
        if let Some(lock) = self.locks.remove(&address) {
            self.dirty.insert(lock.owner);
        }
    }

    /// A lock that was deleted by us. A later one of the same name is not concerned.
    pub(super) fn lock_deleted(&mut self, address: IpAddr, lease_uid: &str) {
        if self.locks.get(&address).is_some_and(|lock| lock.lease_uid == lease_uid) {
            self.lock_gone(address);
        }
    }

    /// Whether `owner` has a lock for `address`.
    pub(super) fn has_lock(&self, owner: &Owner, address: IpAddr) -> bool {
        self.locks.get(&address).is_some_and(|lock| lock.owner == *owner)
    }

    /// The addresses that `owner` has locks for, in ascending order.
    pub(super) fn locked_by(&self, owner: &Owner) -> Vec<IpAddr> {
        self.allocator.held_by(owner).filter(|address| self.has_lock(owner, *address)).collect()
    }

    /// Releases locks whose Service is not known. That it does not exist is not certain, since the watch of Services
    /// may be behind that of locks: whoever performs the release asks once more.
    pub(super) fn release_orphans(&mut self) -> Vec<Task> {
        let mut tasks = Vec::new();
        for address in std::mem::take(&mut self.suspects) {
            let known = |lock: &KnownLock| self.services.contains_key(&lock.owner);
            if self.locks.get(&address).is_none_or(known) {
                continue;
            }
            if self.busy.contains(&Subject::Lock(address)) {
                self.suspects.insert(address);
            } else {
                tasks.extend(self.release(address));
            }
        }
        tasks
    }

    /// The task to delete the lock of `address`, if there is one that may be deleted.
    pub(super) fn release(&mut self, address: IpAddr) -> Option<Task> {
        let lock = self.locks.get(&address)?;
        let release =
            Release { address, lease_uid: lock.lease_uid.clone(), service: lock.service.clone()? };
        self.task(Subject::Lock(address), Effect::Release(release))
    }
}

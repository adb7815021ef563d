//! Services: who wants an address, and who has one.

use std::{collections::BTreeSet, net::IpAddr};

use arpeggio_api::service::{self, Ingress, ServiceRecord};
use arpeggio_ipam::{Owner, SharingKey};
use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::Time};
use kube::api::ObjectMeta;

use super::{
    Index, Watched, announcing::announced, askers::sharing, effect::Subject, known_lock::owner_of,
};

fn owner(service: &Service) -> Owner {
    owner_of(&service::reference(service))
}

fn sharing_keys(records: [&ServiceRecord; 2]) -> BTreeSet<SharingKey> {
    records.into_iter().filter_map(sharing).map(|it| it.key.clone()).collect()
}

/// Since when a Service is being deleted, and what it waits for.
fn leaving(record: &ServiceRecord) -> Option<(&Time, &[String])> {
    Some((record.deleting_since.as_ref()?, record.finalizers.as_slice()))
}

impl Watched<Service> for Index {
    fn apply(&mut self, service: Service) {
        let (owner, record) =
            (owner(&service), ServiceRecord::parse(&service, self.class.as_deref()));
        if self.services.get(&owner).is_some_and(|known| known.version > record.version) {
            return;
        }
        if self.services.get(&owner).is_some_and(|known| known.service != record.service) {
            self.service_gone(&owner);
        }
        let known = self.services.get(&owner);
        let nothing_said = record.ingress.is_empty() && record.conditions.is_empty();
        if record.request.is_none() && nothing_said && self.locked_by(&owner).is_empty() {
            self.service_gone(&owner);
            return;
        }
        let shared_otherwise = known.filter(|known| sharing(known) != sharing(&record));
        let keys = shared_otherwise.map(|known| sharing_keys([known, &record]));
        let leaves = known.is_some_and(|known| leaving(known) != leaving(&record));
        let spread = known.is_none_or(|known| known.spread != record.spread);
        let asks_anew = known.is_some_and(|known| known.request != record.request);
        if spread || asks_anew || known.and_then(announced) != announced(&record) {
            // What its locks say of announcing, and of the pool, may not be right any more.
            self.suspects.extend(self.locked_by(&owner));
        }
        let served = known.map(|known| known.request.is_some());
        let comes_or_goes = served != Some(record.request.is_some());
        let before = self.services.insert(owner.clone(), record);
        self.note_asker(&owner, before.as_ref());
        self.note_written(&owner);
        if comes_or_goes {
            self.meet(&owner);
            self.heirlooms_of(&owner);
        }
        if let Some(keys) = &keys {
            self.wake_sharers(keys);
        }
        // Who waits for its address is to know that it is being deleted, and what it waits for.
        if keys.is_some() || leaves {
            self.wake_askers_of(&owner);
        }
        self.dirty.insert(owner);
    }

    fn gone(&mut self, service: &ObjectMeta) {
        let service = service::reference_of(service);
        let owner = owner_of(&service);
        // Not if a Service of the same name has been seen already.
        let is_known = |known: &ServiceRecord| known.service == service;
        if self.services.get(&owner).is_some_and(is_known) {
            self.service_gone(&owner);
        }
    }

    fn reset(&mut self, services: Vec<Service>) {
        let present: BTreeSet<Owner> = services.iter().map(owner).collect();
        let gone: Vec<Owner> =
            self.services.keys().filter(|it| !present.contains(it)).cloned().collect();
        for owner in gone {
            self.service_gone(&owner);
        }
        for service in services {
            self.apply(service);
        }
        self.listed.services = true;
    }
}

impl Index {
    /// A Service as a task saw it. Only the watch says which Services exist: one that it has seen go stays gone.
    pub(super) fn service_seen(&mut self, service: Service) {
        if self.services.contains_key(&owner(&service)) {
            self.apply(service);
        }
    }

    /// Whether there is such a Service, and it is for us.
    pub(super) fn is_served(&self, owner: &Owner) -> bool {
        self.services.get(owner).is_some_and(|record| record.request.is_some())
    }

    fn service_gone(&mut self, owner: &Owner) {
        if let Some(record) = self.services.remove(owner) {
            self.note_asker(owner, Some(&record));
            self.dirty.remove(owner);
            self.waiting.remove(owner);
            self.forget_lacks(owner);
            self.untold.remove(owner);
            self.forget_rival(owner);
            self.aside.remove(owner);
            self.forget_setbacks(&Subject::Service(owner.clone()));
            self.suspects.extend(self.locked_by(owner));
            self.heirlooms_of(owner);
            self.touch(owner);
        }
    }

    /// Has a Service looked at. One that is gone is dealt with at once: nothing is decided for it, and a process that
    /// decides nothing, since another one leads, must not collect them.
    pub(super) fn touch(&mut self, owner: &Owner) {
        if self.services.contains_key(owner) {
            self.dirty.insert(owner.clone());
        } else {
            self.recall(owner);
        }
    }

    /// Brings what the allocator knows of `owner` in line with locks, claims and status: lets go of what has no reason
    /// any more, and holds what the status says, unless somebody else holds it.
    pub(super) fn recall(&mut self, owner: &Owner) {
        let stated = self.services.get(owner).map(|record| &record.ingress);
        let has_reason = |address| {
            self.has_lock(owner, address)
                || self.claiming.get(owner) == Some(&address)
                || self.aside.get(owner) == Some(&address)
                || stated.is_some_and(|ingress| ingress.addresses.contains(&address))
        };
        let (held, loose): (Vec<_>, Vec<_>) =
            self.allocator.held_by(owner).partition(|address| has_reason(*address));
        // An address that another program wrote is not ours to announce when a machine has it.
        let adoptable = |address| {
            self.allocator.pool_of(address).is_some() && self.reserved.machine_at(address).is_none()
        };
        let ours = |address| adoptable(address) || stated.is_some_and(Ingress::is_ours);
        let adopted: Vec<_> = stated
            .into_iter()
            .flat_map(|ingress| &ingress.addresses)
            .filter(|address| !held.contains(address) && ours(**address))
            .copied()
            .collect();
        for address in held.into_iter().chain(adopted) {
            self.renew_terms(owner, address);
        }
        for address in loose {
            self.let_go(owner, address);
        }
    }

    /// Releases what `owner` has no reason to hold any more. Where others stay, there is room for more sharers.
    fn let_go(&mut self, owner: &Owner, address: IpAddr) {
        self.pools_dirty |= self.allocator.release(owner, address);
        let is_shared = self.allocator.holders(address).next().is_some();
        if is_shared {
            self.wake_waiting();
        } else {
            self.address_freed();
        }
    }
}

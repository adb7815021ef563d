//! Who asks for which address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use arpeggio_api::service::ServiceRecord;
use arpeggio_ipam::{Owner, Sharing};

use super::Index;

/// The Services that ask for an address, by the address, whether or not they have it.
#[derive(Debug, Default)]
pub(super) struct Askers(BTreeMap<IpAddr, BTreeSet<Owner>>);

impl Askers {
    fn insert(&mut self, owner: &Owner, address: IpAddr) {
        self.0.entry(address).or_default().insert(owner.clone());
    }

    fn remove(&mut self, owner: &Owner, address: IpAddr) {
        let Some(owners) = self.0.get_mut(&address) else { return };
        owners.remove(owner);
        if owners.is_empty() {
            self.0.remove(&address);
        }
    }

    fn of(&self, address: IpAddr) -> impl Iterator<Item = &Owner> {
        self.0.get(&address).into_iter().flatten()
    }

    /// How many addresses are asked for.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A Service that is being deleted gets nothing any more, whatever it asks for.
fn asked_for(record: Option<&ServiceRecord>) -> BTreeSet<IpAddr> {
    let record = record.filter(|it| it.deleting_since.is_none());
    let request = record.and_then(|it| it.request.as_ref()?.as_ref().ok());
    request.into_iter().flat_map(|it| it.addresses.iter().copied()).collect()
}

/// On which terms a Service shares, if it does.
pub(super) fn sharing(record: &ServiceRecord) -> Option<&Sharing> {
    record.request.as_ref()?;
    record.sharing.as_ref()
}

impl Index {
    /// Takes note of what a Service asks for now, which was as in `before`.
    pub(super) fn note_asker(&mut self, owner: &Owner, before: Option<&ServiceRecord>) {
        let (before, after) = (asked_for(before), asked_for(self.services.get(owner)));
        // Of those who wait for a Service that is being deleted, another one may be the first.
        for address in after.difference(&before) {
            self.wake_first_to_ask(*address);
            self.askers.insert(owner, *address);
        }
        for address in before.difference(&after) {
            self.askers.remove(owner, *address);
            self.wake_first_to_ask(*address);
        }
    }

    fn wake_first_to_ask(&mut self, address: IpAddr) {
        let leaves =
            |owner: &Owner| self.services.get(owner).is_some_and(|it| it.deleting_since.is_some());
        if self.allocator.holders(address).any(leaves) {
            self.dirty.extend(self.first_to_ask(address).cloned());
        }
    }

    /// The first of those who wait for this address.
    pub(super) fn first_to_ask(&self, address: IpAddr) -> Option<&Owner> {
        let waiting = self.askers.of(address).filter(|it| !self.allocator.holds(it, address));
        waiting.min_by_key(|owner| (self.rank(owner), *owner))
    }

    /// Has those looked at who ask for an address of `owner`.
    pub(super) fn wake_askers_of(&mut self, owner: &Owner) {
        let held = self.allocator.held_by(owner);
        let askers: Vec<Owner> = held.flat_map(|it| self.askers.of(it)).cloned().collect();
        self.dirty.extend(askers);
    }
}

//! What is around pools and Services: the labels of namespaces, and addresses that are somebody else's.

use std::collections::BTreeMap;

use arpeggio_api::{reservations::Reservations, service::ServiceRecord, session::Whereabouts};
use arpeggio_ipam::{Owner, Request};
use arpeggio_labels::Labels;

use super::Index;

impl Index {
    /// The namespaces and their labels are these.
    pub fn set_namespaces(&mut self, namespaces: BTreeMap<String, Labels>) {
        self.namespaces = namespaces;
        self.dirty.extend(self.services.keys().cloned());
    }

    /// A namespace has these labels; without any it may be gone.
    pub fn set_namespace(&mut self, name: &str, labels: Labels) {
        let before = self.namespaces.insert(name.to_owned(), labels);
        if before.as_ref() != self.namespaces.get(name) {
            let inside = |(_, it): &(&Owner, &ServiceRecord)| it.service.namespace == name;
            let inside = self.services.iter().filter(inside).map(|(owner, _)| owner.clone());
            self.dirty.extend(inside);
        }
    }

    /// The addresses that nodes, gateways and subnets have are these, and no others. Who holds one of them keeps it.
    pub fn set_reserved(&mut self, reserved: Reservations) {
        if reserved == self.reserved {
            return;
        }
        for (address, reason) in self.reserved.iter() {
            self.allocator.unreserve(address, reason);
        }
        for (address, reason) in reserved.iter() {
            self.allocator.reserve(address, reason.clone());
        }
        self.reserved = reserved;
        self.pools_dirty = true;
        self.wake_waiting();
    }

    /// Where nodes announce, by their names.
    pub fn set_speakers(&mut self, speakers: BTreeMap<String, Whereabouts>) {
        self.speakers = speakers;
    }

    /// What a Service asks for, with the labels of its namespace.
    pub(super) fn complete(&self, request: &Request) -> Request {
        let mut request = request.clone();
        let labels = self.namespaces.get(&request.requester.namespace);
        request.requester.namespace_labels = labels.cloned().unwrap_or_default();
        request
    }
}

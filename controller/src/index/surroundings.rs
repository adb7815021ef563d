//! What is around pools and Services: the labels of namespaces, and addresses that are somebody else's.

use std::{collections::BTreeMap, net::IpAddr};

use arpeggio_api::service::ServiceRecord;
use arpeggio_ipam::{Owner, Request, Reservation};
use arpeggio_labels::Labels;

use super::Index;

impl Index {
    /// The namespaces and their labels are these.
    pub(crate) fn set_namespaces(&mut self, namespaces: BTreeMap<String, Labels>) {
        self.namespaces = namespaces;
        self.dirty.extend(self.services.keys().cloned());
    }

    /// A namespace has these labels; without any it may be gone.
    pub(crate) fn set_namespace(&mut self, name: &str, labels: Labels) {
        let before = self.namespaces.insert(name.to_owned(), labels);
        if before.as_ref() != self.namespaces.get(name) {
            let inside = |(_, it): &(&Owner, &ServiceRecord)| it.service.namespace == name;
            let inside = self.services.iter().filter(inside).map(|(owner, _)| owner.clone());
            self.dirty.extend(inside);
        }
    }

    /// The addresses that nodes, gateways and subnets have are these, and no others.
    pub(crate) fn set_reserved(&mut self, reserved: BTreeMap<IpAddr, Reservation>) {
        for (address, reason) in std::mem::replace(&mut self.reserved, reserved) {
            self.allocator.unreserve(address, &reason);
        }
        for (address, reason) in &self.reserved {
            self.allocator.reserve(*address, reason.clone());
        }
        self.pools_dirty = true;
        self.wake_waiting();
    }

    /// What a Service asks for, with the labels of its namespace.
    pub(super) fn complete(&self, request: &Request) -> Request {
        let mut request = request.clone();
        let labels = self.namespaces.get(&request.requester.namespace);
        request.requester.namespace_labels = labels.cloned().unwrap_or_default();
        request
    }
}

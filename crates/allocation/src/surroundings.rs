//! What is around pools and Services: the labels of namespaces, and addresses that are somebody else's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use arpeggio_api::{reservations::Reservations, service::ServiceRecord, session::Whereabouts};
use arpeggio_election::Node;
use arpeggio_ipam::{Owner, Request, Requester};
use arpeggio_labels::Labels;

use super::{Index, LeftBehind, NotSpread};

impl Index {
    /// The namespaces and their labels are these.
    pub fn set_namespaces(&mut self, namespaces: BTreeMap<String, Labels>) {
        self.namespaces = namespaces;
        self.dirty.extend(self.services.keys().cloned());
        self.suspects.extend(self.locks.keys());
    }

    /// A namespace is gone.
    pub fn forget_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
        self.ending_namespaces.remove(name);
    }

    /// Whether a namespace is being deleted: its Services get nothing new then.
    pub fn set_namespace_ends(&mut self, name: &str, ends: bool) {
        let changed = if ends {
            self.ending_namespaces.insert(name.to_owned())
        } else {
            self.ending_namespaces.remove(name)
        };
        if changed {
            self.look_inside(name);
        }
    }

    fn look_inside(&mut self, namespace: &str) {
        let inside = |(_, it): &(&Owner, &ServiceRecord)| it.service.namespace == namespace;
        let inside = self.services.iter().filter(inside).map(|(owner, _)| owner.clone());
        let inside: Vec<Owner> = inside.collect();
        for owner in inside {
            // By which pool its locks go rests on the labels, too.
            self.suspects.extend(self.locked_by(&owner));
            self.dirty.insert(owner);
        }
    }

    /// A namespace has these labels.
    pub fn set_namespace(&mut self, name: &str, labels: Labels) {
        let before = self.namespaces.insert(name.to_owned(), labels);
        if before.as_ref() != self.namespaces.get(name) {
            self.look_inside(name);
        }
    }

    /// The addresses that nodes, gateways and subnets have are these, and no others. Who holds one of them keeps it, and is
    /// told.
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
        let before = std::mem::replace(&mut self.reserved, reserved);
        let moved = self.reserved.moved_machines(&before);
        let holders = moved.flat_map(|address| self.allocator.holders(address));
        self.dirty.extend(holders.cloned());
        self.pools_dirty = true;
        self.wake_waiting();
    }

    /// Where nodes announce, by their names. Who announces an address may have to be said anew.
    pub fn set_speakers(&mut self, speakers: BTreeMap<String, Whereabouts>) {
        let before = std::mem::replace(&mut self.speakers, speakers);
        let place = |it: Option<&Whereabouts>| it.map(|it| (it.reach.clone(), it.links.clone()));
        let mut changed = before.keys().chain(self.speakers.keys()).collect::<BTreeSet<_>>();
        changed.retain(|node| place(before.get(*node)) != place(self.speakers.get(*node)));
        let is_there = |node: &Node| changed.iter().any(|it| it.as_str() == node.as_str());
        let locks = self.locks.values().filter(|it| it.holder.as_ref().is_some_and(is_there));
        self.dirty.extend(locks.flat_map(|lock| lock.owners.iter().cloned()));
        self.name_strangers();
    }

    /// The nodes whose sessions count: no other one announces anything.
    pub fn set_living(&mut self, living: BTreeSet<String>) {
        let before = self.living.replace(living).unwrap_or_default();
        let now = self.living.iter().flatten().cloned().collect();
        let changed: BTreeSet<String> = before.symmetric_difference(&now).cloned().collect();
        let is_there = |node: &Node| changed.contains(node.as_str());
        let locks = self.locks.values().filter(|it| it.holder.as_ref().is_some_and(is_there));
        self.dirty.extend(locks.flat_map(|lock| lock.owners.iter().cloned()));
    }

    /// Which connections nodes still have of addresses that they do not serve any more.
    pub(super) fn set_left_behind(&mut self, connections: LeftBehind) {
        let before = std::mem::replace(&mut self.connections, connections);
        let mut changed = before.keys().chain(self.connections.keys()).collect::<BTreeSet<_>>();
        changed.retain(|address| before.get(*address) != self.connections.get(*address));
        let locks = changed.into_iter().filter_map(|address| self.locks.get(address));
        self.dirty.extend(locks.flat_map(|lock| lock.owners.iter().cloned()));
    }

    /// Why one node serves addresses that all are to serve.
    pub(super) fn set_not_spread(&mut self, not_spread: NotSpread) {
        if self.not_spread == not_spread {
            return;
        }
        let spread = self.locks.iter().filter(|(_, lock)| lock.spread);
        let spread: Vec<IpAddr> = spread.map(|(address, _)| *address).collect();
        let whys =
            |index: &Self| spread.iter().map(|it| index.why_one_node(*it)).collect::<Vec<_>>();
        let before = whys(self);
        self.not_spread = not_spread;
        let changed = whys(self).into_iter().zip(before).zip(&spread);
        let changed =
            changed.filter(|((now, before), _)| now != before).map(|(_, address)| address);
        let locks = changed.filter_map(|address| self.locks.get(address));
        let owners: Vec<Owner> = locks.flat_map(|lock| lock.owners.iter().cloned()).collect();
        self.dirty.extend(owners);
    }

    /// What a Service asks for, with the labels of its namespace. `None` while the namespace is not known: it may be as
    /// young as the Service, and which pools are for it cannot be said yet. Where Namespaces are not shown at all, it is
    /// not waited for.
    pub(super) fn complete(&self, request: &Request) -> Option<Request> {
        let labels = self.namespaces.get(&request.requester.namespace);
        if labels.is_none() && !self.declarations.unlisted.has_namespaces() {
            return None;
        }
        let mut request = request.clone();
        request.requester.namespace_labels = labels.cloned();
        Some(request)
    }

    /// Who asks, with what is known of its namespace.
    pub(super) fn requester(&self, record: &ServiceRecord) -> Requester {
        let namespace_labels = self.namespaces.get(&record.service.namespace).cloned();
        Requester { namespace_labels, ..record.requester.clone() }
    }
}

//! What Leases, Services, `EndpointSlice`s and Nodes say to a forwarder.
//!
//! Of Services, slices and Nodes nothing is known before they have been listed, which is not the same as that there are none: until then
//! no address is spread, and connections are kept all the same.

mod objects;
mod service_ports;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use arpeggio_election::{AnnounceTerms, Node, NodeFacts, SessionState};
use arpeggio_forwarding::{
    Address, Endpoints, Fellow, Forwarder, Known, Life, Port, Protocol, Service, Wire,
};
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use self::{objects::Objects, service_ports::ServicePorts};
use crate::{
    endpoints::{self, Counted, ServiceName},
    forwarder::{self, ForwarderRecord},
    lease::{Kind, LeaseError},
    lock::{self, LockRecord},
    session::{self, SessionRecord},
};

/// HTTP/3, and all else that speaks QUIC there (IANA, `https` on UDP).
const QUIC: Port = Port { protocol: Protocol::Udp, number: 443 };

/// A slice, by namespace and name.
pub type SliceName = (String, String);

/// All that a forwarder knows, and what it follows from. Every method that learns says whether anything is known that was not.
#[derive(Debug, Default)]
pub struct Knowledge {
    known: Known,
    /// What forwarders say, also those of nodes without a session.
    forwarders: BTreeMap<Node, Forwarder>,
    locks: BTreeMap<IpAddr, Locked>,
    /// Whether Nodes and slices matter. `None`: to be found out.
    wants: Option<Wants>,
    /// The addresses at which each Service is reached.
    behind: BTreeMap<ServiceName, BTreeSet<IpAddr>>,
    services: Objects<ServiceName, ServicePorts>,
    slices: Objects<SliceName, Counted>,
    facts: Objects<Node, NodeFacts>,
}

/// What matters beside Leases and Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wants {
    /// An address is to be spread, so that Nodes matter.
    pub nodes: bool,
    /// One is to be spread over the nodes that have endpoints, so that slices matter.
    pub slices: bool,
}

/// What matters of a lock.
#[derive(Debug, PartialEq)]
struct Locked {
    holder: Option<Node>,
    terms: AnnounceTerms,
    spread: bool,
    services: BTreeSet<ServiceName>,
}

/// Leases.
impl Knowledge {
    /// All that is known.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Whether the forwarder of a node says anything.
    pub fn has_forwarder(&self, node: &Node) -> bool {
        self.forwarders.contains_key(node)
    }

    /// The names of the Leases that something is known of.
    pub fn leases(&self) -> impl Iterator<Item = String> {
        let nodes = self.known.nodes.keys().map(session::name);
        let addresses = self.known.addresses.keys().map(|address| lock::name(*address));
        nodes.chain(addresses).chain(self.forwarders.keys().map(forwarder::name))
    }

    /// A Lease is new or has changed.
    ///
    /// # Errors
    /// When it is not understood. Nothing is learnt then.
    pub fn learn_lease(&mut self, lease: &Lease) -> Result<bool, LeaseError> {
        match Kind::of(lease) {
            Some(Kind::Session) => session::parse(lease).map(|it| self.learn_session(&it)),
            Some(Kind::Lock) => lock::parse(lease).map(|it| self.learn_lock(&it)),
            Some(Kind::Forwarder) => forwarder::parse(lease).map(|it| self.learn_forwarder(it)),
            None => Ok(false),
        }
    }

    /// A Lease is gone.
    pub fn forget_lease(&mut self, name: &str) -> bool {
        if let Some(node) = session::node_of(name) {
            return self.known.nodes.remove(&node).is_some();
        }
        if let Some(node) = forwarder::node_of(name) {
            return self.forget_forwarder(&node);
        }
        lock::address_of(name).is_some_and(|address| self.forget_lock(address))
    }

    fn learn_session(&mut self, record: &SessionRecord) -> bool {
        let node = record.session.node.clone();
        let fellow = Fellow {
            life: match record.session.state {
                SessionState::Live { .. } => Life::Live,
                SessionState::Ended { reason, .. } => Life::Ended(reason),
            },
            epoch: record.session.epoch,
            wire: Wire::default(),
            reach: record.session.reach.clone().unwrap_or_default(),
            macs: record.links.iter().map(|link| (link.address, link.mac)).collect(),
            facts: self.facts.get(&node).cloned(),
            forwarder: self.forwarders.get(&node).cloned(),
        };
        self.known.nodes.insert(node, fellow.clone()).as_ref() != Some(&fellow)
    }

    fn learn_lock(&mut self, record: &LockRecord) -> bool {
        let address = record.lock.address;
        // What a newer release has written may mean that somebody else is reached there.
        if record.rests || record.newer.is_some() {
            return self.forget_lock(address);
        }
        let services = record.claim.services.iter();
        // As speakers have it: the last rules that were understood stay in force.
        let known = self.locks.get(&address).filter(|_| record.rules_unknown);
        let terms = known.map_or(&record.lock.terms, |known| &known.terms);
        let locked = Locked {
            holder: record.lock.holder.as_ref().map(|holder| holder.node.clone()),
            terms: terms.clone(),
            spread: record.claim.spread,
            services: services.map(|it| (it.namespace.clone(), it.name.clone())).collect(),
        };
        if self.locks.get(&address) == Some(&locked) {
            return false;
        }
        self.leave_services(address);
        for service in &locked.services {
            self.behind.entry(service.clone()).or_default().insert(address);
        }
        self.locks.insert(address, locked);
        self.wants = None;
        self.refresh(address)
    }

    fn forget_lock(&mut self, address: IpAddr) -> bool {
        self.leave_services(address);
        self.locks.remove(&address);
        self.wants = None;
        self.known.addresses.remove(&address).is_some()
    }

    fn leave_services(&mut self, address: IpAddr) {
        for service in self.locks.get(&address).into_iter().flat_map(|it| &it.services) {
            if let Some(addresses) = self.behind.get_mut(service) {
                addresses.remove(&address);
                if addresses.is_empty() {
                    self.behind.remove(service);
                }
            }
        }
    }

    fn learn_forwarder(&mut self, record: ForwarderRecord) -> bool {
        let ForwarderRecord { node, says, written, .. } = record;
        let Some(says) = says else { return self.forget_forwarder(&node) };
        let (trouble, connections, knows_mark) = (says.unable, says.connections, says.knows_mark);
        let forwarder = Forwarder { trouble, connections, stale: false, knows_mark, written };
        self.forwarders.insert(node.clone(), forwarder.clone());
        self.set_forwarder(&node, Some(forwarder))
    }

    fn forget_forwarder(&mut self, node: &Node) -> bool {
        self.forwarders.remove(node);
        self.set_forwarder(node, None)
    }

    fn set_forwarder(&mut self, node: &Node, forwarder: Option<Forwarder>) -> bool {
        let Some(fellow) = self.known.nodes.get_mut(node) else { return false };
        // A renewal alone is no news, as with sessions.
        let is_news = match (&fellow.forwarder, &forwarder) {
            (Some(before), Some(now)) => {
                before.trouble != now.trouble
                    || before.connections != now.connections
                    || before.knows_mark != now.knows_mark
            }
            (None, None) => false,
            _ => true,
        };
        fellow.forwarder = forwarder;
        is_news
    }
}

/// Services, slices and Nodes. What does not concern an address of a lock is kept, and is no news.
impl Knowledge {
    /// What matters beside Leases and Services. All locks are looked at when one of them or a Service has changed, and not each time.
    pub fn wants(&mut self) -> Wants {
        let wants = self.wants.unwrap_or_else(|| self.wanted());
        self.wants = Some(wants);
        wants
    }

    fn wanted(&self) -> Wants {
        let mut spread = self.locks.values().filter(|it| it.spread).peekable();
        let nodes = spread.peek().is_some();
        let slices = spread.any(|it| self.found(it).any(|(_, service)| service.is_local));
        Wants { nodes, slices }
    }

    /// A Service is new or has changed; `None`: it is gone.
    pub fn learn_service(&mut self, name: &ServiceName, now: Option<&v1::Service>) -> bool {
        if !self.services.set(name.clone(), now.and_then(ServicePorts::of)) {
            return false;
        }
        self.wants = None;
        self.refresh_behind([name.clone()])
    }

    /// These Services there are, and no others.
    pub fn list_services<'a>(&mut self, all: impl Iterator<Item = &'a v1::Service>) -> bool {
        let read = all.filter_map(|it| Some((service_name(it), ServicePorts::of(it)?)));
        let was_listed = self.services.are_listed();
        let changed = self.services.list(read.collect());
        self.wants = None;
        self.refresh_after(was_listed, changed)
    }

    /// A slice is new or has changed; `None`: it is gone.
    pub fn learn_slice(&mut self, name: &SliceName, now: Option<&EndpointSlice>) -> bool {
        let now = now.and_then(endpoints::counted);
        let before = self.slices.get(name).map(|it| it.service.clone());
        let services: BTreeSet<_> =
            before.into_iter().chain(now.as_ref().map(|it| it.service.clone())).collect();
        self.slices.set(name.clone(), now) && self.refresh_behind(services)
    }

    /// These slices there are, and no others.
    pub fn list_slices<'a>(&mut self, all: impl Iterator<Item = &'a EndpointSlice>) -> bool {
        let read = all.filter_map(|it| Some((slice_name(it), endpoints::counted(it)?)));
        // Which of them have changed is not asked: a list is rare.
        self.slices.list(read.collect());
        self.refresh_all()
    }

    /// What Kubernetes says of a node is new or has changed; `None`: there is no such node any more.
    pub fn learn_node(&mut self, node: &Node, now: Option<NodeFacts>) -> bool {
        self.facts.set(node.clone(), now) && self.set_facts(node)
    }

    /// These nodes there are, and no others.
    pub fn list_nodes(&mut self, all: BTreeMap<Node, NodeFacts>) -> bool {
        let was_listed = self.facts.are_listed();
        let changed = self.facts.list(all);
        let is_news = changed.iter().fold(false, |any, node| self.set_facts(node) | any);
        !was_listed && self.refresh_all() || is_news
    }

    fn set_facts(&mut self, node: &Node) -> bool {
        let facts = self.facts.get(node).cloned();
        let Some(fellow) = self.known.nodes.get_mut(node) else { return false };
        let is_news = fellow.facts != facts;
        fellow.facts = facts;
        is_news
    }

    fn refresh_after(&mut self, was_listed: bool, changed: Vec<ServiceName>) -> bool {
        if was_listed { self.refresh_behind(changed) } else { self.refresh_all() }
    }

    fn refresh_behind(&mut self, services: impl IntoIterator<Item = ServiceName>) -> bool {
        let behind = services.into_iter().filter_map(|it| self.behind.get(&it));
        let addresses: BTreeSet<IpAddr> = behind.flatten().copied().collect();
        addresses.into_iter().fold(false, |any, address| self.refresh(address) | any)
    }

    fn refresh_all(&mut self) -> bool {
        let addresses: Vec<IpAddr> = self.locks.keys().copied().collect();
        addresses.into_iter().fold(false, |any, address| self.refresh(address) | any)
    }

    fn refresh(&mut self, address: IpAddr) -> bool {
        let Some(locked) = self.locks.get(&address) else { return false };
        let about = self.about(address, locked);
        self.known.addresses.insert(address, about.clone()).as_ref() != Some(&about)
    }

    /// The Services behind an address, as far as they are known. One may be newer than what has been seen so far.
    fn found<'a>(
        &'a self,
        locked: &'a Locked,
    ) -> impl Iterator<Item = (&'a ServiceName, &'a ServicePorts)> {
        locked.services.iter().filter_map(|name| Some((name, self.services.get(name)?)))
    }

    fn about(&self, address: IpAddr, locked: &Locked) -> Address {
        let is_any_found = self.found(locked).next().is_some();
        let knows_endpoints =
            self.slices.are_listed() || !self.found(locked).any(|(_, it)| it.is_local);
        let spread = locked.spread && is_any_found && self.facts.are_listed() && knows_endpoints;
        Address {
            holder: locked.holder.clone(),
            terms: locked.terms.clone(),
            spread,
            services: if is_any_found {
                self.ports(address, locked, spread)
            } else {
                [(QUIC, Service { quic: true, ..Service::default() })].into()
            },
        }
    }

    fn ports(&self, address: IpAddr, locked: &Locked, spread: bool) -> BTreeMap<Port, Service> {
        let mut ports = BTreeMap::new();
        for (name, service) in self.found(locked) {
            for (port, about) in &service.ports {
                let endpoints = if spread && service.is_local {
                    Endpoints::OnNodes(self.ready(address, name, &about.name))
                } else {
                    Endpoints::Anywhere
                };
                let affinity = service.affinity;
                ports.insert(*port, Service { affinity, quic: about.quic, endpoints });
            }
        }
        ports
    }

    /// How many ready endpoints of one port of a Service each node has. A Service and its slices are in one namespace.
    fn ready(&self, address: IpAddr, service: &ServiceName, port: &str) -> BTreeMap<Node, u32> {
        let from = (service.0.clone(), String::new());
        let neighbours = self.slices.from(&from).take_while(|((there, _), _)| *there == service.0);
        let mut sum: BTreeMap<Node, u32> = BTreeMap::new();
        for (_, slice) in neighbours.filter(|(_, slice)| slice.serves(service, address, port)) {
            for (node, count) in &slice.ready {
                let total = sum.entry(node.clone()).or_default();
                *total = total.saturating_add(*count);
            }
        }
        sum
    }
}

/// The name of a Service.
pub fn service_name(service: &v1::Service) -> ServiceName {
    full_name(&service.metadata)
}

/// The name of a slice.
pub fn slice_name(slice: &EndpointSlice) -> SliceName {
    full_name(&slice.metadata)
}

/// Namespace and name.
pub fn full_name(metadata: &ObjectMeta) -> (String, String) {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests;

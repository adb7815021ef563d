//! What else the controller reads, apart from Services, `AddressPool`s and locks.
//!
//! | kind | for |
//! |---|---|
//! | `ConfigMap`, `IPAddressPool`, `L2Advertisement` | further pools |
//! | `Namespace` | labels that pools' rules select |
//! | `Node` | addresses that are never given out; where pods are |
//! | session `Lease` | what nodes report of their interfaces: more such addresses |
//! | `ServiceCIDR` | where cluster addresses of Services are |
//!
//! Each is converted here, once, and told to the [`Index`] when something of it has changed.

use std::time::Duration;

use arpeggio_allocation::{
    Declarer, Index,
    sessions::EndSession,
    sources::{MetalLb, PoolFile, Surroundings},
};
use arpeggio_api::{
    config_map::Dialect,
    lease::{KIND_LABEL, Kind},
    metallb::{IPAddressPool, L2Advertisement},
};
use arpeggio_runtime::{health::Health, watch::Event};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace, Node},
    networking::v1::ServiceCIDR,
};
use kube::{Api, Client, core::PartialObjectMeta, runtime::watcher::Config};

use crate::feed::{Feed, Undecodable};

/// Where to find pools that are not `AddressPool`s.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The namespace of our own `ConfigMap`.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) config_map: String,
    /// The key of its value with the pools; `MetalLB`'s is the same.
    pub(crate) key: String,
    /// The namespace of `MetalLB`'s objects and `ConfigMap`.
    pub(crate) metallb_namespace: String,
}

/// The name of the `ConfigMap` in `MetalLB`'s namespace, up to its version 0.12.
const METALLB_CONFIG_MAP: &str = "config";

/// Watches of all these kinds.
pub(crate) struct Sources {
    feeds: Feeds,
    file: PoolFile,
    metallb_file: PoolFile,
    metallb: MetalLb,
    surroundings: Surroundings,
}

struct Feeds {
    file: Feed<ConfigMap>,
    metallb_file: Feed<ConfigMap>,
    pools: Feed<IPAddressPool>,
    advertisements: Feed<L2Advertisement>,
    namespaces: Feed<PartialObjectMeta<Namespace>>,
    nodes: Feed<Node>,
    sessions: Feed<Lease>,
    service_cidrs: Feed<ServiceCIDR>,
}

/// Something that a watch has shown.
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and not for long")]
pub(crate) enum Shown {
    File(Event<ConfigMap>),
    MetalLbFile(Event<ConfigMap>),
    Pool(Event<IPAddressPool>),
    Advertisement(Event<L2Advertisement>),
    Namespace(Event<PartialObjectMeta<Namespace>>),
    Node(Event<Node>),
    Session(Event<Lease>),
    ServiceCidr(Event<ServiceCIDR>),
}

impl Sources {
    /// Watches with `client`. `health` awaits every first list.
    pub(crate) fn new(client: &Client, places: &Places, health: &Health) -> Self {
        let key = &places.key;
        Self {
            feeds: Feeds::new(client, places, health),
            file: PoolFile::new(Declarer::ConfigMap, key, Dialect::Ours),
            metallb_file: PoolFile::new(Declarer::MetalLbConfigMap, key, Dialect::MetalLb),
            metallb: MetalLb::default(),
            surroundings: Surroundings::default(),
        }
    }

    /// Whether everything was listed once. Nothing may be decided before.
    pub(crate) fn are_listed(&self) -> bool {
        let feeds = &self.feeds;
        feeds.file.is_listed()
            && feeds.metallb_file.is_listed()
            && feeds.pools.is_listed()
            && feeds.advertisements.is_listed()
            && feeds.namespaces.is_listed()
            && feeds.nodes.is_listed()
            && feeds.sessions.is_listed()
            && feeds.service_cidrs.is_listed()
    }

    /// Waits for what a watch shows next. May be cancelled at any time.
    pub(crate) async fn next(&mut self) -> Shown {
        let feeds = &mut self.feeds;
        tokio::select! {
            event = feeds.file.next() => Shown::File(event),
            event = feeds.metallb_file.next() => Shown::MetalLbFile(event),
            event = feeds.pools.next() => Shown::Pool(event),
            event = feeds.advertisements.next() => Shown::Advertisement(event),
            event = feeds.namespaces.next() => Shown::Namespace(event),
            event = feeds.nodes.next() => Shown::Node(event),
            event = feeds.sessions.next() => Shown::Session(event),
            event = feeds.service_cidrs.next() => Shown::ServiceCidr(event),
        }
    }

    /// The sessions of nodes that are gone for good, at the time `now` on a clock that never steps.
    pub(crate) fn sessions_over(&mut self, now: Duration) -> Vec<EndSession> {
        self.surroundings.sessions_over(now)
    }

    /// Takes note of it, and tells the index what follows.
    pub(crate) fn pass(&mut self, shown: Shown, index: &mut Index) {
        let feeds = &mut self.feeds;
        match shown {
            Shown::File(event) => feeds.file.pass(event, &mut self.file),
            Shown::MetalLbFile(event) => feeds.metallb_file.pass(event, &mut self.metallb_file),
            Shown::Pool(event) => feeds.pools.pass(event, &mut self.metallb),
            Shown::Advertisement(event) => feeds.advertisements.pass(event, &mut self.metallb),
            Shown::Namespace(event) => feeds.namespaces.pass(event, index),
            Shown::Node(event) => feeds.nodes.pass(event, &mut self.surroundings),
            Shown::Session(event) => feeds.sessions.pass(event, &mut self.surroundings),
            Shown::ServiceCidr(event) => {
                feeds.service_cidrs.pass(event, &mut self.surroundings);
            }
        }
        self.file.tell(index);
        self.metallb_file.tell(index);
        self.metallb.tell(index);
        self.surroundings.tell(index);
    }
}

impl Sources {
    /// What cannot be decoded, of each kind.
    pub(crate) fn undecodable(&mut self) -> Vec<Undecodable> {
        let feeds = &mut self.feeds;
        vec![
            feeds.file.undecodable().and(feeds.metallb_file.undecodable()),
            feeds.pools.undecodable(),
            feeds.advertisements.undecodable(),
            feeds.namespaces.undecodable(),
            feeds.nodes.undecodable(),
            feeds.service_cidrs.undecodable(),
        ]
    }

    /// Whether some object with pools cannot be decoded.
    pub(crate) fn have_undecodable_pools(&self) -> bool {
        let feeds = &self.feeds;
        feeds.file.is_partial()
            || feeds.metallb_file.is_partial()
            || feeds.pools.is_partial()
            || feeds.advertisements.is_partial()
    }

    /// The same of sessions, which are Leases, as locks are.
    pub(crate) fn undecodable_sessions(&mut self) -> Undecodable {
        self.feeds.sessions.undecodable()
    }
}

impl Feeds {
    fn new(client: &Client, places: &Places, health: &Health) -> Self {
        let all = Config::default;
        let metallb = places.metallb_namespace.as_str();
        let file = |namespace: &str, name: &str, name_of_part| {
            let named = Config::default().fields(&format!("metadata.name={name}"));
            let api = Api::namespaced(client.clone(), namespace);
            Feed::new(api, named, health.awaits(name_of_part))
        };
        let pools = Api::namespaced(client.clone(), metallb);
        let advertisements = Api::namespaced(client.clone(), metallb);
        // The metadata of Namespaces is all that is asked for.
        let namespaces = Api::all(client.clone());
        let nodes = Api::all(client.clone());
        let of_sessions =
            Config::default().labels(&format!("{KIND_LABEL}={}", Kind::Session.as_str()));
        let sessions = Api::namespaced(client.clone(), &places.namespace);
        let service_cidrs = Api::all(client.clone());
        Self {
            file: file(&places.namespace, &places.config_map, "the ConfigMap with pools"),
            metallb_file: file(metallb, METALLB_CONFIG_MAP, "MetalLB's ConfigMap"),
            pools: Feed::new(pools, all(), health.awaits("IPAddressPools")),
            advertisements: Feed::new(advertisements, all(), health.awaits("L2Advertisements")),
            namespaces: Feed::new(namespaces, all(), health.awaits("Namespaces")),
            nodes: Feed::new(nodes, all(), health.awaits("Nodes")),
            sessions: Feed::new(sessions, of_sessions, health.awaits("session Leases")),
            service_cidrs: Feed::new(service_cidrs, all(), health.awaits("ServiceCIDRs")),
        }
    }
}

//! What else the controller reads, apart from Services, `AddressPool`s and locks.
//!
//! | kind | for |
//! |---|---|
//! | `ConfigMap` | further pools |
//! | `MetalLB`'s `IPAddressPool`, `AddressPool`, `L2Advertisement`, `ConfigMap` | the same, where the installer says so |
//! | `Namespace` | labels that pools' rules select |
//! | `Node` | addresses that are never given out; where pods are |
//! | session `Lease` | what nodes report of their interfaces: more such addresses |
//! | forwarder's `Lease` | whether it is one of a node that is gone |
//! | `ServiceCIDR` | where cluster addresses of Services are |
//! | `Lease` with a record | what objects with pools said when they could last be used |
//!
//! Each is converted here, once, and told to the [`Index`] when something of it has changed. Those that are not Leases the
//! controller can do without, where the API server does not show them.

use std::{collections::BTreeSet, time::Duration};

use arpeggio_allocation::{
    Declarer, Index, Records, Unlisted, Watched,
    node_leases::LeaseToDelete,
    sources::{MetalLb, PoolFile, Surroundings},
};
use arpeggio_api::{
    config_map::Dialect,
    last_good,
    lease::{KIND_LABEL, Kind},
    metallb::{IPAddressPool, L2Advertisement, LegacyPool, OldestPool},
};
use arpeggio_runtime::{
    health::{Awaited, Health},
    watch::Event,
};
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
    /// Where `MetalLB` is read, if at all.
    pub(crate) metallb: Option<MetalLbPlace>,
}

/// Where `MetalLB`'s pools are. Who may write there decides which addresses are announced, so nobody is trusted with that
/// who was not named by the installer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetalLbPlace {
    /// The namespace of its objects and its `ConfigMap`.
    pub(crate) namespace: String,
    /// The name of its `ConfigMap`, up to its version 0.12.
    pub(crate) config_map: String,
}

/// Watches of all these kinds.
pub(crate) struct Sources {
    feeds: Feeds,
    places: Places,
    /// Where `MetalLB` is read, until it was looked once whether there is anything.
    unseen: Option<MetalLbPlace>,
    file: PoolFile,
    metallb_file: PoolFile,
    metallb: MetalLb,
    surroundings: Surroundings,
}

struct Feeds {
    file: Feed<ConfigMap>,
    metallb: Option<MetalLbFeeds>,
    namespaces: Feed<PartialObjectMeta<Namespace>>,
    nodes: Feed<Node>,
    node_leases: Feed<Lease>,
    service_cidrs: Feed<ServiceCIDR>,
    records: Feed<Lease>,
}

struct MetalLbFeeds {
    file: Feed<ConfigMap>,
    pools: Feed<IPAddressPool>,
    legacy_pools: Feed<LegacyPool>,
    /// The same in the version that came first, where the API server does not show the other one.
    oldest_pools: Option<Feed<OldestPool>>,
    advertisements: Feed<L2Advertisement>,
    /// What a watch is begun with.
    client: Client,
    namespace: String,
    health: Health,
}

/// Something that a watch has shown.
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and not for long")]
pub(crate) enum Shown {
    File(Event<ConfigMap>),
    MetalLb(MetalLbShown),
    Namespace(Event<PartialObjectMeta<Namespace>>),
    Node(Event<Node>),
    NodeLease(Event<Lease>),
    ServiceCidr(Event<ServiceCIDR>),
    Record(Event<Lease>),
}

/// Something that a watch of `MetalLB`'s objects has shown.
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and not for long")]
pub(crate) enum MetalLbShown {
    File(Event<ConfigMap>),
    Pool(Event<IPAddressPool>),
    LegacyPool(Event<LegacyPool>),
    OldestPool(Event<OldestPool>),
    Advertisement(Event<L2Advertisement>),
}

impl Sources {
    /// Watches with `client`. `health` awaits every first list.
    pub(crate) fn new(client: &Client, places: &Places, health: &Health) -> Self {
        let key = &places.key;
        Self {
            feeds: Feeds::new(client, places, health),
            places: places.clone(),
            unseen: places.metallb.clone(),
            file: PoolFile::new(Declarer::ConfigMap, key, Dialect::Ours),
            metallb_file: PoolFile::new(Declarer::MetalLbConfigMap, key, Dialect::MetalLb),
            metallb: MetalLb::default(),
            surroundings: Surroundings::default(),
        }
    }

    /// Whether everything was listed once that there is no doing without. Nothing may be decided before.
    pub(crate) fn are_listed(&self) -> bool {
        let feeds = &self.feeds;
        feeds.file.is_settled()
            && feeds.metallb.as_ref().is_none_or(MetalLbFeeds::are_settled)
            && feeds.namespaces.is_settled()
            && feeds.nodes.is_settled()
            && feeds.node_leases.is_listed()
            && feeds.service_cidrs.is_settled()
            && feeds.records.is_listed()
    }

    /// Goes on without what the API server has not shown for long enough, and tells the index.
    pub(crate) fn go_on_without(&mut self, index: &mut Index) {
        let feeds = &mut self.feeds;
        feeds.file.go_on_without();
        if let Some(metallb) = &mut feeds.metallb {
            metallb.go_on_without();
            metallb.look_for_oldest(&mut self.metallb);
        }
        feeds.namespaces.go_on_without();
        feeds.nodes.go_on_without();
        feeds.service_cidrs.go_on_without();
        self.note_unlisted();
        self.metallb.tell(index);
    }

    /// It is `now` on a clock that never steps: tells the index what does not count any more.
    pub(crate) fn pass_time(&mut self, now: Duration, index: &mut Index) {
        self.metallb.pass_time(now);
        self.metallb.tell(index);
    }

    fn note_unlisted(&mut self) {
        let metallb = self.feeds.metallb.as_ref();
        let unlisted = metallb.is_some_and(|it| it.advertisements.unlisted(None).is_some());
        self.metallb.set_advertisements_unlisted(unlisted);
    }

    /// What of pools, advertisements and namespaces the process goes on without.
    pub(crate) fn unlisted(&self) -> BTreeSet<Unlisted> {
        let Places { namespace, config_map, metallb, .. } = &self.places;
        let file = self.feeds.file.unlisted(Some((namespace, config_map)));
        let namespaces = self.feeds.namespaces.unlisted(None);
        let metallb = self.feeds.metallb.iter().zip(metallb);
        let metallb = metallb.flat_map(|(feeds, place)| feeds.unlisted(place));
        file.into_iter().chain(namespaces).chain(metallb).collect()
    }

    /// The same, of all kinds.
    pub(crate) fn forgone(&self) -> BTreeSet<Unlisted> {
        let others = [self.feeds.nodes.unlisted(None), self.feeds.service_cidrs.unlisted(None)];
        others.into_iter().flatten().chain(self.unlisted()).collect()
    }

    /// Waits for what a watch shows next. May be cancelled at any time.
    pub(crate) async fn next(&mut self) -> Shown {
        let feeds = &mut self.feeds;
        tokio::select! {
            event = feeds.file.next() => Shown::File(event),
            shown = next(&mut feeds.metallb) => Shown::MetalLb(shown),
            event = feeds.namespaces.next() => Shown::Namespace(event),
            event = feeds.nodes.next() => Shown::Node(event),
            event = feeds.node_leases.next() => Shown::NodeLease(event),
            event = feeds.service_cidrs.next() => Shown::ServiceCidr(event),
            event = feeds.records.next() => Shown::Record(event),
        }
    }

    /// The Leases of nodes that are gone for good, at the time `now` on a clock that never steps.
    pub(crate) fn leases_over(&mut self, now: Duration) -> Vec<LeaseToDelete> {
        let over = self.surroundings.leases_over(now);
        // A node that is not shown is not gone.
        if self.feeds.nodes.unlisted(None).is_some() { Vec::new() } else { over }
    }

    /// Takes note of it, and tells the index what follows.
    pub(crate) fn pass(&mut self, shown: Shown, index: &mut Index) {
        let feeds = &mut self.feeds;
        match shown {
            Shown::File(event) => feeds.file.pass(event, &mut self.file),
            Shown::MetalLb(shown) => {
                if let Some(feeds) = &mut feeds.metallb {
                    feeds.pass(shown, &mut self.metallb_file, &mut self.metallb);
                }
            }
            Shown::Namespace(event) => feeds.namespaces.pass(event, index),
            Shown::Node(event) => feeds.nodes.pass(event, &mut self.surroundings),
            Shown::NodeLease(event) => feeds.node_leases.pass(event, &mut self.surroundings),
            Shown::ServiceCidr(event) => {
                feeds.service_cidrs.pass(event, &mut self.surroundings);
            }
            Shown::Record(event) => {
                let mut records = Records { index, metallb: &mut self.metallb };
                feeds.records.pass(event, &mut records);
            }
        }
        self.warn_of_nothing();
        self.note_unlisted();
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
        let own = [
            feeds.file.undecodable(),
            feeds.namespaces.undecodable(),
            feeds.nodes.undecodable(),
            feeds.service_cidrs.undecodable(),
        ];
        own.into_iter()
            .chain(feeds.metallb.iter_mut().flat_map(MetalLbFeeds::undecodable))
            .collect()
    }

    /// Whether some object with pools cannot be decoded.
    pub(crate) fn have_undecodable_pools(&self) -> bool {
        let metallb = self.feeds.metallb.as_ref();
        self.feeds.file.is_partial() || metallb.is_some_and(MetalLbFeeds::are_partial)
    }

    /// The uids of such objects.
    pub(crate) fn left_out(&self) -> BTreeSet<String> {
        let metallb = self.feeds.metallb.iter().flat_map(MetalLbFeeds::left_out);
        self.feeds.file.left_out().chain(metallb).map(str::to_owned).collect()
    }

    /// The same of nodes' Leases and records, which are Leases, as locks are.
    pub(crate) fn undecodable_leases(&mut self) -> Undecodable {
        self.feeds.node_leases.undecodable().and(self.feeds.records.undecodable())
    }

    /// Who has us read `MetalLB` expects something there.
    fn warn_of_nothing(&mut self) {
        let listed = self.feeds.metallb.as_ref().is_some_and(MetalLbFeeds::are_listed);
        let Some(place) = self.unseen.take_if(|_| listed) else { return };
        if self.metallb.has_no_pools() && self.metallb_file.is_absent() {
            tracing::warn!(
                namespace = place.namespace,
                config_map = place.config_map,
                "no pools of MetalLB's are in this namespace: check --metallb-namespace"
            );
        }
    }
}

/// Waits for what a watch of `MetalLB`'s objects shows next; for ever where it is not read.
async fn next(feeds: &mut Option<MetalLbFeeds>) -> MetalLbShown {
    match feeds {
        Some(feeds) => feeds.next().await,
        None => std::future::pending().await,
    }
}

impl MetalLbFeeds {
    fn new(client: &Client, place: &MetalLbPlace, health: &Health) -> Self {
        let namespace = place.namespace.as_str();
        let all = Config::default;
        let pools = Api::namespaced(client.clone(), namespace);
        let legacy_pools = Api::namespaced(client.clone(), namespace);
        let advertisements = Api::namespaced(client.clone(), namespace);
        Self {
            file: file(client, namespace, &place.config_map, health.awaits("MetalLB's ConfigMap")),
            pools: Feed::new(pools, all(), health.awaits("IPAddressPools")),
            legacy_pools: Feed::new(legacy_pools, all(), health.awaits("MetalLB's AddressPools")),
            oldest_pools: None,
            advertisements: Feed::new(advertisements, all(), health.awaits("L2Advertisements")),
            client: client.clone(),
            namespace: namespace.to_owned(),
            health: health.clone(),
        }
    }

    /// Looks for `AddressPool`s in the version that came first, as long as they are not shown in the other one.
    fn look_for_oldest(&mut self, objects: &mut MetalLb) {
        if self.legacy_pools.is_lacking() {
            let (client, health) = (&self.client, &self.health);
            self.oldest_pools.get_or_insert_with(|| {
                let pools = Api::namespaced(client.clone(), &self.namespace);
                let awaited = health.awaits("MetalLB's AddressPools (v1alpha1)");
                if !self.legacy_pools.is_absent() {
                    // What is gone on without already keeps nobody from being ready.
                    awaited.done();
                }
                Feed::new(pools, Config::default(), awaited)
            });
        } else if let Some(feed) = self.oldest_pools.take() {
            feed.dismiss();
            Watched::<OldestPool>::reset(objects, Vec::new());
        }
    }

    fn undecodable(&mut self) -> Vec<Undecodable> {
        let present = [
            self.file.undecodable(),
            self.pools.undecodable(),
            self.legacy_pools.undecodable(),
            self.advertisements.undecodable(),
        ];
        let oldest = self.oldest_pools.as_mut().map(Feed::undecodable);
        present.into_iter().chain(oldest).collect()
    }

    fn left_out(&self) -> impl Iterator<Item = &str> {
        let pools = self.pools.left_out().chain(self.legacy_pools.left_out());
        let pools = pools.chain(self.oldest_pools.iter().flat_map(Feed::left_out));
        self.file.left_out().chain(pools).chain(self.advertisements.left_out())
    }

    fn are_partial(&self) -> bool {
        self.file.is_partial()
            || self.pools.is_partial()
            || self.legacy_pools.is_partial()
            || self.oldest_pools.as_ref().is_some_and(Feed::is_partial)
            || self.advertisements.is_partial()
    }

    fn are_listed(&self) -> bool {
        self.file.is_listed()
            && self.pools.is_listed()
            && self.legacy_pools.is_listed()
            && self.oldest_pools.as_ref().is_none_or(Feed::is_listed)
            && self.advertisements.is_listed()
    }

    /// Whoever goes on without a kind does not wait for another version of it.
    fn are_settled(&self) -> bool {
        let is_oldest_settled = || self.oldest_pools.as_ref().is_some_and(Feed::is_settled);
        (!self.legacy_pools.is_absent() || is_oldest_settled())
            && self.file.is_settled()
            && self.pools.is_settled()
            && self.legacy_pools.is_settled()
            && self.advertisements.is_settled()
    }

    fn go_on_without(&mut self) {
        self.file.go_on_without();
        self.pools.go_on_without();
        self.legacy_pools.go_on_without();
        self.oldest_pools.iter_mut().for_each(Feed::go_on_without);
        self.advertisements.go_on_without();
    }

    fn unlisted(&self, place: &MetalLbPlace) -> impl Iterator<Item = Unlisted> {
        let file = self.file.unlisted(Some((&place.namespace, &place.config_map)));
        let oldest = self.oldest_pools.as_ref();
        let legacy = self.legacy_pools.unlisted(None);
        let legacy = legacy.filter(|_| !oldest.is_some_and(|it| it.is_listed() && !it.is_absent()));
        let legacy = legacy.or_else(|| oldest.and_then(|it| it.unlisted(None)));
        let pools = self.pools.unlisted(None).into_iter().chain(legacy);
        file.into_iter().chain(pools).chain(self.advertisements.unlisted(None))
    }

    async fn next(&mut self) -> MetalLbShown {
        tokio::select! {
            event = self.file.next() => MetalLbShown::File(event),
            event = self.pools.next() => MetalLbShown::Pool(event),
            event = self.legacy_pools.next() => MetalLbShown::LegacyPool(event),
            event = next_oldest(&mut self.oldest_pools) => MetalLbShown::OldestPool(event),
            event = self.advertisements.next() => MetalLbShown::Advertisement(event),
        }
    }

    fn pass(&mut self, shown: MetalLbShown, file: &mut PoolFile, objects: &mut MetalLb) {
        match shown {
            MetalLbShown::File(event) => self.file.pass(event, file),
            MetalLbShown::Pool(event) => self.pools.pass(event, objects),
            MetalLbShown::LegacyPool(event) => self.legacy_pools.pass(event, objects),
            MetalLbShown::OldestPool(event) => {
                if let Some(feed) = &mut self.oldest_pools {
                    feed.pass(event, objects);
                }
            }
            MetalLbShown::Advertisement(event) => self.advertisements.pass(event, objects),
        }
        self.look_for_oldest(objects);
    }
}

async fn next_oldest(feed: &mut Option<Feed<OldestPool>>) -> Event<OldestPool> {
    match feed {
        Some(feed) => feed.next().await,
        None => std::future::pending().await,
    }
}

/// A watch of one `ConfigMap`, which need not exist.
fn file(client: &Client, namespace: &str, name: &str, awaited: Awaited) -> Feed<ConfigMap> {
    let named = Config::default().fields(&format!("metadata.name={name}"));
    Feed::new(Api::namespaced(client.clone(), namespace), named, awaited)
}

impl Feeds {
    fn new(client: &Client, places: &Places, health: &Health) -> Self {
        let all = Config::default;
        let metallb = places.metallb.as_ref();
        // The metadata of Namespaces is all that is asked for.
        let namespaces = Api::all(client.clone());
        let nodes = Api::all(client.clone());
        let [session, forwarder] = [Kind::Session, Kind::Forwarder].map(Kind::as_str);
        let of_nodes =
            Config::default().labels(&format!("{KIND_LABEL} in ({session}, {forwarder})"));
        let node_leases = Api::namespaced(client.clone(), &places.namespace);
        let service_cidrs = Api::all(client.clone());
        let records = Api::namespaced(client.clone(), &places.namespace);
        let of_records = Config::default().labels(last_good::SELECTOR);
        Self {
            file: file(
                client,
                &places.namespace,
                &places.config_map,
                health.awaits("the ConfigMap"),
            ),
            metallb: metallb.map(|place| MetalLbFeeds::new(client, place, health)),
            namespaces: Feed::new(namespaces, all(), health.awaits("Namespaces")),
            nodes: Feed::new(nodes, all(), health.awaits("Nodes")),
            node_leases: Feed::new(node_leases, of_nodes, health.awaits("Leases of nodes")),
            service_cidrs: Feed::new(service_cidrs, all(), health.awaits("ServiceCIDRs")),
            records: Feed::new(records, of_records, health.awaits("Leases of pools")),
        }
    }
}

//! What is watched on the API server.

use std::time::Duration;

use arpeggio_api::{endpoints, knowledge::Wants, lease, node, service::is_load_balancer};
use arpeggio_runtime::{
    health::Health,
    watch::{Change, Haste, UndecodableObjects, Watch},
};
use futures::future::OptionFuture;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, runtime::watcher::Config};
use tokio::time::Instant;

/// Sessions are renewed more often than this.
const LONGEST_SILENCE: Duration = Duration::from_secs(8);

/// The API server was away when it has not answered within so long a time.
const SETTLED: Duration = Duration::from_secs(2);

/// A watch of what no failover waits for is renewed at least this often, in seconds.
const LONGEST_WATCH: u32 = 290;

/// One change of one object, or a list.
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and not for long")]
#[derive(Debug)]
pub(crate) enum Shown {
    Lease(Change<Lease>),
    Service(Change<Service>),
    Slice(Change<EndpointSlice>),
    Node(Change<Node>),
}

/// The watches. Nodes and slices, which change often, are watched from when they matter for the first time: most clusters spread
/// no address.
pub(crate) struct Sources {
    client: Client,
    health: Health,
    objects: UndecodableObjects,
    leases: Watch<Lease>,
    /// When Leases were last told of.
    heard: Instant,
    services: Watch<Service>,
    nodes: Option<Watch<Node>>,
    slices: Option<Watch<EndpointSlice>>,
}

impl Sources {
    /// Without what it may not list the process decides by the rest, and is not ready: it says what it lacks.
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        health: &Health,
        objects: UndecodableObjects,
    ) -> Self {
        let ours = Config::default().labels(lease::SELECTOR);
        let leases = Api::namespaced(client.clone(), namespace);
        let services = Api::all(client.clone());
        let services = Watch::new(services, quiet(), Haste::Patient, health.awaits("Services"));
        let leases = Watch::new(leases, ours, Haste::Urgent, health.awaits("Leases"));
        Self {
            leases: leases.counted(&objects),
            heard: Instant::now(),
            services: services.slimmed(slim_service).counted(&objects),
            nodes: None,
            slices: None,
            health: health.clone(),
            objects,
            client,
        }
    }

    /// Begins to watch what was not wanted before.
    pub(crate) fn want(&mut self, wanted: Wants) {
        if wanted.nodes && self.nodes.is_none() {
            let (nodes, awaited) = (Api::all(self.client.clone()), self.health.awaits("Nodes"));
            let nodes = Watch::new(nodes, quiet(), Haste::Patient, awaited);
            self.nodes = Some(nodes.slimmed(node::slim).counted(&self.objects));
        }
        if wanted.slices && self.slices.is_none() {
            let awaited = self.health.awaits("EndpointSlices");
            let slices = Api::all(self.client.clone());
            let slices = Watch::new(slices, quiet(), Haste::Patient, awaited);
            self.slices = Some(slices.slimmed(endpoints::slim_counted).counted(&self.objects));
        }
    }

    /// Whether all Leases are known: without them nothing can be decided.
    pub(crate) fn has_leases(&self) -> bool {
        self.leases.is_listed()
    }

    /// Whether the API server, once it has told of Leases, does not tell what happens to them.
    pub(crate) fn are_silent(&self) -> bool {
        let fails = !self.leases.goes_well_for(SETTLED);
        self.has_leases() && (fails || self.heard.elapsed() > LONGEST_SILENCE)
    }

    /// Whether all that is watched is known.
    pub(crate) fn are_complete(&self) -> bool {
        self.has_leases()
            && self.services.is_listed()
            && self.nodes.as_ref().is_none_or(Watch::is_listed)
            && self.slices.as_ref().is_none_or(Watch::is_listed)
    }

    /// Waits for the next event, and says what follows from it. May be cancelled at any time.
    pub(crate) async fn next(&mut self) -> Option<Shown> {
        let Self { leases, heard, services, nodes, slices, .. } = self;
        tokio::select! {
            biased;
            event = leases.next() => {
                if event.is_ok() {
                    *heard = Instant::now();
                }
                leases.pass(event).map(Shown::Lease)
            }
            event = services.next() => services.pass(event).map(Shown::Service),
            Some(event) = OptionFuture::from(nodes.as_mut().map(Watch::next)) => {
                nodes.as_mut()?.pass(event).map(Shown::Node)
            }
            Some(event) = OptionFuture::from(slices.as_mut().map(Watch::next)) => {
                slices.as_mut()?.pass(event).map(Shown::Slice)
            }
        }
    }
}

fn quiet() -> Config {
    Config::default().timeout(LONGEST_WATCH)
}

/// Takes out of a Service what nobody here looks at: of one that is no load balancer, all. Before Kubernetes 1.31 the API server
/// selects none by their type.
fn slim_service(service: &mut Service) {
    (service.metadata.managed_fields, service.metadata.annotations) = (None, None);
    (service.metadata.labels, service.status) = (None, None);
    if !is_load_balancer(service) {
        service.spec = None;
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{api::core::v1::ServiceSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};

    use super::*;

    #[test]
    fn of_services_that_are_no_load_balancers_nothing_is_kept() {
        for (type_, expected) in [("LoadBalancer", true), ("ClusterIP", false)] {
            let spec = ServiceSpec { type_: Some(type_.to_owned()), ..ServiceSpec::default() };
            let metadata = ObjectMeta {
                name: Some("web".to_owned()),
                annotations: Some([("a".to_owned(), "b".to_owned())].into()),
                ..ObjectMeta::default()
            };
            let mut service = Service { metadata, spec: Some(spec), ..Service::default() };
            slim_service(&mut service);
            assert_eq!(service.spec.is_some(), expected, "{type_}");
            assert_eq!(service.metadata.annotations, None);
            assert_eq!(service.metadata.name.as_deref(), Some("web"));
        }
    }
}

//! `arpeggio explain service`: why a Service has its address, or none.
//!
//! What the controller said is shown beside what follows from the objects as they are now. Where the two differ, the
//! controller has not got round to it: it is not running, cannot reach the API server, or may not write.

mod afresh;
mod pools;
mod report;

use arpeggio_labels::Labels;
use std::fmt::Debug;

use anyhow::Context as _;
use arpeggio_api::{
    declaration::Declaration,
    leader, lease,
    lock::ServiceRef,
    service::{self, ServiceRecord},
};
use arpeggio_ipam::SharingTerms;
use arpeggio_runtime::wall_clock;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Namespace, Node, Service},
    events::v1::Event,
};
use kube::{Api, Client, api::ListParams};
use serde::de::DeserializeOwned;

use self::{pools::PlacesArgs, report::Report};

/// Which Service to explain.
#[derive(Debug, clap::Args)]
pub(crate) struct ServiceArgs {
    /// The Service: NAME in the namespace `default`, or NAMESPACE/NAME.
    #[arg(value_name = "[NAMESPACE/]NAME")]
    service: ServiceName,
    /// The spec.loadBalancerClass that the controller serves, if it was given one.
    #[arg(long, env = "ARPEGGIO_LOAD_BALANCER_CLASS", value_name = "CLASS")]
    load_balancer_class: Option<String>,
    #[command(flatten)]
    places: PlacesArgs,
}

/// A Service's namespace and name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ServiceName {
    namespace: String,
    name: String,
}

impl std::str::FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        if namespace.is_empty() || name.is_empty() || name.contains('/') {
            return Err("write NAME or NAMESPACE/NAME".to_owned());
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

/// All that an explanation is made from.
#[derive(Debug, Default)]
struct Evidence {
    service: Service,
    events: Vec<Event>,
    /// The labels of its namespace.
    namespace_labels: Labels,
    pools: Vec<Declaration>,
    /// The Services that it may share addresses with.
    others: Vec<Service>,
    nodes: Vec<Node>,
    /// Locks and sessions.
    leases: Vec<Lease>,
    /// The Lease of the controller that leads.
    leader: Option<Lease>,
}

/// Reads what there is to know, once, and renders it.
pub(crate) async fn show(
    client: Client,
    namespace: &str,
    args: &ServiceArgs,
) -> anyhow::Result<String> {
    let evidence = Evidence::read(&client, namespace, args).await?;
    let class = args.load_balancer_class.as_deref().filter(|class| !class.is_empty());
    Ok(Report::of(&evidence, class).render(wall_clock::now()))
}

impl Evidence {
    /// On which terms `holder` has the addresses that its locks give it, as far as that is known.
    fn terms_of(&self, holder: &ServiceRef) -> SharingTerms {
        let found = self.others.iter().find(|service| service::reference(service) == *holder);
        let class = found.and_then(|it| it.spec.as_ref()?.load_balancer_class.as_deref());
        match found.and_then(|it| ServiceRecord::parse(it, class).request) {
            Some(Ok(request)) => request.sharing.into(),
            _ => SharingTerms::Unknown,
        }
    }

    async fn read(client: &Client, namespace: &str, args: &ServiceArgs) -> anyhow::Result<Self> {
        let wanted = &args.service;
        let services: Api<Service> = Api::namespaced(client.clone(), &wanted.namespace);
        let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
        let events = Api::namespaced(client.clone(), &wanted.namespace);
        let about = format!("regarding.kind=Service,regarding.name={}", wanted.name);
        let service = services
            .get(&wanted.name)
            .await
            .with_context(|| format!("cannot read Service {}/{}", wanted.namespace, wanted.name))?;
        Ok(Self {
            others: sharers(client, &service).await?,
            service,
            events: listed("Events", &events, &ListParams::default().fields(&about)).await?,
            namespace_labels: namespace_labels(client, &wanted.namespace).await?,
            pools: pools::read(client, namespace, &args.places).await?,
            nodes: listed("Nodes", &Api::all(client.clone()), &ListParams::default()).await?,
            leases: listed("Leases", &leases, &ListParams::default().labels(lease::SELECTOR))
                .await?,
            leader: leases.get_opt(leader::NAME).await.context("cannot read the leader Lease")?,
        })
    }
}

/// Every Service, if this one asks to share its address with some.
async fn sharers(client: &Client, service: &Service) -> anyhow::Result<Vec<Service>> {
    let class = service.spec.as_ref().and_then(|spec| spec.load_balancer_class.as_deref());
    match ServiceRecord::parse(service, class).request {
        Some(Ok(request)) if request.sharing.is_some() => {
            listed("Services", &Api::all(client.clone()), &ListParams::default()).await
        }
        _ => Ok(Vec::new()),
    }
}

async fn namespace_labels(client: &Client, name: &str) -> anyhow::Result<Labels> {
    let api: Api<Namespace> = Api::all(client.clone());
    let namespace = api.get(name).await;
    let namespace = namespace.with_context(|| format!("cannot read Namespace {name}"))?;
    Ok(namespace.metadata.labels.unwrap_or_default())
}

async fn listed<K>(kind: &str, api: &Api<K>, params: &ListParams) -> anyhow::Result<Vec<K>>
where
    K: Clone + Debug + DeserializeOwned,
{
    let list = api.list(params).await.with_context(|| format!("cannot list {kind}"))?;
    Ok(list.items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_with_or_without_its_namespace() {
        let named = |text: &str| text.parse::<ServiceName>().map(|it| (it.namespace, it.name));
        assert_eq!(named("web"), Ok(("default".to_owned(), "web".to_owned())));
        assert_eq!(named("shop/web"), Ok(("shop".to_owned(), "web".to_owned())));
        for wrong in ["", "/", "a/", "/b", "a/b/c"] {
            assert!(named(wrong).is_err(), "{wrong:?}");
        }
    }
}

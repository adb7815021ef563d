//! `arpeggio explain service`: why a Service has its address, or none.
//!
//! What the controller said is shown beside what follows from the objects as they are now. Where the two differ, the
//! controller has not got round to it: it is not running, cannot reach the API server, or may not write.

mod client;
mod pools;
mod report;
mod strays;

use std::time::Duration;

use anyhow::Context as _;
use arpeggio_allocation::{Advice, Index, Periods, Watched as _, sources::Surroundings};
use arpeggio_api::{
    leader,
    lease::{self, Kind},
    service,
};
use arpeggio_runtime::{guarded::Guarded, server_clock};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Namespace, Node, Service},
        discovery::v1::EndpointSlice,
        events::v1::Event,
        networking::v1::ServiceCIDR,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Api, Client, ResourceExt as _, api::ListParams, core::PartialObjectMeta};

use self::{
    client::ClientArgs,
    pools::{PlacesArgs, Pools},
    report::Report,
    strays::Strays,
};
use crate::{
    gaps::Gap,
    global::Global,
    installed::{self, Duties},
    leading, paint,
    reader::Reader,
    service_name::ServiceName,
};
use tokio::time::sleep;

/// Which Service to explain.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServiceArgs {
    /// The Service: NAME in the namespace of -n, or NAMESPACE/NAME.
    #[arg(value_name = "[NAMESPACE/]NAME")]
    service: ServiceName,
    /// The spec.loadBalancerClass that the controller serves. Default: what its Deployment says, if you may read it.
    #[arg(long, env = "ARPEGGIO_LOAD_BALANCER_CLASS", value_name = "CLASS")]
    load_balancer_class: Option<String>,
    /// For how many seconds the controller leaves a Service an address that no pool allows any more.
    #[arg(long, env = "ARPEGGIO_GRACE_PERIOD", default_value_t = 600, value_name = "SECONDS")]
    grace_period: u32,
    #[command(flatten)]
    places: PlacesArgs,
    #[command(flatten)]
    client: ClientArgs,
}

impl ServiceArgs {
    /// What was not said, as the cluster has it.
    async fn completed(&self, client: &Client, namespace: &str) -> Self {
        let mut args = self.clone();
        if let Ok(duties) = Duties::read(client, namespace).await {
            args.places = args.places.or(duties.metallb);
            args.load_balancer_class = self.class().map(str::to_owned).or(duties.class);
        }
        if args.client.is_given() && installed::ignores_exclusion(client, namespace).await {
            args.client.ignore_exclusion();
        }
        args
    }

    /// The class that is served. An empty one, as an unset value in a manifest gives, means none.
    fn class(&self) -> Option<&str> {
        self.load_balancer_class.as_deref().filter(|class| !class.is_empty())
    }
}

/// All that an explanation is made from.
#[derive(Debug, Default)]
struct Evidence {
    service: Service,
    events: Vec<Event>,
    /// All Services, as far as they could be read; this one among them.
    services: Vec<Service>,
    namespaces: Vec<PartialObjectMeta<Namespace>>,
    pools: Pools,
    /// Pools that are nobody's, where the Service waits for one.
    strays: Strays,
    nodes: Vec<Node>,
    service_cidrs: Vec<ServiceCIDR>,
    /// Locks and sessions.
    leases: Vec<Lease>,
    /// Where a client is asked for, whose endpoints are on which node.
    slices: Vec<EndpointSlice>,
    /// The Lease of the controller that leads.
    leader: Option<Lease>,
    /// Whether it is renewed.
    leads: bool,
    /// What could not be read.
    gaps: Vec<Gap>,
}

/// Reads what there is to know, once, and renders it.
pub(crate) async fn show(global: &Global, args: &ServiceArgs) -> anyhow::Result<String> {
    let (client, namespace) = (global.connect().await?, global.system_namespace());
    let args = args.completed(&client, &namespace).await;
    let evidence = Evidence::read(global, client, &args).await?;
    let grace = Duration::from_secs(args.grace_period.into());
    let route = args.client.told(&evidence);
    let report = Report::of(&evidence, args.class(), grace, route);
    Ok(paint::shown(&report.render(server_clock::now())))
}

impl Evidence {
    /// Without the Service there is nothing to explain; without the rest, less.
    async fn read(global: &Global, client: Client, args: &ServiceArgs) -> anyhow::Result<Self> {
        let namespace = &global.system_namespace();
        let home = &args.service.home(global, &client)?;
        let name = args.service.name.as_str();
        let services: Api<Guarded<Service>> = Api::namespaced(client.clone(), home);
        let cannot = || format!("cannot read Service {home}/{name}");
        let service = services.get(name).await.with_context(cannot)?;
        let service = service.understood().with_context(cannot)?;
        let about = format!("regarding.kind=Service,regarding.name={name}");
        let of_arpeggio = ListParams::default().labels(lease::SELECTOR);
        let leading = ListParams::default().fields(&format!("metadata.name={}", leader::NAME));
        let mut reader = Reader::new(client);
        let waits = waits(&service);
        let evidence = Self {
            services: with(&service, reader.all().await),
            service,
            events: reader.inside(home, &ListParams::default().fields(&about)).await,
            namespaces: namespaces(&mut reader, home).await,
            pools: Pools::read(&mut reader, namespace, &args.places).await,
            strays: if waits {
                Strays::find(&mut reader, args.places.read()).await
            } else {
                Strays::default()
            },
            nodes: reader.all().await,
            service_cidrs: reader.all().await,
            leases: reader.inside(namespace, &of_arpeggio).await,
            slices: if args.client.is_given() { reader.all().await } else { Vec::new() },
            leads: false,
            leader: reader.inside(namespace, &leading).await.pop(),
            gaps: Vec::new(),
        };
        let leads = match &evidence.leader {
            Some(lease) if !leading::is_clear(lease, server_clock::now()) => {
                sleep(leading::RENEWAL).await;
                let later: Vec<Lease> = reader.inside(namespace, &leading).await;
                later.iter().any(|it| leading::is_renewed(std::slice::from_ref(lease), it))
            }
            lease => lease.is_some(),
        };
        // Clusters before Kubernetes 1.33 need not have the kind.
        reader.excuse::<ServiceCIDR>(None);
        reader.gaps.dedup();
        Ok(Self { gaps: reader.gaps, leads, ..evidence })
    }

    /// What the controller would do next, were it told all this at once, and which pools it would use as they were before.
    fn advice(
        &self,
        class: Option<&str>,
        grace: Duration,
        now: &Time,
    ) -> (Vec<Advice>, Vec<String>) {
        let periods = Periods { grace, ..Periods::default() };
        let mut index = Index::new(class.map(str::to_owned), periods);
        let mut surroundings = Surroundings::default();
        surroundings.reset(self.nodes.clone());
        surroundings.reset(self.sessions());
        surroundings.reset(self.service_cidrs.clone());
        surroundings.tell(&mut index);
        index.reset(self.namespaces.clone());
        self.pools.tell(&mut index);
        index.reset(self.leases.clone());
        index.reset(self.services.clone());
        index.all_listed();
        let used_as_before = index.used_as_before();
        (index.advice(&service::reference(&self.service), now), used_as_before)
    }

    fn sessions(&self) -> Vec<Lease> {
        let sessions = self.leases.iter().filter(|it| Kind::of(it) == Some(Kind::Session));
        sessions.cloned().collect()
    }
}

/// Whether the Service has no address. Others need not know who else has pools.
fn waits(service: &Service) -> bool {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.and_then(|it| it.ingress.as_ref()).is_none_or(Vec::is_empty)
}

/// The Services with this one as it was read, whether or not it is among them.
fn with(service: &Service, mut services: Vec<Service>) -> Vec<Service> {
    services.retain(|other| other.uid() != service.uid());
    services.push(service.clone());
    services
}

/// All of them; at least the one of the Service, which many may read who may not list them.
async fn namespaces(reader: &mut Reader, home: &str) -> Vec<PartialObjectMeta<Namespace>> {
    let mut namespaces: Vec<PartialObjectMeta<Namespace>> = reader.all().await;
    if !namespaces.iter().any(|it| it.name_any() == home) {
        namespaces.extend(reader.one(home).await);
    }
    namespaces
}

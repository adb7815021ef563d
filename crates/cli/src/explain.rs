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
    strays::{Read, Strays},
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
    /// For how many seconds the controller leaves a Service an address that no pool allows any more. Default: what its
    /// Deployment says, if you may read it, else 600.
    #[arg(long, env = "ARPEGGIO_GRACE_PERIOD", value_name = "SECONDS")]
    grace_period: Option<u32>,
    #[command(flatten)]
    places: PlacesArgs,
    #[command(flatten)]
    client: ClientArgs,
}

impl ServiceArgs {
    /// The same, with what the DaemonSet says of clients.
    async fn completed(&self, client: &Client, namespace: &str) -> Self {
        let mut args = self.clone();
        if args.client.is_given() && installed::ignores_exclusion(client, namespace).await {
            args.client.ignore_exclusion();
        }
        args
    }

    /// What the controller does: as the arguments have it and, where they say nothing, as it was told otherwise. An empty
    /// argument, as an unset value in a manifest gives, says nothing.
    fn over(&self, told: Duties) -> Duties {
        let class = given(self.load_balancer_class.as_ref()).or(told.class);
        let seconds = self.grace_period.map(u64::from);
        let grace = seconds.map_or(told.grace, Duration::from_secs);
        self.places.over(Duties { class, grace, ..told })
    }
}

/// What an argument says.
fn given(argument: Option<&String>) -> Option<String> {
    argument.filter(|it| !it.is_empty()).cloned()
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
    let duties = args.over(Duties::read(&client, &namespace).await.unwrap_or_default());
    let evidence = Evidence::read(global, client, &args, &duties).await?;
    let route = args.client.told(&evidence);
    let report = Report::of(&evidence, duties.class.as_deref(), duties.grace, route);
    Ok(paint::shown(&report.render(server_clock::now())))
}

impl Evidence {
    /// Without the Service there is nothing to explain; without the rest, less.
    async fn read(
        global: &Global,
        client: Client,
        args: &ServiceArgs,
        duties: &Duties,
    ) -> anyhow::Result<Self> {
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
            pools: Pools::read(&mut reader, namespace, duties).await,
            strays: if waits {
                Strays::find(&mut reader, Read::of(duties)).await
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Args {
        #[command(flatten)]
        service: ServiceArgs,
    }

    #[test]
    fn what_the_arguments_do_not_say_is_as_the_controller_was_told() {
        let told = || Duties {
            class: Some("arpeggio.dev/l2".to_owned()),
            grace: Duration::from_hours(1),
            config_map: "pools".to_owned(),
            key: "file".to_owned(),
            metallb: Some(("metallb-system".to_owned(), "old".to_owned())),
        };
        let over = |args: &[&str], told: Duties| {
            let args = ["service", "web"].iter().chain(args).copied();
            Args::parse_from(args).service.over(told)
        };
        assert_eq!(over(&[], told()), told());
        assert_eq!(over(&["--config-map=", "--load-balancer-class="], told()), told());
        assert_eq!(over(&[], Duties::default()), Duties::default());
        let others = [
            "--grace-period=7",
            "--config-map=mine",
            "--config-map-key=text",
            "--metallb-config-map=new",
        ];
        let expected = Duties {
            grace: Duration::from_secs(7),
            config_map: "mine".to_owned(),
            key: "text".to_owned(),
            metallb: Some(("metallb-system".to_owned(), "new".to_owned())),
            ..told()
        };
        assert_eq!(over(&others, told()), expected);
        let elsewhere = Some(("lb".to_owned(), "config".to_owned()));
        assert_eq!(over(&["--metallb-namespace=lb"], Duties::default()).metallb, elsewhere);
    }
}

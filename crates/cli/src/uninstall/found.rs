//! What there is of Arpeggio in a cluster.

use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr, time::Duration};

use anyhow::{Context as _, bail};
use arpeggio_api::{
    address_pool::AddressPool,
    leader, lease,
    service::{FIELD_MANAGER, ServiceRecord},
};
use arpeggio_runtime::server_clock;
use k8s_openapi::{
    api::{
        admissionregistration::v1::ValidatingAdmissionPolicy,
        apps::v1::{DaemonSet, Deployment},
        coordination::v1::Lease,
        core::v1::{PersistentVolumeClaim, Pod, Service, ServiceAccount},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, ObjectMeta},
    core::PartialObjectMeta,
};
use serde::de::DeserializeOwned;

use crate::{
    gaps::Gap,
    leading::{self, Leading},
    reader::{list, list_if_installed},
};

/// The Deployment of the controller.
pub(super) const CONTROLLER: &str = "arpeggio-controller";
/// The DaemonSet of the speakers.
pub(super) const SPEAKER: &str = "arpeggio-speaker";
/// What everything has that the manifests install.
pub(super) const LABEL: &str = "app.kubernetes.io/part-of=arpeggio";

/// What everything else in the namespace has not.
const OTHERS: &str = "app.kubernetes.io/part-of!=arpeggio";

/// Kubernetes' own namespaces, whatever is in them.
const OF_KUBERNETES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Where Helm notes the release that an object belongs to, and where that is.
const HELM_RELEASE: &str = "meta.helm.sh/release-name";
const HELM_NAMESPACE: &str = "meta.helm.sh/release-namespace";

/// A controller that lives renews its Lease every few seconds, and no clock is so wrong.
const SILENT: Duration = Duration::from_mins(10);

/// Everything that is to be removed, or that decides how.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "facts that have nothing to do with one another")]
pub(super) struct Found {
    pub(super) namespace: String,
    pub(super) has_controller: bool,
    pub(super) has_speakers: bool,
    /// The release by which Helm has installed it.
    pub(super) helm_release: Option<String>,
    /// Those in whose status the controller has written something.
    pub(super) services: Vec<ServiceRecord>,
    /// Sessions, locks, and the leader's.
    pub(super) leases: BTreeSet<String>,
    pub(super) pools: Vec<String>,
    /// Those of them that are values of the release, and go with it.
    pub(super) helm_pools: Vec<String>,
    /// Whether speakers' tokens are good for their own node only.
    pub(super) has_policy: bool,
    /// Whether others use the namespace, too: to delete it would delete what is theirs.
    pub(super) is_shared: bool,
    /// The API groups that the API server knows.
    pub(super) groups: BTreeSet<String>,
    /// The namespaces of other installations that decide.
    pub(super) others: Vec<String>,
}

impl Found {
    pub(super) async fn read(client: &Client, namespace: &str) -> anyhow::Result<Self> {
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
        let controller =
            deployments.get_opt(CONTROLLER).await.context("cannot read Deployments")?;
        let speakers: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
        let speakers = speakers.get_opt(SPEAKER).await.context("cannot read DaemonSets")?;
        let services: Vec<Service> = listed(Api::all(client.clone()), "").await?;
        let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
        let leases: Vec<Lease> = listed(leases, lease::EVERY_SELECTOR).await?;
        let leaders = leaders(client).await?;
        let own = leaders.iter().map(|it| &it.lease);
        let own = own.filter(|it| it.namespace().as_deref() == Some(namespace));
        // Their names are enough, and one whose spec is not understood has one, too.
        let pools: Vec<PartialObjectMeta<AddressPool>> =
            listed(Api::all(client.clone()), "").await?;
        let helm_release = match release_of(controller.iter().map(Deployment::meta), namespace) {
            Some(release) => Some(release),
            None => release_of_rest(client, speakers.as_ref(), namespace).await?,
        };
        let policies: Vec<ValidatingAdmissionPolicy> =
            listed(Api::all(client.clone()), LABEL).await?;
        Ok(Self {
            namespace: namespace.to_owned(),
            has_controller: controller.is_some(),
            has_speakers: speakers.is_some(),
            helm_pools: of_release(&pools, helm_release.as_deref(), namespace),
            helm_release,
            services: services.iter().filter(|it| bears_our_mark(it)).map(record).collect(),
            leases: leases.iter().chain(own).map(ResourceExt::name_any).collect(),
            pools: pools.iter().map(ResourceExt::name_any).collect(),
            has_policy: !policies.is_empty(),
            is_shared: is_shared(client, namespace).await?,
            groups: groups(client).await?,
            others: others(&leaders, namespace, server_clock::now()),
        })
    }

    /// Its controller would write again what is removed here.
    pub(super) fn refuse_if_another_one_decides(&self) -> anyhow::Result<()> {
        let Self { namespace, others, .. } = self;
        if !others.is_empty() {
            bail!(
                "another installation decides in namespace {}, and what it wrote cannot be told from what that in {namespace} wrote. \
                 To remove this one, delete its namespace; to remove the other one, name it by --system-namespace",
                others.join(", ")
            );
        }
        Ok(())
    }

    /// What would be done, in the order in which it would be done.
    pub(super) fn preview(&self, with_pools: bool) -> String {
        let namespace = &self.namespace;
        let mut text = String::new();
        let mut line = |line: String| _ = writeln!(text, "{line}");
        if self.has_controller {
            line(format!("would delete Deployment {namespace}/{CONTROLLER}"));
        }
        for service in &self.services {
            line(format!("would release Service {}", what_it_has(service)));
        }
        if self.has_speakers {
            line(format!("would delete DaemonSet {namespace}/{SPEAKER}"));
        }
        if !self.leases.is_empty() {
            line(format!("would delete {} Leases in namespace {namespace}", self.leases.len()));
        }
        if with_pools && !self.pools.is_empty() {
            line(format!("would delete AddressPools {}", self.pools.join(", ")));
        }
        if text.is_empty() {
            text = format!(
                "Arpeggio does not run in namespace {namespace}, and nothing that it wrote is left\n"
            );
        }
        text
    }
}

/// `shop/web (192.168.0.240)`.
pub(super) fn what_it_has(service: &ServiceRecord) -> String {
    let ingress = &service.ingress;
    if !ingress.is_ours() || ingress.addresses.is_empty() {
        return service.path();
    }
    let addresses: Vec<String> = ingress.addresses.iter().map(IpAddr::to_string).collect();
    format!("{} ({})", service.path(), addresses.join(", "))
}

pub(super) fn record(service: &Service) -> ServiceRecord {
    ServiceRecord::parse(service, None)
}

/// Whether anything in its status is the controller's.
pub(super) fn bears_our_mark(service: &Service) -> bool {
    service.managed_fields().iter().any(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.subresource.as_deref() == Some("status")
    })
}

/// The release in this namespace that the first of these belongs to which belongs to any.
fn release_of<'a>(
    objects: impl IntoIterator<Item = &'a ObjectMeta>,
    namespace: &str,
) -> Option<String> {
    let release = |it: &ObjectMeta| {
        let notes = it.annotations.as_ref()?;
        let place = notes.get(HELM_NAMESPACE);
        let is_here = place.is_none_or(|place| place == namespace);
        notes.get(HELM_RELEASE).filter(|_| is_here).cloned()
    };
    objects.into_iter().find_map(release)
}

/// The same where the Deployment is gone: this command deletes the workloads first, and may be given again. Its `ServiceAccount`s
/// stay for as long as the release does.
async fn release_of_rest(
    client: &Client,
    speakers: Option<&DaemonSet>,
    namespace: &str,
) -> anyhow::Result<Option<String>> {
    let accounts: Api<PartialObjectMeta<ServiceAccount>> =
        Api::namespaced(client.clone(), namespace);
    let accounts = listed(accounts, LABEL).await?;
    let rest = speakers.map(DaemonSet::meta).into_iter();
    Ok(release_of(rest.chain(accounts.iter().map(|it| &it.metadata)), namespace))
}

/// The names of the pools that belong to the release.
fn of_release(
    pools: &[PartialObjectMeta<AddressPool>],
    release: Option<&str>,
    namespace: &str,
) -> Vec<String> {
    let is_its = |it: &&PartialObjectMeta<AddressPool>| {
        release.is_some() && release_of([&it.metadata], namespace).as_deref() == release
    };
    pools.iter().filter(is_its).map(ResourceExt::name_any).collect()
}

/// Pods or data of others are what nobody wants to lose with the namespace.
async fn is_shared(client: &Client, namespace: &str) -> anyhow::Result<bool> {
    type Pods = Api<PartialObjectMeta<Pod>>;
    type Claims = Api<PartialObjectMeta<PersistentVolumeClaim>>;
    let pods: Pods = Api::namespaced(client.clone(), namespace);
    let claims: Claims = Api::namespaced(client.clone(), namespace);
    Ok(OF_KUBERNETES.contains(&namespace)
        || !listed(pods, OTHERS).await?.is_empty()
        || !listed(claims, OTHERS).await?.is_empty())
}

async fn groups(client: &Client) -> anyhow::Result<BTreeSet<String>> {
    let known = client.list_api_groups().await.context("cannot list the API server's groups")?;
    Ok(known.groups.into_iter().map(|it| it.name).collect())
}

async fn leaders(client: &Client) -> anyhow::Result<Vec<Leading>> {
    let leading = ListParams::default().fields(&format!("metadata.name={}", leader::NAME));
    let leases: Api<Lease> = Api::all(client.clone());
    let read = async || list(&leases, &leading).await.context("cannot list Leases");
    leading::look(read).await
}

/// The namespaces, other than ours, whose controller leads. One that has stepped down does not, and one that is not renewed only if that has
/// been so for long: it may be on its way back.
fn others(leaders: &[Leading], ours: &str, now: Timestamp) -> Vec<String> {
    let leads = |Leading { lease, renewed: is_renewed }: &&Leading| {
        let spec = lease.spec.as_ref();
        let renewed = spec.and_then(|spec| Some(spec.renew_time.as_ref()?.0));
        let lately = |renewed| now.duration_since(renewed).unsigned_abs() < SILENT;
        let counts = leader::is_of_arpeggio(lease) && (*is_renewed || renewed.is_none_or(lately));
        counts && leading::has_holder(lease)
    };
    let namespaces = leaders.iter().filter(leads).filter_map(|it| it.lease.namespace());
    namespaces.filter(|namespace| namespace != ours).collect()
}

/// All objects with the label. Without all of them nothing can be removed.
async fn listed<K>(api: Api<K>, label: &str) -> Result<Vec<K>, Gap>
where
    K: Clone + DeserializeOwned + std::fmt::Debug + Resource<DynamicType = ()>,
{
    list_if_installed(&api, &ListParams::default().labels(label)).await
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// An API server with a pool that no release understands and, in Arpeggio's namespace, this pod of others, if any.
    fn server(pod: Option<&'static str>) -> Client {
        let answer = move |request: Request<Body>| async move {
            let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
            let list = |items: Vec<serde_json::Value>| json!({ "metadata": {}, "items": items });
            let named = |name: &str| json!({ "metadata": { "name": name } });
            let of_others = query.contains("part-of%21%3Darpeggio");
            let (code, body) = match path.rsplit('/').next().unwrap_or_default() {
                "apis" => (200, json!({ "groups": [{ "name": "apps", "versions": [] }] })),
                "addresspools" => {
                    let mut pool = named("newer");
                    pool["spec"] = json!({ "addresses": [7] });
                    (200, list(vec![pool]))
                }
                "pods" if of_others => (200, list(pod.into_iter().map(named).collect())),
                CONTROLLER | SPEAKER => (
                    404,
                    json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404 }),
                ),
                _ => (200, list(vec![])),
            };
            Response::builder().status(code).body(Body::from(body.to_string().into_bytes()))
        };
        Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test]
    async fn a_pool_that_is_not_understood_keeps_nothing_from_being_removed() {
        let found = Found::read(&server(None), "lb").await.unwrap();
        assert_eq!(found.pools, ["newer"]);
    }

    /// Of a Helm installation, one object has to be there only.
    #[tokio::test]
    async fn the_release_is_known_also_when_the_workloads_are_gone() {
        for kind in [CONTROLLER, SPEAKER, "serviceaccounts", "nothing"] {
            let answer = move |request: Request<Body>| async move {
                let path = request.uri().path();
                let asked = path.rsplit('/').next().unwrap_or_default();
                let of = |name: &str, place: &str| {
                    let notes = json!({ HELM_RELEASE: "balancer", HELM_NAMESPACE: place });
                    json!({ "metadata": { "name": name, "annotations": notes },
                            "spec": { "selector": {}, "template": {} } })
                };
                let list =
                    |items: Vec<serde_json::Value>| json!({ "metadata": {}, "items": items });
                let missing = json!({ "status": "Failure", "reason": "NotFound", "code": 404 });
                let (code, body) = match asked {
                    "apis" => (200, json!({ "groups": [] })),
                    CONTROLLER | SPEAKER if asked != kind => (404, missing),
                    CONTROLLER | SPEAKER => (200, of(asked, "lb")),
                    "serviceaccounts" if asked == kind => (200, list(vec![of("a", "lb")])),
                    "addresspools" => {
                        let own = json!({ "metadata": { "name": "own" } });
                        (200, list(vec![of("value", "lb"), of("theirs", "other"), own]))
                    }
                    _ => (200, list(vec![])),
                };
                Response::builder().status(code).body(Body::from(body.to_string().into_bytes()))
            };
            let client = Client::new(tower::service_fn(answer), "default");
            let found = Found::read(&client, "lb").await.unwrap();
            let release = found.helm_release.as_deref();
            let expected = (kind != "nothing").then_some("balancer");
            assert_eq!(release, expected, "{kind}");
            let pools: &[&str] = if release.is_some() { &["value"] } else { &[] };
            assert_eq!(found.helm_pools, pools, "{kind}");
        }
    }

    #[tokio::test]
    async fn who_else_uses_the_namespace_is_noticed() {
        for (pod, namespace, shared) in
            [(None, "lb", false), (Some("db-0"), "lb", true), (None, "kube-system", true)]
        {
            let found = Found::read(&server(pod), namespace).await.unwrap();
            assert_eq!(found.is_shared, shared, "{pod:?} {namespace}");
            assert!(found.groups.contains("apps"));
        }
    }

    #[test]
    fn a_status_that_others_wrote_is_left_alone() {
        let service = |manager: &str, subresource: &str| -> Service {
            let fields = json!([{ "manager": manager, "subresource": subresource }]);
            serde_json::from_value(json!({ "metadata": { "managedFields": fields } })).unwrap()
        };
        assert!(bears_our_mark(&service(FIELD_MANAGER, "status")));
        assert!(!bears_our_mark(&service("kubectl", "status")));
        assert!(!bears_our_mark(&service(FIELD_MANAGER, "")));
    }

    #[test]
    fn where_another_installation_decides_nothing_is_removed() {
        let lease = |namespace: &str, holder: &str, renewed: &str| -> Lease {
            serde_json::from_value(json!({
                "metadata": {
                    "name": leader::NAME, "namespace": namespace,
                    "labels": { "app.kubernetes.io/managed-by": "arpeggio" },
                },
                "spec": { "holderIdentity": holder, "renewTime": renewed },
            }))
            .unwrap()
        };
        let led = |lease, renewed| Leading { lease, renewed };
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        let lately = "2026-01-01T11:59:58.000000Z";
        let leaders = [
            led(lease("lb", "one_1", lately), true),
            led(lease("stepped-down", "", lately), false),
            led(lease("dead", "three_3", "2026-01-01T11:00:00.000000Z"), false),
            led(lease("restarts", "two_2", lately), false),
            led(lease("other-clock", "five_5", "2026-01-01T11:00:00.000000Z"), true),
        ];
        let mut foreign = lease("operator", "four_4", lately);
        foreign.metadata.labels = None;
        assert!(
            others(&[led(foreign, true)], "lb", now).is_empty(),
            "another program calls its Lease the same"
        );
        let found = Found { others: others(&leaders, "lb", now), ..Found::default() };
        assert_eq!(found.others, ["restarts", "other-clock"]);
        assert!(found.refuse_if_another_one_decides().is_err());
        let alone = Found { others: others(&leaders[..3], "lb", now), ..Found::default() };
        assert!(alone.refuse_if_another_one_decides().is_ok());
    }

    #[test]
    fn a_preview_says_what_and_in_which_order() {
        let service = json!({
            "metadata": {
                "namespace": "shop", "name": "web",
                "managedFields": [{ "manager": FIELD_MANAGER, "fieldsV1": {
                    "f:status": { "f:loadBalancer": { "f:ingress": {} } } } }],
            },
            "status": { "loadBalancer": { "ingress": [{ "ip": "10.0.0.1" }] } },
        });
        let found = Found {
            namespace: "lb".to_owned(),
            has_controller: true,
            has_speakers: true,
            services: vec![record(&serde_json::from_value(service).unwrap())],
            leases: ["session-a".to_owned(), "address-10.0.0.1".to_owned()].into(),
            pools: vec!["home".to_owned()],
            ..Found::default()
        };
        let kept = "would delete Deployment lb/arpeggio-controller\n\
                    would release Service shop/web (10.0.0.1)\n\
                    would delete DaemonSet lb/arpeggio-speaker\n\
                    would delete 2 Leases in namespace lb\n";
        assert_eq!(found.preview(false), kept);
        assert_eq!(found.preview(true), format!("{kept}would delete AddressPools home\n"));
        let nothing = Found { namespace: "lb".to_owned(), ..Found::default() };
        assert!(nothing.preview(true).contains("nothing that it wrote is left"));
    }
}

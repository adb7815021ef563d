//! Other load balancers, by what they have in the cluster, and other installations of Arpeggio.

use std::collections::BTreeSet;

use arpeggio_api::leader;
use arpeggio_doctor::{Known, facts::Rival};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    coordination::v1::Lease,
    core::v1::{ConfigMap, Container, Pod, PodSpec},
};
use kube::{Api, Client, ResourceExt as _, api::ListParams};

use crate::{
    installed::{self, has_ended},
    leading,
};

use super::kubernetes::{get, list};

const METALLB: &str = "MetalLB";
const SERVICE_LB: &str = "k3s ServiceLB";
const KUBE_VIP: &str = "kube-vip";

/// The class of Services that kube-vip serves unless told otherwise.
const VIP_CLASS: &str = "kube-vip.io/kube-vip-class";

/// Programs that `MetalLB` has beside the one that serves Services, and others use without it.
const HELPERS: [&str; 2] = ["frr-k8s", "metallb-operator"];

/// Programs that serve Services of type LoadBalancer wherever they are, by a part of their images' names.
const PRODUCTS: [(&str, &str); 5] = [
    ("metallb", METALLB),
    ("klipper-lb", SERVICE_LB),
    ("purelb", "PureLB"),
    ("openelb", "OpenELB"),
    ("loxilb", "LoxiLB"),
];

/// Those that are recognised.
pub(super) async fn read(client: &Client) -> Known<Vec<Rival>> {
    let all = ListParams::default();
    let (deployments, sets): (Api<Deployment>, Api<DaemonSet>) =
        (Api::all(client.clone()), Api::all(client.clone()));
    let pods: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    let (deployments, sets, pods, cilium) = tokio::join!(
        list(&deployments, &all),
        list(&sets, &all),
        list(&pods, &all),
        cilium(client)
    );
    let mut rivals: Vec<Rival> = Vec::new();
    for it in deployments?.into_iter().filter(deployment_wants_pods) {
        let spec = it.spec.as_ref().and_then(|it| it.template.spec.as_ref());
        rivals.extend(recognised(spec, || object("Deployment", &it)));
    }
    for it in sets?.into_iter().filter(set_wants_pods) {
        let spec = it.spec.as_ref().and_then(|it| it.template.spec.as_ref());
        rivals.extend(recognised(spec, || object("DaemonSet", &it)));
    }
    // The kubelet itself starts these, so that no DaemonSet tells of them.
    let is_static = |pod: &&Pod| pod.annotations().contains_key("kubernetes.io/config.mirror");
    for it in pods?.iter().filter(is_static).filter(|it| !has_ended(it)) {
        rivals.extend(recognised(it.spec.as_ref(), || object("Pod", it)));
    }
    rivals.extend(cilium?);
    Ok(rivals)
}

/// What is scaled to 0 serves nobody.
fn deployment_wants_pods(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().and_then(|it| it.replicas) != Some(0)
}

/// The same: a `DaemonSet` is switched off by a selector that no node has.
fn set_wants_pods(set: &DaemonSet) -> bool {
    set.status.as_ref().is_none_or(|it| it.desired_number_scheduled != 0)
}

fn object<K: kube::Resource>(kind: &str, object: &K) -> String {
    format!("{kind} {}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

fn recognised(spec: Option<&PodSpec>, object: impl Fn() -> String) -> Option<Rival> {
    let (product, container) = spec?.containers.iter().find_map(|it| Some((product(it)?, it)))?;
    let classes = classes(product, container);
    Some(Rival { product: product.to_owned(), object: object(), classes })
}

fn product(container: &Container) -> Option<&'static str> {
    let image = container.image.as_deref().unwrap_or_default();
    if is_helper(program(image)) || checks_objects_only(container) {
        return None;
    }
    let known = PRODUCTS.iter().find(|(part, _)| image.contains(part)).map(|(_, name)| *name);
    known.or_else(|| (image.contains("kube-vip") && serves_services(container)).then_some(KUBE_VIP))
}

/// On Red Hat systems the operator has the name of the system in its own (`metallb-rhel9-operator`).
fn is_helper(program: &str) -> bool {
    let is_operator = program.starts_with("metallb") && program.ends_with("-operator");
    is_operator || HELPERS.contains(&program)
}

/// The operator of `MetalLB` runs a controller beside the real one that answers webhooks and serves no Services.
fn checks_objects_only(container: &Container) -> bool {
    installed::told(container, "--webhook-mode", "").as_deref() == Some("onlywebhooks")
}

/// The last part of an image's name, without its tag.
fn program(image: &str) -> &str {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split([':', '@']).next().unwrap_or(last)
}

/// The classes of the Services that a product serves, where its container says so.
fn classes(product: &str, container: &Container) -> Option<Vec<Option<String>>> {
    match product {
        METALLB => Some(vec![installed::told(container, "--lb-class", "")]),
        SERVICE_LB => Some(vec![None]),
        KUBE_VIP => {
            let named = installed::told(container, "--lbClassName", "lb_class_name");
            let named = named.unwrap_or_else(|| VIP_CLASS.to_owned());
            let only = is_set(container, "--lbClassOnly", "lb_class_only");
            Some([Some(named)].into_iter().chain((!only).then_some(None)).collect())
        }
        _ => None,
    }
}

/// kube-vip may only keep an address for the API server.
fn serves_services(container: &Container) -> bool {
    is_set(container, "--services", "svc_enable")
}

/// Whether a switch of a program in Go is on.
fn is_set(container: &Container, flag: &str, variable: &str) -> bool {
    let env = container.env.iter().flatten();
    let is_on = |arg: &String| match arg.strip_prefix(flag) {
        Some("") => true,
        Some(rest) => rest.strip_prefix('=').is_some_and(is_yes),
        None => false,
    };
    env.into_iter().any(|it| it.name == variable && it.value.as_deref().is_some_and(is_yes))
        || container.args.iter().flatten().any(is_on)
}

/// As Go reads it.
fn is_yes(value: &str) -> bool {
    ["1", "t", "true"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
}

/// Cilium has a load balancer of its own, which is at work where it was told so.
async fn cilium(client: &Client) -> Known<Option<Rival>> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let settings = get(&maps, "cilium-config").await?.and_then(|it| it.data).unwrap_or_default();
    let announces = settings.get("enable-l2-announcements").is_some_and(|it| it == "true");
    let object = "ConfigMap kube-system/cilium-config".to_owned();
    Ok(announces.then(|| Rival {
        product: "Cilium's L2 announcements".to_owned(),
        object,
        classes: None,
    }))
}

/// Other namespaces in which a controller of Arpeggio leads, or is to.
pub(super) async fn elsewhere(client: &Client, namespace: &str) -> Known<Vec<String>> {
    let leading = ListParams::default().fields(&format!("metadata.name={}", leader::NAME));
    let ours = "app.kubernetes.io/name=arpeggio,app.kubernetes.io/component=controller";
    let ours = ListParams::default().labels(ours);
    let (leases, deployments): (Api<Lease>, Api<Deployment>) =
        (Api::all(client.clone()), Api::all(client.clone()));
    // Other programs call theirs the same.
    let leaders = async || {
        let leases = list(&leases, &leading).await?;
        Ok::<_, String>(leases.into_iter().filter(leader::is_of_arpeggio).collect())
    };
    let (leases, deployments) = tokio::join!(leading::look(leaders), list(&deployments, &ours));
    let leases = leases?.into_iter().filter(|it| it.renewed);
    let namespaces = leases.filter_map(|it| it.lease.namespace());
    let deployments = deployments?.into_iter().filter(deployment_wants_pods);
    let namespaces: BTreeSet<String> =
        namespaces.chain(deployments.filter_map(|it| it.namespace())).collect();
    Ok(namespaces.into_iter().filter(|it| it != namespace).collect())
}

#[cfg(test)]
mod tests {
    use arpeggio_runtime::server_clock;
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// An API server with two leaders' Leases of the same name.
    fn with_two_leaders() -> Client {
        let answer = |request: Request<Body>| async move {
            let lease = |namespace: &str, labels: serde_json::Value| {
                json!({
                    "metadata": { "name": leader::NAME, "namespace": namespace, "labels": labels },
                    "spec": {
                        "holderIdentity": "a", "leaseDurationSeconds": 60,
                        "renewTime": server_clock::now(),
                    },
                })
            };
            let deployment = |namespace: &str, replicas: u32| {
                json!({
                    "metadata": { "name": "arpeggio-controller", "namespace": namespace },
                    "spec": { "replicas": replicas, "selector": {}, "template": {} },
                })
            };
            let path = request.uri().path();
            let items = if path.ends_with("/leases") {
                let ours = json!({ "app.kubernetes.io/managed-by": "arpeggio" });
                vec![lease("other", ours), lease("theirs", json!({}))]
            } else if path.ends_with("/deployments") {
                vec![deployment("starting", 2), deployment("off", 0)]
            } else {
                Vec::new()
            };
            let list = json!({ "metadata": {}, "items": items });
            Response::builder().status(200).body(Body::from(list.to_string().into_bytes()))
        };
        Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test(start_paused = true)]
    async fn neither_another_programs_leader_nor_what_is_scaled_to_0_is_an_installation() {
        let found = elsewhere(&with_two_leaders(), "lb").await;
        assert_eq!(found, Ok(vec!["other".to_owned(), "starting".to_owned()]));
    }

    #[tokio::test]
    async fn what_is_switched_off_serves_nothing() {
        let template = json!({ "spec": { "containers": [{ "name": "a", "image": "metallb/x" }] } });
        let deployment = |name: &str, replicas: serde_json::Value| {
            json!({ "metadata": { "name": name, "namespace": "lb" },
                    "spec": { "replicas": replicas, "selector": {}, "template": template } })
        };
        let set = |name: &str, desired: u32| {
            let status = json!({ "currentNumberScheduled": 0, "desiredNumberScheduled": desired,
                                 "numberMisscheduled": 0, "numberReady": 0 });
            json!({ "metadata": { "name": name, "namespace": "lb" }, "status": status,
                    "spec": { "selector": {}, "template": template } })
        };
        let deployments = [
            deployment("one", json!(null)),
            deployment("two", json!(2)),
            deployment("off", json!(0)),
        ];
        let sets = [set("somewhere", 1), set("nowhere", 0)];
        let answer = move |request: Request<Body>| {
            let path = request.uri().path();
            let items = if path.ends_with("/deployments") {
                deployments.to_vec()
            } else if path.ends_with("/daemonsets") {
                sets.to_vec()
            } else {
                Vec::new()
            };
            let list = json!({ "metadata": {}, "items": items });
            async move {
                Response::builder().status(200).body(Body::from(list.to_string().into_bytes()))
            }
        };
        let client = Client::new(tower::service_fn(answer), "default");
        let found = read(&client).await.unwrap();
        let objects: Vec<&str> = found.iter().map(|it| it.object.as_str()).collect();
        assert_eq!(objects, ["Deployment lb/one", "Deployment lb/two", "DaemonSet lb/somewhere"]);
    }

    #[test]
    fn products_are_told_by_their_images() {
        let of =
            |container: serde_json::Value| product(&serde_json::from_value(container).unwrap());
        let image = |image: &str| of(json!({ "name": "a", "image": image }));
        assert_eq!(image("quay.io/metallb/speaker:v0.16.1"), Some("MetalLB"));
        assert_eq!(image("rancher/klipper-lb:v0.4.9"), Some("k3s ServiceLB"));
        assert_eq!(image("registry.gitlab.com/purelb/purelb/lbnodeagent:v0.12"), Some("PureLB"));
        assert_eq!(image("docker.io/arpeggio/speaker:0.1.0"), None);
        assert_eq!(image("quay.io/metallb/frr-k8s:v0.0.20"), None, "it serves no Services");
        assert_eq!(image("quay.io/metallb/metallb-operator@sha256:0123"), None);
        assert_eq!(image("registry.redhat.io/openshift4/metallb-rhel9-operator:v4.19"), None);
        let controller = |argument: &str| {
            let image = "quay.io/metallb/controller:v0.16.1";
            of(json!({ "name": "a", "image": image, "args": ["--port=7472", argument] }))
        };
        assert_eq!(controller("--webhook-mode=onlywebhooks"), None, "the operator's");
        assert_eq!(controller("--webhook-mode=enabled"), Some("MetalLB"));
        let vip = "ghcr.io/kube-vip/kube-vip:v1.2.0";
        assert_eq!(image(vip), None, "it may serve the API server only");
        let env = json!([{ "name": "svc_enable", "value": "true" }]);
        assert_eq!(of(json!({ "name": "a", "image": vip, "env": env })), Some("kube-vip"));
        assert_eq!(
            of(json!({ "name": "a", "image": vip, "args": ["manager", "--services"] })),
            Some("kube-vip")
        );
        let with = |arg: &str| of(json!({ "name": "a", "image": vip, "args": ["manager", arg] }));
        assert_eq!(with("--services=true"), Some("kube-vip"));
        assert_eq!(with("--services=false"), None);
        let env = json!([{ "name": "svc_enable", "value": "1" }]);
        assert_eq!(of(json!({ "name": "a", "image": vip, "env": env })), Some("kube-vip"));
    }

    #[test]
    fn whom_a_product_serves_is_read_from_its_container() {
        let of = |product: &str, rest: serde_json::Value| {
            let mut container = json!({ "name": "a" });
            container.as_object_mut().unwrap().append(&mut rest.as_object().unwrap().clone());
            classes(product, &serde_json::from_value(container).unwrap())
        };
        let env = |name: &str, value: &str| json!({ "env": [{ "name": name, "value": value }] });
        let class = |name: &str| Some(name.to_owned());
        assert_eq!(of(METALLB, json!({})), Some(vec![None]));
        let args = json!({ "args": ["--port=7472", "--lb-class=metallb.io/metallb"] });
        assert_eq!(of(METALLB, args), Some(vec![class("metallb.io/metallb")]));
        assert_eq!(of(SERVICE_LB, json!({})), Some(vec![None]));
        assert_eq!(of(KUBE_VIP, json!({})), Some(vec![class(VIP_CLASS), None]));
        let only = env("lb_class_only", "true");
        assert_eq!(of(KUBE_VIP, only), Some(vec![class(VIP_CLASS)]));
        let named = env("lb_class_name", "vip");
        assert_eq!(of(KUBE_VIP, named), Some(vec![class("vip"), None]));
        let args = json!({ "args": ["manager", "--lbClassOnly", "--lbClassName", "vip"] });
        assert_eq!(of(KUBE_VIP, args), Some(vec![class("vip")]));
        assert_eq!(of("PureLB", json!({})), None);
    }
}

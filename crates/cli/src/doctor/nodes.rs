//! Nodes, kube-proxy and the cluster's own ranges.

use std::net::IpAddr;

use arpeggio_api::cluster::{ClusterRange, RangeUser, node_addresses};
use arpeggio_api::node;
use arpeggio_doctor::{
    Known,
    facts::{Node, Proxy},
};
use arpeggio_election::NodeFacts;
use arpeggio_ipam::AddressRange;
use k8s_openapi::api::{
    core::v1::{self, ConfigMap},
    networking::v1::ServiceCIDR,
};
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use serde::Deserialize;

use super::{
    kubernetes::{get, list},
    placement::keeps_off,
};

/// Labels of nodes that are no machines, where the DaemonSet has no pods.
const NO_MACHINES: [(&str, &str); 3] = [
    ("type", "virtual-kubelet"),
    ("liqo.io/type", "virtual-node"),
    ("eks.amazonaws.com/compute-type", "fargate"),
];

/// All nodes. `speakers`: what their DaemonSet says of its pods, once there is one.
pub(super) async fn read(client: &Client, speakers: Option<&v1::PodSpec>) -> Known<Vec<Node>> {
    let nodes = list(&Api::<v1::Node>::all(client.clone()), &ListParams::default()).await?;
    Ok(nodes.iter().map(|it| understood(it, speakers)).collect())
}

fn understood(object: &v1::Node, speakers: Option<&v1::PodSpec>) -> Node {
    let facts = node::facts(object, true);
    let label = |key: &str| facts.labels.get(key).map(String::as_str);
    let is_able = label("kubernetes.io/os").is_none_or(|it| it == "linux")
        && !NO_MACHINES.iter().any(|(key, value)| label(key) == Some(value));
    let kept_off = speakers.filter(|_| is_able).and_then(|it| keeps_off(it, object));
    Node {
        name: object.name_any(),
        ready: !facts.not_ready,
        excluded: facts.excluded,
        barred: barred(&facts),
        hosts_speakers: is_able && kept_off.is_none(),
        kept_off,
        addresses: node_addresses(object),
        internal: internal(object),
        pod_ranges: ClusterRange::of_node(object).into_iter().map(|it| it.range).collect(),
        labels: facts.labels,
    }
}

fn internal(object: &v1::Node) -> Vec<IpAddr> {
    let addresses = object.status.iter().flat_map(|it| it.addresses.iter().flatten());
    let internal = addresses.filter(|it| it.type_ == "InternalIP");
    internal.filter_map(|it| it.address.parse().ok()).collect()
}

/// What keeps a node from announcing until somebody changes it.
fn barred(facts: &NodeFacts) -> Option<String> {
    let why = if facts.network_unavailable {
        "its condition NetworkUnavailable is True"
    } else if facts.out_of_service {
        "it has the taint node.kubernetes.io/out-of-service"
    } else {
        return None;
    };
    Some(why.to_owned())
}

/// Where cluster addresses of Services are.
pub(super) async fn service_ranges(client: &Client) -> Known<Vec<(String, AddressRange)>> {
    let ranges = list(&Api::<ServiceCIDR>::all(client.clone()), &ListParams::default()).await?;
    let ranges = ranges.iter().flat_map(ClusterRange::of_service_cidr);
    Ok(ranges.map(|it| (said_by(&it.user), it.range)).collect())
}

fn said_by(user: &RangeUser) -> String {
    match user {
        RangeUser::Services(name) => format!("ServiceCIDR {name}"),
        RangeUser::Pods(node) => format!("node {node}"),
    }
}

/// What the cluster says of kube-proxy.
pub(super) async fn proxy(client: &Client) -> Known<Proxy> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let (proxy, cilium) = tokio::join!(get(&maps, "kube-proxy"), get(&maps, "cilium-config"));
    let configuration = proxy?.and_then(|it| it.data?.get("config.conf").cloned());
    let mut known = configuration.map_or(Ok(Proxy::default()), |it| configured(&it))?;
    let replaces = cilium?.and_then(|it| it.data?.get("kube-proxy-replacement").cloned());
    if replaces.is_some_and(|it| ["true", "strict"].contains(&it.as_str())) {
        known.replaced_by = Some("Cilium".to_owned());
    }
    Ok(known)
}

/// The part of a `KubeProxyConfiguration` that matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Configuration {
    mode: Option<String>,
    ipvs: Option<Ipvs>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ipvs {
    #[serde(rename = "strictARP")]
    strict_arp: Option<bool>,
}

fn configured(text: &str) -> Known<Proxy> {
    let configuration: Configuration = serde_saphyr::from_str(text)
        .map_err(|error| format!("ConfigMap kube-system/kube-proxy is not understood: {error}"))?;
    // What is not said is the default on Linux.
    let mode = configuration.mode.filter(|mode| !mode.is_empty());
    Ok(Proxy {
        mode: Some(mode.unwrap_or_else(|| "iptables".to_owned())),
        strict_arp: configuration.ipvs.and_then(|it| it.strict_arp).unwrap_or_default(),
        replaced_by: None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn speakers_run_on_machines_with_linux() {
        let table = [
            (None, true),
            (Some(("kubernetes.io/os", "linux")), true),
            (Some(("kubernetes.io/os", "windows")), false),
            (Some(("type", "virtual-kubelet")), false),
            (Some(("liqo.io/type", "virtual-node")), false),
            (Some(("type", "large")), true),
            (Some(("eks.amazonaws.com/compute-type", "fargate")), false),
        ];
        for (label, expected) in table {
            let mut object = v1::Node::default();
            let labels = label.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
            object.metadata.labels = Some(labels.collect());
            assert_eq!(understood(&object, None).hosts_speakers, expected, "{label:?}");
            let selector = [("arch".to_owned(), "amd64".to_owned())].into();
            let spec = v1::PodSpec { node_selector: Some(selector), ..v1::PodSpec::default() };
            let kept = understood(&object, Some(&spec));
            assert_eq!((kept.hosts_speakers, kept.kept_off.is_some()), (false, expected));
        }
        let manifest = include_str!("../../../../manifests/base/speaker.yaml");
        for (key, value) in NO_MACHINES {
            let left_out = format!("{{key: {key}, operator: NotIn, values: [{value}]}}");
            assert!(manifest.contains(&left_out), "{left_out}");
        }
    }

    #[test]
    fn why_a_node_never_announces_is_told() {
        let node =
            |object: serde_json::Value| understood(&serde_json::from_value(object).unwrap(), None);
        let condition = |status: &str| {
            let conditions = json!([{ "type": "NetworkUnavailable", "status": status }]);
            node(json!({ "metadata": { "name": "a" }, "status": { "conditions": conditions } }))
        };
        assert!(condition("True").barred.unwrap().contains("NetworkUnavailable"));
        assert_eq!(condition("False").barred, None);
        let addresses = json!([
            { "type": "InternalIP", "address": "192.168.0.11" },
            { "type": "ExternalIP", "address": "203.0.113.1" },
        ]);
        let both = node(json!({ "metadata": {}, "status": { "addresses": addresses } }));
        assert_eq!((both.addresses.len(), both.internal.len()), (2, 1));
        let taints = json!([{ "key": "node.kubernetes.io/out-of-service", "effect": "NoExecute" }]);
        let tainted = node(json!({ "metadata": { "name": "a" }, "spec": { "taints": taints } }));
        assert!(tainted.barred.unwrap().contains("out-of-service"));
    }

    #[test]
    fn kube_proxys_configuration_is_read() {
        let table = [
            ("mode: ipvs\nipvs:\n  strictARP: true\n", "ipvs", true),
            ("mode: ipvs\nipvs:\n  strictARP: false\n  scheduler: rr\n", "ipvs", false),
            ("mode: \"\"\nipvs: null\nclusterCIDR: 10.244.0.0/16\n", "iptables", false),
            ("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nmode: nftables\n", "nftables", false),
        ];
        for (text, mode, strict_arp) in table {
            let expected = Proxy { mode: Some(mode.into()), strict_arp, replaced_by: None };
            assert_eq!(configured(text), Ok(expected), "{text}");
        }
        assert!(configured("[").is_err());
    }
}

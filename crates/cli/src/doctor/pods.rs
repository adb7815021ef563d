//! Whether pods reach Services by their external addresses: the controllers' pods try it, which are there anyway, have the
//! pod network's addresses, and need no privilege for it.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use arpeggio_doctor::{
    Facts, Known,
    facts::{Asking, Component, Pod, Unasked},
    survey::Connect,
};
use k8s_openapi::api::{core::v1, networking::v1::NetworkPolicy};
use kube::{
    Api, Client,
    api::{AttachParams, ListParams},
};
use tokio::io::AsyncReadExt as _;

use super::{
    kubernetes::{each, list, within},
    surveyors::{PORTS, announced_places, at_most},
};
use crate::in_pod::refused;

/// Connections take a second at most, some at a time.
const PATIENCE: Duration = Duration::from_secs(9);
/// Pods of so many nodes are asked.
const PODS: usize = 2;

/// What each of them reaches, by its node.
pub(super) async fn ask(
    client: &Client,
    namespace: &str,
    facts: &Facts,
) -> (BTreeMap<String, Known<Vec<Connect>>>, Vec<Unasked>) {
    let pods = facts.installation.as_ref().map(|it| it.pods.as_slice()).unwrap_or_default();
    let able = pods.iter().filter(|it| is_able(it));
    let able: BTreeMap<String, Pod> =
        able.filter_map(|it| Some((it.node.clone()?, it.clone()))).take(PODS).collect();
    if let Err(why) = free_to_connect(client, namespace).await {
        return (able.into_keys().map(|node| (node, Err(why.clone()))).collect(), Vec::new());
    }
    let mut unasked = Vec::new();
    let of = |(node, pod): (String, Pod)| {
        let to = at_most(PORTS, places(facts, &pod), Asking::PodPorts, &node, &mut unasked);
        (node, pod.name, to)
    };
    let asked: Vec<(String, String, Vec<SocketAddr>)> = able.into_iter().map(of).collect();
    let ask = |(node, pod, to): (String, String, Vec<SocketAddr>)| async move {
        let tried = tried(client, namespace, &pod, &to);
        (node, within(PATIENCE, tried).await.and_then(|it| it))
    };
    (each(asked, ask).await.into_iter().collect(), unasked)
}

fn is_able(pod: &Pod) -> bool {
    pod.component == Component::Controller && pod.ready && !pod.ending && !pod.addresses.is_empty()
}

/// A refusal by a policy is no fault.
async fn free_to_connect(client: &Client, namespace: &str) -> Known<()> {
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let policies = list(&policies, &ListParams::default()).await?;
    let types = policies.iter().filter_map(|it| it.spec.as_ref()?.policy_types.as_ref()).flatten();
    if types.into_iter().any(|it| it == "Egress") {
        return Err("a NetworkPolicy says where pods of Arpeggio's namespace may connect to".into());
    }
    Ok(())
}

/// Where this pod ought to reach somebody.
fn places(facts: &Facts, pod: &Pod) -> Vec<SocketAddr> {
    let services = announced_places(facts, |service| &service.tcp);
    let is_for = |(service, place): &(&arpeggio_doctor::facts::Service, SocketAddr)| {
        service.lets_in(pod.addresses.iter().copied(), place.ip())
            && pod.addresses.iter().any(|it| it.is_ipv4() == place.is_ipv4())
            && pod.node.as_ref().is_some_and(|node| service.has_pod_for(node))
    };
    services.into_iter().filter(is_for).map(|(_, place)| place).collect()
}

async fn tried(
    client: &Client,
    namespace: &str,
    pod: &str,
    to: &[SocketAddr],
) -> Known<Vec<Connect>> {
    if to.is_empty() {
        return Ok(Vec::new());
    }
    let pods: Api<v1::Pod> = Api::namespaced(client.clone(), namespace);
    let to = to.iter().map(ToString::to_string);
    let command: Vec<String> =
        ["/arpeggio-controller", "reach"].map(str::to_owned).into_iter().chain(to).collect();
    let streams = AttachParams::default().container("controller").stdout(true).stderr(true);
    let mut process = pods.exec(pod, command, &streams).await.map_err(|error| refused(&error))?;
    let mut out = process.stdout().ok_or("no output")?;
    let mut said = String::new();
    out.read_to_string(&mut said).await.map_err(|error| error.to_string())?;
    understood(&said)
}

fn understood(said: &str) -> Known<Vec<Connect>> {
    let attempts: Vec<(SocketAddr, Option<String>)> = serde_json::from_str(said)
        .map_err(|_| "the controller of an earlier release cannot try it".to_owned())?;
    Ok(attempts.into_iter().map(|(to, error)| Connect { to, error }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_controller_says_is_read() {
        let said = "[[\"192.168.0.240:80\",null],[\"[fd00::1]:80\",\"no answer\"]]\n";
        let attempt = |to: &str, error: Option<&str>| Connect {
            to: to.parse().unwrap(),
            error: error.map(str::to_owned),
        };
        let expected =
            [attempt("192.168.0.240:80", None), attempt("[fd00::1]:80", Some("no answer"))];
        assert_eq!(understood(said).unwrap(), expected);
        assert!(understood("").unwrap_err().contains("earlier release"));
    }
}

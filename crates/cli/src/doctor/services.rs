//! Services of type `LoadBalancer`, and what is behind them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use arpeggio_api::{
    endpoints::{ServiceName, backends, service_of},
    service::{ADDRESS_ALLOCATED, ADDRESS_CONFLICT, FIELD_MANAGER, ServiceRecord},
};
use arpeggio_doctor::{
    Known,
    facts::{Service, Use, User},
};
use arpeggio_runtime::server_clock;
use ipnet::IpNet;
use k8s_openapi::{
    api::{
        core::v1,
        discovery::v1::{Endpoint, EndpointSlice},
    },
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt as _, api::ListParams};

use super::{kubernetes::list, leases::seconds_from};

/// A Service that is younger may not have been looked at yet.
const YOUNG: Duration = Duration::from_secs(5);

/// Where the ready endpoints of a Service are.
#[derive(Debug, Default)]
struct Ready {
    nodes: BTreeSet<String>,
    any: bool,
}

/// All of them, and who has addresses in other ways; `class` is the one that is served.
pub(super) async fn read(client: &Client, class: Option<&str>) -> Known<(Vec<Service>, Vec<Use>)> {
    let (services, slices): (Api<v1::Service>, Api<EndpointSlice>) =
        (Api::all(client.clone()), Api::all(client.clone()));
    let params = ListParams::default();
    let (services, slices) = tokio::join!(list(&services, &params), list(&slices, &params));
    let services = services?;
    let mut uses: Vec<Use> = services.iter().flat_map(used).collect();
    uses.extend(slices.iter().flatten().flat_map(pods));
    let ready = slices.ok().map(|slices| ready(&slices));
    let now = server_clock::now();
    let understood = |it: &v1::Service| understood(it, class, ready.as_ref(), now);
    Ok((services.iter().filter_map(understood).collect(), uses))
}

/// The addresses that a Service of any type has beside those in its status.
fn used(service: &v1::Service) -> Vec<Use> {
    let spec = service.spec.clone().unwrap_or_default();
    let path = format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any());
    let of = |by: User, addresses: Option<Vec<String>>| {
        let addresses = addresses.into_iter().flatten().filter_map(|it| it.parse().ok());
        addresses.map(|address| Use { address, by, service: path.clone() }).collect::<Vec<_>>()
    };
    [of(User::ClusterIp, spec.cluster_ips), of(User::ExternalIp, spec.external_ips)].concat()
}

/// The pods behind a Service. Others than pods may be anywhere.
fn pods(slice: &EndpointSlice) -> Vec<Use> {
    let Some((namespace, name)) = service_of(slice) else { return Vec::new() };
    let is_pod =
        |it: &&Endpoint| it.target_ref.as_ref().and_then(|it| it.kind.as_deref()) == Some("Pod");
    let addresses = slice.endpoints.iter().filter(is_pod).flat_map(|it| &it.addresses);
    let uses = addresses.filter_map(|it| {
        let service = format!("{namespace}/{name}");
        Some(Use { address: it.parse().ok()?, by: User::Pod, service })
    });
    uses.collect()
}

fn ready(slices: &[EndpointSlice]) -> BTreeMap<ServiceName, Ready> {
    let mut ready: BTreeMap<ServiceName, Ready> = BTreeMap::new();
    for (service, slice) in slices.iter().filter_map(|it| Some((service_of(it)?, it))) {
        let known = ready.entry(service).or_default();
        known.nodes.extend(backends(slice).ready.iter().map(ToString::to_string));
        let is_ready =
            |it: &Endpoint| it.conditions.as_ref().and_then(|it| it.ready).unwrap_or(true);
        known.any |= slice.endpoints.iter().any(is_ready);
    }
    ready
}

fn understood(
    service: &v1::Service,
    class: Option<&str>,
    ready: Option<&BTreeMap<ServiceName, Ready>>,
    now: Timestamp,
) -> Option<Service> {
    let record = ServiceRecord::parse(service, class);
    if !record.is_load_balancer {
        return None;
    }
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.unwrap_or_default();
    let protocol = |it: &v1::ServicePort| it.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let of = |wanted: &str| {
        let its = ports.iter().filter(|it| protocol(it) == wanted);
        its.filter_map(|it| u16::try_from(it.port).ok()).collect::<Vec<u16>>()
    };
    let (tcp, udp) = (of("TCP"), of("UDP"));
    let name = (service.namespace().unwrap_or_default(), service.name_any());
    let known = ready.map(|it| it.get(&name));
    let other_class =
        record.request.is_none().then(|| spec.load_balancer_class.unwrap_or_default());
    let writers = record.ingress.managers.iter().filter(|it| *it != FIELD_MANAGER);
    Some(Service {
        path: record.path(),
        other_class,
        addresses: record.ingress.addresses.clone(),
        other_ports: ports.len() - tcp.len() - udp.len(),
        tcp,
        udp,
        waits: waits(&record, now),
        conflict: true_condition(&record, ADDRESS_CONFLICT),
        writers: writers.cloned().collect(),
        local: record.is_local,
        selects: spec.selector.is_some_and(|it| !it.is_empty()),
        ready_on: known.map(|it| it.map(|it| it.nodes.clone()).unwrap_or_default()),
        has_endpoints: known.flatten().is_some_and(|it| it.any),
        lets_in: spec.load_balancer_source_ranges.filter(|it| !it.is_empty()).map(|it| ranges(&it)),
        ending: record.deleting_since.is_some(),
    })
}

/// What cannot be read lets nobody in.
fn ranges(written: &[String]) -> Vec<IpNet> {
    written.iter().filter_map(|it| it.trim().parse().ok()).collect()
}

fn waits(record: &ServiceRecord, now: Timestamp) -> Option<String> {
    match record.condition(ADDRESS_ALLOCATED) {
        Some(condition) if condition.status == "True" => None,
        Some(condition) => Some(condition.message.clone()),
        None => {
            let age = record.created.as_ref().map(|it| -seconds_from(it.0, now));
            let is_young =
                age.is_some_and(|age| age < i64::try_from(YOUNG.as_secs()).unwrap_or(i64::MAX));
            (record.ingress.addresses.is_empty() && !is_young).then(String::new)
        }
    }
}

fn true_condition(record: &ServiceRecord, kind: &str) -> Option<String> {
    let condition = record.condition(kind).filter(|it| it.status == "True");
    condition.map(|it| it.message.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(status: &serde_json::Value, managers: &serde_json::Value) -> v1::Service {
        serde_json::from_value(json!({
            "metadata": {
                "namespace": "shop", "name": "web", "uid": "u", "managedFields": managers,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {
                "type": "LoadBalancer", "ipFamilies": ["IPv4"], "selector": { "app": "web" },
                "ports": [
                    { "port": 80 }, { "port": 53, "protocol": "UDP" },
                    { "port": 9, "protocol": "SCTP" },
                ],
                "loadBalancerSourceRanges": [" 10.0.0.0/8"],
            },
            "status": status,
        }))
        .unwrap()
    }

    fn read(service: &v1::Service, class: Option<&str>) -> Service {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4",
            "metadata": { "namespace": "shop", "labels": { "kubernetes.io/service-name": "web" } },
            "endpoints": [{ "addresses": ["10.244.1.7"], "nodeName": "node-1" }],
        }))
        .unwrap();
        let ready = ready(&[slice]);
        understood(service, class, Some(&ready), "2026-01-01T00:01:00Z".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_service_says_what_it_has_and_lacks() {
        let managers = json!([
            { "manager": "k3s", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
              "fieldsV1": { "f:status": { "f:loadBalancer": { "f:ingress": {} } } } },
        ]);
        let status = json!({ "loadBalancer": { "ingress": [{ "ip": "192.168.0.240" }] } });
        let found = read(&service(&status, &managers), None);
        assert_eq!((found.tcp, found.udp, found.other_ports), (vec![80], vec![53], 1));
        assert_eq!(found.lets_in, Some(vec!["10.0.0.0/8".parse().unwrap()]));
        assert_eq!(found.writers, ["k3s"]);
        assert_eq!(found.ready_on, Some(["node-1".to_owned()].into()));
        assert!(found.has_endpoints && found.selects && found.other_class.is_none());
        assert_eq!(found.waits, None);
    }

    #[test]
    fn who_else_has_an_address_is_told() {
        let service: v1::Service = serde_json::from_value(json!({
            "metadata": { "namespace": "shop", "name": "db" },
            "spec": { "clusterIP": "None", "clusterIPs": ["None", "10.96.0.7"],
                      "externalIPs": ["192.168.0.240"] },
        }))
        .unwrap();
        let of = |it: Vec<Use>| -> Vec<(String, User)> {
            it.into_iter().map(|it| (it.address.to_string(), it.by)).collect()
        };
        let expected = [
            ("10.96.0.7".to_owned(), User::ClusterIp),
            ("192.168.0.240".to_owned(), User::ExternalIp),
        ];
        assert_eq!(of(used(&service)), expected);
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4",
            "metadata": { "namespace": "shop", "labels": { "kubernetes.io/service-name": "db" } },
            "endpoints": [
                { "addresses": ["10.244.1.7"], "targetRef": { "kind": "Pod", "name": "db-0" } },
                { "addresses": ["192.168.0.9"] },
            ],
        }))
        .unwrap();
        assert_eq!(of(pods(&slice)), [("10.244.1.7".to_owned(), User::Pod)]);
    }

    #[test]
    fn who_waits_says_why() {
        let condition = json!({ "conditions": [{
            "type": ADDRESS_ALLOCATED, "status": "False", "reason": "AllocationFailed",
            "message": "full", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }] });
        assert_eq!(read(&service(&condition, &json!([])), None).waits.as_deref(), Some("full"));
        let unseen = read(&service(&json!({}), &json!([])), None);
        assert_eq!(unseen.waits.as_deref(), Some(""));
        let theirs = read(&service(&json!({}), &json!([])), Some("ours"));
        assert!(theirs.other_class.is_some());
    }
}

//! What a `Service` asks for, what it has, and what the controller writes about it.
//!
//! | where | meaning |
//! |---|---|
//! | `spec.type`, `spec.loadBalancerClass` | whether the Service is ours at all |
//! | annotation `arpeggio.dev/address-pool` | the pool to take the address from; `metallb.io/` and `metallb.universe.tf/` mean the same |
//! | `spec.ipFamilies`, `spec.ipFamilyPolicy` | which families the address may have |
//! | `status.loadBalancer.ingress` | the addresses that the Service has |
//! | `status.conditions`, type `arpeggio.dev/AddressAllocated` | whether it has what it asks for, and why not |

use std::net::IpAddr;

use arpeggio_ipam::Family;
use k8s_openapi::{
    api::core::v1::{LoadBalancerIngress, ObjectReference, Service, ServiceSpec},
    apimachinery::pkg::apis::meta::v1::{Condition, ManagedFieldsEntry},
};
use kube::Resource;
use serde_json::{Value, json};

use crate::{condition, lock::ServiceRef};

/// The field manager of all that the controller writes (`managedFields[].manager`).
pub const FIELD_MANAGER: &str = "arpeggio-controller";

/// The type of the condition that says whether a Service has its addresses.
pub const ADDRESS_ALLOCATED: &str = "arpeggio.dev/AddressAllocated";

/// The annotations that name a pool; an earlier one counts more than a later one. A blank value counts as absent.
pub const POOL_ANNOTATIONS: [&str; 3] =
    ["arpeggio.dev/address-pool", "metallb.io/address-pool", "metallb.universe.tf/address-pool"];

/// A Service, understood.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceRecord {
    /// Which Service it is.
    pub service: ServiceRef,
    /// `metadata.resourceVersion`, as the number that it is; 0 when it is none.
    pub version: u64,
    /// Whether it is of type `LoadBalancer`, for us or for somebody else.
    pub is_load_balancer: bool,
    /// What it asks us for; `None` when it is not for us.
    pub request: Option<ServiceRequest>,
    /// What it has.
    pub ingress: Ingress,
    /// What its condition [`ADDRESS_ALLOCATED`] says so far.
    pub condition: Option<Condition>,
}

/// What a Service asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRequest {
    /// The only pool that will do.
    pub pool: Option<String>,
    /// The families of its cluster addresses, the primary one first; never empty.
    pub families: Vec<Family>,
    /// Whether nothing less than one address of each family will do (`RequireDualStack`).
    pub needs_both_families: bool,
}

/// What `status.loadBalancer.ingress` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ingress {
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether there are entries that are not addresses, which we never write.
    pub has_others: bool,
    /// The field managers of the list. It is of one piece: the last one to change it is alone.
    pub managers: Vec<String>,
}

impl ServiceRecord {
    /// Reads a Service. It is for us when it is of type `LoadBalancer` and its `loadBalancerClass` is `class`; without
    /// a `class`, when it has none.
    pub fn parse(service: &Service, class: Option<&str>) -> Self {
        let metadata = &service.metadata;
        let version = metadata.resource_version.as_deref().and_then(|text| text.parse().ok());
        let status = service.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref());
        Self {
            service: reference(service),
            version: version.unwrap_or_default(),
            is_load_balancer: is_load_balancer(service),
            request: ServiceRequest::parse(service, class),
            ingress: Ingress::parse(service),
            condition: condition::of_type(conditions.unwrap_or_default(), ADDRESS_ALLOCATED)
                .cloned(),
        }
    }

    /// `NAMESPACE/NAME`, for people.
    pub fn path(&self) -> String {
        format!("{}/{}", self.service.namespace, self.service.name)
    }

    /// How events refer to it.
    pub fn object_reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            namespace: Some(self.service.namespace.clone()),
            name: Some(self.service.name.clone()),
            uid: Some(self.service.uid.clone()),
            ..ObjectReference::default()
        }
    }

    /// The server-side apply of all that we have to say in this Service's status. What an earlier one said and this one
    /// does not is removed. It is refused with 409 when the Service has changed since it was read.
    ///
    /// Without `addresses` the list is left to whoever else wrote it; ours is removed.
    pub fn status_patch(&self, addresses: &[IpAddr], condition: Option<&Condition>) -> Value {
        let mut status = json!({});
        if !addresses.is_empty() {
            let ingress = addresses.iter().map(|ip| json!({ "ip": ip, "ipMode": "VIP" }));
            status["loadBalancer"] = json!({ "ingress": ingress.collect::<Vec<_>>() });
        }
        if let Some(condition) = condition {
            status["conditions"] = json!([condition]);
        }
        json!({
            "apiVersion": Service::api_version(&()),
            "kind": Service::kind(&()),
            "metadata": {
                "name": self.service.name,
                "namespace": self.service.namespace,
                "uid": self.service.uid,
                "resourceVersion": self.version.to_string(),
            },
            "status": status,
        })
    }
}

/// Which Service this is.
pub fn reference(service: &Service) -> ServiceRef {
    let metadata = &service.metadata;
    ServiceRef {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
    }
}

impl ServiceRequest {
    fn parse(service: &Service, class: Option<&str>) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        if !is_load_balancer(service) || spec.load_balancer_class.as_deref() != class {
            return None;
        }
        Some(Self {
            pool: pool(service),
            families: families(spec),
            needs_both_families: spec.ip_family_policy.as_deref() == Some("RequireDualStack"),
        })
    }

    /// The family of the Service's first cluster address.
    pub fn primary_family(&self) -> Family {
        self.families.first().copied().unwrap_or(Family::V4)
    }
}

fn is_load_balancer(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer")
}

/// The pool that the first non-blank annotation names.
fn pool(service: &Service) -> Option<String> {
    let annotations = service.metadata.annotations.as_ref()?;
    let mut values = POOL_ANNOTATIONS.into_iter().filter_map(|key| annotations.get(key));
    values.find(|value| !value.trim().is_empty()).map(|value| value.trim().to_owned())
}

/// The API server fills the list in; without one, the cluster is taken to be of IPv4.
fn families(spec: &ServiceSpec) -> Vec<Family> {
    let names = spec.ip_families.iter().flatten();
    let families: Vec<Family> = names.filter_map(|name| family(name)).collect();
    if families.is_empty() { vec![Family::V4] } else { families }
}

fn family(name: &str) -> Option<Family> {
    match name {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    }
}

impl Ingress {
    fn parse(service: &Service) -> Self {
        let status = service.status.as_ref();
        let balancer = status.and_then(|status| status.load_balancer.as_ref());
        let entries = balancer.and_then(|it| it.ingress.as_deref()).unwrap_or_default();
        let addresses: Vec<IpAddr> = entries.iter().filter_map(address).collect();
        Self {
            has_others: addresses.len() < entries.len(),
            addresses,
            managers: managers(service.metadata.managed_fields.as_deref().unwrap_or_default()),
        }
    }

    /// Whether the controller wrote the list, and nobody has changed it since.
    pub fn is_ours(&self) -> bool {
        self.managers.iter().any(|manager| manager == FIELD_MANAGER)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && !self.has_others
    }
}

fn address(entry: &LoadBalancerIngress) -> Option<IpAddr> {
    entry.ip.as_deref()?.parse().ok()
}

/// Who manages `status.loadBalancer.ingress` (server-side apply's `fieldsV1`).
fn managers(entries: &[ManagedFieldsEntry]) -> Vec<String> {
    const INGRESS: &str = "/f:status/f:loadBalancer/f:ingress";
    let manages = |entry: &&ManagedFieldsEntry| {
        entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer(INGRESS).is_some())
    };
    entries.iter().filter(manages).filter_map(|entry| entry.manager.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(changes: &Value) -> Service {
        let mut service = json!({
            "metadata": {
                "namespace": "default", "name": "web", "uid": "6f0c", "resourceVersion": "7",
            },
            "spec": { "type": "LoadBalancer", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack" },
        });
        for (pointer, value) in changes.as_object().unwrap() {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            service.pointer_mut(parent).unwrap()[key] = value.clone();
        }
        serde_json::from_value(service).unwrap()
    }

    fn parse(changes: &Value) -> ServiceRecord {
        ServiceRecord::parse(&service(changes), None)
    }

    #[test]
    fn only_load_balancers_of_our_class_are_ours() {
        let table = [
            (json!({}), None, true),
            (json!({ "/spec/type": "ClusterIP" }), None, false),
            (json!({ "/spec/loadBalancerClass": "other" }), None, false),
            (json!({ "/spec/loadBalancerClass": "home" }), Some("home"), true),
            (json!({ "/spec/loadBalancerClass": "other" }), Some("home"), false),
            (json!({}), Some("home"), false),
        ];
        for (changes, class, ours) in table {
            let record = ServiceRecord::parse(&service(&changes), class);
            assert_eq!(record.request.is_some(), ours, "{changes} with class {class:?}");
        }
    }

    #[test]
    fn our_annotation_counts_most_and_blank_counts_as_absent() {
        let [ours, stable, deprecated] = POOL_ANNOTATIONS;
        let table = [
            (json!({}), None),
            (json!({ ours: "a", stable: "b", deprecated: "c" }), Some("a")),
            (json!({ stable: "b", deprecated: "c" }), Some("b")),
            (json!({ deprecated: " c " }), Some("c")),
            (json!({ ours: " ", stable: "", deprecated: "c" }), Some("c")),
            (json!({ ours: " " }), None),
        ];
        for (annotations, pool) in table {
            let record = parse(&json!({ "/metadata/annotations": annotations }));
            assert_eq!(record.request.unwrap().pool.as_deref(), pool, "{annotations}");
        }
    }

    #[test]
    fn the_first_family_is_the_primary_one() {
        let primary = |changes: Value| parse(&changes).request.unwrap().primary_family();
        assert_eq!(primary(json!({})), Family::V4);
        assert_eq!(primary(json!({ "/spec/ipFamilies": ["IPv6", "IPv4"] })), Family::V6);
        assert_eq!(primary(json!({ "/spec/ipFamilies": null })), Family::V4);
    }

    #[test]
    fn what_others_wrote_is_told_from_what_we_wrote() {
        let fields = json!({ "f:status": { "f:loadBalancer": { "f:ingress": {} } } });
        let entry = |manager: &str| json!([{ "manager": manager, "fieldsV1": fields }]);
        let status = json!({ "loadBalancer": { "ingress": [{ "ip": "10.0.0.1" }] } });
        let record = parse(&json!({ "/status": status, "/metadata/managedFields": entry("x") }));
        assert_eq!(record.ingress.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!((record.ingress.is_ours(), record.ingress.has_others), (false, false));

        let status = json!({ "loadBalancer": { "ingress": [{ "hostname": "a.example" }] } });
        let changes = json!({ "/status": status, "/metadata/managedFields": entry(FIELD_MANAGER) });
        let record = parse(&changes);
        assert_eq!((record.ingress.is_ours(), record.ingress.has_others), (true, true));
    }

    #[test]
    fn the_patch_says_what_it_is_for_and_leaves_out_what_is_not_ours() {
        let record = parse(&json!({}));
        let patch = record.status_patch(&["10.0.0.1".parse().unwrap()], None);
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        let expected =
            json!({ "loadBalancer": { "ingress": [{ "ip": "10.0.0.1", "ipMode": "VIP" }] } });
        assert_eq!(patch["status"], expected);
        assert_eq!(record.status_patch(&[], None)["status"], json!({}));
    }
}

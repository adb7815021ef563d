//! What others write on objects, and the API server takes, costs nobody the object.
#![cfg(test)]

use std::fmt::Debug;

use arpeggio_runtime::guarded::Guarded;
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingAdmissionPolicy,
    coordination::v1::Lease,
    core::v1::{Namespace, Node, Service},
    discovery::v1::EndpointSlice,
    events::v1::Event,
    networking::v1::ServiceCIDR,
};
use kube::{Resource, core::PartialObjectMeta};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// An object of the kind with these parts.
fn read<K>(parts: &Value) -> K
where
    K: Resource<DynamicType = ()> + Debug + DeserializeOwned,
{
    let mut object = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "metadata": { "name": "theirs", "namespace": "shop" },
    });
    object.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
    let object: Guarded<K> = serde_json::from_value(object).unwrap();
    object.0.unwrap_or_else(|why| panic!("{}: {why}: {parts}", K::kind(&())))
}

/// A time, what Go makes of one that a program leaves out, and one that Go knows and the calendar here does not.
fn times() -> [Value; 3] {
    [json!("2026-01-01T00:00:00Z"), Value::Null, json!("9999-12-31T23:59:59Z")]
}

fn with_condition(time: &Value) -> Value {
    let condition = json!({
        "type": "example.com/Checked", "status": "True", "reason": "Fine", "message": "",
        "lastTransitionTime": time, "lastHeartbeatTime": time,
    });
    json!({ "status": { "conditions": [condition] } })
}

#[test]
fn a_condition_without_a_time_or_with_a_late_one_is_one() {
    for time in times() {
        let parts = with_condition(&time);
        let service: Service = read(&parts);
        let conditions = service.status.unwrap().conditions.unwrap();
        assert_eq!(conditions[0].type_, "example.com/Checked", "{time}");
        let node: Node = read(&parts);
        assert_eq!(node.status.unwrap().conditions.unwrap()[0].status, "True", "{time}");
        read::<ServiceCIDR>(&parts);
        read::<ValidatingAdmissionPolicy>(&parts);
        read::<Namespace>(&parts);
    }
}

#[test]
fn other_times_are_not_in_the_way_either() {
    for time in times() {
        read::<Lease>(&json!({ "spec": { "renewTime": time, "acquireTime": time } }));
        let series = json!({ "count": 2, "lastObservedTime": time });
        read::<Event>(&json!({ "eventTime": time, "series": series }));
    }
}

#[test]
fn what_go_has_no_list_for_is_an_empty_one() {
    let none = Value::Null;
    let slice: EndpointSlice =
        read(&json!({ "addressType": "IPv4", "endpoints": none, "ports": none }));
    assert!(slice.endpoints.is_empty());
    let endpoints = json!([{ "addresses": ["10.244.0.7"], "conditions": none, "nodeName": none }]);
    read::<EndpointSlice>(&json!({ "addressType": "IPv4", "endpoints": endpoints, "ports": none }));
    read::<Service>(&json!({ "spec": none, "status": none }));
    let spec = json!({ "ports": none, "selector": none, "ipFamilies": none, "externalIPs": none });
    let status = json!({ "conditions": none, "loadBalancer": { "ingress": none } });
    read::<Service>(&json!({ "spec": spec, "status": status }));
    let spec = json!({ "taints": none, "podCIDRs": none });
    let status = json!({ "addresses": none, "conditions": none, "allocatable": none });
    read::<Node>(&json!({ "spec": spec, "status": status }));
    let metadata = json!({ "name": "a", "labels": none, "annotations": none, "managedFields": none, "creationTimestamp": none });
    read::<PartialObjectMeta<Namespace>>(&json!({ "metadata": metadata }));
    read::<Lease>(&json!({ "spec": none }));
}

/// A condition is no excuse for the rest of the object.
#[test]
fn what_nobody_can_understand_is_told() {
    let bad = json!({ "metadata": { "name": "a" }, "spec": { "ports": 7 }, "status": with_condition(&Value::Null)["status"] });
    let bad: Guarded<Service> = serde_json::from_value(bad).unwrap();
    assert_eq!(bad.0.unwrap_err().error, "invalid type: integer `7`, expected a sequence");
}

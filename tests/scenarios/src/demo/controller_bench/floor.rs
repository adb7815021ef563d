//! The floor: the same requests as our controller's, from a client that decides nothing.
//!
//! Whoever is as fast as that is bound by the API server alone.

use anyhow::Context as _;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Service, events::v1::Event};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Sends for a Service what our controller sends for it: the create of a lock, a status, an event.
pub(super) async fn serve(client: &Client, service: &Service, number: usize) -> anyhow::Result<()> {
    let name = service.metadata.name.as_deref().context("a Service has a name")?;
    let (third, fourth) = (number / 250, number % 250 + 1);
    let address = format!("10.10.{third}.{fourth}");
    create::<Lease>(client, lock(&address, name)).await?;
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let (params, patch) =
        (PatchParams::apply("floor").force(), Patch::Apply(status(name, &address)));
    services.patch_status(name, &params, &patch).await.context("no status was written")?;
    create::<Event>(client, event(name, &address)).await
}

async fn create<K>(client: &Client, object: Value) -> anyhow::Result<()>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    K: Clone + std::fmt::Debug + serde::Serialize + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), "default");
    let object = serde_json::from_value(object)?;
    api.create(&PostParams::default(), &object).await.context("an object was not created")?;
    Ok(())
}

fn lock(address: &str, service: &str) -> Value {
    json!({
        "metadata": {
            "name": format!("address-{address}"),
            "labels": { "app.kubernetes.io/managed-by": "floor" },
            "annotations": { "arpeggio.dev/pool": "bench", "arpeggio.dev/services": service },
        },
        "spec": {},
    })
}

fn status(service: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": service },
        "status": {
            "loadBalancer": { "ingress": [{ "ip": address, "ipMode": "VIP" }] },
            "conditions": [{
                "type": "example.com/AddressAllocated",
                "status": "True",
                "reason": "Allocated",
                "message": format!("{address} assigned"),
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        },
    })
}

fn event(service: &str, address: &str) -> Value {
    json!({
        "metadata": { "name": format!("{service}.{address}") },
        "action": "Allocate",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "note": format!("Assigned {address} from pool bench"),
        "reason": "IPAllocated",
        "regarding": { "apiVersion": "v1", "kind": "Service", "namespace": "default", "name": service },
        "reportingController": "example.com/floor",
        "reportingInstance": "floor",
        "type": "Normal",
    })
}

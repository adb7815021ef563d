//! MetalLB, to be measured beside.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use arpeggio_lab::Lab;
pub(crate) use arpeggio_scenarios::metallb::{
    Fellows, add_controller_pod, add_speaker_pod, advertise, controller, install, speaker,
    wait_for_state,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::api::{self, CONNECTIONS};

/// How many addresses a Service gets.
const PER_SERVICE: usize = 10;

/// Creates Services with these addresses, a few each: MetalLB takes any number from one, and a Service takes the API server
/// much longer to create than a Lease. So what it takes for many addresses is less than with a Service for each.
pub(crate) fn serve(lab: &Lab, addresses: &[Ipv4Addr]) -> anyhow::Result<()> {
    api::run(lab, async |client| {
        let services: Api<Service> = Api::namespaced(client.clone(), "default");
        let slices: Api<EndpointSlice> = Api::namespaced(client, "default");
        stream::iter(addresses.chunks(PER_SERVICE))
            .map(async |chunk| make_service(&services, &slices, chunk).await)
            .buffer_unordered(CONNECTIONS)
            .try_collect::<()>()
            .await
    })
}

/// A Service with addresses and a ready endpoint, as its controller and Kubernetes would leave it.
async fn make_service(
    services: &Api<Service>,
    slices: &Api<EndpointSlice>,
    addresses: &[Ipv4Addr],
) -> anyhow::Result<()> {
    let first = addresses.first().context("a Service has an address")?;
    let name = format!("bench-{}", first.to_string().replace('.', "-"));
    let slice = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["10.244.1.9"], "conditions": { "ready": true } }],
        "ports": [{ "port": 80 }],
    });
    api::create(slices, slice).await?;
    let service = json!({
        "metadata": { "name": name },
        "spec": {
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": false,
            "ports": [{ "port": 80 }],
        },
    });
    api::create(services, service).await?;
    let ingress: Vec<Value> = addresses.iter().map(|it| json!({ "ip": it.to_string() })).collect();
    let status = json!({ "status": { "loadBalancer": { "ingress": ingress } } });
    let patch = services.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await;
    patch.with_context(|| format!("Service {name} was not told its address"))?;
    Ok(())
}

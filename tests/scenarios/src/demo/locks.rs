//! Locks written by hand: no Services, no controller, as many addresses as wanted.

use std::{net::Ipv4Addr, ops::Range, time::Duration};

use arpeggio_lab::{Lab, Machine};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::{Value, json};

use crate::api::{self, CONNECTIONS};

/// How long a speaker may take to begin its session.
const PATIENCE: Duration = Duration::from_secs(30);

/// A lock that a node holds, although it has not taken it itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lock {
    pub(crate) address: Ipv4Addr,
    pub(crate) holder: Machine,
    /// Of the holder's session.
    pub(crate) epoch: i64,
}

/// Creates locks. What speakers would write themselves takes much longer than what is measured afterwards.
pub(crate) fn create(
    lab: &Lab,
    namespace: &str,
    locks: impl Iterator<Item = Lock> + Send,
) -> anyhow::Result<()> {
    api::run(lab, async |client| {
        let leases: Api<Lease> = Api::namespaced(client, namespace);
        stream::iter(locks)
            .map(async |lock| api::create(&leases, lease(lock)).await)
            .buffer_unordered(CONNECTIONS)
            .try_collect::<()>()
            .await
    })
}

/// The epoch of a node's session, once it has one.
pub(crate) fn epoch(lab: &Lab, namespace: &str, node: Machine) -> anyhow::Result<i64> {
    let session = format!("session-{node}");
    Ok(lab.wait_until(&format!("session of {node}"), PATIENCE, || {
        let lease = lab.get(&["lease", "-n", namespace, &session])?;
        Ok::<_, anyhow::Error>(lease["spec"]["leaseTransitions"].as_i64().unwrap_or_default())
    })?)
}

/// Addresses of these numbers. Not one next to the other, since a filter would have it too easy.
pub(crate) fn addresses(first: Ipv4Addr, numbers: Range<u32>) -> Vec<Ipv4Addr> {
    numbers.map(|number| Ipv4Addr::from_bits(first.to_bits() + 2 * number)).collect()
}

fn lease(Lock { address, holder, epoch }: Lock) -> Value {
    json!({
        "metadata": {
            "name": format!("address-{address}"),
            "labels": { "app.kubernetes.io/managed-by": "arpeggio", "arpeggio.dev/lease": "address" },
            "annotations": {
                "arpeggio.dev/pool": "bench",
                "arpeggio.dev/services": format!("default/bench/{address}"),
                "arpeggio.dev/session": epoch.to_string(),
            },
        },
        "spec": { "holderIdentity": holder.to_string(), "leaseTransitions": 0 },
    })
}

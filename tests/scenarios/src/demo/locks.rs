//! Locks written by hand: no Services, no controller, as many addresses as wanted.

use std::{net::Ipv4Addr, ops::Range, time::Duration};

use arpeggio_lab::{Lab, Machine};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::{Value, json};

use crate::api;

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
    create_leases(lab, namespace, locks.map(held))
}

/// Creates locks that nobody holds yet and that may be taken at once.
pub(crate) fn create_free(
    lab: &Lab,
    namespace: &str,
    addresses: impl Iterator<Item = Ipv4Addr> + Send,
) -> anyhow::Result<()> {
    create_leases(lab, namespace, addresses.map(free))
}

fn create_leases(
    lab: &Lab,
    namespace: &str,
    leases: impl Iterator<Item = Value> + Send,
) -> anyhow::Result<()> {
    api::run(lab, async |client| {
        api::create_all::<Lease>(&Api::namespaced(client, namespace), leases).await
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

fn held(Lock { address, holder, epoch }: Lock) -> Value {
    let mut lease = lease(address);
    lease["metadata"]["annotations"]["arpeggio.dev/session"] = epoch.to_string().into();
    lease["spec"] = json!({ "holderIdentity": holder.to_string(), "leaseTransitions": 0 });
    lease
}

fn free(address: Ipv4Addr) -> Value {
    let mut lease = lease(address);
    lease["metadata"]["annotations"]["arpeggio.dev/announce"] = r#"{"probing":false}"#.into();
    lease
}

fn lease(address: Ipv4Addr) -> Value {
    json!({
        "metadata": {
            "name": format!("address-{address}"),
            "labels": { "app.kubernetes.io/managed-by": "arpeggio", "arpeggio.dev/lease": "address" },
            "annotations": {
                "arpeggio.dev/pool": "bench",
                "arpeggio.dev/services": format!("default/bench/{address}"),
            },
        },
        "spec": {},
    })
}

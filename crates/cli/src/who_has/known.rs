//! What the cluster knows of an address and of MAC addresses.

use std::net::IpAddr;

use arpeggio_wire::MacAddr;
use serde::Serialize;

use crate::status::Status;

/// What the cluster knows, from its Leases.
#[derive(Debug)]
pub(super) struct Cluster {
    status: Status,
}

/// Whose an address is, by its lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Lock {
    /// The node that holds it.
    pub(super) holder: Option<String>,
    /// The Services that are reached at the address, `NAMESPACE/NAME,...`.
    pub(super) services: String,
    /// The pool that it came from.
    pub(super) pool: String,
    /// The MAC address of a machine that is none of the cluster's and has answered for the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stranger: Option<String>,
}

impl Cluster {
    /// What these Leases say.
    pub(super) fn new(status: Status) -> Self {
        Self { status }
    }

    /// The node that has an interface with this MAC address.
    pub(super) fn node(&self, mac: MacAddr) -> Option<String> {
        let mut sessions = self.status.sessions();
        let session =
            sessions.find(|session| session.links.iter().any(|it| it.mac == mac.octets()))?;
        Some(session.session.node.to_string())
    }

    /// The lock of an address.
    pub(super) fn lock(&self, address: IpAddr) -> Option<Lock> {
        let record = self.status.locks().find(|record| record.lock.address == address)?;
        let services: Vec<String> = record
            .claim
            .services
            .iter()
            .map(|it| format!("{}/{}", it.namespace, it.name))
            .collect();
        Some(Lock {
            holder: record.lock.holder.as_ref().map(|holder| holder.node.to_string()),
            services: services.join(","),
            pool: record.claim.pool.clone(),
            stranger: record.lock.stranger.map(|mac| MacAddr::from(mac).to_string()),
        })
    }
}

//! Reads what moves and rehearsals are planned with, as speakers know it.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::Context as _;
use arpeggio_api::{
    endpoints::{ServiceName, backends, service_of},
    lock::LockRecord,
    node::facts,
    session::SessionRecord,
};
use arpeggio_election::{Backends, Version, rebalance::Census};
use k8s_openapi::api::{core::v1::Node, discovery::v1::EndpointSlice};
use kube::{Api, Client, ResourceExt as _, api::ListParams};

use crate::{installed, reader::list, status};

/// The cluster at one moment.
pub(crate) struct Known {
    pub(crate) census: Census,
    /// The locks of the addresses that Services have.
    pub(crate) locks: Vec<LockRecord>,
    /// The sessions of all nodes.
    pub(crate) sessions: Vec<SessionRecord>,
}

impl Known {
    /// Reads Leases, Nodes and, where an address needs them, `EndpointSlice`s. `ignore_exclusion`: whether nodes are
    /// not excluded by their label; that the speakers' DaemonSet says so is enough.
    pub(crate) async fn read(
        client: &Client,
        namespace: &str,
        ignore_exclusion: bool,
    ) -> anyhow::Result<Self> {
        let status = status::read(client.clone(), namespace).await?;
        let mut census = Census::default();
        status.sessions().for_each(|record| census.add_session(record.session.clone()));
        // One that rests is reached by nobody, and speakers do not know of it.
        let in_use = status.locks().filter(|record| !record.rests && record.newer.is_none());
        let locks: Vec<LockRecord> = in_use.cloned().collect();
        locks.iter().for_each(|record| census.add_lock(record.lock.clone()));
        let ignore = ignore_exclusion || installed::ignores_exclusion(client, namespace).await;
        let nodes: Api<Node> = Api::all(client.clone());
        for node in list(&nodes, &ListParams::default()).await.context("cannot list nodes")? {
            census.add_node(node.name_any().as_str().into(), facts(&node, !ignore));
        }
        for (address, backends) in local_backends(client, &locks).await? {
            census.add_backends(address, backends);
        }
        let sessions = status.sessions().cloned().collect();
        Ok(Self { census, locks, sessions })
    }

    /// The version of each lock.
    pub(crate) fn versions(&self) -> BTreeMap<IpAddr, Version> {
        self.locks.iter().map(|record| (record.lock.address, record.lock.version)).collect()
    }
}

/// Where the backends are of the addresses whose traffic must not leave its node.
async fn local_backends(
    client: &Client,
    locks: &[LockRecord],
) -> anyhow::Result<BTreeMap<IpAddr, Backends>> {
    let local: Vec<&LockRecord> = locks.iter().filter(|it| it.claim.terms.local).collect();
    if local.is_empty() {
        return Ok(BTreeMap::new());
    }
    let slices: Api<EndpointSlice> = Api::all(client.clone());
    let slices = list(&slices, &ListParams::default()).await;
    let of_services = by_service(&slices.context("cannot list EndpointSlices")?);
    Ok(local.into_iter().map(|it| (it.lock.address, behind(it, &of_services))).collect())
}

fn by_service(slices: &[EndpointSlice]) -> BTreeMap<ServiceName, Backends> {
    let mut sums: BTreeMap<ServiceName, Backends> = BTreeMap::new();
    for slice in slices {
        if let Some(service) = service_of(slice) {
            sums.entry(service).or_default().add(&backends(slice));
        }
    }
    sums
}

fn behind(lock: &LockRecord, of_services: &BTreeMap<ServiceName, Backends>) -> Backends {
    let mut sum = Backends::default();
    let names = lock.claim.services.iter().map(|it| (it.namespace.clone(), it.name.clone()));
    names.filter_map(|name| of_services.get(&name)).for_each(|it| sum.add(it));
    sum
}

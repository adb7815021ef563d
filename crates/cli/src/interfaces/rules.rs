//! By which rules an address is announced, as its lock says.

use std::{env, net::IpAddr};

use anyhow::Context as _;
use arpeggio_api::node;
use arpeggio_election::{AnnounceTerms, Node, NodeFacts, Pattern};
use arpeggio_link::interfaces::Links;
use k8s_openapi::api::core::v1;
use kube::{Api, Client, api::ListParams};

use crate::{
    cluster,
    global::Global,
    reader::list,
    status::{self, Status},
};

/// The variable in which the speaker's pod is told its node.
const NODE_NAME: &str = "NODE_NAME";

/// What decides on which interfaces an address is announced.
#[derive(Debug)]
pub(super) enum Rules {
    /// Patterns that were given with the command.
    ByHand(Vec<Pattern>),
    /// What stands on the address's lock.
    OnLock(OnLock),
    /// Nobody has been given the address.
    NoLock,
    /// The cluster was not asked: why.
    Unknown(String),
}

/// What stands on an address's lock, and for whom it is read.
#[derive(Debug)]
pub(super) struct OnLock {
    /// The pool that the address came from.
    pub(super) pool: String,
    /// The rules.
    pub(super) terms: AnnounceTerms,
    /// This node and its labels, by which rules select nodes; `None` when they are not known.
    pub(super) node: Option<(Node, NodeFacts)>,
}

/// Reads the lock of `address` and the Node of this machine.
pub(super) async fn read(address: IpAddr, links: &Links, global: &Global) -> Rules {
    let known = cluster::ask(global, async |client| {
        let status = status::read(client.clone(), &global.system_namespace()).await?;
        let node = this_node(client, &status, links).await?;
        Ok((status, node))
    });
    let (status, node) = match known.await {
        Ok(known) => known,
        Err(why) => return Rules::Unknown(why),
    };
    let mut locks = status.locks();
    locks.find(|record| record.lock.address == address).map_or(Rules::NoLock, |record| {
        let (pool, terms) = (record.claim.pool.clone(), record.lock.terms.clone());
        Rules::OnLock(OnLock { pool, terms, node })
    })
}

async fn this_node(
    client: Client,
    status: &Status,
    links: &Links,
) -> anyhow::Result<Option<(Node, NodeFacts)>> {
    let named = env::var(NODE_NAME).ok().filter(|name| !name.is_empty());
    let Some(name) = named.or_else(|| node_at(links, status)) else { return Ok(None) };
    // Speakers may list Nodes, but not get one.
    let nodes: Api<v1::Node> = Api::all(client);
    let only_this = ListParams::default().fields(&format!("metadata.name={name}"));
    let found = list(&nodes, &only_this).await.context("cannot list Nodes")?;
    Ok(found.first().map(|it| (Node::from(name.as_str()), node::facts(it, true))))
}

/// The node whose session names a MAC address of this machine.
fn node_at(links: &Links, status: &Status) -> Option<String> {
    let is_here = |mac: [u8; 6]| links.interfaces.iter().any(|it| it.mac() == Some(mac.into()));
    let mut sessions = status.sessions();
    let session = sessions.find(|session| session.links.iter().any(|link| is_here(link.mac)))?;
    Some(session.session.node.to_string())
}

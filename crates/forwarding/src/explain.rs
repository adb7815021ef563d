//! Where the connection of one client would go, and why, for people.

use alloc::{collections::BTreeMap, vec::Vec};
use core::{cmp::Reverse, net::IpAddr};

use arpeggio_election::Node;

use crate::{
    jhash::bucket,
    known::{Known, Port, Service},
    notes::{LeftOut, OneNode},
    packet::SpreadBy,
    rank::{self, Rank},
    serving::{crew, spread_by, weights},
    table::Table,
};

/// Where a new connection of a client goes, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The node that serves it. `None`: nobody does.
    pub node: Option<Node>,
    /// Why this one.
    pub because: Because,
    /// How the port is divided, when it is. The node that serves most comes first.
    pub shares: Vec<Share>,
    /// The nodes that serve nothing of the address though it is to be spread, and why.
    pub left_out: BTreeMap<Node, LeftOut>,
    /// The nodes that still have connections to the address which they do not serve any more, and how many; in the order in which they
    /// are asked for one that nobody else knows.
    pub draining: Vec<(Node, u32)>,
}

/// Why a connection goes where it goes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Because {
    /// There is no such address.
    #[error("no lock has this address")]
    Unknown,
    /// It is served by one node.
    #[error("one node serves the address: the one that announces it")]
    NotSpread,
    /// It is to be spread, and cannot.
    #[error("one node serves the address, though all are to: {0}")]
    OneNode(OneNode),
    /// Nobody has told of such a port.
    #[error(
        "no Service has port {0} there, so the packet stays at the node that announces the address"
    )]
    NoSuchPort(Port),
    /// Nobody serves the port.
    #[error("no node that can serve port {0} has a ready endpoint for it")]
    NoEndpoint(Port),
    /// By its bucket.
    #[error("{by} is in bucket {bucket} of 1024, which belongs to this node")]
    Bucket {
        /// What has chosen the bucket.
        by: SpreadBy,
        /// The bucket.
        bucket: u16,
    },
}

/// One node's part of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The node.
    pub node: Node,
    /// Its ready endpoints; 1 where every node hands the traffic on to any endpoint.
    pub weight: u32,
    /// How many of the 1024 buckets it has.
    pub buckets: usize,
}

/// Explains where a new connection of `client`, an address and a port, to `port` of `address` goes.
pub fn explain(
    known: &Known,
    (address, port): (IpAddr, Port),
    (client, client_port): (IpAddr, u16),
) -> Explanation {
    let nobody = Explanation {
        node: None,
        because: Because::Unknown,
        shares: Vec::new(),
        left_out: BTreeMap::new(),
        draining: draining(known, address),
    };
    let Some(about) = known.addresses.get(&address) else { return nobody };
    let holder = Explanation { node: about.holder.clone(), ..nobody };
    if !about.spread {
        return Explanation { because: Because::NotSpread, ..holder };
    }
    let (crew, reason) = crew(known, address, about);
    let holder = Explanation { left_out: crew.left_out, ..holder };
    if let Some(reason) = reason {
        return Explanation { because: Because::OneNode(reason), ..holder };
    }
    let Some(service) = about.services.get(&port) else {
        return Explanation { because: Because::NoSuchPort(port), ..holder };
    };
    let by = spread_by(port, service);
    let bucket = bucket(by, rank::seed(address), client, client_port);
    by_bucket(holder, (port, service), &crew.able, by, bucket)
}

fn by_bucket(
    rest: Explanation,
    (port, service): (Port, &Service),
    able: &[&Node],
    by: SpreadBy,
    bucket: u16,
) -> Explanation {
    let weights = weights(service, able);
    let Some(table) = Table::of(&weights) else {
        return Explanation { node: None, because: Because::NoEndpoint(port), ..rest };
    };
    let node = table.primaries.get(usize::from(bucket)).cloned();
    let shares = shares(weights, &table);
    Explanation { node, because: Because::Bucket { by, bucket }, shares, ..rest }
}

fn shares(weights: Vec<(Node, u32)>, table: &Table) -> Vec<Share> {
    let share = |(node, weight): (Node, u32)| {
        let buckets = table.primaries.iter().filter(|it| **it == node).count();
        Share { node, weight, buckets }
    };
    let mut shares: Vec<Share> = weights.into_iter().map(share).collect();
    shares.sort_by_key(|it| Reverse(it.buckets));
    shares
}

fn draining(known: &Known, address: IpAddr) -> Vec<(Node, u32)> {
    let living = known.nodes.iter().filter(|(_, fellow)| fellow.lives());
    let counts = living.filter_map(|(node, fellow)| {
        let count = *fellow.forwarder.as_ref()?.connections.as_ref()?.get(&address)?;
        (count > 0).then(|| (node.clone(), count))
    });
    let mut counts: Vec<_> = counts.collect();
    counts.sort_by(|(one, _), (other, _)| Rank::of(address, other).cmp(&Rank::of(address, one)));
    counts
}

//! The controller's reasoning, done again with the objects as they are now.

use std::net::IpAddr;

use arpeggio_api::{
    cluster,
    lock::{self, LockRecord},
    reservations::Reservations,
    service::{RequestError, ServiceRecord},
    session,
};
use arpeggio_ipam::{
    Allocator, Choice, Grace, Held, Leaving, Owner, Plan, Refusal, Request, SharingTerms,
};
use kube::ResourceExt as _;

use super::Evidence;

/// One thing that follows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Verdict {
    /// It is not our business.
    #[error(
        "the Service is not served: it is not of type LoadBalancer, or its spec.loadBalancerClass is another one than \
         the controller's"
    )]
    NotServed,
    /// What it asks for cannot be understood.
    #[error("{0}")]
    NotUnderstood(RequestError),
    /// It has what it needs.
    #[error("it keeps {0}, whose lock names it")]
    Keeps(IpAddr),
    /// It has a lock, and the status does not say so yet.
    #[error("{0} is claimed for it; its status should say so within a second")]
    Claimed(IpAddr),
    /// The status has an address that no lock gives it.
    #[error(
        "its status has {0}, which no lock gives it: another program wrote it, or the lock was lost and is made again"
    )]
    Unclaimed(IpAddr),
    /// It keeps an address for a while.
    #[error("it keeps {address} for the grace period only: {why}", address = .0.address, why = .0.why)]
    Expires(Leaving),
    /// It loses an address.
    #[error("it loses {address}: {why}", address = .0.address, why = .0.why)]
    Loses(Leaving),
    /// An address is free for it.
    #[error(
        "it would get {address} from pool \"{pool}\"; if it stays without, see whether a controller leads",
        address = .0.address,
        pool = .0.pool
    )]
    WouldGet(Choice),
    /// There is none for it.
    #[error("{0}")]
    Refused(Refusal),
}

/// What follows for a Service from the objects as they are.
pub(super) fn verdicts(record: &ServiceRecord, evidence: &Evidence) -> Vec<Verdict> {
    let request = match &record.request {
        None => return vec![Verdict::NotServed],
        Some(Err(error)) => return vec![Verdict::NotUnderstood(error.clone())],
        Some(Ok(request)) => complete(request, evidence),
    };
    let locks: Vec<LockRecord> =
        evidence.leases.iter().filter_map(|lease| lock::parse(lease).ok()).collect();
    let named = |lock: &&LockRecord| {
        lock.claim.services.iter().any(|service| service.uid == record.service.uid)
    };
    let ours: Vec<&LockRecord> = locks.iter().filter(named).collect();
    let plan = plan(record, &request, evidence, &locks, &ours);
    let has_lock = |address: &&IpAddr| ours.iter().any(|lock| lock.claim.address == **address);
    let listed = &record.ingress.addresses;
    let unclaimed = listed.iter().filter(|it| !has_lock(it)).map(|it| Verdict::Unclaimed(*it));
    unclaimed.chain(told(plan, listed)).collect()
}

fn complete(request: &Request, evidence: &Evidence) -> Request {
    let mut request = request.clone();
    request.requester.namespace_labels.clone_from(&evidence.namespace_labels);
    request
}

fn plan(
    record: &ServiceRecord,
    request: &Request,
    evidence: &Evidence,
    locks: &[LockRecord],
    ours: &[&LockRecord],
) -> Plan {
    let mut allocator = Allocator::default();
    allocator.set_pools(evidence.pools.iter().map(|declared| declared.pool.clone()));
    reserve(&mut allocator, evidence, locks);
    let owner = Owner::from(record.path());
    let terms = SharingTerms::from(request.sharing.clone());
    for lock in locks {
        for service in &lock.claim.services {
            let holder = Owner::from(service.path());
            let terms = if holder == owner { terms.clone() } else { evidence.terms_of(service) };
            // What the lock says counts, even where the terms do not agree any more.
            let _ = allocator.recall(&holder, lock.claim.address, terms);
        }
    }
    let held: Vec<Held> = ours.iter().map(|lock| held(lock)).collect();
    allocator.plan(&owner, request, &held, Grace::Lasts)
}

fn held(lock: &LockRecord) -> Held {
    let pool = lock.claim.pool.as_str();
    let origin = (!pool.is_empty()).then(|| pool.into());
    Held { address: lock.claim.address, origin }
}

fn reserve(allocator: &mut Allocator, evidence: &Evidence, locks: &[LockRecord]) {
    for (address, reason) in surroundings(evidence).iter() {
        allocator.reserve(address, reason.clone());
    }
    for lock in locks {
        if let Some(reason) = lock.reservation() {
            allocator.reserve(lock.claim.address, reason);
        }
    }
}

/// What nodes and their neighbourhood use.
fn surroundings(evidence: &Evidence) -> Reservations {
    let mut reservations = Reservations::default();
    for node in &evidence.nodes {
        reservations.add_node(&node.name_any(), cluster::node_addresses(node));
    }
    for record in evidence.leases.iter().filter_map(|lease| session::parse(lease).ok()) {
        let node = record.session.node.as_str();
        record.session.reach.iter().for_each(|reach| reservations.add_reach(node, reach));
        reservations.add_node(node, record.own.into_iter().flatten());
    }
    reservations
}

fn told(plan: Plan, listed: &[IpAddr]) -> impl Iterator<Item = Verdict> {
    let kept = plan.keep.into_iter().map(|address| {
        if listed.contains(&address) { Verdict::Keeps(address) } else { Verdict::Claimed(address) }
    });
    kept.chain(plan.expiring.into_iter().map(Verdict::Expires))
        .chain(plan.leaving.into_iter().map(Verdict::Loses))
        .chain(plan.add.into_iter().map(Verdict::WouldGet))
        .chain(plan.refusal.map(Verdict::Refused))
}

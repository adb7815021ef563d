//! The controller's reasoning, done again with the objects as they are now.

use std::net::IpAddr;

use arpeggio_api::{
    address_pool::AddressPool,
    lock::{self, LockRecord},
    service::{ServiceRecord, ServiceRequest},
};
use arpeggio_ipam::{Allocator, Owner, Refusal, Request};
use k8s_openapi::api::coordination::v1::Lease;

/// What would be decided now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Verdict {
    /// It is not our business.
    #[error(
        "the Service is not served: it is not of type LoadBalancer, or its spec.loadBalancerClass is another one than \
         the controller's"
    )]
    NotServed,
    /// It has what it needs.
    #[error("it keeps {}, whose lock names it", join(.0))]
    Keeps(Vec<IpAddr>),
    /// It has a lock, and the status does not say so yet.
    #[error("{} is claimed for it; its status should say so within a second", join(.0))]
    Claimed(Vec<IpAddr>),
    /// The status has addresses that no lock of ours gives it.
    #[error(
        "its status has {}, which no lock gives it: another program wrote it, or the lock was lost and is made again",
        join(.0)
    )]
    Unclaimed(Vec<IpAddr>),
    /// An address is free for it.
    #[error(
        "it would get {address} from pool \"{pool}\"; if it stays without, see whether a controller leads"
    )]
    WouldGet {
        /// The address.
        address: IpAddr,
        /// Its pool.
        pool: String,
    },
    /// There is none for it.
    #[error("{0}")]
    Refused(Refusal),
}

/// What follows for a Service from the pools and locks that there are.
pub(super) fn verdict(record: &ServiceRecord, pools: &[AddressPool], locks: &[Lease]) -> Verdict {
    let locks: Vec<LockRecord> = locks.iter().filter_map(|lease| lock::parse(lease).ok()).collect();
    let Some(request) = &record.request else { return Verdict::NotServed };
    let has_lock = |address: &IpAddr| {
        let mut locks = locks.iter().filter(|lock| lock.claim.address == *address);
        locks.any(|lock| names(lock, record))
    };
    let listed = &record.ingress.addresses;
    let (held, unclaimed): (Vec<IpAddr>, Vec<IpAddr>) = listed.iter().partition(|it| has_lock(it));
    if !unclaimed.is_empty() {
        return Verdict::Unclaimed(unclaimed);
    }
    if !held.is_empty() {
        return Verdict::Keeps(held);
    }
    let claimed = locks.iter().filter(|lock| names(lock, record));
    let claimed: Vec<IpAddr> = claimed.map(|lock| lock.claim.address).collect();
    if claimed.is_empty() { choose(request, pools, &locks) } else { Verdict::Claimed(claimed) }
}

fn names(lock: &LockRecord, record: &ServiceRecord) -> bool {
    lock.claim.services.iter().any(|service| service.uid == record.service.uid)
}

fn choose(request: &ServiceRequest, pools: &[AddressPool], locks: &[LockRecord]) -> Verdict {
    let mut allocator = Allocator::default();
    allocator.set_pools(pools.iter().map(AddressPool::to_pool));
    for lock in locks {
        for service in &lock.claim.services {
            // Refused for the second of two sharers: then the address is taken all the same.
            let _ = allocator.claim(&Owner::from(service.uid.as_str()), lock.claim.address);
        }
    }
    let wanted =
        Request { pool: request.pool.as_deref().map(Into::into), family: request.primary_family() };
    match allocator.choose(&wanted) {
        Ok(choice) => Verdict::WouldGet { address: choice.address, pool: choice.pool.to_string() },
        Err(refusal) => Verdict::Refused(refusal),
    }
}

fn join(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

//! What the index wants done, and what came of it.

use std::net::IpAddr;

use arpeggio_api::{
    address_pool::{AddressPool, AddressPoolStatus},
    lock::{Claim, ServiceRef},
    service::ServiceRecord,
};
use arpeggio_ipam::Owner;
use arpeggio_runtime::events::News;
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Service},
    apimachinery::pkg::apis::meta::v1::Condition,
};

/// What an effect is about. There is at most one effect at a time for each subject.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// A Service, by its uid.
    Service(Owner),
    /// A lock, by its address.
    Lock(IpAddr),
    /// A pool, by its name.
    Pool(String),
}

/// One thing to do.
#[derive(Debug)]
pub(crate) struct Task {
    /// What it is about.
    pub(crate) subject: Subject,
    /// How often in a row the subject's tasks have failed before this one.
    pub(crate) failures: u32,
    /// What to do.
    pub(crate) effect: Effect,
}

/// What to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    /// Create the lock of an address.
    Claim(Claim),
    /// Delete the lock of an address, unless its Service turns out to need it after all.
    Release(Release),
    /// Write a Service's status.
    WriteService(Box<ServiceWrite>),
    /// Write a pool's status.
    WritePool(Box<PoolWrite>),
}

/// A lock to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Release {
    /// Whose lock it is.
    pub(crate) address: IpAddr,
    /// The Lease's uid: a later Lease of the same name stays.
    pub(crate) lease_uid: String,
    /// The Service that the lock was created for.
    pub(crate) service: ServiceRef,
}

impl Release {
    /// Whether `service`, read from the API server after this was decided, still needs the lock: it has the address, or
    /// has none yet and may be about to get this one. `class` is the `loadBalancerClass` that is served.
    pub(crate) fn is_needed_by(&self, service: &Service, class: Option<&str>) -> bool {
        let record = ServiceRecord::parse(service, class);
        let listed = record.ingress.addresses.contains(&self.address);
        let expected = record.request.is_some() && record.ingress.addresses.is_empty();
        record.service.uid == self.service.uid && (listed || expected)
    }
}

/// What to write in a Service's status. What is not in it and was written by us before is removed.
#[derive(Debug, PartialEq)]
pub(crate) struct ServiceWrite {
    /// The Service as it was when this was decided. If it has changed since, nothing is written.
    pub(crate) record: ServiceRecord,
    /// The addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// The condition.
    pub(crate) condition: Option<Condition>,
    /// What to tell the user when it is written.
    pub(crate) news: Option<News>,
    /// Why the Service gets no address, for metrics.
    pub(crate) refusal: Option<&'static str>,
}

/// What to write in a pool's status.
#[derive(Debug, PartialEq)]
pub(crate) struct PoolWrite {
    /// The pool's name.
    pub(crate) name: String,
    /// The status.
    pub(crate) status: AddressPoolStatus,
}

/// What the API server said last about the subject of a task that was done.
#[derive(Debug)]
pub(crate) enum Observed {
    /// The Service as it is now.
    Service(Box<Service>),
    /// The lock as it is now, whether we made it or found it.
    Lock(Box<Lease>),
    /// The Lease of this uid is gone.
    NoLock { address: IpAddr, lease_uid: String },
    /// The pool as it is now.
    Pool(Box<AddressPool>),
    /// The lock stays: this Service needs it.
    Needed(Box<Service>),
}

/// A task that was not done. What to do instead is decided anew, from what is known then.
#[derive(Debug)]
pub(crate) struct Failed;

/// What came of a task.
#[derive(Debug)]
pub(crate) struct Report {
    /// What the task was about.
    pub(crate) subject: Subject,
    /// What came of it.
    pub(crate) result: Result<Observed, Failed>,
}

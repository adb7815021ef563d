//! What the index wants done, and what came of it.

use std::{fmt, net::IpAddr, time::Duration};

use crate::news::News;
use arpeggio_api::{
    address_pool::{AddressPool, AddressPoolStatus},
    last_good,
    lock::{self, Amendment, Claim, ClaimedFor, ServiceRef},
    service::ServiceRecord,
};
use arpeggio_ipam::Owner;
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Service},
    apimachinery::pkg::apis::meta::v1::Condition,
};

/// The reason of the news that a Service has got an address.
pub const ALLOCATED: &str = "IPAllocated";

/// What an effect is about. There is at most one effect at a time for each subject.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A Service, by its uid.
    Service(Owner),
    /// A lock, by its address.
    Lock(IpAddr),
    /// A pool, by its name.
    Pool(String),
    /// What is kept of an object with pools, by the object's uid.
    Record(String),
}

/// One thing to do.
#[derive(Debug)]
pub struct Task {
    /// What it is about.
    pub subject: Subject,
    /// What to do.
    pub effect: Effect,
}

/// What to do.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Create the lock of an address, which is claimed from then on.
    Claim(Claim, ClaimedFor),
    /// Claim an address that has a lock already: for one more Service, or for the same one once more.
    Join(Amendment),
    /// Change what a lock says, but not for whom it is.
    Amend(Amendment),
    /// Take Services off the lock of an address, unless one of them turns out to need it after all.
    Release(Release),
    /// Write a Service's status.
    WriteService(Box<ServiceWrite>),
    /// Write a pool's status.
    WritePool(Box<PoolWrite>),
    /// Write or delete the Lease that keeps what an object with pools said when it could last be used.
    WriteRecord(RecordWrite),
}

impl Effect {
    /// The request, for people: its verb, and the kind and name of the object. Locks are in this `namespace`.
    pub fn request(&self, namespace: &str) -> String {
        let lease = |verb: &str, address: IpAddr| {
            format!("{verb} Lease {} in namespace {namespace}", lock::name(address))
        };
        match self {
            Self::Claim(claim, ..) => lease("create", claim.address),
            Self::Join(amendment) | Self::Amend(amendment) => lease("patch", amendment.address),
            Self::Release(release) => match release.change {
                Change::Delete { .. } => lease("delete", release.address),
                Change::Amend(_) => lease("patch", release.address),
            },
            Self::WriteService(_) => "patch the status of the Service".to_owned(),
            Self::WritePool(_) => "patch the status of the AddressPool".to_owned(),
            Self::WriteRecord(write) => {
                let verb = if write.text.is_some() { "patch" } else { "delete" };
                format!("{verb} Lease {} in namespace {namespace}", last_good::name(&write.uid))
            }
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(owner) => write!(f, "Service {owner}"),
            Self::Lock(address) => write!(f, "Lease {}", lock::name(*address)),
            Self::Pool(name) => write!(f, "AddressPool {name}"),
            Self::Record(uid) => write!(f, "Lease {}", last_good::name(uid)),
        }
    }
}

impl Effect {
    /// The version of the object that it changes, where it says which one.
    pub(crate) fn version(&self) -> Option<u64> {
        match self {
            Self::Join(amendment) | Self::Amend(amendment) => Some(amendment.expected.0),
            Self::Release(release) => Some(match &release.change {
                Change::Amend(amendment) => amendment.expected.0,
                Change::Delete { version, .. } => *version,
            }),
            Self::WriteService(write) => Some(write.record.version),
            Self::Claim(..) | Self::WritePool(_) | Self::WriteRecord(_) => None,
        }
    }

    /// Whether it writes an object in the controller's own namespace, of which those know nothing who are told about it.
    pub fn writes_own_object(&self) -> bool {
        !matches!(self, Self::WriteService(_) | Self::WritePool(_))
    }

    /// The address whose lock it creates, changes or deletes.
    pub(crate) fn writes_lock(&self) -> Option<IpAddr> {
        match self {
            Self::Claim(claim, ..) => Some(claim.address),
            _ => self.changes_lock(),
        }
    }

    /// The address whose lock it changes or deletes; creating one changes none.
    pub(crate) fn changes_lock(&self) -> Option<IpAddr> {
        match self {
            Self::Join(amendment) | Self::Amend(amendment) => Some(amendment.address),
            Self::Release(release) => Some(release.address),
            _ => None,
        }
    }
}

/// Services to take off a lock, with one write.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    /// Whose lock it is.
    pub address: IpAddr,
    /// The Services. None: there is none on the lock, which has only kept the address from being given again.
    pub services: Vec<ServiceRef>,
    /// What is written.
    pub change: Change,
}

/// How a lock changes when somebody leaves it. Refused when it is not the one that was decided about.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Nobody is left: it is deleted.
    Delete {
        /// The Lease's uid.
        lease_uid: String,
        /// Its version.
        version: u64,
    },
    /// Others are left, or the address rests for a while.
    Amend(Box<Amendment>),
}

impl Release {
    /// Whether `service`, read from the API server after this was decided, still needs the lock: it has the address, or
    /// may be about to get it. `class` is the `loadBalancerClass` that is served.
    ///
    /// A Service of the same name that has been created since needs it just as well: it inherits the address, unless it
    /// renounces it.
    ///
    /// This depends on nothing but the Service. Whoever else sees the same version of it and thinks of writing the
    /// address in its status comes to the opposite conclusion, and a status that was decided on another version is not
    /// written.
    pub fn is_needed_by(&self, service: &Service, class: Option<&str>) -> bool {
        let record = ServiceRecord::parse(service, class);
        let listed = record.ingress.addresses.contains(&self.address);
        let renounced = record.renounced.contains(&self.address);
        let leaves = self.services.iter().any(|it| it.path() == record.path());
        leaves && (listed || (record.request.is_some() && !renounced))
    }
}

/// What to write in a Service's status. What is not in it and was written by us before is removed.
#[derive(Debug, PartialEq)]
pub struct ServiceWrite {
    /// The Service as it was when this was decided. If it has changed since, nothing is written.
    pub record: ServiceRecord,
    /// The addresses. `None`: the list is left to whoever else wrote it.
    pub addresses: Option<Vec<IpAddr>>,
    /// The conditions.
    pub conditions: Vec<Condition>,
    /// The addresses that the Service renounces from now on, and no others.
    pub releasing: Vec<IpAddr>,
    /// What to tell the user when it is written.
    pub news: Vec<News>,
    /// Why the Service gets no address, for metrics.
    pub refusal: Option<&'static str>,
}

/// What to write in a pool's status.
#[derive(Debug, PartialEq)]
pub struct PoolWrite {
    /// The pool's name.
    pub name: String,
    /// The status.
    pub status: AddressPoolStatus,
}

/// What to keep of an object with pools.
#[derive(Debug, PartialEq)]
pub struct RecordWrite {
    /// The object's uid.
    pub uid: String,
    /// The text; `None`: nothing, and no Lease.
    pub text: Option<String>,
    /// The version of the Lease that is changed, and no other: a newer release may have written one that is none of our
    /// business. `None`: there is none yet.
    pub expected: Option<String>,
}

/// What the API server said last about the subject of a task that was done.
#[derive(Debug)]
pub enum Observed {
    /// The Service as it is now.
    Service(Box<Service>),
    /// The lock as it is now, whether we made it or found it.
    Lock(Box<Lease>),
    /// The lock of this version, or an earlier one, is gone.
    NoLock {
        /// Whose lock it was.
        address: IpAddr,
        /// The latest version that is gone.
        version: u64,
    },
    /// The pool as it is now.
    Pool(Box<AddressPool>),
    /// What is kept of an object with pools is as it was to be.
    Record,
    /// The lock stays as it is: this Service needs it.
    Needed(Box<Service>),
}

/// Why a task was not done. What to do instead is decided anew, from what is known then.
#[derive(Debug)]
pub enum Failed {
    /// The object has changed since.
    Changed,
    /// The API server could not be asked, or says that it has too much to do.
    Unanswered {
        /// When to ask again, where it says so.
        retry_after: Option<Duration>,
        /// What users are told if that lasts.
        lasting: Refused,
    },
    /// The API server said no.
    Refused(Refused),
}

/// What the API server refused, or did not do for long, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the API server {} {what}: {why}", if *.is_answer { "refused to" } else { "fails to" })]
pub struct Refused {
    /// The request: verb, kind and name.
    pub what: String,
    /// The kind of refusal, in a word.
    pub kind: &'static str,
    /// Whether it is what the API server answered. Otherwise there was no answer, or it was not done all the same.
    pub is_answer: bool,
    /// Why, in words that the author of any Service may read.
    pub why: String,
}

impl Refused {
    /// Whether the same request was refused for the same kind of reason, perhaps in other words.
    pub fn is_like(&self, other: &Self) -> bool {
        (&self.what, self.kind) == (&other.what, other.kind)
    }
}

/// What came of a task.
#[derive(Debug)]
pub struct TaskReport {
    /// What the task was about.
    pub subject: Subject,
    /// What came of it.
    pub result: Result<Observed, Failed>,
}

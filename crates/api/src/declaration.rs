//! Pools of whatever format, as one kind of thing.

use std::fmt;

use arpeggio_ipam::{InvalidPool, Pool, PoolError, PoolName, Unusable};
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Time};
use kube::{Resource as _, ResourceExt as _};
use serde::{Deserialize, Serialize};

use crate::{
    address_pool::{AddressPool, still_in_force},
    terms::{Announcement, Policy},
};

/// A pool that somebody declared.
#[derive(Debug, Clone, PartialEq)]
pub struct Declaration {
    /// Where it was declared.
    pub origin: Origin,
    /// The object that it stands in, as events refer to it.
    pub object: ObjectReference,
    /// Which version of the object's spec says it (`metadata.generation`). A `ConfigMap` does not count them: for one it is the
    /// `resourceVersion` in which it said so for the first time, as far as is known.
    pub generation: Option<i64>,
    /// When its object was created; of pools that are new together, the older one has the addresses that both have.
    pub created: Option<Time>,
    /// The pool as the allocator knows it.
    pub pool: Result<Pool, InvalidPool>,
    /// Where its addresses are announced.
    pub announcement: Announcement,
    /// Whether somebody else is looked for before an address is announced for the first time.
    pub probing: bool,
    /// Whether its object is being deleted (`metadata.deletionTimestamp`).
    pub ends: bool,
}

/// Where a pool was declared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Origin {
    /// In an `AddressPool`.
    AddressPool {
        /// Its name.
        name: String,
    },
    /// In `MetalLB`'s `IPAddressPool`.
    IpAddressPool {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// In `MetalLB`'s `AddressPool`, which came before the `IPAddressPool`.
    LegacyPool {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// In a `ConfigMap`.
    ConfigMap {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The line of the value in which the pool begins, from 1.
        line: u64,
    },
}

/// Something that the author of an object should know about it. Told once, as an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// One CamelCase word (`Event.reason`).
    pub reason: &'static str,
    /// What it is and what to do.
    pub message: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressPool { name } => write!(f, "AddressPool {name}"),
            Self::IpAddressPool { namespace, name } => {
                write!(f, "IPAddressPool {namespace}/{name}")
            }
            Self::LegacyPool { namespace, name } => {
                write!(f, "MetalLB's AddressPool {namespace}/{name}")
            }
            Self::ConfigMap { namespace, name, line } => {
                write!(f, "ConfigMap {namespace}/{name}, line {line}")
            }
        }
    }
}

impl Declaration {
    /// The pool's name, whether or not the pool can be used.
    pub fn name(&self) -> &PoolName {
        self.pool.as_ref().map_or_else(|invalid| &invalid.pool, |pool| &pool.name)
    }

    /// How its addresses are announced.
    ///
    /// # Errors
    /// The first selector that is not one; the pool itself is invalid then.
    pub fn policy(&self) -> Result<Policy, PoolError> {
        Policy::new(&self.announcement, self.probing)
    }

    /// That this pool is not used, and why.
    pub fn not_used(&self, why: &impl fmt::Display) -> Remark {
        let message = format!("pool \"{}\" ({}) is not used: {why}", self.name(), self.origin);
        Remark { reason: "PoolNotUsed", message }
    }

    /// That this pool is used as it was declared at `generation`, and why not as it is now.
    pub fn change_not_used(&self, why: &Unusable, generation: Option<i64>) -> Remark {
        let is_counted = !matches!(self.origin, Origin::ConfigMap { .. });
        let why = still_in_force(why, generation.filter(|_| is_counted));
        let message =
            format!("a change of pool \"{}\" ({}) is not used: {why}", self.name(), self.origin);
        Remark { reason: "ChangeNotUsed", message }
    }
}

impl From<&AddressPool> for Declaration {
    fn from(pool: &AddressPool) -> Self {
        Self {
            origin: Origin::AddressPool { name: pool.name_any() },
            object: pool.object_ref(&()),
            generation: pool.metadata.generation,
            created: pool.creation_timestamp(),
            pool: pool.to_pool(),
            announcement: if pool.spec.routed {
                Announcement::Routed
            } else {
                Announcement::by(pool.spec.announce.clone())
            },
            probing: pool.spec.conflict_probing,
            ends: pool.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// A pool that its format makes invalid, in words that say what to do.
pub(crate) fn invalid(pool: PoolName, why: impl Into<String>) -> InvalidPool {
    InvalidPool::new(pool, PoolError::Format(why.into()))
}

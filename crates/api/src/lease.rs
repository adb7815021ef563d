//! What sessions and locks have in common: both are `coordination.k8s.io/v1` `Lease` objects in Arpeggio's namespace.

use std::collections::BTreeMap;

use arpeggio_election::Version;
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde_json::{Value, json};

/// The label that tells Arpeggio's Leases from others, and sessions from locks.
pub const KIND_LABEL: &str = "arpeggio.dev/lease";
/// Selects all of Arpeggio's Leases, for lists and watches.
pub const SELECTOR: &str = KIND_LABEL;

pub(crate) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "arpeggio");

/// Which of the two a Lease is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A node's proof of life.
    Session,
    /// The record of who announces one address.
    Lock,
}

impl Kind {
    /// The value of [`KIND_LABEL`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Lock => "address",
        }
    }

    /// What `lease` is; `None` when its label says that it is not ours.
    pub fn of(lease: &Lease) -> Option<Self> {
        let label = lease.metadata.labels.as_ref()?.get(KIND_LABEL)?;
        [Self::Session, Self::Lock].into_iter().find(|kind| kind.as_str() == label)
    }

    pub(crate) fn labels(self) -> BTreeMap<String, String> {
        [MANAGED_BY, (KIND_LABEL, self.as_str())]
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }
}

/// Why a Lease with our label, or a part of it, is not understood. That is skipped, the rest goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Lease {lease}: {what}; this is ignored")]
pub struct LeaseError {
    /// The object's name.
    pub lease: String,
    /// What is wrong with it.
    pub what: String,
}

impl LeaseError {
    pub(crate) fn new(lease: &Lease, what: impl Into<String>) -> Self {
        Self { lease: lease.metadata.name.clone().unwrap_or_default(), what: what.into() }
    }
}

pub(crate) fn annotation<'a>(lease: &'a Lease, key: &str) -> Option<&'a str> {
    let value = lease.metadata.annotations.as_ref()?.get(key)?.as_str();
    (!value.is_empty()).then_some(value)
}

pub(crate) fn version(lease: &Lease) -> Result<Version, LeaseError> {
    let text = lease.metadata.resource_version.as_deref().unwrap_or_default();
    let number = text.parse().map_err(|_| {
        LeaseError::new(lease, format!("its resourceVersion {text:?} is not a number"))
    })?;
    Ok(Version(number))
}

pub(crate) fn metadata(
    kind: Kind,
    name: String,
    annotations: BTreeMap<String, String>,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        labels: Some(kind.labels()),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    }
}

/// A JSON merge patch (RFC 7386) that the API server refuses with 409 unless the object still has version `expected`.
/// An annotation that is `null` is removed.
pub(crate) fn guarded(expected: Version, annotations: &Value, spec: &Value) -> Value {
    json!({
        "metadata": { "resourceVersion": expected.0.to_string(), "annotations": annotations },
        "spec": spec,
    })
}

//! What could not be read, and what to do about it.

use arpeggio_runtime::failure::{Cause, Failure};
use kube::{Resource, core::error_boundary::InvalidObject};

use crate::complaint::words;

/// A request that reads objects, as a permission names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The resource, in the plural.
    pub(crate) resource: String,
    /// The API group; empty for the core group.
    pub(crate) group: String,
    /// The namespace; `None` for all of them.
    pub(crate) namespace: Option<String>,
    /// What is done with it.
    pub(crate) verb: &'static str,
}

impl Reading {
    /// Of a kind's objects in `namespace`, or wherever they are.
    pub(crate) fn of<K: Resource<DynamicType = ()>>(namespace: Option<&str>) -> Self {
        Self {
            resource: K::plural(&()).into_owned(),
            group: K::group(&()).into_owned(),
            namespace: namespace.map(str::to_owned),
            verb: "list",
        }
    }

    /// The same, to do something else with them.
    pub(crate) fn to(self, verb: &'static str) -> Self {
        Self { verb, ..self }
    }

    /// Of a part of pods, like their logs, in `namespace`.
    pub(crate) fn of_pods(part: &str, namespace: &str) -> Self {
        Self {
            resource: format!("pods/{part}"),
            group: String::new(),
            namespace: Some(namespace.to_owned()),
            verb: "get",
        }
    }
}

impl std::fmt::Display for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { resource, group, namespace, .. } = self;
        write!(f, "{resource} (API group \"{group}\"")?;
        match namespace {
            Some(namespace) => write!(f, ", namespace {namespace})"),
            None => write!(f, ", cluster-wide)"),
        }
    }
}

/// Something that an explanation lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Gap {
    /// A permission is missing.
    #[error("{0}: you need the permission to \"{verb}\" them", verb = .0.verb)]
    Forbidden(Reading),
    /// The API server does not know the kind.
    #[error(
        "{0}: the API server does not know the kind; is its CustomResourceDefinition installed?"
    )]
    UnknownKind(Reading),
    /// The request has failed.
    #[error("{0}: {1}")]
    Failed(Reading, String),
    /// One object is not as it must be.
    #[error("{of}: the object \"{name}\" cannot be read: {why}")]
    Malformed {
        /// Of which kind it is.
        of: Reading,
        /// Its name.
        name: String,
        /// Its uid.
        uid: Option<String>,
        /// What is wrong with it.
        why: String,
    },
}

impl Gap {
    /// Why nothing was read.
    pub(crate) fn of(reading: Reading, error: &kube::Error) -> Self {
        match Failure::from(error) {
            Failure::Refused(Cause::Forbidden) => Self::Forbidden(reading),
            Failure::NotFound => Self::UnknownKind(reading),
            _ => Self::Failed(reading, words(error)),
        }
    }

    /// Whether objects of this resource are missing.
    pub(crate) fn is_of(&self, resource: &str) -> bool {
        let (Self::Forbidden(of)
        | Self::UnknownKind(of)
        | Self::Failed(of, _)
        | Self::Malformed { of, .. }) = self;
        of.resource == resource
    }

    /// Whether nothing at all was read, and not only one object was left out.
    pub(crate) fn is_whole(&self) -> bool {
        !matches!(self, Self::Malformed { .. })
    }

    /// An object that was left out.
    pub(crate) fn malformed(of: Reading, object: InvalidObject) -> Self {
        let name = object.metadata.name.unwrap_or_default();
        Self::Malformed { of, name, uid: object.metadata.uid, why: object.error }
    }

    /// The uid of an object that was left out.
    pub(crate) fn left_out(&self) -> Option<&str> {
        match self {
            Self::Malformed { uid, .. } => uid.as_deref(),
            _ => None,
        }
    }
}

//! Objects that the API server does not show: it answers, and refuses to list or to watch them.
//!
//! The controller goes on without them, since only Services and Leases are needed. Of pools, and of what says where they are
//! announced, what was known before stays in force, also what an earlier controller has kept of them; an address that no
//! known pool has may be of one that is not shown, and is not taken away. A namespace that is not shown is selected by no
//! pool's `namespaceSelectors`, and its Services keep what they have.

use std::{borrow::Cow, collections::BTreeSet, fmt};

use arpeggio_api::address_pool::AddressPool;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;

use super::Index;

/// Objects that the API server does not show.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unlisted {
    group: String,
    kind: String,
    plural: String,
    /// The only namespace that they are looked for in.
    namespace: Option<String>,
    /// The only name.
    name: Option<String>,
}

impl Unlisted {
    /// All objects of this kind.
    #[must_use]
    pub fn all<K: Resource<DynamicType = ()>>() -> Self {
        let [group, kind, plural] =
            [K::group(&()), K::kind(&()), K::plural(&())].map(Cow::into_owned);
        Self { group, kind, plural, namespace: None, name: None }
    }

    /// The one of this name, in this namespace.
    #[must_use]
    pub fn one<K: Resource<DynamicType = ()>>(namespace: &str, name: &str) -> Self {
        let (namespace, name) = (Some(namespace.to_owned()), Some(name.to_owned()));
        Self { namespace, name, ..Self::all::<K>() }
    }

    /// Whether `object` is one of them.
    fn has(&self, object: &ObjectReference) -> bool {
        let version = object.api_version.as_deref().unwrap_or_default();
        let group = version.rsplit_once('/').map_or("", |(group, _)| group);
        let is = |only: &Option<String>, it: &Option<String>| only.is_none() || only == it;
        self.group == group
            && object.kind.as_ref() == Some(&self.kind)
            && is(&self.namespace, &object.namespace)
            && is(&self.name, &object.name)
    }

    fn is_namespace(&self) -> bool {
        self.group.is_empty() && self.kind == "Namespace"
    }
}

/// As permissions name them.
impl fmt::Display for Unlisted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.plural)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => write!(f, " ({namespace}/{name})"),
            _ => Ok(()),
        }
    }
}

/// All of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct AllUnlisted(BTreeSet<Unlisted>);

impl AllUnlisted {
    pub(super) fn has(&self, object: &ObjectReference) -> bool {
        self.0.iter().any(|it| it.has(object))
    }

    pub(super) fn has_namespaces(&self) -> bool {
        self.0.iter().any(Unlisted::is_namespace)
    }

    /// Whether there may be pools among them.
    pub(super) fn may_have_pools(&self) -> bool {
        self.0.iter().any(|it| !it.is_namespace())
    }

    /// What they are, for people; `None` where there are none.
    pub(super) fn names(&self) -> Option<String> {
        let names: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

impl Index {
    /// Which objects with pools, advertisements or namespaces the API server does not show. What is decided without them is
    /// no harm to those who depend on them.
    pub fn set_unlisted(&mut self, unlisted: BTreeSet<Unlisted>) {
        let unlisted = AllUnlisted(unlisted);
        if self.declarations.unlisted == unlisted {
            return;
        }
        self.declarations.unlisted = unlisted;
        // Those of whom it is said now are not waited for.
        self.listed.pools |= self.declarations.unlisted.0.contains(&Unlisted::all::<AddressPool>());
        self.pools_changed();
    }
}

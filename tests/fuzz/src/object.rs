//! Kubernetes objects as lines of text, which are mutated with more success than JSON.
//!
//! Each line is `NAME: VALUE`; a name with a slash is that of an annotation.

use std::collections::BTreeMap;

use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::ObjectMeta};

/// The lines of an object.
pub(crate) struct Fields(BTreeMap<String, String>);

impl Fields {
    /// Reads the lines that are like this; the later one of two with the same name counts.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let lines = text.split('\n').filter_map(|line| line.split_once(": "));
        Self(lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// The value of a line.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    /// The value of a line that is a number.
    pub(crate) fn number(&self, name: &str) -> Option<i32> {
        self.0.get(name)?.parse().ok()
    }

    /// What every object has.
    pub(crate) fn metadata(&self) -> ObjectMeta {
        let annotations = self.0.iter().filter(|(name, _)| name.contains('/'));
        ObjectMeta {
            name: self.get("name"),
            namespace: self.get("namespace"),
            uid: self.get("uid"),
            resource_version: self.get("resourceVersion"),
            annotations: Some(annotations.map(|(name, it)| (name.clone(), it.clone())).collect()),
            ..ObjectMeta::default()
        }
    }

    /// A Lease.
    pub(crate) fn lease(&self) -> Lease {
        let mut lease = Lease { metadata: self.metadata(), ..Lease::default() };
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = self.get("holderIdentity");
        spec.lease_transitions = self.number("leaseTransitions");
        lease
    }
}

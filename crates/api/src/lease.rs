//! What sessions, locks and the Leases of forwarders have in common: all are `coordination.k8s.io/v1` `Lease` objects in
//! Arpeggio's namespace.
//!
//! Every Lease says in which format it is written (annotation `arpeggio.dev/format`; absent: 1). A release reads its own
//! format and lower ones. It leaves a Lease of a higher format alone: what such a Lease says may mean something that this
//! release does not know.

use std::collections::BTreeMap;

use arpeggio_election::{Renewal, Version};
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde_json::{Value, json};

/// The label that tells Arpeggio's Leases from others, and sessions from locks and from what forwarders say.
pub const KIND_LABEL: &str = "arpeggio.dev/lease";
/// Selects sessions, locks and what forwarders say, for lists and watches.
pub const SELECTOR: &str = KIND_LABEL;
/// Selects all of Arpeggio's Leases, also those that only controllers read.
pub const EVERY_SELECTOR: &str = "app.kubernetes.io/managed-by=arpeggio";

const FORMAT: &str = "arpeggio.dev/format";

/// The format that this release writes, and the highest that it understands.
pub const OUR_FORMAT: u32 = 1;

pub(crate) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "arpeggio");

/// What a Lease is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A node's proof of life.
    Session,
    /// The record of who announces one address.
    Lock,
    /// What the forwarder of a node says.
    Forwarder,
}

impl Kind {
    /// The value of [`KIND_LABEL`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Lock => "address",
            Self::Forwarder => "forwarder",
        }
    }

    /// What `lease` is; `None` when its label says that it is not ours.
    pub fn of(lease: &Lease) -> Option<Self> {
        let label = lease.metadata.labels.as_ref()?.get(KIND_LABEL)?;
        [Self::Session, Self::Lock, Self::Forwarder].into_iter().find(|kind| kind.as_str() == label)
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

/// The format of a Lease that only a newer release understands, as it is written there. What is no number is one that
/// this release does not know, either.
pub fn newer_format(lease: &Lease) -> Option<&str> {
    let format = annotation(lease, FORMAT)?;
    (!format.parse().is_ok_and(|format: u32| format <= OUR_FORMAT)).then_some(format)
}

/// The annotation of every Lease that this release writes.
pub(crate) fn format_annotation() -> (String, String) {
    (FORMAT.to_owned(), OUR_FORMAT.to_string())
}

pub(crate) fn annotation<'a>(lease: &'a Lease, key: &str) -> Option<&'a str> {
    let value = lease.metadata.annotations.as_ref()?.get(key)?.as_str();
    (!value.is_empty()).then_some(value)
}

/// The version of a Lease.
///
/// # Errors
/// When it has none, or none that is a number.
pub fn version(lease: &Lease) -> Result<Version, LeaseError> {
    let text = lease.metadata.resource_version.as_deref().unwrap_or_default();
    let number = text.parse().map_err(|_| {
        LeaseError::new(lease, format!("its resourceVersion {text:?} is not a number"))
    })?;
    Ok(Version(number))
}

pub(crate) fn renewal(lease: &Lease) -> Option<Renewal> {
    let time = lease.spec.as_ref()?.renew_time.as_ref()?;
    Some(Renewal(time.0.as_microsecond()))
}

pub(crate) fn metadata(
    kind: Kind,
    name: String,
    mut annotations: BTreeMap<String, String>,
) -> ObjectMeta {
    annotations.extend([format_annotation()]);
    ObjectMeta {
        name: Some(name),
        labels: Some(kind.labels()),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    }
}

/// A JSON merge patch (RFC 7386) that the API server refuses with 409 unless the object still has version `expected`.
/// An annotation that is `null` is removed. The format is added.
pub(crate) fn guarded(expected: Version, annotations: &Value, spec: &Value) -> Value {
    let (key, format) = format_annotation();
    let mut annotations = annotations.clone();
    annotations[key] = json!(format);
    json!({
        "metadata": { "resourceVersion": expected.0.to_string(), "annotations": annotations },
        "spec": spec,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The annotations in the table at the head of a file, by name.
    pub(crate) fn documented(source: &str) -> Vec<&str> {
        let rows = source.lines().filter_map(|line| line.strip_prefix("//! | annotation"));
        let mut keys: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
        keys.sort_unstable();
        keys
    }

    /// Whether the admission policy has a list of just these annotations.
    pub(crate) fn policy_lists(keys: &[&str]) -> bool {
        let policy = include_str!("../../../manifests/components/admission/policy.yaml");
        let policy = policy.split_whitespace().collect::<Vec<_>>().join(" ");
        let list = keys.iter().map(|key| format!("'{key}'")).collect::<Vec<_>>().join(", ");
        policy.contains(&format!("[{list}].all(key,"))
    }

    #[test]
    fn a_speaker_may_write_our_format_on_what_is_not_its_own() {
        let policy = include_str!("../../../manifests/components/admission/policy.yaml");
        assert!(policy.contains(&format!("['', '{OUR_FORMAT}', variables.notesBefore")));
    }

    #[test]
    fn a_format_that_is_not_known_is_a_newer_one() {
        let table = [
            (None, None),
            (Some(""), None),
            (Some("0"), None),
            (Some("1"), None),
            (Some("2"), Some("2")),
            (Some("99999999999"), Some("99999999999")),
            (Some("1.1"), Some("1.1")),
            (Some("-1"), Some("-1")),
        ];
        for (format, expected) in table {
            let annotations = format.map(|it| (FORMAT.to_owned(), it.to_owned()));
            let annotations = Some(annotations.into_iter().collect());
            let metadata = ObjectMeta { annotations, ..ObjectMeta::default() };
            let lease = Lease { metadata, ..Lease::default() };
            assert_eq!(newer_format(&lease), expected, "{format:?}");
        }
    }

    #[test]
    fn whatever_is_written_says_its_format() {
        let patch = guarded(Version(7), &json!({}), &json!({}));
        assert_eq!(patch["metadata"]["annotations"][FORMAT], "1");
        let created = metadata(Kind::Lock, "address-10.0.0.1".into(), BTreeMap::new());
        assert_eq!(created.annotations.unwrap()[FORMAT], "1");
    }
}

//! The controller's leader Lease, `controller-leader`: which of several controllers decides.
//!
//! | field | meaning |
//! |---|---|
//! | `spec.holderIdentity` | the process that leads; empty when it has stepped down |
//! | `spec.leaseDurationSeconds` | how long the Lease counts after an observer has seen it renewed |
//! | `spec.leaseTransitions` | how often another process has become the leader |
//! | `spec.renewTime` | changes with each renewal, and with nothing else; nobody compares it with a clock |
//! | `spec.acquireTime` | for people |
//!
//! It has not got the label of sessions and locks: speakers watch those, and its renewals are not their business.

use std::{collections::BTreeMap, time::Duration};

use arpeggio_election::{
    Version,
    leader::{Leader, Write},
};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use serde_json::{Value, json};

use crate::lease::{self, LeaseError, MANAGED_BY};

/// The Lease's name.
pub const NAME: &str = "controller-leader";

/// A leader Lease, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderRecord {
    /// The part that leadership is decided with.
    pub leader: Leader,
    /// How often another process has become the leader.
    pub transitions: i32,
    /// Its format, when only a newer release understands it: then it is left alone, and nobody of this release leads.
    pub newer: Option<String>,
}

/// Whether a Lease of this name is Arpeggio's: other programs call theirs the same.
pub fn is_of_arpeggio(lease: &Lease) -> bool {
    let (key, value) = MANAGED_BY;
    lease.metadata.labels.as_ref().and_then(|labels| labels.get(key)).is_some_and(|it| it == value)
}

/// How a [`Write`] is said to the API server.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Create this object.
    Create(Box<Lease>),
    /// Apply this merge patch, which is refused with 409 when the object has another version.
    Patch(Value),
}

/// Reads a leader Lease. One without a duration, made by hand, does not count at all.
///
/// # Errors
/// When its version is not a number.
pub fn parse(lease: &Lease) -> Result<LeaderRecord, LeaseError> {
    if let Some(format) = lease::newer_format(lease) {
        return Ok(newer(format, lease::version(lease)?));
    }
    let spec = lease.spec.as_ref();
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
    let holder = spec.and_then(|spec| spec.holder_identity.clone());
    let leader = Leader {
        holder: holder.filter(|holder| !holder.is_empty()),
        duration: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
        renewal: lease::renewal(lease),
        version: lease::version(lease)?,
    };
    let transitions = spec.and_then(|spec| spec.lease_transitions).unwrap_or_default();
    Ok(LeaderRecord { leader, transitions, newer: None })
}

/// A newer release leads, whatever it says of itself, until somebody deletes the Lease.
fn newer(format: &str, version: Version) -> LeaderRecord {
    let holder = Some(format!("a newer release (format {format})"));
    let leader = Leader { holder, duration: Duration::MAX, renewal: None, version };
    LeaderRecord { leader, transitions: 0, newer: Some(format.to_owned()) }
}

/// The request by which process `name` does `write`, where `known` is the record as it was seen last. `duration` is
/// written in whole seconds.
pub fn request(
    write: Write,
    name: &str,
    known: Option<&LeaderRecord>,
    duration: Duration,
    now: &MicroTime,
) -> Request {
    let seconds = i32::try_from(duration.as_secs()).unwrap_or(i32::MAX);
    let transitions = known.map_or(0, |record| record.transitions);
    match write {
        Write::Create => Request::Create(Box::new(created(name, seconds, now))),
        Write::Take { expected } => patch(
            expected,
            &json!({
                "holderIdentity": name,
                "leaseDurationSeconds": seconds,
                "leaseTransitions": transitions.saturating_add(1),
                "acquireTime": now,
                "renewTime": now,
            }),
        ),
        Write::Renew { expected } => patch(expected, &json!({ "renewTime": now })),
        Write::StepDown { expected } => patch(expected, &json!({ "holderIdentity": "" })),
    }
}

fn patch(expected: Version, spec: &Value) -> Request {
    let mut patch = lease::guarded(expected, &json!({}), spec);
    // By which other installations find it: a Lease that somebody has taken it from gets it back.
    patch["metadata"]["labels"] = json!(BTreeMap::from([MANAGED_BY]));
    Request::Patch(patch)
}

fn created(name: &str, seconds: i32, now: &MicroTime) -> Lease {
    let (key, value) = MANAGED_BY;
    Lease {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            labels: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])),
            annotations: Some(BTreeMap::from([lease::format_annotation()])),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: Some(seconds),
            lease_transitions: Some(0),
            acquire_time: Some(now.clone()),
            renew_time: Some(now.clone()),
            ..LeaseSpec::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use arpeggio_election::{
        Timestamp,
        leader::{Candidate, LeaseTimes},
    };
    use k8s_openapi::jiff;

    use super::*;
    use crate::lease::Kind;

    const DURATION: Duration = Duration::from_secs(6);

    fn now() -> MicroTime {
        MicroTime(jiff::Timestamp::default())
    }

    fn asked(write: Write, known: Option<&LeaderRecord>) -> Request {
        request(write, "one", known, DURATION, &now())
    }

    fn created_lease() -> Lease {
        let Request::Create(lease) = asked(Write::Create, None) else { panic!("not a create") };
        let mut lease = *lease;
        lease.metadata.resource_version = Some("7".into());
        lease
    }

    #[test]
    fn what_is_created_is_read_back() {
        let record = parse(&created_lease()).unwrap();
        let leader = Leader {
            holder: Some("one".into()),
            duration: DURATION,
            renewal: lease::renewal(&created_lease()),
            version: Version(7),
        };
        assert_eq!(record, LeaderRecord { leader, transitions: 0, newer: None });
    }

    #[test]
    fn speakers_do_not_watch_it() {
        assert_eq!(Kind::of(&created_lease()), None);
        assert!(is_of_arpeggio(&created_lease()));
    }

    #[test]
    fn every_patch_names_the_version_that_it_was_decided_on_and_has_the_label() {
        let expected = Version(7);
        let known = LeaderRecord { transitions: 4, ..parse(&created_lease()).unwrap() };
        for write in
            [Write::Take { expected }, Write::Renew { expected }, Write::StepDown { expected }]
        {
            let Request::Patch(patch) = asked(write, Some(&known)) else { panic!("{write:?}") };
            assert_eq!(patch["metadata"]["resourceVersion"], "7", "{write:?}");
            let labels = json!({ "app.kubernetes.io/managed-by": "arpeggio" });
            assert_eq!(patch["metadata"]["labels"], labels, "{write:?}");
        }
        let Request::Patch(take) = asked(Write::Take { expected }, Some(&known)) else { panic!() };
        assert_eq!(take["spec"]["leaseTransitions"], 5);
        assert_eq!(take["spec"]["holderIdentity"], "one");
    }

    #[test]
    fn nobody_leads_over_a_newer_release() {
        let mut lease = created_lease();
        let annotations = lease.metadata.annotations.as_mut().unwrap();
        annotations.insert("arpeggio.dev/format".to_owned(), "2".to_owned());
        for holder in ["", "one", "another"] {
            lease.spec.as_mut().unwrap().holder_identity = Some(holder.to_owned());
            let record = parse(&lease).unwrap();
            assert_eq!(record.newer.as_deref(), Some("2"));
            let mut candidate = Candidate::new("one", LeaseTimes::default());
            for day in 0..9 {
                let now = Timestamp::from_origin(Duration::from_hours(24 * day));
                candidate.saw(Some(record.leader.clone()), now);
                assert_eq!(candidate.decide(now).write, None, "{holder} {day}");
                assert_eq!(candidate.leads_until(), None, "{holder} {day}");
            }
        }
    }

    #[test]
    fn an_empty_holder_is_nobody() {
        let mut lease = created_lease();
        lease.spec.as_mut().unwrap().holder_identity = Some(String::new());
        assert_eq!(parse(&lease).unwrap().leader.holder, None);
    }
}

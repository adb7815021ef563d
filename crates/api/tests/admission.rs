//! The policy of the component `admission` keeps speakers from what the controller writes on locks.

#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "a test may fail here")]

use std::{collections::BTreeSet, fs, path::Path};

use arpeggio_api::{
    lock::{Amendment, Claim, ClaimedFor, Expiry},
    terms::WrittenAnnounceTerms,
};
use arpeggio_election::Version;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

/// Whoever writes a Lease says its format.
const FORMAT: &str = "arpeggio.dev/format";

/// The keys of all annotations that the controller writes on a lock.
fn written() -> BTreeSet<String> {
    let (address, time) = ([192, 168, 0, 240].into(), Time(Timestamp::UNIX_EPOCH));
    let terms = WrittenAnnounceTerms::nowhere();
    let claimed_for = ClaimedFor { uid: "6f0c".into(), version: 12 };
    let (pool, services) = ("home".into(), Vec::new());
    let claim = Claim { address, pool, services, terms: terms.clone(), spread: true };
    let created = claim.made(&claimed_for, &time).metadata.annotations.unwrap();
    let amendment = Amendment {
        address,
        expected: Version(7),
        pool: Some("home".into()),
        services: Vec::new(),
        terms,
        spread: true,
        claimed_for: Some(claimed_for),
        claimed_since: Some(time.clone()),
        resting_until: Some(time.clone()),
        last_service: Some("default/web".into()),
        promised_to: Some("default/shop".into()),
        expiring: vec![Expiry { uid: "6f0c".into(), since: time }],
    };
    let patch = amendment.patch();
    let amended = patch["metadata"]["annotations"].as_object().unwrap().keys().cloned();
    created.into_keys().chain(amended).filter(|key| key != FORMAT).collect()
}

#[test]
fn a_speaker_may_change_nothing_that_the_controller_writes_on_a_lock() {
    let file = "../../manifests/components/admission/policy.yaml";
    let policy = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let missing: Vec<String> =
        written().into_iter().filter(|key| !policy.contains(&format!("'{key}'"))).collect();
    assert!(missing.is_empty(), "the policy does not name {missing:?}");
}

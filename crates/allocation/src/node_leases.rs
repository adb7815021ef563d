//! Leases of nodes that are gone: which of them are deleted.
//!
//! A node that was removed from the cluster, or re-installed under another name, leaves its session and the Lease of its
//! forwarder behind, and with the session what it has reported: its addresses would be reserved, and its MAC addresses be a
//! node's, for ever. They are deleted when none of the node's Leases has changed for an hour while there is no Node object
//! of its name. How long that is a process finds out for itself, by a clock that never steps: what a Lease says of times
//! is for people.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use arpeggio_api::{forwarder, lease, session};
use arpeggio_election::Node;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;

/// For how long no Lease of a node that is gone changes before they are deleted. Much longer than a session lasts, and
/// than it takes to install a node anew under its old name.
const PATIENCE: Duration = Duration::from_hours(1);

/// A deletion that was asked for, and has not shown, is asked for again after this time.
const RETRY: Duration = Duration::from_mins(1);

/// A Lease to delete, if it still is what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseToDelete {
    /// The Lease's name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its `resourceVersion`.
    pub version: String,
}

/// The Leases that nodes have.
#[derive(Debug, Default)]
pub(crate) struct NodeLeases(BTreeMap<Node, Known>);

#[derive(Debug, Default)]
struct Known {
    leases: BTreeMap<String, Version>,
    /// When they were found to be what they are now; `None` before that was looked at.
    since: Option<Duration>,
    /// When their deletion was asked for.
    asked: Option<Duration>,
}

#[derive(Debug, PartialEq, Eq)]
struct Version {
    lease: LeaseToDelete,
    /// Whether only a newer release understands it. Such a one is left alone.
    newer: bool,
}

/// The node whose session, or whose forwarder's Lease, has this name.
fn node_of(lease: &str) -> Option<Node> {
    session::node_of(lease).or_else(|| forwarder::node_of(lease))
}

impl NodeLeases {
    /// A node's Lease is new or has changed.
    pub(crate) fn seen(&mut self, lease: &Lease) {
        let name = lease.name_any();
        let Some(node) = node_of(&name) else { return };
        let newer = lease::newer_format(lease).is_some();
        let (uid, version) = (lease.uid(), lease.resource_version());
        let (uid, version) = (uid.unwrap_or_default(), version.unwrap_or_default());
        let version = Version { lease: LeaseToDelete { name: name.clone(), uid, version }, newer };
        let known = self.0.entry(node).or_default();
        if known.leases.get(&name) != Some(&version) {
            known.leases.insert(name, version);
            (known.since, known.asked) = (None, None);
        }
    }

    /// There is no Lease of this name any more.
    pub(crate) fn gone(&mut self, name: &str) {
        let Some(node) = node_of(name) else { return };
        let Some(known) = self.0.get_mut(&node) else { return };
        known.leases.remove(name);
        if known.leases.is_empty() {
            self.0.remove(&node);
        }
    }

    /// There are no others than these.
    pub(crate) fn listed(&mut self, names: &BTreeSet<String>) {
        self.0.retain(|_, known| {
            known.leases.retain(|name, _| names.contains(name));
            !known.leases.is_empty()
        });
    }

    /// The Leases to delete at the time `now`, on a clock that never steps. To be called every few seconds, also by a
    /// process that deletes nothing.
    pub(crate) fn over(
        &mut self,
        now: Duration,
        is_node: impl Fn(&str) -> bool,
    ) -> Vec<LeaseToDelete> {
        let over = |(node, known): (&Node, &mut Known)| {
            let since = *known.since.get_or_insert(now);
            let is_over = !is_node(node.as_str()) && now.saturating_sub(since) >= PATIENCE;
            let is_due = known.asked.is_none_or(|asked| now.saturating_sub(asked) >= RETRY);
            if !(is_over && is_due) {
                return Vec::new();
            }
            known.asked = Some(now);
            let ours = known.leases.values().filter(|it| !it.newer);
            ours.map(|it| it.lease.clone()).collect()
        };
        self.0.iter_mut().flat_map(over).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KINDS: [&str; 2] = ["session-n1", "forwarder-n1"];

    fn lease(name: &str, version: u64, format: &str) -> Lease {
        serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "uid": "u1",
                "resourceVersion": version.to_string(),
                "annotations": { "arpeggio.dev/format": format },
            },
        }))
        .unwrap()
    }

    fn minutes(count: u64) -> Duration {
        Duration::from_secs(60 * count)
    }

    /// Looks once a minute; returns when this Lease of n1 is to be deleted.
    fn deleted(
        name: &str,
        written_until: u64,
        format: &str,
        exists: impl Fn(u64) -> bool,
    ) -> Vec<u64> {
        let mut leases = NodeLeases::default();
        leases.seen(&lease(name, 0, format));
        let mut deleted = Vec::new();
        for minute in 0..200 {
            leases.seen(&lease(name, minute.min(written_until), format));
            let over = leases.over(minutes(minute), |_| exists(minute));
            let version = written_until.to_string();
            let is_it = |it: &LeaseToDelete| (&*it.name, &*it.uid) == (name, "u1");
            assert!(over.iter().all(|it| is_it(it) && it.version == version), "{over:?}");
            deleted.extend(over.iter().map(|_| minute));
        }
        deleted
    }

    #[test]
    fn a_lease_is_deleted_when_its_node_is_gone_and_it_has_not_changed_for_an_hour() {
        let never = |_| false;
        for name in KINDS {
            let deleted =
                |until, format, exists: &dyn Fn(u64) -> bool| deleted(name, until, format, exists);
            assert_eq!(deleted(0, "1", &never).first(), Some(&60));
            assert_eq!(deleted(30, "1", &never).first(), Some(&90));
            assert_eq!(deleted(0, "", &never).first(), Some(&60), "from before there were formats");
            assert_eq!(deleted(0, "1", &|minute| minute < 100).first(), Some(&100));
            assert!(deleted(0, "1", &|_| true).is_empty(), "there is such a node");
            assert!(deleted(199, "1", &never).is_empty(), "it is renewed");
            assert!(deleted(0, "2", &never).is_empty(), "a newer release's");
        }
        assert!(deleted("address-10.0.0.1", 0, "1", never).is_empty(), "no node's");
    }

    /// A forwarder may have died long before its node: whether that lives its session says.
    #[test]
    fn what_one_lease_of_a_node_shows_counts_for_all_of_them() {
        for format in ["1", "2"] {
            let mut leases = NodeLeases::default();
            leases.seen(&lease("forwarder-n1", 1, "1"));
            let mut first = None;
            for minute in 0..200 {
                leases.seen(&lease("session-n1", minute.min(50), format));
                let over = leases.over(minutes(minute), |_| false);
                first = first.or_else(|| (!over.is_empty()).then_some((minute, over.len())));
            }
            let count = if format == "1" { 2 } else { 1 };
            assert_eq!(first, Some((110, count)), "{format}");
        }
    }

    #[test]
    fn a_deletion_that_does_not_show_is_asked_for_again_in_a_minute() {
        let mut leases = NodeLeases::default();
        KINDS.iter().for_each(|name| leases.seen(&lease(name, 1, "1")));
        let over =
            |it: &mut NodeLeases, seconds| it.over(Duration::from_secs(seconds), |_| false).len();
        let counts = [0, 3599, 3600, 3601, 3660].map(|at| over(&mut leases, at));
        assert_eq!(counts, [0, 0, 2, 0, 2]);
        leases.gone("session-n1");
        assert_eq!(over(&mut leases, 9_999), 1);
        leases.listed(&BTreeSet::new());
        assert_eq!(over(&mut leases, 99_999), 0);
    }
}

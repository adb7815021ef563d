//! Sessions of nodes that are gone: which of them end for good.
//!
//! A node that was removed from the cluster, or re-installed under another name, leaves its session Lease behind, and with
//! it what it has reported: its addresses would be reserved, and its MAC addresses be a node's, for ever. Such a Lease is
//! deleted when it has not changed for an hour while there is no Node object of its name. How long that is a process finds
//! out for itself, by a clock that never steps: what the Lease says of times is for people.

use std::{collections::BTreeMap, time::Duration};

use arpeggio_api::{lease, session};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;

/// For how long a session of a node that is gone does not change before it is deleted. Much longer than a session lasts,
/// and than it takes to install a node anew under its old name.
const PATIENCE: Duration = Duration::from_hours(1);

/// A deletion that was asked for, and has not shown, is asked for again after this time.
const RETRY: Duration = Duration::from_mins(1);

/// A session Lease to delete, if it still is what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndSession {
    /// The Lease's name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its `resourceVersion`.
    pub version: String,
}

/// The session Leases that there are.
#[derive(Debug, Default)]
pub(crate) struct Sessions(BTreeMap<String, Known>);

#[derive(Debug)]
struct Known {
    lease: EndSession,
    /// When it was found to be what it is now; `None` before that was looked at.
    since: Option<Duration>,
    /// When its deletion was asked for.
    asked: Option<Duration>,
}

impl Sessions {
    /// A session Lease is new or has changed. One of a newer release is left alone.
    pub(crate) fn seen(&mut self, lease: &Lease) {
        let Some(node) = session::node_of(&lease.name_any()) else { return };
        if lease::newer_format(lease).is_some() {
            return self.gone(node.as_str());
        }
        let (uid, version) = (lease.uid(), lease.resource_version());
        let (uid, version) = (uid.unwrap_or_default(), version.unwrap_or_default());
        let lease = EndSession { name: lease.name_any(), uid, version };
        let node = node.to_string();
        if self.0.get(&node).is_none_or(|known| known.lease != lease) {
            self.0.insert(node, Known { lease, since: None, asked: None });
        }
    }

    /// A node has no session Lease any more.
    pub(crate) fn gone(&mut self, node: &str) {
        self.0.remove(node);
    }

    /// No other nodes than these have one.
    pub(crate) fn retain(&mut self, has_one: impl Fn(&str) -> bool) {
        self.0.retain(|node, _| has_one(node));
    }

    /// The Leases to delete at the time `now`, on a clock that never steps. To be called every few seconds, also by a
    /// process that deletes nothing.
    pub(crate) fn over(
        &mut self,
        now: Duration,
        is_node: impl Fn(&str) -> bool,
    ) -> Vec<EndSession> {
        let over = |(node, known): (&String, &mut Known)| {
            let since = *known.since.get_or_insert(now);
            let is_over = !is_node(node) && now.saturating_sub(since) >= PATIENCE;
            let is_due = known.asked.is_none_or(|asked| now.saturating_sub(asked) >= RETRY);
            (is_over && is_due).then(|| {
                known.asked = Some(now);
                known.lease.clone()
            })
        };
        self.0.iter_mut().filter_map(over).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lease(version: u64, format: &str) -> Lease {
        serde_json::from_value(json!({
            "metadata": {
                "name": "session-n1",
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

    /// Looks once a minute; returns when the session of n1 is to be deleted.
    fn deleted(renewed_until: u64, format: &str, exists: impl Fn(u64) -> bool) -> Vec<u64> {
        let mut sessions = Sessions::default();
        sessions.seen(&lease(0, format));
        let mut deleted = Vec::new();
        for minute in 0..200 {
            sessions.seen(&lease(minute.min(renewed_until), format));
            let over = sessions.over(minutes(minute), |_| exists(minute));
            let version = renewed_until.to_string();
            assert!(over.iter().all(|it| it.uid == "u1" && it.version == version), "{over:?}");
            deleted.extend(over.iter().map(|_| minute));
        }
        deleted
    }

    #[test]
    fn a_session_is_deleted_when_its_node_is_gone_and_it_has_not_changed_for_an_hour() {
        let never = |_| false;
        assert_eq!(deleted(0, "1", never).first(), Some(&60));
        assert_eq!(deleted(30, "1", never).first(), Some(&90));
        assert_eq!(deleted(0, "", never).first(), Some(&60), "written before there were formats");
        assert_eq!(deleted(0, "1", |minute| minute < 100).first(), Some(&100));
        assert!(deleted(0, "1", |_| true).is_empty(), "there is such a node");
        assert!(deleted(199, "1", never).is_empty(), "it is renewed");
        assert!(deleted(0, "2", never).is_empty(), "a newer release's");
    }

    #[test]
    fn a_deletion_that_does_not_show_is_asked_for_again_in_a_minute() {
        let mut sessions = Sessions::default();
        sessions.seen(&lease(1, "1"));
        let mut over = |seconds| sessions.over(Duration::from_secs(seconds), |_| false).len();
        assert_eq!((over(0), over(3599), over(3600), over(3601), over(3660)), (0, 0, 1, 0, 1));
        sessions.gone("n1");
        assert!(sessions.over(minutes(999), |_| false).is_empty());
    }
}

//! Other installations of Arpeggio in the same cluster.
//!
//! No address is given twice because its lock has its name, in one namespace. Two installations have two namespaces, and
//! see the same pools. So only the older one decides; the other one is not ready and says why. Each is known by its
//! controllers' leader Lease, and counts as long as that is renewed, by our own clock. An installation that has just come waits
//! for a moment before it decides, so that of two that come at once each has seen the other's Lease.

use std::{collections::BTreeMap, time::Duration};

use arpeggio_allocation::Watched;
use arpeggio_api::leader;
use arpeggio_runtime::{
    health::{Awaited, Health},
    watch::Event,
};
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{Api, Client, ResourceExt as _, api::ObjectMeta, runtime::watcher::Config};
use tokio::time::Instant;

use crate::feed::Feed;

/// How long an installation waits whose leader Lease is new. A watch shows a Lease within some milliseconds.
const SETTLE: Duration = Duration::from_secs(1);

/// A watch of the leader Leases of all namespaces.
pub(crate) struct Installations {
    feed: Feed<Lease>,
    known: Known,
    awaited: Awaited,
    /// The installation that keeps this one from deciding, as it was said last.
    said: Option<String>,
}

impl Installations {
    /// Watches with `client`; `namespace` is our own.
    pub(crate) fn new(client: &Client, namespace: &str, health: &Health) -> Self {
        let leaders = Config::default().fields(&format!("metadata.name={}", leader::NAME));
        let listed = health.awaits("leader Leases of all namespaces");
        Self {
            feed: Feed::new(Api::all(client.clone()), leaders, listed),
            known: Known::new(namespace),
            awaited: health.awaits("no other installation"),
            said: None,
        }
    }

    /// Whether the first list is complete.
    pub(crate) fn are_listed(&self) -> bool {
        self.feed.is_listed()
    }

    /// Waits for what the watch shows next. May be cancelled at any time.
    pub(crate) async fn next(&mut self) -> Event<Lease> {
        self.feed.next().await
    }

    /// Takes note of it.
    pub(crate) fn pass(&mut self, event: Event<Lease>) {
        self.feed.pass(event, &mut self.known);
    }

    /// Whether another installation decides in this cluster, or may: then this one does not.
    pub(crate) fn are_in_our_way(&self) -> bool {
        let now = Instant::now();
        !self.known.is_settled(now) || self.known.elder(now).is_some()
    }

    /// Says so, once, and when it is over.
    pub(crate) fn tell(&mut self) {
        let elder = self.known.elder(Instant::now()).map(str::to_owned);
        match &elder {
            None => self.awaited.done(),
            Some(namespace) => self.awaited.lacks(format!(
                "Arpeggio is installed in namespace {namespace} already: remove one of the two"
            )),
        }
        if elder != self.said {
            if let Some(namespace) = &elder {
                tracing::error!(
                    namespace,
                    "another installation of Arpeggio decides in this cluster, so this one does not: two could give one \
                     address twice. Remove one of the two"
                );
            } else {
                tracing::info!("there is no other installation any more");
            }
            self.said = elder;
        }
    }
}

/// The leader Leases that there are, by namespace.
struct Known {
    own: String,
    /// From when on our own Lease counts; `None`: there is none.
    settled: Option<Instant>,
    seen: BTreeMap<String, Seen>,
}

/// A leader Lease.
struct Seen {
    created: Option<Timestamp>,
    /// Until when it counts, unless it is renewed; `None`: its controllers have stepped down.
    lasts_until: Option<Instant>,
}

impl Known {
    fn new(own: &str) -> Self {
        Self { own: own.to_owned(), settled: None, seen: BTreeMap::new() }
    }

    /// Whether our own Lease is there, and has been for long enough.
    fn is_settled(&self, now: Instant) -> bool {
        self.settled.is_some_and(|settled| settled <= now)
    }

    fn note(&mut self, lease: &Lease, now: Instant) {
        let namespace = lease.namespace().unwrap_or_default();
        if namespace == self.own {
            self.settled.get_or_insert(now + SETTLE);
        }
        if namespace != self.own && !leader::is_of_arpeggio(lease) {
            return;
        }
        let Ok(record) = leader::parse(lease) else { return };
        let lasts = record.leader.duration.min(Duration::from_hours(1));
        let lasts_until = record.leader.holder.map(|_| now + lasts);
        let created = lease.creation_timestamp().map(|time| time.0);
        self.seen.insert(namespace, Seen { created, lasts_until });
    }

    /// The namespace of the installation that was there first, if its controllers live and it is not ours. Without a
    /// Lease of our own we come last.
    fn elder(&self, now: Instant) -> Option<&str> {
        let own = self.seen.get(&self.own).map(|seen| (seen.created, self.own.as_str()));
        let others = self.seen.iter().filter(|(namespace, seen)| {
            **namespace != self.own && seen.lasts_until.is_some_and(|until| now < until)
        });
        let elder = others.map(|(namespace, seen)| (seen.created, namespace.as_str())).min()?;
        own.is_none_or(|own| elder < own).then_some(elder.1)
    }
}

impl Watched<Lease> for Known {
    fn apply(&mut self, lease: Lease) {
        self.note(&lease, Instant::now());
    }

    fn gone(&mut self, lease: &ObjectMeta) {
        let namespace = lease.namespace.as_deref().unwrap_or_default();
        self.seen.remove(namespace);
        self.settled.take_if(|_| namespace == self.own);
    }

    /// What is in a list is older than the list.
    fn reset(&mut self, leases: Vec<Lease>) {
        let now = Instant::now();
        self.seen.clear();
        self.settled = None;
        leases.iter().for_each(|lease| self.note(lease, now));
        self.settled = self.settled.map(|_| now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lease(namespace: &str, created: u8, holder: &str) -> Lease {
        serde_json::from_value(json!({
            "metadata": {
                "name": leader::NAME, "namespace": namespace, "resourceVersion": "1",
                "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z"),
                "labels": { "app.kubernetes.io/managed-by": "arpeggio" },
            },
            "spec": { "holderIdentity": holder, "leaseDurationSeconds": 6 },
        }))
        .unwrap()
    }

    fn elder(leases: &[Lease], seconds: u64) -> Option<String> {
        let mut known = Known::new("ours");
        let now = Instant::now();
        leases.iter().for_each(|lease| known.note(lease, now));
        known.elder(now + Duration::from_secs(seconds)).map(str::to_owned)
    }

    #[test]
    fn who_was_there_first_decides_as_long_as_it_lives() {
        let ours = lease("ours", 5, "a");
        let (older, younger) = (lease("older", 4, "b"), lease("younger", 6, "c"));
        let older_name = || Some("older".to_owned());
        assert_eq!(elder(std::slice::from_ref(&ours), 0), None);
        assert_eq!(elder(&[ours.clone(), younger.clone()], 0), None);
        assert_eq!(elder(&[ours.clone(), older.clone(), younger], 0), older_name());
        assert_eq!(elder(&[ours.clone(), older.clone()], 6), None, "it is not renewed any more");
        assert_eq!(elder(&[ours, lease("older", 4, "")], 0), None, "it has stepped down");
        assert_eq!(elder(&[older], 0), older_name(), "we have not even begun");
    }

    #[test]
    fn another_programs_leader_is_nobody() {
        let mut older = lease("older", 4, "b");
        older.metadata.labels = None;
        assert_eq!(elder(&[lease("ours", 5, "a"), older], 0), None);
    }

    #[test]
    fn who_has_just_come_waits_until_it_would_have_seen_others() {
        let (mut known, now) = (Known::new("ours"), Instant::now());
        known.reset(Vec::new());
        assert!(!known.is_settled(now + SETTLE), "without a Lease of its own");
        known.note(&lease("ours", 5, "a"), now);
        assert!(!known.is_settled(now));
        known.note(&lease("ours", 5, "a"), now + SETTLE);
        assert!(known.is_settled(now + SETTLE));
        known.gone(&lease("ours", 5, "a").metadata);
        assert!(!known.is_settled(now + SETTLE * 2));
        known.reset(vec![lease("ours", 5, "a")]);
        assert!(known.is_settled(Instant::now()), "it was there before");
    }

    #[test]
    fn of_two_that_came_at_once_one_decides() {
        let (ours, twin) = (lease("ours", 5, "a"), lease("twin", 5, "b"));
        assert_eq!(elder(&[ours.clone(), twin], 0), None);
        let before = lease("before", 5, "b");
        assert_eq!(elder(&[ours, before], 0), Some("before".to_owned()));
    }
}

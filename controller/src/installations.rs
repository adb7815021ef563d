//! Other installations of Arpeggio in the same cluster.
//!
//! No address is given twice because its lock has its name, in one namespace. Two installations have two namespaces, and
//! see the same pools. So only the older one decides; the other one is not ready and says why. Each is known by its
//! controllers' leader Lease, and counts as long as that is renewed, and for a while longer. An installation that has just come
//! waits for a moment before it decides, so that of two that come at once each has seen the other's Lease.
//!
//! That while is counted in renewals of our own Lease, which the same watch shows in the order in which they were written. So a
//! watch that is broken, forbidden or behind shows no installation as gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use arpeggio_allocation::Watched;
use arpeggio_api::leader::{self, LeaderRecord};
use arpeggio_election::{
    Renewal, Version,
    leader::{Leader, LeaseTimes},
};
use arpeggio_runtime::{
    health::{Awaited, Health},
    watch::Event,
};
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{Api, Client, ResourceExt, api::ObjectMeta, runtime::watcher::Config};
use tokio::time::Instant;

use crate::feed::Feed;

/// How long an installation waits whose leader Lease is new. A watch shows a Lease within some milliseconds.
const SETTLE: Duration = Duration::from_secs(1);

/// For how long an installation counts whose leader Lease is not renewed, at the least: controllers are started anew within
/// it, also where there is one replica only. Nothing is lost meanwhile, as what its Services have stays.
const AWAY: Duration = Duration::from_secs(30);

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
        !self.known.is_settled(Instant::now()) || self.known.elder().is_some()
    }

    /// Says so, once, and when it is over.
    pub(crate) fn tell(&mut self) {
        let elder = self.known.elder().map(str::to_owned);
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
    sign: Sign,
    /// How often ours was renewed since.
    missed: u128,
    /// How often that may be so before it does not count any more. A holder that has stepped down has a successor, as a rule.
    lasts: u128,
}

/// Tells one sign of life from the next: what others write on a Lease is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Renewed(Renewal),
    /// It does not say when it was renewed.
    Written(Version),
}

impl Sign {
    fn of(leader: &Leader) -> Self {
        leader.renewal.map_or(Self::Written(leader.version), Self::Renewed)
    }
}

/// For how many renewals of ours a leader Lease counts. One without a duration does not count at all.
fn lasts(leader: &Leader) -> u128 {
    if leader.duration.is_zero() {
        return 0;
    }
    let time = leader.duration.clamp(AWAY, Duration::from_hours(1));
    time.as_millis().div_ceil(LeaseTimes::default().renewal.as_millis())
}

impl Known {
    fn new(own: &str) -> Self {
        Self { own: own.to_owned(), settled: None, seen: BTreeMap::new() }
    }

    /// Whether our own Lease is there, and has been for long enough.
    fn is_settled(&self, now: Instant) -> bool {
        self.settled.is_some_and(|settled| settled <= now)
    }

    /// Whether a Lease is that of an installation: ours has that name.
    fn counts(&self, lease: &Lease) -> bool {
        lease.namespace().unwrap_or_default() == self.own || leader::is_of_arpeggio(lease)
    }

    fn note(&mut self, lease: &Lease, now: Instant) {
        let namespace = lease.namespace().unwrap_or_default();
        if namespace == self.own {
            self.settled.get_or_insert(now + SETTLE);
        }
        if !self.counts(lease) {
            return;
        }
        let Ok(LeaderRecord { leader, .. }) = leader::parse(lease) else { return };
        let (sign, lasts) = (Sign::of(&leader), lasts(&leader));
        let before = self.seen.get(&namespace).filter(|seen| seen.sign == sign);
        let missed = before.map(|seen| seen.missed);
        if namespace == self.own && missed.is_none() {
            self.seen.values_mut().for_each(|seen| seen.missed += 1);
        }
        let created = lease.creation_timestamp().map(|time| time.0);
        let seen = Seen { created, sign, missed: missed.unwrap_or_default(), lasts };
        self.seen.insert(namespace, seen);
    }

    /// The namespace of the installation that was there first, if its controllers live and it is not ours. Without a
    /// Lease of our own we come last.
    fn elder(&self) -> Option<&str> {
        let own = self.seen.get(&self.own).map(|seen| (seen.created, self.own.as_str()));
        let others = self.seen.iter();
        let others =
            others.filter(|(namespace, seen)| **namespace != self.own && seen.missed < seen.lasts);
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

    /// What is in a list is older than the list, and no sign of life when it was known before.
    fn reset(&mut self, leases: Vec<Lease>) {
        let now = Instant::now();
        let listed = leases.iter().filter(|lease| self.counts(lease));
        let listed: BTreeSet<String> = listed.filter_map(ResourceExt::namespace).collect();
        self.seen.retain(|namespace, _| listed.contains(namespace));
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
        renewed(namespace, created, holder, 0)
    }

    /// A leader Lease after so many renewals.
    fn renewed(namespace: &str, created: u8, holder: &str, times: u64) -> Lease {
        let time = Timestamp::from_second(1_800_000_000 + 2 * i64::try_from(times).unwrap());
        serde_json::from_value(json!({
            "metadata": {
                "name": leader::NAME, "namespace": namespace, "resourceVersion": "1",
                "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z"),
                "labels": { "app.kubernetes.io/managed-by": "arpeggio" },
            },
            "spec": { "holderIdentity": holder, "leaseDurationSeconds": 6, "renewTime": time.unwrap() },
        }))
        .unwrap()
    }

    fn known(leases: &[Lease]) -> Known {
        let mut known = Known::new("ours");
        leases.iter().for_each(|lease| known.note(lease, Instant::now()));
        known
    }

    /// Has our own Lease be renewed for so many seconds.
    fn go_on(known: &mut Known, seconds: std::ops::Range<u64>) {
        for second in seconds.filter(|it| it.is_multiple_of(2)) {
            known.note(&renewed("ours", 5, "a", second), Instant::now());
        }
    }

    fn elder(leases: &[Lease]) -> Option<String> {
        known(leases).elder().map(str::to_owned)
    }

    #[test]
    fn who_was_there_first_decides_as_long_as_it_lives() {
        let ours = lease("ours", 5, "a");
        let (older, younger) = (lease("older", 4, "b"), lease("younger", 6, "c"));
        let older_name = || Some("older".to_owned());
        assert_eq!(elder(std::slice::from_ref(&ours)), None);
        assert_eq!(elder(&[ours.clone(), younger.clone()]), None);
        assert_eq!(elder(&[ours, older.clone(), younger]), older_name());
        assert_eq!(elder(&[older]), older_name(), "we have not even begun");
    }

    #[test]
    fn who_has_stepped_down_or_is_not_renewed_counts_until_it_could_be_back() {
        for holder in ["", "b"] {
            let mut known = known(&[lease("ours", 5, "a"), lease("older", 4, holder)]);
            go_on(&mut known, 1..29);
            assert_eq!(known.elder(), Some("older"), "{holder}");
            // Somebody writes a label: that is no sign of life.
            let mut labelled = lease("older", 4, holder);
            labelled.metadata.resource_version = Some("2".to_owned());
            known.note(&labelled, Instant::now());
            go_on(&mut known, 29..31);
            assert_eq!(known.elder(), None, "{holder}: it is gone for good");
            known.note(&renewed("older", 4, "c", 1), Instant::now());
            assert_eq!(known.elder(), Some("older"), "it is back");
            known.gone(&lease("older", 4, holder).metadata);
            assert_eq!(known.elder(), None, "its Lease was deleted");
        }
    }

    /// Nothing is shown at first, and then everything at once, in order.
    #[tokio::test(start_paused = true)]
    async fn what_the_watch_does_not_show_is_not_gone() {
        let mut known = known(&[lease("older", 4, "b"), lease("ours", 5, "a")]);
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert_eq!(known.elder(), Some("older"));
        for times in 0..100 {
            known.note(&renewed("ours", 5, "a", 100 + times), Instant::now());
            assert_eq!(known.elder(), Some("older"));
            known.note(&renewed("older", 4, "b", 100 + times), Instant::now());
        }
    }

    #[test]
    fn a_list_alone_is_no_sign_of_life() {
        let older = lease("older", 4, "b");
        let mut known = known(&[older.clone(), lease("ours", 5, "a")]);
        go_on(&mut known, 1..61);
        known.reset(vec![older.clone(), renewed("ours", 5, "a", 61)]);
        assert_eq!(known.elder(), None);
        known.reset(vec![renewed("older", 4, "b", 1), renewed("ours", 5, "a", 62)]);
        assert_eq!(known.elder(), Some("older"));
        known.reset(vec![renewed("ours", 5, "a", 63)]);
        assert_eq!(known.elder(), None);
    }

    #[test]
    fn what_somebody_made_by_hand_without_a_duration_is_nobody() {
        let mut older = lease("older", 4, "b");
        older.spec.as_mut().unwrap().lease_duration_seconds = None;
        assert_eq!(elder(&[lease("ours", 5, "a"), older]), None);
    }

    #[test]
    fn another_programs_leader_is_nobody() {
        let mut older = lease("older", 4, "b");
        older.metadata.labels = None;
        assert_eq!(elder(&[lease("ours", 5, "a"), older]), None);
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
        assert_eq!(elder(&[ours.clone(), twin]), None);
        let before = lease("before", 5, "b");
        assert_eq!(elder(&[ours, before]), Some("before".to_owned()));
    }
}

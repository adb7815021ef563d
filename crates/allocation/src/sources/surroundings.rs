//! What nodes, their neighbourhood and the cluster itself use, and what forwarders say.
//!
//! Gateways, and the network and broadcast addresses of subnets, are for the nodes' speakers to see. They report them on
//! their sessions, which they write every few seconds; only a change of what they report is news. What a node has
//! reported counts as long as its session exists, whether or not that has ended: its router is still there. The session of
//! a node that is gone is deleted after a while ([`crate::node_leases`]), and then what it has reported counts no more.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use arpeggio_api::{
    cluster::{ClusterRange, node_addresses},
    forwarder::{self, ForwarderRecord, STALE},
    reservations::Reservations,
    session::{self, SessionRecord, Whereabouts},
};
use arpeggio_election::Renewal;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node, networking::v1::ServiceCIDR};
use kube::{ResourceExt as _, api::ObjectMeta};

use crate::{
    Index, LeftBehind, Watched, name,
    node_leases::{LeaseToDelete, NodeLeases},
};

/// Sessions are renewed more often than this: where none was seen for so long, the API server is away.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);

/// What is known of nodes and of the cluster's ranges.
#[derive(Debug, Default)]
pub struct Surroundings {
    nodes: BTreeMap<String, Uses>,
    /// What nodes report of their interfaces.
    speakers: BTreeMap<String, Whereabouts>,
    /// The nodes whose sessions count. The connections of others are gone with them.
    live: BTreeSet<String>,
    /// What the forwarders of nodes say, where there are some.
    forwarders: BTreeMap<String, Says>,
    leases: NodeLeases,
    service_cidrs: BTreeMap<String, Vec<ClusterRange>>,
    changed: bool,
    lives_changed: bool,
    /// What forwarders say, or which of them live.
    said_changed: bool,
    renewals: Renewals,
}

/// Whether the API server tells of sessions.
#[derive(Debug, Default)]
struct Renewals {
    /// One was seen since that was looked at.
    any: bool,
    /// When that was so last.
    last: Option<Duration>,
}

impl Renewals {
    fn go_on(&mut self, now: Duration) -> bool {
        if std::mem::take(&mut self.any) {
            self.last = Some(now);
        }
        self.last.is_some_and(|last| now.saturating_sub(last) <= LONGEST_SILENCE)
    }
}

/// What a forwarder says.
#[derive(Debug, PartialEq)]
struct Says {
    /// What it has left of addresses that its node does not serve any more.
    left: Vec<(IpAddr, u32)>,
    /// Why one node serves addresses that all are to serve.
    not_spread: BTreeMap<IpAddr, String>,
    renewal: Option<Renewal>,
    /// When it was found to say this; `None` before that was looked at.
    since: Option<Duration>,
    /// It was not renewed for too long: its forwarder was killed, and nobody has come after it.
    is_stale: bool,
}

impl Says {
    fn of(record: ForwarderRecord) -> Option<Self> {
        let left = record.left_behind().collect();
        let (renewal, not_spread) = (record.written.renewal, record.says?.not_spread);
        Some(Self { left, not_spread, renewal, since: None, is_stale: false })
    }

    /// Whether it says something else by getting old. `is_told`: a renewal would have been seen.
    fn ages(&mut self, now: Duration, is_told: bool) -> bool {
        let was_stale = self.is_stale;
        if !is_told && !was_stale {
            self.since = Some(now);
        }
        let since = *self.since.get_or_insert(now);
        self.is_stale = now.saturating_sub(since) >= STALE;
        self.is_stale != was_stale
    }

    /// What the index is told of it.
    fn tells(&self) -> (&[(IpAddr, u32)], &BTreeMap<IpAddr, String>) {
        (&self.left, &self.not_spread)
    }
}

/// What one node uses.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Uses {
    addresses: Vec<IpAddr>,
    pods: Vec<ClusterRange>,
}

impl Uses {
    fn of(node: &Node) -> Self {
        Self { addresses: node_addresses(node), pods: ClusterRange::of_node(node) }
    }
}

impl Surroundings {
    /// Tells the index, if there is something new.
    pub fn tell(&mut self, index: &mut Index) {
        if std::mem::take(&mut self.changed) {
            index.set_reserved(self.reserved());
            index.set_cluster_ranges(self.ranges());
            index.set_speakers(self.speakers.clone());
        }
        if std::mem::take(&mut self.lives_changed) {
            index.set_living(self.live.clone());
        }
        if std::mem::take(&mut self.said_changed) {
            index.set_left_behind(self.left_behind());
            index.set_not_spread(Some(self.not_spread()));
        }
    }

    /// The Leases of nodes that are gone for good, at the time `now` on a clock that never steps. To be called every few
    /// seconds, also by a process that deletes nothing: what forwarders say becomes stale by that, too. Nodes must have been
    /// listed.
    pub fn leases_over(&mut self, now: Duration) -> Vec<LeaseToDelete> {
        let is_told = self.renewals.go_on(now);
        for says in self.forwarders.values_mut() {
            self.said_changed |= says.ages(now, is_told);
        }
        let nodes = &self.nodes;
        self.leases.over(now, |node| nodes.contains_key(node))
    }

    fn reserved(&self) -> Reservations {
        let mut reserved = Reservations::default();
        for (node, uses) in &self.nodes {
            reserved.add_node(node, uses.addresses.iter().copied());
        }
        for (node, speaker) in &self.speakers {
            reserved.add_reach(node, &speaker.reach);
            reserved.add_node(node, speaker.own.iter().copied());
        }
        reserved
    }

    /// What forwarders of nodes that live say, as long as they run.
    fn said(&self) -> impl Iterator<Item = (&String, &Says)> {
        let says = self.forwarders.iter();
        says.filter(|(node, says)| self.live.contains(*node) && !says.is_stale)
    }

    fn not_spread(&self) -> BTreeMap<arpeggio_election::Node, BTreeMap<IpAddr, String>> {
        self.said().map(|(node, says)| (node.as_str().into(), says.not_spread.clone())).collect()
    }

    fn left_behind(&self) -> LeftBehind {
        let mut left = LeftBehind::new();
        for (node, says) in self.said() {
            for (address, count) in &says.left {
                left.entry(*address).or_default().insert(node.clone(), *count);
            }
        }
        left
    }

    /// What a forwarder says. What is not understood says nothing.
    fn hear_forwarder(&mut self, node: &str, lease: &Lease) {
        let before = self.forwarders.remove(node);
        let mut says = forwarder::parse(lease).ok().and_then(Says::of);
        if let (Some(before), Some(now)) = (&before, &mut says)
            && before.renewal == now.renewal
        {
            (now.since, now.is_stale) = (before.since, before.is_stale);
        }
        let runs = |it: &&Says| !it.is_stale;
        let [told, tells] = [&before, &says].map(|it| it.as_ref().filter(runs).map(Says::tells));
        self.said_changed |= told != tells;
        self.forwarders.extend(says.map(|it| (node.to_owned(), it)));
    }

    fn set_live(&mut self, node: &str, is_live: bool) {
        let changed =
            if is_live { self.live.insert(node.to_owned()) } else { self.live.remove(node) };
        self.lives_changed |= changed;
        self.said_changed |= changed && self.forwarders.contains_key(node);
    }

    fn ranges(&self) -> Vec<ClusterRange> {
        let pods = self.nodes.values().flat_map(|uses| &uses.pods);
        self.service_cidrs.values().flatten().chain(pods).cloned().collect()
    }
}

impl Watched<Node> for Surroundings {
    /// Nodes report every few minutes that they are well, which is no change.
    fn apply(&mut self, node: Node) {
        let uses = Uses::of(&node);
        let before = self.nodes.insert(node.name_any(), uses.clone());
        self.changed |= before.as_ref() != Some(&uses);
    }

    fn gone(&mut self, node: &ObjectMeta) {
        self.changed |= self.nodes.remove(name(node)).is_some();
    }

    fn reset(&mut self, nodes: Vec<Node>) {
        self.nodes = nodes.iter().map(|node| (node.name_any(), Uses::of(node))).collect();
        self.changed = true;
    }
}

/// What a session says of its node, if it is understood.
fn reported(lease: &Lease) -> Option<SessionRecord> {
    session::parse(lease).inspect_err(|error| tracing::debug!(%error, "no session")).ok()
}

impl Watched<Lease> for Surroundings {
    /// What a session does not say, or not in a way that is understood, stays as it was.
    fn apply(&mut self, lease: Lease) {
        self.leases.seen(&lease);
        if let Some(node) = forwarder::node_of(&lease.name_any()) {
            return self.hear_forwarder(node.as_str(), &lease);
        }
        if session::node_of(&lease.name_any()).is_none() {
            return;
        }
        self.renewals.any = true;
        let Some(SessionRecord { session, links, own, .. }) = reported(&lease) else { return };
        let node = session.node.to_string();
        self.set_live(&node, session.is_live());
        let known = self.speakers.get(&node).cloned().unwrap_or_default();
        let reach = session.reach.unwrap_or_else(|| known.reach.clone());
        let own = own.unwrap_or_else(|| known.own.clone());
        let speaker = Whereabouts { reach, links, own, ..Whereabouts::default() };
        if speaker != known {
            self.speakers.insert(node, speaker);
            self.changed = true;
        }
    }

    fn gone(&mut self, lease: &ObjectMeta) {
        self.leases.gone(name(lease));
        if let Some(node) = forwarder::node_of(name(lease)) {
            self.said_changed |= self.forwarders.remove(node.as_str()).is_some();
        }
        let Some(node) = session::node_of(name(lease)) else { return };
        self.set_live(node.as_str(), false);
        self.changed |= self.speakers.remove(node.as_str()).is_some();
    }

    fn reset(&mut self, leases: Vec<Lease>) {
        let names: BTreeSet<String> = leases.iter().map(Lease::name_any).collect();
        let present: BTreeSet<_> = names.iter().filter_map(|it| session::node_of(it)).collect();
        let before = self.speakers.len();
        self.speakers.retain(|node, _| present.contains(&node.as_str().into()));
        self.leases.listed(&names);
        self.live.retain(|node| present.contains(&node.as_str().into()));
        self.forwarders.retain(|node, _| names.contains(&forwarder::name(&node.as_str().into())));
        (self.said_changed, self.lives_changed) = (true, true);
        self.changed |= self.speakers.len() < before;
        leases.into_iter().for_each(|lease| self.apply(lease));
    }
}

impl Watched<ServiceCIDR> for Surroundings {
    fn apply(&mut self, cidr: ServiceCIDR) {
        self.service_cidrs.insert(cidr.name_any(), ClusterRange::of_service_cidr(&cidr));
        self.changed = true;
    }

    fn gone(&mut self, cidr: &ObjectMeta) {
        self.changed |= self.service_cidrs.remove(name(cidr)).is_some();
    }

    fn reset(&mut self, cidrs: Vec<ServiceCIDR>) {
        let ranges = cidrs.iter().map(|it| (it.name_any(), ClusterRange::of_service_cidr(it)));
        self.service_cidrs = ranges.collect();
        self.changed = true;
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
    use serde_json::json;

    use super::*;

    fn node(name: &str, address: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "podCIDRs": ["10.244.0.0/24"] },
            "status": { "addresses": [{ "type": "InternalIP", "address": address }] },
        }))
        .unwrap()
    }

    #[test]
    fn nodes_keep_their_addresses_and_pods_theirs() {
        let mut surroundings = Surroundings::default();
        surroundings.reset(vec![node("n1", "192.168.0.11"), node("n2", "192.168.0.12")]);
        let reserved = |surroundings: &Surroundings| -> Vec<String> {
            let reserved = surroundings.reserved();
            reserved.iter().map(|(address, why)| format!("{address}: {why}")).collect()
        };
        let of =
            |node: &str, last: u8| format!("192.168.0.{last}: it is an address of node {node}");
        assert_eq!(reserved(&surroundings), [of("n1", 11), of("n2", 12)]);
        assert_eq!(surroundings.ranges().len(), 2);
        surroundings.delete(node("n2", "192.168.0.12"));
        assert_eq!(reserved(&surroundings), [of("n1", 11)]);
    }

    /// A session of node n1, as it is after so many renewals.
    fn session(version: u64, gateway: Option<&str>) -> Lease {
        let interfaces =
            gateway.map(|it| json!([{ "name": "eth0", "gateways": [it] }]).to_string());
        serde_json::from_value(json!({
            "metadata": {
                "name": "session-n1",
                "resourceVersion": version.to_string(),
                "annotations": { "arpeggio.dev/interfaces": interfaces.unwrap_or_default() },
            },
            "spec": { "holderIdentity": "n1", "leaseTransitions": 1 },
        }))
        .unwrap()
    }

    /// The Lease of the forwarder of node n1.
    fn of_forwarder() -> Lease {
        let metadata = json!({ "name": "forwarder-n1", "resourceVersion": "1" });
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn what_a_node_reports_counts_as_long_as_its_session_exists() {
        let mut surroundings = Surroundings::default();
        let mut count = |change: &dyn Fn(&mut Surroundings)| {
            change(&mut surroundings);
            (std::mem::take(&mut surroundings.changed), surroundings.reserved().iter().count())
        };
        assert_eq!(count(&|it| it.reset(vec![session(1, Some("10.0.0.1"))])), (true, 1));
        assert_eq!(count(&|it| it.apply(session(2, Some("10.0.0.1")))), (false, 1), "renewed");
        assert_eq!(count(&|it| it.apply(session(3, None))), (false, 1), "no word, no change");
        let mut ended = session(4, Some("10.0.0.1"));
        ended.spec.as_mut().unwrap().holder_identity = None;
        assert_eq!(count(&|it| it.reset(vec![ended.clone()])), (false, 1), "ended");
        assert_eq!(count(&|it| it.apply(session(5, Some("10.0.0.2")))), (true, 1), "another one");
        assert_eq!(count(&|it| it.delete(session(5, None))), (true, 0));
        assert_eq!(count(&|it| it.apply(session(6, Some("10.0.0.1")))), (true, 1));
        assert_eq!(count(&|it| Watched::<Lease>::reset(it, Vec::new())), (true, 0));
    }

    /// What the forwarder of node n1 has left.
    fn forwarder(connections: &str) -> Lease {
        serde_json::from_value(json!({
            "metadata": {
                "name": "forwarder-n1",
                "resourceVersion": "1",
                "annotations": { "arpeggio.dev/connections": connections },
            },
            "spec": { "holderIdentity": "forwarder-x7" },
        }))
        .unwrap()
    }

    #[test]
    fn what_a_forwarder_has_left_counts_as_long_as_its_node_lives() {
        let mut surroundings = Surroundings::default();
        let mut left = |change: &dyn Fn(&mut Surroundings)| {
            change(&mut surroundings);
            let is_new = std::mem::take(&mut surroundings.said_changed);
            let left = surroundings.left_behind().into_iter();
            let counts = left.flat_map(|(address, counts)| {
                counts.into_iter().map(move |(node, count)| format!("{address} {node} {count}"))
            });
            (is_new, counts.collect::<Vec<_>>())
        };
        let (none, seven) = (Vec::<String>::new(), vec!["10.0.0.1 n1 7".to_owned()]);
        assert_eq!(left(&|it| it.apply(session(1, None))), (false, none.clone()));
        let some = "10.0.0.1=7,10.0.0.2=0";
        assert_eq!(left(&|it| it.apply(forwarder(some))), (true, seven.clone()));
        assert_eq!(left(&|it| it.apply(forwarder(some))), (false, seven.clone()));
        assert_eq!(left(&|it| it.apply(session(2, None))), (false, seven.clone()), "renewed");
        let mut ended = session(3, None);
        ended.spec.as_mut().unwrap().holder_identity = None;
        assert_eq!(left(&|it| it.apply(ended.clone())), (true, none.clone()), "ended");
        assert_eq!(left(&|it| it.apply(session(4, None))), (true, seven.clone()));
        assert_eq!(left(&|it| it.apply(forwarder(""))), (true, none.clone()));
        assert_eq!(left(&|it| it.apply(forwarder(some))), (true, seven.clone()));
        assert_eq!(left(&|it| it.reset(vec![session(5, None)])), (true, none.clone()));
        let both = || vec![session(5, None), forwarder(some)];
        assert_eq!(left(&|it| it.reset(both())), (true, seven));
        assert_eq!(left(&|it| it.delete(forwarder(some))), (true, none));
    }

    #[test]
    fn who_lives_is_told_when_a_session_begins_ends_or_goes() {
        let mut surroundings = Surroundings::default();
        let mut living = |change: &dyn Fn(&mut Surroundings)| {
            change(&mut surroundings);
            let changed = std::mem::take(&mut surroundings.lives_changed);
            (changed, surroundings.live.len())
        };
        let mut ended = session(3, None);
        ended.spec.as_mut().unwrap().holder_identity = None;
        assert_eq!(living(&|it| it.reset(Vec::<Lease>::new())), (true, 0), "nobody does");
        assert_eq!(living(&|it| it.apply(session(1, None))), (true, 1));
        assert_eq!(living(&|it| it.apply(session(2, None))), (false, 1), "renewed");
        assert_eq!(living(&|it| it.apply(ended.clone())), (true, 0));
        assert_eq!(living(&|it| it.apply(session(4, None))), (true, 1));
        assert_eq!(living(&|it| it.delete(session(4, None))), (true, 0));
    }

    #[test]
    fn what_a_forwarder_has_left_counts_for_as_long_as_it_says_so_again() {
        let minutes = Duration::from_mins;
        let written = |version: &str, second| {
            let mut lease = forwarder("10.0.0.1=7");
            lease.metadata.resource_version = Some(version.to_owned());
            let time = MicroTime(Timestamp::from_second(second).unwrap());
            lease.spec.get_or_insert_default().renew_time = Some(time);
            lease
        };
        let mut surroundings = Surroundings::default();
        let mut counts = |now: u64, says: Option<(&str, i64)>| {
            surroundings.apply(session(1, None));
            surroundings.said_changed = false;
            let says = says.map(|(version, second)| written(version, second));
            says.into_iter().for_each(|lease| surroundings.apply(lease));
            surroundings.leases_over(minutes(now));
            (surroundings.said_changed, surroundings.left_behind().len())
        };
        assert_eq!(counts(10, Some(("1", 1))), (true, 1));
        assert_eq!(counts(12, None), (false, 1));
        assert_eq!(counts(12, Some(("2", 2))), (false, 1), "it says so again");
        assert_eq!(counts(14, Some(("2", 2))), (false, 1), "it was listed again");
        assert_eq!(counts(14, Some(("3", 2))), (false, 1), "somebody else has written on it");
        assert_eq!(counts(15, None), (true, 0), "it was killed");
        assert_eq!(counts(16, None), (false, 0));
        assert_eq!(counts(16, Some(("2", 2))), (false, 0), "it was listed again");
        assert_eq!(counts(17, Some(("4", 3))), (true, 1), "somebody has come after it");
    }

    /// Nor is it known of a renewal while the API server is away.
    #[test]
    fn a_forwarder_that_is_not_renewed_says_nothing() {
        let mut surroundings = Surroundings::default();
        surroundings.apply(forwarder(""));
        let mut says = |minute, is_told: bool| {
            if is_told {
                surroundings.apply(session(1, None));
            }
            surroundings.leases_over(Duration::from_mins(minute));
            let says = surroundings.not_spread().len();
            (std::mem::take(&mut surroundings.said_changed), says)
        };
        assert_eq!(says(1, true), (true, 1));
        for minute in 2..10 {
            assert_eq!(says(minute, false), (false, 1), "{minute}");
        }
        assert_eq!(says(11, true), (false, 1));
        assert_eq!(says(12, true), (true, 0));
        assert_eq!(says(13, false), (false, 0));
    }

    #[test]
    fn why_one_node_serves_an_address_is_told_by_those_who_live() {
        let mut lease = forwarder("");
        let annotations = lease.metadata.annotations.get_or_insert_default();
        let text = r#"{"no other node can serve it": ["10.0.0.1"]}"#;
        annotations.insert("arpeggio.dev/not-spread".into(), text.into());
        let mut surroundings = Surroundings::default();
        let mut told = |change: &dyn Fn(&mut Surroundings)| {
            surroundings.said_changed = false;
            change(&mut surroundings);
            let says = surroundings.not_spread();
            (surroundings.said_changed, says.values().map(BTreeMap::len).collect::<Vec<_>>())
        };
        assert_eq!(told(&|it| it.apply(lease.clone())), (true, vec![]), "no session");
        assert_eq!(told(&|it| it.apply(session(1, None))), (true, vec![1]));
        assert_eq!(told(&|it| it.apply(lease.clone())), (false, vec![1]));
        assert_eq!(told(&|it| it.apply(forwarder(""))), (true, vec![0]));
        assert_eq!(told(&|it| it.delete(forwarder(""))), (true, vec![]));
    }

    #[test]
    fn a_nodes_own_addresses_count_until_it_says_otherwise() {
        let mut surroundings = Surroundings::default();
        let mut after = |version: u64, own: Option<&str>| -> Vec<String> {
            let mut lease = session(version, None);
            let annotations = lease.metadata.annotations.as_mut().unwrap();
            let own = own.map(|own| ("arpeggio.dev/own-addresses".to_owned(), own.to_owned()));
            annotations.extend(own);
            surroundings.apply(lease);
            surroundings.reserved().iter().map(|(it, why)| format!("{it}: {why}")).collect()
        };
        let its = ["10.0.0.241: it is an address of node n1"];
        assert_eq!(after(1, Some("10.0.0.241")), its);
        assert_eq!(after(2, None), its, "it does not say");
        assert_eq!(after(3, Some("10.0.0.241,damaged")), its, "not understood");
        assert!(after(4, Some("")).is_empty(), "there are none");
    }

    #[test]
    fn what_a_node_that_is_gone_has_reported_is_free_an_hour_later() {
        let mut surroundings = Surroundings::default();
        surroundings.reset(vec![node("n1", "10.0.0.11")]);
        surroundings.apply(session(1, Some("10.0.0.1")));
        surroundings.apply(of_forwarder());
        let hour = Duration::from_hours(1);
        let over = |it: &mut Surroundings, hours| it.leases_over(hour * hours).len();
        assert_eq!((over(&mut surroundings, 0), over(&mut surroundings, 9)), (0, 0), "a node");
        surroundings.delete(node("n1", "10.0.0.11"));
        assert_eq!((over(&mut surroundings, 9), surroundings.reserved().iter().count()), (2, 1));
        surroundings.delete(of_forwarder());
        assert_eq!((over(&mut surroundings, 19), surroundings.reserved().iter().count()), (1, 1));
        surroundings.delete(session(1, None));
        assert_eq!(surroundings.reserved().iter().count(), 0);
        assert_eq!(over(&mut surroundings, 99), 0);
    }

    #[test]
    fn only_what_matters_is_a_change() {
        let mut surroundings = Surroundings::default();
        surroundings.apply(node("n1", "192.168.0.11"));
        assert!(std::mem::take(&mut surroundings.changed));
        let mut heartbeat = node("n1", "192.168.0.11");
        heartbeat.metadata.resource_version = Some("2".to_owned());
        surroundings.apply(heartbeat);
        assert!(!surroundings.changed);
        surroundings.apply(node("n1", "192.168.0.13"));
        assert!(surroundings.changed);
    }
}

//! Hands what the watches show to what a forwarder knows.

use std::collections::BTreeSet;

use arpeggio_api::{
    knowledge::{Knowledge, Wants, full_name},
    node::facts,
};
use arpeggio_election::{Node, NodeFacts};
use arpeggio_forwarding::Known;
use arpeggio_runtime::{unclear::UnclearLeases, watch::Change};
use k8s_openapi::api::{coordination::v1::Lease, core::v1};
use kube::{Resource, ResourceExt as _, api::ObjectMeta};

use crate::sources::Shown;

/// What is known so far.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    /// Nodes are excluded by their label.
    obey_exclusion: bool,
    knowledge: Knowledge,
    unclear: UnclearLeases,
}

impl Feed {
    pub(crate) fn new(obey_exclusion: bool) -> Self {
        Self { obey_exclusion, ..Self::default() }
    }

    pub(crate) fn known(&self) -> &Known {
        self.knowledge.known()
    }

    /// Whether the forwarder of a node says anything on its Lease.
    pub(crate) fn has_forwarder(&self, node: &Node) -> bool {
        self.knowledge.has_forwarder(node)
    }

    /// What is to be watched beside Leases and Services.
    pub(crate) fn wanted(&mut self) -> Wants {
        self.knowledge.wants()
    }

    /// Whether anything is known that was not.
    pub(crate) fn take(&mut self, shown: Shown) -> bool {
        match shown {
            Shown::Lease(change) => {
                let learn = |feed: &mut Self, it: &ObjectMeta, now: Option<&Lease>| match now {
                    Some(lease) => feed.one_lease(lease),
                    None => feed.forget(it.name.as_deref().unwrap_or_default()),
                };
                self.pass(change, learn, Self::all_leases)
            }
            Shown::Service(change) => self.pass(
                change,
                |feed, it, now| feed.knowledge.learn_service(&full_name(it), now),
                |feed, all| feed.knowledge.list_services(all.iter()),
            ),
            Shown::Slice(change) => self.pass(
                change,
                |feed, it, now| feed.knowledge.learn_slice(&full_name(it), now),
                |feed, all| feed.knowledge.list_slices(all.iter()),
            ),
            Shown::Node(change) => {
                let learn = |feed: &mut Self, it: &ObjectMeta, now: Option<&v1::Node>| {
                    let node = Node::from(it.name.as_deref().unwrap_or_default());
                    let facts = now.map(|node| facts(node, feed.obey_exclusion));
                    feed.knowledge.learn_node(&node, facts)
                };
                self.pass(change, learn, |feed, all| {
                    let all = all.iter().map(|it| feed.named(it)).collect();
                    feed.knowledge.list_nodes(all)
                })
            }
        }
    }

    /// Passes a change on: to `learn` each object and what it is now, if it is there, or to `all` all that there are.
    fn pass<K: Resource>(
        &mut self,
        change: Change<K>,
        learn: impl Fn(&mut Self, &ObjectMeta, Option<&K>) -> bool,
        all: impl FnOnce(&mut Self, &[K]) -> bool,
    ) -> bool {
        match change {
            Change::Applied(object) => learn(self, object.meta(), Some(&object)),
            Change::Deleted(object) => learn(self, object.meta(), None),
            Change::Listed(objects) => all(self, &objects),
            Change::ListedInPart { objects, gone } => {
                let any = gone.iter().fold(false, |any, it| learn(self, it, None) | any);
                let there = objects.iter();
                there.fold(any, |any, it| learn(self, it.meta(), Some(it)) | any)
            }
        }
    }

    fn one_lease(&mut self, lease: &Lease) -> bool {
        let read = self.knowledge.learn_lease(lease);
        self.unclear.pass(&lease.name_any(), read).unwrap_or_default()
    }

    fn all_leases(&mut self, leases: &[Lease]) -> bool {
        let listed: BTreeSet<String> = leases.iter().map(Lease::name_any).collect();
        let absent = self.knowledge.leases().filter(|name| !listed.contains(name));
        let absent: Vec<String> = absent.collect();
        self.unclear.listed(&listed);
        let forgotten = absent.iter().fold(false, |any, name| self.forget(name) | any);
        leases.iter().fold(forgotten, |any, lease| self.one_lease(lease) | any)
    }

    fn forget(&mut self, name: &str) -> bool {
        self.unclear.gone(name);
        self.knowledge.forget_lease(name)
    }

    fn named(&self, node: &v1::Node) -> (Node, NodeFacts) {
        (Node::from(node.name_any().as_str()), facts(node, self.obey_exclusion))
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, time::Duration};

    use arpeggio_api::{
        forwarder::Forwarder as Says,
        lock::Claim,
        session::{LinkAddress, OwnSession, Whereabouts},
        terms::WrittenAnnounceTerms,
    };
    use arpeggio_election::Epoch;
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};

    use super::*;

    fn versioned(mut lease: Lease, version: u64) -> Lease {
        lease.metadata.resource_version = Some(version.to_string());
        lease
    }

    fn session(node: &str, version: u64) -> Lease {
        let link = LinkAddress { address: [192, 168, 0, 11].into(), mac: [2, 0, 0, 0, 0, 11] };
        let own = OwnSession {
            node: node.into(),
            instance: "speaker-x7".into(),
            duration: Duration::from_secs(10),
            whereabouts: Whereabouts { links: vec![link], ..Whereabouts::default() },
            hears: BTreeSet::new(),
        };
        versioned(own.created(Epoch(1), MicroTime(Timestamp::default())), version)
    }

    fn lock(holder: Option<&str>) -> Lease {
        let (services, terms) = (Vec::new(), WrittenAnnounceTerms::default());
        let address = [192, 168, 0, 240].into();
        let claim = Claim { address, pool: "home".into(), services, terms, spread: false };
        let mut lease = versioned(claim.created(), 1);
        lease.spec.get_or_insert_default().holder_identity = holder.map(str::to_owned);
        lease
    }

    fn forwarder(node: &str, count: u32, version: u64) -> Lease {
        let connections = Some([([192, 168, 0, 240].into(), count)].into());
        let says = Says { instance: "speaker-x7".into(), connections, ..Says::default() };
        let now = Timestamp::from_second(version.try_into().unwrap()).unwrap();
        versioned(says.created(&node.into(), MicroTime(now)), version)
    }

    #[test]
    fn who_has_lost_its_lease_knows_it() {
        let emptied = || {
            let mut lease = forwarder("node-1", 3, 2);
            lease.spec.get_or_insert_default().holder_identity = Some(String::new());
            lease
        };
        let node = Node::from("node-1");
        let table = [
            (Change::Applied(forwarder("node-1", 3, 2)), true),
            (Change::Applied(forwarder("node-2", 3, 2)), true),
            (Change::Applied(emptied()), false),
            (Change::Deleted(forwarder("node-1", 3, 2)), false),
            (Change::Listed(vec![forwarder("node-2", 3, 2)]), false),
        ];
        for (change, expected) in table {
            let (mut feed, case) = (Feed::default(), format!("{change:?}"));
            feed.take(Shown::Lease(Change::Applied(forwarder("node-1", 3, 1))));
            assert!(feed.has_forwarder(&node), "before its session is known, too");
            feed.take(Shown::Lease(change));
            assert_eq!(feed.has_forwarder(&node), expected, "{case}");
        }
    }

    #[test]
    fn only_what_says_something_new_is_news() {
        use Change::{Applied, Deleted, Listed, ListedInPart};
        let mut feed = Feed::default();
        let all = vec![session("node-1", 1), lock(None), forwarder("node-1", 3, 1)];
        assert!(feed.take(Shown::Lease(Listed(all.clone()))));
        assert!(!feed.take(Shown::Lease(Listed(all))));
        assert!(!feed.take(Shown::Lease(Applied(session("node-1", 2)))), "it was renewed");
        assert!(feed.take(Shown::Lease(Applied(lock(Some("node-1"))))));
        assert!(feed.take(Shown::Lease(Applied(forwarder("node-1", 0, 2)))));
        assert!(!feed.take(Shown::Lease(Applied(forwarder("node-1", 0, 3)))), "it was renewed");
        let known = feed.known();
        let fellow = &known.nodes[&Node::from("node-1")];
        let counts = fellow.forwarder.as_ref().unwrap().connections.as_ref().unwrap();
        assert_eq!(counts.values().copied().collect::<Vec<_>>(), [0]);
        assert_eq!(fellow.macs.len(), 1);
        let about = &known.addresses[&IpAddr::from([192, 168, 0, 240])];
        assert_eq!(about.holder.as_ref().unwrap().as_str(), "node-1");
        assert!(feed.take(Shown::Lease(Deleted(forwarder("node-1", 0, 2)))));
        assert!(feed.known().nodes[&Node::from("node-1")].forwarder.is_none());
        let in_part = |gone| ListedInPart { objects: vec![], gone };
        assert!(!feed.take(Shown::Lease(in_part(vec![]))), "it may be among those not understood");
        assert!(feed.take(Shown::Lease(in_part(vec![lock(None).metadata]))));
        assert!(feed.known().addresses.is_empty());
        assert!(feed.take(Shown::Lease(Listed(vec![]))));
        assert_eq!(feed.known(), &Known::default());
    }

    #[test]
    fn what_a_forwarder_says_is_known_before_its_nodes_session() {
        let mut feed = Feed::default();
        assert!(!feed.take(Shown::Lease(Change::Applied(forwarder("node-1", 3, 1)))));
        assert!(feed.take(Shown::Lease(Change::Applied(session("node-1", 1)))));
        assert!(feed.known().nodes[&Node::from("node-1")].forwarder.is_some());
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        let mut feed = Feed::default();
        let mut damaged = lock(None);
        damaged.metadata.name = Some("address-x".into());
        assert!(!feed.take(Shown::Lease(Change::Applied(damaged))));
        assert_eq!(feed.unclear.count(), 1);
        let mut newer = lock(Some("node-1"));
        let annotations = newer.metadata.annotations.get_or_insert_default();
        annotations.insert("arpeggio.dev/format".into(), "2".into());
        assert!(feed.take(Shown::Lease(Change::Applied(lock(Some("node-1"))))));
        assert!(feed.take(Shown::Lease(Change::Applied(newer))));
        assert_eq!(feed.known(), &Known::default());
    }
}

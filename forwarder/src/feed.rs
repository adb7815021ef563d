//! Hands what the watches show to what a forwarder knows.

use std::collections::{BTreeMap, BTreeSet};

use arpeggio_api::{
    knowledge::{Knowledge, service_name, slice_name},
    node::facts,
};
use arpeggio_election::{Node, NodeFacts};
use arpeggio_forwarding::Known;
use arpeggio_runtime::{unclear::UnclearLeases, watch::Change};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{self, Service},
    discovery::v1::EndpointSlice,
};
use kube::ResourceExt as _;

use crate::sources::{Shown, Wanted};

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

    /// What is to be watched beside Leases and Services.
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted { nodes: self.knowledge.wants_nodes(), slices: self.knowledge.wants_slices() }
    }

    /// Whether anything is known that was not.
    pub(crate) fn take(&mut self, shown: Shown) -> bool {
        match shown {
            Shown::Lease(change) => self.take_lease(change),
            Shown::Service(change) => self.take_service(change),
            Shown::Slice(change) => self.take_slice(change),
            Shown::Node(change) => self.take_node(change),
        }
    }

    fn take_lease(&mut self, change: Change<Lease>) -> bool {
        match change {
            Change::Applied(lease) => self.read(&lease),
            Change::Deleted(lease) => self.forget(&lease.name_any()),
            Change::Listed(leases) => {
                let listed: BTreeSet<String> = leases.iter().map(Lease::name_any).collect();
                let absent = self.knowledge.leases().filter(|name| !listed.contains(name));
                let absent: Vec<String> = absent.collect();
                self.unclear.listed(&listed);
                let forgotten = absent.iter().fold(false, |any, name| self.forget(name) | any);
                self.read_all(&leases) | forgotten
            }
            Change::ListedInPart(leases) => self.read_all(&leases),
        }
    }

    fn read_all(&mut self, leases: &[Lease]) -> bool {
        leases.iter().fold(false, |any, lease| self.read(lease) | any)
    }

    fn read(&mut self, lease: &Lease) -> bool {
        let read = self.knowledge.learn_lease(lease);
        self.unclear.pass(&lease.name_any(), read).unwrap_or_default()
    }

    fn forget(&mut self, name: &str) -> bool {
        self.unclear.gone(name);
        self.knowledge.forget_lease(name)
    }

    fn take_service(&mut self, change: Change<Service>) -> bool {
        let knowledge = &mut self.knowledge;
        match change {
            Change::Applied(it) => knowledge.learn_service(&service_name(&it), Some(&it)),
            Change::Deleted(it) => knowledge.learn_service(&service_name(&it), None),
            Change::Listed(all) => knowledge.list_services(all.iter()),
            Change::ListedInPart(some) => some
                .iter()
                .fold(false, |any, it| knowledge.learn_service(&service_name(it), Some(it)) | any),
        }
    }

    fn take_slice(&mut self, change: Change<EndpointSlice>) -> bool {
        let knowledge = &mut self.knowledge;
        match change {
            Change::Applied(it) => knowledge.learn_slice(&slice_name(&it), Some(&it)),
            Change::Deleted(it) => knowledge.learn_slice(&slice_name(&it), None),
            Change::Listed(all) => knowledge.list_slices(all.iter()),
            Change::ListedInPart(some) => some
                .iter()
                .fold(false, |any, it| knowledge.learn_slice(&slice_name(it), Some(it)) | any),
        }
    }

    fn take_node(&mut self, change: Change<v1::Node>) -> bool {
        match change {
            Change::Applied(node) => {
                let (node, facts) = self.named(&node);
                self.knowledge.learn_node(&node, Some(facts))
            }
            Change::Deleted(node) => self.knowledge.learn_node(&self.named(&node).0, None),
            Change::Listed(all) => {
                let all: BTreeMap<_, _> = all.iter().map(|it| self.named(it)).collect();
                self.knowledge.list_nodes(all)
            }
            Change::ListedInPart(some) => {
                let some: Vec<_> = some.iter().map(|it| self.named(it)).collect();
                some.into_iter().fold(false, |any, (node, facts)| {
                    self.knowledge.learn_node(&node, Some(facts)) | any
                })
            }
        }
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
        let says = Says { instance: "speaker-x7".into(), connections, unable: None };
        versioned(says.created(&node.into(), MicroTime(Timestamp::default())), version)
    }

    #[test]
    fn only_what_says_something_new_is_news() {
        use Change::{Applied, Deleted, Listed};
        let mut feed = Feed::default();
        let all = vec![session("node-1", 1), lock(None), forwarder("node-1", 3, 1)];
        assert!(feed.take_lease(Listed(all.clone())));
        assert!(!feed.take_lease(Listed(all)));
        assert!(!feed.take_lease(Applied(session("node-1", 2))), "it was renewed");
        assert!(feed.take_lease(Applied(lock(Some("node-1")))));
        assert!(feed.take_lease(Applied(forwarder("node-1", 0, 2))));
        let known = feed.known();
        let fellow = &known.nodes[&Node::from("node-1")];
        let counts = fellow.forwarder.as_ref().unwrap().connections.as_ref().unwrap();
        assert_eq!(counts.values().copied().collect::<Vec<_>>(), [0]);
        assert_eq!(fellow.macs.len(), 1);
        let about = &known.addresses[&IpAddr::from([192, 168, 0, 240])];
        assert_eq!(about.holder.as_ref().unwrap().as_str(), "node-1");
        assert!(feed.take_lease(Deleted(forwarder("node-1", 0, 2))));
        assert!(feed.known().nodes[&Node::from("node-1")].forwarder.is_none());
        assert!(feed.take_lease(Listed(vec![])));
        assert_eq!(feed.known(), &Known::default());
    }

    #[test]
    fn what_a_forwarder_says_is_known_before_its_nodes_session() {
        let mut feed = Feed::default();
        assert!(!feed.take_lease(Change::Applied(forwarder("node-1", 3, 1))));
        assert!(feed.take_lease(Change::Applied(session("node-1", 1))));
        assert!(feed.known().nodes[&Node::from("node-1")].forwarder.is_some());
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        let mut feed = Feed::default();
        let mut damaged = lock(None);
        damaged.metadata.name = Some("address-x".into());
        assert!(!feed.take_lease(Change::Applied(damaged)));
        assert_eq!(feed.unclear.count(), 1);
        let mut newer = lock(Some("node-1"));
        let annotations = newer.metadata.annotations.get_or_insert_default();
        annotations.insert("arpeggio.dev/format".into(), "2".into());
        assert!(feed.take_lease(Change::Applied(lock(Some("node-1")))));
        assert!(feed.take_lease(Change::Applied(newer)));
        assert_eq!(feed.known(), &Known::default());
    }
}

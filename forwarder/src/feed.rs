//! Turns what the watch of Leases shows into what a forwarder knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use arpeggio_api::{
    forwarder::{self, ForwarderRecord},
    lease::Kind,
    lock::{self, LockRecord},
    session::{self, SessionRecord},
};
use arpeggio_election::{Node, SessionState};
use arpeggio_forwarding::{Address, Fellow, Forwarder, Known, Life, Port, Protocol, Service};
use arpeggio_runtime::{unclear::UnclearLeases, watch::Change};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;

/// HTTP/3, and all else that speaks QUIC there (IANA, `https` on UDP).
const QUIC: Port = Port { protocol: Protocol::Udp, number: 443 };

/// What is known so far.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    known: Known,
    /// What forwarders say, also those of nodes without a session.
    forwarders: BTreeMap<Node, Forwarder>,
    unclear: UnclearLeases,
}

impl Feed {
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    /// Whether anything is known that was not.
    pub(crate) fn take(&mut self, change: Change<Lease>) -> bool {
        match change {
            Change::Applied(lease) => self.read(&lease),
            Change::Deleted(lease) => self.forget(&lease.name_any()),
            Change::Listed(leases) => {
                let listed: BTreeSet<String> = leases.iter().map(Lease::name_any).collect();
                let absent = self.names().filter(|name| !listed.contains(name));
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

    fn names(&self) -> impl Iterator<Item = String> {
        let nodes = self.known.nodes.keys().map(session::name);
        let addresses = self.known.addresses.keys().map(|address| lock::name(*address));
        nodes.chain(addresses).chain(self.forwarders.keys().map(forwarder::name))
    }

    fn read(&mut self, lease: &Lease) -> bool {
        let read = match Kind::of(lease) {
            Some(Kind::Session) => session::parse(lease).map(|it| self.learn_session(&it)),
            Some(Kind::Lock) => lock::parse(lease).map(|it| self.learn_lock(&it)),
            Some(Kind::Forwarder) => forwarder::parse(lease).map(|it| self.learn_forwarder(it)),
            None => return false,
        };
        self.unclear.pass(&lease.name_any(), read).unwrap_or_default()
    }

    fn learn_session(&mut self, record: &SessionRecord) -> bool {
        let node = record.session.node.clone();
        let fellow = Fellow {
            life: match record.session.state {
                SessionState::Live { .. } => Life::Live,
                SessionState::Ended { reason, .. } => Life::Ended(reason),
            },
            reach: record.session.reach.clone().unwrap_or_default(),
            macs: record.links.iter().map(|link| (link.address, link.mac)).collect(),
            facts: None,
            forwarder: self.forwarders.get(&node).cloned(),
        };
        self.known.nodes.insert(node, fellow.clone()).as_ref() != Some(&fellow)
    }

    fn learn_lock(&mut self, record: &LockRecord) -> bool {
        let address = record.lock.address;
        // What a newer release has written may mean that somebody else is reached there.
        if record.rests || record.newer.is_some() {
            return self.known.addresses.remove(&address).is_some();
        }
        let about = Address {
            holder: record.lock.holder.as_ref().map(|holder| holder.node.clone()),
            terms: record.lock.terms.clone(),
            spread: false,
            services: [(QUIC, Service { quic: true, ..Service::default() })].into(),
        };
        self.known.addresses.insert(address, about.clone()).as_ref() != Some(&about)
    }

    fn learn_forwarder(&mut self, record: ForwarderRecord) -> bool {
        let ForwarderRecord { node, says, version } = record;
        let Some(says) = says else { return self.forget_forwarder(&node) };
        let forwarder = Forwarder { trouble: says.unable, connections: says.connections, version };
        self.forwarders.insert(node.clone(), forwarder.clone());
        self.set_forwarder(&node, Some(forwarder))
    }

    fn forget_forwarder(&mut self, node: &Node) -> bool {
        self.forwarders.remove(node);
        self.set_forwarder(node, None)
    }

    fn set_forwarder(&mut self, node: &Node, forwarder: Option<Forwarder>) -> bool {
        let Some(fellow) = self.known.nodes.get_mut(node) else { return false };
        let is_news = fellow.forwarder != forwarder;
        fellow.forwarder = forwarder;
        is_news
    }

    /// A Lease is gone.
    fn forget(&mut self, name: &str) -> bool {
        self.unclear.gone(name);
        if let Some(node) = session::node_of(name) {
            return self.known.nodes.remove(&node).is_some();
        }
        if let Some(node) = forwarder::node_of(name) {
            return self.forget_forwarder(&node);
        }
        let address: Option<IpAddr> = lock::address_of(name);
        address.is_some_and(|address| self.known.addresses.remove(&address).is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        assert!(feed.take(Listed(all.clone())));
        assert!(!feed.take(Listed(all)));
        assert!(!feed.take(Applied(session("node-1", 2))), "it was renewed");
        assert!(feed.take(Applied(lock(Some("node-1")))));
        assert!(feed.take(Applied(forwarder("node-1", 0, 2))));
        let known = feed.known();
        let fellow = &known.nodes[&Node::from("node-1")];
        let counts = fellow.forwarder.as_ref().unwrap().connections.as_ref().unwrap();
        assert_eq!(counts.values().copied().collect::<Vec<_>>(), [0]);
        assert_eq!(fellow.macs.len(), 1);
        let about = &known.addresses[&IpAddr::from([192, 168, 0, 240])];
        assert_eq!(about.holder.as_ref().unwrap().as_str(), "node-1");
        assert!(feed.take(Deleted(forwarder("node-1", 0, 2))));
        assert!(feed.known().nodes[&Node::from("node-1")].forwarder.is_none());
        assert!(feed.take(Listed(vec![])));
        assert_eq!(feed.known(), &Known::default());
    }

    #[test]
    fn what_a_forwarder_says_is_known_before_its_nodes_session() {
        let mut feed = Feed::default();
        assert!(!feed.take(Change::Applied(forwarder("node-1", 3, 1))));
        assert!(feed.take(Change::Applied(session("node-1", 1))));
        assert!(feed.known().nodes[&Node::from("node-1")].forwarder.is_some());
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        let mut feed = Feed::default();
        let mut damaged = lock(None);
        damaged.metadata.name = Some("address-x".into());
        assert!(!feed.take(Change::Applied(damaged)));
        assert_eq!(feed.unclear.count(), 1);
        let mut newer = lock(Some("node-1"));
        let annotations = newer.metadata.annotations.get_or_insert_default();
        annotations.insert("arpeggio.dev/format".into(), "2".into());
        assert!(feed.take(Change::Applied(lock(Some("node-1")))));
        assert!(feed.take(Change::Applied(newer)));
        assert_eq!(feed.known(), &Known::default());
    }
}

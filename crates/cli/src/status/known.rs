//! Locks, sessions and what forwarders say, understood.

use std::collections::BTreeSet;

use arpeggio_api::{
    forwarder::{self, Forwarder, ForwarderRecord},
    lease::{Kind, LeaseError},
    lock::{self, LockRecord},
    session::{self, SessionRecord},
};
use arpeggio_election::{Node, SessionState};
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Service},
    jiff::Timestamp,
};
use kube::ResourceExt;

use super::report::{self, Address};

/// What all Leases say.
#[derive(Debug, Default)]
pub(crate) struct Status {
    locks: Vec<LockRecord>,
    pub(super) sessions: Vec<(SessionRecord, Lease)>,
    pub(super) forwarders: Vec<ForwarderRecord>,
    pub(super) damaged: Vec<LeaseError>,
    /// The uids of the Services whose addresses no node announces since a router has a route to them.
    routed: BTreeSet<String>,
}

impl Status {
    /// What the Leases say.
    pub(crate) fn of(leases: &[Lease]) -> Self {
        let mut status = Self::default();
        for lease in leases {
            if let Err(error) = status.add(lease) {
                status.damaged.push(error);
            }
        }
        status.locks.sort_by_key(|record| record.lock.address);
        status.sessions.sort_by(|(one, _), (other, _)| one.session.node.cmp(&other.session.node));
        status
    }

    /// With what these Services' conditions say. Locks do not tell why no node may announce an address.
    pub(crate) fn told_by(self, services: &[Service]) -> Self {
        let routed = services.iter().filter(|it| report::is_routed(it));
        Self { routed: routed.filter_map(ResourceExt::uid).collect(), ..self }
    }

    /// Whether no node announces the address of a lock, since a router has a route to it.
    pub(super) fn is_routed(&self, record: &LockRecord) -> bool {
        record.claim.services.iter().any(|it| self.routed.contains(&it.uid))
    }

    fn add(&mut self, lease: &Lease) -> Result<(), LeaseError> {
        match Kind::of(lease) {
            Some(Kind::Lock) => {
                let record = lock::parse(lease)?;
                self.damaged.extend(record.damage.clone());
                self.locks.push(record);
            }
            Some(Kind::Session) => self.sessions.push((session::parse(lease)?, lease.clone())),
            Some(Kind::Forwarder) => self.forwarders.push(forwarder::parse(lease)?),
            None => {}
        }
        Ok(())
    }

    /// The locks of all addresses.
    pub(crate) fn locks(&self) -> impl Iterator<Item = &LockRecord> {
        self.locks.iter()
    }

    /// The sessions of all nodes.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = &SessionRecord> {
        self.sessions.iter().map(|(record, _)| record)
    }

    /// A row for each address of the Service with this uid.
    pub(crate) fn addresses_of(&self, uid: &str, now: Timestamp) -> Vec<[String; 6]> {
        self.locks_of(uid).map(|record| Address::of(record, self).cells(now)).collect()
    }

    /// The locks of the addresses of the Service with this uid.
    pub(crate) fn locks_of<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a LockRecord> {
        self.locks.iter().filter(move |it| it.claim.services.iter().any(|it| it.uid == uid))
    }

    /// Whether a node announces the address of a lock.
    pub(crate) fn is_announced(&self, record: &LockRecord) -> bool {
        !record.rests && !record.lock.unannounced && self.is_held(record)
    }

    /// Whether the node that holds a lock does so under a session that counts.
    pub(super) fn is_held(&self, record: &LockRecord) -> bool {
        let Some(holder) = &record.lock.holder else { return false };
        let mut sessions = self.sessions().map(|record| &record.session);
        sessions.any(|session| {
            session.node == holder.node && session.epoch == holder.epoch && session.is_live()
        })
    }

    /// Whether a node has a session that counts.
    pub(super) fn is_live(&self, node: &Node) -> bool {
        let mut of_node = self.sessions().filter(|record| record.session.node == *node);
        of_node.any(|record| record.session.is_live())
    }

    /// How many addresses a node has.
    pub(super) fn addresses_on(&self, node: &Node) -> usize {
        let held = self.locks.iter().filter(|it| self.is_held(it) && !it.lock.unannounced);
        held.filter(|it| it.lock.holder.as_ref().is_some_and(|it| it.node == *node)).count()
    }

    /// What the forwarder of a node says, if it has one that is understood.
    pub(super) fn forwarder(&self, node: &Node) -> Option<&Forwarder> {
        self.forwarders.iter().find(|it| it.node == *node)?.says.as_ref()
    }

    /// Whether a forwarder does not renew its Lease any more though its node's speaker does.
    pub(super) fn is_stale(&self, record: &ForwarderRecord) -> bool {
        let mut sessions = self.sessions.iter();
        let session = sessions.find(|(session, _)| session.session.node == record.node);
        let renewed = session.and_then(|(_, lease)| lease.spec.as_ref()?.renew_time.as_ref());
        record.is_stale(renewed)
    }

    /// The same of the forwarder of a node.
    pub(super) fn is_stale_on(&self, node: &Node) -> bool {
        self.forwarders.iter().find(|it| it.node == *node).is_some_and(|it| self.is_stale(it))
    }

    /// The nodes whose forwarders do not renew their Leases any more.
    pub(crate) fn stale_forwarders(&self) -> BTreeSet<Node> {
        let stale = self.forwarders.iter().filter(|it| self.is_stale(it));
        stale.map(|it| it.node.clone()).collect()
    }

    /// What the forwarders of nodes that live say, as long as they run.
    fn said(&self) -> impl Iterator<Item = (&Node, &Forwarder)> + Clone {
        let live = self.forwarders.iter().filter(|it| self.is_live(&it.node) && !self.is_stale(it));
        live.filter_map(|it| Some((&it.node, it.says.as_ref()?)))
    }

    /// Whether any node that lives has a forwarder.
    pub(super) fn has_forwarders(&self) -> bool {
        self.said().next().is_some()
    }

    /// Why one node serves the address of a lock, when all are to.
    pub(super) fn why_one_node(&self, record: &LockRecord) -> Option<String> {
        let holder = record.lock.holder.as_ref().filter(|_| record.claim.spread)?;
        let said = self.said().map(|(node, says)| (node, &says.not_spread));
        forwarder::why_one_node(record.lock.address, &holder.node, &said)
    }

    /// How those who watch a node ask for it on the wire, and why.
    pub(super) fn profiles(&self, node: &Node) -> BTreeSet<&str> {
        let is_live = |state: &SessionState| matches!(state, SessionState::Live { .. });
        let watching = self.sessions().filter(|record| is_live(&record.session.state));
        watching.filter_map(|record| Some(record.paths.get(node)?.as_str())).collect()
    }
}

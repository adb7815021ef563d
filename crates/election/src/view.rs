//! The records as this speaker has last seen them.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::{net::IpAddr, time::Duration};

use crate::{
    eligibility::{Backends, Candidate, Merit, NodeFacts, Unfit},
    model::{Holder, Lock, Node, Session, SessionState, Timestamp},
    reach::Reach,
    writes::TakeReason,
};

/// Sessions and locks, each with the time when it was last seen to change.
#[derive(Debug, Default)]
pub(crate) struct View {
    sessions: BTreeMap<Node, SeenSession>,
    locks: BTreeMap<IpAddr, SeenLock>,
    nodes: BTreeMap<Node, NodeFacts>,
    /// What this node can reach now, which its session says a little later.
    own_reach: Option<(Node, Reach)>,
    /// Only of addresses whose traffic must not leave its node.
    backends: BTreeMap<IpAddr, Backends>,
}

#[derive(Debug)]
pub(crate) struct SeenSession {
    pub(crate) session: Session,
    pub(crate) changed: Timestamp,
}

#[derive(Debug)]
pub(crate) struct SeenLock {
    pub(crate) lock: Lock,
    /// Since when nobody rightly holds it; `None` while somebody does.
    pub(crate) free_since: Option<Timestamp>,
}

/// A lock that may be taken.
#[derive(Debug)]
pub(crate) struct FreeLock<'a> {
    pub(crate) lock: &'a Lock,
    pub(crate) since: Timestamp,
    pub(crate) reason: TakeReason,
}

impl View {
    /// Takes over a session record, unless a newer one is known.
    pub(crate) fn session_seen(&mut self, session: Session, now: Timestamp) {
        match self.sessions.get(&session.node) {
            Some(known) if known.session.version >= session.version => {}
            _ => {
                let node = session.node.clone();
                self.sessions.insert(node, SeenSession { session, changed: now });
            }
        }
    }

    pub(crate) fn session_gone(&mut self, node: &Node) {
        self.sessions.remove(node);
    }

    /// Takes over a lock record, unless a newer one is known.
    pub(crate) fn lock_seen(&mut self, lock: Lock) {
        match self.locks.get(&lock.address) {
            Some(known) if known.lock.version >= lock.version => {}
            known => {
                let free_since = known.and_then(|known| known.free_since);
                self.locks.insert(lock.address, SeenLock { lock, free_since });
            }
        }
    }

    pub(crate) fn lock_gone(&mut self, address: IpAddr) {
        self.locks.remove(&address);
    }

    pub(crate) fn node_seen(&mut self, node: Node, facts: NodeFacts) {
        self.nodes.insert(node, facts);
    }

    pub(crate) fn node_gone(&mut self, node: &Node) {
        self.nodes.remove(node);
    }

    pub(crate) fn own_reach_is(&mut self, me: Node, reach: Reach) {
        self.own_reach = Some((me, reach));
    }

    /// Whether this node's session says something else than what it can reach now.
    pub(crate) fn has_unsaid_reach(&self) -> bool {
        let said = |node| self.session(node).and_then(|session| session.reach.as_ref());
        self.own_reach.as_ref().is_some_and(|(me, reach)| said(me) != Some(reach))
    }

    fn reach(&self, node: &Node) -> Option<&Reach> {
        match &self.own_reach {
            Some((me, reach)) if me == node => Some(reach),
            _ => self.session(node)?.reach.as_ref(),
        }
    }

    /// `None`: every node can pass traffic on to where the backends are.
    pub(crate) fn backends_seen(&mut self, address: IpAddr, backends: Option<Backends>) {
        match backends {
            Some(backends) => self.backends.insert(address, backends),
            None => self.backends.remove(&address),
        };
    }

    /// What speaks for announcing an address from `node`.
    pub(crate) fn merit(&self, lock: &Lock, node: &Node) -> Result<Merit, Unfit> {
        let candidate = Candidate { node, facts: self.nodes.get(node), reach: self.reach(node) };
        candidate.merit(lock.address, &lock.terms, self.backends.get(&lock.address))
    }

    pub(crate) fn session(&self, node: &Node) -> Option<&Session> {
        self.sessions.get(node).map(|seen| &seen.session)
    }

    pub(crate) fn sessions(&self) -> impl Iterator<Item = &SeenSession> {
        self.sessions.values()
    }

    pub(crate) fn lock(&self, address: IpAddr) -> Option<&Lock> {
        self.locks.get(&address).map(|seen| &seen.lock)
    }

    pub(crate) fn locks(&self) -> impl Iterator<Item = &Lock> {
        self.locks.values().map(|seen| &seen.lock)
    }

    /// The nodes whose sessions count and were renewed within `longest`, judged since `in_touch_since`.
    pub(crate) fn live(
        &self,
        now: Timestamp,
        longest: Duration,
        in_touch_since: Option<Timestamp>,
    ) -> BTreeSet<Node> {
        let fresh = |seen: &&SeenSession| !seen.expired(now, longest, in_touch_since);
        let counting = self.sessions.values().filter(|seen| seen.session.is_live());
        counting.filter(fresh).map(|seen| seen.session.node.clone()).collect()
    }

    /// How many locks each node rightly holds.
    pub(crate) fn loads(&self) -> BTreeMap<Node, usize> {
        let mut loads = BTreeMap::new();
        for lock in self.locks() {
            if let Some(holder) = lock.holder.as_ref().filter(|holder| self.counts(holder)) {
                *loads.entry(holder.node.clone()).or_default() += 1;
            }
        }
        loads
    }

    /// Notes which locks are free, and since when.
    pub(crate) fn mark_free(&mut self, now: Timestamp) {
        let sessions = &self.sessions;
        for seen in self.locks.values_mut() {
            let held = seen.lock.holder.as_ref().is_some_and(|holder| counts(sessions, holder));
            seen.free_since = if held { None } else { seen.free_since.or(Some(now)) };
        }
    }

    /// The locks that nobody rightly holds, by address.
    pub(crate) fn free(&self, me: &Node) -> Vec<FreeLock<'_>> {
        let free = self.locks.values().filter_map(|seen| Some((&seen.lock, seen.free_since?)));
        free.map(|(lock, since)| FreeLock { lock, since, reason: self.reason(lock, me) }).collect()
    }

    fn reason(&self, lock: &Lock, me: &Node) -> TakeReason {
        match &lock.holder {
            None => TakeReason::New,
            Some(holder) if holder.node == *me => TakeReason::Ours,
            Some(holder) => {
                let reason = match self.session(&holder.node).map(|session| &session.state) {
                    Some(SessionState::Ended { reason, .. }) => Some(*reason),
                    Some(SessionState::Live { .. }) | None => None,
                };
                TakeReason::Over { holder: holder.node.clone(), reason }
            }
        }
    }

    fn counts(&self, holder: &Holder) -> bool {
        counts(&self.sessions, holder)
    }
}

/// Whether a holder's session counts. Expiry is not asked for here: a lock becomes free only when the session is ended.
fn counts(sessions: &BTreeMap<Node, SeenSession>, holder: &Holder) -> bool {
    sessions
        .get(&holder.node)
        .is_some_and(|seen| seen.session.is_live() && seen.session.epoch == holder.epoch)
}

impl SeenSession {
    /// Whether the session was not renewed for `longest` while the API server was there to tell.
    pub(crate) fn expired(
        &self,
        now: Timestamp,
        longest: Duration,
        in_touch_since: Option<Timestamp>,
    ) -> bool {
        in_touch_since.is_some_and(|since| now.since(self.changed.max(since)) > longest)
    }
}

impl Session {
    fn is_live(&self) -> bool {
        matches!(self.state, SessionState::Live { .. })
    }
}

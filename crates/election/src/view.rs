//! The records as this speaker has last seen them.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    sync::Arc,
    vec::Vec,
};
use core::{
    net::IpAddr,
    ops::Bound::{Excluded, Unbounded},
    time::Duration,
};

use ipnet::IpNet;

use crate::{
    eligibility::{Backends, Candidate, Merit, Unfit},
    facts::NodeFacts,
    model::{Holder, Lock, Node, Session, SessionState, Timestamp, Version},
    reach::{Interface, Reach, Subnets},
    witnesses::Expiry,
    writes::TakeReason,
};

/// Sessions and locks, each with the time when it was last seen to change.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct View {
    sessions: BTreeMap<Node, SeenSession>,
    locks: BTreeMap<IpAddr, SeenLock>,
    /// The addresses whose locks name each node as holder, rightly or not.
    held: BTreeMap<Node, BTreeSet<IpAddr>>,
    /// The addresses of each Service: one, or one of each family.
    by_service: BTreeMap<Arc<str>, BTreeSet<IpAddr>>,
    /// The addresses whose holders are asked to give them to another node.
    asked_to_move: BTreeSet<IpAddr>,
    /// The addresses whose locks say that they are not announced, or that another node claims them.
    noted: BTreeSet<IpAddr>,
    /// The locks that are known to be nobody's, and since when.
    free: BTreeMap<IpAddr, Timestamp>,
    /// The addresses whose locks may have become free since that was looked at, or may not be free any more.
    unsettled: BTreeSet<IpAddr>,
    /// What speaks for the candidates has changed since somebody last asked.
    changed: Changed,
    /// Who is where, or hears whom, has changed since somebody last asked.
    witnesses_changed: bool,
    /// Which sessions count, or for how long, has changed since somebody last asked.
    lives_changed: bool,
    /// How many sessions nobody has ended.
    counting: usize,
    nodes: BTreeMap<Node, NodeFacts>,
    /// What this node can reach now, which its session says a little later.
    own_reach: Option<(Node, Reach)>,
    /// Those of all nodes.
    subnets: Subnets,
    /// Only of addresses whose traffic must not leave its node.
    backends: BTreeMap<IpAddr, Backends>,
    /// Of such addresses, those whose backends were not listed yet.
    unlisted: BTreeSet<IpAddr>,
}

/// What has changed of what speaks for the candidates, other than by the terms of a lock.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct Changed {
    /// What is said of these nodes, or where they are.
    pub(crate) nodes: BTreeSet<Node>,
    /// Where the backends of these addresses are, or whether that is known.
    pub(crate) addresses: BTreeSet<IpAddr>,
}

#[derive(Debug, Clone, Hash)]
pub(crate) struct SeenSession {
    pub(crate) session: Session,
    /// When its last renewal was first seen, as far as that can be told from what else is written on it.
    pub(crate) renewed: Timestamp,
    /// The nodes that it says its node hears, and since when.
    names: BTreeMap<Node, Timestamp>,
    /// It is of a history that the API server has forgotten: whatever is shown takes its place.
    outdated: bool,
}

#[derive(Debug, Clone, Hash)]
pub(crate) struct SeenLock {
    pub(crate) lock: Lock,
    /// Its holder's session was deleted.
    orphaned: bool,
    /// As of a session.
    outdated: bool,
}

/// An address that a node's speaker answers for, as far as is known here. When any of this changes, its speaker may
/// rightly begin or cease to do so.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Duty {
    pub(crate) address: IpAddr,
    /// The lock's.
    version: Version,
    pub(crate) way: Way,
}

/// How a speaker answers: what fails on one way need not fail on another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Way {
    /// The names of the interfaces; empty when its node has not said.
    interfaces: Vec<String>,
    /// By NDP; else by ARP.
    is_ipv6: bool,
}

impl View {
    /// The API server has gone back to an earlier state. What is known stays in force until it shows something else.
    pub(crate) fn rewound(&mut self) {
        self.sessions.values_mut().for_each(|seen| seen.outdated = true);
        self.locks.values_mut().for_each(|seen| seen.outdated = true);
    }

    /// The interfaces on which `node` announces `address`, as far as is known; `None` where it does not say.
    pub(crate) fn interfaces_of(&self, node: &Node, address: IpAddr) -> Option<Vec<&Interface>> {
        let lock = self.lock(address)?;
        Some(lock.terms.interfaces(address, self.facts(node), self.reach(node)?))
    }

    /// The version of a session record, unless the API server has gone back to an earlier state since.
    pub(crate) fn session_version(&self, node: &Node) -> Option<Version> {
        let seen = self.sessions.get(node).filter(|seen| !seen.outdated)?;
        Some(seen.session.version)
    }

    /// Takes over a session record, unless a newer one is known.
    pub(crate) fn session_seen(&mut self, session: Session, now: Timestamp) {
        match self.sessions.get(&session.node) {
            Some(known) if !known.outdated && known.session.version >= session.version => {}
            seen => {
                let known = seen.map(|seen| &seen.session);
                let counts = |known: &Session| {
                    known.epoch == session.epoch && known.is_live() == session.is_live()
                };
                if !known.is_some_and(counts) {
                    self.unsettled.extend(self.held.get(&session.node).into_iter().flatten());
                }
                let was_live = known.is_some_and(Session::is_live);
                self.counting =
                    self.counting + usize::from(session.is_live()) - usize::from(was_live);
                self.lives_changed |= was_live != session.is_live()
                    || known.is_some_and(|known| known.lasts != session.lasts);
                let has_moved = known.is_none_or(|known| known.reach != session.reach);
                if has_moved {
                    self.changed.nodes.insert(session.node.clone());
                }
                self.witnesses_changed |=
                    has_moved || known.is_some_and(|known| known.hears != session.hears);
                let node = session.node.clone();
                let before = seen
                    .filter(|seen| !seen.outdated && session.is_of_same_renewal_as(&seen.session));
                let renewed = before.map_or(now, |seen| seen.renewed);
                let since = |node| seen.and_then(|seen| seen.names_since(node)).unwrap_or(now);
                let heard = session.hears.iter().flatten();
                let names = heard.map(|node| (node.clone(), since(node))).collect();
                if has_moved {
                    let old = known.and_then(|known| known.reach.as_ref());
                    let changed = self.subnets.replace(old, session.reach.as_ref());
                    self.subnets_changed(&changed);
                }
                let seen = SeenSession { session, renewed, names, outdated: false };
                self.sessions.insert(node, seen);
            }
        }
    }

    /// A session record was deleted; what was held under it is not held any more.
    pub(crate) fn session_gone(&mut self, node: &Node) {
        let Some(gone) = self.sessions.remove(node) else { return };
        self.counting -= usize::from(gone.session.is_live());
        self.lives_changed = true;
        self.unsettled.extend(self.held.get(node).into_iter().flatten());
        self.changed.nodes.insert(node.clone());
        let changed = self.subnets.replace(gone.session.reach.as_ref(), None);
        self.subnets_changed(&changed);
        for seen in self.locks.values_mut() {
            let of_session =
                |holder: &Holder| holder.node == *node && holder.epoch <= gone.session.epoch;
            seen.orphaned |= seen.lock.holder.as_ref().is_some_and(of_session);
        }
    }

    /// Every record has been listed: a session that is not there was deleted before.
    pub(crate) fn listed(&mut self) {
        self.unsettled.extend(self.locks.keys());
        let sessions = &self.sessions;
        for seen in self.locks.values_mut() {
            let missing = |holder: &Holder| !sessions.contains_key(&holder.node);
            seen.orphaned = seen.lock.holder.as_ref().is_some_and(missing);
        }
    }

    /// Takes over a lock record, unless a newer one is known.
    pub(crate) fn lock_seen(&mut self, lock: Lock) {
        let known = self.locks.get(&lock.address);
        if known.is_some_and(|known| !known.outdated && known.lock.version >= lock.version) {
            return;
        }
        // What else is written on a lock brings nobody's session back.
        let orphaned =
            known.is_some_and(|known| known.orphaned && known.lock.holder == lock.holder);
        self.lock_gone(lock.address);
        if let Some(holder) = &lock.holder {
            self.held.entry(holder.node.clone()).or_default().insert(lock.address);
        }
        if let Some(service) = &lock.service {
            self.by_service.entry(Arc::clone(service)).or_default().insert(lock.address);
        }
        if lock.move_to.is_some() {
            self.asked_to_move.insert(lock.address);
        }
        if lock.unannounced || lock.disputed_by.is_some() {
            self.noted.insert(lock.address);
        }
        self.locks.insert(lock.address, SeenLock { lock, orphaned, outdated: false });
    }

    pub(crate) fn lock_gone(&mut self, address: IpAddr) {
        self.unsettled.insert(address);
        self.asked_to_move.remove(&address);
        self.noted.remove(&address);
        let Some(Lock { holder, service, .. }) = self.locks.remove(&address).map(|seen| seen.lock)
        else {
            return;
        };
        if let Some(held) = holder.and_then(|holder| self.held.get_mut(&holder.node)) {
            held.remove(&address);
        }
        if let Some(service) = service
            && let Some(addresses) = self.by_service.get_mut(&service)
        {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.by_service.remove(&service);
            }
        }
    }

    pub(crate) fn node_seen(&mut self, node: Node, facts: NodeFacts) {
        if self.nodes.is_empty() {
            // Of those that are not in the first list it is known from now on that they have no Node object.
            let own = self.own_reach.iter().map(|(me, _)| me);
            self.changed.nodes.extend(self.sessions.keys().chain(own).cloned());
        }
        if self.nodes.get(&node) != Some(&facts) {
            self.changed.nodes.insert(node.clone());
        }
        self.nodes.insert(node, facts);
    }

    pub(crate) fn node_gone(&mut self, node: &Node) {
        self.changed.nodes.insert(node.clone());
        self.nodes.remove(node);
    }

    pub(crate) fn own_reach_is(&mut self, me: Node, reach: Reach) {
        self.changed.nodes.insert(me.clone());
        self.witnesses_changed = true;
        let old = self.own_reach.take().map(|(_, reach)| reach);
        let changed = self.subnets.replace(old.as_ref(), Some(&reach));
        self.own_reach = Some((me, reach));
        self.subnets_changed(&changed);
    }

    /// What a node in these subnets may announce, others should rather not.
    fn subnets_changed(&mut self, subnets: &[IpNet]) {
        let concerned =
            |net: &IpNet| self.locks.range(net.network()..=net.broadcast()).next().is_some();
        if subnets.iter().any(concerned) {
            self.changed.nodes.extend(self.sessions.keys().cloned());
        }
    }

    /// Whether who is where, or hears whom, has changed since this was last asked.
    pub(crate) fn have_witnesses_changed(&mut self) -> bool {
        core::mem::take(&mut self.witnesses_changed)
    }

    /// Whether which sessions count, or for how long, has changed since this was last asked.
    pub(crate) fn have_lives_changed(&mut self) -> bool {
        core::mem::take(&mut self.lives_changed)
    }

    /// What has changed of what speaks for the candidates since this was last asked.
    pub(crate) fn take_changed(&mut self) -> Changed {
        core::mem::take(&mut self.changed)
    }

    /// Whether this node's session says something else than what it can reach now.
    pub(crate) fn has_unsaid_reach(&self) -> bool {
        let said = |node| self.session(node).and_then(|session| session.reach.as_ref());
        self.own_reach.as_ref().is_some_and(|(me, reach)| said(me) != Some(reach))
    }

    /// Where a node is, if it says.
    pub(crate) fn reach(&self, node: &Node) -> Option<&Reach> {
        match &self.own_reach {
            Some((me, reach)) if me == node => Some(reach),
            _ => self.session(node)?.reach.as_ref(),
        }
    }

    /// Whether `node` may find neighbours on the interface of this name.
    pub(crate) fn may_reach_by(&self, node: &Node, interface: &str) -> bool {
        self.reach(node).is_none_or(|reach| reach.interfaces.iter().any(|it| it.name == interface))
    }

    /// Whether `node` announces `address`, when it does, on the interface of this name. What is not known may be.
    pub(crate) fn is_on(&self, address: IpAddr, node: &Node, interface: &str) -> bool {
        let (Some(lock), Some(reach)) = (self.lock(address), self.reach(node)) else { return true };
        if self.are_labels_unknown(lock) {
            return true;
        }
        let interfaces = lock.terms.interfaces(address, self.facts(node), reach);
        interfaces.iter().any(|it| it.name == interface)
    }

    /// `None`: every node can pass traffic on to where the backends are.
    pub(crate) fn backends_seen(&mut self, address: IpAddr, backends: Option<Backends>) {
        if self.unlisted.remove(&address) || self.backends.get(&address) != backends.as_ref() {
            self.changed.addresses.insert(address);
        }
        match backends {
            Some(backends) => self.backends.insert(address, backends),
            None => self.backends.remove(&address),
        };
    }

    /// Where the backends are is not known yet. What is known of them from before stays in force.
    pub(crate) fn backends_unknown(&mut self, address: IpAddr) {
        if !self.backends.contains_key(&address) && self.unlisted.insert(address) {
            self.changed.addresses.insert(address);
        }
    }

    /// Whether the backends of an address matter and are not known yet.
    pub(crate) fn are_backends_unknown(&self, address: IpAddr) -> bool {
        self.unlisted.contains(&address)
    }

    /// Whether no node has backends for an address whose traffic must not leave the node that announces it. While they are
    /// not known, what its lock says of that counts.
    pub(crate) fn is_backless(&self, address: IpAddr) -> bool {
        if self.unlisted.contains(&address) {
            return self.lock(address).is_some_and(|lock| lock.unannounced);
        }
        let none = |it: &Backends| it.ready.is_empty() && it.ending.is_empty();
        self.backends.get(&address).is_some_and(none)
    }

    /// What Kubernetes says of a node; `None` before Nodes have been listed.
    pub(crate) fn facts(&self, node: &Node) -> Option<&NodeFacts> {
        let has_no_object = !self.nodes.is_empty();
        self.nodes.get(node).or(has_no_object.then_some(NodeFacts::NONE))
    }

    /// Whether where an address is announced goes by labels, and these are not known yet.
    pub(crate) fn are_labels_unknown(&self, lock: &Lock) -> bool {
        self.nodes.is_empty() && lock.terms.goes_by_labels()
    }

    /// Where the backends of an address are, if that matters.
    pub(crate) fn backends(&self, address: IpAddr) -> Option<&Backends> {
        self.backends.get(&address)
    }

    /// What is known of a node.
    pub(crate) fn candidate<'a>(&'a self, node: &'a Node) -> Candidate<'a> {
        let (facts, reach) = (self.facts(node), self.reach(node));
        Candidate { node, facts, reach, subnets: &self.subnets }
    }

    /// What speaks for announcing an address from `node`.
    pub(crate) fn merit(&self, lock: &Lock, node: &Node) -> Result<Merit, Unfit> {
        self.candidate(node).merit(lock.address, &lock.terms, self.backends(lock.address))
    }

    pub(crate) fn session(&self, node: &Node) -> Option<&Session> {
        self.sessions.get(node).map(|seen| &seen.session)
    }

    pub(crate) fn seen_session(&self, node: &Node) -> Option<&SeenSession> {
        self.sessions.get(node)
    }

    pub(crate) fn sessions(&self) -> impl Iterator<Item = &SeenSession> {
        self.sessions.values()
    }

    pub(crate) fn lock(&self, address: IpAddr) -> Option<&Lock> {
        self.locks.get(&address).map(|seen| &seen.lock)
    }

    /// The locks that name `node` as holder.
    pub(crate) fn locks_of(&self, node: &Node) -> impl Iterator<Item = &Lock> {
        self.held.get(node).into_iter().flatten().filter_map(|address| self.lock(*address))
    }

    /// What `node` has to answer for at `address`: it holds the lock under a session that counts, and may announce it.
    pub(crate) fn duty(&self, node: &Node, address: IpAddr) -> Option<Duty> {
        let session = self.session(node)?;
        let lock = self.lock(address).filter(|lock| session.holds(lock))?;
        self.merit(lock, node).ok()?;
        let reach = self.reach(node).into_iter();
        let interfaces = reach.flat_map(|it| lock.terms.interfaces(address, self.facts(node), it));
        let interfaces = interfaces.map(|it| it.name.clone()).collect();
        let way = Way { interfaces, is_ipv6: address.is_ipv6() };
        Some(Duty { address, version: lock.version, way })
    }

    /// The addresses that `node` holds, from the one on that follows `after`, as in a circle.
    pub(crate) fn held_after(
        &self,
        node: &Node,
        after: Option<IpAddr>,
    ) -> impl Iterator<Item = IpAddr> {
        let later = (after.map_or(Unbounded, Excluded), Unbounded);
        let held = self.held.get(node).into_iter();
        held.flat_map(move |held| {
            let earlier = after.into_iter().flat_map(|after| held.range(..=after));
            held.range(later).chain(earlier).copied()
        })
    }

    /// How many sessions nobody has ended.
    pub(crate) fn counting(&self) -> usize {
        self.counting
    }

    /// Until when no session expires; `None` when one has. Renewals only put that off.
    pub(crate) fn none_expires(&self, now: Timestamp, expiry: Expiry) -> Option<Timestamp> {
        let Expiry { usual, in_touch_since } = expiry;
        let Some(since) = in_touch_since else { return Some(now + usual) };
        let ends = self.not_over().map(|seen| seen.renewed.max(since) + seen.lasts(usual));
        Some(ends.fold(now + usual, Timestamp::min)).filter(|end| *end >= now)
    }

    /// The nodes whose sessions count and were renewed in time, judged since `in_touch_since`. `usual`: the time of those
    /// that do not say theirs.
    pub(crate) fn live(
        &self,
        now: Timestamp,
        usual: Duration,
        in_touch_since: Option<Timestamp>,
    ) -> BTreeSet<Node> {
        let fresh = |seen: &&SeenSession| !seen.expired(now, seen.lasts(usual), in_touch_since);
        self.not_over().filter(fresh).map(|seen| seen.session.node.clone()).collect()
    }

    fn not_over(&self) -> impl Iterator<Item = &SeenSession> {
        self.sessions.values().filter(|seen| seen.session.is_live())
    }

    /// The nodes whose sessions nobody has ended, whether they were renewed in time or not.
    pub(crate) fn not_ended(&self) -> BTreeSet<Node> {
        self.not_over().map(|seen| seen.session.node.clone()).collect()
    }

    /// Whether `me` may go on announcing, without the lock, what it has announced since `since` in the place of `holder`,
    /// now that locks can be read: until that holder is heard of, or somebody else has the lock.
    pub(crate) fn may_stand_in(
        &self,
        address: IpAddr,
        me: &Node,
        holder: Option<&Holder>,
        since: Timestamp,
    ) -> bool {
        let Some(holder) = holder.filter(|holder| holder.node != *me) else { return false };
        let is_still_its =
            self.lock(address).is_some_and(|lock| lock.holder.as_ref() == Some(holder));
        let counts = |seen: &SeenSession| {
            seen.session.is_live() && seen.session.epoch == holder.epoch && seen.renewed > since
        };
        is_still_its && !self.sessions.get(&holder.node).is_some_and(counts)
    }

    /// The other addresses of the Service of a lock, in order.
    pub(crate) fn relatives(&self, lock: &Lock) -> impl Iterator<Item = IpAddr> {
        let all = lock.service.as_ref().and_then(|service| self.by_service.get(service));
        let address = lock.address;
        all.into_iter().flatten().copied().filter(move |it| *it != address)
    }

    /// The first address of the Service of a lock that `node` rightly holds, as it holds this one: all of them have the
    /// same.
    pub(crate) fn eldest(&self, lock: &Lock, node: &Node) -> IpAddr {
        let here = self.relatives(lock).filter(|relative| self.holds(node, *relative));
        here.fold(lock.address, IpAddr::min)
    }

    /// The locks that a node holds under a session that counts.
    pub(crate) fn rightly_held(&self, node: &Node) -> impl Iterator<Item = &Lock> {
        let session = self.session(node);
        self.locks_of(node).filter(move |lock| session.is_some_and(|it| it.holds(lock)))
    }

    /// Whether `node` holds the lock of `address` under a session that counts.
    pub(crate) fn holds(&self, node: &Node, address: IpAddr) -> bool {
        let both = self.session(node).zip(self.lock(address));
        both.is_some_and(|(session, lock)| session.holds(lock))
    }

    /// Who holds the lock of `address` under a session that counts.
    pub(crate) fn rightful_holder(&self, address: IpAddr) -> Option<&Node> {
        let holder = &self.lock(address)?.holder.as_ref()?.node;
        self.holds(holder, address).then_some(holder)
    }

    /// The locks that `node` rightly holds and is asked to give away, and to whom.
    pub(crate) fn asked_to_move(&self, node: &Node) -> impl Iterator<Item = (&Lock, &Node)> {
        let session = self.session(node);
        let locks = self.asked_to_move.iter().filter_map(|address| self.lock(*address));
        locks
            .filter(move |lock| session.is_some_and(|it| it.holds(lock)))
            .filter_map(|lock| Some((lock, lock.move_to.as_ref()?)))
    }

    /// The addresses whose locks say that they are not announced, or that another node claims them.
    pub(crate) fn noted(&self) -> impl Iterator<Item = IpAddr> {
        self.noted.iter().copied()
    }

    /// Notes which locks are free, and since when. Returns the addresses whose locks, or whether the sessions of their holders
    /// count, have changed since this was last done.
    pub(crate) fn mark_free(&mut self, now: Timestamp) -> BTreeSet<IpAddr> {
        let changed = core::mem::take(&mut self.unsettled);
        for address in &changed {
            if self.locks.get(address).is_some_and(|seen| self.is_free(seen)) {
                self.free.entry(*address).or_insert(now);
            } else {
                self.free.remove(address);
            }
        }
        changed
    }

    fn is_free(&self, seen: &SeenLock) -> bool {
        let over = |holder: &Holder| seen.orphaned || is_over(&self.sessions, holder);
        seen.lock.holder.as_ref().is_none_or(over)
    }

    /// The locks that are known to be nobody's, and since when, by address.
    pub(crate) fn free(&self) -> impl Iterator<Item = (&Lock, Timestamp)> {
        self.free.iter().filter_map(|(address, since)| Some((self.lock(*address)?, *since)))
    }

    pub(crate) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// How many there are.
    pub(crate) fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Since when a lock is known to be nobody's, if it is.
    pub(crate) fn free_since(&self, address: IpAddr) -> Option<Timestamp> {
        self.free.get(&address).copied()
    }

    /// Why `me` may take a lock that is nobody's.
    pub(crate) fn reason(&self, lock: &Lock, me: &Node) -> TakeReason {
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
}

/// Whether a holder's session is known to be over. Expiry is not asked for here: a lock becomes free only when the session
/// is ended.
///
/// That is not the opposite of counting. The answer to a write can show a lock before the watch shows the session that it
/// was taken under, and a session that was not seen yet is as good as any other.
fn is_over(sessions: &BTreeMap<Node, SeenSession>, holder: &Holder) -> bool {
    sessions.get(&holder.node).is_some_and(|seen| {
        let Session { epoch, .. } = seen.session;
        epoch > holder.epoch || (epoch == holder.epoch && !seen.session.is_live())
    })
}

impl SeenSession {
    /// How long it counts after a renewal.
    pub(crate) fn lasts(&self, usual: Duration) -> Duration {
        self.session.lasts.unwrap_or(usual)
    }

    /// Since when its node says that it hears `node`, if it does.
    pub(crate) fn names_since(&self, node: &Node) -> Option<Timestamp> {
        self.names.get(node).copied()
    }

    /// Whether the session was not renewed for `longest` while the API server was there to tell.
    pub(crate) fn expired(
        &self,
        now: Timestamp,
        longest: Duration,
        in_touch_since: Option<Timestamp>,
    ) -> bool {
        in_touch_since.is_some_and(|since| now.since(self.renewed.max(since)) > longest)
    }
}

impl Session {
    /// Whether it counts: nobody has ended it.
    pub fn is_live(&self) -> bool {
        matches!(self.state, SessionState::Live { .. })
    }

    /// Whether a deputy does not hear its node.
    pub fn is_accused(&self) -> bool {
        matches!(self.state, SessionState::Live { accused_by: Some(_) })
    }

    /// Whether it shows the same renewal as `earlier`: only others have written on it since.
    fn is_of_same_renewal_as(&self, earlier: &Session) -> bool {
        let shown = self.shown_renewal();
        shown.is_some() && shown == earlier.shown_renewal()
    }

    /// Whether it counts and its node holds the lock under it.
    pub(crate) fn holds(&self, lock: &Lock) -> bool {
        let held = |holder: &Holder| holder.node == self.node && holder.epoch == self.epoch;
        self.is_live() && lock.holder.as_ref().is_some_and(held)
    }
}

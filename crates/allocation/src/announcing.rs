//! How addresses are to be announced: what their pools say of the Services that have them, as it stands on their locks.

use std::net::IpAddr;

use arpeggio_api::{
    forwarder,
    lock::{Amendment, ServiceRef},
    service::ServiceRecord,
    terms::{self, Announced, Announcement, Policy, WrittenAnnounceTerms},
};

use arpeggio_election::{Claimant, Node, Pattern};
use arpeggio_ipam::{Grace, Held, Owner, PoolName, Request};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};

use super::{
    Index,
    known_lock::{KnownLock, owner_of},
};
use crate::effect::{Effect, Subject, Task};

/// What of a Service matters for announcing its address, whatever it asks for; `None` when it is not for us.
pub(super) fn announced(record: &ServiceRecord) -> Option<Announced<'_>> {
    record.request.as_ref()?;
    let labels = &record.requester.labels;
    let spread = record.spread.as_ref().ok().copied().flatten();
    Some(Announced { labels, is_local: record.is_local, spread })
}

impl Index {
    /// How `address` is to be announced for these Services. `None` when that cannot be said at present.
    pub(super) fn announce_terms(
        &self,
        address: IpAddr,
        services: &[ServiceRef],
    ) -> Option<WrittenAnnounceTerms> {
        let announced = self.all_announced(services)?;
        Some(self.policy_for(address, services)?.terms_for(&announced))
    }

    /// The same, and whether all nodes are to serve `address` for these Services. What cannot be said at present stays as it is
    /// written: what the pool says, as long as that does not count or is not known, and whether the address is to be spread, while
    /// one of the Services does not say that in known words. What the Services say themselves counts always.
    fn terms_and_spread(
        &self,
        address: IpAddr,
        services: &[ServiceRef],
        (terms, spread): (WrittenAnnounceTerms, bool),
    ) -> (WrittenAnnounceTerms, bool) {
        let Some(announced) = self.all_announced(services) else { return (terms, spread) };
        let record = |service: &ServiceRef| self.services.get(&owner_of(service));
        let is_clear = services.iter().filter_map(record).all(|record| record.spread.is_ok());
        let (new, spreads) = match self.policy_for(address, services) {
            Some(policy) => (policy.terms_for(&announced), Some(policy.spreads(&announced))),
            None => (terms.for_services(&announced), terms::said_to_spread(&announced)),
        };
        (new, spreads.filter(|_| is_clear).unwrap_or(spread))
    }

    /// What these Services say of announcing. `None` because there are none, or one of them is not for us.
    fn all_announced(&self, services: &[ServiceRef]) -> Option<Vec<Announced<'_>>> {
        let all: Option<Vec<Announced<'_>>> =
            services.iter().map(|it| announced(self.services.get(&owner_of(it))?)).collect();
        all.filter(|all| !all.is_empty())
    }

    /// What the pool of `address` says of announcing. `None` because no pool in use has it, it cannot be read what that
    /// says, or none of these Services has it from there.
    fn policy_for(&self, address: IpAddr, services: &[ServiceRef]) -> Option<&Policy> {
        let pool = self.allocator.pool_of(address)?;
        let policy = self.declarations.policy(&pool.name)?;
        (!self.is_kept_from(&pool.name, address, services)).then_some(policy)
    }

    /// Whether `address` came from another pool than this one, which has it by now, and all of these Services keep it for the
    /// grace period only: until then it is announced as the pool said that it came from.
    fn is_kept_from(&self, pool: &PoolName, address: IpAddr, services: &[ServiceRef]) -> bool {
        let is_of_another = self.held(address).origin.is_some_and(|origin| origin != *pool);
        let keeps = |it: &ServiceRef| self.keeps_for_now(&owner_of(it), address);
        is_of_another && !services.is_empty() && services.iter().all(keeps)
    }

    /// Whether `owner` has `address` for the grace period only, whether or not the lock says so yet.
    fn keeps_for_now(&self, owner: &Owner, address: IpAddr) -> bool {
        let Some(record) = self.services.get(owner) else { return false };
        let held: Vec<Held> = self.allocator.held_by(owner).map(|it| self.held(it)).collect();
        let expiring = match self.request_of(owner) {
            Some(request) => self.allocator.plan(owner, &request, &held, Grace::Lasts).expiring,
            None => self.allocator.disallowed(owner, &self.requester(record), &held),
        };
        expiring.iter().any(|it| it.address == address)
    }

    /// How `address` is to be announced for somebody who has no lock for it yet, and whether all nodes are to serve it: nowhere
    /// as long as it is not known what its pool says of that.
    pub(super) fn first_terms(
        &self,
        address: IpAddr,
        services: &[ServiceRef],
    ) -> (WrittenAnnounceTerms, bool) {
        self.terms_and_spread(address, services, (WrittenAnnounceTerms::nowhere(), false))
    }

    /// The amendment, with the terms that its Services are to have, and the pool that they have the address from by now.
    pub(super) fn with_terms(&self, amendment: Amendment) -> Amendment {
        let Amendment { address, services, .. } = &amendment;
        let written = (amendment.terms.clone(), amendment.spread);
        let (terms, spread) = self.terms_and_spread(*address, services, written);
        Amendment { pool: self.new_origin(*address, services).cloned(), terms, spread, ..amendment }
    }

    /// The pool that has `address` by now, where its lock names another one that it came from, or none, and all of these
    /// Services may have it from there. Before that, the one that it came from is what one of them may still ask for.
    fn new_origin(&self, address: IpAddr, services: &[ServiceRef]) -> Option<&PoolName> {
        let pool = &self.allocator.pool_of(address)?.name;
        let is_known = self.held(address).origin.as_ref() == Some(pool);
        let may_have = |it: &ServiceRef| {
            let owner = owner_of(it);
            let request = self.request_of(&owner);
            request.is_some_and(|request| self.allocator.allows(&owner, &request, address))
        };
        (!is_known && !services.is_empty() && services.iter().all(may_have)).then_some(pool)
    }

    /// What a Service asks for, as far as that is understood, with what is known of its namespace.
    fn request_of(&self, owner: &Owner) -> Option<Request> {
        self.complete(self.services.get(owner)?.request.as_ref()?.as_ref().ok()?)
    }

    /// Brings the terms on a lock, and the pool that it names, in line with its pool and Services.
    pub(super) fn amend_terms(&mut self, address: IpAddr) -> Option<Task> {
        let lock = self.locks.get(&address)?;
        let amendment = self.with_terms(lock.unchanged(address, lock.services.clone()));
        let differ = amendment.terms != lock.terms
            || amendment.spread != lock.spread
            || amendment.pool.is_some();
        differ.then(|| self.task(Subject::Lock(address), Effect::Amend(amendment))).flatten()
    }

    /// Whether no rule of the pool has `address` announced, for which there is a lock.
    pub(super) fn is_announced_nowhere(&self, address: IpAddr) -> bool {
        let nowhere = |lock: &KnownLock| {
            let terms = self.announce_terms(address, &lock.services);
            terms.as_ref().unwrap_or(&lock.terms).is_nowhere()
        };
        self.locks.get(&address).is_some_and(nowhere)
    }

    /// Whether no node announces `address` because its pool says that a router has a route to it.
    pub(super) fn is_routed(&self, address: IpAddr) -> bool {
        let Some(pool) = self.allocator.pool_of(address) else { return false };
        let declaration = self.declarations.iter().find(|it| *it.name() == pool.name);
        declaration.is_some_and(|it| it.announcement == Announcement::Routed)
    }

    /// Whether nobody announces `address` because no node has a backend that it may be announced for.
    pub(super) fn is_backless(&self, address: IpAddr) -> bool {
        self.locks.get(&address).is_some_and(|lock| lock.is_backless)
    }

    /// Whether nobody announces `address`, which a rule has announced, though a pod is ready for it and no stranger has it.
    pub(super) fn is_dark(&self, address: IpAddr) -> bool {
        self.announcer(address).is_none()
            && !self.is_backless(address)
            && self.stranger_at(address).is_none()
    }

    /// The node that announces `address`, and who goes on claiming it beside that.
    pub(super) fn dispute(&self, address: IpAddr) -> Option<(&Node, &Claimant)> {
        let lock = self.locks.get(&address)?;
        let holder = lock.holder.as_ref().filter(|node| self.is_living(node))?;
        Some((holder, lock.disputed_by.as_ref()?))
    }

    /// Who announces `address`, for people; `None` when nobody does.
    pub(super) fn announcer(&self, address: IpAddr) -> Option<String> {
        let lock = self.locks.get(&address).filter(|lock| !lock.is_backless)?;
        let node = lock.holder.as_ref().filter(|node| self.is_living(node))?;
        let rules = lock.terms.rules.iter().flatten();
        let patterns: Vec<Pattern> =
            rules.flat_map(|rule| &rule.interfaces).map(|it| it.0.as_str().into()).collect();
        let speaker = self.speakers.get(node.as_str());
        let place = speaker.and_then(|speaker| speaker.place(address, &patterns));
        let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
        let since = lock.since.as_ref().map(|since| format!(" since {:.0}", since.0));
        Some(format!("{address} from {node}{place}{}", since.unwrap_or_default()))
    }

    /// Whether the session of a node counts, as far as is known.
    fn is_living(&self, node: &Node) -> bool {
        self.living.as_ref().is_none_or(|living| living.contains(node.as_str()))
    }

    /// The connections to `address` that nodes still have which do not announce it any more.
    pub(super) fn left_behind(
        &self,
        address: IpAddr,
    ) -> impl Iterator<Item = (IpAddr, String, u32)> {
        let holder = self.locks.get(&address).and_then(|lock| lock.holder.as_ref());
        let counts = self.connections.get(&address).into_iter().flatten();
        let others = counts.filter(move |(node, _)| holder.is_none_or(|it| it.as_str() != *node));
        others.map(move |(node, count)| (address, node.clone(), *count))
    }

    /// Why one node serves `address`, for people, when all are to.
    pub(super) fn why_one_node(&self, address: IpAddr) -> Option<String> {
        let lock = self.locks.get(&address).filter(|lock| lock.spread && !lock.is_backless)?;
        let holder = lock.holder.as_ref()?;
        forwarder::why_one_node(address, holder, &self.not_spread.as_ref()?.iter())
    }

    /// Whether it is time to write something of `owner` that can wait for so long, when nothing else is to be written. Not at
    /// once: a node that fails has many addresses moved, and to move them comes first.
    pub(super) fn may_tell_now(&mut self, owner: &Owner, wait: SignedDuration, now: &Time) -> bool {
        let soonest = now.0.checked_add(wait).map_or_else(|_| now.clone(), Time);
        let due = self.untold.entry(owner.clone()).or_insert_with(|| soonest.clone());
        if *due <= *now {
            self.untold.remove(owner);
            return true;
        }
        *due = soonest.min(due.clone());
        self.alarms.insert((due.clone(), Subject::Service(owner.clone())));
        false
    }
}

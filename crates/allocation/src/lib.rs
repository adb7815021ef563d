//! Which Service gets which address: what the controller knows, and what follows from it. No I/O, no clock.
//!
//! Watches feed it with [`Watched::apply`], [`Watched::delete`] and [`Watched::reset`]; finished tasks with
//! [`Index::finish`]. Each call only notes which Services are affected; [`Index::decide`] and [`Index::decide_pools`]
//! then look at those, once, and return tasks. While a task is under way nothing else is decided about its subject: its
//! report is what the next decision is based on. Nothing is decided before Services, pools and locks were listed once.
//!
//! Who holds an address is known from three sources, in this order: a lock says so; a claim is under way; a Service has
//! it in its status. The [`Allocator`] keeps the sum of them.

#![forbid(unsafe_code)]

mod advice;
mod announcing;
mod askers;
mod clock;
mod decision;
mod declared;
pub mod effect;
mod exchange;
mod formats;
mod known_lock;
mod locks;
pub mod news;
pub mod node_leases;
mod outcome;
mod pace;
mod patience;
mod pools;
mod remembered;
mod rivals;
mod services;
mod setbacks;
pub mod sources;
mod strangers;
mod surroundings;
mod tending;
mod turns;
mod unlisted;
mod waiting;
mod wording;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use arpeggio_api::{
    address_pool::AddressPool, reservations::Reservations, service::ServiceRecord,
    session::Whereabouts,
};
use arpeggio_election::Node;
use arpeggio_ipam::{Allocator, Owner};
use arpeggio_labels::Labels;
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Time};
use kube::{Resource, ResourceExt, api::ObjectMeta};

use crate::{
    askers::Askers,
    declared::DeclaredPools,
    effect::{Effect, Observed, Subject, Task, TaskReport},
    known_lock::KnownLock,
    news::News,
    pace::Pace,
    rivals::{List, Rival, Said, Saying},
    setbacks::{Setbacks, Underway, Work},
    turns::Turns,
    waiting::Waiting,
};

pub use advice::Advice;
pub use declared::{Declared, Declarer};
pub use remembered::Records;
pub use unlisted::Unlisted;

/// How many connections each node still has of addresses that it does not serve any more.
pub(crate) type LeftBehind = BTreeMap<IpAddr, BTreeMap<String, u32>>;

/// Why addresses are served by one node though all are to, as the forwarders of nodes that live tell it. `None`: it is not known who has
/// a forwarder.
pub(crate) type NotSpread = Option<BTreeMap<Node, BTreeMap<IpAddr, String>>>;

/// A kind of object that a watch keeps the index informed of.
pub trait Watched<K: Resource> {
    /// The object is new or has changed.
    fn apply(&mut self, object: K);
    /// The object with this namespace, name and uid is gone.
    fn gone(&mut self, object: &ObjectMeta);
    /// The object is gone.
    fn delete(&mut self, object: K) {
        self.gone(object.meta());
    }
    /// These and no others exist.
    fn reset(&mut self, objects: Vec<K>);
}

/// What the controller knows; see the [crate](self) for how it is driven.
#[derive(Debug, Default)]
pub struct Index {
    /// The `loadBalancerClass` that is ours.
    class: Option<String>,
    listed: Listed,

    /// Every Service that is ours, or was.
    services: BTreeMap<Owner, ServiceRecord>,
    locks: BTreeMap<IpAddr, KnownLock>,
    /// The same as `locks`, by who is named on them.
    locked: BTreeMap<Owner, BTreeSet<IpAddr>>,
    /// Addresses that rest, by the Service that was deleted while it had them.
    formers: BTreeMap<Owner, BTreeSet<IpAddr>>,
    /// Addresses of Services that are gone, and until when a Service of the same name may still inherit them: of some who
    /// shared one each has its own time.
    orphaned: BTreeMap<IpAddr, BTreeMap<Owner, Time>>,
    pools: BTreeMap<String, AddressPool>,
    declarations: DeclaredPools,
    /// Where `MetalLB`'s objects are read, if anywhere.
    metallb_namespace: Option<String>,
    /// The highest version that the watch of locks has shown.
    locks_seen: u64,

    allocator: Allocator,
    /// Addresses whose lock is being created.
    claiming: BTreeMap<Owner, IpAddr>,
    /// What a Service will claim next, which needs it beside what it claims now.
    aside: BTreeMap<Owner, IpAddr>,

    /// Services to look at.
    dirty: BTreeSet<Owner>,
    /// Locks to look at: a Service of theirs may be gone, or their terms may have changed.
    suspects: BTreeSet<IpAddr>,
    /// Who leaves which lock by the decisions that are being made. One write takes all of them off it.
    leaving: BTreeMap<IpAddr, BTreeSet<Owner>>,
    /// Services that got less than they ask for: looked at again when there may be more.
    waiting: Waiting,
    /// Who asks for which address.
    askers: Askers,
    /// Why Services have less than they ask for, in a word, by the last decision.
    refused: BTreeMap<Owner, &'static str>,
    /// The addresses of Services that nobody announces, though somebody is to, by the last decision.
    dark: BTreeMap<Owner, Vec<IpAddr>>,
    pools_dirty: bool,
    /// Addresses at which a stranger answers, or did when they were last asked for.
    quarantined: BTreeSet<IpAddr>,
    /// Whether another address may be better by now for those who have one of these.
    strangers_dirty: bool,

    /// When something is to be looked at again.
    alarms: BTreeSet<(Time, Subject)>,
    periods: Periods,
    /// What nodes and their neighbourhood use.
    reserved: Reservations,
    /// Where nodes announce.
    speakers: BTreeMap<String, Whereabouts>,
    /// The nodes whose sessions count. `None`: nobody has said yet.
    living: Option<BTreeSet<String>>,
    /// Connections of addresses on nodes that do not serve them any more.
    connections: LeftBehind,
    /// What forwarders say of addresses that one node serves.
    not_spread: NotSpread,
    /// Services of which something is to be written later that can wait, and when.
    untold: BTreeMap<Owner, Time>,
    /// Services that lack a pool for what they have or ask for, and since when this process knows.
    lacking: BTreeMap<Owner, Time>,
    /// The same of those that cannot share what they have with those who were there before them.
    parting_since: BTreeMap<Owner, Time>,
    /// The labels of namespaces.
    namespaces: BTreeMap<String, Labels>,
    /// Namespaces that are being deleted.
    ending_namespaces: BTreeSet<String>,

    /// What is being done about whom.
    busy: BTreeMap<Subject, Underway>,
    turns: Turns,
    setbacks: Setbacks,
    pace: Pace,
    /// What we have written last in the status of Services since this process began, and what we are about to.
    said: BTreeMap<Owner, Said>,
    saying: BTreeMap<Owner, Saying>,
    /// The addresses that we have written there last.
    written: BTreeMap<Owner, Vec<IpAddr>>,
    /// What the status listed when we had written it last, whoever had made the list.
    left: BTreeMap<Owner, List>,
    /// Programs that have overwritten it.
    rivals: BTreeMap<Owner, Rival>,
    /// What users are to be told, and of which object.
    outbox: Vec<(ObjectReference, News)>,
    /// The time of the decision that is under way, or of the last one.
    now: Option<Time>,
}

/// How long things last.
#[derive(Debug, Clone, Copy, Default)]
pub struct Periods {
    /// For how long an address that no pool allows any more is kept.
    pub grace: Duration,
    /// For how long an address at which a stranger answered is given to nobody, after its last Service has left it.
    pub quarantine: Duration,
    /// For how long the address of a Service that is gone waits for a Service of the same namespace and name.
    pub succession: Duration,
    /// The same for one that this process has never seen, where a backup has brought the lock: from then on.
    pub restoration: Duration,
    /// For how long a Service must lack a pool before it is told, and before a grace period begins; and must clash with
    /// others at its address before it leaves that.
    pub patience: Duration,
}

/// Which kinds of objects were listed once.
#[derive(Debug, Default)]
struct Listed {
    services: bool,
    locks: bool,
    pools: bool,
}

/// An object's `resourceVersion`, which grows with every write of its kind.
fn version(object: &impl ResourceExt) -> u64 {
    version_in(object.meta())
}

/// The name of an object.
fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

fn version_in(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

impl Index {
    /// How many Services have less than they ask for, by the reason in a word.
    pub fn refused(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        self.refused.values().for_each(|reason| *counts.entry(*reason).or_default() += 1);
        counts
    }

    /// How many addresses of Services nobody announces, though somebody is to.
    pub fn unannounced(&self) -> usize {
        self.dark.values().flatten().collect::<BTreeSet<_>>().len()
    }

    /// An index for Services of this `loadBalancerClass`; without one, for those that have none.
    pub fn new(class: Option<String>, periods: Periods) -> Self {
        Self { class, periods, ..Self::default() }
    }

    /// Whether Services, pools and locks were listed once.
    pub fn is_complete(&self) -> bool {
        self.listed.services && self.listed.locks && self.listed.pools
    }

    /// This process decides from now on, after others may have.
    pub fn takes_over(&mut self) {
        self.forget_contests();
    }

    /// What is to be done for the Services and locks that were affected since the last call.
    pub fn decide(&mut self, now: &Time) -> Vec<Task> {
        if !self.is_complete() {
            return Vec::new();
        }
        self.note_time(now);
        self.hear_alarms(now);
        self.fall_silent(now);
        self.look_at_strangers();
        let mut tasks = Vec::new();
        // To let go may free what somebody waits for, who then is looked at in the next round.
        loop {
            self.call_next();
            let (due, later): (BTreeSet<Owner>, _) =
                std::mem::take(&mut self.dirty).into_iter().partition(|it| !self.is_busy(it));
            // First everybody keeps what they have, only then newcomers choose.
            for owner in &due {
                self.recall(owner);
            }
            tasks.extend(self.serve_waiting(now));
            for owner in &self.in_turn(&due) {
                tasks.extend(self.decide_service(owner, now));
            }
            self.dirty.extend(later);
            if due.is_empty() {
                break;
            }
        }
        tasks.extend(self.serve_waiting(now));
        tasks.extend(self.tend_locks(now));
        tasks
    }

    /// Those who came first are served first.
    fn in_turn(&self, owners: &BTreeSet<Owner>) -> Vec<Owner> {
        let mut owners: Vec<Owner> = owners.iter().cloned().collect();
        owners.sort_by_cached_key(|owner| self.rank(owner));
        owners
    }

    fn is_busy(&self, owner: &Owner) -> bool {
        self.busy.contains_key(&Subject::Service(owner.clone()))
    }

    /// Takes note of what came of a task.
    pub fn finish(&mut self, report: TaskReport, now: &Time) {
        let TaskReport { subject, result } = report;
        let underway = self.busy.remove(&subject);
        let work = underway.map_or(Work::Locks, |it| it.work);
        if let Some(address) = underway.and_then(|it| it.lock) {
            self.turns.ends(address);
        }
        let claimed = match &subject {
            Subject::Service(owner) => self.claiming.remove(owner),
            _ => None,
        };
        self.look_at(&subject);
        match result {
            Err(failed) => {
                self.forget_saying(&subject);
                if let Subject::Service(owner) = &subject {
                    self.set_nothing_aside(owner);
                }
                if let Subject::Record(uid) = &subject {
                    self.declarations.remembered.failed(uid);
                }
                let status = underway.filter(|it| it.work == Work::Status);
                self.set_back(&subject, work, failed, status.and_then(|it| it.version), now);
            }
            Ok(observed) => {
                let in_vain = underway.is_some_and(|it| it.was_in_vain(&observed));
                if !in_vain {
                    self.succeeded(&subject, work);
                }
                self.note_said(&subject, now);
                self.observe(observed, claimed);
                if in_vain {
                    self.was_in_vain(&subject, work, now);
                } else if work == Work::Status {
                    self.wrote(&subject);
                }
            }
        }
    }

    /// Has the subject looked at, and with a lock those who are on it.
    fn look_at(&mut self, subject: &Subject) {
        match subject {
            Subject::Service(owner) => _ = self.dirty.insert(owner.clone()),
            Subject::Lock(address) => {
                self.suspects.insert(*address);
                let lock = self.locks.get(address);
                self.dirty.extend(lock.into_iter().flat_map(|lock| lock.owners.iter().cloned()));
            }
            Subject::Pool(_) => self.pools_dirty = true,
            Subject::Record(_) => self.declarations.remembered.look_again(),
        }
    }

    fn knows(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Service(owner) => self.services.contains_key(owner),
            Subject::Lock(address) => self.locks.contains_key(address),
            Subject::Pool(name) => self.pools.contains_key(name),
            Subject::Record(uid) => self.declarations.knows(uid),
        }
    }

    fn observe(&mut self, observed: Observed, claimed: Option<IpAddr>) {
        match observed {
            Observed::Service(service) | Observed::Needed(service) => {
                self.service_seen(*service);
            }
            Observed::Lock(lease) => self.lock_found(&lease, claimed),
            Observed::NoLock { address, version } => self.lock_deleted(address, version),
            Observed::Pool(pool) => self.pool_written(*pool),
            // The watch shows it.
            Observed::Record => {}
        }
    }

    /// Makes a task of an effect, unless its subject is busy, or is left alone for a while, or its lock for good, or is written
    /// for another one: then it waits.
    fn task(&mut self, subject: Subject, effect: Effect) -> Option<Task> {
        let work = Work::of(&effect);
        if effect.changes_lock().is_some_and(|address| self.is_newer(address)) {
            return None;
        }
        if self.busy.contains_key(&subject) || self.is_held_back(&subject, work) {
            return None;
        }
        let lock = effect.writes_lock();
        if lock.is_some_and(|address| !self.turns.has(address, &subject)) {
            return None;
        }
        lock.into_iter().for_each(|address| self.turns.begins(address));
        let version = match &effect {
            Effect::WritePool(_) => Some(self.version_of(&subject)),
            effect => effect.version(),
        };
        if let Some(now) = &self.now {
            self.pace.note(&subject, work, now);
        }
        self.busy.insert(subject.clone(), Underway::of(&effect, version));
        Some(Task { subject, effect })
    }

    /// When there will be something to decide, though nothing happens before.
    pub fn next_alarm(&self) -> Option<&Time> {
        self.alarms.first().map(|(time, _)| time)
    }

    fn hear_alarms(&mut self, now: &Time) {
        while self.next_alarm().is_some_and(|time| time <= now) {
            if let Some((_, subject)) = self.alarms.pop_first() {
                self.look_at(&subject);
            }
        }
    }
}

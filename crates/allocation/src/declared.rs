//! Pools of every format together, and what their authors are told.

use std::collections::{BTreeMap, BTreeSet};

use arpeggio_api::{
    cluster::ClusterRange,
    declaration::{Declaration, Origin, Remark},
    last_good::LastGood,
    metallb::L2AdvertisementSpec,
    terms::Policy,
};
use arpeggio_ipam::{
    Allocator, InvalidPool, Outsider, Pool, PoolName, PoolState, Refusal, UnfitAddress, Unfitness,
};
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Time};

use super::{
    Index, outcome::Hint, patience::TELL_AFTER, remembered::Remembered, unlisted::AllUnlisted,
};
use crate::effect::Subject;

/// Who declares pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Declarer {
    /// Our own `ConfigMap`.
    ConfigMap,
    /// `MetalLB`'s `ConfigMap`.
    MetalLbConfigMap,
    /// `MetalLB`'s custom resources.
    MetalLb,
}

/// All that one declarer says now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Declared {
    /// The pools.
    pub pools: Vec<Declaration>,
    /// What authors should know, and of which object.
    pub remarks: Vec<(ObjectReference, Remark)>,
    /// What says where pools of others are announced, as it could last be used.
    pub advertisements: Vec<(ObjectReference, L2AdvertisementSpec)>,
    /// The uid of an object that may have more pools than these, which cannot be read and never could by this process.
    pub unread: Option<String>,
}

/// The object that declares a pool, by its uid, and the pool's name.
type Key = (String, PoolName);

/// What right a pool has to its addresses, the best one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// It had all of them, or what it had stays in force.
    AsBefore,
    /// It had others, and asks for more.
    Grown,
    /// It could never be used, as far as is known.
    New,
}

/// What was declared in other formats than `AddressPool`, and the sum of all.
#[derive(Debug, Default)]
pub(super) struct DeclaredPools {
    elsewhere: BTreeMap<Declarer, Declared>,
    /// Whether there are objects with pools that cannot be decoded.
    undecodable: bool,
    /// Those of them whose uid is known.
    left_out: BTreeSet<String>,
    /// Objects that the API server does not show.
    pub(super) unlisted: AllUnlisted,
    /// All of them, in the order in which the allocator knows them.
    in_order: Vec<Declaration>,
    /// What each said when this process has last seen it usable.
    last_good: BTreeMap<Key, Declaration>,
    /// The same, as it is kept for the controllers to come.
    pub(super) remembered: Remembered,
    /// How addresses are announced, by pool.
    policies: BTreeMap<PoolName, Policy>,
    /// Pools that nothing has announced for a moment only.
    silencing: BTreeMap<PoolName, Silencing>,
    /// What authors should know, by the uid of their object.
    notices: BTreeMap<(String, Remark), Notice>,
    /// Whether there may be something new to tell.
    changed: bool,
    /// What the cluster uses itself.
    pub(super) cluster: Vec<ClusterRange>,
}

/// A pool of which nothing says any more, or yet, where it is announced. What says so may be about to come, as when both are
/// replaced; or the pool itself to go, and then its addresses stay announced until their grace period is over.
#[derive(Debug)]
struct Silencing {
    /// How it is announced then: nowhere.
    policy: Policy,
    /// When; `None` before anybody has looked at the clock.
    due: Option<Time>,
}

/// Something that an author should know.
#[derive(Debug, Clone)]
struct Notice {
    about: ObjectReference,
    since: Time,
    told: bool,
}

impl DeclaredPools {
    /// Puts these and what was declared elsewhere in order, so that nothing that is new takes out of use what was good
    /// before: neither a new pool nor a change of one, however old its object is. Otherwise older pools come first.
    pub(super) fn arrange(&mut self, pools: impl Iterator<Item = Declaration>) {
        let elsewhere = self.in_force().flat_map(|(_, declared)| declared.pools.iter().cloned());
        self.in_order = pools.chain(elsewhere).collect();
        self.in_order.extend(self.unread_pools(&self.in_order));
        let mut in_order = std::mem::take(&mut self.in_order);
        let first = first_of_each_name(&in_order);
        in_order.sort_by_cached_key(|it| {
            let is_first = first.get(&key(it)) == Some(&it.origin);
            let standing = if is_first { self.standing(it) } else { Standing::New };
            // Such a one keeps its name from nobody.
            let never_was_good = standing == Standing::New && (!is_first || it.pool.is_err());
            (standing, never_was_good, it.created.as_ref().map(|time| time.0), it.origin.clone())
        });
        self.in_order = in_order;
    }

    /// What it asks for, compared with what it had when it could last be used.
    fn standing(&self, declaration: &Declaration) -> Standing {
        let good = self.good(declaration).and_then(|good| good.pool.as_ref().ok());
        match (good, &declaration.pool) {
            (None, _) => Standing::New,
            (Some(good), Ok(pool)) if !pool.is_within(good) => Standing::Grown,
            _ => Standing::AsBefore,
        }
    }

    /// Takes note of what became of them: what can be used is good, and stays in force when a change of it cannot.
    pub(super) fn settle(&mut self, allocator: &Allocator) {
        let mut last_good = BTreeMap::new();
        let mut policies = BTreeMap::new();
        for (declaration, (_, state)) in self.in_order.iter().zip(allocator.pools()) {
            let usable = matches!(state, PoolState::Usable | PoolState::Ending);
            let good = if usable { Some(declaration) } else { self.good(declaration) };
            let good = good.cloned();
            // The first of several pools of one name has it, even when it cannot be used.
            policies
                .entry(declaration.name().clone())
                .or_insert_with(|| policy_of(declaration, good.as_ref()));
            // What another one of that name says was never in force.
            if let Some(good) = good {
                last_good.entry(key(declaration)).or_insert(good);
            }
        }
        self.last_good = last_good;
        self.remembered.look_again();
        self.set_policies(
            policies.into_iter().filter_map(|(name, policy)| Some((name, policy?))).collect(),
        );
        self.changed = true;
    }

    /// A pool that lacks an advertisement is not silent at once, unless it is already: its locks may say where it was announced
    /// before it was made anew. How it is announced counts as unknown until [`Self::fall_silent`] says that it stayed so.
    fn set_policies(&mut self, policies: BTreeMap<PoolName, Policy>) {
        let (before, mut silencing) =
            (std::mem::take(&mut self.policies), std::mem::take(&mut self.silencing));
        for (name, policy) in policies {
            let pending = silencing.remove(&name);
            let is_silent = before.get(&name).is_some_and(Policy::is_nowhere);
            if policy.lacks_advertisement() && !is_silent {
                let due = pending.and_then(|pending| pending.due);
                self.silencing.insert(name, Silencing { policy, due });
            } else {
                self.policies.insert(name, policy);
            }
        }
    }

    /// Has pools fall silent that nothing has announced for long enough. Returns whether there were any, and when to come
    /// again for which others.
    fn fall_silent(&mut self, now: &Time) -> (bool, Vec<(Time, PoolName)>) {
        let (mut fell, mut later) = (false, Vec::new());
        for (name, mut pool) in std::mem::take(&mut self.silencing) {
            let due = pool.due.take().or_else(|| now.0.checked_add(TELL_AFTER).ok().map(Time));
            match due {
                Some(due) if due > *now => {
                    later.push((due.clone(), name.clone()));
                    self.silencing.insert(name, Silencing { due: Some(due), ..pool });
                }
                _ => {
                    fell = true;
                    self.policies.insert(name, pool.policy);
                }
            }
        }
        (fell, later)
    }

    /// Who is listened to, and what each says. As with `MetalLB`, its `ConfigMap` counts only where there are no pools
    /// of its kinds.
    fn in_force(&self) -> impl Iterator<Item = (&Declarer, &Declared)> {
        let forgotten = self.has_objects_of_metallb();
        self.elsewhere
            .iter()
            .filter(move |(by, _)| !(forgotten && **by == Declarer::MetalLbConfigMap))
    }

    /// Whether there are pools of `MetalLB`'s kinds, or were when they could last be listed.
    fn has_objects_of_metallb(&self) -> bool {
        let shown = self.elsewhere.get(&Declarer::MetalLb);
        let is_object = |pool: &Declaration| {
            matches!(pool.origin, Origin::IpAddressPool { .. } | Origin::LegacyPool { .. })
        };
        shown.is_some_and(|declared| !declared.pools.is_empty())
            || self.kept_of_unlisted().any(|(_, said)| said.pools.iter().any(is_object))
    }

    /// What is kept of objects that the API server does not show, by uid.
    fn kept_of_unlisted(&self) -> impl Iterator<Item = (&str, &LastGood)> {
        self.remembered.objects().filter(|(_, said)| self.unlisted.has(&said.object))
    }

    /// Whether there is no pool of `MetalLB`'s.
    fn has_none_of_metallb(&self) -> bool {
        let all = [Declarer::MetalLb, Declarer::MetalLbConfigMap];
        let all = all.iter().filter_map(|by| self.elsewhere.get(by));
        all.flat_map(|declared| &declared.pools).next().is_none()
    }

    /// `MetalLB`'s `ConfigMap`, if there are pools of its kinds beside it.
    fn forgotten(&self) -> Option<&ObjectReference> {
        let file = self.elsewhere.get(&Declarer::MetalLbConfigMap)?;
        let from_file = file.pools.first().map(|pool| &pool.object);
        let about = from_file.or_else(|| file.remarks.first().map(|(object, _)| object));
        about.filter(|_| self.has_objects_of_metallb())
    }

    /// How addresses of `pool` are announced.
    pub(super) fn policy(&self, pool: &PoolName) -> Option<&Policy> {
        self.policies.get(pool)
    }

    /// What the allocator is told: each pool, and what it said when it could last be used.
    pub(super) fn pools(
        &self,
    ) -> impl Iterator<Item = (Result<Pool, InvalidPool>, Option<Pool>)> + '_ {
        self.in_order.iter().map(|declaration| {
            let good = self.good(declaration).and_then(|good| good.pool.clone().ok());
            let ends = declaration.ends;
            let ending = |pool: Pool| Pool { ends, ..pool };
            (declaration.pool.clone().map(ending), good.map(ending))
        })
    }

    /// Each of them, in the order in which the allocator knows them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Declaration> {
        self.in_order.iter()
    }

    /// Which version of its object a pool is used in, when it cannot be used in the present one.
    pub(super) fn generation_in_force(&self, declaration: &Declaration) -> Option<i64> {
        self.good(declaration)?.generation
    }

    /// What a pool said when this process has last seen it usable.
    pub(super) fn seen_good(&self, declaration: &Declaration) -> Option<&Declaration> {
        self.last_good.get(&key(declaration))
    }

    /// The uids of objects of which not everything can be read.
    pub(super) fn unread(&self) -> BTreeSet<&str> {
        let in_part = self.in_force().filter_map(|(_, declared)| declared.unread.as_deref());
        let left_out = self.left_out.iter().map(String::as_str);
        let kept = self.kept_of_unlisted().map(|(uid, _)| uid);
        in_part.chain(left_out).chain(kept).collect()
    }

    /// What says where pools of others are announced.
    pub(super) fn advertisements(
        &self,
    ) -> impl Iterator<Item = &(ObjectReference, L2AdvertisementSpec)> {
        self.elsewhere.values().flat_map(|declared| &declared.advertisements)
    }

    /// For each pool that is used as it was before: which one, and why not as it says now.
    pub(super) fn used_as_before(&self, allocator: &Allocator) -> Vec<String> {
        let states = self.in_order.iter().zip(allocator.pools());
        let earlier = states.filter_map(|(pool, (_, state))| match state {
            PoolState::Earlier(why) => {
                Some(pool.change_not_used(why, self.generation_in_force(pool)).message)
            }
            _ => None,
        });
        earlier.collect()
    }

    /// Whether some declarer may have pools that cannot be read.
    pub(super) fn are_incomplete(&self) -> bool {
        let unknown = |uid: &String| !self.remembered.knows_pools_of(uid);
        let mut unread = self.in_force().filter_map(|(_, declared)| declared.unread.as_ref());
        self.undecodable || self.unlisted.may_have_pools() || unread.any(unknown)
    }

    /// What every author should know, given what became of the pools. An `AddressPool` has conditions for that.
    fn remarks<'a>(
        &'a self,
        states: impl Iterator<Item = PoolState<'a>>,
    ) -> Vec<(&'a ObjectReference, Remark)> {
        let general = self.in_force().flat_map(|(_, all)| &all.remarks);
        let general = general.map(|(about, remark)| (about, remark.clone()));
        let unused = self.in_order.iter().zip(states).filter_map(|(pool, state)| {
            let remark = match (&pool.origin, state) {
                (Origin::AddressPool { .. }, _) | (_, PoolState::Usable | PoolState::Ending) => {
                    return None;
                }
                (_, PoolState::Invalid(why)) => pool.not_used(why),
                (_, PoolState::Overlapping(why)) => pool.not_used(why),
                (_, PoolState::Earlier(why)) => {
                    pool.change_not_used(why, self.generation_in_force(pool))
                }
            };
            Some((&pool.object, remark))
        });
        let forgotten = self.forgotten().map(|about| (about, superseded()));
        general.chain(unused).chain(forgotten).chain(self.remembered.remarks()).collect()
    }

    /// Takes note of what is so now, and returns what has been so for long enough and was not told yet.
    fn ripe(
        &mut self,
        present: impl IntoIterator<Item = (ObjectReference, Remark)>,
        now: &Time,
    ) -> Vec<(ObjectReference, Remark)> {
        let mut before = std::mem::take(&mut self.notices);
        for (about, remark) in present {
            let key = (about.uid.clone().unwrap_or_default(), remark);
            let known = before.remove(&key);
            let fresh = || Notice { about, since: now.clone(), told: false };
            self.notices.entry(key).or_insert_with(|| known.unwrap_or_else(fresh));
        }
        let due = |notice: &Notice| now.0.duration_since(notice.since.0) >= TELL_AFTER;
        let ripe = self.notices.iter_mut().filter(|(_, notice)| !notice.told && due(notice));
        ripe.map(|((_, remark), notice)| {
            notice.told = true;
            (notice.about.clone(), remark.clone())
        })
        .collect()
    }

    /// The times that are waited for, or counted from.
    pub(super) fn times(&mut self) -> impl Iterator<Item = &mut Time> {
        let due = self.silencing.values_mut().filter_map(|pool| pool.due.as_mut());
        due.chain(self.notices.values_mut().map(|notice| &mut notice.since))
    }

    fn has_untold(&self) -> bool {
        self.changed || self.notices.values().any(|notice| !notice.told)
    }
}

/// Where the first of those stands that have the same name in the same object, as two entries of a `ConfigMap` may: it has the name.
fn first_of_each_name(declarations: &[Declaration]) -> BTreeMap<Key, Origin> {
    let mut first = BTreeMap::<Key, Origin>::new();
    for it in declarations {
        let known = first.entry(key(it)).or_insert_with(|| it.origin.clone());
        if it.origin < *known {
            known.clone_from(&it.origin);
        }
    }
    first
}

fn key(declaration: &Declaration) -> Key {
    (declaration.object.uid.clone().unwrap_or_default(), declaration.name().clone())
}

/// How addresses of a pool are announced: as it said when it could last be used. Where an `IPAddressPool` is announced
/// is not part of it, so that counts as it is now.
fn policy_of(present: &Declaration, good: Option<&Declaration>) -> Option<Policy> {
    match present.origin {
        Origin::IpAddressPool { .. } => present.policy().ok(),
        _ => good.unwrap_or(present).policy().ok(),
    }
}

/// Whether somebody may be refused for the lack of a pool, or of the labels of their namespace.
fn may_lack_something(refusal: &Refusal) -> bool {
    let is_unknown = |why: &Unfitness| {
        matches!(why, Unfitness::Unknown | Unfitness::Outsider(Outsider::Unknown(_)))
    };
    match refusal {
        Refusal::NoPools => true,
        Refusal::Pools { pools, .. } => {
            pools.is_empty() || pools.iter().any(|it| is_unknown(&it.why))
        }
        Refusal::Address { why, .. } => {
            let outsider = |it: &UnfitAddress| {
                matches!(it, UnfitAddress::Outsider { why: Outsider::Unknown(_), .. })
            };
            *why == UnfitAddress::NoPool || outsider(why)
        }
        Refusal::OneAddressForTwo { .. } => false,
    }
}

fn superseded() -> Remark {
    let message = "its pools are not used, since there are IPAddressPools or AddressPools of MetalLB's in its namespace: \
                   MetalLB ignores it as well from version 0.13 on; delete it, or those";
    Remark { reason: "Superseded", message: message.to_owned() }
}

impl Index {
    /// All that one declarer says now.
    pub fn set_declared(&mut self, by: Declarer, declared: Declared) {
        self.declarations.elsewhere.insert(by, declared);
        self.pools_changed();
    }

    /// Everything was listed once, what is kept of pools included. What could be used before that, when others of them were
    /// not known yet, says nothing of which was good: that is known from what is kept, and from now on from what is seen.
    pub fn all_listed(&mut self) {
        self.declarations.last_good.clear();
        self.pools_changed();
    }

    /// Whether there are objects with pools that cannot be decoded: their addresses may be held, and are not disallowed.
    pub fn set_undecodable_pools(&mut self, undecodable: bool) {
        if std::mem::replace(&mut self.declarations.undecodable, undecodable) != undecodable {
            self.pools_changed();
        }
    }

    /// Which objects with pools cannot be decoded, by uid: what is kept of them is in force.
    pub fn set_left_out(&mut self, uids: BTreeSet<String>) {
        if self.declarations.left_out != uids {
            self.declarations.left_out = uids;
            self.pools_changed();
        }
    }

    /// Has pools fall silent that nothing has announced for some seconds.
    pub(super) fn fall_silent(&mut self, now: &Time) {
        let (fell, later) = self.declarations.fall_silent(now);
        let alarms =
            later.into_iter().map(|(due, name)| (due, Subject::Pool(name.as_str().to_owned())));
        self.alarms.extend(alarms);
        if fell {
            self.dirty.extend(self.services.keys().cloned());
            self.suspects.extend(self.locks.keys());
        }
    }

    /// Where `MetalLB`'s objects are read, so that those who miss their pools are told.
    pub fn reads_metallb_in(&mut self, namespace: &str) {
        self.metallb_namespace = Some(namespace.to_owned());
    }

    /// Who finds no pool, or not the one that they name, may have it where it is not read, or where the API server does not
    /// show it.
    pub(super) fn hint(&self, refusal: &Refusal) -> Hint {
        if let Some(names) = self.declarations.unlisted.names()
            && may_lack_something(refusal)
        {
            return Hint::Unlisted(names);
        }
        let is_missing = match refusal {
            Refusal::NoPools => true,
            Refusal::Pools { pools, .. } => pools.iter().any(|it| *it.why == Unfitness::Unknown),
            _ => false,
        };
        let namespace = self.metallb_namespace.as_ref();
        match namespace.filter(|_| is_missing && self.declarations.has_none_of_metallb()) {
            Some(namespace) => Hint::MetalLbElsewhere(namespace.clone()),
            None => Hint::None,
        }
    }

    /// The ranges that the cluster uses for its pods and Services.
    pub fn set_cluster_ranges(&mut self, ranges: Vec<ClusterRange>) {
        self.declarations.cluster = ranges;
        self.pools_dirty = true;
    }

    /// What authors of pools were not told yet and has been so for some seconds. To be asked for now and then. After a
    /// restart it is told once more, since nobody remembers.
    pub fn news(&mut self, now: &Time) -> Vec<(ObjectReference, Remark)> {
        if !self.declarations.has_untold() {
            return Vec::new();
        }
        self.declarations.changed = false;
        let states = self.allocator.pools().map(|(_, state)| state);
        let remarks = self.declarations.remarks(states).into_iter();
        let present: Vec<_> = remarks.map(|(about, remark)| (about.clone(), remark)).collect();
        self.declarations.ripe(present, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arpeggio_api::terms::{Announced, Announcement};
    use arpeggio_ipam::PoolError;
    use arpeggio_labels::Labels;
    use k8s_openapi::jiff::Timestamp;

    fn declaration(name: &str, address: &str, created: i64) -> Declaration {
        let object = ObjectReference { uid: Some(name.to_owned()), ..ObjectReference::default() };
        Declaration {
            origin: Origin::IpAddressPool { namespace: "metallb-system".into(), name: name.into() },
            object,
            generation: None,
            created: Some(at(created)),
            pool: Ok(Pool::new(name.into(), vec![address.parse().unwrap()])),
            announcement: Announcement::Everywhere,
            probing: true,
            ends: false,
        }
    }

    fn declared(pools: Vec<Declaration>) -> Declared {
        Declared { pools, ..Declared::default() }
    }

    fn at(seconds: i64) -> Time {
        Time(Timestamp::from_second(seconds).unwrap())
    }

    /// The first address of each pool that is in use, by name.
    fn in_use(index: &Index, addresses: &[&'static str]) -> Vec<(&'static str, String)> {
        let pool = |address: &&'static str| {
            let pool = index.allocator.pool_of(address.parse().unwrap())?;
            Some((*address, pool.name.to_string()))
        };
        addresses.iter().filter_map(pool).collect()
    }

    fn broken(name: &str, created: i64) -> Declaration {
        let error = PoolError::Format("it is broken".to_owned());
        let pool = Err(InvalidPool::new(name.into(), error));
        Declaration { pool, ..declaration(name, "10.0.0.1", created) }
    }

    /// What is told once everything has been so for long enough.
    fn told(index: &mut Index) -> Vec<String> {
        index.news(&at(0));
        index.news(&at(5)).into_iter().map(|(_, remark)| remark.message).collect()
    }

    #[test]
    fn the_older_pool_keeps_what_both_have_whatever_its_format() {
        let mut index = Index::default();
        let (young, old) = (declaration("a", "10.0.0.0/24", 2), declaration("b", "10.0.0.9", 1));
        index.set_declared(Declarer::ConfigMap, declared(vec![old]));
        index.set_declared(Declarer::MetalLb, declared(vec![young]));
        let states: Vec<(&str, bool)> = index
            .allocator
            .pools()
            .map(|(name, state)| (name.as_str(), matches!(state, PoolState::Usable)))
            .collect();
        assert_eq!(states, [("b", true), ("a", false)]);
        let start = "pool \"a\" (IPAddressPool metallb-system/a) is not used: pool \"b\"";
        let told = told(&mut index);
        assert!(told.len() == 1 && told[0].starts_with(start), "{told:?}");
    }

    #[test]
    fn what_a_pool_said_last_stays_in_force_when_a_change_of_it_is_broken() {
        for by in [Declarer::ConfigMap, Declarer::MetalLbConfigMap, Declarer::MetalLb] {
            let mut index = Index::default();
            let others = || declaration("other", "10.0.9.0/28", 9);
            let good = Declaration { generation: Some(4), ..declaration("a", "10.0.0.0/28", 1) };
            index.set_declared(by, declared(vec![good, others()]));
            for _ in 0..2 {
                let bad = Declaration { generation: Some(5), ..broken("a", 1) };
                index.set_declared(by, declared(vec![bad, others()]));
                assert_eq!(in_use(&index, &["10.0.0.9", "10.0.9.1"]).len(), 2, "{by:?}");
            }
            let told = told(&mut index);
            assert_eq!(told.len(), 1);
            let end = "it is broken; what the pool said before (generation 4) stays in force";
            assert!(told[0].ends_with(end), "{told:?}");
            index.set_declared(by, declared(vec![declaration("a", "10.0.1.0/28", 1)]));
            assert_eq!(in_use(&index, &["10.0.0.9", "10.0.1.9", "10.0.9.1"]).len(), 1);
        }
    }

    #[test]
    fn a_pool_that_is_deleted_or_made_anew_has_no_past() {
        let mut index = Index::default();
        let good = || declared(vec![declaration("a", "10.0.0.0/28", 1)]);
        index.set_declared(Declarer::MetalLb, good());
        let object = ObjectReference { uid: Some("new".to_owned()), ..ObjectReference::default() };
        let anew = Declaration { object, ..broken("a", 2) };
        index.set_declared(Declarer::MetalLb, declared(vec![anew]));
        assert_eq!(in_use(&index, &["10.0.0.1"]), []);
        index.set_declared(Declarer::MetalLb, good());
        index.set_declared(Declarer::MetalLb, declared(vec![]));
        index.set_declared(Declarer::MetalLb, declared(vec![broken("a", 1)]));
        assert_eq!(in_use(&index, &["10.0.0.1"]), []);
    }

    /// Two entries of a `ConfigMap` may have one name. The second one is refused, and changes nothing of the first.
    #[test]
    fn a_second_entry_of_a_name_never_affects_the_first() {
        let entry = |range: &str, line: u32| {
            let (namespace, name) = ("lb".to_owned(), "pools".to_owned());
            let origin = Origin::ConfigMap { namespace, name, line: line.into() };
            Declaration { origin, ..declaration("a", range, 1) }
        };
        let mut index = Index::default();
        let mut set = |first: Declaration| {
            let pools = vec![first, entry("10.0.0.1", 5)];
            index.set_declared(Declarer::ConfigMap, declared(pools));
            in_use(&index, &["10.0.0.1", "10.0.0.9", "10.0.0.17"]).len()
        };
        assert_eq!(set(entry("10.0.0.0/28", 2)), 2);
        assert_eq!(set(entry("10.0.0.0/27", 2)), 3, "it may grow");
        assert_eq!(set(entry("10.0.0.0/29", 2)), 1, "and shrink");
        let broken = Declaration { origin: entry("10.0.0.1", 2).origin, ..broken("a", 1) };
        assert_eq!(set(broken), 1, "what it said last is what was good last");
    }

    #[test]
    fn a_change_that_overlaps_an_older_pool_is_not_used() {
        let mut index = Index::default();
        let old = || declaration("old", "10.0.0.0/28", 1);
        let mut set = |range| {
            let pools = vec![old(), declaration("young", range, 2)];
            index.set_declared(Declarer::MetalLb, declared(pools));
            in_use(&index, &["10.0.0.1", "10.0.1.1", "10.0.2.1"])
        };
        let before = set("10.0.1.0/28");
        assert_eq!(set("10.0.0.0/24"), before);
        assert_eq!(set("10.0.2.0/28")[1].0, "10.0.2.1");
    }

    #[test]
    fn what_is_new_in_an_old_object_takes_nothing_from_a_younger_pool() {
        let mut index = Index::default();
        let in_file = |name, address| {
            let object = ObjectReference { uid: Some("file".to_owned()), ..Default::default() };
            Declaration { object, ..declaration(name, address, 1) }
        };
        let used = ["10.0.0.1", "10.0.1.1", "10.0.2.1"];
        index.set_declared(Declarer::MetalLb, declared(vec![declaration("lan", "10.0.0.0/28", 2)]));
        let first = || in_file("file", "10.0.1.0/28");
        index.set_declared(Declarer::ConfigMap, declared(vec![first()]));
        let before = in_use(&index, &used);
        assert_eq!(before.len(), 2);
        for added in [in_file("lan", "10.0.2.0/28"), in_file("more", "10.0.0.0/24")] {
            index.set_declared(Declarer::ConfigMap, declared(vec![first(), added]));
            assert_eq!(in_use(&index, &used), before);
        }
        // What the younger pool does not claim any more, it has no right to.
        let moved = declaration("lan", "10.0.2.0/28", 2);
        index.set_declared(Declarer::MetalLb, declared(vec![moved]));
        assert_eq!(in_use(&index, &used)[0], ("10.0.0.1", "more".to_owned()));
    }

    #[test]
    fn a_pool_that_never_was_good_keeps_its_name_from_nobody() {
        let mut index = Index::default();
        let of_object = |uid: &str, pool| {
            let object = ObjectReference { uid: Some(uid.to_owned()), ..Default::default() };
            Declaration { object, ..pool }
        };
        let young = || of_object("young", declaration("a", "10.0.0.0/28", 2));
        let old = |pool| declared(vec![of_object("old", pool), young()]);
        let used = ["10.0.0.1", "10.0.1.1"];
        let elsewhere = || Declaration { announcement: Announcement::Nowhere, ..broken("a", 1) };
        index.set_declared(Declarer::MetalLb, old(elsewhere()));
        assert_eq!(in_use(&index, &used), [("10.0.0.1", "a".to_owned())]);
        let services = [Announced { labels: &Labels::new(), is_local: false, spread: None }];
        let policy = index.declarations.policy(&"a".into()).unwrap();
        assert!(!policy.terms_for(&services).is_nowhere(), "it is announced as it says itself");
        index.set_declared(Declarer::MetalLb, old(declaration("a", "10.0.1.0/28", 1)));
        assert_eq!(in_use(&index, &used), [("10.0.0.1", "a".to_owned())], "it has the name now");
    }

    #[test]
    fn how_a_pool_is_announced_stays_as_well() {
        let mut index = Index::default();
        let nowhere = |pool| Declaration { announcement: Announcement::Nowhere, ..pool };
        let policy = |index: &Index| index.declarations.policy(&"a".into()).cloned();
        let services = [Announced { labels: &Labels::new(), is_local: false, spread: None }];
        let is_nowhere = |index: &Index| policy(index).unwrap().terms_for(&services).is_nowhere();
        let file = |pool| {
            let origin = Origin::ConfigMap { namespace: "n".into(), name: "c".into(), line: 1 };
            declared(vec![Declaration { origin, ..pool }])
        };
        index.set_declared(Declarer::ConfigMap, file(declaration("a", "10.0.0.0/28", 1)));
        index.set_declared(Declarer::ConfigMap, file(nowhere(broken("a", 1))));
        assert!(!is_nowhere(&index), "it is part of the change that is not used");
        index.set_declared(Declarer::ConfigMap, Declared::default());
        let pool = declaration("a", "10.0.0.0/28", 1);
        index.set_declared(Declarer::MetalLb, declared(vec![pool]));
        index.set_declared(Declarer::MetalLb, declared(vec![nowhere(broken("a", 1))]));
        index.fall_silent(&at(0));
        assert!(policy(&index).is_none(), "the pool itself may be about to go");
        index.fall_silent(&at(4));
        assert!(policy(&index).is_none());
        index.fall_silent(&at(5));
        assert!(is_nowhere(&index), "advertisements are objects of their own");
        let unknown = Declaration { announcement: Announcement::Unknown, ..broken("a", 1) };
        index.set_declared(Declarer::MetalLb, declared(vec![unknown]));
        assert!(policy(&index).is_none());
    }

    #[test]
    fn a_pool_falls_silent_and_authors_are_told_though_the_clock_was_put_back() {
        let mut index = Index::default();
        let hours = 5 * 3_600;
        index.set_declared(Declarer::MetalLb, declared(vec![declaration("a", "10.0.0.1", 1)]));
        let nowhere =
            Declaration { announcement: Announcement::Nowhere, ..declaration("a", "10.0.0.1", 1) };
        index.set_declared(Declarer::MetalLb, declared(vec![nowhere, broken("b", 2)]));
        let policy = |index: &Index| index.declarations.policy(&"a".into()).cloned();
        index.note_time(&at(hours));
        index.fall_silent(&at(hours));
        assert_eq!(index.news(&at(hours)), []);
        for (seconds, is_due) in [(0, false), (4, false), (5, true)] {
            index.note_time(&at(seconds));
            index.fall_silent(&at(seconds));
            assert_eq!(policy(&index).is_some(), is_due, "{seconds}");
            assert_eq!(index.news(&at(seconds)).len(), usize::from(is_due), "{seconds}");
        }
    }

    #[test]
    fn objects_win_over_a_forgotten_config_map() {
        let mut index = Index::default();
        index.set_declared(
            Declarer::MetalLbConfigMap,
            declared(vec![declaration("file", "10.0.0.0/28", 1)]),
        );
        assert_eq!(in_use(&index, &["10.0.0.1"]).len(), 1);
        let objects = declared(vec![declaration("lan", "10.0.1.0/28", 2)]);
        index.set_declared(Declarer::MetalLb, objects);
        let both = ["10.0.0.1", "10.0.1.1"];
        assert_eq!(in_use(&index, &both), [("10.0.1.1", "lan".to_owned())]);
        let told = told(&mut index);
        assert!(told.len() == 1 && told[0].starts_with("its pools are not used"), "{told:?}");
        index.set_declared(Declarer::MetalLb, Declared::default());
        assert_eq!(in_use(&index, &both), [("10.0.0.1", "file".to_owned())]);
    }

    #[test]
    fn authors_are_told_once_what_lasts_and_again_when_it_comes_back() {
        let mut index = Index::default();
        let remark = || Remark { reason: "Because", message: "so".to_owned() };
        let object = || ObjectReference { uid: Some("1".to_owned()), ..ObjectReference::default() };
        let complaining = || {
            let remarks = vec![(object(), remark()), (object(), remark())];
            Declared { remarks, ..Declared::default() }
        };
        let mut told = |said, seconds| {
            index.set_declared(Declarer::ConfigMap, said);
            index.news(&at(seconds))
        };
        assert_eq!(told(complaining(), 0), []);
        assert_eq!(told(Declared::default(), 4), [], "it lasted for a moment only");
        assert_eq!(told(complaining(), 5), []);
        assert_eq!(told(complaining(), 9), []);
        assert_eq!(told(complaining(), 10), [(object(), remark())]);
        assert_eq!(told(complaining(), 20), []);
        assert_eq!(told(Declared::default(), 21), []);
        assert_eq!(told(complaining(), 22), []);
        assert_eq!(index.news(&at(27)), [(object(), remark())], "though nothing has changed since");
        assert_eq!(index.news(&at(60)), []);
    }
}

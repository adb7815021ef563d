//! Pools of every format together, and what their authors are told.

use std::collections::{BTreeMap, BTreeSet};

use arpeggio_api::{
    cluster::ClusterRange,
    declaration::{Declaration, Origin, Remark},
    terms::Policy,
};
use arpeggio_ipam::{InvalidPool, Pool, PoolName, PoolState};
use k8s_openapi::api::core::v1::ObjectReference;

use super::Index;

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
    /// Whether there may be pools that cannot be read, and never could by this process.
    pub unreadable: bool,
}

/// What was declared in other formats than `AddressPool`, and the sum of all.
#[derive(Debug, Default)]
pub(super) struct DeclaredPools {
    elsewhere: BTreeMap<Declarer, Declared>,
    /// Whether there are objects with pools that cannot be decoded.
    undecodable: bool,
    /// All of them, in the order in which the allocator knows them.
    in_order: Vec<Declaration>,
    /// How addresses are announced, by pool.
    policies: BTreeMap<PoolName, Policy>,
    /// What authors were told, by the uid of their object.
    told: BTreeMap<String, BTreeSet<Remark>>,
    /// Whether there may be something new to tell.
    news: bool,
    /// What the cluster uses itself.
    pub(super) cluster: Vec<ClusterRange>,
}

impl DeclaredPools {
    /// Puts these and what was declared elsewhere in order: older pools first, so that a new pool never takes an old
    /// one out of use.
    pub(super) fn arrange(&mut self, pools: impl Iterator<Item = Declaration>) {
        let elsewhere = self.elsewhere.values().flat_map(|declared| declared.pools.iter().cloned());
        self.in_order = pools.chain(elsewhere).collect();
        self.in_order.sort_by(|a, b| {
            let age = |it: &Declaration| it.created.as_ref().map(|time| time.0);
            age(a).cmp(&age(b)).then_with(|| a.origin.cmp(&b.origin))
        });
        // The first of several pools of one name has it, even when it cannot be used.
        let mut policies = BTreeMap::new();
        for declaration in &self.in_order {
            policies.entry(declaration.name()).or_insert_with(|| declaration.policy().ok());
        }
        let usable = policies.into_iter().filter_map(|(name, it)| Some((name.clone(), it?)));
        self.policies = usable.collect();
        self.news = true;
    }

    /// How addresses of `pool` are announced.
    pub(super) fn policy(&self, pool: &PoolName) -> Option<&Policy> {
        self.policies.get(pool)
    }

    /// What the allocator is told.
    pub(super) fn pools(&self) -> impl Iterator<Item = Result<Pool, InvalidPool>> + '_ {
        self.in_order.iter().map(|declaration| declaration.pool.clone())
    }

    /// Where each was declared.
    pub(super) fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.in_order.iter().map(|declaration| &declaration.origin)
    }

    /// Whether some declarer may have pools that cannot be read.
    pub(super) fn are_incomplete(&self) -> bool {
        self.undecodable || self.elsewhere.values().any(|declared| declared.unreadable)
    }

    /// What every author should know, given what became of the pools. An `AddressPool` has conditions for that.
    fn remarks<'a>(
        &'a self,
        states: impl Iterator<Item = PoolState<'a>>,
    ) -> Vec<(&'a ObjectReference, Remark)> {
        let general = self.elsewhere.values().flat_map(|all| &all.remarks);
        let general = general.map(|(about, remark)| (about, remark.clone()));
        let unused = self.in_order.iter().zip(states).filter_map(|(pool, state)| {
            let remark = match (&pool.origin, state) {
                (Origin::AddressPool { .. }, _) | (_, PoolState::Usable) => return None,
                (_, PoolState::Invalid(why)) => pool.not_used(why),
                (_, PoolState::Overlapping(why)) => pool.not_used(why),
            };
            Some((&pool.object, remark))
        });
        general.chain(unused).collect()
    }
}

impl Index {
    /// All that one declarer says now.
    pub fn set_declared(&mut self, by: Declarer, declared: Declared) {
        self.declarations.elsewhere.insert(by, declared);
        self.pools_changed();
    }

    /// Whether there are objects with pools that cannot be decoded: their addresses may be held, and are not disallowed.
    pub fn set_undecodable_pools(&mut self, undecodable: bool) {
        if std::mem::replace(&mut self.declarations.undecodable, undecodable) != undecodable {
            self.pools_changed();
        }
    }

    /// The ranges that the cluster uses for its pods and Services.
    pub fn set_cluster_ranges(&mut self, ranges: Vec<ClusterRange>) {
        self.declarations.cluster = ranges;
        self.pools_dirty = true;
    }

    /// What authors of pools were not told yet. After a restart it is told once more, since nobody remembers.
    pub fn news(&mut self) -> Vec<(ObjectReference, Remark)> {
        if !std::mem::take(&mut self.declarations.news) {
            return Vec::new();
        }
        let states = self.allocator.pools().map(|(_, state)| state);
        let mut told: BTreeMap<String, BTreeSet<Remark>> = BTreeMap::new();
        let mut news = Vec::new();
        for (object, remark) in self.declarations.remarks(states) {
            let uid = object.uid.clone().unwrap_or_default();
            let before = self.declarations.told.get(&uid);
            let is_new = before.is_none_or(|remarks| !remarks.contains(&remark));
            if told.entry(uid).or_default().insert(remark.clone()) && is_new {
                news.push((object.clone(), remark));
            }
        }
        self.declarations.told = told;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arpeggio_api::terms::Announcement;
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

    fn declaration(name: &str, address: &str, created: i64) -> Declaration {
        let object = ObjectReference { uid: Some(name.to_owned()), ..ObjectReference::default() };
        Declaration {
            origin: Origin::IpAddressPool { namespace: "metallb-system".into(), name: name.into() },
            object,
            created: Some(Time(Timestamp::from_second(created).unwrap())),
            pool: Ok(Pool::new(name.into(), vec![address.parse().unwrap()])),
            announcement: Announcement::Everywhere,
            probing: true,
        }
    }

    fn declared(pools: Vec<Declaration>) -> Declared {
        Declared { pools, ..Declared::default() }
    }

    #[test]
    fn the_older_pool_keeps_what_both_have_whatever_its_format() {
        let mut index = Index::default();
        let (young, old) = (declaration("a", "10.0.0.0/24", 2), declaration("b", "10.0.0.9", 1));
        index.set_declared(Declarer::MetalLb, declared(vec![young]));
        index.set_declared(Declarer::ConfigMap, declared(vec![old]));
        let states: Vec<(&str, bool)> = index
            .allocator
            .pools()
            .map(|(name, state)| (name.as_str(), matches!(state, PoolState::Usable)))
            .collect();
        assert_eq!(states, [("b", true), ("a", false)]);
        let news = index.news();
        assert_eq!(news.len(), 1);
        let told = "pool \"a\" (IPAddressPool metallb-system/a) is not used: the older pool \"b\"";
        assert!(news[0].1.message.starts_with(told), "{:?}", news[0]);
    }

    #[test]
    fn authors_are_told_once_and_again_when_it_comes_back() {
        let mut index = Index::default();
        let remark = || Remark { reason: "Because", message: "so".to_owned() };
        let object = || ObjectReference { uid: Some("1".to_owned()), ..ObjectReference::default() };
        let complaining = || {
            let remarks = vec![(object(), remark()), (object(), remark())];
            Declared { remarks, ..Declared::default() }
        };
        let mut told = |said| {
            index.set_declared(Declarer::ConfigMap, said);
            index.news()
        };
        assert_eq!(told(complaining()), [(object(), remark())]);
        assert_eq!(told(complaining()), []);
        assert_eq!(told(Declared::default()), []);
        assert_eq!(told(complaining()), [(object(), remark())]);
    }
}

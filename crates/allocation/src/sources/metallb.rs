//! `MetalLB`'s pools and advertisements, which only together say what is announced.

use std::{collections::BTreeMap, time::Duration};

use arpeggio_api::{
    declaration::{Declaration, Remark},
    metallb::{
        Advertisement, IPAddressPool, Kind, L2Advertisement, LegacyPool, Object, OldestPool,
    },
};
use arpeggio_ipam::PoolError;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource as _, ResourceExt as _, api::ObjectMeta};

use crate::{Declared, Declarer, Index, Watched, name};

/// All of them, by name.
#[derive(Debug, Default)]
pub struct MetalLb {
    pools: BTreeMap<String, IPAddressPool>,
    /// Of the kind that came before.
    legacy_pools: BTreeMap<String, LegacyPool>,
    /// The same as they are shown in the version that came first.
    oldest_pools: BTreeMap<String, LegacyPool>,
    advertisements: BTreeMap<String, Known>,
    /// Those that were deleted a moment ago: one that is replaced is away for a moment.
    leaving: BTreeMap<String, Leaving>,
    /// What advertisements said when a controller has last been able to read them, by uid.
    remembered: BTreeMap<String, Advertisement>,
    /// Whether the API server does not show advertisements: there may be others than these.
    advertisements_unlisted: bool,
    changed: bool,
}

/// An advertisement, and what it said when it could last be read.
#[derive(Debug)]
struct Known {
    object: L2Advertisement,
    last_good: Option<Advertisement>,
    /// Why it cannot be read as it is now.
    error: Option<PoolError>,
}

/// An advertisement that was deleted.
#[derive(Debug)]
struct Leaving {
    said: Advertisement,
    /// Since when; `None` before anybody has looked at the clock.
    since: Option<Duration>,
}

/// For how long an advertisement that is gone still counts where another one selects the pool.
const LEAVING: Duration = Duration::from_secs(5);

impl MetalLb {
    /// It is `now` on a clock that never steps: what was deleted long enough ago does not count any more.
    pub fn pass_time(&mut self, now: Duration) {
        let before = self.leaving.len();
        self.leaving.retain(|_, it| now < *it.since.get_or_insert(now) + LEAVING);
        self.changed |= self.leaving.len() != before;
    }

    /// Takes note that an advertisement of this name is gone.
    fn leaves(&mut self, name: String, known: &Known) {
        if let Some(said) = self.good(known).cloned() {
            self.leaving.insert(name, Leaving { said, since: None });
        }
    }

    /// Tells the index, if there is something new.
    pub fn tell(&mut self, index: &mut Index) {
        if std::mem::take(&mut self.changed) {
            index.set_declared(Declarer::MetalLb, self.declared());
        }
    }

    /// Whether there are no pools at all.
    #[must_use]
    pub fn has_no_pools(&self) -> bool {
        self.pools.is_empty() && self.legacy_pools().next().is_none()
    }

    /// Whether the API server does not show advertisements. What is kept of them counts then, and where a pool is
    /// announced that none of these selects is not known.
    pub fn set_advertisements_unlisted(&mut self, unlisted: bool) {
        self.changed |= std::mem::replace(&mut self.advertisements_unlisted, unlisted) != unlisted;
    }

    /// What is kept of the advertisement with this uid.
    pub(crate) fn remember(&mut self, uid: &str, said: Option<Advertisement>) {
        self.changed |= match said {
            Some(said) => {
                self.remembered.insert(uid.to_owned(), said);
                true
            }
            None => self.remembered.remove(uid).is_some(),
        };
    }

    /// Each once, in whatever version it is shown.
    fn legacy_pools(&self) -> impl Iterator<Item = &LegacyPool> {
        let shown = |name: &String| self.legacy_pools.contains_key(name);
        let oldest = self.oldest_pools.iter().filter(move |(name, _)| !shown(name));
        self.legacy_pools.values().chain(oldest.map(|(_, pool)| pool))
    }

    /// What an advertisement says, or said when it could last be read.
    fn good<'a>(&'a self, known: &'a Known) -> Option<&'a Advertisement> {
        let kept = || self.remembered.get(&known.object.uid()?);
        known.last_good.as_ref().or_else(kept)
    }

    /// What is kept of advertisements that the API server does not show.
    fn kept_of_unlisted(&self) -> impl Iterator<Item = &Advertisement> {
        let is_shown = |uid: &String| {
            self.advertisements.values().any(|it| it.object.uid().as_ref() == Some(uid))
        };
        let kept = self.remembered.iter().filter(|_| self.advertisements_unlisted);
        kept.filter(move |(uid, _)| !is_shown(uid)).map(|(_, kept)| kept)
    }

    /// Those that are shown and those that have just gone, in the order of their names.
    fn with_leaving(&self) -> impl Iterator<Item = &Advertisement> {
        let shown = self.advertisements.iter();
        let shown = shown.filter_map(|(name, known)| Some((name, self.good(known)?)));
        // What is not shown any more is not gone: what is kept of it counts.
        let leaving = self.leaving.iter().filter(|_| !self.advertisements_unlisted);
        let leaving = leaving.map(|(name, it)| (name, &it.said));
        leaving.chain(shown).collect::<BTreeMap<_, _>>().into_values()
    }

    fn declared(&self) -> Declared {
        let mut declared = Declared::default();
        for known in self.advertisements.values() {
            let about = known.object.object_ref(&());
            let good = self.good(known);
            let remarks = known.remarks(good.is_some()).map(|remark| (about.clone(), remark));
            declared.remarks.extend(remarks);
            declared.advertisements.extend(good.map(|it| (about, it.spec().clone())));
        }
        let shown = || self.advertisements.values().filter_map(|known| self.good(known));
        let usable = || shown().chain(self.kept_of_unlisted());
        let all_known =
            !self.advertisements_unlisted && shown().count() == self.advertisements.len();
        for pool in self.pools.values() {
            // Where nothing else selects the pool it is known at once that nothing does.
            let said = if usable().any(|it| it.selects(pool)) {
                pool.declare(self.with_leaving().chain(self.kept_of_unlisted()), all_known)
            } else {
                pool.declare([], all_known)
            };
            declared.add(&pool.object_ref(&()), said);
        }
        for pool in self.legacy_pools() {
            declared.add(&pool.object_ref(&()), pool.declare());
        }
        declared
    }
}

impl Declared {
    fn add(&mut self, object: &ObjectReference, (pool, remarks): (Declaration, Vec<Remark>)) {
        self.pools.push(pool);
        self.remarks.extend(remarks.into_iter().map(|remark| (object.clone(), remark)));
    }
}

impl Known {
    /// The advertisement as it is now. `before`: what is known of an object of its name.
    fn new(object: L2Advertisement, before: Option<Self>) -> Self {
        let before = before.filter(|before| before.object.uid() == object.uid());
        match Advertisement::parse(&object) {
            Ok(good) => Self { object, last_good: Some(good), error: None },
            Err(error) => {
                let last_good = before.and_then(|before| before.last_good);
                Self { object, last_good, error: Some(error) }
            }
        }
    }

    /// `in_force`: whether it is known what it said before.
    fn remarks(&self, in_force: bool) -> impl Iterator<Item = Remark> {
        let remark = self.error.as_ref().map(|error| {
            let then = if in_force {
                "what it said before stays in force"
            } else {
                "addresses of pools that no other one selects are announced as before, new ones nowhere"
            };
            let message = format!("the advertisement is not used: {error}; {then}");
            Remark { reason: "AdvertisementNotUsed", message }
        });
        remark.into_iter().chain(self.object.unknown_fields())
    }
}

/// What of an object matters here. Its status changes with every allocation, while `MetalLB` runs too.
fn essence<S: Kind>(object: &Object<S>) -> impl PartialEq + use<S> {
    let ends = object.meta().deletion_timestamp.clone();
    (object.uid(), object.spec.clone(), object.labels().clone(), ends)
}

/// Puts an object in its place; whether anything that matters has changed.
fn put<S: Kind>(objects: &mut BTreeMap<String, Object<S>>, object: Object<S>) -> bool {
    let after = essence(&object);
    let before = objects.insert(object.name_any(), object);
    before.is_none_or(|before| essence(&before) != after)
}

fn by_name<S: Kind>(objects: Vec<Object<S>>) -> BTreeMap<String, Object<S>> {
    objects.into_iter().map(|object| (object.name_any(), object)).collect()
}

impl Watched<IPAddressPool> for MetalLb {
    fn apply(&mut self, pool: IPAddressPool) {
        self.changed |= put(&mut self.pools, pool);
    }

    fn gone(&mut self, pool: &ObjectMeta) {
        self.changed |= self.pools.remove(name(pool)).is_some();
    }

    fn reset(&mut self, pools: Vec<IPAddressPool>) {
        self.pools = by_name(pools);
        self.changed = true;
    }
}

impl Watched<LegacyPool> for MetalLb {
    fn apply(&mut self, pool: LegacyPool) {
        self.changed |= put(&mut self.legacy_pools, pool);
    }

    fn gone(&mut self, pool: &ObjectMeta) {
        self.changed |= self.legacy_pools.remove(name(pool)).is_some();
    }

    fn reset(&mut self, pools: Vec<LegacyPool>) {
        self.legacy_pools = by_name(pools);
        self.changed = true;
    }
}

impl Watched<OldestPool> for MetalLb {
    fn apply(&mut self, pool: OldestPool) {
        self.changed |= put(&mut self.oldest_pools, pool.into());
    }

    fn gone(&mut self, pool: &ObjectMeta) {
        self.changed |= self.oldest_pools.remove(name(pool)).is_some();
    }

    fn reset(&mut self, pools: Vec<OldestPool>) {
        self.oldest_pools = by_name(pools.into_iter().map(LegacyPool::from).collect());
        self.changed = true;
    }
}

impl Watched<L2Advertisement> for MetalLb {
    fn apply(&mut self, advertisement: L2Advertisement) {
        let name = advertisement.name_any();
        self.leaving.remove(&name);
        let before = self.advertisements.remove(&name);
        self.advertisements.insert(name, Known::new(advertisement, before));
        self.changed = true;
    }

    fn gone(&mut self, advertisement: &ObjectMeta) {
        if let Some((name, known)) = self.advertisements.remove_entry(name(advertisement)) {
            self.leaves(name, &known);
            self.changed = true;
        }
    }

    fn reset(&mut self, advertisements: Vec<L2Advertisement>) {
        let mut before = std::mem::take(&mut self.advertisements);
        for advertisement in advertisements {
            let name = advertisement.name_any();
            self.leaving.remove(&name);
            let known = Known::new(advertisement, before.remove(&name));
            self.advertisements.insert(name, known);
        }
        before.into_iter().for_each(|(name, known)| self.leaves(name, &known));
        self.changed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arpeggio_api::{
        metallb::{IPAddressPoolSpec, L2AdvertisementSpec},
        terms::Announcement,
    };
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    fn pool() -> IPAddressPool {
        let addresses = vec!["10.0.0.0/24".to_owned()];
        IPAddressPool::new("lan", IPAddressPoolSpec { addresses, ..IPAddressPoolSpec::default() })
    }

    fn reasons(declared: &Declared) -> Vec<&'static str> {
        declared.remarks.iter().map(|(_, remark)| remark.reason).collect()
    }

    #[test]
    fn a_pool_is_announced_as_soon_as_an_advertisement_selects_it() {
        let mut metallb = MetalLb::default();
        metallb.reset(vec![pool()]);
        let declared = metallb.declared();
        assert_eq!(declared.pools[0].announcement, Announcement::Nowhere);
        assert_eq!(reasons(&declared), ["NotAdvertised"]);
        let everything = L2Advertisement::new("l2", L2AdvertisementSpec::default());
        metallb.apply(everything.clone());
        assert_ne!(metallb.declared().pools[0].announcement, Announcement::Nowhere);
        assert_eq!(reasons(&metallb.declared()), [""; 0]);
        metallb.delete(everything);
        assert_eq!(reasons(&metallb.declared()), ["NotAdvertised"]);
    }

    #[test]
    fn a_status_is_no_change() {
        let mut metallb = MetalLb::default();
        metallb.reset(vec![pool()]);
        metallb.changed = false;
        let mut same = pool();
        same.metadata.resource_version = Some("2".to_owned());
        metallb.apply(same);
        assert!(!metallb.changed);
        let mut other = pool();
        other.spec.meaning.as_mut().unwrap().avoid_buggy_ips = true;
        metallb.apply(other);
        assert!(metallb.changed);
    }

    fn advertisement(uid: &str, spec: &Value) -> L2Advertisement {
        let metadata = json!({ "name": "l2", "uid": uid });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    #[test]
    fn what_an_advertisement_said_last_stays_in_force() {
        let good = || advertisement("1", &json!({ "interfaces": ["dmz0"] }));
        let bad = |uid| advertisement(uid, &json!({ "interfaces": "dmz0" }));
        let mut metallb = MetalLb::default();
        let announcement = |metallb: &MetalLb| metallb.declared().pools[0].announcement.clone();
        metallb.reset(vec![pool()]);
        metallb.reset(vec![good()]);
        let before = announcement(&metallb);
        let mut still = |change: &dyn Fn(&mut MetalLb)| {
            change(&mut metallb);
            assert_eq!(announcement(&metallb), before);
            assert_eq!(reasons(&metallb.declared()), ["AdvertisementNotUsed"]);
        };
        still(&|it| it.apply(bad("1")));
        still(&|it| it.reset(vec![bad("1")]));
        metallb.apply(bad("2"));
        assert_eq!(announcement(&metallb), Announcement::Unknown, "made anew, it has no past");
        metallb.delete(bad("2"));
        assert_eq!(announcement(&metallb), Announcement::Nowhere);
        metallb.apply(bad("3"));
        assert_eq!(announcement(&metallb), Announcement::Unknown);
        assert_eq!(reasons(&metallb.declared()), ["AdvertisementNotUsed"]);
    }

    /// An advertisement of everything on this interface.
    fn on(interface: &str, uid: &str) -> L2Advertisement {
        let metadata = json!({ "name": interface, "uid": uid });
        let spec = json!({ "interfaces": [interface] });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    /// Where the pool is announced. `None`: nowhere.
    fn interfaces(metallb: &MetalLb) -> Option<Vec<String>> {
        match metallb.declared().pools.remove(0).announcement {
            Announcement::ByRules(rules) => {
                Some(rules.into_iter().flat_map(|it| it.interfaces).map(|it| it.0).collect())
            }
            Announcement::Nowhere => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_advertisement_that_is_replaced_counts_meanwhile_beside_others() {
        let both = Some(vec!["eth0".to_owned(), "eth1".to_owned()]);
        let seconds = Duration::from_secs;
        for relisted in [false, true] {
            let mut metallb = MetalLb::default();
            metallb.reset(vec![pool()]);
            metallb.reset(vec![on("eth0", "1"), on("eth1", "2")]);
            if relisted {
                metallb.reset(vec![on("eth1", "2")]);
            } else {
                metallb.delete(on("eth0", "1"));
            }
            assert_eq!(interfaces(&metallb), both);
            metallb.apply(on("eth0", "3"));
            metallb.changed = false;
            metallb.pass_time(seconds(9));
            assert_eq!((interfaces(&metallb), metallb.changed), (both.clone(), false));
            metallb.delete(on("eth0", "3"));
            metallb.pass_time(seconds(10));
            metallb.pass_time(seconds(14));
            assert_eq!(interfaces(&metallb), both);
            metallb.changed = false;
            metallb.pass_time(seconds(15));
            assert_eq!((interfaces(&metallb), metallb.changed), (Some(vec!["eth1".into()]), true));
        }
    }

    #[test]
    fn of_advertisements_that_are_all_replaced_each_counts_until_it_is_back() {
        let mut metallb = MetalLb::default();
        metallb.reset(vec![pool()]);
        metallb.reset(vec![on("eth0", "1"), on("eth1", "2")]);
        metallb.delete(on("eth0", "1"));
        metallb.delete(on("eth1", "2"));
        assert_eq!(interfaces(&metallb), None, "the index waits before it has the pool silent");
        metallb.apply(on("eth1", "3"));
        assert_eq!(interfaces(&metallb), Some(vec!["eth0".into(), "eth1".into()]));
        let unselecting = L2AdvertisementSpec {
            ip_address_pools: vec!["other".into()],
            ..L2AdvertisementSpec::default()
        };
        metallb.apply(L2Advertisement::new("eth0", unselecting));
        assert_eq!(interfaces(&metallb), Some(vec!["eth1".into()]), "it says something else now");
    }

    #[test]
    fn a_pool_is_not_silent_because_advertisements_are_not_shown() {
        let mut metallb = MetalLb::default();
        metallb.reset(vec![pool()]);
        metallb.set_advertisements_unlisted(true);
        assert_eq!(metallb.declared().pools[0].announcement, Announcement::Unknown);
        assert_eq!(reasons(&metallb.declared()), [""; 0]);
        let good = advertisement("1", &json!({ "interfaces": ["dmz0"] }));
        metallb.remember("1", Advertisement::parse(&good).ok());
        let kept = metallb.declared();
        assert!(matches!(kept.pools[0].announcement, Announcement::ByRules(_)));
        metallb.reset(vec![good]);
        metallb.set_advertisements_unlisted(false);
        assert_eq!(metallb.declared().pools, kept.pools);
        metallb.reset(Vec::<L2Advertisement>::new());
        assert_eq!(metallb.declared().pools[0].announcement, Announcement::Nowhere);
    }

    #[test]
    fn pools_that_are_being_deleted_end() {
        let mut metallb = MetalLb::default();
        metallb.reset(vec![pool()]);
        metallb.tell(&mut Index::default());
        let mut ending = pool();
        ending.metadata.deletion_timestamp =
            Some("2026-01-01T00:00:00Z".parse().map(Time).unwrap());
        metallb.apply(ending);
        assert!(metallb.changed && metallb.declared().pools[0].ends);
    }

    #[test]
    fn pools_of_the_kind_that_came_before_are_read() {
        let mut metallb = MetalLb::default();
        let spec = json!({ "protocol": "layer2", "addresses": ["10.0.1.0/24"] });
        let object = json!({ "metadata": { "name": "old" }, "spec": spec });
        let legacy: LegacyPool = serde_json::from_value(object).unwrap();
        metallb.reset(vec![legacy.clone()]);
        let declared = metallb.declared();
        assert_eq!(declared.pools[0].origin.to_string(), "MetalLB's AddressPool /old");
        assert_eq!((declared.pools.len(), declared.remarks.len()), (1, 0));
        metallb.delete(legacy);
        assert_eq!(metallb.declared(), Declared::default());
    }

    #[test]
    fn pools_in_the_version_that_came_first_are_read_once() {
        let mut metallb = MetalLb::default();
        let object = |name: &str| {
            let spec = json!({ "protocol": "layer2", "addresses": ["10.0.1.0/24"] });
            json!({ "metadata": { "name": name }, "spec": spec })
        };
        let oldest = |name| -> OldestPool { serde_json::from_value(object(name)).unwrap() };
        let legacy: LegacyPool = serde_json::from_value(object("old")).unwrap();
        metallb.reset(vec![oldest("old")]);
        let declared = metallb.declared();
        assert!(declared.pools[0].pool.is_ok() && !metallb.has_no_pools());
        metallb.reset(vec![legacy]);
        assert_eq!(metallb.declared(), declared);
        metallb.apply(oldest("other"));
        assert_eq!(metallb.declared().pools.len(), 2);
        metallb.reset(Vec::<OldestPool>::new());
        assert_eq!(metallb.declared(), declared);
    }
}

//! Pools in a `ConfigMap`.

use std::collections::BTreeSet;

use arpeggio_api::{
    config_map::{self, Declarations, Dialect},
    declaration::{Declaration, Remark},
};
use arpeggio_ipam::PoolName;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::{Resource as _, ResourceExt as _, api::ObjectMeta};

use crate::{Declared, Declarer, Index, Watched};

/// One `ConfigMap` and what it says, or said when it could last be read.
#[derive(Debug)]
pub struct PoolFile {
    declarer: Declarer,
    key: String,
    dialect: Dialect,
    last_good: Option<Declarations>,
    /// Whether those are all pools that there may be.
    is_complete: bool,
    /// Why the present text cannot be read.
    complaint: Option<Remark>,
    object: ObjectReference,
    /// Whether it is being deleted, whatever it says.
    ends: bool,
    /// The object as the watch has shown it last, if it has shown every change of it since: what it says then it has said
    /// since that version.
    followed: Option<ConfigMap>,
    changed: bool,
}

impl PoolFile {
    /// One that speaks as `declarer`: the text under `key`, read as `dialect` says.
    pub fn new(declarer: Declarer, key: &str, dialect: Dialect) -> Self {
        Self {
            declarer,
            key: key.to_owned(),
            dialect,
            last_good: None,
            is_complete: false,
            complaint: None,
            object: ObjectReference::default(),
            ends: false,
            followed: None,
            changed: false,
        }
    }

    /// Whether there is no such object.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.last_good.is_none() && self.complaint.is_none()
    }

    /// Tells the index, if there is something new.
    pub fn tell(&mut self, index: &mut Index) {
        if std::mem::take(&mut self.changed) {
            index.set_declared(self.declarer, self.declared());
        }
    }

    /// An entry whose name cannot be read may be any of the pools that were there, so none of them counts as deleted.
    fn completed(&self, mut found: Declarations) -> Declarations {
        if let Some(before) = self.last_good.as_ref().filter(|_| found.has_nameless) {
            let names: BTreeSet<PoolName> =
                found.pools.iter().map(|pool| pool.name().clone()).collect();
            let missing = before.pools.iter().filter(|it| !names.contains(it.name()));
            found.pools.extend(missing.filter(|it| !config_map::is_nameless(it)).cloned());
        }
        found
    }

    fn forget(&mut self) {
        (self.last_good, self.complaint, self.is_complete) = (None, None, false);
        (self.ends, self.followed) = (false, None);
    }

    /// Whether the object says what it has said all the time, and only something else of it has changed.
    fn says_the_same(&self, object: &ConfigMap) -> bool {
        let content = |it: &ConfigMap| (it.uid(), it.data.clone(), it.binary_data.clone());
        self.followed.as_ref().is_some_and(|before| content(before) == content(object))
    }

    /// Whether there may be pools that could not be read so far.
    fn may_have_more(&self) -> bool {
        !self.is_complete && !self.is_absent()
    }

    fn declared(&self) -> Declared {
        let good = self.last_good.clone().unwrap_or_default();
        let remarks = good.remarks.into_iter().chain(self.complaint.clone());
        let pools = good.pools.into_iter();
        Declared {
            pools: pools.map(|pool| Declaration { ends: self.ends, ..pool }).collect(),
            remarks: remarks.map(|remark| (self.object.clone(), remark)).collect(),
            advertisements: Vec::new(),
            unread: self.may_have_more().then(|| self.object.uid.clone().unwrap_or_default()),
        }
    }
}

impl Watched<ConfigMap> for PoolFile {
    fn apply(&mut self, object: ConfigMap) {
        let ends = object.metadata.deletion_timestamp.is_some();
        self.changed |= std::mem::replace(&mut self.ends, ends) != ends;
        if self.says_the_same(&object) {
            return;
        }
        self.changed = true;
        let about = object.object_ref(&());
        if self.object.uid != about.uid {
            // One that was made anew has no past.
            self.forget();
        }
        (self.object, self.ends) = (about, ends);
        match config_map::parse(&object, &self.key, self.dialect) {
            Ok(found) => {
                self.is_complete |= !found.has_nameless;
                self.last_good = Some(self.completed(found));
                self.complaint = None;
            }
            Err(malformed) => {
                let message = format!("{}: {malformed}", self.key);
                self.complaint = Some(Remark { reason: "Malformed", message });
            }
        }
        self.followed = Some(object);
    }

    fn gone(&mut self, _: &ObjectMeta) {
        self.reset(Vec::new());
    }

    fn reset(&mut self, objects: Vec<ConfigMap>) {
        // What there was in between was not shown.
        self.followed = None;
        if objects.is_empty() {
            self.changed = true;
            self.forget();
        }
        objects.into_iter().for_each(|object| self.apply(object));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use std::collections::BTreeMap;

    const GOOD: &str = "address-pools:\n- name: a\n  addresses: [10.0.0.1]\n";
    const BAD: &str = "address-pools:\n- name: a\n   addresses: x\n";

    fn file() -> PoolFile {
        PoolFile::new(Declarer::ConfigMap, "config", Dialect::Ours)
    }

    fn object(text: &str) -> ConfigMap {
        let data = BTreeMap::from([("config".to_owned(), text.to_owned())]);
        let mut object = ConfigMap { data: Some(data), ..ConfigMap::default() };
        object.metadata.uid = Some("1".to_owned());
        object
    }

    #[test]
    fn what_was_good_last_stays_in_force() {
        let mut file = file();
        file.reset(vec![object(GOOD)]);
        file.apply(object(BAD));
        let declared = file.declared();
        assert_eq!((declared.pools.len(), declared.unread), (1, None));
        let (_, remark) = &file.declared().remarks[0];
        assert_eq!(remark.reason, "Malformed");
        assert!(remark.message.contains("at line 3, column 13"), "{}", remark.message);
    }

    #[test]
    fn a_typing_error_in_the_key_of_the_pools_deletes_none() {
        let mut file = file();
        file.reset(vec![object(GOOD)]);
        file.apply(object(&GOOD.replace("address-pools", "adress-pools")));
        let declared = file.declared();
        assert_eq!((declared.pools.len(), declared.unread), (1, None));
        assert_eq!(declared.remarks.last().unwrap().1.reason, "Malformed");
    }

    #[test]
    fn pools_end_with_the_object_whatever_it_says_by_then() {
        let ends = |file: &PoolFile| file.declared().pools[0].ends;
        let ending = |text| {
            let mut object = object(text);
            object.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
            object
        };
        for text in [GOOD, BAD] {
            let mut file = file();
            file.reset(vec![object(GOOD)]);
            file.tell(&mut Index::default());
            file.apply(ending(text));
            assert_eq!((ends(&file), file.changed), (true, true), "{text}");
            let mut anew = object(GOOD);
            anew.metadata.uid = Some("2".to_owned());
            file.apply(anew);
            assert!(!ends(&file));
        }
    }

    #[test]
    fn an_entry_that_has_lost_its_name_deletes_no_pool() {
        let two = "address-pools:\n- name: a\n  addresses: [10.0.0.1]\n- name: b\n  addresses: [10.0.0.2]\n";
        let names = |file: &PoolFile| -> Vec<String> {
            let pools = file.declared().pools;
            pools.iter().filter(|it| it.pool.is_ok()).map(|it| it.name().to_string()).collect()
        };
        let mut file = file();
        file.reset(vec![object(two)]);
        for _ in 0..2 {
            file.apply(object(&two.replace("name: a", "name:")));
            assert_eq!(names(&file), ["b", "a"]);
        }
        file.apply(object(&two.replace("name: a", "name: c")));
        assert_eq!(names(&file), ["c", "b"]);
    }

    #[test]
    fn an_entry_that_is_broken_first_and_then_loses_its_name_deletes_no_pool() {
        let broken = GOOD.replace("10.0.0.1", "10.0.0.1/99");
        let nameless = broken.replace("name: a", "nme: a");
        let (mut file, mut index) = (file(), Index::default());
        for text in [GOOD, &broken, &nameless, &nameless] {
            file.apply(object(text));
            file.tell(&mut index);
            let pool = index.allocator.pool_of("10.0.0.1".parse().unwrap());
            assert_eq!(pool.map(|it| it.name.as_str()), Some("a"), "{text}");
            assert!(file.declared().pools.len() <= 2, "{text}");
        }
        file.apply(object(&broken.replace("name: a", "name: b")));
        file.tell(&mut index);
        assert!(index.allocator.pool_of("10.0.0.1".parse().unwrap()).is_none());
    }

    #[test]
    fn what_could_never_be_read_is_unknown_rather_than_nothing() {
        let mut file = file();
        file.reset(vec![object(BAD)]);
        assert_eq!(file.declared().unread.as_deref(), Some("1"));
        file.apply(object(GOOD));
        assert_eq!((file.declared().pools.len(), file.declared().unread), (1, None));
    }

    #[test]
    fn an_entry_without_a_name_may_be_any_pool_that_was_there_before() {
        let nameless = GOOD.replace("name: a", "name:");
        let mut file = file();
        file.reset(vec![object(&nameless)]);
        assert_eq!(file.declared().unread.as_deref(), Some("1"));
        file.apply(object(BAD));
        assert_eq!(file.declared().unread.as_deref(), Some("1"));
        file.apply(object(GOOD));
        file.apply(object(&nameless));
        assert_eq!(file.declared().unread, None, "what was there is known by now");
    }

    #[test]
    fn a_file_that_was_made_anew_has_no_past() {
        let mut file = file();
        file.reset(vec![object(GOOD)]);
        let mut anew = object(BAD);
        anew.metadata.uid = Some("2".to_owned());
        file.reset(vec![anew]);
        assert_eq!((file.declared().pools.len(), file.declared().unread), (0, Some("2".into())));
    }

    #[test]
    fn what_is_said_has_been_said_since_the_version_that_changed_it() {
        let at = |version: &str, text| {
            let mut object = object(text);
            object.metadata.resource_version = Some(version.to_owned());
            object
        };
        let since = |file: &PoolFile| file.declared().pools[0].generation;
        let mut file = file();
        file.reset(vec![at("5", GOOD)]);
        file.tell(&mut Index::default());
        file.apply(at("6", GOOD));
        assert_eq!((since(&file), file.changed), (Some(5), false), "something else has changed");
        file.apply(at("7", BAD));
        assert_eq!(since(&file), Some(5));
        file.apply(at("8", GOOD));
        assert_eq!(since(&file), Some(8));
        file.reset(vec![at("9", GOOD)]);
        assert_eq!(since(&file), Some(9), "nobody knows what it said in between");
    }

    #[test]
    fn without_the_object_there_is_nothing() {
        let mut file = file();
        file.reset(vec![object(GOOD)]);
        file.delete(object(GOOD));
        assert_eq!(file.declared(), Declared::default());
        file.reset(vec![object(BAD)]);
        file.reset(Vec::new());
        assert_eq!(file.declared(), Declared::default());
    }
}

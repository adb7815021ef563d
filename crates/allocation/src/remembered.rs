//! What objects with pools said when they could last be used, beyond the life of this process: kept in Leases, which the
//! controller that decides writes when something of it changes.
//!
//! Two controllers need not remember the same. So that they do not correct each other for ever, each writes what it has
//! found once, and not again because another one has written something else, unless that is behind what it knows.

use std::collections::{BTreeMap, BTreeSet};

use arpeggio_api::{
    declaration::{Declaration, Remark},
    last_good::{self, LastGood},
    lease::newer_format,
    metallb::Advertisement,
};
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::ObjectReference},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{ResourceExt as _, api::ObjectMeta};

use super::{Index, Watched, declared::DeclaredPools, sources::MetalLb};
use crate::effect::{Effect, RecordWrite, Subject, Task};

/// The Leases, as the watch shows them, and what we have asked for.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// By the uid of the object that it is about.
    kept: BTreeMap<String, Kept>,
    /// What was to be written last, by the same.
    asked: BTreeMap<String, Asked>,
    /// Objects that say too much to be kept.
    too_large: Vec<ObjectReference>,
    /// Whether there may be something to write.
    dirty: bool,
}

/// What one Lease says.
#[derive(Debug)]
struct Kept {
    text: String,
    /// `None` when it is damaged.
    said: Option<LastGood>,
    /// The version of the Lease.
    version: Option<String>,
    /// Whether only a newer release understands it: it is left alone.
    is_newer: bool,
}

/// What was to be written.
#[derive(Debug)]
struct Asked {
    /// `None`: that nothing is kept.
    text: Option<String>,
    /// The version of the Lease that was to be changed.
    expected: Option<String>,
}

/// What is to be kept, as this process knows it.
#[derive(Debug)]
struct Wanted {
    /// By the uid of the object that says it.
    good: BTreeMap<String, LastGood>,
    /// The objects of which not everything can be read.
    unread: BTreeSet<String>,
    /// The objects that say something else now, which cannot be used.
    changed: BTreeSet<String>,
}

impl Wanted {
    /// Whether somebody who knew less of the object has written this: a controller whose watch lagged behind, and that may have
    /// died since. Without generations whoever can use the object as it is now knows best.
    fn knows_more(&self, uid: &str, kept: &Kept) -> bool {
        let theirs = kept.said.as_ref().and_then(generation);
        match (self.good.get(uid).and_then(generation), theirs) {
            (Some(ours), Some(theirs)) => ours > theirs,
            _ => !self.changed.contains(uid) && !self.unread.contains(uid),
        }
    }
}

/// The generation in which an object said this.
fn generation(said: &LastGood) -> Option<i64> {
    said.pools.iter().filter_map(|pool| pool.generation).max()
}

impl Remembered {
    /// What is kept of the pool of this name that the object with this uid declares.
    fn pool(&self, uid: &str, name: &str) -> Option<&Declaration> {
        self.pools(uid).find(|pool| pool.name().as_str() == name)
    }

    fn pools(&self, uid: &str) -> impl Iterator<Item = &Declaration> {
        let said = self.kept.get(uid).and_then(|kept| kept.said.as_ref());
        said.into_iter().flat_map(|said| &said.pools)
    }

    /// What is kept of each object, by its uid.
    pub(super) fn objects(&self) -> impl Iterator<Item = (&str, &LastGood)> {
        self.kept.iter().filter_map(|(uid, kept)| Some((uid.as_str(), kept.said.as_ref()?)))
    }

    pub(super) fn knows_pools_of(&self, uid: &str) -> bool {
        self.pools(uid).next().is_some()
    }

    /// Whether a Lease keeps anything of the object with this uid.
    pub(super) fn keeps(&self, uid: &str) -> bool {
        self.kept.contains_key(uid)
    }

    pub(super) fn look_again(&mut self) {
        self.dirty = true;
    }

    /// What was asked for was not done.
    pub(super) fn failed(&mut self, uid: &str) {
        self.asked.remove(uid);
        self.dirty = true;
    }

    /// Takes note of a Lease. Returns whether it keeps something else than before.
    fn put(&mut self, uid: &str, lease: &Lease) -> bool {
        let text = last_good::text(lease).to_owned();
        let is_newer = newer_format(lease).is_some();
        let said = LastGood::parse(lease).map_err(|error| tracing::warn!(%error)).ok();
        let said = said.filter(|_| !is_newer);
        if said.is_none() {
            // Somebody has damaged it: what stood there is written anew.
            self.asked.remove(uid);
        }
        self.dirty = true;
        let version = lease.resource_version();
        let before = self.kept.insert(uid.to_owned(), Kept { text, said, version, is_newer });
        before.and_then(|it| it.said) != self.kept.get(uid).and_then(|it| it.said.clone())
    }

    /// The Lease is gone, whoever has deleted it.
    fn remove(&mut self, uid: &str) -> bool {
        self.asked.remove(uid);
        self.dirty = true;
        self.kept.remove(uid).is_some()
    }

    /// What is to be written so that this is kept and nothing else, apart from what is kept of objects that cannot be read.
    fn writes(&mut self, wanted: &Wanted) -> Vec<RecordWrite> {
        self.too_large.clear();
        let mut writes = Vec::new();
        let uids: BTreeSet<String> = wanted.good.keys().chain(self.kept.keys()).cloned().collect();
        self.asked.retain(|uid, _| uids.contains(uid));
        for uid in uids {
            let text = wanted.good.get(&uid).and_then(|good| self.bounded(good));
            let kept = self.kept.get(&uid);
            let is_newer = kept.is_some_and(|kept| kept.is_newer);
            let is_there = text.as_deref() == kept.map(|kept| kept.text.as_str());
            if is_newer || is_there || (text.is_none() && wanted.unread.contains(&uid)) {
                continue;
            }
            if !self.has_said(&uid, text.as_deref(), wanted) {
                let expected = kept.and_then(|kept| kept.version.clone());
                writes.push(RecordWrite { uid, text, expected });
            }
        }
        writes
    }

    /// Whether this was to be written already, and nobody who knew less has written something else since.
    fn has_said(&self, uid: &str, text: Option<&str>, wanted: &Wanted) -> bool {
        let Some(asked) = self.asked.get(uid) else { return false };
        let later = self.kept.get(uid).filter(|kept| kept.version != asked.expected);
        asked.text.as_deref() == text && !later.is_some_and(|kept| wanted.knows_more(uid, kept))
    }

    fn bounded(&mut self, good: &LastGood) -> Option<String> {
        let text = good.to_text();
        if text.len() > last_good::MAX_BYTES {
            self.too_large.push(good.object.clone());
            return None;
        }
        Some(text)
    }

    /// Those of whom too much would have to be kept, and what their authors should know.
    pub(super) fn remarks(&self) -> impl Iterator<Item = (&ObjectReference, Remark)> {
        let message = format!(
            "it says more than {} bytes, which is too much to be remembered: should a change of it be unusable while the \
             controller starts again, its Services keep their addresses and new ones wait; divide it",
            last_good::MAX_BYTES
        );
        self.too_large
            .iter()
            .map(move |object| (object, Remark { reason: "TooLarge", message: message.clone() }))
    }
}

impl DeclaredPools {
    /// What a pool said when it could last be used, by what this process has seen, or by what is kept where that is
    /// newer: another controller may have seen a change that this one has missed.
    pub(super) fn good(&self, declaration: &Declaration) -> Option<&Declaration> {
        let seen = self.seen_good(declaration);
        let uid = declaration.object.uid.as_deref()?;
        let kept = self.remembered.pool(uid, declaration.name().as_str());
        // What the object has not come to yet it has not said: etcd was restored, or somebody has written it by hand.
        let kept = kept.filter(|kept| kept.generation <= declaration.generation);
        match (seen, kept) {
            (Some(seen), Some(kept)) if kept.generation > seen.generation => Some(kept),
            (None, kept) => kept,
            (seen, _) => seen,
        }
    }

    /// Pools that are kept, and not among these, of objects of which not everything can be read.
    pub(super) fn unread_pools(&self, read: &[Declaration]) -> Vec<Declaration> {
        let is_read = |pool: &Declaration| {
            let same =
                |it: &Declaration| it.object.uid == pool.object.uid && it.name() == pool.name();
            read.iter().any(same)
        };
        let kept = self.unread().into_iter().flat_map(|uid| self.remembered.pools(uid));
        kept.filter(|pool| !is_read(pool)).cloned().collect()
    }

    /// Whether a pool says something else than what was good when this process has last seen it usable.
    fn is_changed(&self, pool: &Declaration) -> bool {
        self.seen_good(pool) != Some(pool)
    }

    /// Whether what is kept of this object matters now.
    fn needs(&self, uid: &str) -> bool {
        let mut of_object = self.iter().filter(|pool| pool.object.uid.as_deref() == Some(uid));
        of_object.any(|pool| self.is_changed(pool)) || self.unread().contains(uid)
    }

    /// What is to be kept, by the uid of the object that says it.
    fn worth_keeping(&self) -> BTreeMap<String, LastGood> {
        let mut all = BTreeMap::new();
        for good in self.iter().filter_map(|pool| self.good(pool)) {
            if let Some(said) = said_by(&mut all, &good.object) {
                said.pools.push(good.clone());
            }
        }
        for (object, spec) in self.advertisements() {
            if let Some(said) = said_by(&mut all, object) {
                said.advertisement = Some(spec.clone());
            }
        }
        all
    }

    fn record_writes(&mut self) -> Vec<RecordWrite> {
        if !std::mem::take(&mut self.remembered.dirty) {
            return Vec::new();
        }
        let changed = self.iter().filter(|pool| self.is_changed(pool));
        let changed = changed.filter_map(|pool| pool.object.uid.clone());
        let wanted = Wanted {
            good: self.worth_keeping(),
            unread: self.unread().into_iter().map(str::to_owned).collect(),
            changed: changed.collect(),
        };
        self.remembered.writes(&wanted)
    }

    /// Whether anything is said by, or kept of, the object with this uid.
    pub(super) fn knows(&self, uid: &str) -> bool {
        self.remembered.keeps(uid) || self.object(uid).is_some()
    }

    /// The object that a record is about.
    pub(super) fn object(&self, uid: &str) -> Option<&ObjectReference> {
        let of_pools = self.iter().map(|pool| &pool.object);
        let mut all = of_pools.chain(self.advertisements().map(|(object, _)| object));
        all.find(|object| object.uid.as_deref() == Some(uid))
    }
}

fn said_by<'a>(
    all: &'a mut BTreeMap<String, LastGood>,
    object: &ObjectReference,
) -> Option<&'a mut LastGood> {
    let uid = object.uid.clone().filter(|uid| !uid.is_empty())?;
    let nothing = || LastGood { object: object.clone(), pools: Vec::new(), advertisement: None };
    Some(all.entry(uid).or_insert_with(nothing))
}

impl Index {
    /// What has to be written so that a controller that starts later knows what was good. To be asked for now and then,
    /// when everything was listed: what is kept of an object that does not exist is deleted.
    pub fn decide_records(&mut self, now: &Time) -> Vec<Task> {
        self.note_time(now);
        if !self.is_complete() {
            return Vec::new();
        }
        let writes = self.declarations.record_writes();
        let declarations = &self.declarations;
        self.setbacks.retain(|(subject, _), _| match subject {
            Subject::Record(uid) => declarations.knows(uid),
            _ => true,
        });
        writes.into_iter().filter_map(|write| self.write_record(write)).collect()
    }

    fn write_record(&mut self, write: RecordWrite) -> Option<Task> {
        let uid = write.uid.clone();
        let asked = Asked { text: write.text.clone(), expected: write.expected.clone() };
        let task = self.task(Subject::Record(uid.clone()), Effect::WriteRecord(write));
        let remembered = &mut self.declarations.remembered;
        if task.is_some() {
            remembered.asked.insert(uid, asked);
        } else {
            remembered.look_again();
        }
        task
    }

    fn record_changed(&mut self, uid: &str) {
        if self.declarations.needs(uid) {
            self.pools_changed();
        }
    }

    /// For each pool that is used as it was before: which one, since when, and why not as it says now.
    pub fn used_as_before(&self) -> Vec<String> {
        self.declarations.used_as_before(&self.allocator)
    }
}

/// Who is told of the Leases that keep what was good.
#[derive(Debug)]
pub struct Records<'a> {
    /// Which uses what is kept of pools.
    pub index: &'a mut Index,
    /// Which uses what is kept of advertisements.
    pub metallb: &'a mut MetalLb,
}

impl Records<'_> {
    fn put(&mut self, lease: &Lease) {
        let name = lease.name_any();
        let Some(uid) = last_good::uid(&name) else { return };
        if !self.index.declarations.remembered.put(uid, lease) {
            return;
        }
        self.changed(uid);
    }

    fn remove(&mut self, uid: &str) {
        if self.index.declarations.remembered.remove(uid) {
            self.changed(uid);
        }
    }

    fn changed(&mut self, uid: &str) {
        let kept = self.index.declarations.remembered.kept.get(uid);
        let spec = kept.and_then(|it| it.said.as_ref()?.advertisement.as_ref());
        self.metallb.remember(uid, spec.and_then(|spec| Advertisement::of(spec).ok()));
        self.index.record_changed(uid);
    }
}

impl Watched<Lease> for Records<'_> {
    fn apply(&mut self, lease: Lease) {
        self.put(&lease);
    }

    fn gone(&mut self, lease: &ObjectMeta) {
        if let Some(uid) = lease.name.as_deref().and_then(last_good::uid) {
            self.remove(uid);
        }
    }

    fn reset(&mut self, leases: Vec<Lease>) {
        let present: BTreeSet<String> = leases
            .iter()
            .filter_map(|it| Some(last_good::uid(&it.name_any())?.to_owned()))
            .collect();
        let known = self.index.declarations.remembered.kept.keys();
        let gone: Vec<String> = known.filter(|uid| !present.contains(*uid)).cloned().collect();
        gone.iter().for_each(|uid| self.remove(uid));
        leases.iter().for_each(|lease| self.put(lease));
    }
}

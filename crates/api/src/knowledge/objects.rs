//! The objects of one kind.

use std::collections::BTreeMap;

/// What is known of the objects of one kind, by name.
#[derive(Debug)]
pub(super) struct Objects<K, V> {
    known: BTreeMap<K, V>,
    /// Whether what is not among them is known not to be there.
    listed: bool,
}

impl<K, V> Default for Objects<K, V> {
    fn default() -> Self {
        Self { known: BTreeMap::new(), listed: false }
    }
}

impl<K: Ord + Clone, V: PartialEq> Objects<K, V> {
    pub(super) fn are_listed(&self) -> bool {
        self.listed
    }

    pub(super) fn get(&self, name: &K) -> Option<&V> {
        self.known.get(name)
    }

    /// Those with names from this one on.
    pub(super) fn from(&self, name: &K) -> impl Iterator<Item = (&K, &V)> {
        self.known.range(name..)
    }

    /// Whether it was otherwise before.
    pub(super) fn set(&mut self, name: K, now: Option<V>) -> bool {
        match now {
            Some(now) => {
                let is_new = self.known.get(&name) != Some(&now);
                if is_new {
                    self.known.insert(name, now);
                }
                is_new
            }
            None => self.known.remove(&name).is_some(),
        }
    }

    /// There are these and no others: the names of those that were otherwise before.
    pub(super) fn list(&mut self, all: BTreeMap<K, V>) -> Vec<K> {
        self.listed = true;
        let before = std::mem::replace(&mut self.known, all);
        let gone = before.keys().filter(|name| !self.known.contains_key(name));
        let new = self.known.iter().filter(|(name, now)| before.get(name) != Some(now));
        gone.chain(new.map(|(name, _)| name)).cloned().collect()
    }
}

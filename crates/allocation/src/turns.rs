//! One write of a lock at a time. Of two that are decided by the same version of it the API server would refuse one; of a
//! hundred Services that come to one address at once, all but one, time and again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{Index, effect::Subject};

/// Whose turn it is to write a lock, and who waits.
#[derive(Debug, Default)]
pub(super) struct Turns {
    writing: BTreeSet<IpAddr>,
    waiting: BTreeMap<IpAddr, BTreeSet<Subject>>,
}

impl Turns {
    /// Whether it is the turn of `subject` to write the lock of this address. If not, it waits.
    pub(super) fn has(&mut self, address: IpAddr, subject: &Subject) -> bool {
        let is_idle = !self.writing.contains(&address);
        if !is_idle {
            self.waiting.entry(address).or_default().insert(subject.clone());
        }
        is_idle
    }

    /// The lock of this address is about to be written.
    pub(super) fn begins(&mut self, address: IpAddr) {
        self.writing.insert(address);
    }

    /// The lock of this address is written, or was not.
    pub(super) fn ends(&mut self, address: IpAddr) {
        self.writing.remove(&address);
    }

    /// Of those who wait for each lock that nobody writes, the first one.
    fn next(&mut self) -> Vec<Subject> {
        let Self { writing, waiting } = self;
        let idle = waiting.iter_mut().filter(|(address, _)| !writing.contains(*address));
        let next = idle.filter_map(|(_, subjects)| subjects.pop_first()).collect();
        waiting.retain(|_, subjects| !subjects.is_empty());
        next
    }

    /// How much it knows.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.writing.len() + self.waiting.len()
    }
}

impl Index {
    /// Has those looked at whose turn it is to write a lock that they have waited for.
    pub(super) fn call_next(&mut self) {
        for subject in self.turns.next() {
            self.look_at(&subject);
        }
    }
}

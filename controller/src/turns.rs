//! Whose request is next.
//!
//! A request that an admission webhook holds up is under way until its time is over. Locks, which are in a namespace of ours, and statuses,
//! which are in everybody's, therefore have turns of their own; and of those that write statuses no namespace has all.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many requests about locks may be under way at once, and as many about what is in others' namespaces. Each is a connection
/// of its own.
pub(crate) const AT_ONCE: usize = 32;

/// How many of the latter may be about one namespace.
const OF_A_NAMESPACE: usize = 16;

/// The turns of all requests. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    locks: Arc<Semaphore>,
    others: Arc<Semaphore>,
    /// Those that are waited for or taken.
    namespaces: Arc<Mutex<BTreeMap<String, Weak<Semaphore>>>>,
}

/// A turn: until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    /// Taken first: who waits for its namespace is not in anybody's way.
    _of_namespace: Option<OwnedSemaphorePermit>,
    _of_all: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Self {
        let turns = || Arc::new(Semaphore::new(AT_ONCE));
        Self { locks: turns(), others: turns(), namespaces: Arc::default() }
    }
}

impl Turns {
    /// Waits until something may be done to an object of ours. None when the process ends.
    pub(crate) async fn for_a_lock(&self) -> Option<Turn> {
        let of_all = Arc::clone(&self.locks).acquire_owned().await.ok()?;
        Some(Turn { _of_namespace: None, _of_all: of_all })
    }

    /// Waits until something may be done to an object in somebody's namespace, or in none. None when the process ends.
    pub(crate) async fn for_others(&self, namespace: Option<&str>) -> Option<Turn> {
        let of_namespace = match namespace {
            Some(namespace) => Some(self.of(namespace).acquire_owned().await.ok()?),
            None => None,
        };
        let of_all = Arc::clone(&self.others).acquire_owned().await.ok()?;
        Some(Turn { _of_namespace: of_namespace, _of_all: of_all })
    }

    fn of(&self, namespace: &str) -> Arc<Semaphore> {
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        namespaces.retain(|_, turns| turns.strong_count() > 0);
        if let Some(turns) = namespaces.get(namespace).and_then(Weak::upgrade) {
            return turns;
        }
        let turns = Arc::new(Semaphore::new(OF_A_NAMESPACE));
        namespaces.insert(namespace.to_owned(), Arc::downgrade(&turns));
        turns
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn soon(turn: impl Future<Output = Option<Turn>>) -> Option<Turn> {
        timeout(Duration::from_millis(1), turn).await.ok().flatten()
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_has_all_turns() {
        let turns = Turns::default();
        let mut taken = Vec::new();
        for _ in 0..OF_A_NAMESPACE {
            taken.push(soon(turns.for_others(Some("slow"))).await.unwrap());
        }
        assert!(soon(turns.for_others(Some("slow"))).await.is_none(), "the others' turns are left");
        assert!(soon(turns.for_others(Some("quick"))).await.is_some());
        assert!(soon(turns.for_others(None)).await.is_some());
        assert!(soon(turns.for_a_lock()).await.is_some());
        taken.clear();
        assert!(soon(turns.for_others(Some("slow"))).await.is_some());
        let _turn = soon(turns.for_others(Some("quick"))).await.unwrap();
        let kept = turns.namespaces.lock().unwrap().len();
        assert_eq!(kept, 1, "nothing is kept of who has no turn and waits for none");
    }
}

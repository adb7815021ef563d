//! Whose request is next.
//!
//! A request that an admission webhook holds up is under way until its time is over. Locks, which are in a namespace of ours, and statuses,
//! which are in everybody's, therefore have turns of their own. Of those that write statuses no namespace has all, and all namespaces in which
//! the last one took long have a few together.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// How many requests about locks may be under way at once, and as many about what is in others' namespaces. Each is a connection
/// of its own.
pub(crate) const AT_ONCE: usize = 32;

/// How many of the latter may be about one namespace.
const OF_A_NAMESPACE: usize = 16;

/// How many may be about all slow namespaces together.
const OF_SLOW_NAMESPACES: usize = 8;

/// A namespace in which a request took so long is slow. An API server that has much to do answers within a second.
const SLOW: Duration = Duration::from_secs(3);

/// How long it counts as slow without another request. What was not done is tried again each half minute.
const SLOW_FOR: Duration = Duration::from_mins(2);

/// The turns of all requests. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    locks: Arc<Semaphore>,
    others: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    namespaces: Arc<Mutex<Namespaces>>,
}

#[derive(Debug, Default)]
struct Namespaces {
    /// Their turns, where these are waited for or taken.
    turns: BTreeMap<String, Weak<Semaphore>>,
    /// Until when they count as slow.
    slow: BTreeMap<String, Instant>,
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
        let turns = |count| Arc::new(Semaphore::new(count));
        Self {
            locks: turns(AT_ONCE),
            others: turns(AT_ONCE),
            slow: turns(OF_SLOW_NAMESPACES),
            namespaces: Arc::default(),
        }
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
        let is_slow = namespace.is_some_and(|it| self.namespaces().is_slow(it));
        let turns = if is_slow { &self.slow } else { &self.others };
        let of_all = Arc::clone(turns).acquire_owned().await.ok()?;
        Some(Turn { _of_namespace: of_namespace, _of_all: of_all })
    }

    /// A request about `namespace` is over, after so long a time.
    pub(crate) fn ended(&self, namespace: &str, took: Duration) {
        let slow = &mut self.namespaces().slow;
        if took < SLOW {
            slow.remove(namespace);
        } else {
            slow.insert(namespace.to_owned(), Instant::now() + SLOW_FOR);
        }
    }

    fn of(&self, namespace: &str) -> Arc<Semaphore> {
        let mut namespaces = self.namespaces();
        namespaces.forget();
        if let Some(turns) = namespaces.turns.get(namespace).and_then(Weak::upgrade) {
            return turns;
        }
        let turns = Arc::new(Semaphore::new(OF_A_NAMESPACE));
        namespaces.turns.insert(namespace.to_owned(), Arc::downgrade(&turns));
        turns
    }

    fn namespaces(&self) -> MutexGuard<'_, Namespaces> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Namespaces {
    fn is_slow(&self, namespace: &str) -> bool {
        self.slow.get(namespace).is_some_and(|until| Instant::now() < *until)
    }

    fn forget(&mut self) {
        self.turns.retain(|_, turns| turns.strong_count() > 0);
        self.slow.retain(|_, until| Instant::now() < *until);
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
        let kept = turns.namespaces().turns.len();
        assert_eq!(kept, 1, "nothing is kept of who has no turn and waits for none");
    }

    #[tokio::test(start_paused = true)]
    async fn many_slow_namespaces_have_few_turns_together() {
        let turns = Turns::default();
        let names: Vec<String> = (0..10).map(|number| format!("slow-{number}")).collect();
        names.iter().for_each(|it| turns.ended(it, SLOW));
        let mut taken = Vec::new();
        for name in names.iter().cycle().take(100) {
            taken.extend(soon(turns.for_others(Some(name))).await);
        }
        assert_eq!(taken.len(), OF_SLOW_NAMESPACES);
        assert!(soon(turns.for_others(Some("quick"))).await.is_some());
        assert!(soon(turns.for_others(None)).await.is_some());
        turns.ended("slow-9", Duration::ZERO);
        assert!(soon(turns.for_others(Some("slow-9"))).await.is_some(), "it is well again");
        tokio::time::sleep(SLOW_FOR).await;
        assert!(soon(turns.for_others(Some("slow-8"))).await.is_some(), "it may be well again");
        assert!(turns.namespaces().slow.is_empty());
    }
}

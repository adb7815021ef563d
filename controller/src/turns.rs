//! Whose request is next.
//!
//! A request that an admission webhook holds up is under way until its time is over. Locks, which are in a namespace of ours, and statuses,
//! which are in everybody's, therefore have turns of their own. Of those that write statuses no namespace has all: it has one until a request
//! was quick, and all namespaces in which the last one took long have a few together. A turn is lent: whoever takes long gives it to the next one
//! and goes on without.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
    time::Instant,
};

/// How many requests about locks may be under way at once, and as many about what is in others' namespaces. Each is a connection
/// of its own.
pub(crate) const AT_ONCE: usize = 32;

/// How many of the latter may be about one namespace, as soon as one was quick.
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
    turns: BTreeMap<String, Lane>,
    /// Until when they count as slow.
    slow: BTreeMap<String, Instant>,
}

/// The turns of one namespace.
#[derive(Debug)]
struct Lane {
    turns: Weak<Semaphore>,
    /// Whether a request about it was quick, so that it has more than one.
    is_proven: bool,
}

/// A turn: until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    /// Taken first: who waits for its namespace is not in anybody's way.
    _of_namespace: Option<OwnedSemaphorePermit>,
    of_all: Lent,
}

/// One of everybody's turns.
#[derive(Debug)]
enum Lent {
    /// Until its request is over.
    Given { _turn: OwnedSemaphorePermit },
    /// Until its request takes long.
    UntilSlow(AbortHandle),
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Lent::UntilSlow(lending) = &self.of_all {
            lending.abort();
        }
    }
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
        Some(Turn { _of_namespace: None, of_all: Lent::Given { _turn: of_all } })
    }

    /// Waits until something may be done to an object in somebody's namespace, or in none. None when the process ends.
    pub(crate) async fn for_others(&self, namespace: Option<&str>) -> Option<Turn> {
        let of_namespace = match namespace {
            Some(namespace) => Some(self.of(namespace).acquire_owned().await.ok()?),
            None => None,
        };
        let is_slow = || namespace.is_some_and(|it| self.namespaces().is_slow(it));
        if !is_slow() {
            let turn = Arc::clone(&self.others).acquire_owned().await.ok()?;
            // While this one waited, others of its namespace may have taken long.
            if !is_slow() {
                let of_all = self.lend(turn, namespace);
                return Some(Turn { _of_namespace: of_namespace, of_all });
            }
        }
        let turn = Arc::clone(&self.slow).acquire_owned().await.ok()?;
        Some(Turn { _of_namespace: of_namespace, of_all: Lent::Given { _turn: turn } })
    }

    /// Lends one of everybody's turns for as long as a request may take that is quick.
    fn lend(&self, turn: OwnedSemaphorePermit, namespace: Option<&str>) -> Lent {
        let (turns, namespace) = (self.clone(), namespace.map(str::to_owned));
        let lending = tokio::spawn(async move {
            tokio::time::sleep(SLOW).await;
            if let Some(namespace) = namespace {
                turns.ended(&namespace, SLOW);
            }
            drop(turn);
        });
        Lent::UntilSlow(lending.abort_handle())
    }

    /// A request about `namespace` is over, after so long a time.
    pub(crate) fn ended(&self, namespace: &str, took: Duration) {
        let mut namespaces = self.namespaces();
        if took < SLOW {
            namespaces.slow.remove(namespace);
            namespaces.was_quick(namespace);
        } else {
            namespaces.slow.insert(namespace.to_owned(), Instant::now() + SLOW_FOR);
        }
    }

    fn of(&self, namespace: &str) -> Arc<Semaphore> {
        let mut namespaces = self.namespaces();
        namespaces.forget();
        if let Some(turns) = namespaces.turns.get(namespace).and_then(|it| it.turns.upgrade()) {
            return turns;
        }
        let turns = Arc::new(Semaphore::new(1));
        let lane = Lane { turns: Arc::downgrade(&turns), is_proven: false };
        namespaces.turns.insert(namespace.to_owned(), lane);
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

    fn was_quick(&mut self, namespace: &str) {
        let Some(lane) = self.turns.get_mut(namespace).filter(|it| !it.is_proven) else { return };
        if let Some(turns) = lane.turns.upgrade() {
            lane.is_proven = true;
            turns.add_permits(OF_A_NAMESPACE - 1);
        }
    }

    fn forget(&mut self) {
        self.turns.retain(|_, lane| lane.turns.strong_count() > 0);
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
        let mut taken = vec![soon(turns.for_others(Some("slow"))).await.unwrap()];
        assert!(soon(turns.for_others(Some("slow"))).await.is_none(), "it was not quick yet");
        turns.ended("slow", Duration::ZERO);
        for _ in 1..OF_A_NAMESPACE {
            taken.push(soon(turns.for_others(Some("slow"))).await.unwrap());
        }
        turns.ended("slow", Duration::ZERO);
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

    /// A webhook hangs in a hundred namespaces at once, of which nothing was known.
    #[tokio::test(start_paused = true)]
    async fn namespaces_that_turn_out_to_be_slow_hold_up_nobody_for_long() {
        let turns = Turns::default();
        for number in 0..1_600 {
            let turns = turns.clone();
            tokio::spawn(async move {
                let namespace = format!("hangs-{}", number % 100);
                let turn = turns.for_others(Some(&namespace)).await;
                tokio::time::sleep(Duration::from_secs(10)).await;
                turns.ended(&namespace, Duration::from_secs(10));
                drop(turn);
            });
        }
        tokio::task::yield_now().await;
        let begin = Instant::now();
        assert!(turns.for_others(Some("quick")).await.is_some());
        assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
        for namespace in [Some("quick"), None] {
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert!(soon(turns.for_others(namespace)).await.is_some(), "the slow ones keep apart");
        }
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

//! Whose request is next.
//!
//! A request that an admission webhook holds up is under way until its time is over. Of those that write what is in everybody's namespaces no
//! namespace has all turns: it has one until a request was quick, and all namespaces in which the last one took long have a few together. A turn is
//! lent: whoever takes long gives it to the next one and goes on without.

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

/// A namespace in which a request took so long is slow. An API server that has much to do answers within a second.
const SLOW: Duration = Duration::from_secs(3);

/// How long it counts as slow without another request. What was not done is tried again each half minute.
const SLOW_FOR: Duration = Duration::from_mins(2);

/// How many requests may be under way at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// About all namespaces that are not slow. Each is a connection of its own.
    pub of_all: usize,
    /// About one namespace, as soon as one was quick.
    pub of_a_namespace: usize,
    /// About all slow namespaces together.
    pub of_slow: usize,
}

/// The turns of all requests. Clones share them.
#[derive(Debug, Clone)]
pub struct Turns {
    of_all: Arc<Semaphore>,
    of_slow: Arc<Semaphore>,
    of_a_namespace: usize,
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
pub struct Turn {
    /// Taken first: who waits for its namespace is not in anybody's way.
    _of_namespace: Option<OwnedSemaphorePermit>,
    of_all: Lent,
}

/// One of everybody's turns.
#[derive(Debug)]
struct Lent {
    turn: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
    /// What takes it away when its request takes long.
    clock: Option<AbortHandle>,
}

impl Turn {
    /// The request is over, and the turn is kept: nobody takes it away any more, if that has not been done.
    pub fn keep(&mut self) {
        self.of_all.clock.take().into_iter().for_each(|clock| clock.abort());
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.keep();
        locked(&self.of_all.turn).take();
    }
}

impl Turns {
    /// So many turns as this.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let Limits { of_all, of_a_namespace, of_slow } = limits;
        let turns = |count| Arc::new(Semaphore::new(count));
        Self {
            of_all: turns(of_all),
            of_slow: turns(of_slow),
            of_a_namespace,
            namespaces: Arc::default(),
        }
    }

    /// Waits until something may be done to an object in this namespace, or in none. None when the process ends.
    pub async fn take(&self, namespace: Option<&str>) -> Option<Turn> {
        let of_namespace = match namespace {
            Some(namespace) => Some(self.of(namespace).acquire_owned().await.ok()?),
            None => None,
        };
        let is_slow = || namespace.is_some_and(|it| self.is_slow(it));
        if !is_slow() {
            let turn = Arc::clone(&self.of_all).acquire_owned().await.ok()?;
            // While this one waited, others of its namespace may have taken long.
            if !is_slow() {
                let of_all = self.lend(turn, namespace);
                return Some(Turn { _of_namespace: of_namespace, of_all });
            }
        }
        let turn = Arc::clone(&self.of_slow).acquire_owned().await.ok()?;
        let of_all = Lent { turn: Arc::new(Mutex::new(Some(turn))), clock: None };
        Some(Turn { _of_namespace: of_namespace, of_all })
    }

    /// Lends one of everybody's turns for as long as a request may take that is quick.
    fn lend(&self, turn: OwnedSemaphorePermit, namespace: Option<&str>) -> Lent {
        let (turns, namespace) = (self.clone(), namespace.map(str::to_owned));
        let turn = Arc::new(Mutex::new(Some(turn)));
        let lent = Arc::clone(&turn);
        let lending = tokio::spawn(async move {
            tokio::time::sleep(SLOW).await;
            if let Some(namespace) = namespace {
                turns.ended(&namespace, SLOW);
            }
            locked(&lent).take();
        });
        Lent { turn, clock: Some(lending.abort_handle()) }
    }

    /// A request about `namespace` is over, after so long a time.
    pub fn ended(&self, namespace: &str, took: Duration) {
        let mut namespaces = self.namespaces();
        if took < SLOW {
            namespaces.slow.remove(namespace);
            namespaces.was_quick(namespace, self.of_a_namespace);
        } else {
            namespaces.slow.insert(namespace.to_owned(), Instant::now() + SLOW_FOR);
        }
    }

    /// Whether the last request about `namespace` took long, as far as that is remembered.
    #[must_use]
    pub fn is_slow(&self, namespace: &str) -> bool {
        self.namespaces().slow.get(namespace).is_some_and(|until| Instant::now() < *until)
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
        locked(&self.namespaces)
    }
}

impl Namespaces {
    fn was_quick(&mut self, namespace: &str, turns_of_it: usize) {
        let Some(lane) = self.turns.get_mut(namespace).filter(|it| !it.is_proven) else { return };
        if let Some(turns) = lane.turns.upgrade() {
            lane.is_proven = true;
            turns.add_permits(turns_of_it - 1);
        }
    }

    /// What is kept does not grow: of namespaces of which nothing is waited for nothing, and of slow ones for minutes.
    fn forget(&mut self) {
        self.turns.retain(|_, lane| lane.turns.strong_count() > 0);
        self.slow.retain(|_, until| Instant::now() < *until);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const LIMITS: Limits = Limits { of_all: 32, of_a_namespace: 16, of_slow: 8 };

    async fn soon(turn: impl Future<Output = Option<Turn>>) -> Option<Turn> {
        timeout(Duration::from_millis(1), turn).await.ok().flatten()
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_has_all_turns() {
        let turns = Turns::new(LIMITS);
        let mut taken = vec![soon(turns.take(Some("slow"))).await.unwrap()];
        assert!(soon(turns.take(Some("slow"))).await.is_none(), "it was not quick yet");
        turns.ended("slow", Duration::ZERO);
        for _ in 1..LIMITS.of_a_namespace {
            taken.push(soon(turns.take(Some("slow"))).await.unwrap());
        }
        turns.ended("slow", Duration::ZERO);
        assert!(soon(turns.take(Some("slow"))).await.is_none(), "the others' turns are left");
        assert!(soon(turns.take(Some("quick"))).await.is_some());
        assert!(soon(turns.take(None)).await.is_some());
        taken.clear();
        assert!(soon(turns.take(Some("slow"))).await.is_some());
        let _turn = soon(turns.take(Some("quick"))).await.unwrap();
        let kept = turns.namespaces().turns.len();
        assert_eq!(kept, 1, "nothing is kept of who has no turn and waits for none");
    }

    /// A webhook hangs in a hundred namespaces at once, of which nothing was known.
    #[tokio::test(start_paused = true)]
    async fn namespaces_that_turn_out_to_be_slow_hold_up_nobody_for_long() {
        let turns = Turns::new(LIMITS);
        for number in 0..1_600 {
            let turns = turns.clone();
            tokio::spawn(async move {
                let namespace = format!("hangs-{}", number % 100);
                let turn = turns.take(Some(&namespace)).await;
                tokio::time::sleep(Duration::from_secs(10)).await;
                turns.ended(&namespace, Duration::from_secs(10));
                drop(turn);
            });
        }
        tokio::task::yield_now().await;
        let begin = Instant::now();
        assert!(turns.take(Some("quick")).await.is_some());
        assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
        for namespace in [Some("quick"), None] {
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert!(soon(turns.take(namespace)).await.is_some(), "the slow ones keep apart");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_slow_namespaces_have_few_turns_together() {
        let turns = Turns::new(LIMITS);
        let names: Vec<String> = (0..10).map(|number| format!("slow-{number}")).collect();
        names.iter().for_each(|it| turns.ended(it, SLOW));
        let mut taken = Vec::new();
        for name in names.iter().cycle().take(100) {
            taken.extend(soon(turns.take(Some(name))).await);
        }
        assert_eq!(taken.len(), LIMITS.of_slow);
        assert!(soon(turns.take(Some("quick"))).await.is_some());
        assert!(soon(turns.take(None)).await.is_some());
        turns.ended("slow-9", Duration::ZERO);
        assert!(soon(turns.take(Some("slow-9"))).await.is_some(), "it is well again");
        tokio::time::sleep(SLOW_FOR).await;
        assert!(soon(turns.take(Some("slow-8"))).await.is_some(), "it may be well again");
        assert!(turns.namespaces().slow.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_whose_request_is_over_is_taken_away_from_nobody() {
        let turns = Turns::new(Limits { of_all: 1, ..LIMITS });
        let mut turn = soon(turns.take(Some("waits"))).await.unwrap();
        turn.keep();
        tokio::time::sleep(SLOW * 2).await;
        assert!(soon(turns.take(Some("other"))).await.is_none());
        assert!(!turns.is_slow("waits"));
        drop(turn);
        assert!(soon(turns.take(Some("other"))).await.is_some());
        let _turn = soon(turns.take(Some("hangs"))).await.unwrap();
        tokio::time::sleep(SLOW * 2).await;
        assert!(soon(turns.take(Some("other"))).await.is_some());
        assert!(turns.is_slow("hangs"));
    }
}

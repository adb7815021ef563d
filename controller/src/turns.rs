//! Whose request is next.
//!
//! Locks, which are in a namespace of ours, and statuses, which are in everybody's, have turns of their own: an admission webhook that holds up
//! what is written in other namespaces keeps no lock waiting.

use std::{sync::Arc, time::Duration};

use arpeggio_runtime::turns::{self, Limits};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many requests about locks may be under way at once, and as many about what is in others' namespaces. Each is a connection
/// of its own.
pub(crate) const AT_ONCE: usize = 32;

/// How many requests about what is in others' namespaces may be under way.
const OF_OTHERS: Limits = Limits { of_all: AT_ONCE, of_a_namespace: 16, of_slow: 8 };

/// The turns of all requests. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    locks: Arc<Semaphore>,
    others: turns::Turns,
}

/// A turn: until it is dropped.
#[derive(Debug)]
pub(crate) enum Turn {
    OfLocks { _turn: OwnedSemaphorePermit },
    OfOthers { _turn: turns::Turn },
}

impl Default for Turns {
    fn default() -> Self {
        let locks = Arc::new(Semaphore::new(AT_ONCE));
        Self { locks, others: turns::Turns::new(OF_OTHERS) }
    }
}

impl Turns {
    /// Waits until something may be done to an object of ours. None when the process ends.
    pub(crate) async fn for_a_lock(&self) -> Option<Turn> {
        let turn = Arc::clone(&self.locks).acquire_owned().await.ok()?;
        Some(Turn::OfLocks { _turn: turn })
    }

    /// Waits until something may be done to an object in somebody's namespace, or in none. None when the process ends.
    pub(crate) async fn for_others(&self, namespace: Option<&str>) -> Option<Turn> {
        let turn = self.others.take(namespace).await?;
        Some(Turn::OfOthers { _turn: turn })
    }

    /// A request about `namespace` is over, after so long a time.
    pub(crate) fn ended(&self, namespace: &str, took: Duration) {
        self.others.ended(namespace, took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_in_others_namespaces_keeps_no_lock_waiting() {
        let turns = Turns::default();
        let mut taken = Vec::new();
        for number in 0..AT_ONCE {
            taken.extend(turns.for_others(Some(&format!("n{number}"))).await);
        }
        let _lock = turns.for_a_lock().await.unwrap();
        let waits = tokio::time::timeout(Duration::from_millis(1), turns.for_others(Some("late")));
        assert!(waits.await.is_err());
    }
}

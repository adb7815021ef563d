//! How objects of the API server are followed.

use std::fmt::Debug;

use arpeggio_runtime::watch::{Change, Watch};
use kube::{Resource, runtime::watcher::Config};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// Counts how often the API server has gone back to an earlier state: all watches are to be started anew then.
pub(crate) type Rewinds = watch::Receiver<u64>;

/// A watch is renewed at least this often, in seconds. The client notices a dead connection itself, much earlier, and a
/// thousand nodes renew three watches each.
const LONGEST_WATCH: u32 = 290;

/// What every watch has in common.
pub(crate) fn config() -> Config {
    Config::default().timeout(LONGEST_WATCH)
}

/// Hands every change to `take`, until that says that nobody wants more.
pub(crate) async fn follow<K>(
    mut watch: Watch<K>,
    mut rewinds: Rewinds,
    mut take: impl FnMut(Change<K>) -> bool,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    rewinds.mark_unchanged();
    loop {
        tokio::select! {
            event = watch.next() => {
                if let Some(change) = watch.pass(event) && !take(change) {
                    return;
                }
            }
            Ok(()) = rewinds.changed() => {
                tracing::warn!(kind = %K::kind(&()), "starting the watch anew");
                watch.restart();
            }
        }
    }
}

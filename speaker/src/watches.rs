//! How objects of the API server are followed.

use std::{fmt::Debug, time::Duration};

use arpeggio_runtime::telemetry::causes;
use futures::StreamExt as _;
use kube::{
    Api, Resource,
    runtime::watcher::{Config, Event, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// The pause before a broken watch is started again.
const RETRY: Duration = Duration::from_millis(500);

/// Counts how often the API server has gone back to an earlier state. A watch goes on from the last version that it has
/// seen, which does not exist any more then: all are to be started anew.
pub(crate) type Rewinds = watch::Receiver<u64>;

/// Hands every event of a watch to `take`, until that says that nobody wants more. A broken watch is started again.
pub(crate) async fn follow<K>(
    what: &str,
    api: Api<K>,
    config: Config,
    mut rewinds: Rewinds,
    mut take: impl FnMut(Event<K>) -> bool,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    loop {
        rewinds.mark_unchanged();
        tokio::select! {
            () = follow_on(what, api.clone(), config.clone(), &mut take) => return,
            Ok(()) = rewinds.changed() => tracing::warn!(what, "starting the watch anew"),
        }
    }
}

async fn follow_on<K>(
    what: &str,
    api: Api<K>,
    config: Config,
    take: &mut impl FnMut(Event<K>) -> bool,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    let mut events = watcher(api, config).boxed();
    let mut broken = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                // A list that begins shows nothing yet.
                if broken && !matches!(event, Event::Init) {
                    broken = false;
                    tracing::info!(what, "the watch is back");
                }
                if !take(event) {
                    return;
                }
            }
            Err(error) => {
                // Once, and not twice a second for as long as the API server is away.
                if !std::mem::replace(&mut broken, true) {
                    tracing::warn!(what, error = %causes(&error), "a watch broke, trying to start it again");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

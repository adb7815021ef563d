//! One watch, as calls to the index.

use std::{fmt::Debug, time::Duration};

use arpeggio_runtime::{health::Awaited, telemetry::causes};
use futures::{StreamExt as _, stream::BoxStream};
use kube::{
    Api, Resource,
    runtime::watcher::{self, watcher},
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::index::Watched;

/// A watch is renewed at least this often, in seconds, so that a dead connection is noticed.
const LONGEST_WATCH: u32 = 60;

/// The pause after a watch has broken for the first time; doubled each time that it breaks again.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);

/// A broken watch is started again at least this often.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

type Event<K> = watcher::Result<watcher::Event<K>>;

/// One watch, and the list that it may be in the middle of.
pub(crate) struct Feed<K> {
    events: BoxStream<'static, Event<K>>,
    listing: Vec<K>,
    /// Taken when the first list is complete.
    awaited: Option<Awaited>,
    /// How often in a row the watch has broken without showing anything in between.
    broken: u32,
    /// When a broken watch is started again.
    resume: Instant,
}

impl<K> Feed<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    /// Watches what `config` selects. `awaited` is told when the first list is complete.
    pub(crate) fn new(api: Api<K>, config: watcher::Config, awaited: Awaited) -> Self {
        let events = watcher(api, config.timeout(LONGEST_WATCH)).boxed();
        let resume = Instant::now();
        Self { events, listing: Vec::new(), awaited: Some(awaited), broken: 0, resume }
    }

    /// Waits for the next event. There always is one, if only an error. May be cancelled at any time.
    pub(crate) async fn next(&mut self) -> Event<K> {
        tokio::time::sleep_until(self.resume).await;
        match self.events.next().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// Passes an event on. What has gone while the watch was broken shows only as absence from the next list, so a list
    /// is passed on as a whole.
    pub(crate) fn pass(&mut self, event: Event<K>, index: &mut impl Watched<K>) {
        match event {
            // A list begins; whether it succeeds is not known yet.
            Ok(watcher::Event::Init) => return self.listing.clear(),
            Ok(watcher::Event::InitApply(object)) => self.listing.push(object),
            Ok(watcher::Event::InitDone) => {
                index.reset(std::mem::take(&mut self.listing));
                if let Some(awaited) = self.awaited.take() {
                    awaited.done();
                }
            }
            Ok(watcher::Event::Apply(object)) => index.apply(object),
            Ok(watcher::Event::Delete(object)) => index.delete(object),
            Err(error) => return self.wait_after(&error),
        }
        self.broken = 0;
    }

    fn wait_after(&mut self, error: &watcher::Error) {
        self.broken = self.broken.saturating_add(1);
        self.resume = Instant::now() + pause(self.broken);
        report::<K>(error);
    }
}

fn report<K: Resource<DynamicType = ()>>(error: &watcher::Error) {
    let kind = K::kind(&());
    if is_not_found(error) {
        tracing::error!(
            %kind,
            "the API server does not know this kind: install manifests/crds; nothing is allocated before"
        );
    } else {
        tracing::warn!(%kind, error = %causes(error), "the watch broke, starting it again");
    }
}

fn is_not_found(error: &watcher::Error) -> bool {
    let watcher::Error::InitialListFailed(kube::Error::Api(status)) = error else { return false };
    status.code == 404
}

/// How long to wait after the watch has broken `times` times in a row.
fn pause(times: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(times.saturating_sub(1));
    SHORTEST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit() {
        let shown: Vec<u128> = (1..=6).map(|times| pause(times).as_millis()).collect();
        assert_eq!(shown, [500, 1000, 2000, 4000, 8000, 8000]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}

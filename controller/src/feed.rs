//! One watch, as calls to the index.

use std::{fmt::Debug, time::Duration};

use arpeggio_allocation::Watched;
use arpeggio_runtime::{health::Awaited, telemetry::causes};
use futures::{StreamExt as _, stream::BoxStream};
use kube::{
    Api, Resource,
    runtime::watcher::{self, watcher},
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

/// A watch is renewed at least this often, in seconds, so that a dead connection is noticed.
const LONGEST_WATCH: u32 = 60;

/// The pause after a watch has broken for the first time; doubled each time that it breaks again.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);

/// A broken watch is started again at least this often.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// How often is looked whether a kind that need not exist does by now.
const ABSENCE: Duration = Duration::from_secs(10);

/// What a watch shows next.
pub(crate) type Event<K> = watcher::Result<watcher::Event<K>>;

/// One watch, and the list that it may be in the middle of.
pub(crate) struct Feed<K> {
    events: BoxStream<'static, Event<K>>,
    listing: Vec<K>,
    /// Taken when the first list is complete.
    awaited: Option<Awaited>,
    /// Whether the cluster may do without this kind.
    optional: bool,
    /// Whether the kind was not there when it was last looked for.
    absent: bool,
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
        Self {
            events,
            listing: Vec::new(),
            awaited: Some(awaited),
            optional: false,
            absent: false,
            broken: 0,
            resume: Instant::now(),
        }
    }

    /// The same for a kind that the cluster may do without, or may not let us see. Its absence is a list of nothing.
    pub(crate) fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Whether the first list is complete.
    pub(crate) fn is_listed(&self) -> bool {
        self.awaited.is_none()
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
            Ok(watcher::Event::InitDone) => self.finish_list(index),
            Ok(watcher::Event::Apply(object)) => index.apply(object),
            Ok(watcher::Event::Delete(object)) => index.delete(object),
            Err(error) if self.optional && is_absent(&error) => return self.pass_absence(index),
            Err(error) => return self.wait_after(&error),
        }
        self.broken = 0;
        self.absent = false;
    }

    fn finish_list(&mut self, index: &mut impl Watched<K>) {
        index.reset(std::mem::take(&mut self.listing));
        if let Some(awaited) = self.awaited.take() {
            awaited.done();
        }
    }

    fn pass_absence(&mut self, index: &mut impl Watched<K>) {
        self.resume = Instant::now() + ABSENCE;
        if !std::mem::replace(&mut self.absent, true) {
            tracing::info!(kind = %K::kind(&()), "this kind is absent, or not for us to see; looking again now and then");
            self.listing.clear();
            self.finish_list(index);
        }
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
    refusal(error) == Some(404)
}

/// The kind is not known, or forbidden to us.
fn is_absent(error: &watcher::Error) -> bool {
    matches!(refusal(error), Some(403 | 404))
}

/// The HTTP status code with which the API server refused to list.
fn refusal(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
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

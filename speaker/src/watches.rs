//! How objects of the API server are followed.

use std::{fmt::Debug, time::Duration};

use arpeggio_runtime::watch::{Change, Watch};
use kube::{Resource, runtime::watcher::Config};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, time::interval};

/// Counts how often the API server has gone back to an earlier state: all watches are to be started anew then.
pub(crate) type Rewinds = watch::Receiver<u64>;

/// A watch is renewed at least this often, in seconds. The client notices a dead connection itself, much earlier, and a
/// thousand nodes renew three watches each.
const LONGEST_WATCH: u32 = 290;

/// What every watch has in common.
pub(crate) fn config() -> Config {
    Config::default().timeout(LONGEST_WATCH)
}

/// How often it is looked whether the process is to go on without a kind.
const LOOK: Duration = Duration::from_secs(5);

/// What a watch shows.
pub(crate) enum News<K> {
    /// Something has changed.
    Change(Change<K>),
    /// The API server answers, and does not show the kind: the process goes on without it.
    Without,
}

/// Hands every change to `take`, until that says that nobody wants more. Without the kind the process can do nothing.
pub(crate) async fn follow<K>(
    watch: Watch<K>,
    rewinds: Rewinds,
    mut take: impl FnMut(Change<K>) -> bool,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let take = |news| match news {
        News::Change(change) => take(change),
        News::Without => true,
    };
    follow_each(watch, rewinds, false, take).await;
}

/// The same of a kind without which the process can go on, when the API server does not show it.
pub(crate) async fn follow_if_shown<K>(
    watch: Watch<K>,
    rewinds: Rewinds,
    take: impl FnMut(News<K>) -> bool,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    follow_each(watch, rewinds, true, take).await;
}

async fn follow_each<K>(
    mut watch: Watch<K>,
    mut rewinds: Rewinds,
    dispensable: bool,
    mut take: impl FnMut(News<K>) -> bool,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    rewinds.mark_unchanged();
    let mut look = interval(LOOK);
    loop {
        tokio::select! {
            event = watch.next() => {
                if let Some(change) = watch.pass(event) && !take(News::Change(change)) {
                    return;
                }
            }
            _ = look.tick(), if dispensable => {
                if watch.is_refused() && !watch.is_without() {
                    watch.go_on_without();
                    if watch.is_without() && !take(News::Without) {
                        return;
                    }
                }
            }
            Ok(()) = rewinds.changed() => {
                tracing::warn!(kind = %K::kind(&()), "starting the watch anew");
                watch.restart();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arpeggio_runtime::{health::Health, watch::UndecodableObjects};
    use http::{Request, Response};
    use kube::{Client, client::Body};
    use tokio::sync::{oneshot, watch};

    use crate::{endpoints, input::Input, nodes};

    /// An API server that answers lists of this kind with 500, and others never.
    fn refusing(kind: &'static str) -> Client {
        let answer = move |request: Request<Body>| {
            let refused = request.uri().path().ends_with(kind);
            async move {
                if !refused {
                    return std::future::pending().await;
                }
                let status = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":500,"message":"no"}"#;
                Response::builder().status(500).body(Body::from(status.as_bytes().to_vec()))
            }
        };
        Client::new(tower::service_fn(answer), "arpeggio-system")
    }

    #[tokio::test(start_paused = true)]
    async fn a_speaker_goes_on_without_what_the_api_server_refuses_to_show() {
        let health = Health::default();
        let (inputs, received) = crossbeam_channel::unbounded();
        let (wanted, slices_wanted) = oneshot::channel();
        wanted.send(()).unwrap();
        let rewinds = watch::channel(0).1;
        let objects = UndecodableObjects::registered(&prometheus::Registry::new()).unwrap();
        let slices = endpoints::watch(
            refusing("endpointslices"),
            health.clone(),
            slices_wanted,
            rewinds.clone(),
            (objects.clone(), inputs.clone()),
        );
        let (listed, to) = (health.awaits("Nodes"), (objects, inputs.clone()));
        let nodes = nodes::watch(refusing("nodes"), true, listed, rewinds, to);
        let running = tokio::spawn(async { tokio::join!(slices, nodes) });
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(health.missing(), ["EndpointSlices", "Nodes"]);
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(health.missing().is_empty(), "{:?}", health.missing());
        assert_eq!(health.forgone().len(), 2);
        let told: Vec<Input> = received.try_iter().collect();
        assert!(matches!(told[..], [Input::NoBackends]), "{told:?}");
        running.abort();
    }
}

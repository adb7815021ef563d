//! Says on a Lease of the node's own what its forwarder can do, and which connections it still has.

use std::time::Duration;

use arpeggio_api::forwarder::{self, Forwarder, RENEWAL};
use arpeggio_election::Node;
use arpeggio_runtime::{failure::Failure, telemetry::causes, wall_clock};
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use tokio::{sync::watch, task::JoinHandle};

/// Longest time for one request.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// The pause after a request has failed; doubled each time that it fails again.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Writes the Lease. Nothing waits for it.
pub(crate) struct Publisher {
    api: Api<Lease>,
    node: Node,
    instance: String,
    failing: bool,
}

impl Publisher {
    pub(crate) fn new(client: Client, namespace: &str, (node, instance): (Node, String)) -> Self {
        Self { api: Api::namespaced(client, namespace), node, instance, failing: false }
    }

    /// Publishes the latest news, each time that there are some and again and again, until their sender is gone; then takes back what this
    /// process has said.
    pub(crate) fn spawn(mut self) -> (watch::Sender<Option<Forwarder>>, JoinHandle<()>) {
        let (sender, mut news) = watch::channel(None);
        let task = tokio::spawn(async move {
            let mut pause = SHORTEST_PAUSE;
            while wait(&mut news, RENEWAL).await {
                let Some(latest) = news.borrow_and_update().clone() else { continue };
                if self.publish(&latest).await {
                    pause = SHORTEST_PAUSE;
                } else {
                    // There may be other news by then: the latest are what counts.
                    news.mark_changed();
                    tokio::time::sleep(pause).await;
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
                if news.has_changed().is_err() {
                    break;
                }
            }
            self.take_back().await;
        });
        (sender, task)
    }

    /// Whether it was done.
    async fn publish(&mut self, says: &Forwarder) -> bool {
        let written = tokio::time::timeout(TIME_LIMIT, self.write(says)).await;
        let why = match written {
            Ok(Ok(())) => {
                self.failing = false;
                return true;
            }
            Ok(Err(error)) => causes(&error).to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        if !std::mem::replace(&mut self.failing, true) {
            let lease = forwarder::name(&self.node);
            tracing::warn!(lease, why, "what this node says was not written, and is tried again");
        }
        false
    }

    async fn write(&self, says: &Forwarder) -> kube::Result<()> {
        let now = MicroTime(wall_clock::now());
        let (name, patch) = (forwarder::name(&self.node), Patch::Merge(says.said(&now)));
        match self.api.patch(&name, &PatchParams::default(), &patch).await {
            Err(error) if matches!(Failure::from(&error), Failure::NotFound) => {
                let lease = says.created(&self.node, now);
                self.api.create(&PostParams::default(), &lease).await.map(drop)
            }
            written => written.map(drop),
        }
    }

    async fn take_back(&self) {
        match tokio::time::timeout(TIME_LIMIT, self.unsay()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = %causes(&error), "the Lease was not taken back");
            }
            Err(_) => tracing::warn!("the Lease was not taken back: no answer in time"),
        }
    }

    /// Unless another process of this node has taken over.
    async fn unsay(&self) -> kube::Result<()> {
        let name = forwarder::name(&self.node);
        let Some(lease) = self.api.get_opt(&name).await? else { return Ok(()) };
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        if holder == Some(self.instance.as_str()) {
            let patch = Patch::Merge(forwarder::taken_back(&lease));
            self.api.patch(&name, &PatchParams::default(), &patch).await?;
        }
        Ok(())
    }
}

/// Waits for news, or until what was said is to be said again. `false`: there is nobody who could have news.
async fn wait(news: &mut watch::Receiver<Option<Forwarder>>, renewal: Duration) -> bool {
    let is_renewed = news.borrow().is_some();
    let changed = news.changed();
    if is_renewed {
        tokio::time::timeout(renewal, changed).await.map_or(true, |it| it.is_ok())
    } else {
        changed.await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(count: u32) -> Forwarder {
        let connections = Some([([192, 168, 0, 240].into(), count)].into());
        Forwarder { connections, ..Forwarder::default() }
    }

    #[tokio::test]
    async fn what_is_said_is_said_again() {
        let (sender, mut news) = watch::channel(None);
        let renewal = Duration::from_millis(1);
        for (count, is_said_again) in [(None, false), (Some(7), true), (Some(0), true)] {
            sender.send(count.map(says)).unwrap();
            assert!(wait(&mut news, renewal).await);
            drop(news.borrow_and_update());
            let again = tokio::time::timeout(renewal * 200, wait(&mut news, renewal));
            assert_eq!(again.await.is_ok(), is_said_again, "{count:?}");
        }
        drop(sender);
        assert!(!wait(&mut news, renewal).await);
    }
}

//! The client: creates Services on many connections and watches them get their addresses.

use std::{
    collections::BTreeSet,
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client,
    api::PostParams,
    runtime::watcher::{self, Event, watcher},
};
use serde_json::json;
use tokio::time::timeout;

use super::floor;
use crate::{narrator::say, server::Writes};

/// How many creates are under way at once.
const CONNECTIONS: usize = 32;

/// How long the last address is waited for after the last create.
const PATIENCE: Duration = Duration::from_mins(10);

/// How often progress is shown.
const PROGRESS_STEP: usize = 1_000;

/// The client's connections.
pub(super) struct Load {
    client: Client,
    services: Api<Service>,
}

/// Who gives the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Giver {
    /// Nobody.
    Nobody,
    /// The client itself, which knows them beforehand.
    Client,
    /// A controller.
    Controller,
}

/// How long it took, from the first create on.
pub(super) struct Times {
    /// Until the last create was answered, and what the client itself has to do for each.
    pub(super) created: Duration,
    /// Until the last Service had its address, where anybody gives them.
    pub(super) served: Option<Duration>,
}

impl Load {
    /// By way of this client.
    pub(super) fn new(client: Client) -> Self {
        Self { services: Api::namespaced(client.clone(), "default"), client }
    }

    /// Creates `count` Services as fast as they are taken and, when a controller serves, waits for all of their addresses.
    pub(super) async fn create(&self, count: usize, giver: Giver) -> anyhow::Result<Times> {
        let begin = Instant::now();
        let creation = async {
            stream::iter(0..count)
                .map(|number| self.create_numbered(number, giver))
                .buffer_unordered(CONNECTIONS)
                .try_for_each(|()| async { Ok(()) })
                .await?;
            say(format!("created after {:.1} s", begin.elapsed().as_secs_f64()));
            anyhow::Ok(begin.elapsed())
        };
        if giver != Giver::Controller {
            return Ok(Times { created: creation.await?, served: None });
        }
        let (created, last) = tokio::try_join!(creation, self.wait_for_addresses(count, begin))?;
        Ok(Times { created, served: Some(last) })
    }

    /// Creates one Service and waits for its address; `None` when it has none after `patience`.
    pub(super) async fn serve_one(
        &self,
        name: &str,
        patience: Duration,
    ) -> anyhow::Result<Option<Duration>> {
        let begin = Instant::now();
        self.create_one(name).await?;
        let wait = async {
            loop {
                let service = self.services.get(name).await?;
                if has_address(&service) {
                    return anyhow::Ok(begin.elapsed());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(patience, wait).await.ok().transpose()
    }

    async fn create_numbered(&self, number: usize, giver: Giver) -> anyhow::Result<()> {
        let service = self.create_one(&format!("bench-{number}")).await?;
        if giver == Giver::Client {
            floor::serve(&self.client, &service, number).await?;
        }
        Ok(())
    }

    async fn create_one(&self, name: &str) -> anyhow::Result<Service> {
        // Without a selector there are no endpoints, and without node ports there can be as many as there are addresses.
        let service: Service = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "type": "LoadBalancer",
                "allocateLoadBalancerNodePorts": false,
                "ports": [{ "port": 80 }],
            },
        }))?;
        let created = self.services.create(&PostParams::default(), &service).await;
        created.with_context(|| format!("Service {name} was not created"))
    }

    async fn wait_for_addresses(&self, count: usize, begin: Instant) -> anyhow::Result<Duration> {
        let mut served = BTreeSet::new();
        let events = watcher(self.services.clone(), watcher::Config::default());
        let mut events = pin!(events);
        while served.len() < count {
            let event = timeout(PATIENCE, events.next()).await;
            let event = event.with_context(|| format!("{} of {count} have one", served.len()))?;
            let (Event::Apply(service) | Event::InitApply(service)) =
                event.context("the watch has ended")??
            else {
                continue;
            };
            if has_address(&service)
                && served.insert(service.metadata.name.unwrap_or_default())
                && served.len() % PROGRESS_STEP == 0
            {
                let seconds = begin.elapsed().as_secs_f64();
                say(format!("{} have their address after {seconds:.1} s", served.len()));
            }
        }
        Ok(begin.elapsed())
    }

    /// What the API server has written so far, on behalf of anybody.
    pub(super) async fn writes(&self) -> anyhow::Result<Writes> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        let metrics = self.client.request_text(request).await.context("no API server metrics")?;
        let writes = Writes::parse(&metrics);
        ensure!(writes != Writes::default(), "the API server counts nothing");
        Ok(writes)
    }
}

fn has_address(service: &Service) -> bool {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.and_then(|it| it.ingress.as_ref()).is_some_and(|ingress| !ingress.is_empty())
}

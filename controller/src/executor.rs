//! Performs tasks at the API server, a bounded number at a time, each with a time limit.

use std::{future::Future, sync::Arc, time::Duration};

use arpeggio_api::{
    address_pool::AddressPool,
    lock::{self, Claim},
    service::FIELD_MANAGER,
};
use arpeggio_runtime::{events::EventWriter, telemetry::causes};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Service};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};

use crate::{
    effect::{Effect, Failed, Observed, PoolWrite, Release, Report, ServiceWrite, Task},
    metrics::Metrics,
};

/// How many requests may be under way at once. Each is a connection of its own.
const AT_ONCE: usize = 32;

/// Longest time for one request.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// How long a task that failed once is left alone; doubled with each further failure.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);

/// A task is tried again at least this often.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long to wait for the watch to catch up with what a request has shown.
const CATCH_UP: Duration = Duration::from_millis(100);

/// Performs tasks and reports on each. Clones share everything.
#[derive(Clone)]
pub(crate) struct Executor {
    client: Client,
    namespace: String,
    class: Option<String>,
    events: EventWriter,
    metrics: Metrics,
    permits: Arc<Semaphore>,
    reports: mpsc::UnboundedSender<Report>,
}

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("no answer within {} s", TIME_LIMIT.as_secs())]
    TimedOut,
    #[error("it was refused")]
    Refused(#[source] Box<kube::Error>),
}

impl CallError {
    /// The HTTP status code of the API server's answer.
    fn code(&self) -> Option<u16> {
        match self {
            Self::Refused(error) => match error.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Self::TimedOut => None,
        }
    }

    /// What metrics call it.
    fn outcome(&self) -> &'static str {
        match (self, self.code()) {
            (Self::TimedOut, _) => "timeout",
            (_, Some(404)) => "not_found",
            (_, Some(409)) => "conflict",
            _ => "error",
        }
    }
}

type Call<T> = Result<T, CallError>;

impl Executor {
    /// `namespace` is that of the locks, `class` the `loadBalancerClass` that is served.
    pub(crate) fn new(
        client: Client,
        namespace: String,
        class: Option<String>,
        events: EventWriter,
        metrics: Metrics,
    ) -> (Self, mpsc::UnboundedReceiver<Report>) {
        let (reports, received) = mpsc::unbounded_channel();
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        (Self { client, namespace, class, events, metrics, permits, reports }, received)
    }

    /// Performs a task in the background.
    pub(crate) fn start(&self, task: Task) {
        let executor = self.clone();
        tokio::spawn(async move { executor.run(task).await });
    }

    async fn run(self, task: Task) {
        // Closed only when the process ends.
        let Ok(permit) = self.permits.acquire().await else { return };
        let result = self.perform(&task.effect).await;
        drop(permit);
        if let Some(pause) = pause(&result, task.failures) {
            if let Err(error) = &result {
                report_failure(&task, error, pause);
            }
            tokio::time::sleep(pause).await;
        }
        let succeeded = result.is_ok();
        // Fails only when the process ends.
        let _ =
            self.reports.send(Report { subject: task.subject, result: result.map_err(|_| Failed) });
        if let (true, Effect::WriteService(write)) = (succeeded, task.effect) {
            self.tell(&write).await;
        }
    }

    async fn perform(&self, effect: &Effect) -> Call<Observed> {
        match effect {
            Effect::Claim(claim) => self.claim(claim).await,
            Effect::Release(release) => self.release(release).await,
            Effect::WriteService(write) => self.write_service(write).await,
            Effect::WritePool(write) => self.write_pool(write).await,
        }
    }

    /// Creates the lock. When there is one already, whoever made it, that is what the index has to know.
    async fn claim(&self, claim: &Claim) -> Call<Observed> {
        let (leases, lease) = (self.leases(), claim.created());
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), dry_run: false };
        let created = self.call::<Lease, _>("create", leases.create(&params, &lease)).await;
        match created {
            Err(error) if error.code() == Some(409) => {
                let name = lock::name(claim.address);
                self.call::<Lease, _>("get", leases.get(&name)).await
            }
            other => other,
        }
        .map(|lease| Observed::Lock(Box::new(lease)))
    }

    /// Deletes the lock, unless its Service, read now, needs it.
    async fn release(&self, release: &Release) -> Call<Observed> {
        if let Some(service) = self.needing(release).await? {
            return Ok(Observed::Needed(Box::new(service)));
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(release.lease_uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let (leases, name) = (self.leases(), lock::name(release.address));
        let gone =
            Observed::NoLock { address: release.address, lease_uid: release.lease_uid.clone() };
        match self.call::<Lease, _>("delete", leases.delete(&name, &params)).await {
            Ok(_) => Ok(gone),
            // It is gone; with 409 there is a later one of that name.
            Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(gone),
            Err(error) => Err(error),
        }
    }

    /// The Service of a lock, if it exists and has the address or is about to get it.
    async fn needing(&self, release: &Release) -> Call<Option<Service>> {
        let services: Api<Service> =
            Api::namespaced(self.client.clone(), &release.service.namespace);
        let request = services.get_opt(&release.service.name);
        let service = self.call::<Service, _>("get", request).await?;
        Ok(service.filter(|service| release.is_needed_by(service, self.class.as_deref())))
    }

    async fn write_service(&self, write: &ServiceWrite) -> Call<Observed> {
        let record = &write.record;
        let services: Api<Service> =
            Api::namespaced(self.client.clone(), &record.service.namespace);
        let patch = Patch::Apply(record.status_patch(&write.addresses, write.condition.as_ref()));
        let params = apply_params();
        let request = services.patch_status(&record.service.name, &params, &patch);
        let service = self.call::<Service, _>("patch", request).await?;
        Ok(Observed::Service(Box::new(service)))
    }

    async fn write_pool(&self, write: &PoolWrite) -> Call<Observed> {
        let pools: Api<AddressPool> = Api::all(self.client.clone());
        let patch = Patch::Apply(json!({
            "apiVersion": AddressPool::api_version(&()),
            "kind": AddressPool::kind(&()),
            "metadata": { "name": write.name },
            "status": write.status,
        }));
        let params = apply_params();
        let request = pools.patch_status(&write.name, &params, &patch);
        let pool = self.call::<AddressPool, _>("patch", request).await?;
        Ok(Observed::Pool(Box::new(pool)))
    }

    /// Tells the user what was written.
    async fn tell(&self, write: &ServiceWrite) {
        match write.refusal {
            Some(reason) => self.metrics.refusals.with_label_values(&[reason]).inc(),
            None if write.news.is_some() && !write.addresses.is_empty() => {
                self.metrics.allocations.inc();
            }
            None => {}
        }
        let Some(news) = &write.news else { return };
        let record = &write.record;
        tracing::info!(service = record.path(), "{}", news.note);
        if let Err(error) = self.events.publish(&record.object_reference(), news).await {
            tracing::warn!(service = record.path(), error = %causes(&error), "event lost");
        }
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn call<K, T>(
        &self,
        verb: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Call<T>
    where
        K: Resource<DynamicType = ()>,
    {
        let result = match tokio::time::timeout(TIME_LIMIT, request).await {
            Ok(answer) => answer.map_err(|error| CallError::Refused(Box::new(error))),
            Err(_) => Err(CallError::TimedOut),
        };
        let outcome = result.as_ref().err().map_or("ok", CallError::outcome);
        self.metrics.requests.with_label_values(&[verb, &K::kind(&()), outcome]).inc();
        result
    }
}

/// We own what we write in a status, whoever wrote it before.
fn apply_params() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER).force()
}

/// How long to leave the subject alone after this.
fn pause(result: &Call<Observed>, failures: u32) -> Option<Duration> {
    match result {
        Ok(Observed::Needed(_)) => Some(CATCH_UP),
        Ok(_) => None,
        Err(error) if error.code() == Some(409) => Some(CATCH_UP),
        Err(_) => {
            let doubled = SHORTEST_PAUSE.saturating_mul(2_u32.saturating_pow(failures));
            Some(doubled.min(LONGEST_PAUSE))
        }
    }
}

fn report_failure(task: &Task, error: &CallError, pause: Duration) {
    let subject = &task.subject;
    if error.code() == Some(409) {
        tracing::debug!(?subject, error = %causes(error), "changed meanwhile; decided anew");
    } else {
        tracing::warn!(?subject, error = %causes(error), retry_in = ?pause, "the API server did not do it");
    }
}

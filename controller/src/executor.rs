//! Performs tasks at the API server, a bounded number at a time, each with a time limit.

use std::{future::Future, net::IpAddr, time::Duration};

use arpeggio_allocation::{
    effect::{
        ALLOCATED, Change, Effect, Failed, Observed, PoolWrite, RecordWrite, Refused, Release,
        ServiceWrite, Task, TaskReport,
    },
    news,
    node_leases::LeaseToDelete,
};
use arpeggio_api::{
    address_pool::AddressPool,
    declaration::Remark,
    last_good,
    lock::{self, Amendment},
    service::FIELD_MANAGER,
};
use arpeggio_runtime::{
    events::{EventQueue, Kind, News},
    failure::Failure,
    guarded::Guarded,
    server_clock,
    telemetry::causes,
};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{ObjectReference, Service},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::{Status, error_boundary::InvalidObject},
};
use serde_json::json;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    metrics::Metrics,
    turns::{Turn, Turns},
};

/// Longest time for one request.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// How long to wait for the watch to catch up with what a request has shown.
const CATCH_UP: Duration = Duration::from_millis(100);

/// Performs tasks and reports on each. Clones share everything.
#[derive(Clone)]
pub(crate) struct Executor {
    client: Client,
    namespace: String,
    class: Option<String>,
    events: EventQueue,
    metrics: Metrics,
    turns: Turns,
    reports: mpsc::UnboundedSender<TaskReport>,
}

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("no answer within {} s", TIME_LIMIT.as_secs())]
    TimedOut,
    #[error("it was refused")]
    Refused(#[source] Box<kube::Error>),
    #[error("the object that came is not understood")]
    NotUnderstood(#[source] Box<InvalidObject>),
}

impl CallError {
    fn failure(&self) -> Failure {
        match self {
            Self::TimedOut | Self::NotUnderstood(_) => Failure::Unanswered { retry_after: None },
            Self::Refused(error) => error.as_ref().into(),
        }
    }

    /// The API server's answer.
    fn status(&self) -> Option<&Status> {
        match self {
            Self::Refused(error) => match error.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::TimedOut | Self::NotUnderstood(_) => None,
        }
    }

    /// Why there is no answer of use, for people.
    fn why(&self) -> &'static str {
        match self {
            Self::NotUnderstood(_) => NOT_UNDERSTOOD,
            Self::Refused(error) if matches!(**error, kube::Error::SerdeError(_)) => NOT_UNDERSTOOD,
            Self::Refused(_) | Self::TimedOut => NO_ANSWER,
        }
    }

    /// What metrics call it.
    fn outcome(&self) -> &'static str {
        match (self, self.failure()) {
            (Self::TimedOut, _) => "timeout",
            (_, Failure::NotFound) => "not_found",
            (_, Failure::Conflict) => "conflict",
            (_, Failure::Refused(_)) => "refused",
            (_, Failure::Busy { .. }) => "busy",
            (_, Failure::Unanswered { .. }) => "error",
        }
    }

    /// Whether the object is gone, or not what it was.
    fn tells_of_change(&self) -> bool {
        self.failure().tells_of_change()
    }
}

type Call<T> = Result<T, CallError>;

impl Executor {
    /// `namespace` is that of the locks, `class` the `loadBalancerClass` that is served.
    pub(crate) fn new(
        client: Client,
        namespace: String,
        class: Option<String>,
        events: EventQueue,
        metrics: Metrics,
    ) -> (Self, mpsc::UnboundedReceiver<TaskReport>) {
        let (reports, received) = mpsc::unbounded_channel();
        let turns = Turns::default();
        (Self { client, namespace, class, events, metrics, turns, reports }, received)
    }

    /// Performs a task in the background.
    pub(crate) fn start(&self, task: Task) {
        let executor = self.clone();
        tokio::spawn(async move { executor.run(task).await });
    }

    async fn run(self, task: Task) {
        let Some(turn) = self.turn(&task.effect).await else { return };
        let begin = Instant::now();
        let result = self.perform(&task.effect).await;
        if let Effect::WriteService(write) = &task.effect {
            self.turns.ended(&write.record.service.namespace, begin.elapsed());
        }
        drop(turn);
        if is_behind(&result) {
            tokio::time::sleep(CATCH_UP).await;
        }
        let succeeded = result.is_ok();
        let result = result.map_err(|error| failed(&task, &error, &self.namespace));
        // Fails only when the process ends.
        let _ = self.reports.send(TaskReport { subject: task.subject, result });
        if let (true, Effect::WriteService(write)) = (succeeded, task.effect) {
            self.tell(&write);
        }
    }

    async fn turn(&self, effect: &Effect) -> Option<Turn> {
        match effect {
            Effect::WriteService(write) => {
                self.turns.for_others(Some(&write.record.service.namespace)).await
            }
            Effect::WritePool(_) => self.turns.for_others(None).await,
            _ => self.turns.for_a_lock().await,
        }
    }

    async fn perform(&self, effect: &Effect) -> Call<Observed> {
        match effect {
            Effect::Claim(claim, claimed_for) => {
                // Not when it was decided: it may have waited for its turn, and by the difference to the time at which the Lease is
                // created one is known that a backup has brought. So it is said by the clock that dates the Lease.
                let since = Time(server_clock::now());
                self.claim(claim.address, &claim.made(claimed_for, &since)).await
            }
            Effect::Join(amendment) | Effect::Amend(amendment) => self.amend(amendment).await,
            Effect::Release(release) => self.release(release).await,
            Effect::WriteService(write) => self.write_service(write).await,
            Effect::WritePool(write) => self.write_pool(write).await,
            Effect::WriteRecord(write) => self.write_record(write).await,
        }
    }

    /// Creates the lock. When there is one already, whoever made it, that is what the index has to know.
    async fn claim(&self, address: IpAddr, lock: &Lease) -> Call<Observed> {
        let (leases, params) = (self.leases(), post_params());
        let created = self.call::<Lease, _>("create", leases.create(&params, lock)).await;
        match created {
            Err(error) if error.failure() == Failure::Conflict => self.look(address, 0).await,
            other => other.map(|lease| Observed::Lock(Box::new(lease))),
        }
    }

    /// Changes who is reached at an address. When the lock has changed meanwhile, that is what the index has to know.
    async fn amend(&self, amendment: &Amendment) -> Call<Observed> {
        let (leases, name) = (self.leases(), lock::name(amendment.address));
        let params =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(amendment.patch());
        match self.call::<Lease, _>("patch", leases.patch(&name, &params, &patch)).await {
            Err(error) if error.tells_of_change() => {
                self.look(amendment.address, amendment.expected.0).await
            }
            other => other.map(|lease| Observed::Lock(Box::new(lease))),
        }
    }

    /// The lock that there is at present, where there was one of this `version`.
    async fn look(&self, address: IpAddr, version: u64) -> Call<Observed> {
        let (leases, name) = (self.leases(), lock::name(address));
        let found = self.call::<Lease, _>("get", leases.get_opt(&name)).await?;
        Ok(found.map_or(Observed::NoLock { address, version }, |it| Observed::Lock(Box::new(it))))
    }

    /// Takes Services off the lock, unless one of them, read now, needs it.
    async fn release(&self, release: &Release) -> Call<Observed> {
        if let Some(service) = self.needing(release).await? {
            return Ok(Observed::Needed(Box::new(service)));
        }
        match &release.change {
            Change::Amend(amendment) => self.amend(amendment).await,
            Change::Delete { lease_uid, version } => {
                self.delete(release.address, lease_uid, *version).await
            }
        }
    }

    async fn delete(&self, address: IpAddr, lease_uid: &str, version: u64) -> Call<Observed> {
        let params = only_if(Some(lease_uid.to_owned()), Some(version.to_string()));
        let (leases, name) = (self.leases(), lock::name(address));
        match self.call::<Lease, _>("delete", leases.delete(&name, &params)).await {
            Ok(answer) => {
                // With somebody's finalizer it stays.
                let kept = answer.left().filter(|it| it.metadata.deletion_timestamp.is_some());
                let kept = kept.map(|lease| Observed::Lock(Box::new(lease)));
                Ok(kept.unwrap_or(Observed::NoLock { address, version }))
            }
            // It is gone, or not what it was.
            Err(error) if error.tells_of_change() => self.look(address, version).await,
            Err(error) => Err(error),
        }
    }

    /// The first Service of those that are to leave which exists and has the address or is about to get it.
    async fn needing(&self, release: &Release) -> Call<Option<Service>> {
        for service in &release.services {
            let services: Api<Guarded<Service>> =
                Api::namespaced(self.client.clone(), &service.namespace);
            let found = self.call::<Service, _>("get", services.get_opt(&service.name)).await?;
            let found = found.map(understood).transpose()?;
            let needs = |it: &Service| release.is_needed_by(it, self.class.as_deref());
            if let Some(service) = found.filter(needs) {
                return Ok(Some(service));
            }
        }
        Ok(None)
    }

    async fn write_service(&self, write: &ServiceWrite) -> Call<Observed> {
        let record = &write.record;
        let services: Api<Guarded<Service>> =
            Api::namespaced(self.client.clone(), &record.service.namespace);
        let patch = Patch::Apply(record.status_patch(
            write.addresses.as_deref(),
            &write.conditions,
            &write.releasing,
        ));
        let params = apply_params();
        let request = services.patch_status(&record.service.name, &params, &patch);
        let service = self.call::<Service, _>("patch", request).await?;
        Ok(Observed::Service(Box::new(understood(service)?)))
    }

    async fn write_pool(&self, write: &PoolWrite) -> Call<Observed> {
        let pools: Api<Guarded<AddressPool>> = Api::all(self.client.clone());
        let patch = Patch::Apply(json!({
            "apiVersion": AddressPool::api_version(&()),
            "kind": AddressPool::kind(&()),
            "metadata": { "name": write.name },
            "status": write.status,
        }));
        let params = apply_params();
        let request = pools.patch_status(&write.name, &params, &patch);
        let pool = self.call::<AddressPool, _>("patch", request).await?;
        Ok(Observed::Pool(Box::new(understood(pool)?)))
    }

    /// Keeps what an object with pools said, or nothing, unless somebody else has written there since.
    async fn write_record(&self, write: &RecordWrite) -> Call<Observed> {
        let (leases, name) = (self.leases(), last_good::name(&write.uid));
        let version = &write.expected;
        let done = match (&write.text, version) {
            (Some(text), None) => {
                let (params, lease) = (post_params(), last_good::lease(&write.uid, text));
                let request = leases.create(&params, &lease);
                let created = self.call::<Lease, _>("create", request).await.map(drop);
                if created.as_ref().is_err_and(CallError::tells_of_change) {
                    self.relabel(&name).await?;
                }
                created
            }
            (Some(text), Some(_)) => {
                let mut lease = last_good::lease(&write.uid, text);
                lease.metadata.resource_version.clone_from(version);
                let (params, patch) = (apply_params(), Patch::Apply(lease));
                let request = leases.patch(&name, &params, &patch);
                self.call::<Lease, _>("patch", request).await.map(drop)
            }
            (None, _) => {
                let params = only_if(None, version.clone());
                self.call::<Lease, _>("delete", leases.delete(&name, &params)).await.map(drop)
            }
        };
        match done {
            Err(error) if write.text.is_some() || error.failure() != Failure::NotFound => {
                Err(error)
            }
            _ => Ok(Observed::Record),
        }
    }

    /// Has watches show a Lease again that has lost its labels. What it keeps is judged then as ever.
    async fn relabel(&self, name: &str) -> Call<()> {
        let leases = self.leases();
        let found = self.call::<Lease, _>("get", leases.get_opt(name)).await?;
        let Some(patch) = found.as_ref().and_then(last_good::relabelled) else { return Ok(()) };
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        self.call::<Lease, _>("patch", leases.patch(name, &params, &patch)).await.map(drop)
    }

    /// Tells the user what was written.
    fn tell(&self, write: &ServiceWrite) {
        if let Some(reason) = write.refusal {
            self.metrics.refusals.with_label_values(&[reason]).inc();
        }
        let record = &write.record;
        for news in &write.news {
            if news.reason == ALLOCATED {
                self.metrics.allocations.inc();
            }
            tracing::info!(service = record.path(), "{}", news.note);
            self.events.publish(record.object_reference(), event(news));
        }
    }

    /// Tells the author of an object, in the background.
    pub(crate) fn remark(&self, object: ObjectReference, remark: Remark) {
        let Remark { reason, message: note } = remark;
        let news = news::News { kind: news::Kind::Warning, reason, action: "ReadPools", note };
        self.announce(object, &news);
    }

    /// Tells the readers of an object, in the background.
    pub(crate) fn announce(&self, object: ObjectReference, news: &news::News) {
        let name = object.name.clone().unwrap_or_default();
        let (kind, namespace) = (object.kind.as_deref(), object.namespace.as_deref());
        tracing::warn!(kind, namespace, name, "{}", news.note);
        self.events.publish(object, event(news));
    }

    /// Deletes a Lease of a node that is gone, in the background, unless it has changed. If that fails it is asked for again.
    pub(crate) fn delete_lease(&self, lease: LeaseToDelete) {
        let executor = self.clone();
        tokio::spawn(async move {
            // A cluster that has shrunk has many of them at one time.
            let Some(_turn) = executor.turns.for_a_lock().await else { return };
            let LeaseToDelete { name, uid, version } = lease;
            let params = only_if(Some(uid), Some(version));
            let leases = executor.leases();
            match executor.call::<Lease, _>("delete", leases.delete(&name, &params)).await {
                Ok(_) => tracing::info!(lease = name, "deleted a Lease of a node that is gone"),
                Err(error) => {
                    tracing::warn!(lease = name, error = %causes(&error), "a Lease of a node that is gone stays");
                }
            }
        });
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

/// An object that others write, too.
fn understood<K>(object: Guarded<K>) -> Call<K> {
    object.understood().map_err(CallError::NotUnderstood)
}

/// The news, as events tell it.
fn event(news: &news::News) -> News {
    let kind = match news.kind {
        news::Kind::Normal => Kind::Normal,
        news::Kind::Warning => Kind::Warning,
    };
    News { kind, reason: news.reason, action: news.action, note: news.note.clone() }
}

/// To delete an object only if it is still this one.
fn only_if(uid: Option<String>, resource_version: Option<String>) -> DeleteParams {
    DeleteParams::default().preconditions(Preconditions { uid, resource_version })
}

fn post_params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), dry_run: false }
}

/// We own what we write in a status, whoever wrote it before.
fn apply_params() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER).force()
}

/// Whether the watch has not shown yet what the request has.
fn is_behind(result: &Call<Observed>) -> bool {
    match result {
        Ok(observed) => matches!(observed, Observed::Needed(_)),
        Err(error) => error.failure() == Failure::Conflict,
    }
}

/// What the index has to know of a failure.
fn failed(task: &Task, error: &CallError, namespace: &str) -> Failed {
    let subject = &task.subject;
    let failed = match error.status() {
        Some(status) => of_status(status, &task.effect, namespace),
        None => unanswered(&task.effect, namespace, None, error.why()),
    };
    match &failed {
        Failed::Changed => {
            tracing::debug!(%subject, error = %causes(error), "changed meanwhile; decided anew");
        }
        _ => {
            tracing::warn!(%subject, error = %causes(error), "API request failed, will retry");
        }
    }
    failed
}

/// Why a request was not done, for people, that was not refused either.
const NO_ANSWER: &str = "it does not answer in time, or waits for a webhook that does not";
const NOT_UNDERSTOOD: &str = "Arpeggio does not understand its answer";
const TOO_BUSY: &str = "it has too much to do";
const NOT_WELL: &str = "it cannot at present";
const NO_PLACE: &str = "the namespace or the kind does not exist";

/// What an answer of the API server means for a task.
fn of_status(status: &Status, effect: &Effect, namespace: &str) -> Failed {
    let unanswered = |pause, why| unanswered(effect, namespace, pause, why);
    match Failure::of_status(status) {
        Failure::NotFound if matches!(effect, Effect::WriteService(_)) => Failed::Changed,
        Failure::Conflict => Failed::Changed,
        Failure::NotFound => unanswered(None, NO_PLACE),
        Failure::Refused(cause) => Failed::Refused(Refused {
            what: effect.request(namespace),
            kind: cause.as_str(),
            is_answer: true,
            why: if effect.writes_own_object() {
                cause.in_general().to_owned()
            } else {
                status.message.clone()
            },
        }),
        Failure::Busy { retry_after } => unanswered(retry_after, TOO_BUSY),
        Failure::Unanswered { retry_after } if [408, 504].contains(&status.code) => {
            unanswered(retry_after, NO_ANSWER)
        }
        Failure::Unanswered { retry_after } => unanswered(retry_after, NOT_WELL),
    }
}

/// What is made of a request that was neither done nor refused. The API server's own words are in the log: they may name what
/// there is in our namespace.
fn unanswered(
    effect: &Effect,
    namespace: &str,
    retry_after: Option<Duration>,
    why: &'static str,
) -> Failed {
    let lasting = Refused {
        what: effect.request(namespace),
        kind: "Unanswered",
        is_answer: false,
        why: format!("{why}; Arpeggio's log has what it says"),
    };
    Failed::Unanswered { retry_after, lasting }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use arpeggio_allocation::effect::Subject;
    use arpeggio_api::{
        address_pool::AddressPoolStatus,
        lock::{Claim, ClaimedFor},
        service::ServiceRecord,
    };

    /// What is told of a refusal with these words.
    fn told(effect: &Effect, code: u16, words: &str) -> String {
        let status = Status::failure(words, "Forbidden").with_code(code);
        match of_status(&status, effect, "arpeggio-system") {
            Failed::Refused(refused) => refused.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn claim() -> Effect {
        let claim = Claim {
            address: "10.0.0.1".parse().unwrap(),
            pool: "home".to_owned(),
            services: Vec::new(),
            terms: arpeggio_api::terms::WrittenAnnounceTerms::default(),
            spread: false,
        };
        Effect::Claim(claim, ClaimedFor { uid: "u".to_owned(), version: 1 })
    }

    #[test]
    fn of_what_refuses_leases_in_our_namespace_no_service_s_author_learns_the_name() {
        let record = || RecordWrite { uid: "u".to_owned(), text: None, expected: None };
        let table = [
            (
                403,
                "exceeded quota: secret, used: count/leases=9",
                "a ResourceQuota there is used up",
            ),
            (403, "admission webhook \"secret\" denied the request: no", "an admission policy"),
            (422, "ValidatingAdmissionPolicy 'secret' denied request", "an admission policy"),
            (500, "Internal error: failed calling webhook \"secret\": x509", "an admission policy"),
            (403, "User \"secret\" cannot create resource", "lacks the permission"),
            (401, "Unauthorized secret", "does not accept Arpeggio's token"),
            (413, "Request entity too large: secret", "not acceptable"),
            (422, "metadata.annotations: Too long: secret", "not acceptable"),
        ];
        for effect in [Effect::WriteRecord(record()), claim()] {
            for (code, words, expected) in table {
                let told = told(&effect, code, words);
                assert!(told.contains(expected) && !told.contains("secret"), "{told}");
                assert!(told.contains("in namespace arpeggio-system"), "{told}");
            }
        }
    }

    /// What another program writes on a Service is its business; a Service that is none is told as that.
    #[tokio::test]
    async fn what_others_write_on_an_object_blocks_nothing_and_what_cannot_be_understood_is_told() {
        let mut bad = second();
        bad["spec"]["ports"] = json!(7);
        for (answer, expected) in
            [(second(), None), (bad, Some(NOT_UNDERSTOOD)), (json!(7), Some(NOT_UNDERSTOOD))]
        {
            let server = tower::service_fn(move |_: http::Request<kube::client::Body>| {
                let body = kube::client::Body::from(answer.to_string().into_bytes());
                async move { http::Response::builder().body(body) }
            });
            let metrics = Metrics::registered(&prometheus::Registry::new()).unwrap();
            let (events, _) = EventQueue::new(metrics.events_lost.clone());
            let (executor, mut reports) =
                Executor::new(Client::new(server, "lb"), "lb".into(), None, events, metrics);
            let metadata = json!({ "namespace": "shop", "name": "second", "uid": "new", "resourceVersion": "7" });
            let service = serde_json::from_value(json!({ "metadata": metadata })).unwrap();
            let subject = Subject::Pool("home".to_owned());
            executor.start(Task { subject, effect: status_of(&service) });
            let result = reports.recv().await.unwrap().result;
            let told = match result {
                Ok(Observed::Service(_)) => None,
                Err(Failed::Unanswered { lasting, .. }) => Some(lasting.to_string()),
                other => panic!("{other:?}"),
            };
            assert_eq!(told.is_some(), expected.is_some(), "{told:?}");
            assert!(told.is_none_or(|told| told.contains(NOT_UNDERSTOOD)));
        }
    }

    /// As many claims as may be made at a time wait for their turn before it.
    #[tokio::test]
    async fn a_lock_says_that_its_address_is_claimed_since_it_was_created_and_not_since_that_was_decided()
     {
        let said = Arc::new(Mutex::new(None));
        let seen = said.clone();
        let server = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let seen = seen.clone();
            async move {
                let body = request.into_body().collect_bytes().await.unwrap();
                let lease: serde_json::Value = serde_json::from_slice(&body).unwrap();
                let since = &lease["metadata"]["annotations"]["arpeggio.dev/claimed-since"];
                *seen.lock().unwrap() = since.as_str().map(str::to_owned);
                http::Response::builder().body(kube::client::Body::from(body.to_vec()))
            }
        });
        let metrics = Metrics::registered(&prometheus::Registry::new()).unwrap();
        let (events, _) = EventQueue::new(metrics.events_lost.clone());
        let client = Client::new(server, "lb");
        let (executor, mut reports) = Executor::new(client, "lb".into(), None, events, metrics);
        let subject = Subject::Pool("home".to_owned());
        let mut turns = Vec::new();
        while let Ok(Some(turn)) =
            tokio::time::timeout(Duration::from_millis(50), executor.turns.for_a_lock()).await
        {
            turns.push(turn);
        }
        executor.start(Task { subject, effect: claim() });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let before = server_clock::now();
        turns.clear();
        let report = tokio::time::timeout(TIME_LIMIT, reports.recv()).await.unwrap().unwrap();
        assert!(report.result.is_ok(), "{report:?}");
        let since: Timestamp = said.lock().unwrap().take().unwrap().parse().unwrap();
        assert!(since >= before, "{since} {before}");
    }

    /// Two Services leave a lock by one write, of which the second one has come again meanwhile.
    #[tokio::test]
    async fn of_many_who_leave_a_lock_each_is_asked_for_before_it_is_written() {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let server = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let needs = path.ends_with("/second");
            seen.lock().unwrap().push(format!("{method} {path}"));
            let status = Status::failure("not found", "NotFound").with_code(404);
            let (code, answer) = if needs { (200, second()) } else { (404, json!(status)) };
            let body = kube::client::Body::from(answer.to_string().into_bytes());
            async move { http::Response::builder().status(code).body(body) }
        });
        let metrics = Metrics::registered(&prometheus::Registry::new()).unwrap();
        let (events, _) = EventQueue::new(metrics.events_lost.clone());
        let client = Client::new(server, "lb");
        let (executor, _) = Executor::new(client, "lb".into(), None, events, metrics);
        let reference = |name: &str| lock::ServiceRef {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: "u".to_owned(),
        };
        let release = |names: &[&str]| Release {
            address: "10.0.0.1".parse().unwrap(),
            services: names.iter().map(|name| reference(name)).collect(),
            change: Change::Delete { lease_uid: "l".to_owned(), version: 1 },
        };
        let done = executor.release(&release(&["first", "second", "third"])).await.unwrap();
        assert!(matches!(done, Observed::Needed(_)), "{done:?}");
        let service = |name| format!("GET /api/v1/namespaces/shop/services/{name}");
        assert_eq!(*requests.lock().unwrap(), [service("first"), service("second")]);

        requests.lock().unwrap().clear();
        let done = executor.release(&release(&["first", "third"])).await.unwrap();
        assert!(matches!(done, Observed::NoLock { .. }), "{done:?}");
        let all = requests.lock().unwrap().clone();
        assert_eq!(all[..2], [service("first"), service("third")]);
        assert!(all[2].starts_with("DELETE ") && all[2].ends_with("address-10.0.0.1"), "{all:?}");
    }

    /// What is kept of a pool is there, and the watch does not show it.
    #[tokio::test]
    async fn what_is_kept_gets_its_labels_back_when_somebody_has_taken_them() {
        for (format, is_mended) in [("1", true), ("2", false)] {
            let patches = Arc::new(Mutex::new(Vec::new()));
            let seen = patches.clone();
            let mut kept = json!(last_good::lease("u", "{}"));
            kept["metadata"]["labels"] = json!({});
            kept["metadata"]["resourceVersion"] = json!("7");
            kept["metadata"]["annotations"]["arpeggio.dev/format"] = json!(format);
            let server = tower::service_fn(move |request: http::Request<kube::client::Body>| {
                let (kept, seen) = (kept.clone(), seen.clone());
                async move {
                    let status = Status::failure("there is one", "AlreadyExists").with_code(409);
                    let is_create = request.method() == http::Method::POST;
                    if request.method() == http::Method::PATCH {
                        let bytes = request.into_body().collect_bytes().await.unwrap();
                        let patch: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                        seen.lock().unwrap().push(patch);
                    }
                    let (code, answer) = if is_create { (409, json!(status)) } else { (200, kept) };
                    let body = kube::client::Body::from(answer.to_string().into_bytes());
                    http::Response::builder().status(code).body(body)
                }
            });
            let metrics = Metrics::registered(&prometheus::Registry::new()).unwrap();
            let (events, _) = EventQueue::new(metrics.events_lost.clone());
            let client = Client::new(server, "lb");
            let (executor, _) = Executor::new(client, "lb".into(), None, events, metrics);
            let text = Some("{}".to_owned());
            let write = RecordWrite { uid: "u".to_owned(), text, expected: None };
            let done = executor.write_record(&write).await;
            assert!(done.is_err_and(|error| error.tells_of_change()), "it is decided anew");
            let patches = patches.lock().unwrap();
            assert_eq!(patches.len(), usize::from(is_mended), "{patches:?}");
            for patch in patches.iter() {
                assert_eq!(patch["metadata"]["resourceVersion"], "7");
                assert_eq!(patch["metadata"]["labels"]["arpeggio.dev/record"], "last-good");
            }
        }
    }

    /// A write of the status of a Service, which leaves its addresses as they are.
    fn status_of(service: &Service) -> Effect {
        Effect::WriteService(Box::new(ServiceWrite {
            record: ServiceRecord::parse(service, None),
            addresses: None,
            conditions: Vec::new(),
            releasing: Vec::new(),
            news: Vec::new(),
            refusal: None,
        }))
    }

    /// A load balancer that has no address yet, and of which another program says something without a time.
    fn second() -> serde_json::Value {
        let condition = json!({
            "type": "example.com/Checked", "status": "True", "reason": "Fine", "message": "",
            "lastTransitionTime": null,
        });
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "namespace": "shop", "name": "second", "uid": "new", "resourceVersion": "7" },
            "spec": { "type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{ "port": 80 }] },
            "status": { "loadBalancer": {}, "conditions": [condition] },
        })
    }

    /// A cluster that has shrunk by hundreds of nodes.
    #[tokio::test]
    async fn leases_of_many_nodes_are_deleted_by_a_few_requests_at_a_time() {
        let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (now, seen) = (open.clone(), most.clone());
        let server = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            let (now, seen) = (now.clone(), seen.clone());
            async move {
                seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                http::Response::builder().status(404).body(kube::client::Body::empty())
            }
        });
        let metrics = Metrics::registered(&prometheus::Registry::new()).unwrap();
        let (events, _) = EventQueue::new(metrics.events_lost.clone());
        let client = Client::new(server, "lb");
        let (executor, _) = Executor::new(client, "lb".into(), None, events, metrics.clone());
        let done = || {
            let counts = metrics.requests.with_label_values(&["delete", "Lease", "not_found"]);
            counts.get() + metrics.requests.with_label_values(&["delete", "Lease", "error"]).get()
        };
        for node in 0..200 {
            let name = format!("session-node-{node}");
            executor.delete_lease(LeaseToDelete { name, uid: "u".into(), version: "1".into() });
        }
        while done() < 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(most.load(Ordering::SeqCst), crate::turns::AT_ONCE);
    }

    /// A webhook that hangs where many Services of one namespace are.
    #[tokio::test(start_paused = true)]
    async fn a_namespace_in_which_writes_hang_holds_up_nobody_else() {
        let server = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let hangs = request.uri().path().contains("/namespaces/slow/");
            async move {
                if hangs {
                    return std::future::pending().await;
                }
                http::Response::builder().status(404).body(kube::client::Body::empty())
            }
        });
        let metrics = Metrics::registered(&prometheus::Registry::new()).unwrap();
        let (events, _) = EventQueue::new(metrics.events_lost.clone());
        let client = Client::new(server, "lb");
        let (executor, mut reports) = Executor::new(client, "lb".into(), None, events, metrics);
        let write = |namespace: &str| {
            let mut service = Service::default();
            service.metadata.namespace = Some(namespace.to_owned());
            service.metadata.name = Some("web".to_owned());
            let owner = format!("{namespace}/web").as_str().into();
            Task { subject: Subject::Service(owner), effect: status_of(&service) }
        };
        (0..200).for_each(|_| executor.start(write("slow")));
        tokio::time::sleep(Duration::from_millis(1)).await;
        executor.start(write("quick"));
        let begin = tokio::time::Instant::now();
        let first = reports.recv().await.unwrap();
        assert_eq!(first.subject, Subject::Service("quick/web".into()));
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    }

    #[test]
    fn what_is_not_done_for_long_is_told_without_the_words_of_the_api_server() {
        let effect =
            Effect::WriteRecord(RecordWrite { uid: "u".to_owned(), text: None, expected: None });
        let table = [
            (404, NO_PLACE),
            (408, NO_ANSWER),
            (429, TOO_BUSY),
            (500, NOT_WELL),
            (503, NOT_WELL),
            (504, NO_ANSWER),
        ];
        for (code, why) in table {
            let status = Status::failure("secret", "").with_code(code);
            let Failed::Unanswered { lasting, .. } = of_status(&status, &effect, "lb") else {
                panic!("{code}")
            };
            let told = lasting.to_string();
            let begin = "the API server fails to delete Lease last-good-u in namespace lb: ";
            assert!(
                told.starts_with(&format!("{begin}{why}")) && !told.contains("secret"),
                "{told}"
            );
        }
    }

    #[test]
    fn of_what_refuses_the_status_of_an_object_its_author_is_told_all() {
        let status = AddressPoolStatus::default();
        let pool = PoolWrite { name: "home".to_owned(), status };
        for effect in [status_of(&Service::default()), Effect::WritePool(Box::new(pool))] {
            let told = told(&effect, 403, "policy 'frozen' denied request: not on Fridays");
            assert!(told.ends_with("denied request: not on Fridays"), "{told}");
        }
    }
}

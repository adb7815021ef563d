//! Carries out writes to Leases, and feeds back what came of them.

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arpeggio_election::{Event, LockChange, Outcome, Target, Write};
use arpeggio_runtime::{failure::Failure, telemetry::causes, wall_clock};
use crossbeam_channel::Sender;
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
};

use crate::{
    identity::Identity,
    input::Input,
    leases,
    metrics::Metrics,
    orders::{Order, Request, Result, is_from_the_past},
    watches::Rewinds,
};

/// Longest time for one request; well below the time that a session lasts.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// Requests about locks under way at once. A takeover of a thousand addresses must not open a thousand connections.
const LOCK_REQUESTS: usize = 32;

/// The same for reads.
const LOCK_READS: usize = 8;

/// Sends each order on a task of its own; the outcome comes back as an [`Input`].
#[derive(Clone)]
pub(crate) struct Writer {
    api: Api<Lease>,
    me: Identity,
    inputs: Sender<Input>,
    metrics: Arc<Metrics>,
    lock_requests: Arc<Semaphore>,
    /// For reads of locks, which decide whether an address is announced, and wait for no thousand takes.
    lock_reads: Arc<Semaphore>,
    /// Whether the last request got no answer.
    failing: Arc<AtomicBool>,
    /// Whether a request was refused since one was last done.
    refusing: Arc<AtomicBool>,
    /// How often the API server has gone back to an earlier state.
    rewinds: Arc<watch::Sender<u64>>,
    runtime: Handle,
}

impl Writer {
    /// Must be called within the tokio runtime that will do the work.
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        identity: Identity,
        inputs: Sender<Input>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            me: identity,
            inputs,
            metrics,
            lock_requests: Arc::new(Semaphore::new(LOCK_REQUESTS)),
            lock_reads: Arc::new(Semaphore::new(LOCK_READS)),
            failing: Arc::default(),
            refusing: Arc::default(),
            rewinds: Arc::default(),
            runtime: Handle::current(),
        }
    }

    /// What tells when the API server has gone back to an earlier state.
    pub(crate) fn rewinds(&self) -> Rewinds {
        self.rewinds.subscribe()
    }

    /// Starts with an order and returns at once.
    pub(crate) fn submit(&self, order: Order) {
        let writer = self.clone();
        self.runtime.spawn(async move {
            let (record, outcome) = writer.carry_out(&order).await;
            writer.count(&order.write, outcome);
            if is_from_the_past(&order.write, record.as_ref()) {
                writer.rewound(&order.write);
            }
            let wrote = Event::Wrote { write: order.write, outcome };
            for input in record.into_iter().chain([Input::Election(wrote)]) {
                // Fails only when the engine has ended.
                let _ = writer.inputs.send(input);
            }
        });
    }

    /// First the engine forgets what versions it knows, then the watches show it everything anew.
    fn rewound(&self, write: &Write) {
        tracing::warn!(
            ?write,
            "the API server has gone back to an earlier state, as after etcd was restored from a backup: reading \
             everything anew"
        );
        let _ = self.inputs.send(Input::Election(Event::Rewound)); // Fails only when the engine has ended.
        self.rewinds.send_modify(|count| *count += 1);
    }

    async fn carry_out(&self, order: &Order) -> Result {
        let _turn = match order.write {
            Write::Read { .. } => self.lock_reads.acquire().await.ok(),
            Write::Lock { .. } => self.lock_requests.acquire().await.ok(),
            _ => None, // Sessions wait for nobody.
        };
        let request = self.request(order);
        let answer = tokio::time::timeout(TIME_LIMIT, request).await;
        let (record, outcome) =
            answer.unwrap_or_else(|_| self.failed(&order.lease(&self.me), &"no answer in time"));
        if outcome != Outcome::Failed && self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("the API server answers again");
        }
        if outcome == Outcome::Done && self.refusing.swap(false, Ordering::Relaxed) {
            tracing::info!("the API server does again what it is asked for");
        }
        (record, outcome)
    }

    /// Logged once, and not twice a second for as long as the API server is away.
    fn failed(&self, lease: &str, error: &impl Display) -> Result {
        if self.failing.swap(true, Ordering::Relaxed) {
            tracing::debug!(lease, %error, "request to the API server failed");
        } else {
            tracing::warn!(lease, %error, "request to the API server failed, and is tried again");
        }
        (None, Outcome::Failed)
    }

    /// Logged once, and not for each of a thousand locks.
    fn log_refusal(&self, lease: &str, why: &str) {
        if self.refusing.swap(true, Ordering::Relaxed) {
            tracing::debug!(lease, why, "the API server refused a request");
        } else {
            tracing::warn!(
                lease,
                why,
                "the API server refused a request, which is tried again less and less often"
            );
        }
    }

    /// What follows from a request that brought nothing.
    fn unmet(&self, order: &Order, error: &kube::Error) -> Result {
        let (lease, why) = (order.lease(&self.me), causes(error));
        let failure = error.into();
        let retry_after = match failure {
            Failure::Refused(_) => None,
            Failure::Busy { retry_after } => retry_after,
            _ => return self.failed(&lease, &why),
        };
        let why = why.to_string();
        self.log_refusal(&lease, &why);
        // Users are told of what will not pass by itself.
        let record = match (failure, order.write.target()) {
            (Failure::Refused(cause), Target::Lock(address)) => {
                // Those who are told may not read our namespace.
                let why = cause.in_general().to_owned();
                Some(Input::LockRefused { address, why })
            }
            _ => None,
        };
        (record, Outcome::Refused { retry_after })
    }

    async fn request(&self, order: &Order) -> Result {
        let Some(request) = order.request(&self.me, MicroTime(wall_clock::now())) else {
            return (None, Outcome::Conflict);
        };
        let written = match request {
            Request::Create(lease) => self.api.create(&PostParams::default(), &lease).await,
            Request::Patch(patch) => {
                let (name, params) = (order.lease(&self.me), PatchParams::default());
                self.api.patch(&name, &params, &Patch::Merge(patch)).await
            }
            Request::Read => return self.read(order).await,
        };
        self.conclude(order, written).await
    }

    /// After a conflict the record is read again, so that the next decision is made with what is there now.
    async fn conclude(&self, order: &Order, written: kube::Result<Lease>) -> Result {
        let error = match written {
            Ok(lease) => return (leases::read(&lease), Outcome::Done),
            Err(error) => error,
        };
        match (&error).into() {
            Failure::NotFound | Failure::Conflict => match self.read(order).await {
                (record, Outcome::Done) => (record, Outcome::Conflict),
                failed => failed,
            },
            _ => self.unmet(order, &error),
        }
    }

    /// The record as it is now, also when that is "gone".
    async fn read(&self, order: &Order) -> Result {
        match self.api.get_opt(&order.lease(&self.me)).await {
            Ok(lease) => order.found(&self.me, lease.as_ref()),
            Err(error) => self.unmet(order, &error),
        }
    }

    fn count(&self, write: &Write, outcome: Outcome) {
        let kind = match write {
            Write::Start { .. } => "start_session",
            Write::Renew { .. } => "renew_session",
            Write::Accuse { .. } => "accuse",
            Write::End { .. } => "end_session",
            Write::Lock { change, .. } => match change {
                LockChange::Take { .. } => "take_lock",
                LockChange::Give { .. } => "give_lock",
                LockChange::Refuse { .. } => "refuse_move",
                LockChange::Note { .. } => "note",
                LockChange::Quarantine { .. } => "quarantine",
            },
            Write::Read { .. } => "read_lock",
        };
        let outcome = match outcome {
            Outcome::Done => "done",
            Outcome::Conflict => "conflict",
            Outcome::Refused { .. } => "refused",
            Outcome::Failed => "failed",
        };
        self.metrics.writes.with_label_values(&[kind, outcome]).inc();
    }
}

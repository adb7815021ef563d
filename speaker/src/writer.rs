//! Carries out writes to Leases, and feeds back what came of them.

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arpeggio_api::{lock, lock::LockRecord, session, session::Whereabouts};
use arpeggio_election::{Event, Node, Outcome, Write};
use arpeggio_runtime::{telemetry::causes, wall_clock};
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

use crate::{identity::Identity, input::Input, leases, metrics::Metrics, watches::Rewinds};

/// Longest time for one request; well below the time that a session lasts.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// Requests about locks under way at once. A takeover of a thousand addresses must not open a thousand connections.
const LOCK_REQUESTS: usize = 32;

/// A write, with what the engine knows of the record.
#[derive(Debug)]
pub(crate) struct Order {
    /// What to do.
    pub(crate) write: Write,
    /// Where this node is found on the wire, when the write is about its session.
    pub(crate) whereabouts: Whereabouts,
    /// The lock that the write is about.
    pub(crate) lock: Option<LockRecord>,
}

/// Sends each order on a task of its own; the outcome comes back as an [`Input`].
#[derive(Clone)]
pub(crate) struct Writer {
    api: Api<Lease>,
    me: Node,
    instance: String,
    inputs: Sender<Input>,
    metrics: Arc<Metrics>,
    lock_requests: Arc<Semaphore>,
    /// Whether the last request got no answer.
    failing: Arc<AtomicBool>,
    /// How often the API server has gone back to an earlier state.
    rewinds: Arc<watch::Sender<u64>>,
    runtime: Handle,
}

/// What came of a write: the record as it is now, if it could be had, and the outcome.
type Result = (Option<Input>, Outcome);

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
            me: identity.node,
            instance: identity.instance,
            inputs,
            metrics,
            lock_requests: Arc::new(Semaphore::new(LOCK_REQUESTS)),
            failing: Arc::default(),
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
            Write::Take { .. }
            | Write::Give { .. }
            | Write::Refuse { .. }
            | Write::Note { .. }
            | Write::Quarantine { .. }
            | Write::Read { .. } => self.lock_requests.acquire().await.ok(),
            _ => None, // Sessions wait for nobody.
        };
        let request = self.request(order);
        let answer = tokio::time::timeout(TIME_LIMIT, request).await;
        let (record, outcome) = answer
            .unwrap_or_else(|_| self.failed(&format!("{:?}", order.write), &"no answer in time"));
        if outcome != Outcome::Failed && self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("the API server answers again");
        }
        (record, outcome)
    }

    /// Logged once, and not twice a second for as long as the API server is away.
    fn failed(&self, what: &str, error: &impl Display) -> Result {
        if self.failing.swap(true, Ordering::Relaxed) {
            tracing::debug!(what, %error, "request to the API server failed");
        } else {
            tracing::warn!(what, %error, "request to the API server failed, and is tried again");
        }
        (None, Outcome::Failed)
    }

    async fn request(&self, order: &Order) -> Result {
        let now = MicroTime(wall_clock::now());
        match &order.write {
            Write::Start { epoch, expected: None, lasts } => {
                let lease = self.own(order, *lasts).created(*epoch, now);
                let created = self.api.create(&PostParams::default(), &lease).await;
                self.conclude(&session::name(&self.me), created).await
            }
            Write::Start { epoch, expected: Some(expected), lasts } => {
                let patch = self.own(order, *lasts).started(*epoch, *expected, &now);
                self.patch_session(&self.me, patch).await
            }
            Write::Renew { expected, lasts, .. } => {
                let patch = self.own(order, *lasts).renewed(*expected, &now);
                self.patch_session(&self.me, patch).await
            }
            Write::Accuse { node, expected } => {
                self.patch_session(node, session::accused(&self.me, *expected)).await
            }
            Write::End { node, expected, reason } => {
                self.patch_session(node, session::ended(&self.me, *reason, *expected)).await
            }
            Write::Take { address, expected, epoch, .. } => match &order.lock {
                Some(lock) => {
                    let patch = lock.taken(&self.me, *epoch, *expected, &now);
                    self.patch(&lock::name(*address), patch).await
                }
                None => (None, Outcome::Conflict),
            },
            Write::Give { address, expected, to, epoch, .. } => match &order.lock {
                Some(lock) => {
                    self.patch(&lock::name(*address), lock.taken(to, *epoch, *expected, &now)).await
                }
                None => (None, Outcome::Conflict),
            },
            Write::Refuse { address, expected, to, reason } => {
                let patch = lock::move_refused(to, *reason, *expected);
                self.patch(&lock::name(*address), patch).await
            }
            Write::Note { address, expected, announced } => {
                self.patch(&lock::name(*address), lock::noted(*announced, *expected)).await
            }
            Write::Quarantine { address, expected, stranger } => {
                let patch = lock::quarantined(&self.me, *stranger, *expected);
                self.patch(&lock::name(*address), patch).await
            }
            Write::Read { address } => self.read(&lock::name(*address)).await,
        }
    }

    fn own(&self, order: &Order, lasts: Duration) -> session::OwnSession {
        session::OwnSession {
            node: self.me.clone(),
            instance: self.instance.clone(),
            duration: lasts,
            whereabouts: order.whereabouts.clone(),
        }
    }

    async fn patch_session(&self, node: &Node, patch: k8s_openapi::serde_json::Value) -> Result {
        self.patch(&session::name(node), patch).await
    }

    async fn patch(&self, name: &str, patch: k8s_openapi::serde_json::Value) -> Result {
        let patched = self.api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        self.conclude(name, patched).await
    }

    /// After a conflict the record is read again, so that the next decision is made with what is there now.
    async fn conclude(&self, name: &str, written: kube::Result<Lease>) -> Result {
        match written {
            Ok(lease) => (leases::read(&lease), Outcome::Done),
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {
                match self.read(name).await {
                    (record, Outcome::Done) => (record, Outcome::Conflict),
                    failed => failed,
                }
            }
            Err(error) => self.failed(name, &causes(&error)),
        }
    }

    /// The record as it is now, also when that is "gone". One that is not understood is a failure: nothing can be
    /// decided with it, and it is looked at again later.
    async fn read(&self, name: &str) -> Result {
        match self.api.get_opt(name).await {
            Ok(Some(lease)) => match leases::read(&lease) {
                // Whose it is cannot be told.
                Some(newer @ Input::NewerLock(..)) => (Some(newer), Outcome::Failed),
                Some(record) => (Some(record), Outcome::Done),
                None => (None, Outcome::Failed),
            },
            Ok(None) => (leases::gone(name), Outcome::Done),
            Err(error) => self.failed(name, &causes(&error)),
        }
    }

    fn count(&self, write: &Write, outcome: Outcome) {
        let kind = match write {
            Write::Start { .. } => "start_session",
            Write::Renew { .. } => "renew_session",
            Write::Accuse { .. } => "accuse",
            Write::End { .. } => "end_session",
            Write::Take { .. } => "take_lock",
            Write::Give { .. } => "give_lock",
            Write::Refuse { .. } => "refuse_move",
            Write::Note { .. } => "note",
            Write::Quarantine { .. } => "quarantine",
            Write::Read { .. } => "read_lock",
        };
        let outcome = match outcome {
            Outcome::Done => "done",
            Outcome::Conflict => "conflict",
            Outcome::Failed => "failed",
        };
        self.metrics.writes.with_label_values(&[kind, outcome]).inc();
    }
}

/// Whether a record, read after a write had been refused, has a lower version than the write has expected: one that the
/// API server had shown before.
fn is_from_the_past(write: &Write, record: Option<&Input>) -> bool {
    let version = match record {
        Some(Input::Session(record)) => record.session.version,
        Some(Input::Lock(record)) => record.lock.version,
        _ => return false,
    };
    write.expected().is_some_and(|expected| version < expected)
}

#[cfg(test)]
mod tests {
    use arpeggio_api::{lock::Claim, terms::WrittenAnnounceTerms};
    use arpeggio_election::{Epoch, TakeReason, Version};

    use super::*;

    #[test]
    fn only_a_lower_version_than_expected_is_from_the_past() {
        let address = [192, 168, 0, 240].into();
        let (services, terms) = (Vec::new(), WrittenAnnounceTerms::default());
        let mut lease = Claim { address, pool: "home".into(), services, terms }.created();
        lease.metadata.resource_version = Some("7".into());
        let record = Input::Lock(Box::new(lock::parse(&lease).unwrap()));
        let take = |expected| Write::Take {
            address,
            expected: Version(expected),
            epoch: Epoch(1),
            reason: TakeReason::New,
        };
        for (expected, is_past) in [(6, false), (7, false), (8, true)] {
            assert_eq!(is_from_the_past(&take(expected), Some(&record)), is_past, "{expected}");
        }
        assert!(!is_from_the_past(&take(8), None));
        assert!(!is_from_the_past(&Write::Read { address }, Some(&record)));
    }
}

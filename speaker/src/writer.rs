//! Carries out writes to Leases, and feeds back what came of them.

use std::{
    collections::BTreeSet,
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arpeggio_api::{lock, lock::LockRecord, session, session::Whereabouts};
use arpeggio_election::{Event, Node, Outcome, Target, Version, Write};
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

use crate::{identity::Identity, input::Input, leases, metrics::Metrics, watches::Rewinds};

/// Longest time for one request; well below the time that a session lasts.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// Requests about locks under way at once. A takeover of a thousand addresses must not open a thousand connections.
const LOCK_REQUESTS: usize = 32;

/// The same for reads.
const LOCK_READS: usize = 8;

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

impl Order {
    /// The record's version that was known when the order was given.
    fn known(&self) -> Version {
        let lock = self.lock.as_ref().map(|record| record.lock.version);
        lock.or(self.write.expected()).unwrap_or_default()
    }
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
        let _turn = match (order.write.target(), &order.write) {
            (Target::Lock(_), Write::Read { .. }) => self.lock_reads.acquire().await.ok(),
            (Target::Lock(_), _) => self.lock_requests.acquire().await.ok(),
            (Target::OwnSession | Target::Session(_), _) => None, // Sessions wait for nobody.
        };
        let request = self.request(order);
        let answer = tokio::time::timeout(TIME_LIMIT, request).await;
        let (record, outcome) =
            answer.unwrap_or_else(|_| self.failed(&self.name(&order.write), &"no answer in time"));
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
    fn unmet(&self, write: &Write, error: &kube::Error) -> Result {
        let (lease, why) = (self.name(write), causes(error));
        let failure = error.into();
        let retry_after = match failure {
            Failure::Refused(_) => None,
            Failure::Busy { retry_after } => retry_after,
            _ => return self.failed(&lease, &why),
        };
        let why = why.to_string();
        self.log_refusal(&lease, &why);
        // Users are told of what will not pass by itself.
        let record = match (failure, write.target()) {
            (Failure::Refused(_), Target::Lock(address)) => {
                Some(Input::LockRefused { address, why })
            }
            _ => None,
        };
        (record, Outcome::Refused { retry_after })
    }

    /// The name of the Lease that a write is about.
    fn name(&self, write: &Write) -> String {
        match write.target() {
            Target::OwnSession => session::name(&self.me),
            Target::Session(node) => session::name(&node),
            Target::Lock(address) => lock::name(address),
        }
    }

    async fn request(&self, order: &Order) -> Result {
        let (now, write) = (MicroTime(wall_clock::now()), &order.write);
        let patch = match write {
            Write::Start { epoch, expected: None, lasts, hears } => {
                let lease = self.own(order, *lasts, hears).created(*epoch, now);
                let created = self.api.create(&PostParams::default(), &lease).await;
                return self.conclude(order, created).await;
            }
            Write::Start { epoch, expected: Some(expected), lasts, hears } => {
                self.own(order, *lasts, hears).started(*epoch, *expected, &now)
            }
            Write::Renew { expected, lasts, hears, .. } => {
                self.own(order, *lasts, hears).renewed(*expected, &now)
            }
            Write::Accuse { expected, .. } => session::accused(&self.me, *expected),
            Write::End { expected, reason, .. } => session::ended(&self.me, *reason, *expected),
            Write::Take { expected, epoch, .. } => match &order.lock {
                Some(lock) => lock.taken(&self.me, *epoch, *expected, &now),
                None => return (None, Outcome::Conflict),
            },
            Write::Give { expected, to, epoch, .. } => match &order.lock {
                Some(lock) => lock.taken(to, *epoch, *expected, &now),
                None => return (None, Outcome::Conflict),
            },
            Write::Refuse { expected, to, reason, .. } => {
                lock::move_refused(to, *reason, *expected)
            }
            Write::Note { expected, announced, .. } => lock::noted(*announced, *expected),
            Write::Quarantine { expected, stranger, .. } => {
                lock::quarantined(&self.me, *stranger, *expected)
            }
            Write::Read { .. } => return self.read(order).await,
        };
        let (name, params) = (self.name(write), PatchParams::default());
        let patched = self.api.patch(&name, &params, &Patch::Merge(patch)).await;
        self.conclude(order, patched).await
    }

    fn own(&self, order: &Order, lasts: Duration, hears: &BTreeSet<Node>) -> session::OwnSession {
        session::OwnSession {
            node: self.me.clone(),
            instance: self.instance.clone(),
            duration: lasts,
            whereabouts: order.whereabouts.clone(),
            hears: hears.clone(),
        }
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
            _ => self.unmet(&order.write, &error),
        }
    }

    /// The record as it is now, also when that is "gone". One that is not understood is a failure: nothing can be
    /// decided with it, and it is looked at again later.
    async fn read(&self, order: &Order) -> Result {
        let name = self.name(&order.write);
        match self.api.get_opt(&name).await {
            Ok(Some(lease)) => match leases::read(&lease) {
                // Whose it is cannot be told.
                Some(newer @ Input::NewerLock(..)) => (Some(newer), Outcome::Failed),
                Some(record) => (Some(record), Outcome::Done),
                None => (None, Outcome::Failed),
            },
            Ok(None) => (leases::gone(&name, Some(order.known())), Outcome::Done),
            Err(error) => self.unmet(&order.write, &error),
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
            Outcome::Refused { .. } => "refused",
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
    use arpeggio_election::{Epoch, TakeReason};

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

//! Whether this process is the one that decides.
//!
//! Two controllers at once do no harm (see the [crate]), they only do everything twice. So one leads, and the
//! others keep their index warm. A task of its own holds the leader Lease, so that a long round of decisions delays no
//! renewal; the loop that decides asks [`Leadership::is_ours`] before each round.

use std::{future::Future, time::Duration};

use arpeggio_api::leader::{self, LeaderRecord, Request};
use arpeggio_election::{
    Timestamp,
    leader::{Answer, Candidate, Leader, LeaseTimes, Write},
};
use arpeggio_runtime::{
    failure::Failure,
    health::Awaited,
    shutdown::Shutdown,
    telemetry::causes,
    wall_clock,
    watch::{Change, Haste, Watch},
};
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    runtime::watcher::Config,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

/// Longest time for one request. Two fit into the time for which a leader goes on without an answer.
const TIME_LIMIT: Duration = Duration::from_millis(1_500);

/// For how long a process decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Term {
    /// There is no election: always.
    Unopposed,
    /// Until then, unless it is prolonged.
    Until(Instant),
    /// Not now.
    Follows,
}

/// Says whether this process decides now, and when that changes.
#[derive(Debug)]
pub(crate) struct Leadership {
    term: watch::Receiver<Term>,
    campaign: JoinHandle<()>,
}

impl Leadership {
    /// A process that decides while it holds the leader Lease in `namespace`, or always if it is `unopposed`: then it only
    /// takes part so that there is such a Lease, by which other installations know of this one. `name` must be unlike that
    /// of every other process that ever ran. `awaited` is told when the Lease is known.
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        (name, unopposed): (&str, bool),
        awaited: Awaited,
        shutdown: Shutdown,
    ) -> Self {
        let (sender, term) =
            watch::channel(if unopposed { Term::Unopposed } else { Term::Follows });
        let leases = Api::namespaced(client.clone(), namespace);
        let ours = Config::default().fields(&format!("metadata.name={}", leader::NAME));
        let watch = Watch::new(leases, ours, Haste::Urgent, awaited);
        let server = Server(Api::namespaced(client, namespace));
        let campaign = Campaign::new(server, watch, name, sender);
        let campaign = tokio::spawn(campaign.run(shutdown));
        Self { term, campaign }
    }

    /// Whether this process decides at this moment.
    pub(crate) fn is_ours(&self) -> bool {
        match *self.term.borrow() {
            Term::Unopposed => true,
            Term::Until(end) => Instant::now() < end,
            Term::Follows => false,
        }
    }

    /// Waits until leadership was won, prolonged or lost.
    pub(crate) async fn changed(&mut self) {
        if self.term.changed().await.is_err() {
            // The campaign has ended, which happens at shutdown only.
            std::future::pending::<()>().await;
        }
    }

    /// Waits, when the process has been asked to stop, until others know that they may lead.
    pub(crate) async fn ended(self) {
        // A write and the reading after it may have been under way when the process was asked to stop.
        if timeout(3 * TIME_LIMIT, self.campaign).await.is_err() {
            tracing::warn!("the leader Lease was not given up; others wait until it expires");
        }
    }
}

/// One process's part in the election.
struct Campaign {
    server: Server,
    watch: Watch<Lease>,
    candidate: Candidate,
    terms: LeaseTimes,
    known: Option<LeaderRecord>,
    /// What the candidate's times count from.
    origin: Instant,
    term: watch::Sender<Term>,
}

impl Campaign {
    fn new(server: Server, watch: Watch<Lease>, name: &str, term: watch::Sender<Term>) -> Self {
        let terms = LeaseTimes::default();
        Self {
            watch,
            server,
            candidate: Candidate::new(name, terms),
            terms,
            known: None,
            origin: Instant::now(),
            term,
        }
    }

    async fn run(mut self, shutdown: Shutdown) {
        loop {
            let step = self.candidate.decide(self.now());
            if let Some(write) = step.write {
                let answer = self.write(write).await;
                if is_from_the_past(write, &answer) {
                    tracing::error!(
                        "the API server has gone back to an earlier state, as after etcd was restored from a backup: \
                         this process ends, so that its successor reads everything anew"
                    );
                    shutdown.ask();
                    break;
                }
                self.candidate.answered(answer, self.now());
                self.publish();
                continue;
            }
            let next = self.term_ends().min(self.origin + step.next.as_duration());
            tokio::select! {
                () = shutdown.asked() => break,
                event = self.watch.next() => if let Some(change) = self.watch.pass(event) {
                    self.take(change);
                },
                () = sleep_until(next) => self.publish(),
            }
        }
        self.step_down().await;
    }

    fn take(&mut self, change: Change<Lease>) {
        match change {
            Change::Applied(lease) => self.saw(Some(&lease)),
            Change::Listed(leases) => self.saw(leases.first()),
            // It is there and not understood, and shows when it is written again.
            Change::ListedInPart { gone, .. } if gone.is_empty() => {}
            Change::Deleted(_) | Change::ListedInPart { .. } => self.saw(None),
        }
        self.publish();
    }

    fn saw(&mut self, lease: Option<&Lease>) {
        let record = self.read(lease);
        self.candidate.saw(record, self.now());
    }

    /// What a Lease says; one that cannot be understood is as good as none.
    fn read(&mut self, lease: Option<&Lease>) -> Option<Leader> {
        let known = lease.map(leader::parse).transpose().unwrap_or_else(|error| {
            tracing::warn!(error = %causes(&error), "the leader Lease is damaged");
            None
        });
        let before = std::mem::replace(&mut self.known, known);
        let newer = |record: &Option<LeaderRecord>| record.as_ref()?.newer.clone();
        if let Some(format) = newer(&self.known).filter(|_| newer(&before).is_none()) {
            tracing::warn!(
                format,
                "a newer release wrote the leader Lease, so this one only follows: to go back to it, delete the Lease"
            );
        }
        self.known.as_ref().map(|record| record.leader.clone())
    }

    async fn write(&mut self, write: Write) -> Answer {
        match self.server.send(self.request(write)).await {
            Reply::Done(lease) => self.read(Some(&lease)).map_or(Answer::Nothing, Answer::Written),
            Reply::Refused => match self.server.read().await {
                Some(lease) => Answer::Found(self.read(lease.as_ref())),
                None => Answer::Nothing,
            },
            Reply::Nothing => Answer::Nothing,
        }
    }

    fn request(&self, write: Write) -> Request {
        let now = MicroTime(wall_clock::now());
        let (name, known) = (self.candidate.name(), self.known.as_ref());
        leader::request(write, name, known, self.terms.duration, &now)
    }

    /// Tells the loop, when something has changed, and people, when it matters to them.
    fn publish(&mut self) {
        if *self.term.borrow() == Term::Unopposed {
            return;
        }
        let end = self.candidate.leads_until().map(|until| self.origin + until.as_duration());
        let term = match end {
            Some(end) if Instant::now() < end => Term::Until(end),
            _ => Term::Follows,
        };
        let led = *self.term.borrow() != Term::Follows;
        let leads = term != Term::Follows;
        if led != leads {
            let leader = self.known.as_ref().and_then(|it| it.leader.holder.as_deref());
            tracing::info!(leads, leader, "leadership changed");
        }
        self.term.send_if_modified(|present| std::mem::replace(present, term) != term);
    }

    /// When the present term ends unless it is prolonged.
    fn term_ends(&self) -> Instant {
        match *self.term.borrow() {
            Term::Until(end) => end,
            // As good as never.
            Term::Unopposed | Term::Follows => Instant::now() + self.terms.duration,
        }
    }

    async fn step_down(&mut self) {
        let write = self.candidate.step_down();
        self.publish();
        if let Some(write) = write {
            self.server.send(self.request(write)).await;
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_origin(self.origin.elapsed())
    }
}

/// Whether the Lease has a lower version than it had before. All that this process knows is of a history that is no more.
fn is_from_the_past(write: Write, answer: &Answer) -> bool {
    let expected = write.expected();
    matches!(answer, Answer::Found(Some(found)) if Some(found.version) < expected)
}

/// The leader Lease at the API server. Requests have a time limit.
struct Server(Api<Lease>);

/// What the API server said to a write.
enum Reply {
    Done(Box<Lease>),
    /// The Lease is another one by now.
    Refused,
    /// It may have been done, or not.
    Nothing,
}

impl Server {
    async fn send(&self, request: Request) -> Reply {
        let Self(leases) = self;
        let answer = match request {
            Request::Create(lease) => limited(leases.create(&PostParams::default(), &lease)).await,
            Request::Patch(patch) => {
                let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
                limited(leases.patch(leader::NAME, &params, &patch)).await
            }
        };
        match answer {
            Some(Ok(lease)) => Reply::Done(Box::new(lease)),
            Some(Err(error)) => {
                if Failure::from(&error).tells_of_change() {
                    return Reply::Refused;
                }
                tracing::warn!(error = %causes(&error), "the leader Lease was not written");
                Reply::Nothing
            }
            None => {
                tracing::warn!(limit = ?TIME_LIMIT, "the leader Lease was not written in time");
                Reply::Nothing
            }
        }
    }

    /// The Lease, or that there is none; nothing without an answer.
    async fn read(&self) -> Option<Option<Lease>> {
        limited(self.0.get_opt(leader::NAME)).await?.ok()
    }
}

/// The answer, unless it takes too long.
async fn limited<T>(request: impl Future<Output = kube::Result<T>>) -> Option<kube::Result<T>> {
    timeout(TIME_LIMIT, request).await.ok()
}

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
use arpeggio_runtime::{failure::Failure, shutdown::Shutdown, telemetry::causes, wall_clock};
use futures::{StreamExt as _, stream::BoxStream};
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    runtime::watcher::{self, watcher},
};
use prometheus::IntGauge;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

/// Longest time for one request. Two fit into the time for which a leader goes on without an answer.
const TIME_LIMIT: Duration = Duration::from_millis(1_500);

/// The watch is renewed at least this often, in seconds, so that a dead connection is noticed.
const LONGEST_WATCH: u32 = 30;

/// The pause before a broken watch is started again.
const WATCH_PAUSE: Duration = Duration::from_millis(500);

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
    /// Keeps the channel open where nobody else does.
    _unopposed: Option<watch::Sender<Term>>,
    campaign: Option<JoinHandle<()>>,
}

impl Leadership {
    /// A process that decides without asking anybody.
    pub(crate) fn unopposed(shown: &IntGauge) -> Self {
        shown.set(1);
        let (sender, term) = watch::channel(Term::Unopposed);
        Self { term, _unopposed: Some(sender), campaign: None }
    }

    /// A process that decides while it holds the leader Lease in `namespace`. `name` must be unlike that of every other
    /// process that ever ran. `shown` is 1 while it leads.
    pub(crate) fn contested(
        client: Client,
        namespace: &str,
        name: &str,
        shown: IntGauge,
        shutdown: Shutdown,
    ) -> Self {
        let (sender, term) = watch::channel(Term::Follows);
        let campaign = Campaign::new(client, namespace, name, sender, shown);
        let campaign = tokio::spawn(campaign.run(shutdown));
        Self { term, _unopposed: None, campaign: Some(campaign) }
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
        let Some(campaign) = self.campaign else { return };
        // A write and the reading after it may have been under way when the process was asked to stop.
        if timeout(3 * TIME_LIMIT, campaign).await.is_err() {
            tracing::warn!("the leader Lease was not given up; others wait until it expires");
        }
    }
}

/// One process's part in the election.
struct Campaign {
    server: Server,
    news: BoxStream<'static, watcher::Result<watcher::Event<Lease>>>,
    candidate: Candidate,
    terms: LeaseTimes,
    known: Option<LeaderRecord>,
    /// Whether the list that is under way has shown the Lease.
    listed: bool,
    /// What the candidate's times count from.
    origin: Instant,
    term: watch::Sender<Term>,
    shown: IntGauge,
}

impl Campaign {
    fn new(
        client: Client,
        namespace: &str,
        name: &str,
        term: watch::Sender<Term>,
        shown: IntGauge,
    ) -> Self {
        let leases: Api<Lease> = Api::namespaced(client, namespace);
        let ours = format!("metadata.name={}", leader::NAME);
        let config = watcher::Config::default().fields(&ours).timeout(LONGEST_WATCH);
        let terms = LeaseTimes::default();
        Self {
            news: watcher(leases.clone(), config).boxed(),
            server: Server(leases),
            candidate: Candidate::new(name, terms),
            terms,
            known: None,
            listed: false,
            origin: Instant::now(),
            term,
            shown,
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
                Some(event) = self.news.next() => self.take(event).await,
                () = sleep_until(next) => self.publish(),
            }
        }
        self.step_down().await;
    }

    async fn take(&mut self, event: watcher::Result<watcher::Event<Lease>>) {
        match event {
            Ok(watcher::Event::Init) => self.listed = false,
            Ok(watcher::Event::InitApply(lease) | watcher::Event::Apply(lease)) => {
                self.listed = true;
                self.saw(Some(&lease));
            }
            Ok(watcher::Event::InitDone) if self.listed => {}
            Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => self.saw(None),
            Err(error) => {
                tracing::warn!(error = %causes(&error), "the watch of the leader Lease broke");
                tokio::time::sleep(WATCH_PAUSE).await;
            }
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
        let end = self.candidate.leads_until().map(|until| self.origin + until.as_duration());
        let term = match end {
            Some(end) if Instant::now() < end => Term::Until(end),
            _ => Term::Follows,
        };
        let led = *self.term.borrow() != Term::Follows;
        let leads = term != Term::Follows;
        if led != leads {
            self.shown.set(i64::from(leads));
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
                if let Failure::NotFound | Failure::Conflict = (&error).into() {
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

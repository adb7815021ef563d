//! Joins watches, index and executor: one loop that owns the index.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use arpeggio_allocation::{
    Index, Unlisted,
    effect::TaskReport,
    news::{Kind, News},
};
use arpeggio_api::{
    address_pool::AddressPool,
    lease::{self, KIND_LABEL},
};
use arpeggio_runtime::{
    health::{Awaited, Health, Heartbeat},
    shutdown::Shutdown,
    wall_clock,
    watch::{Complaint, PATIENCE},
};
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Service},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::SignedDuration,
};
use kube::{Api, Client, runtime::watcher::Config};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, Interval, MissedTickBehavior, interval},
};

use crate::{
    executor::Executor,
    feed::{Feed, Undecodable},
    installations::Installations,
    leadership::Leadership,
    metrics::Metrics,
    sources::{Places, Sources},
};

/// How often the pools' statuses are brought up to date; also the pace of the loop when nothing happens.
const PACE: Duration = Duration::from_millis(500);

/// A loop that has not gone round for this long is stuck.
const STUCK: Duration = Duration::from_secs(30);

/// The loop and all that it owns.
pub(crate) struct Controller {
    index: Index,
    services: Feed<Service>,
    pools: Feed<AddressPool>,
    locks: Feed<Lease>,
    sources: Sources,
    leadership: Leadership,
    installations: Installations,
    executor: Executor,
    reports: UnboundedReceiver<TaskReport>,
    metrics: Metrics,
    heartbeat: Heartbeat,
    /// Taken when everything is known and, if this is the leader, the first decisions were made.
    first_pass: Option<Awaited>,
    /// Whether this process decided in its last round.
    decided: bool,
    pace: Interval,
    /// When the process began to observe.
    started: Instant,
}

impl Controller {
    /// A controller that watches with `client` and, while `leadership` is its own, acts through `executor`, whose reports
    /// it gets.
    pub(crate) fn new(
        client: &Client,
        places: &Places,
        index: Index,
        leadership: Leadership,
        (executor, reports): (Executor, UnboundedReceiver<TaskReport>),
        health: &Health,
        metrics: Metrics,
    ) -> Self {
        let locks =
            Config::default().labels(&format!("{KIND_LABEL}={}", lease::Kind::Lock.as_str()));
        let leases = Api::namespaced(client.clone(), &places.namespace);
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            index,
            services: Feed::new(
                Api::all(client.clone()),
                Config::default(),
                health.awaits("Services"),
            ),
            pools: Feed::new(
                Api::all(client.clone()),
                Config::default(),
                health.awaits("AddressPools"),
            ),
            locks: Feed::new(leases, locks, health.awaits("Leases")),
            sources: Sources::new(client, places, health),
            leadership,
            installations: Installations::new(client, &places.namespace, health),
            executor,
            reports,
            metrics,
            heartbeat: health.watches("controller", STUCK),
            first_pass: Some(health.awaits("first pass")),
            decided: false,
            pace,
            started: Instant::now(),
        }
    }

    /// Runs until the process is asked to stop.
    pub(crate) async fn run(mut self, shutdown: &Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.asked() => break,
                () = self.leadership.changed() => {}
                event = self.installations.next() => self.installations.pass(event),
                event = self.services.next() => self.services.pass(event, &mut self.index),
                event = self.pools.next() => self.pools.pass(event, &mut self.index),
                event = self.locks.next() => self.locks.pass(event, &mut self.index),
                shown = self.sources.next() => self.sources.pass(shown, &mut self.index),
                // The sender lives as long as the executor, which is ours.
                Some(report) = self.reports.recv() => self.index.finish(report, &now()),
                // A follower decides nothing, so that its alarms would ring for ever.
                () = until(self.index.next_alarm()), if self.decides() => {}
                _ = self.pace.tick() => {
                    self.go_on_without();
                    self.sources.pass_time(self.started.elapsed(), &mut self.index);
                    self.refresh_pools();
                }
            }
            self.index.set_unlisted(self.unlisted());
            let undecodable = self.pools.is_partial() || self.sources.have_undecodable_pools();
            self.index.set_undecodable_pools(undecodable);
            self.note_left_out();
            self.take_turn();
            // Who leads decides nothing beside an older installation.
            self.metrics.leader.set(i64::from(self.decides()));
            self.heartbeat.beat();
        }
        self.leadership.ended().await;
        self.metrics.leader.set(0);
    }

    /// Only Services and Leases are needed. Where the API server shows these, and not something else, that is done without.
    fn go_on_without(&mut self) {
        let needed_are_shown =
            self.services.goes_well_for(PATIENCE) && self.locks.goes_well_for(PATIENCE);
        if needed_are_shown {
            self.pools.go_on_without();
            self.sources.go_on_without(&mut self.index);
        }
    }

    /// What of that has to do with who may have an address.
    fn unlisted(&self) -> BTreeSet<Unlisted> {
        self.sources.unlisted().into_iter().chain(self.pools.unlisted(None)).collect()
    }

    /// Objects with pools that cannot be decoded are used as they were.
    fn note_left_out(&mut self) {
        let mut uids = self.sources.left_out();
        uids.extend(self.pools.left_out().map(str::to_owned));
        self.index.set_left_out(uids);
    }

    /// Decides, unless another process does. What has happened meanwhile waits in the index until it is our turn.
    fn take_turn(&mut self) {
        if !self.is_complete() {
            return;
        }
        if self.first_pass.is_some() {
            self.index.all_listed();
        }
        let decides = self.decides();
        if decides {
            if !self.decided {
                self.index.takes_over();
            }
            self.decide();
        }
        self.decided = decides;
        if let Some(first_pass) = self.first_pass.take() {
            first_pass.done();
        }
    }

    /// Whether this process is the one that decides in this cluster.
    fn decides(&self) -> bool {
        self.leadership.is_ours() && !self.installations.are_in_our_way()
    }

    fn decide(&mut self) {
        let started = Instant::now();
        let tasks = self.index.decide(&now());
        if !tasks.is_empty() {
            self.metrics.decisions.observe(started.elapsed().as_secs_f64());
        }
        for task in tasks {
            self.executor.start(task);
        }
    }

    /// Whether everything was listed once.
    fn is_complete(&self) -> bool {
        self.index.is_complete() && self.sources.are_listed() && self.installations.are_listed()
    }

    fn refresh_pools(&mut self) {
        // A follower observes the same, so that it need not wait for an hour when it leads.
        let over = self.sources.leases_over(self.started.elapsed());
        // A follower has not looked at what the pools give; who sums up over all controllers would count twice, too.
        self.installations.tell();
        let forgone = self.sources.forgone().into_iter().chain(self.pools.unlisted(None));
        self.metrics.show_unlisted(forgone.map(|it| it.to_string()).collect());
        if !self.decides() {
            self.metrics.show_pools(std::iter::empty());
            self.metrics.show_waiting(&BTreeMap::new());
            self.metrics.show_unannounced(0);
            self.metrics.show_undecodable(BTreeMap::new());
            return self.metrics.show_quarantined(BTreeMap::new());
        }
        if !self.is_complete() {
            return;
        }
        over.into_iter().for_each(|lease| self.executor.delete_lease(lease));
        for (object, remark) in self.index.news(&now()) {
            self.executor.remark(object, remark);
        }
        for (object, news) in self.index.take_outbox() {
            self.executor.announce(object, &news);
        }
        self.show_undecodable();
        let tasks = self.index.decide_pools(&now()).into_iter();
        for task in tasks.chain(self.index.decide_records(&now())) {
            self.executor.start(task);
        }
        self.metrics.show_pools(self.index.usages());
        self.metrics.show_waiting(&self.index.refused());
        self.metrics.show_unannounced(self.index.unannounced());
        self.metrics.show_quarantined(self.index.quarantined());
    }
}

impl Controller {
    /// Tells the authors of what cannot be decoded, and counts it.
    fn show_undecodable(&mut self) {
        let leases = self.locks.undecodable().and(self.sources.undecodable_leases());
        let own = [self.services.undecodable(), self.pools.undecodable(), leases];
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for Undecodable { kind, count, complaints } in
            own.into_iter().chain(self.sources.undecodable())
        {
            *counts.entry(kind).or_default() += count;
            for Complaint { object, why } in complaints {
                self.executor.announce(object, &not_understood(&why));
            }
        }
        self.metrics.show_undecodable(counts);
    }
}

fn not_understood(why: &str) -> News {
    let note = format!(
        "Arpeggio does not understand this object and goes on with what it knew of it, if anything: {why}"
    );
    News { kind: Kind::Warning, reason: "NotUnderstood", action: "Read", note }
}

/// Waits until `time`, by the wall clock as it is now; the pace of the loop corrects what it does meanwhile.
async fn until(time: Option<&Time>) {
    match time {
        Some(time) => {
            let wait = time.0.duration_since(now().0).max(SignedDuration::ZERO);
            tokio::time::sleep(wait.unsigned_abs()).await;
        }
        None => std::future::pending().await,
    }
}

fn now() -> Time {
    Time(wall_clock::now())
}

#[cfg(test)]
mod tests;

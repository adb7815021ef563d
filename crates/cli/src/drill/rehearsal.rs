//! Looks on while it is done.

use std::time::Duration;

use anyhow::{Context as _, bail};
use arpeggio_api::lease;
use arpeggio_runtime::{
    health::Health,
    wall_clock,
    watch::{Change, Haste, Watch},
};
use k8s_openapi::api::{coordination::v1::Lease, events::v1::Event};
use kube::{Api, api::ListParams, runtime::watcher::Config};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep, timeout_at},
};

use super::{
    act::Act,
    nodes::{Asker, Asking},
    plan::{Kind, Plan},
    probe::{Probing, Series, Target},
};
use crate::{
    changes::{Seen, Told, What},
    reader::Reader,
    status::refusal,
};

/// How long somebody looks on before and after.
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(2);

/// Everything that it takes.
pub(super) struct Rehearsal<'a> {
    pub(super) act: Act,
    pub(super) plan: &'a Plan,
    pub(super) targets: Vec<Target>,
    pub(super) askers: Vec<Asker>,
    pub(super) timeout: Duration,
}

/// What was seen. All times are after the beginning of all.
#[derive(Debug, Default)]
pub(super) struct Observation {
    /// When it was done.
    pub(super) acted: Duration,
    pub(super) changes: Vec<(Duration, Told)>,
    /// When the new owner's name was on the lock, and which it is.
    pub(super) taken: Option<(Duration, String)>,
    /// When the owner of before had a session again, where it had lost it.
    pub(super) back: Option<Duration>,
    pub(super) series: Vec<Series>,
    /// What events on the Service say.
    pub(super) events: Vec<String>,
    /// What could not be read.
    pub(super) gaps: Vec<String>,
}

/// The part that sees Leases change.
struct Onlooker<'a> {
    plan: &'a Plan,
    watch: Watch<Lease>,
    seen: Seen,
    began: Instant,
    noted: Observation,
}

impl Rehearsal<'_> {
    /// Does it. Who interrupts this, or runs out of time, has taken back what was not done yet.
    pub(super) async fn carry_out(self) -> anyhow::Result<Observation> {
        let mut terminated = signal(SignalKind::terminate())?;
        let end = tokio::select! {
            seen = self.observed() => seen,
            () = sleep(self.timeout) => {
                Err(anyhow::anyhow!("it was not over within {} s", self.timeout.as_secs()))
            }
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("it was interrupted")),
            _ = terminated.recv() => Err(anyhow::anyhow!("it was interrupted")),
        };
        if end.is_err()
            && let Err(error) = self.act.take_back(self.plan).await
        {
            eprintln!(
                "arpeggio: what was begun could not be taken back ({error:#}); a silence ends by itself"
            );
        }
        end
    }

    async fn observed(&self) -> anyhow::Result<Observation> {
        let began = Instant::now();
        let mut onlooker = Onlooker::new(self, began);
        onlooker.list().await?;
        let probing: Vec<Probing> =
            self.targets.iter().map(|target| Probing::start(target.clone(), began)).collect();
        let asking = Asking::start(&self.act, self.plan, &self.askers, self.timeout, began).await?;
        onlooker.look_until(Instant::now() + BEFORE).await?;
        if let Some(dead) = probing.iter().find(|it| it.answered() == 0) {
            bail!(
                "{} at {} does not answer from here even before anything is done: say another --port, or use --no-probe",
                dead.name,
                self.plan.address
            );
        }
        let since = wall_clock::now();
        onlooker.noted.acted = began.elapsed();
        self.act.begin(self.plan).await?;
        onlooker.look_until_over().await?;
        onlooker.look_until(Instant::now() + AFTER).await?;
        let mut noted = onlooker.noted;
        for probing in probing {
            noted.series.push(probing.stop().await?);
        }
        let heard = asking.stop(noted.taken.as_ref()).await?;
        noted.series.extend(heard);
        self.read_events(since, &mut noted).await;
        Ok(noted)
    }

    /// What speakers told users meanwhile.
    async fn read_events(&self, since: k8s_openapi::jiff::Timestamp, noted: &mut Observation) {
        let Some((namespace, name)) = self.plan.service.split_once('/') else { return };
        let about = format!("regarding.kind=Service,regarding.name={name}");
        let mut reader = Reader::new(self.act.client.clone());
        let events: Vec<Event> =
            reader.inside(namespace, &ListParams::default().fields(&about)).await;
        // Times are of the speakers' clocks, so those of a second before are shown as well.
        let since = since - k8s_openapi::jiff::SignedDuration::from_secs(1);
        let recent = events
            .into_iter()
            .filter(|it| it.event_time.as_ref().is_some_and(|time| time.0 >= since));
        noted.events = recent
            .map(|it| {
                let (reason, note) = (it.reason.unwrap_or_default(), it.note.unwrap_or_default());
                format!("{reason}: {note}")
            })
            .collect();
        noted.gaps = reader.gaps.iter().map(ToString::to_string).collect();
    }
}

impl<'a> Onlooker<'a> {
    fn new(rehearsal: &Rehearsal<'a>, began: Instant) -> Self {
        let Act { client, system, .. } = &rehearsal.act;
        let leases = Api::namespaced(client.clone(), system);
        let config = Config::default().labels(lease::SELECTOR);
        let listed = Health::default().awaits("Leases");
        Self {
            plan: rehearsal.plan,
            watch: Watch::new(leases, config, Haste::Urgent, listed),
            seen: Seen::default(),
            began,
            noted: Observation::default(),
        }
    }

    /// Returns when it is known what there is.
    async fn list(&mut self) -> anyhow::Result<()> {
        while !self.watch.is_listed() {
            if let Some(change) = self.next().await? {
                self.seen.take_in(change, wall_clock::now());
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> anyhow::Result<Option<Change<Lease>>> {
        let event = self.watch.next().await;
        match refusal(&event) {
            Some(why) => bail!("cannot follow Leases: {why}"),
            None => Ok(self.watch.pass(event)),
        }
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        let Some(change) = self.next().await? else { return Ok(()) };
        let at = self.began.elapsed();
        for told in self.seen.take_in(change, wall_clock::now()) {
            self.note(at, told);
        }
        Ok(())
    }

    async fn look_until(&mut self, end: Instant) -> anyhow::Result<()> {
        while let Ok(looked) = timeout_at(end, self.look()).await {
            looked?;
        }
        Ok(())
    }

    async fn look_until_over(&mut self) -> anyhow::Result<()> {
        while !self.is_over() {
            self.look().await.context("the Leases could not be followed to the end")?;
        }
        Ok(())
    }

    fn note(&mut self, at: Duration, told: Told) {
        let is_its = told.address.as_deref() == Some(&self.plan.address.to_string());
        if is_its
            && told.change == What::Moved
            && self.noted.taken.is_none()
            && let Some(to) = &told.to
        {
            self.noted.taken = Some((at, to.clone()));
        }
        let owner = self.plan.owner.session.node.as_str();
        if told.change == What::SessionStarted && told.from.as_deref() == Some(owner) {
            self.noted.back = Some(at);
        }
        self.noted.changes.push((at, told));
    }

    /// Whether the address is elsewhere and its owner of before takes part again.
    fn is_over(&self) -> bool {
        let is_back = self.plan.kind == Kind::Handover || self.noted.back.is_some();
        self.noted.taken.is_some() && is_back
    }
}

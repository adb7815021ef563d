//! Looks on while it is done.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, bail};
use arpeggio_api::lease;
use arpeggio_runtime::{
    health::Health,
    server_clock,
    watch::{Change, Haste, Watch},
};
use k8s_openapi::api::{coordination::v1::Lease, events::v1::Event};
use kube::{Api, Client, api::ListParams, runtime::watcher::Config};
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
    complaint::complaint,
    paint,
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
    /// Whether this machine is a node of the cluster.
    pub(super) on_node: bool,
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
            anstream::eprintln!(
                "arpeggio: what was begun could not be taken back ({}); a silence ends by itself",
                paint::shown(&complaint(&error))
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
        let before = Events::read(&self.act.client, &self.plan.service).await;
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
        let after = Events::read(&self.act.client, &self.plan.service).await;
        noted.events = after.since(&before);
        noted.gaps = after.gaps;
        Ok(noted)
    }
}

/// What users were told of the Service, at one moment.
#[derive(Default)]
struct Events {
    events: Vec<Event>,
    gaps: Vec<String>,
}

impl Events {
    /// `service`: `NAMESPACE/NAME`.
    async fn read(client: &Client, service: &str) -> Self {
        let Some((namespace, name)) = service.split_once('/') else { return Self::default() };
        let about = format!("regarding.kind=Service,regarding.name={name}");
        let mut reader = Reader::new(client.clone());
        let events = reader.inside(namespace, &ListParams::default().fields(&about)).await;
        Self { events, gaps: reader.gaps.iter().map(ToString::to_string).collect() }
    }

    /// What was told since then: what was not there, or was as another version. Each of those who tell has a clock of its own, and
    /// whoever asks has another one.
    fn since(&self, before: &Self) -> Vec<String> {
        if !before.gaps.is_empty() {
            return Vec::new();
        }
        let known: BTreeSet<_> = before.events.iter().map(version).collect();
        let recent = self.events.iter().filter(|it| !known.contains(&version(it)));
        let text = |it: &Option<String>| it.clone().unwrap_or_default();
        recent.map(|it| format!("{}: {}", text(&it.reason), text(&it.note))).collect()
    }
}

fn version(event: &Event) -> (Option<&str>, Option<&str>) {
    (event.metadata.uid.as_deref(), event.metadata.resource_version.as_deref())
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
                self.seen.take_in(change, server_clock::now());
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> anyhow::Result<Option<Change<Lease>>> {
        let event = self.watch.next().await;
        match refusal(&event, self.watch.is_listed()) {
            Some(why) => bail!("cannot follow Leases: {why}"),
            None => Ok(self.watch.pass(event)),
        }
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        let Some(change) = self.next().await? else { return Ok(()) };
        let at = self.began.elapsed();
        for told in self.seen.take_in(change, server_clock::now()) {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_told_meanwhile_is_told_by_no_clock() {
        let event = |uid: &str, version: &str, time: &str, note: &str| -> Event {
            serde_json::from_value(json!({
                "metadata": { "uid": uid, "resourceVersion": version },
                "eventTime": time, "reason": "Announced", "note": note,
                "regarding": {},
            }))
            .unwrap()
        };
        let events = |events: &[&Event]| Events {
            events: events.iter().map(|it| (*it).clone()).collect(),
            gaps: Vec::new(),
        };
        let old = event("1", "5", "2026-01-01T10:00:00.000000Z", "old");
        let again = event("1", "8", "2026-01-01T10:00:00.000000Z", "again");
        let late = event("2", "9", "2026-01-01T08:00:00.000000Z", "by a clock that is late");
        let since = |after: &[&Event]| events(after).since(&events(&[&old]));
        assert!(since(&[&old]).is_empty());
        assert_eq!(
            since(&[&again, &late]),
            ["Announced: again", "Announced: by a clock that is late"]
        );
        let unknown = Events { gaps: vec!["no".to_owned()], ..Events::default() };
        assert!(events(&[&old]).since(&unknown).is_empty(), "it may be an old one");
    }
}

//! Measures the controller beside MetalLB's and beside none, each in a fresh lab of the same kind, one after the other.
//!
//! The lab's only node is switched off: its kube-proxy would have the larger part of the work, and has no part in the
//! answer. What is left are the API server, etcd, the controller in question and the client that creates the Services.
//! The runs without a controller tell how long that client and the API server alone take.

mod contestant;
mod floor;
mod load;

use std::time::Duration;

use arpeggio_lab::{Lab, LabName, Machine, Options};
use arpeggio_scenarios::collect;
use serde_json::{Value, json};

use self::{
    contestant::{Contestant, Running},
    load::{Giver, Load},
};
use crate::{
    api,
    lines::Lines,
    narrator::{chapter, say},
    quantile::rounded,
    server::Writes,
};

/// How long a restarted controller may take until it serves anybody.
const RESTART_PATIENCE: Duration = Duration::from_mins(5);

/// How long a restarted controller is watched for needless writes.
const AFTER_RESTART: Duration = Duration::from_secs(10);

/// What one contestant took.
struct Figures {
    /// From the first create to the answer to the last one, in seconds.
    created: f64,
    /// From the first create until the last Service has its address, in seconds.
    served: Option<f64>,
    cpu_seconds: f64,
    peak_mib: f64,
    /// Writes to the API server, without the creation of the Services themselves.
    writes: Writes,
    restart: Option<Restart>,
}

/// What a restart took, with all Services there.
struct Restart {
    /// From the start of the process until a Service that was created at that moment has its address, in seconds; none
    /// when that took longer than [`RESTART_PATIENCE`].
    useful: Option<f64>,
    /// Writes until [`AFTER_RESTART`] later, those for that Service (and for leadership) among them.
    writes: Writes,
}

/// Runs all of it; each line of the result is a JSON object.
pub(crate) fn run(name: &LabName, count: usize) -> anyhow::Result<()> {
    let mut file = Lines::create("controller.jsonl")?;
    let mut all = Vec::new();
    for contestant in Contestant::ALL {
        chapter(&format!("{count} Services, {}", contestant.title()));
        let figures = measure(name, contestant, count)?;
        file.write(&figures.line(contestant, count))?;
        all.push(figures);
    }
    if let [_, floor, ours, metallb] = &all[..] {
        file.write(&summary(count, floor, ours, metallb))?;
    }
    say(format!("The lines are in {}", file.path().display()));
    Ok(())
}

fn measure(name: &LabName, contestant: Contestant, count: usize) -> anyhow::Result<Figures> {
    let lab = Lab::start(name.clone(), Options { nodes: 1, ..Options::default() })?;
    let outcome = measure_in(&lab, contestant, count).inspect_err(|_| collect(&lab));
    lab.stop()?;
    outcome
}

fn measure_in(lab: &Lab, contestant: Contestant, count: usize) -> anyhow::Result<Figures> {
    lab.power_off(Machine::Node(1))?;
    let mut running = contestant.start(lab)?;
    api::run(lab, async |client| observe(&Load::new(client), &mut running, count).await)
}

async fn observe(load: &Load, running: &mut Running<'_>, count: usize) -> anyhow::Result<Figures> {
    let before = load.writes().await?;
    let giver = running.giver();
    let times = load.create(count, giver).await?;
    let writes = load.writes().await?.since(&before);
    let cost = running.cost()?;
    let restart = match giver {
        Giver::Controller => Some(restart(load, running).await?),
        Giver::Nobody | Giver::Client => None,
    };
    Ok(Figures {
        created: times.created.as_secs_f64(),
        served: times.served.map(|served| served.as_secs_f64()),
        cpu_seconds: cost.map_or(0.0, |cost| cost.cpu_seconds),
        peak_mib: cost.map_or(0.0, |cost| f64::from(cost.peak_kib) / 1024.0),
        writes,
        restart,
    })
}

async fn restart(load: &Load, running: &mut Running<'_>) -> anyhow::Result<Restart> {
    running.stop()?;
    let before = load.writes().await?;
    running.start_again()?;
    let useful = load.serve_one("after-restart", RESTART_PATIENCE).await?;
    tokio::time::sleep(AFTER_RESTART).await;
    let useful = useful.map(|span| span.as_secs_f64());
    Ok(Restart { useful, writes: load.writes().await?.since(&before) })
}

impl Figures {
    fn line(&self, contestant: Contestant, count: usize) -> Value {
        let restart = self.restart.as_ref().map(|restart| {
            json!({
                "useful_after_s": restart.useful.map(rounded),
                "writes": restart.writes.named(),
            })
        });
        json!({
            "bench": "controller",
            "controller": contestant.name(),
            "services": count,
            "created_s": rounded(self.created),
            "last_address_s": self.served.map(rounded),
            "cpu_s": rounded(self.cpu_seconds),
            "peak_mib": rounded(self.peak_mib),
            "writes_per_service": rounded(self.writes.per(count)),
            "writes": self.writes.named(),
            "restart": restart,
        })
    }
}

fn summary(count: usize, floor: &Figures, ours: &Figures, metallb: &Figures) -> Value {
    let useful = |figures: &Figures| {
        figures.restart.as_ref().and_then(|restart| restart.useful).unwrap_or_default()
    };
    let served = |figures: &Figures| figures.served.unwrap_or_default();
    json!({
        "bench": "controller-summary",
        "services": count,
        "metallb_to_ours": {
            "last_address": ratio(served(metallb), served(ours)),
            "cpu": ratio(metallb.cpu_seconds, ours.cpu_seconds),
            "peak_memory": ratio(metallb.peak_mib, ours.peak_mib),
            "restart_until_useful": ratio(useful(metallb), useful(ours)),
        },
        // 1 means bound by the API server alone.
        "last_address_ours_to_floor": ratio(served(ours), floor.created),
    })
}

/// Nothing where one of the two was not measured.
fn ratio(one: f64, other: f64) -> Option<f64> {
    (one > 0.0 && other > 0.0).then(|| rounded(one / other))
}

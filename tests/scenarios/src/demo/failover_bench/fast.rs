//! The fast profile: settings of the speakers for those who want less than the default, and what they cost.

use std::process::Command;

use arpeggio_scenarios::{Home, HostProcess};
use serde_json::json;

use super::{
    Plan,
    arpeggio::Arpeggio,
    crash::series,
    results::{Results, Row},
};
use crate::narrator::chapter;

/// As the user guide has it.
const PROFILE: [&str; 3] = ["--probe-interval=50", "--probe-timeout=25", "--probe-misses=4"];

/// The median that it is for, in seconds.
const MOST_P50: f64 = 0.2;

/// Crashes, and then a time in which every node is busy and nobody dies.
pub(super) fn measure(home: &Home, plan: &Plan, results: &mut Results) -> anyhow::Result<()> {
    chapter("Crashes, ours with the fast profile");
    home.set_speaker_args(&PROFILE)?;
    let failovers = series(home, &mut Arpeggio::start(home)?, plan.crashes, results)?;
    results.row(Row::at_most("fast profile: crash to answer, p50, s", failovers.p50, MOST_P50));

    let minutes = plan.minutes;
    chapter(&format!("Busy nodes, {minutes} min, and nobody dies"));
    let ended = ended_wrongly(home, plan)?;
    let line = json!({ "bench": "false-accusations", "minutes": minutes, "sessions_ended": ended });
    results.line(&line)?;
    let what = format!("fast profile: living nodes taken for dead in {minutes} min of load");
    results.row(Row::at_most(what, f64::from(ended), 0.0));
    Ok(())
}

/// How many sessions of living nodes are ended while each node has a process that wants a core for itself.
fn ended_wrongly(home: &Home, plan: &Plan) -> anyhow::Result<u32> {
    let nodes = home.lab.options().node_machines();
    let before = sessions(home)?;
    let spin = |node| {
        let mut busy = Command::new("sh");
        busy.args(["-c", "while :; do :; done"]);
        HostProcess::start_on(&home.lab, node, "busy", &mut busy)
    };
    let busy = nodes.into_iter().map(spin).collect::<anyhow::Result<Vec<_>>>()?;
    std::thread::sleep(plan.long());
    drop(busy);
    Ok(u32::try_from(sessions(home)? - before)?)
}

/// How many sessions all nodes have had.
fn sessions(home: &Home) -> anyhow::Result<u64> {
    home.lab.options().node_machines().into_iter().map(|node| home.epoch(node)).sum()
}

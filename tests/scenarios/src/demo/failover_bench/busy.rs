//! Busy nodes: whether anybody is taken for dead who lives, and what each profile would have made of the same answers.

use std::process::Command;

use arpeggio_scenarios::{Home, HostProcess};
use serde_json::json;

use super::{
    Plan,
    results::{Results, Row},
};
use crate::narrator::{chapter, say};

/// A time in which every node is busy and nobody dies.
pub(super) fn measure(home: &Home, plan: &Plan, results: &mut Results) -> anyhow::Result<()> {
    let minutes = plan.minutes;
    chapter(&format!("Busy nodes, {minutes} min, and nobody dies"));
    let ended = ended_wrongly(home, plan)?;
    let would_have = ["fast", "standard", "patient"]
        .map(|profile| Ok((profile, would_have_accused(home, profile)?)))
        .into_iter()
        .collect::<anyhow::Result<Vec<_>>>()?;
    for (profile, times) in &would_have {
        say(format!("profile {profile}: would have accused {times} times"));
    }
    let would_have: serde_json::Map<_, _> =
        would_have.into_iter().map(|(profile, times)| (profile.to_owned(), json!(times))).collect();
    let line = json!({
        "bench": "false-accusations", "minutes": minutes, "sessions_ended": ended,
        "would_have_accused": would_have,
    });
    results.line(&line)?;
    let what = format!("living nodes taken for dead in {minutes} min of load");
    results.row(Row::at_most(what, f64::from(ended), 0.0));
    Ok(())
}

/// How often a profile would have taken a living node for dead, by the counters of all nodes.
fn would_have_accused(home: &Home, profile: &str) -> anyhow::Result<f64> {
    let name = format!("would_have_accused_total{{profile=\"{profile}\"}}");
    let mut sum = 0.0;
    for node in home.lab.options().node_machines() {
        let values = home.speaker_metric(node, &name)?;
        sum += values.iter().filter_map(|value| value.parse::<f64>().ok()).sum::<f64>();
    }
    Ok(sum)
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

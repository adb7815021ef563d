//! `arpeggio drill`: failovers that somebody rehearses on a living cluster.

use std::{fs, thread::sleep, time::Duration};

use anyhow::{Context as _, ensure};
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, HostProcess, eprint_line, first_address};
use serde_json::Value;

const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Generous: it is the command that is tested here, on a machine that has other things to do.
const BUDGET: &str = "5s";

pub(crate) fn a_failover_is_rehearsed_on_a_living_cluster(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    nothing_is_done_where_it_would_hurt(home, owner)?;
    somebody_who_watches_sees_it(home, |home| an_address_is_handed_over(home, owner))?;
    a_speaker_is_stopped(home)?;
    a_silent_node_is_replaced(home)?;
    a_drill_that_is_killed_ends_by_itself(home)
}

/// The other nodes.
fn others(home: &Home, owner: Machine) -> Vec<String> {
    let nodes = home.lab.options().node_machines().into_iter();
    nodes.filter(|node| *node != owner).map(|node| node.to_string()).collect()
}

fn nothing_is_done_where_it_would_hurt(home: &Home, owner: Machine) -> anyhow::Result<()> {
    let unasked = home.arpeggio_ends(&["drill", "web"])?;
    ensure!(unasked.status.code() == Some(2), "nobody was asked: {unasked:?}");
    let others = others(home, owner);
    for node in &others {
        home.lab.kubectl(&["label", "node", node, &format!("{EXCLUDED}=")])?;
    }
    let refused = home.arpeggio_ends(&["drill", "web", "--yes", "--kind", "silence"])?;
    for node in &others {
        home.lab.kubectl(&["label", "node", node, &format!("{EXCLUDED}-")])?;
    }
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(2), "{refused:?}");
    ensure!(said.contains(&format!("no node but {owner} may announce")), "{said}");
    ensure!(home.holder(first_address().into())? == Some(owner), "nothing was done");
    Ok(())
}

fn an_address_is_handed_over(home: &Home, owner: Machine) -> anyhow::Result<()> {
    let junit = home.lab.folders().logs().join("drill.xml");
    let file = junit.to_string_lossy().into_owned();
    let report = rehearse(home, "handover", &["--http", "/", "--junit", &file])?;
    ensure!(report["from"] == owner.to_string().as_str(), "{report}");
    ensure!(report["probes"].as_array().is_some_and(|it| it.len() == 2), "{report}");
    ensure!(report["alsoMoved"].as_array().is_some_and(Vec::is_empty), "{report}");
    let written = fs::read_to_string(&junit)?;
    ensure!(written.contains("tests=\"1\" failures=\"0\""), "{written}");
    Ok(())
}

/// `arpeggio status --watch` meanwhile.
fn somebody_who_watches_sees_it(
    home: &Home,
    drill: impl FnOnce(&Home) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let args = ["status", "--watch", "-o", "json", "-n", "default"];
    let mut watching = HostProcess::arpeggio(&home.lab, "watched-moves", &args)?;
    // It says nothing until something changes.
    sleep(Duration::from_secs(1));
    drill(home)?;
    watching.kill()?;
    let lines = fs::read_to_string(home.lab.folders().logs().join("watched-moves.log"))?;
    let told: Vec<Value> = lines.lines().filter_map(|it| serde_json::from_str(it).ok()).collect();
    let is_the_move = |it: &&Value| {
        it["change"] == "moved" && it["services"] == serde_json::json!(["default/web"])
    };
    ensure!(told.iter().filter(is_the_move).count() == 1, "{lines}");
    Ok(())
}

fn a_speaker_is_stopped(home: &Home) -> anyhow::Result<()> {
    let owner = home.wait_for_owner(first_address())?;
    let others = others(home, owner);
    let itself =
        home.arpeggio_ends(&["drill", "web", "--yes", "--ask-from", &owner.to_string()])?;
    ensure!(itself.status.code() == Some(2), "it would not hear itself: {itself:?}");
    let report = rehearse(home, "stop-speaker", &["--ask-from", &others.join(",")])?;
    asked(&report, &others)?;
    ensure!(report["backAfterMs"].is_u64(), "the new pod has a session: {report}");
    Ok(())
}

/// Each of these nodes has asked, and was answered.
fn asked(report: &Value, nodes: &[String]) -> anyhow::Result<()> {
    for node in nodes {
        let name = format!("who-has {node}");
        let probes = report["probes"].as_array().into_iter().flatten();
        let probe = probes.clone().find(|it| it["name"] == name.as_str());
        let probe = probe.with_context(|| format!("{name} is missing: {report}"))?;
        let (attempts, failed) = (probe["attempts"].as_u64(), probe["failed"].as_u64());
        ensure!(attempts > Some(40) && failed < attempts, "{report}");
        eprint_line(&format!("{name}: {} ms without an answer", probe["gapMs"]));
    }
    Ok(())
}

/// What it reports, and what the client on the LAN hears, which knows nothing of the drill.
fn a_silent_node_is_replaced(home: &Home) -> anyhow::Result<()> {
    let mut report = Value::Null;
    let owner = home.wait_for_owner(first_address())?;
    let others = others(home, owner);
    let seen = home.look_on("a drill has the owner fall silent", Duration::from_secs(1), || {
        let ask = ["--no-probe", "--seconds", "5", "--ask-from", &others.join(",")];
        report = rehearse(home, "silence", &ask)?;
        asked(&report, &others)?;
        let gaps = report["probes"].as_array().into_iter().flatten();
        let longest = gaps.filter_map(|it| it["gapMs"].as_u64()).max();
        ensure!(longest.is_some_and(|it| it > 0), "nodes notice a silence: {report}");
        Ok(())
    })?;
    eprint_line(&format!(
        "silence: nobody told a client who has the address for {} ms",
        seen.silence_ms
    ));
    ensure!(seen.overlap == 0, "never two at once: {seen:?}");
    ensure!(seen.silence_ms < 4_500, "{seen:?}");
    ensure!(seen.owners.len() == 2, "one after the other: {seen:?}");
    let timeline = report["timeline"].to_string();
    ensure!(timeline.contains("silent on the wire"), "ended as a silent node's: {report}");
    let back = report["backAfterMs"].as_u64().context("it comes back")?;
    ensure!(back >= 4_500, "and not before its time: {report}");
    let taken = report["takenOverAfterMs"].as_u64().context("somebody else has it")?;
    ensure!(taken < 4_500, "long before: {report}");
    Ok(())
}

/// Killed while a node is silent, so that nobody takes the mark back.
fn a_drill_that_is_killed_ends_by_itself(home: &Home) -> anyhow::Result<()> {
    let owner = home.wait_for_owner(first_address())?;
    let epoch = home.epoch(owner)?;
    let args = ["drill", "web", "--kind", "silence", "--seconds", "8", "--yes", "--no-probe"];
    let mut drill = HostProcess::arpeggio(&home.lab, "killed-drill", &args)?;
    home.wait_until("the silent node has lost its session", || {
        let status: Value = serde_json::from_str(&home.arpeggio(&["status", "-o", "json"])?)
            .map_err(anyhow::Error::from)?;
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let is_over =
            |it: &&Value| it["node"] == owner.to_string().as_str() && it["session"] == "ended";
        nodes.iter().find(is_over).map(drop).ok_or_else(|| status.to_string().into())
    })?;
    drill.kill()?;
    home.wait_until("its node takes part again", || match home.epoch(owner)? {
        now if now > epoch => Ok(()),
        now => Err(format!("epoch {now}").into()),
    })?;
    home.wait_until("nothing has a problem", || {
        let problems = home.arpeggio(&["status", "--problems"])?;
        let none = ["no address has a problem", "no node has a problem"];
        if none.iter().all(|it| problems.contains(it)) { Ok(()) } else { Err(problems.into()) }
    })?;
    let session = format!("session-{owner}");
    let lease =
        home.lab.kubectl(&["get", "lease", "-n", "arpeggio-system", &session, "-o", "json"])?;
    ensure!(!lease.contains("rehearsed-silence"), "the mark is gone: {lease}");
    let successor = home.wait_for_owner(first_address())?;
    ensure!(successor != owner, "nothing moves back by itself");
    Ok(())
}

/// What a drill reports that is carried out, and within its budget.
fn rehearse(home: &Home, kind: &str, more: &[&str]) -> anyhow::Result<Value> {
    let args = ["drill", "web", "--kind", kind, "--yes", "--budget", BUDGET, "-o", "json"];
    let told = home.arpeggio(&[&args[..], more].concat())?;
    let report: Value = serde_json::from_str(&told).with_context(|| told.clone())?;
    eprint_line(&format!(
        "{kind}: another node had the address after {} ms, {} ms without an answer",
        report["takenOverAfterMs"], report["gapMs"]
    ));
    ensure!(report["withinBudget"] == true, "{report}");
    ensure!(report["to"].is_string() && report["to"] != report["from"], "{report}");
    let owner = home.wait_for_owner(first_address())?;
    ensure!(report["to"] == owner.to_string().as_str(), "{owner} answers: {report}");
    Ok(report)
}

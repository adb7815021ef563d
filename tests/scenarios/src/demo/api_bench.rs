//! Measures what speakers at rest cost the API server: with few and with many addresses, with few nodes and with many.
//!
//! Each node is a bare host: a network namespace on the lab's LAN with a real speaker in it, and a Node object that was
//! made by hand. Nothing else runs there, so that all that the host receives over IP is for the speaker. The API server is a
//! real one; the controllers of Kubernetes are stopped, and the lab's own node is switched off.
//!
//! All speakers of many nodes share the processors of this machine with the API server, which they do not elsewhere: what
//! is counted here are requests and bytes, not time. Two processors are busy with 200 speakers; some of their watches break then.

mod fleet;
mod meter;

use std::{thread::sleep, time::Duration};

use arpeggio_lab::{Lab, LabName, Machine, Options};
use arpeggio_scenarios::collect;
use serde_json::json;

use self::{
    fleet::Fleet,
    meter::{Meter, Rates},
};
use crate::{
    lines::Lines,
    narrator::{chapter, say},
    quantile::rounded,
};

const FEW_NODES: u8 = 3;
const FEW_ADDRESSES: u32 = 10;
const MANY_ADDRESSES: u32 = 1_000;

/// Would write Nodes' conditions and taints while nothing is to happen.
const BYSTANDERS: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

/// A gained address is announced four times more, 1.1 s apart; new sessions have been renewed twice by then.
const SETTLE: Duration = Duration::from_secs(12);

/// The targets: renewals a second for each node, and in all with many nodes.
const MOST_PER_NODE: f64 = 0.4;
const MOST_IN_ALL: f64 = 25.0;
/// What is left to chance when some thirty writes are counted.
const SAME: f64 = 1.1;

/// Runs all of it; each line of the result is a JSON object.
pub(crate) fn run(name: &LabName, nodes: u8) -> anyhow::Result<()> {
    let mut file = Lines::create("api.jsonl")?;
    let lab = Lab::start(name.clone(), Options { nodes: 1, ..Options::default() })?;
    let measured = measure(&lab, nodes, &mut file).inspect_err(|_| collect(&lab))?;
    lab.stop()?;
    show(&measured);
    say(format!("The lines are in {}", file.path().display()));
    Ok(())
}

/// What was measured.
struct Measured {
    few_addresses: Rates,
    many_addresses: Rates,
    many_nodes: Rates,
}

fn measure(lab: &Lab, nodes: u8, file: &mut Lines) -> anyhow::Result<Measured> {
    lab.power_off(Machine::Node(1))?;
    let control = lab.options().control_machine();
    BYSTANDERS.iter().try_for_each(|component| lab.stop_component(control, component))?;
    let meter = Meter::new(lab)?;
    let mut fleet = Fleet::new(lab)?;

    chapter(&format!("{FEW_NODES} nodes, {FEW_ADDRESSES} addresses"));
    fleet.grow_to(FEW_NODES)?;
    fleet.give(FEW_ADDRESSES)?;
    let few_addresses = rest(&meter, &fleet, file)?;
    chapter(&format!("{FEW_NODES} nodes, {MANY_ADDRESSES} addresses"));
    fleet.give(MANY_ADDRESSES)?;
    let many_addresses = rest(&meter, &fleet, file)?;
    chapter(&format!("{nodes} nodes, {MANY_ADDRESSES} addresses"));
    fleet.grow_to(nodes)?;
    let many_nodes = rest(&meter, &fleet, file)?;
    Ok(Measured { few_addresses, many_addresses, many_nodes })
}

fn rest(meter: &Meter<'_>, fleet: &Fleet<'_>, file: &mut Lines) -> anyhow::Result<Rates> {
    sleep(SETTLE);
    let rates = meter.measure(&fleet.speakers)?;
    file.write(&json!({
        "bench": "api",
        "nodes": fleet.speakers.len(),
        "addresses": fleet.addresses(),
        "writes_per_s": rounded(rates.writes),
        "writes_per_s_and_node": rounded(rates.writes_per_node()),
        "writes": rates.kinds,
        "watches_per_speaker": rounded(rates.watches),
        "received_bytes_per_s_and_speaker": rates.received.round(),
        "cpu_percent_per_speaker": rounded(rates.cpu * 100.0),
    }))?;
    Ok(rates)
}

fn show(measured: &Measured) {
    let Measured { few_addresses, many_addresses, many_nodes } = measured;
    let ratio = many_addresses.writes / few_addresses.writes;
    let per_node = [few_addresses, many_addresses, many_nodes].map(Rates::writes_per_node);
    let rows = [
        ("writes with 1,000 addresses to those with 10", ratio, SAME),
        ("writes a second and node, 10 addresses", per_node[0], MOST_PER_NODE),
        ("writes a second and node, 1,000 addresses", per_node[1], MOST_PER_NODE),
        ("writes a second and node, many nodes", per_node[2], MOST_PER_NODE),
        ("writes a second in all, many nodes", many_nodes.writes, MOST_IN_ALL),
    ];
    chapter("Results");
    for (what, value, most) in rows {
        let verdict = if value <= most { "reached" } else { "NOT reached" };
        say(format!("{what:<46} {:>8}   {verdict:<12} at most {most}", rounded(value)));
    }
}

//! Measures what is said on the wire, side by side in one run: the kernel's own answers, our speaker's and MetalLB's.
//!
//! Times of one machine say little about another; ratios do, when all were measured in the same minutes by the same client.
//! Speakers run as plain processes in the nodes' networks: their pods would add nothing to what is measured. Neither
//! would kubelet and kube-proxy, which are stopped since they would have the larger part of the work with thousands of
//! Services.

mod contestants;
mod flood;
mod gain;
mod latency;
mod results;
mod scale;
mod unrelated;

use arpeggio_lab::{Lab, LabName, Options};
use arpeggio_scenarios::collect;
use clap::ValueEnum;

use self::{
    contestants::World,
    results::{Results, head},
};
use crate::narrator::chapter;

/// One speaker of ours with few addresses, MetalLB's, one of ours with many, and none.
const NODES: u8 = 4;

/// What would be busy with thousands of Services.
const BYSTANDERS: [&str; 3] = ["kube-proxy", "kubelet", "containerd"];

/// A part of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// From request to reply, for one client that asks now and then.
    Latency,
    /// Replies to one client that asks as fast as it can.
    Flood,
    /// Processor time that requests for other machines take.
    Unrelated,
    /// From the first to the last announcement of 1,000 addresses gained at once.
    Gain,
    /// Answers and memory with 10,000 addresses.
    Scale,
}

/// Runs these parts, or all if none is named.
pub(crate) fn run(name: &LabName, parts: &[Part]) -> anyhow::Result<()> {
    let parts = if parts.is_empty() { Part::value_variants() } else { parts };
    let mut results = Results::create("wire.jsonl", head())?;
    let lab = Lab::start(name.clone(), Options { nodes: NODES, ..Options::default() })?;
    on_the_wire(&lab, parts, &mut results).inspect_err(|_| collect(&lab))?;
    lab.stop()?;
    results.show();
    Ok(())
}

fn on_the_wire(lab: &Lab, parts: &[Part], results: &mut Results) -> anyhow::Result<()> {
    for node in lab.options().node_machines() {
        BYSTANDERS.iter().try_for_each(|component| lab.stop_component(node, component))?;
    }
    chapter("Ten addresses each");
    let mut world = World::start(lab)?;
    for part in parts {
        match part {
            Part::Latency => latency::measure(&world, results)?,
            Part::Flood => flood::measure(&world, results)?,
            Part::Unrelated => unrelated::measure(&world, results)?,
            Part::Gain => gain::measure(&mut world, results)?,
            Part::Scale => scale::measure(&mut world, results)?,
        }
    }
    Ok(())
}

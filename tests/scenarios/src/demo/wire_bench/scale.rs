//! Answers and memory with many addresses.

use std::{
    thread,
    time::{Duration, Instant},
};

use arpeggio_scenarios::HostProcess;
use serde_json::json;

use super::{
    contestants::{Contestant, FEW, Ours, World},
    gain, latency,
    results::{Results, Row},
};
use crate::{
    narrator::{chapter, say},
    quantile::rounded,
};

/// How many addresses are many.
const MANY: u32 = 10_000;
/// How long ours may take to announce them, beginning when the last lock was written.
const PATIENCE: Duration = Duration::from_mins(1);
/// The same for MetalLB, beginning when it is started.
const METALLB_PATIENCE: Duration = Duration::from_secs(75);
/// A gained address is announced four times more, 1.1 s apart. Answers are measured when that is over.
const SETTLE: Duration = Duration::from_secs(6);
/// The median with many addresses may differ from that with few by this factor.
const MOST_TO_FEW: f64 = 1.1;
/// Memory with few and with many addresses, in MiB.
const MOST_MIB: [f64; 2] = [15.0, 60.0];

/// Gives many addresses to a second speaker of ours and to MetalLB's.
pub(super) fn measure(world: &mut World, results: &mut Results) -> anyhow::Result<()> {
    chapter("Ten thousand addresses");
    let few = [resident(&world.few.process)?, resident(&world.metallb.process)?];
    let mut many = match world.many.take() {
        Some(many) => many,
        None => gain::start(world)?,
    };
    timed("ours", || many.give(MANY, PATIENCE))?;
    thread::sleep(SETTLE);
    answers(world, &many, results)?;
    let ours = resident(&many.process)?;
    world.many = Some(many);
    let metallb = metallb(world)?;
    results.line(&json!({
        "bench": "memory",
        "few": FEW,
        "many": MANY,
        "arpeggio": { "few_mib": few[0], "many_mib": ours },
        "metallb": { "few_mib": few[1], "many_mib": metallb },
    }))?;
    let [few, few_metallb] = few;
    let (with_few, with_many) =
        ("resident memory with 10 addresses, MiB", "resident memory with 10,000 addresses, MiB");
    results.row(memory_row(with_few, few, Some(few_metallb), MOST_MIB[0]));
    results.row(memory_row(with_many, ours, metallb, MOST_MIB[1]));
    Ok(())
}

/// Asks both speakers of ours in turn.
fn answers(world: &World, many: &Ours, results: &mut Results) -> anyhow::Result<()> {
    let contestants =
        [Contestant::kernel()?, world.few.contestant("few")?, many.contestant("many")?];
    let latencies = latency::in_turn(world, &contestants)?;
    results.line(&latency::line("arp-answer-many", &latencies))?;
    let [_, few, many] = &latencies;
    let to_few = rounded(many.p50 / few.p50);
    results.row(Row {
        what: "p50 with 10,000 addresses to that with 10",
        kernel: None,
        ours: to_few,
        metallb: None,
        target: format!("at most {MOST_TO_FEW}"),
        reached: to_few <= MOST_TO_FEW,
    });
    Ok(())
}

/// MetalLB's memory with many addresses; `None` if it does not get that far in time.
fn metallb(world: &mut World) -> anyhow::Result<Option<f64>> {
    match timed("MetalLB's", || world.metallb.give(MANY, METALLB_PATIENCE)) {
        Ok(()) => resident(&world.metallb.process).map(Some),
        Err(error) => {
            say(format!("MetalLB's speaker is left out: {error:#}"));
            Ok(None)
        }
    }
}

fn memory_row(what: &'static str, ours: f64, metallb: Option<f64>, most: f64) -> Row {
    let target = format!("under {most}");
    Row { what, kernel: None, ours, metallb, target, reached: ours < most }
}

/// In MiB.
fn resident(process: &HostProcess) -> anyhow::Result<f64> {
    Ok(rounded(f64::from(process.cost()?.resident_kib) / 1024.0))
}

fn timed(whose: &str, act: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let begin = Instant::now();
    act()?;
    say(format!("{whose}: {MANY} answered for after {:.1} s", begin.elapsed().as_secs_f64()));
    Ok(())
}

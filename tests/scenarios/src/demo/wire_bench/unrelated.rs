//! What requests for other machines cost: they are broadcasts, so every node gets them.

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    contestants::World,
    results::{Results, Row},
};
use crate::{client::Client, narrator::chapter, quantile::rounded};

/// How many requests are sent in a second, and how many of them at once.
const RATE: u32 = 50_000;
const BURST: u32 = 50;
/// For how long.
const FLOOD: Duration = Duration::from_secs(10);
/// How much of one core ours may take, in percent.
const MOST_PERCENT: f64 = 1.0;

/// Sends them while both speakers listen, each with a few addresses; before that both listen to nothing for as long.
pub(super) fn measure(world: &World, results: &mut Results) -> anyhow::Result<()> {
    chapter("Requests for other machines");
    let ((), [idle, idle_metallb]) = busy(world, || {
        thread::sleep(FLOOD);
        Ok(())
    })?;
    let (sent, [ours, metallb]) = busy(world, || flood(world))?;
    results.line(&json!({
        "bench": "unrelated-requests",
        "sent_per_s": (f64::from(sent) / FLOOD.as_secs_f64()).round(),
        "arpeggio": { "core_percent": ours, "idle_core_percent": idle },
        "metallb": { "core_percent": metallb, "idle_core_percent": idle_metallb },
    }))?;
    results.row(Row {
        what: "50,000 requests a second for others, % of a core",
        kernel: None,
        ours,
        metallb: Some(metallb),
        target: format!("under {MOST_PERCENT}"),
        reached: ours < MOST_PERCENT,
    });
    Ok(())
}

/// How much of one core our speaker and MetalLB's take meanwhile, in percent.
fn busy<T>(
    world: &World,
    meanwhile: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, [f64; 2])> {
    let spent = || -> anyhow::Result<[f64; 2]> {
        let ours = world.few.process.cost()?.cpu_seconds;
        Ok([ours, world.metallb.process.cost()?.cpu_seconds])
    };
    let (begin, before) = (Instant::now(), spent()?);
    let result = meanwhile()?;
    let (after, span) = (spent()?, begin.elapsed().as_secs_f64());
    let percent = |who: usize| rounded((after[who] - before[who]) / span * 100.0);
    Ok((result, [percent(0), percent(1)]))
}

/// Sends bursts at fixed times; returns how many frames the kernel took.
fn flood(world: &World) -> anyhow::Result<u32> {
    let client = Client::asking_for(world.lab, &[])?;
    let begin = Instant::now();
    let mut sent = 0;
    for burst in 0.. {
        let due = Duration::from_secs(u64::from(burst * BURST)) / RATE;
        if due >= FLOOD {
            break;
        }
        thread::sleep(due.saturating_sub(begin.elapsed()));
        for number in 0..BURST {
            let address = Ipv4Addr::from_bits(0xac10_0000 + (burst * BURST + number) % 0xffff);
            sent += u32::from(client.send(&client.question(address).broadcast().to_bytes()));
        }
    }
    Ok(sent)
}

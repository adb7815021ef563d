//! Replies to one client that asks as fast as it can.
//!
//! All of it happens on this machine's cores: the client's asking and counting, and the answering. The kernel answers on
//! the asker's core and time, a speaker on another core, at the same time, if there is one that is free.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use arpeggio_lab::Lab;
use arpeggio_link::packet::{BATCH, Inbox};
use serde_json::json;

use super::{
    contestants::{Contestant, World},
    results::{Results, Row},
};
use crate::{client::Client, narrator::chapter, quantile::rounded};

/// For how long each is asked.
const FLOOD: Duration = Duration::from_secs(4);
/// The client lets replies come together for this long before it counts them. To be woken up for each costs more than the
/// reply itself, and costs it whoever answers; a socket holds the replies of many times as long.
const PAUSE: Duration = Duration::from_micros(200);
/// Ours must answer at least as many as the kernel, and so many times as many as MetalLB.
const LEAST_TO_KERNEL: f64 = 1.0;
const LEAST_TO_METALLB: f64 = 3.0;

/// Requests and replies per second.
struct Rates {
    asked: f64,
    answered: f64,
}

/// Floods the kernel, our speaker and MetalLB's, one after the other.
pub(super) fn measure(world: &World, results: &mut Results) -> anyhow::Result<()> {
    chapter("A flood of requests by one client");
    let mut line = json!({ "bench": "arp-flood", "seconds": FLOOD.as_secs() });
    let mut answered = Vec::new();
    for contestant in world.contestants()? {
        let rates = flood(world.lab, contestant)?;
        line[contestant.name] = json!({
            "asked_per_s": rates.asked.round(),
            "answered_per_s": rates.answered.round(),
        });
        answered.push(rates.answered);
    }
    results.line(&line)?;
    if let [kernel, ours, metallb] = answered[..] {
        let (to_kernel, to_metallb) = (rounded(ours / kernel), rounded(ours / metallb));
        results.row(Row {
            what: "replies under a flood, to the kernel's",
            kernel: Some(1.0),
            ours: to_kernel,
            metallb: Some(rounded(metallb / kernel)),
            target: format!("at least {LEAST_TO_KERNEL}, and {LEAST_TO_METALLB} times MetalLB's"),
            reached: to_kernel >= LEAST_TO_KERNEL && to_metallb >= LEAST_TO_METALLB,
        });
    }
    Ok(())
}

/// Asks by unicast, so that the others have no part in it.
fn flood(lab: &Lab, contestant: Contestant) -> anyhow::Result<Rates> {
    let client = Client::asking_for(lab, &[contestant.address])?;
    let frame = client.question(contestant.address).unicast(contestant.mac).to_bytes();
    let over = AtomicBool::new(false);
    let (asked, answered, span) = thread::scope(|scope| {
        let receiver = scope.spawn(|| count_replies(&client, &over));
        let begin = Instant::now();
        let mut asked = 0;
        while begin.elapsed() < FLOOD {
            asked += usize::from(client.send(&frame));
        }
        let span = begin.elapsed();
        over.store(true, Ordering::Relaxed);
        let answered = receiver.join().map_err(|_| anyhow!("the flood's receiver has crashed"))?;
        anyhow::Ok((asked, answered?, span))
    })?;
    let per_second =
        |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / span.as_secs_f64();
    Ok(Rates { asked: per_second(asked), answered: per_second(answered) })
}

/// Until the flood is over: what comes later was not answered at its rate.
fn count_replies(client: &Client, over: &AtomicBool) -> anyhow::Result<usize> {
    let mut inbox = Inbox::new();
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        let together = client.count(&mut inbox)?;
        count += together;
        if together < BATCH {
            thread::sleep(PAUSE);
        }
    }
    Ok(count)
}

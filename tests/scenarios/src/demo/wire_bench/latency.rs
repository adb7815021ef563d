//! From request to reply, for one client that asks now and then.
//!
//! The client looks for the reply all the time, so that its own waking up is no part of what is measured. What is: the
//! broadcast on its way to every machine, the answerer's waking up if it has to be woken (the kernel has not: it answers
//! before the client's system call returns), its answer, and the way back.

use std::{thread, time::Duration};

use anyhow::ensure;
use serde_json::{Value, json};

use super::{
    contestants::{Contestant, World},
    results::{Results, Row},
};
use crate::{
    client::Client,
    narrator::chapter,
    quantile::{micros, quantile, rounded},
};

/// How often each is asked.
const ROUNDS: usize = 3_000;
/// Of fewer answers the quantiles would be those of the lucky ones.
const LEAST_ANSWERED: usize = ROUNDS * 98 / 100;
/// The pause between two questions; long enough for whoever answers to fall asleep.
const PAUSE: Duration = Duration::from_micros(700);

/// Ours may take this many times the kernel's median.
const MOST_TO_KERNEL: f64 = 4.0;
/// The slowest in a hundred may take this many times the median.
const MOST_SPREAD: f64 = 2.0;

/// What one contestant took.
pub(super) struct Latency {
    name: &'static str,
    answered: usize,
    /// Seconds.
    pub(super) p50: f64,
    p99: f64,
}

/// Asks the kernel, our speaker and MetalLB's in turn.
pub(super) fn measure(world: &World, results: &mut Results) -> anyhow::Result<()> {
    chapter("Request to reply");
    let latencies = in_turn(world, &world.contestants()?)?;
    results.line(&line("arp-answer", &latencies))?;
    let [kernel, ours, metallb] = &latencies;
    let to_kernel = |it: &Latency| rounded(it.p50 / kernel.p50);
    results.row(Row {
        what: "request to reply, p50 to the kernel's",
        kernel: Some(1.0),
        ours: to_kernel(ours),
        metallb: Some(to_kernel(metallb)),
        target: format!("at most {MOST_TO_KERNEL}"),
        reached: to_kernel(ours) <= MOST_TO_KERNEL,
    });
    results.row(Row {
        what: "request to reply, p99 to p50",
        kernel: Some(kernel.spread()),
        ours: ours.spread(),
        metallb: Some(metallb.spread()),
        target: format!("at most {MOST_SPREAD}"),
        reached: ours.spread() <= MOST_SPREAD,
    });
    Ok(())
}

/// Asks all contestants in turn, many times, so that whatever else the machine does meets all alike.
pub(super) fn in_turn<const N: usize>(
    world: &World,
    contestants: &[Contestant; N],
) -> anyhow::Result<[Latency; N]> {
    let addresses: Vec<_> = contestants.iter().map(|it| it.address).collect();
    let client = Client::asking_for(world.lab, &addresses)?;
    let mut spans = contestants.map(|_| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        for (contestant, spans) in contestants.iter().zip(&mut spans) {
            spans.extend(client.time(contestant.address)?);
            thread::sleep(PAUSE);
        }
    }
    for (contestant, spans) in contestants.iter().zip(&spans) {
        let (name, answered) = (contestant.name, spans.len());
        ensure!(answered >= LEAST_ANSWERED, "{name} answered {answered} of {ROUNDS} requests only");
    }
    let mut spans = spans.into_iter();
    Ok(contestants.map(|it| Latency::of(it.name, spans.next().unwrap_or_default())))
}

/// The result for programs; `bench` names the measurement.
pub(super) fn line(bench: &str, latencies: &[Latency]) -> Value {
    let mut line = json!({ "bench": bench, "asked_each": ROUNDS });
    for it in latencies {
        line[it.name] = json!({
            "answered": it.answered,
            "p50_us": micros(Duration::from_secs_f64(it.p50)),
            "p99_us": micros(Duration::from_secs_f64(it.p99)),
            "p99_to_p50": it.spread(),
            "p50_to_first": rounded(it.p50 / latencies[0].p50),
        });
    }
    line
}

impl Latency {
    fn of(name: &'static str, mut spans: Vec<Duration>) -> Self {
        spans.sort_unstable();
        let seconds = |percent| quantile(&spans, percent).as_secs_f64();
        Self { name, answered: spans.len(), p50: seconds(50), p99: seconds(99) }
    }

    fn spread(&self) -> f64 {
        rounded(self.p99 / self.p50)
    }
}

//! Measures, side by side in one run: ARP answers of the speaker and of the kernel, and failovers.
//!
//! Times of one machine say little about another; the ratio to the kernel's own answer, measured at the same moment by
//! the same observer, does.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use arpeggio_lab::{
    Machine,
    observe::{ArpSightings, ArpWatch},
};
use arpeggio_scenarios::{Home, first_address};
use serde_json::{Value, json};

use crate::{
    lines::Lines,
    narrator::{chapter, say},
    report::millis,
    story,
};

/// How often each address is asked for.
const ASK_EVERY: Duration = Duration::from_millis(2);
/// For how long.
const ASK_FOR: Duration = Duration::from_secs(10);
/// How often the new owner is asked for after a crash: the resolution of a failover's time.
const CRASH_ASK_EVERY: Duration = Duration::from_millis(5);
/// How long a failover is waited for.
const CRASH_PATIENCE: Duration = Duration::from_secs(3);
/// How long a node may take to be Ready again.
const BOOT: Duration = Duration::from_mins(1);

/// Runs all measurements; each line of the result is a JSON object.
pub(crate) fn run(home: &Home, crashes: u32) -> anyhow::Result<()> {
    story::furnish(home)?;
    let mut file = Lines::create("wire-and-failover.jsonl")?;
    chapter("ARP answers, beside the kernel's");
    file.write(&answers(home)?)?;
    chapter("Failovers");
    let mut times = Vec::new();
    for crash in 1..=crashes {
        let time = failover(home)?;
        file.write(&json!({ "bench": "failover", "crash": crash, "ms": millis(time) }))?;
        times.push(time);
    }
    times.sort_unstable();
    file.write(&json!({
        "bench": "failover-summary",
        "crashes": crashes,
        "p50_ms": millis(quantile(&times, 50)),
        "max_ms": millis(quantile(&times, 100)),
    }))?;
    say(format!("The lines are in {}", file.path().display()));
    Ok(())
}

/// Asks at the same time for the address that is announced and for the owner's own, which its kernel answers for.
fn answers(home: &Home) -> anyhow::Result<Value> {
    let owner = home.wait_for_owner(first_address())?;
    let own = owner.lan_v4().context("a node has an address")?;
    let watch = |address: Ipv4Addr| ArpWatch::start(&home.lab, Machine::Client, address, ASK_EVERY);
    let (ours, kernel) = (watch(first_address())?, watch(own)?);
    std::thread::sleep(ASK_FOR);
    let (ours, kernel) = (latencies(&ours.stop()?), latencies(&kernel.stop()?));
    let ratio = |percent| {
        let ratio =
            quantile(&ours, percent).as_secs_f64() / quantile(&kernel, percent).as_secs_f64();
        (ratio * 100.0).round() / 100.0
    };
    Ok(json!({
        "bench": "arp-answer",
        "asked_each": ours.len(),
        "ours_p50_us": micros(quantile(&ours, 50)),
        "kernel_p50_us": micros(quantile(&kernel, 50)),
        "ratio_p50": ratio(50),
        "ours_p99_us": micros(quantile(&ours, 99)),
        "kernel_p99_us": micros(quantile(&kernel, 99)),
        "ratio_p99": ratio(99),
    }))
}

/// From each question to the first answer before the next question, sorted.
fn latencies(seen: &ArpSightings) -> Vec<Duration> {
    let ends = seen.asked.iter().skip(1);
    let first = |(asked, next): (&Instant, &Instant)| {
        let mut replies = seen.replies.iter().filter(|reply| !reply.gratuitous);
        let reply = replies.find(|reply| reply.at >= *asked && reply.at < *next)?;
        Some(reply.at - *asked)
    };
    let mut latencies: Vec<Duration> = seen.asked.iter().zip(ends).filter_map(first).collect();
    latencies.sort_unstable();
    latencies
}

/// From the cut of the owner's power to another node's first frame that says who has the address.
fn failover(home: &Home) -> anyhow::Result<Duration> {
    let owner = home.wait_for_owner(first_address())?;
    let watch = ArpWatch::start(&home.lab, Machine::Client, first_address(), CRASH_ASK_EVERY)?;
    let cut = home.lab.power_off(owner)?;
    std::thread::sleep(CRASH_PATIENCE);
    let seen = watch.stop()?;
    let mut after = seen.replies.iter().filter(|reply| reply.at > cut);
    let first = after.find(|reply| Some(reply.mac) != owner.mac());
    home.lab.power_on(owner)?;
    home.lab.wait_for_boot(owner, BOOT)?;
    home.wait_for_session(owner)?;
    Ok(first.context("no other node took over in time")?.at - cut)
}

/// The value below which `percent` of the sorted `values` lie.
fn quantile(values: &[Duration], percent: usize) -> Duration {
    let last = values.len().saturating_sub(1);
    values.get(last * percent / 100).copied().unwrap_or_default()
}

fn micros(span: Duration) -> f64 {
    (span.as_secs_f64() * 10_000_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use arpeggio_lab::observe::ArpReply;

    use super::*;

    #[test]
    fn quantiles_of_few_values() {
        let values: Vec<Duration> = (1..=4).map(Duration::from_millis).collect();
        assert_eq!(quantile(&values, 50), Duration::from_millis(2));
        assert_eq!(quantile(&values, 100), Duration::from_millis(4));
        assert_eq!(quantile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn an_answer_belongs_to_the_question_before_it() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let reply = |millis, gratuitous| ArpReply { at: at(millis), mac: [0; 6], gratuitous };
        let seen = ArpSightings {
            asked: vec![at(0), at(10), at(20), at(30)],
            replies: vec![reply(3, false), reply(12, true), reply(21, false), reply(25, false)],
        };
        let expected = [Duration::from_millis(1), Duration::from_millis(3)];
        assert_eq!(latencies(&seen), expected);
    }
}

//! From a power cut to another node's first announcement.

use std::time::Duration;

use anyhow::Context as _;
use arpeggio_lab::{Machine, observe::ArpWatch};
use arpeggio_scenarios::{Home, first_address};
use serde_json::json;

use super::results::Results;
use crate::{narrator::chapter, quantile::quantile, report::millis, story};

/// How often the new owner is asked for after a crash: the resolution of a failover's time.
const CRASH_ASK_EVERY: Duration = Duration::from_millis(5);
/// How long a failover is waited for.
const CRASH_PATIENCE: Duration = Duration::from_secs(3);
/// How long a node may take to be Ready again.
const BOOT: Duration = Duration::from_mins(1);

/// Cuts the power of the owner several times.
pub(super) fn measure(home: &Home, crashes: u32, results: &mut Results) -> anyhow::Result<()> {
    story::furnish(home)?;
    chapter("Failovers");
    let mut times = Vec::new();
    for crash in 1..=crashes {
        let time = failover(home)?;
        results.line(&json!({ "bench": "failover", "crash": crash, "ms": millis(time) }))?;
        times.push(time);
    }
    times.sort_unstable();
    results.line(&json!({
        "bench": "failover-summary",
        "crashes": crashes,
        "p50_ms": millis(quantile(&times, 50)),
        "max_ms": millis(quantile(&times, 100)),
    }))
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

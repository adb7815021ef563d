//! One address: from the cut of its owner's power to another node's first word about it.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Machine, observe::ArpWatch};
use arpeggio_scenarios::Home;
use serde_json::json;

use super::{
    arpeggio::Arpeggio,
    keepalived::Keepalived,
    metallb::MetalLb,
    results::{Results, Row},
};
use crate::{
    narrator::chapter,
    quantile::{quantile, rounded},
    report::millis,
};

/// How often the client asks: the resolution of a failover's time.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// How long all is well before the cut: as long as those who watch a node need to know that its link is a good one.
const BEFORE: Duration = Duration::from_secs(5);

/// How often an owner dies that is keepalived's, and one of MetalLB's.
const KEEPALIVED_CRASHES: u32 = 5;
const METALLB_CRASHES: u32 = 3;

/// What ours is to reach, in seconds, and how many times keepalived's median.
const MOST_P50: f64 = 0.13;
const MOST_P99: f64 = 0.5;
const MOST_TO_KEEPALIVED: f64 = 0.5;

/// Somebody who lets an address outlive its node.
pub(super) trait Contestant {
    /// For people and machines.
    fn name(&self) -> &'static str;
    /// The address.
    fn address(&self) -> Ipv4Addr;
    /// How long a failover is waited for.
    fn patience(&self) -> Duration;
    /// Switches a node on again and waits until it takes part as before.
    fn bring_back(&mut self, node: Machine) -> anyhow::Result<()>;
}

/// Figures of many failovers, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failovers {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

/// Ours, keepalived's and MetalLB's, one after the other, so that none is in another one's way.
pub(super) fn measure(home: &Home, crashes: u32, results: &mut Results) -> anyhow::Result<()> {
    chapter("Crashes, ours with default settings");
    let mut arpeggio = Arpeggio::start(home)?;
    let ours = series(home, &mut arpeggio, crashes, results)?;
    arpeggio.remove()?;
    chapter("Crashes, keepalived");
    let keepalived = series(home, &mut Keepalived::start(home)?, KEEPALIVED_CRASHES, results)?;
    chapter("Crashes, MetalLB");
    let metallb = series(home, &mut MetalLb::start(home)?, METALLB_CRASHES, results)?;

    let row = |what: &str, of: fn(&Failovers) -> f64, limit: f64| Row {
        peers: [Some(of(&keepalived)), Some(of(&metallb))],
        ..Row::at_most(what, of(&ours), limit)
    };
    results.row(row("crash to another node's answer, p50, s", |it| it.p50, MOST_P50));
    results.row(row("crash to another node's answer, p99, s", |it| it.p99, MOST_P99));
    let ratio = rounded(ours.p50 / keepalived.p50);
    results.row(Row::at_most("p50 to keepalived's", ratio, MOST_TO_KEEPALIVED));
    Ok(())
}

/// Cuts the power of the owner again and again.
pub(super) fn series(
    home: &Home,
    contestant: &mut dyn Contestant,
    crashes: u32,
    results: &mut Results,
) -> anyhow::Result<Failovers> {
    let name = contestant.name();
    let mut times = Vec::new();
    for crash in 1..=crashes {
        let time = failover(home, contestant)?;
        let line = json!({ "bench": "failover", "who": name, "crash": crash, "ms": millis(time) });
        results.line(&line)?;
        times.push(time);
    }
    times.sort_unstable();
    let [p50, p99, max] = [50, 99, 100].map(|percent| quantile(&times, percent).as_secs_f64());
    let failovers = Failovers { p50: rounded(p50), p99: rounded(p99), max: rounded(max) };
    results.line(&json!({
        "bench": "failover-summary",
        "who": name,
        "crashes": crashes,
        "p50_s": failovers.p50,
        "p99_s": failovers.p99,
        "max_s": failovers.max,
    }))?;
    Ok(failovers)
}

/// From the cut of the owner's power to another node's first frame that says who has the address.
fn failover(home: &Home, contestant: &mut dyn Contestant) -> anyhow::Result<Duration> {
    let address = contestant.address();
    let owner = home.wait_for_owner(address)?;
    let time = outage(home, address, owner, contestant.patience())?;
    contestant.bring_back(owner)?;
    Ok(time)
}

/// Cuts the owner's power: how long it takes until another node says that it has the address.
pub(super) fn outage(
    home: &Home,
    address: Ipv4Addr,
    owner: Machine,
    patience: Duration,
) -> anyhow::Result<Duration> {
    let watch = ArpWatch::start(&home.lab, Machine::Client, address, ASK_EVERY)?;
    std::thread::sleep(BEFORE);
    let cut = home.lab.power_off(owner)?;
    std::thread::sleep(patience);
    let replies = watch.stop()?.replies;
    let before = replies.iter().rfind(|reply| reply.at < cut);
    let had_it = before.is_some_and(|reply| Some(reply.mac) == owner.mac());
    ensure!(had_it, "{address} was not announced from {owner} any more when its power was cut");
    let mut others = replies.iter().filter(|reply| Some(reply.mac) != owner.mac());
    let first = others.find(|reply| reply.at > cut);
    let first = first.with_context(|| format!("no node took {address} over in {patience:?}"))?;
    Ok(first.at - cut)
}

//! From the first to the last announcement of addresses that were gained at once.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::Context as _;
use arpeggio_lab::Machine;
use serde_json::json;

use super::{
    contestants::{Ours, World},
    results::{Results, Row},
};
use crate::{announcements::Announcements, narrator::chapter, quantile::rounded};

/// How many addresses are gained.
const GAINED: u32 = 1_000;
/// How long the last one is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take from the first to the last.
const MOST_SECONDS: f64 = 0.5;

/// Kills a speaker without addresses, writes its name on many locks and starts it again: so it gains them all in one
/// decision.
pub(super) fn measure(world: &mut World, results: &mut Results) -> anyhow::Result<()> {
    chapter("A thousand addresses gained at once");
    let mut many = start(world)?;
    many.process.kill()?;
    many.lock(GAINED)?;
    let addresses = many.addresses(0..GAINED);
    let announcements = Announcements::hear(world.lab, &addresses)?;
    many.start_again()?;
    let times = announcements.of_all(None, PATIENCE)?;
    let (first, last) = times.first().zip(times.last()).context("nothing was announced")?;
    let span = (*last - *first).as_secs_f64();
    world.many = Some(many);
    results
        .line(&json!({ "bench": "gain", "addresses": GAINED, "first_to_last_s": rounded(span) }))?;
    results.row(Row {
        what: "1,000 addresses gained, first to last announcement, s",
        kernel: None,
        ours: rounded(span),
        metallb: None,
        target: format!("at most {MOST_SECONDS}"),
        reached: span <= MOST_SECONDS,
    });
    Ok(())
}

/// The speaker that is to have many addresses, with none so far.
pub(super) fn start<'a>(world: &World<'a>) -> anyhow::Result<Ours<'a>> {
    Ours::start(world.lab, Machine::Node(3), "many", Ipv4Addr::new(10, 11, 0, 1))
}

//! From the first to the last announcement of addresses that were gained at once.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use arpeggio_lab::Machine;
use serde_json::json;

use super::{
    client::Client,
    contestants::{Ours, World},
    results::{Results, Row},
};
use crate::{narrator::chapter, quantile::rounded};

/// How many addresses are gained.
const GAINED: u32 = 1_000;
/// How many of them one socket watches. The queue of a socket holds some 250 frames, two come for each address, and one
/// that is lost would be taken for one that was late.
const PER_SOCKET: usize = 100;
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
    let watchers = addresses
        .chunks(PER_SOCKET)
        .map(|chunk| Ok((Client::watching(world.lab, chunk)?, chunk)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    many.start_again()?;
    let span = first_to_last(&watchers)?.as_secs_f64();
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

/// Watches for the first announcement of every address.
fn first_to_last(watchers: &[(Client, &[Ipv4Addr])]) -> anyhow::Result<Duration> {
    let seen = thread::scope(|scope| {
        let threads: Vec<_> = watchers
            .iter()
            .map(|(client, addresses)| scope.spawn(|| announcements(client, addresses)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a watcher has crashed"))?)
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    let all = || seen.iter().flatten();
    let (first, last) =
        (all().min().context("nothing seen")?, all().max().context("nothing seen")?);
    Ok(*last - *first)
}

/// When each of these addresses was first announced.
fn announcements(client: &Client, addresses: &[Ipv4Addr]) -> anyhow::Result<Vec<Instant>> {
    let mut missing: BTreeSet<Ipv4Addr> = addresses.iter().copied().collect();
    let mut seen = Vec::new();
    let begin = Instant::now();
    while !missing.is_empty() {
        let waited = begin.elapsed();
        ensure!(waited < PATIENCE, "{} not announced after {waited:?}", missing.len());
        if let Some(claim) = client.next()?
            && missing.remove(&claim.address)
        {
            seen.push(Instant::now());
        }
    }
    Ok(seen)
}

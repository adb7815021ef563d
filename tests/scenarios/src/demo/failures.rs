//! Writes `docs/failures.md` from what the failure tests have seen.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, ensure};
use arpeggio_scenarios::{FAULTS_SEEN, Seen};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/failures.md");

const HEAD: &str = "# What fails, and what a client sees of it

Each row is a test (`make failures` runs them all and writes this page): a cluster of real parts, a client on the segment that
every 5 ms begins a request for a page over a new connection and asks for the address by ARP, and a fault. Each figure is
that of a single run on one machine.

| column | meaning |
|---|---|
| outage | the longest time without an answered request |
| failed | requests that were not answered within 0.9 s, of all. After a minute of 200 connections a second a client uses its ports again, and loses a request now and then without any fault |
| cut | those of them whose connection was open when the address moved, and was broken |
| silence | the longest time without an answer to \"who has the address?\" |
| overlap | frames of nodes that gave way while another node announced the address as well |
| owners | who announced it, in order |
| streams | a hundred connections that were open before, on each of which something is asked every 50 ms: how many broke, and how long the slowest answer took. Without an answer for 3 s one counts as broken |
| with the forwarder | the same where [the forwarder](connections.md) is installed, in a run of its own; a dash: not run |
| told | the events on the Service meanwhile, and those of its conditions that were others before |

| fault | outage | failed | cut | silence | overlap | owners | streams | with the forwarder | told |
|---|---|---|---|---|---|---|---|---|---|
";

/// Reads what was seen, and writes the page.
pub(crate) fn write() -> anyhow::Result<()> {
    let mut all = Vec::new();
    for entry in fs::read_dir(FAULTS_SEEN).context(MISSING)? {
        let path = entry?.path();
        all.push(read(&path).with_context(|| path.display().to_string())?);
    }
    ensure!(!all.is_empty(), MISSING);
    all.sort_by(|one, other| one.fault.cmp(&other.fault));
    let mut page = HEAD.to_owned();
    let (with, without): (Vec<Seen>, Vec<Seen>) = all.into_iter().partition(|it| it.forwarder);
    for seen in &without {
        let beside = with.iter().find(|it| it.fault == seen.fault);
        row(&mut page, seen, beside)?;
    }
    let longest = without.iter().map(|seen| seen.overlap).max().unwrap_or_default();
    writeln!(page, "\nThe longest overlap of all: {longest} frames.")?;
    fs::write(DOCUMENT, page).with_context(|| format!("write {DOCUMENT}"))
}

const MISSING: &str = "there is nothing in target/failures: run make failures";

fn read(path: &Path) -> anyhow::Result<Seen> {
    Ok(serde_json::from_str(&fs::read_to_string(path)?)?)
}

fn row(page: &mut String, seen: &Seen, with_forwarder: Option<&Seen>) -> std::fmt::Result {
    let Seen { fault, outage_ms, failed, cut, requests, silence_ms, overlap, .. } = seen;
    let or = |parts: &[String], between: &str, nothing: &str| match parts {
        [] => nothing.to_owned(),
        parts => parts.join(between),
    };
    let owners = or(&seen.owners, ", ", "nobody");
    let told = or(&[&seen.told[..], &seen.conditions].concat(), "<br>", "nothing");
    writeln!(
        page,
        "| {fault} | {outage_ms} ms | {failed} of {requests} | {cut} | {silence_ms} ms | {overlap} | {owners} | {} | {} | {told} |",
        streams(Some(seen)),
        streams(with_forwarder),
    )
}

/// What became of the connections that were open.
fn streams(seen: Option<&Seen>) -> String {
    let Some(streams) = seen.and_then(|it| it.streams.as_ref()) else { return "-".to_owned() };
    match streams.opened {
        0 => "none could be opened".to_owned(),
        opened => format!("{} of {opened} broke; {} ms", streams.broken(), streams.slowest_ms),
    }
}

//! Writes `docs/failures.md` from what the failure tests have seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context as _, ensure};
use arpeggio_scenarios::{FAULTS_SEEN, Seen, StreamsSeen};

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
| streams | a hundred connections that were open before, on each of which something is asked every 50 ms: how many broke, how, and how long after its question the last of them did; and how long the slowest answer took. A client that is told by a reset can begin anew at once; one without an answer for 3 s counts as broken, and hung until then |
| with the forwarder | the same where [the forwarder](connections.md) is installed, in a run of its own; a dash: not run |
| told | the events on the Service meanwhile, and those of its conditions that were others before |

| fault | outage | failed | cut | silence | overlap | owners | streams | with the forwarder | told |
|---|---|---|---|---|---|---|---|---|---|
";

/// Reads what was seen, and writes the page.
///
/// # Errors
/// When nothing was seen, and, after all, when a row that the page had has not been seen: its test has failed.
pub(crate) fn write() -> anyhow::Result<()> {
    let mut all = Vec::new();
    for entry in fs::read_dir(FAULTS_SEEN).context(MISSING)? {
        let path = entry?.path();
        all.push(read(&path).with_context(|| path.display().to_string())?);
    }
    ensure!(!all.is_empty(), MISSING);
    let before = fs::read_to_string(DOCUMENT).unwrap_or_default();
    let page = page(all)?;
    fs::write(DOCUMENT, &page).with_context(|| format!("write {DOCUMENT}"))?;
    let missing = missing(&before, &page);
    ensure!(missing.is_empty(), "docs/failures.md has lost rows that were not seen: {missing:?}");
    Ok(())
}

fn page(mut all: Vec<Seen>) -> Result<String, std::fmt::Error> {
    all.sort_by(|one, other| one.fault.cmp(&other.fault));
    let mut page = HEAD.to_owned();
    let (with, without): (Vec<Seen>, Vec<Seen>) = all.into_iter().partition(|it| it.forwarder);
    for seen in &without {
        let beside = with.iter().find(|it| it.fault == seen.fault);
        row(&mut page, seen, beside)?;
    }
    let longest = without.iter().map(|seen| seen.overlap).max().unwrap_or_default();
    writeln!(page, "\nThe longest overlap of all: {longest} frames.")?;
    Ok(page)
}

/// The rows that a page had and has not any more; and those that were run with the forwarder and were not now.
fn missing(before: &str, now: &str) -> Vec<String> {
    let now = runs(now);
    let gone = runs(before).into_iter().filter(|run| !now.contains(run));
    gone.map(|(fault, runs)| format!("{fault} ({runs})")).collect()
}

/// The fault of each row, once for each run.
fn runs(page: &str) -> BTreeSet<(&str, &str)> {
    let rows = page.lines().skip_while(|line| !line.starts_with("|---|---|---")).skip(1);
    let rows = rows.filter(|line| line.starts_with('|'));
    let runs = rows.filter_map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (fault, with) = (*cells.get(1)?, *cells.get(9)?);
        Some([Some((fault, "without the forwarder")), (with != "-").then_some((fault, "with it"))])
    });
    runs.flatten().flatten().collect()
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
        opened if streams.broken.is_empty() => {
            format!("0 of {opened} broke; {} ms", streams.slowest_ms)
        }
        opened => format!(
            "{} of {opened} broke: {} within {} ms; {} ms",
            streams.broken(),
            ends(streams),
            streams.slowest_end_ms,
            streams.slowest_ms
        ),
    }
}

/// How connections broke: who is told by a reset knows at once, and who hangs does not.
fn ends(streams: &StreamsSeen) -> String {
    let end = |(why, count): (&String, &usize)| {
        let word = if why.contains("reset") {
            "reset"
        } else if ["timed out", "temporarily unavailable"].iter().any(|it| why.contains(it)) {
            "hung"
        } else {
            why
        };
        (word.to_owned(), *count)
    };
    let mut counts = BTreeMap::<String, usize>::new();
    for (word, count) in streams.broken.iter().map(end) {
        *counts.entry(word).or_default() += count;
    }
    let counts = counts.iter().map(|(word, count)| format!("{count} {word}"));
    counts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(fault: &str, forwarder: bool, broken: &[(&str, usize)]) -> Seen {
        let broken = broken.iter().map(|(why, count)| ((*why).to_owned(), *count)).collect();
        let streams = StreamsSeen {
            opened: 100,
            broken,
            slowest_ms: 16,
            slowest_end_ms: 180,
            ..StreamsSeen::default()
        };
        Seen { fault: fault.to_owned(), forwarder, streams: Some(streams), ..Seen::default() }
    }

    #[test]
    fn a_reset_is_told_from_a_hang() {
        let told = |broken: &[(&str, usize)]| streams(Some(&seen("power", false, broken)));
        assert_eq!(told(&[]), "0 of 100 broke; 16 ms");
        let reset = ("Connection reset by peer (os error 104)", 97);
        assert_eq!(told(&[reset]), "97 of 100 broke: 97 reset within 180 ms; 16 ms");
        let hung = [
            ("Resource temporarily unavailable (os error 11)", 2),
            ("Connection timed out (os error 110)", 1),
        ];
        assert_eq!(
            told(&[&[reset][..], &hung].concat()),
            "100 of 100 broke: 3 hung, 97 reset within 180 ms; 16 ms"
        );
        assert_eq!(
            told(&[("unexpected end of file", 1)]),
            "1 of 100 broke: 1 unexpected end of file within 180 ms; 16 ms"
        );
    }

    #[test]
    fn a_row_that_was_not_seen_is_named_and_the_others_stay() {
        let all = |fault| [seen(fault, false, &[]), seen(fault, true, &[])];
        let before = page([all("cable"), all("power")].concat()).unwrap();
        let [cable, _] = all("cable");
        let now = page([vec![cable], all("power").into()].concat()).unwrap();
        assert_eq!(missing(&before, &before), [""; 0]);
        assert_eq!(missing(&before, &now), ["cable (with it)"]);
        assert!(now.contains("| power |"));
        let now = page(all("cable").into()).unwrap();
        assert_eq!(missing(&before, &now), ["power (with it)", "power (without the forwarder)"]);
        let present = fs::read_to_string(DOCUMENT).unwrap();
        assert!(runs(&present).len() > 20, "the page that is there is read, too");
    }
}

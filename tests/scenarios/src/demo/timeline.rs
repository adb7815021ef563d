//! Draws an observation: one column is 20 ms, one row per observer.

use std::time::{Duration, Instant};

use arpeggio_lab::{Machine, observe::Request};

use crate::observation::Observation;

/// The time that one column stands for.
const COLUMN: Duration = Duration::from_millis(20);
/// Columns before and after the cut.
const BEFORE: usize = 20;
const AFTER: usize = 60;
/// A mark under the axis stands at every so many columns.
const MARK_EVERY: usize = 10;

/// Three rows under an axis whose zero is the cut.
pub(crate) fn draw(seen: &Observation, nodes: &[Machine]) -> String {
    let requests: String = columns(seen.cut).map(|at| request_in(&seen.requests, at)).collect();
    let answers: String = columns(seen.cut).map(|at| answer_in(seen, at, nodes)).collect();
    let power = format!("{:>BEFORE$}▼ power cut", "");
    format!(
        "{label:16}{power}\n\
         {pages:16}{requests}   █ answered  · failed\n\
         {arp:16}{answers}   number of the node that answers\n\
         {ms:16}{axis}",
        label = "",
        pages = "page requests",
        arp = "who has it?",
        ms = "milliseconds",
        axis = axis(),
    )
}

/// The start of each column.
fn columns(cut: Instant) -> impl Iterator<Item = Instant> {
    let begin = cut.checked_sub(span(BEFORE)).unwrap_or(cut);
    (0..BEFORE + AFTER).map(move |column| begin + span(column))
}

fn span(columns: usize) -> Duration {
    COLUMN * u32::try_from(columns).unwrap_or(u32::MAX)
}

/// The fate of the requests that began in a column.
fn request_in(requests: &[Request], column: Instant) -> char {
    let in_column = |request: &&Request| (column..column + COLUMN).contains(&request.started);
    let begun: Vec<&Request> = requests.iter().filter(in_column).collect();
    match begun.iter().filter(|request| !request.is_answered()).count() {
        _ if begun.is_empty() => ' ',
        0 => '█',
        _ => '·',
    }
}

/// The number of the node that was last heard in a column.
fn answer_in(seen: &Observation, column: Instant, nodes: &[Machine]) -> char {
    let mut replies = seen.sightings.replies.iter();
    let heard = replies.rfind(|reply| (column..column + COLUMN).contains(&reply.at));
    let node = heard.and_then(|reply| nodes.iter().find(|node| node.mac() == Some(reply.mac)));
    match node {
        Some(Machine::Node(number)) => char::from_digit(u32::from(*number), 10).unwrap_or('?'),
        Some(_) => '?',
        None => ' ',
    }
}

fn axis() -> String {
    let mark = |column: usize| {
        let millis =
            span(column).as_millis().cast_signed() - span(BEFORE).as_millis().cast_signed();
        format!("{:<MARK_EVERY$}", format!("|{millis}"))
    };
    let marks: Vec<String> = (0..BEFORE + AFTER).step_by(MARK_EVERY).map(mark).collect();
    marks.concat()
}

#[cfg(test)]
mod tests {
    use arpeggio_lab::observe::{ArpReply, ArpSightings, Outcome};

    use super::*;

    fn request(started: Instant, answered: bool) -> Request {
        let outcome = if answered {
            Outcome::Answered { status: 200, body: String::new() }
        } else {
            Outcome::TimedOut
        };
        Request { started, ended: started, outcome }
    }

    #[test]
    fn a_cut_and_a_takeover_can_be_read_off() {
        let begin = Instant::now();
        let cut = begin + Duration::from_secs(1);
        let every = |from: u64, to: u64| (from..to).step_by(20).map(Duration::from_millis);
        let up = |at: &Duration| *at < Duration::from_secs(1) || *at >= Duration::from_millis(1400);
        let reply = |at: Duration| ArpReply {
            at: begin + at,
            mac: Machine::Node(if begin + at < cut { 1 } else { 3 }).mac().unwrap(),
            gratuitous: false,
        };
        let seen = Observation {
            begin,
            cut,
            end: begin + Duration::from_secs(3),
            requests: every(0, 3000).map(|at| request(begin + at, up(&at))).collect(),
            sightings: ArpSightings {
                asked: Vec::new(),
                replies: every(0, 3000).filter(up).map(reply).collect(),
            },
        };
        let nodes: Vec<Machine> = (1..=3).map(Machine::Node).collect();
        let text = draw(&seen, &nodes);
        let lines: Vec<&str> = text.lines().collect();
        let row = |prefix: &str, row: String| format!("{prefix:16}{row}");
        let pages = [&"█".repeat(20)[..], &"·".repeat(20), &"█".repeat(40)].concat();
        assert!(lines[1].starts_with(&row("page requests", pages)), "{text}");
        let owners = ["1".repeat(20), " ".repeat(20), "3".repeat(40)].concat();
        assert!(lines[2].starts_with(&row("who has it?", owners)), "{text}");
        assert_eq!(lines[0].find('▼'), Some(16 + 20));
        assert_eq!(lines[3].find("|0"), Some(16 + 20));
    }
}

//! What the forwarder's rules cost, in network namespaces of its own: run by `make bench-forwarder`, on a machine that does
//! nothing else. Prints lines of JSON.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "people run it, and read it"
)]

#[path = "../tests/segment/mod.rs"]
mod segment;

mod load;
mod many;

use std::{
    collections::BTreeMap,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use arpeggio_forwarding::{BUCKETS, Plan, PlannedAddress, Port, Protocol, Spread, SpreadBy, Way};
use segment::{Segment, Stream, Version, WEB};

/// How often each setup is measured, one after the other, so that all meet the same weather.
const ROUNDS: usize = 30;
/// Questions in one round.
const QUESTIONS: usize = 500;

/// Longer than TCP delays an acknowledgement.
const DELAYED: Duration = Duration::from_millis(100);

fn main() {
    // `cargo test` runs it as well, without this argument, to see that it is built.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let wanted = std::env::var("PARTS").unwrap_or_default();
    let is_wanted = |part: &&str| wanted.is_empty() || wanted.split(',').any(|it| it == *part);
    for part in ["latency", "load", "many"].iter().copied().filter(is_wanted) {
        match part {
            "many" => many::many(),
            "load" => of_both_families(load::load),
            _ => of_both_families(latency),
        }
    }
}

fn of_both_families(measure: fn(&Segment)) {
    for version in [Version::V4, Version::V6] {
        let Some(segment) = Segment::new(version) else { return };
        measure(&segment);
    }
}

/// Node 1 announces the address, and gives every connection to one of its ports to another node.
fn all_to(segment: &Segment, to: usize, port: u16) -> Plan {
    let node = 1;
    let ways = vec![segment.hop(node, to); usize::from(BUCKETS)];
    let spread = Arc::new(Spread {
        by: SpreadBy::ClientAndPort,
        seed: 1,
        first: ways.clone(),
        others: ways.clone(),
        below: vec![Way::Local; usize::from(BUCKETS)],
    });
    let port = Port { protocol: Protocol::Tcp, number: port };
    let planned = PlannedAddress {
        spread: BTreeMap::from([(port, spread)]),
        interfaces: vec!["eth0".to_owned()],
        ..PlannedAddress::default()
    };
    segment.plan(node, planned)
}

/// How long a question and its answer take: at an owner without rules, at one with rules for another address, through an owner
/// that does not know the connection, and through an owner that spreads.
fn latency(segment: &Segment) {
    let mut open = segment.connect();
    let mut moved = segment.connect();
    let _rules = segment.rules(2, &segment.passing(2, segment.hop(2, 1), Way::Local));
    let spread = all_to(segment, 3, WEB);
    let mut own = segment.rules(1, &spread);
    let mut given = segment.connect();
    assert_eq!(given.node(), 3);
    let elsewhere = elsewhere(segment);
    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let mut setup = |name, owner, plan: &Plan, stream: &mut Stream| {
            segment.node(1).run(|| own.apply(plan).unwrap());
            segment.move_to(owner);
            times.entry(name).or_default().extend(ask(stream));
            // The last acknowledgement, which the client delays, still goes the same way.
            thread::sleep(DELAYED);
        };
        setup("without rules", 1, &Plan::default(), &mut open);
        setup("rules of another address", 1, &elsewhere, &mut open);
        setup("passed on", 2, &Plan::default(), &mut moved);
        setup("spread", 1, &spread, &mut given);
    }
    let medians: BTreeMap<_, _> =
        times.into_iter().map(|(name, times)| (name, microseconds(median(times)))).collect();
    let base = medians["without rules"];
    for (setup, p50) in medians {
        println!(
            r#"{{"what":"question and answer","family":"{:?}","setup":"{setup}","p50_us":{p50:.1},"added_us":{:.1}}}"#,
            segment.version,
            p50 - base
        );
    }
}

/// A plan that has nothing to do with the address.
fn elsewhere(segment: &Segment) -> Plan {
    let mut plan = segment.passing(1, segment.hop(1, 2), Way::Local);
    let planned = plan.addresses.remove(&segment.version.service()).unwrap();
    plan.addresses.insert(segment.version.address(99), planned);
    plan
}

fn ask(stream: &mut Stream) -> Vec<Duration> {
    stream.node();
    let mut one = || {
        let begin = Instant::now();
        stream.node();
        begin.elapsed()
    };
    (0..QUESTIONS).map(|_| one()).collect()
}

fn median<T: PartialOrd + Copy>(mut times: Vec<T>) -> T {
    times.sort_by(|one, other| one.partial_cmp(other).unwrap());
    times[times.len() / 2]
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

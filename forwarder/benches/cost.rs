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

use std::{
    collections::BTreeMap,
    fs,
    io::{BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use arpeggio_forwarding::{BUCKETS, Plan, PlannedAddress, Port, Protocol, Spread, SpreadBy, Way};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use segment::{Namespace, Segment, Stream, Version, WEB};

/// How often each setup is measured, one after the other, so that all meet the same weather.
const ROUNDS: usize = 30;
/// Questions in one round.
const QUESTIONS: usize = 500;

/// Longer than TCP delays an acknowledgement.
const DELAYED: Duration = Duration::from_millis(100);

/// Of the downloads.
const DOWNLOAD: u16 = 81;
const BYTES_PER_SECOND: usize = 10_000_000;
const DOWNLOADED_FOR: Duration = Duration::from_secs(5);
/// The processor of the node that announces, and that of everybody else.
const ANNOUNCER: usize = 1;
const OTHERS: usize = 0;

fn main() {
    // `cargo test` runs it as well, without this argument, to see that it is built.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    for version in [Version::V4, Version::V6] {
        let Some(segment) = Segment::new(version) else { return };
        latency(&segment);
    }
    let Some(segment) = Segment::new(Version::V4) else { return };
    downloads(&segment);
}

/// A port of which every connection goes to one node.
fn all_to(segment: &Segment, node: usize, to: usize, announces: bool) -> Plan {
    let way = if node == to { Way::Local } else { segment.hop(node, to) };
    let ways = vec![way; usize::from(BUCKETS)];
    let spread = Arc::new(Spread {
        by: SpreadBy::ClientAndPort,
        seed: 1,
        first: ways.clone(),
        others: ways.clone(),
        below: vec![Way::Local; usize::from(BUCKETS)],
    });
    let port = |number| (Port { protocol: Protocol::Tcp, number }, Arc::clone(&spread));
    let planned = PlannedAddress {
        spread: BTreeMap::from([port(WEB), port(DOWNLOAD)]),
        interfaces: if announces { vec!["eth0".to_owned()] } else { Vec::new() },
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
    let spread = all_to(segment, 1, 3, true);
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

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The processor time of the node that announces while a client downloads at a steady pace: the node serves the download itself, or
/// spreads it to another one.
fn downloads(segment: &Segment) {
    place(segment);
    for node in 1..=3 {
        serve_downloads(segment, node);
    }
    let mut rules = segment.rules(1, &Plan::default());
    let mut used = BTreeMap::new();
    for (setup, to) in [("served by itself", 1), ("spread to another node", 2)] {
        let plan = all_to(segment, 1, to, true);
        let plan = if to == 1 { Plan::default() } else { plan };
        segment.node(1).run(|| rules.apply(&plan).unwrap());
        let before = busy(ANNOUNCER);
        let (node, bytes) = download(segment);
        let spent = busy(ANNOUNCER).saturating_sub(before);
        assert_eq!(node, to);
        used.insert(setup, spent);
        println!(
            r#"{{"what":"download","setup":"{setup}","megabytes":{},"announcing_node_ms":{}}}"#,
            bytes / 1_000_000,
            spent.as_millis()
        );
    }
    let ratio =
        used["spread to another node"].as_secs_f64() / used["served by itself"].as_secs_f64();
    println!(r#"{{"what":"download","spread_of_served":{ratio:.2}}}"#);
}

/// The node that announces has a processor of its own for what comes in.
fn place(segment: &Segment) {
    let on = |namespace: &Namespace, processor: usize| {
        let mask = 1 << processor;
        let script = format!(
            "mount -t sysfs sysfs /sys && for it in /sys/class/net/*/queues/rx-0/rps_cpus; do echo {mask} >$it; done"
        );
        let done = namespace
            .run(|| Command::new("unshare").args(["-m", "sh", "-c", &script]).status().unwrap());
        assert!(done.success(), "cannot choose the processor of a device");
    };
    segment.machines().for_each(|namespace| on(namespace, OTHERS));
    on(segment.node(1), ANNOUNCER);
}

fn run_on(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

fn serve_downloads(segment: &Segment, node: usize) {
    let listener = segment
        .node(node)
        .run(|| TcpListener::bind((segment.version.backend(), DOWNLOAD)).unwrap());
    thread::spawn(move || {
        run_on(if node == 1 { ANNOUNCER } else { OTHERS });
        for stream in listener.incoming() {
            send(stream.unwrap(), node);
        }
    });
}

/// A hundredth of a second's bytes at a time.
fn send(mut stream: TcpStream, node: usize) {
    let bytes = vec![u8::try_from(node).unwrap(); BYTES_PER_SECOND / 100];
    let begin = Instant::now();
    let mut sent = 0_u32;
    while stream.write_all(&bytes).is_ok() {
        sent += 1;
        let due = Duration::from_millis(10) * sent;
        thread::sleep(due.saturating_sub(begin.elapsed()));
    }
}

/// Who served it, and how many bytes came.
fn download(segment: &Segment) -> (usize, usize) {
    let to = SocketAddr::new(segment.version.service(), DOWNLOAD);
    segment.client.run(|| {
        run_on(OTHERS);
        let mut reader = BufReader::new(TcpStream::connect(to).unwrap());
        let (begin, mut bytes, mut total) = (Instant::now(), vec![0; 64 * 1024], 0);
        while begin.elapsed() < DOWNLOADED_FOR {
            total += reader.read(&mut bytes).unwrap();
        }
        (usize::from(bytes[0]), total)
    })
}

/// For how long a processor was busy since it started.
fn busy(processor: usize) -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let name = format!("cpu{processor} ");
    let line = stat.lines().find(|line| line.starts_with(&name)).unwrap();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).map(|it| it.parse().unwrap()).collect();
    // user, nice, system, (idle, iowait,) irq, softirq
    let busy: u64 = [0, 1, 2, 5, 6].iter().map(|index| ticks[*index]).sum();
    // USER_HZ is 100 on all that Linux runs on.
    Duration::from_millis(busy * 10)
}

//! What a download costs the node that announces its address, in processor time: handed on to a pod on another node, served by
//! a pod of its own, and spread.
//!
//! The kernel handles the frames of each interface on a thread of that interface, whose time it counts in nanoseconds. So the
//! work of one node is told from that of the others, on one machine and whatever else it does. Frames are as large as on a wire when
//! they come in, and as large as for a network card that cuts them itself when they go out.

mod server;
mod threads;

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use arpeggio_link::calls::uninterrupted;

use self::{
    server::{Request, Server},
    threads::Time,
};
use crate::{
    DELAYED, all_to, median,
    segment::{Segment, Version},
};

/// Handed on to a pod of node 2, as by kube-proxy with the policy `Cluster`.
const HANDED_ON: u16 = 8081;
/// Served by a pod of the announcing node, as with the policy `Local`.
const OWN: u16 = 8082;
/// Spread: node 3 has the connections.
const SPREAD: u16 = 8083;

/// How often each setup is measured, one after the other, so that all meet the same weather.
const ROUNDS: usize = 10;

const LOADS: [(&str, Request); 2] = [
    ("10 MB/s", Request { bytes: 10_000_000, pace: Some(10_000_000) }),
    ("full speed", Request { bytes: 500_000_000, pace: None }),
];

/// How it went.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// Microseconds of the announcing node for each megabyte.
    cost: f64,
    /// Megabytes a second.
    speed: f64,
}

/// Prints what each setup costs the node that announces the address.
pub(crate) fn load(segment: &Segment) {
    hand_on(segment);
    let frames = threads::of_node_1(segment);
    let (pod, backend) = (pod(segment.version), segment.version.backend());
    let own = Server::start(segment.node(1), (backend, OWN));
    let _others = [
        Server::start(segment.node(2), (pod, HANDED_ON)),
        Server::start(segment.node(3), (backend, SPREAD)),
    ];
    let _rules = segment.rules(1, &all_to(segment, 3, SPREAD));
    let setups = [
        ("handed on to another node's pod", HANDED_ON, vec![frames.clone()]),
        ("a pod of its own", OWN, vec![frames.clone(), own.time().clone()]),
        ("spread", SPREAD, vec![frames]),
    ];
    for (load, request) in LOADS {
        let mut runs: BTreeMap<&str, Vec<Run>> = BTreeMap::new();
        for _ in 0..ROUNDS {
            for (name, port, times) in &setups {
                runs.entry(name).or_default().push(download(segment, *port, request, times));
            }
        }
        show(segment, load, &runs);
    }
}

/// `times`: of all that works for the announcing node.
fn download(segment: &Segment, port: u16, request: Request, times: &[Time]) -> Run {
    let spent = || times.iter().map(Time::spent).sum::<Duration>();
    let to = SocketAddr::new(segment.version.service(), port);
    let before = spent();
    let took = segment.client.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let began = std::time::Instant::now();
        stream.write_all(&request.encoded()).unwrap();
        let (mut left, mut bytes) = (request.bytes, vec![0; 256 * 1024]);
        while left > 0 {
            let length = uninterrupted(|| stream.read(&mut bytes)).unwrap();
            assert_ne!(length, 0, "{left} bytes were not sent");
            left -= length;
        }
        began.elapsed()
    });
    // The end of the connection is part of it, and the last acknowledgement is delayed.
    thread::sleep(DELAYED);
    let megabytes = f64::from(u32::try_from(request.bytes).unwrap()) / 1e6;
    let cost = spent().saturating_sub(before).as_secs_f64() * 1e6 / megabytes;
    Run { cost, speed: megabytes / took.as_secs_f64() }
}

fn show(segment: &Segment, load: &str, runs: &BTreeMap<&str, Vec<Run>>) {
    let spread = median_of(&runs["spread"], |it| it.cost);
    for (setup, runs) in runs {
        let (cost, speed) = (median_of(runs, |it| it.cost), median_of(runs, |it| it.speed));
        println!(
            r#"{{"what":"download","family":"{:?}","load":"{load}","setup":"{setup}","announcing_node_us_per_mb":{cost:.1},"spread_is":{:.3},"mb_per_s":{speed:.0}}}"#,
            segment.version,
            spread / cost
        );
    }
}

fn median_of(runs: &[Run], what: impl Fn(&Run) -> f64) -> f64 {
    median(runs.iter().map(what).collect())
}

/// The address of node 2's pod.
fn pod(version: Version) -> IpAddr {
    match version {
        Version::V4 => [10, 9, 8, 9].into(),
        Version::V6 => [0xfd00, 0, 0, 0, 0, 0, 0, 8].into(),
    }
}

/// Node 1 hands connections to a pod of node 2, which sees node 1's address, so that its answers come back by node 1.
fn hand_on(segment: &Segment) {
    let (family, service, pod) =
        (segment.version.family(), segment.version.service(), pod(segment.version));
    let at_once = segment.version.at_once();
    segment.node(2).command(&format!("ip address add {pod} dev lo{at_once}"));
    let one = segment.node(1);
    one.command(&format!("ip route add {pod} via {}", segment.version.node(2)));
    one.nft(&format!(
        "table {family} cluster {{
         chain there {{ type nat hook prerouting priority -101;
         {family} daddr {service} tcp dport {HANDED_ON} dnat to {pod}; }}
         chain back {{ type nat hook postrouting priority 100; {family} daddr {pod} masquerade; }}
         }}"
    ));
    let settings: &[_] = match segment.version {
        Version::V4 => &[
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/eth0/send_redirects", "0"),
            ("ipv4/ip_forward", "1"),
        ],
        Version::V6 => &[("ipv6/conf/all/forwarding", "1")],
    };
    settings.iter().for_each(|(name, value)| one.set(name, value));
}

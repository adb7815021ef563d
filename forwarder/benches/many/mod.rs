//! What a thousand addresses cost a forwarder: to decide, and to bring the kernel to what was decided; from nothing, when one address
//! changes, and when a node is cordoned.

use std::{
    fs,
    net::IpAddr,
    time::{Duration, Instant},
};

use arpeggio_election::{Epoch, Interface, Node, NodeFacts, Reach, Timestamp};
use arpeggio_forwarder::rules::Rules;
use arpeggio_forwarding::{
    Address, Fellow, Forwarder, Forwarding, Known, Life, Port, Protocol, Service, Settings, Wire,
};

use crate::segment::{Segment, Version, mac};

/// So many addresses.
const ADDRESSES: u16 = 1_000;

/// Prints what they cost.
pub(crate) fn many() {
    for (kind, spread) in [("kept", false), ("spread", true)] {
        let Some(segment) = Segment::new(Version::V4) else { return };
        segment.node(1).run(|| measure(kind, known(spread)));
    }
}

fn measure(kind: &str, mut known: Known) {
    let mut now = Duration::from_hours(1);
    let mut forwarding =
        Forwarding::new(name(1), Settings::default(), Timestamp::from_origin(Duration::ZERO));
    let mut rules = Rules::new().unwrap();
    let mut step = |step: &str, known: &Known| {
        now += Duration::from_secs(20);
        let (memory, began) = (kernel_memory(), Instant::now());
        let plan = forwarding.decide(known, Timestamp::from_origin(now)).plan;
        let decided = began.elapsed();
        rules.apply(&plan).unwrap();
        println!(
            r#"{{"what":"{ADDRESSES} addresses","kind":"{kind}","step":"{step}","decide_ms":{:.1},"apply_ms":{:.1},"kernel_mb":{:.1}}}"#,
            decided.as_secs_f64() * 1e3,
            (began.elapsed().saturating_sub(decided)).as_secs_f64() * 1e3,
            kernel_memory() - memory,
        );
    };
    step("the first", &known);
    step("nothing changes", &known);
    known.addresses.get_mut(&address(7)).unwrap().holder = Some(name(3));
    step("one moves", &known);
    known.nodes.get_mut(&name(2)).unwrap().facts.as_mut().unwrap().cordoned = true;
    step("a node is cordoned", &known);
    for about in known.addresses.values_mut().filter(|it| it.holder == Some(name(1))) {
        about.holder = Some(name(3));
    }
    step("all move away", &known);
}

fn known(spread: bool) -> Known {
    let port = Port { protocol: Protocol::Tcp, number: 80 };
    let about = || Address {
        holder: Some(name(1)),
        spread,
        services: [(port, Service::default())].into(),
        ..Address::default()
    };
    Known {
        nodes: (1..=3).map(|n| (name(n), fellow(n))).collect(),
        addresses: (0..ADDRESSES).map(|n| (address(n), about())).collect(),
        ..Known::default()
    }
}

fn address(n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    [192, 0, 100 + high, low].into()
}

fn name(n: usize) -> Node {
    Node::from(format!("node-{n}").as_str())
}

fn fellow(n: usize) -> Fellow {
    let own = Version::V4.node(n);
    let subnets = vec![format!("{own}/16").parse().unwrap()];
    let lan = Interface { name: "eth0".into(), subnets, ..Interface::default() };
    Fellow {
        life: Life::Live,
        epoch: Epoch(1),
        wire: Wire::default(),
        reach: Reach { interfaces: vec![lan] },
        macs: [(own, mac(n))].into(),
        facts: Some(NodeFacts::default()),
        forwarder: Some(Forwarder::default()),
    }
}

/// What the kernel has for itself, in megabytes; of the whole machine.
fn kernel_memory() -> f64 {
    let all = fs::read_to_string("/proc/meminfo").unwrap();
    let of = |name: &str| -> f64 {
        let line = all.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (of("SUnreclaim:") + of("Percpu:")) / 1024.0
}

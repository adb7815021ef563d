//! What a decision costs.

#![allow(clippy::unwrap_used, clippy::panic)]

mod cluster;

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use arpeggio_election::Timestamp;
use arpeggio_forwarding::{Address, Forwarding, Known, Service, Settings};
use cluster::{KEEP, PORT, fellow, name};

const NODES: usize = 8;

fn known(addresses: u16, spread: bool) -> Known {
    let about = |n: u16| Address {
        holder: Some(name(usize::from(n) % NODES)),
        spread,
        services: [(PORT, Service::default())].into(),
        ..Address::default()
    };
    let address = |n: u16| {
        let [high, low] = n.to_be_bytes();
        IpAddr::from([192, 168, high, low])
    };
    Known {
        nodes: (0..NODES).map(|n| (name(n), fellow(n))).collect(),
        addresses: (0..addresses).map(|n| (address(n), about(n))).collect(),
        ..Known::default()
    }
}

/// Of the first decision of a forwarder that started at the origin, `after` that, and of the ones that follow.
fn spent(known: &Known, after: Duration) -> [Duration; 2] {
    let now = Timestamp::from_origin(after);
    let mut forwarding = Forwarding::new(name(0), Settings { keep: KEEP }, Timestamp::default());
    let mut timed = || {
        let began = Instant::now();
        let decision = forwarding.decide(known, now);
        (began.elapsed(), decision)
    };
    let (first, _) = timed();
    let rounds = 10;
    let later: Duration = (0..rounds).map(|_| timed().0).sum();
    [first, later / rounds]
}

/// Generous: the bound is for machines that do something else meanwhile, and for programs that are not optimized.
#[test]
fn a_decision_costs_little() {
    let hour = Duration::from_hours(1);
    let table = [
        ("1000 addresses at rest", known(1000, false), hour),
        ("1000 addresses after a restart", known(1000, false), Duration::from_secs(1)),
        ("20 spread addresses at rest", known(20, true), hour),
        ("20 spread addresses after a restart", known(20, true), Duration::from_secs(1)),
        ("1000 spread addresses at rest", known(1000, true), hour),
    ];
    for (what, known, after) in table {
        let many = known.addresses.values().filter(|it| it.spread).count() > 100;
        let most = Duration::from_millis(if cfg!(debug_assertions) { 2000 } else { 100 });
        let most = if many { most * 5 } else { most };
        let [first, later] = spent(&known, after);
        println!("{what}: {first:?} for the first decision, {later:?} for each of the others");
        assert!(later < most, "{what}: {later:?}");
    }
}

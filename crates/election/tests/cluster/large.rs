//! A hundred nodes and a thousand addresses, with faults, in virtual time.
//!
//! A failure names its seed; `LARGE_SEED=n` runs that one.

use std::{net::IpAddr, time::Instant};

use crate::{
    chaos::{FAULTS, LONGEST_OVERLAP},
    random::{Random, number},
    sim::{Sim, millis, secs},
};

const NODES: usize = 100;
const ADDRESSES: u16 = 1000;
const FAULTS_PER_HISTORY: usize = 40;

/// After the longest chain: a session has to expire, and to be ended by a node that does not watch it.
const SETTLED_AFTER: u64 = 15;

fn addresses() -> Vec<IpAddr> {
    (0..ADDRESSES).map(|n| [10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]].into()).collect()
}

#[test]
fn a_large_cluster_with_faults() {
    let seed = number("LARGE_SEED").unwrap_or(1);
    let (mut random, began) = (Random(seed), Instant::now());
    let mut sim = Sim::resumed(NODES, &addresses());
    sim.run(secs(2));
    let mut story = Vec::new();
    for _ in 0..FAULTS_PER_HISTORY {
        let (name, fault) = FAULTS[random.index(FAULTS.len())];
        let (node, other) = (random.index(NODES), random.index(NODES));
        let span = millis(random.below(400));
        story.push(format!("{name}: {node} ({other}), then {span:?}"));
        fault(&mut sim, node, other);
        sim.run(span);
    }
    sim.heal_all();
    sim.run(secs(SETTLED_AFTER));
    let nobodys = addresses().into_iter().filter(|address| sim.announcers(*address).len() != 1);
    let nobodys: Vec<IpAddr> = nobodys.collect();
    let overlap = sim.longest_overlap;
    println!(
        "seed {seed}: {NODES} nodes, {ADDRESSES} addresses, {FAULTS_PER_HISTORY} faults, {} moves, longest overlap {overlap:?}, \
         {:.1?} of virtual time in {:.1?}",
        sim.log.iter().filter(|line| line.contains("Take")).count(),
        sim.age(),
        began.elapsed()
    );
    assert_eq!(nobodys, [] as [IpAddr; 0], "seed {seed}: {story:#?}");
    assert!(overlap <= LONGEST_OVERLAP, "seed {seed}: {overlap:?} in {story:#?}");
}

//! What a decision costs in a large cluster at rest: a hundred nodes, ten thousand addresses.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use arpeggio_election::{
    Elector, Epoch, Event, Holder, Lock, Node, Session, SessionState, Settings, Terms, Timestamp,
    Version,
};

const NODES: u64 = 100;
const ADDRESSES: u32 = 10_000;
const DECISIONS: u32 = 100;

fn name(index: u64) -> Node {
    Node::from(format!("worker-{index}.cluster.example").as_str())
}

fn session(index: u64, version: u64) -> Event {
    Event::Session(Session {
        node: name(index),
        epoch: Epoch(1),
        state: SessionState::Live { accused_by: None },
        reach: None,
        lasts: None,
        version: Version(version),
    })
}

fn lock(index: u32) -> Event {
    Event::Lock(Lock {
        address: IpAddr::from((0x0a00_0000 + index).to_be_bytes()),
        holder: Some(Holder { node: name(u64::from(index) % NODES), epoch: Epoch(1) }),
        terms: Terms::default(),
        stranger: None,
        move_to: None,
        version: Version(1),
    })
}

#[test]
fn a_decision_at_rest_costs_little() {
    let mut now = Timestamp::from_origin(Duration::from_secs(1));
    let mut elector = Elector::new(name(0), Settings::default(), now);
    (0..NODES).for_each(|index| elector.handle(now, session(index, 1)));
    (0..ADDRESSES).for_each(|index| elector.handle(now, lock(index)));
    elector.handle(now, Event::Synced);
    for effect in elector.decide(now).effects {
        if let arpeggio_election::Effect::Write(write) = effect {
            let outcome = arpeggio_election::Outcome::Done;
            elector.handle(now, Event::Wrote { write, outcome });
        }
    }
    elector.decide(now);
    assert_eq!(elector.announcing().len(), (ADDRESSES as usize) / 100);
    let mut spent = Duration::ZERO;
    for round in 0..DECISIONS {
        now = now + Duration::from_millis(20);
        let renewed = u64::from(round) % NODES;
        elector.handle(now, session(renewed, 2));
        let began = Instant::now();
        elector.decide(now);
        spent += began.elapsed();
    }
    let each = spent / DECISIONS;
    println!("{each:?} for a decision: {NODES} nodes, {ADDRESSES} addresses");
    assert!(each < Duration::from_millis(20), "{each:?}");
}

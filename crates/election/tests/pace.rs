//! What a decision costs at rest with ten thousand addresses, in a large cluster and in a small one.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use arpeggio_election::{
    AnnounceTerms, Elector, Epoch, Event, Holder, Lock, Node, Session, Settings, Timestamp, Version,
};

const ADDRESSES: u32 = 10_000;
const DECISIONS: u32 = 100;

/// Some times what it takes on a machine that has nothing else to do.
const LIMIT: Duration = Duration::from_millis(4);

fn name(index: u64) -> Node {
    Node::from(format!("worker-{index}.cluster.example").as_str())
}

fn session(index: u64, version: u64) -> Event {
    Event::Session(Session::live(name(index), Epoch(1), Version(version)))
}

fn lock(index: u32, nodes: u64) -> Event {
    Event::Lock(Lock {
        address: IpAddr::from((0x0a00_0000 + index).to_be_bytes()),
        holder: Some(Holder { node: name(u64::from(index) % nodes), epoch: Epoch(1) }),
        service: None,
        terms: AnnounceTerms::default(),
        stranger: None,
        move_to: None,
        unannounced: false,
        disputed_by: None,
        version: Version(1),
    })
}

#[test]
fn a_decision_at_rest_costs_little() {
    // The addresses are others' in the one, and a third of them this node's own in the other.
    for nodes in [100, 3] {
        let each = at_rest(nodes);
        println!("{each:?} for a decision: {nodes} nodes, {ADDRESSES} addresses");
        assert!(each < LIMIT, "{each:?}");
    }
}

/// What the quickest decision took: the machine may be busy with other things.
fn at_rest(nodes: u64) -> Duration {
    let mut now = Timestamp::from_origin(Duration::from_secs(1));
    let mut elector = Elector::new(name(0), Settings::default(), now);
    (0..nodes).for_each(|index| elector.handle(now, session(index, 1)));
    (0..ADDRESSES).for_each(|index| elector.handle(now, lock(index, nodes)));
    elector.handle(now, Event::Synced);
    for effect in elector.decide(now).effects {
        if let arpeggio_election::Effect::Write(write) = effect {
            let outcome = arpeggio_election::Outcome::Done;
            elector.handle(now, Event::Wrote { write, outcome });
        }
    }
    elector.decide(now);
    let own = u64::from(ADDRESSES).div_ceil(nodes);
    assert_eq!(elector.announcing().len() as u64, own);
    let mut quickest = Duration::MAX;
    for round in 0..DECISIONS {
        now = now + Duration::from_millis(20);
        let renewed = u64::from(round) % nodes;
        elector.handle(now, session(renewed, u64::from(round) + 2));
        let began = Instant::now();
        elector.decide(now);
        quickest = quickest.min(began.elapsed());
    }
    quickest
}

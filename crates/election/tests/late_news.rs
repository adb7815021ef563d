//! News comes late, out of order or all at once: what one speaker then must not conclude.

#![allow(clippy::expect_used)]

use std::{net::IpAddr, time::Duration};

use arpeggio_election::{
    AnnounceTerms, Effect, Elector, EndReason, Epoch, Event, Holder, Lock, LockChange, Node,
    Outcome, Places, Question, Session, SessionState, Settings, Timestamp, Version, Write,
};

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 0, 240));

/// The interface on which all of them hear each other.
const INTERFACE: &str = "eth0";

fn at(millis: u64) -> Timestamp {
    Timestamp::from_origin(Duration::from_millis(millis))
}

fn session(node: &str, epoch: u64, version: u64) -> Session {
    Session::live(node.into(), Epoch(epoch), Version(version))
}

fn ended(session: Session) -> Session {
    let state = SessionState::Ended { by: "node-3".into(), reason: EndReason::NodeSilent };
    Session { state, version: Version(session.version.0 + 1), ..session }
}

fn held_by(node: &str, epoch: u64) -> Lock {
    let holder = Some(Holder { node: node.into(), epoch: Epoch(epoch) });
    Lock {
        address: ADDRESS,
        holder,
        service: None,
        terms: AnnounceTerms::default(),
        stranger: None,
        move_to: None,
        unannounced: false,
        disputed_by: None,
        version: Version(90),
    }
}

/// A speaker on node-1 with a session, that knows nobody else.
fn established() -> Elector {
    let mut elector = Elector::new("node-1".into(), Settings::default(), at(0));
    elector.handle(at(0), Event::Synced);
    let Some(Effect::Write(write)) = elector.decide(at(0)).effects.pop() else {
        unreachable!("a speaker starts a session")
    };
    elector.handle(at(1), Event::Session(session("node-1", 1, 10)));
    elector.handle(at(1), Event::Wrote { write, outcome: Outcome::Done });
    elector
}

/// What is written within a second from `from` on; renewals aside.
/// What a speaker tells when a node has answered it.
fn answered(node: Node) -> [Event; 3] {
    let interface = || INTERFACE.to_owned();
    [
        Event::AskedOn { node: node.clone(), interface: interface() },
        Event::HeardOn { node: node.clone(), interface: interface() },
        Event::NodeAnswered(node),
    ]
}

fn writes(elector: &mut Elector, from: u64) -> Vec<Write> {
    let effects = (from..from + 1000).step_by(10).flat_map(|now| elector.decide(at(now)).effects);
    let written = effects.filter_map(|effect| match effect {
        Effect::Write(write) => Some(write),
        Effect::Ask(_) => None,
    });
    written.filter(|write| !matches!(write, Write::Renew { .. })).collect()
}

fn takes(writes: &[Write]) -> usize {
    let is_take = |it: &&Write| matches!(it, Write::Lock { change: LockChange::Take { .. }, .. });
    writes.iter().filter(is_take).count()
}

#[test]
fn a_lock_under_a_session_that_was_not_seen_yet_is_its_holders() {
    let mut elector = established();
    // The answer to a write that came too late shows the lock before the watch shows the session.
    elector.handle(at(10), Event::Lock(held_by("node-2", 1)));
    assert_eq!(writes(&mut elector, 10), []);
    elector.handle(at(1010), Event::Session(session("node-2", 1, 20)));
    assert_eq!(writes(&mut elector, 1010), []);
    elector.handle(at(2010), Event::Session(ended(session("node-2", 1, 20))));
    assert_eq!(takes(&writes(&mut elector, 2010)), 1);
}

#[test]
fn a_lock_under_a_newer_session_than_the_one_that_was_seen_is_its_holders() {
    let mut elector = established();
    elector.handle(at(10), Event::Session(ended(session("node-2", 1, 20))));
    elector.handle(at(10), Event::Lock(held_by("node-2", 2)));
    assert_eq!(writes(&mut elector, 10), []);
    elector.handle(at(1010), Event::Session(session("node-2", 3, 30)));
    assert_eq!(takes(&writes(&mut elector, 1010)), 1);
}

#[test]
fn a_lock_whose_holders_session_is_deleted_or_was_deleted_before_is_free() {
    let mut elector = established();
    elector.handle(at(10), Event::Session(session("node-2", 1, 20)));
    elector.handle(at(10), Event::Lock(held_by("node-2", 1)));
    elector.handle(at(20), Event::SessionGone("node-2".into()));
    assert_eq!(takes(&writes(&mut elector, 20)), 1);

    let mut elector = Elector::new("node-1".into(), Settings::default(), at(0));
    elector.handle(at(0), Event::Lock(held_by("node-2", 1)));
    elector.handle(at(0), Event::Session(session("node-1", 1, 10)));
    elector.handle(at(0), Event::Synced);
    let Some(Effect::Write(write)) = elector.decide(at(0)).effects.pop() else {
        unreachable!("a speaker renews its session")
    };
    elector.handle(at(1), Event::Session(session("node-1", 1, 11)));
    elector.handle(at(1), Event::Wrote { write, outcome: Outcome::Done });
    assert_eq!(takes(&writes(&mut elector, 1)), 1);
}

#[test]
fn a_lock_whose_holders_session_is_deleted_stays_free_whatever_else_is_written_on_it() {
    let mut elector = established();
    let nowhere = AnnounceTerms { places: Places::ByRules(Vec::new()), probing: true };
    elector.handle(at(10), Event::Session(session("node-2", 1, 20)));
    elector.handle(at(10), Event::Lock(Lock { terms: nowhere, ..held_by("node-2", 1) }));
    elector.handle(at(20), Event::SessionGone("node-2".into()));
    assert_eq!(takes(&writes(&mut elector, 20)), 0, "no node may announce it");
    elector.handle(at(1020), Event::Lock(Lock { version: Version(91), ..held_by("node-2", 1) }));
    assert_eq!(takes(&writes(&mut elector, 1020)), 1);
    elector.handle(at(2020), Event::Lock(Lock { version: Version(92), ..held_by("node-2", 2) }));
    assert_eq!(takes(&writes(&mut elector, 2020)), 0, "taken under a session not seen yet");
}

#[test]
fn silence_that_ended_a_session_does_not_end_the_next_one() {
    let mut elector = established();
    let silent = Node::from("node-2");
    elector.handle(at(1), Event::Session(session("node-2", 1, 20)));
    let mut answers = 0;
    let mut write = None;
    for now in (10..2000).step_by(10) {
        for effect in elector.decide(at(now)).effects {
            match effect {
                Effect::Ask(Question::Others { .. }) => {
                    elector.handle(at(now), Event::GatewayAnswered(INTERFACE.into()));
                }
                Effect::Ask(Question::Node(_) | Question::NodeAnywhere(_)) if answers < 3 => {
                    answers += 1;
                    answered(silent.clone())
                        .into_iter()
                        .for_each(|event| elector.handle(at(now), event));
                }
                Effect::Write(end @ Write::End { .. }) => write = Some(end),
                _ => {}
            }
        }
    }
    let write = write.expect("its session is ended");
    // Both changes are seen at once: it was never seen without a session.
    elector.handle(at(2000), Event::Session(ended(session("node-2", 1, 20))));
    elector.handle(at(2000), Event::Session(session("node-2", 2, 22)));
    elector.handle(at(2000), Event::Wrote { write, outcome: Outcome::Done });
    assert_eq!(writes(&mut elector, 2000), []);
}

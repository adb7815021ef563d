//! Rules that are broken on purpose, all of them in the elector's surroundings: the check must notice each.

use arpeggio_election::{EndReason, Event, Node, Outcome, Session, SessionState, Version, Write};

use super::{
    explorer::explore,
    fault::Place,
    law,
    world::{Host, World},
};

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mutation {
    /// Nothing.
    None,
    /// The API server does not look at versions.
    NoVersions,
    /// A new session gets the epoch of the one before.
    OldEpoch,
    /// An accusation is written down in the name of the other deputy.
    OneDeputy,
    /// Whoever is accused is told of as ended.
    AccusedIsEnded,
    /// A renewal that fails is told of as one that succeeds.
    RenewalsSucceed,
    /// Fellows are not heard on the wire.
    Deaf,
    /// A speaker's clock stands still while it is paused.
    ClockStops,
    /// Who has lost the API server neither answers deputies nor tells anybody unasked.
    SpeaksOnlyWithApi,
    /// Whoever asks for an address is answered in the name of its holder, dead or alive: a proxy.
    Proxied,
    /// Speakers are answered for by their nodes' kernels.
    KernelSpeaks,
    /// Nobody is told that a cable was out.
    CarrierUnseen,
}

impl Mutation {
    /// What is done in place of `write`, and in whose name.
    pub(crate) fn of_write(self, me: &Node, write: &Write, world: &World) -> (Node, Write) {
        let mut write = write.clone();
        let mut by = me.clone();
        match (self, &mut write) {
            (Self::NoVersions, write) => ignore_version(me, write, world),
            (Self::OldEpoch, Write::Start { epoch, .. }) => {
                let before = world.store.sessions.get(me).map(|session| session.epoch);
                *epoch = before.unwrap_or(*epoch);
            }
            (Self::OneDeputy, Write::Accuse { node, .. }) => {
                let third = |host: &&Host| host.name != *me && host.name != *node;
                let third = world.hosts.iter().find(third);
                by = third.map_or(by, |host| host.name.clone());
            }
            _ => {}
        }
        (by, write)
    }

    /// What is told of a record.
    pub(crate) fn of_record(self, record: Event) -> Event {
        let Event::Session(session) = record else { return record };
        let state = match session.state {
            SessionState::Live { accused_by: Some(by) } if self == Self::AccusedIsEnded => {
                SessionState::Ended { by, reason: EndReason::NodeSilent }
            }
            state => state,
        };
        Event::Session(Session { state, ..session })
    }

    /// What is told of a write that got no answer.
    pub(crate) fn of_failure(self, write: &Write) -> Outcome {
        match write {
            Write::Renew { .. } if self == Self::RenewalsSucceed => Outcome::Done,
            _ => Outcome::Failed,
        }
    }
}

fn ignore_version(me: &Node, write: &mut Write, world: &World) {
    let session = |node: &Node| world.store.sessions.get(node).map(|it| it.version);
    let replace = |expected: &mut Version, current: Option<Version>| {
        *expected = current.unwrap_or(*expected);
    };
    match write {
        Write::Start { expected, .. } => *expected = session(me),
        Write::Renew { expected, .. } => replace(expected, session(me)),
        Write::Accuse { node, expected } | Write::End { node, expected, .. } => {
            replace(expected, session(node));
        }
        Write::Lock { address, expected, .. } => {
            replace(expected, world.store.locks.get(address).map(|lock| lock.version));
        }
        Write::Read { .. } => {}
    }
}

/// The law that the check finds broken.
fn found(mutation: Mutation) -> Option<&'static str> {
    found_from(&World::booting(3, &[Place::Any], mutation))
}

fn found_from(start: &World) -> Option<&'static str> {
    let report = explore(start);
    let mutation = start.mutation;
    println!("{mutation:?}: {report}");
    report.broken.map(|broken| {
        println!("{broken}");
        broken.law
    })
}

#[test]
fn a_server_that_ignores_versions_is_noticed() {
    assert_eq!(found(Mutation::NoVersions), Some(law::TAKEN_FROM_THE_LIVING));
}

#[test]
fn an_epoch_that_is_used_again_is_noticed() {
    assert_eq!(found(Mutation::OldEpoch), Some(law::ENDED_IS_OVER));
}

#[test]
fn an_end_by_one_deputy_that_the_other_does_not_confirm_is_noticed() {
    assert_eq!(found(Mutation::OneDeputy), Some(law::HEARD_IS_ALIVE));
}

#[test]
fn a_lock_taken_from_a_session_that_was_only_accused_is_noticed() {
    assert_eq!(found(Mutation::AccusedIsEnded), Some(law::TAKEN_FROM_THE_LIVING));
}

#[test]
fn expiry_judged_while_out_of_touch_is_noticed() {
    assert_eq!(found(Mutation::RenewalsSucceed), Some(law::AWAY_FOR_ALL));
}

#[test]
fn fellows_that_are_not_heard_are_noticed() {
    assert_eq!(found(Mutation::Deaf), Some(law::TWO_ANNOUNCERS));
}

#[test]
fn a_speaker_that_is_made_silent_by_the_api_server_is_noticed() {
    assert_eq!(found(Mutation::SpeaksOnlyWithApi), Some(law::ANSWERS_IS_ALIVE));
}

#[test]
fn a_speaker_whose_silence_is_not_heard_is_noticed() {
    let start = World::calm(3, &[Place::Process], Mutation::KernelSpeaks);
    assert_eq!(found_from(&start), Some(law::BACK_IN_TIME));
}

#[test]
fn an_owner_that_is_not_replaced_while_the_api_server_is_away_is_noticed() {
    let start = World::calm(3, &[Place::Wire, Place::Api], Mutation::Proxied);
    assert_eq!(found_from(&start), Some(law::BACK_IN_TIME));
}

#[test]
fn an_answer_after_the_carrier_was_gone_without_a_renewal_is_noticed() {
    assert_eq!(found(Mutation::CarrierUnseen), Some(law::UNPROVED));
}

#[test]
fn an_answer_after_a_pause_without_a_renewal_is_noticed() {
    assert_eq!(found(Mutation::ClockStops), Some(law::UNPROVED));
}

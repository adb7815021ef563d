//! What must hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use arpeggio_election::{EndReason, Node, SessionState, Timestamp, Write};

use super::{
    fault::Kind,
    world::{TICK, World, announcers},
};
use crate::store::Store;

/// Takeover: the API server's order of writes decides.
pub(crate) const TAKEN_FROM_THE_LIVING: &str = "a lock is never taken from a session that counts";
/// Epochs only grow.
pub(crate) const ENDED_IS_OVER: &str = "a session that was ended never counts again";
/// When the path between two hosts is the only thing that is broken.
pub(crate) const HEARD_IS_ALIVE: &str = "a node that one deputy hears is not ended";
/// When the API server's absence is the only thing that is broken.
pub(crate) const AWAY_FOR_ALL: &str = "an API server that was away for all ends no session";
/// When paths to the API server are all that is broken.
pub(crate) const STATIC: &str = "losing the API server alone stops no announcement";
/// Not for longer than [`LONGEST_OVERLAP`].
pub(crate) const TWO_ANNOUNCERS: &str = "two announcers that hear each other do not both go on";
/// After a start, after a pause, and when its cable was out.
pub(crate) const UNPROVED: &str = "nobody answers before it has proved its session since it woke or was cut off, or has \
                                   asked for the address";
/// From every state at rest.
pub(crate) const SETTLES: &str =
    "when everything is mended, every address has exactly one announcer";

/// Two announcers that hear each other: until the next announcement is repeated, and a lock could not be read.
const LONGEST_OVERLAP: Duration = Duration::from_secs(2 * TICK.as_secs());

/// What the laws remember, and what was broken first.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct Witness {
    pub(crate) broken: Option<&'static str>,
    /// Since when two that hear each other announce an address.
    overlaps: BTreeMap<IpAddr, Timestamp>,
    /// The addresses that were announced once.
    announced: BTreeSet<IpAddr>,
}

impl Witness {
    fn breaks(&mut self, law: &'static str) {
        self.broken.get_or_insert(law);
    }

    /// Looks at a write that was done.
    pub(crate) fn wrote(
        &mut self,
        by: &Node,
        write: &Write,
        before: &Store,
        after: &Store,
        faults: &[Kind],
    ) {
        match write {
            Write::Take { address, .. } => {
                let holder = before.locks.get(address).and_then(|lock| lock.holder.as_ref());
                let taken = holder.filter(|holder| holder.node != *by);
                let counts = |session: &&arpeggio_election::Session| {
                    taken.is_some_and(|holder| holder.epoch == session.epoch)
                        && matches!(session.state, SessionState::Live { .. })
                };
                let session = taken.and_then(|holder| before.sessions.get(&holder.node));
                if session.as_ref().is_some_and(counts) {
                    self.breaks(TAKEN_FROM_THE_LIVING);
                }
            }
            Write::Start { .. } | Write::Renew { .. } => {
                let (Some(old), Some(new)) = (before.sessions.get(by), after.sessions.get(by))
                else {
                    return;
                };
                let ended = matches!(old.state, SessionState::Ended { .. });
                if new.epoch < old.epoch || (ended && new.epoch == old.epoch) {
                    self.breaks(ENDED_IS_OVER);
                }
            }
            Write::End { reason, .. } => self.ended(*reason, faults),
            Write::Accuse { .. }
            | Write::Read { .. }
            | Write::Quarantine { .. }
            // Nodes are given no reason to.
            | Write::Give { .. } => {}
        }
    }

    fn ended(&mut self, reason: EndReason, faults: &[Kind]) {
        if matches!(faults, [] | [Kind::Pair]) && reason == EndReason::NodeSilent {
            self.breaks(HEARD_IS_ALIVE);
        }
        if faults.iter().all(|kind| *kind == Kind::ApiDown) && reason == EndReason::Expired {
            self.breaks(AWAY_FOR_ALL);
        }
    }
}

/// Looks at a state.
pub(crate) fn look(world: &mut World) {
    let announcers = announcers(world);
    let api_only = world.faults.iter().all(|kind| matches!(kind, Kind::Api | Kind::ApiDown));
    for (address, by) in &announcers {
        if !by.is_empty() {
            world.witness.announced.insert(*address);
        } else if api_only && world.witness.announced.contains(address) {
            world.witness.breaks(STATIC);
        }
        let hear_each_other = by
            .iter()
            .any(|one| by.iter().any(|other| one < other && world.connected(*one, *other)));
        if hear_each_other {
            let since = *world.witness.overlaps.entry(*address).or_insert(world.now);
            if world.now.since(since) > LONGEST_OVERLAP {
                world.witness.breaks(TWO_ANNOUNCERS);
            }
        } else {
            world.witness.overlaps.remove(address);
        }
    }
    let unproved = |index: &usize| {
        let speaker = &world.speakers[*index];
        let unasked =
            |address: &IpAddr| !speaker.asked.contains(address) && world.answers(*index, *address);
        !speaker.proved && announcers.keys().any(unasked)
    };
    if (0..world.speakers.len()).any(|index| unproved(&index)) {
        world.witness.breaks(UNPROVED);
    }
}

/// Whether every address has exactly one announcer.
pub(crate) fn settled(world: &World) -> bool {
    announcers(world).values().all(|by| by.len() == 1)
}

//! What must hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use arpeggio_election::{
    EndReason, Holder, Lock, LockChange, Node, SessionState, Settings, Timestamp, Write,
};

use super::{
    fault::Kind,
    world::{Host, TICK, World, announcers, settings},
};
use crate::store::Store;

/// Takeover: the API server's order of writes decides.
pub(crate) const TAKEN_FROM_THE_LIVING: &str = "a lock is never taken from a session that counts";
/// A handover, whoever asked for it.
pub(crate) const GIVEN_BY_ANOTHER: &str = "a lock is given away by its holder only";
/// Epochs only grow.
pub(crate) const ENDED_IS_OVER: &str = "a session that was ended never counts again";
/// When the path between two hosts is the only thing that is broken.
pub(crate) const HEARD_IS_ALIVE: &str = "a node that one deputy hears is not ended";
/// When nothing has happened to a process or a host.
pub(crate) const ANSWERS_IS_ALIVE: &str = "a speaker that nothing has happened to is not silent";
/// When the API server's absence is the only thing that is broken.
pub(crate) const AWAY_FOR_ALL: &str = "an API server that was away for all ends no session";
/// When paths to the API server are all that is broken.
pub(crate) const STATIC: &str = "losing the API server alone stops no announcement";
/// Not for longer than [`LONGEST_OVERLAP`].
pub(crate) const TWO_ANNOUNCERS: &str = "two announcers that hear each other do not both go on";
/// After a start, after a pause, and when its cable was out.
pub(crate) const UNPROVED: &str = "nobody answers before it has proved its session since it woke or was cut off, or has \
                                   asked for the address";
/// Within [`longest_darkness`].
pub(crate) const BACK_IN_TIME: &str = "an address whose owner is gone is announced again in time";
/// From every state at rest.
pub(crate) const SETTLES: &str =
    "when everything is mended, every address has exactly one announcer, and no request is open";

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
    /// Since when nobody announces an address, and nothing has broken or was mended.
    dark: BTreeMap<IpAddr, Timestamp>,
}

impl Witness {
    fn breaks(&mut self, law: &'static str) {
        self.broken.get_or_insert(law);
    }

    /// Something breaks or is mended: what follows begins now.
    pub(crate) fn begin_anew(&mut self) {
        self.dark.clear();
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
            Write::Lock { address, change, .. } => {
                let holder = before.locks.get(address).and_then(|lock| lock.holder.as_ref());
                self.lock_changed(by, change, holder, before);
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
            Write::Accuse { .. } | Write::Read { .. } => {}
        }
    }

    /// Looks at what was changed on a lock that `holder` had.
    fn lock_changed(
        &mut self,
        by: &Node,
        change: &LockChange,
        holder: Option<&Holder>,
        before: &Store,
    ) {
        let is_own = holder.is_some_and(|holder| holder.node == *by);
        match change {
            LockChange::Take { .. } if holder.is_some_and(|it| !is_own && counts(it, before)) => {
                self.breaks(TAKEN_FROM_THE_LIVING);
            }
            LockChange::Give { .. } if !is_own => self.breaks(GIVEN_BY_ANOTHER),
            LockChange::Take { .. }
            | LockChange::Give { .. }
            | LockChange::Refuse { .. }
            | LockChange::Note { .. }
            | LockChange::Quarantine { .. } => {}
        }
    }

    fn ended(&mut self, reason: EndReason, faults: &[Kind]) {
        if matches!(faults, [] | [Kind::Pair]) && reason == EndReason::NodeSilent {
            self.breaks(HEARD_IS_ALIVE);
        }
        if !faults.contains(&Kind::Other) && reason == EndReason::SpeakerSilent {
            self.breaks(ANSWERS_IS_ALIVE);
        }
        if faults.iter().all(|kind| *kind == Kind::ApiDown) && reason == EndReason::Expired {
            self.breaks(AWAY_FOR_ALL);
        }
    }
}

/// Whether the session counts under which somebody has a lock.
fn counts(holder: &Holder, store: &Store) -> bool {
    let session = store.sessions.get(&holder.node);
    session.is_some_and(|session| session.epoch == holder.epoch && session.is_live())
}

/// Looks at a state.
pub(crate) fn look(world: &mut World) {
    let announcers = announcers(world);
    let api_only = world.faults.iter().all(|kind| matches!(kind, Kind::Api | Kind::ApiDown));
    for (address, by) in &announcers {
        if !by.is_empty() {
            world.witness.announced.insert(*address);
        } else if knows_nothing_of(world, *address) {
            world.witness.announced.remove(address);
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
    look_for_darkness(world, &announcers);
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

fn look_for_darkness(world: &mut World, announcers: &BTreeMap<IpAddr, BTreeSet<usize>>) {
    let Some(longest) = longest_darkness(world) else { return };
    let (now, witness) = (world.now, &mut world.witness);
    for (address, by) in announcers {
        if !by.is_empty() || !witness.announced.contains(address) {
            witness.dark.remove(address);
        } else if now.since(*witness.dark.entry(*address).or_insert(now)) > longest {
            witness.breaks(BACK_IN_TIME);
        }
    }
}

/// How long an address may be without an announcer, after one host or process has failed in a cluster at rest; and after a
/// host has, while the API server is away.
fn longest_darkness(world: &World) -> Option<Duration> {
    let away = world.speakers.iter().all(|speaker| !speaker.api || !speaker.running);
    let lost = |host: &Host| !host.power || host.frozen;
    match world.faults[..] {
        [Kind::Other] if world.calm => Some(takeover(&settings())),
        // Also when those have died who would have to confirm that a node is silent: they are asked when the node has
        // missed its first question. One that is left alone has to doubt itself, and takes longer.
        [Kind::Other, Kind::Other]
            if world.calm && world.hosts.len() > 3 && is_powerless(world, 2) =>
        {
            Some(takeover(&settings()) + settings().answer)
        }
        [Kind::ApiDown, Kind::Other] if world.calm && away && world.hosts.iter().any(lost) => {
            Some(takeover_without_the_api(&settings(), world.hosts.len()))
        }
        _ => None,
    }
}

/// Whether so many hosts have no power, which explains that many faults.
fn is_powerless(world: &World, hosts: usize) -> bool {
    world.hosts.iter().filter(|host| !host.power).count() == hosts
}

/// Until a node, or its speaker, is known to be silent. All else takes no time that counts.
fn takeover(settings: &Settings) -> Duration {
    let node = settings.probe + settings.answer * settings.misses;
    node.max(settings.speaker_probe + settings.speaker_patience)
}

/// Until a node is known to be silent, the last one of those that may stand in for it has its turn, and has asked the segment
/// three times.
fn takeover_without_the_api(settings: &Settings, nodes: usize) -> Duration {
    let silent = settings.probe + settings.answer * settings.misses;
    let others = u32::try_from(nodes).unwrap_or(u32::MAX).saturating_sub(2);
    silent + settings.patience * others + settings.first_probe * 3
}

#[test]
fn a_takeover_without_the_api_takes_less_than_two_seconds() {
    // Four watch a node, however many there are.
    let longest = takeover_without_the_api(&Settings::default(), 5);
    assert!(longest + Settings::default().retry < Duration::from_secs(2), "{longest:?}");
}

/// Whether the holder of an address was given it behind its back: its watch tells nothing, though its writes are done. A
/// real speaker notices within seconds that its watch is silent, and lists again.
fn knows_nothing_of(world: &World, address: IpAddr) -> bool {
    let holder = world.store.locks.get(&address).and_then(|lock| lock.holder.as_ref());
    let is_holders = |home: usize| holder.is_some_and(|it| it.node == world.hosts[home].name);
    world.speakers.iter().any(|it| it.running && it.lags && is_holders(it.home))
}

/// Whether every address has exactly one announcer, and nobody waits for it to be moved.
pub(crate) fn settled(world: &World) -> bool {
    let is_open = |lock: &Lock| lock.move_to.is_some();
    announcers(world).values().all(|by| by.len() == 1) && !world.store.locks.values().any(is_open)
}

//! Liveness and readiness, each made of named parts.
//!
//! *Ready* means that every awaited part has reported ("the first list of Leases is here") and lacks nothing since. *Live* means that
//! every watched loop has beaten recently; a process that is stuck is better restarted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The health of one process. Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Health {
    parts: Arc<Mutex<Parts>>,
}

#[derive(Debug, Default)]
struct Parts {
    awaited: BTreeMap<&'static str, State>,
    loops: BTreeMap<&'static str, Beat>,
}

/// How far an awaited part is.
#[derive(Debug)]
enum State {
    Awaited,
    /// It lacks this.
    Lacks(String),
    /// It lacks this, and the others go on.
    Without(String),
    Done,
}

#[derive(Debug)]
struct Beat {
    last: Instant,
    longest: Duration,
}

/// Reports that a part has its first data, or what it lacks.
#[derive(Debug)]
#[must_use = "the process is not ready before this handle says so"]
pub struct Awaited {
    name: &'static str,
    health: Health,
}

/// Reports that a loop goes round.
#[derive(Debug, Clone)]
#[must_use = "the process counts as stuck when this handle never beats"]
pub struct Heartbeat {
    name: &'static str,
    health: Health,
}

impl Health {
    /// Adds a part without which the process is not ready.
    pub fn awaits(&self, name: &'static str) -> Awaited {
        self.with(|parts| parts.awaited.insert(name, State::Awaited));
        Awaited { name, health: self.clone() }
    }

    /// Adds a loop that must beat at least every `longest`, from now on.
    pub fn watches(&self, name: &'static str, longest: Duration) -> Heartbeat {
        self.with(|parts| parts.loops.insert(name, Beat { last: Instant::now(), longest }));
        Heartbeat { name, health: self.clone() }
    }

    /// The parts that the process still waits for; empty when it is ready.
    pub fn missing(&self) -> Vec<String> {
        let missing = |(name, state): (&&'static str, &State)| match state {
            State::Awaited => Some((*name).to_owned()),
            State::Lacks(what) => Some(format!("{name} ({what})")),
            State::Without(_) | State::Done => None,
        };
        self.with(|parts| parts.awaited.iter().filter_map(missing).collect())
    }

    /// The parts that the process does without, and why.
    pub fn forgone(&self) -> Vec<String> {
        let forgone = |(name, state): (&&'static str, &State)| match state {
            State::Without(why) => Some(format!("{name} ({why})")),
            _ => None,
        };
        self.with(|parts| parts.awaited.iter().filter_map(forgone).collect())
    }

    /// The loops that have not beaten in time; empty when the process is live.
    pub fn stuck(&self) -> Vec<String> {
        self.with(|parts| {
            let late = |beat: &Beat| beat.last.elapsed() > beat.longest;
            parts
                .loops
                .iter()
                .filter(|(_, beat)| late(beat))
                .map(|(name, _)| (*name).to_owned())
                .collect()
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Parts) -> T) -> T {
        act(&mut self.parts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Awaited {
    /// The part has its data, and lacks nothing.
    pub fn done(&self) {
        self.health.with(|parts| parts.awaited.insert(self.name, State::Done));
    }

    /// The part does not get its data, and the process goes on without: why, for people. A part that lacks something goes
    /// on to lack it.
    pub fn does_without(&self, why: String) {
        self.health.with(|parts| {
            let state = parts.awaited.entry(self.name).or_insert(State::Awaited);
            if !matches!(state, State::Lacks(_)) {
                *state = State::Without(why);
            }
        });
    }

    /// The part cannot get its data: what it lacks, for people.
    pub fn lacks(&self, what: String) {
        self.health.with(|parts| parts.awaited.insert(self.name, State::Lacks(what)));
    }
}

impl Heartbeat {
    /// The loop goes round.
    pub fn beat(&self) {
        self.health.with(|parts| {
            if let Some(beat) = parts.loops.get_mut(self.name) {
                beat.last = Instant::now();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_awaited_part_is_done() {
        let health = Health::default();
        let (leases, links) = (health.awaits("leases"), health.awaits("links"));
        leases.done();
        assert_eq!(health.missing(), ["links"]);
        links.done();
        assert!(health.missing().is_empty());
    }

    #[test]
    fn ready_without_what_it_does_without_but_not_without_what_it_lacks() {
        let health = Health::default();
        let (pools, nodes) = (health.awaits("pools"), health.awaits("nodes"));
        nodes.lacks("forbidden".to_owned());
        for part in [&pools, &nodes] {
            part.does_without("500".to_owned());
        }
        assert_eq!(health.missing(), ["nodes (forbidden)"]);
        assert_eq!(health.forgone(), ["pools (500)"]);
        pools.done();
        assert!(health.forgone().is_empty());
    }

    #[test]
    fn stuck_when_a_loop_is_late_and_well_again_when_it_beats() {
        let health = Health::default();
        let beat = health.watches("core", Duration::from_millis(5));
        assert!(health.stuck().is_empty());
        std::thread::sleep(Duration::from_millis(10));
        assert_eq!(health.stuck(), ["core"]);
        beat.beat();
        assert!(health.stuck().is_empty());
    }
}

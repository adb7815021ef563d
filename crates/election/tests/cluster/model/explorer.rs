//! Breadth first through all states, with the shortest way to what is broken.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::Entry},
    fmt,
    iter::successors,
    time::{Duration, Instant},
};

use super::{
    fingerprint::fingerprint,
    law::{SETTLES, settled},
    world::{Step, World},
};

/// What was found.
pub(crate) struct Report {
    states: usize,
    steps: usize,
    at_rest: usize,
    faults: usize,
    took: Duration,
    pub(crate) broken: Option<Broken>,
}

/// A law that does not hold, and how to get there.
pub(crate) struct Broken {
    pub(crate) law: &'static str,
    story: Vec<String>,
}

/// Visits every state that can be reached from `start`, or stops at the first that breaks a law.
pub(crate) fn explore(start: &World) -> Report {
    let began = Instant::now();
    let mut explorer = Explorer::default();
    let broken = explorer.run(start);
    let tell = |(law, state)| Broken { law, story: tell(start, &explorer.way_to(state)) };
    Report {
        states: explorer.known.len(),
        steps: explorer.steps,
        at_rest: explorer.at_rest,
        faults: start.plan.len(),
        took: began.elapsed(),
        broken: broken.map(tell),
    }
}

/// A law, and the state that breaks it.
type Finding = (&'static str, u64);

#[derive(Default)]
struct Explorer {
    /// Every state seen, by its fingerprint, with the one before it and the step between.
    known: HashMap<u64, Option<(u64, Step)>>,
    /// States that are known but not left yet.
    waiting: VecDeque<(u64, World)>,
    settling: Settling,
    steps: usize,
    at_rest: usize,
}

impl Explorer {
    fn run(&mut self, start: &World) -> Option<Finding> {
        let origin = fingerprint(start);
        self.known.insert(origin, None);
        self.waiting.push_back((origin, start.clone()));
        while let Some((state, world)) = self.waiting.pop_front() {
            let broken = self.look(state, &world).or_else(|| self.leave(state, &world));
            if broken.is_some() {
                return broken;
            }
        }
        None
    }

    fn look(&mut self, state: u64, world: &World) -> Option<Finding> {
        if world.proceeding()[0] != Step::Tick {
            return None;
        }
        self.at_rest += 1;
        self.settling.broken(world).map(|law| (law, state))
    }

    /// Takes every step that is possible from here.
    fn leave(&mut self, from: u64, world: &World) -> Option<Finding> {
        for step in world.steps() {
            self.steps += 1;
            let mut after = world.clone();
            after.take(step);
            let state = fingerprint(&after);
            if let Entry::Vacant(place) = self.known.entry(state) {
                place.insert(Some((from, step)));
                if let Some(law) = after.witness.broken {
                    return Some((law, state));
                }
                self.waiting.push_back((state, after));
            }
        }
        None
    }

    fn way_to(&self, state: u64) -> Vec<Step> {
        let before = |at: &u64| self.known.get(at).copied().flatten();
        let back = successors(before(&state), |(from, _)| before(from));
        let mut way: Vec<Step> = back.map(|(_, step)| step).collect();
        way.reverse();
        way
    }
}

/// The way in words: each step, and the writes that were on their way before it.
fn tell(start: &World, way: &[Step]) -> Vec<String> {
    let mut world = start.clone();
    let mut story = Vec::new();
    for step in way {
        let requests = world.requests.iter().map(|it| format!("    {}: {:?}", it.from, it.write));
        story.extend(requests);
        story.push(format!("{step:?}"));
        world.take(*step);
    }
    story
}

/// Remembers from where it is known that all ends well.
#[derive(Default)]
struct Settling {
    well: HashSet<u64>,
}

impl Settling {
    /// Mends everything and lets time pass until a state comes again: between the two, all must be settled. Returns the
    /// law that is broken.
    fn broken(&mut self, world: &World) -> Option<&'static str> {
        let mut world = world.clone();
        world.mend_all();
        let mut passed: Vec<(u64, bool)> = Vec::new();
        loop {
            world.come_to_rest();
            if world.witness.broken.is_some() {
                return world.witness.broken;
            }
            let print = fingerprint(&world);
            if self.well.contains(&print) {
                break;
            }
            if let Some(first) = passed.iter().position(|(known, _)| *known == print) {
                if !passed[first..].iter().all(|(_, settled)| *settled) {
                    return Some(SETTLES);
                }
                break;
            }
            passed.push((print, settled(&world)));
            world.take(Step::Tick);
        }
        self.well.extend(passed.into_iter().map(|(print, _)| print));
        None
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, steps, at_rest, faults, took, .. } = self;
        write!(
            f,
            "{states} states, {steps} steps, {at_rest} states at rest, at most {faults} faults, {took:.1?}"
        )
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "broken: {}", self.law)?;
        self.story.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

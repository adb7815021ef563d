//! Several candidates and one record in virtual time: never two leaders, and soon one.

use std::time::Duration;

use arpeggio_election::{
    Renewal, Timestamp, Version,
    leader::{Answer, Candidate, Leader, LeaseTimes, Write},
};
use proptest::prelude::*;

const CANDIDATES: usize = 3;
/// The pace of virtual time, in milliseconds.
const TICK: u64 = 50;
/// A leader that is gone for good is replaced by then: its record expires, one write is lost, the next one is answered.
const REPLACED: u64 = 12_000;

/// What disturbs writes and news for a while.
#[derive(Debug, Clone)]
struct Weather {
    /// For how many ticks.
    lasts: u64,
    /// The candidate that neither reaches the server nor hears from it.
    cut: Option<usize>,
    /// From the candidate to the server, in ticks.
    there: u64,
    /// From the server to the candidate, in ticks.
    back: u64,
    /// Whether the answer is lost.
    lost: bool,
    /// How late the candidate sees the record in its watch, in ticks.
    news: u64,
}

fn weather() -> impl Strategy<Value = Weather> {
    let delay = || prop_oneof![0..5_u64, 0..50_u64];
    (1..200_u64, prop::option::of(0..CANDIDATES), delay(), delay(), any::<bool>(), delay())
        .prop_map(|(lasts, cut, there, back, lost, news)| Weather {
            lasts,
            cut,
            there,
            back,
            lost,
            news,
        })
}

const CALM: Weather = Weather { lasts: 0, cut: None, there: 1, back: 1, lost: false, news: 1 };

/// A write on its way.
struct Flight {
    arrives: u64,
    returns: u64,
    write: Write,
    answer: Option<Answer>,
}

struct Process {
    candidate: Candidate,
    flight: Option<Flight>,
    running: bool,
}

struct World {
    now: u64,
    record: Option<Leader>,
    /// Every state of the record, and since when.
    history: Vec<(u64, Leader)>,
    processes: Vec<Process>,
}

impl World {
    fn new() -> Self {
        let process = |number| Process {
            candidate: Candidate::new(&format!("process-{number}"), LeaseTimes::default()),
            flight: None,
            running: true,
        };
        let processes = (0..CANDIDATES).map(process).collect();
        Self { now: 0, record: None, history: Vec::new(), processes }
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(self.now))
    }

    fn tick(&mut self, weather: &Weather) {
        self.now += TICK;
        for number in 0..CANDIDATES {
            if self.processes[number].running {
                if weather.cut != Some(number) {
                    self.look(number, weather);
                }
                self.fly(number, weather);
            }
        }
        let leaders = self.leaders();
        assert!(leaders.len() <= 1, "at {}: {leaders:?}", self.now);
    }

    fn look(&mut self, number: usize, weather: &Weather) {
        let now = self.time();
        let shown = self.now.saturating_sub(weather.news * TICK);
        let seen = self.history.iter().rev().find(|(since, _)| *since <= shown);
        let candidate = &mut self.processes[number].candidate;
        match seen {
            Some((_, record)) => candidate.saw(Some(record.clone()), now),
            None if self.history.is_empty() => candidate.saw(None, now),
            None => {}
        }
    }

    fn fly(&mut self, number: usize, weather: &Weather) {
        let (now, instant) = (self.time(), self.now);
        let Some(mut flight) = self.processes[number].flight.take() else {
            if let Some(write) = self.processes[number].candidate.decide(now).write {
                let arrives = instant + weather.there * TICK;
                let returns = arrives + weather.back * TICK;
                self.processes[number].flight =
                    Some(Flight { arrives, returns, write, answer: None });
            }
            return;
        };
        if instant >= flight.arrives && flight.answer.is_none() {
            let answer = match weather.cut {
                Some(cut) if cut == number => Answer::Nothing,
                _ => self.serve(number, flight.write),
            };
            flight.answer = Some(if weather.lost { Answer::Nothing } else { answer });
        }
        match flight.answer {
            Some(answer) if instant >= flight.returns => {
                self.processes[number].candidate.answered(answer, now);
            }
            _ => self.processes[number].flight = Some(flight),
        }
    }

    /// What the API server does: compare and swap.
    fn serve(&mut self, number: usize, write: Write) -> Answer {
        let current = self.record.as_ref().map(|record| record.version);
        let (expected, holds) = match write {
            Write::Create => (None, true),
            Write::Take { expected } | Write::Renew { expected } => (Some(expected), true),
            Write::StepDown { expected } => (Some(expected), false),
        };
        if expected != current {
            return Answer::Found(self.record.clone());
        }
        let record = Leader {
            holder: holds.then(|| self.processes[number].candidate.name().to_owned()),
            duration: LeaseTimes::default().duration,
            // As with Kubernetes: who steps down leaves the time of the last renewal.
            renewal: match write {
                Write::StepDown { .. } => self.record.as_ref().and_then(|record| record.renewal),
                _ => Some(Renewal(self.now.cast_signed())),
            },
            version: Version(current.map_or(1, |version| version.0 + 1)),
        };
        self.record = Some(record.clone());
        self.history.push((self.now, record.clone()));
        Answer::Written(record)
    }

    fn leaders(&self) -> Vec<usize> {
        let leads = |process: &Process| {
            process.running
                && process.candidate.leads_until().is_some_and(|until| self.time() < until)
        };
        (0..CANDIDATES).filter(|number| leads(&self.processes[*number])).collect()
    }

    fn run(&mut self, millis: u64) {
        for _ in 0..millis / TICK {
            self.tick(&CALM);
        }
    }
}

proptest! {
    #[test]
    fn there_are_never_two_leaders_and_soon_one(
        storm in prop::collection::vec(weather(), 1..40),
        crashed in prop::option::of(0..CANDIDATES),
    ) {
        let mut world = World::new();
        for weather in &storm {
            (0..weather.lasts).for_each(|_| world.tick(weather));
        }
        if let Some(crashed) = crashed {
            world.processes[crashed].running = false;
        }
        world.run(REPLACED);
        prop_assert_eq!(world.leaders().len(), 1);
    }
}

#[test]
fn in_calm_weather_the_leader_stays_and_a_dead_one_is_replaced_in_time() {
    let mut world = World::new();
    world.run(1_000);
    let first = world.leaders();
    world.run(60_000);
    assert_eq!(world.leaders(), first);
    world.processes[first[0]].running = false;
    world.run(7_000);
    assert_eq!(world.leaders().len(), 1);
    assert_ne!(world.leaders(), first);
}

#[test]
fn a_leader_that_steps_down_is_followed_at_once() {
    let mut world = World::new();
    world.run(1_000);
    let first = world.leaders()[0];
    let write = world.processes[first].candidate.step_down().unwrap();
    world.processes[first].running = false;
    assert!(world.leaders().is_empty(), "it acts no more before others may know");
    world.serve(first, write);
    world.run(300);
    assert_eq!(world.leaders().len(), 1);
}

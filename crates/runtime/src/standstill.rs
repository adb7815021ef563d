//! A thread that stands still is noticed by another one within a second or so, and the process ends, to be started anew.
//!
//! Time is counted in looks of the watching thread, not by a clock: a process that was frozen, or has no processor, looks as
//! seldom as it works. A look tells what the thread does, by its state in `/proc` (proc(5)): one that *waits* for a second,
//! and has gone round at none of these looks, waits for something that does not come. One that *works* may come to an end,
//! and gets five seconds. One that the *kernel* holds up is not helped by a new process, which would wait for the same.

use std::{
    fs, io,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use nix::unistd::{Pid, gettid};

use crate::ending;

/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// So many looks at a thread that waits, and goes round at none of them, are a standstill. No loop may wait for longer.
const WAITING: u32 = 10;

/// The same for a thread that works.
const WORKING: u32 = 50;

/// Watches threads. Clones share the list.
#[derive(Debug, Clone, Default)]
pub struct Watchdog {
    watched: Arc<Mutex<Vec<Watched>>>,
}

/// Whoever holds it says that its loop goes round. Dropping it ends the watching.
#[derive(Debug)]
#[must_use = "who does not go round is taken for one that stands still"]
pub struct Rounds(Arc<AtomicU64>);

impl Rounds {
    /// The loop goes round. It has to at least twice a second.
    pub fn next(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Watchdog {
    /// Starts a thread that ends the process when one of its threads stands still; `program` is named as the one that has.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(program: &'static str) -> io::Result<Self> {
        let watchdog = Self::default();
        let watching = watchdog.clone();
        thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            watching.watch_all(|name, verdict| tell(program, name, verdict));
        })?;
        Ok(watchdog)
    }

    /// Watches the calling thread from now on. Without [`start`](Self::start) nobody looks.
    pub fn watch(&self, name: impl Into<String>) -> Rounds {
        let rounds = Arc::new(AtomicU64::new(0));
        let (name, thread) = (name.into(), gettid());
        self.with(|watched| {
            watched.push(Watched {
                name,
                thread,
                rounds: Arc::downgrade(&rounds),
                stillness: Stillness::default(),
            });
        });
        Rounds(rounds)
    }

    /// Never ends.
    fn watch_all(&self, tell: impl Fn(&str, Verdict)) {
        loop {
            thread::sleep(LOOK);
            self.with(|watched| watched.retain_mut(|it| it.look(&tell)));
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vec<Watched>) -> T) -> T {
        act(&mut self.watched.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn tell(program: &str, thread: &str, verdict: Verdict) {
    match verdict {
        Verdict::GoesOn => {}
        Verdict::IsHeldUp => {
            tracing::warn!(thread, "the kernel has kept a thread waiting for a second");
        }
        Verdict::StandsStill => {
            let why = format!("the thread \"{thread}\" stands still: this process ends");
            _ = ending::failed(program, why);
        }
    }
}

#[derive(Debug)]
struct Watched {
    name: String,
    thread: Pid,
    rounds: Weak<AtomicU64>,
    stillness: Stillness,
}

impl Watched {
    /// Whether there is still somebody to look at.
    fn look(&mut self, tell: &impl Fn(&str, Verdict)) -> bool {
        let Some(rounds) = self.rounds.upgrade() else { return false };
        let state = || state_of(self.thread);
        tell(&self.name, self.stillness.look(rounds.load(Ordering::Relaxed), state));
        true
    }
}

/// What a thread is found at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It waits for another thread, for a file, or for time to go by.
    Waits,
    /// It works, or has no processor. Also a thread that nothing is known about.
    Works,
    /// The kernel serves it, and it cannot be interrupted.
    InKernel,
}

fn state_of(thread: Pid) -> State {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    // The name before it is in brackets, and may have some of its own.
    match text.rsplit_once(") ").map_or("", |(_, rest)| rest).as_bytes().first() {
        Some(b'S') => State::Waits,
        Some(b'D') => State::InKernel,
        _ => State::Works,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    GoesOn,
    /// Told once.
    IsHeldUp,
    StandsStill,
}

/// At how many looks a thread has not gone round, by what it was found at.
#[derive(Debug, Default)]
struct Stillness {
    /// The round that was seen last.
    round: u64,
    waiting: u32,
    working: u32,
    held_up: u32,
}

impl Stillness {
    fn look(&mut self, round: u64, state: impl FnOnce() -> State) -> Verdict {
        if round != self.round {
            *self = Self { round, ..Self::default() };
            return Verdict::GoesOn;
        }
        let (looks, limit, verdict) = match state() {
            State::Waits => (&mut self.waiting, WAITING, Verdict::StandsStill),
            State::Works => (&mut self.working, WORKING, Verdict::StandsStill),
            State::InKernel => (&mut self.held_up, WAITING, Verdict::IsHeldUp),
        };
        *looks = looks.saturating_add(1);
        if *looks == limit { verdict } else { Verdict::GoesOn }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{self, Receiver},
        time::Instant,
    };

    use super::*;

    #[test]
    fn stillness_is_judged_by_what_a_thread_does() {
        let looks = |state: State, count: u32| {
            let mut stillness = Stillness::default();
            let verdicts = (0..count).map(move |_| stillness.look(0, || state));
            verdicts.filter(|it| *it != Verdict::GoesOn).collect::<Vec<_>>()
        };
        assert_eq!(looks(State::Waits, 9), []);
        assert_eq!(looks(State::Waits, 10), [Verdict::StandsStill]);
        assert_eq!(looks(State::Works, 49), []);
        assert_eq!(looks(State::Works, 50), [Verdict::StandsStill]);
        assert_eq!(looks(State::InKernel, 1000), [Verdict::IsHeldUp], "once, and never more");
    }

    #[test]
    fn who_goes_round_is_judged_anew() {
        let mut stillness = Stillness::default();
        for round in 0..100 {
            for _ in 0..9 {
                assert_eq!(stillness.look(round, || State::Waits), Verdict::GoesOn);
            }
        }
    }

    #[test]
    fn work_with_short_waits_is_work() {
        let mut stillness = Stillness::default();
        let mut verdicts = (1..=49).map(|look| {
            let state = if look % 5 == 0 { State::Waits } else { State::Works };
            stillness.look(0, || state)
        });
        assert!(verdicts.all(|it| it == Verdict::GoesOn));
    }

    /// What is told of the threads of a watchdog, but that they go on.
    fn told(watchdog: &Watchdog) -> Receiver<(String, Verdict)> {
        let (sender, told) = mpsc::channel();
        let watching = watchdog.clone();
        thread::spawn(move || {
            watching.watch_all(|name, verdict| {
                if verdict != Verdict::GoesOn {
                    _ = sender.send((name.to_owned(), verdict));
                }
            });
        });
        told
    }

    fn wait_until(condition: impl Fn() -> bool) {
        let begin = Instant::now();
        while !condition() {
            assert!(begin.elapsed() < Duration::from_secs(30));
            thread::sleep(LOOK);
        }
    }

    #[test]
    fn a_thread_that_waits_for_ever_is_found_beside_one_that_works() {
        let watchdog = Watchdog::default();
        let works = watchdog.clone();
        thread::spawn(move || {
            let rounds = works.watch("works");
            loop {
                rounds.next();
                thread::sleep(Duration::from_millis(50));
            }
        });
        let (_never, waits_for) = mpsc::channel::<()>();
        let (watched, is_watched) = mpsc::channel();
        let waits = watchdog.clone();
        thread::spawn(move || {
            let rounds = waits.watch("waits");
            watched.send(()).unwrap();
            _ = waits_for.recv();
            rounds.next();
        });
        is_watched.recv().unwrap();
        let told = told(&watchdog);
        let (name, verdict) = told.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!((&*name, verdict), ("waits", Verdict::StandsStill));
    }

    #[test]
    fn who_is_gone_is_not_watched() {
        let watchdog = Watchdog::default();
        drop(watchdog.watch("gone"));
        let told = told(&watchdog);
        wait_until(|| watchdog.with(|watched| watched.is_empty()));
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn the_state_of_a_thread_is_read() {
        assert_eq!(state_of(gettid()), State::Works);
        let (sender, thread) = mpsc::channel();
        let (_never, waits_for) = mpsc::channel::<()>();
        thread::Builder::new()
            .name("a) b (c".to_owned())
            .spawn(move || {
                sender.send(gettid()).unwrap();
                _ = waits_for.recv();
            })
            .unwrap();
        let thread = thread.recv().unwrap();
        wait_until(|| state_of(thread) == State::Waits);
        assert_eq!(state_of(Pid::from_raw(i32::MAX)), State::Works, "nothing is known about it");
    }
}

//! The guard: a process of its own that removes the lab when its owner is gone, for whatever
//! reason.
//!
//! It is this same program, started again in a session of its own, so that Ctrl-C in a terminal
//! does not reach it. It holds the lab's lock and reads from a pipe that only the owner can write
//! to: when the pipe closes, the owner has ended, and the guard tears the lab down. There is no
//! other way in which a lab is removed while its guard lives.

use std::env;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Doing, LabError, Result};
use crate::folders::LabLock;
use crate::plan::LabName;
use crate::process::Process;
use crate::progress::Progress;
use crate::teardown;

/// Set in the environment of the guard: the lab that it is for.
const ASKED: &str = "ARPEGGIO_LAB_GUARD";
const READY: &str = "ready";
const TAKEN: &str = "taken";
/// What the owner writes to have the lab outlive it.
const KEEP: u8 = b'k';

/// To be called first in `main()` by every program that starts labs: does not return if this
/// process is a guard.
pub fn run_if_asked() {
    let Ok(name) = env::var(ASKED) else { return };
    let outcome = name.parse().and_then(|lab| guard(&lab));
    if let Err(error) = outcome {
        let _ = writeln!(io::stderr(), "arpeggio-lab: {error}");
        std::process::exit(1);
    }
    std::process::exit(0);
}

/// The life of a guard process.
fn guard(lab: &LabName) -> Result<()> {
    nix::unistd::setsid().doing("start a session for the guard")?;
    let events = events()?;
    let Some(lock) = LabLock::take_patiently(lab)? else {
        println!("{TAKEN}");
        return Ok(());
    };
    teardown::clear(lab, &lock)?;
    println!("{READY}");
    wait_for_the_end(&events);
    let progress = Progress::new(lab);
    let started = Instant::now();
    teardown::remove(lab, &lock)?;
    progress.done("removed", started);
    Ok(())
}

enum Event {
    Keep,
    OwnerGone,
    Signal,
}

/// Returns when the owner is gone and did not ask to keep the lab, or when told so by a signal.
fn wait_for_the_end(events: &mpsc::Receiver<Event>) {
    let mut kept = false;
    for event in events {
        match event {
            Event::Keep => {
                kept = true;
                leave_standard_error();
            }
            Event::OwnerGone if kept => {}
            Event::OwnerGone | Event::Signal => return,
        }
    }
}

/// Who reads the owner's standard error through a pipe would otherwise wait for the end of the kept
/// lab.
fn leave_standard_error() {
    if let Ok(nowhere) = File::options().write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stderr(nowhere);
    }
}

fn events() -> Result<mpsc::Receiver<Event>> {
    let (sender, receiver) = mpsc::channel();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).doing("watch signals")?;
    let on_signal = sender.clone();
    thread::spawn(move || {
        for _ in signals.forever() {
            let _ = on_signal.send(Event::Signal);
        }
    });
    thread::spawn(move || {
        for byte in io::stdin().lock().bytes() {
            if byte.is_ok_and(|byte| byte == KEEP) {
                let _ = sender.send(Event::Keep);
            }
        }
        let _ = sender.send(Event::OwnerGone);
    });
    Ok(receiver)
}

/// The owner's end: while this lives, so does the lab.
#[derive(Debug)]
pub(crate) struct Guard {
    process: Child,
    pipe: Option<ChildStdin>,
    /// Held open: the guard's words after `ready` would kill it if nobody could read them.
    _answers: BufReader<ChildStdout>,
}

impl Guard {
    /// Starts the guard of a lab that does not exist yet.
    ///
    /// # Errors
    /// [`LabError::Running`] if it does, [`LabError::NoGuard`] if this program's `main` does not
    /// call [`run_if_asked`].
    pub(crate) fn start(lab: &LabName) -> Result<Self> {
        let program = env::current_exe().doing("find this program")?;
        let mut process = Command::new(program)
            .env(ASKED, lab.as_str())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .doing("start the guard")?;
        let pipe = process.stdin.take();
        let output = process.stdout.take().ok_or_else(|| LabError::NoGuard("no pipe".into()))?;
        let mut answers = BufReader::new(output);
        let mut answer = String::new();
        answers.read_line(&mut answer).doing("read from the guard")?;
        let guard = Self { process, pipe, _answers: answers };
        match answer.trim() {
            READY => Ok(guard),
            TAKEN => Err(LabError::Running(lab.to_string())),
            other => Err(LabError::NoGuard(format!("it said '{other}'"))),
        }
    }

    /// From now on the lab outlives this process.
    pub(crate) fn keep(mut self) -> Result<()> {
        match &mut self.pipe {
            Some(pipe) => pipe.write_all(&[KEEP]).doing("tell the guard to keep the lab"),
            None => Ok(()),
        }
    }

    /// Has the lab removed and waits for it.
    pub(crate) fn end(mut self, lab: &LabName) -> Result<()> {
        drop(self.pipe.take());
        let status = self.process.wait().doing("wait for the guard")?;
        if status.success() {
            return Ok(());
        }
        // The guard was killed, or failed: it is on us now. Its own words are on standard error.
        remove_unguarded(lab)
    }
}

/// Ends a lab from outside: through its guard if that lives, else directly.
///
/// # Errors
/// When something of it is left.
pub fn end_lab(lab: &LabName) -> Result<()> {
    if let Some(guard) = LabLock::owner(lab).map(Process) {
        guard.signal(Signal::SIGTERM)?;
        while guard.is_alive() {
            thread::sleep(Duration::from_millis(20));
        }
    }
    remove_unguarded(lab)
}

fn remove_unguarded(lab: &LabName) -> Result<()> {
    match LabLock::take_patiently(lab)? {
        Some(lock) => teardown::remove(lab, &lock),
        None => Err(LabError::Running(lab.to_string())),
    }
}

//! A lab goes, whatever happens to those who have it.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use arpeggio_lab::folders::{LabLock, known_labs};
use arpeggio_lab::{Lab, LabError, LabName, Options, teardown};
use libtest_mimic::Failed;

use crate::Verdict;
use crate::traces::Traces;

/// In the environment of a process that is to own a lab and be killed.
const OWN: &str = "ARPEGGIO_LAB_TEST_OWNS";
const PATIENCE: Duration = Duration::from_secs(30);

fn small() -> Options {
    Options { nodes: 1, ..Options::default() }
}

/// The life of such a process: it has a lab, says so, and waits for its end.
pub(crate) fn own_a_lab_if_asked() {
    let Ok(name) = env::var(OWN) else { return };
    println!("starting");
    let lab = Lab::start(name.parse().unwrap(), small()).unwrap();
    println!("up");
    thread::sleep(Duration::from_mins(10));
    drop(lab);
}

/// A process that has a lab.
struct Owner(Child);

impl Owner {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A failed test leaves none behind.
impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn owner_of(lab: &LabName, says: &str) -> Owner {
    let mut child = Command::new(env::current_exe().unwrap())
        .env(OWN, lab.as_str())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == says), "the owner ended early");
    Owner(child)
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<Duration, Failed> {
    let started = Instant::now();
    while !is_so() {
        if started.elapsed() > PATIENCE {
            return Err(format!("not seen: {what}").into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(started.elapsed())
}

/// The owner dies when the lab is up, and at several moments while it is being built.
pub(crate) fn owner_killed() -> Verdict {
    let lab: LabName = "it-killed".parse()?;
    let before = Traces::now();
    let moments = [("up", 0), ("starting", 100), ("starting", 400), ("starting", 1500)];
    for (says, later) in moments {
        let mut owner = owner_of(&lab, says);
        thread::sleep(Duration::from_millis(later));
        let traces_of_life = !known_labs().is_empty();
        owner.kill();
        // The guard itself is the last to go, some moments after the lab's folder.
        let took = wait_until("the end of the lab and of its guard", || {
            before.none_since(&[lab.as_str()]).is_ok()
        });
        before.none_since(&[lab.as_str()])?;
        let took = took?;
        eprintln!(
            "owner killed {later} ms after '{says}' (lab there: {traces_of_life}): gone after {took:?}"
        );
    }
    Ok(())
}

/// Owner and guard die at once: the next lab of any name removes the leftovers.
pub(crate) fn guard_killed() -> Verdict {
    let lab: LabName = "it-guardless".parse()?;
    let before = Traces::now();
    let mut owner = owner_of(&lab, "up");
    let guard = LabLock::owner(&lab).ok_or("no guard")?;
    Command::new("kill").args(["-KILL", &guard.to_string()]).status()?;
    owner.kill();
    wait_until("the guard's end", || LabLock::owner(&lab).is_none())?;
    assert!(before.none_since(&[lab.as_str()]).is_err(), "the leftovers should be there");
    let removed = teardown::remove_dead_labs()?;
    assert!(removed.contains(&lab), "{removed:?}");
    before.none_since(&[lab.as_str()])
}

/// Two labs, same addresses, different names; and a name can be used once only.
pub(crate) fn two_labs() -> Verdict {
    let before = Traces::now();
    let (first, second): (LabName, LabName) = ("it-a".parse()?, "it-a-node-1".parse()?);
    let a = Lab::start(first.clone(), small())?;
    let b = Lab::start(second.clone(), Options { nodes: 2, ..Options::default() })?;
    assert!(matches!(Lab::start(first.clone(), small()), Err(LabError::Running(_))));
    let count =
        |lab: &Lab| lab.get(&["nodes"]).map(|nodes| nodes["items"].as_array().map(Vec::len));
    assert_eq!((count(&a)?, count(&b)?), (Some(1), Some(2)));
    a.stop()?;
    assert_eq!(count(&b)?, Some(2), "the other lab lives on");
    drop(b);
    before.none_since(&[first.as_str(), second.as_str()])
}

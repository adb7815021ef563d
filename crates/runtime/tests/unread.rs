//! A process whose standard error nobody reads goes on, and ends when it is to end.
#![cfg(test)]

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use arpeggio_runtime::{
    ending,
    telemetry::{self, LogArgs, LogFormat},
};

/// What the process is to do that a test has started.
const TASK: &str = "ARPEGGIO_TEST_TASK";

/// Many times what the pipe holds.
const LINES: usize = 20_000;

/// How long a process may take until it has logged all, and then until it ends that is to end within a second.
const PATIENCE: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_secs(3);

/// What the process says on standard output when it has logged all.
const HAS_LOGGED: &str = "all is logged";

/// Runs [`the_process`] until it ends. `None`: it does not, soon after it has logged all.
fn end_of(task: &str) -> Option<ExitStatus> {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["the_process", "--exact", "--ignored", "--nocapture"])
        .env(TASK, task)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(process.stdout.take().unwrap());
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = said.lines().map_while(Result::ok);
        let _ = tell.send(lines.any(|line| line.contains(HAS_LOGGED)));
        lines.for_each(drop);
    });
    let has_logged = told.recv_timeout(PATIENCE) == Ok(true);
    let begin = Instant::now();
    while has_logged && begin.elapsed() < SOON {
        if let Some(status) = process.try_wait().unwrap() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(20));
    }
    process.kill().unwrap();
    process.wait().unwrap();
    None
}

#[test]
#[ignore = "what the other tests start"]
fn the_process() {
    let Ok(task) = std::env::var(TASK) else { return };
    let args = LogArgs { filter: "info".into(), format: LogFormat::Text };
    let logging = telemetry::init(&args).unwrap();
    for line in 0..LINES {
        tracing::info!(line, "nobody reads this, however long it is and however often it is said");
    }
    println!("{HAS_LOGGED}");
    match &*task {
        "goes on" => drop(logging),
        "panics" => panic!("nobody reads this either"),
        "panics on a thread" => {
            thread::spawn(|| panic!("nobody reads this either"));
            thread::sleep(Duration::from_mins(1));
        }
        "fails" => _ = ending::failed("test", "nobody reads this either"),
        other => panic!("{other}?"),
    }
}

#[test]
fn who_logs_waits_for_nobody() {
    assert!(end_of("goes on").is_some_and(|it| it.success()));
}

#[test]
fn a_panic_ends_the_process() {
    for task in ["panics", "panics on a thread"] {
        assert!(end_of(task).is_some_and(|it| !it.success()), "{task}");
    }
}

#[test]
fn a_failure_ends_the_process() {
    assert!(end_of("fails").is_some());
}

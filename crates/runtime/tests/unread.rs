//! A process whose standard error nobody reads goes on, and ends when it is to end.
#![cfg(test)]

use std::{
    process::{Command, ExitStatus, Stdio},
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

/// Runs [`the_process`] until it ends. `None`: it does not.
fn end_of(task: &str) -> Option<ExitStatus> {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["the_process", "--exact", "--ignored", "--nocapture"])
        .env(TASK, task)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(20) {
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

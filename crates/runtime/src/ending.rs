//! A process that is to end does so, whoever does not read its last words.
//!
//! Standard error can be a pipe that nobody reads. Whoever writes to it then waits for ever: a process that has failed would
//! go on half dead, and nobody would start it again.

use std::{
    fmt::Display,
    panic,
    process::{self, ExitCode},
    thread,
    time::Duration,
};

/// The time for last words.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Ends the process in half a second, if it has not ended by then.
pub fn soon() {
    let thread = thread::Builder::new().name("end".to_owned()).spawn(|| {
        thread::sleep(LAST_WORDS);
        process::abort();
    });
    if thread.is_err() {
        process::abort();
    }
}

/// From now on a panic, on whichever thread, ends the process soon, also if nobody reads what is wrong.
pub(crate) fn on_panic() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        soon();
        tell(panic);
    }));
}

/// Says on standard error why `program` has failed; the process ends soon. What it returns is for whoever is faster.
pub fn failed(program: &str, why: impl Display) -> ExitCode {
    soon();
    #[allow(clippy::print_stderr)] // Logging may not have started.
    {
        eprintln!("{program}: {why}");
    }
    ExitCode::FAILURE
}

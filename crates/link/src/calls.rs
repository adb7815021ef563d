//! System calls that wait.

use std::io::{self, ErrorKind};

/// What a call comes to when it is not interrupted. The kernel interrupts the waiting for a socket that has a time-out also where the
/// process handles no signal, when it is stopped for a moment and goes on (signal(7)). The call waits anew then.
///
/// # Errors
/// Those of the call, but for [`ErrorKind::Interrupted`].
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

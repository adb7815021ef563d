//! One line on standard error for each step, so that nobody stares at a silent terminal.

use std::io::{self, Write};
use std::time::Instant;

use crate::plan::LabName;

/// Prints what a lab is doing and how long each step took.
#[derive(Clone, Debug)]
pub struct Progress {
    lab: String,
}

impl Progress {
    /// Lines begin with the lab's name: several labs may print side by side.
    pub fn new(lab: &LabName) -> Self {
        Self { lab: lab.to_string() }
    }

    /// A step that has ended, and when it began.
    pub fn done(&self, what: &str, since: Instant) {
        self.note(&format!("{what} ({:.1} s)", since.elapsed().as_secs_f32()));
    }

    /// A remark.
    pub fn note(&self, what: &str) {
        // A guard may outlive the terminal; it must not die of having nobody to tell.
        let _ = writeln!(io::stderr(), "{}: {what}", self.lab);
    }
}

//! What can go wrong in a lab, and what the reader can do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, LabError>;

/// Why a lab could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces, mounts and raw sockets need root.
    #[error(
        "a lab needs root (network namespaces, mounts, raw sockets): run it with sudo or as root"
    )]
    NotRoot,
    /// The name cannot be part of the names of namespaces and folders.
    #[error(
        "'{0}' cannot be the name of a lab: 1 to 24 of a-z, 0-9 and '-', beginning with a letter and not ending in '-'"
    )]
    BadName(String),
    /// The address plan has room for so many nodes.
    #[error("a lab has 1 to {most} nodes, not {asked}")]
    BadNodeCount {
        /// What was asked for.
        asked: u8,
        /// What the plan has room for.
        most: u8,
    },
    /// Programs that come with Debian packages are not there.
    #[error(
        "{programs} not found: install with 'apt-get install --no-install-recommends {packages}' or run tests/lab/setup.sh"
    )]
    MissingPrograms {
        /// The programs, separated by commas.
        programs: String,
        /// The packages that bring them, separated by blanks.
        packages: String,
    },
    /// A lab of this name is alive and belongs to another process.
    #[error(
        "lab '{0}' is running: end it with 'arpeggio-lab down --name {0}', or choose another name"
    )]
    Running(String),
    /// There is no lab of this name.
    #[error(
        "there is no lab '{0}': 'arpeggio-lab status' lists them, 'arpeggio-lab up' starts one"
    )]
    NoSuchLab(String),
    /// There is no such machine or container in this lab.
    #[error("lab '{lab}' has no {what}")]
    Unknown {
        /// The lab.
        lab: String,
        /// What was asked for.
        what: String,
    },
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("'{command}' failed ({status}): {output}")]
    Command {
        /// The program and its arguments.
        command: String,
        /// Its exit status.
        status: String,
        /// What it printed, trimmed.
        output: String,
    },
    /// What was waited for did not happen.
    #[error("{what} not seen within {} s; last seen: {last_seen}", .patience.as_secs_f32())]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        patience: Duration,
        /// The state at the end.
        last_seen: String,
    },
    /// Text of another program could not be understood.
    #[error("{what} gave unexpected output: {detail}")]
    Unexpected {
        /// Which program or file.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A key or certificate could not be made.
    #[error("certificates of the lab: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Some of the lab could not be removed.
    #[error("lab '{lab}' was not removed completely: {}; 'arpeggio-lab down --name {lab}' tries again", .left.join("; "))]
    Leftovers {
        /// The lab.
        lab: String,
        /// What is left, and why.
        left: Vec<String>,
    },
    /// The guard process did not come up.
    #[error(
        "the guard of the lab did not start: does main() call arpeggio_lab::guard::run_if_asked() before anything else? ({0})"
    )]
    NoGuard(String),
    /// A thread of the lab panicked.
    #[error("a thread of the lab panicked while it was to {0}")]
    Panicked(String),
    /// A folder of collected evidence could not be made complete.
    #[error("not all of the evidence could be written to {}: {detail}", .folder.display())]
    Evidence {
        /// Where the rest is.
        folder: PathBuf,
        /// What is missing.
        detail: String,
    },
}

/// Adds what was tried to an error of the system.
pub(crate) trait Doing<T> {
    /// `what` names the act and its object: `"create /run/x"`.
    fn doing(self, what: impl Into<String>) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| LabError::System { what: what.into(), source })
    }
}

impl<T> Doing<T> for nix::Result<T> {
    fn doing(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|errno| LabError::System { what: what.into(), source: errno.into() })
    }
}

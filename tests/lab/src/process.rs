//! The lab's processes as the kernel shows them: found by the network namespace that they live in,
//! not by a list of our own, which a crash could make wrong.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{LabError, Result};

/// A process, by the host's number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process(pub(crate) u32);

impl Process {
    /// The host's number for it.
    pub fn pid(self) -> u32 {
        self.0
    }

    /// Sends a signal. A process that is gone already is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.0.cast_signed());
        match kill(pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(LabError::System {
                what: format!("send {signal} to process {}", self.0),
                source: errno.into(),
            }),
        }
    }

    /// Whether any of its threads is there. One that has ended and was not waited for is not; its
    /// sockets are closed by then.
    pub fn is_alive(self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0)).into_iter().flatten();
        threads.filter_map(io::Result::ok).any(|thread| {
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            let state = status.lines().find_map(|line| line.strip_prefix("State:"));
            state.is_some_and(|state| !state.trim_start().starts_with(['Z', 'X']))
        })
    }

    /// Waits until it has ended, for as long as `patience`.
    pub(crate) fn wait_until_ended(self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.is_alive() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its program and arguments.
    pub(crate) fn words(self) -> Vec<String> {
        let raw = fs::read(format!("/proc/{}/cmdline", self.0)).unwrap_or_default();
        raw.split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect()
    }

    /// The control groups that it is in, as the kernel prints them.
    fn cgroups(self) -> String {
        fs::read_to_string(format!("/proc/{}/cgroup", self.0)).unwrap_or_default()
    }

    /// The inode of its network namespace. A killed process's first thread may have left it while
    /// others are still there, with the sockets open.
    fn network(self) -> Option<u64> {
        let first = inode(Path::new(&format!("/proc/{}/ns/net", self.0)));
        first.or_else(|| {
            let mut threads = fs::read_dir(format!("/proc/{}/task", self.0)).ok()?;
            threads.find_map(|thread| inode(&thread.ok()?.path().join("ns/net")))
        })
    }
}

/// All processes of the host.
fn all() -> impl Iterator<Item = Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok().map(Process))
}

/// The inode of a namespace, which is its identity.
pub(crate) fn inode(namespace: &Path) -> Option<u64> {
    fs::metadata(namespace).ok().map(|metadata| metadata.ino())
}

/// The processes that live in one of these network namespaces.
pub(crate) fn living_in(networks: &[u64]) -> Vec<Process> {
    all().filter(|p| p.network().is_some_and(|network| networks.contains(&network))).collect()
}

/// The processes of a container, by its id.
pub(crate) fn of_container(id: &str) -> Vec<Process> {
    all().filter(|process| process.cgroups().contains(id)).collect()
}

/// The processes below a control group.
pub(crate) fn of_group(group: &str) -> Vec<Process> {
    let below = format!(":{group}/");
    all().filter(|process| process.cgroups().contains(&below)).collect()
}

/// Kills all that live in these namespaces, and those that they start meanwhile, and waits until
/// they are gone. Returns the words of what is still there when patience ends.
pub(crate) fn kill_all_in(networks: &[u64], patience: Duration) -> Vec<String> {
    let deadline = Instant::now() + patience;
    loop {
        let alive = living_in(networks);
        if alive.is_empty() {
            return Vec::new();
        }
        if Instant::now() > deadline {
            return alive.iter().map(|p| format!("process {} {:?}", p.0, p.words())).collect();
        }
        for process in alive {
            let _ = process.signal(Signal::SIGKILL);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

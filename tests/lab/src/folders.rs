//! Where a lab keeps its files, and the lock that tells a living lab from a dead one.
//!
//! `/run/arpeggio-lab/<lab>` has what is true only now (the lock, process numbers),
//! `/var/lib/arpeggio-lab/<lab>` what is large (disks of the machines, logs, images). Both go when
//! the lab goes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Doing, Result};
use crate::plan::{LabName, Machine};

const RUN_ROOT: &str = "/run/arpeggio-lab";
/// The name of the lock in a lab's run folder.
const LOCK: &str = "lock";
const DATA_ROOT: &str = "/var/lib/arpeggio-lab";

/// The folders of one lab.
#[derive(Clone, Debug)]
pub struct Folders {
    run: PathBuf,
    data: PathBuf,
}

impl Folders {
    /// Only names them; nothing is created.
    pub fn of(lab: &LabName) -> Self {
        Self {
            run: Path::new(RUN_ROOT).join(lab.as_str()),
            data: Path::new(DATA_ROOT).join(lab.as_str()),
        }
    }

    /// What the lab looks like, for processes that did not start it.
    pub(crate) fn settings(&self) -> PathBuf {
        self.run.join("lab.json")
    }

    /// The host's number of a machine's first process.
    pub(crate) fn init_pid(&self, machine: Machine) -> PathBuf {
        self.run.join(format!("{machine}.init"))
    }

    /// The part of a machine's file system that survives a power cut.
    pub fn disk(&self, machine: Machine) -> PathBuf {
        self.data.join("disks").join(machine.to_string())
    }

    /// What the machines' processes print: `<machine>/<process>.log`.
    pub fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }

    /// Ongoing and finished packet captures.
    pub fn captures(&self) -> PathBuf {
        self.data.join("captures")
    }

    /// Image archives on their way into the nodes.
    pub(crate) fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// The administrator's access to the API server, usable from the LAN.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data.join("admin.kubeconfig")
    }

    /// What kubectl remembers about the API.
    pub(crate) fn kube_cache(&self) -> PathBuf {
        self.data.join("kube-cache")
    }

    pub(crate) fn create(&self) -> Result<()> {
        for folder in [&self.run, &self.logs(), &self.captures(), &self.images()] {
            create_folder(folder)?;
        }
        Ok(())
    }

    /// Removes everything but the lock, and says what could not be.
    pub(crate) fn clear(&self) -> Vec<String> {
        let state = fs::read_dir(&self.run).into_iter().flatten().filter_map(io::Result::ok);
        let outdated = state.map(|entry| entry.path()).filter(|path| !path.ends_with(LOCK));
        let removed = outdated.map(|path| (fs::remove_file(&path), path));
        let data = (fs::remove_dir_all(&self.data), self.data.clone());
        removed
            .chain([data])
            .filter_map(|(outcome, path)| match outcome {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Some(format!("{}: {error}", path.display()))
                }
                _ => None,
            })
            .collect()
    }

    /// Removes everything. What is not there is no error.
    pub(crate) fn remove(&self) -> Vec<String> {
        let left = self.clear();
        if left.is_empty() {
            // Only the lock is in it now. The roots stay while another lab lives there.
            let _ = fs::remove_dir_all(&self.run);
            let _ = fs::remove_dir(RUN_ROOT);
            let _ = fs::remove_dir(DATA_ROOT);
        }
        left
    }
}

/// Creates a folder and its parents.
pub(crate) fn create_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).doing(format!("create {}", folder.display()))
}

/// Writes a file whole.
pub(crate) fn write_file(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, content).doing(format!("write {}", path.display()))
}

/// Writes a file that can be run.
pub(crate) fn write_program(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    write_file(path, content)?;
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(path, mode).doing(format!("make {} a program", path.display()))
}

/// All labs that have left anything in the file system, dead or alive.
pub fn known_labs() -> BTreeSet<LabName> {
    [RUN_ROOT, DATA_ROOT]
        .into_iter()
        .filter_map(|root| fs::read_dir(root).ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Proof that no other process has this lab: held by the guard of a living lab, or by who removes a
/// dead one.
///
/// The kernel gives it back when the process ends, however it ends.
#[derive(Debug)]
pub struct LabLock {
    _file: File,
}

impl LabLock {
    /// Takes the lock and writes this process's number into it, or returns `None` if another
    /// process has it.
    ///
    /// # Errors
    /// When the folder cannot be used at all.
    pub fn take(lab: &LabName) -> Result<Option<Self>> {
        let folder = Folders::of(lab).run;
        let path = folder.join(LOCK);
        loop {
            create_folder(&folder)?;
            let what = format!("open {}", path.display());
            let opened = File::options().create(true).truncate(false).write(true).open(&path);
            let mut file = match opened {
                // Somebody has just removed the dead lab.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.doing(what)?,
            };
            match file.try_lock() {
                Err(fs::TryLockError::WouldBlock) => return Ok(None),
                Err(fs::TryLockError::Error(error)) => Err(error).doing("lock the lab")?,
                Ok(()) => {}
            }
            if !is_still(&path, &file) {
                continue;
            }
            file.set_len(0).doing("write the lab's lock")?;
            write!(file, "{}", std::process::id()).doing("write the lab's lock")?;
            return Ok(Some(Self { _file: file }));
        }
    }

    /// The same, for who expects the lock to be free: somebody may be just looking whether it is.
    ///
    /// # Errors
    /// When the folder cannot be used at all.
    pub fn take_patiently(lab: &LabName) -> Result<Option<Self>> {
        let deadline = Instant::now() + Duration::from_secs(1);
        loop {
            match Self::take(lab)? {
                None if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
                outcome => return Ok(outcome),
            }
        }
    }

    /// The process that has the lock, if one has it.
    pub fn owner(lab: &LabName) -> Option<u32> {
        let path = Folders::of(lab).run.join(LOCK);
        let file = File::open(&path).ok()?;
        match file.try_lock_shared() {
            Err(fs::TryLockError::WouldBlock) => fs::read_to_string(&path).ok()?.parse().ok(),
            _ => None,
        }
    }
}

/// Whether an opened file is the one that the path names now.
fn is_still(path: &Path, file: &File) -> bool {
    match (fs::metadata(path), file.metadata()) {
        (Ok(named), Ok(opened)) => named.ino() == opened.ino() && named.dev() == opened.dev(),
        _ => false,
    }
}

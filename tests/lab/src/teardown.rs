//! Removing a lab, whatever state it is in: idempotent, carries on after an error, names what it
//! could not remove.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::cgroup;
use crate::error::{LabError, Result};
use crate::folders::{Folders, LabLock, known_labs};
use crate::namespace::{NETNS_FOLDER, run_on_host};
use crate::plan::LabName;
use crate::process;

/// Killed processes leave at once; those in the middle of a disk write take a little longer.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Removes everything of a lab. The caller holds its lock, so nobody builds it up meanwhile.
///
/// # Errors
/// [`LabError::Leftovers`] with all that could not be removed.
pub fn remove(lab: &LabName, _lock: &LabLock) -> Result<()> {
    let mut left = remove_all_but_files(lab);
    left.extend(Folders::of(lab).remove());
    report(lab, left)
}

/// The same, but the lock stays: for who is about to build the lab up.
pub(crate) fn clear(lab: &LabName, _lock: &LabLock) -> Result<()> {
    let mut left = remove_all_but_files(lab);
    left.extend(Folders::of(lab).clear());
    report(lab, left)
}

fn remove_all_but_files(lab: &LabName) -> Vec<String> {
    // The owner may have been killed while a helper program of its was still creating something:
    // look again.
    let mut left = remove_namespaces(lab);
    left.extend(remove_namespaces(lab));
    left.extend(cgroup::remove_lab(lab));
    left
}

fn report(lab: &LabName, left: Vec<String>) -> Result<()> {
    if left.is_empty() {
        return Ok(());
    }
    Err(LabError::Leftovers { lab: lab.to_string(), left })
}

/// Removes the labs whose guard is dead, and returns their names. A reboot or a killed guard leaves
/// such.
///
/// # Errors
/// When one cannot be removed; the others are.
pub fn remove_dead_labs() -> Result<Vec<LabName>> {
    let mut removed = Vec::new();
    let mut failed = Ok(());
    for lab in known_labs() {
        let Some(lock) = LabLock::take(&lab)? else {
            continue;
        };
        match remove(&lab, &lock) {
            Ok(()) => removed.push(lab),
            Err(error) => failed = Err(error),
        }
    }
    failed.map(|()| removed)
}

/// The paths of the lab's network namespaces.
pub(crate) fn namespaces(lab: &LabName) -> Vec<PathBuf> {
    let entries = fs::read_dir(NETNS_FOLDER).into_iter().flatten().filter_map(io::Result::ok);
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|n| lab.machine_of(n).is_some()))
        .map(|entry| entry.path())
        .collect()
}

/// Kills what lives in the lab's namespaces, then removes those. The machines' mounts and their
/// pods' namespaces end with the last process, because they exist only in mount namespaces of the
/// machines' own.
fn remove_namespaces(lab: &LabName) -> Vec<String> {
    let paths = namespaces(lab);
    let inodes: Vec<u64> = paths.iter().filter_map(|path| process::inode(path)).collect();
    let mut left = process::kill_all_in(&inodes, KILL_PATIENCE);
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Err(error) = run_on_host("ip", &["netns", "delete", &name]) {
            left.push(error.to_string());
        }
    }
    left
}

//! Removing a lab, whatever state it is in: idempotent, carries on after an error, names what it could not remove.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{LabError, Result};
use crate::folders::{Folders, LabLock, known_labs};
use crate::namespace::{NETNS_FOLDER, run_on_host};
use crate::plan::LabName;
use crate::process;

const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// Killed processes leave at once; those in the middle of a disk write take a little longer.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Removes everything of a lab. The caller holds its lock, so nobody builds it up meanwhile.
///
/// # Errors
/// [`LabError::Leftovers`] with all that could not be removed.
pub fn remove(lab: &LabName, _lock: &LabLock) -> Result<()> {
    // The owner may have been killed while a helper program of its was still creating something: look again.
    let mut left = remove_namespaces(lab);
    left.extend(remove_namespaces(lab));
    left.extend(remove_cgroups(lab));
    left.extend(Folders::of(lab).remove());
    if left.is_empty() {
        return Ok(());
    }
    Err(LabError::Leftovers { lab: lab.to_string(), left })
}

/// Removes the labs whose guard is dead, and returns their names. A reboot or a killed guard leaves such.
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

/// Kills what lives in the lab's namespaces, then removes those. The machines' mounts and their pods' namespaces end
/// with the last process, because they exist only in mount namespaces of the machines' own.
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

/// Removes the lab's control groups: on a host with one hierarchy, and on one with a hierarchy per controller.
fn remove_cgroups(lab: &LabName) -> Vec<String> {
    let root = Path::new(CGROUP_ROOT);
    let hierarchies = fs::read_dir(root).into_iter().flatten().filter_map(io::Result::ok);
    let mut groups: Vec<PathBuf> =
        hierarchies.map(|entry| entry.path().join(lab.as_str())).collect();
    groups.push(root.join(lab.as_str()));
    groups.iter().filter_map(|group| remove_cgroup(group).err()).collect()
}

/// Removes one group and those below it. The kernel refuses for a moment after the last process has died.
fn remove_cgroup(group: &Path) -> std::result::Result<(), String> {
    let Ok(below) = fs::read_dir(group) else {
        return Ok(());
    };
    for entry in below.filter_map(io::Result::ok).filter(|entry| entry.path().is_dir()) {
        remove_cgroup(&entry.path())?;
    }
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match fs::remove_dir(group) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(format!("control group {}: {error}", group.display()));
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

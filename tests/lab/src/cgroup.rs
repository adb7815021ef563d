//! The control groups of a lab's pods: `/<lab>/<machine>` in each hierarchy of the host, of which
//! there is one on new systems and one per controller on old ones.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Doing, Result};
use crate::folders::{create_folder, write_file};
use crate::plan::{LabName, Machine};

const ROOT: &str = "/sys/fs/cgroup";
/// The kernel refuses to remove a group for a moment after its last process has died.
const PATIENCE: Duration = Duration::from_secs(2);

/// The group of a machine's pods, as kubelet names it.
pub(crate) fn name(lab: &LabName, machine: Machine) -> String {
    format!("/{lab}/{machine}")
}

/// Makes the groups that kubelet wants to find.
pub(crate) fn create(lab: &LabName, machine: Machine) -> Result<()> {
    for hierarchy in hierarchies() {
        let of_lab = hierarchy.join(lab.as_str());
        let of_machine = of_lab.join(machine.to_string());
        create_folder(&of_machine)?;
        // A new group of this controller may use nothing, not even by its members.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            inherit(&hierarchy, &of_lab, file)?;
            inherit(&of_lab, &of_machine, file)?;
        }
    }
    Ok(())
}

/// Copies a setting that the parent has and the child lacks.
fn inherit(parent: &Path, child: &Path, file: &str) -> Result<()> {
    let Ok(value) = fs::read_to_string(parent.join(file)) else {
        return Ok(());
    };
    let path = child.join(file);
    let own = fs::read_to_string(&path).doing(format!("read {}", path.display()))?;
    if own.trim().is_empty() && !value.trim().is_empty() {
        write_file(&path, value)
    } else {
        Ok(())
    }
}

/// Removes the groups of one machine. Its processes are dead.
pub(crate) fn remove_machine(lab: &LabName, machine: Machine) -> Vec<String> {
    remove(&Path::new(lab.as_str()).join(machine.to_string()))
}

/// Removes all groups of a lab.
pub(crate) fn remove_lab(lab: &LabName) -> Vec<String> {
    remove(Path::new(lab.as_str()))
}

/// Removes a group from every hierarchy; returns what could not be.
fn remove(group: &Path) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    let removed = hierarchies().into_iter().map(|root| remove_tree(&root.join(group), deadline));
    removed.filter_map(std::result::Result::err).collect()
}

fn remove_tree(group: &Path, deadline: Instant) -> std::result::Result<(), String> {
    let Ok(below) = fs::read_dir(group) else {
        return Ok(());
    };
    for entry in below.filter_map(io::Result::ok).filter(|entry| entry.path().is_dir()) {
        remove_tree(&entry.path(), deadline)?;
    }
    loop {
        match fs::remove_dir(group) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(format!("control group {}: {error}", group.display()));
            }
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// The folders in which groups can be made.
fn hierarchies() -> Vec<PathBuf> {
    let takes_processes = |folder: &PathBuf| folder.join("cgroup.procs").exists();
    let root = PathBuf::from(ROOT);
    if takes_processes(&root) {
        return vec![root];
    }
    let entries = fs::read_dir(root).into_iter().flatten().filter_map(io::Result::ok);
    // Some are second names of others.
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).filter(takes_processes).collect()
}

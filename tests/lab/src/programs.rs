//! The programs that a lab runs: those of Debian packages, which must be there, and the cluster,
//! which is built.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Doing, LabError, Result};
use crate::folders::create_folder;
use crate::namespace::text;

/// What the lab calls, and the package that brings it. A test compares this with `packages.txt`.
const NEEDED: [(&str, &str); 8] = [
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("tcpdump", "tcpdump"),
    ("mount", "util-linux"),
];
/// Where Debian puts the CNI plugins, and one of them as a sample.
pub(crate) const CNI_PLUGINS: &str = "/usr/lib/cni";
const CNI_SAMPLE: (&str, &str) = ("/usr/lib/cni/ptp", "containernetworking-plugins");

/// The name of the program that is etcd and all of Kubernetes; its first argument chooses.
pub(crate) const CLUSTER: &str = "cluster";
/// The name of the program that is the API server of the oldest Kubernetes, and of the component.
pub(crate) const API_SERVER: &str = "kube-apiserver";
/// The name of the program that holds a pod's, or a machine's, namespaces.
pub(crate) const PAUSE: &str = "pause";

/// Fails early, and says what to install, when the machine lacks something.
///
/// # Errors
/// [`LabError::NotRoot`] or [`LabError::MissingPrograms`].
pub fn check_host() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    let mut missing: Vec<(&str, &str)> =
        NEEDED.into_iter().filter(|(program, _)| find(program).is_none()).collect();
    if !Path::new(CNI_SAMPLE.0).exists() {
        missing.push(CNI_SAMPLE);
    }
    if missing.is_empty() {
        return Ok(());
    }
    let programs: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    Err(LabError::MissingPrograms { programs: programs.join(", "), packages: packages.join(" ") })
}

/// Looks a program up as a shell would, also in the folders that only root's `PATH` has.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

/// Builds the cluster's programs, or finds them built, and returns their folder. The first build
/// takes minutes; its progress goes to standard error.
///
/// # Errors
/// When the build fails; it has said why by then.
pub fn build_cluster() -> Result<PathBuf> {
    build("cluster")
}

/// The same for `kube-apiserver` of the oldest Kubernetes that Arpeggio supports.
///
/// # Errors
/// When the build fails; it has said why by then.
pub(crate) fn build_oldest() -> Result<PathBuf> {
    build("cluster-oldest")
}

/// Runs the build script of a folder of `tests`.
fn build(folder: &str) -> Result<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let script = tests.join(folder).join("build.sh");
    let mut command = Command::new(&script);
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().doing(format!("run {}", script.display()))?;
    if !output.status.success() {
        return Err(LabError::Command {
            command: text(&command),
            status: output.status.to_string(),
            output: "see above".to_owned(),
        });
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// Puts programs into a folder of the lab, so that a rebuild, which removes old versions from the
/// cache, cannot take them away from a running lab.
pub(crate) fn install(programs: &[&str], built: &Path, into: &Path) -> Result<()> {
    create_folder(into)?;
    for program in programs {
        let (from, to) = (built.join(program), into.join(program));
        link_or_copy(&from, &to).doing(format!("copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// A second name costs nothing, but exists only within one file system.
fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_needed_package_is_on_the_list_that_is_installed() {
        let list = include_str!("../packages.txt");
        let first_choices: Vec<&str> =
            list.lines().filter_map(|line| line.split('|').next()).collect();
        for (_, package) in NEEDED.into_iter().chain([CNI_SAMPLE]) {
            assert!(first_choices.contains(&package), "{package}");
        }
    }
}

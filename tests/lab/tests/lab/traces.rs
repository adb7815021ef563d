//! Everything by which a lab could be noticed after its end.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use arpeggio_lab::LabName;
use arpeggio_lab::folders::known_labs;

use crate::Verdict;

/// Folders in which the programs of a lab would leave something, did they not have file systems of
/// their own.
const FOLDERS: [&str; 15] = [
    "/etc/cni",
    "/opt",
    "/opt/containerd",
    "/run",
    "/run/arpeggio-lab",
    "/run/containerd",
    "/run/netns",
    "/tmp",
    "/usr/libexec",
    "/var/lib",
    "/var/lib/arpeggio-lab",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log",
    "/var/log/pods",
];

/// What the machine has, as far as labs could change it: folders, mounts, control groups,
/// processes.
#[derive(Debug)]
pub(crate) struct Traces(BTreeSet<String>);

impl Traces {
    /// Looks at the machine now.
    pub(crate) fn now() -> Self {
        let mut all = BTreeSet::new();
        for folder in FOLDERS {
            all.extend(names_in(folder));
        }
        for hierarchy in names_in("/sys/fs/cgroup") {
            all.extend(names_in(&hierarchy));
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        all.extend(mounts.lines().map(|line| format!("mount {line}")));
        all.extend(lab_processes());
        Self(all)
    }

    /// Fails if there is more than there was, by one of these labs or by nobody that can be told.
    pub(crate) fn none_since(&self, labs: &[&str]) -> Verdict {
        let now = Self::now();
        let others: Vec<LabName> =
            known_labs().into_iter().filter(|lab| !labs.contains(&lab.as_str())).collect();
        let left: Vec<&String> =
            now.0.difference(&self.0).filter(|trace| !is_of_others(trace, labs, &others)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:#?}").into()) }
    }
}

/// Others may have labs, namespaces and temporary files on this machine, and come and go meanwhile.
fn is_of_others(trace: &str, labs: &[&str], others: &[LabName]) -> bool {
    let mentions_us = labs.iter().any(|lab| trace.contains(lab)) || trace.contains("cni-");
    let is_shared = trace.starts_with("/tmp") || trace.contains("netns");
    let is_root_of_others = !others.is_empty() && trace.ends_with("/arpeggio-lab");
    let mentions_others = others.iter().any(|lab| trace.contains(lab.as_str()));
    !mentions_us && (is_shared || is_root_of_others || mentions_others)
}

fn names_in(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path().to_string_lossy().into_owned()).collect()
}

/// The processes that say by their environment or control group which lab they belong to, with what
/// they say.
fn lab_processes() -> Vec<String> {
    let read = |path: String| {
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).replace('\0', " ")
    };
    let marks = |process: &String| {
        let environment = read(format!("{process}/environ"));
        let groups = read(format!("{process}/cgroup"));
        let marked = environment.split(' ').filter(|word| word.starts_with("ARPEGGIO_LAB"));
        let grouped = groups.lines().filter(|line| line.contains("/kubepods/"));
        marked.chain(grouped).next().map(str::to_owned)
    };
    let processes = names_in("/proc").into_iter().filter(|path| is_number(Path::new(path)));
    let described = processes.filter_map(|process| {
        let words = read(format!("{process}/cmdline"));
        marks(&process).map(|mark| format!("process {process} {words} of {mark}"))
    });
    described.collect()
}

fn is_number(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().chars().all(|c| c.is_ascii_digit()))
}

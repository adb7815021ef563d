//! Everything by which a lab could be noticed after its end.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::Verdict;

/// Folders in which the programs of a lab would leave something, did they not have file systems of their own.
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

/// What the machine has, as far as labs could change it: folders, mounts, control groups, processes.
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
        // Others may work in namespaces and temporary files of their own meanwhile.
        all.retain(|trace| !trace.contains("/tmp/") || trace.contains("arpeggio-lab"));
        Self(all)
    }

    /// Fails if there is more than there was.
    pub(crate) fn none_since(&self, labs: &[&str]) -> Verdict {
        let now = Self::now();
        let is_ours = |trace: &&String| {
            !trace.contains("netns") || labs.iter().chain(&["cni-"]).any(|lab| trace.contains(lab))
        };
        let left: Vec<&String> = now.0.difference(&self.0).filter(is_ours).collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("left behind: {left:#?}").into())
        }
    }
}

fn names_in(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    entries
        .map(|entry| entry.path().to_string_lossy().into_owned())
        .collect()
}

/// Processes that only a lab has: its programs, containerd and its helpers, guards.
fn lab_processes() -> Vec<String> {
    let numbers = names_in("/proc")
        .into_iter()
        .filter(|path| is_number(Path::new(path)));
    let described = numbers.map(|path| {
        let words = fs::read(format!("{path}/cmdline")).unwrap_or_default();
        format!(
            "process {path} {}",
            String::from_utf8_lossy(&words).replace('\0', " ")
        )
    });
    let marks = [
        "/var/lib/lab/bin",
        "containerd",
        "kubelet",
        "nginx",
        "tcpdump",
    ];
    described
        .filter(|line| marks.iter().any(|mark| line.contains(mark)))
        .collect()
}

fn is_number(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().chars().all(|c| c.is_ascii_digit()))
}

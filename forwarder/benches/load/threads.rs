//! Whose processor time is whose.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::segment::{Namespace, Segment};

/// The processor time of a thread.
#[derive(Debug, Clone)]
pub(crate) struct Time(PathBuf);

impl Time {
    /// Of the thread that asks.
    pub(crate) fn own() -> Self {
        Self(Path::new("/proc").join(fs::read_link("/proc/thread-self").unwrap()))
    }

    /// Up to when it slept last.
    pub(crate) fn spent(&self) -> Duration {
        let line = fs::read_to_string(self.0.join("schedstat")).unwrap();
        Duration::from_nanos(line.split(' ').next().unwrap().parse().unwrap())
    }
}

/// Has the frames of every interface handled on a thread of its own. The time of the one of node 1.
pub(crate) fn of_node_1(segment: &Segment) -> Time {
    for [(bridge, port), (node, interface)] in segment.cables() {
        program(bridge, &format!("ethtool -K {port} gro on gso off tso off"));
        program(node, &format!("ethtool -K {interface} gro on gso on tso on"));
    }
    let mut of_node_1 = None;
    for (namespace, interface) in segment.cables().flatten() {
        let before = threads();
        let on =
            format!("mount -t sysfs sysfs /sys && echo 1 > /sys/class/net/{interface}/threaded");
        // The mount is seen by nobody else.
        run(namespace, Command::new("unshare").args(["--mount", "sh", "-c", &on]));
        if std::ptr::eq(namespace, segment.node(1)) {
            of_node_1 = threads().difference(&before).next().cloned();
        }
    }
    Time(of_node_1.expect("the kernel has no threads for interfaces: Linux 5.12 or newer"))
}

/// Those of interfaces.
fn threads() -> BTreeSet<PathBuf> {
    let all = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let is_ours = |path: &PathBuf| {
        fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("napi/"))
    };
    all.filter(is_ours).collect()
}

fn program(namespace: &Namespace, line: &str) {
    let mut words = line.split(' ');
    run(namespace, Command::new(words.next().unwrap()).args(words));
}

fn run(namespace: &Namespace, command: &mut Command) {
    let output = namespace.run(|| command.output().unwrap());
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

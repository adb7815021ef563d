//! Network namespaces of a test's own, joined by a virtual cable.
//!
//! A namespace here has no name and no process: it lives as long as the open file that stands for
//! it, so nothing is left behind however the test ends.
#![allow(dead_code, reason = "not every test needs everything")]

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use arpeggio_wire::MacAddr;
use nix::sched::{CloneFlags, setns, unshare};

/// Set it to skip the tests that need root.
const SKIP: &str = "ARPEGGIO_SKIP_ROOT_TESTS";

/// Waits until something is so, and tells whether it came to be. What closing a socket ends goes on until each
/// process that another test is about to start has let go of its copy.
pub(crate) fn eventually(condition: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(30) {
        if condition() {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

/// A network namespace.
pub(crate) struct Namespace(File);

impl Namespace {
    /// Some namespaces; `None` when the environment says that such tests are to be skipped.
    pub(crate) fn several<const N: usize>() -> Option<[Self; N]> {
        if std::env::var_os(SKIP).is_some() {
            eprintln!("skipped, since {SKIP} is set");
            return None;
        }
        Some([(); N].map(|()| {
            Self::new().unwrap_or_else(|error| {
                panic!("cannot make a network namespace ({error}): run as root or set {SKIP}=1")
            })
        }))
    }

    /// The one that this process is in.
    pub(crate) fn of_this_process() -> Self {
        Self(File::open("/proc/self/ns/net").unwrap())
    }

    fn new() -> nix::Result<Self> {
        thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET)?;
                Ok(Self(File::open("/proc/thread-self/ns/net").unwrap()))
            });
            made.join().unwrap()
        })
    }

    /// Runs something on a thread inside of the namespace. Sockets and processes made there stay in it.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs `ip` in the namespace and returns what it prints; its arguments stand in one string.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        self.command(&format!("ip {arguments}"))
    }

    /// Runs `tc` in the namespace.
    pub(crate) fn tc(&self, arguments: &str) {
        self.command(&format!("tc {arguments}"));
    }

    /// Runs a program in the namespace and returns what it prints; all stands in one string.
    pub(crate) fn command(&self, line: &str) -> String {
        let output = self.run(|| {
            let mut words = line.split(' ');
            let mut command = Command::new(words.next().unwrap());
            command.args(words).output().unwrap_or_else(|error| panic!("{line}: {error}"))
        });
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {problem}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the program `nft` sees there.
    pub(crate) fn ruleset(&self) -> String {
        self.command("nft list ruleset")
    }

    /// Sets what is in `/proc/sys/net`.
    pub(crate) fn set(&self, name: &str, value: &str) {
        self.run(|| std::fs::write(format!("/proc/sys/net/{name}"), value)).unwrap();
    }

    /// How many fragments of IPv4 have come in to be put together.
    pub(crate) fn fragments(&self) -> u64 {
        let counters = self.command("cat /proc/net/snmp");
        let mut lines = counters.lines().filter(|line| line.starts_with("Ip: "));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let mut pairs = names.split(' ').zip(values.split(' '));
        pairs.find(|(name, _)| *name == "ReasmReqds").unwrap().1.parse().unwrap()
    }

    /// Has the program `nft` take rules.
    pub(crate) fn nft(&self, rules: &str) {
        let output = self.run(|| {
            let mut child = Command::new("nft")
                .args(["-f", "-"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("install nftables");
            child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        });
        assert!(output.status.success(), "{rules}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Lays a virtual cable from the interface `name` here to `eth0` there; both are down.
    pub(crate) fn cable(&self, name: &str, there: &Self) {
        let peer = format!("type veth peer name eth0 netns {}", there.path());
        self.ip(&format!("link add {name} {peer}"));
    }

    /// The index and the MAC address of `eth0`.
    pub(crate) fn link(&self) -> (u32, MacAddr) {
        let line = self.ip("-oneline link show eth0");
        let mac = line.split("link/ether ").nth(1).unwrap()[..17].parse();
        let index = line.split(':').next().unwrap().parse();
        (index.unwrap(), mac.unwrap())
    }

    /// A path by which other programs find the namespace.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Two namespaces. `eth0` of the one, 192.0.2.1/24, is wired to `eth0` of the other, 192.0.2.2/24.
pub(crate) struct Pair {
    /// Where the code under test works.
    pub(crate) here: Namespace,
    /// The neighbour.
    pub(crate) there: Namespace,
}

impl Pair {
    /// `None` when the environment says that such tests are to be skipped.
    pub(crate) fn new() -> Option<Self> {
        let [here, there] = Namespace::several()?;
        here.cable("eth0", &there);
        for (namespace, address) in [(&here, "192.0.2.1/24"), (&there, "192.0.2.2/24")] {
            namespace.ip(&format!("address add {address} dev eth0"));
            namespace.ip("link set eth0 up");
        }
        Some(Self { here, there })
    }
}

//! Network namespaces of a test's own: they live as long as the open files that stand for them.
#![allow(dead_code, reason = "not every test needs everything")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// Set it to skip the tests that need root.
const SKIP: &str = "ARPEGGIO_SKIP_ROOT_TESTS";

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

    /// Has the program `nft` take rules.
    pub(crate) fn nft(&self, rules: &str) {
        let output = self.run(|| {
            let mut child = Command::new("nft")
                .args(["-f", "-"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("install nftables");
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), rules.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        });
        assert!(output.status.success(), "{rules}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A path by which other programs find the namespace.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

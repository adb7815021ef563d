//! Doing things inside a namespace: on a thread that enters it, so that the rest of the program
//! stays where it is.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Doing, LabError, Result};

/// Where `ip netns` keeps the names of network namespaces.
pub(crate) const NETNS_FOLDER: &str = "/run/netns";

/// A place in which a closure or a program can be run.
///
/// Cheap to copy around; nothing is opened before it is entered.
#[derive(Clone, Debug)]
pub struct Namespace {
    network: PathBuf,
    /// A process whose mount and process namespaces are entered too.
    init: Option<PathBuf>,
}

impl Namespace {
    /// The network namespace of this name, as `ip netns` lists it.
    pub fn named(name: &str) -> Self {
        Self { network: Path::new(NETNS_FOLDER).join(name), init: None }
    }

    /// The same, and the mounts and process numbers of process `init` (as the host counts it).
    #[must_use]
    pub(crate) fn with_init(self, init: u32) -> Self {
        Self { init: Some(PathBuf::from(format!("/proc/{init}/ns"))), ..self }
    }

    /// Runs `act` on a thread of its own inside the namespace and waits for it.
    ///
    /// Sockets that it opens and threads that it starts stay in the network namespace; the file
    /// system is the machine's own where the machine has one.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or `act` panics.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| self.move_thread().map(|()| act()));
            inside.join().map_err(|_| LabError::Panicked(format!("act in {}", self.name())))?
        })
    }

    /// Starts a thread that lives in the network namespace (and only in that: other threads can be
    /// started from it).
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn start_thread<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> Result<thread::JoinHandle<T>> {
        let network_only = Self { network: self.network.clone(), init: None };
        network_only.enter(|| thread::spawn(act))
    }

    /// Starts a program inside. The caller decides about its standard input and output, and has to
    /// wait for it.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the program not started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let what = format!("start {}", text(command));
        self.enter(|| command.spawn())?.doing(what)
    }

    /// Runs a program inside and returns what it printed and how it ended.
    ///
    /// # Errors
    /// When it could not be started; how it ended is for the caller to judge.
    pub fn output(&self, command: &mut Command) -> Result<Output> {
        let what = format!("run {}", text(command));
        self.enter(|| command.stdin(Stdio::null()).output())?.doing(what)
    }

    /// Runs a program inside and returns what it printed to standard output.
    ///
    /// # Errors
    /// Also when it ended with an error; then with what it printed to either.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        command.args(args);
        let output = self.output(&mut command)?;
        check(&command, &output)
    }

    /// Writes kernel settings of the network namespace, `("ipv4/ip_forward", "1")`.
    pub(crate) fn set_sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            settings.iter().try_for_each(|(name, value)| {
                let path = format!("/proc/sys/net/{name}");
                fs::write(&path, value).doing(format!("write {value} to {path}"))
            })
        })?
    }

    /// The name, as `ip netns` lists it.
    pub fn name(&self) -> String {
        self.network.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Moves the calling thread inside, for good.
    fn move_thread(&self) -> Result<()> {
        let open = |path: &Path| File::open(path).doing(format!("open {}", path.display()));
        let network = open(&self.network)?;
        // All are opened before the first is entered: afterwards /proc is another one.
        let inner = match &self.init {
            Some(ns) => Some((open(&ns.join("mnt"))?, open(&ns.join("pid"))?)),
            None => None,
        };
        let what = || format!("enter namespace {}", self.name());
        setns(network.as_fd(), CloneFlags::CLONE_NEWNET).doing(what())?;
        let Some((mounts, processes)) = inner else {
            return Ok(());
        };
        // A thread that shares its working folder with others may not change its mounts.
        unshare(CloneFlags::CLONE_FS).doing(what())?;
        setns(processes.as_fd(), CloneFlags::CLONE_NEWPID).doing(what())?;
        setns(mounts.as_fd(), CloneFlags::CLONE_NEWNS).doing(what())
    }
}

/// Runs a program in the host's namespaces and returns what it printed to standard output.
pub(crate) fn run_on_host(program: &str, args: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    let output = command.output().doing(format!("run {}", text(&command)))?;
    check(&command, &output)
}

/// Turns an unsuccessful end into an error that has the program's own words.
pub(crate) fn check(command: &Command, output: &Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok(stdout.into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(LabError::Command {
        command: text(command),
        status: output.status.to_string(),
        output: format!("{} {}", stderr.trim(), stdout.trim()).trim().to_owned(),
    })
}

/// A command as one would type it.
pub(crate) fn text(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

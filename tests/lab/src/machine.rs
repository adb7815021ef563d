//! A machine with a file system and process numbers of its own: the control plane, or a node.
//!
//! Its mounts exist only in its mount namespace and its processes only in its process namespace. So
//! when its first process is killed, the kernel ends everything else in it at once, as a power cut
//! does, and nothing stays mounted on the host.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use crate::cgroup;
use crate::components::{BIN, Component, ETC};
use crate::error::{Doing, LabError, Result};
use crate::folders::{Folders, create_folder, write_file};
use crate::namespace::{NETNS_FOLDER, Namespace, check};
use crate::plan::{LabName, Machine};
use crate::process::{self, Process};
use crate::programs::{self, CLUSTER, PAUSE};

/// In the environment of a machine's programs: the lab that they belong to.
const MARK: &str = "ARPEGGIO_LAB";
/// How long killed processes may take to go.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// How long a component that has failed stays away.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// A machine that can be switched on and off. Holds only names; the kernel and the lab's folders
/// have the state.
#[derive(Clone, Debug)]
pub(crate) struct Computer {
    lab: LabName,
    machine: Machine,
    folders: Folders,
}

impl Computer {
    pub(crate) fn new(lab: &LabName, machine: Machine) -> Self {
        Self { lab: lab.clone(), machine, folders: Folders::of(lab) }
    }

    /// The folder on the host that the machine sees as `path`, which is below `/var/lib`.
    pub(crate) fn on_host(&self, path: &str) -> PathBuf {
        let below = path.trim_start_matches("/var/lib/");
        self.folders.disk(self.machine).join("lib").join(below)
    }

    /// Makes the disk, with the cluster's programs on it.
    pub(crate) fn make_disk(&self, programs: &Path) -> Result<()> {
        create_folder(&self.folders.disk(self.machine).join("log"))?;
        create_folder(&self.folders.logs().join(self.machine.to_string()))?;
        create_folder(&self.on_host(ETC))?;
        programs::install(&[CLUSTER, PAUSE], programs, &self.on_host(BIN))?;
        write_file(&self.on_host(&format!("{ETC}/resolv.conf")), "nameserver 192.168.0.1\n")
    }

    /// The last words of the components that should run and do not.
    pub(crate) fn last_words(&self, expected: &[Component]) -> Vec<String> {
        let ended = expected.iter().filter(|c| self.processes_of(c.name).is_empty());
        ended
            .map(|component| {
                let log = fs::read_to_string(self.log_path(component.name)).unwrap_or_default();
                let lines: Vec<&str> = log.lines().rev().take(3).collect();
                format!(
                    "{} on {} is not running, it said last: {lines:#?}",
                    component.name, self.machine
                )
            })
            .collect()
    }

    /// Switches it on: its first process runs, nothing else does.
    pub(crate) fn boot(&self) -> Result<()> {
        cgroup::create(&self.lab, self.machine)?;
        let disk = self.folders.disk(self.machine);
        let network = Namespace::named(&self.lab.namespace(self.machine));
        let init = network.enter(|| first_process(&disk, &self.lab))??;
        write_file(&self.folders.init_pid(self.machine), init.id().to_string())?;
        reap(init);
        Ok(())
    }

    /// Ends everything in it at one instant.
    pub(crate) fn kill(&self) -> Result<()> {
        if let Some(init) = self.init() {
            init.signal(Signal::SIGKILL)?;
            // It ends after all others. They leave their namespaces before they close their sockets.
            init.wait_until_ended(KILL_PATIENCE);
        }
        // A program that was about to enter is not the first process's child.
        let mut left = process::kill_all_in(&self.network_inode(), KILL_PATIENCE);
        // kubelet would look for the containers of groups that are left, for seconds each.
        left.extend(cgroup::remove_machine(&self.lab, self.machine));
        if left.is_empty() {
            return Ok(());
        }
        Err(LabError::Leftovers { lab: self.lab.to_string(), left })
    }

    /// Everything that runs in it: its own programs, and its pods'.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let mut all = process::living_in(&self.network_inode());
        all.extend(process::of_group(&cgroup::name(&self.lab, self.machine)));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The first process, if the machine is on.
    pub(crate) fn init(&self) -> Option<Process> {
        let text = fs::read_to_string(self.folders.init_pid(self.machine)).ok()?;
        let init = Process(text.parse().ok()?);
        // The number may be another process's by now.
        process::living_in(&self.network_inode()).contains(&init).then_some(init)
    }

    fn network_inode(&self) -> Vec<u64> {
        let path = Path::new(NETNS_FOLDER).join(self.lab.namespace(self.machine));
        process::inode(&path).into_iter().collect()
    }

    /// The inside of the machine.
    pub(crate) fn inside(&self) -> Result<Namespace> {
        let off = || LabError::Unknown {
            lab: self.lab.to_string(),
            what: format!("running machine {}: it is switched off", self.machine),
        };
        let init = self.init().ok_or_else(off)?;
        Ok(Namespace::named(&self.lab.namespace(self.machine)).with_init(init.pid()))
    }

    /// Starts a component, its words going to its log. When it fails it is started again, as systemd does on a real
    /// machine, for as long as this process lives.
    pub(crate) fn start(&self, component: &Component) -> Result<()> {
        let mut child = self.spawn(component)?;
        let (computer, component) = (self.clone(), component.clone());
        thread::spawn(move || {
            while child.wait().is_ok_and(has_failed) {
                thread::sleep(RESTART_PAUSE);
                // The machine may have been switched off meanwhile.
                let Ok(next) = computer.spawn(&component) else { return };
                child = next;
            }
        });
        Ok(())
    }

    fn spawn(&self, component: &Component) -> Result<Child> {
        let empty = || LabError::Unknown {
            lab: self.lab.to_string(),
            what: format!("program of {}", component.name),
        };
        let (program, args) = component.command.split_first().ok_or_else(empty)?;
        let log = self.log_of(component.name)?;
        let errors = log.try_clone().doing("share a log file")?;
        let mut command = Command::new(program);
        command
            .env(MARK, self.lab.as_str())
            .args(args)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        self.inside()?.spawn(in_group_of_its_own(&mut command))
    }

    /// The running processes of a component.
    pub(crate) fn processes_of(&self, component: &str) -> Vec<Process> {
        let all = process::living_in(&self.network_inode());
        all.into_iter().filter(|process| Component::is(component, &process.words())).collect()
    }

    /// Kills a component and waits until it is gone.
    pub(crate) fn stop(&self, component: &str) -> Result<()> {
        for process in self.processes_of(component) {
            process.signal(Signal::SIGKILL)?;
            process.wait_until_ended(KILL_PATIENCE);
        }
        Ok(())
    }

    /// Runs a program inside, with a file for its standard input.
    pub(crate) fn run_with_input(
        &self,
        program: &str,
        args: &[&str],
        input: &Path,
    ) -> Result<String> {
        let file = File::open(input).doing(format!("open {}", input.display()))?;
        let mut command = Command::new(program);
        command.args(args).stdin(file).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.inside()?.spawn(&mut command)?;
        let output = child.wait_with_output().doing(format!("wait for {program}"))?;
        check(&command, &output)
    }

    fn log_path(&self, component: &str) -> PathBuf {
        self.folders.logs().join(self.machine.to_string()).join(format!("{component}.log"))
    }

    fn log_of(&self, component: &str) -> Result<File> {
        let path = self.log_path(component);
        File::options()
            .create(true)
            .append(true)
            .open(&path)
            .doing(format!("open {}", path.display()))
    }
}

/// Ctrl-C in the owner's terminal is for the owner; it decides what becomes of its lab.
fn in_group_of_its_own(command: &mut Command) -> &mut Command {
    use std::os::unix::process::CommandExt;
    command.process_group(0)
}

/// Whether a program has ended by itself, and not well. A signal is what somebody wanted.
fn has_failed(status: ExitStatus) -> bool {
    status.code().is_some_and(|code| code != 0)
}

/// Waits for a child in the background, so that it does not stay as a zombie.
pub(crate) fn reap(mut child: Child) {
    thread::spawn(move || child.wait());
}

/// Gives the calling thread, which lives in the machine's network namespace, new mount and process
/// namespaces, and starts the first process in them.
fn first_process(disk: &Path, lab: &LabName) -> Result<Child> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)
        .doing("make a machine's namespaces")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .doing("part with the host's mounts")?;
    // In this order: the disk itself is below /var/lib.
    bind(&disk.join("log"), Path::new("/var/log"))?;
    bind(&disk.join("lib"), Path::new("/var/lib"))?;
    mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>)
        .doing("mount a machine's /run")?;
    // The thread's own children are in the new process namespace, and the first of them is its
    // number 1.
    let init = Command::new(format!("{BIN}/{PAUSE}"))
        .env(MARK, lab.as_str())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .doing("start a machine's first process")?;
    mount_proc().map(|()| init)
}

/// `/proc` must be mounted from inside of the process namespace that it shows, so a child does it.
fn mount_proc() -> Result<()> {
    let mut command = Command::new("mount");
    command.args(["-t", "proc", "proc", "/proc"]);
    let output = command.output().doing("mount a machine's /proc")?;
    check(&command, &output)?;
    HOST_SETTINGS.iter().try_for_each(|setting| give_own_copy(setting))?;
    give_boot_id()
}

/// What kubelet sets for a whole machine. It may, on copies: the kernel is the host's.
const HOST_SETTINGS: [&str; 6] = [
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];

fn give_own_copy(setting: &str) -> Result<()> {
    let real = Path::new("/proc/sys").join(setting);
    let Ok(value) = fs::read(&real) else {
        return Ok(());
    };
    let own = Path::new("/run").join(setting.replace('/', "."));
    write_file(&own, value)?;
    bind(&own, &real)
}

/// A number of this boot, as every real machine has: kubelet reports it, and so a restart can be
/// told.
fn give_boot_id() -> Result<()> {
    let own = Path::new("/run/boot_id");
    let uuid = fs::read("/proc/sys/kernel/random/uuid").doing("read a random number")?;
    write_file(own, uuid)?;
    bind(own, Path::new("/proc/sys/kernel/random/boot_id"))
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).doing(format!(
        "mount {} on {}",
        from.display(),
        to.display()
    ))
}

//! Programs of the host that run in a lab's network: controllers without pods, several at once, measured or killed.

use std::{
    fs::{self, File},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use arpeggio_lab::{Lab, Machine};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::install;

/// Linux counts processor time in this unit for every process (`USER_HZ`), on all architectures that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running program. It is killed when this is dropped, and at the latest with its lab.
#[derive(Debug)]
pub struct HostProcess {
    child: Child,
}

/// What a process has cost so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Processor time, its own and the kernel's for it, in seconds.
    pub cpu_seconds: f64,
    /// The memory that it has resident, in KiB.
    pub resident_kib: u32,
    /// The most memory that it ever had resident, in KiB.
    pub peak_kib: u32,
}

impl HostProcess {
    /// Starts a program in the control plane's network, with an administrator's access. It writes to the log `name`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(lab: &Lab, name: &str, command: &mut Command) -> anyhow::Result<Self> {
        Self::start_on(lab, Machine::Control, name, command)
    }

    /// The same in the network of any machine, and with the access that the command's `KUBECONFIG` gives where it has one.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_on(
        lab: &Lab,
        machine: Machine,
        name: &str,
        command: &mut Command,
    ) -> anyhow::Result<Self> {
        let path = lab.folders().logs().join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("cannot write {}", path.display()))?;
        let errors = log.try_clone().context("cannot share a log file")?;
        if !command.get_envs().any(|(name, _)| name == "KUBECONFIG") {
            command.env("KUBECONFIG", lab.folders().kubeconfig());
        }
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        Ok(Self { child: lab.namespace(machine).spawn(command)? })
    }

    /// Starts our speaker as a node's, with `namespace` for its Leases and an administrator's access.
    ///
    /// # Errors
    /// When it was not built or cannot be started.
    pub fn speaker(lab: &Lab, node: Machine, namespace: &str) -> anyhow::Result<Self> {
        Self::speaker_with(lab, node, namespace, &[])
    }

    /// The same with further arguments.
    ///
    /// # Errors
    /// When it was not built or cannot be started.
    pub fn speaker_with(
        lab: &Lab,
        node: Machine,
        namespace: &str,
        args: &[&str],
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(install::program("arpeggio-speaker")?);
        command.args(["--node-name", &node.to_string(), "--namespace", namespace, "--log=warn"]);
        Self::start_on(lab, node, namespace, command.args(args))
    }

    /// The command `arpeggio`, on the control plane. It writes to the log `name`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn arpeggio(lab: &Lab, name: &str, args: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(install::program("arpeggio")?);
        Self::start(lab, name, command.args(args))
    }

    /// Starts our controller, whose metrics are at `port` of the control plane's own addresses.
    ///
    /// # Errors
    /// When it was not built or cannot be started.
    pub fn controller(lab: &Lab, name: &str, port: u16, args: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(install::program("arpeggio-controller")?);
        command.args(["--name", name, "--admin-address", &format!("0.0.0.0:{port}")]).args(args);
        Self::start(lab, name, &mut command)
    }

    /// Ends it as a crash does, and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        self.child.wait().context("cannot wait for a process")?;
        Ok(())
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// When it cannot be asked or waited for.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, Signal::SIGTERM).context("cannot ask a process to stop")?;
        self.child.wait().context("cannot wait for a process")?;
        Ok(())
    }

    /// How many bytes of IP its machine has received so far, headers included and ARP not.
    ///
    /// # Errors
    /// When it has ended.
    pub fn received(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/net/netstat", self.child.id());
        let counts = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        in_octets(&counts).with_context(|| format!("no InOctets in {path}"))
    }

    /// What it has cost so far.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cost(&self) -> anyhow::Result<Cost> {
        let read = |file: &str| {
            let path = format!("/proc/{}/{file}", self.child.id());
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        let cpu = cpu_time(&read("stat")?).context("no processor time in /proc/PID/stat")?;
        let status = read("status")?;
        let kib = |field| kib(&status, field).context("the process has ended");
        Ok(Cost {
            cpu_seconds: cpu.as_secs_f64(),
            resident_kib: kib("VmRSS:")?,
            peak_kib: kib("VmHWM:")?,
        })
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fields 14 and 15 of `proc_pid_stat(5)`. The second one, the program's name, may hold anything, but ends at the last `)`.
fn cpu_time(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11).map(str::parse::<u32>);
    let ticks = fields.next()?.ok()? + fields.next()?.ok()?;
    Some(Duration::from_secs_f64(f64::from(ticks) / TICKS_PER_SECOND))
}

/// `IpExt: InNoRoutes ... InOctets ...`, the names in one line and the values in the next.
fn in_octets(netstat: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, values) = (lines.next()?.split(' '), lines.next()?.split(' '));
    names.zip(values).find(|(name, _)| *name == "InOctets")?.1.parse().ok()
}

/// A field of `proc_pid_status(5)` that counts memory.
fn kib(status: &str, field: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_memory_are_found() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 25 0 0 20 0 1 0 5 0 0";
        assert_eq!(cpu_time(stat), Some(Duration::from_millis(1_750)));
        let status = "Name:\tx\nVmHWM:\t   5124 kB\nVmRSS:\t 1 kB\n";
        assert_eq!((kib(status, "VmHWM:"), kib(status, "VmRSS:")), (Some(5_124), Some(1)));
        assert_eq!(kib("Name:\tx\n", "VmHWM:"), None);
    }

    #[test]
    fn received_bytes_are_found() {
        let netstat = "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets X\nIpExt: 0 4711 3\n";
        assert_eq!(in_octets(netstat), Some(4_711));
        assert_eq!(in_octets("TcpExt: A\nTcpExt: 1\n"), None);
    }
}

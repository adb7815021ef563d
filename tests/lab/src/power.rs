//! What can happen to machines and programs: power, cables, the API server, a container.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::error::{Doing, LabError, Result};
use crate::lab::Lab;
use crate::plan::Machine;
use crate::process::{self, Process};

impl Lab {
    /// Cuts a machine's power: its cable is dead, then every process in it, with no word of
    /// farewell on the wire. Returns the moment just before.
    ///
    /// # Errors
    /// When something in it could not be killed.
    pub fn power_off(&self, machine: Machine) -> Result<Instant> {
        self.power_off_all(&[machine])
    }

    /// Cuts the power of several machines at one moment, as [`Self::power_off`] does of one.
    ///
    /// # Errors
    /// When something in them could not be killed.
    pub fn power_off_all(&self, machines: &[Machine]) -> Result<Instant> {
        let cut = Instant::now();
        // The cables first: the kernel closes a dying process's connections, which a power cut does
        // not. Killing takes long, and nobody hears any more what lives meanwhile.
        for machine in machines {
            self.network().cable_out(*machine)?;
        }
        for machine in machines {
            self.computer(*machine).kill()?;
        }
        Ok(cut)
    }

    /// Switches a machine on again: same disk, everything else forgotten. Returns when its programs
    /// are started, long before its pods run; see [`Self::wait_for_boot`].
    ///
    /// # Errors
    /// When a program does not start.
    pub fn power_on(&self, machine: Machine) -> Result<()> {
        self.network().forget(machine)?;
        self.computer(machine).boot()?;
        self.network().cable_in(machine)?;
        for component in self.options.components_of(machine) {
            self.computer(machine).start(&component)?;
            if component.name == "containerd" {
                self.wait_for_containerd(machine)?;
            }
        }
        Ok(())
    }

    /// Has a whole machine stand still, as a virtual one whose host does something else: all of its processes are stopped,
    /// and the switch loses its frames, since its kernel cannot be stopped. Its carrier stays. Clocks go on.
    ///
    /// # Errors
    /// When a process cannot be stopped, or the switch refuses.
    pub fn pause(&self, machine: Machine) -> Result<()> {
        self.network().silence(machine)?;
        self.signal_all(machine, Signal::SIGSTOP)
    }

    /// Lets a machine that was [paused](Self::pause) go on.
    ///
    /// # Errors
    /// When it was not paused.
    pub fn resume(&self, machine: Machine) -> Result<()> {
        self.network().mend()?;
        self.signal_all(machine, Signal::SIGCONT)
    }

    pub(crate) fn signal_all(&self, machine: Machine, signal: Signal) -> Result<()> {
        self.computer(machine).processes().into_iter().try_for_each(|it| it.signal(signal))
    }

    /// Waits until Kubernetes knows of a node's latest boot and calls it Ready.
    ///
    /// # Errors
    /// [`LabError::Timeout`].
    pub fn wait_for_boot(&self, node: Machine, patience: Duration) -> Result<()> {
        let path = "/proc/sys/kernel/random/boot_id";
        let read = || fs::read_to_string(path).doing(format!("read {path}"));
        let boot = self.computer(node).inside()?.enter(read)??;
        let condition = format!("jsonpath={{.status.nodeInfo.bootID}}={}", boot.trim());
        self.wait_for(&[format!("node/{node}")], &condition, patience)?;
        self.wait_for(&[format!("node/{node}")], "condition=Ready", patience)
    }

    /// Kills one of a machine's programs (`"kube-apiserver"`, `"kubelet"`, ...) and waits until it
    /// is gone.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn stop_component(&self, machine: Machine, name: &str) -> Result<()> {
        self.computer(machine).stop(name)
    }

    /// Stops the API server; everything else goes on.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn stop_api(&self) -> Result<()> {
        self.stop_component(self.options.control_machine(), "kube-apiserver")
    }

    /// Starts the API server again and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up in time.
    pub fn start_api(&self, patience: Duration) -> Result<()> {
        self.start_component(self.options.control_machine(), "kube-apiserver")?;
        self.wait_for_api(patience)
    }

    /// Cuts a node off from the API server, and from nothing else.
    ///
    /// # Errors
    /// When the node's packet filter refuses.
    pub fn cut_off_api(&self, node: Machine) -> Result<()> {
        self.network().cut_off_api(node, self.options.control_machine())
    }

    /// Undoes [`Self::cut_off_api`].
    ///
    /// # Errors
    /// When the node was not cut off.
    pub fn heal_api(&self, node: Machine) -> Result<()> {
        self.network().heal_api(node)
    }

    /// The processes of a pod's container, to be stopped, continued or killed with
    /// [`Process::signal`].
    ///
    /// # Errors
    /// When the pod has no such running container.
    pub fn container(&self, namespace: &str, pod: &str, container: &str) -> Result<Vec<Process>> {
        let state = self.get(&["pod", "-n", namespace, pod])?;
        let statuses = state["status"]["containerStatuses"].as_array();
        let id = statuses
            .into_iter()
            .flatten()
            .find(|status| status["name"] == container)
            .and_then(|status| status["containerID"].as_str()?.rsplit('/').next());
        let processes = id.map(process::of_container).unwrap_or_default();
        if processes.is_empty() {
            let what = format!("running container {container} in pod {namespace}/{pod}");
            return Err(LabError::Unknown { lab: self.name.to_string(), what });
        }
        Ok(processes)
    }
}

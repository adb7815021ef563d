//! A lab in which something was cut, changed or switched off is put right, so that it can be used again.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::error::Result;
use crate::lab::Lab;
use crate::plan::Machine;
use crate::programs::API_SERVER;
use crate::teardown::namespaces;

impl Lab {
    /// Undoes what was done to machines, cables, switch and router: what is off is switched on, what stands still goes on, every
    /// cable is in its port, nothing is filtered, forwarded or remembered, and bare hosts are gone. Then waits until all nodes are
    /// Ready. What it does not know of, as a second segment, [`Self::furnishings`] shows.
    ///
    /// # Errors
    /// When a part does not come back in time.
    pub fn put_right(&self, patience: Duration) -> Result<()> {
        self.network().put_right(&self.options.computers())?;
        self.hosts().into_iter().try_for_each(|host| self.network().remove_host(host))?;
        let mut booted = Vec::new();
        for machine in self.options.computers() {
            if self.computer(machine).init().is_none() {
                self.power_on(machine)?;
                booted.push(machine);
            }
            self.signal_all(machine, Signal::SIGCONT)?;
        }
        let control = self.options.control_machine();
        if self.computer(control).processes_of(API_SERVER).is_empty() {
            self.start_component(control, API_SERVER)?;
        }
        self.wait_for_api(patience)?;
        for machine in booted.into_iter().filter(|machine| matches!(machine, Machine::Node(_))) {
            self.wait_for_boot(machine, patience)?;
        }
        self.wait_for_nodes(patience)
    }

    /// What the lab's wires and machines look like, as text: whoever compares it with an earlier one sees what was left behind.
    ///
    /// # Errors
    /// When a machine has no network.
    pub fn furnishings(&self) -> Result<Vec<String>> {
        let mut seen = self.network().furnishings(&self.options.computers())?;
        seen.extend(self.hosts().iter().map(|host| format!("{host} is on the LAN")));
        Ok(seen)
    }

    /// The bare hosts that were added to the LAN.
    fn hosts(&self) -> Vec<Machine> {
        let namespaces = namespaces(&self.name).into_iter();
        let machines =
            namespaces.filter_map(|path| self.name.machine_of(path.file_name()?.to_str()?));
        machines.filter(|machine| matches!(machine, Machine::Host(_))).collect()
    }
}

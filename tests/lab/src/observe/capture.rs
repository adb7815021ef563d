//! What is on a wire, kept for later: tcpdump in a machine's namespace.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use crate::error::{Doing, Result};
use crate::lab::Lab;
use crate::plan::Machine;
use crate::process::Process;

/// A running packet capture. The file can be read while it grows. One that is not stopped ends with
/// the lab.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Child,
    file: PathBuf,
}

impl Capture {
    /// Starts to write the frames of a machine's LAN interface that pass `filter` (`"arp"`, `"icmp6
    /// or arp"`, empty for all) to a file of the lab.
    ///
    /// # Errors
    /// When tcpdump does not start.
    pub fn start(lab: &Lab, machine: Machine, filter: &str) -> Result<Self> {
        let file = lab.folders().captures().join(format!("{machine}.pcap"));
        let mut command = Command::new("tcpdump");
        command.args(["-n", "-U", "-i", machine.interface(), "-w"]).arg(&file).arg(filter);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let tcpdump = lab.namespace(machine).spawn(&mut command)?;
        Ok(Self { tcpdump, file })
    }

    /// The file that it writes.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Ends the capture and returns its file, which goes with the lab.
    ///
    /// # Errors
    /// When tcpdump cannot be ended.
    pub fn stop(mut self) -> Result<PathBuf> {
        Process(self.tcpdump.id()).signal(Signal::SIGINT)?;
        self.tcpdump.wait().doing("wait for tcpdump")?;
        Ok(self.file)
    }
}

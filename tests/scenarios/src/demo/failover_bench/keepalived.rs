//! keepalived: VRRP version 3, the address on the master's interface, an advertisement every tenth of a second.

use std::{collections::BTreeMap, fs, net::Ipv4Addr, process::Command, time::Duration};

use anyhow::Context as _;
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, HostProcess};

use super::crash::Contestant;

/// Nobody else's.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 231);
/// The highest priority that is not the owner's of RFC 9568: with it, a backup waits for least after the third missed
/// advertisement. Each further node has one less.
const HIGHEST_PRIORITY: u8 = 254;

/// A process on each node.
pub(super) struct Keepalived<'a> {
    home: &'a Home,
    processes: BTreeMap<Machine, HostProcess>,
}

impl<'a> Keepalived<'a> {
    /// Starts it on every node.
    pub(super) fn start(home: &'a Home) -> anyhow::Result<Self> {
        let mut all = Self { home, processes: BTreeMap::new() };
        for node in home.lab.options().node_machines() {
            all.start_on(node)?;
        }
        Ok(all)
    }

    fn start_on(&mut self, node: Machine) -> anyhow::Result<()> {
        let folder = self.home.lab.folders().logs();
        let file = |kind: &str| folder.join(format!("keepalived-{node}.{kind}"));
        fs::write(file("conf"), configuration(node)).context("cannot write keepalived.conf")?;
        let mut command = Command::new("keepalived");
        command.args(["--dont-fork", "--log-console", "--vrrp", "--use-file"]).arg(file("conf"));
        command.arg("--pid").arg(file("pid")).arg("--vrrp_pid").arg(file("vrrp-pid"));
        let name = format!("keepalived-{node}");
        let process = HostProcess::start_on(&self.home.lab, node, &name, &mut command)?;
        self.processes.insert(node, process);
        Ok(())
    }
}

impl Contestant for Keepalived<'_> {
    fn name(&self) -> &'static str {
        "keepalived"
    }

    fn address(&self) -> Ipv4Addr {
        ADDRESS
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(3)
    }

    fn bring_back(&mut self, node: Machine) -> anyhow::Result<()> {
        // A kernel that starts anew has forgotten it.
        let own = ADDRESS.to_string();
        self.home.lab.namespace(node).run("ip", &["address", "flush", "to", &own])?;
        self.home.switch_on(node)?;
        self.start_on(node)
    }
}

fn configuration(node: Machine) -> String {
    let below = node.host_number().unwrap_or_default();
    let priority = HIGHEST_PRIORITY - below;
    format!(
        "global_defs {{
    router_id {node}
    vrrp_version 3
}}
vrrp_instance bench {{
    state BACKUP
    nopreempt
    interface {interface}
    virtual_router_id 51
    priority {priority}
    advert_int 0.1
    virtual_ipaddress {{
        {ADDRESS}/32
    }}
}}
",
        interface = node.interface(),
    )
}

//! `arpeggio-lab`: a real Kubernetes cluster in network namespaces, from the command line.

use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;

use arpeggio_lab::folders::{LabLock, known_labs};
use arpeggio_lab::{
    Families, Lab, LabError, LabName, Machine, Options, ProxyMode, Result, guard, network,
};
use clap::{Args, Parser, Subcommand};

/// A real Kubernetes cluster in network namespaces of this machine.
///
/// Each lab has a switch, a home router with an internet host behind it, a client, a control plane
/// and nodes with their own kubelet, containerd and kube-proxy. Needs root.
#[derive(Debug, Parser)]
#[command(version, name = "arpeggio-lab")]
struct Cli {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Start a lab and leave it running.
    Up(Up),
    /// Remove a lab, or what is left of a dead one.
    Down(Down),
    /// List the labs of this machine.
    Status,
    /// Run a program in one of a lab's machines: router, internet, client, control, node-1, ...
    Exec(Exec),
    /// Run kubectl with the administrator's access.
    Kubectl(Kubectl),
    /// Cut a machine's power.
    PowerOff(Target),
    /// Switch a machine on again.
    PowerOn(Target),
    /// Write logs, objects and network state to a folder below target/lab.
    Collect(Which),
}

#[derive(Debug, Args)]
struct Which {
    /// The lab.
    #[arg(long, env = "ARPEGGIO_LAB", default_value = "arpeggio-demo")]
    name: LabName,
}

#[derive(Debug, Args)]
struct Up {
    #[command(flatten)]
    which: Which,
    /// How many nodes, 1 to 9.
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// Put the control plane on node-1 instead of a machine of its own.
    #[arg(long)]
    control_on_node: bool,
    /// Which kinds of addresses there are.
    #[arg(long, value_enum, default_value_t)]
    families: Families,
    /// How kube-proxy works.
    #[arg(long, value_enum, default_value_t)]
    proxy: ProxyMode,
    /// Seconds of silence after which a node is `NotReady`, at least 4.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(4..))]
    node_monitor_grace: u64,
}

#[derive(Debug, Args)]
struct Down {
    #[command(flatten)]
    which: Which,
    /// Remove all labs.
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

#[derive(Debug, Args)]
struct Exec {
    #[command(flatten)]
    which: Which,
    /// Where.
    machine: Machine,
    /// What, after `--`.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Debug, Args)]
struct Kubectl {
    #[command(flatten)]
    which: Which,
    /// kubectl's arguments, after `--`.
    #[arg(last = true)]
    args: Vec<String>,
}

#[derive(Debug, Args)]
struct Target {
    #[command(flatten)]
    which: Which,
    /// control or node-1, node-2, ...
    machine: Machine,
}

fn main() -> ExitCode {
    guard::run_if_asked();
    match run(Cli::parse().act) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("arpeggio-lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(act: Act) -> Result<ExitCode> {
    match act {
        Act::Up(up) => start(up)?,
        Act::Down(down) => remove(down)?,
        Act::Status => print_status(),
        Act::Exec(exec) => return run_inside(&exec),
        Act::Kubectl(kubectl) => return run_kubectl(kubectl),
        Act::PowerOff(target) => drop(attach(target.which)?.power_off(target.machine)?),
        Act::PowerOn(target) => attach(target.which)?.power_on(target.machine)?,
        Act::Collect(which) => drop(attach(which)?.collect()?),
    }
    Ok(ExitCode::SUCCESS)
}

fn attach(which: Which) -> Result<Lab> {
    arpeggio_lab::programs::check_host()?;
    Lab::attach(which.name)
}

fn start(up: Up) -> Result<()> {
    let options = Options {
        nodes: up.nodes,
        control_on_node: up.control_on_node,
        families: up.families,
        proxy: up.proxy,
        node_monitor_grace: Duration::from_secs(up.node_monitor_grace),
        ..Options::default()
    };
    let lab = Lab::start(up.which.name, options)?;
    print_welcome(lab.name(), lab.options().families);
    lab.keep()
}

const LAN_V4: &str = "LAN 192.168.0.0/24: router .1, control plane .10, nodes .11 and up, client .20; free for \
                      pools: .2-.9, .200-.254";
const LAN_V6: &str = "LAN fd00:a0::/64: router ::1, control plane ::10, nodes ::11 and up, client ::20; free for \
                      pools: all others";

fn print_welcome(lab: &LabName, families: Families) {
    let node = families.addresses_of(Machine::Node(1)).first().map(ToString::to_string);
    let node = node.unwrap_or_default();
    let lan = families.of(LAN_V4, LAN_V6).join("\n");
    let me = std::env::args().next().unwrap_or_else(|| "arpeggio-lab".to_owned());
    println!(
        "
lab '{lab}' is running. Ready to paste:

  {me} kubectl --name {lab} -- get nodes -o wide
  {me} exec --name {lab} client -- ping -c 1 {node}
  {me} exec --name {lab} internet -- ping -c 1 {router}
  {me} exec --name {lab} router -- nft list ruleset
  {me} exec --name {lab} node-1 -- ctr -n k8s.io containers list
  {me} power-off --name {lab} node-2
  {me} power-on --name {lab} node-2
  {me} down --name {lab}

{lan}
WAN 203.0.113.0/24: router .1, internet host .2",
        router = network::ROUTER_WAN_V4,
    );
}

/// Carries on after an error, and returns the first one.
fn remove(down: Down) -> Result<()> {
    let labs: Vec<LabName> =
        if down.all { known_labs().into_iter().collect() } else { vec![down.which.name] };
    let outcomes: Vec<Result<()>> = labs.iter().map(guard::end_lab).collect();
    outcomes.into_iter().collect()
}

fn print_status() {
    let labs = known_labs();
    if labs.is_empty() {
        println!("no labs");
    }
    for lab in labs {
        match LabLock::owner(&lab) {
            Some(guard) => println!("{lab}: running, guarded by process {guard}"),
            None => println!("{lab}: dead, 'arpeggio-lab down --name {lab}' removes what is left"),
        }
    }
}

fn run_inside(exec: &Exec) -> Result<ExitCode> {
    let lab = Lab::attach(exec.which.name.clone())?;
    let Some((program, args)) = exec.command.split_first() else {
        return Ok(ExitCode::FAILURE);
    };
    let mut command = Command::new(program);
    command.args(args);
    wait_for(lab.inside(exec.machine).spawn(&mut command)?)
}

fn run_kubectl(kubectl: Kubectl) -> Result<ExitCode> {
    let lab = attach(kubectl.which)?;
    let args: Vec<&str> = kubectl.args.iter().map(String::as_str).collect();
    wait_for(lab.namespace(Machine::Client).spawn(&mut lab.kubectl_command(&args))?)
}

/// Waits for a program and ends as it did.
fn wait_for(mut child: std::process::Child) -> Result<ExitCode> {
    let status = child
        .wait()
        .map_err(|source| LabError::System { what: "wait for the program".to_owned(), source })?;
    Ok(exit_code(status))
}

fn exit_code(status: ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

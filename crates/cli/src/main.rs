//! The arpeggio command, also a kubectl plugin.
//!
//! As `kubectl-arpeggio` on the PATH it is `kubectl arpeggio`.

#![forbid(unsafe_code)]
// The macros of std end the command where nobody reads any more what it writes; those of anstream do not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod asking;
mod census;
mod changes;
mod cluster;
mod complaint;
mod completion;
mod confirm;
mod doctor;
mod drill;
mod explain;
mod gaps;
mod global;
mod in_pod;
mod installed;
mod interfaces;
mod leading;
mod man;
mod outcome;
mod paint;
mod reader;
mod rebalance;
#[cfg(test)]
mod reference;
mod report;
mod service_name;
mod status;
mod survey;
mod table;
mod uninstall;
mod who_has;
#[cfg(test)]
mod written;

use std::process::ExitCode;

use arpeggio_api::crds;
use arpeggio_runtime::{arguments, version};
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{
    asking::AskingArgs, complaint::complaint, completion::CompletionArgs, doctor::DoctorArgs,
    drill::DrillArgs, global::Global, interfaces::InterfacesArgs, man::ManArgs, outcome::Outcome,
    rebalance::RebalanceArgs, report::ReportArgs, status::StatusArgs, survey::SurveyArgs,
    uninstall::UninstallArgs, who_has::WhoHasArgs,
};

/// Looks into Arpeggio, the layer-2 load balancer.
///
/// Finds the cluster by --kubeconfig, KUBECONFIG, ~/.kube/config or the pod's ServiceAccount, in this order. Exit codes: 0
/// done, 1 failed, 2 wrong arguments; a command that has others says so.
#[allow(clippy::doc_markdown, reason = "it is shown on a terminal")]
#[derive(Debug, Parser)]
#[command(name = "arpeggio", version = version::long())]
struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show who announces which address, and which nodes take part.
    ///
    /// With -n only the addresses of Services in that namespace. What you may not read is named at the end, and the rest
    /// is shown. The fields of -o json are described in the user guide.
    Status(StatusArgs),
    /// Show why something is as it is.
    Explain {
        #[command(subcommand)]
        what: Explained,
    },
    /// Show which of this machine's interfaces announce addresses, and why the others do not.
    ///
    /// Run it on a node, or in the speaker's pod: kubectl exec -n NAMESPACE POD -- /arpeggio interfaces. With an address,
    /// the announce rules on its lock count where the API server can be reached. Exit codes: 0 done, 1 the address given cannot
    /// be announced by this machine.
    Interfaces(InterfacesArgs),
    /// Ask the segment who has an address, and say whose machine each one is that answers.
    ///
    /// Run it as root on a node, or in the speaker's pod: kubectl exec -n NAMESPACE POD -- /arpeggio who-has ADDRESS.
    /// It needs the capability NET_RAW. What the cluster knows is shown when the API server can be reached. Exit codes: 0 one
    /// machine answers, 1 nobody does (or failed), 3 several do.
    WhoHas(WhoHasArgs),
    /// Spread addresses evenly over the nodes that may announce them, with as few moves as can be.
    ///
    /// Nothing moves by itself when a node returns; this does it, when you say so: it shows its plan and asks. Each address is announced by its new
    /// node before the old one stops; connections that are open at that moment may be reset. It needs what the Role and the
    /// `ClusterRole` arpeggio-operator allow. Exit codes: 0 done, or nothing to do, 1 failed, 3 some addresses were not moved: it
    /// says which and why.
    Rebalance(RebalanceArgs),
    /// Remove what Arpeggio has written in the cluster, and say which commands delete the rest.
    ///
    /// Deletes the controller and the speakers, takes their addresses and conditions out of the Services' status (what other
    /// programs wrote there stays), and deletes Arpeggio's Leases. Pools stay unless --delete-pools is given, or they are values of
    /// the chart (pools, configMapPools), which `helm uninstall` deletes. It needs an administrator's permissions.
    Uninstall(UninstallArgs),
    /// Check the installation: is it right, and would it fail over?
    ///
    /// Each finding has a code, which docs/troubleshooting.md explains. Nodes ask the segment for one another and for the
    /// announced addresses, by the speakers' pods, where you may start programs in them. Nothing is changed. What could not be
    /// checked is said. Exit codes: 0 nothing is wrong, 1 there are warnings (or it failed, or neither nodes nor Services nor pools
    /// could be read, nor a check be made that --only names: "blank" of -o json is true then), 2 there are errors.
    Doctor(DoctorArgs),
    /// Find out what this node sees, for arpeggio doctor.
    #[command(hide = true)]
    Survey(SurveyArgs),
    /// Ask the segment for an address again and again, for arpeggio drill.
    #[command(hide = true)]
    Asking(AskingArgs),
    /// Write an archive with what a bug report needs, and no secrets.
    ///
    /// It holds pools, Leases, Services of type LoadBalancer with what concerns Arpeggio, their EndpointSlices, Nodes in brief,
    /// Arpeggio's pods, their logs and metrics, the last ARP and NDP frames that each speaker has heard and sent, and events. No
    /// Secret is read; values of environment variables, sharing keys and other programs' annotations are left out. What you may not
    /// read is named in it. Exit codes: 0 written, 1 failed, or no object was found that could be read: there is no archive then.
    #[allow(clippy::doc_markdown, reason = "it is shown on a terminal")]
    Report(ReportArgs),
    /// Rehearse a failover of a Service's address, and show what was noticed of it.
    ///
    /// It shows what it is going to do and asks. It refuses where an address would have nowhere to go, and while something else
    /// is under way. What it does ends by itself, also when this command is killed; nothing moves back by itself. Exit codes: 0
    /// done, and within the budget if there is one, 1 over the budget, 2 not carried out.
    Drill(DrillArgs),
    /// Print the custom resource definitions, as YAML for kubectl apply.
    Crds,
    /// Print the script by which a shell completes command lines.
    Completion(CompletionArgs),
    /// Write the manual pages.
    Man(ManArgs),
    /// What may come next, for kubectl.
    #[command(name = "__complete", hide = true)]
    Complete {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum Explained {
    /// Why a Service has its address, or none, and what to do.
    Service(explain::ServiceArgs),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Args = arguments::parse();
    args.global.choose_colours();
    match run(args).await {
        Ok(outcome) => {
            anstream::print!("{}", outcome.text);
            outcome.code
        }
        Err(error) => {
            anstream::eprintln!("arpeggio: {}", paint::shown(&complaint(&error)));
            ExitCode::FAILURE
        }
    }
}

async fn run(Args { command, global }: Args) -> anyhow::Result<Outcome> {
    match command {
        Command::Status(status) => status::show(&global, &status).await,
        Command::Explain { what: Explained::Service(service) } => {
            Ok(explain::show(&global, &service).await?.into())
        }
        Command::Uninstall(uninstall) => uninstall::run(&global, &uninstall).await,
        Command::Interfaces(interfaces) => interfaces::show(&interfaces, &global).await,
        Command::WhoHas(who_has) => who_has::show(&who_has, &global).await,
        Command::Rebalance(rebalance) => rebalance::run(&global, &rebalance).await,
        Command::Doctor(doctor) => doctor::run(&global, &doctor).await,
        Command::Survey(questions) => survey::run(&questions).await,
        Command::Asking(asking) => asking::run(&asking).await,
        Command::Report(report) => report::write(&global, &report).await,
        Command::Drill(drill) => Ok(drill::run(&global, &drill).await),
        Command::Crds => Ok(definitions()?.into()),
        Command::Completion(shell) => Ok(completion::script(Args::command(), &shell).into()),
        Command::Man(man) => Ok(man::write(Args::command(), &man)?.into()),
        Command::Complete { words } => Ok(completion::answer(Args::command(), &words).into()),
    }
}

/// One YAML document after the other.
fn definitions() -> anyhow::Result<String> {
    let documents: Result<Vec<String>, _> = crds::crds().iter().map(crds::to_yaml).collect();
    Ok(documents?.join("---\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_those_that_are_installed() {
        let installed = include_str!("../../../manifests/crds/addresspools.yaml");
        assert!(definitions().unwrap().contains(installed));
    }

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_services_namespace_is_not_arpeggios() {
        let line =
            ["arpeggio", "explain", "service", "web", "-n", "shop", "--system-namespace", "lb"];
        let global = Args::try_parse_from(line).unwrap().global;
        assert_eq!(global.system_namespace(), "lb");
        assert_eq!(global.namespace(), Some("shop"));
        let unset = Args::try_parse_from(["arpeggio", "status", "-n", ""]).unwrap().global;
        assert_eq!(unset.namespace(), None, "as with kubectl");
    }
}

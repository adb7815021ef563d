//! Command-line arguments.

use std::time::Duration;

use arpeggio_runtime::{
    admin::{AdminArgs, HealthArgs},
    arguments::{self, name},
    telemetry::LogArgs,
    version,
};
use clap::{Parser, Subcommand, builder::BoolishValueParser};
use k8s_openapi::jiff::SignedDuration;

/// Where metrics are served unless the user says otherwise. The ports of controller and speaker are other ones, so that all
/// can run on one host.
const DEFAULT_ADMIN: &str = "[::]:7475";

/// The longest time for which connections can be kept.
const LONGEST: Duration = Duration::from_hours(24);

/// Gives packets of connections to the node that knows them, so that open TCP connections outlive it when their address
/// moves to another node on purpose.
///
/// Runs as one process per node beside the speaker, in the host's network, with the capability NET_ADMIN and no other. Its
/// rules are nf_tables of its own, which go when it ends, however it ends. Finds the cluster by KUBECONFIG, ~/.kube/config
/// or the pod's ServiceAccount, in this order.
///
/// Exit codes: 0 stopped by a signal, 1 cannot start, 2 wrong arguments.
#[allow(clippy::doc_markdown, reason = "it is shown on a terminal")]
#[derive(Debug, Parser)]
#[command(version = version::long(), args_conflicts_with_subcommands = true)]
#[command(mut_arg("admin_address", |arg| arg.required(false).default_value(DEFAULT_ADMIN)))]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask a running forwarder for its health at its unix socket; for the kubelet's exec probes.
    Health(HealthArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The name of this node in Kubernetes (required).
    // Not `required`, since the subcommand does without.
    #[arg(long, env = "NODE_NAME", value_name = "NAME", value_parser = name)]
    pub(crate) node_name: Option<String>,
    /// This pod's name, which tells two forwarders of one node apart. Default: a name that each process makes up.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub(crate) pod_name: Option<String>,
    /// The namespace of Arpeggio's Leases.
    #[arg(long, env = "POD_NAMESPACE", default_value = "arpeggio-system", value_name = "NAME")]
    #[arg(value_parser = name)]
    pub(crate) namespace: String,
    /// For how long after an address has moved the node that had it is given packets of connections that it knows: 5m, 90s,
    /// 24h at most. Connections that are older are reset then. 0: never, so that a move resets all.
    #[arg(long, env = "ARPEGGIO_KEEP_CONNECTIONS", default_value = "5m", value_name = "DURATION")]
    #[arg(value_parser = duration)]
    pub(crate) keep_connections: Duration,
    /// Spread addresses also over nodes with the label node.kubernetes.io/exclude-from-external-load-balancers; say it where
    /// the speaker announces from them.
    #[allow(clippy::doc_markdown, reason = "it is shown on a terminal")]
    #[arg(long, env = "ARPEGGIO_IGNORE_EXCLUSION_LABEL")]
    #[arg(value_parser = BoolishValueParser::new())]
    pub(crate) ignore_exclusion_label: bool,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

impl RunArgs {
    pub(crate) fn instance(&self) -> String {
        arguments::instance(self.pod_name.as_deref())
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let wrong = || "write a time from 0 to 24h with its unit: 5m, 90s".to_owned();
    let time = text.parse::<SignedDuration>().map_err(|_| wrong())?;
    Duration::try_from(time).ok().filter(|time| *time <= LONGEST).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn two_processes_have_two_names_unless_their_pods_name_them() {
        let instance = |given: &[&str]| {
            Args::parse_from([&["forwarder", "--node-name=a"], given].concat()).run.instance()
        };
        assert_ne!(instance(&[]), instance(&[]));
        assert_eq!(instance(&["--pod-name=speaker-x7"]), "speaker-x7");
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let table = [
            ("0", Some(0)),
            ("5m", Some(300)),
            ("90s", Some(90)),
            ("1h30m", Some(5_400)),
            ("24h", Some(86_400)),
            ("25h", None),
            ("-5m", None),
            ("5", None),
            ("soon", None),
            ("", None),
        ];
        for (text, seconds) in table {
            assert_eq!(duration(text).ok(), seconds.map(Duration::from_secs), "{text}");
        }
    }
}

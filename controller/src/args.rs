//! Command-line arguments.

use std::{net::SocketAddr, time::Duration};

use arpeggio_allocation::Periods;
use arpeggio_runtime::{
    admin::AdminArgs,
    arguments::{name, name_or_none},
    telemetry::LogArgs,
    version,
};
use clap::{
    ArgAction, Parser, Subcommand,
    builder::{BoolishValueParser, NonEmptyStringValueParser},
};
use k8s_openapi::jiff::Timestamp;

use crate::sources::{MetalLbPlace, Places};

/// Where metrics are served unless the user says otherwise. The speaker's port is another one, so that both can run on
/// one host.
const DEFAULT_ADMIN: &str = "[::]:7473";

/// For how long the address of a deleted Service waits for one of the same name. `kubectl replace --force` and `helm
/// upgrade --force` create a Service within a second after they have deleted it.
const SUCCESSION: Duration = Duration::from_secs(2);

/// For how long an address waits for a Service that was never seen, when a backup has brought its lock. Tools that restore
/// one create Leases first, and Services when they get to them.
const RESTORATION: Duration = Duration::from_mins(10);

/// For how long a Service lacks its pool before anything is said or done about it. Whoever replaces a pool deletes it and
/// creates it again within a second, and what is applied together comes one after the other.
const PATIENCE: Duration = Duration::from_secs(5);

/// Gives Services of type LoadBalancer their addresses, from the address pools of the cluster.
///
/// Finds the cluster by KUBECONFIG, ~/.kube/config or the pod's ServiceAccount, in this order. Needs no privileges on
/// its host. Several may run at once: one leads, the others wait to take over, and no two Services ever get one
/// address.
///
/// Exit codes: 0 stopped by a signal, 1 cannot start, 2 wrong arguments.
#[allow(clippy::doc_markdown, reason = "it is shown on a terminal")]
#[derive(Debug, Parser)]
#[command(version = version::long())]
#[command(mut_arg("admin_address", |arg| arg.required(false).default_value(DEFAULT_ADMIN)))]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// The namespace of Arpeggio's Leases; it must exist.
    #[arg(long, env = "POD_NAMESPACE", default_value = "arpeggio-system", value_name = "NAME")]
    #[arg(value_parser = name)]
    pub(crate) namespace: String,
    /// Which copy of the controller this is, as events and the leader Lease show it.
    #[arg(long, env = "POD_NAME", default_value = "arpeggio-controller", value_name = "NAME")]
    pub(crate) name: String,
    /// Serve Services with this spec.loadBalancerClass, instead of those without any.
    #[arg(long, env = "ARPEGGIO_LOAD_BALANCER_CLASS", value_name = "CLASS")]
    pub(crate) load_balancer_class: Option<String>,
    /// Whether only one of several controllers decides. Without it all do, which is as safe and wastes requests.
    #[arg(
        long,
        env = "ARPEGGIO_LEADER_ELECTION",
        default_value_t = true,
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new(),
        value_name = "BOOL"
    )]
    pub(crate) leader_election: bool,
    /// Seconds for which a Service keeps an address that no pool allows any more; 0 replaces it at once.
    #[arg(long, env = "ARPEGGIO_GRACE_PERIOD", default_value_t = 600, value_name = "SECONDS")]
    pub(crate) grace_period: u32,
    /// Seconds to quarantine an address that another machine answered for, once its Service has another address.
    #[arg(
        long,
        env = "ARPEGGIO_QUARANTINE",
        default_value_t = 600,
        value_parser = clap::value_parser!(u32).range(10..),
        value_name = "SECONDS"
    )]
    pub(crate) quarantine: u32,
    /// The ConfigMap with pools, in our namespace, for clusters without AddressPools.
    #[arg(long, env = "ARPEGGIO_CONFIG_MAP", default_value = "arpeggio", value_name = "NAME")]
    #[arg(value_parser = name)]
    pub(crate) config_map: String,
    /// The key of its value with pools.
    #[arg(long, env = "ARPEGGIO_CONFIG_MAP_KEY", default_value = "config", value_name = "KEY")]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) config_map_key: String,
    /// Read MetalLB's pools, too: IPAddressPools, L2Advertisements, AddressPools and the ConfigMap in this namespace,
    /// such as metallb-system. Everybody who may write there decides which addresses are announced. Needs permissions
    /// there, see manifests/components/metallb.
    #[arg(long, env = "ARPEGGIO_METALLB_NAMESPACE", value_name = "NAME")]
    #[arg(value_parser = name_or_none)]
    pub(crate) metallb_namespace: Option<String>,
    /// The name of MetalLB's ConfigMap there, which it read up to its version 0.12.
    #[arg(
        long,
        env = "ARPEGGIO_METALLB_CONFIG_MAP",
        default_value = "config",
        value_parser = name,
        value_name = "NAME"
    )]
    pub(crate) metallb_config_map: String,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// What else the program does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Open TCP connections from this pod and write what became of them, as JSON, for `arpeggio doctor`.
    #[command(hide = true)]
    Reach {
        /// Where to: address and port.
        to: Vec<SocketAddr>,
    },
}

impl Args {
    /// This process's name in the election: unlike that of every other process, whatever their `--name`s.
    pub(crate) fn candidate(&self, started: Timestamp) -> String {
        format!("{}_{:x}", self.name, started.as_nanosecond())
    }

    /// How long things last.
    pub(crate) fn periods(&self) -> Periods {
        Periods {
            grace: Duration::from_secs(self.grace_period.into()),
            quarantine: Duration::from_secs(self.quarantine.into()),
            succession: SUCCESSION,
            restoration: RESTORATION,
            patience: PATIENCE,
        }
    }

    /// Where to find pools.
    pub(crate) fn places(&self) -> Places {
        Places {
            namespace: self.namespace.clone(),
            config_map: self.config_map.clone(),
            key: self.config_map_key.clone(),
            metallb: self.metallb_place(),
        }
    }

    /// Where to read MetalLB's pools, if at all. An empty namespace, as an unset value in a manifest gives, means none.
    fn metallb_place(&self) -> Option<MetalLbPlace> {
        let namespace = self.metallb_namespace.clone().filter(|name| !name.is_empty())?;
        Some(MetalLbPlace { namespace, config_map: self.metallb_config_map.clone() })
    }

    /// The class to serve. An empty one, as an unset value in a manifest gives, means none.
    pub(crate) fn class(&self) -> Option<String> {
        self.load_balancer_class.clone().filter(|class| !class.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
        let args = Args::parse_from(["controller"]);
        assert_eq!(args.admin.admin_address.to_string(), DEFAULT_ADMIN);
    }

    #[test]
    fn leader_election_can_be_switched_off() {
        assert!(Args::parse_from(["controller"]).leader_election);
        assert!(!Args::parse_from(["controller", "--leader-election=false"]).leader_election);
    }

    #[test]
    fn a_process_differs_from_its_predecessor() {
        let args = Args::parse_from(["controller", "--name", "one"]);
        let first = args.candidate(Timestamp::UNIX_EPOCH + Duration::from_nanos(255));
        assert_eq!(first, "one_ff");
        assert_ne!(first, args.candidate(Timestamp::UNIX_EPOCH));
    }

    #[test]
    fn metallb_is_read_only_where_somebody_says_so() {
        let place =
            |args: &[&str]| Args::parse_from([&["controller"], args].concat()).places().metallb;
        assert_eq!(place(&[]), None);
        assert_eq!(place(&["--metallb-namespace="]), None);
        let read = place(&["--metallb-namespace=metallb-system"]).unwrap();
        assert_eq!(
            (read.namespace.as_str(), read.config_map.as_str()),
            ("metallb-system", "config")
        );
    }

    #[test]
    fn what_names_nothing_is_refused() {
        let parse = |argument: &str| Args::try_parse_from(["controller", argument]);
        let wrong = [
            "--namespace=",
            "--namespace= ",
            "--namespace=Arpeggio",
            "--config-map=",
            "--config-map-key=",
            "--metallb-namespace= ",
            "--metallb-config-map=",
            "--leader-election=maybe",
        ];
        for argument in wrong {
            assert_eq!(parse(argument).unwrap_err().exit_code(), 2, "{argument}");
        }
        for no in ["no", "0", "off", "False"] {
            assert!(!parse(&format!("--leader-election={no}")).unwrap().leader_election);
        }
    }

    #[test]
    fn an_empty_class_is_none() {
        let class =
            |value| Args::parse_from(["controller", "--load-balancer-class", value]).class();
        assert_eq!(class(""), None);
        assert_eq!(class("home").as_deref(), Some("home"));
    }
}

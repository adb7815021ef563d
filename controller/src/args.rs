//! Command-line arguments.

use std::time::Duration;

use arpeggio_runtime::{admin::AdminArgs, telemetry::LogArgs};
use clap::Parser;

/// Where metrics are served unless the user says otherwise. The speaker's port is another one, so that both can run on
/// one host.
const DEFAULT_ADMIN: &str = "0.0.0.0:7473";

/// Gives Services of type LoadBalancer their addresses, from the address pools of the cluster.
///
/// Finds the cluster by KUBECONFIG, ~/.kube/config or the pod's ServiceAccount, in this order. Needs no privileges on
/// its host. Several may run at once; no two Services get one address.
///
/// Exit codes: 0 stopped by a signal, 1 cannot start, 2 wrong arguments.
#[derive(Debug, Parser)]
#[command(version)]
#[command(mut_arg("admin_address", |arg| arg.required(false).default_value(DEFAULT_ADMIN)))]
pub(crate) struct Args {
    /// The namespace of Arpeggio's Leases; it must exist.
    #[arg(long, env = "POD_NAMESPACE", default_value = "arpeggio-system", value_name = "NAME")]
    pub(crate) namespace: String,
    /// Which copy of the controller this is, as events show it.
    #[arg(long, env = "POD_NAME", default_value = "arpeggio-controller", value_name = "NAME")]
    pub(crate) name: String,
    /// Serve Services with this spec.loadBalancerClass, instead of those without any.
    #[arg(long, env = "ARPEGGIO_LOAD_BALANCER_CLASS", value_name = "CLASS")]
    pub(crate) load_balancer_class: Option<String>,
    /// For how many seconds a Service keeps an address that no pool allows any more; 0: it is replaced at once.
    #[arg(long, env = "ARPEGGIO_GRACE_PERIOD", default_value_t = 600, value_name = "SECONDS")]
    pub(crate) grace_period: u32,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

impl Args {
    /// For how long an address that no pool allows any more is kept.
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_period.into())
    }

    /// The class to serve. An empty one, as an unset value in a manifest gives, means none.
    pub(crate) fn class(&self) -> Option<String> {
        self.load_balancer_class.clone().filter(|class| !class.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
        let args = Args::parse_from(["controller"]);
        assert_eq!(args.admin.admin_address.to_string(), DEFAULT_ADMIN);
    }

    #[test]
    fn an_empty_class_is_none() {
        let class =
            |value| Args::parse_from(["controller", "--load-balancer-class", value]).class();
        assert_eq!(class(""), None);
        assert_eq!(class("home").as_deref(), Some("home"));
    }
}

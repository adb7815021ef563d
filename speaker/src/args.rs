//! Command-line arguments.

use std::time::Duration;

use arpeggio_election::{Pattern, Profile, Settings, UnsafeSettings};
use arpeggio_runtime::{
    admin::{AdminArgs, HealthArgs, SocketArgs},
    arguments::{self, NO_NODE, name},
    telemetry::LogArgs,
    version,
};
use clap::{Parser, Subcommand, ValueEnum, builder::BoolishValueParser};

/// Where metrics are served unless the user says otherwise. The controller's port is another one, so that both can
/// run on one host.
const DEFAULT_ADMIN: &str = "[::]:7474";

/// Announces the addresses of Services of type LoadBalancer on this node's segment.
///
/// Runs as one process per node, in the host's network, with the capability NET_RAW and no other. Finds the cluster by
/// KUBECONFIG, ~/.kube/config or the pod's ServiceAccount, in this order.
///
/// Exit codes: 0 stopped by a signal, 1 cannot start, 2 wrong arguments.
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
    /// Ask a running speaker for its health at its unix socket; for the kubelet's exec probes.
    Health(HealthArgs),
    /// Print the last ARP and NDP frames that a running speaker has heard and sent; `arpeggio report` asks for them.
    Frames(SocketArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The name of this node in Kubernetes (required).
    // Not `required`, since the subcommand does without.
    #[arg(long, env = "NODE_NAME", value_name = "NAME", value_parser = name)]
    pub(crate) node_name: Option<String>,
    /// This pod's name, which tells two speakers of one node apart. Default: a name that each process makes up.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub(crate) pod_name: Option<String>,
    /// The namespace of Arpeggio's Leases.
    #[arg(long, env = "POD_NAMESPACE", default_value = "arpeggio-system", value_name = "NAME")]
    #[arg(value_parser = name)]
    pub(crate) namespace: String,
    /// How long a session counts after its last renewal, in seconds (3 times --session-renewal or more). With more than 20
    /// nodes for each second of --session-renewal both grow with the number of nodes, so that the API server gets no more than
    /// 20 renewals a second.
    #[arg(long, env = "ARPEGGIO_SESSION_DURATION", value_name = "SECONDS")]
    #[arg(default_value_t = Settings::default().session.as_secs())]
    pub(crate) session_duration: u64,
    /// How often the session is renewed, in seconds (1 or more).
    #[arg(long, env = "ARPEGGIO_SESSION_RENEWAL", value_name = "SECONDS")]
    #[arg(default_value_t = Settings::default().renewal.as_secs())]
    pub(crate) session_renewal: u64,
    /// How the nodes that watch a node ask for it on the wire, and when its silence counts. auto: fast where a wired link has
    /// answered at once for a while, patient where a radio is on either side or answers come late, else standard.
    #[arg(
        long,
        env = "ARPEGGIO_PROBE_PROFILE",
        value_enum,
        ignore_case = true,
        value_name = "PROFILE"
    )]
    #[arg(default_value_t = ProbeProfile::Auto)]
    pub(crate) probe_profile: ProbeProfile,
    /// How often a node is asked, in milliseconds. This argument and the next two replace the profile: what is not given is
    /// standard's.
    #[arg(long, value_name = "MILLISECONDS", conflicts_with = "probe_profile")]
    pub(crate) probe_interval: Option<u64>,
    /// How long a node may take to answer, in milliseconds (20 or more). After that it is asked again at once.
    #[arg(long, value_name = "MILLISECONDS", conflicts_with = "probe_profile")]
    pub(crate) probe_timeout: Option<u64>,
    /// After how many unanswered questions in a row a node counts as silent (2 or more).
    #[arg(long, value_name = "COUNT", conflicts_with = "probe_profile")]
    pub(crate) probe_misses: Option<u32>,
    /// How often the two nodes that watch a node ask its speaker for an address that the node holds, in milliseconds.
    #[arg(long, default_value_t = 1000, value_name = "MILLISECONDS")]
    pub(crate) speaker_probe_interval: u64,
    /// How long a speaker may stay silent while its node answers, before its session is ended, in seconds (3 or more). A
    /// speaker that crashes and is restarted within this time keeps what it holds.
    #[arg(long, default_value_t = Settings::default().speaker_patience.as_secs(), value_name = "SECONDS")]
    pub(crate) speaker_patience: u64,
    /// Announce also from nodes with the label node.kubernetes.io/exclude-from-external-load-balancers, which many
    /// clusters put on control-plane nodes.
    #[arg(long, env = "ARPEGGIO_IGNORE_EXCLUSION_LABEL")]
    #[arg(value_parser = BoolishValueParser::new())]
    pub(crate) ignore_exclusion_label: bool,
    /// The pause after each of the three probes for an address that is announced for the first time, in milliseconds (20 or
    /// more). An address that another machine answers for is not announced. 0: no address is probed, whatever its pool says.
    #[arg(long, default_value_t = 70, value_name = "MILLISECONDS")]
    pub(crate) address_probe_pause: u64,
    /// How long to wait before an address that another machine has is probed again, in seconds.
    #[arg(long, default_value_t = Settings::default().recheck.as_secs(), value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) conflict_recheck: u64,
    /// Interfaces to switch to promiscuous mode, as wireless ones always are, comma-separated; `*` stands for any
    /// characters, `?` for one. For network cards that drop questions for addresses that are not the node's own.
    #[arg(
        long,
        env = "ARPEGGIO_PROMISCUOUS_INTERFACES",
        value_name = "NAMES",
        value_delimiter = ','
    )]
    #[arg(value_parser = |name: &str| Ok::<_, std::convert::Infallible>(Pattern::from(name)))]
    pub(crate) promiscuous_interfaces: Vec<Pattern>,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

impl RunArgs {
    /// The node's name, and what is decided with.
    ///
    /// # Errors
    /// What is missing, or does not fit together.
    pub(crate) fn checked(&self) -> Result<(&str, Settings), ArgsError> {
        let name = self.node_name.as_deref().ok_or(ArgsError::NoNode)?;
        Ok((name, self.settings().checked()?))
    }

    pub(crate) fn instance(&self) -> String {
        arguments::instance(self.pod_name.as_deref())
    }

    /// The profile by which every way is asked, in words; `None`: each is asked as it has earned.
    pub(crate) fn fixed_profile(&self) -> Option<String> {
        let name = self.probe_profile.to_possible_value()?;
        match self.probe_profile {
            ProbeProfile::Auto if self.own_profile() == Profile::STANDARD => None,
            ProbeProfile::Auto => {
                let Profile { probe, answer, misses } = self.own_profile();
                Some(format!("every {probe:?} and {misses} times {answer:?} (fixed)"))
            }
            _ => Some(format!("{} (fixed)", name.get_name())),
        }
    }

    /// The profile that the user has given in figures; standard's are those that were not given.
    fn own_profile(&self) -> Profile {
        let millis = |given: Option<u64>, usual| given.map_or(usual, Duration::from_millis);
        Profile {
            probe: millis(self.probe_interval, Profile::STANDARD.probe),
            answer: millis(self.probe_timeout, Profile::STANDARD.answer),
            misses: self.probe_misses.unwrap_or(Profile::STANDARD.misses),
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        let profile = match self.probe_profile {
            ProbeProfile::Auto => self.own_profile(),
            ProbeProfile::Fast => Profile::FAST,
            ProbeProfile::Standard => Profile::STANDARD,
            ProbeProfile::Patient => Profile::PATIENT,
            ProbeProfile::Sparse => Profile::SPARSE,
        };
        Settings {
            session: Duration::from_secs(self.session_duration),
            renewal: Duration::from_secs(self.session_renewal),
            speaker_probe: Duration::from_millis(self.speaker_probe_interval),
            speaker_patience: Duration::from_secs(self.speaker_patience),
            first_probe: Duration::from_millis(self.address_probe_pause),
            recheck: Duration::from_secs(self.conflict_recheck),
            ..Settings::default().with(profile)
        }
    }
}

/// What is wrong with arguments that are each well-formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgsError {
    /// Every speaker speaks for one node.
    #[error("{NO_NODE}")]
    NoNode,
    /// They do not fit together.
    #[error(transparent)]
    Unsafe(#[from] UnsafeSettings),
}

/// How nodes are asked on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProbeProfile {
    /// Each as it has earned.
    Auto,
    /// Every 40 ms; silent after four times 20 ms.
    Fast,
    /// Every 100 ms; silent after three times 50 ms.
    Standard,
    /// Every 150 ms; silent after five times 150 ms.
    Patient,
    /// Every 500 ms; silent after four times 200 ms. For switches that limit ARP to 15 frames a second and port.
    Sparse,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_default_arguments_are_the_default_settings() {
        let args = Args::parse_from(["speaker", "--node-name", "node-1"]);
        assert_eq!(args.run.settings(), Settings::default());
        assert_eq!(args.run.admin.admin_address.to_string(), DEFAULT_ADMIN);
    }

    #[test]
    fn a_profile_is_given_by_name_or_in_figures() {
        let parse = |given: &[&str]| {
            Args::try_parse_from([&["speaker"], given].concat()).map(|args| args.run)
        };
        let fast = parse(&["--probe-profile=fast"]).unwrap();
        assert_eq!(fast.settings().profile(), Profile::FAST);
        assert_eq!(fast.fixed_profile().as_deref(), Some("fast (fixed)"));
        let standard = parse(&["--probe-profile=standard"]).unwrap();
        assert_eq!(standard.fixed_profile().as_deref(), Some("standard (fixed)"));
        let own = parse(&["--probe-misses=4"]).unwrap();
        assert_eq!(own.settings().profile(), Profile { misses: 4, ..Profile::STANDARD });
        let said = own.fixed_profile();
        assert_eq!(said.as_deref(), Some("every 100ms and 4 times 50ms (fixed)"));
        assert_eq!(parse(&[]).unwrap().fixed_profile(), None);
        assert!(parse(&["--probe-profile=fast", "--probe-misses=4"]).is_err());
    }

    #[test]
    fn what_is_missing_or_does_not_fit_together_is_found_before_anything_is_done() {
        let checked = |given: &[&str]| {
            let args = Args::parse_from([&["speaker"], given].concat()).run;
            args.checked().map(|(name, _)| name.to_owned()).map_err(|error| error.to_string())
        };
        assert_eq!(checked(&["--node-name=node-1.home"]), Ok("node-1.home".to_owned()));
        let error = checked(&["--node-name=a", "--session-duration=3"]).unwrap_err();
        assert!(error.contains("at least three renewal intervals"), "{error}");
        for wrong in ["--node-name=", "--node-name=Node-1", "--namespace=", "--namespace=a b"] {
            let error = Args::try_parse_from(["speaker", wrong]).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong}");
        }
        let profile = Args::parse_from(["speaker", "--probe-profile=Fast"]).run.probe_profile;
        assert_eq!(profile, ProbeProfile::Fast);
    }

    #[test]
    fn two_processes_have_two_names_unless_their_pods_name_them() {
        let instance = |given: &[&str]| {
            Args::parse_from([&["speaker", "--node-name=a"], given].concat()).run.instance()
        };
        assert_ne!(instance(&[]), instance(&[]));
        assert_eq!(instance(&["--pod-name=speaker-x7"]), "speaker-x7");
    }

    #[test]
    fn probing_can_be_switched_off_and_interfaces_named() {
        let given = ["speaker", "--address-probe-pause=0", "--promiscuous-interfaces=wl*,eth1"];
        let args = Args::parse_from(given).run;
        assert_eq!(args.settings().first_probe, Duration::ZERO);
        assert!(args.settings().checked().is_ok());
        assert_eq!(args.promiscuous_interfaces, ["wl*".into(), "eth1".into()]);
        assert!(Args::try_parse_from(["speaker", "--conflict-recheck=0"]).is_err());
    }
}

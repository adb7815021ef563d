//! `arpeggio drill`: rehearses a failover on a living cluster and measures it.
//!
//! Everything that is decided is decided in [`plan`]; [`act`] does one thing to the cluster, and [`rehearsal`] looks on.

mod act;
mod gap;
mod junit;
mod nodes;
mod plan;
mod probe;
mod rehearsal;
mod report;

use std::{net::IpAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use arpeggio_api::session::SILENCES;
use arpeggio_runtime::server_clock;
use k8s_openapi::api::core::v1::Service;
use kube::{Client, api::ListParams};

use self::{
    act::Act,
    junit::JunitFile,
    plan::{Kind, Plan, Refusal, Situation},
    probe::Target,
    rehearsal::Rehearsal,
    report::Report,
};
use crate::{
    census::Known,
    complaint::complaint,
    confirm::{self, confirm},
    global::Global,
    interfaces,
    outcome::{Format, Outcome},
    paint,
    reader::Reader,
    service_name::ServiceName,
};

/// Exit code: the drill could not be carried out.
const NOT_DONE: u8 = 2;

/// Arguments of `arpeggio drill`.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct DrillArgs {
    /// The Service: NAME in the namespace of -n, or NAMESPACE/NAME.
    #[arg(value_name = "[NAMESPACE/]NAME")]
    service: ServiceName,
    /// What is rehearsed.
    #[arg(long, value_enum, default_value_t)]
    kind: Kind,
    /// Which of the Service's addresses. Default: the first one.
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// For how many seconds the node is silent, with --kind silence.
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(SILENCES))]
    seconds: u64,
    /// The port that is connected to every 20 ms from here. Default: the Service's first TCP port.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Ask for this path by HTTP as well; what a server answers counts, unless it is its own failure (5xx).
    #[arg(long, value_name = "PATH")]
    http: Option<String>,
    /// Connect to nothing: where the address cannot be reached from here.
    #[arg(long, conflicts_with_all = ["port", "http"])]
    no_probe: bool,
    /// Have these other nodes ask the segment every 20 ms who has the address, by their speakers' pods. It needs "create" and
    /// "get" on pods/exec in Arpeggio's namespace. Can be repeated.
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    ask_from: Vec<String>,
    /// The longest time that may be without an answer (300ms, 2s). Without probes, and after a silence or on a node as well, the
    /// time until another node has the address counts.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    budget: Option<Duration>,
    /// Write the result for CI systems, too, as XML in the form of junit.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    junit: Option<PathBuf>,
    /// How long all of it may take, in seconds.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(5..))]
    timeout: u16,
    /// For speakers that run with the same flag. Default: what their DaemonSet says, if you may read it.
    #[arg(long)]
    ignore_exclusion_label: bool,
    /// Only show what would be done.
    #[arg(long, conflicts_with = "junit")]
    dry_run: bool,
    /// Do not ask before it is done.
    #[arg(short, long)]
    yes: bool,
    /// How the result is written.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Rehearses, unless something speaks against it. What keeps it from being carried out has an exit code of its own.
pub(crate) async fn run(global: &Global, args: &DrillArgs) -> Outcome {
    match with_file(global, args).await {
        Ok(outcome) => outcome,
        Err(error) => {
            let error = paint::shown(&complaint(&error));
            anstream::eprintln!("arpeggio: the drill was not carried out: {error}");
            Outcome { text: String::new(), code: ExitCode::from(NOT_DONE) }
        }
    }
}

/// How it went is in the file of `--junit`, too, also when it was not carried out.
async fn with_file(global: &Global, args: &DrillArgs) -> anyhow::Result<Outcome> {
    if args.dry_run {
        return preview(global, args).await;
    }
    let name = format!("{} of {}", args.kind.as_str(), args.service.name);
    let junit = match &args.junit {
        Some(path) => {
            let file = JunitFile::create(path, name);
            Some(file.with_context(|| format!("cannot write {}", path.display()))?)
        }
        None => None,
    };
    let report = carried_out(global, args).await;
    let written = junit.map_or(Ok(()), |file| match &report {
        Ok(report) => file.write(&report.to_junit()),
        Err(error) => file.write_error(&complaint(error)),
    });
    if let Err(error) = written {
        anstream::eprintln!("arpeggio: the result is not in the file of --junit: {error}");
    }
    let report = report?;
    let code = if report.is_over_budget() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    Ok(Outcome { text: args.output.of(&report, Report::to_text)?, code })
}

/// What would be done, unless something speaks against it.
async fn preview(global: &Global, args: &DrillArgs) -> anyhow::Result<Outcome> {
    let (client, system) = (global.connect().await?, global.system_namespace());
    let service = format!("{}/{}", args.service.home(global, &client)?, args.service.name);
    let (_, plan) = looked(&client, &system, &service, args).await?;
    prepared(&client, &system, &plan, args).await?;
    Ok(args.output.of(&plan.preview(), |_| plan.to_text(args.seconds))?.into())
}

/// What is known, and the plan, if nothing speaks against it.
async fn looked(
    client: &Client,
    system: &str,
    service: &str,
    args: &DrillArgs,
) -> anyhow::Result<(Known, Plan)> {
    let (known, plan) = planned(client, system, service, args).await?;
    let plan = plan.map_err(|refusals| anyhow!(plan::said(&refusals)))?;
    plan.askers(&known, &args.ask_from)?;
    Ok((known, plan))
}

async fn carried_out(global: &Global, args: &DrillArgs) -> anyhow::Result<Report> {
    let (client, system) = (global.connect().await?, global.system_namespace());
    let service = format!("{}/{}", args.service.home(global, &client)?, args.service.name);
    let (mut known, mut plan) = looked(&client, &system, &service, args).await?;
    let (act, targets) = prepared(&client, &system, &plan, args).await?;
    if !agreed(&plan, args)? {
        bail!("nobody said yes");
    }
    // An answer may take hours.
    if !args.yes {
        let (later, now) = planned(&client, &system, &service, args).await?;
        plan = plan.as_agreed(now).map_err(anyhow::Error::msg)?;
        known = later;
    }
    let began = server_clock::now();
    let askers = plan.askers(&known, &args.ask_from)?;
    let timeout = Duration::from_secs(args.timeout.into());
    let mut seen = Rehearsal { act, plan: &plan, targets, askers, timeout }.carry_out().await?;
    seen.on_node = is_on_node(&known).await;
    Ok(Report::of(&plan, &seen, args.budget, began))
}

/// What is done and what is connected to, as far as that can be known before. Nothing is done yet.
async fn prepared(
    client: &Client,
    system: &str,
    plan: &Plan,
    args: &DrillArgs,
) -> anyhow::Result<(Act, Vec<Target>)> {
    let act = Act::prepare(client, system, args.seconds, plan).await?;
    Ok((act, targets(client, plan, args).await?))
}

/// Whether this machine is a node. One that does not say which addresses it has is taken for none.
async fn is_on_node(known: &Known) -> bool {
    interfaces::read().await.is_ok_and(|links| nodes::is_one(&links, &known.sessions))
}

/// What is known now, and the plan that follows from it.
async fn planned(
    client: &Client,
    system: &str,
    service: &str,
    args: &DrillArgs,
) -> anyhow::Result<(Known, Result<Plan, Vec<Refusal>>)> {
    let known = Known::read(client, system, args.ignore_exclusion_label).await?;
    let situation = Situation { known: &known, service, address: args.address, kind: args.kind };
    let plan = situation.plan();
    Ok((known, plan))
}

/// What is connected to from here.
async fn targets(client: &Client, plan: &Plan, args: &DrillArgs) -> anyhow::Result<Vec<Target>> {
    if args.no_probe {
        return Ok(Vec::new());
    }
    let port = match args.port {
        Some(port) => port,
        None => first_port(client, &plan.service).await?,
    };
    let tcp = Target { address: plan.address, port, path: None };
    let http = args.http.clone().map(|path| Target { path: Some(path), ..tcp.clone() });
    Ok([tcp].into_iter().chain(http).collect())
}

/// Of a Service as `namespace/name`.
async fn first_port(client: &Client, service: &str) -> anyhow::Result<u16> {
    let (home, name) = service.split_once('/').context("a Service has a namespace")?;
    let named = ListParams::default().fields(&format!("metadata.name={name}"));
    let mut reader = Reader::new(client.clone());
    let found: Vec<Service> = reader.inside(home, &named).await;
    if let Some(gap) = reader.gaps.first() {
        bail!("which port does the Service have? Say it with --port, or use --no-probe ({gap})");
    }
    let spec = found.into_iter().next().and_then(|service| service.spec);
    let ports = spec.and_then(|spec| spec.ports).unwrap_or_default();
    let is_tcp = |protocol: &Option<String>| protocol.as_deref().is_none_or(|it| it == "TCP");
    let port = ports.iter().find(|port| is_tcp(&port.protocol)).map(|port| port.port);
    let port = port.and_then(|port| u16::try_from(port).ok());
    port.context("the Service has no TCP port that could be connected to: use --no-probe")
}

/// Whether somebody who has read what will be done wants it.
fn agreed(plan: &Plan, args: &DrillArgs) -> anyhow::Result<bool> {
    confirm::show(&plan.to_text(args.seconds), args.output, args.yes);
    confirm("Go on?", args.yes)
}

/// A time as people write it: `300ms`, `2s`, `1.5s`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a time like 300ms or 2s".to_owned();
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').ok_or_else(wrong)?, 1.0),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::asking::AskingArgs;

    #[test]
    fn times_are_written_as_people_do() {
        assert_eq!(duration("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "300", "s", "-1s", "1h"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        global: Global,
        #[command(flatten)]
        drill: DrillArgs,
    }

    #[derive(clap::Parser)]
    struct Asking {
        #[command(flatten)]
        asking: AskingArgs,
    }

    #[test]
    fn nodes_ask_for_as_long_as_a_drill_may_take() {
        let parsed = |seconds: &str| {
            let line = Line::try_parse_from(["drill", "web", "--timeout", seconds]).unwrap();
            let asked = ["asking", "192.168.0.240", "--seconds", seconds];
            let asking = Asking::try_parse_from(asked).map(|it| it.asking.seconds);
            (line.drill.timeout, asking.ok())
        };
        for seconds in [5, 600, 601, u16::MAX] {
            assert_eq!(parsed(&seconds.to_string()), (seconds, Some(seconds)));
        }
    }

    /// Whoever has no terminal is advised to look first.
    #[test]
    fn a_drill_can_be_looked_at_before() {
        let parsed = |rest: &[&str]| Line::try_parse_from([&["drill", "web"], rest].concat());
        assert!(parsed(&["--dry-run"]).unwrap().drill.dry_run);
        assert!(parsed(&["--dry-run", "--junit", "x"]).is_err(), "it has no result");
    }

    #[tokio::test]
    async fn a_drill_that_was_not_carried_out_is_an_error_for_ci_systems() {
        let path = std::env::temp_dir().join(format!("arpeggio-drill-{}.xml", std::process::id()));
        let file = path.to_string_lossy().into_owned();
        let line = ["drill", "web", "--yes", "--kubeconfig", "/nowhere", "--junit", &file];
        let Line { global, drill } = clap::Parser::parse_from(line);
        run(&global, &drill).await;
        let written = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(written.contains("tests=\"1\" failures=\"0\" errors=\"1\""), "{written}");
        assert!(
            written.contains("name=\"handover of web\"") && written.contains("<error message="),
            "{written}"
        );
        assert!(written.contains("/nowhere"), "{written}");
    }
}

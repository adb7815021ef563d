//! `arpeggio status`: who announces which address, and which nodes take part.

mod known;
mod report;
mod selection;
mod watching;

use std::process::ExitCode;

use anyhow::Context as _;
use arpeggio_api::lease;
use arpeggio_runtime::server_clock;
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Service},
    jiff::{SignedDuration, Timestamp},
};
use kube::{Api, Client, api::ListParams};

pub(crate) use self::{known::Status, report::ADDRESS_COLUMNS, watching::refusal};
use self::{report::Report, selection::Selection};
use crate::{
    global::Global,
    outcome::{Format, Outcome},
    reader::{Reader, list},
    table,
};

/// Arguments of `arpeggio status`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// Only this node, and the addresses that it has.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Only addresses from this pool.
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Only what is not as it should be, and what is wrong with it.
    #[arg(long)]
    problems: bool,
    /// Go on, and show moves and sessions as they change; with -o json one object for each change. Not with
    /// --problems, which is about one moment.
    #[arg(short, long, conflicts_with = "problems")]
    watch: bool,
    /// How the result is written.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Shows what is so now and, where it is asked for, what changes.
pub(crate) async fn show(global: &Global, args: &StatusArgs) -> anyhow::Result<Outcome> {
    let (client, system) = (global.connect().await?, global.system_namespace());
    let selection = Selection {
        namespace: global.namespace().map(str::to_owned),
        node: args.node.clone(),
        pool: args.pool.clone(),
        problems: args.problems,
    };
    if args.watch {
        watching::follow(client, &system, &selection, args.output).await?;
        return Ok(String::new().into());
    }
    let (report, now) = report(client, global, &system).await;
    let report = report.only(&selection);
    let text = args.output.of(&report, |it| it.to_text(args.output, &selection, now))?;
    let code = if report.is_blank() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    Ok(Outcome { text, code })
}

/// The same as JSON, for those who read it later.
pub(crate) async fn snapshot(client: Client, global: &Global) -> anyhow::Result<String> {
    let (report, _) = report(client, global, &global.system_namespace()).await;
    Ok(Format::Json.of(&report, |_| String::new())?)
}

/// All that may be read, and when it was.
async fn report(client: Client, global: &Global, system: &str) -> (Report, Timestamp) {
    let of_arpeggio = ListParams::default().labels(lease::SELECTOR);
    let mut reader = Reader::new(client);
    let leases: Vec<Lease> = reader.inside(system, &of_arpeggio).await;
    let services: Vec<Service> = match global.namespace() {
        Some(namespace) => reader.inside(namespace, &ListParams::default()).await,
        None => reader.all().await,
    };
    let now = server_clock::now();
    (Report::of(&Status::of(&leases).told_by(&services), &services, &reader.gaps, now), now)
}

/// Reads all Leases once.
pub(crate) async fn read(client: Client, namespace: &str) -> anyhow::Result<Status> {
    let api: Api<Lease> = Api::namespaced(client, namespace);
    let params = ListParams::default().labels(lease::SELECTOR);
    let leases = list(&api, &params).await.context("cannot list Leases")?;
    Ok(Status::of(&leases))
}

/// A table, or what to say when it has no row.
pub(crate) fn section<const N: usize>(
    empty: &str,
    head: [&str; N],
    rows: &[[String; N]],
) -> String {
    if rows.is_empty() { empty.to_owned() } else { table::render(head, rows) }
}

/// How long ago, with one unit: `3s`, `12m`, `5h`, `9d`.
pub(crate) fn ago(time: Option<Timestamp>, now: Timestamp) -> String {
    let Some(time) = time else { return "-".to_owned() };
    let seconds = now.duration_since(time).max(SignedDuration::ZERO).as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        status: StatusArgs,
    }

    /// It would show what had a problem at first, and then every change.
    #[test]
    fn problems_are_not_watched() {
        let parsed =
            |flags: &[&str]| <Line as clap::Parser>::try_parse_from([&["status"], flags].concat());
        assert!(parsed(&["--watch", "--node", "node-1"]).unwrap().status.watch);
        let refusal = parsed(&["--watch", "--problems"]).unwrap_err().to_string();
        assert!(refusal.contains("cannot be used with"), "{refusal}");
    }

    #[test]
    fn times_have_one_unit() {
        let now = server_clock::now();
        for (seconds, text) in [(3, "3s"), (720, "12m"), (18_000, "5h"), (777_600, "9d")] {
            let time = now - SignedDuration::from_secs(seconds);
            assert_eq!(ago(Some(time), now), text);
        }
    }
}

//! `arpeggio rebalance`: spreads addresses evenly over the nodes, on purpose.
//!
//! The plan is [`arpeggio_election::rebalance`]'s. The command changes no holder: it asks each holder, by a mark on the
//! lock, and waits for what comes of it.

mod census;
mod report;
mod requests;

use std::{collections::BTreeMap, net::IpAddr, process::ExitCode, time::Duration};

use arpeggio_election::{Version, rebalance::Move};

use self::{
    census::Known,
    report::Preview,
    requests::{Missed, Requests},
};
use crate::{global::Global, outcome::Outcome};

/// Exit code: some moves were not made.
const NOT_ALL: u8 = 3;

/// Arguments of `arpeggio rebalance`.
#[derive(Debug, clap::Args)]
pub(crate) struct RebalanceArgs {
    /// Only show what would be moved.
    #[arg(long)]
    dry_run: bool,
    /// How long all moves may take together, in seconds. What was not done by then is not done later either.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..))]
    timeout: u16,
    /// Move addresses also to nodes with the label node.kubernetes.io/exclude-from-external-load-balancers; for speakers
    /// that run with the same flag.
    #[arg(long)]
    ignore_exclusion_label: bool,
}

/// Plans, shows the plan and carries it out.
pub(crate) async fn run(global: &Global, args: &RebalanceArgs) -> anyhow::Result<Outcome> {
    let (client, namespace) = (global.connect().await?, &global.system_namespace());
    let known = Known::read(&client, namespace, !args.ignore_exclusion_label).await?;
    let plan = known.census.plan();
    let preview = Preview { plan: &plan, locks: &known.locks }.to_text();
    if args.dry_run || plan.moves.is_empty() {
        return Ok(preview.into());
    }
    anstream::println!("{preview}");
    let count = plan.moves.len();
    let moves = with_versions(plan.moves, &known.versions());
    let timeout = Duration::from_secs(args.timeout.into());
    let missed = Requests::new(client, namespace, moves).carry_out(timeout).await?;
    Ok(outcome(count, &missed))
}

/// Each move with the version of the lock that it was planned with.
fn with_versions(moves: Vec<Move>, versions: &BTreeMap<IpAddr, Version>) -> Vec<(Move, Version)> {
    let with_version = |wanted: Move| {
        let version = *versions.get(&wanted.address)?;
        Some((wanted, version))
    };
    moves.into_iter().filter_map(with_version).collect()
}

fn outcome(count: usize, missed: &[Missed]) -> Outcome {
    let done = count.saturating_sub(missed.len());
    let code = if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NOT_ALL) };
    let lines = missed.iter().map(|Missed { wanted: Move { address, from, to }, reason }| {
        format!("{address} was not moved from {from} to {to}: {reason}\n")
    });
    let text = format!("{done} of {count} addresses moved\n{}", lines.collect::<String>());
    Outcome { text, code }
}

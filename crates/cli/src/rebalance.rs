//! `arpeggio rebalance`: spreads addresses evenly over the nodes, on purpose.
//!
//! The plan is [`arpeggio_election::rebalance`]'s. The command changes no holder: it asks each holder, by a mark on the
//! lock, and waits for what comes of it.

mod report;
mod requests;

use std::{collections::BTreeMap, net::IpAddr, process::ExitCode, time::Duration};

use arpeggio_election::{Version, rebalance::Move};

use self::{
    report::Preview,
    requests::{Missed, Requests},
};
use crate::{
    census::Known,
    confirm::{self, confirm},
    global::Global,
    outcome::{Format, FormatError, Outcome},
};

/// Exit code: some moves were not made.
const NOT_ALL: u8 = 3;

/// Arguments of `arpeggio rebalance`.
#[derive(Debug, clap::Args)]
pub(crate) struct RebalanceArgs {
    /// Only show what would be moved.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before anything is moved.
    #[arg(short, long)]
    yes: bool,
    /// How the plan and what has come of it are written. With json and yaml only that, when all is done.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// How long all moves may take together, in seconds. What was not done by then is not done later either.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..))]
    timeout: u16,
    /// Move addresses also to nodes with the label node.kubernetes.io/exclude-from-external-load-balancers; for speakers
    /// that run with the same flag. Default: what their DaemonSet says, if you may read it.
    #[arg(long)]
    ignore_exclusion_label: bool,
}

/// Plans, shows the plan, asks and carries it out.
pub(crate) async fn run(global: &Global, args: &RebalanceArgs) -> anyhow::Result<Outcome> {
    let (client, namespace) = (global.connect().await?, &global.system_namespace());
    let known = Known::read(&client, namespace, args.ignore_exclusion_label).await?;
    let plan = known.census.plan();
    let preview = Preview::of(&plan, &known.locks);
    if args.dry_run || plan.moves.is_empty() {
        return Ok(args.output.of(&preview, Preview::to_text)?.into());
    }
    confirm::show(&preview.to_text(), args.output, args.yes);
    let count = plan.moves.len();
    if !confirm(&format!("Move {count} addresses?"), args.yes)? {
        return Ok(declined(&preview, args.output)?.into());
    }
    let moves = with_versions(plan.moves, &known.versions());
    let timeout = Duration::from_secs(args.timeout.into());
    let requests = Requests::new(client, namespace, moves, args.output.is_for_people());
    let missed = requests.carry_out(timeout).await?;
    let code = if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NOT_ALL) };
    let done = preview.carried_out(&missed);
    Ok(Outcome { text: args.output.of(&done, |_| summary(count, &missed))?, code })
}

/// Programs get the plan, as with `--dry-run`.
fn declined(preview: &Preview, format: Format) -> Result<String, FormatError> {
    format.of(preview, |_| "nothing was moved\n".to_owned())
}

/// Each move with the version of the lock that it was planned with.
fn with_versions(moves: Vec<Move>, versions: &BTreeMap<IpAddr, Version>) -> Vec<(Move, Version)> {
    let with_version = |wanted: Move| {
        let version = *versions.get(&wanted.address)?;
        Some((wanted, version))
    };
    moves.into_iter().filter_map(with_version).collect()
}

fn summary(count: usize, missed: &[Missed]) -> String {
    let done = count.saturating_sub(missed.len());
    let lines = missed.iter().map(|Missed { wanted: Move { address, from, to }, reason }| {
        format!("{address} was not moved from {from} to {to}: {reason}\n")
    });
    format!("{done} of {count} addresses moved\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use arpeggio_election::rebalance::Leveling;

    use super::*;

    #[test]
    fn whoever_says_no_gets_what_was_asked_for() {
        let preview = Preview::of(&Leveling::default(), &[]);
        assert_eq!(declined(&preview, Format::Table).unwrap(), "nothing was moved\n");
        let json = declined(&preview, Format::Json).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["moves"], serde_json::json!([]));
    }
}

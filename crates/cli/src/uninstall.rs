//! `arpeggio uninstall`: takes back what Arpeggio has written in a cluster, while that can still be told from what others wrote.
//!
//! Deleting what was installed is not enough: Services would keep addresses in their status that nobody answers for. The order is
//! that of an orderly end: nobody decides any more, nobody is told of addresses any more, nobody announces any, and the records go.

mod found;
mod remains;
mod removal;

use std::time::Duration;

use self::{found::Found, remains::Remains, removal::Removal};
use crate::{global::Global, outcome::Outcome};

/// Arguments of `arpeggio uninstall`.
#[derive(Debug, clap::Args)]
pub(crate) struct UninstallArgs {
    /// Only show what would be removed.
    #[arg(long)]
    dry_run: bool,
    /// Delete all pools, too.
    #[arg(long)]
    delete_pools: bool,
    /// How long the pods of the controller, and then those of the speakers, may take to end, in seconds.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..))]
    timeout: u16,
}

/// Looks, removes, and says what is left for kubectl or Helm.
pub(crate) async fn run(global: &Global, args: &UninstallArgs) -> anyhow::Result<Outcome> {
    let (client, namespace) = (global.connect().await?, global.system_namespace());
    let found = Found::read(&client, &namespace).await?;
    found.refuse_if_another_one_decides()?;
    let remains = Remains::of(&found, args.delete_pools);
    if args.dry_run {
        return Ok(format!("{}\n{remains}", found.preview(args.delete_pools)).into());
    }
    let patience = Duration::from_secs(args.timeout.into());
    Removal::new(client, &namespace, patience).remove(&found, args.delete_pools).await?;
    Ok(format!("\n{remains}").into())
}

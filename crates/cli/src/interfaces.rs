//! `arpeggio interfaces`: which of this machine's interfaces announce addresses, and why the others do not.

mod choice;
mod report;
mod rules;

use std::{net::IpAddr, process::ExitCode, sync::Arc};

use arpeggio_election::Pattern;
use arpeggio_link::interfaces::{self, Links, NetlinkError};

use self::{choice::Choice, report::Report, rules::Rules};
use crate::{
    global::Global,
    outcome::{Format, Outcome},
};

/// Arguments of `arpeggio interfaces`.
#[derive(Debug, clap::Args)]
pub(crate) struct InterfacesArgs {
    /// Which interface is this address announced on?
    address: Option<IpAddr>,
    /// Try a rule with this name instead of those on the address's lock; `*` and `?` as in file names. Can be repeated.
    #[arg(short, long = "interface", requires = "address", value_name = "PATTERN")]
    interfaces: Vec<String>,
    /// How the result is written.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Reads the interfaces once and says what the speaker makes of them.
pub(crate) async fn show(args: &InterfacesArgs, global: &Global) -> anyhow::Result<Outcome> {
    let links = read().await?;
    let choice = match args.address {
        Some(address) => {
            let rules = rules(args, address, &links, global).await;
            Some(Choice::of(address, &links, &rules))
        }
        None => None,
    };
    let is_refusal = choice.as_ref().is_some_and(Choice::is_refusal);
    let report = Report::of(&links, choice);
    let code = if is_refusal { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    Ok(Outcome { text: args.output.of(&report, Report::to_text)?, code })
}

async fn rules(args: &InterfacesArgs, address: IpAddr, links: &Links, global: &Global) -> Rules {
    if args.interfaces.is_empty() {
        return rules::read(address, links, global).await;
    }
    Rules::ByHand(args.interfaces.iter().map(|it| Pattern::from(it.as_str())).collect())
}

/// The interfaces of this network namespace now.
pub(crate) async fn read() -> Result<Arc<Links>, NetlinkError> {
    Ok(interfaces::watch().await?.borrow().clone())
}

//! `arpeggio interfaces`: which of this machine's interfaces announce addresses, and why the others do not.

mod report;

use std::{net::IpAddr, process::ExitCode, sync::Arc};

use arpeggio_link::interfaces::{self, Links, NetlinkError};

use self::report::Report;
use crate::outcome::{Format, Outcome};

/// Arguments of `arpeggio interfaces`.
#[derive(Debug, clap::Args)]
pub(crate) struct InterfacesArgs {
    /// Which interface is this address announced on, if its pool names none?
    address: Option<IpAddr>,
    /// How the result is written.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Reads the interfaces once and says what the speaker makes of them.
pub(crate) async fn show(args: &InterfacesArgs) -> anyhow::Result<Outcome> {
    let links = read().await?;
    let report = Report::of(&links, args.address);
    let code = if report.is_refusal() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    Ok(Outcome { text: args.output.of(&report, Report::to_text)?, code })
}

/// The interfaces of this network namespace now.
pub(crate) async fn read() -> Result<Arc<Links>, NetlinkError> {
    Ok(interfaces::watch().await?.borrow().clone())
}

//! `arpeggio who-has`: who on the segment says that an address is his, and whose machine that is.

mod ask;
mod known;
mod report;

use std::{net::IpAddr, process::ExitCode, time::Duration};

use anyhow::Context as _;
use arpeggio_link::{
    interfaces::{Interface, Links, Unfit},
    packet::SocketError,
};
use tokio::task::spawn_blocking;

use self::{
    ask::Plan,
    known::Cluster,
    report::{Heard, Report},
};
use crate::{
    cluster,
    global::Global,
    interfaces,
    outcome::{Format, Outcome},
    status,
};

/// Exit code: several machines answer.
const SEVERAL: u8 = 3;

/// Arguments of `arpeggio who-has`.
#[derive(Debug, clap::Args)]
pub(crate) struct WhoHasArgs {
    /// The address to ask for.
    address: IpAddr,
    /// Where to ask. Default: the interface on which this machine would announce the address.
    #[arg(short, long, value_name = "NAME")]
    interface: Option<String>,
    /// How long answers are awaited, in seconds; four questions are asked in each.
    #[arg(long, default_value_t = 1, value_name = "SECONDS", value_parser = clap::value_parser!(u8).range(1..=60))]
    timeout: u8,
    /// How the result is written.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Asks the segment and, at the same time, the cluster.
pub(crate) async fn show(args: &WhoHasArgs, global: &Global) -> anyhow::Result<Outcome> {
    let links = interfaces::read().await?;
    let interface = interface(args, &links)?;
    let plan = plan(args, interface, &links)?;
    let address = args.address;
    let system = global.system_namespace();
    let known =
        cluster::ask(global, async |client| Ok(Cluster::new(status::read(client, &system).await?)));
    let (cluster, answers) = tokio::join!(known, spawn_blocking(move || ask::ask(address, plan)));
    let answers = answers?.map_err(|error| explained(error, &system))?;
    let heard = Heard {
        address,
        interface: interface.name.clone(),
        own_mac: plan.mac,
        is_own: has(&links, address),
        answers,
    };
    let report = Report::of(&heard, &cluster);
    let code = match report.machines() {
        0 => ExitCode::FAILURE,
        1 => ExitCode::SUCCESS,
        _ => ExitCode::from(SEVERAL),
    };
    Ok(Outcome { text: args.output.of(&report, Report::to_text)?, code })
}

/// The interface to ask on.
fn interface<'a>(args: &WhoHasArgs, links: &'a Links) -> anyhow::Result<&'a Interface> {
    let Some(name) = &args.interface else {
        anyhow::ensure!(
            !is_link_local(args.address),
            "{} is a link-local address, and each segment has its own of them: say which one with --interface",
            args.address
        );
        return Ok(links.announcing(args.address)?);
    };
    let named = links.interfaces.iter().find(|it| it.name == *name);
    let named = named
        .with_context(|| format!("there is no interface {name}: see 'arpeggio interfaces'"))?;
    match named.flaw() {
        None => Ok(named),
        Some(flaw) => Err(Unfit::Interface { interface: name.clone(), flaw }.into()),
    }
}

fn plan(args: &WhoHasArgs, interface: &Interface, links: &Links) -> anyhow::Result<Plan> {
    let mac = interface.mac().context("an interface without a MAC address has no neighbours")?;
    // Somebody who asks for his own address announces it. A probe does not.
    let source = interface.source_for(args.address).filter(|_| !has(links, args.address));
    let timeout = Duration::from_secs(args.timeout.into());
    Ok(Plan { interface: interface.index, mac, source, timeout })
}

/// Whether this machine's kernel answers for an address.
fn has(links: &Links, address: IpAddr) -> bool {
    let answering = links.interfaces.iter().filter(|it| it.flaw().is_none());
    answering.flat_map(Interface::usable_addresses).any(|own| own.net.addr() == address)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// What to do about a refused socket, from where people run this.
fn explained(error: SocketError, namespace: &str) -> anyhow::Error {
    let is_refusal = matches!(error, SocketError::NotPermitted);
    let error = anyhow::Error::from(error);
    if is_refusal {
        error.context(format!(
            "run this as root on a node, or in the speaker's pod (kubectl exec -n {namespace} POD -- /arpeggio who-has)"
        ))
    } else {
        error.context("the segment cannot be asked")
    }
}

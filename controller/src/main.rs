//! Gives Services of type `LoadBalancer` their addresses.
//!
//! Watches ([`feed`]) keep an [`index`] of Services, `AddressPool`s and locks; the index decides and returns tasks; an
//! [`executor`] performs them and reports back. One loop ([`mod@run`]) joins them, so that there is one place where
//! decisions are made, and no lock.
//!
//! # Why no address is given twice
//!
//! Several controllers may run at once, each with a view that is behind by any amount. Still, no two Services are told
//! the same address, because of three rules that the API server enforces one object at a time:
//!
//! 1. An address is written in the status of a Service only after its lock Lease was seen to name that Service. The
//!    lock has the address in its name, so there is one at most, and the API server creates it for one claimant only.
//! 2. A status is written only if the Service is unchanged since it was read (`resourceVersion`). Of two controllers
//!    that locked different addresses for one Service, one gets to write; the other finds its lock superfluous.
//! 3. A lock is deleted only after a Service was read, from the API server itself, that has not got the address: gone,
//!    not a load balancer of ours, or in possession of another address. By the second rule no status that was decided
//!    on an older version can bring the address back afterwards.
//!
//! One of them leads and the others only watch ([`mod@leadership`]), to save work. Nothing above depends on that: a leader that
//! was paused, and finds out late that another one leads, does no harm.
//!
//! A request without an answer is none of these rules' business: the lock that it may have created shows in the watch
//! and belongs to its Service.

#![forbid(unsafe_code)]

mod args;
mod effect;
mod executor;
mod feed;
mod index;
mod leadership;
mod metrics;
mod run;

use std::{process::ExitCode, time::SystemTime};

use arpeggio_runtime::{
    admin::Admin,
    client::{self, Patience},
    events::EventWriter,
    health::Health,
    shutdown::Shutdown,
    telemetry,
};
use clap::Parser as _;

use crate::{
    args::Args, executor::Executor, leadership::Leadership, metrics::Metrics, run::Controller,
};

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[allow(clippy::print_stderr)] // Logging may not have started.
            {
                eprintln!("arpeggio-controller: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(args: &Args) -> anyhow::Result<()> {
    telemetry::init(&args.log)?;
    let registry = telemetry::registry(env!("CARGO_PKG_VERSION"))?;
    let metrics = Metrics::registered(&registry)?;
    let health = Health::default();
    let shutdown = Shutdown::on_signal()?;

    // Tasks are tried again by the index, which may decide otherwise by then.
    let client = client::connect(Patience { retry: false, ..Patience::default() }).await?;
    let leadership = leadership(args, &client, &metrics, &shutdown);
    let events = EventWriter::new(client.clone(), "arpeggio-controller", args.name.as_str());
    let (namespace, class) = (args.namespace.as_str(), args.class());
    let executor =
        Executor::new(client.clone(), namespace.to_owned(), class.clone(), events, metrics.clone());
    let controller =
        Controller::new(&client, namespace, class, leadership, executor, &health, metrics);
    Admin { health, registry }.serve(&args.admin)?;
    tracing::info!(namespace, version = env!("CARGO_PKG_VERSION"), "controller started");
    controller.run(&shutdown).await;
    Ok(())
}

fn leadership(
    args: &Args,
    client: &kube::Client,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Leadership {
    if !args.leader_election {
        return Leadership::unopposed(&metrics.leader);
    }
    let name = args.candidate(SystemTime::now());
    let (client, shown) = (client.clone(), metrics.leader.clone());
    Leadership::contested(client, &args.namespace, &name, shown, shutdown.clone())
}

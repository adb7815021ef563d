//! Gives Services of type `LoadBalancer` their addresses.
//!
//! Watches ([`feed`]) keep an [`Index`] of Services, pools of every format ([`sources`]) and locks; the index decides and
//! returns tasks; an [`executor`] performs them and reports back. One loop ([`mod@run`]) joins them, so that there is
//! one place where decisions are made, and no lock.
//!
//! # Why no address is given twice
//!
//! Several controllers may run at once, each with a view that is behind by any amount. Still, no two Services are told
//! the same address, unless they share it, because of rules that the API server enforces one object at a time:
//!
//! 1. The lock of an address has the address in its name, so there is one at most. It lists the Services that are
//!    reached there. Who is first creates it; who shares joins by a patch, who leaves goes by a patch or, as the last
//!    one, by deleting it. Patches and deletes are for one version of the lock (`resourceVersion`) and for no other, so
//!    whoever joins has seen everybody who is there, and nobody joins what is being deleted.
//! 2. An address is *new* in a status only if the lock names the Service, and was written for it when the Service had
//!    the very version (`arpeggio.dev/claimed-for`) for which the status is written. If the Service has changed since,
//!    the status is not written.
//! 3. A Service is taken off a lock only after it was read, from the API server itself and after the lock, in a state
//!    that has not got the address and is not going to: it is gone, or not a load balancer of ours, or its annotation
//!    `arpeggio.dev/releasing` renounces the address. No controller that sees it in that state writes the address
//!    in its status.
//!
//! Say a controller takes Service S, read at version r, off a lock, and another one makes the address new in its
//! status at version w. If w is earlier than r, the write came before the read, which then saw the address, or it is
//! refused (rule 2). If they are the same version, one of the two does not do it (rule 3). If w is later, the lock was
//! written for S after the read, hence after the version that the removal is for: the removal is refused, or it came
//! first and that write was (rule 1).
//!
//! A Service that is deleted and created again has another uid and the same name. No two Services have one name at a
//! time, so whoever has seen the later one knows that the earlier one is gone: the lock is written for the later one, by a
//! patch that puts it in the earlier one's place. Rule 2 asks for the uid, so that nothing that was decided for the earlier
//! one is written for the later one; rule 3 reads whichever of them exists.
//!
//! Whether two Services may share is judged when one of them joins, by what was known of both then. When a sharer
//! changes its key or ports afterwards so that they clash, it is the one that has to leave: it gets another address.
//! A controller that starts cannot tell who has changed: on which terms each of them joined is not written. It lets the
//! later one on the lock leave. That is the one who joined what the other had already; any two controllers decide it
//! alike; and it matters only for sharers that were made to clash while no controller ran. To write the terms down would
//! cost a write of the lock for each change of a sharer's ports, with every controller's own view of them in it.
//!
//! One of them leads and the others only watch ([`mod@leadership`]), to save work. Nothing above depends on that: a leader
//! that was paused, and finds out late that another one leads, does no harm.
//!
//! All of this needs the locks to be in one namespace: of two installations in one cluster, one decides
//! ([`mod@installations`]).
//!
//! A request that times out needs no special rule: if it did create or change the lock, the watch reports it like any
//! other.

#![forbid(unsafe_code)]

mod args;
mod executor;
mod feed;
mod installations;
mod leadership;
mod metrics;
mod run;
mod sources;
mod turns;

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use arpeggio_allocation::Index;
use arpeggio_runtime::{
    admin::Admin,
    arguments,
    client::{self, Patience},
    ending,
    events::{EventQueue, EventWriter},
    health::Health,
    reach,
    shutdown::Shutdown,
    telemetry,
    version::{REVISION, VERSION},
    wall_clock,
};

use crate::{
    args::{Args, Command},
    executor::Executor,
    leadership::Leadership,
    metrics::Metrics,
    run::Controller,
};

fn main() -> ExitCode {
    let args: Args = arguments::parse();
    let result = match &args.command {
        Some(Command::Reach { to }) => reach(to),
        None => run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ending::failed("arpeggio-controller", format_args!("{error:#}")),
    }
}

/// Address and error of each, as JSON.
fn reach(to: &[SocketAddr]) -> anyhow::Result<()> {
    let attempts = reach::connect(to).into_iter().map(|it| (it.to, it.error));
    let attempts: Vec<(SocketAddr, Option<String>)> = attempts.collect();
    serde_json::to_writer(io::stdout(), &attempts)?;
    writeln!(io::stdout())?;
    Ok(())
}

/// How long a controller that has stopped deciding goes on writing events.
const LAST_EVENTS: Duration = Duration::from_secs(3);

#[tokio::main]
async fn run(args: &Args) -> anyhow::Result<()> {
    let logging = telemetry::init(&args.log)?;
    let registry = telemetry::registry()?;
    logging.count_lost(&registry)?;
    let metrics = Metrics::registered(&registry)?;
    let health = Health::default();
    let shutdown = Shutdown::on_signal()?;

    // Tasks are tried again by the index, which may decide otherwise by then.
    let client = client::connect(Patience { retry: false, ..Patience::default() }).await?;
    let leadership = leadership(args, &client, &health, &shutdown);
    let events = EventWriter::new(client.clone(), "arpeggio-controller", args.name.as_str());
    let (events, writing) = EventQueue::spawn(events, metrics.events_lost.clone());
    let (namespace, class) = (args.namespace.as_str(), args.class());
    let executor =
        Executor::new(client.clone(), namespace.to_owned(), class.clone(), events, metrics.clone());
    let mut index = Index::new(class, args.periods());
    let places = args.places();
    if let Some(place) = &places.metallb {
        index.reads_metallb_in(&place.namespace);
    }
    let controller =
        Controller::new(&client, &places, index, leadership, executor, &health, metrics);
    Admin::new(health, registry).serve(&args.admin)?;
    tracing::info!(namespace, version = VERSION, revision = REVISION, "controller started");
    Box::pin(controller.run(&shutdown)).await;
    // What was done is told by who did it: its successor finds it done.
    let _ = tokio::time::timeout(LAST_EVENTS, writing).await;
    Ok(())
}

fn leadership(
    args: &Args,
    client: &kube::Client,
    health: &Health,
    shutdown: &Shutdown,
) -> Leadership {
    let name = args.candidate(wall_clock::now());
    let known = health.awaits("the leader Lease");
    let process = (name.as_str(), !args.leader_election);
    Leadership::new(client.clone(), &args.namespace, process, known, shutdown.clone())
}

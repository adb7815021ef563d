//! Gives packets of connections to the node that knows them, beside the speaker of each node.
//!
//! One loop ([`mod@run`]) watches Leases, Services and what says where these can be served ([`sources`], [`feed`]), has [`arpeggio_forwarding`] decide which packets go to which node, and
//! brings the kernel to that ([`arpeggio_forwarder::rules`]). Beside it the connections are counted that are left of addresses
//! that have moved away ([`counts`]), and a task says so on a Lease of the node's own ([`publisher`]). The rules go with the process, however it ends.

#![forbid(unsafe_code)]

mod args;
mod counts;
mod feed;
mod metrics;
mod publisher;
mod run;
mod silent_nodes;
mod sources;
mod teller;
mod ways;

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use arpeggio_election::Node;
use arpeggio_runtime::{
    admin::{Admin, HealthArgs},
    arguments,
    client::{self, Patience},
    ending, files,
    health::Health,
    shutdown::Shutdown,
    telemetry,
    version::{REVISION, VERSION},
    watch::UndecodableObjects,
};

use crate::{
    args::{Args, Command, RunArgs},
    feed::Feed,
    metrics::Metrics,
    publisher::Publisher,
    run::Forwarder,
    silent_nodes::SilentNodes,
    sources::Sources,
};

/// A dead connection to the API server is noticed within this time: sessions are renewed more often.
const SILENCE: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let args: Args = arguments::parse();
    let result = match &args.command {
        Some(Command::Health(args)) => health(args),
        None => match &args.run.node_name {
            Some(name) => run(&args.run, name),
            None => arguments::refuse::<Args>(&arguments::NO_NODE),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ending::failed("arpeggio-forwarder", format_args!("{error:#}")),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn health(args: &HealthArgs) -> anyhow::Result<()> {
    Ok(args.ask().await?)
}

#[tokio::main]
async fn run(args: &RunArgs, name: &str) -> anyhow::Result<()> {
    let logging = telemetry::init(&args.log)?;
    files::raise_limit();
    let registry = telemetry::registry()?;
    logging.count_lost(&registry)?;
    let node = Node::from(name);
    let metrics = Metrics::registered(&registry, &node)?;
    let objects = UndecodableObjects::registered(&registry)?;
    let health = Health::default();
    let shutdown = Shutdown::on_signal()?;
    Admin::new(health.clone(), registry).serve(&args.admin)?;

    let patience = Patience { connect: Duration::from_secs(2), read: Some(SILENCE), retry: false };
    let client = client::connect(patience).await?;
    let me = (node, args.instance());
    let publisher = Publisher::new(client.clone(), &args.namespace, me.clone());
    let sources = Sources::new(client, &args.namespace, &health, objects);
    let feed = Feed::new(!args.ignore_exclusion_label);
    let keep = args.keep_connections;
    let silent = SilentNodes::beside(args.admin.admin_socket.as_deref());
    let forwarder = Forwarder::new((sources, silent, feed), me, keep, &health, metrics);
    tracing::info!(
        node = name,
        namespace = args.namespace,
        keep_connections = ?args.keep_connections,
        version = VERSION,
        revision = REVISION,
        "forwarder started"
    );
    let (news, publishing) = publisher.spawn();
    Box::pin(forwarder.run(&shutdown, &news)).await;
    drop(news);
    publishing.await.context("what this node says was not published to the end")
}

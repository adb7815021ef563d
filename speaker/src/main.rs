//! Announces addresses on the local segment.
//!
//! One thread decides ([`engine`]); it owns the [`arpeggio_election::Elector`] and everything that follows from its
//! decisions; the [`announcer`] puts them on the wire. Around it: tasks that watch and write Leases ([`leases`],
//! [`writer`]), tasks that watch what speaks for and against nodes ([`nodes`], [`endpoints`]), a thread per interface and
//! protocol that answers ARP or NDP ([`sockets`], [`listener`]), and a task that writes events ([`news`]). The answering threads share
//! nothing with slow work: they read one table that the engine replaces, and one deadline that it moves.

#![forbid(unsafe_code)]

mod announcer;
mod args;
mod backends;
mod clock;
mod conflicts;
mod doubles;
mod endpoints;
mod engine;
mod failovers;
mod frames;
mod gateways;
mod gratuitous;
mod hearing;
mod identity;
mod input;
#[cfg(test)]
mod kernel;
mod leases;
mod listener;
mod metrics;
mod neighbours;
mod news;
mod nodes;
mod notices;
mod orders;
mod pace;
mod paths;
mod protocol;
mod rehearsals;
mod renewals;
mod segment;
mod segments;
#[cfg(test)]
mod simulation;
mod sockets;
mod unclear;
mod voice;
mod watches;
mod wire;
mod writer;

use std::{io::Write as _, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use arpeggio_election::{Node, Settings};
use arpeggio_link::interfaces::{self, Links};
use arpeggio_runtime::{
    admin::{Admin, HealthArgs, SocketArgs},
    arguments,
    client::{self, Patience},
    ending,
    events::{EventQueue, EventWriter},
    files,
    health::Health,
    shutdown::Shutdown,
    silent_nodes,
    standstill::Watchdog,
    telemetry,
    version::{REVISION, VERSION},
    watch::UndecodableObjects,
};
use crossbeam_channel::Sender;
use kube::Client;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};

use crate::{
    args::{Args, Command, RunArgs},
    engine::Engine,
    frames::Frames,
    identity::Identity,
    input::Input,
    metrics::Metrics,
    news::News,
    sockets::Sockets,
    watches::Rewinds,
    writer::Writer,
};

/// A dead connection to the API server is noticed within this time, unless sessions are renewed so seldom that nothing may
/// come for as long: see [`silence`].
const SILENCE: Duration = Duration::from_secs(8);

/// The same for the watches of Nodes and `EndpointSlice`s, on which nothing may come for a long time. Each watch has a
/// connection of its own, and one that is taken for dead costs the API server a new one.
const QUIET_SILENCE: Duration = Duration::from_secs(90);

/// This program, where it is named to people.
const PROGRAM: &str = "arpeggio-speaker";

/// The engine decides ten times a second; one that has not for this long is stuck. It is noticed earlier by a [`Watchdog`],
/// but where the kernel keeps it waiting.
const STUCK: Duration = Duration::from_secs(10);

/// Where the socket has the last frames.
const FRAMES: &str = "/frames";

/// The pause after the kernel has refused to list the interfaces.
const RETRY: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args: Args = arguments::parse();
    let result = match &args.command {
        Some(Command::Health(args)) => health(args),
        Some(Command::Frames(args)) => frames(args),
        None => match args.run.checked() {
            Ok((name, settings)) => run(&args.run, name, settings),
            Err(wrong) => arguments::refuse::<Args>(&wrong),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ending::failed(PROGRAM, format_args!("{error:#}")),
    }
}

/// After how long without a word a connection counts as dead. Something is always expected on the watch of Leases: the
/// renewals of this node, or of many others.
fn silence(renewal: Duration) -> Duration {
    SILENCE.max(renewal * 2)
}

#[tokio::main(flavor = "current_thread")]
async fn health(args: &HealthArgs) -> anyhow::Result<()> {
    Ok(args.ask().await?)
}

#[tokio::main(flavor = "current_thread")]
async fn frames(args: &SocketArgs) -> anyhow::Result<()> {
    let page = args.read(FRAMES).await?;
    Ok(std::io::stdout().write_all(page.as_bytes())?)
}

#[tokio::main]
async fn run(args: &RunArgs, name: &str, settings: Settings) -> anyhow::Result<()> {
    let logging = telemetry::init(&args.log)?;
    files::raise_limit();
    let registry = telemetry::registry()?;
    logging.count_lost(&registry)?;
    let metrics = Arc::new(Metrics::registered(&registry)?);
    let objects = UndecodableObjects::registered(&registry)?;
    let health = Health::default();
    let shutdown = Shutdown::on_signal()?;
    let frames = Frames::default();
    let kept = frames.clone();
    Admin::new(health.clone(), registry)
        .with_local(FRAMES, move || kept.page())
        .serve(&args.admin)?;

    let me = Identity { node: Node::from(name), instance: args.instance() };
    let read = Some(silence(settings.renewal));
    let patience = Patience { connect: Duration::from_secs(2), read, retry: false };
    let client = client::connect(patience).await?;
    let links = interfaces::watch().await?;
    let (inputs, received) = crossbeam_channel::unbounded();

    let events = EventWriter::new(client.clone(), "speaker", name);
    let (queue, _) = EventQueue::spawn(events, metrics.events_lost.clone());
    let news = News(queue);
    let writer =
        Writer::new(client.clone(), &args.namespace, me.clone(), inputs.clone(), metrics.clone());
    let quiet = client::connect(Patience { read: Some(QUIET_SILENCE), ..patience }).await?;
    let mut tasks = JoinSet::new();
    let watches = Watches {
        client,
        quiet,
        health: &health,
        rewinds: writer.rewinds(),
        to: (objects, inputs.clone()),
    };
    let slices_wanted = watches.start(&mut tasks, args);
    tasks.spawn(follow_links(links.clone(), inputs.clone()));
    let silent = watch::Sender::default();
    if let Some(socket) = &args.admin.admin_socket {
        let to = silent_nodes::beside(socket);
        tokio::spawn(silent_nodes::tell(to, silent.subscribe()));
    }

    let watchdog = Watchdog::start(PROGRAM).context("cannot start the watchdog's thread")?;
    let engine = Engine::new(
        me,
        settings,
        links.borrow().clone(),
        engine::Outlets {
            clock: clock::of_this_machine,
            wire: Arc::new(Sockets {
                promiscuous: args.promiscuous_interfaces.clone().into(),
                watchdog: watchdog.clone(),
            }),
            news,
            metrics,
            frames,
            fixed_profile: args.fixed_profile(),
            established: health.awaits("session"),
            silent,
            slices_wanted,
        },
    );
    let beat = health.watches("engine", STUCK);
    let (running, ended) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            let rounds = watchdog.watch("engine");
            let next_round = || {
                beat.beat();
                rounds.next();
            };
            engine.run(&received, next_round, |order| writer.submit(order));
            drop(running);
        })
        .context("cannot start the engine's thread")?;
    tracing::info!(
        node = name,
        namespace = args.namespace,
        version = VERSION,
        revision = REVISION,
        "speaker started"
    );

    // Whatever has ended unasked is missing from here on: this process ends too, and is started anew.
    if let Some(part) = first_to_end(shutdown.asked(), ended, &mut tasks).await {
        ending::soon();
        bail!("{part} has ended unasked");
    }
    let _ = inputs.send(Input::Stop); // Fails only when the engine has ended, which is what we want.
    thread.join().map_err(|_| anyhow::anyhow!("the engine panicked"))
}

/// Waits until this process is asked to stop, or a part of it has ended unasked: then which. The others go on: nothing may hold up
/// the end of all.
async fn first_to_end(
    asked: impl Future<Output = ()>,
    engine: oneshot::Receiver<()>,
    tasks: &mut JoinSet<()>,
) -> Option<&'static str> {
    tokio::select! {
        () = asked => None,
        _ = engine => Some("the engine"),
        _ = tasks.join_next() => Some("a watch"),
    }
}

/// What the tasks need that watch the API server's objects.
struct Watches<'a> {
    client: Client,
    /// The client for what seldom changes.
    quiet: Client,
    health: &'a Health,
    rewinds: Rewinds,
    /// Where the number of objects goes that are not understood, and what is said by the others.
    to: (UndecodableObjects, Sender<Input>),
}

impl Watches<'_> {
    /// Starts the tasks. The returned end says when `EndpointSlice`s are wanted.
    fn start(self, tasks: &mut JoinSet<()>, args: &RunArgs) -> oneshot::Sender<()> {
        let Self { client, quiet, health, rewinds, to } = self;
        let (slices_wanted, wanted) = oneshot::channel();
        let (namespace, listed) = (args.namespace.clone(), health.awaits("Leases"));
        tasks.spawn(leases::watch(client, namespace, listed, rewinds.clone(), to.clone()));
        let (obey_exclusion, listed) = (!args.ignore_exclusion_label, health.awaits("Nodes"));
        let nodes =
            nodes::watch(quiet.clone(), obey_exclusion, listed, rewinds.clone(), to.clone());
        tasks.spawn(nodes);
        tasks.spawn(endpoints::watch(quiet, health.clone(), wanted, rewinds, to));
        slices_wanted
    }
}

/// Tells the engine of every change of the interfaces, until it ends.
async fn follow_links(mut links: watch::Receiver<Arc<Links>>, inputs: Sender<Input>) {
    loop {
        while links.changed().await.is_ok() {
            let now = links.borrow_and_update().clone();
            if inputs.send(Input::Links(now)).is_err() {
                return;
            }
        }
        tracing::error!("the kernel has closed the netlink connection, opening another one");
        links = watch_links_again().await;
        links.mark_changed();
    }
}

async fn watch_links_again() -> watch::Receiver<Arc<Links>> {
    let mut is_told = false;
    loop {
        match interfaces::watch().await {
            Ok(links) => return links,
            Err(error) if !std::mem::replace(&mut is_told, true) => {
                tracing::error!(error = %telemetry::causes(&error), "interfaces not read, trying again until they are");
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[test]
    fn a_connection_is_not_dead_between_two_renewals() {
        let table = [(1, 8), (3, 8), (9, 18), (30, 60)];
        for (renewal, expected) in
            table.map(|(a, b)| (Duration::from_secs(a), Duration::from_secs(b)))
        {
            assert_eq!(silence(renewal), expected);
        }
    }

    #[tokio::test]
    async fn whichever_part_ends_unasked_ends_all() {
        let mut tasks = JoinSet::new();
        let (_running, ended) = oneshot::channel::<()>();
        tasks.spawn(pending());
        assert_eq!(first_to_end(ready(()), ended, &mut tasks).await, None);

        let (_running, ended) = oneshot::channel::<()>();
        tasks.spawn(ready(()));
        assert_eq!(first_to_end(pending(), ended, &mut tasks).await, Some("a watch"));

        let (_running, ended) = oneshot::channel::<()>();
        tasks.spawn(pending()).abort();
        assert_eq!(first_to_end(pending(), ended, &mut tasks).await, Some("a watch"));

        let (running, ended) = oneshot::channel::<()>();
        drop(running);
        assert_eq!(first_to_end(pending(), ended, &mut tasks).await, Some("the engine"));
    }

    #[tokio::test]
    async fn interfaces_are_seen_again_after_their_connection_was_closed() {
        let (_, closed) = watch::channel(Arc::new(Links::default()));
        let (inputs, received) = crossbeam_channel::unbounded();
        let following = tokio::spawn(follow_links(closed, inputs));
        let seen = tokio::task::spawn_blocking(move || received.recv_timeout(STUCK));
        let Ok(Input::Links(links)) = seen.await.unwrap() else { panic!("nothing seen") };
        assert!(links.interfaces.iter().any(|it| it.name == "lo"), "{links:?}");
        following.abort();
    }
}

//! Tests between two kernels: a speaker without an election, and a client that sends it frames.

mod flood;
mod frames;
mod life;
mod limits;
mod link_local;
#[path = "../../crates/link/tests/namespace/mod.rs"]
mod namespace;
mod refusals;
mod table;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use arpeggio_election::{Families, Pattern};
use arpeggio_link::{
    filter::{ArpFilter, FrameFilter, NdpFilter},
    packet::FrameSocket,
};
use arpeggio_runtime::standstill::Watchdog;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use prometheus::{Registry, proto::MetricFamily};

use crate::{
    announcer::{Announcer, Demand},
    clock::of_this_machine,
    frames::Frames,
    listener::{Freshness, Losses, Sighting},
    metrics::Metrics,
    neighbours::Neighbours,
    segment::Wiring,
    sockets::Sockets,
};
use namespace::{Namespace, Pair};

/// Announced on `eth0` of the one side; asked for by the other.
const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const OURS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
/// The client's own.
const THERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const THERE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// A turn of the speaker takes no longer while it waits.
const TURN: Duration = Duration::from_millis(5);

/// So long a decision counts without a new one: a machine that is busy with other tests may keep a thread from its core for seconds.
const LASTS: Duration = Duration::from_mins(1);

/// So much waits to be looked at.
const QUEUE: usize = 1024;

/// What the speaker is to do.
#[derive(Debug, Clone, Default)]
struct Task {
    announced: BTreeSet<IpAddr>,
    asked: BTreeSet<IpAddr>,
    awaited: BTreeSet<IpAddr>,
    patterns: Vec<Pattern>,
    /// To be told of anew, once.
    gained: Vec<IpAddr>,
    /// As after a pause of the process: what was decided is too old.
    stale: bool,
}

/// A speaker without an election: it announces and asks for what it is told to.
struct Speaker {
    tasks: Option<Sender<Task>>,
    thread: Option<JoinHandle<()>>,
    sightings: Receiver<Sighting>,
    answers: Receiver<Sighting>,
    losses: Losses,
    frames: Frames,
    registry: Registry,
}

/// To this machine's kernel, and what comes by it: sightings and answers.
fn wiring(registry: &Registry) -> (Wiring, [Receiver<Sighting>; 2]) {
    let (sightings, told) = bounded(QUEUE);
    let (answers, answered) = bounded(QUEUE);
    let wiring = Wiring {
        sightings,
        answers,
        losses: Losses::default(),
        freshness: Freshness::by(of_this_machine),
        metrics: Arc::new(Metrics::registered(registry).unwrap()),
        wire: Arc::new(Sockets { promiscuous: [].into(), watchdog: Watchdog::default() }),
        frames: Frames::default(),
    };
    (wiring, [told, answered])
}

fn can_announce(announcer: &Announcer) -> bool {
    cut_off(announcer) == Some(Families::NONE)
}

/// For which families the node cannot announce on its interface.
fn cut_off(announcer: &Announcer) -> Option<Families> {
    let interfaces = &announcer.reach().interfaces;
    interfaces.iter().find(|it| it.name == "eth0").map(|it| it.cut_off)
}

impl Speaker {
    fn start(namespace: &Namespace) -> Self {
        let registry = Registry::new();
        let (tasks, received) = unbounded();
        let (wiring, [sightings, answers]) = wiring(&registry);
        let (losses, frames) = (wiring.losses.clone(), wiring.frames.clone());
        let thread = namespace.run(|| thread::spawn(move || work(&received, wiring)));
        Self {
            tasks: Some(tasks),
            thread: Some(thread),
            sightings,
            answers,
            losses,
            frames,
            registry,
        }
    }

    fn set(&self, task: &Task) {
        self.tasks.as_ref().unwrap().send(task.clone()).unwrap();
    }

    fn announce(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        let announced = addresses.into_iter().collect();
        self.set(&Task { announced, ..Task::default() });
    }

    /// The values of a counter by one of its labels.
    fn counts(&self, name: &str, label: &str) -> BTreeMap<String, u64> {
        let families = self.registry.gather();
        let family = families.iter().find(|it| it.name() == format!("arpeggio_speaker_{name}"));
        let metrics = family.into_iter().flat_map(MetricFamily::get_metric);
        let counted = metrics.filter_map(|metric| {
            let label = metric.get_label().iter().find(|it| it.name() == label)?;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            Some((label.value().to_owned(), metric.get_counter().get_value() as u64))
        });
        counted.collect()
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(tasks: &Receiver<Task>, wiring: Wiring) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut links = runtime.block_on(arpeggio_link::interfaces::watch()).unwrap();
    let freshness = wiring.freshness.clone();
    let mut announcer = Announcer::new(links.borrow_and_update().clone(), wiring);
    let mut task = Task::default();
    loop {
        match tasks.recv_timeout(TURN) {
            Ok(next) => task = next,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if links.has_changed().unwrap() {
            announcer.follow(links.borrow_and_update().clone());
        }
        let now = of_this_machine();
        if task.stale {
            freshness.end();
        } else {
            freshness.extend(now + LASTS);
        }
        let demand = Demand {
            announced: Cow::Borrowed(&task.announced),
            asked: task.asked.clone(),
            awaited: task.awaited.clone(),
        };
        announcer.name(task.patterns.clone());
        announcer.attend_to(
            demand,
            |address, reach| reach.announcing(address, &task.patterns),
            &Neighbours::default(),
            now,
        );
        announcer.begin_anew(&std::mem::take(&mut task.gained), now);
        announcer.tell(now);
    }
}

/// Both sides, with an IPv6 subnet too.
fn pair() -> Option<Pair> {
    let pair = Pair::new()?;
    pair.here.ip("address add 2001:db8::1/64 dev eth0 nodad");
    pair.there.ip(&format!("address add {THERE_V6}/64 dev eth0 nodad"));
    Some(pair)
}

/// A client that hears whatever concerns these addresses.
fn arp_client(pair: &Pair, ours: impl IntoIterator<Item = Ipv4Addr>) -> FrameSocket<ArpFilter> {
    client(pair, &ArpFilter { ours: ours.into_iter().collect(), peers: BTreeSet::new() })
}

fn ndp_client(pair: &Pair, ours: impl IntoIterator<Item = Ipv6Addr>) -> FrameSocket<NdpFilter> {
    client(pair, &NdpFilter { ours: ours.into_iter().collect(), peers: BTreeSet::new() })
}

fn client<F: FrameFilter + Send + Sync>(pair: &Pair, filter: &F) -> FrameSocket<F> {
    let index = pair.there.link().0;
    pair.there.run(|| FrameSocket::open(index, filter).map_err(|it| it.to_string())).unwrap()
}

/// The next frame that a client hears, if there is one before `end`.
fn next<F: FrameFilter>(client: &FrameSocket<F>, end: Instant) -> Option<Vec<u8>> {
    let mut buffer = [0; 1600];
    while Instant::now() < end {
        if let Ok(Some(length)) = client.recv(&mut buffer) {
            return Some(buffer[..length].to_vec());
        }
    }
    None
}

//! Events of one namespace are written one after the other, those of several namespaces at once: an admission webhook that holds up
//! what is written in one of them keeps nobody else's events waiting, and is remembered for a while.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use k8s_openapi::api::core::v1::ObjectReference;
use prometheus::IntCounter;
use tokio::{sync::mpsc, task::JoinSet};

use super::{EventWriter, News, namespace_of, persist};
use crate::{
    telemetry::causes,
    turns::{Limits, Turns},
};

/// How many events are written at once.
const AT_ONCE: Limits = Limits { of_all: 8, of_a_namespace: 1, of_slow: 4 };

/// More events of one namespace do not wait: they are lost, and counted.
pub(super) const OF_A_NAMESPACE: usize = 512;

pub(super) type Waiting = (ObjectReference, News);

/// Writes events until nobody is left who could publish any.
pub(super) async fn write(
    writer: EventWriter,
    mut events: mpsc::Receiver<Waiting>,
    lost: IntCounter,
) {
    let (mut lanes, mut writing, mut is_open) = (Lanes::default(), JoinSet::new(), true);
    let turns = Turns::new(AT_ONCE);
    loop {
        while let Some((namespace, event)) = lanes.next() {
            writing.spawn(written(writer.clone(), turns.clone(), lost.clone(), namespace, event));
        }
        tokio::select! {
            event = events.recv(), if is_open => match event {
                Some(event) => {
                    if !lanes.add(event) {
                        lost.inc();
                    }
                }
                None => is_open = false,
            },
            Some(done) = writing.join_next() => {
                // Nothing panics there, and nobody cancels it.
                if let Ok(namespace) = done {
                    lanes.done(&namespace);
                }
            }
            else => return,
        }
    }
}

/// Writes an event when it is its turn, and says in which namespace another one may be written now.
async fn written(
    writer: EventWriter,
    turns: Turns,
    lost: IntCounter,
    namespace: String,
    (object, news): Waiting,
) -> String {
    if let Err(error) = persist(&writer, &turns, &object, &news).await {
        lost.inc();
        tracing::warn!(namespace, name = object.name, error = %causes(&error), "event not written");
    }
    namespace
}

/// The events that wait, by namespace.
#[derive(Debug, Default)]
struct Lanes {
    waiting: BTreeMap<String, VecDeque<Waiting>>,
    /// The namespaces in which something waits and nothing is being written, in turn.
    ready: VecDeque<String>,
    writing: BTreeSet<String>,
}

impl Lanes {
    /// Whether there is room for it.
    fn add(&mut self, event: Waiting) -> bool {
        let namespace = namespace_of(&event.0).to_owned();
        let lane = self.waiting.entry(namespace.clone()).or_default();
        if lane.len() >= OF_A_NAMESPACE {
            return false;
        }
        lane.push_back(event);
        if lane.len() == 1 && !self.writing.contains(&namespace) {
            self.ready.push_back(namespace);
        }
        true
    }

    /// The event to write next, and in which namespace.
    fn next(&mut self) -> Option<(String, Waiting)> {
        let namespace = self.ready.pop_front()?;
        let event = self.waiting.get_mut(&namespace)?.pop_front()?;
        self.writing.insert(namespace.clone());
        Some((namespace, event))
    }

    fn done(&mut self, namespace: &str) {
        self.writing.remove(namespace);
        if self.waiting.get(namespace).is_none_or(VecDeque::is_empty) {
            self.waiting.remove(namespace);
        } else {
            self.ready.push_back(namespace.to_owned());
        }
    }
}

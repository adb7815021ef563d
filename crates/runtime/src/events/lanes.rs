//! Events of one namespace are written one after the other, those of several namespaces at once: an admission webhook that holds up
//! what is written in one of them keeps nobody else's events waiting.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use k8s_openapi::api::core::v1::ObjectReference;
use prometheus::IntCounter;
use tokio::{sync::mpsc, task::JoinSet};

use super::{EventError, EventWriter, News, TRIES, persist};
use crate::telemetry::causes;

/// In how many namespaces events are written at once.
const AT_ONCE: usize = 8;

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
    loop {
        while writing.len() < AT_ONCE
            && let Some((namespace, event, tries)) = lanes.next()
        {
            writing.spawn(written(writer.clone(), lost.clone(), namespace, event, tries));
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
                if let Ok((namespace, was_answered)) = done {
                    lanes.done(&namespace, was_answered);
                }
            }
            else => return,
        }
    }
}

/// Says whether the API server has answered.
async fn written(
    writer: EventWriter,
    lost: IntCounter,
    namespace: String,
    (object, news): Waiting,
    tries: u32,
) -> (String, bool) {
    let outcome = persist(&writer, &object, &news, tries).await;
    let was_answered = !matches!(outcome, Err(EventError::TimedOut));
    if let Err(error) = outcome {
        lost.inc();
        tracing::warn!(namespace, name = object.name, error = %causes(&error), "event not written");
    }
    (namespace, was_answered)
}

/// The events that wait, by namespace.
#[derive(Debug, Default)]
struct Lanes {
    waiting: BTreeMap<String, VecDeque<Waiting>>,
    /// The namespaces in which something waits and nothing is being written, in turn.
    ready: VecDeque<String>,
    writing: BTreeSet<String>,
    /// Those in which the last event was not answered: there each is tried once only.
    slow: BTreeSet<String>,
}

impl Lanes {
    /// Whether there is room for it.
    fn add(&mut self, event: Waiting) -> bool {
        let namespace = event.0.namespace.clone().unwrap_or_default();
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

    /// The event to write next, in which namespace, and how often to try.
    fn next(&mut self) -> Option<(String, Waiting, u32)> {
        let namespace = self.ready.pop_front()?;
        let event = self.waiting.get_mut(&namespace)?.pop_front()?;
        self.writing.insert(namespace.clone());
        let tries = if self.slow.contains(&namespace) { 1 } else { TRIES };
        Some((namespace, event, tries))
    }

    fn done(&mut self, namespace: &str, was_answered: bool) {
        self.writing.remove(namespace);
        if self.waiting.get(namespace).is_none_or(VecDeque::is_empty) {
            self.waiting.remove(namespace);
            self.slow.remove(namespace);
            return;
        }
        self.ready.push_back(namespace.to_owned());
        if was_answered {
            self.slow.remove(namespace);
        } else {
            self.slow.insert(namespace.to_owned());
        }
    }
}

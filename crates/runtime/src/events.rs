//! Kubernetes events, as `kubectl describe` and `kubectl get events` show them.
//!
//! Arpeggio tells of changes only, so each call makes one event object; nothing is folded into a series, where a
//! second, different note under the same reason would be lost.

use std::time::Duration;

use arpeggio_text::printable;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use prometheus::IntCounter;
use tokio::sync::mpsc;

use crate::{telemetry::causes, wall_clock};

/// More events than this do not wait: they are lost, and counted.
const QUEUE: usize = 1024;

/// The API server refuses longer notes (events.k8s.io/v1 `note`).
const LONGEST_NOTE: usize = 1024;

/// The API server refuses longer names of reporters (events.k8s.io/v1 `reportingInstance`), and pods may have longer ones.
const LONGEST_INSTANCE: usize = 128;

/// The API server refuses longer names of objects (RFC 1123 subdomains), and what an event is about may have one as long.
const LONGEST_NAME: usize = 253;

/// Longest time for one write; an event is not worth waiting for.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Whether an event tells of something expected (`Event.type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something went as it should.
    Normal,
    /// Somebody should look.
    Warning,
}

/// What happened to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Normal or warning.
    pub kind: Kind,
    /// One CamelCase word for machines (`Event.reason`).
    pub reason: &'static str,
    /// What was done, one CamelCase word (`Event.action`).
    pub action: &'static str,
    /// A sentence for people; cut at 1,024 bytes.
    pub note: String,
}

/// Takes events without ever waiting, and writes them one after the other. Clones share the queue.
#[derive(Debug, Clone)]
pub struct EventQueue {
    queue: mpsc::Sender<(ObjectReference, News)>,
    lost: IntCounter,
}

impl EventQueue {
    /// Starts the task that writes. `lost` counts the events that were not written. Must be called within a tokio runtime.
    #[must_use]
    pub fn spawn(writer: EventWriter, lost: IntCounter) -> Self {
        let (queue, events) = Self::new(lost.clone());
        tokio::spawn(write(writer, events, lost));
        queue
    }

    /// A queue that somebody else empties.
    #[must_use]
    pub fn new(lost: IntCounter) -> (Self, mpsc::Receiver<(ObjectReference, News)>) {
        let (queue, events) = mpsc::channel(QUEUE);
        (Self { queue, lost }, events)
    }

    /// Has an event about `object` written, unless too many wait.
    pub fn publish(&self, object: ObjectReference, news: News) {
        if self.queue.try_send((object, news)).is_err() {
            self.lost.inc();
        }
    }
}

async fn write(
    writer: EventWriter,
    mut events: mpsc::Receiver<(ObjectReference, News)>,
    lost: IntCounter,
) {
    while let Some((object, news)) = events.recv().await {
        if let Err(error) = writer.publish(&object, &news).await {
            lost.inc();
            let (namespace, name) = (object.namespace, object.name);
            tracing::warn!(namespace, name, error = %causes(&error), "event not written");
        }
    }
}

/// Writes events in the name of one component.
#[derive(Debug, Clone)]
pub struct EventWriter {
    client: ClientHandle,
    component: &'static str,
    instance: String,
}

#[derive(Clone)]
struct ClientHandle(Client);

impl std::fmt::Debug for ClientHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl EventWriter {
    /// `component` is shown as the source (`arpeggio-speaker`), `instance` tells its copies apart (pod or node name).
    #[must_use]
    pub fn new(client: Client, component: &'static str, instance: impl Into<String>) -> Self {
        Self { client: ClientHandle(client), component, instance: instance.into() }
    }

    /// Writes one event about `object`, in its namespace (`default` for cluster-scoped ones, as Kubernetes does).
    ///
    /// # Errors
    /// When the API server refuses or does not answer within five seconds. The caller logs it and goes on: an event
    /// is never worth holding anything up.
    pub async fn publish(&self, object: &ObjectReference, news: &News) -> Result<(), EventError> {
        let namespace = object.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.0.clone(), namespace);
        let event = self.event(object, namespace, news, wall_clock::now());
        let params = PostParams::default();
        tokio::time::timeout(TIME_LIMIT, api.create(&params, &event))
            .await
            .map_err(|_| EventError::TimedOut)?
            .map_err(|error| EventError::Refused(Box::new(error)))?;
        Ok(())
    }

    fn event(
        &self,
        object: &ObjectReference,
        namespace: &str,
        news: &News,
        now: Timestamp,
    ) -> Event {
        let about = object.name.as_deref().unwrap_or("unknown");
        Event {
            metadata: ObjectMeta {
                name: Some(name(about, now)),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            action: Some(news.action.to_owned()),
            event_time: Some(MicroTime(now)),
            note: Some(cut(&printable(&news.note), LONGEST_NOTE).to_owned()),
            reason: Some(news.reason.to_owned()),
            regarding: Some(object.clone()),
            reporting_controller: Some(format!("arpeggio.dev/{}", self.component)),
            reporting_instance: Some(cut(&self.instance, LONGEST_INSTANCE).to_owned()),
            type_: Some(match news.kind {
                Kind::Normal => "Normal".to_owned(),
                Kind::Warning => "Warning".to_owned(),
            }),
            ..Event::default()
        }
    }
}

/// Why an event was not written.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// No answer in time.
    #[error("the API server did not take the event within {} s", TIME_LIMIT.as_secs())]
    TimedOut,
    /// The API server said no.
    #[error("the API server refused the event: {0}")]
    Refused(#[source] Box<kube::Error>),
}

/// The name of an event: object and time, as every component of Kubernetes has it, so that names never collide.
fn name(about: &str, now: Timestamp) -> String {
    let time = format!(".{:x}", now.as_nanosecond());
    let about = cut(about, LONGEST_NAME - time.len());
    about.trim_end_matches(['-', '.']).to_owned() + &time
}

/// The longest prefix that has no more bytes, ending at a character's end.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_cut_at_a_character() {
        let note = format!("{}é tail", "x".repeat(LONGEST_NOTE - 1));
        assert_eq!(cut(&note, LONGEST_NOTE), "x".repeat(LONGEST_NOTE - 1));
        assert_eq!(cut("short", LONGEST_NOTE), "short");
    }

    #[test]
    fn a_long_name_is_cut_so_that_it_is_one() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let time = ".18fae27693b40000";
        assert_eq!(name("web", now), format!("web{time}"));
        for end in ["-", ".", "-.-", ""] {
            let begin = "x".repeat(LONGEST_NAME - time.len() - end.len());
            let long = format!("{begin}{end}{}", "y".repeat(time.len()));
            assert_eq!(name(&long, now), format!("{begin}{time}"), "{end}");
        }
    }
}

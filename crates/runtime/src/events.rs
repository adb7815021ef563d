//! Kubernetes events, as `kubectl describe` and `kubectl get events` show them.
//!
//! Arpeggio tells of changes only, so each call makes one event object; nothing is folded into a series, where a
//! second, different note under the same reason would be lost.

mod lanes;

use std::time::Duration;

use arpeggio_text::printable;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use prometheus::IntCounter;
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use crate::{
    failure::Failure,
    turns::{Turn, Turns},
    wall_clock,
};

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

/// How often an event is tried that the API server does not take for now: it is told once, and nobody tells it again.
const TRIES: u32 = 4;

/// The pause after the first of these; doubled each time.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause that the API server is given when it asks for one: others wait behind.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

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

/// Takes events without ever waiting, and writes those of one namespace one after the other. Clones share the queue.
#[derive(Debug, Clone)]
pub struct EventQueue {
    queue: mpsc::Sender<(ObjectReference, News)>,
    lost: IntCounter,
}

impl EventQueue {
    /// Starts the task that writes, which ends when every clone of the queue is gone and nothing waits. `lost` counts the events that
    /// were not written. Must be called within a tokio runtime.
    #[must_use]
    pub fn spawn(writer: EventWriter, lost: IntCounter) -> (Self, JoinHandle<()>) {
        let (queue, events) = Self::new(lost.clone());
        (queue, tokio::spawn(lanes::write(writer, events, lost)))
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

/// Writes an event, if need be after a while. What is refused stays refused, and where nothing was answered before nothing is tried
/// twice for want of an answer.
async fn persist(
    writer: &EventWriter,
    turns: &Turns,
    object: &ObjectReference,
    news: &News,
) -> Result<(), EventError> {
    let mut pause = SHORTEST_PAUSE;
    let was_slow = turns.is_slow(namespace_of(object));
    for _ in 1..TRIES {
        let (turn, done) = tried(writer, turns, object, news).await;
        let passes =
            |error: &EventError| error.passes().filter(|_| !(was_slow && error.is_silence()));
        let Some(asked) = done.as_ref().err().and_then(passes) else { return done };
        // Others wait behind an API server that has too much to do.
        tokio::time::sleep(pause.max(asked.min(LONGEST_PAUSE))).await;
        drop(turn);
        pause *= 2;
    }
    tried(writer, turns, object, news).await.1
}

/// Tries once to write an event when it is its turn, and goes on having that.
async fn tried(
    writer: &EventWriter,
    turns: &Turns,
    object: &ObjectReference,
    news: &News,
) -> (Option<Turn>, Result<(), EventError>) {
    let namespace = namespace_of(object);
    let mut turn = turns.take(Some(namespace)).await;
    let begin = Instant::now();
    let done = writer.publish(object, news).await;
    turns.ended(namespace, begin.elapsed());
    turn.iter_mut().for_each(Turn::keep);
    (turn, done)
}

/// Where events about an object are: for one that is in no namespace in `default`, as Kubernetes does.
fn namespace_of(object: &ObjectReference) -> &str {
    object.namespace.as_deref().unwrap_or("default")
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
        let namespace = namespace_of(object);
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

impl EventError {
    /// Whether there was no answer.
    fn is_silence(&self) -> bool {
        matches!(self, Self::TimedOut)
    }

    /// How long the API server asks to be left alone, if it may take the event later.
    fn passes(&self) -> Option<Duration> {
        match self {
            Self::TimedOut => Some(Duration::ZERO),
            Self::Refused(error) => match error.as_ref().into() {
                Failure::Busy { retry_after } | Failure::Unanswered { retry_after } => {
                    Some(retry_after.unwrap_or_default())
                }
                Failure::NotFound | Failure::Conflict | Failure::Refused(_) => None,
            },
        }
    }
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
    use std::sync::{Arc, Mutex};

    use kube::client;
    use serde_json::{Value, json};

    use super::*;

    /// When events were sent that an API server answers so, one answer after the other, and how many were lost.
    async fn sent(answers: &[(u16, u32)]) -> (Vec<u64>, u64) {
        let (start, times) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let (seen, answers) = (times.clone(), answers.to_vec());
        let server = tower::service_fn(move |_: axum::http::Request<client::Body>| {
            let mut seen = seen.lock().unwrap();
            let (code, pause) = answers[seen.len()];
            seen.push(start.elapsed().as_secs());
            let details = json!({ "retryAfterSeconds": pause });
            let refusal =
                json!({ "kind": "Status", "code": code, "message": "no", "details": details });
            let body = if code == 201 { json!({}) } else { refusal };
            let answer = axum::http::Response::builder().status(code);
            let answer = answer.body(client::Body::from(Value::to_string(&body).into_bytes()));
            async move { answer }
        });
        let lost = IntCounter::new("lost", "lost").unwrap();
        let writer = EventWriter::new(Client::new(server, "shop"), "test", "one");
        let (queue, events) = EventQueue::new(lost.clone());
        let note = "It is so.".to_owned();
        let news = News { kind: Kind::Warning, reason: "So", action: "Be", note };
        queue.publish(ObjectReference::default(), news);
        drop(queue);
        lanes::write(writer, events, lost.clone()).await;
        let times = times.lock().unwrap().clone();
        (times, lost.get())
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_waits_for_an_api_server_that_has_too_much_to_do() {
        assert_eq!(sent(&[(201, 0)]).await, (vec![0], 0));
        assert_eq!(sent(&[(429, 7), (503, 0), (201, 0)]).await, (vec![0, 7, 9], 0));
        assert_eq!(sent(&[(429, 4_000_000_000), (201, 0)]).await, (vec![0, 30], 0));
        let away = [(500, 0), (504, 0), (500, 0), (500, 0)];
        assert_eq!(sent(&away).await, (vec![0, 1, 3, 7], 1));
        assert_eq!(sent(&[(403, 9)]).await, (vec![0], 1), "in a namespace that ends, say");
    }

    /// When events of other namespaces are written while one of them does not answer; of that one there are more than may wait.
    #[tokio::test(start_paused = true)]
    async fn a_namespace_that_does_not_answer_keeps_nobody_elses_events_waiting() {
        let (start, times) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let seen = times.clone();
        let server = tower::service_fn(move |request: axum::http::Request<client::Body>| {
            let hangs = request.uri().path().contains("/namespaces/slow");
            seen.lock().unwrap().push((hangs, start.elapsed()));
            async move {
                if hangs {
                    return std::future::pending().await;
                }
                axum::http::Response::builder().status(201).body(client::Body::from(b"{}".to_vec()))
            }
        });
        let lost = IntCounter::new("lost", "lost").unwrap();
        let writer = EventWriter::new(Client::new(server, "shop"), "test", "one");
        let (queue, writing) = EventQueue::spawn(writer, lost.clone());
        let publish = |namespace: &str| {
            let object =
                ObjectReference { namespace: Some(namespace.to_owned()), ..Default::default() };
            let note = "It is so.".to_owned();
            queue.publish(object, News { kind: Kind::Normal, reason: "So", action: "Be", note });
        };
        for _ in 0..600 {
            publish("slow");
            tokio::task::yield_now().await;
        }
        (0..5).for_each(|_| publish("quick"));
        drop(queue);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let quick = |times: &[(bool, Duration)]| times.iter().filter(|(hangs, _)| !hangs).count();
        assert_eq!(quick(&times.lock().unwrap()), 5);
        writing.await.unwrap();
        let tried = times.lock().unwrap().len() - 5;
        let taken = lanes::OF_A_NAMESPACE + 1;
        assert_eq!((tried, lost.get()), (taken + 3, 600), "only the first one is tried four times");
    }

    /// How long an event of a namespace in which nothing hangs waits while one comes now and then in each of many others where
    /// everything does.
    #[tokio::test(start_paused = true)]
    async fn namespaces_that_do_not_answer_are_remembered_when_none_of_their_events_waits() {
        let times = Arc::new(Mutex::new(Vec::new()));
        let seen = times.clone();
        let server = tower::service_fn(move |request: axum::http::Request<client::Body>| {
            let hangs = request.uri().path().contains("/namespaces/slow");
            if !hangs {
                seen.lock().unwrap().push(Instant::now());
            }
            async move {
                if hangs {
                    return std::future::pending().await;
                }
                axum::http::Response::builder().status(201).body(client::Body::from(b"{}".to_vec()))
            }
        });
        let lost = IntCounter::new("lost", "lost").unwrap();
        let writer = EventWriter::new(Client::new(server, "shop"), "test", "one");
        let (queue, _writing) = EventQueue::spawn(writer, lost);
        let publish = |namespace: String| {
            let object = ObjectReference { namespace: Some(namespace), ..Default::default() };
            let note = "It is so.".to_owned();
            queue.publish(object, News { kind: Kind::Normal, reason: "So", action: "Be", note });
        };
        let mut waits = Vec::new();
        for _ in 0..10 {
            (0..24).for_each(|number| publish(format!("slow-{number}")));
            tokio::time::sleep(Duration::from_secs(1)).await;
            let begin = Instant::now();
            publish("quick".to_owned());
            tokio::time::sleep(Duration::from_mins(1)).await;
            waits.push(times.lock().unwrap().pop().map(|it| it.duration_since(begin)));
        }
        let is_soon = |it: &Option<Duration>, secs| it.is_some_and(|it| it.as_secs() < secs);
        assert!(
            is_soon(&waits[0], 10) && waits.iter().skip(1).all(|it| is_soon(it, 1)),
            "{waits:?}"
        );
    }

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

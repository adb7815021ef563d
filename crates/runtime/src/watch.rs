//! One watch of one kind of object.
//!
//! | what happens | what follows |
//! |---|---|
//! | an object cannot be decoded | it is left out, what was known of it stays, and there is a [`Complaint`] about it |
//! | 404: the API server does not know the kind, or not any more | there are none, until it does |
//! | 401, 403: we may not list or watch it | what was known stays, and the process is not ready: it says which permission is missing |
//! | 410: the API server does not know any more what has happened since, or the next page of a list | everything is listed anew |
//! | anything else | the watch is started again after a pause, which the API server may name; what was known stays |
//! | it goes on to fail, while the API server shows others | who can do without the kind goes on without it ([`Watch::go_on_without`]) |
//!
//! Controller, speakers and the command line all follow objects this way.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    time::Duration,
};

use futures::{StreamExt as _, stream::BoxStream};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Resource,
    api::ObjectMeta,
    core::{Status, error_boundary::InvalidObject},
    runtime::watcher::{self, watcher},
};
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::{guarded::Guarded, health::Awaited, telemetry::causes};

/// A watch is renewed at least this often, in seconds, so that a dead connection is noticed, unless its configuration says
/// otherwise.
const LONGEST_WATCH: u32 = 60;

/// The pause after a watch has broken for the first time; doubled each time that it breaks again, and then up to half as
/// long again, by chance, so that not all processes of a cluster come back at once.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);

/// How long to wait before a kind that is absent is looked for again; doubled each time that it still is.
const SHORTEST_ABSENCE: Duration = Duration::from_secs(5);

/// A kind that is absent is looked for at least this often.
const LONGEST_ABSENCE: Duration = Duration::from_mins(1);

/// For how long a kind is not shown before those go on without it who can. Long enough for a webhook or the API server to
/// be started anew.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A failure that comes so long after the watch was to be started again is the first one of its row: the watch went well in
/// between, and there was nothing to show.
const IN_A_ROW: Duration = Duration::from_mins(1);

/// How soon a broken watch is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Haste {
    /// Within a second: failovers wait for it.
    Urgent,
    /// At first as soon, and within eight seconds when it breaks again and again.
    Patient,
}

impl Haste {
    /// The longest pause, before chance lengthens it.
    fn longest(self) -> Duration {
        match self {
            Self::Urgent => SHORTEST_PAUSE,
            Self::Patient => Duration::from_secs(8),
        }
    }
}

/// What a watch shows next; for [`Watch::pass`].
pub type Event<K> = watcher::Result<watcher::Event<Guarded<K>>>;

/// What follows from an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Change<K> {
    /// The object is new or has changed.
    Applied(K),
    /// The object is gone.
    Deleted(K),
    /// These and no others exist.
    Listed(Vec<K>),
    /// Some objects cannot be decoded. What was known of them stays.
    ListedInPart {
        /// These exist.
        objects: Vec<K>,
        /// These were shown before and exist no more: namespaces, names and uids.
        gone: Vec<ObjectMeta>,
    },
}

/// An object that cannot be decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Complaint {
    /// The object.
    pub object: ObjectReference,
    /// Why not.
    pub why: String,
}

type Events<K> = BoxStream<'static, Event<K>>;

/// One watch, and the list that it may be in the middle of.
pub struct Watch<K> {
    start: Box<dyn Fn() -> Events<K> + Send>,
    events: Events<K>,
    haste: Haste,
    slim: fn(&mut K),
    listing: Vec<K>,
    /// Which objects of the list cannot be decoded.
    left_out: BTreeSet<Name>,
    /// The objects that cannot be decoded, by namespace and name.
    undecodable: BTreeMap<Name, Undecodable>,
    /// The uids of the objects that were shown, and not as gone, by namespace and name.
    shown: BTreeMap<Name, String>,
    /// Shows how many objects cannot be decoded.
    count: Option<IntGauge>,
    awaited: Awaited,
    /// Whether the first list is complete.
    listed: bool,
    /// How often in a row the kind was absent.
    absent: u32,
    /// How often in a row the watch has broken without showing anything in between.
    broken: u32,
    /// The requests in a row that could not be begun.
    failing: Option<Failing>,
    /// When the last one could not be begun.
    failed: Option<Instant>,
    /// Whether others go on without the kind.
    without: bool,
    /// When a broken watch is started again.
    resume: Instant,
}

type Name = (String, String);

/// Lists that were not shown, or watches that could not be started, one after the other.
#[derive(Debug)]
struct Failing {
    first: Instant,
    last: Instant,
    /// Why the last one failed.
    why: String,
    /// Whether the API server has answered that one.
    is_answered: bool,
}

/// An object that cannot be decoded, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Undecodable {
    uid: String,
    why: String,
    /// Whether there was a [`Complaint`] about it.
    is_told: bool,
}

/// How many objects of each kind that a process watches it does not understand, as Prometheus sees it.
#[derive(Debug, Clone)]
pub struct UndecodableObjects(IntGaugeVec);

impl UndecodableObjects {
    /// Adds the metric to `registry`.
    ///
    /// # Errors
    /// When there is one of that name.
    pub fn registered(registry: &Registry) -> prometheus::Result<Self> {
        let help = "Objects that this process does not understand and leaves out, by kind; its log says why, and for what \
                    controllers watch, events on them do.";
        let gauges = IntGaugeVec::new(Opts::new("arpeggio_undecodable_objects", help), &["kind"])?;
        registry.register(Box::new(gauges.clone()))?;
        Ok(Self(gauges))
    }
}

impl<K> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    /// Watches what `config` selects. `awaited` is told when the first list is complete, and when it is lacking again.
    pub fn new(
        api: Api<Guarded<K>>,
        config: watcher::Config,
        haste: Haste,
        awaited: Awaited,
    ) -> Self {
        let timeout = config.timeout.unwrap_or(LONGEST_WATCH);
        let config = config.timeout(timeout);
        Self::of(move || watcher(api.clone(), config.clone()).boxed(), haste, awaited)
    }

    fn of(start: impl Fn() -> Events<K> + Send + 'static, haste: Haste, awaited: Awaited) -> Self {
        Self {
            events: start(),
            start: Box::new(start),
            haste,
            slim: |_| {},
            listing: Vec::new(),
            left_out: BTreeSet::new(),
            undecodable: BTreeMap::new(),
            shown: BTreeMap::new(),
            count: None,
            awaited,
            listed: false,
            absent: 0,
            broken: 0,
            failing: None,
            failed: None,
            without: false,
            resume: Instant::now(),
        }
    }

    /// Takes out of each object, as soon as it comes, what nobody needs: a list is kept as a whole until it is complete.
    #[must_use]
    pub fn slimmed(self, slim: fn(&mut K)) -> Self {
        Self { slim, ..self }
    }

    /// Has `objects` show how many objects of the kind cannot be decoded.
    #[must_use]
    pub fn counted(self, objects: &UndecodableObjects) -> Self {
        let count = objects.0.with_label_values(&[&K::kind(&())]);
        Self { count: Some(count), ..self }
    }

    /// Lists everything anew. A watch goes on from the last version that it has seen, which does not exist any more when
    /// the API server has gone back to an earlier state.
    pub fn restart(&mut self) {
        self.events = (self.start)();
    }

    /// Whether the first list is complete.
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// Whether the first list is complete, or nobody waits for it any more.
    pub fn is_settled(&self) -> bool {
        self.listed || self.without
    }

    /// Whether the API server does not know the kind at present.
    pub fn is_absent(&self) -> bool {
        self.absent > 0
    }

    /// Ends the watch. Nobody waits for it any more.
    pub fn dismiss(self) {
        self.awaited.done();
    }

    /// Whether others go on without the kind, as the API server does not show it: what was known of it stays, and there
    /// may be more.
    pub fn is_without(&self) -> bool {
        self.without
    }

    /// Whether everything is listed, and was shown whenever it was asked for in so long a time.
    pub fn goes_well_for(&self, time: Duration) -> bool {
        self.listed && self.failed.is_none_or(|failed| failed.elapsed() >= time)
    }

    /// Whether the API server has answered the last request that could not be begun: it is there, and refuses.
    pub fn is_refused(&self) -> bool {
        self.failing.as_ref().is_some_and(|failing| failing.is_answered)
    }

    /// Has others go on without the kind from now on, if the API server has not shown it for [`PATIENCE`]. To be called
    /// now and then by those who can do without, as long as the API server shows them something else. The process is ready
    /// then, unless it lacks a permission.
    pub fn go_on_without(&mut self) {
        let lasts = |it: &&Failing| it.last.duration_since(it.first) >= PATIENCE;
        let Some(failing) = self.failing.as_ref().filter(lasts) else { return };
        if std::mem::replace(&mut self.without, true) {
            return;
        }
        let kind = K::kind(&());
        tracing::error!(
            %kind, error = failing.why,
            "the API server does not show this kind; going on with what is known of it"
        );
        self.awaited.does_without(failing.why.clone());
    }

    /// How many objects cannot be decoded at present.
    pub fn undecodable(&self) -> usize {
        self.undecodable.len()
    }

    /// Their uids.
    pub fn left_out(&self) -> impl Iterator<Item = &str> {
        self.undecodable.values().map(|it| it.uid.as_str())
    }

    /// The objects that cannot be decoded and were not complained of before, each once for each reason.
    pub fn take_complaints(&mut self) -> Vec<Complaint> {
        let untold = self.undecodable.iter_mut().filter(|(_, object)| !object.is_told);
        let complaints = untold.map(|(name, object)| {
            object.is_told = true;
            let metadata = metadata(name.clone(), object.uid.clone());
            Complaint { object: reference::<K>(metadata), why: object.why.clone() }
        });
        complaints.collect()
    }

    /// Waits for the next event. There always is one, if only an error. May be cancelled at any time.
    ///
    /// # Errors
    /// Those of the watch, which [`Self::pass`] deals with.
    pub async fn next(&mut self) -> Event<K> {
        tokio::time::sleep_until(self.resume).await;
        match self.events.next().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// What follows from an event. What has gone while the watch was broken shows only as absence from the next list, so
    /// a list is passed on as a whole.
    pub fn pass(&mut self, event: Event<K>) -> Option<Change<K>> {
        let change = self.follow(event);
        if let Some(count) = &self.count {
            count.set(i64::try_from(self.undecodable.len()).unwrap_or(i64::MAX));
        }
        change
    }

    fn follow(&mut self, event: Event<K>) -> Option<Change<K>> {
        let event = match event {
            Ok(event) => event,
            Err(error) => return self.fail(&error),
        };
        // A list that has not ended shows nothing yet: it may fail as the one before.
        if !matches!(event, watcher::Event::Init | watcher::Event::InitApply(_)) {
            self.note_success();
        }
        match event {
            watcher::Event::Init => {
                self.listing.clear();
                self.left_out.clear();
                None
            }
            watcher::Event::InitApply(object) => {
                let object = self.decoded(object)?;
                self.listing.push(object);
                None
            }
            watcher::Event::InitDone => Some(self.finish_list()),
            watcher::Event::Apply(object) => {
                let object = self.decoded(object)?;
                self.shown.insert(name(object.meta()), uid(object.meta()));
                Some(Change::Applied(object))
            }
            watcher::Event::Delete(object) => self.deleted(object),
        }
    }

    fn note_success(&mut self) {
        if self.broken > 0 {
            tracing::info!(kind = %K::kind(&()), "the watch is back");
        }
        (self.broken, self.absent) = (0, 0);
        (self.failing, self.without) = (None, false);
    }

    /// Takes note of a request that could not be begun. One that ends later says that it could.
    fn note_failure(&mut self, error: &watcher::Error) {
        let now = Instant::now();
        if matches!(error, watcher::Error::WatchFailed(_)) {
            self.failing = None;
            return;
        }
        self.failed = Some(now);
        let row = self.failing.take().filter(|_| now <= self.resume + IN_A_ROW);
        let first = row.map_or(now, |row| row.first);
        let (why, is_answered) = (causes(error).to_string(), answer(error).is_some());
        self.failing = Some(Failing { first, last: now, why, is_answered });
    }

    fn decoded(&mut self, object: Guarded<K>) -> Option<K> {
        match object.0 {
            Ok(mut object) => {
                self.undecodable.remove(&name(object.meta()));
                (self.slim)(&mut object);
                Some(object)
            }
            Err(invalid) => {
                self.complain(invalid);
                None
            }
        }
    }

    fn complain(&mut self, invalid: InvalidObject) {
        let InvalidObject { error: why, metadata } = invalid;
        let (name, uid) = (name(&metadata), uid(&metadata));
        self.left_out.insert(name.clone());
        if self.undecodable.get(&name).is_some_and(|it| (&it.uid, &it.why) == (&uid, &why)) {
            return;
        }
        tracing::warn!(
            kind = %K::kind(&()),
            namespace = name.0,
            name = name.1,
            why,
            "the object is not understood and left out"
        );
        self.undecodable.insert(name, Undecodable { uid, why, is_told: false });
    }

    /// Of an object that cannot be decoded, the name is enough to know which one is gone, but not for those who want the
    /// object, and may know it as it was before: they learn it from a list.
    fn deleted(&mut self, object: Guarded<K>) -> Option<Change<K>> {
        self.undecodable.remove(&name(object.meta()));
        let Ok(object) = object.0 else {
            self.restart();
            return None;
        };
        self.shown.remove(&name(object.meta()));
        Some(Change::Deleted(object))
    }

    fn finish_list(&mut self) -> Change<K> {
        let objects = std::mem::take(&mut self.listing);
        let left_out = std::mem::take(&mut self.left_out);
        self.undecodable.retain(|name, _| left_out.contains(name));
        // Before the first list nothing is known that could be kept.
        let in_part = self.listed && !self.undecodable.is_empty();
        self.listed = true;
        self.awaited.done();
        let gone = self.show_only(&objects);
        if in_part { Change::ListedInPart { objects, gone } } else { Change::Listed(objects) }
    }

    /// Takes note that these are shown, and those of the others that are there and cannot be decoded; those that are gone.
    fn show_only(&mut self, objects: &[K]) -> Vec<ObjectMeta> {
        let listed = objects.iter().map(|it| (name(it.meta()), uid(it.meta()))).collect();
        let mut gone = Vec::new();
        for (name, uid) in std::mem::replace(&mut self.shown, listed) {
            if self.undecodable.get(&name).is_some_and(|it| it.uid == uid) {
                self.shown.insert(name, uid);
            } else if !self.shown.contains_key(&name) {
                gone.push(metadata(name, uid));
            }
        }
        gone
    }

    fn fail(&mut self, error: &watcher::Error) -> Option<Change<K>> {
        let answer = answer(error);
        if answer.is_some_and(|status| status.code == 404) && is_of_list(error) {
            return self.note_absence();
        }
        if let Some(status) = answer.filter(|status| [401, 403].contains(&status.code)) {
            self.awaited.lacks(status.message.clone());
        }
        self.note_failure(error);
        // Of what others go on without, only a list tells that it is shown again.
        if needs_new_list(error) || self.without {
            self.restart();
        }
        self.wait_after(error);
        None
    }

    fn note_absence(&mut self) -> Option<Change<K>> {
        self.resume = Instant::now() + pause(self.absent, SHORTEST_ABSENCE, LONGEST_ABSENCE);
        self.absent = self.absent.saturating_add(1);
        (self.failing, self.without) = (None, false);
        if self.absent > 1 {
            return None;
        }
        tracing::info!(kind = %K::kind(&()), "this kind is not installed; looking for it now and then");
        self.listing.clear();
        self.left_out.clear();
        Some(self.finish_list())
    }

    /// Once, and not every few seconds for as long as it lasts.
    fn wait_after(&mut self, error: &watcher::Error) {
        let pause = pause(self.broken, SHORTEST_PAUSE, self.haste.longest());
        // Failovers wait for no one.
        let asked = if self.haste == Haste::Patient { asked_pause(error) } else { Duration::ZERO };
        let pause = pause.max(asked);
        self.resume = Instant::now() + pause.mul_f64(1.0 + fastrand::f64() / 2.0);
        self.broken = self.broken.saturating_add(1);
        if self.broken == 1 {
            let kind = K::kind(&());
            tracing::warn!(%kind, error = %causes(error), "the watch broke; starting it again");
        }
    }
}

fn name(metadata: &ObjectMeta) -> Name {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    (text(&metadata.namespace), text(&metadata.name))
}

fn uid(metadata: &ObjectMeta) -> String {
    metadata.uid.clone().unwrap_or_default()
}

/// What is known of an object that is gone.
fn metadata((namespace, name): Name, uid: String) -> ObjectMeta {
    let text = |it: String| Some(it).filter(|it| !it.is_empty());
    ObjectMeta {
        namespace: text(namespace),
        name: text(name),
        uid: text(uid),
        ..ObjectMeta::default()
    }
}

fn reference<K: Resource<DynamicType = ()>>(metadata: ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: metadata.namespace,
        name: metadata.name,
        uid: metadata.uid,
        ..ObjectReference::default()
    }
}

/// The API server's answer.
fn answer(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}

/// Whether it answers the request for a list.
fn is_of_list(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(_))
}

/// Whether nothing comes of asking once more for what has happened since the version that the watch has seen last: the API
/// server has forgotten that one or never had it, or does not know the kind any more, or does not let us watch. The
/// watcher itself would ask for it again and again, unless it is told in the middle of a watch.
fn needs_new_list(error: &watcher::Error) -> bool {
    let refused = [400, 401, 403, 404, 410];
    let start = matches!(error, watcher::Error::WatchStartFailed(_));
    start && answer(error).is_some_and(|status| refused.contains(&status.code))
}

/// How long the API server asks to be left alone, which is believed within reason.
fn asked_pause(error: &watcher::Error) -> Duration {
    let details = answer(error).and_then(|status| status.details.as_ref());
    let seconds = details.map_or(0, |details| details.retry_after_seconds);
    Duration::from_secs(seconds.into()).min(LONGEST_ABSENCE)
}

/// How long to wait after something has been so `times` times before.
fn pause(times: u32, shortest: Duration, longest: Duration) -> Duration {
    shortest.saturating_mul(2_u32.saturating_pow(times)).min(longest)
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Mutex};

    use axum::http::{Request, Response};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{Client, client::Body};
    use serde_json::{Value, json};

    use super::*;
    use crate::health::Health;

    fn watch(health: &Health) -> Watch<ConfigMap> {
        let nothing = || futures::stream::pending().boxed();
        Watch::of(nothing, Haste::Patient, health.awaits("ConfigMaps"))
    }

    fn object(name: &str, data: &Value) -> Guarded<ConfigMap> {
        let metadata = json!({ "namespace": "shop", "name": name });
        serde_json::from_value(json!({ "metadata": metadata, "data": data })).unwrap()
    }

    fn good(name: &str) -> Guarded<ConfigMap> {
        object(name, &json!({ "key": "value" }))
    }

    fn bad(name: &str) -> Guarded<ConfigMap> {
        object(name, &json!("no map"))
    }

    fn refused(code: u16) -> Event<ConfigMap> {
        let status = Status { code, message: format!("no: {code}"), ..Status::default() };
        Err(watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status))))
    }

    /// Lists these objects; the names in the change that follows.
    fn list(watch: &mut Watch<ConfigMap>, objects: Vec<Guarded<ConfigMap>>) -> (bool, Vec<String>) {
        assert_eq!(watch.pass(Ok(watcher::Event::Init)), None);
        for object in objects {
            assert_eq!(watch.pass(Ok(watcher::Event::InitApply(object))), None);
        }
        names(watch.pass(Ok(watcher::Event::InitDone)).unwrap())
    }

    /// Whether the list is all that there is, and the names.
    fn names(change: Change<ConfigMap>) -> (bool, Vec<String>) {
        let (whole, objects) = match change {
            Change::Listed(objects) => (true, objects),
            Change::ListedInPart { objects, .. } => (false, objects),
            other => panic!("{other:?}"),
        };
        (whole, objects.into_iter().filter_map(|it| it.metadata.name).collect())
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn one_bad_object_disables_itself_and_is_named_once() {
        let health = Health::default();
        let objects = UndecodableObjects::registered(&Registry::new()).unwrap();
        let count = || objects.0.with_label_values(&["ConfigMap"]).get();
        let mut watch = watch(&health).counted(&objects);
        let shown = list(&mut watch, vec![good("a"), bad("b"), good("c")]);
        assert_eq!(shown, (true, owned(&["a", "c"])), "nothing is known yet that could be kept");
        assert!(health.missing().is_empty());
        let complaints = watch.take_complaints();
        assert_eq!(complaints.len(), 1);
        assert_eq!(complaints[0].object.name.as_deref(), Some("b"));
        assert_eq!(complaints[0].object.kind.as_deref(), Some("ConfigMap"));
        assert_eq!(watch.pass(Ok(watcher::Event::Apply(bad("b")))), None);
        assert_eq!((watch.take_complaints().len(), watch.undecodable()), (0, 1));
        assert_eq!(count(), 1);
        let mended = watch.pass(Ok(watcher::Event::Apply(good("b"))));
        assert!(matches!(mended, Some(Change::Applied(_))));
        assert_eq!((watch.undecodable(), count()), (0, 0));
    }

    #[test]
    fn what_was_good_and_is_bad_now_is_not_gone() {
        let health = Health::default();
        let mut watch = watch(&health);
        assert_eq!(list(&mut watch, vec![good("a"), good("b")]), (true, owned(&["a", "b"])));
        assert_eq!(watch.pass(Ok(watcher::Event::Apply(bad("b")))), None);
        assert_eq!(list(&mut watch, vec![good("a"), bad("b")]), (false, owned(&["a"])));
        assert_eq!(watch.take_complaints().len(), 1, "once, however often it is listed");
        assert_eq!(list(&mut watch, vec![good("a")]), (true, owned(&["a"])));
    }

    /// With a uid.
    fn made(uid: &str, object: Guarded<ConfigMap>) -> Guarded<ConfigMap> {
        let uid = Some(uid.to_owned());
        Guarded(match object.0 {
            Ok(mut object) => {
                object.metadata.uid = uid;
                Ok(object)
            }
            Err(mut invalid) => {
                invalid.metadata.uid = uid;
                Err(invalid)
            }
        })
    }

    /// Lists these objects, and names what is gone by that.
    fn gone(watch: &mut Watch<ConfigMap>, objects: Vec<Guarded<ConfigMap>>) -> Vec<String> {
        watch.pass(Ok(watcher::Event::Init));
        for object in objects {
            watch.pass(Ok(watcher::Event::InitApply(object)));
        }
        match watch.pass(Ok(watcher::Event::InitDone)) {
            Some(Change::ListedInPart { gone, .. }) => {
                { gone.into_iter().map(|it| format!("{} {}", it.name.unwrap(), it.uid.unwrap())) }
                    .collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_gone_shows_though_something_else_is_bad() {
        let health = Health::default();
        let mut watch = watch(&health);
        let first = ["a", "b", "c", "d"].map(|name| made(name, good(name))).to_vec();
        list(&mut watch, first);
        watch.pass(Ok(watcher::Event::Apply(made("e", good("e")))));
        watch.pass(Ok(watcher::Event::Delete(made("d", good("d")))));
        let (a, e) = (made("a", good("a")), made("e", good("e")));
        let shown = gone(&mut watch, vec![a.clone(), made("b", bad("b")), e]);
        assert_eq!(shown, ["c c"], "it was deleted in the gap, and d before");
        let shown = gone(&mut watch, vec![a.clone(), made("b", bad("b"))]);
        assert_eq!(shown, ["e e"]);
        let shown = gone(&mut watch, vec![a.clone(), made("other", bad("b"))]);
        assert_eq!(shown, ["b b"], "another one of that name is bad");
        assert_eq!(gone(&mut watch, vec![a, made("other", bad("b"))]), [""; 0], "once");
        assert_eq!(gone(&mut watch, vec![made("other", bad("b"))]), ["a a"]);
    }

    #[test]
    fn what_is_gone_and_was_bad_at_the_end_is_learnt_from_a_list() {
        use std::sync::atomic::{AtomicU32, Ordering};
        static STARTS: AtomicU32 = AtomicU32::new(0);
        let start = || {
            STARTS.fetch_add(1, Ordering::Relaxed);
            futures::stream::pending().boxed()
        };
        let awaited = Health::default().awaits("ConfigMaps");
        let mut watch: Watch<ConfigMap> = Watch::of(start, Haste::Patient, awaited);
        list(&mut watch, vec![good("a"), good("b")]);
        watch.pass(Ok(watcher::Event::Apply(bad("b"))));
        assert_eq!(STARTS.load(Ordering::Relaxed), 1);
        assert_eq!(watch.pass(Ok(watcher::Event::Delete(bad("b")))), None);
        assert_eq!((STARTS.load(Ordering::Relaxed), watch.undecodable()), (2, 0));
        assert_eq!(list(&mut watch, vec![good("a")]), (true, owned(&["a"])));
    }

    #[tokio::test]
    async fn a_kind_that_is_absent_has_no_objects_and_may_come() {
        let health = Health::default();
        let mut watch = watch(&health);
        assert_eq!(names(watch.pass(refused(404)).unwrap()), (true, vec![]));
        assert!(watch.is_listed() && watch.is_absent() && health.missing().is_empty());
        assert_eq!(watch.pass(refused(404)), None, "no news");
        assert_eq!(list(&mut watch, vec![good("a")]), (true, owned(&["a"])));
        assert_eq!(names(watch.pass(refused(404)).unwrap()), (true, vec![]), "it was removed");
    }

    #[tokio::test]
    async fn what_is_forbidden_stays_as_it_was_and_the_process_says_what_it_lacks() {
        let health = Health::default();
        let mut watch = watch(&health);
        assert_eq!(watch.pass(refused(403)), None);
        assert!(!watch.is_listed());
        assert_eq!(health.missing(), ["ConfigMaps (no: 403)"]);
        list(&mut watch, vec![good("a")]);
        assert!(health.missing().is_empty());
        assert_eq!(watch.pass(refused(403)), None, "no list of nothing");
        assert_eq!(health.missing(), ["ConfigMaps (no: 403)"]);
        assert_eq!(watch.pass(refused(500)), None);
    }

    /// How long from now the watch is started again.
    fn pauses(watch: &Watch<ConfigMap>) -> Duration {
        watch.resume.saturating_duration_since(Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_refused_again_and_again_is_asked_for_less_and_less_often() {
        let health = Health::default();
        let mut watch = watch(&health);
        for (code, shortest, longest) in [(403, 8.0, 12.0), (500, 8.0, 12.0), (404, 60.0, 60.0)] {
            for _ in 0..8 {
                // Each attempt begins a list, and what is not there is told once.
                watch.pass(Ok(watcher::Event::Init));
                watch.pass(refused(code));
            }
            let pause = pauses(&watch).as_secs_f64();
            assert!((shortest..=longest).contains(&pause), "{code}: {pause}");
            watch.pass(Ok(watcher::Event::Init));
            assert_eq!(watch.pass(refused(code)), None, "{code}: no news");
        }
        list(&mut watch, vec![good("a")]);
        watch.pass(refused(500));
        assert!(pauses(&watch) < Duration::from_secs(1), "it was back");
    }

    /// Has the API server refuse the kind for so many seconds, as often as it is asked.
    async fn refuse_for(watch: &mut Watch<ConfigMap>, code: u16, seconds: u64) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            tokio::time::sleep_until(watch.resume).await;
            watch.pass(Ok(watcher::Event::Init));
            watch.pass(Ok(watcher::Event::InitApply(good("a"))));
            assert_eq!(watch.pass(refused(code)), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn others_go_on_without_a_kind_that_is_never_shown() {
        for code in [500, 403] {
            let health = Health::default();
            let mut watch = watch(&health);
            refuse_for(&mut watch, code, 30).await;
            watch.go_on_without();
            assert!(!watch.is_settled() && !health.missing().is_empty(), "it may be shown yet");
            refuse_for(&mut watch, code, 60).await;
            assert!(!watch.is_settled(), "nobody has said that they can");
            watch.go_on_without();
            assert!(watch.is_settled() && watch.is_without() && !watch.is_listed());
            assert!(watch.is_refused());
            // A permission is lacking nonetheless.
            assert_eq!(health.missing().is_empty(), code == 500);
            assert!(pauses(&watch) > Duration::from_secs(7), "a page each time is no progress");
            assert_eq!(list(&mut watch, vec![good("a"), bad("b")]), (true, owned(&["a"])));
            assert!(!watch.is_without() && watch.is_listed());
            assert_eq!((health.missing().len(), health.forgone().len()), (0, 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_shown_stays_known_while_others_go_on_without_the_rest() {
        let health = Health::default();
        let mut watch = watch(&health);
        list(&mut watch, vec![good("a")]);
        refuse_for(&mut watch, 500, 90).await;
        watch.go_on_without();
        assert!(watch.is_without() && watch.is_listed() && health.missing().is_empty());
        assert_eq!(health.forgone().len(), 1);
        assert_eq!(names(watch.pass(refused(404)).unwrap()), (true, vec![]), "it is gone now");
        assert!(!watch.is_without() && health.forgone().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_that_are_far_apart_are_no_row() {
        let health = Health::default();
        let mut watch = watch(&health);
        list(&mut watch, vec![good("a")]);
        for _ in 0..5 {
            watch.pass(refused(500));
            tokio::time::sleep(Duration::from_mins(3)).await;
            watch.go_on_without();
            assert!(!watch.is_without());
        }
        assert!(watch.goes_well_for(Duration::from_mins(1)));
        watch.pass(refused(500));
        assert!(!watch.goes_well_for(Duration::from_mins(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_failovers_wait_for_is_asked_for_within_a_second() {
        let nothing = || futures::stream::pending().boxed();
        let awaited = Health::default().awaits("ConfigMaps");
        let mut watch: Watch<ConfigMap> = Watch::of(nothing, Haste::Urgent, awaited);
        for _ in 0..8 {
            watch.pass(refused(500));
            assert!(pauses(&watch) <= Duration::from_secs(1));
        }
    }

    /// An API server that gives these answers, one after the other, and then none any more.
    fn answering(answers: Vec<(u16, Value)>) -> Client {
        let answers = Mutex::new(VecDeque::from(answers));
        let service = tower::service_fn(move |_: Request<Body>| {
            let answer = answers.lock().unwrap().pop_front();
            async move {
                let Some((code, answer)) = answer else { return std::future::pending().await };
                let body = Body::from((answer.to_string() + "\n").into_bytes());
                Response::builder().status(code).body(body)
            }
        });
        Client::new(service, "shop")
    }

    fn page(names: &[&str], more: &str) -> (u16, Value) {
        let item = |name: &&str| json!({ "metadata": { "namespace": "shop", "name": name } });
        let items: Vec<Value> = names.iter().map(item).collect();
        let metadata = json!({ "resourceVersion": "5", "continue": more });
        (
            200,
            json!({ "kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": items }),
        )
    }

    fn expired() -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410,
            "message": "too old resource version",
        })
    }

    /// What the watch passes on next, and how long that takes.
    async fn next_change(watch: &mut Watch<ConfigMap>) -> (Change<ConfigMap>, Duration) {
        let begin = Instant::now();
        loop {
            let event = tokio::time::timeout(Duration::from_mins(5), watch.next()).await;
            if let Some(change) = watch.pass(event.expect("nothing comes any more")) {
                return (change, begin.elapsed());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_api_server_has_forgotten_is_listed_anew_and_as_a_whole() {
        let client = answering(vec![
            // The token of the next page is too old.
            page(&["a"], "token"),
            (410, expired()),
            page(&["a", "b"], "token"),
            page(&["c"], ""),
            // So is the version to watch from: at once, or while it is watched.
            (410, expired()),
            page(&["a", "c"], ""),
            (200, json!({ "type": "ERROR", "object": expired() })),
            page(&["a"], "token"),
            page(&["b"], "token"),
            (410, expired()),
            page(&["a"], "token"),
            page(&["b", "d"], ""),
        ]);
        let health = Health::default();
        let awaited = health.awaits("ConfigMaps");
        let config = watcher::Config::default();
        let mut watch: Watch<ConfigMap> =
            Watch::new(Api::namespaced(client, "shop"), config, Haste::Patient, awaited);
        for expected in [&["a", "b", "c"][..], &["a", "c"], &["a", "b", "d"]] {
            let (change, took) = next_change(&mut watch).await;
            assert_eq!(names(change), (true, owned(expected)));
            assert!(took < Duration::from_secs(3), "{expected:?}: {took:?}");
        }
        assert!(health.missing().is_empty());
    }

    fn status(code: u16, retry_after: u32) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no",
            "details": { "retryAfterSeconds": retry_after },
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_goes_while_it_is_watched_is_absent() {
        let client =
            answering(vec![page(&["a"], ""), (404, status(404, 0)), (404, status(404, 0))]);
        let awaited = Health::default().awaits("ConfigMaps");
        let config = watcher::Config::default();
        let mut watch: Watch<ConfigMap> =
            Watch::new(Api::namespaced(client, "shop"), config, Haste::Patient, awaited);
        assert_eq!(names(next_change(&mut watch).await.0), (true, owned(&["a"])));
        assert_eq!(names(next_change(&mut watch).await.0), (true, vec![]));
    }

    /// Answers to a watch after its list: each leaves the process without news of the kind.
    #[tokio::test(start_paused = true)]
    async fn what_may_be_listed_and_not_watched_is_lacking() {
        for (code, answer) in [
            (403, status(403, 0)),
            (401, status(401, 0)),
            (200, json!({ "type": "ERROR", "object": status(403, 0) })),
        ] {
            let answers = vec![page(&["a"], ""), (code, answer), page(&["a"], "")];
            let client = answering(answers);
            let health = Health::default();
            let awaited = health.awaits("ConfigMaps");
            let config = watcher::Config::default();
            let mut watch: Watch<ConfigMap> =
                Watch::new(Api::namespaced(client, "shop"), config, Haste::Patient, awaited);
            assert_eq!(names(next_change(&mut watch).await.0), (true, owned(&["a"])));
            let event = watch.next().await;
            assert_eq!(watch.pass(event), None, "{code}");
            assert_eq!(health.missing(), ["ConfigMaps (no)"], "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_names_a_pause_is_left_alone_for_as_long() {
        for code in [429, 503] {
            let client = answering(vec![page(&["a"], ""), (code, status(code, 40))]);
            let awaited = Health::default().awaits("ConfigMaps");
            let config = watcher::Config::default();
            let mut watch: Watch<ConfigMap> =
                Watch::new(Api::namespaced(client, "shop"), config, Haste::Patient, awaited);
            next_change(&mut watch).await;
            let event = watch.next().await;
            assert_eq!(watch.pass(event), None);
            assert!(pauses(&watch) >= Duration::from_secs(40), "{code}: {:?}", pauses(&watch));
        }
    }

    #[tokio::test]
    async fn a_watch_that_is_started_again_lists_everything() {
        use futures::stream;
        let begin = || stream::iter([Ok(watcher::Event::Init)]).chain(stream::pending()).boxed();
        let awaited = Health::default().awaits("ConfigMaps");
        let mut watch: Watch<ConfigMap> = Watch::of(begin, Haste::Urgent, awaited);
        for _ in 0..2 {
            assert!(matches!(watch.next().await, Ok(watcher::Event::Init)));
            watch.restart();
        }
    }

    #[test]
    fn pauses_grow_to_their_limit() {
        let longest = Haste::Patient.longest();
        let shown: Vec<u128> =
            (0..6).map(|times| pause(times, SHORTEST_PAUSE, longest).as_millis()).collect();
        assert_eq!(shown, [500, 1000, 2000, 4000, 8000, 8000]);
        assert_eq!(pause(u32::MAX, SHORTEST_ABSENCE, LONGEST_ABSENCE), LONGEST_ABSENCE);
    }
}

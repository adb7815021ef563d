//! What the API server did not do: when it is tried again, and what is said of it.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use arpeggio_api::service::ServiceRecord;
use arpeggio_ipam::Owner;
use k8s_openapi::{
    api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration,
};
use kube::Resource as _;

use super::{
    Index,
    effect::{Effect, Failed, Observed, Refused, Subject},
    news::{Kind, News},
};

/// How long a subject is left alone after its first setback; doubled with each further one.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);

/// A subject is tried again at least this often.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Longest pause that the API server, or what stands before it, is given when it asks for one.
const LONGEST_ASKED: Duration = Duration::from_mins(10);

/// For how long the API server has to do nothing of what it is asked for before users are told: it may be about to start, or
/// have too much to do for a moment.
const LONG: SignedDuration = SignedDuration::from_mins(1);

/// What a task changes: where one kind of write is refused, the other may still be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    /// Locks.
    Locks,
    /// The status of a Service or of a pool, or what is kept of a pool.
    Status,
}

impl Work {
    pub(super) fn of(effect: &Effect) -> Self {
        match effect {
            Effect::WriteService(_) | Effect::WritePool(_) | Effect::WriteRecord(_) => Self::Status,
            Effect::Claim(..) | Effect::Join(_) | Effect::Amend(_) | Effect::Release(_) => {
                Self::Locks
            }
        }
    }
}

/// What is being done about a subject.
#[derive(Debug, Clone, Copy)]
pub(super) struct Underway {
    pub(super) work: Work,
    /// The version of the object that it changes.
    pub(super) version: Option<u64>,
    /// The address whose lock it writes.
    pub(super) lock: Option<IpAddr>,
}

impl Underway {
    pub(super) fn of(effect: &Effect, version: Option<u64>) -> Self {
        Self { work: Work::of(effect), version, lock: effect.writes_lock() }
    }

    /// Whether the API server took the request and nothing is other than before: it is as it was, or somebody holds on to
    /// it or puts it back, such as a webhook or a finalizer.
    pub(super) fn was_in_vain(&self, observed: &Observed) -> bool {
        let after = match observed {
            Observed::Service(service) => super::version(service.as_ref()),
            Observed::Lock(lease) => super::version(lease.as_ref()),
            Observed::Pool(pool) => super::version(pool.as_ref()),
            Observed::NoLock { .. } | Observed::Record | Observed::Needed(_) => return false,
        };
        self.version == Some(after)
    }
}

/// The last setbacks of each subject that has met any since it last succeeded.
pub(super) type Setbacks = BTreeMap<(Subject, Work), Setback>;

/// One or more failures in a row.
#[derive(Debug)]
pub(super) struct Setback {
    times: u32,
    /// When it is tried again.
    pub(super) until: Time,
    /// The version of the subject's object. A later one may be somebody's mend, and is tried at once.
    version: u64,
    refused: Option<Refused>,
    /// Since when the API server has neither done it nor said no.
    silent_since: Option<Time>,
}

impl Setback {
    /// The times that it waits for or counts from.
    pub(super) fn times(&mut self) -> impl Iterator<Item = &mut Time> {
        [&mut self.until].into_iter().chain(&mut self.silent_since)
    }

    /// Another failure. While the API server refuses for the same cause its first words stand: those of a quota contain
    /// counts, which would be news each time.
    fn again(&mut self, failed: Failed, version: u64, now: &Time) {
        let before = self.refused.take();
        let first = |new: Refused| before.clone().filter(|it| it.is_like(&new)).unwrap_or(new);
        let silent_since = self.silent_since.take();
        let (pause, refused) = match failed {
            Failed::Changed => (None, None),
            Failed::Refused(new) => (None, Some(first(new))),
            Failed::Unanswered { retry_after, lasting } => {
                let since = silent_since.unwrap_or_else(|| now.clone());
                let lasts = now.0.duration_since(since.0) >= LONG;
                self.silent_since = Some(since);
                (retry_after, if lasts { Some(first(lasting)) } else { before })
            }
        };
        self.times = self.times.saturating_add(1);
        let doubled = SHORTEST_PAUSE.saturating_mul(2_u32.saturating_pow(self.times - 1));
        let pause = doubled.min(LONGEST_PAUSE).max(pause.unwrap_or_default().min(LONGEST_ASKED));
        self.until = later(now, pause);
        (self.version, self.refused) = (version, refused);
    }
}

/// What could not be done, for people.
fn attempt(subject: &Subject, work: Work) -> &'static str {
    match (subject, work) {
        (Subject::Service(_), Work::Status) => "patch the status of the Service",
        (Subject::Pool(_), _) => "patch the status of the AddressPool",
        (Subject::Record(_), _) => "patch the Lease that keeps what a pool said",
        (Subject::Service(_) | Subject::Lock(_), _) => "patch the Lease of an address",
    }
}

/// What users are told of a change that the API server takes again and again and that is not there afterwards.
fn undone(subject: &Subject, work: Work) -> Refused {
    let what = attempt(subject, work);
    let why = "it takes the request, and nothing has changed afterwards: a webhook or a finalizer undoes it";
    Refused { what: what.to_owned(), kind: "Undone", is_answer: false, why: why.to_owned() }
}

/// What users are told of an object that is another one each time when a change of it arrives. `writer`: who has changed
/// it last, as far as is known.
fn overtaken(subject: &Subject, work: Work, writer: Option<&str>) -> Refused {
    let writer = writer.map_or("an unknown program".to_owned(), |name| format!("{name:?}"));
    let why = format!(
        "{writer} changes the object again and again, each time before the request arrives: have it stop, or do so less \
         often"
    );
    let what = attempt(subject, work).to_owned();
    Refused { what, kind: "Overtaken", is_answer: false, why }
}

/// So much later.
pub(super) fn later(now: &Time, by: Duration) -> Time {
    now.0.checked_add(by).map_or_else(|_| now.clone(), Time)
}

impl Index {
    /// Takes note that a task was not done. `decided_on`: the version of the subject's object that it was decided on, if
    /// that is not the present one. An object that has changed is tried again as soon as the watch shows how; a lock that
    /// has was read again already. If it has changed once more by then, and goes on so, users are told who does that.
    pub(super) fn set_back(
        &mut self,
        subject: &Subject,
        work: Work,
        failed: Failed,
        decided_on: Option<u64>,
        now: &Time,
    ) {
        let is_read_again = matches!(failed, Failed::Changed) && work == Work::Locks;
        if is_read_again || !self.knows(subject) {
            return;
        }
        let version = decided_on.unwrap_or_else(|| self.version_of(subject));
        let overtaken = Failed::Unanswered {
            retry_after: None,
            lasting: overtaken(subject, work, self.last_writer(subject)),
        };
        let setback = self.setbacks.entry((subject.clone(), work)).or_insert_with(|| Setback {
            times: 0,
            until: now.clone(),
            version,
            refused: None,
            silent_since: None,
        });
        let before = setback.refused.clone();
        let is_overtaken = matches!(failed, Failed::Changed) && setback.version < version;
        let failed = if is_overtaken { overtaken } else { failed };
        setback.again(failed, version, now);
        let refused = setback.refused.clone().filter(|it| before.as_ref() != Some(it));
        let shows_in_status = matches!(subject, Subject::Service(_)) && work == Work::Locks;
        if let Some(refused) = refused.filter(|_| !shows_in_status) {
            self.tell_refusal(subject, &refused);
        }
    }

    /// Takes note that a task was done and has changed nothing. To ask for it again at once would change nothing, either.
    pub(super) fn was_in_vain(&mut self, subject: &Subject, work: Work, now: &Time) {
        tracing::debug!(%subject, "the API server took the request, and nothing has changed");
        let failed = Failed::Unanswered { retry_after: None, lasting: undone(subject, work) };
        self.set_back(subject, work, failed, None, now);
    }

    /// Takes note that a task was done. One that wrote a status has made a new version of the object, which is no mend.
    pub(super) fn succeeded(&mut self, subject: &Subject, work: Work) {
        self.setbacks.remove(&(subject.clone(), work));
    }

    /// Has setbacks of `subject` count for the version of its object that we have written ourselves.
    pub(super) fn wrote(&mut self, subject: &Subject) {
        let version = self.version_of(subject);
        if let Some(setback) = self.setbacks.get_mut(&(subject.clone(), Work::Locks)) {
            setback.version = version;
        }
    }

    /// Forgets the setbacks of a subject that is gone.
    pub(super) fn forget_setbacks(&mut self, subject: &Subject) {
        for work in [Work::Locks, Work::Status] {
            self.setbacks.remove(&(subject.clone(), work));
        }
    }

    /// Whether `subject` is to be left alone for now. It is looked at again in time.
    pub(super) fn is_held_back(&mut self, subject: &Subject, work: Work) -> bool {
        self.is_written_too_often(subject, work) || self.was_set_back(subject, work)
    }

    /// Until when a Service is left alone since something was not done for it, if it still is as it was.
    pub(super) fn hindered_until(&self, owner: &Owner) -> Option<Time> {
        let subject = Subject::Service(owner.clone());
        let version = self.version_of(&subject);
        let of = |work| self.setbacks.get(&(subject.clone(), work));
        let all = [Work::Locks, Work::Status].into_iter().filter_map(of);
        let ends = all.filter(|it| it.version == version).map(|it| it.until.clone());
        ends.max().filter(|end| self.now.as_ref().is_none_or(|now| end > now))
    }

    /// Whether so much was written of `subject` lately that it is left alone for now. It is looked at again in time.
    pub(super) fn is_written_too_often(&mut self, subject: &Subject, work: Work) -> bool {
        let Some(now) = &self.now else { return false };
        let Some(until) = self.pace.waits_until(subject, work, now) else { return false };
        self.alarms.insert((until, subject.clone()));
        true
    }

    fn was_set_back(&mut self, subject: &Subject, work: Work) -> bool {
        let version = self.version_of(subject);
        let Some(setback) = self.setbacks.get(&(subject.clone(), work)) else { return false };
        let is_over = self.now.as_ref().is_some_and(|now| setback.until <= *now);
        if is_over || setback.version != version {
            return false;
        }
        self.alarms.insert((setback.until.clone(), subject.clone()));
        true
    }

    /// The last program that has changed the object of `subject`, where that is known.
    fn last_writer(&self, subject: &Subject) -> Option<&str> {
        let Subject::Service(owner) = subject else { return None };
        self.services.get(owner)?.last_writer.as_deref()
    }

    /// What the API server said when it refused to write locks for `owner`.
    pub(super) fn refusal_of_locks(&self, owner: &Owner) -> Option<Refused> {
        self.setbacks.get(&(Subject::Service(owner.clone()), Work::Locks))?.refused.clone()
    }

    pub(super) fn version_of(&self, subject: &Subject) -> u64 {
        match subject {
            Subject::Service(owner) => self.services.get(owner).map(|record| record.version),
            Subject::Lock(address) => self.locks.get(address).map(|lock| lock.version),
            Subject::Pool(name) => self.pools.get(name).map(super::version),
            Subject::Record(_) => None,
        }
        .unwrap_or_default()
    }

    /// Tells those who are concerned, by an event: what says it elsewhere is what could not be written.
    fn tell_refusal(&mut self, subject: &Subject, refused: &Refused) {
        let note = refused.to_string();
        let news = News { kind: Kind::Warning, reason: "ApiRefused", action: "Write", note };
        for object in self.objects_of(subject) {
            self.outbox.push((object, news.clone()));
        }
    }

    fn objects_of(&self, subject: &Subject) -> Vec<ObjectReference> {
        let reference =
            |owner: &Owner| self.services.get(owner).map(ServiceRecord::object_reference);
        match subject {
            Subject::Service(owner) => reference(owner).into_iter().collect(),
            Subject::Lock(address) => {
                let lock = self.locks.get(address);
                lock.into_iter().flat_map(|lock| &lock.owners).filter_map(reference).collect()
            }
            Subject::Pool(name) => {
                self.pools.get(name).map(|pool| pool.object_ref(&())).into_iter().collect()
            }
            Subject::Record(uid) => self.declarations.object(uid).cloned().into_iter().collect(),
        }
    }

    /// What users were not told yet, apart from what goes with the writing of a status.
    pub fn take_outbox(&mut self) -> Vec<(ObjectReference, News)> {
        std::mem::take(&mut self.outbox)
    }
}

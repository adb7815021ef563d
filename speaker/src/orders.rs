//! What the engine wants written, as requests to the API server and what follows from the answers.

use std::{collections::BTreeSet, time::Duration};

use arpeggio_api::{lock, lock::LockRecord, session, session::Whereabouts};
use arpeggio_election::{LockChange, Node, Outcome, Target, Version, Write};
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime};
use serde_json::Value;

use crate::{identity::Identity, input::Input, leases};

/// A write, with what the engine knows of the record.
#[derive(Debug)]
pub(crate) struct Order {
    /// What to do.
    pub(crate) write: Write,
    /// Where this node is found on the wire, when the write is about its session.
    pub(crate) whereabouts: Whereabouts,
    /// The lock that the write is about.
    pub(crate) lock: Option<LockRecord>,
}

/// What to ask of the API server for an [`Order`].
#[derive(Debug)]
pub(crate) enum Request {
    /// To create this Lease.
    Create(Box<Lease>),
    /// To change the order's Lease by this merge patch, which names the version that it is for.
    Patch(Value),
    /// To show the order's Lease.
    Read,
}

/// What came of a write: the record as it is now, if it could be had, and the outcome.
pub(crate) type Result = (Option<Input>, Outcome);

impl Order {
    /// The record's version that was known when the order was given.
    fn known(&self) -> Version {
        let lock = self.lock.as_ref().map(|record| record.lock.version);
        lock.or(self.write.expected()).unwrap_or_default()
    }

    /// The name of the Lease that it is about.
    pub(crate) fn lease(&self, me: &Identity) -> String {
        match self.write.target() {
            Target::OwnSession => session::name(&me.node),
            Target::Session(node) => session::name(&node),
            Target::Lock(address) => lock::name(address),
        }
    }

    /// What `me` is to ask of the API server at `now`. `None`: nobody here knows the lock that it is about.
    pub(crate) fn request(&self, me: &Identity, now: MicroTime) -> Option<Request> {
        let patch = match &self.write {
            Write::Start { epoch, expected: None, lasts, hears } => {
                let lease = self.own(me, *lasts, hears).created(*epoch, now);
                return Some(Request::Create(Box::new(lease)));
            }
            Write::Start { epoch, expected: Some(expected), lasts, hears } => {
                self.own(me, *lasts, hears).started(*epoch, *expected, &now)
            }
            Write::Renew { expected, lasts, hears, .. } => {
                self.own(me, *lasts, hears).renewed(*expected, &now)
            }
            Write::Accuse { expected, .. } => session::accused(&me.node, *expected),
            Write::End { expected, reason, .. } => session::ended(&me.node, *reason, *expected),
            Write::Lock { expected, change, .. } => self.lock_patch(me, *expected, change, &now)?,
            Write::Read { .. } => return Some(Request::Read),
        };
        Some(Request::Patch(patch))
    }

    fn lock_patch(
        &self,
        me: &Identity,
        expected: Version,
        change: &LockChange,
        now: &MicroTime,
    ) -> Option<Value> {
        let lock = self.lock.as_ref();
        Some(match change {
            LockChange::Take { epoch, .. } => lock?.taken(&me.node, *epoch, expected, now),
            LockChange::Give { to, epoch, .. } => lock?.taken(to, *epoch, expected, now),
            LockChange::Refuse { to, reason } => lock::move_refused(to, *reason, expected),
            LockChange::Note { announced, disputed_by } => {
                lock::noted(*announced, disputed_by.as_ref(), expected)
            }
            LockChange::Quarantine { stranger } => lock::quarantined(&me.node, *stranger, expected),
        })
    }

    fn own(&self, me: &Identity, lasts: Duration, hears: &BTreeSet<Node>) -> session::OwnSession {
        session::OwnSession {
            node: me.node.clone(),
            instance: me.instance.clone(),
            duration: lasts,
            whereabouts: self.whereabouts.clone(),
            hears: hears.clone(),
        }
    }

    /// What follows from what the API server shows. A Lease that is not understood is a failure: nothing can be decided
    /// with it, and it is looked at again later.
    pub(crate) fn found(&self, me: &Identity, lease: Option<&Lease>) -> Result {
        let read = match self.write.target() {
            Target::OwnSession => leases::read_own,
            Target::Session(_) | Target::Lock(_) => leases::read,
        };
        match lease.map(read) {
            // Whose it is cannot be told.
            Some(Some(newer @ Input::NewerLock(..))) => (Some(newer), Outcome::Failed),
            Some(Some(record)) => (Some(record), Outcome::Done),
            Some(None) => (None, Outcome::Failed),
            None => (leases::gone(&self.lease(me), Some(self.known())), Outcome::Done),
        }
    }
}

/// Whether a record, read after a write had been refused, has a lower version than the write has expected: one that the
/// API server had shown before.
pub(crate) fn is_from_the_past(write: &Write, record: Option<&Input>) -> bool {
    let version = match record {
        Some(Input::Session(record)) => record.session.version,
        Some(Input::Lock(record)) => record.lock.version,
        _ => return false,
    };
    write.expected().is_some_and(|expected| version < expected)
}

#[cfg(test)]
mod tests {
    use arpeggio_api::{lock::Claim, terms::WrittenAnnounceTerms};
    use arpeggio_election::{Epoch, TakeReason};

    use super::*;

    /// As a tool for backups may leave it. Its speaker would try to create it for ever.
    #[test]
    fn a_session_that_has_lost_its_labels_is_known_to_its_own_node() {
        let me = Identity { node: "n1".into(), instance: "speaker-x7".into() };
        let order = |write| Order { write, whereabouts: Whereabouts::default(), lock: None };
        let (lasts, hears) = (Duration::from_secs(10), BTreeSet::new());
        let start = order(Write::Start { epoch: Epoch(1), expected: None, lasts, hears });
        let now = MicroTime(k8s_openapi::jiff::Timestamp::default());
        let Some(Request::Create(mut lease)) = start.request(&me, now) else { panic!("no create") };
        lease.metadata.labels = None;
        lease.metadata.resource_version = Some("7".into());
        let (found, outcome) = start.found(&me, Some(&lease));
        assert!(matches!(found, Some(Input::Session(_))), "{found:?}");
        assert_eq!(outcome, Outcome::Done);
        let accuse = order(Write::Accuse { node: "n1".into(), expected: Version(7) });
        assert!(accuse.found(&me, Some(&lease)).0.is_none(), "another one's");
    }

    #[test]
    fn only_a_lower_version_than_expected_is_from_the_past() {
        let address = [192, 168, 0, 240].into();
        let (services, terms) = (Vec::new(), WrittenAnnounceTerms::default());
        let mut lease =
            Claim { address, pool: "home".into(), services, terms, spread: false }.created();
        lease.metadata.resource_version = Some("7".into());
        let record = Input::Lock(Box::new(lock::parse(&lease).unwrap()));
        let take = |expected| Write::Lock {
            address,
            expected: Version(expected),
            change: LockChange::Take { epoch: Epoch(1), reason: TakeReason::New },
        };
        for (expected, is_past) in [(6, false), (7, false), (8, true)] {
            assert_eq!(is_from_the_past(&take(expected), Some(&record)), is_past, "{expected}");
        }
        assert!(!is_from_the_past(&take(8), None));
        assert!(!is_from_the_past(&Write::Read { address }, Some(&record)));
    }
}

//! What changes of Leases mean to people: addresses that move, and sessions that begin and end.

use std::collections::BTreeMap;

use arpeggio_api::{
    lease::Kind,
    lock::{self, LockRecord, ServiceRef},
    session::{self, SessionRecord},
};
use arpeggio_election::{Node, SessionState};
use arpeggio_runtime::watch::Change;
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::ResourceExt as _;
use serde::Serialize;

use crate::paint;

/// What was shown last.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    locks: BTreeMap<String, LockRecord>,
    sessions: BTreeMap<String, SessionRecord>,
}

/// Something that has changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Told {
    pub(crate) time: Timestamp,
    pub(crate) change: What,
    /// The address, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    /// `NAMESPACE/NAME` of those who are reached at it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) services: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pool: Option<String>,
    /// The node that it was on, or that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    /// The node that it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum What {
    AddressGiven,
    AddressGone,
    Moved,
    MoveAsked,
    MoveRefused,
    SessionStarted,
    SessionAccused,
    SessionEnded,
    SessionGone,
}

impl Seen {
    /// What a change of Leases, seen `now`, means.
    pub(crate) fn take_in(&mut self, change: Change<Lease>, now: Timestamp) -> Vec<Told> {
        match change {
            Change::Applied(lease) => self.apply(&lease, now),
            Change::Deleted(lease) => self.forget(&lease.name_any(), now).into_iter().collect(),
            Change::Listed(leases) => {
                let mut told = self.forget_others(&leases, now);
                told.extend(leases.iter().flat_map(|lease| self.apply(lease, now)));
                told
            }
            Change::ListedInPart { objects, gone } => {
                let names = gone.iter().filter_map(|it| it.name.as_deref());
                let mut told: Vec<Told> = names.filter_map(|name| self.forget(name, now)).collect();
                told.extend(objects.iter().flat_map(|lease| self.apply(lease, now)));
                told
            }
        }
    }

    fn apply(&mut self, lease: &Lease, now: Timestamp) -> Vec<Told> {
        let name = lease.name_any();
        match Kind::of(lease) {
            Some(Kind::Lock) => {
                let Ok(record) = lock::parse(lease) else { return Vec::new() };
                let told = lock_changes(self.locks.get(&name), &record, now);
                self.locks.insert(name, record);
                told
            }
            Some(Kind::Session) => {
                let Ok(record) = session::parse(lease) else { return Vec::new() };
                let told = session_change(self.sessions.get(&name), &record, now);
                self.sessions.insert(name, record);
                told.into_iter().collect()
            }
            Some(Kind::Forwarder) | None => Vec::new(),
        }
    }

    fn forget_others(&mut self, leases: &[Lease], now: Timestamp) -> Vec<Told> {
        let names: Vec<String> = self.locks.keys().chain(self.sessions.keys()).cloned().collect();
        let gone = |name: &String| !leases.iter().any(|lease| lease.name_any() == *name);
        names.iter().filter(|name| gone(name)).filter_map(|name| self.forget(name, now)).collect()
    }

    fn forget(&mut self, name: &str, now: Timestamp) -> Option<Told> {
        if let Some(record) = self.locks.remove(name) {
            let from = holder(&record).map(Node::to_string);
            return Some(Told { from, ..of_lock(What::AddressGone, &record, now) });
        }
        let record = self.sessions.remove(name)?;
        Some(of_session(What::SessionGone, &record, now))
    }
}

fn lock_changes(before: Option<&LockRecord>, after: &LockRecord, now: Timestamp) -> Vec<Told> {
    let told = |what| of_lock(what, after, now);
    let mut changes = Vec::new();
    let Some(before) = before else {
        let to = holder(after).map(Node::to_string);
        return vec![Told { to, ..told(What::AddressGiven) }];
    };
    if holder(before) != holder(after) {
        let from = holder(before).map(Node::to_string);
        let to = holder(after).map(Node::to_string);
        changes.push(Told { from, to, ..told(What::Moved) });
    } else if before.lock.move_to != after.lock.move_to && after.lock.move_to.is_some() {
        let from = holder(after).map(Node::to_string);
        let to = after.lock.move_to.as_ref().map(Node::to_string);
        changes.push(Told { from, to, ..told(What::MoveAsked) });
    }
    if before.move_refused != after.move_refused && after.move_refused.is_some() {
        let because = after.move_refused.clone();
        changes.push(Told { because, ..told(What::MoveRefused) });
    }
    changes
}

fn session_change(
    before: Option<&SessionRecord>,
    after: &SessionRecord,
    now: Timestamp,
) -> Option<Told> {
    let (old, new) = (before.map(|it| &it.session), &after.session);
    let is_other = old.is_none_or(|old| old.epoch != new.epoch || old.state != new.state);
    let told = |what| of_session(what, after, now);
    match &new.state {
        _ if !is_other => None,
        SessionState::Live { accused_by: Some(by) } => {
            Some(Told { because: Some(format!("by {by}")), ..told(What::SessionAccused) })
        }
        // That an accusation is gone needs no word.
        SessionState::Live { accused_by: None } => {
            let is_new = old.is_none_or(|old| old.epoch != new.epoch);
            is_new.then(|| told(What::SessionStarted))
        }
        SessionState::Ended { by, reason } => {
            let because = Some(format!("by {by}: {reason}"));
            Some(Told { because, ..told(What::SessionEnded) })
        }
    }
}

fn holder(record: &LockRecord) -> Option<&Node> {
    record.lock.holder.as_ref().map(|holder| &holder.node)
}

fn of_lock(change: What, record: &LockRecord, time: Timestamp) -> Told {
    Told {
        time,
        change,
        address: Some(record.lock.address.to_string()),
        services: record.claim.services.iter().map(ServiceRef::path).collect(),
        pool: Some(record.claim.pool.clone()),
        from: None,
        to: None,
        because: None,
    }
}

fn of_session(change: What, record: &SessionRecord, time: Timestamp) -> Told {
    Told {
        time,
        change,
        address: None,
        services: Vec::new(),
        pool: None,
        from: Some(record.session.node.to_string()),
        to: None,
        because: None,
    }
}

impl Told {
    /// With the time of day.
    pub(crate) fn to_text(&self) -> String {
        format!("{}  {}", self.time.strftime("%H:%M:%S%.3f"), self.words())
    }

    /// Without it.
    pub(crate) fn words(&self) -> String {
        let subject = match &self.address {
            Some(address) => format!("{address} ({})", self.services.join(",")),
            None => self.from.clone().unwrap_or_default(),
        };
        format!("{subject}: {}", self.sentence())
    }

    fn sentence(&self) -> String {
        let name = |node: &Option<String>| node.clone().unwrap_or_else(|| "nobody".to_owned());
        let (from, to) = (name(&self.from), name(&self.to));
        let because = self.because.as_deref().unwrap_or_default();
        match self.change {
            What::AddressGiven => format!("given; {to} has it"),
            What::AddressGone => "given back".to_owned(),
            What::Moved => paint::warn(&format!("moved from {from} to {to}")),
            What::MoveAsked => format!("{from} is asked to give it to {to}"),
            What::MoveRefused => paint::warn(&format!("not moved as somebody asked: {because}")),
            What::SessionStarted => paint::good("its session has started"),
            What::SessionAccused => paint::warn(&format!("accused {because}")),
            What::SessionEnded => paint::bad(&format!("its session was ended {because}")),
            What::SessionGone => "its session is gone".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(value: serde_json::Value) -> Lease {
        serde_json::from_value(value).unwrap()
    }

    fn lock(holder: &str, move_to: Option<&str>) -> Lease {
        lease(json!({
            "metadata": {
                "name": "address-192.168.0.240", "resourceVersion": "7",
                "labels": { "arpeggio.dev/lease": "address" },
                "annotations": {
                    "arpeggio.dev/services": "shop/web/u1", "arpeggio.dev/pool": "home",
                    "arpeggio.dev/session": "1", "arpeggio.dev/move-to": move_to.unwrap_or_default(),
                },
            },
            "spec": { "holderIdentity": holder },
        }))
    }

    fn session(epoch: i32, holder: &str) -> Lease {
        lease(json!({
            "metadata": {
                "name": "session-node-1", "resourceVersion": "7",
                "labels": { "arpeggio.dev/lease": "session" },
                "annotations": {
                    "arpeggio.dev/ended-by": "node-2", "arpeggio.dev/ended-because": "NodeSilent",
                },
            },
            "spec": { "holderIdentity": holder, "leaseTransitions": epoch },
        }))
    }

    fn lines(seen: &mut Seen, change: Change<Lease>) -> Vec<String> {
        let now = "2026-01-01T12:00:00.25Z".parse().unwrap();
        let told = seen.take_in(change, now);
        told.iter().map(|it| paint::plain(&it.to_text())).collect()
    }

    #[test]
    fn each_change_is_one_line() {
        let mut seen = Seen::default();
        let first = vec![lock("node-1", None), session(4, "node-1")];
        assert_eq!(lines(&mut seen, Change::Listed(first)).len(), 2);
        let mut line = |change| lines(&mut seen, change).join("|");
        let prefix = "12:00:00.250  192.168.0.240 (shop/web): ";
        assert_eq!(line(Change::Applied(lock("node-1", None))), "");
        assert_eq!(line(Change::Applied(session(4, "node-1"))), "", "a renewal");
        assert_eq!(
            line(Change::Applied(lock("node-1", Some("node-2")))),
            format!("{prefix}node-1 is asked to give it to node-2")
        );
        assert_eq!(
            line(Change::Applied(lock("node-2", None))),
            format!("{prefix}moved from node-1 to node-2")
        );
        assert_eq!(
            line(Change::Applied(session(4, ""))),
            "12:00:00.250  node-1: its session was ended by node-2: silent on the wire"
        );
        assert_eq!(
            line(Change::Applied(session(5, "node-1"))),
            "12:00:00.250  node-1: its session has started"
        );
        let rest = Change::Listed(vec![session(5, "node-1")]);
        assert_eq!(line(rest), format!("{prefix}given back"));
    }
}

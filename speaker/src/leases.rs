//! Watches Arpeggio's Leases and tells the engine of every change.

use std::collections::BTreeSet;

use arpeggio_api::{
    lease::{self, Kind, LeaseError},
    lock::{self, LockRecord},
    session,
};
use arpeggio_election::Event;
use arpeggio_runtime::telemetry::causes;
use crossbeam_channel::Sender;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, ResourceExt as _, runtime::watcher};

use crate::{
    input::Input,
    watches::{self, Rewinds},
};

/// Runs until the engine ends.
pub(crate) async fn watch(
    client: Client,
    namespace: String,
    rewinds: Rewinds,
    inputs: Sender<Input>,
) {
    let api: Api<Lease> = Api::namespaced(client, &namespace);
    let mut feed = Feed::default();
    let ours = watcher::Config::default().labels(lease::SELECTOR);
    watches::follow("Leases", api, ours, rewinds, |event| {
        feed.take(event).into_iter().all(|input| inputs.send(input).is_ok())
    })
    .await;
}

/// Turns the watch's events into inputs.
#[derive(Debug, Default)]
struct Feed {
    /// The Leases that the engine knows, by name.
    known: BTreeSet<String>,
    /// Those of the list under way.
    listed: BTreeSet<String>,
}

impl Feed {
    fn take(&mut self, event: watcher::Event<Lease>) -> Vec<Input> {
        match event {
            watcher::Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            watcher::Event::InitApply(lease) => {
                self.listed.insert(lease.name_any());
                read(&lease).into_iter().collect()
            }
            watcher::Event::InitDone => self.list_done(),
            watcher::Event::Apply(lease) => {
                self.known.insert(lease.name_any());
                read(&lease).into_iter().collect()
            }
            watcher::Event::Delete(lease) => {
                self.known.remove(&lease.name_any());
                gone(&lease.name_any()).into_iter().collect()
            }
        }
    }

    /// A list is complete. What was deleted while there was no watch shows only by its absence.
    fn list_done(&mut self) -> Vec<Input> {
        let listed = std::mem::take(&mut self.listed);
        let absent = self.known.difference(&listed).filter_map(|name| gone(name));
        let inputs = absent.chain([Input::Election(Event::Synced)]).collect();
        self.known = listed;
        inputs
    }
}

/// What the absence of a Lease tells the engine; nothing when its name is not one of ours.
pub(crate) fn gone(name: &str) -> Option<Input> {
    let session = session::node_of(name).map(|node| Input::Election(Event::SessionGone(node)));
    session.or_else(|| lock::address_of(name).map(Input::LockGone))
}

/// What a Lease tells the engine; nothing when it is not ours or not understood.
pub(crate) fn read(lease: &Lease) -> Option<Input> {
    let read: Result<Input, LeaseError> = match Kind::of(lease)? {
        Kind::Session => session::parse(lease).map(Input::Session),
        Kind::Lock => lock::parse(lease).map(lock_is),
    };
    read.inspect_err(|error| tracing::warn!(error = %causes(&error), "a Lease is not understood"))
        .ok()
}

fn lock_is(record: LockRecord) -> Input {
    let address = record.lock.address;
    match record.newer {
        Some(format) => Input::NewerLock(address, format),
        // Nobody is reached there, though nobody else may have it yet.
        None if record.rests => Input::LockGone(address),
        None => Input::Lock(Box::new(record)),
    }
}

#[cfg(test)]
mod tests {
    use arpeggio_api::{lock::Claim, terms::WrittenAnnounceTerms};

    use super::*;

    fn lock(last: u8) -> Lease {
        let address = [192, 168, 0, last].into();
        let (services, terms) = (Vec::new(), WrittenAnnounceTerms::default());
        let mut lease = Claim { address, pool: "home".into(), services, terms }.created();
        lease.metadata.resource_version = Some("1".into());
        lease
    }

    fn summary(inputs: Vec<Input>) -> Vec<String> {
        let text = |input| match input {
            Input::Lock(record) => format!("lock {}", record.lock.address),
            Input::LockGone(address) => format!("gone {address}"),
            Input::Election(Event::Synced) => "synced".to_owned(),
            other => format!("{other:?}"),
        };
        inputs.into_iter().map(text).collect()
    }

    #[test]
    fn a_new_list_tells_of_what_is_no_longer_there() {
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        let mut feed = Feed::default();
        let mut take = |event| summary(feed.take(event));
        assert!(take(Init).is_empty());
        assert_eq!(take(InitApply(lock(1))), ["lock 192.168.0.1"]);
        assert_eq!(take(InitDone), ["synced"]);
        assert_eq!(take(Apply(lock(2))), ["lock 192.168.0.2"]);
        assert_eq!(take(Apply(lock(3))), ["lock 192.168.0.3"]);
        assert_eq!(take(Delete(lock(3))), ["gone 192.168.0.3"]);
        assert!(take(Init).is_empty());
        assert_eq!(take(InitApply(lock(2))), ["lock 192.168.0.2"]);
        assert_eq!(take(InitDone), ["gone 192.168.0.1", "synced"]);
    }

    #[test]
    fn what_is_not_understood_is_skipped() {
        let mut damaged = lock(1);
        damaged.metadata.name = Some("address-x".into());
        assert!(Feed::default().take(watcher::Event::Apply(damaged)).is_empty());
        assert!(gone("somebody-elses-lease").is_none());
    }
}

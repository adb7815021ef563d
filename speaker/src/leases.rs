//! Watches Arpeggio's Leases and tells the engine of every change.

use std::collections::BTreeSet;

use arpeggio_api::{
    lease::{self, Kind, LeaseError},
    lock::{self, LockRecord},
    session,
};
use arpeggio_election::{Event, Version};
use arpeggio_runtime::{
    health::Awaited,
    unclear::UnclearLeases,
    watch::{Change, Haste, UndecodableObjects, Watch},
};
use crossbeam_channel::Sender;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, ResourceExt};

use crate::{
    input::Input,
    watches::{self, Rewinds},
};

/// Runs until the engine ends. `awaited` is told when all have been listed.
pub(crate) async fn watch(
    client: Client,
    namespace: String,
    awaited: Awaited,
    rewinds: Rewinds,
    (objects, inputs): (UndecodableObjects, Sender<Input>),
) {
    let ours = watches::config().labels(lease::SELECTOR);
    let leases = Watch::new(Api::namespaced(client, &namespace), ours, Haste::Urgent, awaited);
    let leases = leases.counted(&objects);
    let mut feed = Feed::default();
    watches::follow(leases, rewinds, |change| {
        feed.take(change).into_iter().all(|input| inputs.send(input).is_ok())
    })
    .await;
}

/// Turns what the watch shows into inputs.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    /// The Leases that the engine knows, by name.
    known: BTreeSet<String>,
    unclear: UnclearLeases,
}

impl Feed {
    pub(crate) fn take(&mut self, change: Change<Lease>) -> Vec<Input> {
        match change {
            Change::Applied(lease) => {
                self.known.insert(lease.name_any());
                self.read(&lease).into_iter().collect()
            }
            Change::Deleted(lease) => {
                self.known.remove(&lease.name_any());
                self.unclear.gone(&lease.name_any());
                gone(&lease.name_any(), lease::version(&lease).ok()).into_iter().collect()
            }
            Change::Listed(leases) => {
                let listed: BTreeSet<String> = leases.iter().map(ResourceExt::name_any).collect();
                self.unclear.listed(&listed);
                let absent: Vec<String> = self.known.difference(&listed).cloned().collect();
                self.listed(&leases, &absent)
            }
            Change::ListedInPart { objects, gone } => {
                let gone: Vec<String> = gone.into_iter().filter_map(|it| it.name).collect();
                gone.iter().for_each(|name| self.unclear.gone(name));
                self.listed(&objects, &gone)
            }
        }
    }

    /// What was deleted while there was no watch shows only by its absence from a list.
    fn listed(&mut self, leases: &[Lease], absent: &[String]) -> Vec<Input> {
        for name in absent {
            self.known.remove(name);
        }
        self.known.extend(leases.iter().map(ResourceExt::name_any));
        let gone = absent.iter().filter_map(|name| gone(name, None));
        let inputs = leases.iter().filter_map(|lease| self.read(lease)).collect::<Vec<_>>();
        let inputs = inputs.into_iter().chain(gone);
        inputs.chain([Input::Election(Event::Synced)]).collect()
    }

    fn read(&mut self, lease: &Lease) -> Option<Input> {
        self.unclear.pass(&lease.name_any(), understood(lease)?)
    }
}

/// What the absence of a Lease tells the engine, where it is known to be gone up to some version; nothing when its name is
/// not one of ours.
pub(crate) fn gone(name: &str, until: Option<Version>) -> Option<Input> {
    let session = session::node_of(name).map(|node| Input::SessionGone(node, until));
    session.or_else(|| lock::address_of(name).map(|address| Input::LockGone(address, until)))
}

/// What a Lease tells the engine; nothing when it is not ours or not understood.
pub(crate) fn read(lease: &Lease) -> Option<Input> {
    understood(lease)?.ok()
}

/// What the node's own session tells the engine, whatever its labels say: somebody may have removed them, and then the watch does
/// not show it.
pub(crate) fn read_own(lease: &Lease) -> Option<Input> {
    session::parse(lease).map(Input::Session).ok()
}

/// `None` when it is not ours.
fn understood(lease: &Lease) -> Option<Result<Input, LeaseError>> {
    Some(match Kind::of(lease)? {
        Kind::Session => session::parse(lease).map(Input::Session),
        Kind::Lock => lock::parse(lease).map(lock_is),
        Kind::Forwarder => return None,
    })
}

fn lock_is(record: LockRecord) -> Input {
    let address = record.lock.address;
    match record.newer {
        Some(format) => Input::NewerLock(address, format),
        // Nobody is reached there, though nobody else may have it yet.
        None if record.rests => Input::LockGone(address, Some(record.lock.version)),
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
        let mut lease =
            Claim { address, pool: "home".into(), services, terms, spread: false }.created();
        lease.metadata.resource_version = Some("1".into());
        lease
    }

    fn summary(inputs: Vec<Input>) -> Vec<String> {
        let text = |input| match input {
            Input::Lock(record) => format!("lock {}", record.lock.address),
            Input::LockGone(address, _) => format!("gone {address}"),
            Input::Election(Event::Synced) => "synced".to_owned(),
            other => format!("{other:?}"),
        };
        inputs.into_iter().map(text).collect()
    }

    #[test]
    fn a_new_list_tells_of_what_is_no_longer_there() {
        use Change::{Applied, Deleted, Listed, ListedInPart};
        let mut feed = Feed::default();
        let mut take = |change| summary(feed.take(change));
        assert_eq!(take(Listed(vec![lock(1)])), ["lock 192.168.0.1", "synced"]);
        assert_eq!(take(Applied(lock(2))), ["lock 192.168.0.2"]);
        assert_eq!(take(Applied(lock(3))), ["lock 192.168.0.3"]);
        assert_eq!(take(Deleted(lock(3))), ["gone 192.168.0.3"]);
        let in_part = |gone| ListedInPart { objects: vec![lock(2)], gone };
        assert_eq!(take(in_part(vec![])), ["lock 192.168.0.2", "synced"]);
        take(Applied(lock(4)));
        let shown = ["lock 192.168.0.2", "gone 192.168.0.4", "synced"];
        assert_eq!(take(in_part(vec![lock(4).metadata])), shown);
        let shown = ["lock 192.168.0.2", "gone 192.168.0.1", "synced"];
        assert_eq!(take(Listed(vec![lock(2)])), shown);
    }

    #[test]
    fn what_is_not_understood_is_skipped() {
        let mut damaged = lock(1);
        damaged.metadata.name = Some("address-x".into());
        let mut feed = Feed::default();
        assert!(feed.take(Change::Applied(damaged.clone())).is_empty());
        assert_eq!(feed.unclear.count(), 1);
        assert!(feed.take(Change::Deleted(damaged)).is_empty());
        assert_eq!(feed.unclear.count(), 0);
        assert!(gone("somebody-elses-lease", None).is_none());
    }
}

//! Watches `EndpointSlice`s, as soon as some address has traffic that must not leave its node.

use std::collections::BTreeMap;

use arpeggio_api::{
    endpoints::{ServiceName, backends, service_of, slim},
    knowledge::full_name,
};
use arpeggio_election::Backends;
use arpeggio_runtime::{
    health::Health,
    watch::{Change, Haste, Watch},
};
use crossbeam_channel::Sender;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use tokio::sync::oneshot;

use crate::{
    input::Input,
    watches::{self, News, Rewinds},
};

/// Waits until the slices are wanted, then runs until the engine ends. A cluster may have many of them, which change
/// often, and most have no address whose traffic must stay with its backends. From then on the process is ready only when
/// they have been listed, or the API server refuses to.
pub(crate) async fn watch(
    client: Client,
    health: Health,
    wanted: oneshot::Receiver<()>,
    rewinds: Rewinds,
    inputs: Sender<Input>,
) {
    if wanted.await.is_err() {
        return;
    }
    let mut feed = Feed::default();
    let (slices, awaited) = (Api::all(client), health.awaits("EndpointSlices"));
    let slices = Watch::new(slices, watches::config(), Haste::Patient, awaited).slimmed(slim);
    watches::follow_if_shown(slices, rewinds, |news| {
        let News::Change(change) = news else { return inputs.send(Input::NoBackends).is_ok() };
        let is_list = matches!(change, Change::Listed(_) | Change::ListedInPart { .. });
        let changes = feed.take(change);
        // An empty list is news as well: there are no backends, and not only none that are known.
        !is_list && changes.is_empty() || inputs.send(Input::Backends(changes)).is_ok()
    })
    .await;
}

/// A slice, by namespace and name.
type SliceName = (String, String);

/// Sums up slices by Service.
#[derive(Debug, Default)]
struct Feed {
    slices: BTreeMap<SliceName, (ServiceName, Backends)>,
}

/// Services whose backends have changed.
type Changes = BTreeMap<ServiceName, Backends>;

impl Feed {
    fn take(&mut self, change: Change<EndpointSlice>) -> Changes {
        match change {
            Change::Applied(slice) => {
                let Some((name, now)) = read(&slice) else {
                    return self.remove(&self::name(&slice));
                };
                let service = now.0.clone();
                if self.slices.insert(name, now.clone()).as_ref() == Some(&now) {
                    return Changes::new();
                }
                Changes::from([(service.clone(), self.sum(&service))])
            }
            Change::Deleted(slice) => self.remove(&name(&slice)),
            Change::Listed(slices) => {
                let before = std::mem::take(&mut self.slices);
                self.slices.extend(slices.iter().filter_map(read));
                self.changes(before.into_values().map(|(service, _)| service))
            }
            Change::ListedInPart { objects, gone } => {
                let gone = gone.iter().filter_map(|it| self.slices.remove(&full_name(it)));
                let gone: Vec<_> = gone.map(|(service, _)| service).collect();
                self.slices.extend(objects.iter().filter_map(read));
                self.changes(gone.into_iter())
            }
        }
    }

    /// A slice is gone, or is no Service's any more.
    fn remove(&mut self, slice: &SliceName) -> Changes {
        let gone = self.slices.remove(slice);
        gone.map(|(service, _)| (service.clone(), self.sum(&service))).into_iter().collect()
    }

    /// Every Service that there is, and those that there were.
    fn changes(&self, before: impl Iterator<Item = ServiceName>) -> Changes {
        let mut sums: Changes = before.map(|service| (service, Backends::default())).collect();
        for (service, backends) in self.slices.values() {
            sums.entry(service.clone()).or_default().add(backends);
        }
        sums
    }

    /// A Service and its slices are in one namespace.
    fn sum(&self, service: &ServiceName) -> Backends {
        let (namespace, _) = service;
        let from = (namespace.clone(), String::new());
        let neighbours = self.slices.range(from..).take_while(|((there, _), _)| there == namespace);
        let mut sum = Backends::default();
        for (_, (_, backends)) in neighbours.filter(|(_, (of, _))| of == service) {
            sum.add(backends);
        }
        sum
    }
}

fn name(slice: &EndpointSlice) -> SliceName {
    full_name(&slice.metadata)
}

fn read(slice: &EndpointSlice) -> Option<(SliceName, (ServiceName, Backends))> {
    Some((name(slice), (service_of(slice)?, backends(slice))))
}

#[cfg(test)]
mod tests {
    use Change::{Applied, Deleted, Listed, ListedInPart};
    use k8s_openapi::serde_json::{from_value, json};

    use super::*;

    fn slice(name: &str, nodes: &[&str]) -> EndpointSlice {
        let endpoint = |node: &&str| json!({ "addresses": ["10.244.0.7"], "nodeName": node });
        from_value(json!({
            "addressType": "IPv4",
            "metadata": {
                "namespace": "shop",
                "name": name,
                "labels": { "kubernetes.io/service-name": "web" },
            },
            "endpoints": nodes.iter().map(endpoint).collect::<Vec<_>>(),
        }))
        .unwrap()
    }

    fn ready(changes: Changes) -> Vec<String> {
        changes.into_values().flat_map(|it| it.ready).map(|node| node.to_string()).collect()
    }

    #[test]
    fn slices_of_one_service_are_added_up() {
        let mut feed = Feed::default();
        let mut take = |change| feed.take(change);
        let both = vec![slice("web-1", &["a"]), slice("web-2", &["b"])];
        assert_eq!(ready(take(Listed(both))), ["a", "b"]);
        assert!(take(Applied(slice("web-2", &["b"]))).is_empty(), "nothing new");
        assert_eq!(ready(take(Applied(slice("web-2", &["c"])))), ["a", "c"]);
        assert_eq!(ready(take(Deleted(slice("web-1", &["a"])))), ["c"]);
        let part = vec![slice("web-3", &["d"])];
        let in_part = |objects, gone| ListedInPart { objects, gone };
        assert_eq!(ready(take(in_part(part, vec![]))), ["c", "d"], "one is not understood");
        let gone = vec![slice("web-2", &[]).metadata];
        assert_eq!(ready(take(in_part(vec![], gone))), ["d"]);
        let changes = take(Listed(vec![]));
        assert_eq!(changes.len(), 1, "the Service that has lost all");
        assert!(ready(changes).is_empty());
    }
}

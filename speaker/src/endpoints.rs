//! Watches `EndpointSlice`s, as soon as some address has traffic that must not leave its node.

use std::collections::BTreeMap;

use arpeggio_api::{
    endpoints::{ServiceName, backends, service_of, slim},
    knowledge::full_name,
};
use arpeggio_election::Backends;
use arpeggio_runtime::{
    health::Health,
    watch::{Change, Haste, UndecodableObjects, Watch},
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
    (objects, inputs): (UndecodableObjects, Sender<Input>),
) {
    if wanted.await.is_err() {
        return;
    }
    let mut feed = Feed::default();
    let (slices, awaited) = (Api::all(client), health.awaits("EndpointSlices"));
    let slices = Watch::new(slices, watches::config(), Haste::Patient, awaited).slimmed(slim);
    let slices = slices.counted(&objects);
    watches::follow_if_shown(slices, rewinds, |news| {
        let News::Change(change) = news else { return inputs.send(Input::NoBackends).is_ok() };
        let is_list = matches!(change, Change::Listed(_) | Change::ListedInPart { .. });
        let changes = feed.take(change);
        // A list that changes nothing is news as well: what is known is all that there is.
        !is_list && changes.is_empty() || inputs.send(Input::Backends(changes)).is_ok()
    })
    .await;
}

/// A slice, by namespace and name.
type SliceName = (String, String);

/// Sums up slices by Service.
#[derive(Debug, Default)]
struct Feed {
    /// Whose each slice is.
    services: BTreeMap<SliceName, ServiceName>,
    /// The slices of each Service that has any.
    slices: BTreeMap<ServiceName, BTreeMap<SliceName, Backends>>,
}

/// Services whose backends have changed.
type Changes = BTreeMap<ServiceName, Backends>;

impl Feed {
    fn take(&mut self, change: Change<EndpointSlice>) -> Changes {
        match change {
            Change::Applied(slice) => self.replace([(name(&slice), read(&slice))]),
            Change::Deleted(slice) => self.replace([(name(&slice), None)]),
            Change::Listed(slices) => {
                let listed: BTreeMap<_, _> =
                    slices.iter().map(|slice| (name(slice), read(slice))).collect();
                let gone = self.services.keys().filter(|name| !listed.contains_key(*name));
                let gone: Vec<_> = gone.map(|name| (name.clone(), None)).collect();
                self.replace(gone.into_iter().chain(listed))
            }
            Change::ListedInPart { objects, gone } => {
                let gone = gone.iter().map(|it| (full_name(it), None));
                let listed = objects.iter().map(|slice| (name(slice), read(slice)));
                self.replace(gone.chain(listed))
            }
        }
    }

    /// Takes in what slices say now: `None` where one is gone, or is no Service's any more. Returns the sums that are others
    /// than before; no other Service is looked at.
    fn replace(
        &mut self,
        slices: impl IntoIterator<Item = (SliceName, Option<(ServiceName, Backends)>)>,
    ) -> Changes {
        let mut before = Changes::new();
        for (name, now) in slices {
            let was = self.services.get(&name);
            let concerned = was.into_iter().chain(now.as_ref().map(|(service, _)| service));
            for service in concerned.cloned().collect::<Vec<_>>() {
                let sum = self.sum(&service);
                before.entry(service).or_insert(sum);
            }
            self.forget(&name);
            if let Some((service, backends)) = now {
                self.services.insert(name.clone(), service.clone());
                self.slices.entry(service).or_default().insert(name, backends);
            }
        }
        let now = before.keys().map(|service| (service.clone(), self.sum(service)));
        let now: Changes = now.collect();
        now.into_iter().filter(|(service, sum)| before.get(service) != Some(sum)).collect()
    }

    fn forget(&mut self, name: &SliceName) {
        let Some(service) = self.services.remove(name) else { return };
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
    }

    fn sum(&self, service: &ServiceName) -> Backends {
        let mut sum = Backends::default();
        self.slices.get(service).into_iter().flat_map(BTreeMap::values).for_each(|it| sum.add(it));
        sum
    }
}

fn name(slice: &EndpointSlice) -> SliceName {
    full_name(&slice.metadata)
}

fn read(slice: &EndpointSlice) -> Option<(ServiceName, Backends)> {
    Some((service_of(slice)?, backends(slice)))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use Change::{Applied, Deleted, Listed, ListedInPart};
    use k8s_openapi::serde_json::{from_value, json};

    use super::*;

    const SERVICE: &str = "kubernetes.io/service-name";

    fn slice(name: &str, nodes: &[&str]) -> EndpointSlice {
        let endpoint = |node: &&str| json!({ "addresses": ["10.244.0.7"], "nodeName": node });
        from_value(json!({
            "addressType": "IPv4",
            "metadata": {
                "namespace": "shop",
                "name": name,
                "labels": { SERVICE: "web" },
            },
            "endpoints": nodes.iter().map(endpoint).collect::<Vec<_>>(),
        }))
        .unwrap()
    }

    fn ready(changes: Changes) -> Vec<String> {
        changes.into_values().flat_map(|it| it.ready).map(|node| node.to_string()).collect()
    }

    /// Ten thousand Services of one namespace, each with a slice.
    fn many() -> Feed {
        let slices = (0..10_000).map(|index| {
            let mut slice = slice(&format!("service-{index}-1"), &["a"]);
            let service = format!("service-{index}");
            slice.metadata.labels = Some([(SERVICE.to_owned(), service)].into());
            slice
        });
        let mut feed = Feed::default();
        feed.take(Listed(slices.collect()));
        feed
    }

    #[test]
    fn a_change_costs_the_same_among_few_slices_and_many() {
        const CHANGES: u32 = 200;
        let mut feed = many();
        let changed = (0..CHANGES).map(|index| {
            let mut slice = slice(&format!("service-{index}-1"), &["b"]);
            slice.metadata.labels = Some([(SERVICE.to_owned(), format!("service-{index}"))].into());
            slice
        });
        let changed: Vec<_> = changed.collect();
        let began = Instant::now();
        let news: usize = changed.into_iter().map(|slice| feed.take(Applied(slice)).len()).sum();
        let each = began.elapsed() / CHANGES;
        println!("{each:>10.1?}  a change of one of ten thousand slices");
        assert_eq!(news, 200);
        assert!(each < Duration::from_micros(300), "{each:?}");
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
        assert!(take(Listed(vec![slice("web-4", &["d"])])).is_empty(), "in another slice");
        let changes = take(Listed(vec![]));
        assert_eq!(changes.len(), 1, "the Service that has lost all");
        assert!(ready(changes).is_empty());
        assert!(feed.services.is_empty() && feed.slices.is_empty(), "nothing is left behind");
    }

    #[test]
    fn a_slice_that_comes_to_another_service_is_taken_from_the_first() {
        let mut feed = Feed::default();
        feed.take(Listed(vec![slice("web-1", &["a"]), slice("web-2", &["b"])]));
        let mut moved = slice("web-2", &["b"]);
        moved.metadata.labels = Some([(SERVICE.to_owned(), "shop".to_owned())].into());
        let changes = feed.take(Applied(moved.clone()));
        let names: Vec<_> = changes.keys().map(|(_, name)| name.as_str()).collect();
        assert_eq!((names, ready(changes.clone())), (vec!["shop", "web"], strings(&["b", "a"])));
        moved.metadata.labels = None;
        assert_eq!(ready(feed.take(Applied(moved))), strings(&[]), "it is no Service's");
        assert_eq!(feed.slices.len(), 1);
    }

    fn strings(all: &[&str]) -> Vec<String> {
        all.iter().map(|it| (*it).to_owned()).collect()
    }
}

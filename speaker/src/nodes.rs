//! Watches Nodes and tells the engine what speaks for and against them.

use std::collections::BTreeMap;

use arpeggio_api::node::facts;
use arpeggio_election::{Event, Node, NodeFacts};
use crossbeam_channel::Sender;
use k8s_openapi::api::core::v1;
use kube::{
    Api, Client, ResourceExt as _,
    runtime::watcher::{self, Config},
};

use crate::{
    input::Input,
    watches::{self, Rewinds},
};

/// Runs until the engine ends. `obey_exclusion`: whether nodes can be excluded by their label.
pub(crate) async fn watch(
    client: Client,
    obey_exclusion: bool,
    rewinds: Rewinds,
    inputs: Sender<Input>,
) {
    let mut feed = Feed { obey_exclusion, ..Feed::default() };
    let nodes: Api<v1::Node> = Api::all(client);
    watches::follow("Nodes", nodes, Config::default(), rewinds, |event| {
        let is_list = matches!(event, watcher::Event::InitDone);
        let news = feed.take(event);
        !is_list && news.is_empty() || inputs.send(Input::Nodes(news)).is_ok()
    })
    .await;
}

/// Turns the watch's events into the engine's. A node reports every few minutes that it is well, which is no news.
#[derive(Debug, Default)]
struct Feed {
    obey_exclusion: bool,
    known: BTreeMap<Node, NodeFacts>,
    listed: BTreeMap<Node, NodeFacts>,
}

impl Feed {
    fn take(&mut self, event: watcher::Event<v1::Node>) -> Vec<Event> {
        match event {
            watcher::Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            watcher::Event::InitApply(node) => {
                self.listed.insert(name(&node), facts(&node, self.obey_exclusion));
                Vec::new()
            }
            watcher::Event::InitDone => self.list_done(),
            watcher::Event::Apply(node) => {
                let facts = facts(&node, self.obey_exclusion);
                self.learn(name(&node), facts).into_iter().collect()
            }
            watcher::Event::Delete(node) => {
                let node = name(&node);
                self.known.remove(&node);
                vec![Event::NodeGone(node)]
            }
        }
    }

    fn list_done(&mut self) -> Vec<Event> {
        let listed = std::mem::take(&mut self.listed);
        let gone: Vec<Node> =
            self.known.keys().filter(|node| !listed.contains_key(*node)).cloned().collect();
        gone.iter().for_each(|node| _ = self.known.remove(node));
        let news: Vec<Event> =
            listed.into_iter().filter_map(|(node, facts)| self.learn(node, facts)).collect();
        gone.into_iter().map(Event::NodeGone).chain(news).collect()
    }

    fn learn(&mut self, node: Node, facts: NodeFacts) -> Option<Event> {
        let before = self.known.insert(node.clone(), facts.clone());
        (before.as_ref() != Some(&facts)).then_some(Event::Node { node, facts })
    }
}

fn name(node: &v1::Node) -> Node {
    Node::from(node.name_any().as_str())
}

#[cfg(test)]
mod tests {
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};

    use super::*;

    fn node(name: &str, cordoned: bool) -> v1::Node {
        let mut node = v1::Node::default();
        node.metadata.name = Some(name.to_owned());
        node.spec = Some(v1::NodeSpec { unschedulable: Some(cordoned), ..v1::NodeSpec::default() });
        node
    }

    fn summary(events: Vec<Event>) -> Vec<String> {
        let text = |event| match event {
            Event::Node { node, facts } => format!("{node} {}", facts.cordoned),
            Event::NodeGone(node) => format!("{node} gone"),
            other => format!("{other:?}"),
        };
        events.into_iter().map(text).collect()
    }

    #[test]
    fn only_what_has_changed_is_told() {
        let mut feed = Feed::default();
        let mut take = |event| summary(feed.take(event));
        take(Init);
        take(InitApply(node("a", false)));
        take(InitApply(node("b", false)));
        assert_eq!(take(InitDone), ["a false", "b false"]);
        assert!(take(Apply(node("a", false))).is_empty(), "it is well, once more");
        assert_eq!(take(Apply(node("a", true))), ["a true"]);
        assert_eq!(take(Delete(node("b", false))), ["b gone"]);
        take(Init);
        take(InitApply(node("c", false)));
        assert_eq!(take(InitDone), ["a gone", "c false"]);
    }
}

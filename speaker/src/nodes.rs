//! Watches Nodes and tells the engine what speaks for and against them.

use std::collections::{BTreeMap, BTreeSet};

use arpeggio_api::node::{facts, slim};
use arpeggio_election::{Event, Node, NodeFacts};
use arpeggio_runtime::{
    health::Awaited,
    watch::{Change, Haste, UndecodableObjects, Watch},
};
use crossbeam_channel::Sender;
use k8s_openapi::api::core::v1;
use kube::{Api, Client, ResourceExt as _};

use crate::{
    input::Input,
    watches::{self, News, Rewinds},
};

/// Runs until the engine ends. `obey_exclusion`: whether nodes can be excluded by their label. `awaited` is told when all
/// have been listed.
pub(crate) async fn watch(
    client: Client,
    obey_exclusion: bool,
    awaited: Awaited,
    rewinds: Rewinds,
    (objects, inputs): (UndecodableObjects, Sender<Input>),
) {
    let mut feed = Feed { obey_exclusion, ..Feed::default() };
    let nodes = Watch::new(Api::all(client), watches::config(), Haste::Patient, awaited);
    let nodes = nodes.slimmed(slim).counted(&objects);
    watches::follow_if_shown(nodes, rewinds, |news| {
        // Decisions wait for them for a moment only.
        let News::Change(change) = news else { return true };
        let is_list = matches!(change, Change::Listed(_) | Change::ListedInPart { .. });
        let news = feed.take(change);
        !is_list && news.is_empty() || inputs.send(Input::Nodes(news)).is_ok()
    })
    .await;
}

/// Turns what the watch shows into the engine's events. A node reports every few minutes that it is well, which is no news.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    obey_exclusion: bool,
    known: BTreeMap<Node, NodeFacts>,
}

impl Feed {
    pub(crate) fn take(&mut self, change: Change<v1::Node>) -> Vec<Event> {
        match change {
            Change::Applied(node) => self.learn(&node).into_iter().collect(),
            Change::Deleted(node) => vec![self.forget(name(&node))],
            Change::Listed(nodes) => {
                let gone = self.forget_all_but(&nodes);
                let news = nodes.iter().filter_map(|node| self.learn(node));
                gone.into_iter().map(Event::NodeGone).chain(news).collect()
            }
            Change::ListedInPart { objects, gone } => {
                let names = gone.iter().filter_map(|it| it.name.as_deref()).map(Node::from);
                let gone: Vec<Event> = names.map(|node| self.forget(node)).collect();
                let news = objects.iter().filter_map(|node| self.learn(node));
                gone.into_iter().chain(news).collect()
            }
        }
    }

    fn forget(&mut self, node: Node) -> Event {
        self.known.remove(&node);
        Event::NodeGone(node)
    }

    /// Those that were known and are not among `nodes`.
    fn forget_all_but(&mut self, nodes: &[v1::Node]) -> Vec<Node> {
        let listed: BTreeSet<Node> = nodes.iter().map(name).collect();
        self.known.extract_if(.., |node, _| !listed.contains(node)).map(|(node, _)| node).collect()
    }

    fn learn(&mut self, node: &v1::Node) -> Option<Event> {
        let (node, facts) = (name(node), facts(node, self.obey_exclusion));
        let before = self.known.insert(node.clone(), facts.clone());
        (before.as_ref() != Some(&facts)).then_some(Event::Node { node, facts })
    }
}

fn name(node: &v1::Node) -> Node {
    Node::from(node.name_any().as_str())
}

#[cfg(test)]
mod tests {
    use Change::{Applied, Deleted, Listed, ListedInPart};

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
        let mut take = |change| summary(feed.take(change));
        let both = vec![node("a", false), node("b", false)];
        assert_eq!(take(Listed(both)), ["a false", "b false"]);
        assert!(take(Applied(node("a", false))).is_empty(), "it is well, once more");
        assert_eq!(take(Applied(node("a", true))), ["a true"]);
        assert_eq!(take(Deleted(node("b", false))), ["b gone"]);
        let in_part = |gone| ListedInPart { objects: vec![], gone };
        assert!(take(in_part(vec![])).is_empty(), "it may be among those not understood");
        take(Applied(node("b", false)));
        assert_eq!(take(in_part(vec![node("b", false).metadata])), ["b gone"]);
        assert_eq!(take(Listed(vec![node("c", false)])), ["a gone", "c false"]);
    }
}

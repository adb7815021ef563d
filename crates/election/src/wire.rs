//! Watching nodes on the wire.
//!
//! A deputy asks for the node's own address, which the node's kernel answers even while its speaker is busy or
//! restarts. Silence counts only of a node that used to answer, and only while the deputy hears somebody else: one that
//! hears nobody has lost its own cable.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use crate::{
    model::{Node, Timestamp},
    settings::{ANSWERS_TO_TRUST, Settings},
};

/// What one deputy hears.
#[derive(Debug, Default)]
pub(crate) struct WireWatch {
    peers: BTreeMap<Node, Peer>,
    due: Timestamp,
    gateway_answered: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Peer {
    answers: u32,
    last_answer: Option<Timestamp>,
    unanswered_since: Option<Timestamp>,
    outstanding: bool,
    misses: u32,
}

/// Whom to ask now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Probes {
    pub(crate) nodes: Vec<Node>,
    /// Somebody did not answer; ask the gateway too, to know whether it is us.
    pub(crate) gateway: bool,
}

impl WireWatch {
    /// When [`WireWatch::tick`] wants to be called next.
    pub(crate) fn due(&self) -> Timestamp {
        self.due
    }

    pub(crate) fn answered(&mut self, node: &Node, now: Timestamp) {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.answers = peer.answers.saturating_add(1);
            peer.last_answer = Some(now);
            peer.forgive();
        }
    }

    pub(crate) fn gateway_answered(&mut self, now: Timestamp) {
        self.gateway_answered = Some(now);
    }

    /// Counts the misses of the last round and starts the next, when it is time.
    pub(crate) fn tick(
        &mut self,
        now: Timestamp,
        targets: &BTreeSet<Node>,
        settings: &Settings,
    ) -> Probes {
        if now < self.due {
            return Probes::default();
        }
        // A late tick says that this process was starved, not that nobody answered.
        let starved = now.since(self.due) > settings.probe;
        self.due = now + settings.probe;
        self.peers.retain(|node, _| targets.contains(node));
        for node in targets {
            self.peers.entry(node.clone()).or_default().ask(now, starved);
        }
        let gateway = self.peers.values().any(|peer| peer.misses > 0);
        Probes { nodes: targets.iter().cloned().collect(), gateway }
    }

    /// Whether `node` used to answer and does not any more, while others do.
    pub(crate) fn silent(&self, node: &Node, settings: &Settings) -> bool {
        let Some(peer) = self.peers.get(node) else {
            return false;
        };
        let Some(since) = peer.unanswered_since else {
            return false;
        };
        peer.answers >= ANSWERS_TO_TRUST
            && peer.misses >= settings.misses
            && self.hears_others(node, since)
    }

    fn hears_others(&self, accused: &Node, since: Timestamp) -> bool {
        let others = self.peers.iter().filter(|(node, _)| *node != accused);
        others
            .map(|(_, peer)| peer.last_answer)
            .chain([self.gateway_answered])
            .any(|answer| answer >= Some(since))
    }
}

impl Peer {
    fn ask(&mut self, now: Timestamp, starved: bool) {
        if starved {
            self.forgive();
        } else if self.outstanding {
            self.misses = self.misses.saturating_add(1);
        }
        self.outstanding = true;
        self.unanswered_since.get_or_insert(now);
    }

    fn forgive(&mut self) {
        self.outstanding = false;
        self.misses = 0;
        self.unanswered_since = None;
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(millis))
    }

    /// Ticks every 100 ms from `from` to `to`; `answering` answer each probe after 1 ms.
    fn run(watch: &mut WireWatch, from: u64, to: u64, answering: &[&str]) {
        let targets = BTreeSet::from(["a".into(), "b".into()]);
        for now in (from..to).step_by(100) {
            watch.tick(at(now), &targets, &Settings::default());
            for name in answering {
                if *name == "gateway" {
                    watch.gateway_answered(at(now + 1));
                } else {
                    watch.answered(&Node::from(*name), at(now + 1));
                }
            }
        }
    }

    fn silent(watch: &WireWatch, name: &str) -> bool {
        watch.silent(&name.into(), &Settings::default())
    }

    #[test]
    fn three_misses_in_a_row_make_a_node_silent() {
        let mut watch = WireWatch::default();
        run(&mut watch, 1000, 2000, &["a", "b"]);
        run(&mut watch, 2000, 2300, &["b"]);
        assert!(!silent(&watch, "a"), "two misses are not enough");
        run(&mut watch, 2300, 2400, &["b"]);
        assert!(silent(&watch, "a") && !silent(&watch, "b"));
        run(&mut watch, 2400, 2500, &["a", "b"]);
        assert!(!silent(&watch, "a"), "an answer clears it");
    }

    #[test]
    fn who_never_answered_is_never_silent() {
        let mut watch = WireWatch::default();
        run(&mut watch, 1000, 5000, &["b"]);
        assert!(!silent(&watch, "a"));
    }

    #[test]
    fn who_hears_nobody_doubts_itself_until_the_gateway_answers() {
        let mut watch = WireWatch::default();
        run(&mut watch, 1000, 2000, &["a", "b"]);
        run(&mut watch, 2000, 3000, &[]);
        assert!(!silent(&watch, "a") && !silent(&watch, "b"));
        run(&mut watch, 3000, 3100, &["gateway"]);
        assert!(silent(&watch, "a") && silent(&watch, "b"));
    }

    #[test]
    fn the_gateway_is_asked_only_when_somebody_misses() {
        let mut watch = WireWatch::default();
        let targets = BTreeSet::from(["a".into()]);
        let ask = |watch: &mut WireWatch, now| watch.tick(at(now), &targets, &Settings::default());
        assert!(!ask(&mut watch, 1000).gateway);
        watch.answered(&"a".into(), at(1001));
        assert!(!ask(&mut watch, 1100).gateway);
        assert!(ask(&mut watch, 1200).gateway);
    }

    #[test]
    fn a_starved_process_counts_no_misses() {
        let mut watch = WireWatch::default();
        run(&mut watch, 1000, 2000, &["a", "b"]);
        for now in (2000..6000).step_by(500) {
            watch.answered(&"b".into(), at(now));
            watch.tick(at(now), &BTreeSet::from(["a".into(), "b".into()]), &Settings::default());
        }
        assert!(!silent(&watch, "a"));
    }
}

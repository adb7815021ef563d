//! Watching nodes on the wire.
//!
//! A deputy asks for the node's own address, which the node's kernel answers even while its speaker is busy or
//! restarts. Silence counts only of a node that used to answer, and only while the deputy hears somebody else: one that
//! hears nobody has lost its own cable, or is too busy to read what has come. So when a node misses a question, all others
//! are asked as well, and its silence counts when one of them has answered later than the node should have.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use crate::{
    model::{Node, Timestamp},
    peer::{Pace, Peer},
    settings::Settings,
};

/// How many times the usual misses it takes to accuse somebody when none of several nodes is heard.
const SELF_DOUBT: u32 = 3;

/// What one deputy hears.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct WireWatch {
    peers: BTreeMap<Node, Peer>,
    gateway_answered: Option<Timestamp>,
    /// Frames wait to be looked at.
    backlog: bool,
    /// A node has answered that was silent.
    heard_again: bool,
}

/// Whom to ask now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Probes {
    pub(crate) nodes: Vec<Node>,
    /// Somebody did not answer; ask the gateway too, to know whether it is us.
    pub(crate) gateway: bool,
}

impl WireWatch {
    /// When [`WireWatch::tick`] wants to be called next; `None` while nobody is watched.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.peers.values().map(Peer::due).min()
    }

    pub(crate) fn answered(&mut self, node: &Node, now: Timestamp, settings: &Settings) {
        if let Some(peer) = self.peers.get_mut(node) {
            self.heard_again |= peer.used_to_answer() && peer.misses() >= settings.misses;
            peer.answered(now, pace(settings));
        }
    }

    /// Whether a node has answered that was silent, since this was last asked.
    pub(crate) fn hears_somebody_again(&mut self) -> bool {
        core::mem::take(&mut self.heard_again)
    }

    /// Begins anew with a node: it must answer before its silence counts.
    pub(crate) fn forget(&mut self, node: &Node) {
        self.peers.remove(node);
    }

    /// This node could hear nobody: that nobody answered says nothing.
    pub(crate) fn excuse(&mut self) {
        self.peers.values_mut().for_each(Peer::excuse);
    }

    /// Frames wait to be looked at, the answers that are awaited perhaps among them.
    pub(crate) fn has_backlog(&mut self) {
        self.backlog = true;
    }

    /// Whether an answer is overdue.
    pub(crate) fn misses_somebody(&self, now: Timestamp) -> bool {
        self.peers.values().any(|peer| peer.asked().is_some() && peer.due() <= now)
    }

    pub(crate) fn gateway_answered(&mut self, now: Timestamp) {
        self.gateway_answered = Some(now);
    }

    /// Counts the answers that did not come in time, and says whom to ask. Who missed is asked again at once.
    pub(crate) fn tick(
        &mut self,
        now: Timestamp,
        targets: &BTreeSet<Node>,
        settings: &Settings,
    ) -> Probes {
        self.peers.retain(|node, _| targets.contains(node));
        let backlog = core::mem::take(&mut self.backlog);
        let mut probes = Probes::default();
        for node in targets {
            let peer = self.peers.entry(node.clone()).or_default();
            if peer.due() <= now && !(backlog && peer.wait(now, pace(settings))) {
                peer.ask(now, pace(settings));
                probes.gateway |= peer.misses() > 0;
                probes.nodes.push(node.clone());
            }
        }
        if probes.gateway {
            let idle = self.peers.iter_mut().filter(|(_, peer)| peer.asked().is_none());
            for (node, peer) in idle {
                peer.ask(now, pace(settings));
                probes.nodes.push(node.clone());
            }
        }
        probes
    }

    /// Whether `node` used to answer and does not any more, while others do.
    pub(crate) fn silent(&self, node: &Node, settings: &Settings) -> bool {
        let Some(peer) = self.peers.get(node) else { return false };
        let Some(missed) = peer.missed() else { return false };
        peer.used_to_answer()
            && peer.misses() >= self.misses_needed(node, missed, settings)
            && self.hears_others(node, missed)
    }

    /// Who watches several nodes and hears none of them, though a gateway, may be the one that is in trouble: its own
    /// processor is busy, or a part of the switch is down. It takes more to convince it.
    fn misses_needed(&self, accused: &Node, since: Timestamp, settings: &Settings) -> u32 {
        if self.peers.len() > 1 && !self.hears_peers(accused, since) {
            settings.misses.saturating_mul(SELF_DOUBT)
        } else {
            settings.misses
        }
    }

    /// Since when `node` is silent.
    pub(crate) fn silent_since(&self, node: &Node, settings: &Settings) -> Option<Timestamp> {
        let peer = self.peers.get(node).filter(|_| self.silent(node, settings))?;
        peer.unanswered_since()
    }

    /// Whether `node` has answered since `since`.
    pub(crate) fn heard_from(&self, node: &Node, since: Timestamp) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.last_answer() >= Some(since))
    }

    /// Whether anybody has answered since `since`.
    pub(crate) fn heard_since(&self, since: Timestamp) -> bool {
        let peers = self.peers.values().map(Peer::last_answer);
        peers.chain([self.gateway_answered]).any(|answer| answer >= Some(since))
    }

    fn hears_others(&self, accused: &Node, since: Timestamp) -> bool {
        self.gateway_answered >= Some(since) || self.hears_peers(accused, since)
    }

    fn hears_peers(&self, accused: &Node, since: Timestamp) -> bool {
        let mut others = self.peers.iter().filter(|(node, _)| *node != accused);
        others.any(|(_, peer)| peer.last_answer() >= Some(since))
    }
}

fn pace(settings: &Settings) -> Pace {
    Pace {
        interval: settings.probe,
        answer: settings.answer,
        most_misses: settings.misses.saturating_mul(SELF_DOUBT),
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(millis))
    }

    /// Ticks every 10 ms from `from` to `to`; `answering` answer each probe after 1 ms.
    fn run(watch: &mut WireWatch, from: u64, to: u64, answering: &[&str]) {
        let settings = Settings::default();
        let targets = BTreeSet::from(["a".into(), "b".into()]);
        for now in (from..to).step_by(10) {
            let probes = watch.tick(at(now), &targets, &settings);
            for node in probes.nodes.iter().filter(|node| answering.contains(&node.as_str())) {
                watch.answered(node, at(now + 1), &settings);
            }
            if probes.gateway && answering.contains(&"gateway") {
                watch.gateway_answered(at(now + 1));
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
        // Asked at 2000, again at 2050 and at 2100: the third is missed at 2150.
        run(&mut watch, 2000, 2150, &["b"]);
        assert!(!silent(&watch, "a"), "two misses are not enough");
        run(&mut watch, 2150, 2160, &["b"]);
        assert!(silent(&watch, "a") && !silent(&watch, "b"));
        run(&mut watch, 2160, 2260, &["a", "b"]);
        assert!(!silent(&watch, "a"), "an answer clears it");
    }

    #[test]
    fn a_node_that_answers_is_asked_at_the_slow_pace() {
        let mut watch = WireWatch::default();
        let (settings, targets) = (Settings::default(), BTreeSet::from(["a".into()]));
        let mut asked = Vec::new();
        for now in (1000..1500).step_by(10) {
            if !watch.tick(at(now), &targets, &settings).nodes.is_empty() {
                asked.push(now);
                watch.answered(&"a".into(), at(now + 1), &settings);
            }
        }
        assert_eq!(asked, [1000, 1100, 1200, 1300, 1400]);
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
    fn who_hears_the_gateway_and_none_of_several_nodes_takes_longer_to_accuse() {
        let mut watch = WireWatch::default();
        run(&mut watch, 1000, 2000, &["a", "b", "gateway"]);
        run(&mut watch, 2000, 2400, &["gateway"]);
        assert!(!silent(&watch, "a") && !silent(&watch, "b"));
        run(&mut watch, 2400, 2600, &["gateway"]);
        assert!(silent(&watch, "a") && silent(&watch, "b"));
    }

    #[test]
    fn who_could_hear_nobody_begins_anew() {
        let mut watch = WireWatch::default();
        run(&mut watch, 1000, 2000, &["a", "b"]);
        run(&mut watch, 2000, 5000, &[]);
        watch.excuse();
        run(&mut watch, 5000, 5100, &["gateway"]);
        assert!(!silent(&watch, "a"), "as if it had answered until now");
        run(&mut watch, 5100, 5600, &["gateway"]);
        assert!(silent(&watch, "a"));
    }

    #[test]
    fn the_gateway_is_asked_only_when_somebody_misses() {
        let mut watch = WireWatch::default();
        let (settings, targets) = (Settings::default(), BTreeSet::from(["a".into()]));
        let ask = |watch: &mut WireWatch, now| watch.tick(at(now), &targets, &settings);
        assert!(!ask(&mut watch, 1000).gateway);
        watch.answered(&"a".into(), at(1001), &settings);
        assert!(!ask(&mut watch, 1100).gateway);
        assert!(ask(&mut watch, 1150).gateway);
    }

    #[test]
    fn what_was_heard_before_the_last_question_says_nothing_of_its_answer() {
        let mut watch = WireWatch::default();
        run(&mut watch, 1000, 2000, &["a", "b"]);
        // Both are asked at 2000, one answer is read, and then none for a while, whoever may have answered.
        run(&mut watch, 2000, 2010, &["b"]);
        run(&mut watch, 2010, 2500, &[]);
        assert!(!silent(&watch, "a"));
        run(&mut watch, 2500, 2600, &["gateway", "b"]);
        assert!(silent(&watch, "a"));
    }

    #[test]
    fn when_one_misses_the_others_are_asked_with_it() {
        let mut watch = WireWatch::default();
        let (settings, targets) = (Settings::default(), BTreeSet::from(["a".into(), "b".into()]));
        watch.tick(at(1000), &targets, &settings);
        watch.answered(&"b".into(), at(1001), &settings);
        let asked = watch.tick(at(1050), &targets, &settings).nodes;
        assert_eq!(asked, ["a".into(), "b".into()]);
    }

    #[test]
    fn an_answer_that_may_have_come_is_waited_for_but_not_for_ever() {
        let (settings, targets) = (Settings::default(), BTreeSet::from(["a".into(), "b".into()]));
        // With as long a backlog; who answers is heard when it is over.
        let silent_after = |backlog: u64, a_answers: bool| {
            let mut watch = WireWatch::default();
            run(&mut watch, 1000, 2000, &["a", "b"]);
            (2000..4000).step_by(5).find(|now| {
                let over = *now >= 2000 + backlog;
                if !over {
                    watch.has_backlog();
                }
                for node in watch.tick(at(*now), &targets, &settings).nodes {
                    if over && (node != "a".into() || a_answers) {
                        watch.answered(&node, at(now + 1), &settings);
                    }
                }
                if over {
                    watch.gateway_answered(at(now + 1));
                }
                silent(&watch, "a")
            })
        };
        assert_eq!(silent_after(140, true), None, "it was busy for longer than three answers take");
        assert!(silent_after(140, false).is_some_and(|at| at <= 2350));
        assert!(silent_after(1000, false).is_some_and(|at| at >= 3000), "it has heard nobody");
        assert!(silent_after(1000, false).is_some_and(|at| at <= 3100), "a flood is no excuse");
    }

    #[test]
    fn a_starved_process_counts_no_misses() {
        let mut watch = WireWatch::default();
        let (settings, targets) = (Settings::default(), BTreeSet::from(["a".into(), "b".into()]));
        run(&mut watch, 1000, 2000, &["a", "b"]);
        for now in (2000..6000).step_by(500) {
            watch.answered(&"b".into(), at(now), &settings);
            watch.tick(at(now), &targets, &settings);
        }
        assert!(!silent(&watch, "a"));
    }
}

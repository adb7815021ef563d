//! Watching nodes on the wire.
//!
//! A deputy asks for the node's own address, which the node's kernel answers even while its speaker is busy or
//! restarts. Silence counts only of a node that used to answer, and only while the deputy hears somebody else: one that
//! hears nobody has lost its own cable, or is too busy to read what has come. So when such a node misses a question, all
//! others are asked as well, and its silence counts when one of them has answered later than the node should have.
//!
//! The others are, beside the nodes that this one watches, some of which it only needs to know whether they can be heard:
//! the fellows that would have to confirm what it says, and a few neighbours. These are asked seldom while all is well, and
//! so is who has never answered.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use crate::{
    model::{Node, Timestamp},
    questions::{Pace, Peer},
    settings::{Profile, Settings},
};

/// How many times as long as others it takes until those are asked that are not watched, or have never answered.
const SELDOM: u32 = 10;

/// How many times the usual misses it takes to accuse somebody when none of several nodes is heard.
const SELF_DOUBT: u32 = 3;

/// What one deputy hears.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct WireWatch {
    peers: BTreeMap<Node, Peer>,
    /// Of those that are not asked as everybody.
    profiles: BTreeMap<Node, Profile>,
    gateway_answered: Option<Timestamp>,
    /// Frames wait to be looked at.
    backlog: bool,
    /// A node has answered that was silent.
    heard_again: bool,
}

/// Whom to ask.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Targets<'a> {
    /// The nodes that are watched.
    pub(crate) charges: &'a BTreeSet<Node>,
    /// The nodes of which it is only to be known whether they are heard.
    pub(crate) others: &'a BTreeSet<Node>,
}

impl Targets<'_> {
    fn contain(&self, node: &Node) -> bool {
        self.charges.contains(node) || self.others.contains(node)
    }
}

/// Whom to ask now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Probes {
    /// By unicast.
    pub(crate) nodes: Vec<Node>,
    /// Those whose silence counts if they miss this question, too: everybody is asked for them, since their MAC address may
    /// be another one by now.
    pub(crate) anywhere: Vec<Node>,
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
            let misses = profile_of(&self.profiles, node, settings).misses;
            self.heard_again |= peer.used_to_answer() && peer.misses() >= misses;
            peer.answered(now);
        }
    }

    /// Asks a node in another way than everybody, or no more so.
    pub(crate) fn ask_by(&mut self, node: Node, profile: Option<Profile>) {
        match profile {
            Some(profile) => _ = self.profiles.insert(node, profile),
            None => _ = self.profiles.remove(&node),
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

    /// A node has renewed its session, which this one had accused of being silent. Twice, and it is the way to it that is
    /// broken: it must answer before its silence counts again.
    pub(crate) fn disprove(&mut self, node: &Node) {
        if self.peers.get_mut(node).is_some_and(Peer::is_disproved_again) {
            self.peers.remove(node);
        }
    }

    /// This node could hear nobody: that nobody answered says nothing.
    pub(crate) fn excuse(&mut self) {
        self.peers.values_mut().for_each(Peer::excuse);
    }

    /// The question to a node could not be sent.
    pub(crate) fn unasked(&mut self, node: &Node) {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.unasked();
        }
    }

    /// Frames wait to be looked at, the answers that are awaited perhaps among them.
    pub(crate) fn has_backlog(&mut self) {
        self.backlog = true;
    }

    /// Whether an answer is overdue.
    pub(crate) fn misses_somebody(&self, now: Timestamp) -> bool {
        self.peers.values().any(|peer| peer.asked().is_some() && peer.due() <= now)
    }

    /// Whether `node` has missed a question.
    pub(crate) fn misses(&self, node: &Node) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.misses() > 0)
    }

    pub(crate) fn gateway_answered(&mut self, now: Timestamp) {
        self.gateway_answered = Some(now);
    }

    /// Counts the answers that did not come in time, and says whom to ask. Who missed is asked again at once.
    pub(crate) fn tick(
        &mut self,
        now: Timestamp,
        targets: Targets<'_>,
        settings: &Settings,
    ) -> Probes {
        self.peers.retain(|node, _| targets.contain(node));
        let backlog = core::mem::take(&mut self.backlog);
        let (mut probes, mut somebody_misses) = (Probes::default(), false);
        for node in targets.charges.iter().chain(targets.others.difference(targets.charges)) {
            let peer = self.peers.entry(node.clone()).or_default();
            let is_charge = targets.charges.contains(node);
            let profile = profile_of(&self.profiles, node, settings);
            let pace = pace_of(peer, is_charge, profile, settings);
            peer.keep_pace(now, pace);
            if peer.due() <= now && !(backlog && peer.wait(now, pace)) {
                ask(node, peer, now, pace, &mut probes);
                somebody_misses |= is_charge && peer.used_to_answer() && peer.misses() > 0;
            }
        }
        if somebody_misses {
            probes.gateway = true;
            let idle = self.peers.iter_mut();
            let waits = |peer: &Peer| peer.asked().is_none() || peer.rests();
            let idle = idle.filter(|(_, peer)| waits(peer) && peer.asked() != Some(now));
            for (node, peer) in idle {
                let profile = profile_of(&self.profiles, node, settings);
                let pace = pace_of(peer, targets.charges.contains(node), profile, settings);
                ask(node, peer, now, pace, &mut probes);
            }
        }
        probes
    }

    /// The nodes out of `charges` that have answered so often that their silence would say something.
    pub(crate) fn heard(&self, charges: &BTreeSet<Node>) -> BTreeSet<Node> {
        let is_heard = |node: &&Node| self.peers.get(*node).is_some_and(Peer::used_to_answer);
        charges.iter().filter(is_heard).cloned().collect()
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
        let misses = profile_of(&self.profiles, accused, settings).misses;
        let known = self.peers.values().filter(|peer| peer.used_to_answer()).count();
        if known > 1 && !self.hears_peers(accused, since) {
            misses.saturating_mul(SELF_DOUBT)
        } else {
            misses
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

/// Asks a peer, and says how.
fn ask(node: &Node, peer: &mut Peer, now: Timestamp, pace: Pace, probes: &mut Probes) {
    peer.ask(now, pace);
    let is_last = peer.used_to_answer() && peer.misses() + 1 == pace.misses;
    if is_last {
        probes.anywhere.push(node.clone());
    } else {
        probes.nodes.push(node.clone());
    }
}

fn profile_of(profiles: &BTreeMap<Node, Profile>, node: &Node, settings: &Settings) -> Profile {
    profiles.get(node).copied().unwrap_or_else(|| settings.profile())
}

fn pace_of(peer: &Peer, is_charge: bool, profile: Profile, settings: &Settings) -> Pace {
    let Profile { probe, answer, misses } = profile;
    let often = is_charge || !peer.used_to_answer();
    // Who is not watched is asked as seldom, whatever its link.
    let seldom = settings.probe * SELDOM;
    Pace {
        interval: if often { probe } else { seldom },
        answer,
        most_misses: misses.saturating_mul(SELF_DOUBT),
        patience: settings.session,
        rest: seldom,
        often: probe,
        misses,
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(millis))
    }

    /// Asks for these nodes, all of which are watched.
    fn tick(watch: &mut WireWatch, now: u64, nodes: &[&str]) -> Probes {
        let charges = nodes.iter().map(|node| Node::from(*node)).collect();
        let others = BTreeSet::new();
        watch.tick(at(now), Targets { charges: &charges, others: &others }, &Settings::default())
    }

    fn asked(probes: &Probes) -> Vec<Node> {
        let mut asked = [&probes.nodes[..], &probes.anywhere].concat();
        asked.sort();
        asked
    }

    /// Ticks every 10 ms from `from` to `to`; `answering` answer each probe after 1 ms.
    fn run(watch: &mut WireWatch, from: u64, to: u64, answering: &[&str]) {
        let settings = Settings::default();
        for now in (from..to).step_by(10) {
            let probes = tick(watch, now, &["a", "b"]);
            for node in asked(&probes).iter().filter(|node| answering.contains(&node.as_str())) {
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
        let mut asked = Vec::new();
        for now in (1000..1500).step_by(10) {
            if !tick(&mut watch, now, &["a"]).nodes.is_empty() {
                asked.push(now);
                watch.answered(&"a".into(), at(now + 1), &Settings::default());
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
    fn who_could_not_be_asked_has_missed_nothing() {
        let mut watch = WireWatch::default();
        run(&mut watch, 1000, 2000, &["a", "b"]);
        for now in (2000..5000).step_by(10) {
            let probes = tick(&mut watch, now, &["a", "b"]);
            assert!(!probes.gateway, "nobody is missed");
            asked(&probes).iter().for_each(|node| watch.unasked(node));
        }
        watch.gateway_answered(at(5000));
        assert!(!silent(&watch, "a"));
        run(&mut watch, 5000, 5200, &["gateway", "b"]);
        assert!(silent(&watch, "a"), "it was asked three times");
    }

    #[test]
    fn the_gateway_is_asked_only_when_one_misses_that_used_to_answer() {
        let (mut watch, settings) = (WireWatch::default(), Settings::default());
        for now in [1000, 1100, 1200] {
            assert!(!tick(&mut watch, now, &["a"]).gateway);
            watch.answered(&"a".into(), at(now + 1), &settings);
        }
        assert!(!tick(&mut watch, 1300, &["a"]).gateway);
        assert!(tick(&mut watch, 1350, &["a"]).gateway);
    }

    #[test]
    fn who_cannot_be_heard_is_asked_seldom_and_costs_nobody_anything() {
        let mut watch = WireWatch::default();
        let (mut questions, mut others) = (0, 0);
        for now in (1000..21_000).step_by(10) {
            let probes = tick(&mut watch, now, &["a", "b"]);
            assert!(!probes.gateway && probes.anywhere.is_empty(), "{probes:?}");
            questions += probes.nodes.iter().filter(|node| **node == "a".into()).count();
            others += probes.nodes.iter().filter(|node| **node == "b".into()).count();
            watch.answered(&"b".into(), at(now + 1), &Settings::default());
        }
        assert!((20..=26).contains(&questions), "{questions} questions in 20 s");
        assert_eq!(others, 200, "the other one is asked as ever");
    }

    #[test]
    fn the_last_question_before_silence_counts_is_put_to_everybody() {
        let mut watch = WireWatch::default();
        run(&mut watch, 1000, 2000, &["a", "b"]);
        let put = |watch: &mut WireWatch, now| tick(watch, now, &["a"]).anywhere.len();
        assert_eq!([2000, 2050, 2100, 2150, 2200].map(|now| put(&mut watch, now)), [0, 0, 1, 0, 0]);
    }

    #[test]
    fn those_that_are_not_watched_are_asked_seldom_but_with_one_that_misses() {
        let (mut watch, settings) = (WireWatch::default(), Settings::default());
        let (charges, others) = (BTreeSet::from(["a".into()]), BTreeSet::from(["c".into()]));
        let targets = Targets { charges: &charges, others: &others };
        let mut of_c = Vec::new();
        for now in (1000..4500).step_by(10) {
            for node in asked(&watch.tick(at(now), targets, &settings)) {
                if node == "c".into() {
                    of_c.push(now);
                }
                if node == "c".into() || now < 4000 {
                    watch.answered(&node, at(now + 1), &settings);
                }
            }
        }
        assert_eq!(of_c[..7], [1000, 1100, 1200, 1300, 2300, 3300, 4050]);
        assert!(silent(&watch, "a"), "the one that is not watched was heard");
    }

    #[test]
    fn who_is_watched_from_now_on_is_asked_as_often_from_now_on() {
        let (mut watch, settings) = (WireWatch::default(), Settings::default());
        let (a, none) = (BTreeSet::from(["a".into()]), BTreeSet::new());
        let mut asked_at = Vec::new();
        for now in (1000..3000).step_by(10) {
            let watched = now >= 2000;
            let (charges, others) = if watched { (&a, &none) } else { (&none, &a) };
            let probes = watch.tick(at(now), Targets { charges, others }, &settings);
            if !asked(&probes).is_empty() {
                asked_at.push(now);
                watch.answered(&"a".into(), at(now + 1), &settings);
            }
        }
        let since: Vec<u64> = asked_at.into_iter().filter(|now| *now >= 1300).collect();
        assert_eq!(since[..4], [1300, 2100, 2200, 2300]);
    }

    #[test]
    fn each_node_is_judged_by_its_own_profile() {
        let table = [
            (None, 2150),
            (Some(Profile::FAST), 2080),
            (Some(Profile::STANDARD), 2150),
            (Some(Profile::PATIENT), 2800),
        ];
        for (profile, expected) in table {
            let mut watch = WireWatch::default();
            watch.ask_by("a".into(), profile);
            run(&mut watch, 1000, 2000, &["a", "b"]);
            let silent_at = (2000..4000).step_by(10).find(|now| {
                run(&mut watch, *now, now + 10, &["b", "gateway"]);
                silent(&watch, "a")
            });
            assert_eq!(silent_at, Some(expected), "{profile:?}");
            assert!(!silent(&watch, "b"));
        }
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
        run(&mut watch, 1000, 2000, &["a", "b"]);
        tick(&mut watch, 2000, &["a", "b"]);
        watch.answered(&"b".into(), at(2001), &Settings::default());
        assert_eq!(asked(&tick(&mut watch, 2050, &["a", "b"])), ["a".into(), "b".into()]);
    }

    #[test]
    fn an_answer_that_may_have_come_is_waited_for_but_not_for_ever() {
        let settings = Settings::default();
        // With as long a backlog; who answers is heard when it is over.
        let silent_after = |backlog: u64, a_answers: bool| {
            let mut watch = WireWatch::default();
            run(&mut watch, 1000, 2000, &["a", "b"]);
            (2000..4000).step_by(5).find(|now| {
                let over = *now >= 2000 + backlog;
                if !over {
                    watch.has_backlog();
                }
                for node in asked(&tick(&mut watch, *now, &["a", "b"])) {
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
        run(&mut watch, 1000, 2000, &["a", "b"]);
        for now in (2000..6000).step_by(500) {
            watch.answered(&"b".into(), at(now), &Settings::default());
            tick(&mut watch, now, &["a", "b"]);
        }
        assert!(!silent(&watch, "a"));
    }
}

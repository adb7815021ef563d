//! Watching nodes on the wire.
//!
//! A deputy asks for the node's own address, which the node's kernel answers even while its speaker is busy or
//! restarts. Silence counts only of a node that used to answer, and only while the deputy hears somebody else: one that
//! hears nobody has lost its own cable, or is too busy to read what has come. So when such a node misses a question, all
//! others are asked as well, and its silence counts when one of them has answered later than the node should have.
//!
//! All of that is of one interface, the one on which the node is asked. Of several cards one can be dead while the others are
//! well, so what comes in by another one neither shows that this node would have heard an answer, nor that the node used to answer.
//! Only where nobody but the node is to be heard there, what comes in elsewhere has to do.
//!
//! The others are, beside the nodes that this one watches, some of which it only needs to know whether they can be heard:
//! the fellows that would have to confirm what it says, and a few neighbours. These are asked seldom while all is well, and
//! so is who has never answered.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};

use crate::{
    earshot::Earshot,
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
    ways: BTreeMap<Node, Way>,
    earshot: Earshot,
    /// Frames wait to be looked at.
    backlog: bool,
    /// A node has answered that was silent.
    heard_again: bool,
}

/// How one node is asked.
#[derive(Debug, Clone, Default, Hash)]
struct Way {
    /// On which interface.
    interface: String,
    /// On which others it used to answer.
    answered_on: BTreeSet<String>,
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
    /// Where somebody did not answer; ask others there too, to know whether it is us.
    pub(crate) missed_on: BTreeSet<String>,
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

    /// On which interface `node` is asked from now on. What it has answered on another one says nothing of this one.
    pub(crate) fn asked_on(&mut self, node: Node, interface: String) {
        let Some(way) = self.ways.get_mut(&node) else {
            self.ways.insert(node, Way { interface, ..Way::default() });
            return;
        };
        if way.interface == interface {
            return;
        }
        let before = core::mem::replace(&mut way.interface, interface);
        let used_to_answer = way.answered_on.remove(&way.interface);
        if let Some(peer) = self.peers.get_mut(&node) {
            way.answered_on.extend(peer.used_to_answer().then_some(before));
            peer.begin_anew(used_to_answer);
        }
    }

    /// On which interface `node` is asked.
    fn interface_of(&self, node: &Node) -> Option<&str> {
        self.ways.get(node).map(|way| way.interface.as_str())
    }

    /// A node was heard on an interface, whether or not it is asked there.
    pub(crate) fn heard_on(&mut self, interface: String, node: Node, now: Timestamp) {
        self.earshot.node(interface, node, now);
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
        self.ways.remove(node);
    }

    /// A node has renewed its session, which this one had accused of being silent. Twice, and it is the way to it that is
    /// broken: it must answer before its silence counts again.
    pub(crate) fn disprove(&mut self, node: &Node) {
        if self.peers.get_mut(node).is_some_and(Peer::is_disproved_again) {
            self.forget(node);
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

    pub(crate) fn gateway_answered(&mut self, interface: String, now: Timestamp) {
        self.earshot.gateway(interface, now);
    }

    /// Counts the answers that did not come in time, and says whom to ask. Who missed is asked again at once.
    pub(crate) fn tick(
        &mut self,
        now: Timestamp,
        targets: Targets<'_>,
        settings: &Settings,
    ) -> Probes {
        self.peers.retain(|node, _| targets.contain(node));
        self.ways.retain(|node, _| targets.contain(node));
        self.earshot.forget(settings.session, now);
        let backlog = core::mem::take(&mut self.backlog);
        let mut probes = Probes::default();
        for node in targets.charges.iter().chain(targets.others.difference(targets.charges)) {
            let peer = self.peers.entry(node.clone()).or_default();
            let is_charge = targets.charges.contains(node);
            let profile = profile_of(&self.profiles, node, settings);
            let pace = pace_of(peer, is_charge, profile, settings);
            peer.keep_pace(now, pace);
            if peer.due() <= now && !(backlog && peer.wait(now, pace)) {
                ask(node, peer, now, pace, &mut probes);
                if is_charge && peer.used_to_answer() && peer.misses() > 0 {
                    probes.missed_on.extend(self.ways.get(node).map(|way| way.interface.clone()));
                }
            }
        }
        if !probes.missed_on.is_empty() {
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
    pub(crate) fn heard(
        &self,
        charges: &BTreeSet<Node>,
        is_alone_with: impl Fn(&Node, &str) -> bool,
        settings: &Settings,
    ) -> BTreeSet<Node> {
        let is_heard = |node: &&Node| {
            let peer = self.peers.get(*node).filter(|peer| peer.used_to_answer());
            peer.is_some_and(|peer| !self.is_deaf_to(node, peer, &is_alone_with, settings))
        };
        charges.iter().filter(is_heard).cloned().collect()
    }

    /// Whether this node hears neither a peer nor anybody else on the interface where it asks for it: others would wait in vain
    /// for its word.
    fn is_deaf_to(
        &self,
        node: &Node,
        peer: &Peer,
        is_alone_with: impl Fn(&Node, &str) -> bool,
        settings: &Settings,
    ) -> bool {
        let would_hear = |missed| self.would_hear(node, missed, &is_alone_with);
        self.is_long_missed(node, peer, settings)
            && peer.missed().is_some_and(|missed| !would_hear(missed))
    }

    /// Whether a node that this one asks on an interface used to answer there, and has not for so long that even who hears nobody would
    /// take it for silent.
    pub(crate) fn has_long_missed(
        &self,
        node: &Node,
        interface: &str,
        settings: &Settings,
    ) -> bool {
        let peer = self.peers.get(node).filter(|peer| peer.used_to_answer());
        self.interface_of(node).is_some_and(|it| it == interface)
            && peer.is_some_and(|peer| self.is_long_missed(node, peer, settings))
    }

    fn is_long_missed(&self, node: &Node, peer: &Peer, settings: &Settings) -> bool {
        let misses = profile_of(&self.profiles, node, settings).misses;
        peer.misses() >= misses.saturating_mul(SELF_DOUBT)
    }

    /// Whether `node` used to answer and does not any more, while others do. `is_alone_with`: nobody but this node is to be heard on
    /// an interface.
    pub(crate) fn silent(
        &self,
        node: &Node,
        is_alone_with: impl Fn(&Node, &str) -> bool,
        settings: &Settings,
    ) -> bool {
        let Some(peer) = self.peers.get(node) else { return false };
        let Some(missed) = peer.missed() else { return false };
        peer.used_to_answer()
            && peer.misses() >= self.misses_needed(node, missed, settings)
            && self.would_hear(node, missed, is_alone_with)
    }

    /// Who watches several nodes and hears none of them, though a gateway, may be the one that is in trouble: its own
    /// processor is busy, or a part of the switch is down. It takes more to convince it.
    fn misses_needed(&self, accused: &Node, since: Timestamp, settings: &Settings) -> u32 {
        let misses = profile_of(&self.profiles, accused, settings).misses;
        let interface = self.interface_of(accused);
        let there = self.peers.iter().filter(|(node, _)| self.interface_of(node) == interface);
        let known = there.filter(|(_, peer)| peer.used_to_answer()).count();
        if known > 1 && !self.hears_peers(accused, since) {
            misses.saturating_mul(SELF_DOUBT)
        } else {
            misses
        }
    }

    /// Since when a node is unanswered that is silent.
    pub(crate) fn unanswered_since(&self, node: &Node) -> Option<Timestamp> {
        self.peers.get(node)?.unanswered_since()
    }

    /// Whether `node` has answered since `since`.
    pub(crate) fn heard_from(&self, node: &Node, since: Timestamp) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.last_answer() >= Some(since))
    }

    /// Who was heard where.
    pub(crate) fn earshot(&self) -> &Earshot {
        &self.earshot
    }

    /// Whether this node would have heard `accused` since `since`: it hears somebody else where that one is asked. Where nobody else
    /// is to be heard, it is enough that it hears somebody elsewhere.
    fn would_hear(
        &self,
        accused: &Node,
        since: Timestamp,
        is_alone_with: impl Fn(&Node, &str) -> bool,
    ) -> bool {
        let Some(interface) = self.interface_of(accused) else { return false };
        self.earshot.hears_gateway(interface, since)
            || self.hears_peers(accused, since)
            || self.earshot.hears_others_anywhere(accused, since)
                && is_alone_with(accused, interface)
    }

    fn hears_peers(&self, accused: &Node, since: Timestamp) -> bool {
        let interface = self.interface_of(accused);
        interface.is_some_and(|it| self.earshot.hears_another(it, accused, since))
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

    const ETH0: &str = "eth0";
    const ETH1: &str = "eth1";

    /// Asks for these nodes, all of which are watched.
    fn tick(watch: &mut WireWatch, now: u64, nodes: &[&str]) -> Probes {
        let charges = nodes.iter().map(|node| Node::from(*node)).collect();
        let others = BTreeSet::new();
        watch.tick(at(now), Targets { charges: &charges, others: &others }, &Settings::default())
    }

    /// A node answers on the interface where it is asked: the first one, if it has no other.
    fn answers(watch: &mut WireWatch, node: &Node, now: u64) {
        let interface = String::from(watch.interface_of(node).unwrap_or(ETH0));
        watch.asked_on(node.clone(), interface.clone());
        watch.heard_on(interface, node.clone(), at(now));
        watch.answered(node, at(now), &Settings::default());
    }

    fn asked(probes: &Probes) -> Vec<Node> {
        let mut asked = [&probes.nodes[..], &probes.anywhere].concat();
        asked.sort();
        asked
    }

    /// Ticks every 10 ms from `from` to `to`; `answering` answer each probe after 1 ms.
    fn run(watch: &mut WireWatch, from: u64, to: u64, answering: &[&str]) {
        for now in (from..to).step_by(10) {
            let probes = tick(watch, now, &["a", "b"]);
            for node in asked(&probes).iter().filter(|node| answering.contains(&node.as_str())) {
                answers(watch, node, now + 1);
            }
            if !probes.missed_on.is_empty() && answering.contains(&"gateway") {
                watch.gateway_answered(ETH0.into(), at(now + 1));
            }
        }
    }

    fn silent(watch: &WireWatch, name: &str) -> bool {
        watch.silent(&name.into(), |_, _| false, &Settings::default())
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
                answers(&mut watch, &"a".into(), now + 1);
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
            assert!(probes.missed_on.is_empty(), "nobody is missed");
            asked(&probes).iter().for_each(|node| watch.unasked(node));
        }
        watch.gateway_answered(ETH0.into(), at(5000));
        assert!(!silent(&watch, "a"));
        run(&mut watch, 5000, 5200, &["gateway", "b"]);
        assert!(silent(&watch, "a"), "it was asked three times");
    }

    #[test]
    fn others_are_asked_only_when_one_misses_that_used_to_answer() {
        let mut watch = WireWatch::default();
        let missed_on = |watch: &mut WireWatch, now| tick(watch, now, &["a"]).missed_on;
        for now in [1000, 1100, 1200] {
            assert_eq!(missed_on(&mut watch, now), BTreeSet::new());
            answers(&mut watch, &"a".into(), now + 1);
        }
        assert_eq!(missed_on(&mut watch, 1300), BTreeSet::new());
        assert_eq!(missed_on(&mut watch, 1350), BTreeSet::from([ETH0.into()]));
    }

    #[test]
    fn who_cannot_be_heard_is_asked_seldom_and_costs_nobody_anything() {
        let mut watch = WireWatch::default();
        let (mut questions, mut others) = (0, 0);
        for now in (1000..21_000).step_by(10) {
            let probes = tick(&mut watch, now, &["a", "b"]);
            assert!(probes.missed_on.is_empty() && probes.anywhere.is_empty(), "{probes:?}");
            questions += probes.nodes.iter().filter(|node| **node == "a".into()).count();
            others += probes.nodes.iter().filter(|node| **node == "b".into()).count();
            answers(&mut watch, &"b".into(), now + 1);
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
                    answers(&mut watch, &node, now + 1);
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
                answers(&mut watch, &"a".into(), now + 1);
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
        answers(&mut watch, &"b".into(), 2001);
        assert_eq!(asked(&tick(&mut watch, 2050, &["a", "b"])), ["a".into(), "b".into()]);
    }

    #[test]
    fn an_answer_that_may_have_come_is_waited_for_but_not_for_ever() {
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
                        answers(&mut watch, &node, now + 1);
                    }
                }
                if over {
                    watch.gateway_answered(ETH0.into(), at(now + 1));
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
            answers(&mut watch, &"b".into(), now);
            tick(&mut watch, now, &["a", "b"]);
        }
        assert!(!silent(&watch, "a"));
    }

    /// Where `a` is asked on one interface and `b` on another.
    fn on_two() -> WireWatch {
        let mut watch = WireWatch::default();
        watch.asked_on("b".into(), ETH1.into());
        run(&mut watch, 1000, 2000, &["a", "b"]);
        watch
    }

    #[test]
    fn only_who_is_heard_on_the_same_interface_makes_a_node_silent() {
        for heard in [&["b"][..], &["b", "gateway"]] {
            let mut watch = on_two();
            run(&mut watch, 2000, 3000, heard);
            assert_eq!(silent(&watch, "a"), heard.contains(&"gateway"), "{heard:?}");
        }
        let mut watch = on_two();
        run(&mut watch, 2000, 3000, &["a", "gateway"]);
        assert!(!silent(&watch, "b"), "the gateway and a are on the other one");
        watch.heard_on(ETH1.into(), "c".into(), at(3000));
        assert!(silent(&watch, "b"), "so is c, but it was heard there as well");
    }

    #[test]
    fn who_misses_the_only_node_on_an_interface_and_hears_a_gateway_there_has_no_doubts() {
        let mut watch = on_two();
        run(&mut watch, 2000, 2160, &["b", "gateway"]);
        assert!(silent(&watch, "a"));
    }

    #[test]
    fn what_was_answered_on_another_interface_makes_nobody_silent() {
        let mut watch = WireWatch::default();
        run(&mut watch, 1000, 2000, &["a", "b"]);
        watch.asked_on("a".into(), ETH1.into());
        for now in (2000..6000).step_by(10) {
            run(&mut watch, now, now + 10, &["b"]);
            watch.heard_on(ETH1.into(), "c".into(), at(now));
        }
        assert!(!silent(&watch, "a"), "it has never answered there");
        run(&mut watch, 6000, 8000, &["a", "b"]);
        run(&mut watch, 8000, 8400, &["b"]);
        watch.heard_on(ETH1.into(), "c".into(), at(8400));
        assert!(silent(&watch, "a"));
    }

    #[test]
    fn what_was_answered_on_an_interface_counts_when_the_node_is_asked_there_again() {
        let mut watch = WireWatch::default();
        run(&mut watch, 1000, 2000, &["a", "b"]);
        watch.asked_on("a".into(), ETH1.into());
        run(&mut watch, 2000, 2200, &["b"]);
        watch.asked_on("a".into(), ETH0.into());
        assert!(!silent(&watch, "a"), "it has missed nothing here");
        run(&mut watch, 2200, 2600, &["b"]);
        assert!(silent(&watch, "a"));
        watch.forget(&"a".into());
        run(&mut watch, 2600, 3600, &["b"]);
        assert!(!silent(&watch, "a"), "all is forgotten");
    }

    #[test]
    fn where_nobody_else_is_to_be_heard_it_is_enough_to_hear_somebody_elsewhere() {
        let mut watch = on_two();
        run(&mut watch, 2000, 3000, &["a"]);
        let b = "b".into();
        let silent = |is_alone| watch.silent(&b, |_, _| is_alone, &Settings::default());
        assert_eq!([false, true].map(silent), [false, true]);
    }

    #[test]
    fn nobody_is_named_on_an_interface_where_nobody_is_heard() {
        let charges = BTreeSet::from(["a".into(), "b".into()]);
        let heard = |watch: &WireWatch| watch.heard(&charges, |_, _| false, &Settings::default());
        let mut watch = on_two();
        run(&mut watch, 2000, 2200, &["b"]);
        assert_eq!(heard(&watch), charges, "a few frames may have been lost");
        run(&mut watch, 2200, 3000, &["b"]);
        assert_eq!(heard(&watch), BTreeSet::from(["b".into()]));
        run(&mut watch, 3000, 3500, &["b", "gateway"]);
        assert_eq!(heard(&watch), charges, "its silence says something");
    }
}

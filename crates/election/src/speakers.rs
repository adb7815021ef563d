//! Watching speakers on the wire.
//!
//! A node's kernel answers for the node's own address also while its speaker is stuck, and then nobody answers for what
//! the node holds. So a deputy asks the speaker now and then, for one address of each way on which it has to answer: a
//! speaker may go on answering by one interface, or one protocol, and not by another. Its silence counts only
//!
//! * after it used to answer for this very address, on the same terms;
//! * while the node's kernel is heard: then the way there and back is whole, and the deputy hears;
//! * when it lasts for longer than a restart takes;
//! * when the lock, read then, says that the node still holds the address: who has given it away is right to be silent,
//!   and a watch may be late to tell.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::{self, Vec},
};
use core::net::IpAddr;

use crate::{
    model::{Node, Timestamp},
    questions::{Pace, Peer},
    settings::Settings,
    view::{Duty, View, Way},
    wire::WireWatch,
};

/// So many of a node's addresses are looked at for further ways each time that its speaker is asked, so that a turn stays
/// short however many it holds.
const LOOKED_AT: usize = 64;

/// What one deputy hears of its nodes' speakers.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct SpeakerWatch {
    speakers: BTreeMap<Node, Speaker>,
}

/// A speaker, and what it is asked for.
#[derive(Debug, Clone, Default, Hash)]
struct Speaker {
    asked: BTreeMap<Way, Asked>,
    /// Which of its addresses was looked at last for further ways.
    seen: Option<IpAddr>,
    due: Timestamp,
}

/// What a speaker is asked for on one way.
#[derive(Debug, Clone, Hash)]
struct Asked {
    duty: Duty,
    peer: Peer,
    /// Whether the lock was read since the speaker was found silent.
    read: bool,
}

impl SpeakerWatch {
    /// The addresses whose answers are awaited.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = IpAddr> {
        self.speakers.values().flat_map(Speaker::addresses)
    }

    /// Those of them that `node` announces.
    pub(crate) fn asked_of(&self, node: &Node) -> impl Iterator<Item = IpAddr> {
        self.speakers.get(node).into_iter().flat_map(Speaker::addresses)
    }

    /// When [`SpeakerWatch::tick`] wants to be called next; `None` while nobody is watched.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.speakers.values().map(|speaker| speaker.due).min()
    }

    /// The speaker of `node` is heard to announce `address`.
    pub(crate) fn answered(&mut self, node: &Node, address: IpAddr, now: Timestamp) {
        let asked = self.speakers.get_mut(node).and_then(|speaker| speaker.asked_for(address));
        if let Some(asked) = asked {
            asked.peer.answered(now);
            asked.read = false;
        }
    }

    /// When the speaker of `node` has last answered for `address`.
    pub(crate) fn last_answer(&self, node: &Node, address: IpAddr) -> Option<Timestamp> {
        let asked = self.speakers.get(node).into_iter().flat_map(|it| it.asked.values());
        asked.filter(|it| it.duty.address == address).find_map(|it| it.peer.last_answer())
    }

    /// The lock of `address` was read.
    pub(crate) fn read(&mut self, address: IpAddr, now: Timestamp, settings: &Settings) {
        let asked = self.speakers.values_mut().filter_map(|it| it.asked_for(address));
        for asked in asked {
            asked.read = asked.is_silent(now, settings);
        }
    }

    /// The addresses whose locks have to be read before the silence of a speaker counts.
    pub(crate) fn unread(&self, now: Timestamp, settings: &Settings) -> Vec<IpAddr> {
        let asked = self.speakers.values().flat_map(|speaker| speaker.asked.values());
        let unread = asked.filter(|it| !it.read && it.is_silent(now, settings));
        unread.map(|asked| asked.duty.address).collect()
    }

    /// Begins anew with a node: its speaker must answer before its silence counts.
    pub(crate) fn forget(&mut self, node: &Node) {
        self.speakers.remove(node);
    }

    /// A speaker was not asked for `address` after all: that it does not answer says nothing.
    pub(crate) fn unasked(&mut self, node: &Node, address: IpAddr) {
        if let Some(asked) = self.speakers.get_mut(node).and_then(|it| it.asked_for(address)) {
            asked.excuse();
        }
    }

    /// Answers may have been lost here: that a speaker has not answered says nothing.
    pub(crate) fn excuse(&mut self) {
        let asked = self.speakers.values_mut().flat_map(|speaker| speaker.asked.values_mut());
        asked.for_each(Asked::excuse);
    }

    /// A node has renewed its session, which this one had accused of having a silent speaker; see [`WireWatch::disprove`].
    pub(crate) fn disprove(&mut self, node: &Node) {
        if self.speakers.get_mut(node).is_some_and(Speaker::is_disproved_again) {
            self.forget(node);
        }
    }

    /// Counts the answers that did not come, and says which speaker to ask now, and for what.
    pub(crate) fn tick(
        &mut self,
        now: Timestamp,
        nodes: &BTreeSet<Node>,
        view: &View,
        wire: &WireWatch,
        settings: &Settings,
    ) -> vec::IntoIter<(Node, IpAddr)> {
        self.speakers.retain(|node, _| nodes.contains(node));
        let mut questions = Vec::new();
        for node in nodes {
            let speaker = self.speakers.entry(node.clone()).or_default();
            if speaker.due <= now {
                speaker.choose(node, view, settings);
                speaker.ask(node, now, wire, settings);
                questions.extend(speaker.addresses().map(|address| (node.clone(), address)));
            }
        }
        questions.into_iter()
    }

    /// What the node still holds, and its speaker used to answer for and does not any more, though its node does.
    pub(crate) fn unanswered(
        &self,
        node: &Node,
        view: &View,
        now: Timestamp,
        settings: &Settings,
    ) -> Option<IpAddr> {
        let asked = self.speakers.get(node).into_iter().flat_map(|it| it.asked.values());
        let mut silent = asked.filter(|it| it.read && it.is_silent(now, settings));
        let duty = silent.find(|it| view.duty(node, it.duty.address).as_ref() == Some(&it.duty));
        duty.map(|it| it.duty.address)
    }
}

impl Speaker {
    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.asked.values().map(|asked| asked.duty.address)
    }

    fn asked_for(&mut self, address: IpAddr) -> Option<&mut Asked> {
        self.asked.values_mut().find(|asked| asked.duty.address == address)
    }

    /// Stays with an address as long as the speaker has to answer for it. One for which it has never answered may be out of
    /// this node's hearing: another one of the same way is tried.
    fn choose(&mut self, node: &Node, view: &View, settings: &Settings) {
        self.asked.retain(|_, it| view.duty(node, it.duty.address).as_ref() == Some(&it.duty));
        let held: Vec<IpAddr> = view.held_after(node, self.seen).take(LOOKED_AT).collect();
        self.seen = held.last().copied();
        let mut found: BTreeMap<Way, Vec<Duty>> = BTreeMap::new();
        for duty in held.into_iter().filter_map(|address| view.duty(node, address)) {
            found.entry(duty.way.clone()).or_default().push(duty);
        }
        for (way, duties) in found {
            let asked = self.asked.get(&way);
            if asked.is_none_or(|asked| asked.is_in_vain(settings)) {
                let next = next(&duties, asked.map(|asked| asked.duty.address));
                self.asked.extend(next.map(|duty| (way, Asked::of(duty.clone()))));
            }
        }
    }

    fn ask(&mut self, node: &Node, now: Timestamp, wire: &WireWatch, settings: &Settings) {
        self.due = now + settings.speaker_probe;
        for asked in self.asked.values_mut() {
            if asked.peer.asked().is_some_and(|asked| !wire.heard_from(node, asked)) {
                asked.excuse();
            }
            asked.peer.ask(now, pace(settings));
        }
    }

    fn is_disproved_again(&mut self) -> bool {
        let disproved = self.asked.values_mut().map(|asked| asked.peer.is_disproved_again());
        disproved.fold(false, |any, again| any | again)
    }
}

impl Asked {
    fn of(duty: Duty) -> Self {
        Self { duty, peer: Peer::default(), read: false }
    }

    /// What was not answered counts for nothing.
    fn excuse(&mut self) {
        self.peer.excuse();
        self.read = false;
    }

    fn is_in_vain(&self, settings: &Settings) -> bool {
        !self.peer.used_to_answer() && self.peer.misses() >= settings.misses
    }

    /// Whether it used to answer, and has not for longer than a restart takes.
    fn is_silent(&self, now: Timestamp, settings: &Settings) -> bool {
        let since = self.peer.unanswered_since();
        self.peer.used_to_answer()
            && self.peer.misses() >= settings.misses
            && since.is_some_and(|since| now.since(since) >= settings.speaker_patience)
    }
}

/// The one that follows the address `after`, as in a circle.
fn next(duties: &[Duty], after: Option<IpAddr>) -> Option<&Duty> {
    let later = duties.iter().filter(|duty| Some(duty.address) > after);
    later.min_by_key(|duty| duty.address).or_else(|| duties.iter().min_by_key(|duty| duty.address))
}

fn pace(settings: &Settings) -> Pace {
    Pace {
        interval: settings.speaker_probe,
        answer: settings.speaker_probe,
        most_misses: settings.misses,
        misses: settings.misses,
        patience: settings.session,
        rest: settings.speaker_probe,
        often: settings.speaker_probe,
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::{
        model::{Epoch, Holder, Lock, Session, Version},
        terms::{AnnounceTerms, Places},
        wire::Targets,
    };

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(millis))
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 168, 0, last])
    }

    fn node() -> Node {
        "a".into()
    }

    fn lock(last: u8, version: u64) -> Lock {
        lock_of(ip(last), version)
    }

    fn lock_of(address: IpAddr, version: u64) -> Lock {
        Lock {
            address,
            holder: Some(Holder { node: node(), epoch: Epoch(1) }),
            service: None,
            terms: AnnounceTerms::default(),
            stranger: None,
            move_to: None,
            unannounced: false,
            disputed_by: None,
            version: Version(version),
        }
    }

    /// A deputy, the node that it watches, and what answers there.
    struct Stage {
        view: View,
        wire: WireWatch,
        speakers: SpeakerWatch,
        kernel: bool,
        speaker: bool,
        /// For what the speaker does not answer, though it lives.
        mute: Option<IpAddr>,
        /// Whether the API server lets locks be read.
        api: bool,
        asked: Vec<(u64, IpAddr)>,
    }

    impl Stage {
        fn holding(last: &[u8]) -> Self {
            Self::holding_all(last.iter().map(|last| ip(*last)))
        }

        fn holding_all(addresses: impl Iterator<Item = IpAddr>) -> Self {
            let mut view = View::default();
            let session = Session::live(node(), Epoch(1), Version(1));
            view.session_seen(session, at(0));
            addresses.for_each(|address| view.lock_seen(lock_of(address, 1)));
            Self {
                view,
                wire: WireWatch::default(),
                speakers: SpeakerWatch::default(),
                kernel: true,
                speaker: true,
                mute: None,
                api: true,
                asked: Vec::new(),
            }
        }

        /// Looks every 10 ms; an answer comes after 1 ms.
        fn run(&mut self, from: u64, to: u64) {
            let (settings, nodes) = (Settings::default(), BTreeSet::from([node()]));
            for now in (from..to).step_by(10) {
                let targets = Targets { charges: &nodes, others: &BTreeSet::new() };
                let probes = self.wire.tick(at(now), targets, &settings);
                if self.kernel && !probes.nodes.is_empty() {
                    self.wire.answered(&node(), at(now + 1), &settings);
                }
                let asked = self.speakers.tick(at(now), &nodes, &self.view, &self.wire, &settings);
                for (node, address) in asked {
                    self.asked.push((now, address));
                    if self.speaker && self.mute != Some(address) {
                        self.speakers.answered(&node, address, at(now + 1));
                    }
                }
                for address in self.speakers.unread(at(now), &settings) {
                    if self.api {
                        self.speakers.read(address, at(now + 1), &settings);
                    }
                }
            }
        }

        fn silent(&self, now: u64) -> bool {
            self.speakers.unanswered(&node(), &self.view, at(now), &Settings::default()).is_some()
        }
    }

    #[test]
    fn a_speaker_is_asked_once_a_second_for_one_address() {
        let mut stage = Stage::holding(&[1, 2]);
        stage.run(1000, 4500);
        assert_eq!(stage.asked, [1000, 2000, 3000, 4000].map(|now| (now, ip(1))));
    }

    #[test]
    fn a_speaker_that_falls_silent_on_one_way_is_silent() {
        let ipv6 = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]);
        let many = (0..200).map(ip).chain([ipv6]);
        let mut stage = Stage::holding_all(many);
        stage.run(1000, 20_000);
        assert_eq!(stage.asked.iter().filter(|(now, _)| *now == 19_000).count(), 2, "one by each");
        stage.mute = Some(ipv6);
        stage.run(20_000, 25_100);
        assert!(stage.silent(25_100));
    }

    #[test]
    fn a_speaker_that_is_silent_for_five_seconds_while_its_node_answers_is_silent() {
        let mut stage = Stage::holding(&[1]);
        stage.run(1000, 10_000);
        stage.speaker = false;
        stage.run(10_000, 14_990);
        assert!(!stage.silent(14_990), "a restart may take this long");
        stage.run(14_990, 15_010);
        assert!(stage.silent(15_010));
        stage.speaker = true;
        stage.run(15_010, 16_010);
        assert!(!stage.silent(16_010), "an answer clears it");
    }

    #[test]
    fn silence_counts_only_when_the_lock_was_read_since() {
        let mut stage = Stage::holding(&[1]);
        stage.run(1000, 10_000);
        (stage.speaker, stage.api) = (false, false);
        stage.run(10_000, 30_000);
        assert!(!stage.silent(30_000));
        stage.api = true;
        stage.run(30_000, 30_010);
        assert!(stage.silent(30_010));
    }

    #[test]
    fn while_the_node_is_not_heard_the_silence_of_its_speaker_says_nothing() {
        let mut stage = Stage::holding(&[1]);
        stage.run(1000, 10_000);
        (stage.speaker, stage.kernel) = (false, false);
        stage.run(10_000, 30_000);
        assert!(!stage.silent(30_000));
        stage.kernel = true;
        stage.run(30_000, 33_500);
        assert!(!stage.silent(33_500), "the time before does not count");
        stage.run(33_500, 36_000);
        assert!(stage.silent(36_000));
    }

    #[test]
    fn a_speaker_that_never_answered_is_asked_for_something_else_and_never_silent() {
        let mut stage = Stage::holding(&[1, 2, 3]);
        stage.speaker = false;
        stage.run(1000, 20_000);
        assert!(!stage.silent(20_000));
        let asked: BTreeSet<IpAddr> = stage.asked.iter().map(|(_, address)| *address).collect();
        assert_eq!(asked, [ip(1), ip(2), ip(3)].into());
    }

    #[test]
    fn what_its_node_may_not_announce_or_does_not_hold_any_more_is_not_asked_for() {
        let nowhere =
            AnnounceTerms { places: Places::ByRules(Vec::new()), ..AnnounceTerms::default() };
        let elsewhere = Some(Holder { node: "b".into(), epoch: Epoch(1) });
        let older = Some(Holder { node: node(), epoch: Epoch(0) });
        let changes = [
            Lock { terms: nowhere, ..lock(1, 2) },
            Lock { holder: elsewhere, ..lock(1, 2) },
            Lock { holder: older, ..lock(1, 2) },
            Lock { holder: None, ..lock(1, 2) },
        ];
        for change in changes {
            let mut stage = Stage::holding(&[1]);
            stage.run(1000, 10_000);
            stage.speaker = false;
            stage.run(10_000, 15_100);
            assert!(stage.silent(15_100));
            stage.view.lock_seen(change);
            assert!(!stage.silent(15_100), "at once");
            stage.asked.clear();
            stage.run(15_100, 25_000);
            assert_eq!(stage.asked, [], "{:?}", stage.view.lock(ip(1)));
        }
    }

    #[test]
    fn a_lock_that_has_changed_makes_it_begin_anew() {
        let mut stage = Stage::holding(&[1]);
        stage.run(1000, 10_000);
        stage.speaker = false;
        stage.run(10_000, 12_000);
        stage.view.lock_seen(lock(1, 2));
        stage.run(12_000, 30_000);
        assert!(!stage.silent(30_000), "on the new terms it has never answered");
    }
}

//! Watching speakers on the wire.
//!
//! A node's kernel answers for the node's own address also while its speaker is stuck, and then nobody answers for what
//! the node holds. So a deputy asks the speaker now and then, for one of those addresses. Its silence counts only
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
    peer::{Pace, Peer},
    settings::Settings,
    view::{Duty, View},
    wire::WireWatch,
};

/// What one deputy hears of its nodes' speakers.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct SpeakerWatch {
    asked: BTreeMap<Node, Asked>,
}

/// A speaker, and what it is asked for.
#[derive(Debug, Clone, Default, Hash)]
struct Asked {
    /// `None`: its node holds nothing that it could be asked for.
    duty: Option<Duty>,
    peer: Peer,
    /// Whether the lock was read since the speaker was found silent.
    read: bool,
}

impl SpeakerWatch {
    /// The addresses whose answers are awaited.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = IpAddr> {
        self.asked.values().filter_map(|asked| Some(asked.duty.as_ref()?.address))
    }

    /// When [`SpeakerWatch::tick`] wants to be called next; `None` while nobody is watched.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.asked.values().map(|asked| asked.peer.due()).min()
    }

    /// The speaker of `node` is heard to announce `address`.
    pub(crate) fn answered(&mut self, node: &Node, address: IpAddr, now: Timestamp) {
        let asked = self.asked.get_mut(node);
        let asked = asked.filter(|it| it.is_for(address));
        if let Some(asked) = asked {
            asked.peer.answered(now);
            asked.read = false;
        }
    }

    /// The lock of `address` was read.
    pub(crate) fn read(&mut self, address: IpAddr, now: Timestamp, settings: &Settings) {
        let asked = self.asked.values_mut().filter(|asked| asked.is_for(address));
        for asked in asked {
            asked.read = asked.is_silent(now, settings);
        }
    }

    /// The addresses whose locks have to be read before the silence of a speaker counts.
    pub(crate) fn unread(&self, now: Timestamp, settings: &Settings) -> Vec<IpAddr> {
        let unread = self.asked.values().filter(|it| !it.read && it.is_silent(now, settings));
        unread.filter_map(|asked| Some(asked.duty.as_ref()?.address)).collect()
    }

    /// Begins anew with a node: its speaker must answer before its silence counts.
    pub(crate) fn forget(&mut self, node: &Node) {
        self.asked.remove(node);
    }

    /// A node has renewed its session, which this one had accused of having a silent speaker; see [`WireWatch::disprove`].
    pub(crate) fn disprove(&mut self, node: &Node) {
        if self.asked.get_mut(node).is_some_and(|asked| asked.peer.is_disproved_again()) {
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
        self.asked.retain(|node, _| nodes.contains(node));
        let mut questions = Vec::new();
        for node in nodes {
            let asked = self.asked.entry(node.clone()).or_default();
            if asked.peer.due() <= now {
                asked.choose(node, view, settings);
                let address = asked.ask(node, now, wire, settings);
                questions.extend(address.map(|address| (node.clone(), address)));
            }
        }
        questions.into_iter()
    }

    /// Whether the speaker of `node` used to answer for what the node still holds, and does not any more, though its node
    /// does.
    pub(crate) fn silent(
        &self,
        node: &Node,
        view: &View,
        now: Timestamp,
        settings: &Settings,
    ) -> bool {
        let Some(asked) = self.asked.get(node) else { return false };
        let Some(duty) = &asked.duty else { return false };
        asked.read
            && asked.is_silent(now, settings)
            && view.duty(node, duty.address).as_ref() == Some(duty)
    }
}

impl Asked {
    /// Stays with an address as long as the speaker has to answer for it. One for which it has never answered may be on
    /// another segment: another one is tried.
    fn choose(&mut self, node: &Node, view: &View, settings: &Settings) {
        let in_vain = !self.peer.used_to_answer() && self.peer.misses() >= settings.misses;
        let address = self.duty.as_ref().map(|duty| duty.address);
        let duty = address.and_then(|address| view.duty(node, address));
        if in_vain || duty.is_none() || duty != self.duty {
            let duty = view.next_duty(node, address);
            *self = Self { duty, ..Self::default() };
        }
    }

    fn ask(
        &mut self,
        node: &Node,
        now: Timestamp,
        wire: &WireWatch,
        settings: &Settings,
    ) -> Option<IpAddr> {
        let Some(duty) = &self.duty else {
            self.peer.rest(now + settings.speaker_probe);
            return None;
        };
        if self.peer.asked().is_some_and(|asked| !wire.heard_from(node, asked)) {
            self.peer.excuse();
            self.read = false;
        }
        self.peer.ask(now, pace(settings));
        Some(duty.address)
    }

    fn is_for(&self, address: IpAddr) -> bool {
        self.duty.as_ref().is_some_and(|duty| duty.address == address)
    }

    /// Whether it used to answer, and has not for longer than a restart takes.
    fn is_silent(&self, now: Timestamp, settings: &Settings) -> bool {
        let since = self.peer.unanswered_since();
        self.peer.used_to_answer()
            && self.peer.misses() >= settings.misses
            && since.is_some_and(|since| now.since(since) >= settings.speaker_patience)
    }
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
        model::{Epoch, Holder, Lock, Session, SessionState, Version},
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
        Lock {
            address: ip(last),
            holder: Some(Holder { node: node(), epoch: Epoch(1) }),
            service: None,
            terms: AnnounceTerms::default(),
            stranger: None,
            move_to: None,
            unannounced: false,
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
        /// Whether the API server lets locks be read.
        api: bool,
        asked: Vec<(u64, IpAddr)>,
    }

    impl Stage {
        fn holding(last: &[u8]) -> Self {
            let mut view = View::default();
            let state = SessionState::Live { accused_by: None };
            let session = Session {
                node: node(),
                epoch: Epoch(1),
                state,
                reach: None,
                hears: None,
                lasts: None,
                version: Version(1),
            };
            view.session_seen(session, at(0));
            last.iter().for_each(|last| view.lock_seen(lock(*last, 1)));
            Self {
                view,
                wire: WireWatch::default(),
                speakers: SpeakerWatch::default(),
                kernel: true,
                speaker: true,
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
                    if self.speaker {
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
            self.speakers.silent(&node(), &self.view, at(now), &Settings::default())
        }
    }

    #[test]
    fn a_speaker_is_asked_once_a_second_for_one_address() {
        let mut stage = Stage::holding(&[1, 2]);
        stage.run(1000, 4500);
        assert_eq!(stage.asked, [1000, 2000, 3000, 4000].map(|now| (now, ip(1))));
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

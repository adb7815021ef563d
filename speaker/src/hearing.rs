//! On which of its segments this node hears anybody.
//!
//! A card can be dead behind its carrier: its switch has lost its own cable. Its node is well then, and heard on its other
//! segments, so that nobody there can tell. So a node that hears nobody on a segment for a while asks the others who are
//! there. When none of them answers, though one of them has said since that it hears another one there, it is this node's
//! card that is dead: the interface is cut off, as if it had no carrier, until somebody is heard on it again.
//!
//! Nobody can tell whose card is dead where there is no third one that hears somebody, nor without the API server, through
//! which the others say it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use arpeggio_api::session::{HeardOn, LinkAddress};
use arpeggio_election::{Node, Session, Timestamp};
use arpeggio_link::interfaces::{Interface, Links};
use ipnet::IpNet;

use crate::{
    neighbours::{Neighbours, Probe, probe},
    renewals::Shown,
};

/// When nobody was heard for so long on a segment, somebody is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// The time between questions while nobody answers.
const HURRY: Duration = Duration::from_millis(250);

/// Who was heard within this time is heard now.
const FRESH: Duration = Duration::from_millis(1500);

/// So many are asked on a segment, and so many while none of these answers.
const USUAL: usize = 3;
const MOST: usize = 16;

/// So many questions in a row that nobody answers say something.
const ENOUGH: u32 = 4;

/// So many interfaces are remembered that cannot be used now: a node has fewer, and may make and remove some with ever new names.
const REMEMBERED: usize = 64;

/// An interface that an earlier process had found dead stays so for this long, unless somebody is heard on it: until then this
/// process has asked often enough, and the others have said anew whom they hear.
const STAYS_DEAD: Duration = Duration::from_secs(10);

/// What this node hears, and what others say that they hear.
#[derive(Debug, Default)]
pub(crate) struct Hearing {
    /// By the interfaces' indices.
    ears: BTreeMap<u32, Ear>,
    /// What is known of interfaces that cannot be used now, or are not there, by their names: it is so again when they come back.
    covered: BTreeMap<String, Ear>,
    said: BTreeMap<Node, Word>,
    /// The interfaces that this node's last process heard somebody on, or had found dead.
    inherited: BTreeSet<String>,
    /// Those that it had found dead, and until when they are taken for dead therefore.
    buried: BTreeMap<String, Timestamp>,
    /// All sessions that there were have been seen: on an interface where nobody is known nobody can be asked.
    is_listed: bool,
}

/// One interface.
#[derive(Debug, Default)]
struct Ear {
    /// The interface's name. Empty before it was first looked at.
    name: String,
    heard: BTreeMap<Node, Timestamp>,
    /// When anybody was heard last.
    last: Option<Timestamp>,
    asked: Option<Timestamp>,
    /// How many questions nobody has answered since.
    unanswered: u32,
    /// Somebody is asked here now and then.
    is_asked: bool,
    is_dead: bool,
    /// It is dead since an earlier process had found it so.
    is_buried: bool,
}

/// What another node's session said last.
#[derive(Debug)]
struct Word {
    hears: HeardOn,
    shown: Shown,
    /// When it was seen to be renewed. What was there when this process began may have been said long ago.
    renewed: Option<Timestamp>,
}

/// Who is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) me: &'a Node,
    pub(crate) links: &'a Links,
    pub(crate) neighbours: &'a Neighbours,
}

impl Around<'_> {
    fn members(&self, interface: &Interface) -> impl Iterator<Item = &LinkAddress> {
        self.neighbours.members(self.me, interface)
    }
}

impl Hearing {
    /// Somebody has answered this node: another node, or a gateway.
    pub(crate) fn heard(&mut self, interface: u32, node: Option<&Node>, now: Timestamp) {
        let ear = self.ears.entry(interface).or_default();
        (ear.last, ear.unanswered, ear.is_dead) = (Some(now), 0, false);
        if let Some(node) = node {
            ear.heard.insert(node.clone(), now);
        }
    }

    /// The session of another node says whom it hears, as long as it counts. What others write on it says nothing anew.
    pub(crate) fn said(&mut self, session: &Session, hears: HeardOn, now: Timestamp) {
        let known = self.said.get(&session.node);
        let is_renewed = known.is_some_and(|known| known.shown.is_renewed_by(session));
        let renewed = if is_renewed { Some(now) } else { known.and_then(|known| known.renewed) };
        let hears = if session.is_live() { hears } else { HeardOn::default() };
        let word = Word { hears, shown: Shown::by(session), renewed };
        self.said.insert(session.node.clone(), word);
    }

    /// A node has no session any more.
    pub(crate) fn gone(&mut self, node: &Node) {
        self.said.remove(node);
    }

    /// Versions begin anew: the history that they were of is no more.
    pub(crate) fn rewound(&mut self) {
        self.said.values_mut().for_each(|word| word.shown.rewound());
    }

    /// An earlier process of this node has found some interfaces dead, and has heard somebody on others.
    pub(crate) fn inherit(
        &mut self,
        dead: impl IntoIterator<Item = String>,
        heard: impl IntoIterator<Item = String>,
        now: Timestamp,
    ) {
        self.inherited.extend(heard);
        for name in dead {
            self.inherited.insert(name.clone());
            self.buried.entry(name).or_insert(now + STAYS_DEAD);
        }
    }

    /// All sessions have been seen. What was asked before was asked of nobody.
    pub(crate) fn listed(&mut self) {
        if !std::mem::replace(&mut self.is_listed, true) {
            self.ears.retain(|_, ear| ear.last.is_some());
        }
    }

    /// Answers may have been lost here: that nobody was heard says nothing.
    pub(crate) fn excuse(&mut self) {
        self.ears.values_mut().for_each(|ear| ear.unanswered = 0);
    }

    /// The interfaces that are dead behind their carriers.
    pub(crate) fn dead(&self) -> BTreeSet<u32> {
        self.ears.iter().filter(|(_, ear)| ear.is_dead).map(|(index, _)| *index).collect()
    }

    /// Whether nobody is heard on an interface, though several others are there: who does not answer on it says nothing then.
    pub(crate) fn is_deaf(&self, index: u32, around: Around<'_>, now: Timestamp) -> bool {
        let is_deaf = self.ears.get(&index).is_some_and(|it| it.is_asked && !it.hears_anybody(now));
        let interface = around.links.interface(index).filter(|_| is_deaf);
        interface.is_some_and(|it| around.members(it).take(2).count() > 1)
    }

    /// Whom this node hears, and in which subnets.
    pub(crate) fn hears(&self, links: &Links, now: Timestamp) -> HeardOn {
        let mut hears = HeardOn::default();
        for (index, ear) in &self.ears {
            let Some(interface) = links.interface(*index) else { continue };
            for node in ear.hears(now) {
                hears.entry(node.clone()).or_default().extend(subnets(interface));
            }
        }
        hears
    }

    /// Works out which interfaces are dead, and returns the questions that are due. Who has one interface only asks whoever can
    /// be heard on it as it is.
    pub(crate) fn tick(&mut self, around: Around<'_>, now: Timestamp) -> Vec<Probe> {
        let usable = around.links.interfaces.iter().filter(|it| it.flaw().is_none());
        let usable: Vec<&Interface> = usable.filter(|it| subnets(it).next().is_some()).collect();
        self.cover(&usable);
        usable.iter().for_each(|it| self.uncover(it));
        self.ears.values_mut().for_each(|ear| ear.is_asked = false);
        let mut questions = Vec::new();
        if usable.len() > 1 {
            usable.iter().for_each(|it| questions.extend(self.look_at(it, around, now)));
        }
        questions
    }

    /// Puts away what is known of interfaces that cannot be used now.
    fn cover(&mut self, usable: &[&Interface]) {
        let is_usable = |index: u32| usable.iter().any(|it| it.index == index);
        for (_, ear) in self.ears.extract_if(.., |index, _| !is_usable(*index)) {
            // Where nobody was ever heard nothing is known.
            if ear.last.is_some() && !ear.name.is_empty() {
                self.covered.insert(ear.name.clone(), ear);
            }
        }
        while self.covered.len() > REMEMBERED {
            let oldest = self.covered.iter().min_by_key(|(_, ear)| ear.last);
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else { break };
            self.covered.remove(&oldest);
        }
    }

    /// An interface that can be used again is as dead as it was, and one that was not is asked from the start. Nothing is known of a
    /// radio that was not: it roams, and nobody answers through it for a while.
    fn uncover(&mut self, interface: &Interface) {
        let before = self.covered.remove(&interface.name);
        let before = before.filter(|it| it.is_dead || !interface.wireless);
        let ear = self.ears.entry(interface.index).or_default();
        if let Some(before) = before.filter(|_| ear.last.is_none()) {
            let unanswered = if before.is_dead { before.unanswered } else { 0 };
            *ear = Ear { asked: None, unanswered, ..before };
        }
        ear.name.clone_from(&interface.name);
    }

    fn look_at(&mut self, interface: &Interface, around: Around<'_>, now: Timestamp) -> Vec<Probe> {
        let is_buried = self.is_buried(interface, around, now);
        let ear = self.ears.entry(interface.index).or_default();
        ear.is_asked = true;
        let is_due = ear.due().is_none_or(|due| due <= now);
        if !is_due && ear.is_buried == is_buried {
            return Vec::new();
        }
        let is_dead = is_buried || self.is_found_dead(interface);
        let ear = self.ears.entry(interface.index).or_default();
        (ear.is_dead, ear.is_buried) = (is_dead, is_buried);
        if is_due { ear.ask(interface, around, now) } else { Vec::new() }
    }

    /// Whether an interface is taken for dead since an earlier process had found it so. That is over, for good, when somebody was heard
    /// on it, and when there is nobody who could be, or who could answer there in this node's place.
    fn is_buried(&mut self, interface: &Interface, around: Around<'_>, now: Timestamp) -> bool {
        let Some(until) = self.buried.get_mut(&interface.name).filter(|it| now < **it) else {
            return false;
        };
        let was_heard = self.ears.get(&interface.index).is_some_and(|ear| ear.last.is_some());
        if was_heard || self.is_listed && around.members(interface).next().is_none() {
            *until = now;
        }
        now < *until
    }

    /// Whether this process finds that an interface is dead.
    fn is_found_dead(&self, interface: &Interface) -> bool {
        let ear = self.ears.get(&interface.index);
        let is_silent = ear.is_some_and(|ear| ear.unanswered >= ENOUGH);
        let used_to_hear =
            ear.is_some_and(|ear| ear.last.is_some()) || self.inherited.contains(&interface.name);
        // What a thousand others say is looked at only when it matters.
        is_silent && used_to_hear && self.others_hear(interface)
    }

    /// Whether another node that is on this segment has said that it hears one there, for so long after this node last did that
    /// it cannot have meant the time before.
    fn others_hear(&self, interface: &Interface) -> bool {
        let last = self.ears.get(&interface.index).and_then(|ear| ear.last).unwrap_or_default();
        let here: BTreeSet<IpNet> = subnets(interface).collect();
        let recent = self.said.values().filter(|word| word.renewed >= Some(last + FRESH));
        let mut heard = recent.flat_map(|word| word.hears.values().flatten());
        // Nodes may give one segment subnets of other lengths.
        heard.any(|there| here.iter().any(|it| it.contains(there) || there.contains(it)))
    }

    /// When [`Hearing::tick`] is due next.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.ears.values().filter(|ear| ear.is_asked).filter_map(Ear::due).min()
    }
}

impl Ear {
    fn hears_anybody(&self, now: Timestamp) -> bool {
        self.last.is_some_and(|last| now.since(last) < FRESH)
    }

    fn hears(&self, now: Timestamp) -> impl Iterator<Item = &Node> {
        let is_fresh = move |heard: &Timestamp| now.since(*heard) < FRESH;
        self.heard.iter().filter(move |(_, heard)| is_fresh(heard)).map(|(node, _)| node)
    }

    /// When somebody is to be asked; `None`: at once.
    fn due(&self) -> Option<Timestamp> {
        let is_known = self.is_dead && self.unanswered >= ENOUGH;
        let again = if is_known { INTERVAL } else { HURRY };
        let again = self.asked.map(|asked| asked + again);
        let silent = self.last.map(|last| last + INTERVAL).filter(|_| self.unanswered == 0);
        again.max(silent)
    }

    fn ask(&mut self, interface: &Interface, around: Around<'_>, now: Timestamp) -> Vec<Probe> {
        // A look that comes late says that this process was starved, not that nobody answered.
        let is_late = self.due().is_some_and(|due| now.since(due) > HURRY);
        self.unanswered = if is_late { 0 } else { self.unanswered.saturating_add(1) };
        self.asked = Some(now);
        self.heard.retain(|_, heard| now.since(*heard) < FRESH);
        let most = if self.unanswered > 1 { MOST } else { USUAL };
        let members = around.members(interface).take(most);
        let questions: Vec<Probe> = members
            .filter_map(|link| probe(interface, link.address, Some(link.mac.into())))
            .collect();
        if questions.is_empty() {
            // What nobody was asked is not unanswered.
            self.unanswered = 0;
        }
        questions
    }
}

/// The subnets in which an interface finds neighbours.
fn subnets(interface: &Interface) -> impl Iterator<Item = IpNet> {
    interface.nets_with_neighbours().map(|net| net.trunc())
}

#[cfg(test)]
mod tests {
    use arpeggio_election::{Epoch, Renewal, Version};

    use super::*;
    use crate::neighbours::tests::interface;

    const MANAGEMENT: u32 = 1;
    const DATA: u32 = 2;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(millis))
    }

    fn links() -> Links {
        let interface = |index: u32| interface(index, &[&format!("192.168.{index}.1/24")]);
        Links { interfaces: vec![interface(1), interface(2)], default_routes: Vec::new() }
    }

    /// What the session of `b` shows that was renewed then.
    fn session(renewed: u64) -> Session {
        let renewal = Some(Renewal(renewed.try_into().unwrap()));
        Session { renewal, ..Session::live("b".into(), Epoch(1), Version(renewed + 1)) }
    }

    fn heard_by(node: &str, third: u8) -> HeardOn {
        let net = format!("192.168.{third}.0/24").parse().unwrap();
        [(Node::from(node), [net].into())].into()
    }

    /// This node, `a`, and two others that are on both segments.
    struct Stage {
        hearing: Hearing,
        neighbours: Neighbours,
        now: u64,
        asked: usize,
    }

    impl Stage {
        fn new() -> Self {
            let mut neighbours = Neighbours::default();
            for (node, last) in [("b", 2), ("c", 3)] {
                let link = |third| LinkAddress {
                    address: [192, 168, third, last].into(),
                    mac: [2, 0, 0, 0, third, last],
                };
                neighbours.learn(node.into(), vec![link(1), link(2)], true);
            }
            let hearing = Hearing { is_listed: true, ..Hearing::default() };
            Self { hearing, neighbours, now: 10_000, asked: 0 }
        }

        /// Runs, with those who answer by each interface, and what `b` says that it hears.
        fn run(&mut self, millis: u64, answering: &[u32], says: Option<&HeardOn>) {
            self.run_with(&links(), millis, answering, says);
        }

        fn run_with(
            &mut self,
            links: &Links,
            millis: u64,
            answering: &[u32],
            says: Option<&HeardOn>,
        ) {
            let me = Node::from("a");
            for now in (self.now..self.now + millis).step_by(50) {
                let around = Around { me: &me, links, neighbours: &self.neighbours };
                let asked = self.hearing.tick(around, at(now));
                self.asked += asked.len();
                for probe in asked.iter().filter(|it| answering.contains(&it.interface)) {
                    self.hearing.heard(probe.interface, Some(&"b".into()), at(now + 1));
                }
                if let Some(says) = says.filter(|_| now.is_multiple_of(1000)) {
                    self.hearing.said(&session(now), says.clone(), at(now));
                }
            }
            self.now += millis;
        }

        fn dead(&self) -> Vec<u32> {
            self.hearing.dead().into_iter().collect()
        }
    }

    #[test]
    fn a_card_is_dead_on_which_nobody_answers_while_others_hear_one_another() {
        let mut stage = Stage::new();
        let there = heard_by("c", 2);
        stage.run(5000, &[MANAGEMENT, DATA], Some(&there));
        assert_eq!(stage.dead(), [0; 0]);
        assert_eq!(stage.hearing.hears(&links(), at(stage.now)).len(), 1);
        stage.run(5000, &[MANAGEMENT], Some(&there));
        assert_eq!(stage.dead(), [DATA]);
        stage.run(2000, &[MANAGEMENT, DATA], Some(&there));
        assert_eq!(stage.dead(), [0; 0], "somebody answers again");
    }

    #[test]
    fn a_radio_that_comes_back_has_time() {
        let there = heard_by("c", 2);
        let mut radio = links();
        radio.interfaces[1].wireless = true;
        let mut without = radio.clone();
        without.interfaces[1].carrier = false;
        let mut stage = Stage::new();
        stage.run_with(&radio, 5000, &[MANAGEMENT, DATA], Some(&there));
        stage.run_with(&without, 5000, &[MANAGEMENT], Some(&there));
        stage.run_with(&radio, 5000, &[MANAGEMENT], Some(&there));
        assert_eq!(stage.dead(), [0; 0], "it may roam");
        stage.run_with(&radio, 2000, &[MANAGEMENT, DATA], Some(&there));
        stage.run_with(&radio, 5000, &[MANAGEMENT], Some(&there));
        assert_eq!(stage.dead(), [DATA]);
        stage.run_with(&without, 5000, &[MANAGEMENT], Some(&there));
        stage.run_with(&radio, 50, &[MANAGEMENT], Some(&there));
        assert_eq!(stage.dead(), [DATA], "it was dead before");
    }

    #[test]
    fn others_hear_one_another_on_a_segment_whatever_lengths_they_give_its_subnet() {
        for net in ["192.168.0.0/16", "192.168.2.128/25"] {
            let there: HeardOn = [(Node::from("c"), [net.parse().unwrap()].into())].into();
            let mut stage = Stage::new();
            stage.run(5000, &[MANAGEMENT, DATA], Some(&there));
            stage.run(5000, &[MANAGEMENT], Some(&there));
            assert_eq!(stage.dead(), [DATA], "{net}");
        }
    }

    /// The subnet of other nodes elsewhere contains the one that this node has left for itself.
    #[test]
    fn who_has_nobody_left_to_ask_on_a_segment_is_not_deaf_there() {
        let there: HeardOn = [(Node::from("c"), ["192.168.0.0/16".parse().unwrap()].into())].into();
        let mut stage = Stage::new();
        stage.run(5000, &[MANAGEMENT, DATA], Some(&there));
        for (node, last) in [("b", 2), ("c", 3)] {
            let link =
                LinkAddress { address: [192, 168, 1, last].into(), mac: [2, 0, 0, 0, 1, last] };
            stage.neighbours.learn(node.into(), vec![link], true);
        }
        stage.run(10_000, &[MANAGEMENT], Some(&there));
        assert_eq!(stage.dead(), [0; 0]);
    }

    /// The switch was started again and has lost its own cable, or the cable is in another port.
    #[test]
    fn an_interface_that_comes_back_is_known() {
        let there = heard_by("c", 2);
        let mut without = links();
        without.interfaces[1].carrier = false;
        let mut anew = links();
        anew.interfaces[1].index = 3;
        for (again, index) in [(links(), DATA), (anew, 3)] {
            let mut stage = Stage::new();
            stage.run(5000, &[MANAGEMENT, DATA], Some(&there));
            stage.run_with(&without, 5000, &[MANAGEMENT], Some(&there));
            stage.run_with(&again, 50, &[MANAGEMENT], Some(&there));
            assert_eq!(stage.dead(), [0; 0], "somebody may answer");
            stage.run_with(&again, 5000, &[MANAGEMENT], Some(&there));
            assert_eq!(stage.dead(), [index]);
            stage.run_with(&without, 5000, &[MANAGEMENT], Some(&there));
            stage.run_with(&again, 50, &[MANAGEMENT], Some(&there));
            assert_eq!(stage.dead(), [index], "it was dead before");
            stage.run_with(&again, 5000, &[MANAGEMENT], Some(&there));
            assert_eq!(stage.dead(), [index]);
            stage.run_with(&again, 2000, &[MANAGEMENT, index], Some(&there));
            assert_eq!(stage.dead(), [0; 0], "somebody answers again");
        }
    }

    #[test]
    fn nobody_is_cut_off_where_no_other_one_says_that_it_hears_somebody_there() {
        let table = [None, Some(HeardOn::default()), Some(heard_by("c", 1))];
        for says in table {
            let mut stage = Stage::new();
            stage.run(5000, &[MANAGEMENT, DATA], Some(&heard_by("c", 2)));
            stage.run(10_000, &[MANAGEMENT], says.as_ref());
            assert_eq!(stage.dead(), [0; 0], "{says:?}");
        }
    }

    #[test]
    fn the_last_one_on_a_segment_is_not_cut_off_for_long() {
        let mut stage = Stage::new();
        stage.run(5000, &[MANAGEMENT, DATA], Some(&heard_by("c", 2)));
        stage.run(5000, &[MANAGEMENT], Some(&heard_by("c", 2)));
        stage.hearing.gone(&"b".into());
        stage.run(2000, &[MANAGEMENT], None);
        assert_eq!(stage.dead(), [0; 0], "whoever heard somebody is dead");
    }

    /// Where the power was cut, all sessions say what was so before.
    #[test]
    fn what_others_said_before_this_process_began_is_no_news_whoever_writes_on_it_since() {
        let mut stage = Stage::new();
        stage.hearing.inherit([], ["eth2".to_owned()], at(stage.now));
        let there = heard_by("c", 2);
        for version in 1..40 {
            let session = Session { version: Version(version), ..session(0) };
            stage.hearing.said(&session, there.clone(), at(stage.now));
            stage.run(250, &[MANAGEMENT], None);
        }
        assert_eq!(stage.dead(), [0; 0], "they may all be off by now");
        stage.run(2000, &[MANAGEMENT], Some(&there));
        assert_eq!(stage.dead(), [DATA]);
    }

    #[test]
    fn what_an_earlier_process_has_found_dead_is_so_until_somebody_is_heard_there_or_nobody_says_so_for_long()
     {
        let there = heard_by("c", 2);
        let table = [
            (&[MANAGEMENT][..], Some(&there), [true, true, true]),
            (&[MANAGEMENT][..], None, [true, true, false]),
            (&[MANAGEMENT, DATA][..], Some(&there), [false, false, false]),
        ];
        for (answering, says, expected) in table {
            let mut stage = Stage::new();
            stage.run(500, &[MANAGEMENT], None);
            stage.hearing.inherit(["eth2".to_owned()], [], at(stage.now));
            let is_dead = [50, 2500, 12_000].map(|millis| {
                stage.run(millis, answering, says);
                stage.dead() == [DATA]
            });
            assert_eq!(is_dead, expected, "{answering:?}, {says:?}");
        }
    }

    #[test]
    fn what_an_earlier_process_has_found_dead_is_not_so_where_nobody_could_answer_for_it() {
        let mut stage = Stage::new();
        stage.hearing.is_listed = false;
        let neighbours = std::mem::take(&mut stage.neighbours);
        stage.hearing.inherit(["eth2".to_owned()], [], at(stage.now));
        stage.run(50, &[MANAGEMENT], None);
        assert_eq!(stage.dead(), [DATA], "it is not known who is there");
        stage.hearing.listed();
        stage.run(50, &[MANAGEMENT], None);
        assert_eq!(stage.dead(), [0; 0]);
        stage.neighbours = neighbours;
        stage.run(50, &[MANAGEMENT], None);
        assert_eq!(stage.dead(), [0; 0], "it is judged by what is found now");
    }

    #[test]
    fn where_nobody_ever_answered_nothing_is_known_but_by_an_earlier_process() {
        let mut stage = Stage::new();
        stage.run(10_000, &[MANAGEMENT], Some(&heard_by("c", 2)));
        assert_eq!(stage.dead(), [0; 0], "two sites have the same subnet");
        stage.hearing.inherit([], ["eth2".to_owned()], at(stage.now));
        stage.run(2000, &[MANAGEMENT], Some(&heard_by("c", 2)));
        assert_eq!(stage.dead(), [DATA]);
    }

    #[test]
    fn who_is_kept_waiting_or_has_lost_answers_blames_no_card() {
        let mut stage = Stage::new();
        let there = heard_by("c", 2);
        stage.run(5000, &[MANAGEMENT, DATA], Some(&there));
        for _ in 0..20 {
            stage.now += 2000;
            stage.run(50, &[MANAGEMENT], Some(&there));
        }
        assert_eq!(stage.dead(), [0; 0], "each look comes late");
        for _ in 0..40 {
            stage.hearing.excuse();
            stage.run(250, &[MANAGEMENT], Some(&there));
        }
        assert_eq!(stage.dead(), [0; 0], "answers are lost");
    }

    #[test]
    fn at_rest_three_at_most_are_asked_a_second_on_each_further_interface() {
        let mut stage = Stage::new();
        stage.run(60_000, &[MANAGEMENT, DATA], Some(&heard_by("c", 2)));
        assert!(stage.asked <= 2 * 2 * 61, "{}", stage.asked);
    }
}

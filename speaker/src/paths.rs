//! The ways to the nodes that this one asks on the wire: how well each answers, and which profile follows from that.
//!
//! A question goes out, and the answer comes back at once, late or not at all. The answers tell what each profile would have
//! made of them: one by whose measure a node had been silent, and which then answered after all, would have accused it
//! wrongly ([`Answer::wrongly`]). From that follows by which profile a node is asked:
//!
//! | profile | when |
//! |---|---|
//! | patient | a radio on either side; or the node answers late more often than once in a thousand times; or `standard` would have been wrong in the last hour |
//! | standard | nothing is known yet, or `fast` would have been wrong in the last hour |
//! | fast | else |
//!
//! What comes late because this process was late says nothing of the way. So an answer counts as late only when another
//! node, or a gateway, that was asked afterwards has answered at once. Or when the way is slow itself: of many answers in a row none
//! has come at once, while this process was on time. However busy a machine is, it has some moments for a quick answer.

use std::{collections::BTreeMap, fmt, time::Duration};

use arpeggio_election::{Node, Profile, Timestamp};

/// An answer within this time came at once.
const AT_ONCE: Duration = Duration::from_millis(5);

/// An answer after this time came late.
const LATE: Duration = Duration::from_millis(10);

/// So many answers in a row that `fast` would have waited for earn a way that profile.
const ENOUGH: u32 = 10;

/// A way on which none of so many answers in a row has come at once is slow itself.
const SLOW: u32 = 100;

/// How long a profile that would have been wrong is not used for a way.
const MEMORY: Duration = Duration::from_hours(1);

/// The answers that the share of late ones is taken of: these, and up to as many before them.
const WINDOW: u32 = 1000;

/// Fewer late answers than this may be chance.
const FEW: u32 = 3;

/// A profile by its name, from quick to slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tempo {
    /// [`Profile::FAST`].
    Fast,
    /// [`Profile::STANDARD`].
    Standard,
    /// [`Profile::PATIENT`].
    Patient,
}

impl Tempo {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Fast, Self::Standard, Self::Patient];

    pub(crate) fn profile(self) -> Profile {
        match self {
            Self::Fast => Profile::FAST,
            Self::Standard => Profile::STANDARD,
            Self::Patient => Profile::PATIENT,
        }
    }

    /// As metrics, arguments and sessions have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Standard => "standard",
            Self::Patient => "patient",
        }
    }
}

/// Why a way is not asked by the fast profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Nothing speaks against it.
    Well,
    /// Too few answers were seen.
    New,
    /// A radio is on either side.
    Wireless,
    /// It answers late again and again.
    Late,
    /// A quicker profile would have accused it wrongly.
    Doubted,
}

/// The profile of a way, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) tempo: Tempo,
    pub(crate) why: Why,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tempo.as_str())?;
        match self.why {
            Why::Well => Ok(()),
            Why::New => f.write_str(" (new)"),
            Why::Wireless => f.write_str(" (wireless)"),
            Why::Late => f.write_str(" (answers late)"),
            Why::Doubted => f.write_str(" (was silent and lived)"),
        }
    }
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// After which time it came.
    pub(crate) latency: Duration,
    /// The profiles that would have accused the node before it came.
    pub(crate) wrongly: Vec<Tempo>,
}

/// The ways to all nodes that are asked.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    paths: BTreeMap<Node, Path>,
    gateway: Exchange,
}

/// The way to one node.
#[derive(Debug, Default)]
struct Path {
    exchange: Exchange,
    wireless: bool,
    /// Answers in a row that `fast` would have waited for.
    good: u32,
    /// Answers in a row of which none came at once.
    slow: u32,
    /// When each profile was last found to be too quick.
    wrong: BTreeMap<Tempo, Timestamp>,
    now: Share,
    before: Share,
    /// What was chosen last.
    chosen: Option<Choice>,
}

/// Questions and answers.
#[derive(Debug, Default)]
struct Exchange {
    /// When the first question was asked that was not answered since.
    asked: Option<Timestamp>,
    /// When the last question was asked that was answered at once.
    prompt: Option<Timestamp>,
}

impl Exchange {
    fn ask(&mut self, now: Timestamp) {
        self.asked.get_or_insert(now);
    }

    /// The time since the first question that was not answered before.
    fn answer(&mut self, now: Timestamp) -> Option<Duration> {
        let asked = self.asked.take()?;
        let latency = now.since(asked);
        if latency <= AT_ONCE {
            self.prompt = Some(asked);
        }
        Some(latency)
    }
}

/// How many answers came, and how many of them late.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    all: u32,
    late: u32,
}

impl Paths {
    /// A node is asked. `wireless`: by a radio on this side, or at one on the other.
    pub(crate) fn asked(&mut self, node: &Node, wireless: bool, now: Timestamp) {
        let path = self.paths.entry(node.clone()).or_default();
        path.wireless = wireless;
        path.exchange.ask(now);
    }

    /// The gateways are asked.
    pub(crate) fn gateway_asked(&mut self, now: Timestamp) {
        self.gateway.ask(now);
    }

    /// A gateway has answered.
    pub(crate) fn gateway_answered(&mut self, now: Timestamp) {
        self.gateway.answer(now);
    }

    /// A node has answered, a question of ours if there is an [`Answer`].
    pub(crate) fn answered(&mut self, node: &Node, now: Timestamp) -> Option<Answer> {
        let asked = self.paths.get(node)?.exchange.asked?;
        let hears_others = self.hears_others(node, asked);
        let path = self.paths.get_mut(node)?;
        let latency = path.exchange.answer(now)?;
        Some(Answer { latency, wrongly: path.judge(latency, hears_others, now) })
    }

    /// Whether another node, or a gateway, was asked at `asked` or later and has answered at once.
    fn hears_others(&self, node: &Node, asked: Timestamp) -> bool {
        let others =
            self.paths.iter().filter(|(it, _)| *it != node).map(|(_, path)| &path.exchange);
        others.chain([&self.gateway]).any(|it| it.prompt >= Some(asked))
    }

    /// This process was late: what is not answered yet says nothing of the way.
    pub(crate) fn excuse(&mut self) {
        let exchanges = self.paths.values_mut().map(|path| &mut path.exchange);
        exchanges.chain([&mut self.gateway]).for_each(|exchange| exchange.asked = None);
    }

    /// Begins anew with a node, whose session is another one.
    pub(crate) fn forget(&mut self, node: &Node) {
        self.paths.remove(node);
    }

    /// The nodes whose profiles have changed since this was last asked.
    pub(crate) fn changed(&mut self, now: Timestamp) -> Vec<(Node, Choice)> {
        let changed = |(node, path): (&Node, &mut Path)| {
            let choice = path.choice(now);
            let is_new = path.chosen.replace(choice) != Some(choice);
            is_new.then(|| (node.clone(), choice))
        };
        self.paths.iter_mut().filter_map(changed).collect()
    }

    /// The profile of each node, for people.
    pub(crate) fn described(&self) -> BTreeMap<Node, String> {
        let chosen = self.paths.iter().filter_map(|(node, path)| Some((node, path.chosen?)));
        chosen.map(|(node, choice)| (node.clone(), choice.to_string())).collect()
    }
}

impl Path {
    /// Takes note of an answer; returns the profiles that would have accused the node before it came.
    fn judge(&mut self, latency: Duration, hears_others: bool, now: Timestamp) -> Vec<Tempo> {
        self.slow = if latency <= AT_ONCE { 0 } else { self.slow.saturating_add(1) };
        let is_of_way = hears_others || self.slow >= SLOW;
        let is_late = latency > LATE && is_of_way;
        self.now.all += 1;
        self.now.late += u32::from(is_late);
        if self.now.all >= WINDOW {
            self.before = std::mem::take(&mut self.now);
        }
        let in_time = latency < Profile::FAST.silence();
        if in_time {
            self.good = self.good.saturating_add(1);
        } else if is_of_way {
            self.good = 0;
        }
        let wrongly: Vec<Tempo> = Tempo::ALL
            .into_iter()
            .filter(|tempo| is_of_way && latency >= tempo.profile().silence())
            .collect();
        self.wrong.extend(wrongly.iter().map(|tempo| (*tempo, now)));
        wrongly
    }

    fn choice(&self, now: Timestamp) -> Choice {
        let (tempo, why) = if self.wireless {
            (Tempo::Patient, Why::Wireless)
        } else if self.is_doubted(Tempo::Standard, now) {
            (Tempo::Patient, Why::Doubted)
        } else if self.is_late() {
            (Tempo::Patient, Why::Late)
        } else if self.is_doubted(Tempo::Fast, now) {
            (Tempo::Standard, Why::Doubted)
        } else if self.good < ENOUGH {
            (Tempo::Standard, Why::New)
        } else {
            (Tempo::Fast, Why::Well)
        };
        Choice { tempo, why }
    }

    fn is_doubted(&self, tempo: Tempo, now: Timestamp) -> bool {
        self.wrong.get(&tempo).is_some_and(|wrong| now.since(*wrong) < MEMORY)
    }

    /// Whether the slowest of a thousand answers comes late: the 99.9th percentile.
    fn is_late(&self) -> bool {
        let (all, late) = (self.now.all + self.before.all, self.now.late + self.before.late);
        late >= FEW && late.saturating_mul(1000) > all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(millis))
    }

    /// Asks two nodes every 100 ms; "a" answers after what `latency` says of the number of the question, "b" at once.
    fn run(
        paths: &mut Paths,
        from: u64,
        questions: u64,
        latency: impl Fn(u64) -> u64,
    ) -> Vec<(u64, Vec<Tempo>)> {
        let (a, b) = (Node::from("a"), Node::from("b"));
        let mut wrongly = Vec::new();
        for number in 0..questions {
            let now = from + number * 1000;
            paths.asked(&a, false, at(now));
            paths.asked(&b, false, at(now));
            let latency = latency(number);
            if latency > 1 {
                paths.answered(&b, at(now + 1));
            }
            let answer = paths.answered(&a, at(now + latency)).unwrap();
            assert_eq!(answer.latency, Duration::from_millis(latency));
            if latency <= 1 {
                paths.answered(&b, at(now + 1));
            }
            if !answer.wrongly.is_empty() {
                wrongly.push((number, answer.wrongly));
            }
        }
        wrongly
    }

    fn choice(paths: &mut Paths, now: u64) -> String {
        paths.changed(at(now));
        paths.described()[&Node::from("a")].clone()
    }

    #[test]
    fn a_way_that_answers_at_once_is_asked_fast_after_a_while() {
        let mut paths = Paths::default();
        assert!(run(&mut paths, 0, 9, |_| 1).is_empty());
        assert_eq!(choice(&mut paths, 9_000), "standard (new)");
        run(&mut paths, 9_000, 1, |_| 1);
        let changed = paths.changed(at(10_000));
        assert!(
            changed.iter().any(|(node, choice)| *node == "a".into() && choice.tempo == Tempo::Fast)
        );
        assert!(paths.changed(at(10_000)).is_empty(), "no news");
    }

    #[test]
    fn each_profile_is_charged_with_what_it_would_have_done() {
        let mut paths = Paths::default();
        let late = |number| match number {
            60 => 79,
            70 => 80,
            80 => 149,
            90 => 150,
            100 => 750,
            _ => 1,
        };
        let wrongly = run(&mut paths, 0, 110, late);
        let expected = [
            (70, vec![Tempo::Fast]),
            (80, vec![Tempo::Fast]),
            (90, vec![Tempo::Fast, Tempo::Standard]),
            (100, Tempo::ALL.to_vec()),
        ];
        assert_eq!(wrongly, expected);
    }

    #[test]
    fn a_profile_that_was_too_quick_is_not_used_for_an_hour() {
        let mut paths = Paths::default();
        run(&mut paths, 0, 60, |_| 1);
        run(&mut paths, 60_000, 1, |_| 100);
        assert_eq!(choice(&mut paths, 61_000), "standard (was silent and lived)");
        run(&mut paths, 61_000, 1, |_| 200);
        assert_eq!(choice(&mut paths, 62_000), "patient (was silent and lived)");
        run(&mut paths, 62_000, 60, |_| 1);
        assert_eq!(choice(&mut paths, 3_660_000), "patient (was silent and lived)");
        assert_eq!(choice(&mut paths, 3_662_000), "fast");
    }

    #[test]
    fn who_answers_late_once_in_a_hundred_times_is_met_with_patience() {
        let mut paths = Paths::default();
        run(&mut paths, 0, 2000, |number| if number % 1500 == 0 { 30 } else { 1 });
        assert_eq!(choice(&mut paths, 2_000_000), "fast", "once in a thousand times is chance");
        run(&mut paths, 2_000_000, 400, |number| if number % 100 == 0 { 30 } else { 1 });
        assert_eq!(choice(&mut paths, 2_400_000), "patient (answers late)");
        run(&mut paths, 2_400_000, 2000, |_| 1);
        assert_eq!(choice(&mut paths, 4_400_000), "fast", "it is well again");
    }

    /// Where nobody else answers at once who could tell a slow way from a slow watcher: two nodes alone, or an uplink that is slow
    /// to everybody.
    #[test]
    fn who_never_answers_at_once_is_met_with_patience_though_nobody_else_does_either() {
        for nodes in [&["a"][..], &["a", "b", "c"]] {
            let mut paths = Paths::default();
            let ask_all = |paths: &mut Paths, number: u64| {
                for node in nodes {
                    paths.asked(&(*node).into(), false, at(number * 100));
                }
                for node in nodes {
                    paths.answered(&(*node).into(), at(number * 100 + 10 + number % 10));
                }
            };
            (0..50).for_each(|number| ask_all(&mut paths, number));
            assert_eq!(choice(&mut paths, 5_000), "fast", "{nodes:?}");
            (50..150).for_each(|number| ask_all(&mut paths, number));
            assert_eq!(choice(&mut paths, 15_000), "patient (answers late)", "{nodes:?}");
        }
    }

    #[test]
    fn a_busy_machine_takes_no_way_for_a_slow_one() {
        let mut paths = Paths::default();
        let (a, b) = (Node::from("a"), Node::from("b"));
        for number in 0..3000 {
            let now = number * 100;
            for node in [&a, &b] {
                paths.asked(node, false, at(now));
            }
            // It has no time in nine of ten moments.
            let latency = if number % 10 == 0 { 3 } else { 10 + number % 60 };
            for node in [&a, &b] {
                assert_eq!(paths.answered(node, at(now + latency)).unwrap().wrongly, []);
            }
        }
        assert_eq!(choice(&mut paths, 300_000), "fast");
    }

    #[test]
    fn a_radio_on_either_side_is_met_with_patience_from_the_beginning() {
        let mut paths = Paths::default();
        paths.asked(&"a".into(), true, at(0));
        assert_eq!(choice(&mut paths, 0), "patient (wireless)");
    }

    #[test]
    fn what_this_process_has_overslept_says_nothing() {
        let mut paths = Paths::default();
        let (a, b) = (Node::from("a"), Node::from("b"));
        run(&mut paths, 0, 60, |_| 1);
        // Both answers wait for as long as this process is busy.
        for node in [&a, &b] {
            paths.asked(node, false, at(60_000));
        }
        for node in [&a, &b] {
            assert_eq!(paths.answered(node, at(60_200)).unwrap().wrongly, []);
        }
        assert_eq!(choice(&mut paths, 61_000), "fast");
        paths.asked(&a, false, at(61_000));
        paths.excuse();
        assert_eq!(paths.answered(&a, at(61_500)), None);
        // A gateway that answers at once shows that this process is not the one that is late.
        paths.asked(&a, false, at(62_000));
        paths.gateway_asked(at(62_020));
        paths.gateway_answered(at(62_021));
        assert_eq!(paths.answered(&a, at(62_100)).unwrap().wrongly, [Tempo::Fast]);
    }

    #[test]
    fn a_node_that_was_replaced_begins_anew() {
        let mut paths = Paths::default();
        run(&mut paths, 0, 60, |_| 1);
        paths.forget(&"a".into());
        paths.asked(&"a".into(), false, at(60_000));
        assert_eq!(choice(&mut paths, 60_000), "standard (new)");
    }
}

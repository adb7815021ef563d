//! Asking for an address before it is announced for the first time.
//!
//! An address that another machine has is never announced, whether that machine is a stranger or a node of this cluster
//! whose kernel has it. A speaker that may take a lock without a holder asks for the address a few times first, as RFC
//! 5227 section 2.1 has it but quicker; the machine that answers has it. An address that was found occupied is asked for
//! again now and then, since a user may have asked for exactly this one.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::{net::IpAddr, time::Duration};

use crate::{
    bucket::Bucket,
    model::{Node, Timestamp},
    questions::{Purpose, Search, Step},
    settings::Settings,
};

/// A MAC address, EUI-48.
pub(crate) type Mac = [u8; 6];

/// For so many addresses at once the first question is put, and then for one more after each pause: what everybody on the
/// segment has to read must not come in thousands, however many Services somebody creates.
const AT_ONCE: u32 = 100;
const PAUSE: Duration = Duration::from_millis(2);

/// Who asks for an address as well, and is still nobody's after this time, wants it for itself. Until then it may be a node
/// that has just come: its session is seen by one node earlier than by another.
const STRANGE: Duration = Duration::from_secs(2);

/// So many machines may put a search off. One more counts as one that has the address.
const MOST_RIVALS: usize = 8;

/// When an address is looked at again for whose first question it was too early.
const LATER: Duration = Duration::from_millis(20);

/// So many former holders are remembered, those of the last: a tenant can have addresses given and taken back for ever.
const MOST_FORMER: usize = 10_000;

/// The addresses that are being asked for.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Vacancies {
    asked: BTreeMap<IpAddr, Asked>,
    first_questions: Bucket,
}

impl Default for Vacancies {
    fn default() -> Self {
        Self { asked: BTreeMap::new(), first_questions: Bucket::new(AT_ONCE, PAUSE) }
    }
}

#[derive(Debug, Clone, Hash)]
struct Asked {
    search: Search,
    stranger: Option<Mac>,
    /// Who else asks for it, and since when.
    rivals: BTreeMap<Mac, Timestamp>,
}

/// What to do about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// An answer may still come, or it is too early to ask again.
    Wait,
    /// Ask now.
    Ask(Purpose),
    /// Nobody has answered.
    Free,
    /// Somebody has it.
    Taken(Mac),
}

impl Vacancies {
    /// The addresses whose answers are awaited.
    pub(crate) fn asked(&self) -> impl Iterator<Item = IpAddr> {
        self.asked.keys().copied()
    }

    /// When [`Vacancies::look`] has something new to say.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.searches().map(Search::due).min()
    }

    /// The searches that are under way.
    pub(crate) fn searches(&self) -> impl Iterator<Item = &Search> {
        self.asked.values().map(|asked| &asked.search)
    }

    /// As [`Vacancies::searches`].
    pub(crate) fn searches_mut(&mut self) -> impl Iterator<Item = &mut Search> {
        self.asked.values_mut().map(|asked| &mut asked.search)
    }

    /// A machine that has `address` answers for it.
    pub(crate) fn answered(&mut self, address: IpAddr, by: Mac) {
        if let Some(asked) = self.asked.get_mut(&address) {
            asked.stranger = Some(by);
        }
    }

    /// A machine that is no node, as far as is known, asks for `address` as well. The search begins anew when it is known
    /// whose that machine is: a node has the lock by then, or is not to have it.
    pub(crate) fn wanted(&mut self, address: IpAddr, by: Mac, now: Timestamp) {
        let Some(asked) = self.asked.get_mut(&address) else { return };
        match asked.rivals.get(&by) {
            Some(since) if now.since(*since) >= STRANGE => asked.stranger = Some(by),
            Some(_) => {}
            None if asked.rivals.len() == MOST_RIVALS => asked.stranger = Some(by),
            None => {
                asked.rivals.insert(by, now);
                let due = asked.search.due();
                asked.search.put_off(due.max(now + STRANGE));
            }
        }
    }

    /// What to do about `address` now. `taken`: somebody had it when it was last asked for.
    pub(crate) fn look(
        &mut self,
        address: IpAddr,
        taken: bool,
        now: Timestamp,
        settings: &Settings,
    ) -> Finding {
        let (purpose, first) = if taken {
            (Purpose::Recheck, now + settings.recheck)
        } else {
            (Purpose::FirstUse, now)
        };
        let search = || Search::new(purpose, first);
        let asked = || Asked { search: search(), stranger: None, rivals: BTreeMap::new() };
        let asked = self.asked.entry(address).or_insert_with(asked);
        if let Some(stranger) = asked.stranger.take() {
            asked.search.put_off(now + settings.recheck);
            return Finding::Taken(stranger);
        }
        if asked.search.begins(now) && !self.first_questions.take(now) {
            asked.search.hold(now + LATER);
            return Finding::Wait;
        }
        match asked.search.look(now, settings) {
            Step::Wait => Finding::Wait,
            Step::Ask => Finding::Ask(purpose),
            Step::Unanswered(_) => Finding::Free,
        }
    }

    /// Forgets all other addresses.
    pub(crate) fn retain(&mut self, addresses: &BTreeSet<IpAddr>) {
        self.asked.retain(|address, _| addresses.contains(address));
    }
}

/// The last holders of locks that are gone, or that have no holder any more. Theirs is the one speaker that may answer
/// for such an address.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct FormerHolders(BTreeMap<IpAddr, (Node, Timestamp)>);

impl FormerHolders {
    /// `node` does not hold the lock of `address` any more.
    pub(crate) fn lost(&mut self, address: IpAddr, node: Node, now: Timestamp) {
        self.0.insert(address, (node, now));
        if self.0.len() > MOST_FORMER {
            let mut times: Vec<Timestamp> = self.0.values().map(|(_, lost)| *lost).collect();
            let (_, median, _) = times.select_nth_unstable(MOST_FORMER / 2);
            let oldest = *median;
            self.0.retain(|_, (_, lost)| *lost > oldest);
        }
    }

    /// Whether the speaker of `node` may still announce `address`, which it held. `patience`: how long it takes at most to
    /// hear that it does not any more; `None` when it may never hear.
    pub(crate) fn may_answer(
        &self,
        node: &Node,
        address: IpAddr,
        now: Timestamp,
        patience: Option<Duration>,
    ) -> bool {
        self.0.get(&address).is_some_and(|(former, lost)| {
            former == node && patience.is_none_or(|patience| now.since(*lost) <= patience)
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    const STRANGER: Mac = [2, 0, 0, 0, 0, 9];

    fn address() -> IpAddr {
        IpAddr::from([192, 168, 0, 240])
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(millis))
    }

    /// Looks every 10 ms until there is a verdict; returns it, when it came, and when was asked.
    fn verdict(vacancies: &mut Vacancies, taken: bool, from: u64) -> (Finding, u64, Vec<u64>) {
        let mut asked = vec![];
        for now in (from..from + 60_000).step_by(10) {
            match vacancies.look(address(), taken, at(now), &Settings::default()) {
                Finding::Wait => {}
                Finding::Ask(_) => asked.push(now),
                finding => return (finding, now, asked),
            }
        }
        panic!("no verdict");
    }

    #[test]
    fn an_address_for_which_nobody_answers_is_free_within_a_quarter_of_a_second() {
        let (finding, when, asked) = verdict(&mut Vacancies::default(), false, 1000);
        assert_eq!(finding, Finding::Free);
        assert_eq!(asked.len(), 3);
        assert!(when - 1000 <= 250, "{when}");
    }

    #[test]
    fn whoever_answers_has_it_and_is_asked_again_later() {
        let mut vacancies = Vacancies::default();
        vacancies.look(address(), false, at(1000), &Settings::default());
        vacancies.answered(address(), STRANGER);
        let look = |vacancies: &mut Vacancies, now| {
            vacancies.look(address(), true, at(now), &Settings::default())
        };
        assert_eq!(look(&mut vacancies, 1010), Finding::Taken(STRANGER));
        assert_eq!(look(&mut vacancies, 1020), Finding::Wait);
        let (finding, when, _) = verdict(&mut vacancies, true, 1030);
        assert_eq!(finding, Finding::Free);
        assert!(when > 1010 + 30_000, "{when}");
    }

    #[test]
    fn who_asks_as_well_has_the_address_only_if_it_is_nobodys_after_a_while() {
        let settings = Settings::default();
        let mut vacancies = Vacancies::default();
        vacancies.look(address(), false, at(1000), &settings);
        vacancies.wanted(address(), STRANGER, at(1010));
        let (finding, when, asked) = verdict(&mut vacancies, false, 1020);
        assert_eq!((finding, asked.len()), (Finding::Free, 3), "it was a node that has just come");
        assert!(when >= 3010, "{when}");
        vacancies.wanted(address(), STRANGER, at(when + 10));
        let finding = vacancies.look(address(), false, at(when + 20), &settings);
        assert_eq!(finding, Finding::Taken(STRANGER), "it goes on asking");
    }

    #[test]
    fn not_everybody_can_put_a_search_off() {
        let mut vacancies = Vacancies::default();
        let settings = Settings::default();
        vacancies.look(address(), false, at(0), &settings);
        for last in 0..=8 {
            vacancies.wanted(address(), [2, 0, 0, 0, 0, last], at(1000 * u64::from(last)));
        }
        let finding = vacancies.look(address(), false, at(9000), &settings);
        assert_eq!(finding, Finding::Taken([2, 0, 0, 0, 0, 8]));
    }

    #[test]
    fn only_the_last_holder_may_answer_and_not_for_ever() {
        let mut former = FormerHolders::default();
        former.lost(address(), "node-1".into(), at(1000));
        let second = Some(Duration::from_secs(1));
        let table = [
            ("node-1", 2000, second, true),
            ("node-1", 2001, second, false),
            ("node-1", 900_000, None, true),
            ("node-2", 1000, None, false),
        ];
        for (node, now, patience, expected) in table {
            let may = former.may_answer(&node.into(), address(), at(now), patience);
            assert_eq!(may, expected, "{node} {now}");
        }
        let other = IpAddr::from([192, 168, 0, 241]);
        assert!(!former.may_answer(&"node-1".into(), other, at(1000), None));
    }

    #[test]
    fn the_last_of_very_many_are_remembered() {
        let mut former = FormerHolders::default();
        let address = |number: u32| IpAddr::V4((0x0a00_0000 + number).into());
        for number in 0..100_000 {
            former.lost(address(number), "node-1".into(), at(number.into()));
            assert!(former.0.len() <= MOST_FORMER);
        }
        let may = |number| former.may_answer(&"node-1".into(), address(number), at(0), None);
        assert!((95_001..100_000).all(may));
        assert!(!may(0));
    }

    #[test]
    fn an_answer_that_nobody_waits_for_counts_for_nothing() {
        let mut vacancies = Vacancies::default();
        vacancies.answered(address(), STRANGER);
        assert_eq!(verdict(&mut vacancies, false, 1000).0, Finding::Free);
    }

    #[test]
    fn a_thousand_addresses_are_not_asked_for_at_once() {
        let (mut vacancies, settings) = (Vacancies::default(), Settings::default());
        let address =
            |number: u16| IpAddr::from([10, 0, number.to_be_bytes()[0], number.to_be_bytes()[1]]);
        let (mut asked, mut free) = (Vec::new(), BTreeSet::new());
        for millis in (1000..4000).step_by(10) {
            let now = Timestamp::from_origin(Duration::from_millis(millis));
            let mut questions = 0;
            for number in 0..1000 {
                match vacancies.look(address(number), false, now, &settings) {
                    Finding::Ask(_) => questions += 1,
                    Finding::Free => _ = free.insert(number),
                    _ => {}
                }
            }
            asked.push(questions);
        }
        assert_eq!(free.len(), 1000);
        assert_eq!(asked.iter().sum::<u32>(), 3000);
        let most = asked.windows(10).map(|tenth| tenth.iter().sum::<u32>()).max();
        assert!(most <= Some(400), "{most:?} in a tenth of a second");
    }
}

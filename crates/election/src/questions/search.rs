//! A search for whoever has an address: everybody is asked, a few times or again and again.

use core::time::Duration;

use super::Purpose;
use crate::{model::Timestamp, settings::Settings};

/// Answers that may have been lost, or that may wait to be read, put a verdict off for so long. Whoever has an address has
/// been asked a few dozen times by then, and whoever floods the segment must not keep a new address dark.
const LONGEST_DOUBT: Duration = Duration::from_secs(10);

/// When to look again whether what waits to be read has been read.
const READING: Duration = Duration::from_millis(10);

/// How far a search is.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Search {
    purpose: Purpose,
    /// Counted up to those that make silence count.
    questions: u32,
    /// Since when it is asked; before that, when it is to begin.
    since: Timestamp,
    /// When the first question was asked, also of those that count for nothing; none where silence says nothing anyway.
    first: Option<Timestamp>,
    /// An answer to one of the questions may have been lost here.
    doubted: bool,
    /// When to look again: to ask, or to conclude that nobody answers.
    due: Timestamp,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// An answer may still come, or it is too early to ask.
    Wait,
    /// Ask.
    Ask,
    /// Nobody has answered, since this time.
    Unanswered(Timestamp),
}

impl Search {
    /// One that begins at `from`.
    pub(crate) const fn new(purpose: Purpose, from: Timestamp) -> Self {
        Self { purpose, questions: 0, since: from, first: None, doubted: false, due: from }
    }

    /// The same, after a pause: an answer may come unasked.
    pub(crate) fn later(mut self, settings: &Settings) -> Self {
        self.put_off(self.due + self.purpose.pause(settings));
        self
    }

    /// When there is something to do.
    pub(crate) const fn due(&self) -> Timestamp {
        self.due
    }

    /// Whether anything was asked.
    pub(crate) const fn has_begun(&self) -> bool {
        self.questions > 0 || self.first.is_some()
    }

    /// Whether the first question of several is due.
    pub(crate) fn begins(&self, now: Timestamp) -> bool {
        self.questions == 0 && self.due <= now
    }

    /// Whether silence is about to be taken for an answer.
    pub(crate) fn concludes(&self, now: Timestamp) -> bool {
        self.has_asked_enough() && self.due <= now
    }

    fn has_asked_enough(&self) -> bool {
        self.purpose.questions().is_some_and(|enough| self.questions >= enough)
    }

    /// Answers may have been lost here: silence says nothing.
    pub(crate) fn doubt(&mut self) {
        self.doubted |= self.questions > 0 && self.first.is_some();
    }

    /// Frames wait to be read, the answer perhaps among them: it is not missed yet.
    pub(crate) fn wait(&mut self, now: Timestamp) {
        if self.concludes(now) && self.may_doubt(now) {
            self.due = now + READING;
        }
    }

    /// Whether it has not taken too long yet for doubts to count.
    fn may_doubt(&self, now: Timestamp) -> bool {
        self.first.is_some_and(|first| now.since(first) < LONGEST_DOUBT)
    }

    /// It is to begin at `until`, and not before.
    pub(crate) fn put_off(&mut self, until: Timestamp) {
        *self = Self::new(self.purpose, until);
    }

    /// There is nothing to do before `until`.
    pub(crate) fn hold(&mut self, until: Timestamp) {
        self.due = until;
    }

    /// What to do now. Who asks is asked again after the pause. Questions whose answers may have been lost count for
    /// nothing: they are asked anew, a little later.
    pub(crate) fn look(&mut self, now: Timestamp, settings: &Settings) -> Step {
        if now < self.due {
            return Step::Wait;
        }
        if self.has_asked_enough() {
            if !(self.doubted && self.may_doubt(now)) {
                return Step::Unanswered(self.since);
            }
            (self.questions, self.doubted, self.due) = (0, false, now + settings.retry);
            return Step::Wait;
        }
        if self.purpose.questions().is_some() {
            self.questions += 1;
            self.first.get_or_insert(now);
        } else {
            self.questions = 1;
        }
        if self.questions == 1 {
            self.since = now;
        }
        self.due = now + self.purpose.pause(settings);
        Step::Ask
    }
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};
    use core::time::Duration;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(millis))
    }

    /// When is asked until there is a verdict, and when that is.
    fn asked(search: &mut Search, to: u64) -> (Vec<u64>, Option<u64>) {
        asked_by(&Settings::default(), search, to)
    }

    fn asked_by(settings: &Settings, search: &mut Search, to: u64) -> (Vec<u64>, Option<u64>) {
        let mut asked = vec![];
        for now in (0..to).step_by(10) {
            match search.look(at(now), settings) {
                Step::Wait => {}
                Step::Ask => asked.push(now),
                Step::Unanswered(since) => {
                    assert_eq!(Some(since), asked.first().map(|first| at(*first)));
                    return (asked, Some(now));
                }
            }
        }
        (asked, None)
    }

    #[test]
    fn each_purpose_has_its_schedule() {
        use Purpose::{Claim, FirstUse, Recheck, StandIn, Successor};
        let thrice = || (vec![1000, 1070, 1140], Some(1210));
        let table = [
            (FirstUse, thrice()),
            (Recheck, thrice()),
            (StandIn, thrice()),
            (Claim, (vec![1000, 2000, 3000], None)),
            (Successor, (vec![1000, 2000, 3000], None)),
        ];
        for (purpose, expected) in table {
            let mut search = Search::new(purpose, at(1000));
            assert_eq!(asked(&mut search, 4000), expected, "{purpose:?}");
        }
    }

    #[test]
    fn a_stand_in_waits_for_answers_also_where_nothing_is_asked_before_the_first_use() {
        let settings = Settings { first_probe: Duration::ZERO, ..Settings::default() };
        let mut search = Search::new(Purpose::StandIn, at(1000));
        let expected = (vec![1000, 1070, 1140], Some(1210));
        assert_eq!(asked_by(&settings, &mut search, 4000), expected);
    }

    #[test]
    fn silence_says_nothing_while_answers_may_be_lost() {
        let mut search = Search::new(Purpose::FirstUse, at(1000));
        search.doubt();
        assert_eq!(
            asked(&mut search, 1020),
            (vec![1000], None),
            "what was lost before is no answer"
        );
        search.doubt();
        let again = (vec![1070, 1140, 1710, 1780, 1850], Some(1920));
        let mut times = vec![];
        let verdict = (1020..4000).step_by(10).find(|now| {
            match search.look(at(*now), &Settings::default()) {
                Step::Wait => false,
                Step::Ask => {
                    times.push(*now);
                    false
                }
                Step::Unanswered(since) => {
                    assert_eq!(since, at(1710), "the questions before count for nothing");
                    true
                }
            }
        });
        assert_eq!((times, verdict), again);
    }

    #[test]
    fn losses_without_an_end_put_a_verdict_off_by_ten_seconds() {
        for purpose in [Purpose::FirstUse, Purpose::Recheck, Purpose::StandIn] {
            let mut search = Search::new(purpose, at(1000));
            let mut questions = 0;
            let verdict = (1000..60_000).step_by(10).find(|now| {
                search.doubt();
                let step = search.look(at(*now), &Settings::default());
                questions += usize::from(step == Step::Ask);
                matches!(step, Step::Unanswered(_))
            });
            assert!(verdict.is_some_and(|it| (11_000..12_000).contains(&it)), "{verdict:?}");
            assert!((30..60).contains(&questions), "{questions}");
        }
    }

    #[test]
    fn what_waits_to_be_read_is_waited_for_but_not_for_ever() {
        let mut search = Search::new(Purpose::StandIn, at(1000));
        let verdict = (1000..60_000).step_by(10).find(|now| {
            search.wait(at(*now));
            matches!(search.look(at(*now), &Settings::default()), Step::Unanswered(_))
        });
        assert!(verdict.is_some_and(|it| (11_000..11_100).contains(&it)), "{verdict:?}");
    }

    #[test]
    fn what_is_put_off_begins_anew() {
        let mut search = Search::new(Purpose::StandIn, at(0));
        asked(&mut search, 100);
        assert!(search.has_begun());
        search.put_off(at(2000));
        assert!(!search.has_begun());
        assert_eq!(asked(&mut search, 4000), (vec![2000, 2070, 2140], Some(2210)));
    }
}

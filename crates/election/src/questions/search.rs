//! A search for whoever has an address: everybody is asked, a few times or again and again.

use super::Purpose;
use crate::{model::Timestamp, settings::Settings};

/// How far a search is.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Search {
    purpose: Purpose,
    /// Counted up to those that make silence count.
    questions: u32,
    /// Since when it is asked; before that, when it is to begin.
    since: Timestamp,
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
        Self { purpose, questions: 0, since: from, due: from }
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
        self.questions > 0
    }

    /// It is to begin at `until`, and not before.
    pub(crate) fn put_off(&mut self, until: Timestamp) {
        *self = Self::new(self.purpose, until);
    }

    /// What to do now. Who asks is asked again after the pause.
    pub(crate) fn look(&mut self, now: Timestamp, settings: &Settings) -> Step {
        if now < self.due {
            return Step::Wait;
        }
        match self.purpose.questions() {
            Some(enough) if self.questions >= enough => return Step::Unanswered(self.since),
            Some(_) => self.questions += 1,
            None => self.questions = 1,
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
        let mut asked = vec![];
        for now in (0..to).step_by(10) {
            match search.look(at(now), &Settings::default()) {
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
    fn what_is_put_off_begins_anew() {
        let mut search = Search::new(Purpose::StandIn, at(0));
        asked(&mut search, 100);
        assert!(search.has_begun());
        search.put_off(at(2000));
        assert!(!search.has_begun());
        assert_eq!(asked(&mut search, 4000), (vec![2000, 2070, 2140], Some(2210)));
    }
}

//! How long sessions last, and who goes by what.

use std::time::Duration;

use arpeggio_election::{
    Effect, Elector, EndReason, Epoch, Event, Node, Outcome, Renewal, Session, SessionState,
    Settings, Timestamp, Version, Write,
};

const TURN: Duration = Duration::from_millis(100);

/// A speaker whose writes are done at once.
struct Alone {
    elector: Elector,
    now: Timestamp,
    version: u64,
    /// The session writes so far, each with its time and how long the session lasts from then on.
    renewals: Vec<(Timestamp, Duration)>,
    ends: Vec<(Timestamp, Node)>,
}

impl Alone {
    fn start() -> Self {
        let now = Timestamp::from_origin(Duration::from_secs(100));
        let elector = Elector::new(Node::from("me"), Settings::default(), now);
        let mut alone = Self { elector, now, version: 1, renewals: Vec::new(), ends: Vec::new() };
        alone.elector.handle(now, Event::Synced);
        alone
    }

    fn see(&mut self, node: &str, lasts: Option<Duration>) {
        self.see_with(node, |session| session.lasts = lasts);
    }

    fn see_with(&mut self, node: &str, change: impl FnOnce(&mut Session)) {
        self.version += 1;
        let mut session = Session::live(Node::from(node), Epoch(1), Version(self.version));
        change(&mut session);
        self.elector.handle(self.now, Event::Session(session));
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.now = self.now + TURN;
            for effect in self.elector.decide(self.now).effects {
                if let Effect::Write(write) = effect {
                    self.perform(write);
                }
            }
        }
    }

    /// So many seconds after `began` it ended the first session.
    fn first_end(&self, began: Timestamp) -> Option<u64> {
        self.ends.first().map(|(at, _)| at.since(began).as_secs())
    }

    fn perform(&mut self, write: Write) {
        match &write {
            Write::Start { lasts, .. } | Write::Renew { lasts, .. } => {
                self.renewals.push((self.now, *lasts));
                self.see("me", Some(*lasts));
            }
            Write::End { node, reason: EndReason::Expired, .. } => {
                self.ends.push((self.now, node.clone()));
            }
            _ => {}
        }
        self.elector.handle(self.now, Event::Wrote { write, outcome: Outcome::Done });
    }
}

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_session_is_judged_by_the_time_that_is_written_on_it() {
    let table = [(Some(60), 60), (None, 10), (Some(4), 4)];
    for (written, expected) in table {
        let mut alone = Alone::start();
        alone.run(secs(1));
        let began = alone.now;
        alone.see("other", written.map(secs));
        alone.run(secs(70));
        assert_eq!(alone.first_end(began), Some(expected), "{written:?}");
    }
}

/// An accusation, a rehearsal, or a program that labels all that it finds: whoever else writes on a session does not prove
/// that its node lives.
#[test]
fn what_others_write_on_a_session_puts_off_nothing() {
    let live =
        |accused_by: Option<&str>| SessionState::Live { accused_by: accused_by.map(Node::from) };
    let mut alone = Alone::start();
    alone.run(secs(1));
    let began = alone.now;
    alone.see_with("other", |session| session.renewal = Some(Renewal(7)));
    for accused_by in [None, Some("third"), Some("third"), None, Some("fourth")] {
        alone.run(secs(2));
        alone.see_with("other", |session| {
            (session.renewal, session.state) = (Some(Renewal(7)), live(accused_by));
        });
    }
    alone.run(secs(2));
    assert_eq!(alone.first_end(began), Some(10));
}

/// The renewal itself was never shown, since somebody wrote on it before a list.
#[test]
fn a_renewal_that_was_seen_with_an_accusation_only_counts() {
    let mut alone = Alone::start();
    alone.run(secs(1));
    alone.see_with("other", |session| session.renewal = Some(Renewal(7)));
    alone.run(secs(8));
    let began = alone.now;
    alone.see_with("other", |session| {
        session.state = SessionState::Live { accused_by: Some(Node::from("third")) };
        session.renewal = Some(Renewal(8));
    });
    alone.run(secs(20));
    assert_eq!(alone.first_end(began), Some(10));
}

#[test]
fn a_longer_time_counts_when_it_is_written_and_a_shorter_one_at_once() {
    let mut alone = Alone::start();
    alone.run(secs(7));
    assert!(alone.renewals.iter().all(|(_, lasts)| *lasts == secs(10)));
    let few = alone.renewals.len();
    for number in 0..149 {
        alone.see(&format!("node-{number}"), Some(secs(600)));
    }
    alone.run(secs(40));
    let pauses: Vec<Duration> =
        alone.renewals.windows(2).map(|pair| pair[1].0.since(pair[0].0)).collect();
    assert_eq!(alone.renewals[few].1, secs(25));
    assert!(pauses[few - 1] <= secs(3), "others still count ten seconds: {pauses:?}");
    assert!(pauses[few..].iter().all(|pause| (7450..=7600).contains(&pause.as_millis())));

    let many = alone.renewals.len();
    for number in 0..149 {
        alone.elector.handle(alone.now, Event::SessionGone(Node::from(&*format!("node-{number}"))));
    }
    alone.run(secs(10));
    let later: Vec<_> = alone.renewals[many..].to_vec();
    assert!(later.len() >= 3 && later.iter().all(|(_, lasts)| *lasts == secs(10)), "{later:?}");
}

/// A cable that comes and goes, say: the others must know of each time, or they miss answers where none can come.
#[test]
fn what_becomes_of_a_node_itself_is_told_at_once_and_within_bounds() {
    for (pause, most) in [(500, 300), (100, 190)] {
        let mut alone = Alone::start();
        alone.run(secs(10));
        let before = alone.renewals.len();
        let end = alone.now + secs(60);
        while alone.now < end {
            alone.elector.handle(alone.now, Event::Outdated);
            let (told, at) = (alone.renewals.len(), alone.now);
            alone.run(Duration::from_millis(pause));
            let next = alone.renewals.get(told).map(|(at, _)| *at);
            if pause == 500 {
                assert!(next.is_some_and(|next| next.since(at) <= 2 * TURN), "{next:?}");
            }
        }
        let renewals = alone.renewals.len() - before;
        assert!(renewals <= most, "{pause}: {renewals}");
    }
}

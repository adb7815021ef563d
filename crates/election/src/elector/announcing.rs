//! What this node announces, and when it gives way.

use alloc::{collections::BTreeSet, string::String, vec::Vec};
use core::{net::IpAddr, time::Duration};

use super::Elector;
use crate::{
    exchange::Effect,
    model::{Lock, Node, Timestamp},
    writes::Write,
};

/// A fellow speaker was heard announcing what we announce. The lock is read, and the session proved: the fellow may have
/// ended it, and announce what it is about to take.
#[derive(Debug, Clone, Hash)]
pub(super) struct Contest {
    since: Timestamp,
    /// The fellow.
    by: Node,
    /// The lock was read since.
    read: bool,
    pub(super) yielded: bool,
}

impl Contest {
    pub(super) fn new(since: Timestamp, by: Node, yielded: bool) -> Self {
        Self { since, by, read: false, yielded }
    }
}

impl Elector {
    pub(super) fn heard(&mut self, address: IpAddr, by: &Node, now: Timestamp) {
        self.speakers.answered(by, address, now);
        if *by == self.me {
            return;
        }
        match self.view.lock(address) {
            Some(_) if self.view.holds(by, address) => self.succession.holds(address),
            Some(lock) => self.succession.stands_in(lock, by, now),
            None => {}
        }
        if self.give_way_unaided(address, by, now) {
            return;
        }
        if !self.announcing.contains(&address) {
            return;
        }
        if self.stopping {
            self.leaving.expect(address, by);
        }
        let is_expected = self.leaving.heard(address, by);
        // It may have got the lock in another way than from us, whose gift has failed.
        if !is_expected || self.view.lock(address).is_some_and(|lock| lock.is_of(&self.me)) {
            // Who knows already that no lock can be read need not try.
            let yielded = self.is_alone(now) || !self.view.holds(&self.me, address);
            if yielded || !self.disputes.overhears(address, now) {
                let contest = Contest::new(now, by.clone(), yielded);
                self.contests.entry(address).or_insert(contest);
            }
        }
    }

    /// The lock of `address` was read.
    pub(super) fn lock_read(&mut self, address: IpAddr) {
        if let Some(contest) = self.contests.get_mut(&address) {
            contest.read = true;
        }
    }

    /// Whether a contest waits for a proof that nobody has ended the session.
    pub(super) fn needs_proof(&self) -> bool {
        self.contests.values().any(|contest| !self.own.proved_since(contest.since))
    }

    pub(super) fn give_way(&mut self, address: IpAddr) {
        if let Some(contest) = self.contests.get_mut(&address) {
            contest.yielded = true;
        }
    }

    /// That nobody was heard on the interface says nothing of the others, who may have gone on without this node.
    pub(super) fn carrier_returned(&mut self, interface: String, now: Timestamp) {
        if !self.view.may_reach_by(&self.me, &interface) {
            return;
        }
        self.own.doubted(now);
        self.wire.excuse();
        self.returned.insert(interface, now);
        let stand_ins = self.unaided.announced();
        let stand_ins: Vec<IpAddr> =
            stand_ins.filter(|address| self.has_returned(*address)).collect();
        for address in stand_ins {
            self.unaided.heard(address, now, Duration::ZERO);
        }
    }

    /// Whether `address` is announced on an interface that heard nobody for a while.
    pub(super) fn has_returned(&self, address: IpAddr) -> bool {
        let is_on = |interface: &String| self.view.is_on(address, &self.me, interface);
        self.returned.keys().any(is_on)
    }

    pub(super) fn settle_contests(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let lost = |address: &IpAddr, contest: &Contest| {
            contest.read && !self.view.holds(&self.me, *address)
        };
        let lost: Vec<IpAddr> = self
            .contests
            .iter()
            .filter(|(it, contest)| lost(it, contest))
            .map(|it| *it.0)
            .collect();
        for address in lost {
            self.announcing.remove(&address);
            self.contests.remove(&address);
        }
        let (own, disputes) = (&self.own, &mut self.disputes);
        disputes.forget(now);
        self.contests.retain(|address, contest| {
            let is_won = contest.read && own.proved_since(contest.since);
            if is_won {
                disputes.was_wrong(*address, contest.by.clone(), now);
            }
            !is_won
        });
        let unread = self.contests.iter().filter(|(_, contest)| !contest.read);
        let unread: Vec<IpAddr> = unread.map(|(address, _)| *address).collect();
        for address in unread {
            self.send(Write::Read { address }, now, effects);
        }
        for contest in self.contests.values_mut() {
            contest.yielded |= now.since(contest.since) > self.settings.retry;
        }
    }

    /// Who holds a lock under the present session may begin to announce; who already announces goes on until somebody
    /// else holds the lock, so that an API server or a session that is gone stops nobody. Returns what is gained, and what
    /// is lost for want of a backend anywhere.
    pub(super) fn update_announcing(&mut self, now: Timestamp) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let own = self.view.session(&self.me);
        let mut announcing = BTreeSet::new();
        if self.own.trusted() {
            let mine = self.view.locks_of(&self.me);
            let allowed = mine.filter(|lock| self.may_announce(lock));
            let rightly = allowed.filter(|lock| {
                self.announcing.contains(&lock.address) || own.is_some_and(|own| own.holds(lock))
            });
            announcing.extend(rightly.map(|lock| lock.address));
            announcing.append(&mut self.leaving(now));
        }
        if self.stopping {
            // Whatever the API server says, or cannot say: it is announced elsewhere, and for good.
            announcing.retain(|address| !self.leaving.was_heard(*address));
        } else {
            self.leaving.retain(&announcing);
        }
        self.contests.retain(|address, _| self.view.lock(*address).is_some());
        announcing.retain(|address| !self.contests.get(address).is_some_and(|c| c.yielded));
        announcing.retain(|address| !self.has_returned(*address));
        announcing.extend(self.unaided.announced());
        let gained = announcing.difference(&self.announcing).copied().collect();
        let lost = self.announcing.difference(&announcing);
        let backless = lost.filter(|address| self.view.is_backless(**address)).copied().collect();
        self.announcing = announcing;
        (gained, backless)
    }

    /// What others have been given on purpose, and are not heard announcing yet.
    fn leaving(&mut self, now: Timestamp) -> BTreeSet<IpAddr> {
        let mut leaving = BTreeSet::new();
        for address in &self.announcing {
            let lock = self.view.lock(*address).filter(|lock| self.may_announce(lock));
            let holder = lock.and_then(|lock| lock.holder.as_ref()).map(|holder| &holder.node);
            let Some(successor) = holder.filter(|holder| **holder != self.me) else { continue };
            if self.stopping {
                self.leaving.expect(*address, successor);
            }
            if self.leaving.goes_on(*address, successor, now, self.session_lasts() * 2) {
                leaving.insert(*address);
            }
        }
        leaving
    }

    /// Whether an address may be announced from here until somebody else takes it. Not when its pool is not announced
    /// any more, or nobody anywhere would answer behind it.
    pub(super) fn may_announce(&self, lock: &Lock) -> bool {
        !lock.terms.is_nowhere() && !self.view.is_backless(lock.address)
    }
}

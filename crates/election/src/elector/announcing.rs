//! What this node announces, and when it gives way.

use alloc::{collections::BTreeSet, string::String, vec::Vec};
use core::{net::IpAddr, time::Duration};

use super::Elector;
use crate::{
    exchange::Effect,
    families::Families,
    model::{Node, Timestamp},
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
            let is_contested = self.contests.contains_key(&address);
            if !is_contested && (yielded || self.looks_into(address, now)) {
                self.contests.insert(address, Contest::new(now, by.clone(), yielded));
            }
        }
    }

    /// A machine that is no node claims `address`.
    pub(super) fn contested(&mut self, address: IpAddr, mac: [u8; 6], now: Timestamp) {
        if self.announcing.contains(&address) {
            self.intruders.heard(address, mac, now, &self.settings);
        }
    }

    /// Whether a claim is to be looked into now. A contest that has to wait for the next renewal would only keep the address
    /// dark meanwhile.
    fn looks_into(&mut self, address: IpAddr, now: Timestamp) -> bool {
        self.own.may_prove(now) && self.disputes.looks_into(address, now)
    }

    /// The lock of `address` was read.
    pub(super) fn lock_read(&mut self, address: IpAddr) {
        if let Some(contest) = self.contests.get_mut(&address) {
            contest.read = true;
        }
    }

    /// The lock of `address` was taken by a write that was sent at `sent`.
    pub(super) fn lock_taken(&mut self, address: IpAddr, sent: Timestamp) {
        if let Some(contest) = self.contests.get_mut(&address) {
            contest.read |= contest.since <= sent;
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
    pub(super) fn carrier_returned(
        &mut self,
        interface: String,
        families: Families,
        now: Timestamp,
    ) {
        if !self.view.may_reach_by(&self.me, &interface) {
            return;
        }
        self.own.doubted(now);
        self.wire.excuse();
        self.returned.insert((interface, families), now);
        let stand_ins = self.unaided.announced();
        let stand_ins: Vec<IpAddr> =
            stand_ins.filter(|address| self.has_returned(*address)).collect();
        for address in stand_ins {
            self.unaided.rests(address, now, Duration::ZERO);
        }
    }

    /// Whether `address` is announced on an interface that heard nobody for a while.
    pub(super) fn has_returned(&self, address: IpAddr) -> bool {
        let mut returned = self.returned.keys().filter(|(_, families)| families.contain(address));
        returned.any(|(interface, _)| self.view.is_on(address, &self.me, interface))
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

    /// Announces what the roles say. Returns what is gained, and what is lost for want of a backend anywhere.
    pub(super) fn update_announcing(&mut self, now: Timestamp) -> (Vec<IpAddr>, Vec<IpAddr>) {
        self.note_successors(now);
        let view = &self.view;
        let is_held = |address| view.lock(address).is_some_and(|lock| lock.is_of(&self.me));
        let back = self.leaving.take_back(is_held);
        let announcing = self.announced_by_role();
        if !self.stopping {
            let stays = |address: &IpAddr| self.facts(*address).are_in_favour();
            let stay = self.leaving.addresses().filter(stays).collect();
            self.leaving.retain(&stay);
        }
        self.contests.retain(|address, _| self.view.lock(*address).is_some());
        let changed = announcing.symmetric_difference(&self.announcing);
        let changed = changed.map(|address| (*address, announcing.contains(address))).collect();
        let goes_on = |it: &IpAddr| self.announcing.contains(it) && announcing.contains(it);
        let told_otherwise: Vec<IpAddr> = back.into_iter().filter(goes_on).collect();
        let (mut gained, backless) = self.take_up(changed);
        gained.extend(told_otherwise);
        (gained, backless)
    }

    /// The same, where only of these addresses anything has changed that the roles follow from.
    pub(super) fn update_announcing_of(
        &mut self,
        concerned: BTreeSet<IpAddr>,
    ) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let role = |address| (address, self.role(address).announces());
        let roles = concerned.into_iter().map(role).collect();
        self.take_up(roles)
    }

    /// Announces these addresses, or ceases to.
    fn take_up(&mut self, roles: Vec<(IpAddr, bool)>) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let (mut gained, mut backless) = (Vec::new(), Vec::new());
        for (address, announces) in roles {
            if announces && self.announcing.insert(address) {
                gained.push(address);
            } else if !announces && self.announcing.remove(&address) {
                backless.extend(self.view.is_backless(address).then_some(address));
            }
        }
        (gained, backless)
    }

    /// Notes who else has got the lock of what is announced here. A process that stops waits for whoever that is.
    fn note_successors(&mut self, now: Timestamp) {
        let is_concerned = self.stopping || !self.leaving.is_idle();
        if !is_concerned || !self.own.trusted() {
            return;
        }
        for address in &self.announcing {
            let lock = self.view.lock(*address).filter(|lock| self.may_announce(lock));
            let Some(successor) = lock.and_then(|lock| self.other_holder(lock)) else { continue };
            if self.stopping {
                self.leaving.expect(*address, successor);
            }
            self.leaving.has_lock(*address, now, &self.settings);
        }
    }
}

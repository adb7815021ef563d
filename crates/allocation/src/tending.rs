//! What locks need: to be given back, written anew, or brought in line with their pools and Services.

use std::{collections::BTreeSet, net::IpAddr};

use arpeggio_api::lock::{Amendment, ServiceRef};
use arpeggio_ipam::Owner;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Index, Periods, clock::is_far_ahead, known_lock::owner_of, setbacks::later};
use crate::effect::{Change, Effect, Release, Subject, Task};

impl Index {
    /// Takes Services that are not known, or have decided to leave, off their locks; ends rests that were long enough;
    /// brings the terms of other locks in line. That a Service does not exist is not certain, since the watch of Services
    /// may be behind that of locks: whoever performs the release asks once more.
    pub(super) fn tend_locks(&mut self, now: &Time) -> Vec<Task> {
        let mut leaving = std::mem::take(&mut self.leaving);
        let mut suspects = std::mem::take(&mut self.suspects);
        suspects.extend(leaving.keys());
        let mut tasks = Vec::new();
        for address in suspects {
            let leaving = leaving.remove(&address).unwrap_or_default();
            if self.busy.contains_key(&Subject::Lock(address)) {
                self.suspects.insert(address);
            } else if leaving.is_empty() {
                tasks.extend(self.tend_lock(address, now));
            } else {
                tasks.extend(self.release(address, leaving, now));
            }
        }
        tasks
    }

    fn tend_lock(&mut self, address: IpAddr, now: &Time) -> Option<Task> {
        let Some(lock) = self.locks.get(&address) else {
            self.try_foreign(address);
            return None;
        };
        if let Some(until) = lock.resting_until.clone() {
            return self.end_rest(address, &until, now);
        }
        if lock.rest_is_unclear {
            return self.rest_anew(address, now);
        }
        let is_damaged = lock.is_damaged;
        if lock.owners.iter().all(|owner| self.services.contains_key(owner)) {
            self.forget_orphans(address);
            return if is_damaged { self.mend(address) } else { self.amend_terms(address) };
        }
        self.release(address, BTreeSet::new(), now)
    }

    /// Whether a Service that is gone, or is for us no more, may be on its way back: `kubectl replace --force` deletes and
    /// creates it again.
    pub(super) fn awaits_successor(&mut self, owner: &Owner, address: IpAddr, now: &Time) -> bool {
        let end = self.end_of_succession(address, now);
        let ends = self.orphaned.entry(address).or_default();
        let end = ends.entry(owner.clone()).or_insert(end).clone();
        if end <= *now {
            return false;
        }
        self.alarms.insert((end, Subject::Lock(address)));
        true
    }

    /// Nobody is awaited who is back, or not on the lock any more.
    fn forget_orphans(&mut self, address: IpAddr) {
        let Some(mut ends) = self.orphaned.remove(&address) else { return };
        let owners = self.locks.get(&address).map(|lock| lock.owners.as_slice());
        let is_on_lock = |owner: &Owner| owners.is_some_and(|owners| owners.contains(owner));
        ends.retain(|owner, _| is_on_lock(owner) && !self.is_served(owner));
        if !ends.is_empty() {
            self.orphaned.insert(address, ends);
        }
    }

    /// Until when a successor is awaited whose wait begins `now`. A backup that has brought a lock of a Service which was never
    /// seen brings that when it gets to it.
    fn end_of_succession(&self, address: IpAddr, now: &Time) -> Time {
        let Periods { succession, restoration, .. } = self.periods;
        let soon = later(now, succession);
        let lock = self.locks.get(&address).filter(|lock| !lock.unmet.is_empty());
        match lock.and_then(|lock| lock.restored.as_ref()) {
            Some(restored) => soon.max(later(restored.min(now), restoration)),
            None => soon,
        }
    }

    /// Writes a damaged lock anew, when all who have the address are on it. Who is not joins it first.
    fn mend(&mut self, address: IpAddr) -> Option<Task> {
        let lock = self.locks.get(&address)?;
        if self.allocator.holders(address).any(|it| !lock.owners.contains(it)) {
            return None;
        }
        // Rules that are not understood read like none. The speakers go by the last ones that they have understood, and
        // that is better than to write "nowhere" while no pool says what is right.
        let is_ruled = || self.announce_terms(address, &lock.services).is_some();
        if lock.terms.is_nowhere() && !lock.owners.is_empty() && !is_ruled() {
            return None;
        }
        let effect = if lock.owners.is_empty() {
            Effect::Release(Release { address, services: Vec::new(), change: lock.deleted() })
        } else {
            Effect::Amend(self.with_terms(lock.unchanged(address, lock.services.clone())))
        };
        self.task(Subject::Lock(address), effect)
    }

    fn end_rest(&mut self, address: IpAddr, until: &Time, now: &Time) -> Option<Task> {
        if self.locks.get(&address).is_some_and(|lock| !lock.owners.is_empty()) {
            // Its heir claims it, or says that it does not want it.
            return None;
        }
        match self.rest_of(address, now) {
            Some(longest) if is_far_ahead(until, &longest) => {
                return self.shorten_rest(address, longest);
            }
            // Its pool lets nothing rest any more.
            None if self.allocator.pool_of(address).is_some() => {}
            _ if now < until => {
                self.alarms.insert((until.clone(), Subject::Lock(address)));
                return None;
            }
            _ => {}
        }
        let change = self.locks.get(&address)?.deleted();
        let release = Release { address, services: Vec::new(), change };
        self.task(Subject::Lock(address), Effect::Release(release))
    }

    /// The task to let an address rest no longer than it would if it was given back now: the clock was wrong by which the
    /// end was written, or the pool has a shorter rest by now.
    fn shorten_rest(&mut self, address: IpAddr, until: Time) -> Option<Task> {
        let lock = self.locks.get(&address)?;
        let amendment = Amendment {
            resting_until: Some(until),
            last_service: lock.former.as_ref().map(|former| former.as_str().to_owned()),
            ..lock.unchanged(address, Vec::new())
        };
        self.task(Subject::Lock(address), Effect::Amend(amendment))
    }

    /// The task for an address of which the lock does not say in a way that is understood until when it rests: it rests as long
    /// as one that is given back now.
    fn rest_anew(&mut self, address: IpAddr, now: &Time) -> Option<Task> {
        match self.rest_of(address, now) {
            Some(until) => self.shorten_rest(address, until),
            None => self.mend(address),
        }
    }

    /// Has `owner` taken off the lock of `address` when all is decided, together with others who leave it.
    pub(super) fn leaves(&mut self, owner: &Owner, address: IpAddr) {
        self.leaving.entry(address).or_default().insert(owner.clone());
    }

    /// The task to take off the lock of `address`, if it is one that may be changed, those who are `leaving` it and those
    /// who are gone for good.
    fn release(
        &mut self,
        address: IpAddr,
        mut leaving: BTreeSet<Owner>,
        now: &Time,
    ) -> Option<Task> {
        leaving.extend(self.gone_for_good(address, now));
        let lock = self.locks.get(&address)?;
        let services = lock.services.iter().filter(|it| leaving.contains(&owner_of(it)));
        let services: Vec<ServiceRef> = services.cloned().collect();
        if services.is_empty() {
            return if leaving.is_empty() {
                self.note_restore(address)
            } else {
                self.disown(address)
            };
        }
        let change = match self.passed_on(&leaving, address, now) {
            Some(amendment) => Change::Amend(Box::new(amendment)),
            None => lock.left(address, &leaving, self.rest_of(address, now)),
        };
        let gone = services.iter().rfind(|it| !self.is_served(&owner_of(it)));
        let change = match change {
            Change::Amend(amendment) => {
                let last_service = gone.map(ServiceRef::path);
                let amendment = self.with_terms(Amendment { last_service, ..*amendment });
                Change::Amend(Box::new(amendment))
            }
            deletion @ Change::Delete { .. } => deletion,
        };
        let release = Release { address, services, change };
        self.task(Subject::Lock(address), Effect::Release(release))
    }

    /// Who is on the lock of `address` and does not exist, once no successor is awaited any more.
    fn gone_for_good(&mut self, address: IpAddr, now: &Time) -> Vec<Owner> {
        self.forget_orphans(address);
        let owners = self.locks.get(&address).into_iter().flat_map(|lock| &lock.owners);
        let gone = owners.filter(|owner| !self.services.contains_key(owner));
        let mut gone: Vec<Owner> = gone.cloned().collect();
        gone.retain(|owner| !self.awaits_successor(owner, address, now));
        gone
    }

    /// The task to have a lock say since when its address is claimed, where it waits for a Service that a backup may still
    /// bring: the next controller is to wait as long.
    fn note_restore(&mut self, address: IpAddr) -> Option<Task> {
        let lock = self.locks.get(&address);
        let lock = lock.filter(|lock| !lock.unmet.is_empty() && lock.forgets_restore())?;
        let amendment = lock.unchanged(address, lock.services.clone());
        self.task(Subject::Lock(address), Effect::Amend(amendment))
    }

    /// The task to let an address rest for everybody, since its heir does not want it.
    fn disown(&mut self, address: IpAddr) -> Option<Task> {
        let lock = self.locks.get(&address).filter(|lock| lock.services.is_empty())?;
        let resting_until = lock.resting_until.clone();
        let amendment = Amendment { resting_until, ..lock.unchanged(address, Vec::new()) };
        let release =
            Release { address, services: Vec::new(), change: Change::Amend(Box::new(amendment)) };
        self.task(Subject::Lock(address), Effect::Release(release))
    }

    /// Until when the address is given to nobody, were it given back now: as its pool says, and as long as a stranger may
    /// have it.
    pub(super) fn rest_of(&self, address: IpAddr, now: &Time) -> Option<Time> {
        let cool_down = self.allocator.pool_of(address).map(|pool| pool.cool_down);
        let quarantine = self.stranger_at(address).map(|_| self.periods.quarantine);
        let rest = cool_down.max(quarantine).filter(|rest| !rest.is_zero())?;
        now.0.checked_add(rest).ok().map(Time)
    }
}

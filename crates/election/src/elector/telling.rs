//! What users are to be told by this node.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::net::IpAddr;

use super::Elector;
use crate::{
    eligibility::Unfit,
    exchange::Effect,
    flaps::Deed,
    model::{Claimant, Lock, Node, Timestamp},
    questions::{Purpose, Question},
    stranded::Stranded,
    writes::{LockChange, Target, Write},
};

/// What is to be written on a lock for people.
struct Note {
    address: IpAddr,
    /// Whether the address is announced has changed; else it is only who claims it.
    is_of_backends: bool,
    write: Write,
}

/// Whether a lock is to name another claimant. Of two fellows the first one is named: they can take turns.
fn is_another(by: Option<&Claimant>, noted: Option<&Claimant>) -> bool {
    match (by, noted) {
        (Some(Claimant::Node(_)), Some(Claimant::Node(_))) => false,
        _ => by != noted,
    }
}

impl Elector {
    /// The addresses that no node may announce, of which it falls to this node to tell now. `ceased`: those that it has
    /// just ceased to announce therefore.
    pub(super) fn tell_of_stranded(&mut self, ceased: &[IpAddr], now: Timestamp) -> Vec<Stranded> {
        let all = self.stranded();
        if all.is_empty() && self.strandings.is_empty() {
            return Vec::new();
        }
        let flaps = &mut self.flaps;
        let due = self.strandings.update(&all, ceased, now, |address| {
            let may = flaps.may(address, Deed::Tell, now);
            if may {
                flaps.done(address, Deed::Tell, now);
            }
            may
        });
        if due.is_empty() {
            return Vec::new();
        }
        let candidates = self.candidates(now);
        let locks = due.into_iter().filter_map(|address| self.view.lock(address));
        locks.map(|lock| self.explained(lock, &candidates)).collect()
    }

    /// Takes note of a lock that is about to be taken over, if it says that its address has followed its backends.
    pub(super) fn note_flaps(&mut self, lock: &Lock, now: Timestamp) {
        let address = lock.address;
        let known = self.view.lock(address).filter(|known| known.version < lock.version);
        let Some(known) = known.filter(|_| self.view.backends(address).is_some()) else { return };
        let [before, after] = [known, lock].map(|it| it.holder.as_ref().map(|it| &it.node));
        // What is taken from one whose session is over has not followed anything.
        let was_given = before.is_some_and(|it| after != before && self.view.holds(it, address));
        let was_noted = known.unannounced != lock.unannounced;
        if was_given {
            self.flaps.done(address, Deed::Move, now);
        }
        if was_noted {
            self.flaps.done(address, Deed::Note, now);
        }
    }

    /// Notes on the locks of this node which of their addresses it does not announce for want of a backend anywhere, which
    /// somebody else goes on claiming, and which of that is over.
    pub(super) fn note_trouble(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let has_some = !self.intruders.are_none() || self.noted_intruders().next().is_some();
        let looks = has_some && self.intruders.looks(now);
        if looks {
            self.look_after_intruders(now, effects);
        }
        let unwanted = self.merits.unwanted().map(|(address, _)| address);
        let disputed = self.disputes.stubborn().map(|(address, _)| address);
        let claimed = self.intruders.addresses().filter(|_| looks);
        let concerned: BTreeSet<IpAddr> =
            unwanted.chain(disputed).chain(claimed).chain(self.view.noted()).collect();
        let own = concerned.into_iter().filter(|address| self.view.holds(&self.me, *address));
        let notes: Vec<Note> = own.filter_map(|address| self.note_of(address, now)).collect();
        for note in notes {
            let address = note.address;
            let is_free = self.writes.free(&Target::Lock(address), now);
            let may = if note.is_of_backends {
                self.flaps.may(address, Deed::Note, now)
            } else {
                is_free && self.intruders.may_note(now)
            };
            if may && is_free {
                self.intruders.written(address);
                self.send(note.write, now, effects);
            }
        }
    }

    /// What is to be written on the lock of `address`, if it says something else.
    fn note_of(&self, address: IpAddr, now: Timestamp) -> Option<Note> {
        let lock = self.view.lock(address)?;
        let announced = !self.view.is_backless(address);
        let by = self.claimant(lock, now);
        let is_of_backends = announced == lock.unannounced;
        let is_news = is_of_backends || is_another(by.as_ref(), lock.disputed_by.as_ref());
        let change = || LockChange::Note { announced, disputed_by: by.clone() };
        is_news.then(|| Note { address, is_of_backends, write: Write::on(lock, change()) })
    }

    /// Who goes on claiming the lock's address: a fellow, or else a machine that is no node.
    fn claimant(&self, lock: &Lock, now: Timestamp) -> Option<Claimant> {
        let fellow = self.disputes.by(lock.address).map(|node| Claimant::Node(node.clone()));
        let stranger = || match lock.disputed_by {
            Some(Claimant::Stranger(mac)) if !self.intruders.knows(lock.address) => Some(mac),
            _ => self.intruders.at(lock.address, now),
        };
        fellow.or_else(|| stranger().map(Claimant::Stranger))
    }

    /// Takes over what locks say of machines that other nodes have heard, forgets those that are gone, and asks for the others.
    fn look_after_intruders(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let noted: BTreeMap<IpAddr, [u8; 6]> = self.noted_intruders().collect();
        for (address, mac) in &noted {
            self.intruders.noted(*address, *mac, now);
        }
        self.intruders.forget(now, |address| noted.contains_key(&address));
        for address in self.intruders.due(now, &self.settings) {
            if self.announcing.contains(&address) {
                let purpose = Purpose::Contest;
                effects.push(Effect::Ask(Question::Address { address, purpose }));
            }
        }
    }

    /// The addresses of this node at which there are machines that are no nodes, by what their locks say.
    fn noted_intruders(&self) -> impl Iterator<Item = (IpAddr, [u8; 6])> {
        let own = self.view.noted().filter(|address| self.view.holds(&self.me, *address));
        own.filter_map(|address| match self.view.lock(address)?.disputed_by {
            Some(Claimant::Stranger(mac)) => Some((address, mac)),
            _ => None,
        })
    }

    /// What nobody holds, where this node was chosen to speak, and what it holds itself and nobody would answer behind.
    fn stranded(&self) -> BTreeSet<IpAddr> {
        let nobodys = self.succession.stranded(&self.view, &self.me);
        // That a pool is announced nowhere is somebody's wish, and the controller's to tell.
        // Nor is it known whom rules select before the Nodes are.
        let is_so = |lock: &&Lock| !lock.terms.is_nowhere() && !self.view.are_labels_unknown(lock);
        let nobodys = nobodys.filter(is_so).map(|lock| lock.address);
        let own = self.merits.unwanted().map(|(address, _)| address);
        let own = own.filter(|it| self.view.is_backless(*it) && self.view.holds(&self.me, *it));
        nobodys.chain(own).collect()
    }

    fn explained(&self, lock: &Lock, candidates: &BTreeSet<Node>) -> Stranded {
        let mut why: BTreeMap<Unfit, Vec<Node>> = BTreeMap::new();
        for node in candidates {
            if let Err(unfit) = self.view.merit(lock, node) {
                why.entry(unfit).or_default().push(node.clone());
            }
        }
        let address = lock.address;
        Stranded { address, backless: self.view.is_backless(address), why }
    }
}

//! The API server's records: every write but the first of a session names the version that it expects.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use arpeggio_election::{
    AnnounceTerms, Epoch, Event, Holder, Lock, LockChange, Node, Outcome, Reach, Renewal, Session,
    SessionState, Version, Write,
};

/// Sessions and locks. Versions of different records say nothing about one another, as the elector may rely on no more.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct Store {
    pub(crate) sessions: BTreeMap<Node, Session>,
    pub(crate) locks: BTreeMap<IpAddr, Lock>,
    /// Where each node is, which it says with each renewal.
    pub(crate) reaches: BTreeMap<Node, Reach>,
    /// Nodes with a speaker of an earlier release, whose sessions do not say whom it hears.
    pub(crate) earlier: BTreeSet<Node>,
    records: u64,
}

/// The versions of each record count within a range of their own, so that a version tells which record it is of.
pub(crate) const VERSIONS_PER_RECORD: u64 = 1 << 32;

impl Store {
    /// Carries out `write` for `me`; returns the record that resulted or was in its way.
    pub(crate) fn perform(&mut self, me: &Node, write: &Write) -> (Option<Event>, Outcome) {
        let live = |accused_by| SessionState::Live { accused_by };
        // Only who renews a session changes by what its renewals are told apart.
        let renewed = |session: &mut Session| {
            session.state = live(None);
            session.renewal = Some(Renewal(session.version.0.cast_signed()));
        };
        let hears_said = match write {
            Write::Start { hears, .. } | Write::Renew { hears, .. } => Some(hears.clone()),
            _ => None,
        };
        let hears_said = hears_said.filter(|_| !self.earlier.contains(me));
        match write {
            Write::Start { epoch, expected, lasts, .. } => {
                let reach = self.reaches.get(me).cloned();
                self.swap_session(me, *expected, |session| {
                    session.epoch = *epoch;
                    renewed(session);
                    (session.reach, session.lasts) = (reach, Some(*lasts));
                    session.hears.clone_from(&hears_said);
                })
            }
            Write::Renew { expected, lasts, .. } => {
                let reach = self.reaches.get(me).cloned();
                self.swap_session(me, Some(*expected), |session| {
                    renewed(session);
                    (session.reach, session.lasts) = (reach, Some(*lasts));
                    session.hears.clone_from(&hears_said);
                })
            }
            Write::Accuse { node, expected } => {
                self.swap_session(node, Some(*expected), |session| {
                    session.state = live(Some(me.clone()));
                })
            }
            Write::End { node, expected, reason } => {
                self.swap_session(node, Some(*expected), |session| {
                    session.state = SessionState::Ended { by: me.clone(), reason: *reason };
                })
            }
            Write::Lock { address, expected, change } => {
                self.swap_lock(*address, *expected, |lock| change_lock(lock, me, change))
            }
            Write::Read { address } => match self.locks.get(address) {
                Some(lock) => (Some(Event::Lock(lock.clone())), Outcome::Done),
                None => (Some(Event::LockGone(*address)), Outcome::Done),
            },
        }
    }

    /// What a speaker that starts, or that comes back, is told.
    pub(crate) fn list(&self) -> impl Iterator<Item = Event> {
        let sessions = self.sessions.values().cloned().map(Event::Session);
        let locks = self.locks.values().cloned().map(Event::Lock);
        sessions.chain(locks).chain([Event::Synced])
    }

    /// Adds a lock that nobody holds.
    pub(crate) fn create_lock(&mut self, address: IpAddr, service: Option<&str>) -> Lock {
        let version = self.first_version();
        let terms = AnnounceTerms::default();
        let lock = Lock {
            address,
            holder: None,
            service: service.map(Into::into),
            terms,
            stranger: None,
            move_to: None,
            unannounced: false,
            disputed_by: None,
            version,
        };
        self.locks.insert(address, lock.clone());
        lock
    }

    fn swap_session(
        &mut self,
        node: &Node,
        expected: Option<Version>,
        change: impl FnOnce(&mut Session),
    ) -> (Option<Event>, Outcome) {
        let known = self.sessions.get(node).cloned();
        if known.as_ref().map(|session| session.version) != expected {
            return (known.map(Event::Session), Outcome::Conflict);
        }
        let mut session = known
            .unwrap_or_else(|| Session::live(node.clone(), Epoch::default(), self.first_version()));
        session.version.0 += 1;
        change(&mut session);
        self.sessions.insert(node.clone(), session.clone());
        (Some(Event::Session(session)), Outcome::Done)
    }

    pub(crate) fn swap_lock(
        &mut self,
        address: IpAddr,
        expected: Version,
        change: impl FnOnce(&mut Lock),
    ) -> (Option<Event>, Outcome) {
        let Some(lock) = self.locks.get_mut(&address) else {
            return (Some(Event::LockGone(address)), Outcome::Conflict);
        };
        if lock.version != expected {
            return (Some(Event::Lock(lock.clone())), Outcome::Conflict);
        }
        lock.version.0 += 1;
        change(lock);
        (Some(Event::Lock(lock.clone())), Outcome::Done)
    }

    fn first_version(&mut self) -> Version {
        self.records += 1;
        Version(self.records * VERSIONS_PER_RECORD)
    }
}

fn change_lock(lock: &mut Lock, me: &Node, change: &LockChange) {
    match change {
        LockChange::Take { epoch, .. } => {
            hand_lock(lock, me, *epoch);
            lock.stranger = None;
        }
        LockChange::Give { to, epoch, .. } => hand_lock(lock, to, *epoch),
        LockChange::Refuse { .. } => lock.move_to = None,
        LockChange::Note { announced, disputed_by } => {
            lock.unannounced = !announced;
            lock.disputed_by.clone_from(disputed_by);
        }
        LockChange::Quarantine { stranger } => lock.stranger = Some(*stranger),
    }
}

fn hand_lock(lock: &mut Lock, to: &Node, epoch: Epoch) {
    lock.holder = Some(Holder { node: to.clone(), epoch });
    lock.move_to = None;
    lock.unannounced = false;
    if !lock.keeps_claimant() {
        lock.disputed_by = None;
    }
}

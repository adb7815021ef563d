//! Addresses that are announced without a lock, because nobody else announces them.
//!
//! While the API server cannot be reached, the segment itself is asked: whoever wants to announce an address asks for it a
//! few times, and announces it when nobody answers. And who takes the lock of a node that is dead announces the address
//! while the write is under way. A claim of either kind shows no lock, so it gives way to every fellow that is heard.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::{net::IpAddr, time::Duration};

use crate::{
    model::{Holder, Node, Timestamp},
    questions::{Purpose, Search, Step},
    settings::Settings,
};

/// The addresses that this node announces, or would, without a lock that it can show.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct Unaided {
    claims: BTreeMap<IpAddr, Claim>,
}

#[derive(Debug, Clone, Hash)]
enum Claim {
    /// Somebody who announces it is looked for, now or later.
    Wanting(Search),
    /// In whose place and since when; it is asked now and then whether somebody else does, too.
    Announcing { instead_of: Option<Holder>, since: Timestamp, search: Search },
}

impl Unaided {
    /// The addresses that are announced from here.
    pub(crate) fn announced(&self) -> impl Iterator<Item = IpAddr> {
        self.claims.iter().filter_map(|(address, claim)| match claim {
            Claim::Announcing { .. } => Some(*address),
            Claim::Wanting(_) => None,
        })
    }

    /// The nodes in whose place it is; each as often as it has addresses.
    pub(crate) fn instead_of(&self) -> impl Iterator<Item = &Node> {
        self.claims.values().filter_map(|claim| match claim {
            Claim::Announcing { instead_of, .. } => instead_of.as_ref().map(|it| &it.node),
            Claim::Wanting(_) => None,
        })
    }

    /// Whether `address` is.
    pub(crate) fn announces(&self, address: IpAddr) -> bool {
        matches!(self.claims.get(&address), Some(Claim::Announcing { .. }))
    }

    /// Since when anything is announced from here in the place of `holder`.
    pub(crate) fn since(&self, holder: &Holder) -> Option<Timestamp> {
        let of_holder = |claim: &Claim| match claim {
            Claim::Announcing { instead_of, since, .. } => {
                (instead_of.as_ref() == Some(holder)).then_some(*since)
            }
            Claim::Wanting(_) => None,
        };
        self.claims.values().filter_map(of_holder).min()
    }

    /// Announces an address from now on in the place of `holder`, who is known to be dead.
    pub(crate) fn announce(
        &mut self,
        address: IpAddr,
        holder: Holder,
        now: Timestamp,
        settings: &Settings,
    ) {
        self.claims.insert(address, Claim::announcing(Some(holder), now, settings));
    }

    /// Whether nothing is announced or asked for without a lock.
    pub(crate) fn is_idle(&self) -> bool {
        self.claims.is_empty()
    }

    /// The addresses whose answers are awaited.
    pub(crate) fn asked(&self) -> impl Iterator<Item = IpAddr> {
        let asking = |claim: &Claim| matches!(claim, Claim::Wanting(search) if search.has_begun());
        self.claims.iter().filter(move |(_, claim)| asking(claim)).map(|(address, _)| *address)
    }

    /// The searches that are under way, or will be.
    pub(crate) fn searches(&self) -> impl Iterator<Item = &Search> {
        self.claims.values().map(|claim| match claim {
            Claim::Wanting(search) | Claim::Announcing { search, .. } => search,
        })
    }

    /// As [`Unaided::searches`].
    pub(crate) fn searches_mut(&mut self) -> impl Iterator<Item = &mut Search> {
        self.claims.values_mut().map(|claim| match claim {
            Claim::Wanting(search) | Claim::Announcing { search, .. } => search,
        })
    }

    /// When [`Unaided::ask`] has something to do.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.searches().map(Search::due).min()
    }

    /// These addresses seem to be announced by nobody: each is to be asked for, from its own time on. Others need not be
    /// asked for any more.
    pub(crate) fn want(&mut self, wanted: &BTreeMap<IpAddr, Timestamp>) {
        self.claims.retain(|address, claim| {
            wanted.contains_key(address) || matches!(claim, Claim::Announcing { .. })
        });
        for (address, from) in wanted {
            self.claims.entry(*address).or_insert(Claim::wanting(*from));
        }
    }

    /// Asks for what is due, also for what is announced: when a segment that was split is whole again, the other part may
    /// have an announcer of its own. What was asked for often enough is announced from now on, provided that somebody was heard
    /// meanwhile where an answer would have come (`would_hear`): who hears nobody there has lost its own cable. `holder`: who had it
    /// last.
    pub(crate) fn ask(
        &mut self,
        now: Timestamp,
        would_hear: impl Fn(IpAddr, Timestamp) -> bool,
        holder: impl Fn(IpAddr) -> Option<Holder>,
        settings: &Settings,
    ) -> Vec<(IpAddr, Purpose)> {
        let mut asked = Vec::new();
        for (address, claim) in &mut self.claims {
            let (search, purpose) = match claim {
                Claim::Wanting(search) => (search, Purpose::StandIn),
                Claim::Announcing { search, .. } => (search, Purpose::Claim),
            };
            match search.look(now, settings) {
                Step::Wait => {}
                Step::Ask => asked.push((*address, purpose)),
                Step::Unanswered(since) if would_hear(*address, since) => {
                    *claim = Claim::announcing(holder(*address), now, settings);
                }
                Step::Unanswered(_) => *claim = Claim::wanting(now + settings.retry),
            }
        }
        asked
    }

    /// Somebody else announces `address`: it is left alone for `pause`. Whether it mattered here.
    pub(crate) fn rests(&mut self, address: IpAddr, now: Timestamp, pause: Duration) -> bool {
        let claim = self.claims.get_mut(&address);
        claim.map(|claim| *claim = Claim::wanting(now + pause)).is_some()
    }

    /// These addresses are not left alone any more, if they are.
    pub(crate) fn resume(&mut self, addresses: &BTreeSet<IpAddr>, now: Timestamp) {
        for address in addresses {
            if let Some(Claim::Wanting(search)) = self.claims.get_mut(address)
                && !search.has_begun()
            {
                search.put_off(now);
            }
        }
    }

    /// As [`Unaided::rests`], but what rests already is asked for at the time that was set before.
    pub(crate) fn yields(&mut self, address: IpAddr, now: Timestamp, pause: Duration) -> bool {
        match self.claims.get(&address) {
            Some(Claim::Wanting(search)) if !search.has_begun() => true,
            _ => self.rests(address, now, pause),
        }
    }

    /// Keeps the claims for which `right` says so, by whom each replaces and since when; what is only asked for is
    /// forgotten.
    pub(crate) fn settle(&mut self, right: impl Fn(IpAddr, Option<&Holder>, Timestamp) -> bool) {
        self.claims.retain(|address, claim| match claim {
            Claim::Announcing { instead_of, since, .. } => {
                right(*address, instead_of.as_ref(), *since)
            }
            Claim::Wanting(_) => false,
        });
    }

    /// What was asked for before a pause says nothing after it.
    pub(crate) fn forget(&mut self) {
        self.claims.clear();
    }
}

impl Claim {
    fn announcing(instead_of: Option<Holder>, now: Timestamp, settings: &Settings) -> Self {
        let search = Search::new(Purpose::Claim, now).later(settings);
        Self::Announcing { instead_of, since: now, search }
    }

    const fn wanting(from: Timestamp) -> Self {
        Self::Wanting(Search::new(Purpose::StandIn, from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 168, 0, 240));

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(millis))
    }

    /// Asks every 10 ms; returns when it was asked, until `to` or until it is announced.
    fn ask(unaided: &mut Unaided, from: u64, to: u64, hears: bool) -> Vec<u64> {
        let settings = Settings::default();
        let mut asked = Vec::new();
        for now in (from..to).step_by(10) {
            if unaided.announces(ADDRESS) {
                break;
            }
            if !unaided.ask(at(now), |_, _| hears, |_| None, &settings).is_empty() {
                asked.push(now);
            }
        }
        asked
    }

    fn wanting() -> Unaided {
        let mut unaided = Unaided::default();
        unaided.want(&[(ADDRESS, at(1000))].into());
        unaided
    }

    #[test]
    fn what_nobody_answers_for_is_announced_after_three_questions() {
        let mut unaided = wanting();
        assert_eq!(ask(&mut unaided, 900, 1300, true), [1000, 1070, 1140]);
        assert!(unaided.announces(ADDRESS));
    }

    #[test]
    fn an_answer_stops_the_questions_and_the_announcement_for_a_while() {
        let mut unaided = wanting();
        ask(&mut unaided, 1000, 1100, true);
        unaided.rests(ADDRESS, at(1100), Duration::from_secs(3));
        assert_eq!(ask(&mut unaided, 1100, 4100, true), []);
        ask(&mut unaided, 4100, 5000, true);
        assert!(unaided.announces(ADDRESS));
        unaided.rests(ADDRESS, at(5000), Duration::from_secs(3));
        assert!(!unaided.announces(ADDRESS));
    }

    #[test]
    fn who_hears_nobody_announces_nothing() {
        let mut unaided = wanting();
        assert!(ask(&mut unaided, 1000, 9000, false).len() > 3);
        assert!(!unaided.announces(ADDRESS));
    }

    #[test]
    fn what_is_announced_stays_when_it_is_not_wanted_any_more_until_it_is_settled() {
        let mut unaided = wanting();
        ask(&mut unaided, 1000, 2000, true);
        unaided.want(&BTreeMap::new());
        assert!(unaided.announces(ADDRESS));
        unaided.settle(|_, _, since| since > at(5000));
        assert!(!unaided.announces(ADDRESS));
    }
}

//! What is decided while the API server cannot be reached.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::net::IpAddr;

use ipnet::IpNet;

use super::{Elector, announcing::Contest};
use crate::{
    exchange::Effect,
    loads::Loads,
    model::{Lock, Node, Timestamp},
    placement::{outranks, ranking},
    proxies::around,
    questions::{Purpose, Question},
    reach::has_neighbours,
    role::Role,
    vacancy::Mac,
    view::View,
    witnesses::watchers,
};

impl Elector {
    /// Whether the API server does not answer: the last session write failed, or one has been under way for long.
    pub(super) fn is_alone(&self, now: Timestamp) -> bool {
        self.own.is_out_of_touch() || self.writes.overdue(now, self.settings.retry)
    }

    /// Announces what nobody announces while no lock can be taken; and gives it up when locks count again.
    pub(super) fn stand_in(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.stopping {
            return self.unaided.forget();
        }
        // Each may have announced meanwhile what the other one does.
        let reunited = self.wire.hears_somebody_again();
        if self.is_alone(now) {
            let wanted = self.abandoned(now);
            self.unaided.want(&wanted);
            // No lock says which of the two gives way.
            let asked = self.announcing.iter().filter(|_| reunited);
            effects.extend(asked.map(|address| {
                Effect::Ask(Question::Address { address: *address, purpose: Purpose::Reunion })
            }));
        } else {
            let (view, me) = (&self.view, &self.me);
            self.unaided
                .settle(|address, holder, since| view.may_stand_in(address, me, holder, since));
        }
        let mut unaided = core::mem::take(&mut self.unaided);
        let holder = |address| self.view.lock(address)?.holder.clone();
        let would_hear = |address, since| self.would_hear(address, since);
        let asked = unaided.ask(now, would_hear, holder, &self.settings);
        self.unaided = unaided;
        if !asked.is_empty() {
            let places = |address| self.view.interfaces_of(&self.me, address).unwrap_or_default();
            let on = asked.iter().flat_map(|(address, _)| places(*address));
            let on = on.map(|it| it.name.clone()).collect();
            effects.push(Effect::Ask(Question::Others { on }));
        }
        let trial = self.proxies.ask(now, &self.settings);
        let trial = trial.into_iter().map(|address| (address, Purpose::Trial));
        let asked = asked.into_iter().chain(trial);
        let asked = asked.map(|(address, purpose)| Question::Address { address, purpose });
        effects.extend(asked.map(Effect::Ask));
        for address in self.unaided.announced() {
            self.contests.remove(&address);
        }
    }

    /// The addresses that nobody seems to announce and that are this node's to announce, and from when on.
    fn abandoned(&self, now: Timestamp) -> BTreeMap<IpAddr, Timestamp> {
        let mut abandoned: BTreeMap<IpAddr, Timestamp> =
            self.own_silent().map(|lock| (lock.address, now)).collect();
        for node in self.charges.nodes() {
            let since = self.wire.unanswered_since(node);
            let since = since.filter(|_| self.is_silent_while_alone(node));
            if let Some(since) = since {
                abandoned.extend(self.inherited(node, since));
            }
        }
        abandoned
    }

    /// Whether this node would have heard since `since` whoever announces `address`: it hears somebody where it would announce it
    /// itself. Where nobody is left to be heard, it is enough that it hears somebody elsewhere.
    fn would_hear(&self, address: IpAddr, since: Timestamp) -> bool {
        let earshot = self.wire.earshot();
        let anywhere = earshot.hears_anybody_anywhere(since);
        let Some(places) = self.view.interfaces_of(&self.me, address) else { return anywhere };
        places.iter().any(|it| earshot.hears_anybody(&it.name, since))
            || anywhere && self.is_nobody_on(&places, |node| self.is_silent_while_alone(node))
    }

    /// What this node held when it last knew, and does not announce: it was paused, its interface heard nobody, or it has
    /// given way to somebody.
    fn own_silent(&self) -> impl Iterator<Item = &Lock> {
        let is_silent = |lock: &&Lock| {
            matches!(self.role(lock.address), Role::Returner | Role::Doubter { yielded: true })
        };
        self.view.rightly_held(&self.me).filter(is_silent)
    }

    /// The addresses of a node that is silent since `since`, each with the time from which on this node asks for it: the
    /// best-ranked of those that watch the node at once, each further one a little later.
    fn inherited(&self, node: &Node, since: Timestamp) -> BTreeMap<IpAddr, Timestamp> {
        let live = self.view.live(since, self.settings.session, None);
        let watchers: BTreeSet<Node> =
            watchers(node, &live, &self.view).into_iter().cloned().collect();
        let loads = Loads::of(&self.view, &watchers);
        let turn = |lock: &Lock| {
            let ranked = ranking(lock, None, &loads, watchers.len());
            let rank = ranked.iter().position(|watcher| *watcher == self.me)?;
            Some((lock.address, since + self.settings.patience * u32::try_from(rank).ok()?))
        };
        self.view.locks_of(node).filter_map(turn).collect()
    }

    /// A machine that is no node answers for an address. It may have it; then nobody stands in for it. One that answers for
    /// what others have, too, says nothing by that.
    pub(super) fn held_off(&mut self, address: IpAddr, mac: Mac, now: Timestamp) {
        if let Some(freed) = self.proxies.answered(mac, address, now) {
            self.unaided.resume(&freed, now);
        }
        if !self.is_proxy(mac, now) && self.unaided.rests(address, now, self.settings.recheck) {
            self.suspect(address, mac, now);
        }
    }

    /// A machine answers for an address that a node may have. Does it answer for others as well?
    pub(super) fn suspect(&mut self, address: IpAddr, mac: Mac, now: Timestamp) {
        let (view, me) = (&self.view, &self.me);
        self.proxies.suspect(mac, address, now, || nobodys(address, view, me));
    }

    /// A fellow announces what this node announces, or asks for, without a lock that it can show. Whether that is so.
    pub(super) fn give_way_unaided(&mut self, address: IpAddr, by: &Node, now: Timestamp) -> bool {
        // Of two that give way to one another, one asks again first: the holder, as far as is known, else the one of
        // higher rank. The other then hears it.
        let lock = self.view.lock(address).filter(|lock| !lock.is_of(by));
        let first = lock.is_some_and(|lock| lock.is_of(&self.me) || outranks(&self.me, by, lock));
        // Frames that somebody forges must not put off whoever asks first, or they would keep the address dark.
        let is_known = if first {
            self.unaided.yields(address, now, self.settings.patience)
        } else {
            self.unaided.rests(address, now, self.settings.renewal)
        };
        if !is_known {
            return false;
        }
        if self.is_alone(now) {
            self.leaving.replaced(address);
        }
        if self.view.lock(address).is_some_and(|lock| lock.is_of(&self.me)) {
            // Our lock says that it is ours, but that is old: it counts again when it has been read.
            self.contests.insert(address, Contest::new(now, by.clone(), true));
        }
        true
    }
}

/// Some addresses around this one that no node has or may be given to announce, as far as `me` knows.
fn nobodys(address: IpAddr, view: &View, me: &Node) -> Vec<IpAddr> {
    let own = view.reach(me).into_iter().flat_map(|reach| &reach.interfaces);
    let nets = own.flat_map(|it| &it.subnets).filter(|net| has_neighbours(net));
    let net = nets.filter(|net| net.contains(&address)).max_by_key(|net| net.prefix_len());
    let nodes =
        view.sessions().filter_map(|seen| view.reach(&seen.session.node)).chain(view.reach(me));
    let interfaces = nodes.flat_map(|reach| &reach.interfaces);
    let taken: BTreeSet<IpAddr> = interfaces
        .flat_map(|it| it.subnets.iter().map(IpNet::addr).chain(it.gateways.iter().copied()))
        .collect();
    around(address, net.copied(), |it| view.lock(it).is_some() || taken.contains(&it))
}

//! What becomes of the addresses that somebody holds, and what they get in addition.

use alloc::{borrow::ToOwned, string::String, vec::Vec};
use core::{fmt, net::IpAddr};

use crate::{
    allocator::Allocator,
    choose::{Choice, Chooser},
    names::{Owner, PoolName},
    range::Family,
    refusal::{Refusal, UnfitAddress},
    request::{Families, Request, Requester},
    sharing::{Clash, SharingTerms},
};

/// An address that somebody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The address.
    pub address: IpAddr,
    /// The pool that it came from, as far as that was written down.
    pub origin: Option<PoolName>,
}

/// What is to become of an owner's addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Held addresses that stay.
    pub keep: Vec<IpAddr>,
    /// Held addresses that stay for the grace period only, and are given up or replaced then.
    pub expiring: Vec<Leaving>,
    /// Held addresses to give up when all of `add` is claimed.
    pub leaving: Vec<Leaving>,
    /// Addresses to claim.
    pub add: Vec<Choice>,
    /// Whether there would be more to add if some address came free.
    pub wants_more: bool,
    /// Why the owner does not get what it needs.
    pub refusal: Option<Refusal>,
}

/// A held address that is not to stay, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// The address.
    pub address: IpAddr,
    /// Why it is not to stay.
    pub why: Misfit,
}

/// Why a held address is not to stay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The request has changed: it is for another address, pool or family.
    #[error("{0}")]
    Unwanted(Unwanted),
    /// No pool allows it any more.
    #[error("{0}")]
    Disallowed(UnfitAddress),
    /// The pools have changed: the request names the pool that it came from, and another one has it by now.
    #[error("{0}")]
    Taken(UnfitAddress),
    /// It cannot be shared on the owner's present terms.
    #[error("{0}")]
    Clash(Clash),
    /// A stranger with this MAC address answers there ([`crate::Reservation::Quarantined`]), and not everywhere
    /// ([`Allocator::answers_everywhere`]).
    #[error("the machine with the MAC address {0} answers at it")]
    Quarantined(String),
}

/// How a request is not for an address that is held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unwanted {
    /// The owner has no cluster address of the family.
    #[error("the Service has no {0} cluster address any more")]
    Family(Family),
    /// One address of the family is enough.
    #[error("one {0} address is enough")]
    Surplus(Family),
    /// Another one is requested.
    #[error("the Service requests another address")]
    Address,
    /// Another pool is named than this one, whose name is for those only whom it is for.
    #[error("the Service asks for another pool{}", Than(.0.as_ref()))]
    Pool(Option<PoolName>),
}

/// Writes which pool it is not, to those only whom it is for.
struct Than<'a>(Option<&'a PoolName>);

impl fmt::Display for Than<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |pool| write!(f, " than \"{pool}\""))
    }
}

/// Whether addresses that no pool allows any more are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grace {
    /// Not yet.
    Lasts,
    /// Now.
    Over,
}

impl Allocator {
    /// What is to become of the addresses that `owner` holds, when it asks for this. Nothing is recorded: what is to be
    /// added stays free until it is claimed.
    ///
    /// What fits stays. What the request is not for any more, and what a stranger has, stays as long as nothing replaces
    /// it. What no pool allows any more stays as long as `grace` lasts, and is not replaced before, unless the request is for
    /// another one. What another pool has by now than the one that it came from, and that the request names, is not
    /// replaced before either, and stays as long as nothing replaces it.
    pub fn plan(&self, owner: &Owner, request: &Request, held: &[Held], grace: Grace) -> Plan {
        let chooser = self.chooser(owner, request);
        Planner { chooser, grace, plan: Plan::default() }.planned(held)
    }

    /// Whether `owner`, which has no address yet, may have what one of the same name had before it. There is no grace
    /// period for it: who comes anew has lost nothing.
    pub fn may_inherit(&self, owner: &Owner, request: &Request, held: &Held) -> bool {
        self.chooser(owner, request).may_inherit(held)
    }

    /// Whether the pool that has `address` is for `owner` and is one that it asks for, whoever holds the address.
    pub fn allows(&self, owner: &Owner, request: &Request, address: IpAddr) -> bool {
        self.chooser(owner, request).allowed(address).is_ok()
    }

    /// Those of the addresses that `owner` holds which no pool allows any more, whatever it asks for.
    pub fn disallowed(&self, owner: &Owner, requester: &Requester, held: &[Held]) -> Vec<Leaving> {
        let request = Request { requester: requester.clone(), ..Request::default() };
        let chooser = self.chooser(owner, &request);
        let leaving = |held: &Held| {
            let why = chooser.allowed(held.address).err()?;
            let lasts = !chooser.may_change(held, &why);
            lasts.then_some(Leaving { address: held.address, why: Misfit::Disallowed(why) })
        };
        held.iter().filter_map(leaving).collect()
    }

    fn chooser<'a>(&'a self, owner: &'a Owner, request: &'a Request) -> Chooser<'a> {
        let terms = SharingTerms::from(request.sharing.clone());
        Chooser { allocator: self, owner, request, terms }
    }
}

struct Planner<'a> {
    chooser: Chooser<'a>,
    grace: Grace,
    plan: Plan,
}

impl Planner<'_> {
    fn planned(mut self, held: &[Held]) -> Plan {
        for held in held {
            self.judge(held);
        }
        self.fill();
        self.postpone();
        self.plan.wants_more = self.wants_more();
        self.retain(held);
        self.plan
    }

    fn judge(&mut self, held: &Held) {
        let Held { address, .. } = *held;
        match self.misfit(held) {
            None => self.plan.keep.push(address),
            Some(why @ Misfit::Disallowed(_)) if self.grace == Grace::Lasts => {
                self.plan.expiring.push(Leaving { address, why });
            }
            Some(why) => self.plan.leaving.push(Leaving { address, why }),
        }
    }

    /// Why an address is not to stay. Who has to leave it to somebody else has to, whoever answers there.
    fn misfit(&self, held: &Held) -> Option<Misfit> {
        match self.mismatch(held) {
            None | Some(Misfit::Disallowed(_) | Misfit::Taken(_))
                if self.quarantine(held.address).is_some() =>
            {
                self.quarantine(held.address)
            }
            mismatch => mismatch,
        }
    }

    /// The stranger at an address, unless another address would be no better.
    fn quarantine(&self, address: IpAddr) -> Option<Misfit> {
        let allocator = self.chooser.allocator;
        let stranger = allocator.quarantine(address)?;
        if allocator.answers_everywhere(address) {
            return None;
        }
        Some(Misfit::Quarantined(stranger.to_owned()))
    }

    /// How an address does not go together with the request, the pools or other holders.
    fn mismatch(&self, held: &Held) -> Option<Misfit> {
        if let Some(unwanted) = self.unwanted(held.address) {
            return Some(Misfit::Unwanted(unwanted));
        }
        let Chooser { allocator, owner, terms, .. } = &self.chooser;
        match self.chooser.allowed(held.address) {
            Err(why @ UnfitAddress::OtherPool(_)) if self.names_origin(held) => {
                Some(Misfit::Taken(why))
            }
            Err(UnfitAddress::OtherPool(pool)) => Some(Misfit::Unwanted(Unwanted::Pool(pool))),
            Err(why) if self.chooser.may_change(held, &why) => None,
            Err(why) => Some(Misfit::Disallowed(why)),
            Ok(_) => {
                let scope = allocator.sharing_scope(held.address);
                allocator
                    .holders
                    .lasting_clash(owner, held.address, terms, scope)
                    .map(Misfit::Clash)
            }
        }
    }

    /// Whether the request still names the pool that an address came from.
    fn names_origin(&self, held: &Held) -> bool {
        let named = self.chooser.request.pools.named(Family::of(held.address));
        let origin = held.origin.as_ref();
        named.zip(origin).is_some_and(|(named, origin)| named.contains(origin))
    }

    fn unwanted(&self, address: IpAddr) -> Option<Unwanted> {
        let (request, family) = (self.chooser.request, Family::of(address));
        if !request.families.want(family) {
            return Some(Unwanted::Family(family));
        }
        if !request.addresses.is_empty() && !request.addresses.contains(&address) {
            return Some(Unwanted::Address);
        }
        self.has(family).then_some(Unwanted::Surplus(family))
    }

    /// Whether there is an address of `family` already that stays, if only for the grace period.
    fn has(&self, family: Family) -> bool {
        let expiring = self.plan.expiring.iter().map(|it| &it.address);
        let added = self.plan.add.iter().map(|it| &it.address);
        self.plan.keep.iter().chain(expiring).chain(added).any(|it| Family::of(*it) == family)
    }

    /// Finds what is missing.
    fn fill(&mut self) {
        let Request { families, addresses, .. } = self.chooser.request;
        if let Some(address) = addresses.iter().find(|it| !families.want(Family::of(**it))) {
            let why = UnfitAddress::Family(Family::of(*address));
            self.plan.refusal = Some(Refusal::Address { address: *address, why });
            return;
        }
        match families {
            Families::One(family) if self.has(*family) => {}
            Families::One(family) => self.add(*family),
            Families::Prefer(first) => self.fill_preferring(*first),
            Families::Both(first) => self.fill_both(*first),
        }
    }

    /// One of each, as far as possible; a refusal only when there is nothing at all.
    fn fill_preferring(&mut self, first: Family) {
        self.add_pair();
        let mut refusal = None;
        for family in [first, first.other()] {
            if !self.has(family) && self.may_choose(family) {
                self.add(family);
                refusal = refusal.or(self.plan.refusal.take());
            }
        }
        if !self.has(first) && !self.has(first.other()) {
            self.plan.refusal = refusal;
        }
    }

    /// One of each. What would remain alone is not added.
    fn fill_both(&mut self, first: Family) {
        self.add_pair();
        for family in [first, first.other()] {
            if !self.has(family) && self.plan.refusal.is_none() {
                if self.may_choose(family) {
                    self.add(family);
                } else {
                    self.plan.refusal = Some(Refusal::OneAddressForTwo { missing: family });
                }
            }
        }
        if self.plan.refusal.is_some() {
            self.plan.add.clear();
        }
    }

    /// Leaves what another pool has by now for the grace period, instead of replacing it at once.
    fn postpone(&mut self) {
        if self.grace == Grace::Over {
            return;
        }
        for leaving in core::mem::take(&mut self.plan.leaving) {
            let family = Family::of(leaving.address);
            let replaces = |choice: &Choice| Family::of(choice.address) == family;
            if matches!(leaving.why, Misfit::Taken(_)) && self.plan.add.iter().any(replaces) {
                self.plan.add.retain(|choice| !replaces(choice));
                self.plan.expiring.push(leaving);
            } else {
                self.plan.leaving.push(leaving);
            }
        }
    }

    fn wants_more(&self) -> bool {
        let missing = |family| !self.has(family) && self.may_choose(family);
        self.plan.refusal.is_some() || self.chooser.request.families.wanted().any(missing)
    }

    /// Requested addresses are all that there is to be.
    fn may_choose(&self, family: Family) -> bool {
        let requested = &self.chooser.request.addresses;
        requested.is_empty() || requested.iter().any(|address| Family::of(*address) == family)
    }

    /// Adds one of each family from one pool, when there is neither yet and nothing speaks for different pools.
    fn add_pair(&mut self) {
        let Chooser { request, .. } = &self.chooser;
        let free_choice = request.addresses.is_empty() && !request.pools.is_per_family();
        if free_choice && !Family::ALL.iter().any(|family| self.has(*family)) {
            self.plan.add.extend(self.chooser.pair().into_iter().flatten());
            let first = request.families.first();
            self.plan.add.sort_by_key(|choice| Family::of(choice.address) != first);
        }
    }

    /// Adds an address of `family`, rather from the pool that the owner has one of already.
    fn add(&mut self, family: Family) {
        let beside = self.pool_in_hand().and_then(|pool| self.chooser.of_pool(&pool, family));
        let by_request = || self.chooser.one(family);
        let requested = !self.chooser.request.addresses.is_empty();
        match beside.filter(|_| !requested).map_or_else(by_request, Ok) {
            Ok(choice) => self.plan.add.push(choice),
            Err(refusal) => self.plan.refusal = Some(refusal),
        }
    }

    fn pool_in_hand(&self) -> Option<PoolName> {
        if self.chooser.request.pools.is_per_family() {
            return None;
        }
        let pool = self.chooser.allocator.pool_of(*self.plan.keep.first()?)?;
        Some(pool.name.clone())
    }

    /// Keeps what nothing replaces, except what somebody else has a better right to: for the grace period only what no pool
    /// allows any more, whatever is asked for.
    fn retain(&mut self, held: &[Held]) {
        let Chooser { allocator, owner, request, .. } = self.chooser;
        let disallowed = allocator.disallowed(owner, &request.requester, held);
        for leaving in core::mem::take(&mut self.plan.leaving) {
            let stays = match leaving.why {
                Misfit::Unwanted(_) => self.plan.refusal.is_some(),
                Misfit::Quarantined(_) | Misfit::Taken(_) => true,
                Misfit::Disallowed(_) | Misfit::Clash(_) => false,
            };
            let disallowed = disallowed.iter().find(|it| it.address == leaving.address);
            match disallowed {
                _ if !stays || self.has(Family::of(leaving.address)) => {
                    self.plan.leaving.push(leaving);
                }
                None => self.plan.keep.push(leaving.address),
                Some(why) if self.grace == Grace::Lasts => self.plan.expiring.push(why.clone()),
                Some(why) => self.plan.leaving.push(why.clone()),
            }
        }
    }
}

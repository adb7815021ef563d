//! Which address somebody may have who needs one.

use alloc::vec::Vec;
use core::net::IpAddr;

use crate::{
    allocator::{Allocator, Contents, Entry},
    names::{Owner, PoolName},
    plan::Held,
    pool::{Outsider, Pool},
    range::Family,
    refusal::{Refusal, Unfit, UnfitAddress, Unfitness},
    request::Request,
    reserved::{Reservation, Special},
    sharing::{Disagreement, SharingScope, SharingTerms},
    space::Space,
};

/// An address that somebody may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The address. It stays free until it is claimed.
    pub address: IpAddr,
    /// The pool that it is from.
    pub pool: PoolName,
}

/// Chooses for one owner with one request.
pub(crate) struct Chooser<'a> {
    pub(crate) allocator: &'a Allocator,
    pub(crate) owner: &'a Owner,
    pub(crate) request: &'a Request,
    pub(crate) terms: SharingTerms,
}

impl Chooser<'_> {
    /// An address of `family`: the requested one, or the first that there is.
    pub(crate) fn one(&self, family: Family) -> Result<Choice, Refusal> {
        match self.request.addresses.iter().find(|address| Family::of(**address) == family) {
            Some(address) => self.requested(*address),
            None => self.first_of(family),
        }
    }

    /// The lowest address that a Service would share, else the free one that is next, of the first pool that has any.
    fn first_of(&self, family: Family) -> Result<Choice, Refusal> {
        let mut pools = Vec::new();
        for candidate in self.candidates(family) {
            match candidate.and_then(|entry| self.give_from(entry, family)) {
                Ok(choice) => return Ok(choice),
                Err(unfit) => pools.push(unfit),
            }
        }
        let named = self.request.pools.named(family).is_some();
        if pools.is_empty() && !named {
            return Err(Refusal::NoPools);
        }
        if !named {
            // Which pools there are for others is not this Service's business.
            pools.retain(|unfit| !matches!(*unfit.why, Unfitness::Outsider(_)));
        }
        Err(Refusal::Pools { family, named, pools })
    }

    /// One address of each family, from the first pool that has both.
    pub(crate) fn pair(&self) -> Option<[Choice; 2]> {
        let from = |entry: &Entry| {
            let of = |family| self.give_from(entry, family).ok();
            Some([of(Family::V4)?, of(Family::V6)?])
        };
        self.candidates(Family::V4).filter_map(Result::ok).find_map(from)
    }

    /// An address of `family` from this pool, if the request allows it.
    pub(crate) fn of_pool(&self, pool: &PoolName, family: Family) -> Option<Choice> {
        let mut candidates = self.candidates(family).filter_map(Result::ok);
        let entry = candidates.find(|entry| entry.name == *pool)?;
        self.give_from(entry, family).ok()
    }

    /// The pools to try, in order.
    fn candidates(&self, family: Family) -> impl Iterator<Item = Result<&Entry, Unfit>> {
        let named = self.request.pools.named(family);
        let by_name = named.into_iter().flatten().map(|name| self.named(name));
        let any = named.is_none().then(|| self.allocator.in_order().map(|it| self.automatic(it)));
        by_name.chain(any.into_iter().flatten())
    }

    fn named(&self, name: &PoolName) -> Result<&Entry, Unfit> {
        self.allocator.entry(name).ok_or_else(|| Unfit::new(name, Unfitness::Unknown))
    }

    /// A pool that is tried unasked. Of one that is for others nothing else is said.
    fn automatic<'e>(&self, entry: &'e Entry) -> Result<&'e Entry, Unfit> {
        let is_for_us = entry.admits(&self.request.requester).is_ok();
        match entry.pool_in_use() {
            Some((pool, _)) if !pool.auto_assign && is_for_us => {
                Err(Unfit::new(&entry.name, Unfitness::NotAutomatic))
            }
            _ => Ok(entry),
        }
    }

    fn give_from(&self, entry: &Entry, family: Family) -> Result<Choice, Unfit> {
        let unfit = |why| Unfit::new(&entry.name, why);
        let space = self.opened(entry, family).map_err(unfit)?;
        let scope = entry.pool_in_use().map(|(pool, _)| pool.sharing).unwrap_or_default();
        let free = || self.allocator.next_free(entry, space, family);
        let address = self.joinable(space, family, scope).or_else(free);
        let pool = entry.name.clone();
        address
            .map(|address| Choice { address, pool })
            .ok_or_else(|| unfit(exhausted(space, family)))
    }

    /// The addresses of this pool, if it is usable and for this Service.
    fn opened<'e>(&self, entry: &'e Entry, family: Family) -> Result<&'e Space, Unfitness> {
        entry.admits(&self.request.requester).map_err(Unfitness::Outsider)?;
        match &entry.contents {
            Contents::Invalid(_) => Err(Unfitness::Invalid),
            Contents::Overlapping(_, overlap) => Err(Unfitness::Overlapping(overlap.clone())),
            Contents::InUse(pool, _) if pool.ends => Err(Unfitness::Ending),
            Contents::InUse(_, spaces) => Ok(spaces.of(family)),
        }
    }

    /// The lowest address of the pool that is held by Services who would share it.
    fn joinable(&self, space: &Space, family: Family, scope: SharingScope) -> Option<IpAddr> {
        let sharing = self.request.sharing.as_ref()?;
        let mut from = 0;
        loop {
            let member = self.allocator.holders.joinable(sharing, family, scope, from)?;
            let allowed = space.allowed_from(member)?;
            if allowed == member {
                let address = family.address(member);
                if self.allocator.reservation(address).is_none() {
                    return Some(address);
                }
                from = member.checked_add(1)?;
            } else {
                from = allowed;
            }
        }
    }

    fn requested(&self, address: IpAddr) -> Result<Choice, Refusal> {
        match self.check(address) {
            Ok(pool) => Ok(Choice { address, pool: pool.name.clone() }),
            Err(why) => Err(Refusal::Address { address, why }),
        }
    }

    /// Whether the owner may have exactly this address, and from which pool.
    fn check(&self, address: IpAddr) -> Result<&Pool, UnfitAddress> {
        let pool = self.allowed(address)?;
        if let Some(reservation) = self.allocator.reservation(address) {
            return Err(UnfitAddress::Reserved(reservation.clone()));
        }
        match self.allocator.holders.clash(self.owner, address, &self.terms, pool.sharing) {
            Some(clash) => Err(UnfitAddress::Held(clash)),
            None if pool.ends => Err(UnfitAddress::PoolEnding(pool.name.clone())),
            None => Ok(pool),
        }
    }

    /// Whether an owner may have the address that one of the same name had before it: one that it asks for, and could get if
    /// nobody had it. What a stranger at it means is judged like for one that it has.
    pub(crate) fn may_inherit(&self, held: &Held) -> bool {
        let requested = &self.request.addresses;
        if !requested.is_empty() && !requested.contains(&held.address) {
            return false;
        }
        match self.check(held.address) {
            Ok(_) | Err(UnfitAddress::PoolEnding(_)) => true,
            Err(UnfitAddress::Reserved(why)) => matches!(why, Reservation::Quarantined(_)),
            // Of others on the lock it may not be known yet that they share.
            Err(UnfitAddress::Held(clash)) => clash.why == Disagreement::Unknown,
            Err(why) => self.may_change(held, &why),
        }
    }

    /// Whether an address that the owner has is not allowed only by what cannot be known at present: its pool cannot be used,
    /// or does not say whether it is for this namespace.
    pub(crate) fn may_change(&self, held: &Held, why: &UnfitAddress) -> bool {
        match why {
            UnfitAddress::NoPool => {
                self.allocator.may_come_back(held.address, held.origin.as_ref())
            }
            UnfitAddress::Outsider { why, .. } => matches!(why, Outsider::Unknown(_)),
            _ => false,
        }
    }

    /// Whether a pool that the owner may use allows this address, whoever holds it.
    pub(crate) fn allowed(&self, address: IpAddr) -> Result<&Pool, UnfitAddress> {
        if let Some(special) = Special::of(address) {
            return Err(UnfitAddress::Special(special));
        }
        let entry = self.allocator.entry_of(address).and_then(Entry::pool_in_use);
        let (pool, spaces) = entry.ok_or(UnfitAddress::NoPool)?;
        let family = Family::of(address);
        let named = self.request.pools.named(family);
        let is_named = named.is_some_and(|named| named.contains(&pool.name));
        let outsider = |why| {
            let pool = is_named.then(|| pool.name.clone());
            UnfitAddress::Outsider { pool, why }
        };
        let admitted = pool.admits(&self.request.requester).map_err(outsider);
        if named.is_some() && !is_named {
            let name = admitted.is_ok().then(|| pool.name.clone());
            return Err(UnfitAddress::OtherPool(name));
        }
        admitted?;
        if spaces.of(family).allows(address) {
            Ok(pool)
        } else {
            Err(UnfitAddress::LeftOut(pool.name.clone()))
        }
    }
}

fn exhausted(space: &Space, family: Family) -> Unfitness {
    match space.usage() {
        usage if usage.total == 0 => Unfitness::NoSuchFamily(family),
        _ => Unfitness::Full(family),
    }
}

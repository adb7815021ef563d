//! Who holds which address, and which one a newcomer may have.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::net::IpAddr;

use crate::{
    free::FreeSpace,
    names::{Owner, PoolName},
    pool::{InvalidPool, Pool},
    range::{AddressRange, Family},
    refusal::{Refusal, Unfit, Unfitness},
};

/// Knows the pools and who holds which address; see the [crate] documentation for how it is driven.
#[derive(Debug, Clone, Default)]
pub struct Allocator {
    /// In the order in which they are tried.
    pools: Vec<Entry>,
    holders: BTreeMap<IpAddr, Owner>,
    /// The same as `holders`, seen from the other side.
    held: BTreeMap<Owner, BTreeSet<IpAddr>>,
}

#[derive(Debug, Clone)]
struct Entry {
    name: PoolName,
    contents: Contents,
}

#[derive(Debug, Clone)]
enum Contents {
    Valid {
        pool: Box<Pool>,
        /// Kept also while the pool overlaps another one, so that it is right when the other goes.
        free: FreeSpace,
        overlap: Option<Overlap>,
    },
    Invalid(InvalidPool),
}

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyRequest {
    /// The only pool that will do. `None`: any that assigns automatically.
    pub pool: Option<PoolName>,
    /// The address's family.
    pub family: Family,
}

/// An address that somebody may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The address. It stays free until it is claimed.
    pub address: IpAddr,
    /// The pool that it is from.
    pub pool: PoolName,
}

/// A claim for an address that another owner holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address} is held by {holder}")]
pub struct AddressTaken {
    /// The address.
    pub address: IpAddr,
    /// Who holds it.
    pub holder: Owner,
}

/// Addresses that an earlier pool has too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the older pool \"{with}\" has {range} too: remove that from one of the two")]
pub struct Overlap {
    /// The earlier pool, which keeps the addresses.
    pub with: PoolName,
    /// The first range that both have.
    pub range: AddressRange,
}

/// Whether a pool can give addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolState<'a> {
    /// It can, as far as there are free ones.
    Usable,
    /// It cannot before somebody corrects it.
    Invalid(&'a InvalidPool),
    /// It cannot before the earlier pool goes or changes.
    Overlapping(&'a Overlap),
}

/// How full a pool is, in addresses of one family. Saturates at `u128::MAX`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many the pool has.
    pub total: u128,
    /// How many of them are held.
    pub used: u128,
    /// How many it can still give; 0 while it is not usable.
    pub free: u128,
}

impl Allocator {
    /// Replaces the pools. Where pools have the same addresses, the earlier one keeps them and the later one is not
    /// used; the order is also that in which they are tried. Nobody loses a held address.
    pub fn set_pools(&mut self, pools: impl IntoIterator<Item = Result<Pool, InvalidPool>>) {
        let mut entries: Vec<Entry> = Vec::new();
        for declared in pools {
            let entry = Entry::new(declared, &entries);
            entries.push(entry);
        }
        for address in self.holders.keys() {
            for entry in &mut entries {
                entry.take(*address);
            }
        }
        self.pools = entries;
    }

    /// The address that a newcomer with this request may have: the lowest free one of the first pool that has any.
    ///
    /// # Errors
    /// When there is none: every pool that was tried, and why it has nothing to give.
    pub fn choose(&self, request: &FamilyRequest) -> Result<Choice, Refusal> {
        match &request.pool {
            Some(name) => self.choose_from(name, request.family),
            None => self.choose_anywhere(request.family),
        }
    }

    fn choose_from(&self, name: &PoolName, family: Family) -> Result<Choice, Refusal> {
        let entry = self.entry(name).ok_or_else(|| self.unknown(name))?;
        entry
            .choose(family)
            .map_err(|why| Refusal::NamedPool { family, pool: entry.unfit(why).into() })
    }

    fn choose_anywhere(&self, family: Family) -> Result<Choice, Refusal> {
        let mut pools = Vec::new();
        for entry in &self.pools {
            match entry.choose_automatically(family) {
                Ok(choice) => return Ok(choice),
                Err(why) => pools.push(entry.unfit(why)),
            }
        }
        if pools.is_empty() {
            return Err(Refusal::NoPools);
        }
        Err(Refusal::EveryPool { family, pools })
    }

    /// Records that `owner` holds `address`, which need not be in any pool. To hold it already is no error.
    ///
    /// # Errors
    /// When somebody else holds it.
    pub fn claim(&mut self, owner: &Owner, address: IpAddr) -> Result<(), AddressTaken> {
        match self.holders.get(&address) {
            Some(holder) if holder == owner => Ok(()),
            Some(holder) => Err(AddressTaken { address, holder: holder.clone() }),
            None => {
                self.holders.insert(address, owner.clone());
                self.held.entry(owner.clone()).or_default().insert(address);
                for entry in &mut self.pools {
                    entry.take(address);
                }
                Ok(())
            }
        }
    }

    /// Frees `address` if `owner` holds it; false if not.
    pub fn release(&mut self, owner: &Owner, address: IpAddr) -> bool {
        if self.holders.get(&address) != Some(owner) {
            return false;
        }
        self.holders.remove(&address);
        if let Some(held) = self.held.get_mut(owner) {
            held.remove(&address);
            if held.is_empty() {
                self.held.remove(owner);
            }
        }
        for entry in &mut self.pools {
            entry.give(address);
        }
        true
    }

    /// Who holds `address`.
    pub fn holder(&self, address: IpAddr) -> Option<&Owner> {
        self.holders.get(&address)
    }

    /// What `owner` holds, in ascending order, IPv4 first.
    pub fn held_by(&self, owner: &Owner) -> impl Iterator<Item = IpAddr> + '_ {
        self.held.get(owner).into_iter().flatten().copied()
    }

    /// The first pool in use that has `address`.
    pub fn pool_of(&self, address: IpAddr) -> Option<&PoolName> {
        self.pools.iter().find(|entry| entry.gives(address)).map(|entry| &entry.name)
    }

    /// Every pool and whether it can give addresses, in the order in which they are tried.
    pub fn pools(&self) -> impl Iterator<Item = (&PoolName, PoolState<'_>)> {
        self.pools.iter().map(|entry| (&entry.name, entry.state()))
    }

    /// How full a pool is; `None` when there is no such pool.
    pub fn usage(&self, pool: &PoolName, family: Family) -> Option<Usage> {
        self.entry(pool).map(|entry| entry.usage(family))
    }

    fn entry(&self, name: &PoolName) -> Option<&Entry> {
        self.pools.iter().find(|entry| entry.name == *name)
    }

    fn unknown(&self, name: &PoolName) -> Refusal {
        let mut existing: Vec<PoolName> =
            self.pools.iter().map(|entry| entry.name.clone()).collect();
        existing.sort();
        Refusal::UnknownPool { name: name.clone(), existing }
    }
}

impl Entry {
    fn new(declared: Result<Pool, InvalidPool>, earlier: &[Entry]) -> Self {
        match declared {
            Err(invalid) => {
                Self { name: invalid.pool.clone(), contents: Contents::Invalid(invalid) }
            }
            Ok(pool) => Self {
                name: pool.name.clone(),
                contents: Contents::Valid {
                    free: FreeSpace::new(&pool.ranges),
                    overlap: earlier.iter().find_map(|entry| entry.overlap_with(&pool)),
                    pool: Box::new(pool),
                },
            },
        }
    }

    /// How `pool`, a later one, overlaps this one. A pool that is not in use keeps nobody from anything.
    fn overlap_with(&self, pool: &Pool) -> Option<Overlap> {
        match &self.contents {
            Contents::Valid { pool: own, overlap: None, .. } => {
                pool.intersection(own).map(|range| Overlap { with: self.name.clone(), range })
            }
            _ => None,
        }
    }

    fn choose_automatically(&self, family: Family) -> Result<Choice, Unfitness> {
        match &self.contents {
            Contents::Valid { pool, .. } if !pool.auto_assign => Err(Unfitness::NotAutomatic),
            _ => self.choose(family),
        }
    }

    fn choose(&self, family: Family) -> Result<Choice, Unfitness> {
        let free = match &self.contents {
            Contents::Invalid(invalid) => return Err(Unfitness::Invalid(invalid.clone())),
            Contents::Valid { overlap: Some(overlap), .. } => {
                return Err(Unfitness::Overlapping(overlap.clone()));
            }
            Contents::Valid { free, .. } => free,
        };
        let pool = self.name.clone();
        free.first(family).map(|address| Choice { address, pool }).ok_or_else(|| {
            match free.of(family).total() {
                0 => Unfitness::NoSuchFamily(family),
                total => Unfitness::Full { total },
            }
        })
    }

    fn unfit(&self, why: Unfitness) -> Unfit {
        Unfit { pool: self.name.clone(), why }
    }

    fn take(&mut self, address: IpAddr) {
        if let Contents::Valid { free, .. } = &mut self.contents {
            free.take(address);
        }
    }

    fn give(&mut self, address: IpAddr) {
        if let Contents::Valid { pool, free, .. } = &mut self.contents
            && pool.ranges.iter().any(|range| range.contains(address))
        {
            free.give(address);
        }
    }

    fn gives(&self, address: IpAddr) -> bool {
        match &self.contents {
            Contents::Valid { pool, overlap: None, .. } => {
                pool.ranges.iter().any(|range| range.contains(address))
            }
            _ => false,
        }
    }

    fn state(&self) -> PoolState<'_> {
        match &self.contents {
            Contents::Invalid(invalid) => PoolState::Invalid(invalid),
            Contents::Valid { overlap: Some(overlap), .. } => PoolState::Overlapping(overlap),
            Contents::Valid { .. } => PoolState::Usable,
        }
    }

    fn usage(&self, family: Family) -> Usage {
        let Contents::Valid { free, overlap, .. } = &self.contents else {
            return Usage::default();
        };
        let (total, used) = (free.of(family).total(), free.of(family).taken());
        let free = if overlap.is_none() { total.saturating_sub(used) } else { 0 };
        Usage { total, used, free }
    }
}

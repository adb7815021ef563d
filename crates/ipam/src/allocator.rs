//! Which pools there are, who holds which address, and what is reserved.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use core::{fmt, net::IpAddr};

use crate::{
    holders::Holders,
    names::{Owner, PoolName},
    pool::{InvalidPool, Outsider, Pool, PoolError},
    range::{AddressRange, Family, to_number},
    request::Requester,
    reserved::Reservation,
    sharing::{Clash, Disagreement, SharingScope, SharingTerms},
    space::{Spaces, Usage, declared},
};

/// Knows the pools and who holds which address; see the [crate] documentation for how it is driven.
#[derive(Debug, Clone, Default)]
pub struct Allocator {
    /// As they were declared: of two with the same addresses, the earlier one has them.
    pub(crate) entries: Vec<Entry>,
    by_name: BTreeMap<PoolName, usize>,
    /// The order in which they are tried.
    order: Vec<usize>,
    /// Every interval of the pools in use, by its first number: its last number, and which pool's it is.
    in_use: BTreeMap<(Family, u128), (u128, usize)>,
    pub(crate) holders: Holders,
    reserved: BTreeMap<IpAddr, BTreeSet<Reservation>>,
    /// The machines that answer at reserved addresses, by their MAC addresses.
    pub(crate) strangers: BTreeMap<IpAddr, String>,
    /// When nodes asked whether another machine has an address.
    pub(crate) asked: BTreeMap<IpAddr, i64>,
    incomplete: bool,
}

/// A pool, and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: PoolName,
    pub(crate) contents: Contents,
    /// Why its present declaration is not used, when an earlier one is in its place.
    refused: Option<Unusable>,
}

#[derive(Debug, Clone)]
pub(crate) enum Contents {
    InUse(Pool, Spaces),
    Overlapping(Pool, Overlap),
    Invalid(InvalidPool),
}

/// Addresses that an earlier pool has too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// The earlier pool, which keeps the addresses.
    pub with: PoolName,
    /// A range that both have.
    pub range: AddressRange,
    /// Whether the earlier pool has the name of the later one, too, as where one is to take the place of the other.
    pub is_namesake: bool,
}

impl core::error::Error for Overlap {}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { with, range, is_namesake } = self;
        if *is_namesake {
            return write!(
                f,
                "another pool has the name \"{with}\" and {range} as well: it is in the place of this one until it is \
                 deleted"
            );
        }
        write!(f, "pool \"{with}\" has {range} too: remove that from one of the two")
    }
}

/// Why a pool cannot be used as it is declared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It is broken.
    #[error("{0}")]
    Invalid(InvalidPool),
    /// An earlier pool has addresses of it.
    #[error("{0}")]
    Overlapping(Overlap),
}

/// Whether a pool can give addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolState<'a> {
    /// It can, as far as there are free ones.
    Usable,
    /// It cannot, since it is being deleted. Who has addresses of it keeps them until it is gone.
    Ending,
    /// It cannot before somebody corrects it.
    Invalid(&'a InvalidPool),
    /// It cannot before the earlier pool goes or changes.
    Overlapping(&'a Overlap),
    /// It can, but as it was declared earlier: its present declaration cannot be used.
    Earlier(&'a Unusable),
}

impl Allocator {
    /// Replaces the pools. Where pools have the same addresses, the earlier one keeps them and the later one is not
    /// used. Nobody loses a held address.
    pub fn set_pools(&mut self, pools: impl IntoIterator<Item = Result<Pool, InvalidPool>>) {
        self.set_pools_or_earlier(pools.into_iter().map(|declared| (declared, None)));
    }

    /// As [`Self::set_pools`], where each pool may come with an earlier declaration of the same name: that one is used
    /// while the present one cannot be, unless a pool before it has its addresses by now. What a pool had and still asks for
    /// no other one grows into, in whichever order they come.
    pub fn set_pools_or_earlier(
        &mut self,
        pools: impl IntoIterator<Item = (Result<Pool, InvalidPool>, Option<Pool>)>,
    ) {
        self.entries.clear();
        self.by_name.clear();
        self.in_use.clear();
        let pools: Vec<_> = pools.into_iter().collect();
        let kept = kept(&pools);
        for (declared, earlier) in pools {
            self.add_pool(declared, earlier, &kept);
        }
        self.order = (0..self.entries.len()).collect();
        self.order.sort_by(|a, b| self.entries[*a].rank().cmp(&self.entries[*b].rank()));
    }

    fn add_pool(
        &mut self,
        declared: Result<Pool, InvalidPool>,
        earlier: Option<Pool>,
        kept: &[(PoolName, AddressRange)],
    ) {
        let mut contents = self.contents_of(declared, kept);
        let mut refused = None;
        if let Some(why) = contents.unusable()
            && let Some(earlier) = earlier.filter(|earlier| earlier.name == *contents.name())
            && let usable @ Contents::InUse(..) = self.contents_of(Ok(earlier), &[])
        {
            (contents, refused) = (usable, Some(why));
        }
        let name = contents.name().clone();
        self.by_name.entry(name.clone()).or_insert(self.entries.len());
        self.entries.push(Entry { name, contents, refused });
    }

    /// What becomes of a pool that is declared after those that are there, when others keep these.
    fn contents_of(
        &mut self,
        declared: Result<Pool, InvalidPool>,
        kept: &[(PoolName, AddressRange)],
    ) -> Contents {
        match declared {
            Err(invalid) => Contents::Invalid(invalid),
            Ok(pool) => {
                match (self.overlap_with(&pool, kept), self.by_name.contains_key(&pool.name)) {
                    (Some(overlap), is_taken) if overlap.is_namesake == is_taken => {
                        Contents::Overlapping(pool, overlap)
                    }
                    (_, true) => Contents::Invalid(name_taken(pool)),
                    (_, false) => self.taken_into_use(pool, self.entries.len()),
                }
            }
        }
    }

    /// How `pool` overlaps one that is in use. A pool that is not in use keeps nobody from anything.
    fn overlap(&self, pool: &Pool) -> Option<Overlap> {
        pool.ranges.iter().find_map(|range| {
            let (_, last) = range.numbers();
            let (other_first, other_last, number) = self.interval_by(range.family(), last)?;
            let other = AddressRange::between(range.family(), other_first, other_last);
            let range = other.intersection(range)?;
            let with = self.entries[number].name.clone();
            Some(Overlap { is_namesake: with == pool.name, with, range })
        })
    }

    /// How `pool` overlaps an earlier pool, or what a later one is to keep.
    fn overlap_with(&self, pool: &Pool, kept: &[(PoolName, AddressRange)]) -> Option<Overlap> {
        self.overlap(pool).or_else(|| self.overlap_of_kept(pool, kept))
    }

    /// How `pool` overlaps what a pool that comes after it is to keep.
    fn overlap_of_kept(&self, pool: &Pool, kept: &[(PoolName, AddressRange)]) -> Option<Overlap> {
        let of_later = |name: &PoolName| *name != pool.name && !self.by_name.contains_key(name);
        kept.iter().filter(|(name, _)| of_later(name)).find_map(|(name, theirs)| {
            let range = pool.ranges.iter().find_map(|range| theirs.intersection(range))?;
            Some(Overlap { with: name.clone(), range, is_namesake: false })
        })
    }

    fn taken_into_use(&mut self, pool: Pool, number: usize) -> Contents {
        for family in Family::ALL {
            for range in disjoint(&pool, family) {
                let (first, last) = range.numbers();
                self.in_use.insert((family, first), (last, number));
            }
        }
        let mut spaces = Spaces::new(&pool);
        for range in Family::ALL.into_iter().flat_map(|family| disjoint(&pool, family)) {
            let space = spaces.of_mut(range.family());
            for address in self.holders.within(&range) {
                space.set_held(true);
                space.set_free(address, false);
            }
            for (address, _) in self.reserved.range(range.first()..=range.last()) {
                space.set_free(*address, false);
            }
        }
        Contents::InUse(pool, spaces)
    }

    /// The last interval in use that starts at or before `number`: its ends and its pool.
    fn interval_by(&self, family: Family, number: u128) -> Option<(u128, u128, usize)> {
        let (key, (last, pool)) = self.in_use.range((family, 0)..=(family, number)).next_back()?;
        Some((key.1, *last, *pool))
    }

    /// Says whether there are pools that cannot be read at present, not even their names. While there are, a held
    /// address that no known pool has may be one of theirs, and is not disallowed.
    pub fn set_incomplete(&mut self, incomplete: bool) {
        self.incomplete = incomplete;
    }

    /// Records that `owner` holds `address`, which need not be in any pool, on these terms. To hold it already, even
    /// on other terms, is no error. Returns whether it is any news.
    ///
    /// # Errors
    /// When the terms clash with those of another holder. Whoever holds it already goes on to do so on its old terms.
    pub fn claim(
        &mut self,
        owner: &Owner,
        address: IpAddr,
        terms: SharingTerms,
    ) -> Result<bool, Clash> {
        self.claim_as(owner, address, terms, |_| false)
    }

    /// As [`Self::claim`], for somebody who was told that they have the address: that the others are of another namespace
    /// is no hindrance then.
    ///
    /// # Errors
    /// As [`Self::claim`].
    pub fn keep(
        &mut self,
        owner: &Owner,
        address: IpAddr,
        terms: SharingTerms,
    ) -> Result<bool, Clash> {
        self.claim_as(owner, address, terms, |why| *why == Disagreement::Namespace)
    }

    /// Records that these hold `address`, in this order, as a record says of them, and on these terms, whatever theirs were
    /// before. Those whose terms have not changed come before those whose have. Of two whose terms clash the later one holds
    /// it for the time being, since both may be about to be changed alike: [`Self::parting`] tells of it. Returns whether it is
    /// any news.
    pub fn recall_all(
        &mut self,
        address: IpAddr,
        in_order: impl IntoIterator<Item = (Owner, SharingTerms)>,
    ) -> bool {
        let before = self.holders.is_held(address);
        let scope = self.sharing_scope(address);
        let is_news = self.holders.recall_all(address, in_order, scope);
        self.refresh(address, before);
        is_news
    }

    /// How `owner` clashes with somebody who has held `address` before it and stays, if it does: it has to leave when that
    /// does not pass.
    pub fn parting(&self, owner: &Owner, address: IpAddr) -> Option<&Clash> {
        self.holders.parting(owner, address)
    }

    fn claim_as(
        &mut self,
        owner: &Owner,
        address: IpAddr,
        terms: SharingTerms,
        tolerated: fn(&Disagreement) -> bool,
    ) -> Result<bool, Clash> {
        let before = self.holders.is_held(address);
        let scope = self.sharing_scope(address);
        let changed = self.holders.claim(owner, address, terms, scope, tolerated)?;
        self.refresh(address, before);
        Ok(changed)
    }

    /// Takes `address` from `owner`; false if it did not hold it.
    pub fn release(&mut self, owner: &Owner, address: IpAddr) -> bool {
        let before = self.holders.is_held(address);
        let held = self.holders.release(owner, address);
        self.refresh(address, before);
        held
    }

    /// Gives `address` to nobody from now on. Who holds it keeps it.
    pub fn reserve(&mut self, address: IpAddr, reason: Reservation) {
        if let Reservation::Quarantined(stranger) = &reason {
            self.strangers.insert(address, stranger.clone());
        }
        self.reserved.entry(address).or_default().insert(reason);
        self.refresh(address, self.holders.is_held(address));
    }

    /// Takes back what [`Self::reserve`] said.
    pub fn unreserve(&mut self, address: IpAddr, reason: &Reservation) {
        if matches!(reason, Reservation::Quarantined(stranger) if self.strangers.get(&address) == Some(stranger))
        {
            self.strangers.remove(&address);
        }
        if let Some(reasons) = self.reserved.get_mut(&address) {
            reasons.remove(reason);
            if reasons.is_empty() {
                self.reserved.remove(&address);
            }
        }
        self.refresh(address, self.holders.is_held(address));
    }

    /// Why `address` is given to nobody, if it is reserved.
    pub fn reservation(&self, address: IpAddr) -> Option<&Reservation> {
        self.reserved.get(&address)?.first()
    }

    /// Brings the pool of `address` up to date. `before`: whether anybody held it so far.
    fn refresh(&mut self, address: IpAddr, before: bool) {
        let held = self.holders.is_held(address);
        let free = !held && !self.reserved.contains_key(&address);
        if let Some(number) = self.number_of(address)
            && let Contents::InUse(_, spaces) = &mut self.entries[number].contents
        {
            let space = spaces.of_mut(Family::of(address));
            space.set_free(address, free);
            if held != before {
                space.set_held(held);
            }
        }
    }

    /// Whether `owner` holds `address`.
    pub fn holds(&self, owner: &Owner, address: IpAddr) -> bool {
        self.holders.holds(owner, address)
    }

    /// Everybody who holds `address`.
    pub fn holders(&self, address: IpAddr) -> impl Iterator<Item = &Owner> {
        self.holders.of(address)
    }

    /// What `owner` holds, in ascending order, IPv4 first.
    pub fn held_by(&self, owner: &Owner) -> impl Iterator<Item = IpAddr> + '_ {
        self.holders.held_by(owner)
    }

    /// The pool in use that has `address`.
    pub fn pool_of(&self, address: IpAddr) -> Option<&Pool> {
        self.entries[self.number_of(address)?].pool_in_use().map(|(pool, _)| pool)
    }

    /// Whose Services may share `address`.
    pub(crate) fn sharing_scope(&self, address: IpAddr) -> SharingScope {
        self.pool_of(address).map(|pool| pool.sharing).unwrap_or_default()
    }

    pub(crate) fn entry_of(&self, address: IpAddr) -> Option<&Entry> {
        self.number_of(address).map(|number| &self.entries[number])
    }

    fn number_of(&self, address: IpAddr) -> Option<usize> {
        let number = to_number(address);
        let (_, last, pool) = self.interval_by(Family::of(address), number)?;
        (number <= last).then_some(pool)
    }

    /// Whether a pool that cannot be used at present is, or may be, to blame that none in use has `address`, which
    /// came from pool `origin`: it is broken, it overlaps another one, or it cannot be read.
    pub(crate) fn may_come_back(&self, address: IpAddr, origin: Option<&PoolName>) -> bool {
        let is_origin = |entry: &Entry| origin.is_some_and(|origin| entry.name == *origin);
        self.incomplete
            || self.entries.iter().any(|entry| match &entry.contents {
                Contents::InUse(..) => false,
                Contents::Overlapping(pool, _) => pool.ranges.iter().any(|it| it.contains(address)),
                Contents::Invalid(_) => is_origin(entry),
            })
    }

    /// Every pool and whether it can give addresses, in the order in which they were declared.
    pub fn pools(&self) -> impl Iterator<Item = (&PoolName, PoolState<'_>)> {
        self.entries.iter().map(|entry| (&entry.name, entry.state()))
    }

    /// How full each of [`Self::pools`] is, by family, in the same order: of several with one name each has its own.
    pub fn usages(&self) -> impl Iterator<Item = impl Fn(Family) -> Usage + '_> {
        self.entries.iter().map(move |entry| move |family| self.usage_of(entry, family))
    }

    /// How full a pool is, of several with one name the first; `None` when there is no such pool.
    pub fn usage(&self, pool: &PoolName, family: Family) -> Option<Usage> {
        self.entry(pool).map(|entry| self.usage_of(entry, family))
    }

    fn usage_of(&self, entry: &Entry, family: Family) -> Usage {
        match &entry.contents {
            Contents::Invalid(_) => Usage::default(),
            Contents::InUse(pool, spaces) if pool.ends => {
                Usage { free: 0, ..spaces.of(family).usage() }
            }
            Contents::InUse(_, spaces) => spaces.of(family).usage(),
            Contents::Overlapping(pool, _) => Usage {
                total: declared(&pool.ranges, family).count(),
                used: self.used(pool, family),
                ..Usage::default()
            },
        }
    }

    fn used(&self, pool: &Pool, family: Family) -> u128 {
        let ranges = disjoint(pool, family);
        ranges.map(|range| self.holders.within(&range).count()).sum::<usize>() as u128
    }

    pub(crate) fn entry(&self, name: &PoolName) -> Option<&Entry> {
        self.by_name.get(name).map(|number| &self.entries[*number])
    }

    /// Every pool in the order in which they are tried.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = &Entry> {
        self.order.iter().map(|number| &self.entries[*number])
    }
}

impl Entry {
    /// Pools with rules come first, by their priority, where 0 comes last; then all by name.
    fn rank(&self) -> (bool, u32, &PoolName) {
        let rules = match &self.contents {
            Contents::InUse(pool, _) | Contents::Overlapping(pool, _) => pool.rules.as_ref(),
            Contents::Invalid(_) => None,
        };
        // One less than 0 is the greatest number.
        let turn = rules.map_or(0, |rules| rules.priority.wrapping_sub(1));
        (rules.is_none(), turn, &self.name)
    }

    /// Whether the pool is for this Service, usable or not.
    pub(crate) fn admits(&self, requester: &Requester) -> Result<(), Outsider> {
        match &self.contents {
            Contents::InUse(pool, _) | Contents::Overlapping(pool, _) => pool.admits(requester),
            Contents::Invalid(invalid) => invalid.admits(requester),
        }
    }

    pub(crate) fn pool_in_use(&self) -> Option<(&Pool, &Spaces)> {
        match &self.contents {
            Contents::InUse(pool, spaces) => Some((pool, spaces)),
            _ => None,
        }
    }

    /// The addresses of one family of a pool in use, each once.
    pub(crate) fn ranges(&self, family: Family) -> impl Iterator<Item = AddressRange> + use<> {
        let pool = self.pool_in_use().map(|(pool, _)| pool);
        pool.map(|pool| disjoint(pool, family)).into_iter().flatten()
    }

    fn state(&self) -> PoolState<'_> {
        if let Some(why) = &self.refused {
            return PoolState::Earlier(why);
        }
        match &self.contents {
            Contents::Invalid(invalid) => PoolState::Invalid(invalid),
            Contents::Overlapping(_, overlap) => PoolState::Overlapping(overlap),
            Contents::InUse(pool, _) if pool.ends => PoolState::Ending,
            Contents::InUse(..) => PoolState::Usable,
        }
    }
}

impl Contents {
    /// Why the pool is not in use.
    fn unusable(&self) -> Option<Unusable> {
        match self {
            Self::InUse(..) => None,
            Self::Overlapping(_, overlap) => Some(Unusable::Overlapping(overlap.clone())),
            Self::Invalid(invalid) => Some(Unusable::Invalid(invalid.clone())),
        }
    }

    fn name(&self) -> &PoolName {
        match self {
            Self::InUse(pool, _) | Self::Overlapping(pool, _) => &pool.name,
            Self::Invalid(invalid) => &invalid.pool,
        }
    }
}

/// A pool whose name an earlier one has.
fn name_taken(pool: Pool) -> InvalidPool {
    let error = PoolError::NameTaken(pool.name.clone());
    InvalidPool::new(pool.name, error).is_for(Ok::<_, PoolError>(pool.rules))
}

/// Of pools that ask for more than they had: what they had and still ask for, by the pools' names. Of two that had the same,
/// which only one of them can have had last, the first one keeps it.
fn kept(pools: &[(Result<Pool, InvalidPool>, Option<Pool>)]) -> Vec<(PoolName, AddressRange)> {
    let mut names = BTreeSet::new();
    let mut kept: Vec<(PoolName, AddressRange)> = Vec::new();
    for (declared, earlier) in pools {
        let name = declared.as_ref().map_or_else(|invalid| &invalid.pool, |pool| &pool.name);
        let (true, Ok(pool), Some(earlier)) = (names.insert(name), declared, earlier) else {
            continue;
        };
        if pool.is_within(earlier) {
            continue;
        }
        let pairs =
            pool.ranges.iter().flat_map(|it| earlier.ranges.iter().map(move |had| (it, had)));
        let both: Vec<AddressRange> = pairs.filter_map(|(it, had)| it.intersection(had)).collect();
        let is_free = |range: &AddressRange| {
            kept.iter().all(|(_, theirs)| theirs.intersection(range).is_none())
        };
        if both.iter().all(is_free) {
            kept.extend(both.into_iter().map(|range| (name.clone(), range)));
        }
    }
    kept
}

/// The pool's addresses of one family, each once.
fn disjoint(pool: &Pool, family: Family) -> impl Iterator<Item = AddressRange> + use<> {
    let ranges: Vec<_> = declared(&pool.ranges, family).iter().collect();
    ranges.into_iter().map(move |(first, last)| AddressRange::between(family, first, last))
}

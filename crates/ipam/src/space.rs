//! The addresses of one pool: which it has, which it may give, which are free.

use alloc::{boxed::Box, vec::Vec};
use core::net::IpAddr;

use crate::{
    intervals::Intervals,
    pool::Pool,
    range::{AddressRange, Family, to_number},
    reserved::SPECIAL,
};

/// How full a pool is, in addresses of one family. Saturates at `u128::MAX`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many the pool declares.
    pub total: u128,
    /// How many of them are held.
    pub used: u128,
    /// How many of the others are given to nobody: excluded, special, avoided, reserved.
    pub reserved: u128,
    /// How many it can still give; 0 while it is not usable.
    pub free: u128,
}

/// The addresses of one pool, of both families.
#[derive(Debug, Clone)]
pub(crate) struct Spaces(Box<[Space; 2]>);

/// The addresses of one family.
#[derive(Debug, Clone)]
pub(crate) struct Space {
    family: Family,
    numbering: Numbering,
    /// All that it may give: what it declares without what is excluded, special or avoided.
    allowed: Intervals,
    /// Those that nobody holds and nothing reserves.
    free: Intervals,
    /// How many it declares.
    total: u128,
    /// How many it may give.
    allowed_count: u128,
    /// How many of them are not free.
    taken: u128,
    /// How many of all that it declares are held.
    used: u128,
}

/// How addresses are numbered inside a space. Without avoided addresses there are no gaps in the numbers, so that a
/// pool that avoids them is not cut into pieces of 254.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbering {
    /// As they are.
    Plain,
    /// IPv4 without those that end in .0 or .255.
    Avoiding,
}

impl Spaces {
    pub(crate) fn new(pool: &Pool) -> Self {
        Self(Box::new(Family::ALL.map(|family| Space::new(pool, family))))
    }

    /// One family's part.
    pub(crate) fn of(&self, family: Family) -> &Space {
        &self.0[family as usize]
    }

    pub(crate) fn of_mut(&mut self, family: Family) -> &mut Space {
        &mut self.0[family as usize]
    }
}

impl Space {
    fn new(pool: &Pool, family: Family) -> Self {
        let numbering = match family {
            Family::V4 if pool.avoid_buggy_ips => Numbering::Avoiding,
            _ => Numbering::Plain,
        };
        let total = declared(&pool.ranges, family).count();
        let plain = self::allowed(&pool.ranges, &pool.excluded, family);
        let mut allowed = Intervals::default();
        for (first, last) in plain.iter().filter_map(|(first, last)| numbering.squeeze(first, last))
        {
            allowed.add(first, last);
        }
        let allowed_count = allowed.count();
        Self {
            family,
            numbering,
            free: allowed.clone(),
            allowed,
            total,
            allowed_count,
            taken: 0,
            used: 0,
        }
    }

    /// The lowest free address.
    pub(crate) fn first(&self) -> Option<IpAddr> {
        self.free.lowest().map(|number| self.family.address(self.numbering.spread(number)))
    }

    /// The highest free address.
    pub(crate) fn last(&self) -> Option<IpAddr> {
        self.free.highest().map(|number| self.family.address(self.numbering.spread(number)))
    }

    /// Whether the pool may give `address`, were it free.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        self.dense(address).is_some_and(|number| self.allowed.contains(number))
    }

    /// The lowest number that the pool may give, from `number` on.
    pub(crate) fn allowed_from(&self, number: u128) -> Option<u128> {
        let (from, _) = self.numbering.squeeze(number, u128::MAX)?;
        self.allowed.lowest_from(from).map(|number| self.numbering.spread(number))
    }

    /// Says whether `address` is free. Addresses that the pool may not give do not matter.
    pub(crate) fn set_free(&mut self, address: IpAddr, free: bool) {
        let Some(number) = self.dense(address).filter(|it| self.allowed.contains(*it)) else {
            return;
        };
        if free == self.free.contains(number) {
            return;
        }
        if free {
            self.free.add(number, number);
            self.taken = self.taken.saturating_sub(1);
        } else {
            self.free.remove(number);
            self.taken += 1;
        }
    }

    /// Counts an address of the pool as held from now on, or as held no more.
    pub(crate) fn set_held(&mut self, held: bool) {
        self.used = if held { self.used + 1 } else { self.used.saturating_sub(1) };
    }

    /// How full it is.
    pub(crate) fn usage(&self) -> Usage {
        let Self { total, used, .. } = *self;
        let free = self.allowed_count.saturating_sub(self.taken);
        Usage { total, used, reserved: total.saturating_sub(used).saturating_sub(free), free }
    }

    fn dense(&self, address: IpAddr) -> Option<u128> {
        let number = to_number(address);
        self.numbering.squeeze(number, number).map(|(first, _)| first)
    }
}

/// Everything in `ranges` of this family; where they overlap, once.
pub(crate) fn declared(ranges: &[AddressRange], family: Family) -> Intervals {
    let mut intervals = Intervals::default();
    for (first, last) in of_family(ranges, family) {
        intervals.add(first, last);
    }
    intervals
}

/// The same without what is excluded, or special.
pub(crate) fn allowed(
    ranges: &[AddressRange],
    excluded: &[AddressRange],
    family: Family,
) -> Intervals {
    let mut left = declared(ranges, family);
    let special = SPECIAL.iter().map(|(range, _)| range);
    for range in excluded.iter().chain(special).filter(|range| range.family() == family) {
        let (first, last) = range.numbers();
        left.subtract(first, last);
    }
    left
}

fn of_family(ranges: &[AddressRange], family: Family) -> Vec<(u128, u128)> {
    let own = ranges.iter().filter(|range| range.family() == family);
    own.map(AddressRange::numbers).collect()
}

impl Numbering {
    /// The numbers of what remains of `first..=last`, if anything does.
    fn squeeze(self, first: u128, last: u128) -> Option<(u128, u128)> {
        if self == Self::Plain {
            return Some((first, last));
        }
        let (block, low) = (first >> 8, first & 0xff);
        let dense_first =
            if low == 0xff { (block + 1) * 254 } else { block * 254 + low.max(1) - 1 };
        let (block, low) = (last >> 8, last & 0xff);
        let dense_end = block * 254 + low.min(254);
        (dense_first < dense_end).then(|| (dense_first, dense_end - 1))
    }

    /// The plain number; the reverse of [`Self::squeeze`].
    fn spread(self, number: u128) -> u128 {
        match self {
            Self::Plain => number,
            Self::Avoiding => ((number / 254) << 8) + number % 254 + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::is_buggy;
    use alloc::{string::ToString, vec};

    fn pool(ranges: &[&str]) -> Pool {
        Pool::parse("home".into(), ranges).unwrap()
    }

    #[test]
    fn a_huge_pool_costs_one_interval() {
        let spaces = Spaces::new(&pool(&["fc00::/7", "fd00::/64"]));
        assert_eq!(spaces.of(Family::V6).free.iter().count(), 1);
        assert_eq!(spaces.of(Family::V6).usage().total, 1 << 121);
        assert_eq!(spaces.of(Family::V4).usage().total, 0);
        let avoiding = Pool { avoid_buggy_ips: true, ..pool(&["10.0.0.0/8"]) };
        let spaces = Spaces::new(&avoiding);
        assert_eq!(spaces.of(Family::V4).free.iter().count(), 1);
        assert_eq!(spaces.of(Family::V4).usage().free, 65536 * 254);
    }

    #[test]
    fn the_lowest_and_the_highest_addresses_are_no_exception() {
        let spaces = Spaces::new(&pool(&["::/81", "8000::/1", "0.0.0.0/0"]));
        assert_eq!(spaces.of(Family::V6).usage().total, (1 << 127) + (1 << 47));
        assert_eq!(spaces.of(Family::V6).first(), Some("::2".parse().unwrap()));
        assert_eq!(spaces.of(Family::V4).first(), Some("1.0.0.0".parse().unwrap()));
        assert_eq!(
            spaces.of(Family::V6).last(),
            Some("feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap())
        );
        assert_eq!(spaces.of(Family::V4).last(), Some("255.255.255.254".parse().unwrap()));
    }

    #[test]
    fn what_is_left_of_an_interval_without_avoided_addresses() {
        let table = [
            ((0, 255), Some((0, 253))),
            ((0, 0), None),
            ((255, 256), None),
            ((254, 257), Some((253, 254))),
            ((1, 1), Some((0, 0))),
            ((255, 300), Some((254, 297))),
            ((256, 511), Some((254, 507))),
        ];
        for ((first, last), expected) in table {
            assert_eq!(Numbering::Avoiding.squeeze(first, last), expected, "{first}-{last}");
        }
        for number in (0..2000u128).filter(|it| ![0, 255].contains(&(it % 256))) {
            let (dense, _) = Numbering::Avoiding.squeeze(number, number).unwrap();
            assert_eq!(Numbering::Avoiding.spread(dense), number);
        }
    }

    #[test]
    fn what_a_pool_says_that_it_may_give_is_what_it_gives() {
        for avoid_buggy_ips in [false, true] {
            let mut pool = pool(&["0.255.255.250-1.0.1.4", "10.0.0.0/29", "10.0.0.8/29"]);
            pool.excluded = vec!["1.0.0.9".parse().unwrap(), "10.0.0.2-10.0.0.8".parse().unwrap()];
            pool.avoid_buggy_ips = avoid_buggy_ips;
            let (said, spaces) = (pool.allowed(), Spaces::new(&pool));
            let ends: Vec<_> = said.iter().map(ToString::to_string).collect();
            assert_eq!(
                ends,
                ["1.0.0.0-1.0.0.8", "1.0.0.10-1.0.1.4", "10.0.0.0-10.0.0.1", "10.0.0.9-10.0.0.15"]
            );
            for number in (0x00ff_fff0..0x0100_0110).chain(0x0a00_0000..0x0a00_0020) {
                let address = Family::V4.address(number);
                let is_said = said.iter().any(|it| it.contains(address))
                    && !(avoid_buggy_ips && is_buggy(address));
                assert_eq!(spaces.of(Family::V4).allows(address), is_said, "{address}");
            }
        }
    }

    #[test]
    fn what_is_excluded_is_never_free() {
        let mut pool = pool(&["10.0.0.0/29"]);
        pool.excluded = vec!["10.0.0.0-10.0.0.2".parse().unwrap()];
        let mut spaces = Spaces::new(&pool);
        let space = spaces.of_mut(Family::V4);
        assert_eq!((space.usage().total, space.usage().free), (8, 5));
        let excluded = "10.0.0.1".parse().unwrap();
        space.set_free(excluded, true);
        assert_eq!(
            (space.first(), space.allows(excluded)),
            (Some("10.0.0.3".parse().unwrap()), false)
        );
        assert_eq!(
            space.allowed_from(to_number(excluded)),
            Some(to_number("10.0.0.3".parse().unwrap()))
        );
    }
}

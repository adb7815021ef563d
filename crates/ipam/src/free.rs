//! The free addresses of one pool, as intervals.

use alloc::collections::BTreeMap;
use core::net::IpAddr;

use crate::range::{AddressRange, Family, to_number};

/// The free addresses of one pool, of both families.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FreeSpace {
    v4: Space,
    v6: Space,
}

/// The free addresses of one family, and how many there were and are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Space {
    free: Intervals,
    total: u128,
    taken: u128,
}

impl FreeSpace {
    /// Everything in `ranges`; where they overlap, once.
    pub(crate) fn new(ranges: &[AddressRange]) -> Self {
        let mut space = Self::default();
        for range in ranges {
            let (first, last) = range.numbers();
            space.of_mut(range.family()).free.add(first, last);
        }
        for family in Family::ALL {
            let space = space.of_mut(family);
            space.total = space.free.count();
        }
        space
    }

    /// One family's part.
    pub(crate) fn of(&self, family: Family) -> &Space {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// The lowest free address.
    pub(crate) fn first(&self, family: Family) -> Option<IpAddr> {
        self.of(family).free.lowest().map(|number| family.address(number))
    }

    /// Takes `address` out, if it is in.
    pub(crate) fn take(&mut self, address: IpAddr) {
        let space = self.of_mut(Family::of(address));
        if space.free.remove(to_number(address)) {
            space.taken += 1;
        }
    }

    /// Puts `address`, which was taken out, back.
    pub(crate) fn give(&mut self, address: IpAddr) {
        let space = self.of_mut(Family::of(address));
        let number = to_number(address);
        space.free.add(number, number);
        space.taken = space.taken.saturating_sub(1);
    }

    fn of_mut(&mut self, family: Family) -> &mut Space {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

impl Space {
    /// How many addresses the pool has; saturates at `u128::MAX`.
    pub(crate) fn total(&self) -> u128 {
        self.total
    }

    /// How many of them are taken.
    pub(crate) fn taken(&self) -> u128 {
        self.taken
    }
}

/// Disjoint intervals that do not touch: first number to last number, both included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Intervals(BTreeMap<u128, u128>);

impl Intervals {
    fn lowest(&self) -> Option<u128> {
        self.0.first_key_value().map(|(first, _)| *first)
    }

    /// Adds `first..=last`, merging with all that it overlaps or touches.
    fn add(&mut self, first: u128, last: u128) {
        let (mut first, mut last) = (first, last);
        while let Some((left, right)) = self.last_starting_by(last.saturating_add(1)) {
            // `right` lies before `first` without touching it: so does everything further left.
            if right.checked_add(1).is_some_and(|next| next < first) {
                break;
            }
            self.0.remove(&left);
            first = first.min(left);
            last = last.max(right);
        }
        self.0.insert(first, last);
    }

    /// Removes one number; false when it is not in.
    fn remove(&mut self, number: u128) -> bool {
        let Some((first, last)) = self.last_starting_by(number).filter(|(_, last)| number <= *last)
        else {
            return false;
        };
        self.0.remove(&first);
        if first < number {
            self.0.insert(first, number - 1);
        }
        if number < last {
            self.0.insert(number + 1, last);
        }
        true
    }

    /// How many numbers are in; saturates at `u128::MAX`.
    fn count(&self) -> u128 {
        let sizes = self.0.iter().map(|(first, last)| (last - first).saturating_add(1));
        sizes.fold(0, u128::saturating_add)
    }

    /// The last interval that starts at or before `number`.
    fn last_starting_by(&self, number: u128) -> Option<(u128, u128)> {
        self.0.range(..=number).next_back().map(|(first, last)| (*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{collections::BTreeSet, vec, vec::Vec};
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Change {
        Add(u128, u128),
        Remove(u128),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (0..40u128, 0..5u128).prop_map(|(first, more)| Change::Add(first, first + more)),
            (0..45u128).prop_map(Change::Remove),
        ]
    }

    proptest! {
        #[test]
        fn intervals_are_a_set_of_numbers(changes in prop::collection::vec(change(), 0..60)) {
            let (mut intervals, mut model) = (Intervals::default(), BTreeSet::new());
            for change in changes {
                match change {
                    Change::Add(first, last) => {
                        intervals.add(first, last);
                        model.extend(first..=last);
                    }
                    Change::Remove(number) => {
                        prop_assert_eq!(intervals.remove(number), model.remove(&number));
                    }
                }
                let members: Vec<u128> = intervals.0.iter().flat_map(|(a, b)| *a..=*b).collect();
                prop_assert_eq!(&members, &model.iter().copied().collect::<Vec<_>>());
                let ends: Vec<_> = intervals.0.iter().collect();
                prop_assert!(ends.windows(2).all(|w| w[0].1 + 1 < *w[1].0), "touching intervals");
            }
        }
    }

    #[test]
    fn the_ends_of_the_number_line_are_no_exception() {
        let mut all = Intervals::default();
        all.add(0, u128::MAX);
        all.remove(u128::MAX);
        all.remove(0);
        assert_eq!(all.0, BTreeMap::from([(1, u128::MAX - 1)]));
        all.add(u128::MAX, u128::MAX);
        all.add(0, 0);
        assert_eq!(all.0, BTreeMap::from([(0, u128::MAX)]));
    }

    #[test]
    fn a_huge_pool_costs_one_interval() {
        let ranges = vec!["::/0".parse().unwrap(), "fd00::/64".parse().unwrap()];
        let free = FreeSpace::new(&ranges);
        assert_eq!(free.v6.free.0.len(), 1);
        assert_eq!(free.of(Family::V6).total(), u128::MAX);
        assert_eq!(free.of(Family::V4).total(), 0);
    }
}

//! Sets of numbers, as intervals.

use alloc::collections::BTreeMap;

/// Disjoint intervals that do not touch: first number to last number, both included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Intervals(BTreeMap<u128, u128>);

impl Intervals {
    /// The lowest number.
    pub(crate) fn lowest(&self) -> Option<u128> {
        self.0.first_key_value().map(|(first, _)| *first)
    }

    /// The highest number.
    pub(crate) fn highest(&self) -> Option<u128> {
        self.0.last_key_value().map(|(_, last)| *last)
    }

    /// Adds `first..=last`, merging with all that it overlaps or touches.
    pub(crate) fn add(&mut self, first: u128, last: u128) {
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
    pub(crate) fn remove(&mut self, number: u128) -> bool {
        let present = self.contains(number);
        if present {
            self.subtract(number, number);
        }
        present
    }

    /// Removes all of `first..=last` that is in.
    pub(crate) fn subtract(&mut self, first: u128, last: u128) {
        while let Some((left, right)) = self.last_starting_by(last).filter(|it| first <= it.1) {
            self.0.remove(&left);
            if last < right {
                self.0.insert(last + 1, right);
            }
            if left < first {
                self.0.insert(left, first - 1);
            }
        }
    }

    /// Whether `number` is in.
    pub(crate) fn contains(&self, number: u128) -> bool {
        self.last_starting_by(number).is_some_and(|(_, last)| number <= last)
    }

    /// The lowest number that is in and not below `number`.
    pub(crate) fn lowest_from(&self, number: u128) -> Option<u128> {
        if self.contains(number) {
            return Some(number);
        }
        self.0.range(number..).next().map(|(first, _)| *first)
    }

    /// Every interval, in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u128, u128)> + '_ {
        self.0.iter().map(|(first, last)| (*first, *last))
    }

    /// How many numbers are in; saturates at `u128::MAX`.
    pub(crate) fn count(&self) -> u128 {
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
    use alloc::{collections::BTreeSet, vec::Vec};
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Change {
        Add(u128, u128),
        Remove(u128),
        Subtract(u128, u128),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (0..40u128, 0..5u128).prop_map(|(first, more)| Change::Add(first, first + more)),
            (0..45u128).prop_map(Change::Remove),
            (0..40u128, 0..9u128).prop_map(|(first, more)| Change::Subtract(first, first + more)),
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
                    Change::Subtract(first, last) => {
                        intervals.subtract(first, last);
                        model.retain(|number| *number < first || last < *number);
                    }
                }
                let members: Vec<u128> = intervals.0.iter().flat_map(|(a, b)| *a..=*b).collect();
                prop_assert_eq!(&members, &model.iter().copied().collect::<Vec<_>>());
                for from in 0..50 {
                    prop_assert_eq!(intervals.lowest_from(from), model.range(from..).next().copied());
                }
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
}

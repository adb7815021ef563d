//! Sets of addresses as ranges.

use std::collections::BTreeSet;

/// Disjoint ranges of 32-bit values (IPv4 addresses, or a part of IPv6 addresses), rising, with a
/// gap between any two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<Range>);

/// First and last value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u32,
    last: u32,
}

impl Ranges {
    /// The fewest ranges that hold exactly these values, which must rise.
    pub(super) fn of(values: impl IntoIterator<Item = u32>) -> Self {
        let mut ranges: Vec<Range> = Vec::new();
        for value in values {
            match ranges.last_mut() {
                Some(range) if range.last + 1 == value => range.last = value,
                _ => ranges.push(Range { first: value, last: value }),
            }
        }
        Self(ranges)
    }

    /// How many ranges there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// At most `limit` ranges (at least one) that hold these and as little else as can be: the
    /// smallest gaps are closed.
    pub(super) fn merged_to(self, limit: usize) -> Self {
        let limit = limit.max(1);
        if self.len() <= limit {
            return self;
        }
        // Sorted by size; of equal gaps the lower one goes first, so that the result is stable.
        let mut gaps: Vec<_> = (1..self.len()).collect();
        gaps.sort_by_key(|&before| self.0[before].first - self.0[before - 1].last);
        let closed: BTreeSet<_> = gaps.into_iter().take(self.len() - limit).collect();
        self.without_gaps(&closed)
    }

    /// Each gap is named by the position of the range above it.
    fn without_gaps(self, closed: &BTreeSet<usize>) -> Self {
        let mut ranges: Vec<Range> = Vec::new();
        for (position, range) in self.0.into_iter().enumerate() {
            match ranges.last_mut() {
                Some(lower) if closed.contains(&position) => lower.last = range.last,
                _ => ranges.push(range),
            }
        }
        Self(ranges)
    }

    /// Where membership changes, rising: the first value of each range and the one after its
    /// last, if there is one.
    pub(super) fn boundaries(&self) -> Vec<u32> {
        self.0
            .iter()
            .flat_map(|range| [Some(range.first), range.last.checked_add(1)])
            .flatten()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(of: &[(u32, u32)]) -> Ranges {
        Ranges(of.iter().map(|&(first, last)| Range { first, last }).collect())
    }

    #[test]
    fn adjacent_values_are_one_range() {
        let found = Ranges::of([1, 2, 3, 5, u32::MAX]);
        assert_eq!(found, ranges(&[(1, 3), (5, 5), (u32::MAX, u32::MAX)]));
        assert_eq!(found.boundaries(), [1, 4, 5, 6, u32::MAX]);
    }

    #[test]
    fn the_smallest_gaps_are_closed() {
        let set = ranges(&[(0, 0), (10, 11), (13, 13), (100, 100)]);
        for (limit, expected) in [
            (4, set.clone()),
            (3, ranges(&[(0, 0), (10, 13), (100, 100)])),
            (2, ranges(&[(0, 13), (100, 100)])),
            (1, ranges(&[(0, 100)])),
            (0, ranges(&[(0, 100)])),
        ] {
            assert_eq!(set.clone().merged_to(limit), expected, "limit {limit}");
        }
    }
}

//! Which of the nodes that serve has which bucket.

use alloc::{collections::BTreeSet, vec, vec::Vec};
use core::cmp::Reverse;

use arpeggio_election::Node;

use crate::{packet::BUCKETS, rank};

/// The primary of each bucket: who gets its new connections. Depends on nothing but who serves now, and with what weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// One for each bucket.
    pub(crate) primaries: Vec<Node>,
    /// All that have one.
    pub(crate) nodes: BTreeSet<Node>,
}

impl Table {
    /// Nobody, when nobody has a weight.
    ///
    /// Each node has as many buckets as its weight says, to the nearest whole one. Pairs of a node and a bucket are taken in the order of
    /// a weighted rendezvous hash; one counts when the bucket is free and the node has not got all of its own. So little changes when a
    /// node comes or goes: what it gets or leaves, and what evens out the rest.
    pub(crate) fn of(weights: &[(Node, u32)]) -> Option<Self> {
        let mut room = rooms(weights)?;
        let mut owners: Vec<Option<&Node>> = vec![None; usize::from(BUCKETS)];
        for (_, bucket, index) in pairs(weights) {
            let (Some(owner), Some(room)) =
                (owners.get_mut(usize::from(bucket)), room.get_mut(index))
            else {
                continue;
            };
            if owner.is_none() && *room > 0 {
                *owner = weights.get(index).map(|(node, _)| node);
                *room -= 1;
            }
        }
        let primaries: Option<Vec<Node>> =
            owners.into_iter().map(Option::<&Node>::cloned).collect();
        let primaries = primaries?;
        let nodes = primaries.iter().cloned().collect();
        Some(Self { primaries, nodes })
    }
}

/// How many buckets each gets: the largest remainders are rounded up.
fn rooms(weights: &[(Node, u32)]) -> Option<Vec<u64>> {
    let total: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let all = u64::from(BUCKETS);
    let exact = |(_, weight): &(Node, u32)| u64::from(*weight).checked_mul(all);
    let exact: Vec<u64> = weights.iter().map(exact).collect::<Option<_>>()?;
    let mut rooms: Vec<u64> =
        exact.iter().map(|it| it.checked_div(total)).collect::<Option<_>>()?;
    let given: u64 = rooms.iter().sum();
    let remainder = |index: &usize| exact.get(*index).and_then(|it| it.checked_rem(total));
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|index| Reverse(remainder(index)));
    let left = usize::try_from(all.checked_sub(given)?).ok()?;
    for index in order.into_iter().take(left) {
        *rooms.get_mut(index)? += 1;
    }
    (!rooms.is_empty()).then_some(rooms)
}

/// All pairs of a bucket and the index of a node, best first.
fn pairs(weights: &[(Node, u32)]) -> Vec<(u64, u16, usize)> {
    let mut pairs = Vec::with_capacity(weights.len() * usize::from(BUCKETS));
    for (index, (node, weight)) in weights.iter().enumerate() {
        if *weight > 0 {
            pairs.extend((0..BUCKETS).map(|bucket| (score(bucket, node, *weight), bucket, index)));
        }
    }
    pairs.sort_unstable();
    pairs
}

/// Less is better: of several nodes, each has the least for as large a part of the buckets as its weight is of all weights
/// (Schindelhauer and Schomaker, 2005).
fn score(bucket: u16, node: &Node, weight: u32) -> u64 {
    let distance = negative_log2(rank::bucket_chance(bucket, node));
    (distance << 24) / u64::from(weight.max(1))
}

/// `-log2(number / 2^64)`, with 24 binary places, at most 64: in whole numbers, so that every machine finds the same.
fn negative_log2(number: u64) -> u64 {
    let number = number.max(1);
    let zeros = number.leading_zeros();
    let mut mantissa = number << zeros;
    let mut fraction = 0;
    for _ in 0..24 {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        let is_two = square >> 64 != 0;
        // It is less than 2^65, so it fits after this.
        mantissa = u64::try_from(square >> u32::from(is_two)).unwrap_or(u64::MAX);
        fraction = (fraction << 1) | u64::from(is_two);
    }
    let whole = u64::from(zeros) + 1;
    (whole << 24) - fraction
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeMap, format};

    use proptest::prelude::*;

    use super::*;

    fn weights(weights: &[u32]) -> Vec<(Node, u32)> {
        let node = |n: usize| Node::from(format!("node-{n}").as_str());
        weights.iter().enumerate().map(|(n, weight)| (node(n), *weight)).collect()
    }

    fn shares(table: &Table) -> BTreeMap<&Node, u32> {
        let mut shares = BTreeMap::new();
        table.primaries.iter().for_each(|node| *shares.entry(node).or_default() += 1);
        shares
    }

    fn changes(one: &Table, other: &Table) -> usize {
        one.primaries.iter().zip(&other.primaries).filter(|(one, other)| one != other).count()
    }

    #[test]
    fn logarithms_are_right() {
        for (number, expected) in
            [(1 << 63, 1.0), (1 << 32, 32.0), (1, 64.0), (3 << 62, 0.415_037_499)]
        {
            #[allow(clippy::cast_precision_loss)]
            let found = negative_log2(number) as f64 / f64::from(1 << 24);
            assert!((found - expected).abs() < 1e-6, "{number}: {found}");
        }
    }

    #[test]
    fn without_a_weight_there_is_no_table() {
        assert_eq!(Table::of(&[]), None);
        assert_eq!(Table::of(&weights(&[0, 0])), None);
        let table = Table::of(&weights(&[0, 7])).unwrap();
        assert_eq!(shares(&table), BTreeMap::from([(&"node-1".into(), 1024)]));
    }

    proptest! {
        #[test]
        fn each_has_what_its_weight_says(given in prop::collection::vec(1u32..60, 2..=8)) {
            let nodes = weights(&given);
            let table = Table::of(&nodes).unwrap();
            let total: u32 = given.iter().sum();
            for (node, weight) in &nodes {
                let has = shares(&table).get(node).copied().unwrap_or_default();
                let exact = weight * 1024;
                prop_assert!((has * total).abs_diff(exact) < total, "{} of {}: {}", weight, total, has);
            }
        }

        /// At most a quarter more than what has to change: what the node had.
        #[test]
        fn little_changes_when_a_node_goes(count in 2usize..=8, gone in 0usize..8) {
            let mut nodes = weights(&vec![1; count]);
            let with = Table::of(&nodes).unwrap();
            nodes.remove(gone % count);
            let without = Table::of(&nodes).unwrap();
            let least = 1024 / count;
            prop_assert!(changes(&with, &without) <= least * 5 / 4, "{} {}", count, changes(&with, &without));
        }
    }

    #[test]
    fn what_changes_when_one_of_many_goes() {
        for count in 2..=8 {
            let nodes = weights(&vec![1; count]);
            let with = Table::of(&nodes).unwrap();
            let without = |gone: usize| {
                let mut rest = nodes.clone();
                rest.remove(gone);
                changes(&with, &Table::of(&rest).unwrap())
            };
            let total: usize = (0..count).map(without).sum();
            std::println!(
                "{count} nodes: {} buckets of 1024, at least {}",
                total / count,
                1024 / count
            );
        }
    }
}

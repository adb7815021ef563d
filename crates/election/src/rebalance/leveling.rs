//! Equal loads with few moves, as a flow of least cost.
//!
//! Each item is at one of the places where it may be. A place costs the square of its load, which is least in all when
//! loads are as equal as can be; an item that is moved costs a little on top. No cheaper choice exists when no cycle of
//! changes makes this one cheaper (Klein, 1967), so such cycles are looked for, and applied, until there is none. The
//! obvious moves are made before: they are most of it and quickly found.

use alloc::{vec, vec::Vec};
use core::cmp::Reverse;

/// Something that is at one place, and may be at some.
#[derive(Debug, Clone)]
pub(super) struct Item {
    origin: usize,
    allowed: Vec<usize>,
    place: usize,
}

impl Item {
    /// An item at `origin`. `allowed`: where it may be, its origin among them, in order.
    pub(super) fn new(origin: usize, allowed: Vec<usize>) -> Self {
        Self { origin, allowed, place: origin }
    }

    /// Where it is.
    pub(super) fn origin(&self) -> usize {
        self.origin
    }

    /// Where it is to be.
    pub(super) fn place(&self) -> usize {
        self.place
    }

    fn may_be_at(&self, place: usize) -> bool {
        self.allowed.binary_search(&place).is_ok()
    }

    /// How many more items are moved when this one is to be at `place`: one, none, or one less.
    fn detour(&self, place: usize) -> i64 {
        i64::from(place != self.origin) - i64::from(self.place != self.origin)
    }
}

/// Chooses where each item is to be, out of `places` places, which are numbered from 0.
pub(super) fn level(items: &mut [Item], places: usize) {
    let mut loads = vec![0; places];
    items.iter().for_each(|item| loads[item.place] += 1);
    let mut flow = Flow { items, loads };
    flow.skim();
    while let Some(changes) = flow.improvement() {
        changes.into_iter().for_each(|(item, place)| flow.shift(item, place));
    }
}

struct Flow<'a> {
    items: &'a mut [Item],
    /// By place.
    loads: Vec<i64>,
}

/// A change of one load by one: an item goes from one place to another. Or from a place to the ground, which stands for
/// the end of such a chain, and from there to the place that begins it.
#[derive(Debug, Clone, Copy)]
struct Arc {
    from: usize,
    to: usize,
    item: Option<usize>,
    cost: i64,
}

impl Flow<'_> {
    fn shift(&mut self, item: usize, place: usize) {
        let item = &mut self.items[item];
        self.loads[item.place] -= 1;
        self.loads[place] += 1;
        item.place = place;
    }

    /// Moves items from the fullest place straight to the emptiest that takes one, as long as that helps.
    fn skim(&mut self) {
        let mut stuck = vec![false; self.loads.len()];
        loop {
            let left = (0..stuck.len()).filter(|place| !stuck[*place]);
            let Some(fullest) = left.max_by_key(|place| (self.loads[*place], Reverse(*place)))
            else {
                return;
            };
            match self.straight_from(fullest) {
                Some((item, place)) => self.shift(item, place),
                None => stuck[fullest] = true,
            }
        }
    }

    /// An item that is at `from`, and a place with room for it.
    fn straight_from(&self, from: usize) -> Option<(usize, usize)> {
        let has_room = |place: &usize| self.loads[*place] + 2 <= self.loads[from];
        let mut emptiest: Vec<usize> = (0..self.loads.len()).filter(has_room).collect();
        emptiest.sort_by_key(|place| self.loads[*place]);
        let unmoved = |item: &Item| item.place == from && item.origin == from;
        emptiest.into_iter().find_map(|place| {
            let item = self.items.iter().position(|it| unmoved(it) && it.may_be_at(place))?;
            Some((item, place))
        })
    }

    /// Items and their new places that together make it cheaper.
    fn improvement(&self) -> Option<Vec<(usize, usize)>> {
        let ground = self.loads.len();
        let cycle = cheaper_cycle(&self.arcs(), ground + 1)?;
        Some(cycle.into_iter().filter_map(|arc| Some((arc.item?, arc.to))).collect())
    }

    /// The cheapest change between each two places, and what a change of each load by one costs.
    fn arcs(&self) -> Vec<Arc> {
        let ground = self.loads.len();
        // More than all moves of one cycle, so that balance comes first.
        let weight = i64::try_from(ground + 2).unwrap_or(i64::MAX);
        let mut arcs = self.moves();
        for (place, load) in self.loads.iter().enumerate() {
            let more = weight * (2 * load + 1);
            arcs.push(Arc { from: place, to: ground, item: None, cost: more });
            let less = -weight * (2 * load - 1);
            arcs.push(Arc { from: ground, to: place, item: None, cost: less });
        }
        arcs
    }

    fn moves(&self) -> Vec<Arc> {
        let places = self.loads.len();
        let mut cheapest: Vec<Option<Arc>> = vec![None; places * places];
        for (index, item) in self.items.iter().enumerate() {
            for to in item.allowed.iter().copied().filter(|to| *to != item.place) {
                let arc = Arc { from: item.place, to, item: Some(index), cost: item.detour(to) };
                let known = &mut cheapest[item.place * places + to];
                if known.is_none_or(|known| arc.cost < known.cost) {
                    *known = Some(arc);
                }
            }
        }
        cheapest.into_iter().flatten().collect()
    }
}

/// A cycle of arcs that costs less than nothing in all, each vertex at most once (Bellman and Ford).
fn cheaper_cycle(arcs: &[Arc], vertices: usize) -> Option<Vec<Arc>> {
    let mut costs = vec![0; vertices];
    // The arc by which each vertex is reached at its cost.
    let mut reached_by: Vec<Option<Arc>> = vec![None; vertices];
    let mut changed = None;
    for _ in 0..vertices {
        changed = None;
        for arc in arcs {
            let cost = costs[arc.from] + arc.cost;
            if cost < costs[arc.to] {
                costs[arc.to] = cost;
                reached_by[arc.to] = Some(*arc);
                changed = Some(arc.to);
            }
        }
        changed?;
    }
    // After so many rounds, only a cycle makes it cheaper still. It lies somewhere behind.
    let mut at = changed?;
    for _ in 0..vertices {
        at = reached_by[at]?.from;
    }
    let end = at;
    let mut cycle = Vec::new();
    loop {
        let arc = reached_by[at]?;
        cycle.push(arc);
        at = arc.from;
        if at == end {
            return Some(cycle);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACES: usize = 4;

    /// By squares of loads, then by the number of moved items.
    fn cost(origins: &[usize], chosen: &[usize]) -> (usize, usize) {
        let load = |place: usize| chosen.iter().filter(|it| **it == place).count();
        let moved = origins.iter().zip(chosen).filter(|(origin, place)| origin != place);
        ((0..PLACES).map(|place| load(place).pow(2)).sum(), moved.count())
    }

    /// The least cost of all choices there are.
    fn least(items: &[Item], chosen: &mut Vec<usize>) -> (usize, usize) {
        let Some(next) = items.get(chosen.len()) else {
            return cost(&items.iter().map(Item::origin).collect::<Vec<_>>(), chosen);
        };
        let costs = next.allowed.iter().map(|place| {
            chosen.push(*place);
            let cost = least(items, chosen);
            chosen.pop();
            cost
        });
        costs.min().unwrap()
    }

    fn item() -> impl Strategy<Value = Item> {
        let allowed = prop::collection::btree_set(0..PLACES, 1..=PLACES);
        (allowed, any::<prop::sample::Index>()).prop_map(|(allowed, origin)| {
            let allowed: Vec<usize> = allowed.into_iter().collect();
            Item::new(allowed[origin.index(allowed.len())], allowed)
        })
    }

    proptest! {
        #[test]
        fn no_choice_is_cheaper(mut items in prop::collection::vec(item(), 0..8)) {
            let least = least(&items, &mut Vec::new());
            level(&mut items, PLACES);
            let origins: Vec<usize> = items.iter().map(Item::origin).collect();
            let chosen: Vec<usize> = items.iter().map(Item::place).collect();
            prop_assert!(items.iter().all(|item| item.may_be_at(item.place())));
            prop_assert_eq!(cost(&origins, &chosen), least);
        }
    }
}

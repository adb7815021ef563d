//! Which candidate gets what: the same answer on every node, without a word exchanged.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::{
    cmp::Reverse,
    hash::{Hash, Hasher},
    net::IpAddr,
};

use siphasher::sip::SipHasher13;

use crate::{eligibility::Merit, model::Node};

/// How many nodes watch one node.
const DEPUTIES: usize = 2;

/// How many do while sessions cannot be ended: whoever is to announce a node's addresses must know itself that it is silent.
const WATCHERS: usize = 4;

/// The deputies of `node`: the two others that rank highest for it.
pub(crate) fn deputies<'a>(node: &Node, live: impl Iterator<Item = &'a Node>) -> Vec<Node> {
    best(DEPUTIES, node, live)
}

/// Those who watch `node` while the API server is away: its deputies, and the next ones.
pub(crate) fn watchers<'a>(node: &Node, live: impl Iterator<Item = &'a Node>) -> Vec<Node> {
    best(WATCHERS, node, live)
}

fn best<'a>(count: usize, node: &Node, live: impl Iterator<Item = &'a Node>) -> Vec<Node> {
    let mut others: Vec<&Node> = live.filter(|other| *other != node).collect();
    others.sort_by_cached_key(|other| Reverse(rendezvous(node, other)));
    others.into_iter().take(count).cloned().collect()
}

/// Whether `one` ranks before `other` for an address, whatever else is known of them.
pub(crate) fn outranks(one: &Node, other: &Node, address: IpAddr) -> bool {
    rendezvous(&address, one) > rendezvous(&address, other)
}

/// The nodes that one node is a deputy of. Who watches whom takes a while to work out, and changes only with who lives.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct Charges {
    live: BTreeSet<Node>,
    alone: bool,
    nodes: BTreeSet<Node>,
}

impl Charges {
    /// Works out whom `me` watches while `live` live. `alone`: the API server is away.
    pub(crate) fn update(&mut self, live: &BTreeSet<Node>, alone: bool, me: &Node) {
        if self.live != *live || self.alone != alone {
            self.live.clone_from(live);
            self.alone = alone;
            let count = if alone { WATCHERS } else { DEPUTIES };
            let mine = |node: &&Node| best(count, node, live.iter()).contains(me);
            self.nodes = live.iter().filter(mine).cloned().collect();
        }
    }

    /// Those who live, as of the last update.
    pub(crate) fn live(&self) -> &BTreeSet<Node> {
        &self.live
    }

    /// The nodes that are watched.
    pub(crate) fn nodes(&self) -> &BTreeSet<Node> {
        &self.nodes
    }
}

/// The candidates for one address, best first: by standing; then the node that held it last, those that are preferred,
/// and the least loaded. Ties are broken by a rendezvous hash, so that equal loads do not all fall on the first name.
pub(crate) fn ranking(
    address: IpAddr,
    last_holder: Option<&Node>,
    candidates: &BTreeMap<Node, Merit>,
    loads: &BTreeMap<Node, usize>,
) -> Vec<Node> {
    let mut ranked: Vec<(&Node, &Merit)> = candidates.iter().collect();
    ranked.sort_by_cached_key(|(node, merit)| {
        let load = loads.get(*node).copied().unwrap_or(0);
        let by_chance = Reverse(rendezvous(&address, node));
        let moves = last_holder != Some(*node);
        (merit.standing, moves, Reverse(merit.preference), load, by_chance)
    });
    ranked.into_iter().map(|(node, _)| node.clone()).collect()
}

/// Highest-random-weight hashing (Thaler and Ravishankar, 1998). SipHash-1-3 with the zero key is fixed by its
/// definition, so every version of the speaker computes the same.
fn rendezvous(what: &impl Hash, node: &Node) -> u64 {
    let mut hasher = SipHasher13::new();
    what.hash(&mut hasher);
    node.as_str().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;
    use crate::eligibility::Standing;

    fn nodes(count: usize) -> BTreeSet<Node> {
        (1..=count).map(|n| Node::from(format!("node-{n}").as_str())).collect()
    }

    fn good(count: usize) -> BTreeMap<Node, Merit> {
        nodes(count).into_iter().map(|node| (node, merit(Standing::Good, 0))).collect()
    }

    fn merit(standing: Standing, preference: u32) -> Merit {
        Merit { standing, preference }
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 168, 0, last])
    }

    #[test]
    fn a_node_is_watched_by_two_others_or_by_all_there_are() {
        for count in 1..6 {
            let live = nodes(count);
            for node in &live {
                let deputies = deputies(node, live.iter());
                assert_eq!(deputies.len(), (count - 1).min(2));
                assert!(!deputies.contains(node));
            }
        }
    }

    #[test]
    fn the_last_holder_comes_first_then_the_least_loaded() {
        let candidates = good(3);
        let loads = [("node-1".into(), 5), ("node-2".into(), 2), ("node-3".into(), 9)].into();
        let last = Node::from("node-3");
        let order = ranking(address(1), Some(&last), &candidates, &loads);
        assert_eq!(order, ["node-3".into(), "node-2".into(), "node-1".into()]);
    }

    #[test]
    fn standing_comes_before_the_last_holder_and_preference_before_load() {
        let loads = [("node-2".into(), 7)].into();
        let candidates = [
            ("node-1".into(), merit(Standing::Cordoned, 100)),
            ("node-2".into(), merit(Standing::Good, 50)),
            ("node-3".into(), merit(Standing::Good, 10)),
        ];
        let last = Node::from("node-1");
        let order = ranking(address(1), Some(&last), &candidates.into(), &loads);
        assert_eq!(order, ["node-2".into(), "node-3".into(), "node-1".into()]);
    }

    #[test]
    fn equal_loads_are_spread_by_the_hash() {
        let candidates = good(3);
        let loads = BTreeMap::new();
        let mut firsts: BTreeMap<Node, usize> = BTreeMap::new();
        for last in 0..=255 {
            let first = ranking(address(last), None, &candidates, &loads).swap_remove(0);
            *firsts.entry(first).or_default() += 1;
        }
        assert!(firsts.values().all(|count| (50..120).contains(count)), "{firsts:?}");
    }
}

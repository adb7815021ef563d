//! Which candidate gets what: the same answer on every node, without a word exchanged.

use alloc::{collections::BTreeSet, vec::Vec};
use core::{
    cmp::Reverse,
    hash::{Hash, Hasher},
};

use siphasher::sip::SipHasher13;

use crate::{
    eligibility::Merit,
    loads::{Fit, Loads},
    model::{Lock, Node},
};

/// Whether `one` ranks before `other` for a lock, whatever else is known of them.
pub(crate) fn outranks(one: &Node, other: &Node, lock: &Lock) -> bool {
    chance(lock, one) > chance(lock, other)
}

/// The candidates for one lock, best first, and no more than `most`: by standing; then the node that held it last, those
/// that are preferred, the one with other addresses of the same Service, and the least loaded. Ties are broken by a
/// rendezvous hash, so that equal loads do not all fall on the first name.
pub(crate) fn ranking(
    lock: &Lock,
    last_holder: Option<&Node>,
    loads: &Loads<'_>,
    most: usize,
) -> Vec<Node> {
    let homes = loads.homes(lock);
    let rank = |Fit { node, merit: Merit { standing, preference }, load }| {
        let (moves, apart) = (last_holder != Some(node), !homes.contains(&node));
        ((standing, moves, Reverse(preference), apart, load), node)
    };
    let mut ranked: Vec<_> = loads.fit(lock).into_iter().map(rank).collect();
    // The hash takes longer than all else, and matters only to those that could be among the first by the rest.
    if let Some(last) = most.checked_sub(1).filter(|last| *last < ranked.len()) {
        let (_, &mut (worst, _), _) = ranked.select_nth_unstable_by_key(last, |(rank, _)| *rank);
        ranked.retain(|(rank, _)| *rank <= worst);
    }
    ranked.sort_by_cached_key(|(rank, node)| (*rank, Reverse(chance(lock, node)), *node));
    ranked.into_iter().take(most).map(|(_, node)| node.clone()).collect()
}

/// The one of these nodes that speaks for a lock that none of them may take.
pub(crate) fn spokesman<'a>(lock: &Lock, nodes: &'a BTreeSet<Node>) -> Option<&'a Node> {
    nodes.iter().max_by_key(|node| chance(lock, node))
}

/// The same for all addresses of one Service.
fn chance(lock: &Lock, node: &Node) -> u64 {
    match &lock.service {
        Some(service) => rendezvous(service, node),
        None => rendezvous(&lock.address, node),
    }
}

/// Highest-random-weight hashing (Thaler and Ravishankar, 1998). SipHash-1-3 with the zero key is fixed by its
/// definition, so every version of the speaker computes the same.
pub(crate) fn rendezvous(what: &impl Hash, node: &Node) -> u64 {
    let mut hasher = SipHasher13::new();
    what.hash(&mut hasher);
    node.as_str().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeMap, format, vec};
    use core::net::IpAddr;

    use arpeggio_labels::Selector;

    use super::*;
    use crate::{
        facts::NodeFacts,
        model::{Epoch, Holder, Session, Timestamp, Version},
        terms::{AnnounceTerms, Places, Preference, Rule},
        view::View,
    };

    fn nodes(count: usize) -> BTreeSet<Node> {
        (1..=count).map(|n| Node::from(format!("node-{n}").as_str())).collect()
    }

    /// The order of all of `candidates`.
    fn order(
        lock: &Lock,
        last: Option<&Node>,
        view: &View,
        candidates: &BTreeSet<Node>,
    ) -> Vec<Node> {
        ranking(lock, last, &Loads::of(view, candidates), candidates.len())
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 168, 0, last])
    }

    fn lock(last: u8, holder: Option<&str>) -> Lock {
        Lock {
            address: address(last),
            holder: holder.map(|node| Holder { node: node.into(), epoch: Epoch(1) }),
            service: None,
            terms: AnnounceTerms::default(),
            stranger: None,
            move_to: None,
            unannounced: false,
            disputed_by: None,
            version: Version(1),
        }
    }

    fn of_service(name: &str, lock: Lock) -> Lock {
        Lock { service: Some(name.into()), ..lock }
    }

    /// Nodes that hold these locks.
    fn view(locks: &[Lock]) -> View {
        let mut view = View::default();
        for lock in locks {
            view.lock_seen(lock.clone());
            let Some(Holder { node, epoch }) = lock.holder.clone() else { continue };
            let session = Session::live(node, epoch, Version(1));
            view.session_seen(session, Timestamp::default());
        }
        view
    }

    /// Nodes that hold so many addresses each.
    fn holding(counts: &[(&str, u8)]) -> View {
        let holders = counts.iter().flat_map(|(node, count)| (0..*count).map(|_| Some(*node)));
        view(&(100..).zip(holders).map(|(last, holder)| lock(last, holder)).collect::<Vec<_>>())
    }

    #[test]
    fn the_last_holder_comes_first_then_the_least_loaded() {
        let view = holding(&[("node-1", 5), ("node-2", 2), ("node-3", 9)]);
        let last = Node::from("node-3");
        let order = order(&lock(1, None), Some(&last), &view, &nodes(3));
        assert_eq!(order, ["node-3".into(), "node-2".into(), "node-1".into()]);
    }

    #[test]
    fn standing_comes_before_the_last_holder_and_preference_before_load() {
        let mut view = holding(&[("node-2", 7)]);
        let rack = |rack: &str| [("rack".into(), rack.into())].into();
        let cordoned = NodeFacts { labels: rack("a"), cordoned: true, ..NodeFacts::default() };
        view.node_seen("node-1".into(), cordoned);
        view.node_seen("node-2".into(), NodeFacts { labels: rack("a"), ..NodeFacts::default() });
        let nodes_of_a = Selector::default().with_label("rack", "a").unwrap();
        let preferences = vec![Preference { weight: 50, nodes: nodes_of_a }];
        let places = Places::ByRules(vec![Rule { preferences, ..Rule::default() }]);
        let terms = AnnounceTerms { places, ..AnnounceTerms::default() };
        let lock = Lock { terms, ..lock(1, None) };
        let order = order(&lock, Some(&"node-1".into()), &view, &nodes(3));
        assert_eq!(order, ["node-2".into(), "node-3".into(), "node-1".into()]);
    }

    #[test]
    fn equal_loads_are_spread_by_the_hash() {
        let (candidates, view) = (nodes(3), View::default());
        let mut firsts: BTreeMap<Node, usize> = BTreeMap::new();
        for last in 0..=255 {
            let first = order(&lock(last, None), None, &view, &candidates).swap_remove(0);
            *firsts.entry(first).or_default() += 1;
        }
        assert!(firsts.values().all(|count| (50..120).contains(count)), "{firsts:?}");
    }

    #[test]
    fn addresses_of_one_service_go_together_and_count_once() {
        let first = of_service("web", lock(1, Some("node-1")));
        let second = of_service("web", lock(2, None));
        let others = [lock(3, Some("node-1")), lock(4, Some("node-2"))];
        let view = view(&[&[first, second.clone()][..], &others].concat());
        let candidates = nodes(2);
        let mut loads = Loads::of(&view, &candidates);
        let ranked = |loads: &Loads<'_>, lock: &Lock, last: Option<&Node>| {
            ranking(lock, last, loads, 1).swap_remove(0)
        };
        let load = |loads: &Loads<'_>, node: &str| {
            let fit = loads.fit(&lock(9, None));
            fit.iter().find(|it| *it.node == node.into()).map(|it| it.load)
        };
        assert_eq!(ranked(&loads, &second, None), "node-1".into(), "though it has more");
        assert_eq!(ranked(&loads, &second, Some(&"node-2".into())), "node-2".into(), "it stays");
        loads.place(&second, &"node-1".into());
        assert_eq!(load(&loads, "node-1"), Some(2));
        loads.place(&lock(5, None), &"node-2".into());
        assert_eq!(load(&loads, "node-2"), Some(2));
    }

    #[test]
    fn with_nothing_else_to_tell_nodes_apart_addresses_of_one_service_choose_alike() {
        let view = View::default();
        for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            let of_address = |last| {
                let lock = of_service(name, lock(last, None));
                order(&lock, None, &view, &nodes(9))
            };
            assert_eq!(of_address(1), of_address(2));
        }
    }

    #[test]
    fn the_first_of_many_are_the_same_however_many_are_asked_for() {
        let view = holding(&[("node-3", 2), ("node-5", 1), ("node-7", 1), ("node-20", 3)]);
        let candidates = nodes(30);
        for last in 0..50 {
            let lock = lock(last, None);
            let all = order(&lock, Some(&"node-9".into()), &view, &candidates);
            for most in 0..=30 {
                let loads = Loads::of(&view, &candidates);
                let first = ranking(&lock, Some(&"node-9".into()), &loads, most);
                assert_eq!(first, all[..most], "{last} {most}");
            }
        }
    }
}

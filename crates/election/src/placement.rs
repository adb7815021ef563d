//! Which candidate gets what: the same answer on every node, without a word exchanged.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::{
    cmp::Reverse,
    hash::{Hash, Hasher},
};

use siphasher::sip::SipHasher13;

use crate::{
    eligibility::Merit,
    loads::Loads,
    model::{Lock, Node},
};

/// Whether `one` ranks before `other` for a lock, whatever else is known of them.
pub(crate) fn outranks(one: &Node, other: &Node, lock: &Lock) -> bool {
    chance(lock, one) > chance(lock, other)
}

/// The candidates for one lock, best first: by standing; then the node that held it last, those that are preferred, the
/// one with other addresses of the same Service, and the least loaded. Ties are broken by a rendezvous hash, so that
/// equal loads do not all fall on the first name.
pub(crate) fn ranking(
    lock: &Lock,
    last_holder: Option<&Node>,
    candidates: &BTreeMap<Node, Merit>,
    loads: &Loads<'_>,
) -> Vec<Node> {
    let mut ranked: Vec<(&Node, &Merit)> = candidates.iter().collect();
    ranked.sort_by_cached_key(|(node, merit)| {
        let moves = last_holder != Some(*node);
        let apart = !loads.has_relative(lock, node);
        let by_chance = Reverse(chance(lock, node));
        let Merit { standing, preference } = merit;
        (*standing, moves, Reverse(*preference), apart, loads.count(node), by_chance)
    });
    ranked.into_iter().map(|(node, _)| node.clone()).collect()
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
    use alloc::format;
    use core::net::IpAddr;

    use super::*;
    use crate::{
        eligibility::Standing,
        model::{Epoch, Holder, Session, SessionState, Timestamp, Version},
        terms::AnnounceTerms,
        view::View,
    };

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

    fn lock(last: u8, holder: Option<&str>) -> Lock {
        Lock {
            address: address(last),
            holder: holder.map(|node| Holder { node: node.into(), epoch: Epoch(1) }),
            service: None,
            terms: AnnounceTerms::default(),
            stranger: None,
            move_to: None,
            unannounced: false,
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
            let state = SessionState::Live { accused_by: None };
            let session = Session {
                node,
                epoch,
                state,
                reach: None,
                hears: None,
                lasts: None,
                version: Version(1),
            };
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
        let candidates = good(3);
        let view = holding(&[("node-1", 5), ("node-2", 2), ("node-3", 9)]);
        let last = Node::from("node-3");
        let order = ranking(&lock(1, None), Some(&last), &candidates, &Loads::of(&view));
        assert_eq!(order, ["node-3".into(), "node-2".into(), "node-1".into()]);
    }

    #[test]
    fn standing_comes_before_the_last_holder_and_preference_before_load() {
        let view = holding(&[("node-2", 7)]);
        let candidates = [
            ("node-1".into(), merit(Standing::Cordoned, 100)),
            ("node-2".into(), merit(Standing::Good, 50)),
            ("node-3".into(), merit(Standing::Good, 10)),
        ];
        let last = Node::from("node-1");
        let loads = Loads::of(&view);
        let order = ranking(&lock(1, None), Some(&last), &candidates.into(), &loads);
        assert_eq!(order, ["node-2".into(), "node-3".into(), "node-1".into()]);
    }

    #[test]
    fn equal_loads_are_spread_by_the_hash() {
        let (candidates, view) = (good(3), View::default());
        let mut firsts: BTreeMap<Node, usize> = BTreeMap::new();
        for last in 0..=255 {
            let loads = Loads::of(&view);
            let first = ranking(&lock(last, None), None, &candidates, &loads).swap_remove(0);
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
        let mut loads = Loads::of(&view);
        let ranked = |loads: &Loads<'_>, lock: &Lock, last: Option<&Node>| {
            ranking(lock, last, &good(2), loads).swap_remove(0)
        };
        assert_eq!(ranked(&loads, &second, None), "node-1".into(), "though it has more");
        assert_eq!(ranked(&loads, &second, Some(&"node-2".into())), "node-2".into(), "it stays");
        loads.place(&second, &"node-1".into());
        assert_eq!(loads.count(&"node-1".into()), 2);
        loads.place(&lock(5, None), &"node-2".into());
        assert_eq!(loads.count(&"node-2".into()), 2);
    }

    #[test]
    fn with_nothing_else_to_tell_nodes_apart_addresses_of_one_service_choose_alike() {
        let view = View::default();
        for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            let order = |last| {
                let lock = of_service(name, lock(last, None));
                ranking(&lock, None, &good(9), &Loads::of(&view))
            };
            assert_eq!(order(1), order(2));
        }
    }
}

//! Which addresses to move so that the nodes have equally many, on purpose.
//!
//! Placement is sticky: nothing moves when a node returns. [`Census::plan`] says which addresses somebody would have to
//! ask to be moved (`Lock::move_to`), as few as can be. It judges nodes as the speakers do, by the same records.

mod leveling;

use alloc::{collections::BTreeMap, vec::Vec};
use core::net::IpAddr;

use self::leveling::{Item, level};
use crate::{
    eligibility::{Backends, Merit, Standing, Unfit},
    facts::NodeFacts,
    model::{Lock, Node, Session, Timestamp},
    view::View,
};

/// All that is known of nodes and addresses at one moment.
#[derive(Debug, Clone, Default)]
pub struct Census {
    view: View,
}

/// What to move, and what comes of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leveling {
    /// By address. Whether they are made one after the other or all at once makes no difference.
    pub moves: Vec<Move>,
    /// How many addresses each node with a session that counts holds now.
    pub before: BTreeMap<Node, usize>,
    /// How many it would hold then.
    pub after: BTreeMap<Node, usize>,
    /// By how many the fullest node would be ahead of the emptiest one then, the addresses of one Service counted once.
    /// More than one where rules, interfaces or backends allow no better.
    pub spread: usize,
}

/// An address that changes its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The address.
    pub address: IpAddr,
    /// Its holder.
    pub from: Node,
    /// Who is to have it.
    pub to: Node,
}

/// What is moved together: a lock, or those of one Service that are on one node.
type Group<'a> = Vec<&'a Lock>;

impl Census {
    /// Adds a session.
    pub fn add_session(&mut self, session: Session) {
        self.view.session_seen(session, Timestamp::default());
    }

    /// Adds a lock.
    pub fn add_lock(&mut self, lock: Lock) {
        self.view.lock_seen(lock);
    }

    /// Adds what Kubernetes says of a node.
    pub fn add_node(&mut self, node: Node, facts: NodeFacts) {
        self.view.node_seen(node, facts);
    }

    /// Says where the backends of an address are whose traffic must not leave its node.
    pub fn add_backends(&mut self, address: IpAddr, backends: Backends) {
        self.view.backends_seen(address, Some(backends));
    }

    /// What speaks for announcing `address` from each node whose session counts and that nobody accuses, or why that is out of
    /// the question. None when nothing is known of the address.
    pub fn candidates(&self, address: IpAddr) -> Vec<(&Node, Result<Merit, Unfit>)> {
        let Some(lock) = self.view.lock(address) else { return Vec::new() };
        let nodes = self.counting().map(|session| &session.node).filter(|it| !self.is_accused(it));
        nodes.map(|node| (node, self.view.merit(lock, node))).collect()
    }

    /// The fewest moves after which the nodes hold as equal numbers of addresses as can be: within one of each other,
    /// unless that would take a move to a node that may not announce the address, that something speaks against, or that
    /// its pool prefers less than the node where it is.
    ///
    /// As when they are placed, addresses of one Service on one node count once, and stay together. After these moves
    /// there is nothing left to plan.
    pub fn plan(&self) -> Leveling {
        let nodes: Vec<&Node> = self.counting().map(|session| &session.node).collect();
        let mut groups = Vec::new();
        let mut items = Vec::new();
        for (origin, node) in nodes.iter().enumerate() {
            for group in self.groups(node) {
                items.push(Item::new(origin, self.allowed(&group, origin, &nodes)));
                groups.push(group);
            }
        }
        level(&mut items, nodes.len());
        let placed: Vec<(Group<'_>, Item)> = groups.into_iter().zip(items).collect();
        Leveling {
            moves: moves(&placed, &nodes),
            before: counts(&placed, &nodes, Item::origin),
            after: counts(&placed, &nodes, Item::place),
            spread: spread(&placed, nodes.len()),
        }
    }

    /// What a node rightly holds.
    fn groups(&self, node: &Node) -> impl Iterator<Item = Group<'_>> {
        let mut groups: BTreeMap<IpAddr, Group<'_>> = BTreeMap::new();
        for lock in self.view.rightly_held(node) {
            groups.entry(self.view.eldest(lock, node)).or_default().push(lock);
        }
        groups.into_values()
    }

    fn counting(&self) -> impl Iterator<Item = &Session> {
        let sessions = self.view.sessions().map(|seen| &seen.session);
        sessions.filter(|session| session.is_live())
    }

    /// The nodes where all locks of a group may be, out of `nodes`. Where its holder may not announce the address any more,
    /// the holder gives it away by itself.
    fn allowed(&self, group: &[&Lock], holder: usize, nodes: &[&Node]) -> Vec<usize> {
        let merit = |lock: &Lock, node: &Node| self.view.merit(lock, node).ok();
        let replaces = |lock: &Lock, node: &Node| {
            let present = nodes.get(holder).and_then(|holder| merit(lock, holder));
            present.zip(merit(lock, node)).is_some_and(|(old, new)| is_as_good(new, old))
        };
        let takes =
            |node: &Node| !self.is_accused(node) && group.iter().all(|lock| replaces(lock, node));
        let allowed = nodes.iter().enumerate();
        let allowed = allowed.filter(|(place, node)| *place == holder || takes(node));
        allowed.map(|(place, _)| place).collect()
    }

    /// Whether somebody does not hear the node, so that speakers give it nothing.
    fn is_accused(&self, node: &Node) -> bool {
        self.view.session(node).is_some_and(Session::is_accused)
    }
}

/// Whether somebody may be put in the place of a holder.
fn is_as_good(new: Merit, old: Merit) -> bool {
    new.standing == Standing::Good && new.preference >= old.preference
}

fn moves(placed: &[(Group<'_>, Item)], nodes: &[&Node]) -> Vec<Move> {
    let mut moves = Vec::new();
    for (group, item) in placed.iter().filter(|(_, item)| item.place() != item.origin()) {
        if let (Some(from), Some(to)) = (nodes.get(item.origin()), nodes.get(item.place())) {
            let of = |lock: &&Lock| Move {
                address: lock.address,
                from: (*from).clone(),
                to: (*to).clone(),
            };
            moves.extend(group.iter().map(of));
        }
    }
    moves.sort_by_key(|it| it.address);
    moves
}

/// How many addresses each node has, when each group is at its `place`.
fn counts(
    placed: &[(Group<'_>, Item)],
    nodes: &[&Node],
    place: impl Fn(&Item) -> usize,
) -> BTreeMap<Node, usize> {
    let mut counts: BTreeMap<Node, usize> = nodes.iter().map(|node| ((*node).clone(), 0)).collect();
    for (group, item) in placed {
        if let Some(node) = nodes.get(place(item)) {
            *counts.entry((*node).clone()).or_default() += group.len();
        }
    }
    counts
}

/// By how many groups the fullest of so many nodes is ahead of the emptiest one.
fn spread(placed: &[(Group<'_>, Item)], nodes: usize) -> usize {
    let load = |node| placed.iter().filter(|(_, item)| item.place() == node).count();
    let (most, least) = ((0..nodes).map(load).max(), (0..nodes).map(load).min());
    most.zip(least).map_or(0, |(most, least)| most - least)
}

#[cfg(test)]
mod tests {
    use alloc::{format, vec};

    use arpeggio_labels::Selector;

    use super::*;
    use crate::{
        model::{Epoch, Holder, SessionState, Version},
        terms::{AnnounceTerms, Places, Preference, Rule},
    };

    fn node(number: usize) -> Node {
        Node::from(format!("node-{number}").as_str())
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 168, 0, last])
    }

    fn session(number: usize) -> Session {
        Session::live(node(number), Epoch(2), Version(1))
    }

    fn lock(last: u8, holder: usize, epoch: u64) -> Lock {
        Lock {
            address: address(last),
            holder: Some(Holder { node: node(holder), epoch: Epoch(epoch) }),
            service: None,
            terms: AnnounceTerms::default(),
            stranger: None,
            move_to: None,
            unannounced: false,
            disputed_by: None,
            version: Version(1),
        }
    }

    /// Nodes that hold so many addresses each.
    fn holding(counts: &[u8]) -> Census {
        let mut census = Census::default();
        let mut last = 0;
        for (number, count) in counts.iter().enumerate() {
            census.add_session(session(number));
            for _ in 0..*count {
                last += 1;
                census.add_lock(lock(last, number, 2));
            }
        }
        census
    }

    fn after(census: &Census) -> Vec<usize> {
        census.plan().after.into_values().collect()
    }

    #[test]
    fn nodes_end_within_one_of_each_other_by_as_few_moves_as_can_be() {
        let table: [(&[u8], &[usize], usize); 6] = [
            (&[5, 4, 0], &[3, 3, 3], 3),
            (&[9, 0, 0], &[3, 3, 3], 6),
            (&[4, 3, 3], &[4, 3, 3], 0),
            (&[1, 2, 5, 0], &[2, 2, 2, 2], 3),
            (&[0, 7], &[3, 4], 3),
            (&[], &[], 0),
        ];
        for (before, expected, count) in table {
            let plan = holding(before).plan();
            assert_eq!(after(&holding(before)), expected, "{before:?}");
            assert_eq!(plan.moves.len(), count, "{before:?}");
            assert!(plan.spread <= 1);
        }
    }

    #[test]
    fn nothing_goes_to_a_node_that_is_cordoned_accused_or_without_backends() {
        let mut census = holding(&[4, 0, 0, 0]);
        census.add_node(node(1), NodeFacts { cordoned: true, ..NodeFacts::default() });
        let accused = SessionState::Live { accused_by: Some(node(0)) };
        census.add_session(Session { state: accused, version: Version(2), ..session(2) });
        for last in 1..=4 {
            let ready = if last == 1 { [0, 1, 2, 3] } else { [0, 1, 2, 0] };
            let ready = ready.into_iter().map(node).collect();
            census.add_backends(address(last), Backends { ready, ..Backends::default() });
        }
        let plan = census.plan();
        assert_eq!(plan.moves, [Move { address: address(1), from: node(0), to: node(3) }]);
        assert_eq!(plan.spread, 3);
    }

    #[test]
    fn candidates_are_judged_as_speakers_judge_them() {
        let mut census = holding(&[1, 0, 0, 0]);
        census.add_node(node(1), NodeFacts { excluded: true, ..NodeFacts::default() });
        let accused = SessionState::Live { accused_by: Some(node(0)) };
        census.add_session(Session { state: accused, version: Version(2), ..session(2) });
        let found = census.candidates(address(1));
        let names: Vec<&Node> = found.iter().map(|(node, _)| *node).collect();
        assert_eq!(names, [&node(0), &node(1), &node(3)]);
        assert_eq!(found[1].1, Err(Unfit::Excluded));
        assert!(found[0].1.is_ok() && found[2].1.is_ok());
        assert!(census.candidates(address(9)).is_empty());
    }

    #[test]
    fn a_chain_of_moves_makes_room_where_no_single_one_can() {
        // What node 0 has may be on node 1 only, and what that has on node 2.
        let mut census = holding(&[2, 1, 0]);
        let allow = |census: &mut Census, last: u8, ready: [usize; 2]| {
            let ready = ready.into_iter().map(node).collect();
            census.add_backends(address(last), Backends { ready, ..Backends::default() });
        };
        allow(&mut census, 1, [0, 1]);
        allow(&mut census, 2, [0, 1]);
        allow(&mut census, 3, [1, 2]);
        assert_eq!(after(&census), [1, 1, 1]);
        assert_eq!(census.plan().moves.len(), 2);
    }

    #[test]
    fn a_preferred_node_keeps_what_it_has() {
        let mut census = holding(&[0, 0]);
        let labels = [("fast".into(), "yes".into())].into();
        census.add_node(node(0), NodeFacts { labels, ..NodeFacts::default() });
        let nodes = Selector::default().with_label("fast", "yes").unwrap();
        let preferences = vec![Preference { weight: 1, nodes }];
        let rules = vec![Rule { preferences, ..Rule::default() }];
        let terms = AnnounceTerms { places: Places::ByRules(rules), ..AnnounceTerms::default() };
        for (last, holder) in [(1, 0), (2, 0), (3, 0), (4, 0)] {
            census.add_lock(Lock { terms: terms.clone(), ..lock(last, holder, 2) });
        }
        assert_eq!(census.plan().moves, []);
    }

    #[test]
    fn addresses_of_one_service_move_together_and_count_once() {
        let mut census = holding(&[0, 0]);
        for last in 1..=6 {
            // Two Services with two addresses each, and two with one.
            let service = Some(["a", "a", "b", "b", "c", "d"][usize::from(last) - 1].into());
            census.add_lock(Lock { service, ..lock(last, 0, 2) });
        }
        let plan = census.plan();
        assert_eq!(plan.spread, 0);
        let went = |last| plan.moves.iter().any(|it| it.address == address(last));
        assert_eq!((went(1), went(3)), (went(2), went(4)));
        let backends = Backends { ready: [node(0)].into(), ..Backends::default() };
        census.add_backends(address(1), backends.clone());
        census.add_backends(address(4), backends);
        let moved: Vec<IpAddr> = census.plan().moves.into_iter().map(|it| it.address).collect();
        assert_eq!(moved, [address(5), address(6)], "of the others, one must stay");
    }

    #[test]
    fn what_nobody_rightly_holds_is_not_counted() {
        let mut census = holding(&[2, 1]);
        let over = SessionState::Ended { by: node(0), reason: crate::EndReason::Expired };
        census.add_session(Session { state: over, ..session(5) });
        (10..20).for_each(|last| census.add_lock(lock(last, 1, 1)));
        (20..30).for_each(|last| census.add_lock(lock(last, 5, 2)));
        let plan = census.plan();
        assert_eq!(plan.before, [(node(0), 2), (node(1), 1)].into());
        assert_eq!(plan.moves, []);
    }
}

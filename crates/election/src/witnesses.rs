//! Who watches whom on the wire, and whose word counts.
//!
//! Whoever is to say that a node is silent must be able to hear it. So a node is watched by others that share a segment
//! with it, as far as their sessions tell: by the two that rank highest for it. That two nodes have interfaces in one
//! subnet does not mean that they hear each other, though (a tunnel, two sites, a network that isolates its clients).
//! Each session therefore names the nodes that its node watches and hears; a watcher that does not name a node has no say,
//! and the next in rank watches the node as well.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::{
    cmp::Reverse,
    hash::{Hash, Hasher},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;

use crate::{
    model::{Node, Timestamp},
    placement::rendezvous,
    reach::{Reach, Subnets},
    view::View,
    wire::Targets,
};

/// How many nodes that hear it watch one node.
const DEPUTIES: usize = 2;

/// How many watch a node at most, while fewer are known to hear it. As many do while sessions cannot be ended: whoever is to
/// announce a node's addresses must know itself that it is silent.
const WATCHERS: usize = 4;

/// How many others a node asks now and then, so that it knows whether it hears anybody when one is silent.
const NEIGHBOURS: usize = 3;

/// What one node watches. Who watches whom takes a while to work out, and changes only with who lives, hears whom, and is
/// where.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct Charges {
    live: BTreeSet<Node>,
    alone: bool,
    nodes: BTreeSet<Node>,
    others: BTreeSet<Node>,
    seen: Seen,
}

/// What is known of time alone, so that a renewal which changes nothing costs nothing. It decides nothing: two that differ
/// in it only are the same.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// Until when no session expires, if none has expired by now.
    none_expires: Option<Timestamp>,
    /// Since when sessions were judged then.
    in_touch_since: Option<Timestamp>,
}

impl Hash for Seen {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// How sessions expire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expiry {
    /// How long those count that do not say it themselves.
    pub(crate) usual: Duration,
    /// Since when it is known which were renewed.
    pub(crate) in_touch_since: Option<Timestamp>,
}

impl Charges {
    /// Works out whom `me` watches. `alone`: the API server is away.
    pub(crate) fn update(
        &mut self,
        view: &mut View,
        now: Timestamp,
        expiry: Expiry,
        alone: bool,
        me: &Node,
    ) {
        let anew = view.have_witnesses_changed();
        let lives_anew = self.look_who_lives(view, now, expiry);
        if !anew && !lives_anew && self.alone == alone {
            return;
        }
        self.alone = alone;
        // One whose session has expired is watched until somebody has ended it, which is up to those who watch it. It watches
        // nobody.
        let not_ended = view.not_ended();
        let segments = Segments::of(view, &not_ended);
        let live = |node: &&Node| self.live.contains(*node);
        let near = segments.ranked(me);
        let mine = |node: &&Node| {
            is_watcher(me, node, segments.ahead_of(me, node).filter(live), view, alone)
        };
        self.nodes = near.iter().copied().filter(mine).cloned().collect();
        let neighbours = near.into_iter().filter(live).take(NEIGHBOURS).cloned();
        self.others = neighbours.chain(self.fellows(view, me).cloned()).collect();
    }

    /// Looks whose sessions count, if that may be other ones than before. Whether it is.
    fn look_who_lives(&mut self, view: &mut View, now: Timestamp, expiry: Expiry) -> bool {
        let anew = view.have_lives_changed();
        if !anew && self.none_expires_by(now) && self.seen.in_touch_since == expiry.in_touch_since {
            return false;
        }
        let Expiry { usual, in_touch_since } = expiry;
        self.seen = Seen { none_expires: view.none_expires(now, expiry), in_touch_since };
        let live = view.live(now, usual, in_touch_since);
        let changed = self.live != live;
        self.live = live;
        changed
    }

    /// Whether it is known that no session has expired by now, without a look at each.
    pub(crate) fn none_expires_by(&self, now: Timestamp) -> bool {
        self.seen.none_expires.is_some_and(|until| now <= until)
    }

    /// Those of which something may be known by the wire.
    pub(crate) fn asked(&self) -> impl Iterator<Item = &Node> {
        self.nodes.union(&self.others)
    }

    /// The nodes that hear one that `me` watches, too.
    fn fellows<'a>(&'a self, view: &'a View, me: &'a Node) -> impl Iterator<Item = &'a Node> {
        let watches_one = move |node: &&Node| {
            let heard = view.session(node).and_then(|session| session.hears.as_ref());
            heard.is_some_and(|heard| !heard.is_disjoint(&self.nodes))
        };
        self.live.iter().filter(move |node| *node != me).filter(watches_one)
    }

    /// Those who live, as of the last update.
    pub(crate) fn live(&self) -> &BTreeSet<Node> {
        &self.live
    }

    /// The nodes that are watched.
    pub(crate) fn nodes(&self) -> &BTreeSet<Node> {
        &self.nodes
    }

    /// Whom to ask on the wire.
    pub(crate) fn targets(&self) -> Targets<'_> {
        Targets { charges: &self.nodes, others: &self.others }
    }

    /// The other nodes that could confirm that `node` is silent.
    pub(crate) fn other_witnesses<'a>(
        &'a self,
        node: &'a Node,
        view: &'a View,
        me: &'a Node,
    ) -> impl Iterator<Item = &'a Node> {
        let others = self.live.iter().filter(move |other| *other != me && *other != node);
        others.filter(move |other| {
            hears(view, other, node).unwrap_or_else(|| self.is_deputy(other, node))
        })
    }

    /// By what speakers go that do not say whom they hear: one of the two that rank highest of all that live.
    fn is_deputy(&self, other: &Node, node: &Node) -> bool {
        let mine = rendezvous(node, other);
        let better = self.live.iter().filter(|it| *it != node && rendezvous(node, it) > mine);
        better.take(DEPUTIES).count() < DEPUTIES
    }
}

/// Those of `live` that may watch `node` when the API server is away.
pub(crate) fn watchers<'a>(
    node: &Node,
    live: &'a BTreeSet<Node>,
    view: &View,
) -> BTreeSet<&'a Node> {
    Segments::of(view, live).ranked(node).into_iter().take(WATCHERS).collect()
}

/// Whether `other` hears `node`, if it says.
fn hears(view: &View, other: &Node, node: &Node) -> Option<bool> {
    let heard = view.session(other)?.hears.as_ref()?;
    Some(heard.contains(node))
}

/// Whether `me` watches `node`, for which these rank higher: not when enough of them do. Of a thousand, a few have
/// to be looked at until that is so, unless `me` is one of the few that do watch.
fn is_watcher<'a>(
    me: &Node,
    node: &Node,
    ahead: impl Iterator<Item = &'a Node>,
    view: &View,
    alone: bool,
) -> bool {
    let (mut watchers, mut deputies) = (Vec::with_capacity(WATCHERS), 0);
    for other in ahead {
        // It shares another subnet with the node as well.
        if other == node || other == me || watchers.contains(&other) {
            continue;
        }
        watchers.push(other);
        deputies += usize::from(!alone && hears(view, other, node).unwrap_or(true));
        if watchers.len() >= WATCHERS || deputies >= DEPUTIES {
            return false;
        }
    }
    true
}

/// Where nodes have their addresses, and in which subnets they find neighbours. Two nodes may share a segment when a subnet of
/// one contains an address of the other: on one wire, not all need to have been given the same prefix length. Those of an
/// equal subnet rank first, though: a wide one may contain the addresses of many a node on another wire.
struct Segments<'a> {
    subnets: BTreeMap<&'a Node, BTreeSet<IpNet>>,
    /// Who has an address, or a subnet without one.
    owners: BTreeMap<IpAddr, Vec<&'a Node>>,
    members: BTreeMap<IpNet, Vec<&'a Node>>,
    /// Which subnets there are.
    all_subnets: Subnets,
    /// They do not say where they are, so they may be anywhere.
    anywhere: Vec<&'a Node>,
    all: &'a BTreeSet<Node>,
}

impl<'a> Segments<'a> {
    fn of(view: &View, live: &'a BTreeSet<Node>) -> Self {
        let mut segments = Self {
            subnets: BTreeMap::new(),
            owners: BTreeMap::new(),
            members: BTreeMap::new(),
            all_subnets: Subnets::default(),
            anywhere: Vec::new(),
            all: live,
        };
        for node in live {
            match view.reach(node) {
                None => segments.anywhere.push(node),
                Some(reach) => segments.put(node, reach),
            }
        }
        segments
    }

    fn put(&mut self, node: &'a Node, reach: &Reach) {
        let nets: BTreeSet<IpNet> = reach.nets().collect();
        for net in &nets {
            self.owners.entry(net.addr()).or_default().push(node);
            self.members.entry(net.trunc()).or_default().push(node);
        }
        self.all_subnets.replace(None, Some(reach));
        self.subnets.insert(node, nets);
    }

    /// The other nodes that may share a segment with `node`, those first that rank highest.
    fn ranked(&self, node: &Node) -> Vec<&'a Node> {
        let fellows: BTreeSet<&Node> = self.fellows(node).collect();
        let beside: BTreeSet<&Node> = self.beside(node).collect();
        let mut ranked = by_rank(node, fellows.iter().copied());
        ranked.extend(by_rank(node, beside.difference(&fellows).copied()));
        ranked
    }

    /// Those that rank higher for `node` than `me` does; several times, perhaps.
    fn ahead_of(&self, me: &Node, node: &Node) -> impl Iterator<Item = &'a Node> {
        let (mine, is_fellow) = (rendezvous(node, me), self.are_fellows(me, node));
        let is_ahead = move |other: &&Node| rendezvous(node, other) > mine;
        let fellows = self.fellows(node).filter(move |other| !is_fellow || is_ahead(other));
        let beside = (!is_fellow).then(|| self.beside(node)).into_iter().flatten();
        fellows.chain(beside.filter(is_ahead))
    }

    /// Whether two nodes have an equal subnet, as far as they say.
    fn are_fellows(&self, one: &Node, other: &Node) -> bool {
        let (Some(one), Some(other)) = (self.subnets.get(one), self.subnets.get(other)) else {
            return true;
        };
        let other: BTreeSet<IpNet> = other.iter().map(IpNet::trunc).collect();
        one.iter().any(|net| other.contains(&net.trunc()))
    }

    /// The nodes with an equal subnet, and those that do not say; `node` among them, several times perhaps.
    fn fellows(&self, node: &Node) -> impl Iterator<Item = &'a Node> {
        let subnets = self.subnets.get(node);
        let anybody = subnets.is_none().then_some(self.all).into_iter().flatten();
        let shared = subnets.into_iter().flatten();
        let members = shared.filter_map(|net| self.members.get(&net.trunc())).flatten();
        let anywhere = subnets.map(|_| &self.anywhere).into_iter().flatten();
        anybody.chain(members.chain(anywhere).copied())
    }

    /// Those of which a subnet contains an address of the other; `node` and its fellows among them, several times perhaps.
    fn beside(&self, node: &Node) -> impl Iterator<Item = &'a Node> {
        let nets = self.subnets.get(node).into_iter().flatten();
        nets.flat_map(|net| self.inside(*net).chain(self.around(*net)))
    }

    /// Those whose addresses a subnet contains.
    fn inside(&self, net: IpNet) -> impl Iterator<Item = &'a Node> {
        self.owners.range(net.network()..=net.broadcast()).flat_map(|(_, nodes)| nodes).copied()
    }

    /// Those whose subnets contain a node's address, which is given with its own, narrower one.
    fn around(&self, own: IpNet) -> impl Iterator<Item = &'a Node> {
        let wider = self.all_subnets.around(own.addr());
        let wider = wider.take_while(move |net| net.prefix_len() < own.prefix_len());
        wider.filter_map(|net| self.members.get(&net)).flatten().copied()
    }
}

/// These without `node` itself, in the order in which they rank for it.
fn by_rank<'a>(node: &Node, others: impl Iterator<Item = &'a Node>) -> Vec<&'a Node> {
    let mut ranked: Vec<&Node> = others.filter(|other| *other != node).collect();
    ranked.sort_by_cached_key(|other| Reverse(rendezvous(node, other)));
    ranked
}

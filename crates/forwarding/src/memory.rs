//! Who served an address before, and may know its connections.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    vec,
    vec::Vec,
};
use core::{net::IpAddr, time::Duration};

use arpeggio_election::{Epoch, Node, Timestamp};

use crate::{
    known::{Fellow, Known, Port, Written},
    packet::{BUCKETS, SpreadBy},
    table::Table,
};

/// A node's word that it has no connection left counts so long after it has served last: by then it has heard itself that it does not
/// serve any more, and has counted since.
pub(crate) const SETTLE: Duration = Duration::from_secs(10);

/// A forwarder that has not renewed its Lease for so long does not run any more, and what it has counted does not count: one that runs
/// renews it once a minute, and one that was killed does not.
pub const STALE: Duration = Duration::from_mins(3);

/// A forwarder that has not looked for so long heard of nothing meanwhile: its machine was asleep, say.
const LONGEST_GAP: Duration = Duration::from_secs(10);

/// Who serves an address now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Serving {
    /// The node that serves it whole.
    pub(crate) whole: Option<Node>,
    /// Otherwise, who serves its ports.
    pub(crate) ports: BTreeMap<Port, Served>,
}

/// Who serves one port.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    /// What chooses the bucket of a connection.
    pub(crate) by: SpreadBy,
    /// `None`: nobody does.
    pub(crate) table: Option<Arc<Table>>,
}

impl Serving {
    /// All that serve any of it.
    pub(crate) fn nodes(&self) -> BTreeSet<Node> {
        let tables = self.ports.values().filter_map(|served| served.table.as_ref());
        let nodes = tables.flat_map(|table| table.nodes.iter().cloned());
        nodes.chain(self.whole.clone()).collect()
    }
}

/// When a node served last, and what its forwarder had said by then.
#[derive(Debug, Clone, Copy)]
struct Left {
    at: Timestamp,
    said: Written,
}

/// The memory of one address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    /// Who serves it, as of the last look.
    serving: Serving,
    /// The same, as a set.
    nodes: BTreeSet<Node>,
    /// Who has served any of it within the time that is kept; those that serve now left now.
    left: BTreeMap<Node, Left>,
    /// Who has served all of it, until when.
    whole: BTreeMap<Node, Timestamp>,
    /// What chose the buckets of each port last.
    by: BTreeMap<Port, SpreadBy>,
    /// Who was the primary of a bucket, until when.
    buckets: BTreeMap<Port, BTreeMap<Node, Vec<Option<Timestamp>>>>,
}

/// What a forwarder remembers of itself.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    /// When it started, or was last back in touch.
    pub(crate) at: Timestamp,
    /// The session that its node had then.
    pub(crate) epoch: Option<Epoch>,
    /// What each forwarder said when it was first heard of.
    pub(crate) said: BTreeMap<Node, Written>,
    /// What each forwarder has written last.
    pub(crate) latest: BTreeMap<Node, Heard>,
    /// The API server told nothing when forwarders were last listened to.
    pub(crate) deaf: bool,
    /// When that was.
    pub(crate) listened: Timestamp,
}

/// A forwarder's last write, and since when that is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    written: Written,
    at: Timestamp,
    /// It was not renewed in time.
    stale: bool,
}

/// What is new of forwarders' Leases.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Renewals {
    /// Some forwarder was renewed.
    pub(crate) any: bool,
    /// Some forwarder has become stale, or is not any more.
    pub(crate) stale: bool,
}

impl Heard {
    /// Takes in what a Lease shows now. `was_deaf`: nobody would have told of a renewal.
    fn hear(&mut self, written: Written, was_deaf: bool, now: Timestamp) -> Renewals {
        let was_stale = self.stale;
        let any = written.is_renewal_of(self.written);
        if any {
            *self = Self { written, at: now, stale: false };
        } else if was_deaf {
            self.at = now;
        } else {
            self.stale |= self.at + STALE <= now;
        }
        Renewals { any, stale: self.stale != was_stale }
    }
}

impl Start {
    /// Takes in what forwarders say now. Between two sessions of its own node it may have been out of touch, and have missed as much
    /// as before it started.
    pub(crate) fn hear(
        &mut self,
        known: &Known,
        deaf: bool,
        own: &Node,
        now: Timestamp,
    ) -> Renewals {
        if let Some(epoch) = known.nodes.get(own).map(|own| own.epoch) {
            let before = self.epoch.replace(epoch);
            if before.is_some_and(|before| before != epoch) {
                self.at = now;
                self.said.clear();
            }
        }
        let listened = core::mem::replace(&mut self.listened, now);
        let was_away = listened + LONGEST_GAP < now;
        let was_deaf = core::mem::replace(&mut self.deaf, deaf) || deaf || was_away;
        let fellows = &known.nodes;
        self.latest.retain(|node, _| fellows.get(node).is_some_and(|it| it.forwarder.is_some()));
        let mut news = Renewals::default();
        for (node, fellow) in fellows {
            let Some(forwarder) = &fellow.forwarder else { continue };
            let written = forwarder.written;
            self.said.entry(node.clone()).or_insert(written);
            let new = Heard { written, at: now, stale: false };
            let of_node = self.latest.entry(node.clone()).or_insert(new);
            let Renewals { any, stale } = of_node.hear(written, was_deaf, now);
            news = Renewals { any: news.any | any, stale: news.stale | stale };
        }
        news
    }

    /// The nodes whose forwarders do not run any more, though what they said is still there. That of `own` does: it asks.
    pub(crate) fn stale(&self, own: &Node) -> BTreeSet<Node> {
        let stale = self.latest.iter().filter(|(node, heard)| heard.stale && *node != own);
        stale.map(|(node, _)| node.clone()).collect()
    }
}

/// What is asked of a memory.
#[derive(Clone, Copy)]
pub(crate) struct Moment<'a> {
    pub(crate) now: Timestamp,
    pub(crate) keep: Duration,
    pub(crate) start: &'a Start,
    pub(crate) known: &'a Known,
}

impl Moment<'_> {
    /// What was `then` is of no account any more.
    fn is_over(&self, then: Timestamp) -> bool {
        then + self.keep <= self.now
    }

    /// Whether this forwarder has started so recently that it may have missed what still counts.
    pub(crate) fn is_early(&self) -> bool {
        !self.is_over(self.start.at)
    }
}

impl Memory {
    /// Takes in who serves now.
    pub(crate) fn observe(&mut self, serving: Serving, moment: &Moment<'_>) {
        let nodes = serving.nodes();
        for node in self.nodes.union(&nodes) {
            let forwarder = moment.known.nodes.get(node).and_then(|it| it.forwarder.as_ref());
            let said = forwarder.map(|it| it.written).unwrap_or_default();
            self.left.insert(node.clone(), Left { at: moment.now, said });
        }
        for node in self.serving.whole.iter().chain(&serving.whole) {
            self.whole.insert(node.clone(), moment.now);
        }
        for (port, served) in &serving.ports {
            let before = self.by.insert(*port, served.by);
            if before.is_some_and(|before| before != served.by) {
                self.rebucket(*port, moment.now);
            }
        }
        for (port, before) in &self.serving.ports {
            let Some(table) = &before.table else { continue };
            let after = serving.ports.get(port).and_then(|after| after.table.as_ref());
            if after.is_none_or(|after| !Arc::ptr_eq(table, after)) {
                remember(self.buckets.entry(*port).or_default(), table, after, moment.now);
            }
        }
        (self.serving, self.nodes) = (serving, nodes);
        self.forget(moment);
    }

    /// Connections that are open are in other buckets from now on.
    fn rebucket(&mut self, port: Port, now: Timestamp) {
        let before = self.buckets.remove(&port).unwrap_or_default().into_keys();
        let table = self.serving.ports.get(&port).and_then(|served| served.table.as_ref());
        let serving = table.into_iter().flat_map(|table| table.nodes.iter().cloned());
        self.whole.extend(before.chain(serving).map(|node| (node, now)));
    }

    fn forget(&mut self, moment: &Moment<'_>) {
        let Self { serving, nodes, left, whole, by: _, buckets } = self;
        left.retain(|node, left| nodes.contains(node) || !moment.is_over(left.at));
        whole.retain(|node, at| serving.whole.as_ref() == Some(node) || !moment.is_over(*at));
        for nodes in buckets.values_mut() {
            nodes.retain(|_, times| times.iter().flatten().any(|at| !moment.is_over(*at)));
        }
        buckets.retain(|_, nodes| !nodes.is_empty());
    }

    /// Who serves it, as of the last look.
    pub(crate) fn serving(&self) -> &Serving {
        &self.serving
    }

    /// Whether a node serves any of it now.
    pub(crate) fn serves(&self, node: &Node) -> bool {
        self.nodes.contains(node)
    }

    /// When a node that does not serve any of it now has last done so.
    pub(crate) fn left(&self, node: &Node) -> Option<Timestamp> {
        let left = self.left.get(node).map(|left| left.at);
        left.filter(|_| !self.nodes.contains(node))
    }

    /// Whether a node that may have known connections to it is dead, and they with it.
    pub(crate) fn has_lost_a_node(&self, address: IpAddr, moment: &Moment<'_>) -> bool {
        if moment.keep.is_zero() {
            return false;
        }
        let nodes = &moment.known.nodes;
        let may_have_known =
            |node: &Node| self.left.contains_key(node) || self.may_know_all(address, node, moment);
        let has_lost = |(node, fellow): (&Node, &Fellow)| fellow.is_lost() && may_have_known(node);
        nodes.iter().any(has_lost) || self.left.keys().any(|node| !nodes.contains_key(node))
    }

    /// Whether a node may know connections to any port, whatever their buckets are.
    pub(crate) fn may_know_all(&self, address: IpAddr, node: &Node, moment: &Moment<'_>) -> bool {
        let Some(fellow) = moment.known.nodes.get(node) else { return false };
        if moment.keep.is_zero() || self.says_none(address, node, fellow, moment) {
            return false;
        }
        let was_whole = self.whole.get(node).is_some_and(|at| !moment.is_over(*at));
        // One that has stopped since has taken back what it said, and its kernel goes on.
        let has_said = fellow.forwarder.is_some() || moment.start.said.contains_key(node);
        let is_unknown = moment.is_early() && has_said;
        let counts_some = said(fellow, address).is_some_and(|count| count > 0);
        was_whole || is_unknown || counts_some
    }

    /// Whether somebody has served some of it who does not now.
    pub(crate) fn has_any_left(&self) -> bool {
        self.left.keys().any(|node| !self.nodes.contains(node))
    }

    /// Whether a node may know connections to some port: it has served some.
    pub(crate) fn may_know_some(&self, address: IpAddr, node: &Node, moment: &Moment<'_>) -> bool {
        let Some(fellow) = moment.known.nodes.get(node) else { return false };
        self.left.contains_key(node) && !self.says_none(address, node, fellow, moment)
    }

    /// For each bucket of a port, when a node was last its primary. Empty: it never was.
    pub(crate) fn was_primary(&self, port: Port, node: &Node) -> &[Option<Timestamp>] {
        self.buckets.get(&port).and_then(|nodes| nodes.get(node)).map_or(&[], Vec::as_slice)
    }

    /// Whether a node has said, since it has served last, that it has no connection left.
    pub(crate) fn says_none(
        &self,
        address: IpAddr,
        node: &Node,
        fellow: &Fellow,
        moment: &Moment<'_>,
    ) -> bool {
        let Some(forwarder) = fellow.forwarder.as_ref() else { return false };
        let Some(counts) = &forwarder.connections else { return false };
        if self.nodes.contains(node) {
            return false;
        }
        let started = || moment.start.said.get(node).map(|said| (moment.start.at, *said));
        let left = self.left.get(node).map(|left| (left.at, left.said));
        let Some((at, before)) = left.or_else(started) else { return false };
        let is_new = forwarder.written.is_after(before) && at + SETTLE <= moment.now;
        // Who is known to have served says so in so many words.
        let is_silent_enough = left.is_none() && !counts.contains_key(&address);
        is_new && (is_silent_enough || counts.get(&address) == Some(&0))
    }

    /// The next time at which one of the answers may change though nothing else does.
    pub(crate) fn next(&self, moment: &Moment<'_>) -> Option<Timestamp> {
        let gone = self.left.iter().filter(|(node, _)| !self.nodes.contains(*node));
        let gone = gone.flat_map(|(_, left)| [left.at + SETTLE, left.at + moment.keep]);
        let whole =
            self.whole.iter().filter(|(node, _)| self.serving.whole.as_ref() != Some(*node));
        let whole = whole.map(|(_, at)| *at + moment.keep);
        let times = self.buckets.values().flat_map(BTreeMap::values).flatten().flatten();
        let buckets = times.map(|at| *at + moment.keep);
        gone.chain(whole).chain(buckets).filter(|at| *at > moment.now).min()
    }
}

/// The connections that a node says it has.
fn said(fellow: &Fellow, address: IpAddr) -> Option<u32> {
    let forwarder = fellow.forwarder.as_ref().filter(|it| !it.stale)?;
    forwarder.connections.as_ref()?.get(&address).copied()
}

/// The primaries that have lost a bucket leave now.
fn remember(
    buckets: &mut BTreeMap<Node, Vec<Option<Timestamp>>>,
    before: &Table,
    after: Option<&Arc<Table>>,
    now: Timestamp,
) {
    for (bucket, node) in before.primaries.iter().enumerate() {
        if after.and_then(|after| after.primaries.get(bucket)) == Some(node) {
            continue;
        }
        if !buckets.contains_key(node) {
            buckets.insert(node.clone(), vec![None; usize::from(BUCKETS)]);
        }
        let time = buckets.get_mut(node).and_then(|times| times.get_mut(bucket));
        if let Some(time) = time {
            *time = Some(now);
        }
    }
}

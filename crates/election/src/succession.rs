//! Whose turn it is to take each free lock.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::{net::IpAddr, time::Duration};

use crate::{
    eligibility::Candidate,
    loads::Loads,
    model::{Lock, Node, Timestamp, Version},
    placement::{outranks, ranking, spokesman},
    settings::Settings,
    view::{Changed, View},
};

/// How long a line is at first. Two seconds pass until the turn of the next one would come, and hardly ever does.
const FIRST_LENGTH: usize = 8;

/// How many candidates are looked at in one turn, for all lines together. With thousands of addresses and nodes there is
/// more to look at than a turn may take, and what is drawn up is acted on meanwhile.
const LOOKS: usize = 100_000;

/// When to go on with lines that were too many for one turn.
const SOON: Duration = Duration::from_millis(1);

/// The candidates for each free lock. A line is drawn up once, when its lock becomes free: what is taken afterwards, and is
/// seen in another order elsewhere, changes nobody's turn.
#[derive(Debug, Clone, Default, Hash)]
pub(crate) struct Succession {
    candidates: BTreeSet<Node>,
    lines: BTreeMap<IpAddr, Line>,
    /// When each candidate was last seen to take one of these locks. Who has many to take needs time for them.
    at_work: BTreeMap<Node, Timestamp>,
    /// Who announces what others hold, or nobody does.
    stand_ins: BTreeMap<IpAddr, StandIn>,
    /// The last turn had no time for all lines.
    behind: bool,
}

/// The candidates for one lock, best first.
#[derive(Debug, Clone, Hash)]
struct Line {
    /// The lock's.
    version: Version,
    ranked: Vec<Node>,
    room: Room,
    /// Who tells of the address when nobody is in it.
    spokesman: Option<Node>,
}

/// The frame of a line.
#[derive(Debug, Clone, Copy, Hash)]
struct Room {
    /// How many it is drawn up for. When it is full, others may come after them.
    most: usize,
    /// When it was drawn up, if there was no time for it at once: nobody's turn came before.
    late: Option<Timestamp>,
}

/// Who announces an address without its lock, this node or another one.
#[derive(Debug, Clone, Hash)]
struct StandIn {
    /// The lock's.
    version: Version,
    node: Node,
    heard: Timestamp,
}

impl Succession {
    /// Forgets what was taken, and draws up lines for what has become free, as far as there is time for it. With other
    /// candidates all lines are drawn up anew.
    pub(crate) fn update(
        &mut self,
        view: &View,
        candidates: BTreeSet<Node>,
        now: Timestamp,
        settings: &Settings,
    ) {
        self.forget_taken(view, now);
        if self.candidates != candidates {
            self.replace_candidates(view, candidates);
        }
        // Lines that nobody is in may be many, and stay for long.
        let is_full = |line: &Line| line.ranked.len() == line.room.most;
        if self.lines.len() == view.free_count() && !self.lines.values().any(is_full) {
            self.behind = false;
            return;
        }
        let missing = view.free().filter_map(|(lock, since)| {
            let room = self.missing(lock, since, now, settings)?;
            Some((lock, room))
        });
        let budget = LOOKS / self.candidates.len().max(1) + 1;
        let new: Vec<(&Lock, Room)> = missing.take(budget).collect();
        self.behind = new.len() == budget;
        if new.is_empty() {
            return;
        }
        for (lock, _) in &new {
            self.lines.remove(&lock.address);
        }
        let mut loads = Loads::of(view, &self.candidates);
        for (address, line) in &self.lines {
            line.burden(view.lock(*address), &mut loads);
        }
        for (lock, room) in new {
            let stand_in = self.stand_ins.get(&lock.address).map(|it| &it.node);
            let holder = lock.holder.as_ref().map(|holder| &holder.node);
            let ranked = ranking(lock, stand_in.or(holder), &loads, room.most);
            let spokesman = ranked.is_empty().then(|| spokesman(lock, &self.candidates)).flatten();
            let spokesman = spokesman.cloned();
            let line = Line { version: lock.version, ranked, room, spokesman };
            line.burden(Some(lock), &mut loads);
            self.lines.insert(lock.address, line);
        }
    }

    /// What line is to be drawn up for a lock that is free since `since`, if one is: there is none, or everybody in it has
    /// let the turn pass.
    fn missing(
        &self,
        lock: &Lock,
        since: Timestamp,
        now: Timestamp,
        settings: &Settings,
    ) -> Option<Room> {
        let Some(line) = self.lines.get(&lock.address) else {
            return Some(Room { most: FIRST_LENGTH, late: self.behind.then_some(now) });
        };
        let (rank, Room { most, late }) = (line.ranked.len(), line.room);
        let is_over = || now >= self.turn(line, rank, lock.address, since, settings);
        // Locks without any line come first.
        (rank == most && !self.behind && is_over()).then_some(Room { most: most * 2, late })
    }

    /// When there is more to draw up.
    pub(crate) fn due(&self, now: Timestamp) -> Option<Timestamp> {
        self.behind.then_some(now + SOON)
    }

    /// The free locks for which there was no time yet.
    pub(crate) fn undrawn<'a>(&'a self, view: &'a View) -> impl Iterator<Item = IpAddr> {
        let free = self.behind.then(|| view.free()).into_iter().flatten();
        free.map(|(lock, _)| lock.address).filter(|address| !self.lines.contains_key(address))
    }

    /// Other things speak for some nodes than before, or for all nodes at some addresses.
    pub(crate) fn reconsider(&mut self, view: &View, changed: &Changed) {
        self.lines.retain(|address, _| !changed.addresses.contains(address));
        let nodes = changed.nodes.intersection(&self.candidates);
        let nodes: Vec<Candidate<'_>> = nodes.map(|node| view.candidate(node)).collect();
        if !nodes.is_empty() {
            self.lines.retain(|address, line| line.stays(*address, view, &nodes));
        }
    }

    fn replace_candidates(&mut self, view: &View, candidates: BTreeSet<Node>) {
        let before = core::mem::replace(&mut self.candidates, candidates);
        let new: Vec<Candidate<'_>> =
            self.candidates.difference(&before).map(|node| view.candidate(node)).collect();
        self.lines.retain(|address, line| line.stays(*address, view, &new));
        for (address, line) in &mut self.lines {
            let Some(lock) = view.lock(*address) else { continue };
            let present = line.spokesman.as_ref().filter(|it| self.candidates.contains(*it));
            let best = |best, other| if outranks(other, best, lock) { other } else { best };
            let found = match present {
                Some(present) => Some(new.iter().map(|it| it.node).fold(present, best)),
                None => spokesman(lock, &self.candidates),
            };
            line.spokesman = found.cloned();
        }
    }

    fn forget_taken(&mut self, view: &View, now: Timestamp) {
        let at_work = &mut self.at_work;
        self.lines.retain(|address, line| {
            let lock = view.lock(*address);
            let stays = lock.is_some_and(|lock| lock.version == line.version);
            if let Some(holder) = lock.and_then(|lock| lock.holder.as_ref()).filter(|_| !stays) {
                at_work.insert(holder.node.clone(), now);
            }
            stays && view.free_since(*address).is_some()
        });
        let version = |address| view.lock(address).map(|lock| lock.version);
        self.stand_ins.retain(|address, it| version(*address) == Some(it.version));
        if self.lines.is_empty() {
            self.at_work.clear();
        }
    }

    /// The free locks that it is the turn of `me` to take: the first in line may at once, each further one when those before
    /// have done nothing for a while longer. What is announced already can wait.
    pub(crate) fn turns(
        &self,
        me: &Node,
        view: &View,
        now: Timestamp,
        settings: &Settings,
    ) -> impl Iterator<Item = IpAddr> {
        let is_turn = move |(address, line): &(&IpAddr, &Line)| {
            let turn = self.turn_of(me, line, **address, view, settings);
            turn.is_some_and(|turn| turn <= now)
        };
        self.lines.iter().filter(is_turn).map(|(address, _)| *address)
    }

    /// Whether that is one of them.
    pub(crate) fn is_turn(
        &self,
        me: &Node,
        address: IpAddr,
        view: &View,
        now: Timestamp,
        settings: &Settings,
    ) -> bool {
        let line = self.lines.get(&address);
        let turn = line.and_then(|line| self.turn_of(me, line, address, view, settings));
        turn.is_some_and(|turn| turn <= now)
    }

    /// When the turn of `me` comes, if it is in line.
    fn turn_of(
        &self,
        me: &Node,
        line: &Line,
        address: IpAddr,
        view: &View,
        settings: &Settings,
    ) -> Option<Timestamp> {
        let rank = line.ranked.iter().position(|node| node == me)?;
        Some(self.turn(line, rank, address, view.free_since(address)?, settings))
    }

    /// When the turn comes of whoever has this rank.
    fn turn(
        &self,
        line: &Line,
        rank: usize,
        address: IpAddr,
        since: Timestamp,
        settings: &Settings,
    ) -> Timestamp {
        let (before, _) = line.ranked.split_at(rank);
        let at_work = before.iter().filter_map(|node| self.at_work.get(node).copied());
        let stand_in = self.stand_ins.get(&address).filter(|it| before.contains(&it.node));
        let announced = stand_in.map(|it| it.heard + settings.renewal);
        let since = at_work.chain(announced).chain(line.room.late).fold(since, Timestamp::max);
        since + settings.patience * u32::try_from(rank).unwrap_or(u32::MAX)
    }

    /// Whether `me` is the first in line for an address that nobody has announced since its lock became free.
    pub(crate) fn is_heir(&self, me: &Node, address: IpAddr) -> bool {
        let first = self.lines.get(&address).and_then(|line| line.ranked.first());
        first == Some(me) && !self.stand_ins.contains_key(&address)
    }

    /// `by` announces an address whose lock it does not hold.
    pub(crate) fn stands_in(&mut self, lock: &Lock, by: &Node, now: Timestamp) {
        let stand_in = StandIn { version: lock.version, node: by.clone(), heard: now };
        self.stand_ins.insert(lock.address, stand_in);
    }

    /// Who announces an address holds its lock.
    pub(crate) fn holds(&mut self, address: IpAddr) {
        self.stand_ins.remove(&address);
    }

    /// How many addresses nobody announces, as far as is known, though somebody could.
    pub(crate) fn ownerless(&self) -> usize {
        let waits = |(address, line): &(&IpAddr, &Line)| {
            !line.ranked.is_empty() && !self.stand_ins.contains_key(*address)
        };
        self.lines.iter().filter(waits).count()
    }

    /// The free locks whose addresses no node may announce, and of which `me` is to tell.
    pub(crate) fn stranded<'a>(
        &'a self,
        view: &'a View,
        me: &'a Node,
    ) -> impl Iterator<Item = &'a Lock> {
        let told = self.lines.iter().filter(move |(_, line)| line.spokesman.as_ref() == Some(me));
        told.filter_map(|(address, _)| view.lock(*address))
    }

    /// Whether there is nothing that could be out of date.
    pub(crate) fn is_idle(&self) -> bool {
        self.lines.is_empty() && self.stand_ins.is_empty() && !self.behind
    }
}

impl Line {
    /// Whether it is the same with these candidates, which are new or have changed. Where many addresses have nobody, to look
    /// for somebody among all candidates takes long; any other line is drawn up anew, since the loads have changed.
    fn stays(&self, address: IpAddr, view: &View, candidates: &[Candidate<'_>]) -> bool {
        let Some(lock) = view.lock(address) else { return false };
        let backends = view.backends(address);
        let is_fit = |it: &Candidate<'_>| it.merit(address, &lock.terms, backends).is_ok();
        self.ranked.is_empty() && !candidates.iter().any(is_fit)
    }

    /// Adds the lock to what the first in line has.
    fn burden(&self, lock: Option<&Lock>, loads: &mut Loads<'_>) {
        if let Some((lock, first)) = lock.zip(self.ranked.first()) {
            loads.place(lock, first);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;
    use crate::{facts::NodeFacts, terms::AnnounceTerms};

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(millis))
    }

    fn node(index: usize) -> Node {
        Node::from(format!("node-{index}").as_str())
    }

    fn nodes(range: core::ops::Range<usize>) -> BTreeSet<Node> {
        range.map(node).collect()
    }

    fn ip(index: u16) -> IpAddr {
        let [high, low] = index.to_be_bytes();
        IpAddr::from([10, 0, high, low])
    }

    /// So many locks that are free since the first second.
    fn free(locks: u16) -> View {
        let mut view = View::default();
        for index in 0..locks {
            view.lock_seen(Lock {
                address: ip(index),
                holder: None,
                service: None,
                terms: AnnounceTerms::default(),
                stranger: None,
                move_to: None,
                unannounced: false,
                disputed_by: None,
                version: Version(1),
            });
        }
        view.mark_free(at(1000));
        view
    }

    fn update(succession: &mut Succession, view: &View, candidates: &BTreeSet<Node>, now: u64) {
        succession.update(view, candidates.clone(), at(now), &Settings::default());
    }

    /// Whose turn it is.
    fn turns(
        succession: &Succession,
        view: &View,
        candidates: &BTreeSet<Node>,
        address: IpAddr,
        now: u64,
    ) -> usize {
        let settings = Settings::default();
        let is_turn =
            |me: &&Node| succession.turns(me, view, at(now), &settings).any(|turn| turn == address);
        candidates.iter().filter(is_turn).count()
    }

    #[test]
    fn everybody_has_a_turn_however_many_come_before() {
        let (view, candidates, mut succession) = (free(1), nodes(0..40), Succession::default());
        for rank in 0..40 {
            let now = 1000 + 250 * rank;
            update(&mut succession, &view, &candidates, now);
            let turns = turns(&succession, &view, &candidates, ip(0), now);
            assert_eq!(turns, usize::try_from(rank).unwrap() + 1);
        }
    }

    #[test]
    fn what_there_is_no_time_for_is_drawn_up_in_the_next_turns_and_late_for_all() {
        let (view, candidates, mut succession) = (free(300), nodes(0..1000), Succession::default());
        let mut left = Vec::new();
        for now in [5000, 5300, 5600] {
            update(&mut succession, &view, &candidates, now);
            left.push(succession.undrawn(&view).count());
        }
        assert_eq!(left, [199, 98, 0]);
        assert_eq!(succession.due(at(5600)), None);
        assert_eq!(turns(&succession, &view, &candidates, ip(0), 5600), 8, "it waits since 1000");
        assert_eq!(turns(&succession, &view, &candidates, ip(150), 5600), 2, "drawn up at 5300");
        assert_eq!(turns(&succession, &view, &candidates, ip(299), 5600), 1);
    }

    #[test]
    fn addresses_that_nobody_may_announce_are_told_of_by_whom_a_new_line_would_name() {
        let excluded = NodeFacts { excluded: true, ..NodeFacts::default() };
        let mut view = free(30);
        (0..12).for_each(|index| view.node_seen(node(index), excluded.clone()));
        let mut succession = Succession::default();
        let steps = [nodes(0..9), nodes(0..8), nodes(3..8), nodes(3..12), nodes(1..12)];
        for (step, candidates) in (0..).zip(steps) {
            view.node_seen(node(5), NodeFacts { cordoned: step % 2 == 0, ..excluded.clone() });
            succession.reconsider(&view, &view.clone().take_changed());
            update(&mut succession, &view, &candidates, 2000);
            let mut fresh = Succession::default();
            update(&mut fresh, &view, &candidates, 2000);
            for me in &candidates {
                let told = |it: &Succession| it.stranded(&view, me).cloned().collect::<Vec<_>>();
                assert_eq!(told(&succession), told(&fresh), "{step} {me}");
            }
        }
        let candidates = nodes(1..12);
        assert_eq!(succession.ownerless(), 0);
        view.node_seen(node(7), NodeFacts::default());
        succession.reconsider(&view, &view.clone().take_changed());
        update(&mut succession, &view, &candidates, 3000);
        assert_eq!(succession.ownerless(), 30);
        assert!(succession.is_heir(&node(7), ip(0)));
    }
}

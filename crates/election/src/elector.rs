//! One speaker's decisions.
//!
//! # What a speaker is to an address
//!
//! Its [`Role`](crate::Role) follows from what is known. Of several lines that apply the first one counts.
//!
//! | role | announces | how it begins | how it ends |
//! |---|---|---|---|
//! | heir | at once | it is the first in line for what was held under a session that was ended as [`EndReason::NodeSilent`]; or as a stand-in it sees that session ended | it has the lock: holder. It hears a fellow: taker |
//! | stand-in | yes | without the API server, a node is silent that holds the lock, and nobody answers three questions | it hears a fellow: it asks again later. The API server is back: it ends the silent node's session, and is the heir |
//! | returner | no | its interface heard nobody for a while, or its process was paused, and it is the holder | it has proved its session: holder. Without the API server nobody answers three questions: stand-in |
//! | doubter | for half a second, or not at all when it knows that it cannot read the lock, or that its session is over | as a holder it hears a fellow; as a leaver, one that is not its successor | it has read the lock and proved its session: holder. Else bystander |
//! | holder | as long as it is allowed to ([`Unfit`](crate::Unfit)) and has proved its session since it last woke | it took the lock, or was given it | somebody else has the lock: bystander |
//! | leaver | until it hears its successor, or for two sessions' time | it has given the lock away ([`GiveReason`]), or its process stops ([`EndReason::Stopped`]) | bystander |
//! | asker | no | it is this node's turn to take a lock that nobody has held ([`TakeReason::New`]) | nobody answers three questions: it takes the lock and is the holder. A stranger answers: [`LockChange::Quarantine`], and it asks again later |
//! | taker | no | it is this node's turn to take what was held under another ended session ([`TakeReason::Over`], [`TakeReason::Ours`]) | the write is done: holder. Somebody else's was: bystander |
//! | bystander | no | | |
//!
//! Losing the API server alone ends no role that announces.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use core::{net::IpAddr, time::Duration};

use crate::{
    disputes::Disputes,
    eligibility::{Candidate, Standing},
    exchange::{Decision, Effect, Event},
    families::Families,
    flaps::{Deed, Flaps},
    intruders::Intruders,
    leaving::Leaving,
    loads::Loads,
    model::{EndReason, Epoch, Holder, Lock, Node, Session, SessionState, Timestamp, Version},
    own::{News, OwnSession, Says},
    own_merits::OwnMerits,
    placement::{ranking, spokesman},
    proxies::Proxies,
    questions::Search,
    reach::{Interface, Reach},
    settings::{HEARTBEAT, Settings},
    speakers::SpeakerWatch,
    stranded::Strandings,
    succession::Succession,
    unaided::Unaided,
    vacancy::{FormerHolders, Vacancies},
    view::View,
    wire::WireWatch,
    witnesses::Charges,
    writes::{GiveReason, LockChange, Outcome, TakeReason, Target, Write, Writes},
};

mod alone;
mod announcing;
mod moving;
mod roles;
mod telling;
mod vacant;
mod watching;

use announcing::Contest;

/// For so many of its addresses the speaker of a node is asked that is not watched.
const MOST_ASKED: usize = 4;

/// One speaker's view and its decisions. The crate's page has the contract.
///
/// Two that are equal by their hashes decide the same from there on; a clone is a second future of the same speaker. The
/// model check is built on both.
#[derive(Debug, Clone, Hash)]
pub struct Elector {
    me: Node,
    settings: Settings,
    synced: bool,
    stopping: bool,
    decided: Timestamp,
    view: View,
    own: OwnSession,
    wire: WireWatch,
    speakers: SpeakerWatch,
    charges: Charges,
    writes: Writes,
    vacancies: Vacancies,
    former: FormerHolders,
    proxies: Proxies,
    announcing: BTreeSet<IpAddr>,
    /// After the last decision nothing but news could change what is announced.
    calm: bool,
    succession: Succession,
    strandings: Strandings,
    flaps: Flaps,
    merits: OwnMerits,
    leaving: Leaving,
    contests: BTreeMap<IpAddr, Contest>,
    disputes: Disputes,
    intruders: Intruders,
    /// The interfaces that heard nobody, for which addresses, and since when they hear their segments again. Somebody else may
    /// have taken over there unheard: nothing is announced on them until the session is proved, or the segment was asked.
    returned: BTreeMap<(String, Families), Timestamp>,
    unaided: Unaided,
}

impl Elector {
    /// A speaker on node `me` that starts now and announces nothing.
    pub fn new(me: Node, settings: Settings, now: Timestamp) -> Self {
        let mut own = OwnSession::default();
        own.woke(now);
        Self {
            me,
            settings,
            synced: false,
            stopping: false,
            decided: now,
            view: View::default(),
            own,
            wire: WireWatch::default(),
            speakers: SpeakerWatch::default(),
            charges: Charges::default(),
            writes: Writes::default(),
            vacancies: Vacancies::default(),
            former: FormerHolders::default(),
            proxies: Proxies::default(),
            announcing: BTreeSet::new(),
            calm: false,
            succession: Succession::default(),
            strandings: Strandings::default(),
            flaps: Flaps::default(),
            merits: OwnMerits::default(),
            leaving: Leaving::default(),
            contests: BTreeMap::new(),
            disputes: Disputes::default(),
            intruders: Intruders::default(),
            returned: BTreeMap::new(),
            unaided: Unaided::default(),
        }
    }

    /// The addresses to announce, as of the last decision.
    pub fn announcing(&self) -> &BTreeSet<IpAddr> {
        &self.announcing
    }

    /// The addresses that were asked for, and whose answers are awaited: before their first use, when the API server
    /// is away, and those that nobody has, by which proxies are found out.
    pub fn asking(&self) -> impl Iterator<Item = IpAddr> {
        self.vacancies.asked().chain(self.unaided.asked()).chain(self.proxies.asked())
    }

    /// The nodes in whose place this one announces addresses without a lock that it can show: they are silent on the wire.
    pub fn stands_in_for(&self) -> BTreeSet<&Node> {
        self.unaided.instead_of().filter(|node| **node != self.me).collect()
    }

    /// How many addresses nobody announced, as far as this node knew, though some node could, at the last decision.
    pub fn ownerless(&self) -> usize {
        if self.synced && self.has_a_say() { self.succession.ownerless() } else { 0 }
    }

    /// The addresses that fellow speakers are asked for, to hear whether they live.
    pub fn awaited(&self) -> impl Iterator<Item = IpAddr> {
        let asked = self.charges.asked().flat_map(|node| self.asked_of(node));
        self.speakers.awaited().chain(asked)
    }

    /// The addresses for which the speaker of `node` is asked: some of those that it announces. One that is not watched is asked
    /// only before its silence counts.
    pub fn asked_of(&self, node: &Node) -> impl Iterator<Item = IpAddr> {
        let is_watched = self.watched().contains(node);
        let held = (!is_watched).then(|| self.view.rightly_held(node)).into_iter().flatten();
        self.speakers.asked_of(node).chain(held.take(MOST_ASKED).map(|lock| lock.address))
    }

    /// Whether this machine was found to answer for what others have (proxy ARP).
    pub fn is_proxy(&self, mac: [u8; 6], now: Timestamp) -> bool {
        self.proxies.knows(mac, now)
    }

    /// Whether `node` has missed a question for its own address.
    pub fn misses(&self, node: &Node) -> bool {
        self.wire.misses(node)
    }

    /// The interfaces, out of those that this node has now, on which it announces `address` or asks for it first.
    pub fn interfaces<'a>(&self, address: IpAddr, reach: &'a Reach) -> Vec<&'a Interface> {
        let around = self.proxies.asked_around(address);
        let address = around.unwrap_or(address);
        let Some(lock) = self.view.lock(address) else {
            return around.map(|node| reach.announcing(node, &[])).unwrap_or_default();
        };
        lock.terms.interfaces(address, self.view.facts(&self.me), reach)
    }

    /// The interfaces on which `node` announces `address`, as far as its session tells; `None` where it does not say.
    pub fn interfaces_of(&self, node: &Node, address: IpAddr) -> Option<Vec<&Interface>> {
        self.view.interfaces_of(node, address)
    }

    /// Whether, of the nodes whose sessions count, this one is to tell users what all of them see of an address.
    pub fn speaks_for(&self, address: IpAddr) -> bool {
        let live = self.charges.live();
        self.view.lock(address).and_then(|lock| spokesman(lock, live)) == Some(&self.me)
    }

    /// The addresses of this node that a fellow goes on claiming though it does not hold them, and which one; as of the last
    /// decision.
    pub fn disputed(&self) -> impl Iterator<Item = (IpAddr, &Node)> {
        self.disputes.stubborn()
    }

    /// The addresses of this node that would move, or whose locks would say something else, if their backends had not come and
    /// gone too often of late; as of the last decision.
    pub fn held_back(&self) -> impl Iterator<Item = IpAddr> {
        self.flaps.held_back()
    }

    /// Whether this node's session is known to count.
    pub fn established(&self) -> bool {
        self.own.is_proved() && self.view.session(&self.me).is_some_and(Session::is_live)
    }

    /// Whether this node may judge others and take locks: its session counts, and is not about to end.
    fn has_a_say(&self) -> bool {
        self.established() && !self.stopping
    }

    /// The epoch of a node's session that this speaker knows.
    pub fn epoch(&self, node: &Node) -> Option<Epoch> {
        self.view.session(node).map(|session| session.epoch)
    }

    /// Where a node says that it is found.
    pub fn reach(&self, node: &Node) -> Option<&Reach> {
        self.view.reach(node)
    }

    /// The nodes that this one watches on the wire.
    pub fn watched(&self) -> &BTreeSet<Node> {
        self.charges.nodes()
    }

    /// The version of a node's session that this speaker knows; none that is of a history that is no more.
    pub fn session_version(&self, node: &Node) -> Option<Version> {
        self.view.session_version(node)
    }

    /// How many nodes' sessions counted, as far as this speaker knew, at the last decision.
    pub fn live_count(&self) -> usize {
        self.charges.live().len()
    }

    /// The nodes whose sessions count.
    fn live(&self, now: Timestamp) -> BTreeSet<Node> {
        self.view.live(now, self.settings.session, self.own.in_touch_since())
    }

    /// How often this node renews its session now.
    pub fn renewal(&self) -> Duration {
        self.settings.renewal_of(self.session_lasts())
    }

    /// How long a session is to count after a renewal, in a cluster as large as this one.
    fn session_lasts(&self) -> Duration {
        self.settings.session_among(self.view.counting())
    }

    /// Whether somebody's answer is overdue, so that frames that nobody has looked at yet would matter: see
    /// [`Event::Backlog`].
    pub fn misses_somebody(&self, now: Timestamp) -> bool {
        let mut searches = self.vacancies.searches().chain(self.unaided.searches());
        self.wire.misses_somebody(now) || searches.any(|search| search.concludes(now))
    }

    /// Takes in what has happened.
    pub fn handle(&mut self, now: Timestamp, event: Event) {
        match event {
            Event::Synced => self.synced(),
            Event::Stopping => self.stopping = true,
            Event::Rewound => self.view.rewound(),
            Event::Session(session) => self.session_seen(session, now),
            Event::SessionGone(node) => self.view.session_gone(&node),
            Event::Lock(lock) => {
                if let Some(holder) = lock.holder.as_ref().filter(|holder| holder.node == self.me) {
                    self.own.saw_epoch(holder.epoch);
                }
                if lock.holder.is_none() {
                    self.holder_lost(lock.address, now);
                }
                self.note_flaps(&lock, now);
                self.view.lock_seen(lock);
            }
            Event::LockGone(address) => {
                self.holder_lost(address, now);
                self.view.lock_gone(address);
                self.disputes.gone(address);
                self.intruders.gone(address);
            }
            Event::NodeAnswered(node) => self.wire.answered(&node, now, &self.settings),
            Event::AnsweredAs { node, address, mac } => {
                self.wire.answered(&node, now, &self.settings);
                self.suspect(address, mac, now);
            }
            Event::Profile { node, profile } => self.wire.ask_by(node, profile),
            Event::AskedOn { node, interface } => self.wire.asked_on(node, interface),
            Event::HeardOn { node, interface } => self.wire.heard_on(interface, node, now),
            Event::GatewayAnswered(interface) => self.wire.gateway_answered(interface, now),
            Event::Backlog => self.has_backlog(now),
            Event::AnswersLost => self.answers_lost(),
            Event::Unasked(node) => self.wire.unasked(&node),
            Event::SpeakerUnasked(node, address) => self.speakers.unasked(&node, address),
            Event::Heard { address, by } => self.heard(address, &by, now),
            Event::Node { node, facts } => self.view.node_seen(node, facts),
            Event::NodeGone(node) => self.view.node_gone(&node),
            Event::Backends { address, backends } => self.view.backends_seen(address, backends),
            Event::BackendsUnknown(address) => self.view.backends_unknown(address),
            Event::Reach(reach) => self.view.own_reach_is(self.me.clone(), reach),
            Event::Outdated => self.own.outdated(now),
            Event::CarrierReturned(interface, families) => {
                self.carrier_returned(interface, families, now);
            }
            Event::Contested { address, mac } => self.contested(address, mac, now),
            Event::Occupied { address, mac, by } => self.occupied(address, mac, &by, now),
            Event::Wanted { address, mac } => self.wanted(address, mac, now),
            Event::Wrote { write, outcome } => self.wrote(&write, outcome, now),
        }
    }

    fn answers_lost(&mut self) {
        self.wire.excuse();
        self.speakers.excuse();
        self.searches_mut().for_each(Search::doubt);
    }

    fn has_backlog(&mut self, now: Timestamp) {
        self.wire.has_backlog();
        self.searches_mut().for_each(|search| search.wait(now));
    }

    fn searches_mut(&mut self) -> impl Iterator<Item = &mut Search> {
        self.vacancies.searches_mut().chain(self.unaided.searches_mut())
    }

    fn session_seen(&mut self, session: Session, now: Timestamp) {
        if session.node == self.me {
            self.own.saw_epoch(session.epoch);
        }
        let known = self.view.session(&session.node);
        if known.is_some_and(|known| known.epoch < session.epoch) {
            // What made us end the session before is no reason to end this one.
            self.wire.forget(&session.node);
            self.speakers.forget(&session.node);
        } else if known.is_some_and(|known| self.is_disproved_by(known, &session)) {
            self.wire.disprove(&session.node);
            self.speakers.disprove(&session.node);
        }
        self.view.session_seen(session, now);
    }

    /// Whether a node has renewed its session though this node accuses it.
    fn is_disproved_by(&self, known: &Session, renewed: &Session) -> bool {
        let accused = SessionState::Live { accused_by: Some(self.me.clone()) };
        let cleared = renewed.is_live() && !renewed.is_accused();
        known.state == accused && cleared && known.version < renewed.version
    }

    /// Only the first list tells that a session was deleted: later ones may be older than the answers to our writes.
    fn synced(&mut self) {
        if !self.synced {
            self.view.listed();
        }
        self.synced = true;
    }

    fn wrote(&mut self, write: &Write, outcome: Outcome, now: Timestamp) {
        let target = write.target();
        let sent = self.writes.ended(&target, outcome, now, &self.settings);
        match (write, outcome) {
            (Write::Start { .. } | Write::Renew { .. }, Outcome::Done) => {
                let sent = sent.unwrap_or_default();
                self.own.proved(sent);
                self.returned.retain(|_, since| *since > sent);
            }
            (Write::Start { .. } | Write::Renew { .. }, Outcome::Failed) => self.own.lost_touch(),
            (Write::Start { .. } | Write::Renew { .. }, Outcome::Refused { .. }) => {
                self.own.refused();
            }
            (Write::Read { address }, Outcome::Done | Outcome::Conflict) => {
                self.lock_read(*address);
                self.speakers.read(*address, now, &self.settings);
            }
            // As good as a read: it is nobody else's.
            (Write::Lock { address, change: LockChange::Take { .. }, .. }, Outcome::Done) => {
                self.lock_taken(*address, sent.unwrap_or_default());
            }
            (Write::Read { address }, Outcome::Failed | Outcome::Refused { .. }) => {
                self.give_way(*address);
            }
            _ => {}
        }
    }

    /// Decides what to do now, with all that was fed before.
    pub fn decide(&mut self, now: Timestamp) -> Decision {
        if now.since(self.decided) > self.settings.freshness {
            self.own.woke(now);
            self.unaided.forget();
        }
        self.decided = now;
        let (mut effects, mut gained, mut stranded) = (Vec::new(), Vec::new(), Vec::new());
        let mut lines_due = None;
        if self.synced {
            let was_calm = self.calm && self.is_calm();
            let concerned = self.weigh(now);
            self.writes.prune(now);
            self.flaps.begin(now);
            if !self.stopping {
                // First: the session does not name whom this node cannot hear any more. Others would wait for its word.
                self.choose_charges(now);
            }
            self.keep_session(now, &mut effects);
            if !self.stopping {
                self.watch_wire(now, &mut effects);
            }
            if self.has_a_say() {
                self.judge_sessions(now, &mut effects);
                self.take_locks(now, &mut effects);
                lines_due = self.succession.due(now);
                self.give_locks(now, &mut effects);
                self.obey_requests(now, &mut effects);
                self.note_trouble(now, &mut effects);
            }
            self.settle_contests(now, &mut effects);
            self.stand_in(now, &mut effects);
            self.calm = self.is_calm();
            let ceased;
            if was_calm && self.calm {
                (gained, ceased) = self.update_announcing_of(concerned);
            } else {
                (gained, ceased) = self.update_announcing(now);
            }
            debug_assert_eq!(self.announcing, self.announced_by_role());
            if self.has_a_say() {
                stranded = self.tell_of_stranded(&ceased, now);
            }
            effects.extend(self.leaving.ask(now, &self.settings).into_iter().map(Effect::Ask));
        }
        let heartbeat = now + HEARTBEAT;
        let probes = [self.wire.due(), self.speakers.due(), self.vacancies.due()];
        let without_locks = [self.unaided.due(), self.proxies.due()];
        let due = probes.into_iter().chain(without_locks).chain([lines_due]).flatten();
        let next = due.filter(|due| *due > now).fold(heartbeat, Timestamp::min);
        Decision { effects, gained, stranded, next }
    }

    /// Takes in what has changed of locks, and of what speaks for the nodes. Returns the addresses to which this node may be
    /// another thing than before therefore: where pods come and go, what this node holds is not looked at each time.
    fn weigh(&mut self, now: Timestamp) -> BTreeSet<IpAddr> {
        let changed = self.view.take_changed();
        let mut concerned = self.view.mark_free(now);
        concerned.extend(&changed.addresses);
        self.merits.update(&self.view, &self.me, &concerned);
        if changed.nodes.contains(&self.me) {
            self.merits.update_all(&self.view, &self.me);
        }
        self.succession.reconsider(&self.view, &changed);
        concerned
    }

    fn keep_session(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let session = self.view.session(&self.me);
        let mut news = News::default();
        let write = match session {
            // The session's end frees its locks; we announce them until somebody has taken them.
            Some(session) if self.stopping => session.is_live().then(|| Write::End {
                node: session.node.clone(),
                expected: session.version,
                reason: EndReason::Stopped,
            }),
            _ => {
                let is_alone_with =
                    |node: &Node, interface: &str| self.is_alone_with(node, interface);
                let nodes = self.charges.nodes();
                let hears = self.wire.heard(nodes, is_alone_with, &self.settings);
                let says = Says { lasts: self.session_lasts(), hears };
                news = self.news(&says);
                self.own.due(session, news, says, now, &self.settings)
            }
        };
        let Some(write) = write else { return };
        if matches!(write, Write::Renew { .. }) && self.writes.free(&Target::OwnSession, now) {
            self.own.renews(news, self.renewal(), now);
        }
        self.send(write, now, effects);
    }

    /// Why this node's session is not to wait for its next renewal: it is to say something that others wait for, or to be
    /// proved. That a node is not watched any more can wait.
    fn news(&self, says: &Says) -> News {
        let said = self.view.session(&self.me).and_then(|session| session.hears.as_ref());
        let hears_more = !said.map_or(says.hears.is_empty(), |said| says.hears.is_subset(said));
        News {
            of_others: hears_more || self.needs_proof(),
            of_itself: self.view.has_unsaid_reach() || self.own.is_outdated(),
        }
    }

    fn take_locks(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.succession.is_idle() && !self.view.has_free() {
            return;
        }
        let candidates = self.candidates(now);
        self.succession.update(&self.view, candidates, now, &self.settings);
        let mut asked = self.turns(now);
        let mine = asked.iter().filter_map(|address| self.view.lock(*address).cloned());
        let mine: Vec<Lock> = mine.collect();
        asked.extend(self.succession.undrawn(&self.view));
        self.vacancies.retain(&asked);
        for lock in mine {
            if let Some(dead) = self.inherits_from(&lock) {
                self.succession.stands_in(&lock, &self.me, now);
                self.unaided.announce(lock.address, dead, now, &self.settings);
            }
            self.take_vacant(&lock, now, effects);
        }
    }

    /// The holder of a free lock, if it is silent on the wire and this node is to have what it held: then the address is
    /// announced from here while the write that takes the lock is under way. Of a thousand, the last ones are written a
    /// second later than the first.
    fn inherits_from(&self, lock: &Lock) -> Option<Holder> {
        let silent = Some(EndReason::NodeSilent);
        let reason = self.view.reason(lock, &self.me);
        let is_dead = matches!(reason, TakeReason::Over { reason, .. } if reason == silent);
        let heir = is_dead && self.succession.is_heir(&self.me, lock.address);
        lock.holder.clone().filter(|_| heir && !self.has_returned(lock.address))
    }

    /// The free locks that this node may take now, by address.
    fn turns(&self, now: Timestamp) -> BTreeSet<IpAddr> {
        let announced = self.unaided.announced().filter(|it| self.view.free_since(*it).is_some());
        let turns = self.succession.turns(&self.me, &self.view, now, &self.settings);
        turns.chain(announced).filter(|it| !self.view.are_backends_unknown(*it)).collect()
    }

    /// Gives away what others should rather announce. With nobody else, it stays.
    fn give_locks(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let unwanted = self.merits.unwanted();
        let mut unwanted: Vec<(&Lock, GiveReason)> =
            unwanted.filter_map(|(it, reason)| Some((self.view.lock(it)?, reason))).collect();
        if unwanted.is_empty() {
            return;
        }
        let mut candidates = self.candidates(now);
        candidates.remove(&self.me);
        // What nobody else can have is looked at in each turn: no loads are counted for it.
        let others: Vec<Candidate<'_>> =
            candidates.iter().map(|node| self.view.candidate(node)).collect();
        unwanted.retain(|(lock, reason)| others.iter().any(|it| self.suits(it, lock, *reason)));
        let flaps = &mut self.flaps;
        unwanted.retain(|(lock, reason)| {
            !reason.is_by_backends() || flaps.may(lock.address, Deed::Move, now)
        });
        if unwanted.is_empty() {
            return;
        }
        let mut loads = Loads::of(&self.view, &candidates);
        let mut gives = Vec::new();
        for (lock, reason) in unwanted {
            let Some(to) = ranking(lock, None, &loads, 1).pop() else { continue };
            loads.place(lock, &to);
            gives.extend(self.give(lock, to, reason));
        }
        for give in gives {
            self.hand_over(give, now, effects);
        }
    }

    /// Gives a lock away, and goes on announcing until the successor does.
    fn hand_over(&mut self, give: Write, now: Timestamp, effects: &mut Vec<Effect>) {
        if let Write::Lock { address, change: LockChange::Give { to, .. }, .. } = &give
            && self.writes.free(&give.target(), now)
        {
            self.leaving.give(*address, to.clone());
        }
        self.send(give, now, effects);
    }

    /// Whether a lock can be given to a candidate. Where clients still reach the address here, only to one that nothing speaks
    /// against.
    fn suits(&self, candidate: &Candidate<'_>, lock: &Lock, reason: GiveReason) -> bool {
        let merit = candidate.merit(lock.address, &lock.terms, self.view.backends(lock.address));
        merit.is_ok_and(|it| match reason {
            GiveReason::Unfit(_) => true,
            GiveReason::Elsewhere => it.standing < Standing::Elsewhere,
            _ => it.standing == Standing::Good,
        })
    }

    fn give(&self, lock: &Lock, to: Node, reason: GiveReason) -> Option<Write> {
        let epoch = self.view.session(&to)?.epoch;
        Some(Write::on(lock, LockChange::Give { to, epoch, reason }))
    }

    /// The nodes that locks may be placed on: alive, and not under suspicion.
    fn candidates(&self, now: Timestamp) -> BTreeSet<Node> {
        let mut candidates = self.live(now);
        candidates.retain(|node| {
            let accused = self.view.session(node).is_some_and(Session::is_accused);
            !accused && self.silence(node, now).is_none()
        });
        // That somebody accuses us says nothing: we are about to renew, which clears it.
        candidates.insert(self.me.clone());
        candidates
    }

    fn take(&self, lock: &Lock) -> Option<Write> {
        let epoch = self.view.session(&self.me)?.epoch;
        let reason = self.view.reason(lock, &self.me);
        Some(Write::on(lock, LockChange::Take { epoch, reason }))
    }

    fn send(&mut self, write: Write, now: Timestamp, effects: &mut Vec<Effect>) {
        let target = write.target();
        if self.writes.free(&target, now) {
            self.writes.sent(target, now);
            effects.push(Effect::Write(write));
        }
    }
}

//! What would be rehearsed, and what speaks against it.

use std::{cmp::Reverse, fmt, fmt::Write as _, net::IpAddr};

use arpeggio_api::{lock::LockRecord, session::SessionRecord};
use arpeggio_election::{Merit, Node, SessionState};

use super::nodes::Asker;
use crate::census::Known;

/// What is rehearsed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    /// The owner hands the address over, as before maintenance.
    #[default]
    Handover,
    /// The owner's speaker is deleted, as in an upgrade or an eviction.
    StopSpeaker,
    /// The owner is not heard any more, as when its power is cut.
    Silence,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Handover => "handover",
            Self::StopSpeaker => "stop-speaker",
            Self::Silence => "silence",
        }
    }

    /// Whether everything leaves the node, and not one address only.
    fn empties_the_node(self) -> bool {
        self != Self::Handover
    }
}

/// What is known before anything is done.
pub(super) struct Situation<'a> {
    pub(super) known: &'a Known,
    /// `NAMESPACE/NAME`.
    pub(super) service: &'a str,
    /// The one that was asked for.
    pub(super) address: Option<IpAddr>,
    pub(super) kind: Kind,
}

/// What will be done, and to whom.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) kind: Kind,
    pub(super) service: String,
    pub(super) address: IpAddr,
    pub(super) lock: LockRecord,
    pub(super) owner: SessionRecord,
    /// Who may have the address, the best one first.
    pub(super) candidates: Vec<Node>,
    /// What else the owner has, and what moves with it.
    pub(super) others: Vec<IpAddr>,
}

/// The plan as programs read it.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Preview<'a> {
    kind: &'static str,
    service: &'a str,
    address: IpAddr,
    from: &'a str,
    candidates: Vec<&'a str>,
    others: &'a [IpAddr],
}

/// Why nothing is done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("no address is allocated to Service {0}: see 'arpeggio explain service {0}'")]
    NoAddress(String),
    #[error("{0} is no address of Service {1}")]
    NotItsAddress(IpAddr, String),
    #[error("nobody announces {0}: see 'arpeggio status'")]
    NotAnnounced(IpAddr),
    #[error("something is under way already: {0}; try again when it is over")]
    UnderWay(String),
    #[error("no node but {owner} may announce {address}{}", reasons(.why))]
    NoOtherNode { address: IpAddr, owner: Node, why: Vec<String> },
    #[error(
        "no other node hears {0} on the wire, so that its silence would be noticed only when its session expires: see 'arpeggio status' for who watches it"
    )]
    Unheard(Node),
    #[error(
        "a newer release has written the session of {0}, and it is left alone: use an arpeggio of that release"
    )]
    Newer(Node),
    #[error(
        "{0} announces the address and does not hear its own questions: name other nodes with --ask-from"
    )]
    AsksItself(Node),
    #[error(
        "{0} has no session, so that its speaker cannot ask for the address: see 'arpeggio status'"
    )]
    CannotAsk(Node),
    #[error(
        "speakers have --probe-profile=sparse, so that switches may close the port of a node that asks every 20 ms: leave out --ask-from"
    )]
    Sparse,
}

/// All that speaks against it.
pub(super) fn said(refusals: &[Refusal]) -> String {
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn reasons(why: &[String]) -> String {
    if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) }
}

impl Situation<'_> {
    /// The plan, or all that speaks against it.
    pub(super) fn plan(&self) -> Result<Plan, Vec<Refusal>> {
        let lock = self.lock().map_err(|refusal| vec![refusal])?;
        let address = lock.lock.address;
        let Some(owner) = self.owner(lock) else {
            return Err(vec![Refusal::NotAnnounced(address)]);
        };
        let node = &owner.session.node;
        let others =
            if self.kind.empties_the_node() { self.others(address, node) } else { Vec::new() };
        let mut refusals: Vec<Refusal> =
            self.under_way().map(Refusal::UnderWay).into_iter().collect();
        let concerned = [address].into_iter().chain(others.iter().copied());
        refusals.extend(concerned.filter_map(|address| self.stays(address, node)));
        if self.kind == Kind::Silence && !self.is_heard(node) {
            refusals.push(Refusal::Unheard(node.clone()));
        }
        if self.kind == Kind::Silence && owner.newer.is_some() {
            refusals.push(Refusal::Newer(node.clone()));
        }
        if !refusals.is_empty() {
            return Err(refusals);
        }
        Ok(Plan {
            kind: self.kind,
            service: self.service.to_owned(),
            address,
            lock: lock.clone(),
            candidates: self.candidates(address, node),
            owner: owner.clone(),
            others,
        })
    }

    fn lock(&self) -> Result<&LockRecord, Refusal> {
        let service = self.service.to_owned();
        let is_its = |lock: &&LockRecord| lock.claim.services.iter().any(|it| it.path() == service);
        let mut its = self.known.locks.iter().filter(is_its);
        match self.address {
            None => its.next().ok_or(Refusal::NoAddress(service)),
            Some(address) => its
                .find(|it| it.lock.address == address)
                .ok_or(Refusal::NotItsAddress(address, service)),
        }
    }

    /// The session under which somebody announces the address.
    fn owner(&self, lock: &LockRecord) -> Option<&SessionRecord> {
        let holder = lock.lock.holder.as_ref().filter(|_| !lock.lock.unannounced)?;
        let mut sessions = self.known.sessions.iter();
        sessions.find(|it| {
            it.session.node == holder.node && it.session.epoch == holder.epoch && is_live(it)
        })
    }

    /// What else a node has.
    fn others(&self, address: IpAddr, node: &Node) -> Vec<IpAddr> {
        let locks = self.known.locks.iter().filter(|it| it.lock.address != address);
        let its = locks.filter(|it| self.owner(it).is_some_and(|it| it.session.node == *node));
        its.map(|it| it.lock.address).collect()
    }

    /// Something that the rehearsal would be mixed up with.
    fn under_way(&self) -> Option<String> {
        let sessions = self.known.sessions.iter().filter(|it| is_live(it));
        let session = sessions.clone().find_map(|it| match &it.session.state {
            SessionState::Live { accused_by: Some(by) } => {
                Some(format!("{} is accused by {by}", it.session.node))
            }
            _ if it.silence.is_some() => {
                Some(format!("another drill has {} fall silent", it.session.node))
            }
            _ => None,
        });
        session.or_else(|| self.known.locks.iter().find_map(|it| self.lock_under_way(it)))
    }

    fn lock_under_way(&self, record: &LockRecord) -> Option<String> {
        let address = record.lock.address;
        if let Some(to) = &record.lock.move_to {
            return Some(format!("{address} is asked to move to {to}"));
        }
        let holder = record.lock.holder.as_ref().filter(|_| !record.lock.unannounced)?;
        self.owner(record)
            .is_none()
            .then(|| format!("{address} is being taken over from {}", holder.node))
    }

    /// Why an address has nowhere to go.
    fn stays(&self, address: IpAddr, owner: &Node) -> Option<Refusal> {
        if !self.candidates(address, owner).is_empty() {
            return None;
        }
        let others = self.known.census.candidates(address).into_iter();
        let others = others.filter(|(node, _)| *node != owner);
        let why = others.filter_map(|(node, merit)| Some(format!("{node}: {}", merit.err()?)));
        Some(Refusal::NoOtherNode { address, owner: owner.clone(), why: why.collect() })
    }

    /// The other nodes that may announce an address, the best one first.
    fn candidates(&self, address: IpAddr, owner: &Node) -> Vec<Node> {
        let found = self.known.census.candidates(address).into_iter();
        let fit = found.filter_map(|(node, merit)| Some((node, merit.ok()?)));
        let mut others: Vec<(&Node, Merit)> = fit.filter(|(node, _)| *node != owner).collect();
        others.sort_by_key(|(node, merit)| {
            (merit.standing, Reverse(merit.preference), self.load(node))
        });
        others.into_iter().map(|(node, _)| node.clone()).collect()
    }

    fn load(&self, node: &Node) -> usize {
        let held = self
            .known
            .locks
            .iter()
            .filter(|it| self.owner(it).is_some_and(|it| it.session.node == *node));
        held.count()
    }

    /// Whether another node's session says that it hears this one.
    fn is_heard(&self, node: &Node) -> bool {
        let others =
            self.known.sessions.iter().filter(|it| it.session.node != *node && is_live(it));
        let mut said = others.map(|it| it.session.hears.as_ref());
        said.any(|hears| hears.is_none_or(|hears| hears.contains(node)))
    }
}

fn is_live(record: &SessionRecord) -> bool {
    record.session.is_live()
}

impl Plan {
    /// The node that hands over, for a handover.
    pub(super) fn target(&self) -> Option<&Node> {
        self.candidates.first()
    }

    /// The plan as it is `now`, if that is still what somebody has agreed to; in words what is not.
    pub(super) fn as_agreed(&self, now: Result<Self, Vec<Refusal>>) -> Result<Self, String> {
        let changed = |what: String| format!("things have changed since you were asked: {what}");
        let now = now.map_err(|refusals| changed(said(&refusals)))?;
        if now.address != self.address {
            return Err(changed(format!("the Service has {} now", now.address)));
        }
        let (owner, session) = (&now.owner, &now.owner.session);
        let same_owner = (&session.node, session.epoch, &owner.instance)
            == (&self.owner.session.node, self.owner.session.epoch, &self.owner.instance);
        if !same_owner {
            let (node, epoch, pod) = (&session.node, session.epoch.0, &owner.instance);
            let what = format!("{node} announces it now (pod {pod}, session {epoch})");
            return Err(changed(what));
        }
        if self.kind == Kind::Handover && now.target() != self.target() {
            let to = now.target().map(ToString::to_string).unwrap_or_default();
            return Err(changed(format!("it would be handed over to {to}")));
        }
        Ok(now)
    }

    /// The nodes of these names, which are to ask for the address meanwhile.
    pub(super) fn askers(&self, known: &Known, names: &[String]) -> Result<Vec<Asker>, Refusal> {
        let live = known.sessions.iter().filter(|it| is_live(it));
        let mut profiles = live.flat_map(|it| it.paths.values());
        if !names.is_empty() && profiles.any(|it| it.starts_with("sparse")) {
            return Err(Refusal::Sparse);
        }
        let asker = |name: &String| {
            let node = Node::from(name.as_str());
            if node == self.owner.session.node {
                return Err(Refusal::AsksItself(node));
            }
            let its = |it: &&SessionRecord| it.session.node == node && is_live(it);
            match known.sessions.iter().find(its) {
                Some(session) => Ok(Asker { node, pod: session.instance.clone() }),
                None => Err(Refusal::CannotAsk(node)),
            }
        };
        names.iter().map(asker).collect()
    }

    /// For programs that ask what would be done.
    pub(super) fn preview(&self) -> Preview<'_> {
        Preview {
            kind: self.kind.as_str(),
            service: &self.service,
            address: self.address,
            from: self.owner.session.node.as_str(),
            candidates: self.candidates.iter().map(Node::as_str).collect(),
            others: &self.others,
        }
    }

    /// For somebody who is asked whether it is to be done.
    pub(super) fn to_text(&self, seconds: u64) -> String {
        let (owner, address) = (&self.owner.session.node, self.address);
        let mut text = format!("{address} of Service {} is announced by {owner}.\n", self.service);
        // Writing to a string cannot fail.
        let _ = match self.kind {
            Kind::Handover => {
                let to = self.target().map(ToString::to_string).unwrap_or_default();
                writeln!(text, "{owner} will be asked to hand it over to {to}.")
            }
            Kind::StopSpeaker => {
                writeln!(text, "Its speaker, pod {}, will be deleted.", self.owner.instance)
            }
            Kind::Silence => writeln!(
                text,
                "For {seconds} s its speaker will stand still, and the other nodes will not hear it. It ends by itself."
            ),
        };
        let candidates = self.candidates.iter().map(Node::as_str).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "Other nodes that may announce it: {candidates}.");
        if !self.others.is_empty() {
            let others = Listed(&self.others);
            let _ = writeln!(text, "What else {owner} announces moves, too: {others}.");
        }
        text + "Nothing moves back by itself. Connections that are open may be reset.\n"
    }
}

/// Not more than a terminal has room for.
struct Listed<'a>(&'a [IpAddr]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        let shown: Vec<String> = self.0.iter().take(SHOWN).map(ToString::to_string).collect();
        f.write_str(&shown.join(", "))?;
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use arpeggio_api::{
        lock::{self, Claim, ServiceRef},
        terms::WrittenAnnounceTerms,
    };
    use arpeggio_election::{
        Backends, EndReason, Epoch, Holder, NodeFacts, Session, Version, rebalance::Census,
    };

    use super::*;

    fn node(number: u8) -> Node {
        Node::from(format!("node-{number}").as_str())
    }

    fn address(last: u8) -> IpAddr {
        [192, 168, 0, last].into()
    }

    fn session(number: u8) -> SessionRecord {
        let others = (1..=3).filter(|other| *other != number).map(node);
        let session = Session {
            hears: Some(others.collect()),
            ..Session::live(node(number), Epoch(1), Version(1))
        };
        SessionRecord {
            session,
            newer: None,
            instance: format!("speaker-{number}"),
            links: Vec::new(),
            own: None,
            paths: std::collections::BTreeMap::new(),
            heard_on: arpeggio_api::session::HeardOn::default(),
            silence: None,
        }
    }

    fn lock(last: u8, name: &str, holder: u8) -> LockRecord {
        let service = ServiceRef { namespace: "shop".into(), name: name.into(), uid: name.into() };
        let claim = Claim {
            address: address(last),
            pool: "home".into(),
            services: vec![service],
            terms: WrittenAnnounceTerms::default(),
            spread: false,
        };
        let mut lease = claim.created();
        lease.metadata.resource_version = Some("1".into());
        let mut record = lock::parse(&lease).unwrap();
        record.lock.holder = Some(Holder { node: node(holder), epoch: Epoch(1) });
        record
    }

    /// Three nodes; node 1 has the address of `web`, and of `mail`.
    fn known() -> Known {
        Known {
            census: Census::default(),
            sessions: (1..=3).map(session).collect(),
            locks: vec![lock(240, "web", 1), lock(241, "mail", 1)],
        }
    }

    /// What follows, when `backends` says where the addresses may be.
    fn planned(
        mut known: Known,
        kind: Kind,
        backends: &[(u8, &[u8])],
    ) -> Result<Plan, Vec<Refusal>> {
        known.sessions.iter().for_each(|it| known.census.add_session(it.session.clone()));
        known.locks.iter().for_each(|it| known.census.add_lock(it.lock.clone()));
        for (last, ready) in backends {
            let ready: BTreeSet<Node> = ready.iter().copied().map(node).collect();
            known.census.add_backends(address(*last), Backends { ready, ..Backends::default() });
        }
        Situation { known: &known, service: "shop/web", address: None, kind }.plan()
    }

    #[test]
    fn the_best_other_node_is_the_target() {
        let mut known = known();
        known.locks.push(lock(242, "files", 2));
        let plan = planned(known, Kind::Handover, &[]).unwrap();
        assert_eq!(plan.candidates, [node(3), node(2)], "the one that has least comes first");
        assert!(plan.others.is_empty(), "one address only is handed over");
        assert!(plan.to_text(5).contains("node-1 will be asked to hand it over to node-3"));
    }

    #[test]
    fn what_was_agreed_to_is_done_and_nothing_else() {
        let agreed = |kind, change: &dyn Fn(&mut Known)| {
            let plan = planned(known(), kind, &[]).unwrap();
            let mut later = known();
            change(&mut later);
            let done = plan.as_agreed(planned(later, kind, &[]));
            done.map(|it| it.lock.lock.version).map_err(|why| {
                let what = why.strip_prefix("things have changed since you were asked: ");
                what.unwrap_or_default().to_owned()
            })
        };
        let all = |change: &dyn Fn(&mut Known)| {
            [Kind::Handover, Kind::StopSpeaker, Kind::Silence].map(|kind| agreed(kind, change))
        };
        let rewritten = |it: &mut Known| it.locks[0].lock.version = Version(7);
        assert_eq!(all(&rewritten), [const { Ok(Version(7)) }; 3], "it goes by the newest lock");
        let told = |text: &str| [(); 3].map(|()| Err(text.to_owned()));
        let moved = |it: &mut Known| it.locks[0] = lock(240, "web", 2);
        assert_eq!(all(&moved), told("node-2 announces it now (pod speaker-2, session 1)"));
        let restarted = |it: &mut Known| it.sessions[0].instance = "speaker-9".into();
        assert_eq!(all(&restarted), told("node-1 announces it now (pod speaker-9, session 1)"));
        let again = |it: &mut Known| {
            it.sessions[0].session.epoch = Epoch(2);
            let holder = Some(Holder { node: node(1), epoch: Epoch(2) });
            it.locks.iter_mut().for_each(|it| it.lock.holder = holder.clone());
        };
        assert_eq!(all(&again), told("node-1 announces it now (pod speaker-1, session 2)"));
        let other = |it: &mut Known| it.locks[0] = lock(249, "web", 1);
        assert_eq!(all(&other), told("the Service has 192.168.0.249 now"));
        let busy = |it: &mut Known| it.sessions[1].silence = Some(Duration::from_secs(5));
        let under_way = "something is under way already: another drill has node-2 fall silent; try again when it is over";
        assert_eq!(all(&busy), told(under_way));
        let full = |it: &mut Known| it.locks.push(lock(242, "files", 2));
        let to_3 = "it would be handed over to node-3";
        assert_eq!(agreed(Kind::Handover, &full), Err(to_3.to_owned()));
        assert!(agreed(Kind::Silence, &full).is_ok());
    }

    #[test]
    fn what_else_moves_is_told() {
        for kind in [Kind::StopSpeaker, Kind::Silence] {
            let plan = planned(known(), kind, &[]).unwrap();
            assert_eq!(plan.others, [address(241)]);
            let text = plan.to_text(5);
            assert!(
                text.contains("What else node-1 announces moves, too: 192.168.0.241."),
                "{text}"
            );
        }
    }

    #[test]
    fn with_nowhere_to_go_nothing_is_done() {
        let alone = |last: u8| Refusal::NoOtherNode {
            address: address(last),
            owner: node(1),
            why: [2, 3]
                .map(|it| format!("node-{it}: {}", arpeggio_election::Unfit::NoBackend))
                .into(),
        };
        let backends: &[(u8, &[u8])] = &[(240, &[1])];
        assert_eq!(planned(known(), Kind::Handover, backends).unwrap_err(), [alone(240)]);
        let backends: &[(u8, &[u8])] = &[(241, &[1])];
        assert!(planned(known(), Kind::Handover, backends).is_ok(), "the other one stays");
        assert_eq!(planned(known(), Kind::Silence, backends).unwrap_err(), [alone(241)]);
        let mut one = known();
        one.sessions.truncate(1);
        let refusals = planned(one, Kind::Handover, &[]).unwrap_err();
        assert_eq!(refusals.len(), 1, "{refusals:?}");
    }

    #[test]
    fn nothing_is_mixed_up_with_something_else() {
        let refused = |change: &dyn Fn(&mut Known)| {
            let mut known = known();
            change(&mut known);
            planned(known, Kind::Handover, &[]).unwrap_err()
        };
        let under_way = |text: &str| vec![Refusal::UnderWay(text.to_owned())];
        assert_eq!(
            refused(&|it| it.sessions[1].session.state =
                SessionState::Live { accused_by: Some(node(3)) }),
            under_way("node-2 is accused by node-3")
        );
        assert_eq!(
            refused(&|it| it.sessions[1].silence = Some(Duration::from_secs(5))),
            under_way("another drill has node-2 fall silent")
        );
        assert_eq!(
            refused(&|it| it.locks[1].lock.move_to = Some(node(2))),
            under_way("192.168.0.241 is asked to move to node-2")
        );
        let gone = Some(Holder { node: node(2), epoch: Epoch(0) });
        assert_eq!(
            refused(&|it| it.locks[1].lock.holder = gone.clone()),
            under_way("192.168.0.241 is being taken over from node-2")
        );
        assert_eq!(
            refused(&|it| it.locks[0].lock.holder = gone.clone()),
            [Refusal::NotAnnounced(address(240))]
        );
        assert_eq!(
            refused(&|it| {
                it.locks.remove(0);
            }),
            [Refusal::NoAddress("shop/web".to_owned())]
        );
    }

    #[test]
    fn a_silence_that_nobody_hears_is_not_rehearsed() {
        let mut known = known();
        known.sessions.iter_mut().for_each(|it| it.session.hears = Some(BTreeSet::new()));
        let refusals = planned(known, Kind::Silence, &[]).unwrap_err();
        assert_eq!(refusals, [Refusal::Unheard(node(1))]);
    }

    #[test]
    fn nothing_is_written_on_a_session_of_a_newer_release() {
        let planned_as = |kind| {
            let mut known = known();
            known.sessions[0].newer = Some("2".to_owned());
            planned(known, kind, &[])
        };
        assert_eq!(planned_as(Kind::Silence).unwrap_err(), [Refusal::Newer(node(1))]);
        assert!(planned_as(Kind::Handover).is_ok(), "that writes on the lock");
    }

    #[test]
    fn other_nodes_may_ask_meanwhile() {
        let plan = planned(known(), Kind::Handover, &[]).unwrap();
        let askers = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
            plan.askers(&known(), &names)
        };
        let asker = |number| Asker { node: node(number), pod: format!("speaker-{number}") };
        assert_eq!(askers(&["node-3", "node-2"]), Ok(vec![asker(3), asker(2)]));
        assert_eq!(askers(&[]), Ok(vec![]));
        assert_eq!(askers(&["node-1"]), Err(Refusal::AsksItself(node(1))));
        assert_eq!(askers(&["node-9"]), Err(Refusal::CannotAsk(node(9))));
    }

    #[test]
    fn nobody_asks_where_a_port_may_be_closed_for_its_arp_frames() {
        let plan = planned(known(), Kind::Handover, &[]).unwrap();
        let mut sparse = known();
        sparse.sessions[2].paths = [(node(1), "sparse (fixed)".to_owned())].into();
        assert_eq!(plan.askers(&sparse, &["node-2".to_owned()]), Err(Refusal::Sparse));
        assert_eq!(plan.askers(&sparse, &[]), Ok(vec![]));
        let ended = SessionState::Ended { by: node(3), reason: EndReason::Stopped };
        sparse.sessions[2].session.state = ended;
        let askers = plan.askers(&sparse, &["node-2".to_owned()]);
        assert_eq!(
            askers.map(|it| it.len()),
            Ok(1),
            "what a node did that is gone counts for nothing"
        );
    }

    #[test]
    fn a_cordoned_node_comes_last() {
        let mut known = known();
        known.census.add_node(node(2), NodeFacts { cordoned: true, ..NodeFacts::default() });
        let plan = planned(known, Kind::Handover, &[]).unwrap();
        assert_eq!(plan.candidates, [node(3), node(2)]);
    }
}

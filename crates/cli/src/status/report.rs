//! What is said about addresses and nodes. The names of the fields are part of the interface: `docs/user-guide.md` lists them.

use std::net::IpAddr;

use arpeggio_api::{
    forwarder::{Forwarder, ForwarderRecord},
    lock::{LockRecord, ServiceRef},
    service::{ADDRESS_ALLOCATED, ADDRESS_NOT_ANNOUNCED, ANNOUNCED, ROUTED},
    session::{SessionRecord, mac_text},
};
use arpeggio_election::SessionState;
use arpeggio_forwarding::LeftOut;
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Service},
    apimachinery::pkg::apis::meta::v1::Condition,
    jiff::{SignedDuration, Timestamp},
};
use kube::ResourceExt as _;
use serde::Serialize;

use super::{ago, known::Status, section, selection::Selection};
use crate::{gaps::Gap, outcome::Format, paint, table};

/// Clocks of two machines may differ by some seconds.
const LATE: SignedDuration = SignedDuration::from_secs(30);

/// The columns of [`Address::cells`].
pub(crate) const ADDRESS_COLUMNS: [&str; 6] =
    ["ADDRESS", "POOL", "SERVICE", "NODE", "SINCE", "MOVES"];
const WIDE_ADDRESS_COLUMNS: [&str; 8] =
    ["ADDRESS", "POOL", "SERVICE", "NODE", "SINCE", "MOVES", "EPOCH", "PROBLEM"];
const NODE_COLUMNS: [&str; 7] =
    ["NODE", "SESSION", "EPOCH", "RENEWED", "ADDRESSES", "FOUND AT", "PROFILE"];
const WIDE_NODE_COLUMNS: [&str; 11] = [
    "NODE",
    "SESSION",
    "EPOCH",
    "RENEWED",
    "ADDRESSES",
    "FOUND AT",
    "PROFILE",
    "ANNOUNCES",
    "SPEAKER",
    "FORWARDER",
    "PROBLEM",
];

/// The whole of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) addresses: Vec<Address>,
    nodes: Vec<NodeRow>,
    /// Connections of addresses that have moved, where nodes have some left.
    left_behind: Vec<LeftBehind>,
    /// Services that have less than they ask for.
    waiting: Vec<Waiting>,
    /// Leases that are not understood.
    damaged: Vec<String>,
    /// What could not be read, and why.
    not_read: Vec<String>,
    #[serde(skip)]
    unknown: Unknown,
}

/// Which kinds could not be read.
#[derive(Debug, Default)]
struct Unknown {
    leases: bool,
    services: bool,
}

/// One address.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(clippy::struct_field_names, reason = "the address of an address")]
#[serde(rename_all = "camelCase")]
pub(super) struct Address {
    pub(super) address: IpAddr,
    pub(super) pool: Option<String>,
    /// `NAMESPACE/NAME`.
    pub(super) services: Vec<String>,
    /// The node that has it.
    pub(super) node: Option<String>,
    state: State,
    /// The session of the node under which it has it.
    epoch: Option<u64>,
    since: Option<Timestamp>,
    moves: Option<i32>,
    /// Where somebody asks that it be moved to.
    move_to: Option<String>,
    pub(super) problem: Option<String>,
}

/// Who answers for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum State {
    Announced,
    /// Its node is known, and has no ready pod, so that nobody announces it.
    NoReadyPod,
    /// The session of the node that has it does not count.
    HolderGone,
    Nobody,
    /// No node announces it, on purpose: a router has a route to it.
    Routed,
    /// No node may announce it.
    Nowhere,
    /// It was given back, and nobody gets it yet.
    Rests,
    /// The Leases could not be read.
    Unknown,
}

/// One node.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeRow {
    pub(super) node: String,
    /// `live`, `accused` or `ended`.
    session: &'static str,
    epoch: u64,
    /// The deputy that accuses it, or has ended it.
    by: Option<String>,
    /// Why it was ended.
    because: Option<&'static str>,
    renewed: Option<Timestamp>,
    found_at: Vec<FoundAt>,
    /// How others ask for it on the wire.
    profiles: Vec<String>,
    /// How many addresses it announces.
    announces: usize,
    /// The pod that renewed the session last.
    speaker: String,
    /// `able` or `unable`; absent: the node has no forwarder.
    forwarder: Option<&'static str>,
    pub(super) problem: Option<String>,
}

/// Where a node is found on the wire.
#[derive(Debug, Clone, Serialize)]
struct FoundAt {
    address: IpAddr,
    mac: String,
}

/// Connections that a node still has of an address that it has given away.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LeftBehind {
    pub(super) address: IpAddr,
    pub(super) node: String,
    connections: u32,
}

/// A Service that has less than it asks for.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Waiting {
    /// `NAMESPACE/NAME`.
    pub(super) service: String,
    reason: String,
    message: String,
}

impl Report {
    /// What follows from all that could be read.
    pub(super) fn of(status: &Status, services: &[Service], gaps: &[Gap], now: Timestamp) -> Self {
        let unknown = |resource| gaps.iter().any(|gap| gap.is_of(resource) && gap.is_whole());
        let unknown = Unknown { leases: unknown("leases"), services: unknown("services") };
        let addresses = if unknown.leases {
            services.iter().flat_map(told).collect()
        } else {
            status.locks().map(|record| Address::of(record, status)).collect()
        };
        let sessions = status.sessions.iter();
        Self {
            addresses,
            nodes: sessions.map(|(it, lease)| NodeRow::of(it, lease, status, now)).collect(),
            left_behind: LeftBehind::all(status),
            waiting: services.iter().filter_map(Waiting::of).collect(),
            damaged: status.damaged.iter().map(ToString::to_string).collect(),
            not_read: gaps.iter().map(ToString::to_string).collect(),
            unknown,
        }
    }

    /// What somebody wants to see of it.
    pub(super) fn only(mut self, selection: &Selection) -> Self {
        self.addresses.retain(|it| selection.has_address(it));
        self.nodes.retain(|it| selection.has_node(it));
        self.left_behind.retain(|it| selection.has_left_behind(it, &self.addresses));
        self.waiting.retain(|it| selection.has_waiting(it));
        self
    }

    /// Nothing at all could be read.
    pub(super) fn is_blank(&self) -> bool {
        self.unknown.leases && self.unknown.services
    }

    pub(super) fn to_text(&self, format: Format, selection: &Selection, now: Timestamp) -> String {
        let is_wide = selection.problems || format == Format::Wide;
        let mut parts = vec![self.addresses_text(is_wide, selection, now)];
        parts.push(self.nodes_text(is_wide, selection, now));
        if !self.left_behind.is_empty() {
            let rows: Vec<_> = self.left_behind.iter().map(LeftBehind::cells).collect();
            parts.push(table::render(["MOVED ADDRESS", "STILL ON", "CONNECTIONS"], &rows));
        }
        if !self.waiting.is_empty() {
            let rows: Vec<_> = self.waiting.iter().map(Waiting::cells).collect();
            parts.push(table::render(["WAITING SERVICE", "REASON", "MESSAGE"], &rows));
        }
        parts.extend(
            self.damaged
                .iter()
                .map(|it| format!("{}: {}\n", paint::warn("warning"), paint::one_line(it))),
        );
        if !self.not_read.is_empty() {
            let head = "What could not be read, so that the above may be incomplete:".to_owned();
            let lines = self.not_read.iter().map(|it| format!("  {}", paint::one_line(it)));
            parts.push([head].into_iter().chain(lines).collect::<Vec<_>>().join("\n") + "\n");
        }
        parts.retain(|part| !part.is_empty());
        parts.join("\n")
    }

    fn addresses_text(&self, is_wide: bool, selection: &Selection, now: Timestamp) -> String {
        let nothing = match selection {
            _ if self.unknown.leases => "who announces what is not known\n",
            Selection { problems: true, .. } => "no address has a problem\n",
            Selection { namespace: None, node: None, pool: None, .. } => {
                "no address is allocated\n"
            }
            _ => "no address is like that\n",
        };
        let rows = self.addresses.iter();
        if is_wide {
            let rows: Vec<_> = rows.map(|it| it.wide_cells(now)).collect();
            return section(nothing, WIDE_ADDRESS_COLUMNS, &rows);
        }
        section(nothing, ADDRESS_COLUMNS, &rows.map(|it| it.cells(now)).collect::<Vec<_>>())
    }

    fn nodes_text(&self, is_wide: bool, selection: &Selection, now: Timestamp) -> String {
        let nothing = match selection {
            _ if self.unknown.leases => "",
            Selection { problems: true, .. } => "no node has a problem\n",
            Selection { node: Some(_), .. } => "the node has no session\n",
            _ => "no speaker has started a session\n",
        };
        let rows = self.nodes.iter();
        if is_wide {
            let rows: Vec<_> = rows.map(|it| it.wide_cells(now)).collect();
            return section(nothing, WIDE_NODE_COLUMNS, &rows);
        }
        section(nothing, NODE_COLUMNS, &rows.map(|it| it.cells(now)).collect::<Vec<_>>())
    }
}

impl Address {
    pub(super) fn of(record: &LockRecord, status: &Status) -> Self {
        let holder = record.lock.holder.as_ref();
        let is_for_nobody = record.claim.terms.is_nowhere() && !record.rules_unknown;
        let state = match (holder, status.is_held(record)) {
            _ if record.rests => State::Rests,
            (_, false) if is_for_nobody && status.is_routed(record) => State::Routed,
            (_, false) if is_for_nobody => State::Nowhere,
            (None, _) => State::Nobody,
            (Some(_), false) => State::HolderGone,
            (Some(_), true) if record.lock.unannounced => State::NoReadyPod,
            (Some(_), true) => State::Announced,
        };
        let pool = &record.claim.pool;
        Self {
            address: record.lock.address,
            pool: (!pool.is_empty()).then(|| pool.clone()),
            services: record.claim.services.iter().map(ServiceRef::path).collect(),
            node: holder.map(|it| it.node.to_string()),
            state,
            epoch: holder.map(|it| it.epoch.0),
            since: record.since.as_ref().map(|time| time.0),
            moves: Some(record.moves),
            move_to: record.lock.move_to.as_ref().map(ToString::to_string),
            problem: problem(record, state, status),
        }
    }

    /// [`ADDRESS_COLUMNS`].
    pub(super) fn cells(&self, now: Timestamp) -> [String; 6] {
        [
            self.address.to_string(),
            self.pool.clone().unwrap_or_else(|| "-".to_owned()),
            self.services.join(","),
            self.holder(),
            ago(self.since, now),
            self.moves.map_or_else(|| "-".to_owned(), |it| it.to_string()),
        ]
    }

    fn wide_cells(&self, now: Timestamp) -> [String; 8] {
        let [address, pool, services, node, since, moves] = self.cells(now);
        let epoch = self.epoch.map_or_else(|| "-".to_owned(), |it| it.to_string());
        [address, pool, services, node, since, moves, epoch, or_dash(self.problem.as_deref())]
    }

    fn holder(&self) -> String {
        let node = self.node.clone().unwrap_or_default();
        match self.state {
            State::Announced => node,
            State::NoReadyPod => paint::warn(&format!("{node} (no ready pod)")),
            State::HolderGone => paint::bad(&format!("{node} (gone)")),
            State::Nobody => paint::warn("(nobody yet)"),
            State::Routed => "(routed)".to_owned(),
            State::Nowhere => paint::warn("(nowhere)"),
            State::Rests => "(rests)".to_owned(),
            State::Unknown => "(not known)".to_owned(),
        }
    }
}

/// What is not as it should be.
fn problem(record: &LockRecord, state: State, status: &Status) -> Option<String> {
    if let Some(mac) = record.stranger() {
        return Some(format!("another machine answers at it: {mac}"));
    }
    if record.newer.is_some() {
        return Some("its Lease is written in the format of a newer release".to_owned());
    }
    if record.rules_unknown {
        return Some("the rules on its Lease are damaged".to_owned());
    }
    match state {
        State::Nobody => Some("nobody announces it".to_owned()),
        State::Routed => None,
        State::Nowhere => Some("no announce rule of its pool is for it".to_owned()),
        State::HolderGone => Some("the session of its node does not count".to_owned()),
        State::NoReadyPod => Some("no pod of the Service is ready".to_owned()),
        State::Announced | State::Rests | State::Unknown => {
            let refused = record.move_refused.as_ref();
            let refused = refused.map(|it| format!("it was not moved as somebody asked: {it}"));
            refused.or_else(|| {
                let why = status.why_one_node(record).filter(|_| state == State::Announced)?;
                Some(format!("one node serves it, though all are to: {why}"))
            })
        }
    }
}

/// Whether the controller says that a router has a route to the Service's addresses, and of none that it should be announced.
pub(super) fn is_routed(service: &Service) -> bool {
    let is_lost = condition(service, ADDRESS_NOT_ANNOUNCED).is_some_and(|it| it.status == "True");
    condition(service, ANNOUNCED).is_some_and(|it| it.reason == ROUTED) && !is_lost
}

/// What a Service's own status says, for those who may read nothing else.
fn told(service: &Service) -> Vec<Address> {
    if condition(service, ADDRESS_ALLOCATED).is_none() {
        return Vec::new();
    }
    let announced = condition(service, ANNOUNCED).filter(|it| it.status == "False");
    let problem = announced.filter(|_| !is_routed(service)).map(|it| it.message.clone());
    let balancer = service.status.as_ref().and_then(|it| it.load_balancer.as_ref());
    let ingress = balancer.and_then(|it| it.ingress.as_deref()).unwrap_or_default();
    let addresses = ingress.iter().filter_map(|it| it.ip.as_deref()?.parse().ok());
    let row = |address| Address {
        address,
        pool: None,
        services: vec![path(service)],
        node: None,
        state: State::Unknown,
        epoch: None,
        since: None,
        moves: None,
        move_to: None,
        problem: problem.clone(),
    };
    addresses.map(row).collect()
}

fn condition<'a>(service: &'a Service, kind: &str) -> Option<&'a Condition> {
    let conditions = service.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn path(service: &Service) -> String {
    format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any())
}

impl LeftBehind {
    /// Of nodes that live, and whose forwarders go on counting: the connections of others are gone with them.
    fn all(status: &Status) -> Vec<Self> {
        let live = |it: &&ForwarderRecord| status.is_live(&it.node) && !status.is_stale(it);
        let of = |it: &ForwarderRecord| {
            let node = it.node.to_string();
            let row = |(address, connections)| Self { address, node: node.clone(), connections };
            it.left_behind().map(row).collect::<Vec<_>>()
        };
        let mut all: Vec<Self> = status.forwarders.iter().filter(live).flat_map(of).collect();
        all.sort_by(|one, other| (one.address, &one.node).cmp(&(other.address, &other.node)));
        all
    }

    fn cells(&self) -> [String; 3] {
        [self.address.to_string(), self.node.clone(), self.connections.to_string()]
    }
}

impl Waiting {
    fn of(service: &Service) -> Option<Self> {
        let refusal = condition(service, ADDRESS_ALLOCATED).filter(|it| it.status == "False")?;
        let (reason, message) = (refusal.reason.clone(), refusal.message.clone());
        Some(Self { service: path(service), reason, message })
    }

    fn cells(&self) -> [String; 3] {
        [self.service.clone(), paint::warn(&self.reason), self.message.clone()]
    }
}

impl NodeRow {
    fn of(record: &SessionRecord, lease: &Lease, status: &Status, now: Timestamp) -> Self {
        let session = &record.session;
        let (state, by, because) = match &session.state {
            SessionState::Live { accused_by: None } => ("live", None, None),
            SessionState::Live { accused_by: Some(by) } => ("accused", Some(by), None),
            SessionState::Ended { by, reason } => ("ended", Some(by), Some(reason.as_str())),
        };
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
        let found_at = |link: &arpeggio_api::session::LinkAddress| FoundAt {
            address: link.address,
            mac: mac_text(link.mac),
        };
        let forwarder = status.forwarder(&session.node);
        let is_stale = status.is_stale_on(&session.node);
        let able =
            |it: &Forwarder| if it.unable.is_none() && !is_stale { "able" } else { "unable" };
        let mut row = Self {
            node: session.node.to_string(),
            session: state,
            epoch: session.epoch.0,
            by: by.map(ToString::to_string),
            because,
            renewed: renewed.map(|time| time.0),
            found_at: record.links.iter().map(found_at).collect(),
            profiles: status.profiles(&session.node).into_iter().map(str::to_owned).collect(),
            announces: status.addresses_on(&session.node),
            speaker: record.instance.clone(),
            forwarder: forwarder.map(able),
            problem: None,
        };
        let flaw = row.flaw(session.lasts.and_then(|it| it.try_into().ok()), now);
        let dead =
            || (forwarder.is_some() && is_stale).then(|| LeftOut::ForwarderStale.to_string());
        let unable = || Some(format!("nothing is passed on: {}", forwarder?.unable.as_ref()?));
        let without = || {
            let lacks = forwarder.is_none() && status.has_forwarders();
            let note = "it has no forwarder, and others have: moves to it reset connections";
            lacks.then(|| note.to_owned())
        };
        row.problem = flaw.or_else(dead).or_else(unable).or_else(without);
        row
    }

    fn flaw(&self, lasts: Option<SignedDuration>, now: Timestamp) -> Option<String> {
        if self.session != "live" {
            return Some(format!("its session is {}", self.state()));
        }
        let age = now.duration_since(self.renewed?);
        (age > lasts? + LATE).then(|| format!("not renewed for {}", ago(self.renewed, now)))
    }

    fn state(&self) -> String {
        let by = self.by.as_deref().unwrap_or_default();
        match self.because {
            Some(reason) => format!("ended by {by}: {reason}"),
            None if self.session == "accused" => format!("accused by {by}"),
            None => self.session.to_owned(),
        }
    }

    fn cells(&self, now: Timestamp) -> [String; 7] {
        let state = match self.session {
            "live" => paint::good("live"),
            "accused" => paint::warn(&self.state()),
            _ => paint::bad(&self.state()),
        };
        let joined = |part: fn(&FoundAt) -> String| {
            self.found_at.iter().map(part).collect::<Vec<_>>().join(",")
        };
        [
            self.node.clone(),
            state,
            self.epoch.to_string(),
            ago(self.renewed, now),
            joined(|it| it.address.to_string()),
            joined(|it| it.mac.clone()),
            or_dash(Some(self.profiles.join(", ")).filter(|it| !it.is_empty()).as_deref()),
        ]
    }

    fn wide_cells(&self, now: Timestamp) -> [String; 11] {
        let [node, session, epoch, renewed, addresses, found_at, profile] = self.cells(now);
        let (announces, speaker) = (self.announces.to_string(), self.speaker.clone());
        let (forwarder, problem) = (or_dash(self.forwarder), or_dash(self.problem.as_deref()));
        [
            node, session, epoch, renewed, addresses, found_at, profile, announces, speaker,
            forwarder, problem,
        ]
    }
}

fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use arpeggio_api::{
        forwarder::Forwarder,
        lock::Claim,
        session::{LinkAddress, OwnSession, Whereabouts},
        terms::WrittenAnnounceTerms,
    };
    use arpeggio_election::{Epoch, Node};
    use arpeggio_runtime::wall_clock;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use serde_json::json;

    use super::*;
    use crate::gaps::Reading;

    fn report(leases: &[Lease], services: &[Service], gaps: &[Gap]) -> Report {
        Report::of(&Status::of(leases).told_by(services), services, gaps, wall_clock::now())
    }

    fn text(leases: &[Lease]) -> String {
        shown(&report(leases, &[], &[]), Format::Table, &Selection::default())
    }

    fn shown(report: &Report, format: Format, selection: &Selection) -> String {
        paint::plain(&report.to_text(format, selection, wall_clock::now()))
    }

    fn own_session(node: &str, whereabouts: Whereabouts) -> OwnSession {
        OwnSession {
            node: node.into(),
            instance: "speaker-x7".into(),
            duration: Duration::from_secs(10),
            whereabouts,
            hears: BTreeSet::new(),
        }
    }

    fn session_of(node: &str, started: Timestamp) -> Lease {
        let link = LinkAddress { address: [192, 168, 0, 11].into(), mac: [2, 0, 0, 0, 0, 11] };
        let whereabouts = Whereabouts { links: vec![link], ..Whereabouts::default() };
        let own = own_session(node, whereabouts);
        versioned(own.created(Epoch(4), MicroTime(started)))
    }

    fn lock_held_by(node: Option<&str>) -> Lease {
        let service =
            ServiceRef { namespace: "default".into(), name: "web".into(), uid: "u".into() };
        let claim = Claim {
            address: [192, 168, 0, 240].into(),
            pool: "home".into(),
            services: vec![service],
            terms: WrittenAnnounceTerms::default(),
            spread: false,
        };
        let mut lease = versioned(claim.created());
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = node.map(str::to_owned);
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert("arpeggio.dev/session".into(), "4".into());
        lease
    }

    fn versioned(mut lease: Lease) -> Lease {
        lease.metadata.resource_version = Some("1".into());
        lease
    }

    /// It has seven connections of an address that moved, and none of another one.
    fn forwarder_of(node: &str, unable: Option<&str>) -> Lease {
        let connections = [(241, 7), (242, 0)];
        let connections = connections.map(|(last, count)| ([192, 168, 0, last].into(), count));
        let connections = Some(connections.into());
        let (instance, unable) = ("speaker-x7".to_owned(), unable.map(str::to_owned));
        let says = Forwarder { instance, connections, unable, ..Forwarder::default() };
        versioned(says.created(&node.into(), MicroTime(wall_clock::now())))
    }

    /// One that waits, and has an address from before.
    fn waiting() -> Service {
        let condition = |kind: &str, reason: &str, message: &str| {
            json!({
                "type": kind, "status": "False", "reason": reason, "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        };
        serde_json::from_value(json!({
            "metadata": { "namespace": "shop", "name": "web" },
            "status": {
                "loadBalancer": { "ingress": [{ "ip": "192.168.0.241" }] },
                "conditions": [
                    condition(ADDRESS_ALLOCATED, "AllocationFailed", "pool home is full"),
                    condition(ANNOUNCED, "NotAnnounced", "nobody announces 192.168.0.241"),
                ],
            },
        }))
        .unwrap()
    }

    #[test]
    fn how_a_node_is_asked_is_shown_with_the_node() {
        let now = wall_clock::now();
        let asks = |node: &str, paths: &[(&str, &str)]| {
            let paths = paths.iter().map(|(node, text)| (Node::from(*node), (*text).to_owned()));
            let whereabouts = Whereabouts { paths: paths.collect(), ..Whereabouts::default() };
            versioned(own_session(node, whereabouts).created(Epoch(1), MicroTime(now)))
        };
        let leases = [
            asks("node-1", &[("node-2", "fast"), ("node-3", "patient (wireless)")]),
            asks("node-2", &[("node-3", "patient (wireless)"), ("node-1", "fast")]),
            asks("node-3", &[("node-1", "standard (new)")]),
        ];
        let text = text(&leases);
        let row = |node: &str| text.lines().find(|line| line.starts_with(node)).unwrap().trim_end();
        assert!(row("node-1").ends_with("fast, standard (new)"), "{text}");
        assert!(row("node-2").ends_with(" fast"), "{text}");
        assert!(row("node-3").ends_with(" patient (wireless)"), "{text}");
    }

    #[test]
    fn owners_and_sessions_are_shown() {
        let leases = [session_of("node-1", wall_clock::now()), lock_held_by(Some("node-1"))];
        let text = text(&leases);
        assert!(text.contains("192.168.0.240   home   default/web   node-1   -"), "{text}");
        assert!(text.contains("node-1   live      4       0s"), "{text}");
        assert!(text.contains("02:00:00:00:00:0b"), "{text}");
        let wide = shown(&report(&leases, &[], &[]), Format::Wide, &Selection::default());
        assert!(wide.contains("speaker-x7"), "{wide}");
    }

    #[test]
    fn connections_that_nodes_still_have_are_shown_for_as_long_as_the_nodes_live() {
        let session = session_of("node-1", wall_clock::now());
        let leases = [session, forwarder_of("node-1", None), forwarder_of("node-2", None)];
        let text = text(&leases);
        let expected = "MOVED ADDRESS   STILL ON   CONNECTIONS\n192.168.0.241   node-1     7\n";
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("node-2") && !text.contains("192.168.0.242"), "{text}");
        let selection = Selection { node: Some("node-2".to_owned()), ..Selection::default() };
        let none = report(&leases, &[], &[]).only(&selection);
        assert!(none.left_behind.is_empty());
    }

    #[test]
    fn what_a_forwarder_that_was_killed_has_counted_is_shown_no_more() {
        let shown = |minutes| {
            let now = wall_clock::now() + SignedDuration::from_mins(minutes);
            let leases = [session_of("node-1", now), forwarder_of("node-1", None)];
            report(&leases, &[], &[]).left_behind.len()
        };
        assert_eq!([0, 2, 4].map(shown), [1, 1, 0]);
    }

    /// What others say of it does not count either: its node alone could spread.
    #[test]
    fn a_forwarder_that_does_not_renew_its_lease_is_not_able() {
        let told = |minutes| {
            let now = wall_clock::now() + SignedDuration::from_mins(minutes);
            let mut lock = lock_held_by(Some("node-1"));
            let annotations = lock.metadata.annotations.as_mut().unwrap();
            annotations.insert("arpeggio.dev/spread".into(), "nodes".into());
            let leases = [session_of("node-1", now), forwarder_of("node-1", None), lock];
            let mut report = report(&leases, &[], &[]);
            let node = report.nodes.remove(0);
            let is_said = node.problem.is_some_and(|it| it.contains("not renewed its Lease"));
            (node.forwarder, is_said, report.addresses.remove(0).problem.is_some())
        };
        assert_eq!(told(2), (Some("able"), false, false));
        assert_eq!(told(4), (Some("unable"), true, true));
    }

    #[test]
    fn an_address_that_one_node_serves_though_all_are_to_says_why() {
        let problem = |said: Option<&str>, spread: bool| {
            let mut lock = lock_held_by(Some("node-1"));
            if spread {
                let annotations = lock.metadata.annotations.as_mut().unwrap();
                annotations.insert("arpeggio.dev/spread".into(), "nodes".into());
            }
            let mut leases = vec![session_of("node-1", wall_clock::now()), lock];
            leases.extend(said.map(|why| {
                let not_spread = [([192, 168, 0, 240].into(), why.to_owned())];
                let not_spread = not_spread.into_iter().filter(|(_, why)| !why.is_empty());
                let says = Forwarder {
                    instance: "speaker-x7".into(),
                    not_spread: not_spread.collect(),
                    ..Forwarder::default()
                };
                versioned(says.created(&"node-1".into(), MicroTime(wall_clock::now())))
            }));
            let report = report(&leases, &[], &[]);
            report.addresses[0].problem.clone()
        };
        let says = |why| Some(format!("one node serves it, though all are to: {why}"));
        assert_eq!(problem(None, true), says("no node has a forwarder: install it"));
        let why = "no other node can serve it (node-2: it is cordoned)";
        assert_eq!(problem(Some(why), true), says(why));
        assert_eq!(problem(Some(""), true), None, "all that can serve it");
        assert_eq!(problem(None, false), None);
    }

    #[test]
    fn a_node_that_can_pass_nothing_on_says_why() {
        let leases =
            [session_of("node-1", wall_clock::now()), forwarder_of("node-1", Some("no nf_tables"))];
        let selection = Selection { problems: true, ..Selection::default() };
        let text = shown(&report(&leases, &[], &[]).only(&selection), Format::Table, &selection);
        assert!(text.contains("unable      nothing is passed on: no nf_tables"), "{text}");
    }

    #[test]
    fn a_node_without_a_forwarder_says_so_where_others_have_one() {
        let sessions = || ["node-1", "node-2"].map(|node| session_of(node, wall_clock::now()));
        let selection = Selection { problems: true, ..Selection::default() };
        let problems = |leases: &[Lease]| {
            shown(&report(leases, &[], &[]).only(&selection), Format::Table, &selection)
        };
        let mut leases = sessions().to_vec();
        assert!(problems(&leases).contains("no node has a problem"));
        leases.push(forwarder_of("node-1", None));
        let text = problems(&leases);
        let problem = "it has no forwarder, and others have";
        assert_eq!(text.matches(problem).count(), 1, "{text}");
        assert!(text.lines().any(|it| it.starts_with("node-2") && it.contains(problem)), "{text}");
    }

    #[test]
    fn a_holder_without_a_session_is_gone() {
        assert!(text(&[lock_held_by(Some("node-2"))]).contains("node-2 (gone)"));
        assert!(text(&[lock_held_by(None)]).contains("(nobody yet)"));
    }

    /// A lock of a pool whose addresses no node announces.
    fn lock_for_nobody() -> Lease {
        let mut lease = lock_held_by(None);
        let annotations = lease.metadata.annotations.get_or_insert_default();
        let terms = WrittenAnnounceTerms::nowhere().to_text().unwrap();
        annotations.insert("arpeggio.dev/announce".into(), terms);
        lease
    }

    /// The Service of [`lock_held_by`], with these conditions: type, status and reason.
    fn said(conditions: &[[&str; 3]]) -> Service {
        let condition = |[kind, status, reason]: &[&str; 3]| {
            json!({
                "type": kind, "status": status, "reason": reason, "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        };
        let conditions: Vec<_> = conditions.iter().map(condition).collect();
        serde_json::from_value(json!({
            "metadata": { "namespace": "default", "name": "web", "uid": "u" },
            "status": { "conditions": conditions },
        }))
        .unwrap()
    }

    #[test]
    fn an_address_that_a_router_has_a_route_to_has_no_problem() {
        let routed = [ANNOUNCED, "False", "Routed"];
        let silent = [ANNOUNCED, "False", "NotAnnounced"];
        let unadvertised = [ADDRESS_NOT_ANNOUNCED, "True", "NotAdvertised"];
        let nowhere = Some("no announce rule of its pool is for it");
        let table = [
            (vec![routed], "(routed)", None),
            (vec![silent, unadvertised], "(nowhere)", nowhere),
            (vec![routed, unadvertised], "(nowhere)", nowhere),
            (vec![], "(nowhere)", nowhere),
        ];
        for (conditions, shown_as, problem) in table {
            let report = report(&[lock_for_nobody()], &[said(&conditions)], &[]);
            let text = shown(&report, Format::Table, &Selection::default());
            assert!(text.contains(shown_as), "{conditions:?}: {text}");
            assert_eq!(report.addresses[0].problem.as_deref(), problem, "{conditions:?}");
        }
        let waits = report(&[lock_held_by(None)], &[said(&[routed])], &[]);
        assert_eq!(waits.addresses[0].problem.as_deref(), Some("nobody announces it"));
    }

    #[test]
    fn nothing_at_all_is_said_in_words() {
        assert_eq!(text(&[]), "no address is allocated\n\nno speaker has started a session\n");
    }

    #[test]
    fn only_what_somebody_asks_for_is_shown() {
        let now = wall_clock::now();
        let leases =
            [session_of("node-1", now), session_of("node-2", now), lock_held_by(Some("node-1"))];
        let counts = |selection: Selection| {
            let report = report(&leases, &[waiting()], &[]).only(&selection);
            (report.addresses.len(), report.nodes.len(), report.waiting.len())
        };
        let of = |text: &str| Some(text.to_owned());
        let all = Selection::default;
        assert_eq!(counts(all()), (1, 2, 1));
        assert_eq!(counts(Selection { namespace: of("default"), ..all() }), (1, 2, 0));
        assert_eq!(counts(Selection { namespace: of("shop"), ..all() }), (0, 2, 1));
        assert_eq!(counts(Selection { node: of("node-2"), ..all() }), (0, 1, 0));
        assert_eq!(counts(Selection { pool: of("home"), ..all() }), (1, 2, 0));
        assert_eq!(counts(Selection { problems: true, ..all() }), (0, 0, 1));
    }

    #[test]
    fn problems_are_told_with_what_they_are() {
        let old = wall_clock::now() - SignedDuration::from_mins(5);
        let leases = [session_of("node-1", old), lock_held_by(Some("node-2"))];
        let selection = Selection { problems: true, ..Selection::default() };
        let text = shown(&report(&leases, &[], &[]).only(&selection), Format::Table, &selection);
        assert!(text.contains("the session of its node does not count"), "{text}");
        assert!(text.contains("not renewed for 5m"), "{text}");
    }

    #[test]
    fn without_leases_the_services_still_speak() {
        let gap = Gap::Forbidden(Reading::of::<Lease>(Some("arpeggio-system")));
        let report = report(&[], &[waiting()], &[gap]);
        assert!(!report.is_blank());
        let text = shown(&report, Format::Table, &Selection::default());
        assert!(text.contains("192.168.0.241   -      shop/web   (not known)"), "{text}");
        assert!(text.contains("shop/web          AllocationFailed   pool home is full"), "{text}");
        assert!(text.contains("leases (API group \"coordination.k8s.io\""), "{text}");
    }

    /// Programs rely on these names.
    #[test]
    fn the_names_of_fields_stay() {
        let time: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let leases = [
            session_of("node-1", time),
            lock_held_by(Some("node-1")),
            forwarder_of("node-1", None),
        ];
        let report = Report::of(&Status::of(&leases), &[waiting()], &[], time);
        let expected = json!({
            "addresses": [{
                "address": "192.168.0.240", "pool": "home", "services": ["default/web"],
                "node": "node-1", "state": "announced", "epoch": 4, "since": null, "moves": 0,
                "moveTo": null, "problem": null,
            }],
            "nodes": [{
                "node": "node-1", "session": "live", "epoch": 4, "by": null, "because": null,
                "renewed": "2026-01-01T00:00:00Z",
                "foundAt": [{ "address": "192.168.0.11", "mac": "02:00:00:00:00:0b" }],
                "profiles": [], "announces": 1, "speaker": "speaker-x7", "forwarder": "able", "problem": null,
            }],
            "leftBehind": [{ "address": "192.168.0.241", "node": "node-1", "connections": 7 }],
            "waiting": [{
                "service": "shop/web", "reason": "AllocationFailed", "message": "pool home is full",
            }],
            "damaged": [],
            "notRead": [],
        });
        assert_eq!(serde_json::to_value(&report).unwrap(), expected);
    }
}

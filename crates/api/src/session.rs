//! The session Lease: `session-<node>`.
//!
//! | field | meaning |
//! |---|---|
//! | `spec.holderIdentity` | the node while the session counts, empty when it was ended |
//! | `spec.leaseTransitions` | the session's epoch: how many sessions the node has had |
//! | `spec.leaseDurationSeconds` | how long the session counts after a renewal was seen |
//! | `spec.renewTime` | changes with each renewal, and with nothing else; speakers judge by when they saw it change, not by the time that it names |
//! | annotation `arpeggio.dev/instance` | which of the node's processes wrote last; during an upgrade there are two |
//! | annotation `arpeggio.dev/link-addresses` | `ADDRESS=MAC,...`: where the node is found on the wire |
//! | annotation `arpeggio.dev/interfaces` | the interfaces that lead to neighbours, with subnets and gateways, as JSON; those that cannot announce now are `cutOff`, unless for the families that `usable` says; `ranks` says for each subnet how many others are rather used for it |
//! | annotation `arpeggio.dev/own-addresses` | `ADDRESS,...`: the node's own addresses that `interfaces` does not name, on whatever interface; Services' are not among them |
//! | annotation `arpeggio.dev/hears` | `NODE,...`: the nodes that this one watches and hears on the wire, so that it could confirm their silence; `NODE@SUBNET`: a node that it hears in this subnet, where earlier releases see one that does not exist |
//! | annotation `arpeggio.dev/paths` | `NODE=PROFILE,...`: how the nodes are asked that this one asks on the wire, and why; for people |
//! | annotation `arpeggio.dev/rehearsed-silence` | `EPOCH/SECONDS`: somebody rehearses the node's silence. Its speaker does nothing for so long after it has seen this, and others do not hear the node; a renewal removes it |
//! | annotation `arpeggio.dev/accused-by` | the deputy that no longer hears the node |
//! | annotations `arpeggio.dev/ended-by`, `ended-because` | who ended the session, and why |

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    ops::RangeInclusive,
    time::Duration,
};

use arpeggio_election::{
    EndReason, Epoch, Interface, Node, Pattern, Reach, Session, SessionState, Version, own_address,
};
use ipnet::IpNet;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use serde_json::{Value, json};

use crate::{
    lease::{self, Kind, LeaseError},
    reach,
};

const PREFIX: &str = "session-";
const SILENCE: &str = "arpeggio.dev/rehearsed-silence";
const ACCUSED_BY: &str = "arpeggio.dev/accused-by";
const ENDED_BY: &str = "arpeggio.dev/ended-by";
const ENDED_BECAUSE: &str = "arpeggio.dev/ended-because";
const HEARS: &str = "arpeggio.dev/hears";
const INSTANCE: &str = "arpeggio.dev/instance";
const INTERFACES: &str = "arpeggio.dev/interfaces";
const LINK_ADDRESSES: &str = "arpeggio.dev/link-addresses";
const PATHS: &str = "arpeggio.dev/paths";
const OWN_ADDRESSES: &str = "arpeggio.dev/own-addresses";

/// Between a node and the subnet in which it is heard. No node has it in its name.
const BY_SUBNET: char = '@';

/// A session says of at most so many nodes in which subnet they are heard, so that it stays small. Who hears one hears.
const MOST_HEARD: usize = 32;

/// A session names at most this many of its node's own addresses, so that it stays small. A node may have more (the virtual
/// addresses of a keepalived, say): which of them it names, [`named_addresses`] decides.
const MOST_OWN_ADDRESSES: usize = 64;

/// How many seconds of silence can be rehearsed. A shorter one would not be long enough for a speaker to make sure, when it
/// goes on, of what has happened meanwhile; of a longer one nobody would learn more.
pub const SILENCES: RangeInclusive<u64> = 3..=30;

/// Where a node is found on the wire: one of its own addresses and the MAC address of the interface that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkAddress {
    /// An address that the node's kernel answers for.
    pub address: IpAddr,
    /// The interface's MAC address, EUI-48.
    pub mac: [u8; 6],
}

/// The nodes that one hears, and the subnets in which it hears them.
pub type HeardOn = BTreeMap<Node, BTreeSet<IpNet>>;

/// A session Lease, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// The part that ownership is decided with.
    pub session: Session,
    /// Its format, when only a newer release understands it: then its node lives as long as it changes, and nobody else
    /// writes on it.
    pub newer: Option<String>,
    /// Which of the node's processes renewed it last; empty when it does not say.
    pub instance: String,
    /// Where the node is found on the wire.
    pub links: Vec<LinkAddress>,
    /// The node's own addresses, apart from those that its interfaces say. `None`: it does not say, or not in a way that
    /// is understood.
    pub own: Option<BTreeSet<IpAddr>>,
    /// How it asks others on the wire, for people.
    pub paths: BTreeMap<Node, String>,
    /// Whom it hears where.
    pub heard_on: HeardOn,
    /// For how long somebody rehearses its silence. `None`: nobody does, or what stands there is of another session, or is
    /// no time in [`SILENCES`].
    pub silence: Option<Duration>,
}

/// Where one node announces, as its session says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// The interfaces that lead to its neighbours.
    pub reach: Reach,
    /// Their MAC addresses, by the node's own addresses on them.
    pub links: Vec<LinkAddress>,
    /// How it asks other nodes on the wire, for people.
    pub paths: BTreeMap<Node, String>,
    /// Whom it hears where.
    pub heard_on: HeardOn,
    /// The node's own addresses. A session names those that `reach` does not say, and no more than 64.
    pub own: BTreeSet<IpAddr>,
}

/// The addresses of `own` that a session names: those that its interfaces do not say already, and of too many first those that
/// are `wanted`, which Services have a lock for. So whoever gives an address of a node learns that it is one.
pub fn named_addresses(
    own: &BTreeSet<IpAddr>,
    reach: &Reach,
    wanted: impl Fn(&IpAddr) -> bool,
) -> BTreeSet<IpAddr> {
    let said: BTreeSet<IpAddr> =
        reach.interfaces.iter().flat_map(|it| &it.subnets).filter_map(own_address).collect();
    let (wanted, others): (Vec<IpAddr>, Vec<IpAddr>) =
        own.difference(&said).partition(|address| wanted(address));
    wanted.into_iter().chain(others).take(MOST_OWN_ADDRESSES).collect()
}

impl Whereabouts {
    /// The interface on which the node announces `address`, and its MAC address, for people. `patterns`: those of the
    /// rules for the address.
    pub fn place(&self, address: IpAddr, patterns: &[Pattern]) -> Option<String> {
        let places = self.reach.announcing(address, patterns).into_iter();
        let texts: Vec<String> = places.map(|interface| self.described(interface)).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    fn described(&self, interface: &Interface) -> String {
        let is_on = |link: &&LinkAddress| {
            interface.subnets.iter().any(|subnet| subnet.addr() == link.address)
        };
        match self.links.iter().find(is_on) {
            Some(link) => format!("{}, {}", interface.name, mac_text(link.mac)),
            None => interface.name.clone(),
        }
    }
}

/// What a speaker writes about its own session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnSession {
    /// This node.
    pub node: Node,
    /// This process, among those of this node: its pod's name.
    pub instance: String,
    /// How long the session counts after a renewal; shown in whole seconds.
    pub duration: Duration,
    /// Where this node is found on the wire, and announces.
    pub whereabouts: Whereabouts,
    /// The nodes that it watches and hears.
    pub hears: BTreeSet<Node>,
}

/// The name of a node's session Lease.
pub fn name(node: &Node) -> String {
    format!("{PREFIX}{node}")
}

/// Reads a session Lease.
///
/// # Errors
/// When it was not written by a speaker, or was damaged by hand.
pub fn parse(lease: &Lease) -> Result<SessionRecord, LeaseError> {
    let name = lease.metadata.name.as_deref().unwrap_or_default();
    let node =
        node_of(name).ok_or_else(|| LeaseError::new(lease, "its name is not session-NODE"))?;
    let spec = lease.spec.as_ref();
    let epoch = spec.and_then(|spec| spec.lease_transitions).unwrap_or_default();
    let epoch = u64::try_from(epoch)
        .map_err(|_| LeaseError::new(lease, format!("leaseTransitions {epoch} is negative")))?;
    let newer = lease::newer_format(lease).map(str::to_owned);
    let session = Session {
        node,
        epoch: Epoch(epoch),
        state: if newer.is_some() { LIVE } else { state(lease) },
        reach: lease::annotation(lease, INTERFACES).and_then(reach::from_text),
        hears: hears(lease),
        lasts: lasts(lease),
        renewal: lease::renewal(lease),
        version: lease::version(lease)?,
    };
    let instance = lease::annotation(lease, INSTANCE).unwrap_or_default().to_owned();
    let (links, own, paths) = (links(lease), own_addresses(lease), paths(lease));
    let (heard_on, silence) = (heard_on(lease), silence(lease, session.epoch));
    Ok(SessionRecord { session, newer, instance, links, own, paths, heard_on, silence })
}

/// The node whose session Lease has this name.
pub fn node_of(name: &str) -> Option<Node> {
    name.strip_prefix(PREFIX).filter(|node| !node.is_empty()).map(Node::from)
}

/// Of a newer release's session.
const LIVE: SessionState = SessionState::Live { accused_by: None };

/// What is not a time that a session can last says nothing.
fn lasts(lease: &Lease) -> Option<Duration> {
    let seconds = lease.spec.as_ref()?.lease_duration_seconds?;
    u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

fn state(lease: &Lease) -> SessionState {
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
    if holder.is_some_and(|holder| !holder.is_empty()) {
        return SessionState::Live {
            accused_by: lease::annotation(lease, ACCUSED_BY).map(Node::from),
        };
    }
    // Without its marks it was ended by hand, which is as good as an expiry.
    let reason = lease::annotation(lease, ENDED_BECAUSE).and_then(EndReason::from_word);
    SessionState::Ended {
        by: Node::from(lease::annotation(lease, ENDED_BY).unwrap_or_default()),
        reason: reason.unwrap_or(EndReason::Expired),
    }
}

/// What is not `ADDRESS=MAC` is left out: a session is worth more than the addresses that go with it.
fn links(lease: &Lease) -> Vec<LinkAddress> {
    let text = lease::annotation(lease, LINK_ADDRESSES).unwrap_or_default();
    text.split(',').filter_map(parse_link).collect()
}

/// An empty list says that there are none.
fn own_addresses(lease: &Lease) -> Option<BTreeSet<IpAddr>> {
    let text = lease.metadata.annotations.as_ref()?.get(OWN_ADDRESSES)?;
    let items = text.split(',').filter(|item| !item.is_empty());
    items.map(|item| item.parse().ok()).collect()
}

/// An empty list says that it hears none. Speakers of earlier releases say nothing.
fn hears(lease: &Lease) -> Option<BTreeSet<Node>> {
    let text = lease.metadata.annotations.as_ref()?.get(HEARS)?;
    let items = text.split(',').filter(|item| !item.is_empty() && !item.contains(BY_SUBNET));
    Some(items.map(Node::from).collect())
}

/// What is not `NODE@SUBNET` is something else.
fn heard_on(lease: &Lease) -> HeardOn {
    let text = lease::annotation(lease, HEARS).unwrap_or_default();
    let items = text.split(',').filter_map(|item| item.split_once(BY_SUBNET));
    let mut heard = HeardOn::default();
    for (node, subnet) in items.filter_map(|(node, text)| Some((node, text.parse().ok()?))) {
        heard.entry(Node::from(node)).or_default().insert(subnet);
    }
    heard
}

fn silence(lease: &Lease, epoch: Epoch) -> Option<Duration> {
    let (of, seconds) = lease::annotation(lease, SILENCE)?.split_once('/')?;
    let seconds = seconds.parse().ok().filter(|seconds| SILENCES.contains(seconds))?;
    (of.parse() == Ok(epoch.0)).then(|| Duration::from_secs(seconds))
}

/// What is not `NODE=TEXT` is left out.
fn paths(lease: &Lease) -> BTreeMap<Node, String> {
    let text = lease::annotation(lease, PATHS).unwrap_or_default();
    let items = text.split(',').filter_map(|item| item.split_once('='));
    items.map(|(node, text)| (Node::from(node), text.to_owned())).collect()
}

fn parse_link(item: &str) -> Option<LinkAddress> {
    let (address, mac) = item.split_once('=')?;
    Some(LinkAddress { address: address.parse().ok()?, mac: parse_mac(mac)? })
}

/// Reads what [`mac_text`] writes.
pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Result<Vec<u8>, _> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
    bytes.ok()?.try_into().ok()
}

/// A MAC address as people write it.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

impl fmt::Display for LinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.address, mac_text(self.mac))
    }
}

impl OwnSession {
    /// The object of the node's first session.
    pub fn created(&self, epoch: Epoch, now: MicroTime) -> Lease {
        let annotations = BTreeMap::from([
            (INSTANCE.to_owned(), self.instance.clone()),
            (LINK_ADDRESSES.to_owned(), self.links_text()),
            (INTERFACES.to_owned(), reach::to_text(&self.whereabouts.reach)),
            (OWN_ADDRESSES.to_owned(), self.own_text()),
            (HEARS.to_owned(), self.hears_text()),
            (PATHS.to_owned(), self.paths_text()),
        ]);
        Lease {
            metadata: lease::metadata(Kind::Session, name(&self.node), annotations),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.node.to_string()),
                lease_duration_seconds: Some(self.seconds()),
                lease_transitions: Some(transitions(epoch)),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        }
    }

    /// The patch that starts a new session after one was ended.
    pub fn started(&self, epoch: Epoch, expected: Version, now: &MicroTime) -> Value {
        let mut spec = self.renewed_spec(now);
        spec["leaseTransitions"] = json!(transitions(epoch));
        spec["acquireTime"] = json!(now);
        self.patch(expected, &spec)
    }

    /// The patch that renews the session and clears an accusation.
    pub fn renewed(&self, expected: Version, now: &MicroTime) -> Value {
        self.patch(expected, &self.renewed_spec(now))
    }

    /// With the labels by which watches find it: a session that somebody has taken them from gets them back.
    fn patch(&self, expected: Version, spec: &Value) -> Value {
        let mut patch = lease::guarded(expected, &self.clean_annotations(), spec);
        patch["metadata"]["labels"] = json!(Kind::Session.labels());
        patch
    }

    fn renewed_spec(&self, now: &MicroTime) -> Value {
        json!({
            "holderIdentity": self.node.as_str(),
            "leaseDurationSeconds": self.seconds(),
            "renewTime": now,
        })
    }

    fn clean_annotations(&self) -> Value {
        json!({
            INSTANCE: self.instance,
            LINK_ADDRESSES: self.links_text(),
            INTERFACES: reach::to_text(&self.whereabouts.reach),
            OWN_ADDRESSES: self.own_text(),
            HEARS: self.hears_text(),
            PATHS: self.paths_text(),
            SILENCE: null,
            ACCUSED_BY: null,
            ENDED_BY: null,
            ENDED_BECAUSE: null,
        })
    }

    fn links_text(&self) -> String {
        let links: Vec<String> =
            self.whereabouts.links.iter().map(LinkAddress::to_string).collect();
        links.join(",")
    }

    /// What the interfaces do not say already.
    fn own_text(&self) -> String {
        let Whereabouts { reach, own, .. } = &self.whereabouts;
        let named = named_addresses(own, reach, |_| false);
        named.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
    }

    fn hears_text(&self) -> String {
        let nodes = self.hears.iter().map(Node::to_string);
        let heard = self.whereabouts.heard_on.iter();
        let heard = heard
            .flat_map(|(node, nets)| nets.iter().map(move |net| format!("{node}{BY_SUBNET}{net}")));
        nodes.chain(heard.take(MOST_HEARD)).collect::<Vec<_>>().join(",")
    }

    fn paths_text(&self) -> String {
        let paths = self.whereabouts.paths.iter().map(|(node, text)| format!("{node}={text}"));
        paths.collect::<Vec<_>>().join(",")
    }

    fn seconds(&self) -> i32 {
        i32::try_from(self.duration.as_secs().max(1)).unwrap_or(i32::MAX)
    }
}

/// The patch by which `me` accuses the node whose session has version `expected`.
pub fn accused(me: &Node, expected: Version) -> Value {
    lease::guarded(expected, &json!({ ACCUSED_BY: me.as_str() }), &json!({}))
}

/// The patch by which `me` ends the session that has version `expected`.
pub fn ended(me: &Node, reason: EndReason, expected: Version) -> Value {
    let marks = json!({ ENDED_BY: me.as_str(), ENDED_BECAUSE: reason.as_str(), ACCUSED_BY: null });
    lease::guarded(expected, &marks, &json!({ "holderIdentity": "" }))
}

/// The patch by which somebody rehearses for so many seconds, of [`SILENCES`], that the node of the session falls silent.
pub fn silenced(session: &Session, seconds: u64) -> Value {
    let mark = format!("{}/{seconds}", session.epoch.0);
    lease::guarded(session.version, &json!({ SILENCE: mark }), &json!({}))
}

/// The patch that ends the rehearsal on a session that has version `expected`.
pub fn heard_again(expected: Version) -> Value {
    lease::guarded(expected, &json!({ SILENCE: null }), &json!({}))
}

fn transitions(epoch: Epoch) -> i32 {
    i32::try_from(epoch.0).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn own() -> OwnSession {
        let address = "192.168.0.11".parse().unwrap();
        let links = vec![LinkAddress { address, mac: [2, 0, 0, 0xa, 0xb, 0xc] }];
        OwnSession {
            node: "node-1".into(),
            instance: "speaker-x7".into(),
            duration: Duration::from_secs(10),
            whereabouts: Whereabouts {
                reach: reach(),
                links,
                own: own_addresses(),
                paths: own_paths(),
                heard_on: heard_on_one(),
            },
            hears: ["node-2".into(), "node-3".into()].into(),
        }
    }

    fn heard_on_one() -> HeardOn {
        let nets = ["192.168.0.0/24", "fd00::/64"].map(|net| net.parse().unwrap());
        [("node-3".into(), nets.into())].into()
    }

    fn own_paths() -> BTreeMap<Node, String> {
        let paths = [("node-2", "fast"), ("node-3", "patient (wireless)")];
        paths.map(|(node, text)| (Node::from(node), text.to_owned())).into()
    }

    /// One of the subnet's, and two that no subnet has.
    fn own_addresses() -> BTreeSet<IpAddr> {
        ["192.168.0.11", "192.168.0.241", "fd00::1"].map(|it| it.parse().unwrap()).into()
    }

    fn reach() -> Reach {
        let subnets = vec!["192.168.0.11/24".parse().unwrap()];
        let lan =
            arpeggio_election::Interface { name: "eth0".into(), subnets, ..Default::default() };
        Reach { interfaces: vec![lan] }
    }

    fn stored(version: &str) -> Lease {
        let mut lease = own().created(Epoch(3), MicroTime(Timestamp::default()));
        lease.metadata.resource_version = Some(version.to_owned());
        lease
    }

    fn patched(patch: &Value) -> Lease {
        let mut lease = serde_json::to_value(stored("7")).unwrap();
        merge(&mut lease, patch);
        serde_json::from_value(lease).unwrap()
    }

    /// RFC 7386, section 2.
    fn merge(target: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else { return *target = patch.clone() };
        if !target.is_object() {
            *target = json!({});
        }
        for (key, value) in patch {
            if value.is_null() {
                target.as_object_mut().unwrap().remove(key);
            } else {
                merge(&mut target[key], value);
            }
        }
    }

    #[test]
    fn whom_a_node_hears_is_said_once_as_earlier_releases_read_it_and_by_subnet() {
        let record = parse(&stored("7")).unwrap();
        assert_eq!(record.session.hears, Some(["node-2".into(), "node-3".into()].into()));
        assert_eq!(record.heard_on, heard_on_one());
        let mut lease = stored("7");
        let annotations = lease.metadata.annotations.as_mut().unwrap();
        assert_eq!(
            annotations[HEARS], "node-2,node-3,node-3@192.168.0.0/24,node-3@fd00::/64",
            "an item of an earlier release is a name"
        );
        annotations.insert(HEARS.to_owned(), "node-2,node-3@somewhere".to_owned());
        let record = parse(&lease).unwrap();
        assert_eq!(record.session.hears, Some(["node-2".into()].into()));
        assert_eq!(record.heard_on, HeardOn::default());
    }

    #[test]
    fn a_silence_is_rehearsed_in_one_session_and_within_bounds() {
        let session = parse(&stored("7")).unwrap().session;
        let silence = |patch: &Value| parse(&patched(patch)).unwrap().silence;
        assert_eq!(silence(&silenced(&session, 10)), Some(Duration::from_secs(10)));
        for seconds in [0, 2, 31] {
            assert_eq!(silence(&silenced(&session, seconds)), None, "{seconds} s");
        }
        let earlier = Session { epoch: Epoch(2), ..session.clone() };
        assert_eq!(silence(&silenced(&earlier, 10)), None, "of an earlier session");
        let mut marked = serde_json::to_value(patched(&silenced(&session, 10))).unwrap();
        merge(&mut marked, &own().renewed(Version(7), &MicroTime(Timestamp::default())));
        let renewed: Lease = serde_json::from_value(marked).unwrap();
        assert_eq!(parse(&renewed).unwrap().silence, None, "a renewal ends it");
        assert_eq!(silence(&heard_again(Version(7))), None);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let record = parse(&stored("7")).unwrap();
        assert_eq!(record.links, own().whereabouts.links);
        assert_eq!(record.paths, own_paths());
        assert_eq!(record.session.reach, Some(reach()));
        let rest = ["192.168.0.241", "fd00::1"].map(|it| it.parse().unwrap());
        assert_eq!(record.own, Some(rest.into()), "the interface says the other one");
        assert_eq!(record.instance, "speaker-x7");
        assert_eq!(record.session.node, "node-1".into());
        assert_eq!(record.session.epoch, Epoch(3));
        assert_eq!(record.session.lasts, Some(Duration::from_secs(10)));
        assert_eq!(record.session.version, Version(7));
        assert_eq!(record.session.state, SessionState::Live { accused_by: None });
    }

    #[test]
    fn no_word_of_own_addresses_is_not_the_word_that_there_are_none() {
        let table = [
            (None, None),
            (Some(""), Some(0)),
            (Some("192.168.0.241"), Some(1)),
            (Some("192.168.0.241,x"), None),
        ];
        for (text, expected) in table {
            let mut lease = stored("7");
            let annotations = lease.metadata.annotations.as_mut().unwrap();
            annotations.remove(OWN_ADDRESSES);
            annotations.extend(text.map(|text| (OWN_ADDRESSES.to_owned(), text.to_owned())));
            assert_eq!(parse(&lease).unwrap().own.map(|own| own.len()), expected, "{text:?}");
        }
    }

    #[test]
    fn a_session_stays_small_however_many_addresses_its_node_has() {
        let mut own = own();
        let many = (1..1000)
            .map(|it| IpAddr::from([0x2001, 0xdb8, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, it]));
        own.whereabouts.own = many.collect();
        let text = own.own_text();
        assert_eq!(text.split(',').count(), MOST_OWN_ADDRESSES);
        assert!(text.len() < 4096, "{}", text.len());
    }

    #[test]
    fn of_too_many_own_addresses_those_that_services_have_are_named() {
        let own: BTreeSet<IpAddr> = (1..=200).map(|it| IpAddr::from([10, 0, 0, it])).collect();
        let given: BTreeSet<IpAddr> = [150, 200, 201].map(|it| IpAddr::from([10, 0, 0, it])).into();
        let named = named_addresses(&own, &Reach::default(), |it| given.contains(it));
        assert_eq!(named.len(), MOST_OWN_ADDRESSES);
        let last: Vec<String> = named.iter().rev().take(3).map(IpAddr::to_string).collect();
        assert_eq!(last, ["10.0.0.200", "10.0.0.150", "10.0.0.62"]);
        let few: BTreeSet<IpAddr> = own.iter().copied().take(MOST_OWN_ADDRESSES).collect();
        assert_eq!(named_addresses(&few, &Reach::default(), |_| false), few);
    }

    #[test]
    fn a_session_says_where_its_node_announces() {
        let there = own().whereabouts;
        let place = |address: &str| there.place(address.parse().unwrap(), &[]);
        assert_eq!(place("192.168.0.240").unwrap(), "eth0, 02:00:00:0a:0b:0c");
        assert_eq!(place("10.0.0.1"), None);
        let named = there.place("10.0.0.1".parse().unwrap(), &["eth*".into()]);
        assert_eq!(named.unwrap(), "eth0, 02:00:00:0a:0b:0c");
    }

    #[test]
    fn an_accusation_is_seen_and_a_renewal_clears_it() {
        let accused = accused(&"node-2".into(), Version(7));
        let state = parse(&patched(&accused)).unwrap().session.state;
        assert_eq!(state, SessionState::Live { accused_by: Some("node-2".into()) });

        let mut lease = serde_json::to_value(patched(&accused)).unwrap();
        merge(&mut lease, &own().renewed(Version(7), &MicroTime(Timestamp::default())));
        let lease: Lease = serde_json::from_value(lease).unwrap();
        let state = parse(&lease).unwrap().session.state;
        assert_eq!(state, SessionState::Live { accused_by: None });
    }

    #[test]
    fn an_ended_session_tells_by_whom_and_why_until_the_next_one_starts() {
        let end = ended(&"node-2".into(), EndReason::NodeSilent, Version(7));
        let state = parse(&patched(&end)).unwrap().session.state;
        let by = Node::from("node-2");
        assert_eq!(state, SessionState::Ended { by, reason: EndReason::NodeSilent });

        let start = own().started(Epoch(4), Version(7), &MicroTime(Timestamp::default()));
        let session = parse(&patched(&start)).unwrap().session;
        assert_eq!(session.epoch, Epoch(4));
        assert_eq!(session.state, SessionState::Live { accused_by: None });
    }

    #[test]
    fn a_newer_releases_session_lives_whatever_it_says() {
        let end = ended(&"node-2".into(), EndReason::NodeSilent, Version(7));
        let mut lease = patched(&end);
        let annotations = lease.metadata.annotations.as_mut().unwrap();
        annotations.insert("arpeggio.dev/format".to_owned(), "2".to_owned());
        let record = parse(&lease).unwrap();
        assert_eq!(record.newer.as_deref(), Some("2"));
        assert_eq!(record.session.state, LIVE);
        assert_eq!(parse(&stored("7")).unwrap().newer, None);
    }

    #[test]
    fn damage_costs_no_more_than_what_is_damaged() {
        let mut lease = stored("7");
        let links = "192.168.0.11,x=y,192.168.0.12=02:00:00:00:00:0c";
        let links = BTreeMap::from([(LINK_ADDRESSES.to_owned(), links.to_owned())]);
        lease.metadata.annotations = Some(links);
        lease.spec.as_mut().unwrap().lease_duration_seconds = Some(0);
        let record = parse(&lease).unwrap();
        assert_eq!(record.links.len(), 1);
        assert_eq!(record.session.lasts, None);
        assert_eq!(record.session.epoch, Epoch(3));
        assert!(parse(&stored("x")).unwrap_err().what.contains("resourceVersion"));
    }

    #[test]
    fn labels_that_were_lost_come_back() {
        let now = MicroTime(Timestamp::default());
        let renewed = own().renewed(Version(7), &now);
        for patch in [renewed, own().started(Epoch(4), Version(7), &now)] {
            assert_eq!(patch["metadata"]["labels"], json!(Kind::Session.labels()));
        }
        let says = crate::forwarder::Forwarder::default().said(&now);
        assert_eq!(says["metadata"]["labels"], json!(Kind::Forwarder.labels()));
    }

    /// What a node reports of itself nobody else may write. The admission policy has to know of each part of it.
    #[test]
    fn the_admission_policy_says_who_may_write_each_annotation() {
        const OWN: [&str; 6] = [INSTANCE, LINK_ADDRESSES, INTERFACES, OWN_ADDRESSES, HEARS, PATHS];
        const OF_OTHERS: [&str; 3] = [ACCUSED_BY, ENDED_BY, SILENCE];
        let mut expected = [&OWN[..], &OF_OTHERS].concat();
        expected.sort_unstable();
        assert_eq!(lease::tests::documented(include_str!("session.rs")), expected);
        assert!(lease::tests::policy_lists(&OWN));
    }
}

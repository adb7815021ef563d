//! The Lease of a node's forwarder: `forwarder-<node>`.
//!
//! It is written when the forwarder starts, when something of it changes, when somebody has taken it away, and once a minute
//! ([`RENEWAL`]): a forwarder that does not renew it any more ([`STALE`]) was killed. Whether the node lives its session says.
//!
//! | field | meaning |
//! |---|---|
//! | `spec.holderIdentity` | which of the node's processes wrote last; during an upgrade there are two; empty: it has stopped |
//! | `spec.renewTime` | when that was, for people; it changes with each write of the forwarder, and with nothing else |
//! | annotation `arpeggio.dev/connections` | `ADDRESS=COUNT,...`: how many connections the node still has of addresses that it does not serve any more; absent: it has not counted yet |
//! | annotation `arpeggio.dev/not-spread` | `{"REASON": ["ADDRESS", ...]}`: the addresses that one node serves though all are to, and why, for people; absent: this node knows of none that it is to tell of |
//! | annotation `arpeggio.dev/knows-mark` | which process drops marked packets where nobody is left to ask (decision 0028); absent, or not who has written last: this forwarder is of a release that knows no mark |
//! | annotation `arpeggio.dev/unable` | why the node can pass nothing on, for people; absent: it can |

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use arpeggio_election::Node;
pub use arpeggio_forwarding::STALE;
use arpeggio_forwarding::Written;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::SignedDuration,
};
use serde_json::{Value, json};

use crate::lease::{self, Kind, LeaseError};

const PREFIX: &str = "forwarder-";
const CONNECTIONS: &str = "arpeggio.dev/connections";
const UNABLE: &str = "arpeggio.dev/unable";
const KNOWS_MARK: &str = "arpeggio.dev/knows-mark";
const NOT_SPREAD: &str = "arpeggio.dev/not-spread";

/// A forwarder writes its Lease at least this often.
pub const RENEWAL: Duration = Duration::from_mins(1);

/// What is said of an address that is to be spread when nobody could spread it.
const NO_FORWARDER: &str = "no node has a forwarder: install it";

/// A Lease names at most this many addresses, so that it stays far below what the API server takes: first those of which connections are
/// left. Of the others nothing is known.
const MOST_ADDRESSES: usize = 2_000;

/// It gives at most this many reasons, each of at most so many characters.
const MOST_REASONS: usize = 100;
const LONGEST_REASON: usize = 300;

/// What a forwarder says about its node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarder {
    /// Which of the node's processes says it: its pod's name.
    pub instance: String,
    /// How many connections the node still has of addresses that it does not serve any more. A zero says that none is
    /// left. `None`: it has not counted yet.
    pub connections: Option<BTreeMap<IpAddr, u32>>,
    /// Why it can pass nothing on. `None`: it can.
    pub unable: Option<String>,
    /// Of the addresses that it is to tell of: those that one node serves though all are to, and why.
    pub not_spread: BTreeMap<IpAddr, String>,
    /// Whether it knows the mark of packets that no backend may reset.
    pub knows_mark: bool,
}

/// A forwarder's Lease, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwarderRecord {
    /// The node.
    pub node: Node,
    /// What it says. `None`: it has taken back what it said, or a newer release has written what is not understood.
    pub says: Option<Forwarder>,
    /// Its forwarder's last write, whatever others have written on the Lease since.
    pub written: Written,
    /// When it was written last, for people.
    pub renewed: Option<MicroTime>,
}

impl ForwarderRecord {
    /// Whether the forwarder does not renew its Lease any more though its node's speaker does, which has last `renewed` the session then.
    /// Both write the time of one clock, and neither does while the API server is away.
    pub fn is_stale(&self, renewed: Option<&MicroTime>) -> bool {
        let (Some(renewed), Some(written)) = (renewed, &self.renewed) else { return false };
        let stale = SignedDuration::try_from(STALE).unwrap_or(SignedDuration::MAX);
        renewed.0.duration_since(written.0) >= stale
    }

    /// The addresses of which the node still has connections though it does not serve them any more, and how many. It counts only
    /// as long as the node lives.
    pub fn left_behind(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        let counts = self.says.iter().filter_map(|says| says.connections.as_ref()).flatten();
        counts.map(|(address, count)| (*address, *count)).filter(|(_, count)| *count > 0)
    }
}

/// The name of a forwarder's Lease.
pub fn name(node: &Node) -> String {
    format!("{PREFIX}{node}")
}

/// The node whose forwarder's Lease has this name.
pub fn node_of(lease: &str) -> Option<Node> {
    lease.strip_prefix(PREFIX).filter(|node| !node.is_empty()).map(Node::from)
}

/// Reads a forwarder's Lease. What of its connections is not understood is left out: nothing is known of them then.
///
/// # Errors
/// When its name is not that of a forwarder's Lease.
pub fn parse(lease: &Lease) -> Result<ForwarderRecord, LeaseError> {
    let name = lease.metadata.name.as_deref().unwrap_or_default();
    let node =
        node_of(name).ok_or_else(|| LeaseError::new(lease, "its name is not forwarder-NODE"))?;
    let says = lease::newer_format(lease).is_none().then(|| {
        let annotations = lease.metadata.annotations.as_ref();
        let text = annotations.and_then(|all| all.get(CONNECTIONS));
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
        let instance = holder.filter(|holder| !holder.is_empty())?;
        Some(Forwarder {
            // An earlier release that writes after this one leaves the annotation there.
            knows_mark: lease::annotation(lease, KNOWS_MARK) == Some(instance.as_str()),
            instance,
            connections: text.map(|text| text.split(',').filter_map(parse_counted).collect()),
            unable: lease::annotation(lease, UNABLE).map(str::to_owned),
            not_spread: lease::annotation(lease, NOT_SPREAD).map(parse_reasons).unwrap_or_default(),
        })
    });
    let says = says.flatten();
    let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
    let written = Written { version: lease::version(lease)?, renewal: lease::renewal(lease) };
    Ok(ForwarderRecord { node, says, written, renewed })
}

fn parse_counted(item: &str) -> Option<(IpAddr, u32)> {
    let (address, count) = item.split_once('=')?;
    Some((address.parse().ok()?, count.parse().ok()?))
}

/// What is not understood says nothing.
fn parse_reasons(text: &str) -> BTreeMap<IpAddr, String> {
    let reasons: BTreeMap<String, Vec<IpAddr>> = serde_json::from_str(text).unwrap_or_default();
    let of = |(why, addresses): (String, Vec<IpAddr>)| {
        addresses.into_iter().map(move |address| (address, why.clone()))
    };
    reasons.into_iter().flat_map(of).collect()
}

/// Why one node serves `address`, which all are to, when its node is `holder`. `says`: what the forwarders of nodes that live say
/// ([`Forwarder::not_spread`]), by their nodes. That of the holder knows best; another one tells where it has none.
pub fn why_one_node<'a>(
    address: IpAddr,
    holder: &Node,
    says: &(impl Iterator<Item = (&'a Node, &'a BTreeMap<IpAddr, String>)> + Clone),
) -> Option<String> {
    if says.clone().next().is_none() {
        return Some(NO_FORWARDER.to_owned());
    }
    match says.clone().find(|(node, _)| *node == holder) {
        Some((_, own)) => own.get(&address).cloned(),
        None => says.clone().find_map(|(_, said)| said.get(&address)).cloned(),
    }
}

impl Forwarder {
    /// The object, for the first time.
    pub fn created(&self, node: &Node, now: MicroTime) -> Lease {
        let texts = [
            (CONNECTIONS, self.connections_text()),
            (UNABLE, self.unable.clone()),
            (NOT_SPREAD, self.reasons_text()),
            (KNOWS_MARK, self.mark_text()),
        ];
        let annotations = texts.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text?)));
        Lease {
            metadata: lease::metadata(Kind::Forwarder, name(node), annotations.collect()),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.instance.clone()),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        }
    }

    /// The patch that says it on the object that is there. Nobody else writes it, so that it holds for any version.
    pub fn said(&self, now: &MicroTime) -> Value {
        let (key, format) = lease::format_annotation();
        json!({
            "metadata": {
                // By which watches find it, should somebody have taken them away.
                "labels": Kind::Forwarder.labels(),
                "annotations": {
                    key: format,
                    CONNECTIONS: self.connections_text(),
                    UNABLE: self.unable,
                    NOT_SPREAD: self.reasons_text(),
                    KNOWS_MARK: self.mark_text(),
                },
            },
            "spec": { "holderIdentity": self.instance, "renewTime": now },
        })
    }

    fn mark_text(&self) -> Option<String> {
        self.knows_mark.then(|| self.instance.clone())
    }

    fn connections_text(&self) -> Option<String> {
        let all = self.connections.as_ref()?;
        let (left, none): (Vec<_>, Vec<_>) = all.iter().partition(|(_, count)| **count > 0);
        let first = left.into_iter().chain(none).take(MOST_ADDRESSES);
        let texts = first.map(|(address, count)| format!("{address}={count}"));
        Some(texts.collect::<Vec<_>>().join(","))
    }

    fn reasons_text(&self) -> Option<String> {
        let mut reasons: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for (address, why) in self.not_spread.iter().take(MOST_ADDRESSES) {
            let why = why.chars().take(LONGEST_REASON).collect();
            reasons.entry(why).or_default().push(*address);
        }
        let reasons: BTreeMap<_, _> = reasons.into_iter().take(MOST_REASONS).collect();
        (!reasons.is_empty()).then(|| json!(reasons).to_string())
    }
}

/// The patch by which a process that stops takes back what it has said, unless another one has said something since.
pub fn taken_back(lease: &Lease) -> Value {
    json!({
        "metadata": {
            "resourceVersion": lease.metadata.resource_version,
            "annotations": { CONNECTIONS: null, UNABLE: null, NOT_SPREAD: null, KNOWS_MARK: null },
        },
        "spec": { "holderIdentity": "" },
    })
}

#[cfg(test)]
mod tests {
    use arpeggio_election::{Renewal, Version};
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn says() -> Forwarder {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let connections = [(address("192.168.0.240"), 7), (address("fd00::f0"), 0)];
        let connections = Some(connections.into());
        let not_spread = [
            (
                address("192.168.0.240"),
                "node-1, which announces it, has no \"forwarder\"".to_owned(),
            ),
            (address("192.168.0.241"), "no other node can serve it".to_owned()),
            (address("fd00::f0"), "no other node can serve it".to_owned()),
        ];
        let not_spread = not_spread.into();
        Forwarder {
            instance: "speaker-x7".into(),
            connections,
            unable: None,
            not_spread,
            knows_mark: true,
        }
    }

    fn created(says: &Forwarder) -> Lease {
        let mut lease = says.created(&"node-1".into(), MicroTime(Timestamp::default()));
        lease.metadata.resource_version = Some("7".to_owned());
        lease
    }

    #[test]
    fn what_others_write_on_it_says_nothing_new() {
        let before = created(&says());
        let mut labelled = before.clone();
        labelled.metadata.resource_version = Some("8".to_owned());
        let labels = labelled.metadata.labels.get_or_insert_default();
        labels.insert("team".to_owned(), "network".to_owned());
        let (before, mut after) = (parse(&before).unwrap(), parse(&labelled).unwrap());
        assert_eq!(std::mem::replace(&mut after.written.version, Version(7)), Version(8));
        assert_eq!(after, before);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let unable = Forwarder { unable: Some("no nf_tables".into()), ..Forwarder::default() };
        let instance = || "speaker-x7".to_owned();
        let unable = Forwarder { instance: instance(), ..unable };
        let none = Forwarder { connections: Some(BTreeMap::new()), ..unable.clone() };
        let new = Forwarder { instance: instance(), ..Forwarder::default() };
        for says in [says(), new, none, unable] {
            let record = parse(&created(&says)).unwrap();
            let written = Written { version: Version(7), renewal: Some(Renewal(0)) };
            assert_eq!((record.node.as_str(), record.written), ("node-1", written));
            assert_eq!(record.says.as_ref(), Some(&says));
            let mut patched = serde_json::to_value(created(&self::says())).unwrap();
            json_patch::merge(&mut patched, &says.said(&MicroTime(Timestamp::default())));
            let patched = serde_json::from_value(patched).unwrap();
            assert_eq!(parse(&patched).unwrap().says, Some(says));
        }
    }

    /// A release that knows no mark leaves the annotation as it is when it writes after one that does.
    #[test]
    fn only_who_has_written_last_says_that_it_knows_the_mark() {
        let lease = created(&says());
        assert!(parse(&lease).unwrap().says.unwrap().knows_mark);
        let mut earlier = lease;
        earlier.spec.as_mut().unwrap().holder_identity = Some("speaker-y8".to_owned());
        assert!(!parse(&earlier).unwrap().says.unwrap().knows_mark);
    }

    #[test]
    fn of_what_is_not_understood_nothing_is_known() {
        let table = [
            ("192.168.0.240=7", 1),
            ("192.168.0.240", 0),
            ("192.168.0.240=-1", 0),
            ("x=7,fd00::f0=1,", 1),
            ("", 0),
        ];
        for (text, expected) in table {
            let mut lease = created(&says());
            let annotations = lease.metadata.annotations.as_mut().unwrap();
            annotations.insert(CONNECTIONS.to_owned(), text.to_owned());
            let says = parse(&lease).unwrap().says.unwrap();
            assert_eq!(says.connections.unwrap().len(), expected, "{text}");
        }
        let mut lease = created(&says());
        lease.metadata.name = Some("forwarder-".into());
        assert!(parse(&lease).is_err());
    }

    #[test]
    fn a_forwarder_is_stale_whose_speaker_has_gone_on_for_long() {
        let record = parse(&created(&says())).unwrap();
        let at = |seconds| MicroTime(Timestamp::from_second(seconds).unwrap());
        for (seconds, expected) in [(-600, false), (0, false), (179, false), (180, true)] {
            assert_eq!(record.is_stale(Some(&at(seconds))), expected, "{seconds}");
        }
        assert!(!record.is_stale(None), "there is no speaker");
        let untimed = ForwarderRecord { renewed: None, ..record };
        assert!(!untimed.is_stale(Some(&at(600))));
    }

    #[test]
    fn who_has_stopped_says_nothing() {
        let lease = created(&says());
        let mut stopped = serde_json::to_value(&lease).unwrap();
        json_patch::merge(&mut stopped, &taken_back(&lease));
        let stopped = serde_json::from_value(stopped).unwrap();
        assert_eq!(parse(&stopped).unwrap().says, None);
    }

    #[test]
    fn a_newer_release_is_not_understood() {
        let mut lease = created(&says());
        let annotations = lease.metadata.annotations.as_mut().unwrap();
        annotations.insert("arpeggio.dev/format".to_owned(), "2".to_owned());
        assert_eq!(parse(&lease).unwrap().says, None);
    }

    #[test]
    fn the_node_that_announces_an_address_is_believed_before_others() {
        let (one, two): (Node, Node) = ("node-1".into(), "node-2".into());
        let address: IpAddr = [192, 168, 0, 240].into();
        let nothing = BTreeMap::new();
        let something = BTreeMap::from([(address, "it is so".to_owned())]);
        let why = |says: &[(&Node, &BTreeMap<IpAddr, String>)]| {
            why_one_node(address, &one, &says.iter().copied())
        };
        let it_is_so = Some("it is so".to_owned());
        assert_eq!(why(&[]).as_deref(), Some(NO_FORWARDER));
        assert_eq!(why(&[(&one, &something), (&two, &nothing)]), it_is_so);
        assert_eq!(why(&[(&one, &nothing), (&two, &something)]), None, "it was so");
        assert_eq!(why(&[(&two, &something)]), it_is_so);
        assert_eq!(why(&[(&two, &nothing)]), None);
    }

    #[test]
    fn addresses_with_connections_come_before_those_without() {
        let address = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(n));
        let connections = (0..10_000).map(|n| (address(n), u32::from(n >= 9_000))).collect();
        let says = Forwarder { connections: Some(connections), ..says() };
        let record = parse(&created(&says)).unwrap();
        assert_eq!(record.left_behind().count(), 1_000);
        assert_eq!(record.says.unwrap().connections.unwrap().len(), MOST_ADDRESSES);
    }

    #[test]
    fn a_lease_stays_small() {
        let address = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(n));
        let connections = (0..10_000).map(|n| (address(n), 1)).collect();
        let reason = |n| format!("{n} {}", "x".repeat(10_000));
        let not_spread = (0..10_000).map(|n| (address(n), reason(n % 200))).collect();
        let says = Forwarder { connections: Some(connections), not_spread, ..says() };
        let lease = created(&says);
        let size = serde_json::to_vec(&lease).unwrap().len();
        assert!(size < 150_000, "{size}");
        let says = parse(&lease).unwrap().says.unwrap();
        assert_eq!(says.connections.unwrap().len(), MOST_ADDRESSES);
    }
}

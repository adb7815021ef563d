//! The lock Lease: `address-<ip>`.
//!
//! The controller creates it, and that create *is* the claim to the address: the API server refuses a second one.
//! Speakers change its holder, by compare-and-swap, when ownership moves. Nobody renews it.
//!
//! | field | meaning |
//! |---|---|
//! | `spec.holderIdentity` | the node that announces the address |
//! | `spec.leaseTransitions` | how often the address has moved to another node |
//! | `spec.acquireTime` | since when this node holds it; for people |
//! | annotation `arpeggio.dev/format` | the format that all this is written in ([`lease`]) |
//! | annotation `arpeggio.dev/session` | the epoch of the holder's session; the holder counts only with this one |
//! | annotation `arpeggio.dev/pool` | the pool that it came from, or, when another one has it by now, that one as soon as all of the Services may have it from there |
//! | annotation `arpeggio.dev/services` | the Services that are reached at it, in the order in which they came: `NAMESPACE/NAME/UID,...` |
//! | annotation `arpeggio.dev/claimed-for` | which of them the controller has claimed it for last, and which version of it was known then: `UID@RESOURCEVERSION` |
//! | annotation `arpeggio.dev/claimed-since` | since when the address is claimed, by the API server's clock (RFC 3339): a Lease that was created later than that a backup has brought, whoever has taken it since; absent: an earlier release has claimed it |
//! | annotation `arpeggio.dev/announce` | where it may be announced, and whether it is asked for first ([`WrittenAnnounceTerms`]); absent: everywhere, yes |
//! | annotation `arpeggio.dev/spread` | `nodes`: all nodes that can are to serve it; absent, or anything else: the one that announces it |
//! | annotation `arpeggio.dev/stranger` | the MAC address of a machine that is none of ours and answers at the address |
//! | annotation `arpeggio.dev/stranger-seen-by` | the node that got its answer |
//! | annotation `arpeggio.dev/move-to` | the node that somebody asks the holder to give it to; gone when the holder has changed, or has refused |
//! | annotation `arpeggio.dev/move-refused` | why the holder has not done what it was asked for last, for people |
//! | annotation `arpeggio.dev/unannounced` | why its holder does not announce it at present, in a word: `NoReadyEndpoints` |
//! | annotation `arpeggio.dev/disputed-by` | who goes on claiming the address, by what its holder has found, though it does not hold it: a node, or the MAC address of a machine that is none |
//! | annotation `arpeggio.dev/resting-until` | the address was given back, and nobody gets it before this time (RFC 3339) |
//! | annotation `arpeggio.dev/expiring` | which of the Services have the address for a grace period only, and since when: `UID@TIME,...` (RFC 3339) |
//! | annotation `arpeggio.dev/promised-to` | the Service that gets the address when its present one leaves it, `NAMESPACE/NAME`: they exchange addresses |
//! | annotation `arpeggio.dev/last-service` | the Service that was deleted, or for another load balancer or none, while it had the address, `NAMESPACE/NAME`: one of this name may have it at once |

use std::{collections::BTreeMap, fmt, net::IpAddr};

use arpeggio_election::{
    AnnounceTerms, Claimant, Epoch, Holder, Lock, Node, Places, Refusal, Version,
};
use arpeggio_ipam::{PoolName, Reservation};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};
use serde_json::{Value, json};

use crate::{
    lease::{self, Kind, LeaseError},
    session::{mac_text, parse_mac},
    terms::WrittenAnnounceTerms,
};

const PREFIX: &str = "address-";
const POOL: &str = "arpeggio.dev/pool";
const SERVICES: &str = "arpeggio.dev/services";
const CLAIMED_FOR: &str = "arpeggio.dev/claimed-for";
const CLAIMED_SINCE: &str = "arpeggio.dev/claimed-since";
const RESTING_UNTIL: &str = "arpeggio.dev/resting-until";
const LAST_SERVICE: &str = "arpeggio.dev/last-service";
const PROMISED_TO: &str = "arpeggio.dev/promised-to";
const EXPIRING: &str = "arpeggio.dev/expiring";
const ANNOUNCE: &str = "arpeggio.dev/announce";
const SPREAD: &str = "arpeggio.dev/spread";
/// The value of [`SPREAD`] that says that all nodes are to serve the address.
const NODES: &str = "nodes";
const STRANGER: &str = "arpeggio.dev/stranger";
const STRANGER_SEEN_BY: &str = "arpeggio.dev/stranger-seen-by";
const SESSION: &str = "arpeggio.dev/session";
const MOVE_TO: &str = "arpeggio.dev/move-to";
const UNANNOUNCED: &str = "arpeggio.dev/unannounced";
const DISPUTED_BY: &str = "arpeggio.dev/disputed-by";
const MOVE_REFUSED: &str = "arpeggio.dev/move-refused";

/// The reason that no node has a backend for an address, on its lock and in events.
pub const NO_READY_ENDPOINTS: &str = "NoReadyEndpoints";

/// A Service, as a lock refers to it. The uid tells it from a later Service of the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceRef {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}

impl ServiceRef {
    /// `NAMESPACE/NAME`.
    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for ServiceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.name, self.uid)
    }
}

/// What the controller writes when it claims an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The address.
    pub address: IpAddr,
    /// The pool that it came from.
    pub pool: String,
    /// The Services that are reached at it.
    pub services: Vec<ServiceRef>,
    /// How it is to be announced.
    pub terms: WrittenAnnounceTerms,
    /// All nodes that can are to serve it, and not only the one that announces it.
    pub spread: bool,
}

/// For which Service a lock was written last, and which version of the Service was known then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedFor {
    /// The Service's `metadata.uid`.
    pub uid: String,
    /// Its `metadata.resourceVersion`.
    pub version: u64,
}

/// A change of who is reached at an address that has a lock already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amendment {
    /// The address.
    pub address: IpAddr,
    /// The version of the lock that is changed, and no other.
    pub expected: Version,
    /// The pool that it counts as coming from by now. `None`: the same as before.
    pub pool: Option<PoolName>,
    /// The Services that are reached at it from now on.
    pub services: Vec<ServiceRef>,
    /// How it is to be announced from now on.
    pub terms: WrittenAnnounceTerms,
    /// Whether all nodes that can are to serve it from now on.
    pub spread: bool,
    /// For which of them this is done. `None`: for one that leaves.
    pub claimed_for: Option<ClaimedFor>,
    /// Since when the address is claimed. `None`: what is said of it stays.
    pub claimed_since: Option<Time>,
    /// Until when nobody gets the address, when the last one has left.
    pub resting_until: Option<Time>,
    /// `NAMESPACE/NAME` of the last one, if it was deleted or is not for us any more: a Service of this name need not wait.
    pub last_service: Option<String>,
    /// `NAMESPACE/NAME` of the Service that is to have the address when its present one leaves it.
    pub promised_to: Option<String>,
    /// Which of the Services have it for a grace period only.
    pub expiring: Vec<Expiry>,
}

/// A Service, by its uid, that has an address for a grace period only, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// The Service's `metadata.uid`.
    pub uid: String,
    /// When the grace period began.
    pub since: Time,
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.uid, self.since.0)
    }
}

/// A lock Lease, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockRecord {
    /// The part that ownership is decided with.
    pub lock: Lock,
    /// What the controller wrote.
    pub claim: Claim,
    /// For which Service the claim was written last.
    pub claimed_for: Option<ClaimedFor>,
    /// Since when the address is claimed, by the API server's clock.
    pub claimed_since: Option<Time>,
    /// The address was given back, and nobody gets it before this time.
    pub resting_until: Option<Time>,
    /// `NAMESPACE/NAME` of the Service that was deleted, or not for us any more, while it had the address, which rests since.
    pub last_service: Option<String>,
    /// `NAMESPACE/NAME` of the Service that is to have the address when its present one leaves it.
    pub promised_to: Option<String>,
    /// Which of its Services have it for a grace period only.
    pub expiring: Vec<Expiry>,
    /// How often the address has moved to another node.
    pub moves: i32,
    /// Since when its holder has it, by the clock of that node; for people.
    pub since: Option<MicroTime>,
    /// Its format, when only a newer release understands it: then it is left alone, and its address is given to nobody.
    pub newer: Option<String>,
    /// The rules that say where the address is announced are not understood: the last ones that were stay in force. Who
    /// knows none announces it nowhere.
    pub rules_unknown: bool,
    /// The address was given back, and nobody is reached there: it is announced nowhere.
    pub rests: bool,
    /// What of it is not understood, because it was damaged by hand. The rest counts; the controller writes it anew.
    pub damage: Option<LeaseError>,
    /// Why the last request to move it was refused.
    pub move_refused: Option<String>,
    /// The Lease's own uid, for deletes that must not hit a later one.
    pub uid: String,
}

/// The name of an address's lock Lease: the address in its one canonical form, with the colons of IPv6 as dashes and
/// no `::`, so that it is a DNS-1123 subdomain.
pub fn name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("{PREFIX}{v4}"),
        IpAddr::V6(v6) => {
            let groups: Vec<String> =
                v6.segments().iter().map(|group| format!("{group:x}")).collect();
            format!("{PREFIX}{}", groups.join("-"))
        }
    }
}

/// Reads a lock Lease. Of annotations that are not understood nothing follows that anybody is allowed.
///
/// # Errors
/// When its name is not that of a lock.
pub fn parse(lease: &Lease) -> Result<LockRecord, LeaseError> {
    let name = lease.metadata.name.as_deref().unwrap_or_default();
    let address =
        address_of(name).ok_or_else(|| LeaseError::new(lease, "its name is not address-IP"))?;
    let newer = lease::newer_format(lease).map(str::to_owned);
    let mut damage = Damage::default();
    let services = damage.note(services(lease, newer.is_some()));
    let rests = lease::annotation(lease, RESTING_UNTIL).is_some()
        && services.is_empty()
        && damage.0.is_empty();
    let understood = terms(lease);
    let rules_unknown = understood.is_err();
    let (written, terms) = damage.note(understood.map_or_else(nowhere, |terms| (terms, None)));
    let pool = lease::annotation(lease, POOL).unwrap_or_default().to_owned();
    let claim = Claim { address, pool, services, terms: written, spread: spread(lease) };
    let resting_until = damage.note(resting_until(lease));
    let rests = rests || resting_until.is_some();
    let lock = Lock {
        address,
        holder: holder(lease),
        service: claim.services.first().map(|service| service.uid.as_str().into()),
        terms,
        stranger: lease::annotation(lease, STRANGER).map(|mac| parse_mac(mac).unwrap_or_default()),
        move_to: lease::annotation(lease, MOVE_TO).map(Node::from),
        unannounced: lease::annotation(lease, UNANNOUNCED).is_some(),
        disputed_by: lease::annotation(lease, DISPUTED_BY).map(claimant),
        version: lease::version(lease)?,
    };
    Ok(LockRecord {
        lock,
        claim,
        claimed_for: lease::annotation(lease, CLAIMED_FOR).and_then(parse_claimed_for),
        claimed_since: claimed_since(lease),
        resting_until,
        last_service: lease::annotation(lease, LAST_SERVICE).map(str::to_owned),
        promised_to: lease::annotation(lease, PROMISED_TO).map(str::to_owned),
        expiring: expiring(lease),
        moves: lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or_default(),
        since: lease.spec.as_ref().and_then(|spec| spec.acquire_time.clone()),
        damage: if newer.is_some() { None } else { damage.into_error(lease) },
        newer,
        rules_unknown,
        rests,
        move_refused: lease::annotation(lease, MOVE_REFUSED).map(str::to_owned),
        uid: lease.metadata.uid.clone().unwrap_or_default(),
    })
}

/// What is not understood is as good as absent: one node serves the address, as one does where no forwarder runs. So a
/// program of another release announces it all the same.
fn spread(lease: &Lease) -> bool {
    lease::annotation(lease, SPREAD) == Some(NODES)
}

/// What says whether all nodes serve an address. `None` when nothing needs to be said.
fn spread_text(spread: bool) -> Option<&'static str> {
    spread.then_some(NODES)
}

/// Whether the controller has written on a Lease for whom it is, be it for nobody. No other program does.
pub fn is_claim(lease: &Lease) -> bool {
    lease.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(SERVICES))
}

/// The address whose lock Lease has this name; the reverse of [`name`].
pub fn address_of(lease: &str) -> Option<IpAddr> {
    let text = lease.strip_prefix(PREFIX)?;
    let address = text.parse().or_else(|_| text.replace('-', ":").parse()).ok()?;
    (name(address) == lease).then_some(address)
}

/// Where the address may be announced: as it is written, and as speakers decide with it.
type Terms = (WrittenAnnounceTerms, AnnounceTerms);

fn terms(lease: &Lease) -> Result<Terms, String> {
    let Some(text) = lease::annotation(lease, ANNOUNCE) else { return Ok(Terms::default()) };
    let written =
        WrittenAnnounceTerms::from_text(text).map_err(|error| format!("{ANNOUNCE}: {error}"))?;
    let terms = written.to_terms().map_err(|error| format!("{ANNOUNCE}: {error}"))?;
    Ok((written, terms))
}

/// Rules that cannot be read allow nothing.
fn nowhere(why: String) -> (Terms, Option<String>) {
    let terms = AnnounceTerms { places: Places::ByRules(Vec::new()), probing: true };
    ((WrittenAnnounceTerms::nowhere(), terms), Some(why))
}

/// What of a Lease is not understood.
#[derive(Default)]
struct Damage(Vec<String>);

impl Damage {
    /// The part that is understood.
    fn note<T>(&mut self, (part, what): (T, Option<String>)) -> T {
        self.0.extend(what);
        part
    }

    fn into_error(self, lease: &Lease) -> Option<LeaseError> {
        (!self.0.is_empty()).then(|| LeaseError::new(lease, self.0.join("; ")))
    }
}

/// In a newer format an item may have more parts.
fn services(lease: &Lease, is_newer: bool) -> (Vec<ServiceRef>, Option<String>) {
    let text = lease::annotation(lease, SERVICES).unwrap_or_default();
    let items = text.split(',').filter(|item| !item.is_empty());
    let parse = |item| parse_service(item, is_newer);
    let services: Vec<ServiceRef> = items.clone().filter_map(parse).collect();
    let damaged = items.clone().find(|item| parse(item).is_none());
    (services, damaged.map(|item| format!("{SERVICES}: {item:?} is not NAMESPACE/NAME/UID")))
}

fn parse_service(item: &str, is_newer: bool) -> Option<ServiceRef> {
    let mut parts = item.split('/').map(str::to_owned);
    let service = ServiceRef { namespace: parts.next()?, name: parts.next()?, uid: parts.next()? };
    (is_newer || parts.next().is_none()).then_some(service)
}

fn parse_claimed_for(text: &str) -> Option<ClaimedFor> {
    let (uid, version) = text.rsplit_once('@')?;
    Some(ClaimedFor { uid: uid.to_owned(), version: version.parse().ok()? })
}

/// What is not understood is as good as absent: the times of the Lease count.
fn claimed_since(lease: &Lease) -> Option<Time> {
    lease::annotation(lease, CLAIMED_SINCE)?.parse().ok().map(Time)
}

fn resting_until(lease: &Lease) -> (Option<Time>, Option<String>) {
    match lease::annotation(lease, RESTING_UNTIL).map(|text| (text, text.parse())) {
        None => (None, None),
        Some((_, Ok(time))) => (Some(Time(time)), None),
        Some((text, Err(_))) => (None, Some(format!("{RESTING_UNTIL}: {text:?} is not a time"))),
    }
}

/// What is not understood is as good as absent: the grace period begins anew.
fn expiring(lease: &Lease) -> Vec<Expiry> {
    let text = lease::annotation(lease, EXPIRING).unwrap_or_default();
    text.split(',').filter_map(parse_expiry).collect()
}

fn parse_expiry(item: &str) -> Option<Expiry> {
    let (uid, since) = item.split_once('@')?;
    Some(Expiry { uid: uid.to_owned(), since: Time(since.parse().ok()?) })
}

/// `None` when there is nothing to say.
fn joined(expiring: &[Expiry]) -> Option<String> {
    let text = expiring.iter().map(Expiry::to_string).collect::<Vec<_>>().join(",");
    (!text.is_empty()).then_some(text)
}

fn listed(services: &[ServiceRef]) -> String {
    services.iter().map(ServiceRef::to_string).collect::<Vec<_>>().join(",")
}

/// A holder without a readable epoch counts as one whose session is over.
fn holder(lease: &Lease) -> Option<Holder> {
    let node = lease.spec.as_ref()?.holder_identity.as_deref().filter(|node| !node.is_empty())?;
    let epoch = lease::annotation(lease, SESSION).and_then(|epoch| epoch.parse().ok());
    Some(Holder { node: Node::from(node), epoch: Epoch(epoch.unwrap_or_default()) })
}

impl Claim {
    /// The object whose creation claims the address. Nobody holds it yet.
    pub fn created(&self) -> Lease {
        let annotations = [(POOL, self.pool.clone()), (SERVICES, listed(&self.services))];
        let terms = self.terms.to_text().map(|text| (ANNOUNCE, text));
        let spread = spread_text(self.spread).map(|text| (SPREAD, text.to_owned()));
        let annotations: BTreeMap<String, String> = annotations
            .into_iter()
            .chain(terms)
            .chain(spread)
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        Lease {
            metadata: lease::metadata(Kind::Lock, name(self.address), annotations),
            spec: Some(LeaseSpec::default()),
        }
    }

    /// The same, with what is said of the claim itself: for which Service it is made, and when.
    pub fn made(&self, claimed_for: &ClaimedFor, since: &Time) -> Lease {
        let mut lease = self.created();
        let said = [(CLAIMED_FOR, claimed_for.to_string()), (CLAIMED_SINCE, since.0.to_string())];
        let said = said.map(|(key, value)| (key.to_owned(), value));
        lease.metadata.annotations.get_or_insert_default().extend(said);
        lease
    }
}

impl fmt::Display for ClaimedFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.uid, self.version)
    }
}

impl Amendment {
    /// The patch that does it. What a speaker has written of a stranger stays. An address at which nobody is reached any more is announced by nobody.
    pub fn patch(&self) -> Value {
        let mut annotations = json!({
            SERVICES: listed(&self.services),
            ANNOUNCE: self.terms.to_text(),
            SPREAD: spread_text(self.spread),
            LAST_SERVICE: self.last_service,
            PROMISED_TO: self.promised_to,
            EXPIRING: joined(&self.expiring),
        });
        if !self.services.is_empty() {
            annotations[RESTING_UNTIL] = Value::Null;
        }
        if let Some(pool) = &self.pool {
            annotations[POOL] = json!(pool.as_str());
        }
        if let Some(claimed_for) = &self.claimed_for {
            annotations[CLAIMED_FOR] = json!(claimed_for.to_string());
        }
        if let Some(since) = &self.claimed_since {
            annotations[CLAIMED_SINCE] = json!(since.0.to_string());
        }
        let mut spec = json!({});
        if let Some(until) = &self.resting_until {
            annotations[RESTING_UNTIL] = json!(until.0.to_string());
            spec = json!({ "holderIdentity": null, "acquireTime": null });
        }
        let mut patch = lease::guarded(self.expected, &annotations, &spec);
        // By which watches find it: a lock that somebody has taken it from gets it back.
        patch["metadata"]["labels"] = json!(Kind::Lock.labels());
        patch
    }
}

impl LockRecord {
    /// The MAC address of the stranger who answered when the address was last asked for. Not of one of whom somebody
    /// who holds the lock is to judge: a holder has found the address free, or has used it before.
    pub fn stranger(&self) -> Option<String> {
        self.lock.stranger.filter(|_| self.lock.holder.is_none()).map(mac_text)
    }

    /// Why the address is given to nobody for now.
    pub fn reservation(&self) -> Option<Reservation> {
        if let Some(format) = &self.newer {
            return Some(Reservation::Newer(format.clone()));
        }
        let quarantined = self.stranger().map(Reservation::Quarantined);
        let end = self.resting_until.as_ref().map(|it| it.0.to_string());
        let end = end.or_else(|| self.rests.then(|| "a time that cannot be read".to_owned()));
        quarantined.or_else(|| end.map(Reservation::CoolingDown))
    }

    /// The patch by which `me` takes the lock under its session `epoch`, if it still has version `expected`.
    pub fn taken(&self, me: &Node, epoch: Epoch, expected: Version, now: &MicroTime) -> Value {
        let moved = self.lock.holder.as_ref().is_some_and(|holder| holder.node != *me);
        let spec = json!({
            "holderIdentity": me.as_str(),
            "acquireTime": now,
            "leaseTransitions": self.moves.saturating_add(i32::from(moved)),
        });
        let mut annotations = json!({
            SESSION: epoch.0.to_string(),
            STRANGER: null,
            STRANGER_SEEN_BY: null,
            MOVE_TO: null,
            MOVE_REFUSED: null,
            UNANNOUNCED: null,
        });
        if !self.lock.keeps_claimant() {
            annotations[DISPUTED_BY] = Value::Null;
        }
        lease::guarded(expected, &annotations, &spec)
    }
}

/// The patch by which the holder of the lock that has version `expected` says whether it announces the address, for which
/// no node may have a backend, and who goes on claiming it.
pub fn noted(announced: bool, disputed_by: Option<&Claimant>, expected: Version) -> Value {
    let why = (!announced).then_some(NO_READY_ENDPOINTS);
    let by = disputed_by.map(|by| match by {
        Claimant::Node(node) => node.to_string(),
        Claimant::Stranger(mac) => mac_text(*mac),
    });
    lease::guarded(expected, &json!({ UNANNOUNCED: why, DISPUTED_BY: by }), &json!({}))
}

/// Reads how the annotation names who goes on claiming an address. No name of a node has colons in it.
pub fn claimant(text: &str) -> Claimant {
    parse_mac(text).map_or_else(|| Claimant::Node(text.into()), Claimant::Stranger)
}

/// The patch by which somebody asks the holder of the lock that has version `expected` to give it to `to`. `None`: takes
/// the request back.
pub fn asked_to_move(to: Option<&Node>, expected: Version) -> Value {
    let marks = json!({ MOVE_TO: to.map(Node::as_str), MOVE_REFUSED: null });
    lease::guarded(expected, &marks, &json!({}))
}

/// The patch by which the holder of the lock that has version `expected` says that it does not give it to `to`, and why.
pub fn move_refused(to: &Node, reason: Refusal, expected: Version) -> Value {
    let marks = json!({ MOVE_TO: null, MOVE_REFUSED: format!("to {to}: {reason}") });
    lease::guarded(expected, &marks, &json!({}))
}

/// The patch by which `me` notes on the lock that has version `expected` that `stranger` answers at its address.
pub fn quarantined(me: &Node, stranger: [u8; 6], expected: Version) -> Value {
    let marks = json!({ STRANGER: mac_text(stranger), STRANGER_SEEN_BY: me.as_str() });
    lease::guarded(expected, &marks, &json!({}))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn claim() -> Claim {
        Claim {
            address: "192.168.0.240".parse().unwrap(),
            pool: "home".into(),
            services: vec![ServiceRef {
                namespace: "default".into(),
                name: "web".into(),
                uid: "6f0c".into(),
            }],
            terms: WrittenAnnounceTerms { probing: false, ..WrittenAnnounceTerms::default() },
            spread: false,
        }
    }

    fn stored() -> Lease {
        let mut lease = claim().created();
        lease.metadata.resource_version = Some("7".into());
        lease
    }

    fn amendment() -> Amendment {
        Amendment {
            address: claim().address,
            expected: Version(7),
            pool: Some("office".into()),
            services: Vec::new(),
            terms: WrittenAnnounceTerms::default(),
            spread: true,
            claimed_for: Some(ClaimedFor { uid: "6f0c".into(), version: 12 }),
            claimed_since: Some(Time(Timestamp::from_second(60).unwrap())),
            resting_until: Some(Time(Timestamp::from_second(90).unwrap())),
            last_service: Some("default/web".into()),
            promised_to: Some("default/shop".into()),
            expiring: vec![Expiry { uid: "6f0c".into(), since: Time(Timestamp::UNIX_EPOCH) }],
        }
    }

    #[test]
    fn names_are_dns_1123_subdomains_and_lead_back_to_the_address() {
        for (text, expected) in [
            ("192.168.0.240", "address-192.168.0.240"),
            ("fd00::1", "address-fd00-0-0-0-0-0-0-1"),
            ("::", "address-0-0-0-0-0-0-0-0"),
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(name(address), expected);
            assert_eq!(address_of(expected), Some(address));
        }
    }

    #[test]
    fn a_claim_is_read_back_and_nobody_holds_it() {
        let record = parse(&stored()).unwrap();
        assert_eq!(record.claim, claim());
        assert_eq!(record.lock.holder, None);
        assert_eq!(record.moves, 0);
    }

    #[test]
    fn what_an_amendment_writes_is_read_back() {
        let amendment = amendment();
        let same = Amendment { pool: None, ..amendment.clone() };
        assert!(same.patch()["metadata"]["annotations"].get(POOL).is_none(), "it stays");
        let patch = amendment.patch();
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        let mut lease = stored();
        for (key, value) in patch["metadata"]["annotations"].as_object().unwrap() {
            let annotations = lease.metadata.annotations.as_mut().unwrap();
            match value.as_str() {
                Some(text) => annotations.insert(key.clone(), text.to_owned()),
                None => annotations.remove(key),
            };
        }
        let record = parse(&lease).unwrap();
        assert_eq!(record.claim.services, []);
        assert_eq!(record.claim.pool, "office");
        assert_eq!(record.expiring, amendment.expiring);
        assert_eq!(record.last_service.as_deref(), Some("default/web"));
        assert_eq!(record.claim.terms, amendment.terms);
        assert!(record.claim.spread);
        assert_eq!(record.claimed_for, amendment.claimed_for);
        assert_eq!(record.claimed_since, amendment.claimed_since);
        assert_eq!(record.resting_until, amendment.resting_until);
    }

    #[test]
    fn since_when_an_address_is_claimed_is_said_with_the_claim_and_stays_when_the_lock_is_taken() {
        let since = Time("2026-01-02T03:04:05.678901234Z".parse().unwrap());
        let claimed_for = amendment().claimed_for.unwrap();
        let mut lease = claim().made(&claimed_for, &since);
        lease.metadata.resource_version = Some("7".into());
        let record = parse(&lease).unwrap();
        let said = (record.claimed_for.clone(), record.claimed_since.clone());
        assert_eq!(said, (Some(claimed_for), Some(since)));
        let now = MicroTime(Timestamp::default());
        let patches = [
            record.taken(&"node-1".into(), Epoch(2), Version(7), &now),
            Amendment { claimed_since: None, ..amendment() }.patch(),
        ];
        for patch in patches {
            assert!(patch["metadata"]["annotations"].get(CLAIMED_SINCE).is_none(), "{patch}");
        }
        assert_eq!(
            parse(&annotated(CLAIMED_SINCE, "long ago")).unwrap(),
            parse(&stored()).unwrap()
        );
    }

    #[test]
    fn only_a_change_of_node_counts_as_a_move() {
        let now = MicroTime(Timestamp::default());
        let mut record = parse(&stored()).unwrap();
        let moves = |record: &LockRecord, node: &str| {
            record.taken(&node.into(), Epoch(2), Version(7), &now)["spec"]["leaseTransitions"]
                .clone()
        };
        assert_eq!(moves(&record, "node-1"), 0);
        record.lock.holder = Some(Holder { node: "node-1".into(), epoch: Epoch(1) });
        assert_eq!(moves(&record, "node-1"), 0);
        assert_eq!(moves(&record, "node-2"), 1);
    }

    #[test]
    fn a_patch_carries_the_version_that_it_is_for() {
        let record = parse(&stored()).unwrap();
        let now = MicroTime(Timestamp::default());
        let patch = record.taken(&"node-1".into(), Epoch(2), Version(7), &now);
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["metadata"]["annotations"][SESSION], "2");
    }

    #[test]
    fn a_stranger_is_noted_and_forgotten_when_the_lock_is_taken() {
        let patch = quarantined(&"node-1".into(), [2, 0, 0, 0, 0, 9], Version(7));
        let mac = &patch["metadata"]["annotations"][STRANGER];
        assert_eq!(mac, "02:00:00:00:00:09");
        let mut lease = stored();
        let annotations = lease.metadata.annotations.as_mut().unwrap();
        annotations.insert(STRANGER.to_owned(), mac.as_str().unwrap().to_owned());
        let record = parse(&lease).unwrap();
        assert_eq!(record.lock.stranger, Some([2, 0, 0, 0, 0, 9]));
        let now = MicroTime(Timestamp::default());
        let taken = record.taken(&"node-1".into(), Epoch(2), Version(7), &now);
        assert!(taken["metadata"]["annotations"][STRANGER].is_null());
    }

    #[test]
    fn a_request_to_move_stands_until_it_is_refused_or_the_lock_is_taken() {
        let mut lease = serde_json::to_value(stored()).unwrap();
        let write = |lease: &mut Value, patch: &Value| {
            for (key, value) in patch["metadata"]["annotations"].as_object().unwrap() {
                lease["metadata"]["annotations"][key] = value.clone();
            }
            lease["metadata"]["annotations"].as_object_mut().unwrap().retain(|_, it| !it.is_null());
            parse(&serde_json::from_value(lease.clone()).unwrap()).unwrap()
        };
        let node = Node::from("node-2");
        let asked = asked_to_move(Some(&node), Version(7));
        let record = write(&mut lease, &asked);
        assert_eq!((record.lock.move_to, record.move_refused), (Some(node.clone()), None));
        let refused = move_refused(&node, Refusal::AlreadyThere, Version(7));
        let record = write(&mut lease, &refused);
        assert_eq!(record.lock.move_to, None);
        let reason = record.move_refused.unwrap();
        assert_eq!(reason, "to node-2: the address is announced there already");
        write(&mut lease, &asked);
        let record = write(&mut lease, &asked_to_move(None, Version(7)));
        assert_eq!((&record.lock.move_to, &record.move_refused), (&None, &None));
        let record = write(&mut lease, &asked);
        let now = MicroTime(Timestamp::default());
        let record = write(&mut lease, &record.taken(&node, Epoch(1), Version(7), &now));
        assert_eq!(record.lock.move_to, None);
    }

    fn annotated(key: &str, value: &str) -> Lease {
        let mut lease = stored();
        let annotations = lease.metadata.annotations.as_mut().unwrap();
        annotations.insert(key.to_owned(), value.to_owned());
        lease
    }

    #[test]
    fn rules_that_are_not_understood_allow_nothing() {
        assert!(!parse(&stored()).unwrap().lock.terms.probing);
        for text in [
            "{",
            "[]",
            r#"{"rules":"x"}"#,
            r#"{"rules":[{"nodeSelectors":[{"x":1}]}]}"#,
            r#"{"Rules":[]}"#,
            "null",
        ] {
            let record = parse(&annotated(ANNOUNCE, text)).unwrap();
            assert_eq!(record.lock.terms.places, Places::ByRules(vec![]), "{text}");
            assert!(record.rules_unknown && record.claim.terms.is_nowhere(), "{text}");
            assert!(record.damage.unwrap().what.contains(ANNOUNCE), "{text}");
        }
        let nowhere = parse(&annotated(ANNOUNCE, r#"{"rules":[]}"#)).unwrap();
        assert!(!nowhere.rules_unknown && nowhere.damage.is_none(), "that is understood");
    }

    #[test]
    fn that_all_nodes_serve_an_address_is_read_back_and_changes_nothing_else() {
        let one = claim().created();
        let mut all = Claim { spread: true, ..claim() }.created();
        all.metadata.resource_version = Some("7".into());
        let record = parse(&all).unwrap();
        assert_eq!(record, LockRecord { claim: record.claim.clone(), ..parse(&stored()).unwrap() });
        assert_eq!(record.claim, Claim { spread: true, ..claim() });
        let annotations = all.metadata.annotations.as_mut().unwrap();
        assert_eq!(annotations.remove(SPREAD).as_deref(), Some("nodes"));
        assert_eq!(Some(&*annotations), one.metadata.annotations.as_ref());
    }

    #[test]
    fn one_node_serves_an_address_of_which_something_unknown_is_said_and_nothing_is_damaged() {
        for text in ["", "none", "Nodes", "nodes ", "true", "zones", "{"] {
            let lease = annotated(SPREAD, text);
            assert_eq!(parse(&lease).unwrap(), parse(&stored()).unwrap(), "{text:?}");
        }
    }

    #[test]
    fn an_amendment_says_whether_all_nodes_serve_the_address() {
        let written = |spread| {
            let amendment = Amendment { spread, ..amendment() };
            amendment.patch()["metadata"]["annotations"][SPREAD].clone()
        };
        assert_eq!(written(true), "nodes");
        assert!(written(false).is_null(), "what was there is removed");
    }

    #[test]
    fn an_address_is_not_free_because_what_keeps_it_back_is_not_understood() {
        let record = parse(&annotated(STRANGER, "the printer")).unwrap();
        assert!(record.lock.stranger.is_some());
        assert!(matches!(record.reservation(), Some(Reservation::Quarantined(_))));

        let mut lease = annotated(RESTING_UNTIL, "tomorrow");
        assert!(!parse(&lease).unwrap().rests, "a Service is reached there");
        let annotations = lease.metadata.annotations.as_mut().unwrap();
        annotations.insert(SERVICES.to_owned(), String::new());
        assert!(parse(&lease).unwrap().rests);
        let annotations = lease.metadata.annotations.as_mut().unwrap();
        annotations.insert(SERVICES.to_owned(), "oops".to_owned());
        assert!(!parse(&lease).unwrap().rests, "perhaps a Service is reached there");
    }

    #[test]
    fn what_a_newer_release_has_written_is_no_damage() {
        let table = [
            (SERVICES, "default/web/6f0c/extra"),
            (SERVICES, "oops"),
            (ANNOUNCE, "{"),
            (RESTING_UNTIL, "tomorrow"),
        ];
        for (key, value) in table {
            for (format, is_newer) in [("1", false), ("2", true)] {
                let mut lease = annotated(key, value);
                let annotations = lease.metadata.annotations.as_mut().unwrap();
                annotations.insert("arpeggio.dev/format".to_owned(), format.to_owned());
                let record = parse(&lease).unwrap();
                assert_eq!(record.newer.is_some(), is_newer);
                assert_eq!(record.damage.is_none(), is_newer, "{key}: {value}");
                let reserved = matches!(record.reservation(), Some(Reservation::Newer(_)));
                assert_eq!(reserved, is_newer, "{key}: {value}");
            }
        }
        let mut lease = annotated(SERVICES, "default/web/6f0c/extra");
        let annotations = lease.metadata.annotations.as_mut().unwrap();
        annotations.insert("arpeggio.dev/format".to_owned(), "2".to_owned());
        assert_eq!(parse(&lease).unwrap().claim.services, claim().services);
    }

    #[test]
    fn damage_costs_no_more_than_what_is_damaged() {
        for (key, value, said) in [
            (SERVICES, "default/web/6f0c,oops", r#""oops" is not NAMESPACE/NAME/UID"#),
            (SERVICES, "default/web/6f0c,a/b/c/d", r#""a/b/c/d" is not NAMESPACE/NAME/UID"#),
            (RESTING_UNTIL, "tomorrow", r#""tomorrow" is not a time"#),
        ] {
            let mut lease = stored();
            let annotations = lease.metadata.annotations.as_mut().unwrap();
            annotations.insert(key.to_owned(), value.to_owned());
            let record = parse(&lease).unwrap();
            assert_eq!(record.claim, claim());
            assert_eq!(record.resting_until, None);
            let damage = record.damage.unwrap().to_string();
            assert!(damage.contains(said), "{damage}");
        }
        assert_eq!(parse(&stored()).unwrap().damage, None);
    }

    #[test]
    fn only_the_one_canonical_name_is_a_lock() {
        for name in ["address-192.168.0.256", "address-fd00--1", "address-FD00-0-0-0-0-0-0-1", "x"]
        {
            assert_eq!(address_of(name), None, "{name}");
        }
        let mut lease = stored();
        lease.metadata.name = Some("address-".into());
        assert!(parse(&lease).is_err());
    }

    /// Everything that stands on a lock is for the controller to write, for the node that holds it, or for a witness. The
    /// admission policy has to know of each.
    #[test]
    fn the_admission_policy_says_who_may_write_each_annotation() {
        const CONTROLLERS: [&str; 10] = [
            SERVICES,
            POOL,
            CLAIMED_FOR,
            CLAIMED_SINCE,
            ANNOUNCE,
            SPREAD,
            RESTING_UNTIL,
            LAST_SERVICE,
            PROMISED_TO,
            EXPIRING,
        ];
        const HOLDERS: [&str; 5] = [SESSION, MOVE_TO, MOVE_REFUSED, UNANNOUNCED, DISPUTED_BY];
        const WITNESSES: [&str; 3] = [STRANGER, STRANGER_SEEN_BY, "arpeggio.dev/format"];
        let mut expected = [&CONTROLLERS[..], &HOLDERS, &WITNESSES].concat();
        expected.sort_unstable();
        assert_eq!(lease::tests::documented(include_str!("lock.rs")), expected);
        for keys in [&CONTROLLERS[..], &HOLDERS] {
            assert!(lease::tests::policy_lists(keys), "{keys:?}");
        }
    }
}

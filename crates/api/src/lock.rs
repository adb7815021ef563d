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
//! | annotation `arpeggio.dev/session` | the epoch of the holder's session; the holder counts only with this one |
//! | annotation `arpeggio.dev/pool` | the pool that it came from |
//! | annotation `arpeggio.dev/services` | the Services that are reached at it: `NAMESPACE/NAME/UID,...` |

use std::{collections::BTreeMap, fmt, net::IpAddr};

use arpeggio_election::{Epoch, Holder, Lock, Node, Version};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use serde_json::{Value, json};

use crate::lease::{self, Kind, LeaseError};

const PREFIX: &str = "address-";
const POOL: &str = "arpeggio.dev/pool";
const SERVICES: &str = "arpeggio.dev/services";
const SESSION: &str = "arpeggio.dev/session";

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
}

/// A lock Lease, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockRecord {
    /// The part that ownership is decided with.
    pub lock: Lock,
    /// What the controller wrote.
    pub claim: Claim,
    /// How often the address has moved to another node.
    pub moves: i32,
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

/// Reads a lock Lease.
///
/// # Errors
/// When it was not written by the controller, or was damaged by hand.
pub fn parse(lease: &Lease) -> Result<LockRecord, LeaseError> {
    let name = lease.metadata.name.as_deref().unwrap_or_default();
    let address =
        address_of(name).ok_or_else(|| LeaseError::new(lease, "its name is not address-IP"))?;
    let claim = Claim {
        address,
        pool: lease::annotation(lease, POOL).unwrap_or_default().to_owned(),
        services: services(lease)?,
    };
    let version = lease::version(lease)?;
    Ok(LockRecord {
        lock: Lock { address, holder: holder(lease), version },
        claim,
        moves: lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or_default(),
        uid: lease.metadata.uid.clone().unwrap_or_default(),
    })
}

/// The address whose lock Lease has this name; the reverse of [`name`].
pub fn address_of(lease: &str) -> Option<IpAddr> {
    let text = lease.strip_prefix(PREFIX)?;
    let address = text.parse().or_else(|_| text.replace('-', ":").parse()).ok()?;
    (name(address) == lease).then_some(address)
}

fn services(lease: &Lease) -> Result<Vec<ServiceRef>, LeaseError> {
    let text = lease::annotation(lease, SERVICES).unwrap_or_default();
    let items = text.split(',').filter(|item| !item.is_empty());
    items
        .map(|item| {
            parse_service(item).ok_or_else(|| {
                LeaseError::new(lease, format!("{SERVICES}: {item:?} is not NAMESPACE/NAME/UID"))
            })
        })
        .collect()
}

fn parse_service(item: &str) -> Option<ServiceRef> {
    let mut parts = item.split('/').map(str::to_owned);
    let service = ServiceRef { namespace: parts.next()?, name: parts.next()?, uid: parts.next()? };
    parts.next().is_none().then_some(service)
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
        let services: Vec<String> = self.services.iter().map(ServiceRef::to_string).collect();
        let annotations = [(POOL, self.pool.clone()), (SERVICES, services.join(","))];
        let annotations: BTreeMap<String, String> =
            annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Lease {
            metadata: lease::metadata(Kind::Lock, name(self.address), annotations),
            spec: Some(LeaseSpec::default()),
        }
    }
}

impl LockRecord {
    /// The patch by which `me` takes the lock under its session `epoch`, if it still has version `expected`.
    pub fn taken(&self, me: &Node, epoch: Epoch, expected: Version, now: &MicroTime) -> Value {
        let moved = self.lock.holder.as_ref().is_some_and(|holder| holder.node != *me);
        let spec = json!({
            "holderIdentity": me.as_str(),
            "acquireTime": now,
            "leaseTransitions": self.moves.saturating_add(i32::from(moved)),
        });
        lease::guarded(expected, &json!({ SESSION: epoch.0.to_string() }), &spec)
    }
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
        }
    }

    fn stored() -> Lease {
        let mut lease = claim().created();
        lease.metadata.resource_version = Some("7".into());
        lease
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
    fn only_the_one_canonical_name_is_a_lock() {
        for name in ["address-192.168.0.256", "address-fd00--1", "address-FD00-0-0-0-0-0-0-1", "x"]
        {
            assert_eq!(address_of(name), None, "{name}");
        }
        let mut lease = stored();
        lease.metadata.name = Some("address-".into());
        assert!(parse(&lease).is_err());
    }
}

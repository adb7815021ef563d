//! What an object with pools said when it could last be used, as one controller leaves it to the next.
//!
//! There is one `Lease` for each object that declares pools, or says where they are announced, in whatever format. It is
//! named after the object's uid, so that what it keeps is of no use once the object is gone or was made anew. Its label is
//! not that of locks and sessions: speakers do not see it.

use std::{collections::BTreeMap, time::Duration};

use arpeggio_ipam::{AllocationRules, InvalidPool, Pool, PoolError, parse_ranges};
use arpeggio_labels::Selector;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    address_pool::Sharing,
    declaration::{Declaration, Origin},
    lease::{self, LeaseError, MANAGED_BY},
    metallb::L2AdvertisementSpec,
    selector::{self, LabelSelector},
    terms::Announcement,
};

/// Selects these Leases, for lists and watches.
pub const SELECTOR: &str = "arpeggio.dev/record=last-good";

const LABEL: (&str, &str) = ("arpeggio.dev/record", "last-good");
const CONTENT: &str = "arpeggio.dev/last-good";
const PREFIX: &str = "last-good-";

/// The most bytes that are kept of one object. The API server takes 256 KiB of annotations.
pub const MAX_BYTES: usize = 200_000;

/// What one object said when it could last be used.
#[derive(Debug, Clone, PartialEq)]
pub struct LastGood {
    /// The object, as events refer to it.
    pub object: ObjectReference,
    /// Its pools.
    pub pools: Vec<Declaration>,
    /// Where it announces the pools of others.
    pub advertisement: Option<L2AdvertisementSpec>,
}

/// The same as it is written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    object: ObjectReference,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pools: Vec<WrittenPool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    advertisement: Option<L2AdvertisementSpec>,
}

/// A pool as it is written, whatever the format in which it was declared.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenPool {
    name: String,
    origin: Origin,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<Time>,
    addresses: Vec<String>,
    excluded: Vec<String>,
    auto_assign: bool,
    avoid_buggy_ips: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rules: Option<WrittenRules>,
    cool_down_seconds: u64,
    sharing: Sharing,
    announcement: Announcement,
    probing: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenRules {
    priority: u32,
    namespaces: Vec<String>,
    namespace_selectors: Vec<LabelSelector>,
    service_selectors: Vec<LabelSelector>,
}

/// The name of the Lease for the object with this uid.
pub fn name(uid: &str) -> String {
    format!("{PREFIX}{uid}")
}

/// The uid of the object that a Lease of this name is for.
pub fn uid(name: &str) -> Option<&str> {
    name.strip_prefix(PREFIX).filter(|uid| !uid.is_empty())
}

/// The Lease that keeps `text` for the object with this uid.
pub fn lease(uid: &str, text: &str) -> Lease {
    let annotations = [lease::format_annotation(), (CONTENT.to_owned(), text.to_owned())];
    let labels = [MANAGED_BY, LABEL].map(|(key, value)| (key.to_owned(), value.to_owned()));
    Lease {
        metadata: ObjectMeta {
            name: Some(name(uid)),
            labels: Some(BTreeMap::from(labels)),
            annotations: Some(annotations.into()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec::default()),
    }
}

/// The patch that gives a Lease back the labels that somebody has taken from it, so that watches find it; `None` where it has
/// them, or a newer release has written it.
pub fn relabelled(lease: &Lease) -> Option<Value> {
    let label = |(key, value): &(&str, &str)| Some(lease.labels().get(*key)? == value);
    let lacks = [MANAGED_BY, LABEL].iter().any(|it| label(it) != Some(true));
    let is_ours = lease::newer_format(lease).is_none() && !text(lease).is_empty();
    (lacks && is_ours).then(|| {
        json!({ "metadata": {
            "resourceVersion": lease.resource_version(),
            "labels": BTreeMap::from([MANAGED_BY, LABEL]),
        } })
    })
}

/// The text that a Lease keeps.
pub fn text(lease: &Lease) -> &str {
    lease::annotation(lease, CONTENT).unwrap_or_default()
}

impl LastGood {
    /// The text for the Lease.
    pub fn to_text(&self) -> String {
        let written = Written {
            object: self.object.clone(),
            pools: self.pools.iter().filter_map(WrittenPool::of).collect(),
            advertisement: self.advertisement.clone(),
        };
        // A structure of texts and lists can always be written.
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// Reads what a Lease keeps.
    ///
    /// # Errors
    /// When it is not what this release writes: it counts as nothing then.
    pub fn parse(lease: &Lease) -> Result<Self, LeaseError> {
        let written: Written = serde_json::from_str(text(lease))
            .map_err(|error| LeaseError::new(lease, format!("{CONTENT}: {error}")))?;
        let Written { object, pools, advertisement } = written;
        if object.uid.as_deref() != uid(&lease.name_any()) {
            return Err(LeaseError::new(lease, format!("{CONTENT} is about another object")));
        }
        let read = |pool: WrittenPool| pool.read(&object);
        let pools: Result<Vec<Declaration>, InvalidPool> = pools.into_iter().map(read).collect();
        let pools = pools
            .map_err(|it| LeaseError::new(lease, format!("{CONTENT}: pool {:?}: {it}", it.pool)))?;
        Ok(Self { object, pools, advertisement })
    }
}

impl WrittenPool {
    /// `None` for a pool that cannot be used.
    fn of(declaration: &Declaration) -> Option<Self> {
        let pool = declaration.pool.as_ref().ok()?;
        Some(Self {
            name: pool.name.as_str().to_owned(),
            origin: declaration.origin.clone(),
            generation: declaration.generation,
            created: declaration.created.clone(),
            addresses: pool.ranges.iter().map(ToString::to_string).collect(),
            excluded: pool.excluded.iter().map(ToString::to_string).collect(),
            auto_assign: pool.auto_assign,
            avoid_buggy_ips: pool.avoid_buggy_ips,
            rules: pool.rules.as_ref().map(WrittenRules::of),
            cool_down_seconds: pool.cool_down.as_secs(),
            sharing: pool.sharing.into(),
            announcement: declaration.announcement.clone(),
            probing: declaration.probing,
        })
    }

    fn read(self, object: &ObjectReference) -> Result<Declaration, InvalidPool> {
        let invalid = |error| InvalidPool::new(self.name.as_str().into(), error);
        let pool = Pool {
            excluded: parse_ranges("excluded address", &self.excluded).map_err(invalid)?,
            auto_assign: self.auto_assign,
            avoid_buggy_ips: self.avoid_buggy_ips,
            rules: self.rules.map(WrittenRules::read).transpose().map_err(invalid)?,
            cool_down: Duration::from_secs(self.cool_down_seconds),
            sharing: self.sharing.into(),
            ..Pool::parse(self.name.as_str().into(), &self.addresses)?
        };
        Ok(Declaration {
            origin: self.origin,
            object: object.clone(),
            generation: self.generation,
            created: self.created,
            pool: Ok(pool),
            announcement: self.announcement,
            probing: self.probing,
            // That the object says itself.
            ends: false,
        })
    }
}

impl WrittenRules {
    fn of(rules: &AllocationRules) -> Self {
        let selectors = |all: &[Selector]| all.iter().map(Into::into).collect();
        Self {
            priority: rules.priority,
            namespaces: rules.namespaces.iter().cloned().collect(),
            namespace_selectors: selectors(&rules.namespace_selectors),
            service_selectors: selectors(&rules.service_selectors),
        }
    }

    fn read(self) -> Result<AllocationRules, PoolError> {
        Ok(AllocationRules {
            priority: self.priority,
            namespaces: self.namespaces.into_iter().collect(),
            namespace_selectors: selector::parse_all(
                "namespaceSelectors",
                &self.namespace_selectors,
            )?,
            service_selectors: selector::parse_all("serviceSelectors", &self.service_selectors)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        address_pool::AddressPool,
        config_map::{self, Dialect},
        metallb::{IPAddressPool, LegacyPool},
    };
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::{Value, json};

    fn metadata() -> Value {
        json!({
            "namespace": "n", "name": "home", "uid": "u-1", "generation": 3,
            "creationTimestamp": "2026-01-02T03:04:05Z",
        })
    }

    fn object<K: serde::de::DeserializeOwned>(rest: &Value) -> K {
        let mut object = json!({ "metadata": metadata() });
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        serde_json::from_value(object).unwrap()
    }

    /// A pool in each format, with all that it can say there.
    fn pools() -> Vec<Declaration> {
        let ours: AddressPool = object(
            &json!({ "apiVersion": "arpeggio.dev/v1alpha1", "kind": "AddressPool", "spec": {
            "addresses": ["10.0.0.0/24", "fd00::/64", "10.1.0.1 - 10.1.0.9", "10.2.0.1"],
            "excludedAddresses": ["10.0.0.1-10.0.0.9"],
            "autoAssign": false,
            "avoidBuggyIPs": true,
            "allocation": {
                "priority": 5,
                "namespaces": ["shop"],
                "namespaceSelectors": [{ "matchLabels": { "team": "a", "b": "" } }],
                "serviceSelectors": [{ "matchExpressions": [
                    { "key": "app", "operator": "Exists" },
                    { "key": "x", "operator": "NotIn", "values": ["1", "2"] },
                    { "key": "y", "operator": "DoesNotExist" },
                ] }],
            },
            "announce": [{ "interfaces": ["eth*"], "nodeSelectors": [{ "matchLabels": { "a": "b" } }] }],
            "reuseCoolDownSeconds": 90,
            "sharing": "Cluster",
            "conflictProbing": false,
        } }),
        );
        let routed: AddressPool =
            object(&json!({ "spec": { "addresses": ["10.0.0.1"], "routed": true } }));
        let metallb: IPAddressPool = object(&json!({ "spec": {
            "addresses": ["192.168.1.240/24"],
            "serviceAllocation": { "priority": -1, "namespaceSelectors": [{}] },
        } }));
        let legacy: LegacyPool =
            object(&json!({ "spec": { "protocol": "layer2", "addresses": ["10.0.0.1/32"] } }));
        let text = "address-pools: [{name: 1, addresses: [10.0.0.1], routed: true}, {name: a b, addresses: [fd00::1]}]";
        let file: ConfigMap = object(&json!({ "data": { "config": text } }));
        let file = config_map::parse(&file, "config", Dialect::Ours).unwrap();
        let metallb = metallb.declare([], false).0;
        [Declaration::from(&ours), (&routed).into(), metallb, legacy.declare().0]
            .into_iter()
            .chain(file.pools)
            .collect()
    }

    fn kept(pool: &Declaration) -> LastGood {
        LastGood { object: pool.object.clone(), pools: vec![pool.clone()], advertisement: None }
    }

    #[test]
    fn a_pool_of_any_format_is_read_as_it_was() {
        let pools = pools();
        assert_eq!(pools.len(), 6);
        for pool in pools {
            let good = kept(&pool);
            let lease = lease("u-1", &good.to_text());
            assert_eq!(LastGood::parse(&lease), Ok(good), "{}", text(&lease));
        }
    }

    /// What is shown of a name is another text: escaped, and cut.
    #[test]
    fn names_are_kept_as_they_are() {
        for name in ["a\u{7f}b".to_owned(), "a\tb\"".to_owned(), "x".repeat(300)] {
            let mut pool = pools().remove(0);
            pool.pool = Ok(Pool::parse(name.as_str().into(), &["10.0.0.1"]).unwrap());
            let good = kept(&pool);
            assert_eq!(LastGood::parse(&lease("u-1", &good.to_text())), Ok(good), "{name:?}");
        }
    }

    #[test]
    fn an_advertisement_is_read_as_it_was() {
        let advertisement: L2AdvertisementSpec = serde_json::from_value(json!({
            "ipAddressPools": ["lan"], "interfaces": ["eth0"],
            "preferredNodeSelectors": [{ "weight": 3, "preference": { "matchLabels": { "a": "b" } } }],
        }))
        .unwrap();
        let object = pools().remove(0).object;
        let good = LastGood { object, pools: Vec::new(), advertisement: Some(advertisement) };
        assert_eq!(LastGood::parse(&lease("u-1", &good.to_text())), Ok(good));
    }

    #[test]
    fn what_is_damaged_or_about_another_object_counts_as_nothing() {
        let good = kept(&pools()[0]).to_text();
        let wrong = [
            (String::new(), "u-1"),
            ("{".to_owned(), "u-1"),
            (good.replace("10.0.0.0", "10.0.0.x"), "u-1"),
            (good.replace("\"probing\"", "\"probes\""), "u-1"),
            (good.replace("\"pools\"", "\"more\":1,\"pools\""), "u-1"),
            (good, "u-2"),
        ];
        for (text, uid) in wrong {
            let lease = lease(uid, &text);
            assert!(LastGood::parse(&lease).is_err(), "{uid}: {text}");
        }
    }
}

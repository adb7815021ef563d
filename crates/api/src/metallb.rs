//! `MetalLB`'s own objects, read as they are (`metallb.io/v1beta1`; an `AddressPool` of its also as `v1alpha1`).
//!
//! An `IPAddressPool` becomes a pool, the `L2Advertisement`s that select it become its announce rules. An `AddressPool` of
//! `MetalLB`'s, the kind that came before (up to 0.14), is a pool that is announced everywhere. Two habits of `MetalLB` are
//! kept for its objects only: host bits of a CIDR are masked, with a remark, and a single address has to be written with
//! its prefix length. A pool that no advertisement selects gets a remark.
//!
//! What `MetalLB` accepts is accepted here: no spec, fields that are null, fields that are unknown, with a remark. What
//! cannot be understood is refused by the name of its object.

mod object;

use std::collections::BTreeSet;

use arpeggio_ipam::{
    AddressRange, AllocationRules, InvalidPool, Pool, PoolError, PoolName, RangeError,
};
use arpeggio_labels::Selector;
use kube::{Resource as _, ResourceExt as _};
use serde::{Deserialize, Serialize};

pub use self::object::{Kind, Object, Written};
use crate::{
    address_pool::{AnnounceRule, InterfacePattern, PreferredNodes, check_announce},
    declaration::{Declaration, Origin, Remark, invalid},
    selector::{self, LabelSelector},
    terms::Announcement,
};

/// A pool of `MetalLB`'s.
pub type IPAddressPool = Object<IPAddressPoolSpec>;

/// What says where pools of `MetalLB`'s are announced.
pub type L2Advertisement = Object<L2AdvertisementSpec>;

/// A pool of `MetalLB`'s, of the kind that came before `IPAddressPool`.
pub type LegacyPool = Object<LegacyPoolSpec>;

/// The same in the version that came first, which some API servers have alone (`MetalLB`'s operator up to 4.9).
pub type OldestPool = Object<OldestPoolSpec>;

impl Kind for IPAddressPoolSpec {
    const KIND: &'static str = "IPAddressPool";
    const PLURAL: &'static str = "ipaddresspools";
    const FIELDS: &'static [&'static str] =
        &["addresses", "autoAssign", "avoidBuggyIPs", "serviceAllocation"];
}

impl Kind for L2AdvertisementSpec {
    const KIND: &'static str = "L2Advertisement";
    const PLURAL: &'static str = "l2advertisements";
    const FIELDS: &'static [&'static str] = &[
        "ipAddressPools",
        "ipAddressPoolSelectors",
        "nodeSelectors",
        "preferredNodeSelectors",
        "interfaces",
        "serviceSelectors",
    ];
}

impl Kind for LegacyPoolSpec {
    const KIND: &'static str = "AddressPool";
    const PLURAL: &'static str = "addresspools";
    const FIELDS: &'static [&'static str] =
        &["protocol", "addresses", "autoAssign", "bgpAdvertisements"];
}

impl Kind for OldestPoolSpec {
    const KIND: &'static str = LegacyPoolSpec::KIND;
    const PLURAL: &'static str = LegacyPoolSpec::PLURAL;
    const VERSION: &'static str = "v1alpha1";
    const FIELDS: &'static [&'static str] = LegacyPoolSpec::FIELDS;
}

impl From<OldestPool> for LegacyPool {
    fn from(OldestPool { metadata, spec }: OldestPool) -> Self {
        let Written { meaning, unknown } = spec;
        let spec = Written { meaning: meaning.map(|OldestPoolSpec(spec)| spec), unknown };
        Self { metadata, spec }
    }
}

/// What an `IPAddressPool` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IPAddressPoolSpec {
    /// CIDRs and ranges.
    pub addresses: Vec<String>,
    /// Whether Services that name no pool get addresses from it; absent means yes.
    pub auto_assign: Option<bool>,
    /// Whether IPv4 addresses that end in .0 or .255 are never given out.
    #[serde(rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,
    /// Who may have its addresses.
    pub service_allocation: Option<ServiceAllocation>,
}

/// Who may have addresses of an `IPAddressPool`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceAllocation {
    /// The lower, the earlier; 0 comes last.
    pub priority: i64,
    /// Namespaces, by name.
    pub namespaces: Vec<String>,
    /// Namespaces, by their labels.
    pub namespace_selectors: Vec<LabelSelector>,
    /// Services, by their labels.
    pub service_selectors: Vec<LabelSelector>,
}

/// What an `AddressPool` of `MetalLB`'s asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LegacyPoolSpec {
    /// How its addresses are announced: `layer2`.
    pub protocol: String,
    /// CIDRs and ranges.
    pub addresses: Vec<String>,
    /// Whether Services that name no pool get addresses from it; absent means yes.
    pub auto_assign: Option<bool>,
}

/// The same in the version that came first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OldestPoolSpec(pub LegacyPoolSpec);

/// What an `L2Advertisement` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct L2AdvertisementSpec {
    /// The pools that it announces, by name.
    #[serde(rename = "ipAddressPools")]
    pub ip_address_pools: Vec<String>,
    /// The pools that it announces, by their labels. With neither, every pool.
    #[serde(rename = "ipAddressPoolSelectors")]
    pub ip_address_pool_selectors: Vec<LabelSelector>,
    /// The nodes that may announce.
    pub node_selectors: Vec<LabelSelector>,
    /// The nodes that rather should.
    pub preferred_node_selectors: Vec<PreferredNodes>,
    /// The interfaces to announce on, by their whole names.
    pub interfaces: Vec<String>,
    /// The Services that it is for.
    pub service_selectors: Vec<LabelSelector>,
}

/// An `L2Advertisement` that selects what it says.
#[derive(Debug, Clone)]
pub struct Advertisement {
    /// What it was read from.
    spec: L2AdvertisementSpec,
    pools: BTreeSet<String>,
    selectors: Vec<Selector>,
    rule: AnnounceRule,
}

impl Advertisement {
    /// Reads an advertisement.
    ///
    /// # Errors
    /// The first field or selector that is not one; the advertisement is not used then, and others are.
    pub fn parse(object: &L2Advertisement) -> Result<Self, PoolError> {
        let spec = object.spec.meaning.as_ref().map_err(|why| PoolError::Format(why.clone()))?;
        Self::of(spec)
    }

    /// The same, of a spec that was understood.
    ///
    /// # Errors
    /// The first selector that is not one.
    pub fn of(spec: &L2AdvertisementSpec) -> Result<Self, PoolError> {
        let interfaces = spec.interfaces.iter().cloned().map(InterfacePattern).collect();
        let rule = AnnounceRule {
            node_selectors: spec.node_selectors.clone(),
            preferred_nodes: spec.preferred_node_selectors.clone(),
            interfaces,
            service_selectors: spec.service_selectors.clone(),
            ..AnnounceRule::default()
        };
        check_announce("spec", std::slice::from_ref(&rule))?;
        let field = "spec.ipAddressPoolSelectors";
        Ok(Self {
            spec: spec.clone(),
            pools: spec.ip_address_pools.iter().cloned().collect(),
            selectors: selector::parse_all(field, &spec.ip_address_pool_selectors)?,
            rule,
        })
    }

    /// The spec that it was read from.
    pub fn spec(&self) -> &L2AdvertisementSpec {
        &self.spec
    }

    /// Whether it says where `pool` is announced.
    pub fn selects(&self, pool: &IPAddressPool) -> bool {
        let all = self.pools.is_empty() && self.selectors.is_empty();
        let named = self.pools.contains(&pool.name_any());
        all || named || self.selectors.iter().any(|it| it.matches(pool.labels()))
    }
}

impl<S: Kind> Object<S> {
    /// Its fields that mean nothing here.
    pub fn unknown_fields(&self) -> impl Iterator<Item = Remark> {
        self.spec.unknown.iter().map(|field| {
            let known = S::FIELDS.join(", ");
            let message = format!(
                "spec.{field} is ignored, since it means nothing here: the fields are {known}"
            );
            Remark { reason: "UnknownKey", message }
        })
    }

    fn declaration(
        &self,
        origin: Origin,
        pool: Result<Pool, InvalidPool>,
        announcement: Announcement,
    ) -> Declaration {
        Declaration {
            object: self.object_ref(&()),
            generation: self.metadata.generation,
            origin,
            created: self.creation_timestamp(),
            pool,
            announcement,
            probing: true,
            ends: self.metadata.deletion_timestamp.is_some(),
        }
    }

    /// The pool that `read` finds in the spec, unless that is not understood.
    fn pool(
        &self,
        read: impl FnOnce(PoolName, &S) -> Result<Pool, InvalidPool>,
    ) -> Result<Pool, InvalidPool> {
        let name = PoolName::from(self.name_any());
        match &self.spec.meaning {
            Ok(spec) => read(name, spec),
            // What is not understood may say for whom it is.
            Err(why) => Err(invalid(name, why.as_str()).is_for(Err(()))),
        }
    }
}

impl IPAddressPool {
    /// The pool, announced as those of `advertisements` say that select it, and what its author should know. `all_known`:
    /// whether these are all advertisements; if not, one that cannot be read may be for this pool.
    pub fn declare<'a>(
        &self,
        advertisements: impl IntoIterator<Item = &'a Advertisement>,
        all_known: bool,
    ) -> (Declaration, Vec<Remark>) {
        let mut remarks: Vec<Remark> = self.unknown_fields().collect();
        let pool = self.pool(|name, spec| spec.to_pool(&name, &mut remarks));
        let selecting = advertisements.into_iter().filter(|it| it.selects(self));
        let rules: Vec<AnnounceRule> = selecting.map(|it| it.rule.clone()).collect();
        let announcement = match (rules.is_empty(), all_known) {
            (false, _) => Announcement::ByRules(rules),
            (true, true) => Announcement::Nowhere,
            (true, false) => Announcement::Unknown,
        };
        if announcement == Announcement::Nowhere {
            remarks.push(not_advertised(&self.name_any()));
        }
        let origin = Origin::IpAddressPool {
            namespace: self.namespace().unwrap_or_default(),
            name: self.name_any(),
        };
        (self.declaration(origin, pool, announcement), remarks)
    }
}

impl LegacyPool {
    /// The pool, announced everywhere, and what its author should know.
    pub fn declare(&self) -> (Declaration, Vec<Remark>) {
        let mut remarks: Vec<Remark> = self.unknown_fields().collect();
        let pool = self.pool(|name, spec| spec.to_pool(&name, &mut remarks));
        let origin = Origin::LegacyPool {
            namespace: self.namespace().unwrap_or_default(),
            name: self.name_any(),
        };
        (self.declaration(origin, pool, Announcement::Everywhere), remarks)
    }
}

impl IPAddressPoolSpec {
    fn to_pool(&self, name: &PoolName, remarks: &mut Vec<Remark>) -> Result<Pool, InvalidPool> {
        let rules = self.service_allocation.as_ref().map(|it| it.to_rules(name)).transpose();
        let is_for = |invalid: InvalidPool| invalid.is_for(rules.clone());
        Ok(Pool {
            auto_assign: self.auto_assign.unwrap_or(true),
            avoid_buggy_ips: self.avoid_buggy_ips,
            rules: rules.clone().map_err(is_for)?,
            ..pool_of(name, &self.addresses, remarks).map_err(is_for)?
        })
    }
}

impl LegacyPoolSpec {
    fn to_pool(&self, name: &PoolName, remarks: &mut Vec<Remark>) -> Result<Pool, InvalidPool> {
        if self.protocol != "layer2" {
            let why = format!(
                "spec.protocol is {:?}: addresses are announced at layer 2 only, write layer2",
                self.protocol
            );
            return Err(invalid(name.clone(), why));
        }
        let pool = pool_of(name, &self.addresses, remarks)?;
        Ok(Pool { auto_assign: self.auto_assign.unwrap_or(true), ..pool })
    }
}

fn pool_of(
    name: &PoolName,
    addresses: &[String],
    remarks: &mut Vec<Remark>,
) -> Result<Pool, InvalidPool> {
    let wrong = |error| InvalidPool::new(name.clone(), error);
    match ranges(addresses, remarks).map_err(wrong)? {
        none if none.is_empty() => Err(wrong(PoolError::NoAddresses)),
        ranges => Ok(Pool::new(name.clone(), ranges)),
    }
}

impl ServiceAllocation {
    fn to_rules(&self, pool: &PoolName) -> Result<AllocationRules, InvalidPool> {
        let mut namespaces = BTreeSet::new();
        for namespace in &self.namespaces {
            if !namespaces.insert(namespace.clone()) {
                let why = format!("namespace {namespace:?} is listed twice: remove one");
                return Err(invalid(pool.clone(), why));
            }
        }
        let wrong = |error| InvalidPool::new(pool.clone(), error);
        let (field, list) =
            ("spec.serviceAllocation.namespaceSelectors", &self.namespace_selectors);
        let namespace_selectors = selector::parse_all(field, list).map_err(wrong)?;
        let (field, list) = ("spec.serviceAllocation.serviceSelectors", &self.service_selectors);
        let service_selectors = selector::parse_all(field, list).map_err(wrong)?;
        // Negative numbers come first with `MetalLB`, as 1 does here.
        let priority = u32::try_from(self.priority.max(i64::from(self.priority < 0)));
        Ok(AllocationRules {
            priority: priority.unwrap_or(u32::MAX),
            namespaces,
            namespace_selectors,
            service_selectors,
        })
    }
}

fn not_advertised(pool: &str) -> Remark {
    let message = format!(
        "no L2Advertisement selects pool \"{pool}\": Services get its addresses and nobody answers there; create one, or \
         set autoAssign to false if they are not to be used"
    );
    Remark { reason: "NotAdvertised", message }
}

/// The ranges that `MetalLB` would read in `items`, with a remark where it reads more than stands there.
///
/// # Errors
/// The first item that is not a CIDR or a range.
pub(crate) fn ranges(
    items: &[String],
    remarks: &mut Vec<Remark>,
) -> Result<Vec<AddressRange>, PoolError> {
    let mut ranges = Vec::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        let wrong = |error| PoolError::Address {
            list: "address",
            position,
            of: items.len(),
            error: Box::new(error),
        };
        let range = match item.parse::<AddressRange>() {
            Ok(range) if !item.contains(['/', '-']) => {
                let bits = range.family().bits();
                let why = format!("address {} of {}", position + 1, items.len());
                let item = item.trim();
                return Err(PoolError::Format(format!(
                    "{why}: a single address needs its prefix length here: write {item}/{bits}"
                )));
            }
            Err(RangeError::HostBits { text, network, .. }) => {
                remarks.push(masked(&text, &network));
                network.parse().map_err(wrong)?
            }
            other => other.map_err(wrong)?,
        };
        ranges.push(range);
    }
    Ok(ranges)
}

fn masked(text: &str, network: &str) -> Remark {
    let message = format!(
        "{text} has host bits set and is taken for all of {network}, as MetalLB does: write {network} if that is meant"
    );
    Remark { reason: "HostBitsMasked", message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pool(labels: &Value, spec: &Value) -> IPAddressPool {
        serde_json::from_value(json!({
            "apiVersion": "metallb.io/v1beta1",
            "kind": "IPAddressPool",
            "metadata": { "namespace": "metallb-system", "name": "lan", "labels": labels },
            "spec": spec,
        }))
        .unwrap()
    }

    fn advertisement(spec: &Value) -> Advertisement {
        Advertisement::parse(&l2(&json!({ "spec": spec }))).unwrap()
    }

    /// An advertisement as it comes from the API server.
    fn l2(object: &Value) -> L2Advertisement {
        serde_json::from_value(object.clone()).unwrap()
    }

    fn declare(spec: &Value) -> (Result<Pool, InvalidPool>, Vec<Remark>) {
        let everything = advertisement(&json!({}));
        let (declaration, remarks) = pool(&json!({}), spec).declare([&everything], true);
        (declaration.pool, remarks)
    }

    #[test]
    fn a_pool_keeps_all_that_it_says() {
        let (pool, remarks) = declare(&json!({
            "addresses": ["192.168.1.0/24", "192.168.2.1 - 192.168.2.9", "fd00::/64"],
            "autoAssign": false,
            "avoidBuggyIPs": true,
            "serviceAllocation": {
                "priority": 50,
                "namespaces": ["a"],
                "namespaceSelectors": [{ "matchLabels": { "team": "a" } }],
                "serviceSelectors": [{ "matchExpressions": [{ "key": "app", "operator": "Exists" }] }],
            },
        }));
        let pool = pool.unwrap();
        let shown: Vec<String> = pool.ranges.iter().map(ToString::to_string).collect();
        assert_eq!(shown[1], "192.168.2.1-192.168.2.9");
        assert_eq!((pool.auto_assign, pool.avoid_buggy_ips, shown.len()), (false, true, 3));
        let rules = pool.rules.unwrap();
        assert_eq!((rules.priority, rules.namespaces.len()), (50, 1));
        assert_eq!((rules.namespace_selectors.len(), rules.service_selectors.len()), (1, 1));
        assert_eq!(remarks, []);
    }

    #[test]
    fn host_bits_are_masked_with_a_remark() {
        let (pool, remarks) = declare(&json!({ "addresses": ["192.168.1.240/24", "10.0.0.1/32"] }));
        assert_eq!(pool.unwrap().ranges[0].to_string(), "192.168.1.0-192.168.1.255");
        assert_eq!(remarks.len(), 1);
        assert!(remarks[0].message.contains("all of 192.168.1.0/24"), "{}", remarks[0].message);
    }

    #[test]
    fn what_metallb_refuses_is_refused() {
        let selectors = json!([{ "matchExpressions": [{ "key": "a", "operator": "In" }] }]);
        let table = [
            (json!({ "addresses": [] }), "it has no addresses"),
            (json!({ "addresses": ["10.0.0.1"] }), "write 10.0.0.1/32"),
            (json!({ "addresses": ["10.0.0.1/32", "fd00::1"] }), "address 2 of 2: a single"),
            (json!({ "addresses": ["10.0.0.9-10.0.0.1"] }), "starts after its end"),
            (json!({ "addresses": ["10.0.0.1-fd00::1"] }), "mixes IPv4 and IPv6"),
            (json!({ "addresses": ["10.0.0.0/33"] }), "from 0 to 32"),
            (
                json!({ "addresses": ["10.0.0.1/32"], "serviceAllocation": { "namespaces": ["a", "a"] } }),
                "namespace \"a\" is listed twice",
            ),
            (
                json!({
                    "addresses": ["10.0.0.1/32"],
                    "serviceAllocation": { "serviceSelectors": selectors },
                }),
                "spec.serviceAllocation.serviceSelectors[0]: a: In needs",
            ),
        ];
        for (spec, message) in table {
            let error = declare(&spec).0.unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn advertisements_select_pools_by_name_or_labels_or_all() {
        let table = [
            (json!({}), true),
            (json!({ "ipAddressPools": ["lan"] }), true),
            (json!({ "ipAddressPools": ["other"] }), false),
            (json!({ "ipAddressPoolSelectors": [{ "matchLabels": { "zone": "a" } }] }), true),
            (json!({ "ipAddressPoolSelectors": [{ "matchLabels": { "zone": "b" } }] }), false),
            (
                json!({
                    "ipAddressPools": ["other"],
                    "ipAddressPoolSelectors": [{ "matchLabels": { "zone": "a" } }],
                }),
                true,
            ),
        ];
        let pool = pool(&json!({ "zone": "a" }), &json!({ "addresses": ["10.0.0.1/32"] }));
        for (spec, selected) in table {
            let (declaration, remarks) = pool.declare([&advertisement(&spec)], true);
            assert_eq!(declaration.announcement != Announcement::Nowhere, selected, "{spec}");
            assert_eq!(remarks.iter().any(|it| it.reason == "NotAdvertised"), !selected, "{spec}");
        }
    }

    #[test]
    fn what_advertisements_say_adds_up() {
        let first = advertisement(&json!({ "interfaces": ["eth0"] }));
        let second = advertisement(&json!({
            "nodeSelectors": [{ "matchLabels": { "a": "b" } }],
            "preferredNodeSelectors": [{ "weight": 7, "preference": {} }],
        }));
        let pool = pool(&json!({}), &json!({ "addresses": ["10.0.0.1/32"] }));
        let (declaration, _) = pool.declare([&first, &second], true);
        assert_eq!(declaration.origin.to_string(), "IPAddressPool metallb-system/lan");
        let Announcement::ByRules(rules) = declaration.announcement else { panic!("no rules") };
        assert_eq!(rules[0].interfaces, [InterfacePattern("eth0".to_owned())]);
        assert_eq!(rules[1].preferred_nodes[0].weight, 7);
    }

    #[test]
    fn an_advertisement_that_is_none_is_refused() {
        let near = json!([{ "matchExpressions": [{ "key": "a", "operator": "Near" }] }]);
        let table = [
            (json!({ "nodeSelectors": near }), "nodeSelectors[0]: a: \"Near\" is no operator"),
            (json!({ "interfaces": "eth0" }), "spec.interfaces: invalid type"),
            (json!({ "ipAddressPools": [1] }), "spec.ipAddressPools: invalid type"),
            (json!({ "ipAddressPools": [null] }), "spec.ipAddressPools: invalid type: null"),
            (json!({ "nodeSelectors": [null] }), "spec.nodeSelectors: invalid type: null"),
            (json!({ "interfaces": [null, "eth0"] }), "spec.interfaces: invalid type: null"),
            (json!("all"), "spec: invalid type"),
        ];
        for (spec, message) in table {
            let error = Advertisement::parse(&l2(&json!({ "spec": spec }))).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
    }

    #[test]
    fn an_advertisement_that_says_nothing_is_for_every_pool() {
        let pool = pool(&json!({}), &json!({ "addresses": ["10.0.0.1/32"] }));
        let table = [
            json!({}),
            json!({ "spec": null }),
            json!({ "spec": {} }),
            json!({ "spec": { "ipAddressPools": null, "nodeSelectors": [], "interfaces": null } }),
            json!({ "spec": { "nodeSelectors": [{ "matchLabels": null }], "aggregation": 1 } }),
        ];
        for object in table {
            let advertisement = Advertisement::parse(&l2(&object)).unwrap();
            let (declaration, _) = pool.declare([&advertisement], true);
            assert!(matches!(declaration.announcement, Announcement::ByRules(_)), "{object}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_refused_by_name() {
        let bad = |spec| declare(&spec).0.unwrap_err().to_string();
        assert_eq!(bad(json!(null)), "it has no addresses: add some");
        assert_eq!(bad(json!({ "addresses": null })), "it has no addresses: add some");
        let table = [
            (json!({ "addresses": "10.0.0.1/32" }), "spec.addresses: invalid type"),
            (json!({ "addresses": [7] }), "spec.addresses: invalid type"),
            (json!({ "addresses": [], "autoAssign": "no" }), "spec.autoAssign: invalid type"),
            (
                json!({ "serviceAllocation": { "priority": "a" } }),
                "spec.serviceAllocation: invalid",
            ),
            (json!([]), "it has no addresses"),
            (json!(true), "spec: invalid type"),
            (json!({ "addresses": ["10.0.0.1/32", null] }), "spec.addresses: invalid type: null"),
            (
                json!({ "addresses": ["10.0.0.1/32"], "serviceAllocation": { "namespaces": [null] } }),
                "spec.serviceAllocation: invalid type: null",
            ),
        ];
        for (spec, message) in table {
            let error = bad(spec);
            assert!(error.contains(message), "{error}");
        }
        let without: IPAddressPool = serde_json::from_value(json!({
            "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": { "name": "a" },
        }))
        .unwrap();
        let (declaration, _) = without.declare([], true);
        assert_eq!(declaration.pool.unwrap_err().to_string(), "it has no addresses: add some");
    }

    #[test]
    fn fields_that_mean_nothing_are_named_and_null_is_nothing() {
        let (pool, remarks) = declare(&json!({
            "addresses": ["10.0.0.1/32"],
            "autoAssign": null,
            "serviceAllocation": { "namespaces": null, "serviceSelectors": [{ "matchLabels": null }] },
            "autoasign": false,
        }));
        assert!(pool.unwrap().auto_assign);
        assert_eq!(remarks.len(), 1);
        assert!(remarks[0].message.starts_with("spec.autoasign is ignored"), "{remarks:?}");
    }

    #[test]
    fn the_kind_that_came_before_is_read_too() {
        let legacy = |spec: Value| {
            let object: LegacyPool =
                serde_json::from_value(json!({ "metadata": { "name": "old" }, "spec": spec }))
                    .unwrap();
            object.declare().0
        };
        let good = legacy(json!({
            "protocol": "layer2", "addresses": ["10.0.0.1/32"], "autoAssign": false,
        }));
        assert_eq!(good.announcement, Announcement::Everywhere);
        assert!(!good.pool.unwrap().auto_assign);
        let table = [
            (
                json!({ "protocol": "bgp", "addresses": ["10.0.0.1/32"] }),
                "spec.protocol is \"bgp\"",
            ),
            (json!({ "protocol": "layer2" }), "it has no addresses"),
        ];
        for (spec, message) in table {
            let error = legacy(spec).pool.unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn while_an_advertisement_cannot_be_read_the_rest_is_unknown() {
        let pool = pool(&json!({}), &json!({ "addresses": ["10.0.0.1/32"] }));
        let (declaration, remarks) = pool.declare([], false);
        assert_eq!((declaration.announcement, remarks.len()), (Announcement::Unknown, 0));
        let (declaration, _) = pool.declare([&advertisement(&json!({}))], false);
        assert!(matches!(declaration.announcement, Announcement::ByRules(_)));
    }
}

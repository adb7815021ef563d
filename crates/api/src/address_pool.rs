//! The `AddressPool` resource: a named set of addresses for Services of type `LoadBalancer`.
//!
//! What one object can tell about itself is checked by the API server, with the schema and the rules below, so that a
//! mistake is refused by `kubectl apply`. What it cannot check (host bits of an IPv6 CIDR, whether a range runs backwards,
//! whether two pools overlap) shows as a condition.

#![allow(clippy::duplicated_attributes, reason = "columns of one type are no duplicates")]

mod schema;
mod status;

use std::time::Duration;

use arpeggio_ipam::{
    AllocationRules, InvalidPool, Pool, PoolError, PoolName, SharingScope, parse_ranges,
};
use kube::{CustomResource, ResourceExt};
use schemars::JsonSchema;
use serde::{
    Deserialize, Serialize,
    de::{
        IntoDeserializer,
        value::{Error as ValueError, StrDeserializer},
    },
};

pub(crate) use self::status::still_in_force;
pub use self::status::{AddressPoolStatus, FamilyUsage, OVERLAPPING, READY};
use crate::selector::{self, LabelSelector};

/// What an `AddressPool` asks for.
#[derive(CustomResource, JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "arpeggio.dev",
    version = "v1alpha1",
    kind = "AddressPool",
    doc = "A named set of addresses that Services of type LoadBalancer get theirs from. By default it gives addresses \
           to every such Service, and they are announced on the local network: no second object is needed.",
    status = "AddressPoolStatus",
    derive = "PartialEq",
    shortname = "apool",
    category = "arpeggio",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the pool gives addresses as its spec says"
    ),
    printcolumn(
        name = "Auto",
        type_ = "boolean",
        json_path = ".spec.autoAssign",
        description = "Whether Services that name no pool get addresses from it"
    ),
    printcolumn(name = "IPv4 used", type_ = "integer", json_path = ".status.ipv4.used"),
    printcolumn(name = "IPv4 free", type_ = "integer", json_path = ".status.ipv4.free"),
    printcolumn(name = "IPv6 used", type_ = "integer", json_path = ".status.ipv6.used"),
    printcolumn(name = "IPv6 free", type_ = "integer", json_path = ".status.ipv6.free"),
    printcolumn(
        name = "Overlapping",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Overlapping\")].status",
        description = "Whether somebody else uses the same addresses",
        priority = 1
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why the pool does or does not give addresses as its spec says"
    ),
    printcolumn(name = "Addresses", type_ = "string", json_path = ".spec.addresses", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_excessive_bools, reason = "they are the fields that users write")]
pub struct AddressPoolSpec {
    /// The addresses, IPv4 and IPv6. Each item is a CIDR (192.168.1.240/28), a range
    /// (192.168.1.240-192.168.1.250) or a single address. Every address of a CIDR is given out, the first and the last
    /// one included.
    #[schemars(length(min = 1, max = 256))]
    pub addresses: Vec<AddressItem>,

    /// Addresses among them that are never given out, written in the same ways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub excluded_addresses: Vec<AddressItem>,

    /// Whether Services that name no pool get addresses from this one. When false, only Services with the annotation
    /// arpeggio.dev/address-pool or arpeggio.dev/addresses do.
    #[serde(default = "yes")]
    pub auto_assign: bool,

    /// Whether IPv4 addresses that end in .0 or .255 are never given out, not on request either. Some old devices take
    /// them for the address or the broadcast address of a network, whatever the netmask says.
    #[serde(default, rename = "avoidBuggyIPs", skip_serializing_if = "is_false")]
    pub avoid_buggy_ips: bool,

    /// Who may have addresses of this pool, and how eagerly it is used. Without it, everybody may; with it, the pool
    /// is tried before pools without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<Allocation>,

    /// Where addresses of this pool are announced: wherever one of these rules allows. Without rules, on every node, on
    /// the interfaces whose subnet contains the address. A Service that no rule is for gets an address that nobody
    /// announces, and a condition that says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub announce: Vec<AnnounceRule>,

    /// Whether traffic comes by a route instead, so that no node announces the addresses of this pool: a router on the
    /// segment forwards them to the nodes. It excludes announce.
    #[serde(default, skip_serializing_if = "is_false")]
    pub routed: bool,

    /// For how many seconds an address that a Service gave back is given to nobody, so that clients forget whom they
    /// met there.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 604_800))]
    pub reuse_cool_down_seconds: i32,

    /// Whose Services may share one of its addresses, where they have the same sharing key (annotation
    /// arpeggio.dev/sharing-key) and listen on different ports: those of one namespace (Namespace), or of any
    /// (Cluster). Services with externalTrafficPolicy Local share within their namespace only.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sharing: Sharing,

    /// Whether an address is probed before it is announced for the first time, so that a stranger's address is left
    /// alone: whoever waits for it gets another one.
    #[serde(default = "yes")]
    pub conflict_probing: bool,
}

/// Whose Services may share an address.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sharing {
    /// Those of one namespace.
    #[default]
    Namespace,
    /// Those of any namespaces.
    Cluster,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl From<Sharing> for SharingScope {
    fn from(sharing: Sharing) -> Self {
        match sharing {
            Sharing::Namespace => Self::Namespace,
            Sharing::Cluster => Self::Cluster,
        }
    }
}

impl From<SharingScope> for Sharing {
    fn from(scope: SharingScope) -> Self {
        match scope {
            SharingScope::Namespace => Self::Namespace,
            SharingScope::Cluster => Self::Cluster,
        }
    }
}

/// Which nodes serve an address.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Spread {
    /// The one that announces it.
    #[default]
    None,
    /// All that can: the one that announces it gives each of them its part of the connections.
    Nodes,
}

impl Spread {
    /// What somebody has written; `None` when it is not known.
    pub fn named(text: &str) -> Option<Self> {
        let text: StrDeserializer<'_, ValueError> = text.into_deserializer();
        Self::deserialize(text).ok()
    }
}

/// Who may have addresses of a pool. A Service fits when its namespace is listed in namespaces or selected by one of
/// namespaceSelectors, and when one of serviceSelectors selects it. What is not given asks nothing. Selectors that
/// select nothing mean that nobody fits.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// Among the pools that fit, the one with the lowest number is tried first; 0 comes last.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub priority: i32,

    /// Namespaces, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub namespaces: Vec<String>,

    /// Namespaces, by their labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub namespace_selectors: Vec<LabelSelector>,

    /// Services, by their labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub service_selectors: Vec<LabelSelector>,
}

/// Where addresses are announced, and for which Services.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnnounceRule {
    /// The nodes that may announce, by their labels: those that one of these selects; all when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub node_selectors: Vec<LabelSelector>,

    /// Among the nodes that may announce, those that rather should. The weights of all that select a node add up; the
    /// greatest sum wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub preferred_nodes: Vec<PreferredNodes>,

    /// The interfaces to announce on, by their names: those that one of these matches as a whole, where * stands for
    /// any number of characters and ? for one. When there are none, the interfaces whose subnet contains the address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub interfaces: Vec<InterfacePattern>,

    /// The Services that this rule is for, by their labels: those that one of these selects; all when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub service_selectors: Vec<LabelSelector>,

    /// Which nodes serve the addresses of the Services that this rule is for: the one that announces an address (none), or all
    /// nodes that can (nodes), for which each of them needs the forwarder. A Service's annotation arpeggio.dev/spread says
    /// otherwise.
    #[serde(default, skip_serializing_if = "is_default")]
    pub spread: Spread,
}

/// Nodes that should rather announce than others.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreferredNodes {
    /// How much being selected counts.
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// The nodes, by their labels.
    pub preference: LabelSelector,
}

/// One item of `spec.addresses` or `spec.excludedAddresses`, as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AddressItem(pub String);

/// A pattern of interface names, as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InterfacePattern(pub String);

pub(crate) fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
pub(crate) fn is_false(value: &bool) -> bool {
    !value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
fn is_zero(value: &i32) -> bool {
    *value == 0
}

impl AsRef<str> for AddressItem {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Default for AddressPoolSpec {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            excluded_addresses: Vec::new(),
            auto_assign: yes(),
            avoid_buggy_ips: false,
            allocation: None,
            announce: Vec::new(),
            routed: false,
            reuse_cool_down_seconds: 0,
            sharing: Sharing::default(),
            conflict_probing: yes(),
        }
    }
}

impl AddressPool {
    /// The pool as the allocator knows it.
    ///
    /// # Errors
    /// The first thing that is not what it should be; the whole pool is not used then.
    pub fn to_pool(&self) -> Result<Pool, InvalidPool> {
        let rules = self.spec.allocation.as_ref().map(Allocation::to_rules).transpose();
        self.with_rules(rules.clone()).map_err(|invalid| invalid.is_for(rules))
    }

    fn with_rules(
        &self,
        rules: Result<Option<AllocationRules>, PoolError>,
    ) -> Result<Pool, InvalidPool> {
        let (name, spec) = (PoolName::from(self.name_any()), &self.spec);
        let invalid = |error| InvalidPool::new(name.clone(), error);
        check_announce("spec.announce", &spec.announce).map_err(invalid)?;
        if spec.routed && !spec.announce.is_empty() {
            let why = "spec.routed says that no node announces the addresses, and spec.announce where: remove one of both";
            return Err(invalid(PoolError::Format(why.to_owned())));
        }
        Ok(Pool {
            excluded: parse_ranges("excluded address", &spec.excluded_addresses)
                .map_err(invalid)?,
            auto_assign: spec.auto_assign,
            avoid_buggy_ips: spec.avoid_buggy_ips,
            rules: rules.map_err(invalid)?,
            cool_down: seconds(spec.reuse_cool_down_seconds),
            sharing: spec.sharing.into(),
            ..Pool::parse(name.clone(), &spec.addresses)?
        })
    }
}

impl Allocation {
    fn to_rules(&self) -> Result<AllocationRules, PoolError> {
        Ok(AllocationRules {
            priority: u32::try_from(self.priority).unwrap_or_default(),
            namespaces: self.namespaces.iter().cloned().collect(),
            namespace_selectors: selector::parse_all(
                "spec.allocation.namespaceSelectors",
                &self.namespace_selectors,
            )?,
            service_selectors: selector::parse_all(
                "spec.allocation.serviceSelectors",
                &self.service_selectors,
            )?,
        })
    }
}

/// The schema refuses negative numbers.
fn seconds(count: i32) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or_default())
}

/// Refuses rules that nobody could obey. `field` is where they stand.
///
/// # Errors
/// The first selector that is not one.
pub fn check_announce(field: &str, rules: &[AnnounceRule]) -> Result<(), PoolError> {
    for (position, rule) in rules.iter().enumerate() {
        let at = |list: &str| format!("{field}[{position}].{list}");
        let preferred: Vec<&LabelSelector> =
            rule.preferred_nodes.iter().map(|nodes| &nodes.preference).collect();
        selector::parse_all(&at("nodeSelectors"), &rule.node_selectors)?;
        selector::parse_all(&at("preferredNodes"), preferred)?;
        selector::parse_all(&at("serviceSelectors"), &rule.service_selectors)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(spec: Value) -> Result<Pool, InvalidPool> {
        AddressPool::new("home", serde_json::from_value(spec).unwrap()).to_pool()
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let spec: AddressPoolSpec = serde_json::from_value(json!({ "addresses": [] })).unwrap();
        assert_eq!(spec, AddressPoolSpec::default());
        assert!(spec.auto_assign && spec.conflict_probing);
        let pool = parse(json!({ "addresses": ["10.0.0.1"] })).unwrap();
        assert_eq!(pool, Pool::new("home".into(), vec!["10.0.0.1".parse().unwrap()]));
    }

    #[test]
    fn spread_is_named_as_it_is_written() {
        for spread in [Spread::None, Spread::Nodes] {
            let written = serde_json::to_value(spread).unwrap();
            assert_eq!(Spread::named(written.as_str().unwrap()), Some(spread));
        }
        assert_eq!(Spread::named("Nodes"), None);
        let rule: AnnounceRule = serde_json::from_value(json!({ "spread": "nodes" })).unwrap();
        assert_eq!(rule, AnnounceRule { spread: Spread::Nodes, ..AnnounceRule::default() });
        assert_eq!(serde_json::to_value(AnnounceRule::default()).unwrap(), json!({}));
    }

    #[test]
    fn everything_that_can_be_said_reaches_the_allocator() {
        let pool = parse(json!({
            "addresses": ["10.0.0.0/24", "fd00::/64"],
            "excludedAddresses": ["10.0.0.1-10.0.0.9"],
            "autoAssign": false,
            "avoidBuggyIPs": true,
            "allocation": {
                "priority": 5,
                "namespaces": ["shop"],
                "namespaceSelectors": [{ "matchLabels": { "team": "a" } }],
                "serviceSelectors": [{ "matchExpressions": [{ "key": "app", "operator": "Exists" }] }],
            },
            "reuseCoolDownSeconds": 90,
            "sharing": "Cluster",
        }))
        .unwrap();
        assert_eq!((pool.ranges.len(), pool.excluded.len()), (2, 1));
        assert_eq!((pool.auto_assign, pool.avoid_buggy_ips), (false, true));
        assert_eq!(
            (pool.cool_down, pool.sharing),
            (Duration::from_secs(90), SharingScope::Cluster)
        );
        let rules = pool.rules.unwrap();
        assert_eq!(rules.priority, 5);
        assert!(rules.namespaces.contains("shop"));
        assert_eq!((rules.namespace_selectors.len(), rules.service_selectors.len()), (1, 1));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let bad = json!([{ "matchExpressions": [{ "key": "app", "operator": "In" }] }]);
        let table = [
            (json!({ "excludedAddresses": ["10.0.0.256"] }), "excluded address 1 of 1"),
            (
                json!({ "allocation": { "serviceSelectors": bad } }),
                "spec.allocation.serviceSelectors[0]: app: In needs at least one value",
            ),
            (
                json!({ "announce": [{}, { "nodeSelectors": bad }] }),
                "spec.announce[1].nodeSelectors[0]: app: In needs at least one value",
            ),
            (json!({ "announce": [{}], "routed": true }), "remove one of both"),
            (json!({ "announce": [{ "spread": "nodes" }], "routed": true }), "remove one of both"),
        ];
        for (mut spec, message) in table {
            spec["addresses"] = json!(["10.0.0.1"]);
            let error = parse(spec).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}

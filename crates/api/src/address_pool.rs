//! The `AddressPool` resource: a named set of addresses for Services of type `LoadBalancer`.
//!
//! What one object can tell about itself is checked by the API server, with the schema and the rules below, so that a
//! mistake is refused by `kubectl apply`. What it cannot check (whether a range runs backwards, whether two pools
//! overlap) shows as the condition `Ready=False`.

#![allow(clippy::duplicated_attributes, reason = "columns of one type are no duplicates")]

use std::borrow::Cow;

use arpeggio_ipam::{Family, InvalidPool, Pool, PoolState, Usage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    CustomResource, ResourceExt,
    core::{Message, Rule},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::condition::{self, Finding};

/// The type of the condition that says whether a pool gives addresses.
pub const READY: &str = "Ready";

/// Longest item of `spec.addresses`: two IPv6 addresses and what may stand between them.
const LONGEST_ITEM: u32 = 96;

/// What an `AddressPool` asks for.
#[derive(
    CustomResource, JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize,
)]
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
        description = "Whether the pool gives addresses"
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
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why the pool does or does not give addresses"
    ),
    printcolumn(name = "Addresses", type_ = "string", json_path = ".spec.addresses", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolSpec {
    /// The addresses, IPv4 and IPv6. Each item is a CIDR (192.168.1.240/28), a range
    /// (192.168.1.240-192.168.1.250) or a single address. Every address of a CIDR is given out, the first and the last
    /// one included.
    #[schemars(length(min = 1, max = 256))]
    pub addresses: Vec<AddressItem>,

    /// Whether Services that name no pool get addresses from this one. When false, only Services with the annotation
    /// arpeggio.dev/address-pool do.
    #[serde(default = "auto_assign_by_default")]
    pub auto_assign: bool,
}

/// One item of `spec.addresses`, as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AddressItem(pub String);

/// What the controller reports about an `AddressPool`.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolStatus {
    /// `Ready` says whether the pool gives addresses; its reason tells why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// How many IPv4 addresses there are. Absent when the pool has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<FamilyUsage>,

    /// How many IPv6 addresses there are. Absent when the pool has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<FamilyUsage>,
}

/// How full a pool is, in addresses of one family. A number that does not fit shows as 9223372036854775807.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FamilyUsage {
    /// How many addresses the pool has.
    pub total: i64,
    /// How many of them Services hold.
    pub used: i64,
    /// How many it can still give; 0 while it is not ready.
    pub free: i64,
}

fn auto_assign_by_default() -> bool {
    true
}

impl AsRef<str> for AddressItem {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl JsonSchema for AddressItem {
    fn schema_name() -> Cow<'static, str> {
        "AddressItem".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": LONGEST_ITEM,
            "x-kubernetes-validations": item_rules().map(|rule| json!(rule)).collect::<Vec<Value>>(),
        })
    }
}

/// The rules for one item, in CEL. The API server's `isIP` and `isCIDR` refuse zones, leading zeros and IPv4-mapped
/// IPv6 addresses, as the pool's own parser does.
///
/// The API server bounds what rules may cost before it takes a definition: `format` costs what it is given, while a
/// string of unknown length that is joined with `+` counts as if it were of the greatest possible length.
fn item_rules() -> impl Iterator<Item = Rule> {
    const RANGE: &str = "self.split('-').size() == 2 && self.split('-').all(end, isIP(end.trim()))";
    let shape = (
        format!("isIP(self) || isCIDR(self) || ({RANGE})"),
        "'\"%s\" is not an address: write a CIDR (192.168.1.240/28), a range \
         (192.168.1.240-192.168.1.250) or a single address'.format([self])",
    );
    let host_bits = (
        "!isCIDR(self) || cidr(self) == cidr(self).masked()".to_owned(),
        "'%s has host bits set: did you mean %s or %s?'.format([self, \
         self.split('/')[0] + (self.contains(':') ? '/128' : '/32'), string(cidr(self).masked())])",
    );
    let family = (
        format!(
            "!({RANGE}) || ip(self.split('-')[0].trim()).family() == ip(self.split('-')[1].trim()).family()"
        ),
        "'%s mixes IPv4 and IPv6: write one range for each family'.format([self])",
    );
    [shape, host_bits, family]
        .into_iter()
        .map(|(rule, message)| Rule::new(rule).message(Message::Expression(message.to_owned())))
}

impl AddressPool {
    /// The pool as the allocator knows it.
    ///
    /// # Errors
    /// The first item that is not an address range; the whole pool is not used then.
    pub fn to_pool(&self) -> Result<Pool, InvalidPool> {
        let pool = Pool::parse(self.name_any().into(), &self.spec.addresses)?;
        Ok(Pool { auto_assign: self.spec.auto_assign, ..pool })
    }

    /// The status that says `state` and `usage`. Times of conditions that did not change are kept, so that the result
    /// equals the present status when there is nothing to say.
    #[must_use]
    pub fn status_with(
        &self,
        state: PoolState<'_>,
        usage: impl Fn(Family) -> Usage,
        now: Time,
    ) -> AddressPoolStatus {
        let present = self.status.as_ref().map(|status| status.conditions.as_slice());
        let ready = condition::of_type(present.unwrap_or_default(), READY);
        AddressPoolStatus {
            conditions: vec![ready_finding(state).observed(self.metadata.generation, ready, now)],
            ipv4: FamilyUsage::of(usage(Family::V4)),
            ipv6: FamilyUsage::of(usage(Family::V6)),
        }
    }
}

fn ready_finding(state: PoolState<'_>) -> Finding {
    let (holds, reason, message) = match state {
        PoolState::Usable => (true, "Valid", "the pool gives addresses".to_owned()),
        PoolState::Invalid(invalid) => (false, "InvalidAddresses", invalid.to_string()),
        PoolState::Overlapping(overlap) => (false, "Overlapping", overlap.to_string()),
    };
    Finding { type_: READY, holds, reason, message }
}

impl FamilyUsage {
    /// `None` when there are no addresses of the family.
    fn of(usage: Usage) -> Option<Self> {
        let shown = |count: u128| i64::try_from(count).unwrap_or(i64::MAX);
        (usage.total > 0).then(|| Self {
            total: shown(usage.total),
            used: shown(usage.used),
            free: shown(usage.free),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arpeggio_ipam::Allocator;

    fn pool(addresses: &[&str]) -> AddressPool {
        let addresses = addresses.iter().map(|text| AddressItem((*text).to_owned())).collect();
        AddressPool::new("home", AddressPoolSpec { addresses, auto_assign: true })
    }

    fn status(pool: &AddressPool, now: i64) -> AddressPoolStatus {
        let mut allocator = Allocator::default();
        allocator.set_pools([pool.to_pool()]);
        let (name, state) = allocator.pools().next().unwrap();
        let usage = |family| allocator.usage(name, family).unwrap();
        pool.status_with(state, usage, condition::tests::at(now))
    }

    #[test]
    fn auto_assign_is_on_unless_it_is_switched_off() {
        let spec: AddressPoolSpec = serde_json::from_str(r#"{"addresses":["10.0.0.1"]}"#).unwrap();
        assert!(spec.auto_assign);
    }

    #[test]
    fn counts_show_only_families_that_exist_and_saturate() {
        let status = status(&pool(&["fd00::/64"]), 0);
        assert_eq!(status.ipv4, None);
        let full = FamilyUsage { total: i64::MAX, used: 0, free: i64::MAX };
        assert_eq!(status.ipv6, Some(full));
    }

    #[test]
    fn a_broken_item_is_a_condition() {
        let status = status(&pool(&["10.0.0.9-10.0.0.5"]), 0);
        let ready = &status.conditions[0];
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "InvalidAddresses"));
        assert!(ready.message.contains("did you mean 10.0.0.5-10.0.0.9?"), "{}", ready.message);
    }

    #[test]
    fn without_news_the_status_stays_what_it_is() {
        let mut pool = pool(&["10.0.0.1"]);
        pool.status = Some(status(&pool, 0));
        assert_eq!(pool.status, Some(status(&pool, 100)));
    }
}

//! What the controller reports about an `AddressPool`.

use arpeggio_ipam::{AddressRange, Family, PoolState, Unusable, Usage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AddressPool, schema};
use crate::{
    cluster::ClusterRange,
    condition::{self, Finding},
};

/// The type of the condition that says whether a pool gives addresses as its spec says.
pub const READY: &str = "Ready";

/// The type of the condition that says whether a pool has addresses that somebody else uses: another pool, the
/// cluster's pods or its Services.
pub const OVERLAPPING: &str = "Overlapping";

/// What the controller reports about an `AddressPool`.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolStatus {
    /// Ready says whether the pool gives addresses as its spec says, Overlapping whether somebody else uses the same ones; the reasons
    /// tell why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "schema::Conditions")]
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
    /// How many of the others are given to nobody: excluded, avoided, or known to be somebody else's.
    pub reserved: i64,
    /// How many it can still give; 0 while it gives none.
    pub free: i64,
}

impl AddressPool {
    /// The status that says `state` and `usage`, where `cluster` are the ranges that the cluster uses itself, and
    /// `in_force` is the generation of the spec that is used in place of the present one, if any. Times of conditions that did not change are kept, so that the result equals the present status when there is nothing to
    /// say.
    #[must_use]
    pub fn status_with<'a>(
        &self,
        state: PoolState<'_>,
        in_force: Option<i64>,
        usage: impl Fn(Family) -> Usage,
        cluster: impl IntoIterator<Item = &'a ClusterRange>,
        now: &Time,
    ) -> AddressPoolStatus {
        let present = self.status.as_ref().map(|status| status.conditions.as_slice());
        let observed = |finding: Finding| {
            let before = condition::of_type(present.unwrap_or_default(), finding.type_);
            finding.observed(self.metadata.generation, before, now.clone())
        };
        let overlapping = self.overlapping_finding(state, cluster);
        AddressPoolStatus {
            conditions: [ready_finding(state, in_force), overlapping].map(observed).into(),
            ipv4: FamilyUsage::of(usage(Family::V4)),
            ipv6: FamilyUsage::of(usage(Family::V6)),
        }
    }

    fn overlapping_finding<'a>(
        &self,
        state: PoolState<'_>,
        cluster: impl IntoIterator<Item = &'a ClusterRange>,
    ) -> Finding {
        let (holds, reason, message) = match (state, self.overlap_with(cluster)) {
            (
                PoolState::Overlapping(overlap)
                | PoolState::Earlier(Unusable::Overlapping(overlap)),
                _,
            ) => (true, "Pool", overlap.to_string()),
            (_, Some((used, range))) => {
                let message = format!(
                    "{range} is also used for {}: clients cannot reach both, choose addresses outside of {}",
                    used.user, used.range
                );
                (true, used.user.reason(), message)
            }
            _ => (false, "None", "nobody else is known to use its addresses".to_owned()),
        };
        Finding { type_: OVERLAPPING, holds, reason, message }
    }

    /// The first of the ranges that the pool has addresses in.
    fn overlap_with<'a>(
        &self,
        cluster: impl IntoIterator<Item = &'a ClusterRange>,
    ) -> Option<(&'a ClusterRange, AddressRange)> {
        let pool = self.to_pool().ok()?;
        cluster.into_iter().find_map(|used| Some((used, used.shared_with(&pool)?)))
    }
}

fn ending() -> String {
    "the pool has a metadata.deletionTimestamp, and gives no more addresses; Services keep theirs until it is gone".to_owned()
}

fn ready_finding(state: PoolState<'_>, in_force: Option<i64>) -> Finding {
    let (holds, reason, message) = match state {
        PoolState::Usable => (true, "Valid", "the pool gives addresses".to_owned()),
        PoolState::Ending => (false, "Terminating", ending()),
        PoolState::Invalid(invalid) => (false, "Invalid", invalid.to_string()),
        PoolState::Overlapping(overlap) => (false, "Overlapping", overlap.to_string()),
        PoolState::Earlier(why) => (false, word_for(why), still_in_force(why, in_force)),
    };
    Finding { type_: READY, holds, reason, message }
}

fn word_for(why: &Unusable) -> &'static str {
    match why {
        Unusable::Invalid(_) => "Invalid",
        Unusable::Overlapping(_) => "Overlapping",
    }
}

/// Why a change of a pool is not in force, and what is.
pub(crate) fn still_in_force(why: &Unusable, generation: Option<i64>) -> String {
    let which = generation.map(|it| format!(" (generation {it})")).unwrap_or_default();
    format!("{why}; what the pool said before{which} stays in force")
}

impl FamilyUsage {
    /// `None` when there are no addresses of the family.
    fn of(usage: Usage) -> Option<Self> {
        let shown = |count: u128| i64::try_from(count).unwrap_or(i64::MAX);
        (usage.total > 0).then(|| Self {
            total: shown(usage.total),
            used: shown(usage.used),
            reserved: shown(usage.reserved),
            free: shown(usage.free),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        address_pool::{AddressItem, AddressPoolSpec},
        cluster::RangeUser,
    };
    use arpeggio_ipam::Allocator;

    fn pool(addresses: &[&str]) -> AddressPool {
        let addresses = addresses.iter().map(|text| AddressItem((*text).to_owned())).collect();
        AddressPool::new("home", AddressPoolSpec { addresses, ..AddressPoolSpec::default() })
    }

    fn status(pool: &AddressPool, now: i64) -> AddressPoolStatus {
        let pods = ClusterRange {
            range: "10.244.0.0/16".parse().unwrap(),
            user: RangeUser::Pods("n1".to_owned()),
        };
        let mut allocator = Allocator::default();
        allocator.set_pools([pool.to_pool()]);
        let (name, state) = allocator.pools().next().unwrap();
        let usage = |family| allocator.usage(name, family).unwrap();
        pool.status_with(state, None, usage, [&pods], &condition::tests::at(now))
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
        let full = FamilyUsage { total: i64::MAX, used: 0, reserved: 0, free: i64::MAX };
        assert_eq!(status.ipv6, Some(full));
    }

    #[test]
    fn a_broken_item_is_a_condition() {
        let status = status(&pool(&["10.0.0.9-10.0.0.5"]), 0);
        let ready = &status.conditions[0];
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "Invalid"));
        assert!(ready.message.contains("did you mean 10.0.0.5-10.0.0.9?"), "{}", ready.message);
    }

    #[test]
    fn a_change_that_cannot_be_used_says_what_stays_in_force() {
        let (good, bad) = (pool(&["10.0.0.0/28"]), pool(&["10.0.0.0/99"]));
        let mut allocator = Allocator::default();
        allocator.set_pools_or_earlier([(bad.to_pool(), good.to_pool().ok())]);
        let (name, state) = allocator.pools().next().unwrap();
        let usage = |family| allocator.usage(name, family).unwrap();
        let status = bad.status_with(state, Some(3), usage, [], &condition::tests::at(0));
        let ready = &status.conditions[0];
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "Invalid"));
        let end = "; what the pool said before (generation 3) stays in force";
        assert!(ready.message.ends_with(end), "{}", ready.message);
        assert_eq!(status.ipv4.unwrap().free, 16);
    }

    #[test]
    fn addresses_of_pods_are_a_condition_that_stops_nothing() {
        let status = status(&pool(&["10.0.0.1", "10.244.7.0/24"]), 0);
        let said = |at: usize| {
            (status.conditions[at].type_.as_str(), status.conditions[at].status.as_str())
        };
        assert_eq!((said(0), said(1)), (("Ready", "True"), ("Overlapping", "True")));
        assert_eq!(status.conditions[1].reason, "PodAddresses");
        assert!(
            status.conditions[1]
                .message
                .starts_with("10.244.7.0-10.244.7.255 is also used for the pods")
        );
    }

    #[test]
    fn without_news_the_status_stays_what_it_is() {
        let mut pool = pool(&["10.0.0.1"]);
        pool.status = Some(status(&pool, 0));
        assert_eq!(pool.status, Some(status(&pool, 100)));
    }
}

//! Which controllers lead.
//!
//! A Lease is dated by its holder's clock, and ours may be another time. So only what our clock and the Lease agree on is
//! believed at once; otherwise it counts whether the Lease changes while we look.

use std::time::Duration;

use arpeggio_runtime::server_clock;
use k8s_openapi::{
    api::coordination::v1::Lease,
    jiff::{SignedDuration, Timestamp},
};
use kube::ResourceExt as _;
use tokio::time::sleep;

/// A leader renews its Lease every two seconds.
pub(crate) const RENEWAL: Duration = Duration::from_secs(4);

/// So far ahead of ours may a clock be that is not called wrong.
const AHEAD: SignedDuration = SignedDuration::from_secs(2);

/// A leader's Lease.
#[derive(Debug, Clone)]
pub(crate) struct Leading {
    pub(crate) lease: Lease,
    /// Whether somebody renews it.
    pub(crate) renewed: bool,
}

/// Reads Leases, and once more where it is not clear whether they are renewed.
pub(crate) async fn look<E>(
    read: impl AsyncFn() -> Result<Vec<Lease>, E>,
) -> Result<Vec<Leading>, E> {
    let before = read().await?;
    let now = server_clock::now();
    if before.iter().all(|it| is_clear(it, now)) {
        let leading = |lease: Lease| Leading { renewed: has_holder(&lease), lease };
        return Ok(before.into_iter().map(leading).collect());
    }
    sleep(RENEWAL).await;
    let later = read().await?;
    Ok(later
        .into_iter()
        .map(|lease| Leading { renewed: is_renewed(&before, &lease), lease })
        .collect())
}

/// Whether our clock and the Lease agree that it is renewed, or nobody has it.
pub(crate) fn is_clear(lease: &Lease, now: Timestamp) -> bool {
    let lasts =
        lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
    let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
    let age = renewed.map(|it| now.duration_since(it.0));
    !has_holder(lease)
        || age.is_some_and(|age| (-AHEAD..=SignedDuration::from_secs(lasts.into())).contains(&age))
}

/// Whether the Lease is another one than it was `before`, and somebody has it.
pub(crate) fn is_renewed(before: &[Lease], lease: &Lease) -> bool {
    let same =
        |it: &&Lease| (it.namespace(), it.name_any()) == (lease.namespace(), lease.name_any());
    let before = before.iter().find(same);
    has_holder(lease) && before.is_none_or(|it| it.resource_version() != lease.resource_version())
}

/// Whether somebody has the Lease.
pub(crate) fn has_holder(lease: &Lease) -> bool {
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
    holder.is_some_and(|holder| !holder.is_empty())
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, convert::Infallible};

    use serde_json::json;

    use super::*;

    fn lease(version: u32, holder: &str, renewed: Timestamp) -> Lease {
        serde_json::from_value(json!({
            "metadata": { "namespace": "lb", "name": "controller-leader", "resourceVersion": version.to_string() },
            "spec": { "holderIdentity": holder, "leaseDurationSeconds": 6, "renewTime": renewed },
        }))
        .unwrap()
    }

    /// Whether a Lease dated so many seconds after our clock counts as renewed, and how often it was read.
    async fn looked(dated: i64, holder: &str, is_written: bool) -> (bool, u32) {
        let reads = Cell::new(0);
        let read = async || {
            reads.set(reads.get() + 1);
            let version = if is_written { reads.get() } else { 1 };
            let renewed = server_clock::now() + SignedDuration::from_secs(dated);
            Ok::<_, Infallible>(vec![lease(version, holder, renewed)])
        };
        let leading = look(read).await.unwrap();
        (leading[0].renewed, reads.get())
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_clock_makes_no_leader_and_takes_none_away() {
        const HOUR: i64 = 3_600;
        let table = [
            (-3, "a", true, (true, 1)),
            (-3, "a", false, (true, 1)),
            (-HOUR, "a", true, (true, 2)),
            (-HOUR, "a", false, (false, 2)),
            (HOUR, "a", true, (true, 2)),
            (HOUR, "a", false, (false, 2)),
            (-HOUR, "", false, (false, 1)),
        ];
        for (dated, holder, is_written, expected) in table {
            assert_eq!(
                looked(dated, holder, is_written).await,
                expected,
                "{dated} {holder:?} {is_written}"
            );
        }
    }
}

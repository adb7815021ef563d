//! What Prometheus sees of the controller.

use std::collections::BTreeMap;

use arpeggio_ipam::{Family, PoolName, Usage};
use arpeggio_runtime::table::{Rows, Table};
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// The controller's metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// Addresses that Services were told of.
    pub(crate) allocations: IntCounter,
    /// Refusals that Services were told of, by `reason`.
    pub(crate) refusals: IntCounterVec,
    /// Events that were not written.
    pub(crate) events_lost: IntCounter,
    /// Requests to the API server, by `verb`, `kind` and `outcome`.
    pub(crate) requests: IntCounterVec,
    /// How long one round of decisions takes.
    pub(crate) decisions: Histogram,
    /// 1 while this process is the one that decides.
    pub(crate) leader: IntGauge,
    unannounced: IntGauge,
    waiting: Table<1>,
    pool_size: Table<2>,
    pool_used: Table<2>,
    pool_free: Table<2>,
    pool_reserved: Table<2>,
    pool_quarantined: Table<2>,
    undecodable: Table<1>,
    unlisted: Table<1>,
}

impl Metrics {
    /// Metrics that `registry` shows.
    ///
    /// # Errors
    /// When one of the names is registered already.
    pub(crate) fn registered(registry: &Registry) -> prometheus::Result<Self> {
        let undecodable = Table::new(gauges(
            registry,
            "arpeggio_undecodable_objects",
            "Objects that the controller does not understand and leaves out, by kind; events on them say why.",
            &["kind"],
        )?);
        let pool = |name: &str, help: &str| {
            gauges(registry, name, help, &["pool", "family"]).map(Table::new)
        };
        let unlisted = Table::new(gauges(
            registry,
            "arpeggio_unlisted_kinds",
            "Kinds of objects that the API server does not list for the controller, which goes on without; absent where \
             there are none.",
            &["kind"],
        )?);
        Ok(Self {
            undecodable,
            unlisted,
            allocations: counter(
                registry,
                "arpeggio_allocations_total",
                "Services that were told their address.",
            )?,
            refusals: counters(
                registry,
                "arpeggio_refusals_total",
                "Services that were told that they get no address, by reason.",
                &["reason"],
            )?,
            events_lost: counter(
                registry,
                "arpeggio_events_lost_total",
                "Events that were not written, because the API server did not take them or too many waited.",
            )?,
            waiting: Table::new(gauges(
                registry,
                "arpeggio_waiting_services",
                "Services that have less than they ask for, by reason.",
                &["reason"],
            )?),
            requests: counters(
                registry,
                "arpeggio_api_requests_total",
                "Requests to the Kubernetes API, without watches.",
                &["verb", "kind", "outcome"],
            )?,
            decisions: decisions(registry)?,
            leader: gauge(
                registry,
                "arpeggio_controller_leader",
                "Whether this controller is the one that decides (1) or a follower (0).",
            )?,
            unannounced: gauge(
                registry,
                "arpeggio_unannounced_addresses",
                "Addresses of Services that nobody announces, though somebody is to.",
            )?,
            pool_size: pool("arpeggio_pool_addresses", "Addresses that a pool has.")?,
            pool_used: pool("arpeggio_pool_addresses_used", "Addresses that Services hold.")?,
            pool_free: pool(
                "arpeggio_pool_addresses_free",
                "Addresses that a pool can still give; 0 while it is not ready.",
            )?,
            pool_reserved: pool(
                "arpeggio_pool_addresses_reserved",
                "Addresses of a pool that it gives to nobody: excluded, special, avoided, or of a machine.",
            )?,
            pool_quarantined: pool(
                "arpeggio_pool_addresses_quarantined",
                "Addresses of a pool at which a stranger answers; absent where there is none.",
            )?,
        })
    }

    /// Shows how many objects cannot be decoded, by kind.
    pub(crate) fn show_undecodable(&self, counts: BTreeMap<String, usize>) {
        let rows = counts.into_iter().map(|(kind, count)| ([kind], shown(count)));
        self.undecodable.show(rows.collect());
    }

    /// Shows which kinds the API server does not list.
    pub(crate) fn show_unlisted(&self, kinds: Vec<String>) {
        self.unlisted.show(kinds.into_iter().map(|kind| ([kind], 1)).collect());
    }

    /// Shows how many Services wait, by reason.
    pub(crate) fn show_waiting(&self, counts: &BTreeMap<&'static str, u64>) {
        let row = |(reason, count): (&&str, &u64)| ([(*reason).to_owned()], shown(*count));
        self.waiting.show(counts.iter().map(row).collect());
    }

    /// Shows how many addresses nobody announces, though somebody is to.
    pub(crate) fn show_unannounced(&self, count: usize) {
        self.unannounced.set(shown(count));
    }

    /// Shows how full the pools are, and no others.
    pub(crate) fn show_pools<'a>(
        &self,
        usages: impl Iterator<Item = (&'a PoolName, Family, Usage)>,
    ) {
        let usages: Vec<_> = usages.filter(|(_, _, usage)| usage.total > 0).collect();
        let rows = |count: fn(&Usage) -> u128| -> Rows<2> {
            let row = |(pool, family, usage): &(&PoolName, Family, Usage)| {
                (row_of(pool, *family), shown(count(usage)))
            };
            usages.iter().map(row).collect()
        };
        self.pool_size.show(rows(|usage| usage.total));
        self.pool_used.show(rows(|usage| usage.used));
        self.pool_free.show(rows(|usage| usage.free));
        self.pool_reserved.show(rows(|usage| usage.reserved));
    }

    /// Shows at how many addresses of each pool strangers answer, and of no others.
    pub(crate) fn show_quarantined(&self, counts: BTreeMap<(&PoolName, Family), u64>) {
        let row = |((pool, family), count)| (row_of(pool, family), shown(count));
        self.pool_quarantined.show(counts.into_iter().map(row).collect());
    }
}

fn row_of(pool: &PoolName, family: Family) -> [String; 2] {
    [pool.as_str().to_owned(), label(family).to_owned()]
}

fn shown(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

fn label(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn decisions(registry: &Registry) -> prometheus::Result<Histogram> {
    let help = "How long the controller takes to decide about all that has changed.";
    let buckets = prometheus::exponential_buckets(0.000_01, 10.0, 7)?;
    let options = HistogramOpts::new("arpeggio_decision_seconds", help).buckets(buckets);
    let histogram = Histogram::with_opts(options)?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(counters.clone()))?;
    Ok(counters)
}

fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntGaugeVec> {
    let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(gauges.clone()))?;
    Ok(gauges)
}

#[cfg(test)]
mod tests {
    use prometheus::proto::MetricFamily;

    use super::*;

    const DOCS: [&str; 2] =
        [include_str!("../../docs/monitoring.md"), include_str!("../../docs/metallb.md")];

    /// What every program tells of itself.
    const OF_BOTH: [&str; 2] = ["arpeggio_build_info", "arpeggio_log_lines_lost_total"];

    /// Words that look like a metric of the controller.
    fn documented() -> impl Iterator<Item = &'static str> {
        let words = DOCS.iter().flat_map(|text| {
            text.split(|letter: char| !(letter.is_ascii_lowercase() || letter == '_'))
        });
        let ours = words.filter(|word| word.starts_with("arpeggio_") && !OF_BOTH.contains(word));
        let others = ["arpeggio_speaker_", "arpeggio_forwarder_"];
        ours.filter(move |word| !others.iter().any(|other| word.starts_with(other)))
    }

    #[test]
    fn every_metric_in_the_docs_exists() {
        let registry = Registry::new();
        let metrics = Metrics::registered(&registry).unwrap();
        metrics.refusals.with_label_values(&["PoolFull"]).inc();
        metrics.requests.with_label_values(&["get", "Service", "ok"]).inc();
        let usage = Usage { total: 1, ..Usage::default() };
        let home = "home".into();
        metrics.show_pools([(&home, Family::V4, usage)].into_iter());
        metrics.show_quarantined([((&home, Family::V4), 1)].into());
        metrics.show_undecodable([("Service".to_owned(), 0)].into());
        metrics.show_unlisted(vec!["nodes".to_owned()]);
        metrics.show_waiting(&[("PoolFull", 1)].into());
        let families = registry.gather();
        let names: Vec<&str> = families.iter().map(MetricFamily::name).collect();
        let wrong: Vec<&str> = documented().filter(|word| !names.contains(word)).collect();
        assert!(wrong.is_empty(), "{wrong:?} are not among {names:?}");
        let missing: Vec<&&str> = names.iter().filter(|name| !DOCS[0].contains(**name)).collect();
        assert!(missing.is_empty(), "docs/monitoring.md has no {missing:?}");
    }
}

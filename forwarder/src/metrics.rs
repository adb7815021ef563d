//! What Prometheus sees of the forwarder.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use arpeggio_forwarder::rules::{Counter, Counting};
use prometheus::{Error, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector};

/// The forwarder's metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    able: IntGauge,
    applied: IntCounterVec,
    packets: IntCounterVec,
    resets: IntCounterVec,
    bytes: IntCounterVec,
    connections: IntGaugeVec,
    /// What the kernel had counted when it was read last.
    read: Arc<Mutex<BTreeMap<Counting, (u64, u64)>>>,
}

impl Metrics {
    /// Metrics that `registry` shows.
    ///
    /// # Errors
    /// When one of the names is registered already.
    pub(crate) fn registered(registry: &Registry) -> Result<Self, Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            added(registry, IntCounterVec::new(Opts::new(full(name), help), labels)?)
        };
        let able = IntGauge::new(
            full("able"),
            "1 while the kernel has the rules that it is to have, 0 while it refuses them.",
        )?;
        let connections = Opts::new(
            full("connections"),
            "Connections that this node still has of addresses that have moved away, by address.",
        );
        Ok(Self {
            able: added(registry, able)?,
            applied: counters(
                "rule_changes_total",
                "Changes of the rules in the kernel, by outcome.",
                &["outcome"],
            )?,
            packets: counters(
                "passed_packets_total",
                "Packets of connections that this node does not know and that it gave to another node, by address and by who sent them here: outside, or a fellow.",
                &["address", "from"],
            )?,
            resets: counters(
                "reset_packets_total",
                "Packets of connections of a dead node that this node has answered by a reset, by address.",
                &["address"],
            )?,
            bytes: counters(
                "passed_bytes_total",
                "The bytes of those packets.",
                &["address", "from"],
            )?,
            connections: added(registry, IntGaugeVec::new(connections, &["address"])?)?,
            read: Arc::default(),
        })
    }

    pub(crate) fn show_able(&self, able: bool) {
        self.able.set(i64::from(able));
    }

    pub(crate) fn applied(&self, outcome: &str) {
        self.applied.with_label_values(&[outcome]).inc();
    }

    /// The connections of the addresses that run out here, and of no others. `None`: they are not known.
    pub(crate) fn show_connections(&self, connections: Option<&BTreeMap<IpAddr, u32>>) {
        self.connections.reset();
        for (address, count) in connections.into_iter().flatten() {
            self.connections.with_label_values(&[&address.to_string()]).set(i64::from(*count));
        }
    }

    /// Adds what was counted since the last time. A counter of the kernel begins at zero when its rules are made anew.
    pub(crate) fn show_counters(&self, counters: &[Counter]) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *read);
        for Counter { counting, packets, bytes } in counters {
            read.insert(counting.clone(), (*packets, *bytes));
            let (old_packets, old_bytes) = before.get(counting).copied().unwrap_or_default();
            if let Counting::Reset(address) = counting {
                let resets = self.resets.with_label_values(&[address.to_string()]);
                resets.inc_by(grown(old_packets, *packets));
            }
            let Some((address, from)) = passed(counting) else { continue };
            let labels = [address.to_string(), from.to_owned()];
            self.packets.with_label_values(&labels).inc_by(grown(old_packets, *packets));
            self.bytes.with_label_values(&labels).inc_by(grown(old_bytes, *bytes));
        }
        // Those of addresses that have no rules any more go, so that their number stays bounded.
        let still: BTreeSet<_> = read.keys().filter_map(passed).collect();
        for (address, from) in before.keys().filter_map(passed).filter(|it| !still.contains(it)) {
            let labels = [address.to_string(), from.to_owned()];
            let _ = self.packets.remove_label_values(&labels); // Fails only when it is not there.
            let _ = self.bytes.remove_label_values(&labels);
        }
        for counting in before.keys().filter(|counting| !read.contains_key(counting)) {
            if let Counting::Reset(address) = counting {
                let _ = self.resets.remove_label_values(&[address.to_string()]);
            }
        }
    }
}

/// What is shown of what the kernel counts.
fn passed(counting: &Counting) -> Option<(IpAddr, &'static str)> {
    match counting {
        Counting::PassedFromOutside(address) => Some((*address, "outside")),
        Counting::PassedFromFellow(address) => Some((*address, "fellow")),
        Counting::Reset(_) | Counting::Spread { .. } | Counting::Stayed(_) => None,
    }
}

fn grown(before: u64, now: u64) -> u64 {
    if now < before { now } else { now - before }
}

fn added<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn full(name: &str) -> String {
    format!("arpeggio_forwarder_{name}")
}

#[cfg(test)]
mod tests {
    use prometheus::proto::MetricFamily;

    use super::*;

    const MONITORING: &str = include_str!("../../docs/monitoring.md");

    fn counted(last: u8, packets: u64) -> Counter {
        let counting = Counting::PassedFromOutside([192, 168, 0, last].into());
        Counter { counting, packets, bytes: packets * 100 }
    }

    #[test]
    fn what_the_kernel_counts_anew_is_added() {
        let metrics = Metrics::registered(&Registry::new()).unwrap();
        let total = || metrics.packets.with_label_values(&["192.168.0.240", "outside"]).get();
        for (read, expected) in [(5, 5), (7, 7), (7, 7), (2, 9), (3, 10)] {
            metrics.show_counters(&[counted(240, read)]);
            assert_eq!(total(), expected);
        }
    }

    #[test]
    fn an_address_without_rules_leaves_no_metrics() {
        let metrics = Metrics::registered(&Registry::new()).unwrap();
        let count = || metrics.packets.collect()[0].get_metric().len();
        metrics.show_counters(&[counted(240, 1), counted(241, 1)]);
        assert_eq!(count(), 2);
        metrics.show_counters(&[counted(241, 1)]);
        assert_eq!(count(), 1);
        let counting = Counting::Reset([192, 168, 0, 240].into());
        metrics.show_counters(&[Counter { counting, packets: 3, bytes: 120 }]);
        assert_eq!(metrics.resets.with_label_values(&["192.168.0.240"]).get(), 3);
        metrics.show_counters(&[]);
        assert!(metrics.resets.collect()[0].get_metric().is_empty());
        metrics.show_connections(Some(&[([192, 168, 0, 240].into(), 7)].into()));
        metrics.show_connections(Some(&BTreeMap::new()));
        assert!(metrics.connections.collect()[0].get_metric().is_empty());
    }

    /// The names in the first column of the table.
    fn documented() -> BTreeSet<String> {
        let rows = MONITORING
            .lines()
            .skip_while(|line| !line.starts_with("| metric of `arpeggio_forwarder_"));
        let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
        let cells = rows.filter_map(|row| row.split('|').nth(1));
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(full).collect()
    }

    #[test]
    fn the_docs_have_every_metric_and_no_other() {
        let registry = Registry::new();
        let metrics = Metrics::registered(&registry).unwrap();
        metrics.applied("done");
        let reset = Counting::Reset([192, 168, 0, 240].into());
        metrics
            .show_counters(&[counted(240, 1), Counter { counting: reset, packets: 1, bytes: 40 }]);
        metrics.show_connections(Some(&[([192, 168, 0, 240].into(), 7)].into()));
        let present: BTreeSet<String> =
            registry.gather().iter().map(MetricFamily::name).map(str::to_owned).collect();
        assert_eq!(documented(), present);
    }
}

//! What Prometheus sees of the forwarder.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use arpeggio_election::Node;
use arpeggio_forwarder::rules::{Counter, Counting};
use arpeggio_runtime::table::Table;
use prometheus::{Error, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector};

/// The forwarder's metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// This node's name.
    own: String,
    able: IntGauge,
    applied: IntCounterVec,
    packets: IntCounterVec,
    resets: IntCounterVec,
    bytes: IntCounterVec,
    spread_packets: IntCounterVec,
    spread_bytes: IntCounterVec,
    one_node: Table<1>,
    connections: Table<1>,
    /// What the kernel had counted when it was read last.
    read: Arc<Mutex<BTreeMap<Counting, (u64, u64)>>>,
}

impl Metrics {
    /// Metrics that `registry` shows.
    ///
    /// # Errors
    /// When one of the names is registered already.
    pub(crate) fn registered(registry: &Registry, node: &Node) -> Result<Self, Error> {
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
        let one_node = Opts::new(
            full("not_spread"),
            "1 for each address that this node alone serves, though all nodes are to.",
        );
        Ok(Self {
            own: node.to_string(),
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
                "Packets of connections that no living node knows and that this node has answered by a reset, by address.",
                &["address"],
            )?,
            bytes: counters(
                "passed_bytes_total",
                "The bytes of those packets.",
                &["address", "from"],
            )?,
            spread_packets: counters(
                "spread_packets_total",
                "Packets to addresses that all nodes serve which came to this node, by address and by the node that got them.",
                &["address", "node"],
            )?,
            spread_bytes: counters(
                "spread_bytes_total",
                "The bytes of those packets.",
                &["address", "node"],
            )?,
            one_node: by_address(registry, one_node)?,
            connections: by_address(registry, connections)?,
            read: Arc::default(),
        })
    }

    pub(crate) fn show_able(&self, able: bool) {
        self.able.set(i64::from(able));
    }

    pub(crate) fn applied(&self, outcome: &str) {
        self.applied.with_label_values(&[outcome]).inc();
    }

    /// How many changes of the rules had that outcome.
    #[cfg(test)]
    pub(crate) fn count_applied(&self, outcome: &str) -> u64 {
        self.applied.with_label_values(&[outcome]).get()
    }

    /// The connections of the addresses that run out here, and of no others. `None`: they are not known.
    pub(crate) fn show_connections(&self, connections: Option<&BTreeMap<IpAddr, u32>>) {
        let row = |(address, count): (&IpAddr, &u32)| ([address.to_string()], i64::from(*count));
        self.connections.show(connections.into_iter().flatten().map(row).collect());
    }

    /// The addresses that this node alone serves, though all nodes are to.
    pub(crate) fn show_one_node<'a>(&self, addresses: impl Iterator<Item = &'a IpAddr>) {
        self.one_node.show(addresses.map(|address| ([address.to_string()], 1)).collect());
    }

    /// Adds what was counted since the last time. A counter of the kernel begins at zero when its rules are made anew.
    pub(crate) fn show_counters(&self, counters: &[Counter]) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *read);
        for Counter { counting, packets, bytes } in counters {
            read.insert(counting.clone(), (*packets, *bytes));
            let (old_packets, old_bytes) = before.get(counting).copied().unwrap_or_default();
            let grown = [grown(old_packets, *packets), grown(old_bytes, *bytes)];
            let (labels, counters) = self.shown(counting);
            for (counter, grown) in counters.into_iter().zip(grown) {
                counter.with_label_values(&labels).inc_by(grown);
            }
        }
        // Those of addresses and nodes that have no rules any more go, so that their number stays bounded.
        let shown = |counting| {
            let (labels, counters) = self.shown(counting);
            (labels, counters.into_iter().next().map(std::ptr::from_ref))
        };
        let still: BTreeSet<_> = read.keys().map(shown).collect();
        for counting in before.keys().filter(|it| !still.contains(&shown(it))) {
            let (labels, counters) = self.shown(counting);
            for counter in counters {
                let _ = counter.remove_label_values(&labels); // Fails only when it is not there.
            }
        }
    }

    /// How something that the kernel counts is shown: its labels, and what counts packets and, where there is one, bytes.
    fn shown(&self, counting: &Counting) -> (Vec<String>, Vec<&IntCounterVec>) {
        let passed = vec![&self.packets, &self.bytes];
        let spread = vec![&self.spread_packets, &self.spread_bytes];
        let (address, other, counters) = match counting {
            Counting::PassedFromOutside(address) => (address, Some("outside"), passed),
            Counting::PassedFromFellow(address) => (address, Some("fellow"), passed),
            Counting::Spread { address, node, .. } => (address, Some(node.as_str()), spread),
            Counting::Stayed(address) => (address, Some(self.own.as_str()), spread),
            Counting::Reset(address) => (address, None, vec![&self.resets]),
        };
        let labels = std::iter::once(address.to_string()).chain(other.map(str::to_owned));
        (labels.collect(), counters)
    }
}

fn grown(before: u64, now: u64) -> u64 {
    if now < before { now } else { now - before }
}

fn added<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn by_address(registry: &Registry, options: Opts) -> Result<Table<1>, Error> {
    added(registry, IntGaugeVec::new(options, &["address"])?).map(Table::new)
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
        let metrics = Metrics::registered(&Registry::new(), &"node-1".into()).unwrap();
        let total = || metrics.packets.with_label_values(&["192.168.0.240", "outside"]).get();
        for (read, expected) in [(5, 5), (7, 7), (7, 7), (2, 9), (3, 10)] {
            metrics.show_counters(&[counted(240, read)]);
            assert_eq!(total(), expected);
        }
    }

    #[test]
    fn an_address_without_rules_leaves_no_metrics() {
        let registry = Registry::new();
        let metrics = Metrics::registered(&registry, &"node-1".into()).unwrap();
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
        metrics.show_one_node([[192, 168, 0, 240].into()].iter());
        let shown = || {
            let families = registry.gather();
            let names = families.iter().map(|it| it.name().to_owned());
            names.filter(|it| [full("connections"), full("not_spread")].contains(it)).count()
        };
        assert_eq!(shown(), 2);
        metrics.show_connections(Some(&BTreeMap::new()));
        metrics.show_one_node(std::iter::empty());
        assert_eq!(shown(), 0);
    }

    /// Whoever looks while they are shown anew sees what was there before and is there after.
    #[test]
    fn an_address_that_stays_is_there_at_every_moment() {
        let registry = Registry::new();
        let metrics = Metrics::registered(&registry, &"node-1".into()).unwrap();
        let address: IpAddr = [192, 168, 0, 240].into();
        let show = |metrics: &Metrics| {
            metrics.show_connections(Some(&[(address, 7)].into()));
            metrics.show_one_node([address].iter());
        };
        show(&metrics);
        let looks = std::thread::spawn(move || {
            let is_there = |name: &str| registry.gather().iter().any(|it| it.name() == full(name));
            (0..2_000).all(|_| is_there("connections") && is_there("not_spread"))
        });
        while !looks.is_finished() {
            show(&metrics);
        }
        assert!(looks.join().unwrap());
    }

    #[test]
    fn who_gets_the_packets_of_a_spread_address_is_counted_by_node() {
        let metrics = Metrics::registered(&Registry::new(), &"node-1".into()).unwrap();
        let address: IpAddr = [192, 168, 0, 240].into();
        let of = |counting, packets| Counter { counting, packets, bytes: packets * 100 };
        let to = |node: &str, interface: &str| {
            let (node, interface) = (node.to_owned(), interface.to_owned());
            Counting::Spread { address, node, mac: [2, 0, 0, 0, 0, 1], interface }
        };
        let stayed = of(Counting::Stayed(address), 3);
        metrics.show_counters(&[
            stayed.clone(),
            of(to("node-2", "a"), 5),
            of(to("node-2", "b"), 6),
        ]);
        let total =
            |node: &str| metrics.spread_packets.with_label_values(&["192.168.0.240", node]).get();
        assert_eq!((total("node-1"), total("node-2")), (3, 11));
        let count = || metrics.spread_bytes.collect()[0].get_metric().len();
        metrics.show_counters(&[stayed.clone(), of(to("node-2", "a"), 5)]);
        assert_eq!(count(), 2, "it is shown as long as any of its ways is there");
        metrics.show_counters(&[stayed]);
        assert_eq!(count(), 1);
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
        let metrics = Metrics::registered(&registry, &"node-1".into()).unwrap();
        metrics.applied("done");
        let address = [192, 168, 0, 240].into();
        let other = [Counting::Stayed(address), Counting::Reset(address)];
        let other = other.map(|counting| Counter { counting, packets: 1, bytes: 100 });
        metrics.show_counters(&[vec![counted(240, 1)], other.to_vec()].concat());
        metrics.show_connections(Some(&[([192, 168, 0, 240].into(), 7)].into()));
        metrics.show_one_node([[192, 168, 0, 240].into()].iter());
        let present: BTreeSet<String> =
            registry.gather().iter().map(MetricFamily::name).map(str::to_owned).collect();
        assert_eq!(documented(), present);
    }
}

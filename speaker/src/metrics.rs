//! The speaker's metrics. No label has more values than there are interfaces, protocols, reasons or kinds.

use std::{collections::HashMap, time::Duration};

use prometheus::{
    Counter, Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    Opts, Registry,
    core::{Collector, MetricVec, MetricVecBuilder},
};

use crate::paths::Tempo;

/// Upper bounds of the times from question to answer, in seconds: from what a machine at rest needs to what a client
/// notices.
const REPLY_BUCKETS: [f64; 11] = [5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3, 2e-2, 1e-1];

/// Upper bounds of the times until an address of a failed owner is announced again, in seconds: from what the wire's
/// evidence needs to two sessions.
const FAILOVER_BUCKETS: [f64; 15] =
    [0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 20.0];

/// Upper bounds of the times that nodes take to answer, in seconds; among them how long each profile waits.
const PROBE_BUCKETS: [f64; 12] =
    [0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.08, 0.15, 0.3, 0.75];

/// Everything that the speaker counts.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: IntCounterVec,
    replies: IntCounterVec,
    reply_seconds: HistogramVec,
    gratuitous: IntCounterVec,
    deferred: IntCounterVec,
    refused: IntCounterVec,
    ignored: IntCounterVec,
    /// Somebody else announced an address that this node announces, by interface, protocol and who it was.
    pub(crate) conflicts: IntCounterVec,
    /// Addresses that a stranger has announced lately, too.
    pub(crate) contested: IntGauge,
    /// Addresses that would follow their backends, which come and go too often.
    pub(crate) flapping: IntGauge,
    /// Addresses that a stranger answered for before their first use.
    pub(crate) quarantined: IntCounter,
    /// Addresses that this node announces.
    pub(crate) announced: IntGauge,
    /// Addresses whose lock this node holds, but that no interface can announce.
    pub(crate) unannounceable: IntGauge,
    /// Nodes whose sessions count.
    pub(crate) sessions: IntGauge,
    /// Locks that this node took, by reason.
    pub(crate) takes: IntCounterVec,
    /// Locks that this node gave to others, by reason.
    pub(crate) gives: IntCounterVec,
    /// Sessions of others that this node ended, by reason.
    pub(crate) ended: IntCounterVec,
    /// Sessions of this node that were ended while this process ran.
    pub(crate) sessions_lost: IntCounter,
    /// How long addresses were dark that this node took over from a failed owner.
    pub(crate) failover_seconds: Histogram,
    /// Addresses that nobody holds, though some node could.
    pub(crate) ownerless: IntGauge,
    /// For how long they were, all together.
    pub(crate) ownerless_seconds: Counter,
    /// Locks that are damaged, or of a newer release.
    pub(crate) unclear: IntGauge,
    /// Requests to the API server, by kind and outcome.
    pub(crate) writes: IntCounterVec,
    /// Events that were not written.
    pub(crate) events_lost: IntCounter,
    /// From a question to another node to its answer.
    pub(crate) probe_seconds: Histogram,
    /// Nodes that a `profile` would have accused though they lived.
    pub(crate) would_have_accused: IntCounterVec,
}

impl Metrics {
    /// Makes the metrics and adds them to `registry`.
    pub(crate) fn registered(registry: &Registry) -> Result<Self, Error> {
        let make = Make { registry };
        let [gratuitous, deferred, refused] = said_unasked(&make)?;
        Ok(Self {
            requests: make.counters(
                "requests_total",
                "ARP requests and NDP solicitations for addresses that this node announces.",
                &["interface", "protocol"],
            )?,
            replies: make.counters(
                "replies_total",
                "Answers to them.",
                &["interface", "protocol"],
            )?,
            reply_seconds: make.histograms(
                "reply_seconds",
                "Time from when the speaker got a question to when its answer had left.",
                &["interface", "protocol"],
                &REPLY_BUCKETS,
            )?,
            gratuitous,
            deferred,
            refused,
            ignored: make.counters(
                "ignored_total",
                "Frames that passed the kernel's filter and were not answered, by reason.",
                &["interface", "protocol", "reason"],
            )?,
            conflicts: make.counters(
                "conflicts_total",
                "Announcements by others of addresses that this node announces: by a fellow speaker or a stranger.",
                &["interface", "protocol", "by"],
            )?,
            flapping: make.gauge(
                "flapping_addresses",
                "Addresses of this node that do not follow their pods for a moment, because these become ready and unready too \
                 often (externalTrafficPolicy: Local).",
            )?,
            contested: make.gauge(
                "contested_addresses",
                "Announced addresses that a stranger has announced in the last two minutes, too.",
            )?,
            quarantined: make.added(IntCounter::new(
                full("quarantined_total"),
                "Addresses that were not announced because a stranger answered for them before their first use.",
            )?)?,
            announced: make.gauge("announced_addresses", "Addresses that this node announces.")?,
            unannounceable: make.gauge(
                "unannounceable_addresses",
                "Addresses whose lock this node holds, but that none of its interfaces can announce.",
            )?,
            sessions: make.gauge("live_sessions", "Nodes whose sessions count, as this node sees it.")?,
            takes: make.counters("locks_taken_total", "Locks that this node took, by reason.", &["reason"])?,
            gives: make.counters(
                "locks_given_total",
                "Locks that this node gave to another one on purpose, by reason.",
                &["reason"],
            )?,
            ended: make.counters(
                "sessions_ended_total",
                "Sessions of other nodes that this node ended, by reason.",
                &["reason"],
            )?,
            sessions_lost: make.added(IntCounter::new(
                full("sessions_lost_total"),
                "Sessions of this node that others ended while its speaker ran: it was taken for dead, and was not.",
            )?)?,
            failover_seconds: make.histogram(
                "failover_seconds",
                "Time from the last sign of life of an owner that failed to this node's first announcement of its address.",
                &FAILOVER_BUCKETS,
            )?,
            ownerless: make.gauge(
                "ownerless_addresses",
                "Addresses that some node could announce, that nobody with a live session holds and nobody is heard to announce.",
            )?,
            unclear: make.gauge(
                "unclear_locks",
                "Locks whose announce rules are damaged, or whose format only a newer release understands.",
            )?,
            ownerless_seconds: make.added(Counter::new(
                full("ownerless_seconds_total"),
                "Time that addresses spent so, added up over all addresses, as this node sees it.",
            )?)?,
            writes: make.counters(
                "api_requests_total",
                "Requests about Leases to the API server, by kind and outcome.",
                &["kind", "outcome"],
            )?,
            probe_seconds: make.histogram(
                "probe_seconds",
                "Time from a question to another node on the wire to its answer.",
                &PROBE_BUCKETS,
            )?,
            would_have_accused: would_have_accused(&make)?,
            events_lost: make.added(IntCounter::new(
                full("events_lost_total"),
                "Kubernetes events that were not written.",
            )?)?,
        })
    }

    /// What is counted on one interface by one protocol.
    pub(crate) fn of_segment(&self, interface: &str, protocol: &str) -> SegmentMetrics {
        let labels = [interface, protocol];
        SegmentMetrics {
            labels: labels.map(str::to_owned),
            requests: self.requests.with_label_values(&labels),
            replies: self.replies.with_label_values(&labels),
            reply_seconds: self.reply_seconds.with_label_values(&labels),
            gratuitous: self.gratuitous.with_label_values(&labels),
            deferred: self.deferred.with_label_values(&labels),
            refused: self.refused.with_label_values(&labels),
            ignored: self.ignored.clone(),
        }
    }

    /// There is no interface of this name any more: what was counted on it goes, too. Names may be many, as those of bridges
    /// that come and go with containers.
    pub(crate) fn forget(&self, interface: &str) {
        let Self { requests, replies, gratuitous, deferred, refused, ignored, conflicts, .. } =
            self;
        for counters in [requests, replies, gratuitous, deferred, refused, ignored, conflicts] {
            forget(counters, interface);
        }
        forget(&self.reply_seconds, interface);
    }
}

/// Removes all that has this label.
fn forget<Builder: MetricVecBuilder>(metrics: &MetricVec<Builder>, interface: &str) {
    for family in metrics.collect() {
        for metric in family.get_metric() {
            let labels = metric.get_label().iter().map(|it| (it.name(), it.value()));
            let labels: HashMap<&str, &str> = labels.collect();
            if labels.get("interface") == Some(&interface) {
                let _ = metrics.remove(&labels); // Fails only when it is not there.
            }
        }
    }
}

/// What is counted on one interface by one protocol, ready for the thread that answers.
#[derive(Debug, Clone)]
pub(crate) struct SegmentMetrics {
    labels: [String; 2],
    /// Questions for addresses that this node announces.
    pub(crate) requests: IntCounter,
    /// Answers to them.
    replies: IntCounter,
    /// From when a question was received to when its answer had left.
    reply_seconds: Histogram,
    /// Frames that nobody asked for.
    pub(crate) gratuitous: IntCounter,
    /// Announcements that left late because of the rate cap.
    pub(crate) deferred: IntCounter,
    /// Frames that the kernel did not let leave.
    pub(crate) refused: IntCounter,
    ignored: IntCounterVec,
}

impl SegmentMetrics {
    /// Counts frames that were not answered.
    pub(crate) fn ignored(&self, reason: &str, frames: u64) {
        if frames > 0 {
            let [interface, protocol] = &self.labels;
            let labels = [interface.as_str(), protocol.as_str(), reason];
            self.ignored.with_label_values(&labels).inc_by(frames);
        }
    }

    /// Counts answers that left together, `after` their questions were received.
    pub(crate) fn replied(&self, frames: u64, after: Duration) {
        self.replies.inc_by(frames);
        (0..frames).for_each(|_| self.reply_seconds.observe(after.as_secs_f64()));
    }
}

struct Make<'a> {
    registry: &'a Registry,
}

impl Make<'_> {
    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.added(IntCounterVec::new(Opts::new(full(name), help), labels)?)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, Error> {
        let options = HistogramOpts::new(full(name), help).buckets(buckets.to_vec());
        self.added(HistogramVec::new(options, labels)?)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, Error> {
        let options = HistogramOpts::new(full(name), help).buckets(buckets.to_vec());
        self.added(Histogram::with_opts(options)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.added(IntGauge::new(full(name), help)?)
    }

    fn added<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C, Error> {
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}

/// What is said unasked, what of it left late, and what did not leave.
fn said_unasked(make: &Make<'_>) -> Result<[IntCounterVec; 3], Error> {
    let counters = |name, help| make.counters(name, help, &["interface", "protocol"]);
    Ok([
        counters(
            "gratuitous_total",
            "Gratuitous ARP frames and unsolicited NDP advertisements sent.",
        )?,
        counters(
            "gratuitous_deferred_total",
            "Announcements that left later than they were due, held back by the rate cap.",
        )?,
        counters(
            "frames_refused_total",
            "Announcements and questions that the kernel did not let leave.",
        )?,
    ])
}

fn would_have_accused(make: &Make<'_>) -> Result<IntCounterVec, Error> {
    let counters = make.counters(
        "would_have_accused_total",
        "Times that a profile would have taken a node for dead that answered after all, by profile.",
        &["profile"],
    )?;
    // That there was none is what most people want to see.
    for tempo in Tempo::ALL {
        counters.with_label_values(&[tempo.as_str()]);
    }
    Ok(counters)
}

fn full(name: &str) -> String {
    format!("arpeggio_speaker_{name}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prometheus::proto::MetricFamily;

    use super::*;

    const MONITORING: &str = include_str!("../../docs/monitoring.md");
    const METALLB: &str = include_str!("../../docs/metallb.md");

    /// The names in the first column of the table.
    fn documented() -> BTreeSet<String> {
        let rows = MONITORING
            .lines()
            .skip_while(|line| !line.starts_with("| metric of `arpeggio_speaker_"));
        let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
        let cells = rows.filter_map(|row| row.split('|').nth(1));
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(full).collect()
    }

    fn present() -> BTreeSet<String> {
        let registry = Registry::new();
        let metrics = Metrics::registered(&registry).unwrap();
        metrics.of_segment("eth0", "arp").ignored("truncated", 1);
        metrics.conflicts.with_label_values(&["eth0", "arp", "stranger"]).inc();
        for counters in [&metrics.takes, &metrics.gives, &metrics.ended] {
            counters.with_label_values(&["a reason"]).inc();
        }
        metrics.writes.with_label_values(&["renew", "done"]).inc();
        registry.gather().iter().map(MetricFamily::name).map(str::to_owned).collect()
    }

    #[test]
    fn an_interface_that_is_gone_leaves_no_metrics() {
        let registry = Registry::new();
        let metrics = Metrics::registered(&registry).unwrap();
        let count = || -> usize { registry.gather().iter().map(|it| it.get_metric().len()).sum() };
        let before = count();
        for protocol in ["arp", "ndp"] {
            metrics.of_segment("br-1", protocol).ignored("truncated", 1);
            metrics.conflicts.with_label_values(&["br-1", protocol, "stranger"]).inc();
            metrics.of_segment("br-10", protocol).replied(1, Duration::ZERO);
        }
        let both = count() - before;
        metrics.forget("br-1");
        assert_eq!((both, count() - before), (2 * 8 + 2 * 6, 2 * 6));
    }

    #[test]
    fn the_docs_have_every_metric_and_no_other() {
        assert_eq!(documented(), present());
        let words = METALLB.split(|letter: char| !(letter.is_ascii_lowercase() || letter == '_'));
        let named = words.filter(|word| word.starts_with("arpeggio_speaker_"));
        let wrong: Vec<&str> = named.filter(|word| !present().contains(*word)).collect();
        assert_eq!(wrong, [""; 0]);
    }
}

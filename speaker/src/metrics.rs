//! The speaker's metrics. No label has more values than there are interfaces, protocols, reasons or kinds.

use prometheus::{
    Error, IntCounterVec, IntGauge, Opts, Registry,
    core::{Collector, GenericCounter},
};

/// Everything that the speaker counts.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Questions for addresses that this node announces, by interface and protocol.
    pub(crate) requests: IntCounterVec,
    /// Answers to them, by interface and protocol.
    pub(crate) replies: IntCounterVec,
    /// Frames that nobody asked for, by interface and protocol.
    pub(crate) gratuitous: IntCounterVec,
    /// Frames that were not answered, by interface, protocol and reason.
    pub(crate) ignored: IntCounterVec,
    /// Somebody else announced an address that this node announces, by who it was.
    pub(crate) conflicts: IntCounterVec,
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
    /// Requests to the API server, by kind and outcome.
    pub(crate) writes: IntCounterVec,
    /// Events that were not written.
    pub(crate) events_lost: GenericCounter<prometheus::core::AtomicU64>,
}

impl Metrics {
    /// Makes the metrics and adds them to `registry`.
    pub(crate) fn registered(registry: &Registry) -> Result<Self, Error> {
        let make = Make { registry };
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
            gratuitous: make.counters(
                "gratuitous_total",
                "Gratuitous ARP frames and unsolicited NDP advertisements sent.",
                &["interface", "protocol"],
            )?,
            ignored: make.counters(
                "ignored_total",
                "Frames that passed the kernel's filter and were not answered, by reason.",
                &["interface", "protocol", "reason"],
            )?,
            conflicts: make.counters(
                "conflicts_total",
                "Announcements by others of addresses that this node announces: by a fellow speaker or a stranger.",
                &["by"],
            )?,
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
            writes: make.counters(
                "api_requests_total",
                "Requests about Leases to the API server, by kind and outcome.",
                &["kind", "outcome"],
            )?,
            events_lost: make.added(prometheus::IntCounter::new(
                full("events_lost_total"),
                "Kubernetes events that were not written.",
            )?)?,
        })
    }
}

struct Make<'a> {
    registry: &'a Registry,
}

impl Make<'_> {
    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.added(IntCounterVec::new(Opts::new(full(name), help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.added(IntGauge::new(full(name), help)?)
    }

    fn added<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C, Error> {
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}

fn full(name: &str) -> String {
    format!("arpeggio_speaker_{name}")
}

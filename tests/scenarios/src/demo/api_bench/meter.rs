//! What is counted: by the API server, and by the kernel for each host.

use std::{
    collections::BTreeMap,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::ensure;
use arpeggio_lab::Lab;
use arpeggio_scenarios::HostProcess;

use crate::server::{self, Writes};

/// How long is counted.
const SPAN: Duration = Duration::from_secs(30);

/// Counts of one lab.
pub(super) struct Meter<'a> {
    lab: &'a Lab,
    /// Watches of others than speakers.
    watches_before: u64,
}

/// What was counted at rest, each for one second.
pub(super) struct Rates {
    /// Writes to the API server in all.
    pub(super) writes: f64,
    /// Their number in the whole time, by kind.
    pub(super) kinds: BTreeMap<String, u64>,
    /// Open watches of each speaker.
    pub(super) watches: f64,
    /// Bytes that each speaker's host has received over IP, on average.
    pub(super) received: f64,
    /// Processors that each speaker has used, on average.
    pub(super) cpu: f64,
    nodes: f64,
}

impl Rates {
    pub(super) fn writes_per_node(&self) -> f64 {
        self.writes / self.nodes
    }
}

/// The speakers' own counts at one moment, added up.
struct Total {
    at: Instant,
    received: u64,
    cpu_seconds: f64,
}

impl<'a> Meter<'a> {
    /// To be made before the first speaker is started.
    pub(super) fn new(lab: &'a Lab) -> anyhow::Result<Self> {
        let watches_before = server::watches(&metrics(lab)?);
        ensure!(watches_before > 0, "the API server counts no watches");
        Ok(Self { lab, watches_before })
    }

    /// Counts for half a minute.
    pub(super) fn measure(&self, speakers: &[HostProcess]) -> anyhow::Result<Rates> {
        let writes = Writes::parse(&metrics(self.lab)?);
        let before = Total::of(speakers)?;
        sleep(SPAN);
        let after = Total::of(speakers)?;
        let metrics = metrics(self.lab)?;
        let kinds = of_speakers(&Writes::parse(&metrics).since(&writes));
        let seconds = after.at.duration_since(before.at).as_secs_f64();
        let nodes = float(speakers.len() as u64);
        let watches = server::watches(&metrics).saturating_sub(self.watches_before);
        Ok(Rates {
            writes: float(kinds.values().sum()) / seconds,
            kinds,
            watches: float(watches) / nodes,
            received: float(after.received - before.received) / seconds / nodes,
            cpu: (after.cpu_seconds - before.cpu_seconds) / seconds / nodes,
            nodes,
        })
    }
}

impl Total {
    fn of(speakers: &[HostProcess]) -> anyhow::Result<Self> {
        let mut total = Self { at: Instant::now(), received: 0, cpu_seconds: 0.0 };
        for speaker in speakers {
            total.received += speaker.received()?;
            total.cpu_seconds += speaker.cost()?.cpu_seconds;
        }
        Ok(total)
    }
}

/// Speakers patch. By PUT the API server renews a Lease that tells of itself.
fn of_speakers(writes: &Writes) -> BTreeMap<String, u64> {
    let named = writes.named().into_iter().filter(|(name, _)| *name != "PUT leases");
    named.map(|(name, count)| (name.to_owned(), count)).collect()
}

fn metrics(lab: &Lab) -> anyhow::Result<String> {
    Ok(lab.kubectl(&["get", "--raw", "/metrics"])?)
}

/// Counts that are far from what a float cannot tell apart.
#[allow(clippy::cast_precision_loss, reason = "below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

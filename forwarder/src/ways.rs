//! The ways to other nodes: the kernel is told of them, and asks whether the nodes are there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use arpeggio_election::Node;
use arpeggio_forwarder::neighbours::{Neighbours, next_question};
use arpeggio_forwarding::{Hop, Wire};
use arpeggio_runtime::telemetry::causes;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// How often the kernel is told what it may have forgotten.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// What has come of questions.
type Found = BTreeMap<Node, Wire>;

/// The ways that matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ways {
    /// By these, packets are given to other nodes.
    pub(crate) told: BTreeSet<Hop>,
    /// By these, nodes are asked whether they are there.
    pub(crate) asked: BTreeSet<Hop>,
}

/// Both ends of a task that minds them. It ends when nobody says any more what matters.
#[derive(Debug)]
pub(crate) struct Minded {
    ways: watch::Sender<Ways>,
    found: watch::Receiver<Found>,
}

impl Minded {
    pub(crate) fn begin() -> Self {
        let (ways, latest) = watch::channel(Ways::default());
        let (finder, found) = watch::channel(Found::default());
        tokio::spawn(mind(latest, finder));
        Self { ways, found }
    }

    pub(crate) fn set(&self, ways: Ways) {
        super::run::set(&self.ways, ways);
    }

    /// Waits until something else is found. Forever, when nobody looks any more. May be cancelled at any time.
    pub(crate) async fn changed(&mut self) {
        if self.found.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What was found out about the nodes that are asked.
    pub(crate) fn found(&mut self) -> Found {
        self.found.borrow_and_update().clone()
    }
}

async fn mind(mut ways: watch::Receiver<Ways>, found: watch::Sender<Found>) {
    let mut neighbours = match Neighbours::new() {
        Ok(neighbours) => neighbours,
        Err(error) => {
            tracing::error!(%error, "no netlink: the first packets that are passed on may be lost");
            return nothing_is_known(ways, found).await;
        }
    };
    let (mut failing, mut tell_again) = (false, Instant::now());
    loop {
        let is_new = ways.has_changed().unwrap_or_default();
        let latest = ways.borrow_and_update().clone();
        if is_new || tell_again <= Instant::now() {
            let refused = neighbours.tell(&latest.told).await;
            if let Some((node, error)) = refused.first()
                && !failing
            {
                tracing::warn!(%node, error = %causes(error), "the kernel is not told where a node is");
            }
            failing = !refused.is_empty();
            tell_again = Instant::now() + TOLD_EVERY;
        }
        let latest_found = neighbours.ask(&latest.asked).await;
        note(&found.borrow(), &latest_found);
        super::run::set(&found, latest_found);
        let asked = latest.asked.len();
        let question = (asked > 0).then(|| Instant::now() + next_question(asked));
        let until = question.map_or(tell_again, |at| at.min(tell_again));
        if matches!(timeout_at(until, ways.changed()).await, Ok(Err(_))) {
            return;
        }
    }
}

/// Where nobody can be asked, that is known of everybody.
async fn nothing_is_known(mut ways: watch::Receiver<Ways>, found: watch::Sender<Found>) {
    while ways.changed().await.is_ok() {
        let asked = ways.borrow_and_update().asked.clone();
        super::run::set(&found, asked.into_iter().map(|hop| (hop.node, Wire::Unknown)).collect());
    }
}

fn note(before: &Found, now: &Found) {
    for (node, wire) in now {
        match (before.get(node), wire) {
            (Some(Wire::Silent), Wire::Answers) => {
                tracing::info!(%node, "the node answers on the wire again");
            }
            (Some(Wire::Unasked | Wire::Answers), Wire::Silent) => {
                tracing::info!(%node, "the node does not answer on the wire: it is given no packets");
            }
            _ => {}
        }
    }
}

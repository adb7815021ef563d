//! Tells users of moves, as events on their Services.

use std::sync::Arc;

use arpeggio_api::lock::ServiceRef;
use arpeggio_runtime::{
    events::{EventWriter, Kind, News as Item},
    telemetry::causes,
};
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::mpsc;

use crate::metrics::Metrics;

/// More events than this wait for nobody: moves come first.
const QUEUE: usize = 1024;

/// Takes events without ever waiting; they are written one after the other.
#[derive(Debug, Clone)]
pub(crate) struct News {
    queue: mpsc::Sender<(ServiceRef, Item)>,
    metrics: Arc<Metrics>,
}

impl News {
    /// Starts the task that writes.
    pub(crate) fn spawn(writer: EventWriter, metrics: Arc<Metrics>) -> Self {
        let (queue, items) = mpsc::channel(QUEUE);
        tokio::spawn(write(writer, items, metrics.clone()));
        Self { queue, metrics }
    }

    /// Tells the users of `services` that all is well.
    pub(crate) fn tell(&self, services: &[ServiceRef], reason: &'static str, note: &str) {
        self.publish(services, Kind::Normal, reason, note);
    }

    /// Tells them that somebody should look.
    pub(crate) fn warn(&self, services: &[ServiceRef], reason: &'static str, note: &str) {
        self.publish(services, Kind::Warning, reason, note);
    }

    fn publish(&self, services: &[ServiceRef], kind: Kind, reason: &'static str, note: &str) {
        for service in services {
            let item = Item { kind, reason, action: "Announce", note: note.to_owned() };
            if self.queue.try_send((service.clone(), item)).is_err() {
                self.metrics.events_lost.inc();
            }
        }
    }
}

async fn write(
    writer: EventWriter,
    mut items: mpsc::Receiver<(ServiceRef, Item)>,
    metrics: Arc<Metrics>,
) {
    while let Some((service, item)) = items.recv().await {
        if let Err(error) = writer.publish(&reference(&service), &item).await {
            metrics.events_lost.inc();
            tracing::warn!(%service, error = %causes(&error), "event not written");
        }
    }
}

fn reference(service: &ServiceRef) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Service".to_owned()),
        namespace: Some(service.namespace.clone()),
        name: Some(service.name.clone()),
        uid: Some(service.uid.clone()),
        ..ObjectReference::default()
    }
}

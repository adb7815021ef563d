//! Tells users of moves, as events on their Services.

use arpeggio_api::lock::ServiceRef;
use arpeggio_runtime::events::{EventQueue, Kind, News as Item};
use k8s_openapi::api::core::v1::ObjectReference;

/// Takes news without ever waiting.
#[derive(Debug, Clone)]
pub(crate) struct News(pub(crate) EventQueue);

impl News {
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
            self.0.publish(reference(service), item);
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

//! Tells users of moves, as events on their Services.

use arpeggio_api::lock::ServiceRef;
use arpeggio_runtime::events::{EventQueue, Kind, News as Item};
use k8s_openapi::api::core::v1::ObjectReference;

/// So many Services of one address are told of what happens to it. An address can be shared by a thousand, and each event is
/// a write; the others' users see it on the Services of these, by the address.
const MOST_TOLD: usize = 50;

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
        for service in services.iter().take(MOST_TOLD) {
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

#[cfg(test)]
mod tests {
    use prometheus::IntCounter;

    use super::*;

    #[test]
    fn of_an_address_that_very_many_share_some_are_told() {
        let services: Vec<ServiceRef> = (0..1000)
            .map(|number| ServiceRef {
                namespace: "shop".into(),
                name: format!("web-{number}"),
                uid: number.to_string(),
            })
            .collect();
        let (queue, mut events) = EventQueue::new(IntCounter::new("lost", "Lost.").unwrap());
        News(queue).warn(&services, "AddressConflict", "It is contested.");
        let told = std::iter::from_fn(|| events.try_recv().ok()).count();
        assert_eq!(told, MOST_TOLD);
    }
}

//! Where the backends of a Service are, as its `EndpointSlice`s say.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use arpeggio_election::{Backends, Node};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// The label by which a slice names its Service.
const SERVICE: &str = "kubernetes.io/service-name";

/// A Service, by namespace and name.
pub type ServiceName = (String, String);

/// The Service that a slice belongs to; `None` when it belongs to none.
pub fn service_of(slice: &EndpointSlice) -> Option<ServiceName> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE)?;
    Some((slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}

/// The nodes with backends of one slice.
pub fn backends(slice: &EndpointSlice) -> Backends {
    let mut backends = Backends::default();
    for endpoint in &slice.endpoints {
        let Some(node) = endpoint.node_name.as_deref().map(Node::from) else { continue };
        match State::of(endpoint) {
            State::Ready => _ = backends.ready.insert(node),
            State::Ending => _ = backends.ending.insert(node),
            State::Away => {}
        }
    }
    backends
}

/// How many ready endpoints each node has in one slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Whose they are.
    pub service: ServiceName,
    /// `IPv4`, `IPv6` or `FQDN`.
    family: String,
    /// The names of the ports at which they are reached.
    ports: BTreeSet<String>,
    /// By node.
    pub ready: BTreeMap<Node, u32>,
}

impl Counted {
    /// Whether traffic that comes to this port of a Service at `address` may end here.
    pub fn serves(&self, service: &ServiceName, address: IpAddr, port: &str) -> bool {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        self.service == *service && self.family == family && self.ports.contains(port)
    }
}

/// Counts the ready endpoints of a slice. `None` when it belongs to no Service.
pub fn counted(slice: &EndpointSlice) -> Option<Counted> {
    let mut ready: BTreeMap<Node, u32> = BTreeMap::new();
    for endpoint in slice.endpoints.iter().filter(|it| State::of(it) == State::Ready) {
        let Some(node) = endpoint.node_name.as_deref().map(Node::from) else { continue };
        let count = ready.entry(node).or_default();
        *count = count.saturating_add(1);
    }
    let ports = slice.ports.iter().flatten();
    Some(Counted {
        service: service_of(slice)?,
        family: slice.address_type.clone(),
        ports: ports.map(|it| it.name.clone().unwrap_or_default()).collect(),
        ready,
    })
}

/// Takes out of a slice what [`backends`] does not look at.
pub fn slim(slice: &mut EndpointSlice) {
    slim_counted(slice);
    slice.ports = None;
    slice.endpoints.dedup();
    slice.endpoints.shrink_to_fit();
}

/// Takes out of a slice what [`counted`] does not look at.
pub fn slim_counted(slice: &mut EndpointSlice) {
    (slice.metadata.managed_fields, slice.metadata.annotations) = (None, None);
    slice.metadata.owner_references = None;
    for endpoint in &mut slice.endpoints {
        let Endpoint { conditions, node_name, .. } = std::mem::take(endpoint);
        *endpoint = Endpoint { conditions, node_name, ..Endpoint::default() };
    }
}

#[derive(PartialEq)]
enum State {
    Ready,
    Ending,
    Away,
}

impl State {
    /// `EndpointConditions`: what is not said about readiness means yes, about serving the same as readiness, about
    /// terminating no.
    fn of(endpoint: &Endpoint) -> Self {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        let serving = conditions.serving.unwrap_or(ready);
        match (ready, serving && conditions.terminating == Some(true)) {
            (true, _) => Self::Ready,
            (false, true) => Self::Ending,
            (false, false) => Self::Away,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ready_and_ending_backends_are_told_apart_by_node() {
        let endpoint = |node: &str, conditions: serde_json::Value| json!({ "addresses": ["10.244.0.7"], "nodeName": node, "conditions": conditions });
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4",
            "metadata": { "namespace": "shop", "labels": { SERVICE: "web" } },
            "endpoints": [
                endpoint("ready", json!({ "ready": true, "serving": true })),
                endpoint("silent", json!({})),
                endpoint("ending", json!({ "ready": false, "serving": true, "terminating": true })),
                endpoint("unready", json!({ "ready": false, "serving": false })),
                endpoint("ended", json!({ "ready": false, "serving": false, "terminating": true })),
                json!({ "addresses": ["10.0.0.1"] }),
            ],
        }))
        .unwrap();
        assert_eq!(service_of(&slice), Some(("shop".to_owned(), "web".to_owned())));
        let nodes = |names: &[&str]| names.iter().map(|it| Node::from(*it)).collect();
        let expected = Backends { ready: nodes(&["ready", "silent"]), ending: nodes(&["ending"]) };
        assert_eq!(backends(&slice), expected);
        let mut slimmed = slice.clone();
        slim(&mut slimmed);
        assert_eq!((service_of(&slimmed), backends(&slimmed)), (service_of(&slice), expected));
    }

    #[test]
    fn a_slice_without_endpoints_or_service_is_no_harm() {
        let slice: EndpointSlice = serde_json::from_value(
            json!({ "addressType": "IPv4", "metadata": {}, "endpoints": [] }),
        )
        .unwrap();
        assert_eq!((service_of(&slice), backends(&slice)), (None, Backends::default()));
    }
}

//! What a Node says about whether it should announce addresses.

use arpeggio_election::NodeFacts;
use k8s_openapi::api::core::v1::Node;

/// Keeps load balancers off a node (KEP-1143).
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Says that a node is off, so that its volumes may go elsewhere (KEP-2268).
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What `node` says. `obey_exclusion`: whether its label `node.kubernetes.io/exclude-from-external-load-balancers`
/// counts.
///
/// A Node that is being deleted, and waits for a finalizer, is being emptied like a cordoned one: autoscalers and machine
/// operators delete the Node first, and drain it without `spec.unschedulable`. Kubernetes itself takes such nodes from
/// load balancers.
pub fn facts(node: &Node, obey_exclusion: bool) -> NodeFacts {
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let spec = node.spec.as_ref();
    let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    NodeFacts {
        excluded: obey_exclusion && labels.contains_key(EXCLUDE),
        labels,
        cordoned: spec.and_then(|spec| spec.unschedulable).unwrap_or_default()
            || node.metadata.deletion_timestamp.is_some(),
        not_ready: condition(node, "Ready").is_some_and(|status| status != "True"),
        network_unavailable: condition(node, "NetworkUnavailable") == Some("True"),
        out_of_service: taints.iter().any(|taint| taint.key == OUT_OF_SERVICE),
    }
}

/// Takes out of a Node what the above does not look at: the list of its images, above all.
pub fn slim(node: &mut Node) {
    (node.metadata.managed_fields, node.metadata.annotations) = (None, None);
    node.status.iter_mut().for_each(|status| status.images = None);
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a str> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|it| it.type_ == kind).map(|it| it.status.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(node: Value) -> NodeFacts {
        facts(&serde_json::from_value(node).unwrap(), true)
    }

    #[test]
    fn a_healthy_node_says_nothing_against_itself() {
        let node = json!({
            "metadata": { "labels": { "rack": "a" } },
            "status": { "conditions": [
                { "type": "NetworkUnavailable", "status": "False" },
                { "type": "Ready", "status": "True" },
            ] },
        });
        let labels = [("rack".into(), "a".into())].into();
        assert_eq!(parse(node), NodeFacts { labels, ..NodeFacts::default() });
        assert_eq!(parse(json!({ "metadata": {} })), NodeFacts::default());
    }

    #[test]
    fn each_sign_of_trouble_is_seen() {
        let condition = |kind: &str, status: &str| {
            parse(json!({
                "metadata": {},
                "status": { "conditions": [{ "type": kind, "status": status }] },
            }))
        };
        assert!(condition("Ready", "False").not_ready && condition("Ready", "Unknown").not_ready);
        assert!(condition("NetworkUnavailable", "True").network_unavailable);
        let spec = |spec: Value| parse(json!({ "metadata": {}, "spec": spec }));
        assert!(spec(json!({ "unschedulable": true })).cordoned);
        let deleted = json!({ "metadata": {
            "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["example.org/drain"],
        } });
        assert!(parse(deleted).cordoned);
        let taints = json!([{ "key": OUT_OF_SERVICE, "effect": "NoExecute" }]);
        assert!(spec(json!({ "taints": taints })).out_of_service);
    }

    #[test]
    fn the_exclusion_label_counts_unless_it_is_not_obeyed() {
        let node = json!({ "metadata": { "labels": { EXCLUDE: "" } } });
        assert!(parse(node.clone()).excluded);
        assert!(!facts(&serde_json::from_value(node).unwrap(), false).excluded);
    }
}

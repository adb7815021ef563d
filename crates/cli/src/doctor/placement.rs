//! Where a DaemonSet has its pods.

use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};
use kube::ResourceExt as _;

/// Taints that the pods of every DaemonSet tolerate, those with the host's network the last one, too.
const TOLERATED: [&str; 7] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/pid-pressure",
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/network-unavailable",
];

/// What of its template keeps a DaemonSet's pods off a node.
pub(super) fn keeps_off(spec: &PodSpec, node: &Node) -> Option<String> {
    let has = |(key, value): (&String, &String)| node.labels().get(key) == Some(value);
    if !spec.node_selector.iter().flatten().all(has) {
        return Some("its nodeSelector".to_owned());
    }
    let affinity = spec.affinity.as_ref().and_then(|it| it.node_affinity.as_ref());
    let required = affinity
        .and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref())
        .map(|it| &it.node_selector_terms);
    if required.is_some_and(|terms| !terms.iter().any(|it| selects(it, node))) {
        return Some("its affinity".to_owned());
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let mut taints = node.spec.iter().flat_map(|it| it.taints.iter().flatten());
    let taint = taints.find(|it| is_hard(it) && !tolerations.iter().any(|by| tolerates(by, it)))?;
    Some(format!("it does not tolerate the taint {}", taint.key))
}

/// One without requirements selects no node.
fn selects(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let name = node.name_any();
    let field = |key: &str| (key == "metadata.name").then_some(name.as_str());
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(|it| is_met(it, node.labels().get(&it.key).map(String::as_str)))
        && fields.iter().all(|it| is_met(it, field(&it.key)))
}

fn is_met(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let is_one = value.is_some_and(|value| values.iter().any(|it| it == value));
    let numbers = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => is_one,
        "NotIn" => !is_one,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(it, than)| it > than),
        "Lt" => numbers().is_some_and(|(it, than)| it < than),
        _ => false,
    }
}

/// Whether a taint keeps pods off that do not tolerate it.
fn is_hard(taint: &Taint) -> bool {
    ["NoSchedule", "NoExecute"].contains(&taint.effect.as_str())
        && !TOLERATED.contains(&taint.key.as_str())
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is_any = |it: &Option<String>| it.as_deref().is_none_or(str::is_empty);
    let exists = toleration.operator.as_deref() == Some("Exists");
    let is_key = toleration.key.as_ref() == Some(&taint.key) || (exists && is_any(&toleration.key));
    let is_value = toleration.value.as_deref().unwrap_or_default()
        == taint.value.as_deref().unwrap_or_default();
    let is_effect = is_any(&toleration.effect) || toleration.effect.as_ref() == Some(&taint.effect);
    is_key && is_effect && (exists || is_value)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_keeps_pods_off_a_node_is_named() {
        let node: Node = serde_json::from_value(json!({
            "metadata": { "name": "node-1", "labels": { "arch": "arm64", "cores": "4" } },
            "spec": { "taints": [
                { "key": "dedicated", "value": "db", "effect": "NoSchedule" },
                { "key": "soft", "effect": "PreferNoSchedule" },
                { "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" },
            ] },
        }))
        .unwrap();
        let by = |spec: &Value| {
            let mut spec = spec.clone();
            spec["containers"] = json!([]);
            keeps_off(&serde_json::from_value(spec).unwrap(), &node)
        };
        let tolerant = |mut spec: Value| {
            spec["tolerations"] = json!([{ "operator": "Exists" }]);
            by(&spec)
        };
        let terms = |terms: Value| {
            let required = json!({ "nodeSelectorTerms": terms });
            tolerant(json!({ "affinity": { "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": required,
            } } }))
        };
        let term = |key: &str, operator: &str, values: &[&str]| json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
        let (selector, affinity) =
            (Some("its nodeSelector".to_owned()), Some("its affinity".to_owned()));
        assert_eq!(tolerant(json!({})), None);
        assert_eq!(tolerant(json!({ "nodeSelector": { "arch": "arm64" } })), None);
        assert_eq!(tolerant(json!({ "nodeSelector": { "arch": "amd64" } })), selector);
        let table = [
            (json!([term("arch", "In", &["arm64", "x"])]), true),
            (json!([term("arch", "In", &["amd64"])]), false),
            (json!([term("arch", "In", &["amd64"]), term("arch", "Exists", &[])]), true),
            (json!([term("arch", "NotIn", &["arm64"])]), false),
            (json!([term("gpu", "NotIn", &["arm64"])]), true),
            (json!([term("gpu", "DoesNotExist", &[])]), true),
            (json!([term("cores", "Gt", &["3"])]), true),
            (json!([term("cores", "Lt", &["3"])]), false),
            (json!([{}]), false),
            (
                json!([{ "matchFields": [
                { "key": "metadata.name", "operator": "NotIn", "values": ["node-1"] },
            ] }]),
                false,
            ),
        ];
        for (required, expected) in table {
            let expected = if expected { None } else { affinity.clone() };
            assert_eq!(terms(required.clone()), expected, "{required}");
        }
        let tainted = Some("it does not tolerate the taint dedicated".to_owned());
        for (toleration, expected) in [
            (json!({ "key": "dedicated", "operator": "Exists" }), &None),
            (json!({ "key": "dedicated", "value": "db", "effect": "NoSchedule" }), &None),
            (json!({ "key": "dedicated", "value": "web" }), &tainted),
            (json!({ "key": "dedicated", "operator": "Exists", "effect": "NoExecute" }), &tainted),
        ] {
            assert_eq!(by(&json!({ "tolerations": [toleration] })), *expected, "{toleration}");
        }
    }
}

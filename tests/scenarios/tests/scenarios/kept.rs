//! Open connections through moves that follow from what users change, with the forwarder: pools' rules, and pods that are not ready.

use anyhow::Context as _;
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, first_address};
use serde_json::{Value, json};

use crate::connections::{both_families, unbroken};

/// What each pod waits for, beside its containers, before it is ready.
const GATE: &str = "example.com/wanted";

/// A rule of the pool selects other nodes; another one names an interface that the owner lacks.
pub(crate) fn changed_rules_break_nothing(home: &Home) -> anyhow::Result<()> {
    let announced = |rules: Value| {
        let mut pool = both_families();
        pool["spec"]["announce"] = rules;
        home.apply(&pool)
    };
    let others = |owner: Machine, operator: &str| {
        let (key, values) = ("kubernetes.io/hostname", [owner.to_string()]);
        json!([{ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] }])
    };
    let owner = home.wait_for_owner(first_address())?;
    unbroken(home, "a rule selects other nodes", || {
        announced(json!([{ "nodeSelectors": others(owner, "NotIn") }]))?;
        home.wait_for_another_owner(first_address(), owner).map(drop)
    })?;
    home.apply(&both_families())?;
    let owner = home.wait_for_owner(first_address())?;
    unbroken(home, "a rule names an interface that the owner lacks", || {
        announced(json!([
            { "nodeSelectors": others(owner, "In"), "interfaces": ["absent0"] },
            { "nodeSelectors": others(owner, "NotIn"), "interfaces": ["eth0"] },
        ]))?;
        home.wait_for_another_owner(first_address(), owner).map(drop)
    })?;
    home.apply(&both_families())
}

/// With the policy `Local` the address leaves a node whose pod is not ready any more. The pod is there, and so are its connections.
pub(crate) fn a_pod_that_is_not_ready_keeps_its_connections(home: &Home) -> anyhow::Result<()> {
    start_gated(home)?;
    patch(home, "service/web", &json!({ "externalTrafficPolicy": "Local" }))?;
    home.wait_for_steady_page()?;
    let owner = home.wait_for_owner(first_address())?;
    unbroken(home, "the owner's pod is not ready any more", || {
        for (pod, node) in pods(home)? {
            if node == owner.to_string() {
                open(home, &pod, false)?;
            }
        }
        home.wait_for_another_owner(first_address(), owner).map(drop)
    })?;
    patch(home, "service/web", &json!({ "externalTrafficPolicy": "Cluster" }))?;
    home.lab.kubectl(&["delete", "deployment", "web"]).map(drop)?;
    Ok(())
}

/// A pod on each node that is ready when it is told so.
fn start_gated(home: &Home) -> anyhow::Result<()> {
    let replicas = home.lab.options().node_machines().len();
    patch(home, "deployment/web", &json!({ "replicas": 0 }))?;
    count(home, 0)?;
    let template = json!({ "spec": { "readinessGates": [{ "conditionType": GATE }] } });
    patch(home, "deployment/web", &json!({ "replicas": replicas, "template": template }))?;
    count(home, replicas)?;
    for (pod, _) in pods(home)? {
        open(home, &pod, true)?;
    }
    Ok(home.lab.wait_for_rollout("default", "deployment/web", crate::faults::PATIENCE)?)
}

fn patch(home: &Home, what: &str, spec: &Value) -> anyhow::Result<()> {
    let patch = json!({ "spec": spec }).to_string();
    home.lab.kubectl(&["patch", what, "--type=merge", "-p", &patch])?;
    Ok(())
}

/// Says of a pod whether it may be ready.
fn open(home: &Home, pod: &str, is_open: bool) -> anyhow::Result<()> {
    let status = if is_open { "True" } else { "False" };
    let conditions = json!([{ "type": GATE, "status": status }]);
    let patch = json!({ "status": { "conditions": conditions } }).to_string();
    home.lab.kubectl(&["patch", "pod", pod, "--subresource=status", "-p", &patch])?;
    Ok(())
}

fn count(home: &Home, expected: usize) -> anyhow::Result<()> {
    home.wait_until(&format!("there are {expected} pods"), || match pods(home)? {
        pods if pods.len() == expected => Ok(()),
        pods => Err(format!("{pods:?}").into()),
    })
}

/// The pods behind the Service, and their nodes, when all of them have one.
fn pods(home: &Home) -> anyhow::Result<Vec<(String, String)>> {
    let pods = home.lab.get(&["pods", "-lapp=web"])?;
    let of = |pod: &Value| {
        let name = pod["metadata"]["name"].as_str()?;
        Some((name.to_owned(), pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned()))
    };
    pods["items"].as_array().into_iter().flatten().map(of).collect::<Option<_>>().context("names")
}

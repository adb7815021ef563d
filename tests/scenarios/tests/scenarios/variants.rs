//! Arpeggio as components change it, in another namespace.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use arpeggio_lab::Machine;
use arpeggio_scenarios::{EXCLUDE, Home, install_overlay, service};
use serde_json::{Value, json};

/// Where it is installed here.
const NAMESPACE: &str = "lb";

const COMPONENTS: [&str; 5] = ["configmap-only", "single-node", "fast", "admission", "egress"];

/// The only pool stands in a `ConfigMap`, and every node has the label that keeps load balancers off it.
pub(crate) fn components_change_what_is_installed_elsewhere(home: &Home) -> anyhow::Result<()> {
    home.lab.kubectl(&["label", "nodes", "--all", &format!("{EXCLUDE}=")])?;
    install_overlay(&home.lab, NAMESPACE, &COMPONENTS)?;
    ensure!(home.lab.get(&["crd", "addresspools.arpeggio.dev"]).is_err(), "no definition");
    home.apply(&json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "arpeggio", "namespace": NAMESPACE },
        "data": { "config": "address-pools: [{name: file, addresses: [192.168.0.240/32]}]" },
    }))?;
    home.start_web(2)?;
    home.apply(&service("web", "arpeggio.dev/address-pool", "file"))?;
    let address = home.wait_for_address("web")?;
    let page = (address, 80).into();
    home.wait_for_page_at(Machine::Client, page)?;
    every_node_is_asked_fast(home)?;
    renewals_have_a_priority_of_their_own(home)?;
    the_only_controller_can_be_drained(home)?;
    a_viewer_sees_the_service_explained(home)?;

    // What another program wrote is not ours to remove.
    let foreign = json!({ "status": { "conditions": [{
        "type": "example.com/Checked", "status": "True", "reason": "Checked", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }] } });
    let patch = ["patch", "service", "web", "--subresource=status", "--type=strategic", "-p"];
    home.lab.kubectl(&[&patch[..], &[&foreign.to_string()]].concat())?;
    let preview = home.arpeggio(&["uninstall", "--dry-run", "--system-namespace", NAMESPACE])?;
    ensure!(preview.contains("would release Service default/web (192.168.0.240)"), "{preview}");
    home.wait_for_page_at(Machine::Client, page)?;
    let said = home.arpeggio(&["uninstall", "--system-namespace", NAMESPACE])?;
    ensure!(said.contains("kubectl delete namespace lb"), "{said}");
    ensure!(said.contains("validatingadmissionpolicies"), "the policy is left: {said}");
    let status = home.lab.get(&["service", "web"])?["status"].clone();
    ensure!(status["loadBalancer"] == json!({}), "{status}");
    let types: Vec<&Value> =
        status["conditions"].as_array().into_iter().flatten().map(|it| &it["type"]).collect();
    ensure!(types == [&json!("example.com/Checked")], "{status}");
    let left = home.lab.get(&["leases,pods", "-n", NAMESPACE])?;
    ensure!(left["items"].as_array().is_some_and(Vec::is_empty), "{left}");
    for command in said.lines().filter_map(|line| line.trim().strip_prefix("kubectl ")) {
        home.lab.kubectl(&command.split(' ').collect::<Vec<_>>())?;
    }
    nothing_is_left(home)
}

fn every_node_is_asked_fast(home: &Home) -> anyhow::Result<()> {
    home.wait_until("every node is asked fast", || {
        let status = home.arpeggio(&["status", "--system-namespace", NAMESPACE])?;
        if status.contains("fast (fixed)") { Ok(()) } else { Err(status.into()) }
    })
}

fn renewals_have_a_priority_of_their_own(home: &Home) -> anyhow::Result<()> {
    let metrics = home.lab.kubectl(&["get", "--raw", "/metrics"])?;
    let dispatched = metrics.lines().any(|line| {
        line.starts_with("apiserver_flowcontrol_dispatched_requests_total{")
            && line.contains("flow_schema=\"arpeggio-leases\"")
    });
    ensure!(dispatched, "no request was classified by the FlowSchema");
    Ok(())
}

/// An eviction is what a drain asks for.
fn the_only_controller_can_be_drained(home: &Home) -> anyhow::Result<()> {
    let label = "-lapp.kubernetes.io/component=controller";
    let pods = home.lab.get(&["pods", "-n", NAMESPACE, label])?;
    let pods = pods["items"].as_array().context("no list")?;
    let [pod] = &pods[..] else { anyhow::bail!("not one controller: {pods:?}") };
    let name = pod["metadata"]["name"].as_str().context("a pod without a name")?;
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": { "name": name, "namespace": NAMESPACE },
    });
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction");
    home.lab.kubectl_with_input(&["create", "--raw", &path, "-f", "-"], &eviction.to_string())?;
    home.lab.wait_for_rollout(
        NAMESPACE,
        "deployment/arpeggio-controller",
        Duration::from_secs(90),
    )?;
    Ok(())
}

/// Somebody who may read a cluster, but not change it.
fn a_viewer_sees_the_service_explained(home: &Home) -> anyhow::Result<()> {
    let bind = ["create", "clusterrolebinding", "vic", "--clusterrole=view", "--user=vic"];
    home.lab.kubectl(&bind)?;
    let explained = ["explain", "service", "default/web", "--system-namespace", NAMESPACE];
    let explained = home.arpeggio_as("vic", &explained)?;
    ensure!(explained.contains("192.168.0.240"), "{explained}");
    // Whether somebody may is decided before it is seen that there is no such kind.
    let refused = explained.lines().any(|line| {
        line.contains("addresspools (API group") && line.contains("you need the permission")
    });
    ensure!(!refused, "pools may be read: {explained}");
    Ok(())
}

fn nothing_is_left(home: &Home) -> anyhow::Result<()> {
    let kinds =
        "clusterroles,clusterrolebindings,flowschemas,validatingadmissionpolicies,namespaces";
    let left = home.lab.get(&[kinds, "-lapp.kubernetes.io/part-of=arpeggio"])?;
    ensure!(left["items"].as_array().is_some_and(Vec::is_empty), "{left}");
    Ok(())
}

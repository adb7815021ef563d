//! MetalLB: its programs and definitions as they are, to be measured beside, and for what comes from it.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::Context as _;
use arpeggio_lab::{Lab, Machine};
use serde_json::json;

use crate::{built::built, process::HostProcess};

/// The namespace of its objects.
const NAMESPACE: &str = "metallb-system";

/// How long the API server may take for a definition.
const PATIENCE: Duration = Duration::from_secs(30);

/// Installs what its programs need: the definitions and the namespace. Each program wants a Pod, too.
///
/// # Errors
/// When it was not built, or the API server refuses something.
pub fn install_definitions(lab: &Lab) -> anyhow::Result<()> {
    let definitions = definitions()?;
    // Too large for what `kubectl apply` writes down on an object.
    lab.kubectl(&["create", "-f", &definitions])?;
    for kind in ["ipaddresspools", "l2advertisements", "servicel2statuses"] {
        lab.wait_for(&[&format!("crd/{kind}.metallb.io")], "condition=Established", PATIENCE)?;
    }
    if lab.get(&["namespace", NAMESPACE]).is_ok() {
        return Ok(());
    }
    lab.kubectl(&["create", "namespace", NAMESPACE])?;
    // Kubernetes makes this one too, and whoever comes second is refused; without it no Pod is taken.
    let _ = lab.kubectl(&["create", "serviceaccount", "default", "-n", NAMESPACE]);
    Ok(())
}

/// Removes the definitions, and with them all of its objects, as removing its chart does.
///
/// # Errors
/// When it was not built, or the API server refuses something.
pub fn remove_definitions(lab: &Lab) -> anyhow::Result<()> {
    lab.kubectl(&["delete", "--wait", "--timeout=60s", "-f", &definitions()?])?;
    Ok(())
}

fn definitions() -> anyhow::Result<String> {
    Ok(programs()?.join("crds").to_string_lossy().into_owned())
}

/// Installs what its programs need, and a pool with `range`.
///
/// # Errors
/// When it was not built, or the API server refuses something.
pub fn install(lab: &Lab, range: &str) -> anyhow::Result<()> {
    install_definitions(lab)?;
    let pool = json!({
        "apiVersion": "metallb.io/v1beta1",
        "kind": "IPAddressPool",
        "metadata": { "name": "bench", "namespace": NAMESPACE },
        "spec": { "addresses": [range] },
    });
    lab.apply(&pool.to_string())?;
    Ok(())
}

/// Has these nodes announce the pool's addresses.
///
/// # Errors
/// When it was not built, or the API server refuses something.
pub fn advertise(lab: &Lab, nodes: &[Machine]) -> anyhow::Result<()> {
    let names = nodes.iter().map(Machine::to_string);
    let selectors = names.map(|name| json!({ "matchLabels": { "kubernetes.io/hostname": name } }));
    let advertisement = json!({
        "apiVersion": "metallb.io/v1beta1",
        "kind": "L2Advertisement",
        "metadata": { "name": "bench", "namespace": NAMESPACE },
        "spec": { "nodeSelectors": selectors.collect::<Vec<_>>() },
    });
    lab.apply(&advertisement.to_string())?;
    Ok(())
}

/// Adds the Pod that its controller wants to find under its own name.
///
/// # Errors
/// When it was not built, or the API server refuses something.
pub fn add_controller_pod(lab: &Lab) -> anyhow::Result<()> {
    add_pod(lab, "controller", "controller")
}

/// The same for the speaker of a node, with the address at which the other speakers find this one.
///
/// # Errors
/// When it was not built, or the API server refuses something.
pub fn add_speaker_pod(lab: &Lab, node: Machine) -> anyhow::Result<()> {
    let name = format!("speaker-{node}");
    add_pod(lab, &name, "speaker")?;
    let ip = node.lan_v4().context("a node has an address")?;
    let status = json!({ "status": { "podIP": ip, "podIPs": [{ "ip": ip }] } }).to_string();
    let patch = ["patch", "pod", &name, "--subresource=status", "--type=merge", "-p", &status];
    lab.kubectl(&[&patch[..], &["-n", NAMESPACE]].concat())?;
    Ok(())
}

/// Nobody runs this Pod, and nobody takes it for an orphan either.
fn add_pod(lab: &Lab, name: &str, component: &str) -> anyhow::Result<()> {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": NAMESPACE, "labels": { "component": component } },
        "spec": {
            "schedulingGates": [{ "name": "example.com/never" }],
            "automountServiceAccountToken": false,
            "containers": [{ "name": "none", "image": "none" }],
        },
    });
    lab.apply(&pod.to_string())?;
    Ok(())
}

/// Its controller, without metrics.
///
/// # Errors
/// When it was not built, or the API server refuses something.
pub fn controller(lab: &Lab) -> anyhow::Result<HostProcess> {
    let mut command = program("controller")?;
    command.args([
        "--namespace=metallb-system",
        "--pod-name=controller",
        "--port=0",
        "--webhook-mode=disabled",
        "--disable-cert-rotation",
        "--log-level=warn",
    ]);
    HostProcess::start(lab, "metallb", &mut command)
}

/// Whether a speaker looks for those of other nodes, to notice when one dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fellows {
    /// It does not look for them.
    Ignored,
    /// It does.
    Watched,
}

/// Its speaker on a node, without metrics.
///
/// # Errors
/// When it was not built, or the API server refuses something.
pub fn speaker(lab: &Lab, node: Machine, fellows: Fellows) -> anyhow::Result<HostProcess> {
    let mut command = program("speaker")?;
    command.args(["--namespace=metallb-system", "--port=0", "--log-level=warn"]);
    command.arg(format!("--node-name={node}")).arg(format!("--pod-name=speaker-{node}"));
    if fellows == Fellows::Watched {
        let ip = node.lan_v4().context("a node has an address")?;
        command.arg(format!("--ml-bindaddr={ip}")).arg("--ml-bindport=7946");
        command.arg("--ml-labels=component=speaker");
    }
    HostProcess::start_on(lab, node, "metallb-speaker", &mut command)
}

/// Waits for the object that a speaker makes for its own state. If it looks for it too early, it serves nobody from then on:
/// it must be started again when the object is there.
///
/// # Errors
/// When it was not built, or the API server refuses something.
pub fn wait_for_state(lab: &Lab, node: Machine) -> anyhow::Result<()> {
    let state = format!("configurationstate/speaker-{node}");
    lab.wait_until(&state, PATIENCE, || lab.get(&["-n", NAMESPACE, &state]))?;
    Ok(())
}

/// One of its programs: `controller` or `speaker`.
fn program(name: &str) -> anyhow::Result<Command> {
    Ok(Command::new(programs()?.join(format!("metallb-{name}"))))
}

/// The folder of its programs, which are built when they are not there yet.
fn programs() -> anyhow::Result<PathBuf> {
    built("peers")
}

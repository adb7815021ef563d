//! MetalLB, to be measured beside.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::Lab;
use serde_json::json;

/// The namespace of its objects.
pub(crate) const NAMESPACE: &str = "metallb-system";

/// How long the API server may take for a definition.
const PATIENCE: Duration = Duration::from_secs(30);

/// Installs what one of its programs needs: the definitions, a pool with `range`, and a Pod of the name `pod`, which it
/// wants to find. Nobody runs that one, and nobody takes it for an orphan either.
pub(crate) fn install(lab: &Lab, pod: &str, range: &str) -> anyhow::Result<()> {
    let definitions = programs()?.join("crds").to_string_lossy().into_owned();
    // Too large for what `kubectl apply` writes down on an object.
    lab.kubectl(&["create", "-f", &definitions])?;
    lab.wait_for(&["crd/ipaddresspools.metallb.io"], "condition=Established", PATIENCE)?;
    lab.kubectl(&["create", "namespace", NAMESPACE])?;
    // Kubernetes makes this one too, and whoever comes second is refused; without it no Pod is taken.
    let _ = lab.kubectl(&["create", "serviceaccount", "default", "-n", NAMESPACE]);
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": pod, "namespace": NAMESPACE },
        "spec": {
            "schedulingGates": [{ "name": "example.com/never" }],
            "automountServiceAccountToken": false,
            "containers": [{ "name": "none", "image": "none" }],
        },
    });
    lab.apply(&pod.to_string())?;
    let pool = json!({
        "apiVersion": "metallb.io/v1beta1",
        "kind": "IPAddressPool",
        "metadata": { "name": "bench", "namespace": NAMESPACE },
        "spec": { "addresses": [range] },
    });
    lab.apply(&pool.to_string())?;
    Ok(())
}

/// One of its programs: `controller` or `speaker`.
pub(crate) fn program(name: &str) -> anyhow::Result<Command> {
    Ok(Command::new(programs()?.join(format!("metallb-{name}"))))
}

/// The folder of its programs, which are built when they are not there yet.
fn programs() -> anyhow::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../peers/build.sh");
    let output = Command::new(&script).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", script.display()))?;
    ensure!(output.status.success(), "{} failed, see above", script.display());
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

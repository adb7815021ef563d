//! MetalLB, to be measured beside.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Lab, Machine};
use arpeggio_scenarios::HostProcess;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::api::{self, CONNECTIONS};

/// The namespace of its objects.
const NAMESPACE: &str = "metallb-system";

/// How many addresses a Service gets.
const PER_SERVICE: usize = 10;

/// How long the API server may take for a definition.
const PATIENCE: Duration = Duration::from_secs(30);

/// Installs what its programs need: the definitions, and a pool with `range`. Each program wants a Pod, too.
pub(crate) fn install(lab: &Lab, range: &str) -> anyhow::Result<()> {
    let definitions = programs()?.join("crds").to_string_lossy().into_owned();
    // Too large for what `kubectl apply` writes down on an object.
    lab.kubectl(&["create", "-f", &definitions])?;
    lab.wait_for(&["crd/ipaddresspools.metallb.io"], "condition=Established", PATIENCE)?;
    lab.kubectl(&["create", "namespace", NAMESPACE])?;
    // Kubernetes makes this one too, and whoever comes second is refused; without it no Pod is taken.
    let _ = lab.kubectl(&["create", "serviceaccount", "default", "-n", NAMESPACE]);
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
pub(crate) fn advertise(lab: &Lab, nodes: &[Machine]) -> anyhow::Result<()> {
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
pub(crate) fn add_controller_pod(lab: &Lab) -> anyhow::Result<()> {
    add_pod(lab, "controller", "controller")
}

/// The same for the speaker of a node, with the address at which the other speakers find this one.
pub(crate) fn add_speaker_pod(lab: &Lab, node: Machine) -> anyhow::Result<()> {
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
pub(crate) fn controller(lab: &Lab) -> anyhow::Result<HostProcess> {
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
pub(crate) enum Fellows {
    Ignored,
    Watched,
}

/// Its speaker on a node, without metrics.
pub(crate) fn speaker(lab: &Lab, node: Machine, fellows: Fellows) -> anyhow::Result<HostProcess> {
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
pub(crate) fn wait_for_state(lab: &Lab, node: Machine) -> anyhow::Result<()> {
    let state = format!("configurationstate/speaker-{node}");
    lab.wait_until(&state, PATIENCE, || lab.get(&["-n", NAMESPACE, &state]))?;
    Ok(())
}

/// Creates Services with these addresses, a few each: MetalLB takes any number from one, and a Service takes the API server
/// much longer to create than a Lease. So what it takes for many addresses is less than with a Service for each.
pub(crate) fn serve(lab: &Lab, addresses: &[Ipv4Addr]) -> anyhow::Result<()> {
    api::run(lab, async |client| {
        let services: Api<Service> = Api::namespaced(client.clone(), "default");
        let slices: Api<EndpointSlice> = Api::namespaced(client, "default");
        stream::iter(addresses.chunks(PER_SERVICE))
            .map(async |chunk| make_service(&services, &slices, chunk).await)
            .buffer_unordered(CONNECTIONS)
            .try_collect::<()>()
            .await
    })
}

/// A Service with addresses and a ready endpoint, as its controller and Kubernetes would leave it.
async fn make_service(
    services: &Api<Service>,
    slices: &Api<EndpointSlice>,
    addresses: &[Ipv4Addr],
) -> anyhow::Result<()> {
    let first = addresses.first().context("a Service has an address")?;
    let name = format!("bench-{}", first.to_string().replace('.', "-"));
    let slice = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["10.244.1.9"], "conditions": { "ready": true } }],
        "ports": [{ "port": 80 }],
    });
    api::create(slices, slice).await?;
    let service = json!({
        "metadata": { "name": name },
        "spec": {
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": false,
            "ports": [{ "port": 80 }],
        },
    });
    api::create(services, service).await?;
    let ingress: Vec<Value> = addresses.iter().map(|it| json!({ "ip": it.to_string() })).collect();
    let status = json!({ "status": { "loadBalancer": { "ingress": ingress } } });
    let patch = services.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await;
    patch.with_context(|| format!("Service {name} was not told its address"))?;
    Ok(())
}

/// One of its programs: `controller` or `speaker`.
fn program(name: &str) -> anyhow::Result<Command> {
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

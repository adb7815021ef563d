//! The oldest Kubernetes that we support.

use std::{process::Command, time::Duration};

use anyhow::ensure;
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, HostProcess, NotYet, POOL, first_address, pool, program, service};
use serde_json::json;

use crate::bad_input::{judged_by_the_api_server, not_ready};

/// What a node is to the API server here. It runs no pods.
const NODE: Machine = Machine::Client;

/// Whose permissions speakers and forwarders have.
const SPEAKER: &str = "system:serviceaccount:arpeggio-system:arpeggio-speaker";

/// Its API server has nobody to run pods: controller and speaker are programs of the host, which is all the same to the API.
pub(crate) fn the_oldest_kubernetes_takes_our_manifests_and_serves_our_programs(
    home: &Home,
) -> anyhow::Result<()> {
    let version = home.lab.kubectl(&["get", "--raw", "/version"])?;
    ensure!(version.contains("\"v1.29."), "another version than the documents say: {version}");
    home.apply(&json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "metallb-system" },
    }))?;
    // The base is in it.
    home.apply_manifests("from-metallb")?;
    let definition = ["crd/addresspools.arpeggio.dev"];
    home.lab.wait_for(&definition, "condition=Established", Duration::from_secs(30))?;
    judged_by_the_api_server(home)?;
    addresses_are_given_and_announced(home)
}

/// What only the controller can see becomes a condition, a Service gets an address, and the speaker announces it.
fn addresses_are_given_and_announced(home: &Home) -> anyhow::Result<()> {
    let _controller = HostProcess::controller(&home.lab, "arpeggio", 7473, &["--log=warn"])?;
    home.apply(&pool("host-bits", &["fd00::1/64"]))?;
    not_ready(home, "host-bits", "did you mean fd00::1/128 or fd00::/64?")?;
    home.add_pool()?;
    home.apply(&service("web", "arpeggio.dev/address-pool", POOL))?;
    let address = home.wait_for_address("web")?;
    ensure!(address == first_address(), "{address} is not the first of the pool");
    home.apply(&json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE.to_string() },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
    }))?;
    let _speaker = HostProcess::speaker(&home.lab, NODE, "arpeggio-system")?;
    home.wait_until("the speaker says that it announces the address", || {
        let conditions = home.conditions("web")?;
        let announced = conditions.iter().any(|it| it.starts_with("Announced=True"));
        if announced { Ok(()) } else { Err(NotYet::from(format!("{conditions:?}"))) }
    })?;
    a_forwarder_does_what_it_may(home)
}

/// A forwarder that may not see Services keeps connections all the same, and says what it lacks: it is not ready. It is
/// when it may.
fn a_forwarder_does_what_it_may(home: &Home) -> anyhow::Result<()> {
    let socket = home.lab.folders().kubeconfig().with_file_name("forwarder.sock");
    let program = program("arpeggio-forwarder")?;
    let mut forwarder = Command::new(&program);
    forwarder.args(["--node-name", &NODE.to_string(), "--namespace", "arpeggio-system"]);
    forwarder.arg("--admin-socket").arg(&socket);
    forwarder.env("KUBECONFIG", home.kubeconfig_of(SPEAKER)?);
    let _forwarder = HostProcess::start_on(&home.lab, NODE, "forwarder", &mut forwarder)?;
    home.wait_until("the forwarder has its rules", || {
        let status = home.arpeggio(&["status", "-o", "json"])?;
        if status.contains("\"forwarder\": \"able\"") { Ok(()) } else { Err(status.into()) }
    })?;
    let asked = || {
        let mut asked = Command::new(&program);
        asked.args(["health", "ready", "--socket"]).arg(&socket);
        anyhow::Ok(home.lab.namespace(NODE).output(&mut asked)?)
    };
    let unready = asked()?;
    let why = String::from_utf8_lossy(&unready.stderr).into_owned();
    ensure!(!unready.status.success() && why.contains("Services"), "it says what it lacks: {why}");
    let rule = include_str!("../../../../manifests/components/forwarder/services.yaml");
    let patch = ["patch", "clusterrole", "arpeggio-speaker", "--type=json", "-p", rule];
    home.lab.kubectl(&patch)?;
    home.wait_until("the forwarder is ready", || {
        let ready = asked()?;
        let why = String::from_utf8_lossy(&ready.stderr).into_owned();
        if ready.status.success() { Ok(()) } else { Err(why.into()) }
    })
}

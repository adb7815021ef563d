//! The oldest Kubernetes that we support.

use std::time::Duration;

use anyhow::ensure;
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, HostProcess, NotYet, POOL, first_address, pool, service};
use serde_json::json;

use crate::bad_input::{judged_by_the_api_server, not_ready};

/// What a node is to the API server here. It runs no pods.
const NODE: Machine = Machine::Client;

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
    })
}

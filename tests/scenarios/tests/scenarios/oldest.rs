//! The oldest Kubernetes that we support.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::ensure;
use arpeggio_scenarios::{Home, HostProcess, POOL, first_address, service};
use serde_json::json;

use crate::bad_input::{judged_by_the_api_server, not_ready};

/// Its API server has no nodes to run pods on: the controller is a program of the host, which is all the same to the API.
pub(crate) fn the_oldest_kubernetes_takes_our_manifests_and_serves_our_controller(
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
    addresses_are_given(home)
}

/// What only the controller can see becomes a condition, and a Service gets an address.
fn addresses_are_given(home: &Home) -> anyhow::Result<()> {
    let _controller = HostProcess::controller(&home.lab, "arpeggio", 7473, &["--log=warn"])?;
    home.apply(&arpeggio_scenarios::pool("host-bits", &["fd00::1/64"]))?;
    not_ready(home, "host-bits", "did you mean fd00::1/128 or fd00::/64?")?;
    home.add_pool()?;
    home.apply(&service("web", "arpeggio.dev/address-pool", POOL))?;
    let address = home.wait_for_address("web")?;
    let first: Ipv4Addr = first_address();
    ensure!(address == first, "{address} is not the first of the pool");
    Ok(())
}

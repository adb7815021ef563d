//! Pools in other formats than `AddressPool`.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use arpeggio_scenarios::{Home, metallb, service};
use serde_json::{Value, json};

const DEPRECATED: &str = "metallb.universe.tf/address-pool";

/// Two pools of one address each, as home labs have them, and one that is for routers with BGP.
const CONFIG: &str = "\
address-pools:
# Used in HAProxy and internal DNS, for services accessible from Internet
- name: external
  protocol: layer2
  addresses:
  - 192.168.0.3/32

# Used only in internal DNS, for services accessible from LAN only
- name: internal
  protocol: layer2
  addresses:
  - 192.168.0.5/32
- name: routed
  protocol: bgp
  addresses: [192.168.7.0/24]
";

pub(crate) fn a_config_map_declares_pools(home: &Home) -> anyhow::Result<()> {
    home.apply(&config_map(CONFIG))?;
    home.apply(&service("app1", DEPRECATED, "external"))?;
    home.apply(&service("app2", DEPRECATED, "internal"))?;
    ensure!(home.wait_for_address("app1")?.to_string() == "192.168.0.3", "the external one");
    ensure!(home.wait_for_address("app2")?.to_string() == "192.168.0.5", "the internal one");
    wait_for_note(home, "arpeggio-system", "ConfigMap", "\"routed\"")?;

    home.apply(&service("app3", DEPRECATED, "external"))?;
    let refusal = home.wait_for_event("app3", "AllocationFailed")?;
    ensure!(refusal.note.contains("external"), "the full pool is named: {refusal:?}");

    // An entry with a mistake stays what it was.
    home.apply(&config_map(&CONFIG.replace("192.168.0.5/32", "192.168.0.5/99")))?;
    wait_for_note(home, "arpeggio-system", "ConfigMap", "stays in force")?;
    home.lab.kubectl(&["delete", "service", "app2"])?;
    home.apply(&service("app2", DEPRECATED, "internal"))?;
    ensure!(home.wait_for_address("app2")?.to_string() == "192.168.0.5", "as before");

    // A slip of the pen costs nobody an address, and nobody who comes later, not even when the controllers start again
    // with it.
    home.apply(&config_map(&CONFIG.replace("  protocol: bgp", "   protocol: bgp")))?;
    wait_for_note(home, "arpeggio-system", "ConfigMap", "at line 14, column")?;
    home.without_controllers(|| {
        home.lab.kubectl(&["delete", "service", "app2"])?;
        home.apply(&service("app2", DEPRECATED, "internal"))
    })?;
    ensure!(home.wait_for_address("app1")?.to_string() == "192.168.0.3", "it stays");
    ensure!(home.wait_for_address("app2")?.to_string() == "192.168.0.5", "as it was last good");
    Ok(())
}

pub(crate) fn metallb_s_objects_are_read_as_they_are(home: &Home) -> anyhow::Result<()> {
    // A namespace that somebody makes means nothing, whatever its name, as long as the installer does not say so.
    home.apply(&json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "metallb-system" },
    }))?;
    home.apply(&config_map_at("metallb-system", "config", CONFIG))?;
    home.apply(&service("early", DEPRECATED, "external"))?;
    let refusal = home.wait_for_event("early", "AllocationFailed")?;
    ensure!(refusal.note.contains("does not exist"), "{refusal:?}");

    // The controller runs already when the definitions appear.
    install_from_metallb(home)?;
    ensure!(home.wait_for_address("early")?.to_string() == "192.168.0.3", "the ConfigMap counts");
    metallb::install_definitions(&home.lab)?;
    let addresses = json!({ "addresses": ["192.168.0.241/30", "192.168.0.248-192.168.0.249"] });
    home.apply(&object("IPAddressPool", "lan", &addresses))?;
    home.apply(&service("web", "metallb.io/address-pool", "lan"))?;
    ensure!(home.wait_for_address("web")?.to_string() == "192.168.0.240", "host bits are masked");
    wait_for_note(home, "metallb-system", "IPAddressPool", "all of 192.168.0.240/30")?;
    wait_for_note(home, "metallb-system", "IPAddressPool", "no L2Advertisement selects pool")?;
    wait_for_note(home, "metallb-system", "ConfigMap", "its pools are not used")?;

    home.apply(&object("IPAddressPool", "bare", &json!({ "addresses": ["192.168.0.200"] })))?;
    // Its spec may be absent, as MetalLB's own pages write it.
    let mut all = object("L2Advertisement", "all", &json!({}));
    all.as_object_mut().context("an object")?.remove("spec");
    home.apply(&all)?;
    wait_for_note(home, "metallb-system", "IPAddressPool", "write 192.168.0.200/32")?;

    // A change that cannot be used leaves in force what was good, for new Services too.
    home.apply(&object("IPAddressPool", "lan", &json!({ "addresses": ["192.168.0.240/99"] })))?;
    wait_for_note(home, "metallb-system", "IPAddressPool", "stays in force")?;
    home.apply(&service("late", "metallb.io/address-pool", "lan"))?;
    ensure!(home.wait_for_address("late")?.to_string() == "192.168.0.241", "as before");
    home.without_controllers(|| Ok(()))?;
    home.apply(&service("later", "metallb.io/address-pool", "lan"))?;
    ensure!(home.wait_for_address("later")?.to_string() == "192.168.0.242", "after a restart");
    points_out_what_is_not_read(home)
}

/// Who keeps their pools in another namespace is told by the command, which reads with the user's own permissions.
fn points_out_what_is_not_read(home: &Home) -> anyhow::Result<()> {
    home.apply(&json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "lb" },
    }))?;
    let mut stray = object("IPAddressPool", "stray", &json!({ "addresses": ["192.168.0.99/32"] }));
    stray["metadata"]["namespace"] = json!("lb");
    home.apply(&stray)?;
    home.apply(&config_map_at("lb", "metallb-config", CONFIG))?;
    home.apply(&service("lost", "metallb.io/address-pool", "stray"))?;
    home.wait_for_event("lost", "AllocationFailed")?;
    let place = "--metallb-namespace=metallb-system";
    let explained = home.arpeggio(&["explain", "service", "lost", place])?;
    let told = "in namespace lb: IPAddressPool stray, ConfigMap metallb-config";
    ensure!(explained.contains(told), "{explained}");
    Ok(())
}

fn config_map(text: &str) -> Value {
    config_map_at("arpeggio-system", "arpeggio", text)
}

fn config_map_at(namespace: &str, name: &str, text: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": name, "namespace": namespace },
        "data": { "config": text },
    })
}

/// Installs Arpeggio as those do who come from MetalLB: with its pools.
pub(crate) fn install_from_metallb(home: &Home) -> anyhow::Result<()> {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/from-metallb");
    home.lab.apply_folder(&manifests)?;
    let controller = "deployment/arpeggio-controller";
    home.lab.wait_for_rollout("arpeggio-system", controller, Duration::from_secs(90))?;
    home.wait_for_speakers()
}

/// One of MetalLB's objects.
pub(crate) fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "metallb.io/v1beta1",
        "kind": kind,
        "metadata": { "name": name, "namespace": "metallb-system" },
        "spec": spec,
    })
}

/// Waits for a warning about an object of this kind that contains `hint`.
fn wait_for_note(home: &Home, namespace: &str, kind: &str, hint: &str) -> anyhow::Result<()> {
    let selector = format!("--field-selector=regarding.kind={kind}");
    home.wait_until(&format!("an event on a {kind} says {hint}"), || {
        let list = home
            .lab
            .get(&["events.events.k8s.io", "-n", namespace, &selector])
            .context("events")?;
        let items = list["items"].as_array().into_iter().flatten();
        let notes: Vec<&str> = items.filter_map(|item| item["note"].as_str()).collect();
        let found = notes.iter().any(|note| note.contains(hint));
        found.then_some(()).ok_or_else(|| notes.join("; ").into())
    })
}

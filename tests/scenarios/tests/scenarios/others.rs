//! Other programs that hold on to what we write, on a real API server: field managers and finalizers.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use arpeggio_scenarios::{Home, POOL, pool, service};
use serde_json::{Value, json};

use crate::neighbourhood::status_writes;

const KEY: &str = "arpeggio.dev/address-pool";
const SHARING: &str = "arpeggio.dev/sharing-key";
const SYSTEM: &str = "arpeggio-system";
const EXPIRING: &str = "arpeggio.dev/AddressExpiring";

/// For so long it is looked on that nothing is written again and again.
const LOOK_ON: Duration = Duration::from_secs(3);

pub(crate) fn what_others_hold_on_to_is_dealt_with(home: &Home) -> anyhow::Result<()> {
    a_condition_of_another_manager_does_not_go(home)?;
    a_list_of_another_manager_is_cleared(home)?;
    a_lock_that_cannot_go_is_not_given_again(home)
}

/// A program that restores objects has written a condition of ours. To leave it out does not remove it.
fn a_condition_of_another_manager_does_not_go(home: &Home) -> anyhow::Result<()> {
    home.apply(&pool(POOL, &["192.168.0.240-192.168.0.241"]))?;
    home.apply(&service("web", KEY, POOL))?;
    home.wait_for_address("web")?;
    let mut conditions = home.lab.get(&["service", "web"])?["status"]["conditions"].clone();
    conditions.as_array_mut().context("no conditions")?.push(json!({
        "type": EXPIRING, "status": "True", "reason": "NotAllowed", "message": "10.9.9.9: gone",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }));
    patch_status(home, "web", &json!({ "conditions": conditions }), "restore")?;
    home.wait_until("it is said that it does not hold", || {
        let service = home.lab.get(&["service", "web"]).map_err(anyhow::Error::from)?;
        let found = service["status"]["conditions"]
            .as_array()
            .and_then(|all| all.iter().find(|it| it["type"] == EXPIRING).cloned());
        match found {
            Some(condition) if condition["status"] == "False" => Ok(()),
            other => Err(format!("{other:?}").into()),
        }
    })?;
    let before = status_writes(home)?;
    std::thread::sleep(LOOK_ON);
    let writes = status_writes(home)? - before;
    ensure!(writes <= 1, "{writes} status writes while nothing changes");
    home.lab.kubectl(&["patch", "service", "web", "-p", r#"{"spec":{"type":"ClusterIP"}}"#])?;
    home.wait_until("the address is given back", || {
        let lock = home.lock("192.168.0.240".parse().context("an address")?)?;
        lock.map_or(Ok(()), |lock| Err(lock.to_string().into()))
    })?;
    home.lab.kubectl(&["delete", "service", "web"])?;
    Ok(())
}

/// kube-vip adds `ports` to an address of ours, and the list is its own from then on.
fn a_list_of_another_manager_is_cleared(home: &Home) -> anyhow::Result<()> {
    home.apply(&pool(POOL, &["192.168.0.240"]))?;
    for (name, port) in [("one", 80), ("two", 443)] {
        let mut sharer = service(name, KEY, POOL);
        sharer["metadata"]["annotations"][SHARING] = json!("k");
        sharer["spec"]["ports"][0]["port"] = json!(port);
        home.apply(&sharer)?;
        home.wait_for_address(name)?;
    }
    let ingress = json!([{ "ip": "192.168.0.240", "ipMode": "VIP",
        "ports": [{ "port": 443, "protocol": "TCP" }] }]);
    patch_status(home, "two", &json!({ "loadBalancer": { "ingress": ingress } }), "kube-vip")?;
    let port = r#"[{"op":"replace","path":"/spec/ports/0/port","value":80}]"#;
    home.lab.kubectl(&["patch", "service", "two", "--type=json", "-p", port])?;
    home.wait_until("the address of the one that may not share it is gone", || {
        match &home.addresses("two")?[..] {
            [] => Ok(()),
            some => Err(format!("{some:?}").into()),
        }
    })?;
    ensure!(home.addresses("one")?.len() == 1, "the other one keeps it");
    home.lab.kubectl(&["delete", "service", "one", "two"])?;
    Ok(())
}

/// Somebody's finalizer keeps the lock of a Service that is gone.
fn a_lock_that_cannot_go_is_not_given_again(home: &Home) -> anyhow::Result<()> {
    home.apply(&service("web", KEY, POOL))?;
    home.wait_for_address("web")?;
    let finalizers = |list: Value| json!({ "metadata": { "finalizers": list } }).to_string();
    let set = |list: Value| {
        let text = finalizers(list);
        let name = "address-192.168.0.240";
        home.lab.kubectl(&["patch", "lease", name, "-n", SYSTEM, "--type=merge", "-p", &text])
    };
    set(json!(["example.org/backup"]))?;
    home.lab.kubectl(&["delete", "service", "web"])?;
    home.wait_until("the lock is on its way out", || {
        match home.lock("192.168.0.240".parse().context("an address")?)? {
            Some(lock) if lock["metadata"]["deletionTimestamp"].is_string() => Ok(()),
            other => Err(format!("{other:?}").into()),
        }
    })?;
    home.apply(&service("next", KEY, POOL))?;
    std::thread::sleep(LOOK_ON);
    ensure!(home.addresses("next")?.is_empty(), "the address is not free");
    let version = |lease: Option<Value>| lease.map(|it| it["metadata"]["resourceVersion"].clone());
    let address = "192.168.0.240".parse()?;
    let before = version(home.lock(address)?);
    std::thread::sleep(LOOK_ON);
    ensure!(version(home.lock(address)?) == before, "the lock is written again and again");
    set(json!([]))?;
    home.wait_for_address("next").map(drop)
}

fn patch_status(home: &Home, name: &str, status: &Value, manager: &str) -> anyhow::Result<()> {
    let patch = json!({ "status": status }).to_string();
    let manager = format!("--field-manager={manager}");
    let arguments =
        ["patch", "service", name, "--subresource=status", "--type=merge", "-p", &patch, &manager];
    home.lab.kubectl(&arguments)?;
    Ok(())
}

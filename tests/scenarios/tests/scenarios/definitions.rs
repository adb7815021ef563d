//! Clusters where our definition is missing, or is another one than ours.

use std::{collections::BTreeSet, thread, time::Duration};

use anyhow::ensure;
use arpeggio_scenarios::{Home, HostProcess, pool, service};
use serde_json::json;

use crate::bad_input::not_ready;

const KEY: &str = "arpeggio.dev/address-pool";
const CRD: &str = "addresspools.arpeggio.dev";
const NAMESPACE: [&str; 2] = ["-n", "arpeggio-system"];
/// The namespace of another installation, and where its controller's metrics are.
const ELSEWHERE: &str = "elsewhere";
const OTHER_PORT: u16 = 7499;

/// Somebody else owns the definitions of this cluster, and does not want ours: pools stand in a `ConfigMap`.
pub(crate) fn without_the_definition_pools_stand_in_a_config_map(
    home: &Home,
) -> anyhow::Result<()> {
    home.lab.kubectl(&["delete", "crd", CRD])?;
    let pools = "address-pools: [{name: file, addresses: [192.168.0.200/32]}]";
    home.apply(&json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "arpeggio", "namespace": "arpeggio-system" },
        "data": { "config": pools },
    }))?;
    restart(home)?;
    home.apply(&service("web", KEY, "file"))?;
    ensure!(home.wait_for_address("web")?.to_string() == "192.168.0.200", "from the ConfigMap");

    home.install_definitions()?;
    home.apply(&pool("later", &["192.168.0.201/32"]))?;
    home.apply(&service("second", KEY, "later"))?;
    let address =
        home.wait_until("the new pool is used", || match home.addresses("second")?[..] {
            [address] => Ok(address),
            _ => Err("no address".to_owned().into()),
        })?;
    ensure!(address.to_string() == "192.168.0.201", "from the AddressPool: {address}");
    ensure!(home.wait_for_address("web")?.to_string() == "192.168.0.200", "nothing moves");
    Ok(())
}

/// Somebody installs Arpeggio a second time, in a namespace of its own. Its controller runs on the control plane.
pub(crate) fn of_two_installations_one_decides(home: &Home) -> anyhow::Result<()> {
    home.apply(&pool("good", &["192.168.0.200-192.168.0.209"]))?;
    home.apply(&service("first", KEY, "good"))?;
    home.wait_for_address("first")?;
    home.apply(&json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": ELSEWHERE },
    }))?;
    let mut other =
        HostProcess::controller(&home.lab, ELSEWHERE, OTHER_PORT, &["--namespace", ELSEWHERE])?;
    home.wait_until("the other installation takes part", || {
        let lease = home.lab.get(&["lease", "controller-leader", "-n", ELSEWHERE]);
        Ok(lease.map_err(anyhow::Error::from)?)
    })?;
    the_younger_one_waits(home)?;

    // Ours is made anew, and so is younger than the other one.
    home.lab.kubectl(&[&["delete", "lease", "controller-leader"][..], &NAMESPACE].concat())?;
    home.wait_until("the controllers say why they are not ready", || {
        let pods = ["pods", "-lapp.kubernetes.io/component=controller"];
        let pods = home.lab.get(&[&pods[..], &NAMESPACE].concat()).map_err(anyhow::Error::from)?;
        let ready = pods["items"].to_string().contains("\"ready\":true");
        if ready { Err("they are ready".to_owned().into()) } else { Ok(()) }
    })?;
    home.apply(&service("fourth", KEY, "good"))?;
    home.wait_for_address("fourth")?;
    apart(home, &["first", "second", "third", "fourth"])?;
    let claims = claims(home, ELSEWHERE)?;
    ensure!(claims > 0, "it is the other installation that decides");

    // It is gone for good, and its Lease is left behind.
    other.kill()?;
    home.apply(&service("fifth", KEY, "good"))?;
    home.lab.wait_until("ours decides", Duration::from_mins(2), || {
        let addresses = home.addresses("fifth")?;
        ensure!(!addresses.is_empty(), "it does not yet");
        Ok(())
    })?;
    apart(home, &["first", "second", "third", "fourth", "fifth"])?;
    home.lab.kubectl(&["delete", "namespace", ELSEWHERE])?;
    Ok(())
}

/// The older one's controllers are started anew, as in an upgrade, and then they are away for longer than their Lease counts
/// among themselves.
fn the_younger_one_waits(home: &Home) -> anyhow::Result<()> {
    let restart = ["rollout", "restart", "deployment/arpeggio-controller"];
    home.lab.kubectl(&[&restart[..], &NAMESPACE].concat())?;
    home.apply(&service("second", KEY, "good"))?;
    home.wait_for_address("second")?;
    let controllers = "deployment/arpeggio-controller";
    home.lab.wait_for_rollout(NAMESPACE[1], controllers, Duration::from_secs(90))?;
    home.without_controllers(|| {
        home.apply(&service("third", KEY, "good"))?;
        thread::sleep(Duration::from_secs(8));
        ensure!(home.addresses("third")?.is_empty(), "it is the older one's to decide");
        let claims = claims(home, ELSEWHERE)?;
        ensure!(claims == 0, "the younger one has claimed {claims} addresses");
        Ok(())
    })?;
    home.wait_for_address("third")?;
    apart(home, &["first", "second", "third"])
}

/// No two of these Services have one address.
fn apart(home: &Home, services: &[&str]) -> anyhow::Result<()> {
    let all: Vec<_> = services.iter().map(|name| home.addresses(name)).collect::<Result<_, _>>()?;
    let different: BTreeSet<_> = all.iter().flatten().collect();
    ensure!(different.len() == services.len(), "{services:?} have {all:?}");
    Ok(())
}

/// How many locks there are in a namespace.
fn claims(home: &Home, namespace: &str) -> anyhow::Result<usize> {
    let locks = home.lab.get(&["leases", "-n", namespace, "-l", "arpeggio.dev/lease=address"])?;
    Ok(locks["items"].as_array().map_or(0, Vec::len))
}

/// An object from before an upgrade of the definition, or after the return from one: the API server has it, and the
/// controller cannot read it.
pub(crate) fn an_object_that_is_not_understood_disables_itself(home: &Home) -> anyhow::Result<()> {
    home.apply(&pool("good", &["192.168.0.200-192.168.0.209"]))?;
    home.apply(&pool("turns", &["192.168.0.210-192.168.0.211"]))?;
    home.apply(&pool("mistaken", &["192.168.0.220/32"]))?;
    home.apply(&pool("deleted", &["192.168.0.230/32"]))?;
    home.apply(&service("before", KEY, "turns"))?;
    home.wait_for_address("before")?;
    kept(home, 4)?;
    loosen(home)?;
    let strange = json!({ "spec": { "addresses": { "from": "192.168.0.210" } } }).to_string();
    home.lab.kubectl(&["patch", CRD, "turns", "--type=merge", "-p", &strange])?;
    told(home, "turns")?;
    home.apply(&pool("mistaken", &["fd00::1/64"]))?;
    for restarted in [false, true] {
        if restarted {
            home.without_controllers(|| {
                home.lab.kubectl(&["delete", "addresspool", "deleted"])?;
                home.apply(&pool("deleted", &["fd00::1/64"]))
            })?;
        }
        let name = if restarted { "after" } else { "meanwhile" };
        home.apply(&service(name, KEY, "good"))?;
        home.wait_for_address(name)?;
        let kept = home.addresses("before")?;
        ensure!(kept == ["192.168.0.210".parse::<std::net::IpAddr>()?], "{kept:?}");
    }
    what_was_good_last_is_in_force(home)
}

/// The controllers that are asked have never seen these pools usable.
fn what_was_good_last_is_in_force(home: &Home) -> anyhow::Result<()> {
    for (pool, address) in [("turns", "192.168.0.211"), ("mistaken", "192.168.0.220")] {
        let name = format!("from-{pool}");
        home.apply(&service(&name, KEY, pool))?;
        ensure!(home.wait_for_address(&name)?.to_string() == address, "pool {pool}");
    }
    not_ready(home, "mistaken", "what the pool said before (generation 1) stays in force")?;
    // Another one of the same name has no past.
    home.apply(&service("from-deleted", KEY, "deleted"))?;
    home.wait_for_note("from-deleted", "it is not used, since it is invalid")?;
    kept(home, 3)
}

/// Waits until so much is kept of what pools said.
fn kept(home: &Home, count: usize) -> anyhow::Result<()> {
    let leases = ["leases", "-larpeggio.dev/record=last-good"];
    home.wait_until(&format!("{count} pools are kept"), || {
        let leases = home.lab.get(&[&leases[..], &NAMESPACE].concat());
        let leases = leases.map_err(anyhow::Error::from)?;
        match leases["items"].as_array().map_or(0, Vec::len) {
            found if found == count => Ok(()),
            found => Err(format!("{found}").into()),
        }
    })
}

fn restart(home: &Home) -> anyhow::Result<()> {
    let restart = ["rollout", "restart", "deployment/arpeggio-controller"];
    home.lab.kubectl(&[&restart[..], &NAMESPACE].concat())?;
    let status = ["rollout", "status", "deployment/arpeggio-controller", "--timeout=90s"];
    home.lab.kubectl(&[&status[..], &NAMESPACE].concat())?;
    Ok(())
}

/// Has the API server take anything for an `AddressPool`.
fn loosen(home: &Home) -> anyhow::Result<()> {
    let anything = json!([{
        "op": "replace",
        "path": "/spec/versions/0/schema/openAPIV3Schema",
        "value": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
    }]);
    home.lab.kubectl(&["patch", "crd", CRD, "--type=json", "-p", &anything.to_string()])?;
    Ok(())
}

fn told(home: &Home, name: &str) -> anyhow::Result<()> {
    home.wait_until("its author is told", || {
        let events = home.lab.get(&["events.events.k8s.io", "-n", "default"]);
        let events = events.map_err(anyhow::Error::from)?;
        let about = |event: &serde_json::Value| {
            event["regarding"]["name"] == name && event["reason"] == "NotUnderstood"
        };
        let all = events["items"].as_array();
        all.and_then(|all| all.iter().find(|event| about(event)))
            .map(|_| ())
            .ok_or_else(|| "no event".to_owned().into())
    })
}

//! What the controller could not see as it happened: changes that the API server has forgotten by then, and namespaces that
//! come and go with their Services.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use arpeggio_scenarios::{Home, POOL, pool, service};
use serde_json::{Value, json};

const KEY: &str = "arpeggio.dev/address-pool";
const SYSTEM: &str = "arpeggio-system";
/// What the API server says of a time that it has forgotten.
const TOO_OLD: &str = "too old resource version";
const SECOND: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 241);
const PATIENCE: Duration = Duration::from_mins(2);

/// The controllers stand still while things change and the API server starts anew: it knows nothing then of what was
/// before, and refuses to go on from there.
pub(crate) fn what_the_api_server_has_forgotten_is_seen(home: &Home) -> anyhow::Result<()> {
    home.apply(&pool(POOL, &["192.168.0.240"]))?;
    home.apply(&service("first", KEY, POOL))?;
    let freed = home.wait_for_address("first")?;
    home.apply(&service("waits", KEY, POOL))?;
    home.wait_for_event("waits", "AllocationFailed")?;

    let controllers = controllers(home)?;
    for pod in &controllers {
        home.pause_container(pod, "controller")?;
    }
    home.lab.kubectl(&["delete", "service", "first"])?;
    home.apply(&service("late", KEY, POOL))?;
    home.apply(&pool(POOL, &["192.168.0.240-192.168.0.241"]))?;
    home.lab.stop_api()?;
    home.lab.start_api(PATIENCE)?;
    for pod in &controllers {
        home.continue_container(pod, "controller")?;
    }

    // Which of them gets which depends on what is listed first.
    let served: BTreeSet<IpAddr> =
        [home.wait_for_address("waits")?, home.wait_for_address("late")?].into();
    ensure!(served == [freed, SECOND.into()].into(), "they have {served:?}");
    for pod in &controllers {
        let log = home.lab.kubectl(&["logs", "-n", SYSTEM, pod, "--tail=-1"])?;
        ensure!(log.contains(TOO_OLD), "no watch of {pod} was too old: this shows nothing");
    }
    Ok(())
}

fn controllers(home: &Home) -> anyhow::Result<Vec<String>> {
    let pods =
        home.lab.get(&["pods", "-n", SYSTEM, "-l", "app.kubernetes.io/component=controller"])?;
    let pods = pods["items"].as_array().into_iter().flatten();
    let names = pods.map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned));
    names.collect::<Option<_>>().context("a pod without a name")
}

/// A pool is for namespaces with a label. One that comes with its Service, one whose label changes, and one that goes.
pub(crate) fn namespaces_come_and_go(home: &Home) -> anyhow::Result<()> {
    let mut blue = pool(POOL, &["192.168.0.240-192.168.0.244"]);
    blue["spec"]["allocation"] =
        json!({ "namespaceSelectors": [{ "matchLabels": { "team": "blue" } }] });
    home.apply(&blue)?;
    together(home)?;
    unlabelled(home)?;
    relabelled(home)?;
    ending(home)
}

fn namespace(name: &str, team: &str) -> Value {
    let metadata = json!({ "name": name, "labels": { "team": team } });
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata })
}

fn service_in(namespace: &str, name: &str) -> Value {
    let mut service = service(name, KEY, POOL);
    service["metadata"]["namespace"] = json!(namespace);
    service
}

/// The conditions and addresses of a Service, for people.
fn status(home: &Home, namespace: &str, name: &str) -> anyhow::Result<String> {
    Ok(home.lab.get(&["service", "-n", namespace, name])?["status"].to_string())
}

fn wait_for(home: &Home, namespace: &str, name: &str, words: &str) -> anyhow::Result<()> {
    home.wait_until(&format!("{namespace}/{name} says {words}"), || {
        let status = status(home, namespace, name)?;
        if status.contains(words) { Ok(()) } else { Err(status.into()) }
    })
}

/// A namespace and its Service in one request, one after the other: none is refused.
fn together(home: &Home) -> anyhow::Result<()> {
    for round in 0..5 {
        let name = format!("blue-{round}");
        let items = json!([namespace(&name, "blue"), service_in(&name, "web")]);
        home.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items }))?;
        wait_for(home, &name, "web", "\"192.168.0.24")?;
        let events = home.lab.kubectl(&["get", "events", "-n", &name, "-o", "name"])?;
        let told = home.lab.get(&["events.events.k8s.io", "-n", &name])?.to_string();
        ensure!(!told.contains("AllocationFailed"), "{events}");
        home.lab.kubectl(&["delete", "namespace", &name])?;
    }
    Ok(())
}

/// A pool that is for namespaces without a label. One that was not seen yet seems to have none.
fn unlabelled(home: &Home) -> anyhow::Result<()> {
    let mut rest = pool("rest", &["192.168.0.230-192.168.0.239"]);
    let without = json!({ "matchExpressions": [{ "key": "team", "operator": "DoesNotExist" }] });
    rest["spec"]["allocation"] = json!({ "namespaceSelectors": [without] });
    for round in 0..5 {
        let name = format!("red-{round}");
        let mut web = service_in(&name, "web");
        web["metadata"]["annotations"][KEY] = json!("rest");
        let items = json!([rest, namespace(&name, "red"), web]);
        home.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items }))?;
        wait_for(home, &name, "web", "is not for namespace")?;
        let told = home.lab.get(&["events.events.k8s.io", "-n", &name])?.to_string();
        ensure!(!told.contains("IPAllocated"), "it had an address: {told}");
        home.lab.kubectl(&["delete", "namespace", &name])?;
    }
    home.lab.kubectl(&["delete", "addresspool", "rest"])?;
    Ok(())
}

fn relabelled(home: &Home) -> anyhow::Result<()> {
    home.apply(&namespace("shop", "red"))?;
    home.apply(&service_in("shop", "web"))?;
    wait_for(home, "shop", "web", "is not for namespace")?;
    home.lab.kubectl(&["label", "namespace", "shop", "team=blue", "--overwrite"])?;
    wait_for(home, "shop", "web", "\"192.168.0.24")?;
    home.lab.kubectl(&["label", "namespace", "shop", "team=red", "--overwrite"])?;
    wait_for(home, "shop", "web", "AddressExpiring")?;
    home.lab.kubectl(&["label", "namespace", "shop", "team=blue", "--overwrite"])?;
    home.wait_until("the address does not expire any more", || {
        let status = status(home, "shop", "web")?;
        if status.contains("AddressExpiring") { Err(status.into()) } else { Ok(()) }
    })
}

/// A Service in the namespace waits for its finalizer. Another one waits for an address, and another for it.
fn ending(home: &Home) -> anyhow::Result<()> {
    home.lab.kubectl(&["label", "namespace", "shop", "team=red", "--overwrite"])?;
    let mut waits = service_in("shop", "waits");
    waits["metadata"]["finalizers"] = json!(["example.org/never"]);
    waits["metadata"]["labels"] = json!({ "app": "waits" });
    home.apply(&waits)?;
    wait_for(home, "shop", "waits", "is not for namespace")?;
    home.lab.kubectl(&["delete", "namespace", "shop", "--wait=false"])?;
    wait_for(home, "shop", "waits", "is being deleted")?;
    home.lab.kubectl(&["label", "namespace", "shop", "team=blue", "--overwrite"])?;
    // What would have happened by now.
    std::thread::sleep(Duration::from_secs(3));
    let status = status(home, "shop", "waits")?;
    ensure!(!status.contains("192.168.0.24"), "it gets nothing new: {status}");
    let release = json!({ "metadata": { "finalizers": null } }).to_string();
    let patch = ["patch", "service", "waits", "-n", "shop", "--type=merge", "-p", &release];
    home.lab.kubectl(&patch)?;
    home.lab.kubectl(&["wait", "namespace", "shop", "--for=delete", "--timeout=60s"])?;
    home.wait_until("all locks are gone", || match home.locks()?.len() {
        0 => Ok(()),
        left => Err(format!("{left} locks").into()),
    })
}

//! What the controller makes of what others write: nodes about their network, speakers about strangers, authors of pools
//! about where to announce.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, NotYet, POOL, first_address, pool, service};
use serde_json::{Value, json};

const KEY: &str = "arpeggio.dev/address-pool";
const ADDRESSES: &str = "arpeggio.dev/addresses";
const STRANGER: &str = "02:00:00:00:00:09";

/// Longer than a controller waits for a Service that was deleted to come back.
const LEFT_ALONE: Duration = Duration::from_secs(8);

/// Only one address of the pool is nobody else's.
const AROUND: [&str; 5] =
    ["192.168.0.0-192.168.0.1", "192.168.0.11", "192.168.0.200", "192.168.0.255", "fd00:a0::"];

pub(crate) fn what_the_network_needs_itself_is_never_given_out(home: &Home) -> anyhow::Result<()> {
    for node in 1..=3 {
        home.wait_for_session(Machine::Node(node))?;
    }
    home.apply(&pool("around", &AROUND))?;
    home.wait_until("what nodes report is reserved", || {
        let status = home.lab.get(&["addresspool", "around"]).map_err(anyhow::Error::from)?;
        let status = &status["status"];
        match (status["ipv4"]["reserved"].as_u64(), status["ipv6"]["reserved"].as_u64()) {
            (Some(4), Some(1)) => Ok(()),
            _ => Err(status.to_string().into()),
        }
    })?;
    home.apply(&service("web", KEY, "around"))?;
    ensure!(home.wait_for_address("web")?.to_string() == "192.168.0.200", "the only one");
    let table = [
        ("network", "192.168.0.0", "it is the network address of 192.168.0.0/24"),
        ("gateway", "192.168.0.1", "it is the gateway of node"),
        ("node", "192.168.0.11", "it is an address of node node-1"),
        ("broadcast", "192.168.0.255", "it is the broadcast address of 192.168.0.0/24"),
    ];
    for (name, address, why) in table {
        home.apply(&service(name, ADDRESSES, address))?;
        let event = home.wait_for_event(name, "AllocationFailed")?;
        ensure!(event.note.contains(why), "{event:?}");
        let explained = home.arpeggio(&["explain", "service", name])?;
        ensure!(explained.matches(why).count() == 3, "said, told and explained: {explained}");
    }
    Ok(())
}

pub(crate) fn an_address_that_a_stranger_has_is_replaced(home: &Home) -> anyhow::Result<()> {
    stop_speakers(home)?;
    home.add_pool()?;
    home.apply(&service("web", KEY, POOL))?;
    ensure!(home.wait_for_address("web")?.to_string() == "192.168.0.240", "the lowest");
    mark(home, "192.168.0.240", &format!("arpeggio.dev/stranger={STRANGER}"))?;
    wait_for(home, "web", "192.168.0.241")?;
    let told = home.wait_until("an event says why", || {
        let events = home.events("web")?;
        let last = events.last().map(|event| event.note.clone()).unwrap_or_default();
        if last.contains(STRANGER) { Ok(last) } else { Err(format!("{events:?}").into()) }
    })?;
    ensure!(told.contains("192.168.0.241 from pool home instead of 192.168.0.240"), "{told}");
    home.wait_until("the lock stays as a record", || {
        let annotations = lock(home, "192.168.0.240")?["metadata"]["annotations"].clone();
        let rests = annotations["arpeggio.dev/resting-until"].is_string();
        let services = annotations["arpeggio.dev/services"].as_str();
        let done = rests && services == Some("");
        if done { Ok(()) } else { Err(annotations.to_string().into()) }
    })?;

    // Not even who asks for it gets it, and who does not have it is not told whose machine has.
    home.apply(&service("late", ADDRESSES, "192.168.0.240"))?;
    let refusal = home.wait_for_event("late", "AllocationFailed")?;
    let told = refusal.note.contains("another machine answers at it");
    ensure!(told && !refusal.note.contains(STRANGER), "{refusal:?}");
    who_asked_for_it_waits(home)
}

/// A Service that asks for exactly one address waits for it, and has it when the stranger is gone.
fn who_asked_for_it_waits(home: &Home) -> anyhow::Result<()> {
    home.apply(&service("exact", ADDRESSES, "192.168.0.250"))?;
    home.wait_for_address("exact")?;
    mark(home, "192.168.0.250", &format!("arpeggio.dev/stranger={STRANGER}"))?;
    let event = home.wait_for_event("exact", "AddressConflict")?;
    ensure!(event.kind == "Warning" && event.note.contains(STRANGER), "{event:?}");
    let explained = home.arpeggio(&["explain", "service", "exact"])?;
    ensure!(explained.contains("AddressConflict=True"), "{explained}");
    wait_for(home, "exact", "192.168.0.250")?;

    mark(home, "192.168.0.250", "arpeggio.dev/stranger-")?;
    home.wait_until("the condition is gone", || {
        match condition(home, "exact", "arpeggio.dev/AddressConflict")? {
            None => Ok(()),
            Some(condition) => Err(condition.to_string().into()),
        }
    })?;
    wait_for(home, "exact", "192.168.0.250")
}

/// What was damaged is written anew, and what a newer release has written is left alone, until that is no more.
pub(crate) fn damage_is_mended_and_a_newer_release_left_alone(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    home.apply(&service("web", KEY, POOL))?;
    let address = first_address();
    let owner = home.wait_for_owner(address)?;
    let text = address.to_string();
    mark(home, &text, "arpeggio.dev/announce={")?;
    home.wait_until("the rules are written anew", || {
        let annotations = lock(home, &text)?["metadata"]["annotations"].clone();
        let mended = annotations["arpeggio.dev/announce"].is_null();
        if mended { Ok(()) } else { Err(annotations.to_string().into()) }
    })?;

    mark(home, &text, "arpeggio.dev/format=2")?;
    home.lab.kubectl(&["delete", "service", "web"])?;
    home.apply(&service("exact", ADDRESSES, &text))?;
    let event = home.wait_for_event("exact", "AllocationFailed")?;
    ensure!(event.note.contains("written by a newer release"), "{event:?}");
    std::thread::sleep(LEFT_ALONE);
    ensure!(home.holder(address.into())? == Some(owner), "the lock is what it was");
    ensure!(home.moves(address.into())? == 0, "nobody has touched the address");
    ensure!(home.who_answers(address)? == [owner], "its holder goes on");

    mark(home, &text, "arpeggio.dev/format-")?;
    wait_for(home, "exact", &text)
}

pub(crate) fn locks_say_where_their_addresses_are_announced(home: &Home) -> anyhow::Result<()> {
    stop_speakers(home)?;
    let mut announced = pool(POOL, &["192.168.0.240"]);
    announced["spec"]["announce"] = json!([{
        "interfaces": ["eth*"],
        "serviceSelectors": [{ "matchLabels": { "exposed": "yes" } }],
    }]);
    announced["spec"]["conflictProbing"] = json!(false);
    home.apply(&announced)?;
    home.apply(&service("web", KEY, POOL))?;
    home.wait_for_address("web")?;
    terms_become(home, Some(r#"{"rules":[],"probing":false}"#))?;
    let event = home.wait_for_event("web", "NotAdvertised")?;
    ensure!(event.kind == "Warning", "{event:?}");
    let type_ = "arpeggio.dev/AddressNotAnnounced";
    let said = condition(home, "web", type_)?.context("no condition says it")?;
    ensure!(said["reason"] == "NotAdvertised", "{said}");

    home.lab.kubectl(&["label", "service", "web", "exposed=yes"])?;
    terms_become(home, Some(r#"{"rules":[{"interfaces":["eth*"]}],"probing":false}"#))?;
    home.wait_until("the condition is gone", || match condition(home, "web", type_)? {
        None => Ok(()),
        Some(condition) => Err(condition.to_string().into()),
    })?;
    home.apply(&pool(POOL, &["192.168.0.240"]))?;
    terms_become(home, None)
}

/// Waits until the lock of 192.168.0.240 says this.
fn terms_become(home: &Home, expected: Option<&str>) -> anyhow::Result<()> {
    home.wait_until(&format!("the lock says {expected:?}"), || {
        let lock = lock(home, "192.168.0.240")?;
        let said = &lock["metadata"]["annotations"]["arpeggio.dev/announce"];
        if said.as_str() == expected { Ok(()) } else { Err(said.to_string().into()) }
    })
}

/// From here on the test writes what speakers would.
pub(crate) fn stop_speakers(home: &Home) -> anyhow::Result<()> {
    let namespace = ["-n", "arpeggio-system"];
    home.lab.kubectl(&[&["delete", "daemonset", "arpeggio-speaker"][..], &namespace].concat())?;
    home.wait_until("no speaker runs", || {
        let label = "-lapp.kubernetes.io/component=speaker";
        let pods = home.lab.get(&["pods", label, "-n", "arpeggio-system"]);
        match pods.map_err(anyhow::Error::from)?["items"].as_array().map_or(0, Vec::len) {
            0 => Ok(()),
            count => Err(format!("{count} pods").into()),
        }
    })
}

fn mark(home: &Home, address: &str, annotation: &str) -> anyhow::Result<()> {
    let lock = format!("address-{address}");
    let command = ["annotate", "--overwrite", "lease", &lock, annotation, "-n", "arpeggio-system"];
    home.lab.kubectl(&command)?;
    Ok(())
}

fn lock(home: &Home, address: &str) -> Result<Value, NotYet> {
    let lock = home.lock(address.parse().map_err(anyhow::Error::from)?)?;
    lock.ok_or_else(|| format!("{address} has no lock").into())
}

fn wait_for(home: &Home, service: &str, address: &str) -> anyhow::Result<()> {
    home.wait_until(&format!("{service} has {address}"), || {
        let addresses = home.addresses(service)?;
        let given: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        if given == [address] { Ok(()) } else { Err(format!("{given:?}").into()) }
    })
}

fn condition(home: &Home, service: &str, type_: &str) -> anyhow::Result<Option<Value>> {
    let service = home.lab.get(&["service", service])?;
    let mut conditions = service["status"]["conditions"].as_array().into_iter().flatten();
    Ok(conditions.find(|condition| condition["type"] == type_).cloned())
}

//! Addresses that a node has for itself, as keepalived and kube-vip put that of an API server on one.

use std::{net::IpAddr, time::Duration};

use anyhow::ensure;
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, POOL, pool, service};
use serde_json::json;

const POOL_KEY: &str = "arpeggio.dev/address-pool";
const ADDRESSES: &str = "arpeggio.dev/addresses";

/// The node that has an address before a Service asks for it.
const EARLY: &str = "192.168.0.240";
/// The node that gets addresses after Services have asked for them.
const LATE: Machine = Machine::Node(2);
/// Those addresses, the family of each, and the node that may announce it: the same one, whose kernel is looked up, or
/// another one, which hears it on the wire.
const CLAIMED: [(&str, &str, &str); 3] = [
    ("192.168.0.230", "IPv4", "node-2"),
    ("192.168.0.231", "IPv4", "node-1"),
    ("fd00:a0::249", "IPv6", "node-3"),
];

/// Duplicate address detection takes a second, and the kernel answers for no IPv6 address before.
const DETECTION: Duration = Duration::from_secs(2);

/// Longer than every node needs to ask for an address and to take its lock.
const TAKEN: Duration = Duration::from_secs(4);

pub(crate) fn a_nodes_own_address_is_neither_given_nor_announced(
    home: &Home,
) -> anyhow::Result<()> {
    for node in 1..=3 {
        home.wait_for_session(Machine::Node(node))?;
    }
    add(home, Machine::Node(1), EARLY)?;
    home.add_pool()?;
    home.wait_until("what the node reports is reserved", || {
        let pool = home.lab.get(&["addresspool", POOL]).map_err(anyhow::Error::from)?;
        let reserved = pool["status"]["ipv4"]["reserved"].as_u64();
        if reserved == Some(1) { Ok(()) } else { Err(pool["status"].to_string().into()) }
    })?;
    home.apply(&service("web", POOL_KEY, POOL))?;
    ensure!(home.wait_for_address("web")?.to_string() == "192.168.0.241", "the next one");
    home.apply(&service("exact", ADDRESSES, EARLY))?;
    let event = home.wait_for_event("exact", "AllocationFailed")?;
    ensure!(event.note.contains("it is an address of node node-1"), "{event:?}");
    those_that_come_after_the_claim_are_found(home)
}

fn those_that_come_after_the_claim_are_found(home: &Home) -> anyhow::Result<()> {
    let speakers: Vec<String> =
        (1..=3).map(|it| home.speaker_on(Machine::Node(it))).collect::<Result<_, _>>()?;
    speakers.iter().try_for_each(|pod| home.pause_container(pod, "speaker"))?;
    for claimed in CLAIMED {
        claim(home, claimed)?;
        add(home, LATE, claimed.0)?;
    }
    std::thread::sleep(DETECTION);
    speakers.iter().try_for_each(|pod| home.continue_container(pod, "speaker"))?;
    for (_, _, announcer) in CLAIMED {
        let event = home.wait_for_event(&format!("late-{announcer}"), "AddressConflict")?;
        ensure!(event.kind == "Warning" && event.note.contains("node node-2"), "{event:?}");
    }
    std::thread::sleep(TAKEN);
    for (address, ..) in CLAIMED {
        let holder = home.holder(address.parse::<IpAddr>()?)?;
        ensure!(holder.is_none(), "{holder:?} announces {address}, which {LATE} has");
    }
    Ok(())
}

/// A Service with this address, which only one node may announce.
fn claim(home: &Home, (address, family, announcer): (&str, &str, &str)) -> anyhow::Result<()> {
    let name = format!("late-{announcer}");
    let mut only_there = pool(&name, &[address]);
    let labels = json!({ "kubernetes.io/hostname": announcer });
    only_there["spec"]["announce"] = json!([{ "nodeSelectors": [{ "matchLabels": labels }] }]);
    home.apply(&only_there)?;
    let mut late = service(&name, POOL_KEY, &name);
    late["spec"]["ipFamilies"] = json!([family]);
    home.apply(&late)?;
    home.wait_for_address(&name)?;
    Ok(())
}

fn add(home: &Home, node: Machine, address: &str) -> anyhow::Result<()> {
    let length = if address.contains(':') { 128 } else { 32 };
    let own = format!("{address}/{length}");
    home.lab.namespace(node).run("ip", &["address", "add", &own, "dev", "eth0"])?;
    Ok(())
}

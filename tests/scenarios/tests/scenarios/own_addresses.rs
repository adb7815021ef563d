//! Addresses that a node has for itself, as keepalived and kube-vip put that of an API server on one.

use std::{net::IpAddr, time::Duration};

use anyhow::ensure;
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, POOL, service};

const POOL_KEY: &str = "arpeggio.dev/address-pool";
const ADDRESSES: &str = "arpeggio.dev/addresses";

/// The one that has an address before a Service asks for it, and the one that gets it after that.
const EARLY: (Machine, &str) = (Machine::Node(1), "192.168.0.240");
const LATE: (Machine, &str) = (Machine::Node(2), "192.168.0.250");

/// Longer than every node needs to ask for an address and to take its lock.
const TAKEN: Duration = Duration::from_secs(4);

pub(crate) fn a_nodes_own_address_is_neither_given_nor_announced(
    home: &Home,
) -> anyhow::Result<()> {
    for node in 1..=3 {
        home.wait_for_session(Machine::Node(node))?;
    }
    add(home, EARLY)?;
    home.add_pool()?;
    home.wait_until("what the node reports is reserved", || {
        let pool = home.lab.get(&["addresspool", POOL]).map_err(anyhow::Error::from)?;
        let reserved = pool["status"]["ipv4"]["reserved"].as_u64();
        if reserved == Some(1) { Ok(()) } else { Err(pool["status"].to_string().into()) }
    })?;
    home.apply(&service("web", POOL_KEY, POOL))?;
    ensure!(home.wait_for_address("web")?.to_string() == "192.168.0.241", "the next one");
    home.apply(&service("exact", ADDRESSES, EARLY.1))?;
    let event = home.wait_for_event("exact", "AllocationFailed")?;
    ensure!(event.note.contains("it is an address of node node-1"), "{event:?}");
    one_that_comes_after_the_claim_is_found_on_the_wire(home)
}

fn one_that_comes_after_the_claim_is_found_on_the_wire(home: &Home) -> anyhow::Result<()> {
    let speakers: Vec<String> =
        (1..=3).map(|it| home.speaker_on(Machine::Node(it))).collect::<Result<_, _>>()?;
    speakers.iter().try_for_each(|pod| home.pause_container(pod, "speaker"))?;
    home.apply(&service("late", ADDRESSES, LATE.1))?;
    home.wait_for_address("late")?;
    add(home, LATE)?;
    speakers.iter().try_for_each(|pod| home.continue_container(pod, "speaker"))?;
    let event = home.wait_for_event("late", "AddressConflict")?;
    ensure!(event.kind == "Warning" && event.note.contains("node node-2"), "{event:?}");
    std::thread::sleep(TAKEN);
    let holder = home.holder(LATE.1.parse::<IpAddr>()?)?;
    ensure!(holder.is_none(), "{holder:?} announces an address of {}", LATE.0);
    Ok(())
}

fn add(home: &Home, (node, address): (Machine, &str)) -> anyhow::Result<()> {
    let own = format!("{address}/32");
    home.lab.namespace(node).run("ip", &["address", "add", &own, "dev", "eth0"])?;
    Ok(())
}

//! Services with an address of each family.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::ensure;
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, pool, service};
use serde_json::json;

use crate::ipv6;

/// As for each family alone: generous, but shorter than a session.
const LONGEST_OUTAGE: Duration = Duration::from_secs(3);

const SERVICES: [&str; 3] = ["web", "mail", "files"];

pub(crate) fn both_addresses_of_a_service_are_on_one_node(home: &Home) -> anyhow::Result<()> {
    home.apply(&pool("home", &["192.168.0.240-192.168.0.250", "fd00:a0::240-fd00:a0::250"]))?;
    home.start_web(2)?;
    for name in SERVICES {
        let mut both = service(name, "arpeggio.dev/address-pool", "home");
        both["spec"]["ipFamilyPolicy"] = json!("RequireDualStack");
        home.apply(&both)?;
    }
    let mut owners = Vec::new();
    for name in SERVICES {
        let addresses = both_of(home, name)?;
        owners.push(common_owner(home, addresses)?);
        for address in addresses {
            home.wait_for_page_at(Machine::Client, SocketAddr::new(address, 80))?;
        }
    }
    owners.sort_unstable();
    owners.dedup();
    ensure!(owners.len() == SERVICES.len(), "one Service a node: {owners:?}");

    let addresses = both_of(home, "web")?;
    let owner = common_owner(home, addresses)?;
    home.keep_pods_off("web", owner)?;
    let pages = addresses.map(|address| SocketAddr::new(address, 80));
    let outages = home.outages_by_power_cut(Machine::Client, pages, owner)?;
    let short = outages.iter().all(|outage| *outage < LONGEST_OUTAGE);
    ensure!(short, "the client was without an answer for {outages:?}");
    let successor = common_owner(home, addresses)?;
    ensure!(successor != owner, "{owner} has no power");
    Ok(())
}

/// Everything is there as in any other cluster, and nothing of it by IPv4.
pub(crate) fn a_cluster_without_ipv4_is_served_like_any_other(home: &Home) -> anyhow::Result<()> {
    let nodes = home.lab.options().node_machines();
    let control = home.lab.options().control_machine();
    for machine in nodes.iter().copied().chain([control, Machine::Client]) {
        let ipv4 = home.lab.namespace(machine).run("ip", &["-4", "-o", "address"])?;
        ensure!(ipv4.lines().all(|line| line.contains(": lo ")), "{machine}: {ipv4}");
    }
    // The API server fetches them from the pods, which have only IPv6 addresses.
    for node in &nodes {
        let sessions = home.speaker_metric(*node, "live_sessions")?;
        ensure!(sessions == [nodes.len().to_string()], "{node}: {sessions:?}");
        let speaker = home.speaker_on(*node)?;
        home.lab.kubectl(&["get", "--raw", &admin_page(&speaker, 7474, "readyz")])?;
    }
    let controller = home.leading_controller()?;
    for page in ["readyz", "metrics"] {
        home.lab.kubectl(&["get", "--raw", &admin_page(&controller, 7473, page)])?;
    }
    ipv6::an_ipv6_address_outlives_its_node(home)?;
    wants_an_ipv4_address(home)
}

/// A Service that asks for what the pool has, in a cluster that has no such thing, is told why it waits.
fn wants_an_ipv4_address(home: &Home) -> anyhow::Result<()> {
    home.apply(&pool("old", &["192.168.0.240-192.168.0.250"]))?;
    home.apply(&service("old", "arpeggio.dev/address-pool", "old"))?;
    home.wait_until("the Service is told that its pool has no IPv6 address", || {
        let conditions = home.conditions("old")?;
        let told = |it: &String| it.contains("IPv6") && it.contains("old");
        if conditions.iter().any(told) { Ok(()) } else { Err(format!("{conditions:?}").into()) }
    })
}

fn admin_page(pod: &str, port: u16, page: &str) -> String {
    format!("/api/v1/namespaces/arpeggio-system/pods/{pod}:{port}/proxy/{page}")
}

/// A Service that says nothing of families gets an IPv6 address; one that prefers both gets the IPv6 address first.
pub(crate) fn where_ipv6_is_first_services_get_it_first(home: &Home) -> anyhow::Result<()> {
    home.apply(&pool("home", &["192.168.0.240-192.168.0.250", "fd00:a0::240-fd00:a0::250"]))?;
    home.start_web(2)?;
    home.apply(&service("one", "arpeggio.dev/address-pool", "home"))?;
    let one = home.wait_for_address("one")?;
    ensure!(one.is_ipv6(), "{one}");
    let mut both = service("web", "arpeggio.dev/address-pool", "home");
    both["spec"]["ipFamilyPolicy"] = json!("PreferDualStack");
    home.apply(&both)?;
    let addresses = both_of(home, "web")?;
    ensure!(addresses[0].is_ipv6() && addresses[1].is_ipv4(), "{addresses:?}");
    for address in addresses.into_iter().chain([one]) {
        home.wait_for_page_at(Machine::Client, SocketAddr::new(address, 80))?;
    }
    let owner = common_owner(home, addresses)?;
    home.keep_pods_off("web", owner)?;
    let pages = addresses.map(|address| SocketAddr::new(address, 80));
    let outages = home.outages_by_power_cut(Machine::Client, pages, owner)?;
    let short = outages.iter().all(|outage| *outage < LONGEST_OUTAGE);
    ensure!(short, "the client was without an answer for {outages:?}");
    let successor = common_owner(home, addresses)?;
    ensure!(successor != owner, "{owner} has no power");
    Ok(())
}

/// The addresses of a Service, when it has both.
fn both_of(home: &Home, service: &str) -> anyhow::Result<[IpAddr; 2]> {
    home.wait_until(&format!("Service {service} has two addresses"), || {
        match home.addresses(service)?[..] {
            [one, other] => Ok([one, other]),
            ref others => Err(format!("{others:?}").into()),
        }
    })
}

/// The node that holds the locks of both addresses.
fn common_owner(home: &Home, addresses: [IpAddr; 2]) -> anyhow::Result<Machine> {
    home.wait_until(&format!("one node has {addresses:?}"), || {
        match addresses.map(|address| home.holder(address)) {
            [Ok(Some(one)), Ok(Some(other))] if one == other => Ok(one),
            others => Err(format!("{others:?}").into()),
        }
    })
}

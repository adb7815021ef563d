//! Services with an address of each family.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::ensure;
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, pool, service};
use serde_json::json;

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

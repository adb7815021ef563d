//! What Services bring along: a status that another load balancer has left, and a request that changes.

use anyhow::ensure;
use arpeggio_scenarios::{Home, POOL, pool, service};
use serde_json::json;

const KEY: &str = "arpeggio.dev/address-pool";
const ADDRESSES: &str = "arpeggio.dev/addresses";

/// k3s' `ServiceLB` lists the nodes' addresses. The pool has one of them, and nobody may announce it.
pub(crate) fn a_status_that_lists_nodes_is_replaced(home: &Home) -> anyhow::Result<()> {
    home.apply(&foreign("traefik"))?;
    leave(home, "traefik", &["192.168.0.11", "192.168.0.12"])?;
    home.apply(&foreign("cloud"))?;
    leave(home, "cloud", &["203.0.113.9"])?;
    home.apply(&pool(POOL, &["192.168.0.11-192.168.0.20"]))?;
    for name in ["traefik", "cloud"] {
        home.lab.kubectl(&[
            "annotate",
            "service",
            name,
            &format!("{KEY}={POOL}"),
            "--overwrite",
        ])?;
    }
    home.wait_until(
        "the nodes' addresses are replaced",
        || match &home.addresses("traefik")?[..] {
            [one] if one.to_string() == "192.168.0.14" => Ok(()),
            some => Err(format!("{some:?}").into()),
        },
    )?;
    ensure!(home.lock("192.168.0.11".parse()?)?.is_none(), "the address of a node is claimed");

    let told = home.wait_for_note("cloud", "arpeggio.dev/take-over=true")?;
    ensure!(told.note.contains("kubectl"), "it names who wrote the status: {told:?}");
    ensure!(home.addresses("cloud")? == ["203.0.113.9".parse::<std::net::IpAddr>()?]);
    home.lab.kubectl(&["annotate", "service", "cloud", "arpeggio.dev/take-over=true"])?;
    home.wait_until("the status is replaced", || match &home.addresses("cloud")?[..] {
        [one] if one.to_string().starts_with("192.168.0.") => Ok(()),
        some => Err(format!("{some:?}").into()),
    })
}

/// A Service that asks for a pool which does not exist yet.
fn foreign(name: &str) -> serde_json::Value {
    service(name, KEY, "nowhere")
}

/// Writes the status as another load balancer would.
fn leave(home: &Home, name: &str, addresses: &[&str]) -> anyhow::Result<()> {
    let ingress: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
    let status = json!({ "status": { "loadBalancer": { "ingress": ingress } } }).to_string();
    let patch = ["patch", "service", name, "--subresource=status", "--type=merge", "-p", &status];
    home.lab.kubectl(&patch)?;
    Ok(())
}

/// The address that is given up is renounced by an annotation that is written with the status, and gone afterwards.
pub(crate) fn a_changed_request_moves_the_service(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    home.apply(&service("web", KEY, POOL))?;
    let first = home.wait_for_address("web")?;
    for wanted in ["192.168.0.245", "192.168.0.246"] {
        ask_for(home, "web", wanted)?;
        wait_until_moved(home, "web", wanted)?;
    }
    ensure!(home.lock(first)?.is_none(), "the first address is free again");
    let events = home.events("web")?;
    ensure!(events.iter().all(|it| it.reason != "ApiRefused"), "{events:?}");
    Ok(())
}

/// Each asks for what the next one has. Neither gives anything up for nothing, and no third one gets in between.
pub(crate) fn services_exchange_their_addresses(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    let addresses = ["192.168.0.245", "192.168.0.246", "192.168.0.247"];
    let names = ["one", "two", "three"];
    for (name, address) in names.iter().zip(addresses) {
        home.apply(&service(name, ADDRESSES, address))?;
        wait_until_moved(home, name, address)?;
    }
    home.apply(&service("waits", ADDRESSES, addresses[0]))?;
    let wanted: Vec<_> = names.iter().zip(addresses.iter().cycle().skip(1)).collect();
    for (name, address) in &wanted {
        ask_for(home, name, address)?;
    }
    for (name, address) in &wanted {
        wait_until_moved(home, name, address)?;
        home.wait_for_owner(address.parse()?)?;
    }
    ensure!(home.addresses("waits")?.is_empty(), "a fourth one got in between");
    for name in names {
        let events = home.events(name)?;
        ensure!(events.iter().all(|it| it.reason != "ApiRefused"), "{events:?}");
    }
    Ok(())
}

fn ask_for(home: &Home, name: &str, address: &str) -> anyhow::Result<()> {
    let wanted = format!("{ADDRESSES}={address}");
    home.lab.kubectl(&["annotate", "service", name, &wanted, "--overwrite"]).map(drop)?;
    Ok(())
}

fn wait_until_moved(home: &Home, name: &str, wanted: &str) -> anyhow::Result<()> {
    home.wait_until("the Service has the address that it asks for", || {
        let service = home.lab.get(&["service", name]).map_err(anyhow::Error::from)?;
        let text = service["metadata"]["annotations"].to_string();
        match &home.addresses(name)?[..] {
            [one] if one.to_string() == wanted && !text.contains("releasing") => Ok(()),
            some => Err(format!("{name}: {some:?}, {text}").into()),
        }
    })
}

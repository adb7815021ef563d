//! Somebody comes from MetalLB, by the steps of `docs/metallb.md`.

use std::path::Path;

use anyhow::{Context as _, ensure};
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, service};
use serde_json::{Value, json};

use crate::{
    formats::{install_metallb_definitions, metallb},
    records::stop_speakers,
};

/// The field manager that MetalLB's controller writes a Service's status as.
const METALLB: &str = "controller";
const KEY: &str = "metallb.universe.tf/address-pool";
const SHARED: &str = "metallb.universe.tf/allow-shared-ip";

/// Services and the addresses that MetalLB has given them: not those that a newcomer would get.
const GIVEN: [(&str, &str); 4] = [
    ("web", "192.168.0.245"),
    ("dns-tcp", "192.168.0.247"),
    ("dns-udp", "192.168.0.247"),
    ("requested", "192.168.0.249"),
];

pub(crate) fn services_keep_the_addresses_that_metallb_gave_them(
    home: &Home,
) -> anyhow::Result<()> {
    // Step 1: Arpeggio is there and does nothing.
    home.scale_controllers(0)?;
    stop_speakers(home)?;
    what_metallb_left(home)?;
    home.apply(&service("newcomer", KEY, "lan"))?;
    home.apply(&service("elsewhere", KEY, "lan"))?;
    give(home, "elsewhere", "198.51.100.7")?;

    // Steps 2 and 3: MetalLB is gone, Arpeggio starts.
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/base");
    home.lab.apply_folder(&base)?;
    let newcomer = home.wait_for_address("newcomer")?.to_string();
    ensure!(newcomer == "192.168.0.240", "the lowest that nobody has, not {newcomer}");
    for (name, address) in GIVEN {
        home.wait_until(&format!("{name} has a lock for {address}"), || {
            let lock = home.lock(address.parse().map_err(anyhow::Error::from)?)?;
            let services =
                lock.unwrap_or_default()["metadata"]["annotations"]["arpeggio.dev/services"]
                    .to_string();
            if services.contains(&format!("/{name}/")) { Ok(()) } else { Err(services.into()) }
        })?;
        let addresses = home.addresses(name)?;
        ensure!(addresses == [address.parse::<std::net::IpAddr>()?], "{name} has {addresses:?}");
    }
    let owner = home.wait_for_owner("192.168.0.245".parse()?)?;
    ensure!(matches!(owner, Machine::Node(_)), "{owner} answers");
    the_advertisement_is_on_the_lock(home)?;
    what_is_in_no_pool_is_left_alone(home)
}

/// What MetalLB leaves when it is removed as the guide says: definitions, objects, and the statuses of Services.
fn what_metallb_left(home: &Home) -> anyhow::Result<()> {
    install_metallb_definitions(home)?;
    let addresses = json!({ "addresses": ["192.168.0.240-192.168.0.250"] });
    home.apply(&metallb("IPAddressPool", "lan", &addresses))?;
    let advertised = json!({
        "ipAddressPools": ["lan"],
        "interfaces": ["eth0"],
    });
    home.apply(&metallb("L2Advertisement", "lan", &advertised))?;
    home.apply(&service("web", KEY, "lan"))?;
    home.apply(&on_port(service("dns-tcp", SHARED, "dns"), "TCP"))?;
    home.apply(&on_port(service("dns-udp", SHARED, "dns"), "UDP"))?;
    home.apply(&service("requested", "metallb.io/loadBalancerIPs", "192.168.0.249"))?;
    GIVEN.iter().try_for_each(|(name, address)| give(home, name, address))
}

fn on_port(mut service: Value, protocol: &str) -> Value {
    service["spec"]["ports"] = json!([{ "port": 53, "protocol": protocol }]);
    service
}

/// Writes a status as MetalLB's controller does.
fn give(home: &Home, service: &str, address: &str) -> anyhow::Result<()> {
    let status = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": address }] } } });
    let manager = format!("--field-manager={METALLB}");
    let how = ["--subresource=status", "--type=merge", &manager, "-p", &status.to_string()];
    home.lab.kubectl(&[&["patch", "service", service][..], &how].concat())?;
    Ok(())
}

fn the_advertisement_is_on_the_lock(home: &Home) -> anyhow::Result<()> {
    let lock = home.lock("192.168.0.245".parse()?)?.context("no lock")?;
    let terms = lock["metadata"]["annotations"]["arpeggio.dev/announce"].as_str();
    ensure!(terms == Some(r#"{"rules":[{"interfaces":["eth0"]}]}"#), "{terms:?}");
    Ok(())
}

/// A status that Arpeggio cannot have written stays, with a word on who did it; it is adopted when a pool has it.
fn what_is_in_no_pool_is_left_alone(home: &Home) -> anyhow::Result<()> {
    let event = home.wait_for_event("elsewhere", "AllocationFailed")?;
    let written = format!("status.loadBalancer was written by {METALLB}");
    ensure!(event.note.contains(&written), "{event:?}");
    ensure!(home.addresses("elsewhere")?.len() == 1, "it is left alone");
    let addresses = json!({ "addresses": ["192.168.0.240-192.168.0.250", "198.51.100.7/32"] });
    home.apply(&metallb("IPAddressPool", "lan", &addresses))?;
    home.wait_until("the address is adopted", || {
        let lock = home.lock("198.51.100.7".parse().map_err(anyhow::Error::from)?)?;
        lock.map(|_| ()).ok_or_else(|| "no lock".to_owned().into())
    })?;
    ensure!(home.addresses("elsewhere")?[0].to_string() == "198.51.100.7", "it stays");
    Ok(())
}

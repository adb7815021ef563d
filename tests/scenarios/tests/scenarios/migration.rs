//! Somebody comes from MetalLB, by the steps of `docs/metallb.md`.

use std::{net::Ipv4Addr, thread, time::Duration};

use anyhow::{Context as _, ensure};
use arpeggio_lab::Machine;
use arpeggio_scenarios::{
    Home, HostProcess,
    metallb::{self, Fellows},
    pool, service,
};
use serde_json::{Value, json};

use crate::{
    formats::{install_from_metallb, object},
    records::stop_speakers,
};

const KEY: &str = "metallb.universe.tf/address-pool";
const SHARED: &str = "metallb.universe.tf/allow-shared-ip";
const RANGE: &str = "192.168.0.240-192.168.0.250";

/// Services and the addresses that MetalLB gives them: not those that a newcomer would get.
const GIVEN: [(&str, &str); 4] = [
    ("web", "192.168.0.241"),
    ("dns-tcp", "192.168.0.247"),
    ("dns-udp", "192.168.0.247"),
    ("requested", "192.168.0.249"),
];

const WEB: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 241);

pub(crate) fn services_keep_the_addresses_that_metallb_gave_them(
    home: &Home,
) -> anyhow::Result<()> {
    home.scale_controllers(0)?;
    stop_speakers(home)?;
    home.start_web(2)?;
    metallb::install_definitions(&home.lab)?;
    metallb::add_controller_pod(&home.lab)?;
    let nodes = home.lab.options().node_machines();
    nodes.iter().try_for_each(|node| metallb::add_speaker_pod(&home.lab, *node))?;
    declare(home)?;
    let running = MetalLb::start(home)?;
    services(home)?;
    home.wait_for_owner(WEB)?;

    // Step 1: MetalLB stops.
    drop(running);
    home.apply(&service("newcomer", KEY, "lan"))?;
    home.apply(&service("elsewhere", KEY, "lan"))?;
    give(home, "elsewhere", "198.51.100.7")?;

    // Step 2: Arpeggio starts.
    install_from_metallb(home)?;
    let newcomer = home.wait_for_address("newcomer")?.to_string();
    ensure!(newcomer == "192.168.0.240", "the lowest that nobody has, not {newcomer}");
    everybody_keeps_theirs(home)?;
    let owner = home.wait_for_owner(WEB)?;
    ensure!(matches!(owner, Machine::Node(_)), "{owner} answers");
    the_advertisement_is_on_the_lock(home)?;
    what_is_in_no_pool_is_left_alone(home)?;
    metallb_s_objects_go(home)?;
    the_way_back(home)
}

/// MetalLB's programs: its controller, and a speaker on each node.
struct MetalLb {
    #[allow(dead_code, reason = "they end when they are dropped")]
    processes: Vec<HostProcess>,
}

impl MetalLb {
    fn start(home: &Home) -> anyhow::Result<Self> {
        let nodes = home.lab.options().node_machines();
        let first = Self::speakers(home)?;
        nodes.iter().try_for_each(|node| metallb::wait_for_state(&home.lab, *node))?;
        drop(first);
        let mut processes = Self::speakers(home)?;
        processes.push(metallb::controller(&home.lab)?);
        Ok(Self { processes })
    }

    fn speakers(home: &Home) -> anyhow::Result<Vec<HostProcess>> {
        let nodes = home.lab.options().node_machines();
        nodes.iter().map(|node| metallb::speaker(&home.lab, *node, Fellows::Watched)).collect()
    }
}

/// MetalLB's pool, and where it is announced.
fn declare(home: &Home) -> anyhow::Result<()> {
    home.apply(&object("IPAddressPool", "lan", &json!({ "addresses": [RANGE] })))?;
    let advertised = json!({ "ipAddressPools": ["lan"], "interfaces": ["eth0"] });
    home.apply(&object("L2Advertisement", "lan", &advertised))
}

/// What users have made by the time they come; the first address was somebody's who is gone.
fn services(home: &Home) -> anyhow::Result<()> {
    let wish = "metallb.io/loadBalancerIPs";
    home.apply(&service("gone", wish, "192.168.0.240"))?;
    home.wait_for_address("gone")?;
    home.apply(&service("web", KEY, "lan"))?;
    home.wait_for_address("web")?;
    for (name, protocol) in [("dns-tcp", "TCP"), ("dns-udp", "UDP")] {
        let mut sharer = on_port(service(name, SHARED, "dns"), protocol);
        sharer["metadata"]["annotations"][wish] = json!("192.168.0.247");
        home.apply(&sharer)?;
    }
    home.apply(&service("requested", wish, "192.168.0.249"))?;
    for (name, address) in GIVEN {
        let given = home.wait_for_address(name)?.to_string();
        ensure!(given == address, "MetalLB gives {name} {given}");
    }
    home.lab.kubectl(&["delete", "service", "gone"])?;
    Ok(())
}

fn everybody_keeps_theirs(home: &Home) -> anyhow::Result<()> {
    for (name, address) in GIVEN {
        home.wait_until(&format!("{name} has a lock for {address}"), || {
            let lock = home.lock(address.parse().map_err(anyhow::Error::from)?)?;
            let services =
                lock.unwrap_or_default()["metadata"]["annotations"]["arpeggio.dev/services"]
                    .to_string();
            if services.contains(&format!("/{name}/")) { Ok(()) } else { Err(services.into()) }
        })?;
        has(home, name, address)?;
    }
    Ok(())
}

fn has(home: &Home, name: &str, address: &str) -> anyhow::Result<()> {
    let addresses = home.addresses(name)?;
    ensure!(addresses == [address.parse::<std::net::IpAddr>()?], "{name} has {addresses:?}");
    Ok(())
}

/// Removing MetalLB's chart removes its pools as well. Services keep their addresses for the grace period, and for good
/// when a pool of our own has them by then.
fn metallb_s_objects_go(home: &Home) -> anyhow::Result<()> {
    metallb::remove_definitions(&home.lab)?;
    let expiring = |home: &Home| -> anyhow::Result<bool> {
        Ok(home.conditions("web")?.iter().any(|it| it.starts_with("AddressExpiring=True")))
    };
    home.wait_until("web is told that its address expires", || {
        expiring(home)?.then_some(()).ok_or_else(|| "it is not".to_owned().into())
    })?;
    home.wait_for_owner(WEB)?;
    home.apply(&pool("lan", &[RANGE]))?;
    home.wait_until("web's address does not expire any more", || {
        (!expiring(home)?).then_some(()).ok_or_else(|| "it does".to_owned().into())
    })?;
    everybody_keeps_theirs(home)?;
    home.wait_for_owner(WEB).map(drop)
}

/// MetalLB takes its Services back. Its controller may look at them before it knows its pools, and then gives addresses
/// anew: sure of theirs are those that request them.
fn the_way_back(home: &Home) -> anyhow::Result<()> {
    home.scale_controllers(0)?;
    stop_speakers(home)?;
    metallb::install_definitions(&home.lab)?;
    declare(home)?;
    let _running = MetalLb::start(home)?;
    // Long enough for its controller to have looked at every Service.
    thread::sleep(Duration::from_secs(3));
    for (name, address) in GIVEN.into_iter().filter(|(name, _)| *name != "web") {
        has(home, name, address)?;
    }
    let web = home.wait_for_address("web")?.to_string();
    home.wait_for_owner(web.parse()?).map(drop)
}

fn on_port(mut service: Value, protocol: &str) -> Value {
    service["spec"]["ports"] = json!([{ "port": 53, "protocol": protocol }]);
    service
}

/// The field manager that another load balancer writes a Service's status as.
const ANOTHER: &str = "another-balancer";

/// Writes a status as another load balancer does.
fn give(home: &Home, service: &str, address: &str) -> anyhow::Result<()> {
    let status = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": address }] } } });
    let manager = format!("--field-manager={ANOTHER}");
    let how = ["--subresource=status", "--type=merge", &manager, "-p", &status.to_string()];
    home.lab.kubectl(&[&["patch", "service", service][..], &how].concat())?;
    Ok(())
}

fn the_advertisement_is_on_the_lock(home: &Home) -> anyhow::Result<()> {
    let lock = home.lock(WEB.into())?.context("no lock")?;
    let terms = lock["metadata"]["annotations"]["arpeggio.dev/announce"].as_str();
    ensure!(terms == Some(r#"{"rules":[{"interfaces":["eth0"]}]}"#), "{terms:?}");
    Ok(())
}

/// A status that Arpeggio cannot have written stays, with a word on who did it; it is adopted when a pool has it.
fn what_is_in_no_pool_is_left_alone(home: &Home) -> anyhow::Result<()> {
    let event = home.wait_for_event("elsewhere", "AllocationFailed")?;
    let written = format!("status.loadBalancer was written by {ANOTHER}");
    ensure!(event.note.contains(&written), "{event:?}");
    ensure!(home.addresses("elsewhere")?.len() == 1, "it is left alone");
    let addresses = json!({ "addresses": ["192.168.0.240-192.168.0.250", "198.51.100.7/32"] });
    home.apply(&object("IPAddressPool", "lan", &addresses))?;
    home.wait_until("the address is adopted", || {
        let lock = home.lock("198.51.100.7".parse().map_err(anyhow::Error::from)?)?;
        lock.map(|_| ()).ok_or_else(|| "no lock".to_owned().into())
    })?;
    ensure!(home.addresses("elsewhere")?[0].to_string() == "198.51.100.7", "it stays");
    Ok(())
}

//! Networks in which the nodes have no addresses.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::ensure;
use arpeggio_lab::{Machine, observe::ArpWatch};
use arpeggio_scenarios::{Home, pool, service};
use serde_json::json;

/// Each node's interface into that network, which is the lab's segment by another card.
const INTERFACE: &str = "lan9";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 240);
const EVERY: Duration = Duration::from_millis(50);

/// The MAC address of a node's card there.
fn mac(node: u8) -> [u8; 6] {
    [2, 0, 0, 9, 0, node]
}

pub(crate) fn an_interface_without_an_address_announces_by_its_name(
    home: &Home,
) -> anyhow::Result<()> {
    for node in 1..=3 {
        add_interface(home, node)?;
        home.wait_for_session(Machine::Node(node))?;
    }
    let mut elsewhere = pool("elsewhere", &["10.9.0.240/32"]);
    elsewhere["spec"]["announce"] = json!([{ "interfaces": [INTERFACE] }]);
    home.apply(&elsewhere)?;
    home.apply(&service("web", "arpeggio.dev/address-pool", "elsewhere"))?;
    home.wait_for_address("web")?;
    let owner = wait_for_owner(home, |_| true)?;
    let assigned = home.wait_for_event("web", "nodeAssigned")?;
    ensure!(assigned.note.contains(INTERFACE), "{assigned:?}");

    home.lab.power_off(Machine::Node(owner))?;
    wait_for_owner(home, |node| node != owner)?;
    let events = home.events("web")?;
    ensure!(events.iter().all(|it| it.kind != "Warning"), "{events:?}");
    Ok(())
}

fn add_interface(home: &Home, node: u8) -> anyhow::Result<()> {
    let mac = mac(node).map(|byte| format!("{byte:02x}")).join(":");
    let namespace = home.lab.namespace(Machine::Node(node));
    let add = ["link", "add", INTERFACE, "link", "eth0", "address", &mac, "type", "macvlan"];
    namespace.run("ip", &add)?;
    namespace.run("ip", &["link", "set", INTERFACE, "up"])?;
    Ok(())
}

/// Waits until exactly one node's card in that network answers for the address.
fn wait_for_owner(home: &Home, is_it: impl Fn(u8) -> bool) -> anyhow::Result<u8> {
    home.wait_until("one card answers", || {
        let watch = ArpWatch::start(&home.lab, Machine::Client, ADDRESS, EVERY);
        let watch = watch.map_err(anyhow::Error::from)?;
        std::thread::sleep(EVERY * 10);
        let replies = watch.stop().map_err(anyhow::Error::from)?.replies;
        let answers = |node: &u8| replies.iter().any(|reply| reply.mac == mac(*node));
        match (1..=3).filter(answers).collect::<Vec<u8>>()[..] {
            [owner] if is_it(owner) => Ok(owner),
            ref others => Err(format!("{others:?} answer").into()),
        }
    })
}

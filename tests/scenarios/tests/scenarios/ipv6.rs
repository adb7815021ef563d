//! An IPv6 address, with the client's kernel as the judge.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Machine, plan::mac_text};
use arpeggio_scenarios::{Home, pool, service};
use serde_json::json;

use crate::{
    doctor,
    neighbour::{neighbour, touch},
};

const POOL: &str = "home-v6";
const POOL_RANGE: &str = "fd00:a0::240-fd00:a0::250";
const FIRST_ADDRESS: &str = "fd00:a0::240";

/// As for IPv4: generous, but shorter than a session.
const LONGEST_OUTAGE: Duration = Duration::from_secs(3);

/// The client's kernel waits five seconds before it checks an entry that it has doubts about.
const CHECK: Duration = Duration::from_secs(10);

/// The kernel asks once a second when nobody answers.
const UNANSWERED: Duration = Duration::from_millis(900);

pub(crate) fn an_ipv6_address_outlives_its_node(home: &Home) -> anyhow::Result<()> {
    let (address, owner) = start(home)?;
    doctor::finds_nothing(home)?;
    home.keep_pods_off("web", owner)?;
    let page = SocketAddr::new(address, 80);
    let [outage] = home.outages_by_power_cut(Machine::Client, [page], owner)?;
    ensure!(outage < LONGEST_OUTAGE, "the client was without an answer for {outage:?}");
    let successor = neighbour(home, Machine::Client, address)?.node(home)?;
    ensure!(successor != owner, "the client's neighbour table still has {owner}");
    Ok(())
}

/// RFC 4861 section 7.3: an entry in use is checked by unicast, and must be confirmed.
pub(crate) fn a_clients_doubts_are_answered(home: &Home) -> anyhow::Result<()> {
    let (address, owner) = start(home)?;
    let client = home.lab.namespace(Machine::Client);
    let mac = mac_text(owner.mac().context("a node has a MAC address")?);
    let text = address.to_string();
    let doubtful =
        ["-6", "neighbour", "change", &text, "dev", "eth0", "lladdr", &mac, "nud", "stale"];
    client.run("ip", &doubtful)?;
    // Whatever becomes of the datagram: that one is sent makes the kernel doubt, and unlike a
    // connection it does not tell the kernel that the neighbour is there.
    touch(home, Machine::Client, address)?;

    let mut states: Vec<(String, Instant)> = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < CHECK {
        let state = neighbour(home, Machine::Client, address)?.state;
        if states.last().is_none_or(|(last, _)| *last != state) {
            states.push((state, Instant::now()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let order: Vec<&str> = states.iter().map(|(state, _)| state.as_str()).collect();
    let expected = ["STALE", "DELAY", "PROBE", "REACHABLE"];
    ensure!(order.contains(&"DELAY"), "the kernel had doubts: {order:?}");
    ensure!(order.iter().all(|state| expected.contains(state)), "{order:?}");
    let probing = states.windows(2).filter(|pair| pair[0].0 == "PROBE");
    let longest = probing.map(|pair| pair[1].1 - pair[0].1).max().unwrap_or_default();
    ensure!(longest < UNANSWERED, "a check took {longest:?}: {order:?}");
    let after_doubts = order.iter().skip_while(|state| **state != "DELAY");
    ensure!(after_doubts.clone().any(|state| *state == "REACHABLE"), "{order:?}");
    ensure!(neighbour(home, Machine::Client, address)?.node(home)? == owner, "another MAC address");
    Ok(())
}

/// RFC 4862 section 5.4: whoever wants our address finds out that it is taken.
pub(crate) fn nobody_can_take_an_announced_address(home: &Home) -> anyhow::Result<()> {
    let (address, owner) = start(home)?;
    let client = home.lab.namespace(Machine::Client);
    let taken = format!("{address}/128");
    client.run("ip", &["-6", "address", "add", &taken, "dev", "eth0"])?;
    home.wait_until("duplicate address detection fails", || {
        let shown = client.run("ip", &["-6", "address", "show", "dev", "eth0"]);
        let shown = shown.map_err(anyhow::Error::from)?;
        let line = shown.lines().find(|line| line.contains(&taken)).unwrap_or_default().to_owned();
        if line.contains("dadfailed") { Ok(()) } else { Err(line.into()) }
    })?;
    client.run("ip", &["-6", "address", "delete", &taken, "dev", "eth0"])?;
    ensure!(owner_as_the_client_finds(home, address)? == owner, "the address has moved");
    Ok(())
}

/// A Service with an IPv6 address, and who announces it.
fn start(home: &Home) -> anyhow::Result<(IpAddr, Machine)> {
    home.apply(&pool(POOL, &[POOL_RANGE]))?;
    home.start_web(2)?;
    let mut web = service("web", "arpeggio.dev/address-pool", POOL);
    web["spec"]["ipFamilies"] = json!(["IPv6"]);
    web["spec"]["ipFamilyPolicy"] = json!("SingleStack");
    home.apply(&web)?;
    let address = home.wait_for_address("web")?;
    ensure!(address == FIRST_ADDRESS.parse::<IpAddr>()?, "the first address of the pool");
    let owner = home.wait_until("the client finds who has the address", || {
        Ok(owner_as_the_client_finds(home, address)?)
    })?;
    Ok((address, owner))
}

/// Makes the client's kernel ask anew, and reads what it has learnt.
fn owner_as_the_client_finds(home: &Home, address: IpAddr) -> anyhow::Result<Machine> {
    let client = home.lab.namespace(Machine::Client);
    client.run("ip", &["-6", "neighbour", "flush", "to", &address.to_string()])?;
    touch(home, Machine::Client, address)?;
    std::thread::sleep(Duration::from_millis(200));
    neighbour(home, Machine::Client, address)?.node(home)
}

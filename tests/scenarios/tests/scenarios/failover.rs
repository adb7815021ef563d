//! An owner loses its power.

use std::{net::SocketAddr, time::Duration};

use anyhow::ensure;
use arpeggio_lab::{Machine, network::ROUTER_WAN_V4};
use arpeggio_scenarios::{Home, POOL, first_address, service};

/// At rest it is a third of a second. A busy test machine may take longer, but not as long as a session lasts: then the
/// wire would not have been the witness.
const LONGEST_OUTAGE: Duration = Duration::from_secs(3);

pub(crate) fn an_address_outlives_its_node(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    home.start_web(2)?;
    home.apply(&service("web", "arpeggio.dev/address-pool", POOL))?;
    let address = home.wait_for_address("web")?;
    let owner = home.wait_for_owner(first_address())?;
    home.keep_pods_off("web", owner)?;
    home.lab.network().forward_port(80, SocketAddr::new(address, 80))?;

    let page = SocketAddr::new(ROUTER_WAN_V4.parse()?, 80);
    let [outage] = home.outages_by_power_cut(Machine::Internet, [page], owner)?;
    ensure!(outage < LONGEST_OUTAGE, "the client was without an answer for {outage:?}");
    let successor = home.wait_for_owner(first_address())?;
    ensure!(successor != owner, "{owner} has no power");
    let why = format!("taken over from {owner}: silent on the wire");
    let told = home.wait_for_note("web", &why)?;
    ensure!(told.reason == "nodeAssigned", "{told:?}");

    home.switch_on(owner)?;
    home.wait_for_session(owner)?;
    std::thread::sleep(Duration::from_secs(4));
    ensure!(home.wait_for_owner(first_address())? == successor, "the address moved back");
    ensure!(home.moves(address)? == 1, "one move, not {}", home.moves(address)?);
    Ok(())
}

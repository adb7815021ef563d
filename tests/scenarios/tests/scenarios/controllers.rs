//! Several controllers: one leads, and even without a leader no address is given twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use arpeggio_scenarios::{Home, HostProcess, POOL, pool, service};
use serde_json::{Value, json};

const KEY: &str = "arpeggio.dev/address-pool";

/// The leader Lease counts for six seconds; the rest is for a busy test machine.
const TAKEOVER: Duration = Duration::from_secs(12);

/// Less than the leader Lease counts for: a leader that is asked to stop hands over.
const HANDOVER: Duration = Duration::from_secs(5);

pub(crate) fn a_follower_takes_over_when_the_leader_has_no_power(
    home: &Home,
) -> anyhow::Result<()> {
    home.add_pool()?;
    home.apply(&service("before", KEY, POOL))?;
    let address = home.wait_for_address("before")?;
    let leader = home.leading_controller()?;

    let cut = Instant::now();
    home.lab.power_off(home.node_of(&leader)?)?;
    home.apply(&service("after", KEY, POOL))?;
    home.wait_for_address("after")?;
    ensure!(cut.elapsed() < TAKEOVER, "a new Service waited for {:?}", cut.elapsed());
    ensure!(home.leading_controller()? != leader, "{leader} has no power");
    ensure!(home.addresses("before")? == [address], "what was given stays");
    Ok(())
}

pub(crate) fn a_leader_that_is_asked_to_stop_hands_over_at_once(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    let leader = home.leading_controller()?;
    let asked = Instant::now();
    home.lab.kubectl(&["delete", "pod", "-n", "arpeggio-system", &leader, "--wait=false"])?;
    home.wait_until("the other controller leads", || {
        let successor = home.leading_controller()?;
        if successor == leader { Err(successor.into()) } else { Ok(()) }
    })?;
    ensure!(asked.elapsed() < HANDOVER, "it took {:?}", asked.elapsed());
    home.apply(&service("web", KEY, POOL))?;
    home.wait_for_address("web")?;
    Ok(())
}

pub(crate) fn controllers_find_out_that_their_connections_are_dead(
    home: &Home,
) -> anyhow::Result<()> {
    home.add_pool()?;
    home.apply(&service("before", KEY, POOL))?;
    home.wait_for_address("before")?;
    for node in home.lab.options().node_machines() {
        home.lab.network().forget_connections(node)?;
    }
    home.apply(&service("after", KEY, POOL))?;
    home.wait_for_address("after").map(drop)
}

/// Addresses of the pool of the test below, and the Services that want them.
const ADDRESSES: usize = 120;
const SERVICES: usize = 240;
/// How often a controller is killed, each time at another point of its work.
const KILLS: u64 = 24;

pub(crate) fn two_controllers_at_once_give_no_address_twice(home: &Home) -> anyhow::Result<()> {
    home.scale_controllers(0)?;
    home.apply(&pool("small", &["198.18.0.1-198.18.0.120"]))?;
    let mut controllers = [start_unopposed(home, 0)?, start_unopposed(home, 1)?];
    std::thread::scope(|scope| {
        // One after the other, so that there is always somebody to serve while controllers die.
        let creation = scope.spawn(|| create_services(home));
        (1..=KILLS).try_for_each(|round| disturb(home, &mut controllers, round))?;
        creation.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    home.wait_until("all addresses are given, and exactly those have a lock", || settled(home))
}

fn start_unopposed(home: &Home, number: u16) -> anyhow::Result<HostProcess> {
    let name = format!("controller-{number}");
    HostProcess::controller(&home.lab, &name, 7480 + number, &["--leader-election=false"])
}

/// Kills one of the controllers, and starts it again; now and then a Service goes, and somebody who waits gets its
/// address.
fn disturb(home: &Home, controllers: &mut [HostProcess; 2], round: u64) -> anyhow::Result<()> {
    // The steps have no common divisor with the limit, so every phase of a claim is hit sooner or later.
    std::thread::sleep(Duration::from_millis(round * 137 % 600));
    let number = usize::try_from(round % 2)?;
    let victim = controllers.get_mut(number).context("there are two")?;
    victim.kill()?;
    *victim = start_unopposed(home, u16::try_from(number)?)?;
    let holder = given(home)?.into_values().next();
    if let Some(holder) = holder.filter(|_| round.is_multiple_of(3)) {
        home.lab.kubectl(&["delete", "service", &holder])?;
    }
    Ok(())
}

fn create_services(home: &Home) -> anyhow::Result<()> {
    let services: Vec<Value> =
        (0..SERVICES).map(|number| service(&format!("web-{number:03}"), KEY, "small")).collect();
    home.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": services }))
}

/// Who has which address now; an error when two Services have the same.
fn given(home: &Home) -> anyhow::Result<BTreeMap<String, String>> {
    let services = home.lab.get(&["services"])?;
    let mut given = BTreeMap::new();
    for service in services["items"].as_array().context("a list")? {
        let name = service["metadata"]["name"].as_str().unwrap_or_default();
        let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
        for address in ingress.into_iter().flatten().filter_map(|entry| entry["ip"].as_str()) {
            if let Some(other) = given.insert(address.to_owned(), name.to_owned()) {
                bail!("{address} was given to {other} and to {name}");
            }
        }
    }
    Ok(given)
}

fn settled(home: &Home) -> Result<(), arpeggio_scenarios::NotYet> {
    let given: BTreeSet<String> = given(home)?.into_keys().collect();
    let locked = locked(home)?;
    if given.len() == ADDRESSES && given == locked {
        return Ok(());
    }
    let odd: Vec<&String> = given.symmetric_difference(&locked).collect();
    Err(format!("{} are given, {} locked, {odd:?} are only one of it", given.len(), locked.len())
        .into())
}

fn locked(home: &Home) -> anyhow::Result<BTreeSet<String>> {
    let address = |lock: &Value| {
        let name = lock["metadata"]["name"].as_str()?;
        Some(name.strip_prefix("address-")?.to_owned())
    };
    Ok(home.locks()?.iter().filter_map(address).collect())
}

//! Machines that are none of ours and have, or take, an address of ours. The client is the stranger, the router is the
//! judge.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{
    Machine,
    observe::{ArpReply, ArpWatch},
    plan::mac_text,
};
use arpeggio_scenarios::{Home, POOL, first_address, pool, service};
use serde_json::{Value, json};

use crate::{
    faults::{UNNOTICED, at_most, settled_on},
    neighbour::{neighbour, touch},
};

const STRANGER: Machine = Machine::Client;
const JUDGE: Machine = Machine::Router;

const POOL_V6: &str = "home-v6";
const FIRST_V6: &str = "fd00:a0::240";

/// How often a speaker asks again for an address that a stranger has; half a minute by default.
const RECHECK: &str = "--conflict-recheck=2";

/// Generous: at rest three questions are answered within a quarter of a second.
const MARKED_WITHIN: Duration = Duration::from_secs(5);

/// Longer than a gained address is told again and again.
const REPEATS: Duration = Duration::from_secs(6);

/// What the judge's neighbour entry may be wrong for; generous.
const RIGHT_AGAIN_WITHIN: Duration = Duration::from_secs(3);

pub(crate) fn somebody_elses_address_is_never_announced(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    let address = IpAddr::from(first_address());
    let heard = ArpWatch::start(&home.lab, JUDGE, first_address(), Duration::from_millis(100))?;
    occupied(home, POOL, address, "IPv4")?;
    let stranger = STRANGER.mac().context("the stranger has a MAC address")?;
    let ours = |reply: &&ArpReply| reply.mac != stranger;
    let replies = heard.stop()?.replies;
    ensure!(!replies.is_empty(), "the stranger answers the judge");
    let ours: Vec<&ArpReply> = replies.iter().filter(ours).collect();
    ensure!(ours.is_empty(), "{address} is the stranger's, and nodes answered: {ours:?}");
    freed(home, address)?;
    home.wait_for_owner(first_address())?;
    Ok(())
}

pub(crate) fn somebody_elses_ipv6_address_is_never_announced(home: &Home) -> anyhow::Result<()> {
    home.apply(&pool(POOL_V6, &["fd00:a0::240-fd00:a0::250"]))?;
    let address: IpAddr = FIRST_V6.parse()?;
    occupied(home, POOL_V6, address, "IPv6")?;
    touch(home, JUDGE, address)?;
    home.wait_until("the judge finds the stranger", || match neighbour(home, JUDGE, address)? {
        known if known.mac == mac(STRANGER) => Ok(()),
        known => Err(format!("{known:?}").into()),
    })?;
    freed(home, address)?;
    home.wait_until("the judge finds a node at the address", || {
        let forget = ["-6", "neighbour", "flush", "to", FIRST_V6];
        home.lab.namespace(JUDGE).run("ip", &forget).map_err(anyhow::Error::from)?;
        touch(home, JUDGE, address)?;
        std::thread::sleep(Duration::from_millis(200));
        Ok(neighbour(home, JUDGE, address)?.node(home)?)
    })?;
    Ok(())
}

/// The stranger takes the first address of the pool, then a Service asks for exactly this one: it is marked as taken,
/// and users are told.
fn occupied(home: &Home, pool: &str, address: IpAddr, family: &str) -> anyhow::Result<()> {
    home.set_speaker_args(&[RECHECK])?;
    let own = if address.is_ipv4() { format!("{address}/32") } else { format!("{address}/128") };
    let stranger = home.lab.namespace(STRANGER);
    stranger.run("ip", &["address", "add", &own, "dev", "eth0"])?;
    // Longer than duplicate address detection takes.
    std::thread::sleep(Duration::from_secs(3));

    let mut web = service("web", "arpeggio.dev/address-pool", pool);
    web["metadata"]["annotations"]["arpeggio.dev/addresses"] = json!(address.to_string());
    web["spec"]["ipFamilies"] = json!([family]);
    home.apply(&web)?;
    let (claimed, marked) = (Instant::now(), mac(STRANGER));
    home.wait_until("the lock says whose address it is", || {
        let lock = home.lock(address)?.unwrap_or_default();
        let found = text(&lock["metadata"]["annotations"]["arpeggio.dev/stranger"]);
        if found == marked { Ok(()) } else { Err(lock.to_string().into()) }
    })?;
    let took = claimed.elapsed();
    println!("{address}: marked {took:?} after the Service was made");
    ensure!(took < MARKED_WITHIN, "it took {took:?} from the Service to the mark");
    let event = home.wait_for_event("web", "AddressConflict")?;
    ensure!(event.kind == "Warning", "{event:?}");
    ensure!(event.note.contains(&marked.unwrap_or_default()), "{event:?}");
    // Asked for again meanwhile, and still not announced.
    std::thread::sleep(Duration::from_secs(5));
    let lock = home.lock(address)?.unwrap_or_default();
    let holder = text(&lock["spec"]["holderIdentity"]).unwrap_or_default();
    ensure!(holder.is_empty(), "{holder} holds the stranger's address");
    Ok(())
}

/// The stranger gives the address up: the one who asked for it gets it.
fn freed(home: &Home, address: IpAddr) -> anyhow::Result<()> {
    home.lab.namespace(STRANGER).run("ip", &["address", "flush", "to", &address.to_string()])?;
    home.wait_until("somebody holds the address, and the mark is gone", || {
        let lock = home.lock(address)?.unwrap_or_default();
        let marked = !lock["metadata"]["annotations"]["arpeggio.dev/stranger"].is_null();
        let holder = text(&lock["spec"]["holderIdentity"]).unwrap_or_default();
        if !marked && !holder.is_empty() { Ok(()) } else { Err(lock.to_string().into()) }
    })
}

pub(crate) fn an_announced_address_is_defended(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    home.apply(&service("web", "arpeggio.dev/address-pool", POOL))?;
    let address = home.wait_for_address("web")?;
    home.wait_for_owner(first_address())?;
    let stranger = home.lab.namespace(STRANGER);
    stranger.run("sysctl", &["-qw", "net.ipv4.ip_nonlocal_bind=1"])?;
    let text = address.to_string();
    defended(home, address, || {
        stranger.run("arping", &["-U", "-c", "1", "-I", "eth0", "-s", &text, &text])?;
        Ok(())
    })
}

pub(crate) fn an_announced_ipv6_address_is_defended(home: &Home) -> anyhow::Result<()> {
    home.apply(&pool(POOL_V6, &["fd00:a0::240-fd00:a0::250"]))?;
    let mut web = service("web", "arpeggio.dev/address-pool", POOL_V6);
    web["spec"]["ipFamilies"] = json!(["IPv6"]);
    home.apply(&web)?;
    let address = home.wait_for_address("web")?;
    let stranger = home.lab.namespace(STRANGER);
    // A kernel that looks for no duplicates and tells everybody of each new address.
    stranger.run("sysctl", &["-qw", "net.ipv6.conf.eth0.dad_transmits=0"])?;
    stranger.run("sysctl", &["-qw", "net.ipv6.conf.eth0.ndisc_notify=1"])?;
    defended(home, address, || {
        let own = format!("{address}/128");
        stranger.run("ip", &["address", "add", &own, "dev", "eth0"])?;
        Ok(())
    })
}

/// A machine that neither serves the page nor asks for it.
const BYSTANDER: Machine = Machine::Host(1);

pub(crate) fn a_stranger_that_takes_the_address_changes_little(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    home.lab.network().add_hosts(1..=1)?;
    let stranger = home.lab.namespace(BYSTANDER);
    stranger.run("sysctl", &["-qw", "net.ipv4.ip_nonlocal_bind=1"])?;
    // The repeats of the announcement are over then, so that only a defence can set things right.
    std::thread::sleep(REPEATS);
    let fault = "a stranger says that it has the address";
    let seen = home.look_on(fault, Duration::from_secs(4), || {
        let address = first_address().to_string();
        let says = ["-U", "-c", "1", "-I", "eth0", "-s", &address, &address];
        Ok(stranger.run("arping", &says).map(drop)?)
    })?;
    at_most(&seen, UNNOTICED)?;
    ensure!(seen.told.iter().any(|note| note.contains("AddressConflict")), "{seen:?}");
    settled_on(home, owner)
}

pub(crate) fn who_wants_a_strangers_address_is_told(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    home.start_web(2)?;
    home.lab.network().add_hosts(1..=1)?;
    let own = format!("{}/32", first_address());
    home.lab.namespace(BYSTANDER).run("ip", &["address", "add", &own, "dev", "eth0"])?;
    let mut web = service("web", "arpeggio.dev/addresses", &first_address().to_string());
    web["spec"]["type"] = json!("ClusterIP");
    home.apply(&web)?;
    let fault = "a stranger has the address already that a Service asks for";
    let seen = home.look_on(fault, Duration::from_secs(3), || {
        web["spec"]["type"] = json!("LoadBalancer");
        home.apply(&web)?;
        home.wait_for_event("web", "AddressConflict").map(drop)
    })?;
    ensure!(seen.owners == ["a stranger"], "no node answers: {seen:?}");
    ensure!(seen.conditions.iter().any(|it| it.starts_with("AddressConflict=True")), "{seen:?}");
    Ok(())
}

/// Whatever the stranger says, the judge goes on finding the owner, and users are told whose MAC address it was.
fn defended(
    home: &Home,
    address: IpAddr,
    attack: impl Fn() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let owner = home.wait_until("the judge finds the owner", || {
        touch(home, JUDGE, address)?;
        std::thread::sleep(Duration::from_millis(200));
        Ok(neighbour(home, JUDGE, address)?.node(home)?)
    })?;
    // The repeats of the announcement are over then, so that only a defence can set things right.
    std::thread::sleep(REPEATS);
    attack()?;
    let event = home.wait_for_event("web", "AddressConflict")?;
    ensure!(event.kind == "Warning", "{event:?}");
    ensure!(event.note.contains(&mac(STRANGER).unwrap_or_default()), "{event:?}");
    let begin = Instant::now();
    let known = || neighbour(home, JUDGE, address)?.node(home);
    while begin.elapsed() < RIGHT_AGAIN_WITHIN && known().ok() != Some(owner) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let known = neighbour(home, JUDGE, address)?;
    ensure!(known.mac == mac(owner), "the judge was led to {known:?}, {owner} is the owner");
    // An event is forgotten after an hour; who looks later finds the condition.
    let told = format!(
        "AddressConflict=True: {address}: a machine that is no node of this cluster ({}) announces it as well as {owner}",
        mac(STRANGER).unwrap_or_default()
    );
    home.wait_until("the Service says so for as long as it lasts", || {
        let conditions = home.conditions("web")?;
        let is_said = conditions.iter().any(|it| it.starts_with(&told));
        if is_said { Ok(()) } else { Err(format!("{conditions:?}").into()) }
    })
}

fn mac(machine: Machine) -> Option<String> {
    machine.mac().map(mac_text)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

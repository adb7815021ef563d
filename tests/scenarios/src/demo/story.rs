//! The story that the demo tells.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{
    Machine,
    network::ROUTER_WAN_V4,
    observe::{ArpWatch, Outcome, RequestPlan, get},
    plan::mac_text,
};
use arpeggio_scenarios::{Home, POOL, POOL_RANGE, first_address, service};

use crate::{
    narrator::{chapter, say, show},
    observation::Observation,
    report::Report,
    timeline,
};

/// The Service of the story.
const SERVICE: &str = "web";
/// The annotation that names the pool.
const POOL_KEY: &str = "arpeggio.dev/address-pool";
/// A returning node could want its address back within this time; it must not.
const WATCH_RETURN: Duration = Duration::from_secs(5);

/// The whole story.
pub(crate) fn tell(home: &Home) -> anyhow::Result<()> {
    let create_to_answer = furnish(home)?;
    let address = first_address();
    let old_owner = home.wait_for_owner(address)?;
    clear_the_stage(home, old_owner)?;

    chapter(&format!("The power of {old_owner} is cut"));
    say(format!(
        "{old_owner} owns {address}. From the internet, a new connection every 20 ms; on the LAN, \"who has {address}?\" every 10 ms."
    ));
    let seen = Observation::of_a_power_cut(home, &page()?, address, old_owner)?;
    let new_owner = home.wait_for_owner(address)?;
    tell_what_was_seen(home, &seen, old_owner, new_owner)?;

    chapter(&format!("{old_owner} comes back"));
    bring_back(home, old_owner, new_owner, address)?;

    let report = Report {
        outage: seen.outage().length(),
        failed_requests: seen.failed(),
        old_owner: old_owner.to_string(),
        new_owner: new_owner.to_string(),
        address: address.to_string(),
        create_to_answer,
    };
    say(format!("The figures are in {}", report.write()?.display()));
    Ok(())
}

/// A pool, real nginx pods, a Service with an address, and a port forward on the router. Returns the time from the
/// start of the command that creates the Service to the first answer on the LAN.
pub(crate) fn furnish(home: &Home) -> anyhow::Result<Duration> {
    chapter("A page behind an address");
    home.add_pool()?;
    say(format!("AddressPool '{POOL}': {POOL_RANGE}"));
    home.start_web(2)?;
    say("Deployment 'web': two nginx pods");
    let create_to_answer = create_service(home)?;
    let address = home.wait_for_address(SERVICE)?;
    ensure!(address == IpAddr::from(first_address()), "the Service got {address}");
    let owner = home.wait_for_owner(first_address())?;
    let mac = owner.mac().map(mac_text).unwrap_or_default();
    say(format!(
        "Service '{SERVICE}' has {address}; {owner} ({mac}) answers for it, {create_to_answer:.0?} after the command that created it was started"
    ));
    home.lab.network().forward_port(80, SocketAddr::new(address, 80))?;
    say(format!("The router forwards its port 80 to {address}, as a FritzBox does"));
    say(format!("From the internet, http://{ROUTER_WAN_V4}/ says: {}", fetch(home)?));
    Ok(create_to_answer)
}

fn create_service(home: &Home) -> anyhow::Result<Duration> {
    let address = first_address();
    let watch = ArpWatch::start(&home.lab, Machine::Client, address, Duration::from_millis(5))?;
    // One request and nothing else, where `apply` would first learn what the server can do.
    let create = ["create", "--raw", "/api/v1/namespaces/default/services", "-f", "-"];
    let object = service(SERVICE, POOL_KEY, POOL).to_string();
    let begin = Instant::now();
    home.lab.kubectl_with_input(&create, &object)?;
    home.wait_for_address(SERVICE)?;
    home.wait_for_owner(address)?;
    let first = watch.stop()?.replies.first().map(|reply| reply.at);
    Ok(first.context("nobody answered for the address")? - begin)
}

fn page() -> anyhow::Result<RequestPlan> {
    Ok(RequestPlan::new(SocketAddr::new(ROUTER_WAN_V4.parse()?, 80)))
}

fn fetch(home: &Home) -> anyhow::Result<String> {
    let (internet, page) = (home.lab.namespace(Machine::Internet), page()?);
    home.wait_until("the page answers on the router's WAN address", || {
        let request = internet.enter(|| get(&page)).map_err(anyhow::Error::from)?;
        match request.outcome {
            Outcome::Answered { status: 200, body } => Ok(body.trim().to_owned()),
            other => Err(format!("{other:?}").into()),
        }
    })
}

/// Moves the pods off the owner, so that what is seen is the address alone.
fn clear_the_stage(home: &Home, owner: Machine) -> anyhow::Result<()> {
    chapter("The stage is cleared");
    say(format!(
        "The web pods leave {owner}: Kubernetes needs many seconds to notice that pods are lost, and would send"
    ));
    say("requests to them meanwhile. What is to be seen here is the address.");
    home.keep_pods_off("web", owner)?;
    show(&home.lab.kubectl(&[
        "get",
        "pods",
        "-o",
        "custom-columns=POD:.metadata.name,NODE:.spec.nodeName",
    ])?);
    Ok(())
}

fn tell_what_was_seen(
    home: &Home,
    seen: &Observation,
    old_owner: Machine,
    new_owner: Machine,
) -> anyhow::Result<()> {
    println!();
    println!("{}", timeline::draw(seen, &home.lab.options().node_machines()));
    println!();
    ensure!(new_owner != old_owner, "a node without power cannot be the owner");
    if let Some((after, unasked)) = seen.first_word_after(old_owner) {
        let how = if unasked { "tells the segment unasked" } else { "answers" };
        say(format!("{after:.0?} after the cut, {new_owner} {how} that it has the address"));
    }
    let (outage, failed) = (seen.outage().length(), seen.failed());
    let all = seen.requests.len();
    say(format!(
        "The client on the internet was without an answer for {outage:.0?}; {failed} of {all} requests failed"
    ));
    let heard = home.wait_until("an event tells of the move", || {
        let events = home.events(SERVICE)?;
        let told = events.iter().any(|event| event.note.contains(&format!("from {old_owner}")));
        if told { Ok(events) } else { Err(format!("{events:?}").into()) }
    })?;
    say(format!("The events on Service '{SERVICE}':"));
    heard
        .iter()
        .for_each(|event| show(&format!("{} {}: {}", event.kind, event.reason, event.note)));
    Ok(())
}

fn bring_back(
    home: &Home,
    old_owner: Machine,
    new_owner: Machine,
    address: Ipv4Addr,
) -> anyhow::Result<()> {
    home.switch_on(old_owner)?;
    home.wait_for_speakers()?;
    say(format!(
        "{old_owner} is Ready and its speaker runs; five seconds to see whether anything moves"
    ));
    std::thread::sleep(WATCH_RETURN);
    let owner = home.wait_for_owner(address)?;
    ensure!(owner == new_owner, "the address moved from {new_owner} to {owner}");
    say(format!("Nothing moved: {owner} still answers. 'arpeggio status' says:"));
    show(&home.arpeggio(&["status"])?);
    say(format!("From the internet, http://{ROUTER_WAN_V4}/ says: {}", fetch(home)?));
    Ok(())
}

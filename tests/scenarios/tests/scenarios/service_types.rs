//! Services of every type, as `docs/setups/service-types.md` has them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{
    Machine,
    observe::{RequestPlan, get},
};
use arpeggio_scenarios::{Home, first_address, page};
use serde_json::json;

use crate::setups::{Setup, patch};

/// Those that are to be left alone.
const OTHERS: [&str; 7] =
    ["plain", "headless", "node-port", "external-name", "external-ips", "foreign", "by-hand"];

/// What `web` asks for.
const REQUESTED: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 245);

/// The address that `external-ips` has from its user.
const FROM_THE_USER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 230);

pub(crate) fn only_load_balancers_are_served(home: &Home) -> anyhow::Result<()> {
    let setup = Setup::new(home, "service-types")?;
    setup.write_certificate(&["nas.example.com"])?;
    let _neighbour = setup.start_neighbour()?;
    home.start_web(2)?;
    setup.apply("pool.yaml")?;
    setup.apply("types.yaml")?;
    setup.apply("by-hand.yaml")?;
    let before = versions(home)?;

    setup.apply("web.yaml")?;
    ensure!(home.wait_for_address("web")? == REQUESTED, "the address that web asks for");
    for port in [80, 8080] {
        home.wait_for_page_at(Machine::Client, SocketAddr::new(REQUESTED.into(), port))?;
    }
    // The controller has looked at the others by now: they came before.
    ensure!(versions(home)? == before, "somebody has written to one of {OTHERS:?}");
    for name in OTHERS {
        let events = home.events(name)?;
        ensure!(events.is_empty(), "nobody is told anything about {name}: {events:?}");
    }
    let answer = home.who_answers(FROM_THE_USER)?;
    ensure!(answer.is_empty(), "{answer:?} say that they have an address of externalIPs");

    for name in ["plain", "node-port", "external-name"] {
        becomes_a_load_balancer_and_ceases(home, name)?;
    }
    serves_a_machine_by_hand(home)?;
    the_policy_for_inside_changes_nothing_outside(home)
}

/// Whoever writes to an object changes this.
fn versions(home: &Home) -> anyhow::Result<Vec<String>> {
    let version = |name| {
        let service = home.lab.get(&["service", name])?;
        let version = service["metadata"]["resourceVersion"].as_str();
        Ok(version.context("an object has a version")?.to_owned())
    };
    OTHERS.into_iter().map(version).collect()
}

/// To LoadBalancer and back, to another type, and from each of them again.
fn becomes_a_load_balancer_and_ceases(home: &Home, name: &str) -> anyhow::Result<()> {
    let before = home.lab.get(&["service", name])?["spec"]["type"].take();
    let load_balancer = json!({
        "type": "LoadBalancer",
        "externalName": null,
        "selector": { "app": "web" },
        "ports": [{ "port": 80 }],
    });
    patch(home, name, &load_balancer)?;
    ensure!(home.wait_for_address(name)? == first_address(), "{name} gets the first address");
    home.wait_for_page(Machine::Client)?;

    let name_of_others = (before == "ExternalName").then_some("www.example.com");
    patch(home, name, &json!({ "type": before, "externalName": name_of_others }))?;
    is_free_again(home, name)
}

/// The address, its lock and the status.
fn is_free_again(home: &Home, service: &str) -> anyhow::Result<()> {
    home.wait_until(&format!("nothing is left of the address of {service}"), || {
        let addresses = home.addresses(service)?;
        let lock = home.lock(first_address().into())?;
        let answer = home.who_answers(first_address())?;
        if addresses.is_empty() && lock.is_none() && answer.is_empty() {
            return Ok(());
        }
        Err(format!("{addresses:?}, {lock:?}, {answer:?}").into())
    })
}

/// A Service without a selector, with a slice that a user has written.
fn serves_a_machine_by_hand(home: &Home) -> anyhow::Result<()> {
    patch(home, "by-hand", &json!({ "type": "LoadBalancer" }))?;
    ensure!(home.wait_for_address("by-hand")? == first_address(), "the first address");
    home.wait_until("the other machine answers at the address", || {
        let url = format!("http://{}/", first_address());
        let args = ["--silent", "--show-error", "--max-time", "1", &url];
        match home.lab.namespace(Machine::Client).run("curl", &args) {
            Ok(said) if said.contains("the other machine says") => Ok(()),
            other => Err(format!("{other:?}").into()),
        }
    })
}

/// `internalTrafficPolicy: Local` on a Service whose only pod is not where its address is.
fn the_policy_for_inside_changes_nothing_outside(home: &Home) -> anyhow::Result<()> {
    let owner = home.wait_for_owner(REQUESTED)?;
    home.keep_pods_off("web", owner)?;
    patch(home, "web", &json!({ "internalTrafficPolicy": "Local" }))?;
    let cluster_ip = &home.lab.get(&["service", "web"])?["spec"]["clusterIP"];
    let cluster_ip: IpAddr = cluster_ip.as_str().context("a cluster IP")?.parse()?;
    let inside = RequestPlan { server: SocketAddr::new(cluster_ip, 80), ..page() };
    home.wait_until("the policy is in force inside", || {
        let asked = home.lab.namespace(owner).enter(|| get(&inside));
        let asked = asked.map_err(anyhow::Error::from)?;
        if asked.is_answered() { Err(format!("{asked:?}").into()) } else { Ok(()) }
    })?;
    home.wait_for_page_at(Machine::Client, SocketAddr::new(REQUESTED.into(), 80))?;
    let now = home.wait_for_owner(REQUESTED)?;
    ensure!(now == owner, "the address has moved to {now}");
    Ok(())
}

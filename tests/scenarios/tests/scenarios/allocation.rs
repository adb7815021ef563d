//! Services get addresses, or are told why not.

use std::{collections::BTreeSet, net::Ipv4Addr};

use anyhow::ensure;
use arpeggio_scenarios::{Home, POOL, first_address, pool, service};
use serde_json::json;

const KEY: &str = "arpeggio.dev/address-pool";

pub(crate) fn without_a_pool_a_service_waits_and_says_why(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    home.apply(&service("lost", KEY, "extern"))?;
    let event = home.wait_for_event("lost", "AllocationFailed")?;
    ensure!(event.kind == "Warning", "{event:?}");
    ensure!(event.note.contains("extern") && !event.note.contains(POOL), "{event:?}");
    ensure!(home.addresses("lost")?.is_empty(), "it waits");
    let explained = home.arpeggio(&["explain", "service", "lost"])?;
    let times = explained.matches(&event.note).count();
    ensure!(times == 3, "not said by condition, event and afresh, but {times} times: {explained}");

    // The pool appears: the Service gets its address without another touch.
    home.apply(&pool("extern", &["192.168.0.200/32"]))?;
    let address = home.wait_for_address("lost")?;
    ensure!(address.to_string() == "192.168.0.200", "got {address}");
    home.wait_for_event("lost", "IPAllocated")?;
    let owner = home.wait_for_owner(Ipv4Addr::new(192, 168, 0, 200))?;
    let explained = home.arpeggio(&["explain", "service", "default/lost"])?;
    ensure!(explained.contains(&owner.to_string()), "it names {owner}: {explained}");
    Ok(())
}

pub(crate) fn every_spelling_of_the_annotation_names_the_pool(home: &Home) -> anyhow::Result<()> {
    // Were the annotation not read, a Service could get its address from any of the pools.
    let spellings = [
        ("ours", KEY, "192.168.0.5"),
        ("stable", "metallb.io/address-pool", "192.168.0.6"),
        ("deprecated", "metallb.universe.tf/address-pool", "192.168.0.7"),
    ];
    for (name, _, address) in spellings {
        home.apply(&pool(name, &[address]))?;
    }
    for (name, key, _) in spellings.into_iter().rev() {
        home.apply(&service(name, key, name))?;
    }
    for (name, _, expected) in spellings {
        let address = home.wait_for_address(name)?;
        ensure!(address.to_string() == expected, "Service {name} got {address}");
    }
    Ok(())
}

pub(crate) fn a_deleted_service_leaves_nothing(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    home.apply(&service("web", KEY, POOL))?;
    let address = home.wait_for_address("web")?;
    home.wait_for_owner(first_address())?;
    ensure!(home.lock(address)?.is_some(), "an allocated address has a lock");

    home.lab.kubectl(&["delete", "service", "web"])?;
    home.wait_until("the lock is gone", || match home.lock(address)? {
        None => Ok(()),
        Some(lock) => Err(lock.to_string().into()),
    })?;
    home.wait_until("nobody answers", || match home.who_answers(first_address())?[..] {
        [] => Ok(()),
        ref some => Err(format!("{some:?} answer").into()),
    })?;

    // The address is free again, and also what changes its type gives it back.
    home.apply(&service("next", KEY, POOL))?;
    ensure!(home.wait_for_address("next")? == address, "the lowest free address is taken");
    home.lab.kubectl(&["patch", "service", "next", "-p", r#"{"spec":{"type":"ClusterIP"}}"#])?;
    home.wait_until("the lock is gone again", || match home.lock(address)? {
        None => Ok(()),
        Some(lock) => Err(lock.to_string().into()),
    })
}

pub(crate) fn two_services_never_share(home: &Home) -> anyhow::Result<()> {
    home.apply(&pool("two", &["192.168.0.200-192.168.0.201"]))?;
    for name in ["one", "two", "three"] {
        home.apply(&service(name, KEY, "two"))?;
    }
    let waiting = home.wait_until("two have an address and one waits", || {
        let mut waiting = Vec::new();
        for name in ["one", "two", "three"] {
            if home.addresses(name)?.is_empty() {
                waiting.push(name);
            }
        }
        match waiting[..] {
            [one] => Ok(one),
            ref several => Err(format!("{several:?} wait").into()),
        }
    })?;
    let event = home.wait_for_event(waiting, "AllocationFailed")?;
    ensure!(event.note.contains("two"), "the event names the full pool: {event:?}");

    let others: Vec<&str> =
        ["one", "two", "three"].into_iter().filter(|name| *name != waiting).collect();
    let mut given = BTreeSet::new();
    for name in &others {
        given.insert(home.wait_for_address(name)?);
    }
    ensure!(given.len() == 2, "two Services, two addresses: {given:?}");

    // What one gives back, the waiting one gets.
    let freed = home.wait_for_address(others[0])?;
    home.lab.kubectl(&["delete", "service", others[0]])?;
    ensure!(home.wait_for_address(waiting)? == freed, "the freed address goes to who waits");
    Ok(())
}

pub(crate) fn what_is_not_ours_is_left_alone(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    let mut other = service("other-class", KEY, POOL);
    other["spec"]["loadBalancerClass"] = json!("example.com/other");
    home.apply(&other)?;
    let status = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"198.51.100.7"}]}}}"#;
    home.lab.kubectl(&[
        "patch",
        "service",
        "other-class",
        "--subresource=status",
        "--type=merge",
        "-p",
        status,
    ])?;
    let mut internal = service("internal", KEY, POOL);
    internal["spec"]["type"] = json!("ClusterIP");
    home.apply(&internal)?;

    // A Service that comes later is served, so the controller has looked at the others by then.
    home.apply(&service("web", KEY, POOL))?;
    ensure!(home.wait_for_address("web")?.to_string() == first_address().to_string());
    let foreign: Vec<String> =
        home.addresses("other-class")?.iter().map(ToString::to_string).collect();
    ensure!(foreign == ["198.51.100.7"], "somebody else's status is kept: {foreign:?}");
    ensure!(home.addresses("internal")?.is_empty(), "a ClusterIP Service gets no address");
    for name in ["other-class", "internal"] {
        ensure!(home.events(name)?.is_empty(), "no event about {name}: {:?}", home.events(name)?);
    }
    Ok(())
}

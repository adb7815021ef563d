//! Addresses are spread over the nodes again, when somebody says so and not before.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Machine, observe::ArpWatch};
use arpeggio_scenarios::{Home, POOL, eprint_line, first_address, service};
use serde_json::{Value, json};

const KEY: &str = "arpeggio.dev/address-pool";

/// Three for each of three nodes.
const ADDRESSES: u32 = 9;
const EACH: usize = 3;

const ASK_EVERY: Duration = Duration::from_millis(5);
const BOOT: Duration = Duration::from_mins(1);

/// Room for a busy test machine: a handover leaves no gap.
const LONGEST_SILENCE: Duration = Duration::from_millis(500);

type Holders = BTreeMap<Ipv4Addr, String>;

pub(crate) fn addresses_are_spread_again_when_somebody_says_so(home: &Home) -> anyhow::Result<()> {
    furnish(home)?;
    let returned = home.lab.options().node_machines()[2];
    let before = after_a_power_cut(home, returned)?;

    let told = home.arpeggio(&["rebalance", "--dry-run"])?;
    ensure!(told.matches(&format!("{returned}\n")).count() == EACH, "three moves: {told}");
    sleep(Duration::from_secs(2));
    ensure!(holders(home)? == before, "a dry run moves nothing");

    let watches: Vec<ArpWatch> = addresses()
        .map(|it| ArpWatch::start(&home.lab, Machine::Client, it, ASK_EVERY))
        .collect::<Result<_, _>>()?;
    let told = home.arpeggio(&["rebalance", "--yes"])?;
    sleep(Duration::from_secs(2));
    ensure!(told.ends_with("3 of 3 addresses moved\n"), "{told}");
    nobody_was_without_an_answer(watches)?;

    let after = holders(home)?;
    ensure!(counts(&after).values().all(|count| *count == EACH), "{after:?}");
    let moved = before.iter().filter(|(address, node)| after.get(address) != Some(node));
    ensure!(moved.count() == EACH, "no more than needed: {before:?}, then {after:?}");
    let again = home.arpeggio(&["rebalance", "--yes"])?;
    ensure!(again.starts_with("nothing to move"), "{again}");
    a_request_that_cannot_be_obeyed_is_refused(home)
}

fn addresses() -> impl Iterator<Item = Ipv4Addr> {
    (0..ADDRESSES).map(|number| Ipv4Addr::from_bits(first_address().to_bits() + number))
}

/// Gives nine Services an address each, and waits until all are announced.
fn furnish(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    let services: Vec<Value> =
        (0..ADDRESSES).map(|number| service(&format!("web-{number}"), KEY, POOL)).collect();
    home.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": services }))?;
    home.wait_until("each node announces three", || match counts(&holders(home)?) {
        counts if counts.len() == 3 && counts.values().all(|count| *count == EACH) => Ok(()),
        other => Err(format!("{other:?}").into()),
    })
}

/// A node loses its power and comes back to nothing. Who holds what then.
fn after_a_power_cut(home: &Home, node: Machine) -> anyhow::Result<Holders> {
    home.lab.power_off(node)?;
    let name = node.to_string();
    let held_by_others = || match holders(home)? {
        holders if holders.len() == 9 && holders.values().all(|it| *it != name) => Ok(()),
        other => Err(format!("{other:?}").into()),
    };
    home.wait_until("the others have its addresses", held_by_others)?;
    home.lab.power_on(node)?;
    home.lab.wait_for_boot(node, BOOT)?;
    home.wait_for_session(node)?;
    sleep(Duration::from_secs(2));
    held_by_others().map_err(|seen| anyhow::anyhow!("it took something back: {seen}"))?;
    holders(home)
}

fn holders(home: &Home) -> anyhow::Result<Holders> {
    let holder = |lock: &Value| {
        let name = lock["metadata"]["name"].as_str()?;
        let node = lock["spec"]["holderIdentity"].as_str()?;
        Some((name.strip_prefix("address-")?.parse().ok()?, node.to_owned()))
    };
    Ok(home.locks()?.iter().filter_map(holder).collect())
}

fn counts(holders: &Holders) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    holders.values().for_each(|node| *counts.entry(node.as_str()).or_default() += 1);
    counts
}

fn nobody_was_without_an_answer(watches: Vec<ArpWatch>) -> anyhow::Result<()> {
    let mut longest = Duration::ZERO;
    for (watch, address) in watches.into_iter().zip(addresses()) {
        let silence = watch.stop()?.longest_silence().context("nobody asked")?.length();
        ensure!(silence < LONGEST_SILENCE, "nobody answered for {address} for {silence:?}");
        longest = longest.max(silence);
    }
    eprint_line(&format!("the longest time without an ARP answer for one of 9 was {longest:?}"));
    Ok(())
}

fn a_request_that_cannot_be_obeyed_is_refused(home: &Home) -> anyhow::Result<()> {
    let lock = format!("lease/address-{}", first_address());
    let mark = "arpeggio.dev/move-to=node-9";
    home.lab.kubectl(&["annotate", "-n", "arpeggio-system", &lock, mark])?;
    home.wait_until("the request is taken back", || {
        let lock = home.lock(IpAddr::from(first_address()))?.unwrap_or_default();
        let marks = &lock["metadata"]["annotations"];
        let refusal = marks["arpeggio.dev/move-refused"].as_str().unwrap_or_default();
        let is_refused = marks["arpeggio.dev/move-to"].is_null() && refusal.contains("node-9");
        if is_refused { Ok(()) } else { Err(marks.to_string().into()) }
    })?;
    home.wait_until("an event says so", || {
        let name = service_at_first(home)?;
        let events = home.events(&name)?;
        let told = events.iter().any(|event| event.reason == "MoveRefused");
        if told { Ok(()) } else { Err(format!("{events:?}").into()) }
    })
}

/// Which of the Services got the first address.
fn service_at_first(home: &Home) -> anyhow::Result<String> {
    for name in (0..ADDRESSES).map(|number| format!("web-{number}")) {
        if home.addresses(&name)? == [IpAddr::from(first_address())] {
            return Ok(name);
        }
    }
    anyhow::bail!("no Service has {}", first_address())
}

//! What the controller costs the API server, by the API server's own count.

use std::{collections::BTreeMap, thread::sleep, time::Duration};

use anyhow::{Context as _, ensure};
use arpeggio_scenarios::{Home, POOL, service};
use serde_json::{Value, json};

use crate::records::stop_speakers;

const KEY: &str = "arpeggio.dev/address-pool";

/// How many Services ask for an address.
const SERVICES: u64 = 10;

/// How long nothing is done, in which nothing may be written.
const REST: Duration = Duration::from_secs(10);

pub(crate) fn an_allocation_costs_two_writes_and_rest_costs_none(
    home: &Home,
) -> anyhow::Result<()> {
    stop_speakers(home)?;
    home.add_pool()?;
    wait_until_pool_counts(home, 0)?;

    let before = Counts::read(home)?;
    let services: Vec<Value> =
        (0..SERVICES).map(|number| service(&format!("web-{number}"), KEY, POOL)).collect();
    home.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": services }))?;
    wait_until_pool_counts(home, SERVICES)?;
    let spent = Counts::read(home)?.since(&before);
    ensure!(spent.claims == SERVICES, "one lock is created for each Service: {spent:?}");
    ensure!(spent.statuses == SERVICES, "one status is written for each Service: {spent:?}");
    for number in 0..SERVICES {
        let events = home.events(&format!("web-{number}"))?;
        ensure!(events.len() == 1, "one event for each Service: {events:?}");
    }

    let at_rest = versions(home)?;
    sleep(REST);
    nothing_was_written(home, &at_rest).context("at rest")?;
    // Nor when other controllers take over.
    home.scale_controllers(0)?;
    home.scale_controllers(2)?;
    home.wait_until("a controller leads again", || Ok(home.leading_controller()?))?;
    sleep(REST);
    nothing_was_written(home, &at_rest).context("after a restart")
}

fn nothing_was_written(home: &Home, before: &BTreeMap<String, String>) -> anyhow::Result<()> {
    let now = versions(home)?;
    let written: Vec<_> = now.iter().filter(|it| before.get(it.0) != Some(it.1)).collect();
    ensure!(written.is_empty() && now.len() == before.len(), "written: {written:?}");
    Ok(())
}

/// A pool's status is written last, now and then.
fn wait_until_pool_counts(home: &Home, used: u64) -> anyhow::Result<()> {
    home.wait_until(&format!("{used} addresses are counted as used"), || {
        let pool = home.lab.get(&["addresspool", POOL]).map_err(anyhow::Error::from)?;
        let ipv4 = &pool["status"]["ipv4"];
        if ipv4["used"].as_u64() == Some(used) { Ok(()) } else { Err(ipv4.to_string().into()) }
    })
}

/// The version of every object that the controller writes, by kind and name: Services, their events, locks, pools and
/// what is kept of them.
fn versions(home: &Home) -> anyhow::Result<BTreeMap<String, String>> {
    let locks = ["leases", "-n", "arpeggio-system", "-larpeggio.dev/lease=address"];
    let events = ["events.events.k8s.io", "--field-selector=regarding.kind=Service"];
    let records = ["leases", "-n", "arpeggio-system", "-larpeggio.dev/record"];
    let lists: [&[&str]; 5] = [&["services"], &locks, &records, &["addresspools"], &events];
    let mut versions = BTreeMap::new();
    for list in lists {
        let found = home.lab.get(list)?;
        for object in found["items"].as_array().context("a list")? {
            let metadata = &object["metadata"];
            let name = format!("{} {}", object["kind"], metadata["name"]);
            versions.insert(name, metadata["resourceVersion"].to_string());
        }
    }
    Ok(versions)
}

/// Requests that the API server has counted since its start.
#[derive(Debug)]
struct Counts {
    /// Leases that were created.
    claims: u64,
    /// Statuses of Services that were written.
    statuses: u64,
}

impl Counts {
    fn read(home: &Home) -> anyhow::Result<Self> {
        let metrics = home.lab.kubectl(&["get", "--raw", "/metrics"])?;
        Ok(Self {
            claims: count(&metrics, &[r#"resource="leases""#, r#"verb="POST""#]),
            statuses: count(&metrics, &[r#"resource="services""#, r#"subresource="status""#]),
        })
    }

    fn since(&self, before: &Self) -> Self {
        Self { claims: self.claims - before.claims, statuses: self.statuses - before.statuses }
    }
}

/// How many requests have these labels, whatever their outcome.
fn count(metrics: &str, labels: &[&str]) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with("apiserver_request_total{"));
    let wanted = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    wanted.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

//! Other clusters than three nodes on one segment: how long an address is gone there when its owners die.
//!
//! A client on the segment hears who announces the address, by whatever protocol; nobody asks.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Families, LabName, Machine, Options};
use arpeggio_scenarios::{Home, pool, service};
use serde_json::json;

use super::{
    Plan, in_a_lab,
    results::{Results, Row},
};
use crate::{
    hearing::Hearing,
    narrator::chapter,
    quantile::{quantile, rounded},
    report::millis,
};

/// What each is to reach, in seconds: as on one segment.
const MOST_P50: f64 = 0.25;
const MOST_P99: f64 = 0.5;

/// How long a failover is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// From when all is well until the power is cut: those who watch have seen enough by then to know a good link.
const BEFORE: Duration = Duration::from_secs(12);

const POOL: &str = "bench";

/// The second segment's subnet, as [`arpeggio_lab::network::Network::add_segment`] has it.
const SECOND: &str = "192.168.1.240-192.168.1.254";

/// A cluster of another kind.
struct Setup {
    name: &'static str,
    options: Options,
    /// The pool's addresses.
    addresses: &'static str,
    /// How many Services there are.
    services: u8,
    /// How many of their owners die at once.
    deaths: usize,
    /// The client's interface on the segment.
    interface: &'static str,
    /// Makes the cluster so.
    prepare: fn(&Home) -> anyhow::Result<()>,
    /// Who may die.
    mortal: fn(Machine) -> bool,
}

fn setups() -> [Setup; 4] {
    let one_segment = |name| Setup {
        name,
        options: Options::default(),
        addresses: "192.168.0.240-192.168.0.254",
        services: 1,
        deaths: 1,
        interface: "eth0",
        prepare: |_| Ok(()),
        mortal: |_| true,
    };
    [
        Setup {
            interface: "eth1",
            addresses: SECOND,
            prepare: |home| Ok(home.lab.network().add_segment(&on_both(home))?),
            ..one_segment("two segments, an address of the second")
        },
        Setup {
            options: Options { nodes: 6, ..Options::default() },
            services: 12,
            deaths: 2,
            ..one_segment("six nodes, two die at once")
        },
        Setup {
            options: Options { families: Families::Ipv6Only, ..Options::default() },
            addresses: "fd00:a0::240-fd00:a0::254",
            ..one_segment("IPv6 only")
        },
        Setup {
            prepare: |home| Ok(home.lab.network().split(&[FAR], &NEAR)?),
            mortal: |machine| NEAR.contains(&machine),
            ..one_segment("one of three nodes on another network")
        },
    ]
}

/// The one that hears no other node and is heard by none, and the others. All of them reach the API server.
const FAR: Machine = Machine::Node(3);
const NEAR: [Machine; 2] = [Machine::Node(1), Machine::Node(2)];

fn on_both(home: &Home) -> Vec<Machine> {
    let nodes = home.lab.options().node_machines().into_iter();
    nodes.chain([Machine::Client]).collect()
}

/// Each in a lab of its own.
pub(super) fn measure(name: &LabName, plan: &Plan, results: &mut Results) -> anyhow::Result<()> {
    for setup in setups() {
        chapter(&format!("Crashes: {}", setup.name));
        let options = setup.options.clone();
        in_a_lab(name, options, |home| series(home, &setup, plan.crashes, results))?;
    }
    Ok(())
}

fn series(home: &Home, setup: &Setup, crashes: u32, results: &mut Results) -> anyhow::Result<()> {
    (setup.prepare)(home)?;
    home.apply(&pool(POOL, &[setup.addresses]))?;
    let names: Vec<String> = (1..=setup.services).map(|number| format!("s{number}")).collect();
    let mut addresses = Vec::new();
    for name in &names {
        home.apply(&service(name, "arpeggio.dev/address-pool", POOL))?;
        addresses.push(home.wait_for_address(name)?);
    }
    let mut times = Vec::new();
    for crash in 1..=crashes {
        let lost = crash_once(home, setup, &addresses)?;
        let ms: Vec<f64> = lost.iter().map(|time| millis(*time)).collect();
        results
            .line(&json!({ "bench": "failover", "setup": setup.name, "crash": crash, "ms": ms }))?;
        times.extend(lost);
    }
    times.sort_unstable();
    let [p50, p99] = [50, 99].map(|percent| rounded(quantile(&times, percent).as_secs_f64()));
    let count = times.len();
    let line = json!({
        "bench": "failover-summary", "setup": setup.name, "failovers": count, "p50_s": p50, "p99_s": p99,
    });
    results.line(&line)?;
    results.row(Row::at_most(format!("{}, p50, s", setup.name), p50, MOST_P50));
    results.row(Row::at_most(format!("{}, p99, s", setup.name), p99, MOST_P99));
    Ok(())
}

/// Cuts the power of so many owners at once. For each address that they had, how long it took until another node announced it.
fn crash_once(home: &Home, setup: &Setup, addresses: &[IpAddr]) -> anyhow::Result<Vec<Duration>> {
    let owners = owners(home, setup, addresses)?;
    let mut victims: Vec<Machine> = owners.iter().map(|(_, owner)| *owner).collect();
    victims.retain(|owner| (setup.mortal)(*owner));
    victims.sort_unstable();
    victims.dedup();
    victims.truncate(setup.deaths);
    ensure!(victims.len() == setup.deaths, "{victims:?} own everything");
    std::thread::sleep(BEFORE);
    let hearing = Hearing::start(&home.lab, Machine::Client, setup.interface)?;
    let cut = home.lab.power_off_all(&victims)?;
    let lost: BTreeSet<IpAddr> =
        owners.iter().filter(|(_, owner)| victims.contains(owner)).map(|(it, _)| *it).collect();
    let claims = hearing.until_all_are_claimed(&lost, cut, PATIENCE)?;
    for victim in victims {
        home.switch_on(victim)?;
        home.wait_for_session(victim)?;
    }
    lost.iter()
        .map(|address| {
            let claimed = claims.get(address);
            Ok(*claimed.with_context(|| format!("nobody announced {address} in {PATIENCE:?}"))?
                - cut)
        })
        .collect()
}

/// Who has each address, when at least one of them may die: otherwise those who have something give it away first.
fn owners(
    home: &Home,
    setup: &Setup,
    addresses: &[IpAddr],
) -> anyhow::Result<Vec<(IpAddr, Machine)>> {
    let may_die = |owners: &[(IpAddr, Machine)]| owners.iter().any(|(_, it)| (setup.mortal)(*it));
    let now = holders(home, addresses, |_| true)?;
    if may_die(&now) {
        return Ok(now);
    }
    let spared: BTreeSet<String> = now.iter().map(|(_, owner)| owner.to_string()).collect();
    let all_spared = |verb| {
        let arguments: Vec<&str> =
            [verb].into_iter().chain(spared.iter().map(String::as_str)).collect();
        home.lab.kubectl(&arguments)
    };
    all_spared("cordon")?;
    let then = holders(home, addresses, may_die)?;
    all_spared("uncordon")?;
    Ok(then)
}

/// Who has each address, as the locks say, when each is somebody's and they are as `wanted`.
fn holders(
    home: &Home,
    addresses: &[IpAddr],
    wanted: impl Fn(&[(IpAddr, Machine)]) -> bool,
) -> anyhow::Result<Vec<(IpAddr, Machine)>> {
    home.wait_until("every address has an owner that may die", || {
        let holder = |address: &IpAddr| Ok(home.holder(*address)?.map(|it| (*address, it)));
        let owners: Vec<_> = addresses.iter().filter_map(|it| holder(it).transpose()).collect();
        let owners = owners.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let all = owners.len() == addresses.len();
        if all && wanted(&owners) { Ok(owners) } else { Err(format!("{owners:?}").into()) }
    })
}

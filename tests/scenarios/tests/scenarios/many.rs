//! Many Services: none of them is served later because of the others.

use std::{
    net::Ipv4Addr,
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Machine, observe::ArpWatch};
use arpeggio_scenarios::{Home, NotYet, eprint_line, pool};
use serde_json::{Value, json};

/// More than the LAN has: what no subnet contains is announced where the default route is.
const RANGE: &str = "10.10.0.1-10.10.255.254";
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);

const FEW: usize = 10;
const MANY: usize = 1_000;

/// How long the last of many may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// How often the client asks by ARP, and how many times.
const PACE: Duration = Duration::from_millis(20);
const QUESTIONS: u32 = 150;

/// How many Services are timed.
const TIMED: usize = 5;

/// What a busy machine may add to either figure: it is not for the number of Services.
const NOISE: u32 = 3;
const ANSWER_NOISE: Duration = Duration::from_millis(1);
const SERVICE_NOISE: Duration = Duration::from_secs(1);

/// What one request costs.
#[derive(Debug)]
struct Costs {
    /// From the question to the answer by ARP, of the fastest tenth at most: the others wait for a busy machine.
    answer: Duration,
    /// From the command that creates a Service to its address, the median.
    service: Duration,
}

pub(crate) fn a_thousand_are_served_like_ten(home: &Home) -> anyhow::Result<()> {
    home.apply(&pool("many", &[RANGE]))?;
    serve(home, 0..FEW)?;
    let few = costs(home, "few")?;
    serve(home, FEW..MANY)?;
    let many = costs(home, "many")?;
    eprint_line(&format!("h-many: with {FEW} {few:?}, with {MANY} {many:?}"));
    ensure!(many.answer < few.answer * NOISE + ANSWER_NOISE, "{few:?}, {many:?}");
    ensure!(many.service < few.service * NOISE + SERVICE_NOISE, "{few:?}, {many:?}");
    Ok(())
}

/// Creates Services, and waits until each has an address that a node announces.
fn serve(home: &Home, numbers: Range<usize>) -> anyhow::Result<()> {
    let count = numbers.end;
    let items: Vec<Value> = numbers.map(|number| service(&format!("service-{number}"))).collect();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    home.lab.kubectl_with_input(&["create", "-f", "-"], &list.to_string())?;
    home.lab.wait_until(
        &format!("{count} addresses are announced"),
        PATIENCE,
        || -> Result<(), NotYet> {
            let locks = home.locks()?.into_iter();
            let held = locks.filter(|lock| lock["spec"]["holderIdentity"].is_string()).count();
            if held >= count { Ok(()) } else { Err(format!("{held} are").into()) }
        },
    )?;
    Ok(())
}

/// Without a selector there are no endpoints, and without node ports there can be as many as there are addresses.
fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": false,
            "ports": [{ "port": 80 }],
        },
    })
}

fn costs(home: &Home, name: &str) -> anyhow::Result<Costs> {
    let service = quantile(
        2,
        (0..TIMED).map(|number| {
            let name = format!("{name}-{number}");
            let begin = Instant::now();
            home.apply(&service(&name))?;
            home.wait_for_address(&name)?;
            Ok(begin.elapsed())
        }),
    )?;
    Ok(Costs { answer: answer(home)?, service })
}

/// Asks for the first address, at a pace at which each answer belongs to the question before it.
fn answer(home: &Home) -> anyhow::Result<Duration> {
    let watch = ArpWatch::start(&home.lab, Machine::Client, FIRST, PACE)?;
    thread::sleep(PACE * QUESTIONS);
    let seen = watch.stop()?;
    let asked_for = seen.replies.iter().filter(|reply| !reply.gratuitous);
    quantile(
        10,
        asked_for.filter_map(|reply| {
            let question = seen.asked.iter().rev().find(|asked| **asked <= reply.at)?;
            Some(Ok(reply.at - *question))
        }),
    )
}

/// One of `parts` of all times is at most as long.
fn quantile(
    parts: usize,
    times: impl Iterator<Item = anyhow::Result<Duration>>,
) -> anyhow::Result<Duration> {
    let mut times = times.collect::<anyhow::Result<Vec<_>>>()?;
    times.sort_unstable();
    times.get(times.len() / parts).copied().context("nothing was measured")
}

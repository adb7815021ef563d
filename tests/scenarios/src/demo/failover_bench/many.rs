//! Many addresses: from the cut of their owner's power until the last of them was announced by another node.

use std::{net::Ipv4Addr, thread, time::Duration};

use anyhow::Context as _;
use arpeggio_lab::{Lab, Machine};
use arpeggio_scenarios::{Home, HostProcess};
use arpeggio_wire::MacAddr;
use serde_json::{Value, json};

use super::{
    metallb::start_speakers,
    results::{Results, Row},
};
use crate::{
    announcements::Announcements,
    client::{Client, mac, wait_for_answers},
    locks::{self, Lock},
    metallb,
    narrator::chapter,
    quantile::rounded,
};

/// How many addresses there are.
const ADDRESSES: u32 = 1_000;
/// How long they may take to be announced at first, and after a crash.
const PATIENCE: Duration = Duration::from_secs(30);
/// A gained address is announced four times more, 1.1 s apart. The power is cut when that is over.
const SETTLE: Duration = Duration::from_secs(6);
/// MetalLB's addresses, and the first that is used.
const METALLB_RANGE: &str = "10.20.0.0/16";
const METALLB_FIRST: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
/// Who dies.
const VICTIM: Machine = Machine::Node(1);

/// Until the last is back, in seconds: of a third of them, and of all.
const MOST_FOR_A_THIRD: f64 = 0.8;
const MOST_FOR_ALL: f64 = 1.5;

/// How many addresses the node has that dies, and what that is to take.
struct Case {
    /// Also the namespace of the Leases: speakers of one case know nothing of the other.
    name: &'static str,
    first: Ipv4Addr,
    holders: Vec<Machine>,
    most_seconds: f64,
}

/// Speakers run as plain processes, with Leases of their own; locks are written by hand.
pub(super) fn measure(home: &Home, results: &mut Results) -> anyhow::Result<()> {
    // Their pods would watch the same nodes beside them.
    home.uninstall()?;
    let nodes = home.lab.options().node_machines();
    let cases = [
        Case {
            name: "third",
            first: Ipv4Addr::new(10, 12, 0, 1),
            holders: nodes,
            most_seconds: MOST_FOR_A_THIRD,
        },
        Case {
            name: "all",
            first: Ipv4Addr::new(10, 13, 0, 1),
            holders: vec![VICTIM],
            most_seconds: MOST_FOR_ALL,
        },
    ];
    let mut rows = Vec::new();
    for case in cases {
        rows.push(one_of_ours_dies(&home.lab, &case, results)?);
        home.switch_on(VICTIM)?;
    }
    chapter(&format!("{ADDRESSES} addresses of MetalLB's, and one node dies"));
    let metallb = one_of_metallbs_dies(home, results)?;
    for (row, peer) in rows.into_iter().zip([Some(metallb), None]) {
        results.row(Row { peers: [None, peer], ..row });
    }
    Ok(())
}

fn one_of_ours_dies(lab: &Lab, case: &Case, results: &mut Results) -> anyhow::Result<Row> {
    chapter(&format!("{ADDRESSES} addresses, and one node dies: {}", case.name));
    lab.kubectl(&["create", "namespace", case.name])?;
    let nodes = lab.options().node_machines();
    let start = |node: &Machine| HostProcess::speaker(lab, *node, case.name);
    let speakers = nodes.iter().map(start).collect::<anyhow::Result<Vec<_>>>()?;
    let orphans = give(lab, case)?;
    let last = one_dies(lab, &orphans, json!({ "who": "arpeggio", "case": case.name }), results)?;
    drop(speakers);
    let what = format!("{} of {ADDRESSES} addresses lost, the last is back, s", orphans.len());
    Ok(Row::at_most(what, last, case.most_seconds))
}

/// MetalLB spreads the addresses over all nodes itself.
fn one_of_metallbs_dies(home: &Home, results: &mut Results) -> anyhow::Result<f64> {
    let lab = &home.lab;
    let addresses = locks::addresses(METALLB_FIRST, 0..ADDRESSES);
    let speakers = start_speakers(home, METALLB_RANGE)?;
    metallb::serve(lab, &addresses)?;
    wait_for_answers(lab, &addresses, PATIENCE)?;
    let client = Client::asking_for(lab, &addresses)?;
    let mut orphans = Vec::new();
    for address in addresses {
        if who_has(&client, address)? == mac(VICTIM)? {
            orphans.push(address);
        }
    }
    let last = one_dies(lab, &orphans, json!({ "who": "metallb" }), results)?;
    drop(speakers);
    Ok(last)
}

fn who_has(client: &Client, address: Ipv4Addr) -> anyhow::Result<MacAddr> {
    client.send(&client.question(address).broadcast().to_bytes());
    loop {
        let claim = client.next()?.with_context(|| format!("nobody answers for {address}"))?;
        if claim.address == address {
            return Ok(claim.mac);
        }
    }
}

/// Cuts the victim's power. Returns how many seconds it takes until the last of its addresses is announced.
fn one_dies(
    lab: &Lab,
    orphans: &[Ipv4Addr],
    mut line: Value,
    results: &mut Results,
) -> anyhow::Result<f64> {
    thread::sleep(SETTLE);
    let announcements = Announcements::hear(lab, orphans)?;
    let cut = lab.power_off(VICTIM)?;
    let times = announcements.of_all(Some(mac(VICTIM)?), PATIENCE)?;
    let (first, last) = times.first().zip(times.last()).context("it had no address")?;
    let [first, last] = [first, last].map(|at| rounded((*at - cut).as_secs_f64()));
    line["bench"] = json!("many");
    line["addresses"] = json!(ADDRESSES);
    line["lost"] = json!(orphans.len());
    line["first_s"] = json!(first);
    line["last_s"] = json!(last);
    results.line(&line)?;
    Ok(last)
}

/// Gives all addresses to the holders in turn. Returns the victim's.
fn give(lab: &Lab, case: &Case) -> anyhow::Result<Vec<Ipv4Addr>> {
    let with_epoch = |node: &Machine| Ok((*node, locks::epoch(lab, case.name, *node)?));
    for node in lab.options().node_machines() {
        with_epoch(&node)?;
    }
    let holders = case.holders.iter().map(with_epoch).collect::<anyhow::Result<Vec<_>>>()?;
    let addresses = locks::addresses(case.first, 0..ADDRESSES);
    let in_turn = addresses.iter().zip(holders.iter().cycle());
    let locks = in_turn.map(|(address, (holder, epoch))| Lock {
        address: *address,
        holder: *holder,
        epoch: *epoch,
    });
    let locks: Vec<Lock> = locks.collect();
    locks::create(lab, case.name, locks.iter().copied())?;
    wait_for_answers(lab, &addresses, PATIENCE)?;
    Ok(locks.iter().filter(|lock| lock.holder == VICTIM).map(|lock| lock.address).collect())
}

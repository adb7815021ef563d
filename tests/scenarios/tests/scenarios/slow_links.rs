//! A node behind a link that is slow, as a mesh of radios or a congested tunnel is.

use std::time::Duration;

use anyhow::ensure;
use arpeggio_lab::{
    Machine,
    slow::{Quality, slow_down},
};
use arpeggio_scenarios::{Home, eprint_line, first_address};

use crate::faults::{BY_THE_WIRE, settled_on};

/// There and back takes 12 to 28 ms: more than the 10 ms that make a way patient, and less than a question is waited for.
const SLOW: Quality =
    Quality { delay: Duration::from_millis(6), jitter: Duration::from_millis(8), lost: 5 };

/// For how long nothing may happen on the slow link, while pages are fetched over it.
const LOAD: Duration = Duration::from_secs(30);

pub(crate) fn a_slow_link_gets_patience(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    let nodes = home.lab.options().node_machines();
    let epochs = || nodes.iter().map(|node| home.epoch(*node)).collect::<anyhow::Result<Vec<_>>>();
    let before = epochs()?;
    let cable = slow_down(&home.lab, owner, SLOW)?;
    home.wait_until("the way to the slow node is patient, and status says why", || {
        let told = home.arpeggio(&["status"])?;
        let node = told.lines().find(|line| line.starts_with(&owner.to_string()));
        let is_patient = node.is_some_and(|line| line.contains("patient (answers late)"));
        if is_patient { Ok(()) } else { Err(told.into()) }
    })?;
    let seen = home.look_on("the owner is behind a slow link", LOAD, || Ok(()))?;
    eprint_line(&format!("{} pages over the slow link, {} failed", seen.requests, seen.failed));
    ensure!(seen.owners == [owner.to_string()], "nothing moves: {seen:?}");
    ensure!(epochs()? == before, "no node was taken for dead");
    ensure!(home.moves(first_address().into())? == 0, "nothing moves: {seen:?}");
    for node in &nodes {
        let lost = home.speaker_metric(*node, "sessions_lost_total")?;
        ensure!(lost == ["0"], "{node} was taken for dead: {lost:?}");
        let wrong = home.speaker_metric(*node, "would_have_accused_total{profile=\"patient\"}")?;
        ensure!(wrong == ["0"], "{node}: {wrong:?}");
    }

    home.keep_pods_off("web", owner)?;
    let seen = home.look_on("the owner behind a slow link loses power", BY_THE_WIRE, || {
        Ok(home.lab.power_off(owner).map(drop)?)
    })?;
    eprint_line(&format!("nobody answered for {} ms after its death", seen.silence_ms));
    ensure!(u128::from(seen.silence_ms) <= BY_THE_WIRE.as_millis(), "{seen:?}");
    let successor = home.wait_for_another_owner(first_address(), owner)?;
    settled_on(home, successor)?;
    home.wait_for_page(Machine::Client)?;
    drop(cable);
    Ok(())
}

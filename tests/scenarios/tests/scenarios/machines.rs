//! Whole machines lose power, boot, or stand still.

use std::{
    thread::{self, ScopedJoinHandle},
    time::Duration,
};

use anyhow::{anyhow, ensure};
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, POOL, first_address, service};

use crate::{
    doctor,
    faults::{BY_THE_WIRE, PATIENCE, UNNOTICED, at_most, settled_on},
};

/// With the time in which a client looks on, a minute; a session lasts ten seconds.
const STANDSTILL: Duration = Duration::from_secs(56);

pub(crate) fn the_owner_loses_power_and_returns(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    home.keep_pods_off("web", owner)?;
    let cut = || Ok(home.lab.power_off(owner).map(drop)?);
    let seen = home.look_on("the owner loses power", Duration::from_secs(5), cut)?;
    at_most(&seen, BY_THE_WIRE)?;
    let told = |note: &String| note.contains("silent on the wire");
    ensure!(seen.told.iter().any(told), "the user is told why: {seen:?}");
    let successor = home.wait_for_another_owner(first_address(), owner)?;
    let fault = "the owner that lost power returns";
    let seen = home.look_on(fault, Duration::from_secs(5), || {
        home.switch_on(owner)?;
        home.wait_for_session(owner)
    })?;
    let seen = seen.without_a_gap()?;
    ensure!(seen.owners == [successor.to_string()], "nothing moves back: {seen:?}");
    settled_on(home, successor)
}

pub(crate) fn the_owner_loses_power_while_the_api_server_is_away(
    home: &Home,
) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    home.keep_pods_off("web", owner)?;
    let fault = "the owner loses power while the API server is away";
    let seen = home.look_on(fault, Duration::from_secs(20), || {
        home.lab.stop_api()?;
        std::thread::sleep(Duration::from_secs(15));
        home.lab.power_off(owner)?;
        std::thread::sleep(Duration::from_secs(10));
        Ok(home.lab.start_api(PATIENCE)?)
    })?;
    // The API server was away for longer than this: nobody waited for it.
    at_most(&seen, BY_THE_WIRE)?;
    let successor = home.wait_for_owner(first_address())?;
    ensure!(successor != owner, "{owner} has no power");
    settled_on(home, successor)
}

pub(crate) fn the_control_plane_node_which_is_the_owner_loses_power(
    home: &Home,
) -> anyhow::Result<()> {
    let control = home.lab.options().control_machine();
    home.serve_page()?;
    give_to(home, control)?;
    home.keep_pods_off("web", control)?;
    let fault = "the only control-plane node, which is the owner, loses power";
    let seen = home.look_on(fault, Duration::from_secs(3), || {
        home.lab.power_off(control)?;
        thread::sleep(Duration::from_secs(8));
        home.lab.power_on(control)?;
        home.lab.wait_for_api(PATIENCE)?;
        home.wait_for_session(control)
    })?;
    // It was off for longer than this: nobody waited for it.
    at_most(&seen, BY_THE_WIRE)?;
    // Without an API server nobody could write that the address has moved. They do when it returns with the node, before
    // the node's speaker is back.
    let successor = home.wait_for_owner(first_address())?;
    ensure!(successor != control && seen.owners.len() == 2, "nothing moves back: {seen:?}");
    settled_on(home, successor)?;
    // Connections to a machine that has booted are dead, and on a watch nobody says so.
    home.apply(&service("after", "arpeggio.dev/address-pool", POOL))?;
    home.wait_for_address("after").map(drop)
}

/// Has a node announce the address, by cordons on all others.
fn give_to(home: &Home, node: Machine) -> anyhow::Result<()> {
    let others = home.lab.options().node_machines().into_iter().filter(|other| *other != node);
    let others: Vec<String> = others.map(|other| other.to_string()).collect();
    let all = |act: &str| {
        let names = others.iter().map(String::as_str);
        home.lab.kubectl(&[act].into_iter().chain(names).collect::<Vec<_>>())
    };
    all("cordon")?;
    home.wait_for_owner_to_be(first_address(), node)?;
    all("uncordon").map(drop).map_err(anyhow::Error::from)
}

pub(crate) fn everything_boots_after_a_power_cut(home: &Home) -> anyhow::Result<()> {
    home.serve_page()?;
    let nodes = home.lab.options().node_machines();
    let mut all = nodes.clone();
    all.push(home.lab.options().control_machine());
    let fault = "all machines lose power, and five nodes and the control plane boot at once";
    let seen = home.look_on(fault, Duration::from_secs(3), || {
        home.lab.power_off_all(&all)?;
        thread::sleep(Duration::from_secs(2));
        at_once(&all, |machine| Ok(home.lab.power_on(machine)?))?;
        home.lab.wait_for_api(PATIENCE)?;
        nodes.iter().try_for_each(|node| home.lab.wait_for_boot(*node, PATIENCE))?;
        home.wait_for_owner(first_address()).map(drop)
    })?;
    ensure!(seen.overlap == 0, "one owner at a time: {seen:?}");
    ensure!(home.addresses("web")? == [first_address()], "the Service keeps its address");
    let owner = home.wait_for_owner(first_address())?;
    settled_on(home, owner)
}

/// Does the same to several machines side by side.
fn at_once(
    machines: &[Machine],
    act: impl Fn(Machine) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = machines.iter().map(|it| scope.spawn(|| act(*it))).collect();
        let mut joined = threads.into_iter().map(ScopedJoinHandle::join);
        joined.try_for_each(|outcome| outcome.map_err(|_| anyhow!("a thread has crashed"))?)
    })
}

pub(crate) fn the_owner_stands_still_and_goes_on(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    home.keep_pods_off("web", owner)?;
    let fault = "the owner stands still, as a virtual machine does that is paused";
    let seen = home.look_on(fault, Duration::from_secs(3), || Ok(home.lab.pause(owner)?))?;
    at_most(&seen, BY_THE_WIRE)?;
    let successor = home.wait_for_another_owner(first_address(), owner)?;
    thread::sleep(STANDSTILL);
    let fault = "the owner that stood still goes on";
    let seen = home.look_on(fault, Duration::from_secs(6), || Ok(home.lab.resume(owner)?))?;
    at_most(&seen, UNNOTICED)?;
    ensure!(seen.overlap == 0, "it must not answer before it has asked: {seen:?}");
    ensure!(seen.owners == [successor.to_string()], "nothing moves back: {seen:?}");
    settled_on(home, successor)
}

pub(crate) fn one_of_two_nodes_loses_power(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    home.keep_pods_off("web", owner)?;
    let fault = "one of two nodes, the owner, loses power";
    let seen = home.look_on(fault, Duration::from_secs(6), || {
        home.lab.power_off(owner)?;
        Ok(())
    })?;
    at_most(&seen, BY_THE_WIRE)?;
    let successor = home.wait_for_owner(first_address())?;
    ensure!(successor != owner, "{owner} has no power");
    home.lab.power_off(successor)?;
    let seen = home.look_on("two nodes boot at once", Duration::from_secs(8), || {
        at_once(&[owner, successor], |node| Ok(home.lab.power_on(node)?))?;
        home.lab.wait_for_boot(owner, PATIENCE)?;
        home.lab.wait_for_boot(successor, PATIENCE)?;
        home.wait_for_owner(first_address()).map(drop)
    })?;
    ensure!(seen.overlap == 0 && seen.owners.len() == 1, "one owner: {seen:?}");
    let owner = home.wait_for_owner(first_address())?;
    settled_on(home, owner)
}

pub(crate) fn the_only_node_restarts(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    doctor::finds_nothing(home)?;
    home.look_on("the only node loses power, and boots", Duration::from_secs(3), || {
        home.lab.power_off(owner)?;
        home.switch_on(owner)?;
        home.wait_for_owner(first_address()).map(drop)
    })?;
    settled_on(home, owner)?;
    ensure!(home.addresses("web")? == [first_address()], "the Service keeps its address");
    Ok(())
}

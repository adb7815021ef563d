//! Programs of two releases in one cluster, as during an upgrade or after going back.

use std::{thread, time::Duration};

use anyhow::ensure;
use arpeggio_image::component::Component;
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, POOL, first_address, import_earlier, service, set_version};

use crate::faults::{BY_THE_WIRE, PATIENCE, at_most, settled_on};

const KEY: &str = "arpeggio.dev/address-pool";
const NAMESPACE: &str = "arpeggio-system";
const SPEAKERS: &str = "daemonset/arpeggio-speaker";
const CONTROLLERS: &str = "deployment/arpeggio-controller";

/// Until a speaker that has just started has heard the nodes that it watches.
const ACQUAINTANCE: Duration = Duration::from_secs(2);

pub(crate) fn two_releases_work_together(home: &Home) -> anyhow::Result<()> {
    import_earlier(&home.lab)?;
    let owner = home.serve_page()?;
    let seen = roll(home, "all speakers go back to the earlier release", true)?;
    ensure!(seen == [owner.to_string()], "somebody else answered: {seen:?}");
    serves_a_new_service(home, "controller-is-newer")?;

    set_version(&home.lab, CONTROLLERS, Component::Controller, true)?;
    home.lab.wait_for_rollout(NAMESPACE, CONTROLLERS, PATIENCE)?;
    let seen = roll(home, "all speakers are upgraded", false)?;
    ensure!(seen == [owner.to_string()], "somebody else answered: {seen:?}");
    serves_a_new_service(home, "controller-is-older")?;

    set_version(&home.lab, CONTROLLERS, Component::Controller, false)?;
    home.lab.wait_for_rollout(NAMESPACE, CONTROLLERS, PATIENCE)?;
    an_owner_of_each_release_is_replaced(home)
}

/// Brings all speakers to one release. Nobody notices; returns who has answered.
fn roll(home: &Home, what: &str, earlier: bool) -> anyhow::Result<Vec<String>> {
    let seen = home.look_on(what, Duration::from_secs(2), || {
        set_version(&home.lab, SPEAKERS, Component::Speaker, earlier)?;
        home.wait_for_speakers()
    })?;
    Ok(seen.without_a_gap()?.owners)
}

fn serves_a_new_service(home: &Home, name: &str) -> anyhow::Result<()> {
    home.apply(&service(name, KEY, POOL))?;
    let address = home.wait_for_address(name)?;
    home.wait_until(&format!("{address} is announced"), || match home.holder(address)? {
        Some(_) => Ok(()),
        None => Err("nobody holds it".to_owned().into()),
    })
}

/// One of the three nodes has the earlier release: first one that watches the owner, then the owner itself.
fn an_owner_of_each_release_is_replaced(home: &Home) -> anyhow::Result<()> {
    let strategy = r#"{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}"#;
    home.lab.kubectl(&["patch", "-n", NAMESPACE, SPEAKERS, "--type=merge", "-p", strategy])?;
    set_version(&home.lab, SPEAKERS, Component::Speaker, true)?;
    let first = home.wait_for_owner(first_address())?;
    let nodes = home.lab.options().node_machines();
    let watching = nodes.into_iter().find(|node| *node != first);
    replace_speaker(home, watching.unwrap_or(first))?;
    let fault = "the owner loses power beside a node with the earlier release";
    let second = replaced(home, fault, first)?;
    home.switch_on(first)?;
    home.wait_for_session(first)?;
    replace_speaker(home, second)?;
    let owner = home.wait_for_owner(first_address())?;
    let last = replaced(home, "the owner, with the earlier release perhaps, loses power", owner)?;
    settled_on(home, last)
}

/// The speaker's pod comes anew, in the version that the DaemonSet says now.
fn replace_speaker(home: &Home, node: Machine) -> anyhow::Result<()> {
    let pod = home.speaker_on(node)?;
    home.lab.kubectl(&["delete", "pod", "-n", NAMESPACE, &pod])?;
    let label = "-lapp.kubernetes.io/component=speaker";
    let field = format!("--field-selector=spec.nodeName={node}");
    let ready = ["--for=condition=Ready", "--timeout=5s"];
    let wait = [&["wait", "pod", "-n", NAMESPACE, label, &field][..], &ready].concat();
    home.wait_until(&format!("a speaker runs on {node}"), || {
        home.lab.kubectl(&wait).map(drop).map_err(|error| error.to_string().into())
    })?;
    thread::sleep(ACQUAINTANCE);
    Ok(())
}

fn replaced(home: &Home, fault: &str, owner: Machine) -> anyhow::Result<Machine> {
    home.keep_pods_off("web", owner)?;
    let cut = || Ok(home.lab.power_off(owner).map(drop)?);
    let seen = home.look_on(fault, Duration::from_secs(5), cut)?;
    at_most(&seen, BY_THE_WIRE)?;
    home.wait_for_another_owner(first_address(), owner)
}

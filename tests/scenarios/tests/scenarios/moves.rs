//! Addresses move on purpose, and nobody is without an answer.

use std::time::Duration;

use anyhow::ensure;
use arpeggio_lab::Machine;
use arpeggio_scenarios::{EXCLUDE, Home, POOL, POOL_RANGE, first_address, pool, service};
use serde_json::{Value, json};

use crate::faults::{BY_THE_WIRE, at_most};

const KEY: &str = "arpeggio.dev/address-pool";

pub(crate) fn a_drained_node_hands_over_first(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    // Its own pods are elsewhere, so that only the address moves.
    home.keep_pods_off("web", owner)?;
    home.wait_for_steady_page()?;
    let successor = moved(home, "the owner is drained", || {
        let node = owner.to_string();
        home.lab.kubectl(&["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data"])?;
        Ok(())
    })?;
    ensure!(successor != owner, "{owner} was drained");
    home.wait_for_note("web", &format!("{owner} gave it away because the node is cordoned"))?;

    home.lab.kubectl(&["uncordon", &owner.to_string()])?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(home.wait_for_owner(first_address())? == successor, "nothing moves back");
    Ok(())
}

pub(crate) fn an_excluded_node_hands_over_and_the_last_one_stays(
    home: &Home,
) -> anyhow::Result<()> {
    let first = home.serve_page()?;
    let second = moved(home, "the owner gets the exclusion label", || {
        home.lab.kubectl(&["label", "node", &first.to_string(), &format!("{EXCLUDE}=")])?;
        Ok(())
    })?;
    ensure!(second != first, "{first} is excluded");
    let third = moved(home, "the owner is cordoned", || {
        home.lab.kubectl(&["cordon", &second.to_string()])?;
        Ok(())
    })?;
    ensure!(third != first && third != second, "{first} is excluded, {second} is cordoned");
    let last = moved(home, "the last node is cordoned, too", || {
        home.lab.kubectl(&["cordon", &third.to_string()])?;
        Ok(())
    })?;
    ensure!(last == third, "a cordoned node is the last choice, not a forbidden one");
    Ok(())
}

/// Moves the address on purpose, and no client notices. Returns who answers two seconds later.
fn moved(
    home: &Home,
    how: &str,
    act: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Machine> {
    home.look_on(how, Duration::from_secs(2), act)?.without_a_gap()?;
    home.wait_for_owner(first_address())
}

pub(crate) fn an_address_stays_with_the_pods_that_its_traffic_is_for(
    home: &Home,
) -> anyhow::Result<()> {
    let owner = home.serve_local_page()?;

    let left = "the last ready backend of a Service with the policy Local leaves the owner";
    let seen = home.look_on(left, Duration::from_secs(2), || {
        home.keep_pods_off("web", owner)?;
        // The address follows its pods.
        home.wait_for_another_owner(first_address(), owner)?;
        home.wait_for_page(Machine::Client)
    })?;
    at_most(&seen, BY_THE_WIRE)?;

    // Of several that end, one may be the last for a moment, and on a node that has no time to announce the address.
    home.start_web(1)?;
    home.wait_for_page(Machine::Client)?;
    let gone = "all backends of a Service with the policy Local leave";
    let seen = home.look_on(gone, Duration::from_secs(2), || {
        home.lab.kubectl(&["scale", "deployment/web", "--replicas=0"])?;
        home.wait_until("nobody announces it without a pod", || {
            match home.who_answers(first_address())?[..] {
                [] => Ok(()),
                ref answering => Err(format!("{answering:?} answer").into()),
            }
        })
    })?;
    ensure!(seen.told.iter().any(|note| note.starts_with("NoReadyEndpoints")), "{seen:?}");
    home.wait_until("the condition says so, too", || {
        let said = home.conditions("web")?;
        let unannounced = said.iter().any(|it| it.starts_with("Announced=False: nobody announces"));
        if unannounced { Ok(()) } else { Err(format!("{said:?}").into()) }
    })?;
    let status = home.arpeggio(&["status"])?;
    ensure!(status.contains("(no ready pod)"), "{status}");
    home.lab.kubectl(&["scale", "deployment/web", "--replicas=1"])?;
    home.wait_for_owner(first_address())?;
    home.wait_for_page(Machine::Client)
}

/// What people see who install it on one machine: kubeadm puts the label on the only node.
pub(crate) fn who_has_no_node_left_is_told_why(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    home.lab.kubectl(&["label", "nodes", "--all", &format!("{EXCLUDE}=")])?;
    home.apply(&service("web", KEY, POOL))?;
    home.wait_for_address("web")?;
    let told = home.wait_for_event("web", "NoEligibleNode")?;
    for node in home.lab.options().node_machines() {
        ensure!(told.note.contains(&node.to_string()), "{told:?}");
    }
    ensure!(told.kind == "Warning" && told.note.contains(EXCLUDE), "{told:?}");
    home.lab.kubectl(&["label", "nodes", "--all", &format!("{EXCLUDE}-")])?;
    home.wait_for_owner(first_address())?;
    let events = home.events("web")?;
    let warnings = events.iter().filter(|event| event.reason == "NoEligibleNode").count();
    ensure!(warnings == 1, "one node says it once: {events:?}");

    let mut local = service("local", KEY, POOL);
    local["spec"]["externalTrafficPolicy"] = "Local".into();
    home.apply(&local)?;
    home.wait_for_event("local", "NoReadyEndpoints").map(drop)
}

pub(crate) fn a_pools_rules_say_which_node_announces(home: &Home) -> anyhow::Result<()> {
    let nodes = home.lab.options().node_machines();
    for node in [nodes[1], nodes[2]] {
        home.apply(&pool_announced_from(node))?;
        home.apply(&service("web", KEY, POOL))?;
        home.wait_for_address("web")?;
        home.wait_for_owner_to_be(first_address(), node)?;
    }
    home.wait_until("a condition says where it is", || {
        let service = home.lab.get(&["service", "web"]).map_err(anyhow::Error::from)?;
        let conditions = service["status"]["conditions"].to_string();
        let said = conditions.contains(&format!("{} from {} (eth0, ", first_address(), nodes[2]));
        if said { Ok(()) } else { Err(conditions.into()) }
    })
}

fn pool_announced_from(node: Machine) -> Value {
    let mut pool = pool(POOL, &[POOL_RANGE]);
    let nodes = json!({ "matchLabels": { "kubernetes.io/hostname": node.to_string() } });
    pool["spec"]["announce"] = json!([{ "nodeSelectors": [nodes] }]);
    pool
}

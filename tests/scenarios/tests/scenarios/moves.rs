//! Addresses move on purpose, and nobody is without an answer.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{
    Machine,
    observe::{ArpSightings, ArpWatch, Request, RequestLoop, RequestPlan, get},
};
use arpeggio_scenarios::{Home, POOL, POOL_RANGE, eprint_line, first_address, pool, service};
use serde_json::{Value, json};

const KEY: &str = "arpeggio.dev/address-pool";
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const ASK_EVERY: Duration = Duration::from_millis(5);

/// Shorter than the second after which a lost SYN is sent again: a request that needed that has failed.
const PATIENCE: Duration = Duration::from_millis(900);

/// The client is told of a move, and asks who answers, at different times.
const MOVE_SEEN_WITHIN: Duration = Duration::from_millis(20);

/// Room for a busy test machine, but not for a time-out.
const LONGEST_SILENCE: Duration = Duration::from_millis(500);

pub(crate) fn a_drained_node_hands_over_first(home: &Home) -> anyhow::Result<()> {
    let owner = with_a_web_server(home)?;
    // Its own pods are elsewhere, so that only the address moves.
    home.keep_pods_off("web", owner)?;
    let successor = without_a_failure(home, || {
        let node = owner.to_string();
        home.lab.kubectl(&["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data"])?;
        Ok(())
    })?;
    ensure!(successor != owner, "{owner} was drained");
    home.wait_until("an event says why", || {
        let why = format!("given by {owner}, since the node is cordoned");
        let events = home.events("web")?;
        let told = events.iter().any(|event| event.note.contains(&why));
        if told { Ok(()) } else { Err(format!("{events:?}").into()) }
    })?;

    home.lab.kubectl(&["uncordon", &owner.to_string()])?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(home.wait_for_owner(first_address())? == successor, "nothing moves back");
    Ok(())
}

pub(crate) fn an_excluded_node_hands_over_and_the_last_one_stays(
    home: &Home,
) -> anyhow::Result<()> {
    let first = with_a_web_server(home)?;
    let second = without_a_failure(home, || {
        home.lab.kubectl(&["label", "node", &first.to_string(), &format!("{EXCLUDE}=")])?;
        Ok(())
    })?;
    ensure!(second != first, "{first} is excluded");
    let third = without_a_failure(home, || {
        home.lab.kubectl(&["cordon", &second.to_string()])?;
        Ok(())
    })?;
    ensure!(third != first && third != second, "{first} is excluded, {second} is cordoned");
    let last = without_a_failure(home, || {
        home.lab.kubectl(&["cordon", &third.to_string()])?;
        Ok(())
    })?;
    ensure!(last == third, "a cordoned node is the last choice, not a forbidden one");
    Ok(())
}

/// A Service with two web servers behind it, which every node can reach by its address. Returns the node that
/// announces it.
pub(crate) fn with_a_web_server(home: &Home) -> anyhow::Result<Machine> {
    home.add_pool()?;
    home.start_web(2)?;
    home.apply(&service("web", KEY, POOL))?;
    home.wait_for_address("web")?;
    // kube-proxy of a node may come to a new address a second after that of another, and until then drops what comes.
    for node in home.lab.options().node_machines() {
        page_is_there(home, node)?;
    }
    home.wait_for_owner(first_address())
}

/// Does something while a client asks for the address and for the page every 5 ms, and for two seconds after that.
/// Returns who answers then.
fn without_a_failure(
    home: &Home,
    act: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Machine> {
    let watch = ArpWatch::start(&home.lab, Machine::Client, first_address(), ASK_EVERY)?;
    let page = SocketAddr::new(first_address().into(), 80);
    let plan = RequestPlan { server: page, interval: ASK_EVERY, patience: PATIENCE };
    let requests = RequestLoop::start(&home.lab.namespace(Machine::Client), plan)?;
    act()?;
    std::thread::sleep(Duration::from_secs(2));
    let (seen, requests) = (watch.stop()?, requests.stop()?);
    check(&seen, &requests)?;
    home.wait_for_owner(first_address())
}

fn check(seen: &ArpSightings, requests: &[Request]) -> anyhow::Result<()> {
    let moves = moves(seen);
    let failed = requests.iter().filter(|request| !request.is_answered());
    let failed: Vec<_> = failed.filter(|request| !is_cut(request, &moves)).collect();
    ensure!(
        failed.is_empty(),
        "{} of {} requests failed: {failed:?}",
        failed.len(),
        requests.len()
    );
    let silence = seen.longest_silence().context("nobody asked")?.length();
    ensure!(silence < LONGEST_SILENCE, "nobody answered for {silence:?}");
    eprint_line(&format!(
        "{} requests answered; the longest time without an ARP answer was {silence:?}",
        requests.len()
    ));
    Ok(())
}

/// When somebody else began to answer.
fn moves(seen: &ArpSightings) -> Vec<Instant> {
    let pairs = seen.replies.windows(2).filter(|pair| pair[0].mac != pair[1].mac);
    pairs.map(|pair| pair[1].at).collect()
}

/// Whether a request was under way when the address moved. The new node knows nothing of the connection, and its
/// backend refuses it: whatever announces the address at layer 2, open connections do not survive a move.
fn is_cut(request: &Request, moves: &[Instant]) -> bool {
    moves.iter().any(|at| {
        request.started <= *at + MOVE_SEEN_WITHIN && *at <= request.ended + MOVE_SEEN_WITHIN
    })
}

pub(crate) fn an_address_stays_with_the_pods_that_its_traffic_is_for(
    home: &Home,
) -> anyhow::Result<()> {
    home.add_pool()?;
    home.start_web(2)?;
    let mut web = service("web", KEY, POOL);
    web["spec"]["externalTrafficPolicy"] = "Local".into();
    home.apply(&web)?;
    home.wait_for_address("web")?;
    let owner = home.wait_for_owner(first_address())?;
    page_is_there(home, Machine::Client)?;

    home.keep_pods_off("web", owner)?;
    home.wait_until("the address is where its pods are", || {
        match home.who_answers(first_address())?[..] {
            [other] if other != owner => Ok(()),
            ref answering => Err(format!("{answering:?} answer").into()),
        }
    })?;
    page_is_there(home, Machine::Client)?;

    home.lab.kubectl(&["scale", "deployment/web", "--replicas=0"])?;
    home.wait_until("nobody announces it without a pod", || {
        match home.who_answers(first_address())?[..] {
            [] => Ok(()),
            ref answering => Err(format!("{answering:?} answer").into()),
        }
    })?;
    home.lab.kubectl(&["scale", "deployment/web", "--replicas=1"])?;
    home.wait_for_owner(first_address())?;
    page_is_there(home, Machine::Client)
}

fn page_is_there(home: &Home, from: Machine) -> anyhow::Result<()> {
    let page = RequestPlan::new(SocketAddr::new(first_address().into(), 80));
    home.wait_until(&format!("{from} gets the page"), || {
        let asked = home.lab.namespace(from).enter(|| get(&page)).map_err(anyhow::Error::from)?;
        if asked.is_answered() { Ok(()) } else { Err(format!("{asked:?}").into()) }
    })
}

pub(crate) fn a_pools_rules_say_which_node_announces(home: &Home) -> anyhow::Result<()> {
    let nodes = home.lab.options().node_machines();
    for node in [nodes[1], nodes[2]] {
        home.apply(&pool_announced_from(node))?;
        home.apply(&service("web", KEY, POOL))?;
        home.wait_for_address("web")?;
        home.wait_until(&format!("{node} announces it"), || {
            match home.who_answers(first_address())?[..] {
                [owner] if owner == node => Ok(()),
                ref answering => Err(format!("{answering:?} answer").into()),
            }
        })?;
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

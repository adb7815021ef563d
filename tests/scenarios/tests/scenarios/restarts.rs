//! Processes of Arpeggio end and come back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use arpeggio_scenarios::{Home, POOL, eprint_line, first_address, service};
use serde_json::{Value, json};

const KEY: &str = "arpeggio.dev/address-pool";

pub(crate) fn a_killed_speaker_comes_back_and_nothing_moves(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    let pod = home.speaker_on(owner)?;
    let (epoch, restarts) = (home.epoch(owner)?, home.container_restarts(&pod)?);
    // Until the node's deputies know that its speaker answers, and its silence says something.
    std::thread::sleep(Duration::from_secs(6));
    // Longer than a session lasts: had it not been resumed, somebody would take over.
    let seen = home.look_on("the owner's speaker is killed", Duration::from_secs(12), || {
        home.kill_container(&pod, "speaker")?;
        home.wait_until("its container runs again", || match home.container_restarts(&pod)? {
            count if count > restarts => Ok(()),
            _ => Err("not restarted".to_owned().into()),
        })
    })?;
    ensure!(seen.owners == [owner.to_string()], "nothing moves: {seen:?}");
    ensure!(home.who_answers(first_address())? == [owner], "the same node answers again");
    ensure!(home.moves(first_address().into())? == 0, "no move was written");
    ensure!(home.epoch(owner)? == epoch, "the session was resumed, not begun anew");
    Ok(())
}

pub(crate) fn new_speakers_take_nothing_and_miss_nothing(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    let what = "all speakers are upgraded, one after the other";
    let seen = home.look_on(what, Duration::from_secs(2), || home.replace_speakers())?;
    let seen = seen.without_a_gap()?;
    ensure!(seen.owners == [owner.to_string()], "somebody else answered: {seen:?}");
    ensure!(home.moves(first_address().into())? == 0, "no move was written");
    for node in home.lab.options().node_machines() {
        let lost = home.speaker_metric(node, "sessions_lost_total")?;
        ensure!(lost == ["0"], "{node} took the end of its predecessor for its own: {lost:?}");
    }
    Ok(())
}

/// New speakers have to list so many slices before they know where the backends are.
pub(crate) fn new_speakers_wait_until_they_know_the_backends(home: &Home) -> anyhow::Result<()> {
    create_slices(home)?;
    let owner = home.serve_local_page()?;
    let version = || -> anyhow::Result<String> {
        let lock = home.lock(first_address().into())?.context("the address has no lock")?;
        Ok(lock["metadata"]["resourceVersion"].to_string())
    };
    let before = version()?;
    let what = "all speakers are upgraded, and an address stays with its pods";
    let seen = home.look_on(what, Duration::from_secs(2), || home.replace_speakers())?;
    let seen = seen.without_a_gap()?;
    ensure!(seen.owners == [owner.to_string()], "somebody else answered: {seen:?}");
    ensure!(version()? == before, "the lock was written");
    let events = home.events("web")?;
    ensure!(events.iter().all(|it| it.reason != "NoReadyEndpoints"), "{events:?}");
    for node in home.lab.options().node_machines() {
        let memory = home.speaker_memory(node)?;
        eprint_line(&format!("{node}: {memory} bytes with {SLICES} slices"));
        ensure!(memory < MEMORY, "{node}: {memory} bytes with {SLICES} slices");
    }
    home.lab.kubectl(&["delete", "namespace", CROWD])?;
    Ok(())
}

const SLICES: u16 = 10_000;
const CROWD: &str = "crowd";

/// So many clients create them, since one alone is held up by the way to the API server.
const CREATORS: u16 = 8;

/// Half of a speaker's limit, in bytes.
const MEMORY: u64 = 128 << 20;

fn create_slices(home: &Home) -> anyhow::Result<()> {
    let begin = Instant::now();
    home.lab.kubectl(&["create", "namespace", CROWD])?;
    let create = |first: u16| {
        let slices: Vec<Value> = (first..SLICES).step_by(CREATORS.into()).map(slice).collect();
        let slices = json!({ "apiVersion": "v1", "kind": "List", "items": slices }).to_string();
        home.lab.kubectl_with_input(&["create", "-f", "-"], &slices).map(drop)
    };
    let create = &create;
    std::thread::scope(|scope| {
        let creators: Vec<_> =
            (0..CREATORS).map(|first| scope.spawn(move || create(first))).collect();
        creators.into_iter().try_for_each(|creator| match creator.join() {
            Ok(created) => Ok(created?),
            Err(_) => bail!("a creator has panicked"),
        })
    })?;
    eprint_line(&format!("{SLICES} slices: created in {:?}", begin.elapsed()));
    Ok(())
}

/// One of a Service that does not exist.
fn slice(number: u16) -> Value {
    let [high, low] = number.to_be_bytes();
    let endpoints = [1, 2, 3].map(|node| {
        let address = format!("10.{node}.{high}.{low}");
        json!({ "addresses": [address], "nodeName": format!("node-{node}"), "conditions": { "ready": true } })
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {
            "namespace": CROWD,
            "name": format!("of-{number}"),
            "labels": { "kubernetes.io/service-name": format!("of-{number}") },
        },
        "endpoints": endpoints,
        "ports": [{ "name": "http", "port": 80 }],
    })
}

pub(crate) fn a_stopped_speaker_hands_over_first(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    let pod = home.speaker_on(owner)?;
    // Not by deleting the pod: the next one may run before this one stops, and then nothing has to move.
    let stop = || home.stop_container(&pod, "speaker");
    home.look_on("the owner's speaker is asked to stop", Duration::from_secs(2), stop)?
        .without_a_gap()?;
    let successor = home.wait_for_owner(first_address())?;
    ensure!(successor != owner, "{owner} has handed over");
    let moves = home.moves(first_address().into())?;
    ensure!(moves == 1, "one move, not {moves}");
    home.wait_for_note("web", &format!("taken over from {owner}: its speaker stopped"))?;
    Ok(())
}

pub(crate) fn a_killed_controller_keeps_every_address(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    for name in ["one", "two"] {
        home.apply(&service(name, KEY, POOL))?;
    }
    let before = [home.wait_for_address("one")?, home.wait_for_address("two")?];

    // A Service goes and another one comes while nobody looks.
    home.scale_controllers(0)?;
    home.lab.kubectl(&["delete", "service", "one"])?;
    home.apply(&service("aaa", KEY, POOL))?;
    home.scale_controllers(1)?;

    let new = home.wait_for_address("aaa")?;
    ensure!(home.wait_for_address("two")? == before[1], "an address that is held stays");
    ensure!(new != before[1], "nobody else gets it");
    home.wait_until("the lock of the deleted Service is gone or given anew", || {
        match home.lock(before[0])? {
            Some(_) if new != before[0] => Err("it is still there".to_owned().into()),
            _ => Ok(()),
        }
    })
}

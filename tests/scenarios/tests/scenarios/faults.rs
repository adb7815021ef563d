//! Failures, each with its stated outcome: what a client sees, for how long, and what the user is told.

use std::{thread, time::Duration};

use anyhow::ensure;
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, POOL, Seen, first_address, service};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// A takeover by the wire's evidence takes a third of a second at rest; a session takes ten seconds to expire. Between
/// them is room for a busy test machine.
pub(crate) const BY_THE_WIRE: Duration = Duration::from_secs(3);

/// When nothing is to be noticed at all, but the test machine may stand still for a moment.
pub(crate) const UNNOTICED: Duration = Duration::from_millis(1500);

/// A speaker may be silent for five seconds, and is asked once a second; with the takeover and a busy machine.
const BY_THE_SPEAKERS_SILENCE: Duration = Duration::from_secs(8);

/// A session that nobody renews is over after ten seconds; with the takeover and a busy machine.
const BY_EXPIRY: Duration = Duration::from_secs(16);

/// When nobody else is to announce the address: what is on its way, and what a busy machine notices late.
const A_FEW_FRAMES: usize = 10;

pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// So many objects are created after a backup.
const WRITTEN: u32 = 400;

pub(crate) fn at_most(seen: &Seen, limit: Duration) -> anyhow::Result<()> {
    let limit = limit.as_millis();
    ensure!(u128::from(seen.silence_ms) <= limit, "nobody answered for too long: {seen:?}");
    ensure!(u128::from(seen.outage_ms) <= limit, "the page was away for too long: {seen:?}");
    Ok(())
}

/// Exactly `owner` answers, and the lock says the same.
pub(crate) fn settled_on(home: &Home, owner: Machine) -> anyhow::Result<()> {
    let answering = home.wait_for_owner(first_address())?;
    ensure!(answering == owner, "{answering} answers, not {owner}");
    let holder = home.holder(first_address().into())?;
    ensure!(holder == Some(owner), "the lock is held by {holder:?}");
    Ok(())
}

pub(crate) fn the_owners_cable_is_pulled_and_put_back(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    home.keep_pods_off("web", owner)?;
    let seen = home.look_on("the owner's cable is pulled", Duration::from_secs(5), || {
        Ok(home.lab.network().cable_out(owner)?)
    })?;
    at_most(&seen, BY_THE_WIRE)?;
    let successor = home.wait_for_owner(first_address())?;
    ensure!(successor != owner, "{owner} has no cable");
    let seen = home.look_on("the cable is put back", Duration::from_secs(8), || {
        Ok(home.lab.network().cable_in(owner)?)
    })?;
    at_most(&seen, UNNOTICED)?;
    ensure!(seen.overlap <= A_FEW_FRAMES, "it must ask before it answers: {seen:?}");
    settled_on(home, successor)
}

/// As a bond, a bridge or an administrator does it: the carrier stays. Whoever watches the node asks at the old address.
pub(crate) fn a_node_gets_another_mac_address(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    let nodes = home.lab.options().node_machines();
    let epochs =
        || nodes.iter().map(|node| home.epoch(*node)).collect::<anyhow::Result<Vec<u64>>>();
    let (before, moves) = (epochs()?, home.moves(first_address().into())?);
    for (node, last) in nodes.iter().zip(1..) {
        let mac = format!("02:00:5e:00:00:{last:02x}");
        let change = ["link", "set", node.interface(), "address", &mac];
        home.lab.namespace(*node).run("ip", &change)?;
        // Longer than it takes to accuse, to confirm and to end a session.
        thread::sleep(Duration::from_secs(3));
        ensure!(epochs()? == before, "the session of {node} was ended: {:?}", epochs()?);
    }
    let holder = home.holder(first_address().into())?;
    ensure!(holder == Some(owner), "the address has moved from {owner} to {holder:?}");
    ensure!(home.moves(first_address().into())? == moves, "the address has moved");
    home.wait_for_page(Machine::Client)
}

pub(crate) fn the_owner_is_cut_off_from_the_api_server_only(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    let fault = "the owner is cut off from the API server only";
    let seen =
        home.look_on(fault, Duration::from_secs(20), || Ok(home.lab.cut_off_api(owner)?))?;
    at_most(&seen, UNNOTICED)?;
    let successor = home.wait_for_owner(first_address())?;
    ensure!(successor != owner, "its session is over");
    home.lab.heal_api(owner)?;
    home.wait_for_session(owner)?;
    settled_on(home, successor)
}

/// Not longer: a client that opens 200 connections a second uses its ports again after a minute, and where the nodes'
/// connection tracking remembers an old connection, it may lose the new one without any fault.
pub(crate) fn the_api_server_is_away_for_a_minute(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    let seen = home.look_on("the API server is away for a minute", Duration::ZERO, || {
        home.lab.stop_api()?;
        std::thread::sleep(Duration::from_secs(50));
        home.lab.start_api(PATIENCE)?;
        std::thread::sleep(Duration::from_secs(12));
        Ok(())
    })?;
    at_most(&seen, UNNOTICED)?;
    ensure!(seen.owners.len() == 1, "nothing moves: {seen:?}");
    settled_on(home, owner)
}

pub(crate) fn the_owners_speaker_is_stopped_and_continued(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    let pod = home.speaker_on(owner)?;
    let restarts = home.container_restarts(&pod)?;
    let fault = "the owner's speaker is stopped for 20 s";
    let seen =
        home.look_on(fault, Duration::from_secs(20), || home.pause_container(&pod, "speaker"))?;
    // Clients that know the owner's MAC notice nothing: its kernel forwards as before.
    ensure!(u128::from(seen.silence_ms) <= BY_THE_SPEAKERS_SILENCE.as_millis(), "{seen:?}");
    let told = |note: &String| note.contains("its speaker is silent on the wire");
    ensure!(seen.told.iter().any(told), "the user is told why: {seen:?}");
    let successor = home.wait_for_owner(first_address())?;
    ensure!(successor != owner, "its session is over");
    let failovers = home.speaker_metric(successor, "failover_seconds_count")?;
    ensure!(failovers == ["1"], "the new owner counts it: {failovers:?}");
    let fault = "the stopped speaker is continued";
    let seen =
        home.look_on(fault, Duration::from_secs(8), || home.continue_container(&pod, "speaker"))?;
    at_most(&seen, UNNOTICED)?;
    ensure!(seen.overlap == 0, "it must not answer before it has asked: {seen:?}");
    // The kubelet may have lost patience meanwhile, and a new process has lost nothing.
    if home.container_restarts(&pod)? == restarts {
        let lost = home.speaker_metric(owner, "sessions_lost_total")?;
        ensure!(lost == ["1"], "it counts that others ended its session: {lost:?}");
    }
    settled_on(home, successor)
}

/// The clock of one machine alone cannot be set here, since all share the host's. What others see of it is what it writes:
/// when its session was last renewed.
pub(crate) fn the_owners_clock_jumps(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    let back = "the owner's session says that it was renewed six hours ago";
    let seen = home.look_on(back, Duration::from_secs(2), || {
        for _ in 0..4 {
            say_renewed(home, owner, -6)?;
            std::thread::sleep(Duration::from_secs(1));
        }
        Ok(())
    })?;
    let seen = seen.without_a_gap()?;
    ensure!(seen.owners == [owner.to_string()], "nobody takes it for dead: {seen:?}");

    let ahead = "the owner is cut off from the API server, and its session says that it is renewed in six hours";
    let seen = home.look_on(ahead, Duration::from_secs(2), || {
        home.lab.cut_off_api(owner)?;
        say_renewed(home, owner, 6)?;
        home.wait_for_another_owner(first_address(), owner).map(drop)
    })?;
    at_most(&seen, UNNOTICED)
}

/// Writes on a session when it was renewed, some hours from now.
#[expect(clippy::disallowed_methods, reason = "what a speaker writes there")]
fn say_renewed(home: &Home, node: Machine, hours: i64) -> anyhow::Result<()> {
    let at = Timestamp::now().checked_add(SignedDuration::from_hours(hours))?;
    let spec = json!({ "spec": { "renewTime": at.strftime("%FT%T.000000Z").to_string() } });
    let session = format!("session-{node}");
    let patch = ["patch", "lease", &session, "--type=merge", "-p", &spec.to_string()];
    home.lab.kubectl(&[&patch[..], &["-n", "arpeggio-system"]].concat())?;
    Ok(())
}

pub(crate) fn all_leases_are_deleted_by_hand(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    let seen = home.look_on("all Leases are deleted by hand", Duration::from_secs(10), || {
        home.lab.kubectl(&["delete", "leases", "--all", "-n", "arpeggio-system"])?;
        Ok(())
    })?;
    at_most(&seen, BY_THE_WIRE)?;
    let answering = home.wait_for_owner(first_address())?;
    ensure!(home.addresses("web")? == [first_address()], "the Service keeps its address");
    settled_on(home, answering)?;
    ensure!(seen.owners.first() == Some(&owner.to_string()), "{seen:?}");
    Ok(())
}

pub(crate) fn leases_are_put_back_to_an_earlier_time(home: &Home) -> anyhow::Result<()> {
    let first = home.serve_page()?;
    let mut earlier = home.lab.get(&["leases", "-n", "arpeggio-system"])?;
    for lease in earlier["items"].as_array_mut().into_iter().flatten() {
        lease["metadata"]["resourceVersion"].take();
        lease["metadata"]["uid"].take();
    }
    home.lab.kubectl(&["cordon", &first.to_string()])?;
    home.wait_for_another_owner(first_address(), first)?;
    home.lab.kubectl(&["uncordon", &first.to_string()])?;
    let fault = "all Leases are put back to an earlier time";
    let seen = home.look_on(fault, Duration::from_secs(20), || {
        home.lab.kubectl_with_input(&["replace", "-f", "-"], &earlier.to_string())?;
        Ok(())
    })?;
    at_most(&seen, BY_EXPIRY)?;
    let answering = home.wait_for_owner(first_address())?;
    settled_on(home, answering)
}

/// With versions that speakers and controllers have seen long ago.
pub(crate) fn etcd_is_restored_from_a_backup(home: &Home) -> anyhow::Result<()> {
    let first = home.serve_page()?;
    home.lab.back_up_etcd(PATIENCE)?;
    home.wait_for_owner(first_address())?;
    // More is written than a restored cluster writes in the time of this test.
    home.lab.kubectl(&["cordon", &first.to_string()])?;
    home.wait_for_another_owner(first_address(), first)?;
    home.apply(&service("lost", "arpeggio.dev/address-pool", POOL))?;
    let lost = home.wait_for_address("lost")?;
    let written = (0..WRITTEN).map(|number| {
        let metadata = json!({ "name": format!("written-{number}"), "namespace": "default" });
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata })
    });
    let written: Vec<Value> = written.collect();
    home.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": written }))?;
    let fault = "etcd is restored from a backup";
    let seen =
        home.look_on(fault, Duration::from_secs(20), || Ok(home.lab.restore_etcd(PATIENCE)?))?;
    at_most(&seen, UNNOTICED)?;
    let answering = home.wait_for_owner(first_address())?;
    settled_on(home, answering)?;

    home.apply(&service("new", "arpeggio.dev/address-pool", POOL))?;
    ensure!(home.wait_for_address("new")? == lost, "nobody has it, as far as the backup knows");
    home.keep_pods_off("web", answering)?;
    let fault = "the owner loses power after etcd was restored";
    let seen = home.look_on(fault, Duration::from_secs(5), || {
        Ok(home.lab.power_off(answering).map(drop)?)
    })?;
    at_most(&seen, BY_THE_WIRE)?;
    ensure!(home.wait_for_owner(first_address())? != answering, "{answering} has no power");
    Ok(())
}

pub(crate) fn a_switch_loses_what_two_nodes_send_to_each_other(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    let others = others(home, owner);
    let fault = "a switch loses unicast between the owner and another node";
    let seen = home.look_on(fault, Duration::from_secs(15), || {
        Ok(home.lab.network().lose_unicast(owner, others[0])?)
    })?;
    // A page whose backend is on the other node is away too, whoever announces the address.
    ensure!(u128::from(seen.silence_ms) <= BY_THE_WIRE.as_millis(), "{seen:?}");
    ensure!(seen.owners.len() <= 2, "an accusation costs a move at most: {seen:?}");
    home.lab.network().mend()?;
    let answering = home.wait_for_owner(first_address())?;
    settled_on(home, answering)
}

pub(crate) fn the_segment_is_split_and_healed(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    let mut rest = others(home, owner);
    rest.extend([Machine::Control, Machine::Router]);
    let fault =
        "the segment is split for 20 s, owner and client on one side, all others on the other";
    let seen = home.look_on(fault, Duration::from_secs(10), || {
        home.lab.network().split(&[owner, Machine::Client], &rest)?;
        std::thread::sleep(Duration::from_secs(20));
        Ok(home.lab.network().mend()?)
    })?;
    // Both halves have an owner; the client sees its own until the halves are one again.
    ensure!(u128::from(seen.silence_ms) <= BY_THE_WIRE.as_millis(), "{seen:?}");
    let answering = home.wait_for_owner(first_address())?;
    settled_on(home, answering)
}

fn others(home: &Home, owner: Machine) -> Vec<Machine> {
    home.lab.options().node_machines().into_iter().filter(|node| *node != owner).collect()
}

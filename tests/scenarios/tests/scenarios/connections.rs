//! Open connections through moves of their address, with and without the forwarder: `docs/connections.md`.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::Machine;
use arpeggio_scenarios::{
    EXCLUDE, Home, STREAMS, Streams, StreamsSeen, eprint_line, first_address, install_overlay,
    pool, service,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{clients, doctor, faults::PATIENCE, kept};

pub(crate) const NAMESPACE: &str = "arpeggio-system";

/// Generous: on a machine at rest answers come within some milliseconds, and `make failures` says within how many. Here it is shown that
/// none is lost for long. TCP says a lost packet again after 0.2, 0.6 and 1.4 seconds, and later where the machine is busy: ten busy programs on
/// two cores made a usual answer take 3 s.
pub(crate) const LATEST: Duration = Duration::from_secs(6);

/// Connections of a dead node are reset within that time after their next question. The death is known within a second; TCP has said a lost
/// packet again 0.2, 0.6, 1.4 and 3 seconds after the first time, and as late as twice that where the machine is busy.
pub(crate) const RESET_WITHIN: Duration = Duration::from_secs(8);

/// The same without the API server, where the death is known later. TCP is silent for some seconds then.
const RESET_WITHOUT_API: Duration = Duration::from_secs(12);

/// Long enough for a move and what follows from it.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// An answer that has not come for so long is looked into.
const HUNG: Duration = Duration::from_millis(1500);

/// For how long connections are kept there. After that no node asks another one that has not heard of a death.
const KEPT: Duration = Duration::from_secs(30);

/// Long enough for each connection to ask a hundred times and more.
const WITHOUT_API: Duration = Duration::from_secs(10);

/// A client that is not answered for so long has given up, which is not what it is to do. TCP says what it has to say again after
/// pauses that double, and is told then: where a machine is busy for some seconds that is late, and no hang.
const LONGEST_HANG: Duration = Duration::from_secs(15);

/// Long enough for connections to end that have no node any more.
const UNTIL_RESET: Duration = Duration::from_secs(8);

/// Somewhat longer than a speaker takes another one of its node for running that has renewed their session.
const TWIN: Duration = Duration::from_secs(7);

/// A drain, an upgrade and whatever else moves an address on purpose break no connection.
pub(crate) fn moves_break_no_connection(home: &Home) -> anyhow::Result<()> {
    install_overlay(&home.lab, NAMESPACE, &["admission"])?;
    let owner = serve_both_families(home)?;
    let seen = through(home, "without the forwarder: cordon", &home.addresses("web")?, || {
        cordon(home, owner)
    })?;
    ensure!(
        seen.broken() > 0,
        "connections outlived a move without the forwarder: this shows nothing"
    );
    home.lab.kubectl(&["uncordon", &owner.to_string()])?;

    install_overlay(&home.lab, NAMESPACE, &["admission", "forwarder"])?;
    every_node_is_able(home)?;
    doctor::finds_nothing(home)?;
    let first = home.wait_for_owner(first_address())?;
    unbroken(home, "cordon", || cordon(home, first))?;
    let second = home.wait_for_owner(first_address())?;
    home.lab.kubectl(&["uncordon", &first.to_string()])?;
    unbroken(home, "cordon, and back", || {
        cordon(home, second)?;
        home.lab.kubectl(&["uncordon", &second.to_string()])?;
        let third = home.wait_for_owner(first_address())?;
        cordon(home, third)?;
        home.lab.kubectl(&["uncordon", &third.to_string()])?;
        Ok(())
    })?;
    let owner = home.wait_for_owner(first_address())?;
    unbroken(home, "exclusion label", || {
        home.lab.kubectl(&["label", "node", &owner.to_string(), &format!("{EXCLUDE}=")])?;
        home.wait_for_another_owner(first_address(), owner)?;
        connections_are_left_on(home, owner)?;
        home.lab.kubectl(&["label", "node", &owner.to_string(), &format!("{EXCLUDE}-")])?;
        Ok(())
    })?;
    let upgrade = "upgrade of all speakers and forwarders";
    unbroken(home, upgrade, || home.replace_speakers())?;
    one_pod_on_each_node(home)?;
    thread::sleep(TWIN);
    let owner = home.wait_for_owner(first_address())?;
    unbroken(home, "the owner's speaker is asked to stop", || {
        home.stop_container(&home.speaker_on(owner)?, "speaker")?;
        home.wait_for_another_owner(first_address(), owner).map(drop)
    })?;
    kept::changed_rules_break_nothing(home)?;
    a_rebalance_breaks_nothing(home)?;
    a_whole_drain_breaks_nothing(home)?;
    killed_forwarders_leave_no_rules(home)?;
    kept::a_pod_that_is_not_ready_keeps_its_connections(home)?;
    a_dead_owner_is_told_of_at_once(home)
}

/// The same where kube-proxy uses iptables.
pub(crate) fn moves_break_no_connection_with_iptables(home: &Home) -> anyhow::Result<()> {
    install_overlay(&home.lab, NAMESPACE, &["admission", "forwarder"])?;
    let first = serve_both_families(home)?;
    every_node_is_able(home)?;
    unbroken(home, "iptables: cordon, and back", || {
        cordon(home, first)?;
        home.lab.kubectl(&["uncordon", &first.to_string()])?;
        let second = home.wait_for_owner(first_address())?;
        cordon(home, second)?;
        home.lab.kubectl(&["uncordon", &second.to_string()])?;
        Ok(())
    })?;
    a_dead_owner_is_told_of_at_once(home)
}

/// While the API server is away what was kept goes on, and connections of a node that is gone are reset: nothing waits for it.
pub(crate) fn connections_need_no_api_server(home: &Home) -> anyhow::Result<()> {
    install_overlay(&home.lab, NAMESPACE, &["admission", "forwarder"])?;
    let keep = format!("ARPEGGIO_KEEP_CONNECTIONS={}s", KEPT.as_secs());
    let speakers = "daemonset/arpeggio-speaker";
    home.lab.kubectl(&["set", "env", "-n", NAMESPACE, speakers, "-c", "forwarder", &keep])?;
    home.lab.wait_for_rollout(NAMESPACE, speakers, PATIENCE)?;
    let first = serve_both_families(home)?;
    // Before the API server is away: what creates pods needs a while after that.
    home.start_web(6)?;
    every_node_is_able(home)?;
    unbroken(home, "moved, and then without the API server", || {
        cordon(home, first)?;
        home.lab.stop_api()?;
        thread::sleep(WITHOUT_API);
        Ok(())
    })?;
    api_is_back(home)?;
    home.lab.kubectl(&["uncordon", &first.to_string()])?;

    // Nobody else may know the connections by then.
    thread::sleep(KEPT + AFTERWARDS);
    let owner = home.wait_for_owner(first_address())?;
    unbroken(home, "the pod of the owner's speaker and forwarder is deleted", || {
        let pod = home.speaker_on(owner)?;
        home.lab.kubectl(&["delete", "pod", "-n", NAMESPACE, &pod, "--wait=false"])?;
        home.wait_for_another_owner(first_address(), owner).map(drop)
    })?;
    every_node_is_able(home)?;

    thread::sleep(KEPT + AFTERWARDS);
    let owner = home.wait_for_owner(first_address())?;
    let speaker = home.lab.container(NAMESPACE, &home.speaker_on(owner)?, "speaker")?;
    none_waits(home, "without the API server the owner's speaker is asked to stop", || {
        home.lab.stop_api()?;
        speaker.iter().try_for_each(|process| process.signal(Signal::SIGTERM))?;
        Ok(())
    })?;
    api_is_back(home)?;

    thread::sleep(KEPT + AFTERWARDS);
    home.wait_for_steady_page()?;
    let owner = home.wait_for_owner(first_address())?;
    let broken = none_waits(home, "without the API server the owner loses power", || {
        home.lab.stop_api()?;
        home.lab.power_off(owner)?;
        Ok(())
    })?;
    ensure!(broken == STREAMS, "{} of {STREAMS} connections outlived their node", STREAMS - broken);
    home.wait_for_page(Machine::Client)?;
    home.lab.start_api(PATIENCE)?;
    home.wait_for_page(Machine::Client)
}

fn api_is_back(home: &Home) -> anyhow::Result<()> {
    home.lab.start_api(PATIENCE)?;
    every_node_is_able(home)?;
    // What a move is kept for begins when the lock is written, which may be some time after that.
    home.wait_until("the lock names the node that answers", || {
        let answers = home.wait_for_owner(first_address())?;
        match home.holder(first_address().into())? {
            Some(holder) if holder == answers => Ok(()),
            other => Err(format!("{other:?}, and {answers} answers").into()),
        }
    })?;
    home.wait_for_steady_page()
}

/// How many connections break. Each that does is told so.
fn none_waits(
    home: &Home,
    what: &str,
    act: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<usize> {
    let seen = through(home, what, &home.addresses("web")?, || {
        act()?;
        thread::sleep(UNTIL_RESET);
        Ok(())
    })?;
    let told = seen.broken.keys().all(|why| why.contains("reset"));
    ensure!(told, "{what}: connections end with {:?}", seen.broken);
    let end = seen.slowest_end();
    ensure!(end < RESET_WITHOUT_API, "{what}: a connection was reset after {end:?}");
    Ok(seen.broken())
}

/// A pool of both families.
pub(crate) fn both_families() -> Value {
    pool("home", &["192.168.0.240-192.168.0.250", "fd00:a0::240-fd00:a0::250"])
}

/// A Service with an address of each family, which are announced by one node. Returns that node.
fn serve_both_families(home: &Home) -> anyhow::Result<Machine> {
    home.apply(&both_families())?;
    home.start_web(2)?;
    let mut both = service("web", "arpeggio.dev/address-pool", "home");
    both["metadata"]["annotations"]["arpeggio.dev/sharing-key"] = json!("clients");
    both["spec"]["ipFamilyPolicy"] = json!("RequireDualStack");
    home.apply(&both)?;
    home.wait_until("Service web has an address of each family", || {
        match home.addresses("web")? {
            addresses if addresses.len() == 2 => Ok(()),
            addresses => Err(format!("{addresses:?}").into()),
        }
    })?;
    for address in home.addresses("web")? {
        for machine in home.lab.options().node_machines().into_iter().chain([Machine::Client]) {
            home.wait_for_page_at(machine, SocketAddr::new(address, 80))?;
        }
    }
    home.wait_for_steady_page()?;
    home.wait_for_owner(first_address())
}

fn cordon(home: &Home, node: Machine) -> anyhow::Result<()> {
    home.lab.kubectl(&["cordon", &node.to_string()])?;
    home.wait_for_another_owner(first_address(), node).map(drop)
}

/// The kernel has the rules, and `status` says so of every node.
pub(crate) fn every_node_is_able(home: &Home) -> anyhow::Result<()> {
    home.wait_until("every node has a forwarder that can", || {
        let status = home.arpeggio(&["status", "-o", "json", "--system-namespace", NAMESPACE])?;
        let able = status.matches("\"forwarder\": \"able\"").count();
        if able == home.lab.options().node_machines().len() { Ok(()) } else { Err(status.into()) }
    })
}

/// A speaker that is asked to stop hands over to another node only when no other speaker runs on its own.
fn one_pod_on_each_node(home: &Home) -> anyhow::Result<()> {
    home.wait_until("the earlier pods are gone", || {
        let label = "-lapp.kubernetes.io/component=speaker";
        let pods = home.lab.get(&["pods", "-n", NAMESPACE, label]).map_err(anyhow::Error::from)?;
        let count = pods["items"].as_array().map_or(0, Vec::len);
        let nodes = home.lab.options().node_machines().len();
        if count == nodes { Ok(()) } else { Err(format!("{count} pods").into()) }
    })
}

fn connections_are_left_on(home: &Home, node: Machine) -> anyhow::Result<()> {
    home.wait_until("status shows the connections that are left behind", || {
        let status = home.arpeggio(&["status", "--system-namespace", NAMESPACE])?;
        let mut lines = status.lines().skip_while(|line| !line.starts_with("MOVED ADDRESS"));
        let is_shown = lines.any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.first() == Some(&"192.168.0.240") && words.get(1) == Some(&&*node.to_string())
        });
        if is_shown { Ok(()) } else { Err(status.into()) }
    })?;
    let expected = format!("connections to 192.168.0.240 still on {node}");
    home.wait_until("the Service says so, too", || {
        let conditions = home.conditions("web")?;
        let said = conditions
            .iter()
            .any(|it| it.starts_with("ConnectionsLeft=True") && it.contains(&expected));
        if said { Ok(()) } else { Err(format!("{conditions:?}").into()) }
    })
}

/// All addresses are on one node, and are spread over three again.
fn a_rebalance_breaks_nothing(home: &Home) -> anyhow::Result<()> {
    let names = ["web", "other-1", "other-2", "other-3"];
    for name in &names[1..] {
        home.apply(&service(name, "arpeggio.dev/address-pool", "home"))?;
        home.wait_for_address(name)?;
    }
    let nodes = home.lab.options().node_machines();
    for node in &nodes[1..] {
        home.lab.kubectl(&["cordon", &node.to_string()])?;
    }
    let mut addresses = Vec::new();
    for name in names {
        addresses.extend(home.addresses(name)?);
    }
    let holders =
        || addresses.iter().map(|it| home.holder(*it)).collect::<anyhow::Result<Vec<_>>>();
    home.wait_until("one node has all", || match holders()? {
        all if all.iter().all(|it| *it == Some(nodes[0])) => Ok(()),
        other => Err(format!("{other:?}").into()),
    })?;
    for node in &nodes[1..] {
        home.lab.kubectl(&["uncordon", &node.to_string()])?;
    }
    for address in addresses.iter().filter(|it| it.is_ipv4()) {
        home.wait_for_page_at(Machine::Client, SocketAddr::new(*address, 80))?;
    }
    let seen = through(home, "rebalance", &addresses, || {
        let told = home.arpeggio(&["rebalance", "--yes", "--system-namespace", NAMESPACE])?;
        ensure!(told.ends_with(" addresses moved\n"), "{told}");
        Ok(())
    })?;
    let moved = holders()?.iter().filter(|it| **it != Some(nodes[0])).count();
    ensure!(moved > 1, "nothing was moved");
    none_broke("rebalance", &seen)?;
    for name in &names[1..] {
        home.lab.kubectl(&["delete", "service", name])?;
    }
    Ok(())
}

/// `kubectl drain`, with what people use open: Debian's SSH, and WebSocket. Connections of pods that are evicted end with them,
/// so there are none on the node.
fn a_whole_drain_breaks_nothing(home: &Home) -> anyhow::Result<()> {
    clients::start(home)?;
    let owner = home.wait_for_owner(first_address())?;
    for deployment in ["web", "ssh", "websocket"] {
        home.keep_pods_off(deployment, owner)?;
    }
    home.wait_for_steady_page()?;
    let name = owner.to_string();
    unbroken(home, "kubectl drain", || {
        clients::through(home, "kubectl drain", || {
            let flags = ["--ignore-daemonsets", "--delete-emptydir-data", "--force"];
            home.lab.kubectl(&[&["drain", &name][..], &flags].concat())?;
            home.wait_for_another_owner(first_address(), owner).map(drop)
        })
    })?;
    home.lab.kubectl(&["uncordon", &name])?;
    home.lab.kubectl(&["delete", "service,deployment", "ssh", "websocket"])?;
    Ok(())
}

/// Nothing breaks, and no message takes long.
pub(crate) fn unbroken(
    home: &Home,
    what: &str,
    act: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    none_broke(what, &through(home, what, &home.addresses("web")?, act)?)
}

fn none_broke(what: &str, seen: &StreamsSeen) -> anyhow::Result<()> {
    ensure!(seen.broken() == 0, "{what}: of {STREAMS} connections broke: {:?}", seen.broken);
    ensure!(seen.slowest() < LATEST, "{what}: an answer took {:?}", seen.slowest());
    Ok(())
}

/// Whoever passes packets on is killed: its rules are gone at once, and come again with the next forwarder.
fn killed_forwarders_leave_no_rules(home: &Home) -> anyhow::Result<()> {
    // After a move there are rules for a while, whether connections are left or not.
    let before = home.wait_for_owner(first_address())?;
    cordon(home, before)?;
    home.lab.kubectl(&["uncordon", &before.to_string()])?;
    let owner = home.wait_for_owner(first_address())?;
    let namespace = home.lab.namespace(owner);
    let tables =
        || anyhow::Ok(namespace.run("nft", &["list", "tables"])?.matches("arpeggio-").count());
    ensure!(tables()? > 0, "the forwarder has no rules on {owner}");
    let pod = home.speaker_on(owner)?;
    home.pause_container(&pod, "forwarder")?;
    home.kill_container(&pod, "forwarder")?;
    // The kernel removes them when the process is gone; the kubelet starts another one some time later.
    let begin = Instant::now();
    while tables()? > 0 {
        ensure!(begin.elapsed() < Duration::from_secs(5), "a killed forwarder has left rules");
        thread::sleep(Duration::from_millis(10));
    }
    eprint_line(&format!("connections: rules gone {:?} after SIGKILL", begin.elapsed()));
    home.wait_until("the forwarder is back", || match tables()? {
        0 => Err("no tables".to_owned().into()),
        _ => Ok(()),
    })?;
    every_node_is_able(home)
}

/// Connections that the dead node had are reset, and do not hang, though some of the pods have died with it.
fn a_dead_owner_is_told_of_at_once(home: &Home) -> anyhow::Result<()> {
    home.start_web(6)?;
    home.wait_for_steady_page()?;
    let owner = home.wait_for_owner(first_address())?;
    let seen =
        through(home, "the node that was drained loses power", &home.addresses("web")?, || {
            cordon(home, owner)?;
            home.lab.power_off(owner)?;
            Ok(())
        })?;
    let broken = seen.broken();
    ensure!(broken == STREAMS, "{} of {STREAMS} connections outlived their node", STREAMS - broken);
    let told = seen.broken.keys().all(|why| why.contains("reset"));
    ensure!(told, "connections of a dead node end with: {:?}", seen.broken);
    let end = seen.slowest_end();
    ensure!(end < RESET_WITHIN, "a connection of a dead node was reset after {end:?}");
    home.wait_for_page(Machine::Client)
}

/// Says where connections that wait are known, and what became of packets on each node: nobody could find that out later.
fn tell_of_hung(home: &Home, clients: &[SocketAddr]) {
    if clients.is_empty() {
        return;
    }
    eprint_line(&format!("connections: {} wait: {clients:?}", clients.len()));
    let ports: Vec<String> = clients.iter().map(|it| format!("sport={} ", it.port())).collect();
    for node in home.lab.options().node_machines() {
        let namespace = home.lab.namespace(node);
        let ask = |program: &str, args: &[&str]| {
            namespace.run(program, args).unwrap_or_else(|error| error.to_string())
        };
        for family in ["ipv4", "ipv6"] {
            let known = ask("conntrack", &["--dump", "--family", family]);
            let lines = known.lines().filter(|line| ports.iter().any(|it| line.contains(it)));
            lines.for_each(|line| eprint_line(&format!("connections: {node} knows {line}")));
        }
        for (program, args) in [
            ("conntrack", &["--stats"][..]),
            ("nft", &["list", "counters"]),
            ("ip", &["neighbour", "show", "nud", "all"]),
        ] {
            eprint_line(&format!("connections: {node}: {}", ask(program, args)));
        }
    }
}

/// Keeps connections open while something is done, and for some time afterwards.
pub(crate) fn through(
    home: &Home,
    what: &str,
    addresses: &[IpAddr],
    act: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<StreamsSeen> {
    through_from(home, what, (addresses, None), act)
}

/// The same from these ports, one for each connection. `None`: from any.
pub(crate) fn through_from(
    home: &Home,
    what: &str,
    (addresses, ports): (&[IpAddr], Option<RangeInclusive<u16>>),
    act: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<StreamsSeen> {
    let servers: Vec<SocketAddr> = addresses.iter().map(|it| SocketAddr::new(*it, 80)).collect();
    let client = home.lab.namespace(Machine::Client);
    let streams = Streams::start(&client, &servers, ports, LONGEST_HANG);
    streams.wait_until_open().and_then(|()| act()).with_context(|| what.to_owned())?;
    thread::sleep(AFTERWARDS);
    tell_of_hung(home, &streams.waiting(HUNG));
    let seen = streams.stop()?;
    eprint_line(&format!(
        "connections: {what}: {} of {STREAMS} broke {:?} within {:?}; {} answers, the slowest after {:?}, of a usual connection after {:?}",
        seen.broken(),
        seen.broken,
        seen.slowest_end(),
        seen.answers,
        seen.slowest(),
        seen.typical_slowest()
    ));
    Ok(seen)
}

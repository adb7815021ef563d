//! Open connections through moves of their address, with and without the forwarder: `docs/connections.md`.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::Machine;
use arpeggio_scenarios::{
    EXCLUDE, Home, eprint_line, first_address, install_overlay, pool, service,
};
use serde_json::json;

pub(crate) const NAMESPACE: &str = "arpeggio-system";

/// How many connections are open at once, and how long is between two questions on one.
pub(crate) const STREAMS: usize = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// After so long without an answer a connection counts as broken.
const PATIENCE: Duration = Duration::from_secs(3);

/// Generous: on a machine at rest answers come within some milliseconds.
const LATEST: Duration = Duration::from_secs(1);

/// Long enough for a move and what follows from it.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// Somewhat longer than a speaker takes another one of its node for running that has renewed their session.
const TWIN: Duration = Duration::from_secs(7);

/// What one connection saw.
#[derive(Debug, Clone, Default)]
struct Stream {
    answers: usize,
    slowest: Duration,
    broken: Option<String>,
}

/// What all saw.
pub(crate) struct Seen {
    pub(crate) slowest: Duration,
    /// How many connections broke, by why they did.
    pub(crate) broken: BTreeMap<String, usize>,
}

impl Seen {
    pub(crate) fn broken(&self) -> usize {
        self.broken.values().sum()
    }
}

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
    unbroken(home, "upgrade of all speakers and forwarders", || home.replace_speakers())?;
    one_pod_on_each_node(home)?;
    thread::sleep(TWIN);
    let owner = home.wait_for_owner(first_address())?;
    unbroken(home, "the owner's speaker is asked to stop", || {
        home.stop_container(&home.speaker_on(owner)?, "speaker")?;
        home.wait_for_another_owner(first_address(), owner).map(drop)
    })?;
    killed_forwarders_leave_nothing(home)?;
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

/// A Service with an address of each family, which are announced by one node. Returns that node.
fn serve_both_families(home: &Home) -> anyhow::Result<Machine> {
    home.apply(&pool("home", &["192.168.0.240-192.168.0.250", "fd00:a0::240-fd00:a0::250"]))?;
    home.start_web(2)?;
    let mut both = service("web", "arpeggio.dev/address-pool", "home");
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
    })
}

fn unbroken(
    home: &Home,
    what: &str,
    act: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Seen { broken, slowest } = through(home, what, &home.addresses("web")?, act)?;
    ensure!(broken.is_empty(), "{what}: of {STREAMS} connections broke: {broken:?}");
    ensure!(slowest < LATEST, "{what}: an answer took {slowest:?}");
    Ok(())
}

/// Whoever passes packets on is killed: its rules are gone, and with them the connections that it passed on, at once.
fn killed_forwarders_leave_nothing(home: &Home) -> anyhow::Result<()> {
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
    home.wait_for_page(Machine::Client)
}

/// Keeps connections open while something is done, and for some time afterwards.
pub(crate) fn through(
    home: &Home,
    what: &str,
    addresses: &[IpAddr],
    act: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Seen> {
    let stop = Arc::new(AtomicBool::new(false));
    let streams: Vec<Arc<Mutex<Stream>>> = (0..STREAMS).map(|_| Arc::default()).collect();
    let acted = thread::scope(|scope| {
        for ((number, stream), address) in streams.iter().enumerate().zip(addresses.iter().cycle())
        {
            let (stop, to) = (&stop, SocketAddr::new(*address, 80));
            scope.spawn(move || {
                home.lab.namespace(Machine::Client).enter(|| keep(number, to, stream, stop))
            });
        }
        let acted = wait_until_all_answer(&streams).and_then(|()| act());
        if acted.is_ok() {
            thread::sleep(AFTERWARDS);
        }
        stop.store(true, Ordering::Relaxed);
        acted
    });
    acted.with_context(|| what.to_owned())?;
    let streams: Vec<Stream> = streams
        .iter()
        .map(|it| it.lock().unwrap_or_else(PoisonError::into_inner).clone())
        .collect();
    let mut broken = BTreeMap::new();
    for why in streams.iter().filter_map(|it| it.broken.clone()) {
        *broken.entry(why).or_default() += 1;
    }
    let slowest = streams.iter().map(|it| it.slowest).max().unwrap_or_default();
    let answers: usize = streams.iter().map(|it| it.answers).sum();
    let seen = Seen { slowest, broken };
    eprint_line(&format!(
        "connections: {what}: {} of {STREAMS} broke {:?}; {answers} answers, the slowest after {slowest:?}",
        seen.broken(),
        seen.broken
    ));
    Ok(seen)
}

fn wait_until_all_answer(streams: &[Arc<Mutex<Stream>>]) -> anyhow::Result<()> {
    let begin = Instant::now();
    let is_open =
        |it: &Arc<Mutex<Stream>>| it.lock().unwrap_or_else(PoisonError::into_inner).answers > 3;
    while !streams.iter().all(is_open) {
        ensure!(begin.elapsed() < Duration::from_secs(20), "not every connection could be opened");
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// One connection, on which something is asked again and again, until it breaks or is not needed any more.
fn keep(number: usize, to: SocketAddr, seen: &Mutex<Stream>, stop: &AtomicBool) {
    // Not all at the same moment.
    thread::sleep(
        PAUSE * u32::try_from(number).unwrap_or_default() / u32::try_from(STREAMS).unwrap_or(1),
    );
    let open = || -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    let mut stream = match open() {
        Ok(stream) => stream,
        Err(error) => {
            seen.lock().unwrap_or_else(PoisonError::into_inner).broken = Some(error.to_string());
            return;
        }
    };
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let answer = ask(&mut stream);
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = answer {
            seen.broken = Some(error.to_string());
            return;
        }
        seen.answers += 1;
        seen.slowest = seen.slowest.max(begin.elapsed());
        drop(seen);
        thread::sleep(PAUSE);
    }
}

/// A page over a connection that stays open.
fn ask(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"HEAD / HTTP/1.1\r\nHost: web\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut bytes = [0; 1024];
    while !answer.ends_with(b"\r\n\r\n") {
        match stream.read(&mut bytes)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => answer.extend(bytes.get(..length).unwrap_or_default()),
        }
    }
    if answer.starts_with(b"HTTP/1.1 200") {
        Ok(())
    } else {
        Err(io::Error::other("another answer"))
    }
}

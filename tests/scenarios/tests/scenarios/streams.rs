//! WebSocket and HTTP/3 through planned moves and power cuts, on segments with frames of different sizes:
//! `docs/setups/traffic.md`.

use std::{net::UdpSocket, thread, time::Duration};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Image, Machine};
use arpeggio_link::calls::uninterrupted;
use arpeggio_scenarios::{EXCLUDE, Home, built, eprint_line, first_address};
use serde::Deserialize;

use crate::setups::LONGEST_OUTAGE;

pub(crate) const IMAGE: &str = "lab.local/streams:lab";

/// Where the pod runs, which nothing happens to.
const SERVER: Machine = Machine::Node(3);

/// How many bytes a frame may carry: those of the nodes, and those of the client.
const SEGMENTS: [(u16, u16); 3] = [(9000, 9000), (9000, 1500), (1500, 9000)];

/// What the program calls them.
const PROTOCOLS: [&str; 2] = ["websocket", "http3"];

/// For how many seconds the clients talk, and when the address moves meanwhile.
const WATCHED: u8 = 6;
const MOVE_AFTER: Duration = Duration::from_millis(1500);

pub(crate) fn long_connections_on_any_segment(home: &Home) -> anyhow::Result<()> {
    let streams = Streams::start(home)?;
    for (nodes, client) in SEGMENTS {
        streams.set_frames(nodes, client)?;
        let segment = format!("nodes with {nodes} bytes, the client with {client}");
        let owner = home.wait_for_owner(first_address())?;
        let name = owner.to_string();
        streams.through(&format!("{segment}: a planned move"), || {
            home.lab.kubectl(&["cordon", &name])?;
            home.wait_for_another_owner(first_address(), owner).map(drop)
        })?;
        home.lab.kubectl(&["uncordon", &name])?;
        let owner = home.wait_for_owner(first_address())?;
        streams.through(&format!("{segment}: a power cut"), || {
            Ok(home.lab.power_off(owner).map(drop)?)
        })?;
        home.switch_on(owner)?;
        home.wait_for_session(owner)?;
    }
    Ok(())
}

struct Streams<'a> {
    home: &'a Home,
    program: String,
}

/// What one client saw.
#[derive(Debug, Deserialize)]
pub(crate) struct Seen {
    /// The longest time without an answer.
    pub(crate) longest_ms: u64,
    /// How many connections it began.
    pub(crate) connections: u32,
    pub(crate) answers: u32,
}

impl<'a> Streams<'a> {
    fn start(home: &'a Home) -> anyhow::Result<Self> {
        let program = built("streams")?.join("streams");
        home.lab.import(&[Image::of_static_program(IMAGE, &program)])?;
        home.lab.kubectl(&["label", "node", &SERVER.to_string(), &format!("{EXCLUDE}=true")])?;
        home.add_pool()?;
        home.lab.apply(include_str!("streams.yaml"))?;
        home.lab.wait_for_rollout("default", "deployment/streams", Duration::from_mins(1))?;
        ensure!(home.wait_for_address("streams")? == first_address(), "the first address");
        let streams = Self { home, program: program.to_string_lossy().into_owned() };
        for protocol in PROTOCOLS {
            home.wait_until(&format!("{protocol} is answered"), || {
                match streams.talk(protocol, 1)?.answers {
                    0 => Err("no answer".to_owned().into()),
                    _ => Ok(()),
                }
            })?;
        }
        Ok(streams)
    }

    /// Gives the nodes and the client frames of these sizes, and looks whether they are.
    fn set_frames(&self, nodes: u16, client: u16) -> anyhow::Result<()> {
        let machines = self.home.lab.options().node_machines();
        let sizes = machines.iter().map(|node| (*node, nodes));
        for (machine, bytes) in sizes.chain([(Machine::Client, client)]) {
            self.home.lab.network().set_mtu(machine, bytes)?;
        }
        let fits = self.is_echoed_whole()?;
        ensure!(fits == (nodes == client), "a jumbo frame comes and goes: {fits}");
        Ok(())
    }

    /// Whether a datagram that fills a jumbo frame gets to the server and back. Who has small frames sends it in pieces.
    fn is_echoed_whole(&self) -> anyhow::Result<bool> {
        let datagram = [0; 8972];
        let open = |machine: Machine| {
            let address = machine.lan_v4().context("the machine has an address")?;
            let socket =
                self.home.lab.namespace(machine).enter(|| UdpSocket::bind((address, 0)))?;
            let socket = socket.context("cannot open a socket")?;
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            anyhow::Ok(socket)
        };
        let (server, client) = (open(SERVER)?, open(Machine::Client)?);
        client.send_to(&datagram, server.local_addr()?)?;
        let mut buffer = datagram;
        let received = uninterrupted(|| server.recv_from(&mut buffer));
        let Ok((_, back)) = received else { return Ok(false) };
        server.send_to(&datagram, back)?;
        Ok(uninterrupted(|| client.recv(&mut buffer)).is_ok())
    }

    /// Moves the address while both clients talk.
    fn through(&self, what: &str, act: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let seen = thread::scope(|scope| {
            let talk = |protocol| scope.spawn(move || self.talk(protocol, WATCHED));
            let clients = PROTOCOLS.map(talk);
            thread::sleep(MOVE_AFTER);
            act()?;
            let joined = clients.into_iter().map(|client| client.join().ok());
            joined.collect::<Option<Vec<_>>>().context("a client has panicked")
        })?;
        for (protocol, seen) in PROTOCOLS.iter().zip(seen) {
            let seen = seen?;
            eprint_line(&format!(
                "streams: {what}: {protocol} without an answer for {} ms, {} connections, {} answers",
                seen.longest_ms, seen.connections, seen.answers
            ));
            let short = Duration::from_millis(seen.longest_ms) < LONGEST_OUTAGE;
            ensure!(short, "{what}: {protocol} was without an answer for too long: {seen:?}");
        }
        Ok(())
    }

    fn talk(&self, protocol: &str, seconds: u8) -> anyhow::Result<Seen> {
        let (address, seconds) = (first_address().to_string(), seconds.to_string());
        let client = self.home.lab.namespace(Machine::Client);
        let saw = client.run(&self.program, &[protocol, &address, &seconds])?;
        serde_json::from_str(&saw).with_context(|| format!("what a client saw: {saw}"))
    }
}

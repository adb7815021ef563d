//! Programs that people use, with connections of their own, through a drain with the forwarder.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Image, Machine, image};
use arpeggio_scenarios::{Home, built, eprint_line, first_address};

use crate::streams;

const SSH_IMAGE: &str = "lab.local/ssh:lab";

/// How many of each there are at once.
const CLIENTS: usize = 10;

/// How long is between an answer and the next question.
const PAUSE: Duration = Duration::from_millis(50);

/// Without an answer for so long one by WebSocket counts as broken, as SSH does.
const PATIENCE: &str = "10s";

/// For how many seconds clients talk by WebSocket.
const WATCHED: u8 = 20;

/// The pods and Services, at the address that everything else has.
pub(crate) fn start(home: &Home) -> anyhow::Result<()> {
    let programs = ["sh", "sshd", "ssh-keygen", "mkdir", "cat"];
    let ssh = image::of_host_programs(SSH_IMAGE, &programs)?;
    let websocket = Image::of_static_program(streams::IMAGE, &program()?);
    home.lab.import(&[ssh, websocket])?;
    home.lab.apply(include_str!("clients.yaml"))?;
    for name in ["ssh", "websocket"] {
        let deployment = format!("deployment/{name}");
        home.lab.wait_for_rollout("default", &deployment, Duration::from_mins(1))?;
        ensure!(home.wait_for_address(name)? == first_address(), "they share an address");
    }
    home.wait_until("SSH and WebSocket are answered", || {
        let seen = talk(home, 1, || {
            thread::sleep(Duration::from_millis(500));
            Ok(())
        })?;
        if seen.is_whole() { Ok(()) } else { Err(format!("{seen:?}").into()) }
    })
}

fn program() -> anyhow::Result<std::path::PathBuf> {
    Ok(built("streams")?.join("streams"))
}

/// What the clients saw.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The answers of each SSH session, and whether it was open to the end.
    ssh: Vec<(usize, bool)>,
    /// What each client saw by WebSocket.
    websocket: Vec<streams::Seen>,
}

impl Seen {
    /// Whether no connection broke.
    pub(crate) fn is_whole(&self) -> bool {
        self.ssh.iter().all(|(answers, is_open)| *answers > 0 && *is_open)
            && self.websocket.iter().all(|it| it.connections == 1 && it.answers > 0)
    }
}

/// Has all of them talk while something is done.
pub(crate) fn through(
    home: &Home,
    what: &str,
    act: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let seen = talk(home, WATCHED, || {
        let begin = Instant::now();
        thread::sleep(Duration::from_secs(2));
        act()?;
        let took = begin.elapsed();
        ensure!(took < Duration::from_secs((WATCHED - 2).into()), "it took {took:?}");
        Ok(())
    })?;
    let answers: usize = seen.ssh.iter().map(|(answers, _)| answers).sum();
    let longest = seen.websocket.iter().map(|it| it.longest_ms).max().unwrap_or_default();
    eprint_line(&format!(
        "clients: {what}: {} SSH sessions with {answers} answers, {} WebSockets that waited {longest} ms at most: whole: {}",
        seen.ssh.len(),
        seen.websocket.len(),
        seen.is_whole()
    ));
    ensure!(seen.is_whole(), "{what}: {seen:?}");
    Ok(())
}

fn talk(
    home: &Home,
    seconds: u8,
    act: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Seen> {
    let (stop, settled) = (&AtomicBool::new(false), &AtomicUsize::new(0));
    thread::scope(|scope| {
        let sessions: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(move || by_ssh(home, stop, settled))).collect();
        wait_until_settled(settled);
        let program = program()?;
        let program = program.to_string_lossy();
        let program: &str = &program;
        let sockets: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let program = program.to_owned();
                scope.spawn(move || by_websocket(home, &program, seconds))
            })
            .collect();
        let acted = act();
        let joined = sockets.into_iter().map(|it| it.join().ok().context("a client panicked")?);
        let websocket = joined.collect::<anyhow::Result<Vec<_>>>();
        stop.store(true, Ordering::Relaxed);
        let joined = sessions.into_iter().map(|it| it.join().ok().context("a client panicked")?);
        let ssh = joined.collect::<anyhow::Result<Vec<_>>>()?;
        acted?;
        Ok(Seen { ssh, websocket: websocket? })
    })
}

/// Each session is open, or could not be opened, which is seen in the end.
fn wait_until_settled(settled: &AtomicUsize) {
    let begin = Instant::now();
    while settled.load(Ordering::Relaxed) < CLIENTS && begin.elapsed() < Duration::from_secs(20) {
        thread::sleep(PAUSE);
    }
}

fn by_websocket(home: &Home, program: &str, seconds: u8) -> anyhow::Result<streams::Seen> {
    let server = format!("{}:8080", first_address());
    let client = home.lab.namespace(Machine::Client);
    let saw = client.run(program, &["websocket", &server, &seconds.to_string(), PATIENCE])?;
    serde_json::from_str(&saw).with_context(|| format!("what a client saw: {saw}"))
}

/// One session, in which lines are sent back. Debian's client ends by itself when its server says nothing for ten seconds.
fn by_ssh(home: &Home, stop: &AtomicBool, settled: &AtomicUsize) -> anyhow::Result<(usize, bool)> {
    let mut command = Command::new("ssh");
    command.args(["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]);
    command.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
    command.args(["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=10"]);
    command.args([&format!("root@{}", first_address()), "cat"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = home.lab.namespace(Machine::Client).spawn(&mut command)?;
    let seen = lines_come_back(&mut child, stop, settled);
    if !matches!(seen, Ok((1.., _))) {
        settled.fetch_add(1, Ordering::Relaxed);
    }
    child.kill()?;
    child.wait()?;
    seen
}

fn lines_come_back(
    child: &mut Child,
    stop: &AtomicBool,
    settled: &AtomicUsize,
) -> anyhow::Result<(usize, bool)> {
    let mut to = child.stdin.take().context("its input")?;
    let mut from = BufReader::new(child.stdout.take().context("its output")?);
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut line = String::new();
        let sent = to.write_all(b"a line\n").and_then(|()| from.read_line(&mut line));
        if sent.is_err() || line != "a line\n" {
            return Ok((answers, false));
        }
        answers += 1;
        if answers == 1 {
            settled.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(PAUSE);
    }
    Ok((answers, true))
}

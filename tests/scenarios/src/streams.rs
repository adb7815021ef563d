//! A hundred connections that stay open, on each of which something is asked again and again.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::namespace::Namespace;
use arpeggio_link::calls::uninterrupted;
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

/// How many connections are open at once.
pub const STREAMS: usize = 100;

/// How long is between an answer and the next question on one.
const PAUSE: Duration = Duration::from_millis(50);

/// A client that has waited for so long asks whether the other side is there, as people's programs do, if seldom so soon. One whose
/// question has arrived, and whose answer is lost with a node, has nothing else to send: nobody could tell it anything.
const KEEPALIVE: Duration = Duration::from_secs(1);

/// What all of them saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamsSeen {
    /// How many got an answer at all.
    pub opened: usize,
    /// How many of those broke, by why they did.
    pub broken: BTreeMap<String, usize>,
    /// All answers.
    pub answers: usize,
    /// How long the slowest answer took, in milliseconds.
    pub slowest_ms: u64,
    /// The slowest answer of each connection: half of the connections had none that took longer, in milliseconds. A packet that is
    /// lost makes one connection slow, a move that stalls makes all of them slow.
    #[serde(default)]
    pub typical_slowest_ms: u64,
    /// How long after its question the last of those that broke did, in milliseconds.
    #[serde(default)]
    pub slowest_end_ms: u64,
}

impl StreamsSeen {
    /// How many of those that were open broke.
    pub fn broken(&self) -> usize {
        self.broken.values().sum()
    }

    /// How long the slowest answer took.
    pub fn slowest(&self) -> Duration {
        Duration::from_millis(self.slowest_ms)
    }

    /// How long the slowest answer of a usual connection took.
    pub fn typical_slowest(&self) -> Duration {
        Duration::from_millis(self.typical_slowest_ms)
    }

    /// How long the last of those that broke waited.
    pub fn slowest_end(&self) -> Duration {
        Duration::from_millis(self.slowest_end_ms)
    }
}

/// What one connection saw.
#[derive(Debug, Clone, Default)]
struct Stream {
    /// The client's end. `None`: it was not open yet.
    client: Option<SocketAddr>,
    /// When the question was asked that waits for an answer.
    asked: Option<Instant>,
    answers: usize,
    slowest: Duration,
    broken: Option<Broken>,
}

/// How one ended.
#[derive(Debug, Clone)]
struct Broken {
    why: String,
    /// Since the question that was not answered.
    after: Duration,
}

impl Broken {
    fn new(error: &impl ToString, begin: Instant) -> Self {
        Self { why: error.to_string(), after: begin.elapsed() }
    }
}

/// Connections that are open. Dropping it ends them, without a result.
#[derive(Debug)]
pub struct Streams {
    stop: Arc<AtomicBool>,
    each: Vec<Arc<Mutex<Stream>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Streams {
    /// Opens them from inside a namespace, to these servers in turn. One that waits longer than `patience` for an answer is
    /// broken. `ports`: from these ports, one each. `None`: from any.
    pub fn start(
        from: &Namespace,
        servers: &[SocketAddr],
        ports: Option<RangeInclusive<u16>>,
        patience: Duration,
    ) -> Self {
        let ports: Vec<u16> = ports.map_or_else(|| vec![0; STREAMS], Iterator::collect);
        let stop = Arc::new(AtomicBool::new(false));
        let streams: Vec<Arc<Mutex<Stream>>> = (0..STREAMS).map(|_| Arc::default()).collect();
        let of = |number: usize, stream: &Arc<Mutex<Stream>>, ends: (SocketAddr, u16)| {
            let (stream, stop, from) = (Arc::clone(stream), Arc::clone(&stop), from.clone());
            thread::spawn(move || {
                let begin = Instant::now();
                if let Err(error) = from.enter(|| keep(number, ends, patience, &stream, &stop)) {
                    locked(&stream).broken = Some(Broken::new(&error, begin));
                }
            })
        };
        let ends = servers.iter().copied().cycle().zip(ports);
        let each = streams.iter().enumerate().zip(ends);
        let threads = each.map(|((number, stream), ends)| of(number, stream, ends)).collect();
        Self { stop, each: streams, threads }
    }

    /// Waits until each has got some answers.
    ///
    /// # Errors
    /// When that lasts too long.
    pub fn wait_until_open(&self) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !self.each.iter().all(|it| locked(it).answers > 3) {
            let seen = || self.each.iter().map(|it| locked(it).clone()).collect::<Vec<_>>();
            ensure!(
                begin.elapsed() < Duration::from_secs(20),
                "not every connection could be opened: {:?}",
                seen().iter().find(|it| it.answers <= 3)
            );
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// The clients' ends of those that have waited for so long.
    pub fn waiting(&self, time: Duration) -> Vec<SocketAddr> {
        let waits = |stream: &Stream| {
            let is_long = stream.broken.is_none() && stream.asked?.elapsed() >= time;
            stream.client.filter(|_| is_long)
        };
        self.each.iter().filter_map(|it| waits(&locked(it))).collect()
    }

    /// Ends them, and says what they saw.
    ///
    /// # Errors
    /// When a client has panicked.
    pub fn stop(mut self) -> anyhow::Result<StreamsSeen> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut self.threads) {
            thread.join().ok().context("a client has panicked")?;
        }
        let streams: Vec<Stream> = self.each.iter().map(|it| locked(it).clone()).collect();
        let opened: Vec<&Stream> = streams.iter().filter(|it| it.answers > 0).collect();
        let ends: Vec<&Broken> = opened.iter().filter_map(|it| it.broken.as_ref()).collect();
        let mut broken = BTreeMap::new();
        for end in &ends {
            *broken.entry(end.why.clone()).or_default() += 1;
        }
        Ok(StreamsSeen {
            opened: opened.len(),
            broken,
            answers: opened.iter().map(|it| it.answers).sum(),
            slowest_ms: longest(opened.iter().map(|it| it.slowest)),
            typical_slowest_ms: median(opened.iter().map(|it| it.slowest)),
            slowest_end_ms: longest(ends.iter().map(|it| it.after)),
        })
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// In milliseconds; none is 0.
fn longest(times: impl Iterator<Item = Duration>) -> u64 {
    milliseconds(times.max())
}

/// In milliseconds; none is 0.
fn median(times: impl Iterator<Item = Duration>) -> u64 {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    milliseconds(times.get(times.len() / 2).copied())
}

fn milliseconds(time: Option<Duration>) -> u64 {
    u64::try_from(time.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

fn locked(stream: &Mutex<Stream>) -> MutexGuard<'_, Stream> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection, until it breaks or is not needed any more.
fn keep(
    number: usize,
    ends: (SocketAddr, u16),
    patience: Duration,
    seen: &Mutex<Stream>,
    stop: &AtomicBool,
) {
    // Not all at the same moment.
    thread::sleep(
        PAUSE * u32::try_from(number).unwrap_or_default() / u32::try_from(STREAMS).unwrap_or(1),
    );
    let begin = Instant::now();
    let mut stream = match open(ends, patience) {
        Ok(stream) => stream,
        Err(error) => {
            locked(seen).broken = Some(Broken::new(&error, begin));
            return;
        }
    };
    locked(seen).client = stream.local_addr().ok();
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        locked(seen).asked = Some(begin);
        let answer = ask(&mut stream);
        let mut seen = locked(seen);
        seen.asked = None;
        if let Err(error) = answer {
            seen.broken = Some(Broken::new(&error, begin));
            return;
        }
        seen.answers += 1;
        seen.slowest = seen.slowest.max(begin.elapsed());
        drop(seen);
        thread::sleep(PAUSE);
    }
}

fn open(ends: (SocketAddr, u16), patience: Duration) -> io::Result<TcpStream> {
    let stream = connect_from(ends, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

/// A connection from a port of this machine to a server. From port 0: from any.
///
/// # Errors
/// When the port is taken, and when the server does not answer.
pub fn connect_from((to, port): (SocketAddr, u16), patience: Duration) -> io::Result<TcpStream> {
    let own: IpAddr =
        if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    if port != 0 {
        socket.bind(&SocketAddr::new(own, port).into())?;
    }
    socket.connect_timeout(&to.into(), patience)?;
    Ok(socket.into())
}

/// A page over a connection that stays open.
fn ask(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"HEAD / HTTP/1.1\r\nHost: web\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut bytes = [0; 1024];
    while !answer.ends_with(b"\r\n\r\n") {
        match uninterrupted(|| stream.read(&mut bytes))? {
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

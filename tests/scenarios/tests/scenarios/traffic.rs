//! What people send to addresses beside short TCP connections, through a planned move and a power cut:
//! `docs/setups/traffic.md`.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Machine, image, observe::longest_silence};
use arpeggio_link::calls::uninterrupted;
use arpeggio_scenarios::{Home, eprint_line, first_address, program};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::setups::{LONGEST_OUTAGE, Setup};

/// How long the clients go on, and when the address moves meanwhile.
const WATCHED: Duration = Duration::from_secs(8);
const MOVE_AFTER: Duration = Duration::from_secs(2);

/// How long a question may take, and how long is between two.
const PATIENCE: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(20);

/// `www.example.com. IN A`, with its number in the first two bytes.
const QUESTION: &[u8; 33] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01";

/// What the answer ends with: 192.0.2.80.
const ANSWER: [u8; 4] = [192, 0, 2, 80];

const DNS_IMAGE: &str = "lab.local/dns:lab";
const DOWNLOAD_IMAGE: &str = "lab.local/download:lab";

/// A DNS server by UDP and TCP, and a long download from the same address.
pub(crate) fn all_kinds_of_traffic_outlive_a_move(home: &Home) -> anyhow::Result<()> {
    say_what_the_kernel_has();
    let file = program("arpeggio")?;
    let dns = image::of_host_programs(DNS_IMAGE, &["named"])?;
    let web = image::of_host_programs(DOWNLOAD_IMAGE, &["nginx", "sh"])?;
    home.lab.import(&[dns, web.with_file("/usr/share/nginx/html/file", &file)])?;
    home.add_pool()?;
    let page = Setup::new(home, "traffic")?;
    page.apply_with("dns.yaml", "internetsystemsconsortium/bind9:9.18", DNS_IMAGE)?;
    page.apply_with("download.yaml", "nginx", DOWNLOAD_IMAGE)?;
    for deployment in ["dns", "download"] {
        page.wait_for_rollout(deployment)?;
        ensure!(home.wait_for_address(deployment)? == first_address(), "both share an address");
    }
    let traffic = Traffic { home, original: fs::read(file)? };

    let owner = home.wait_for_owner(first_address())?;
    home.keep_pods_off("dns", owner)?;
    home.keep_pods_off("download", owner)?;
    let planned = traffic.through("a planned move", || {
        home.lab.kubectl(&["cordon", &owner.to_string()])?;
        home.wait_for_another_owner(first_address(), owner).map(drop)
    })?;
    planned.judge()?;

    home.lab.kubectl(&["uncordon", &owner.to_string()])?;
    let owner = home.wait_for_owner(first_address())?;
    home.keep_pods_off("dns", owner)?;
    home.keep_pods_off("download", owner)?;
    let cut = traffic.through("a power cut", || Ok(home.lab.power_off(owner).map(drop)?))?;
    cut.judge()
}

/// SCTP takes support in the kernel; where there is none, that is said, and nothing about SCTP.
fn say_what_the_kernel_has() {
    let sctp =
        socket(AddressFamily::Inet, SockType::SeqPacket, SockFlag::empty(), SockProtocol::Sctp);
    if let Err(error) = sctp {
        eprint_line(&format!(
            "traffic: THIS KERNEL HAS NO SCTP ({error}): Services of that protocol are NOT tested"
        ));
    }
}

struct Traffic<'a> {
    home: &'a Home,
    /// What is downloaded.
    original: Vec<u8>,
}

/// What clients saw while the address moved.
#[derive(Debug)]
struct Seen {
    /// The longest time without an answer: by UDP, each time from another port; by UDP, always from the same one; by TCP.
    outages: [Duration; 3],
    /// How often the download was begun or gone on with.
    attempts: u32,
    download: Duration,
}

impl Seen {
    fn judge(&self) -> anyhow::Result<()> {
        let short = self.outages.iter().all(|outage| *outage < LONGEST_OUTAGE);
        ensure!(short, "somebody was without an answer for too long: {self:?}");
        Ok(())
    }
}

impl Traffic<'_> {
    /// Moves the address while everything is used.
    fn through(
        &self,
        what: &str,
        act: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Seen> {
        self.home.wait_until("the DNS server answers by UDP and TCP", || {
            let answered = self.in_client(|| ask_by_udp().and_then(|()| ask_by_tcp()));
            Ok(answered?.map_err(anyhow::Error::from)?)
        })?;
        let begin = Instant::now();
        let end = begin + WATCHED;
        let seen = thread::scope(|scope| {
            let by_udp = scope.spawn(|| self.in_client(|| answers(end, ask_by_udp)));
            let from_one_port = scope.spawn(|| self.in_client(|| answers_to_one_port(end)));
            let by_tcp = scope.spawn(|| self.in_client(|| answers(end, ask_by_tcp)));
            let download = scope.spawn(|| self.download());
            thread::sleep(MOVE_AFTER);
            act()?;
            let mut outages = [Duration::ZERO; 3];
            for (outage, client) in outages.iter_mut().zip([by_udp, from_one_port, by_tcp]) {
                let answers = client.join().ok().context("a client has panicked")??;
                *outage = longest_silence(answers, begin, end).length();
            }
            let download = download.join().ok().context("the download has panicked")?;
            let (attempts, download) = download?;
            anyhow::Ok(Seen { outages, attempts, download })
        })?;
        let [by_udp, from_one_port, by_tcp] = seen.outages;
        eprint_line(&format!(
            "traffic: {what}: without an answer by UDP for {by_udp:?}, by UDP from one port for {from_one_port:?}, by TCP for {by_tcp:?}; \
             the download was whole after {:?} in {} attempts",
            seen.download, seen.attempts
        ));
        Ok(seen)
    }

    fn in_client<T: Send>(&self, act: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        Ok(self.home.lab.namespace(Machine::Client).enter(act)?)
    }

    /// Downloads until the file is whole, as a download manager does: after a break it asks for the rest.
    fn download(&self) -> anyhow::Result<(u32, Duration)> {
        let file = self.home.lab.folders().kubeconfig().with_file_name("download");
        let _ = fs::remove_file(&file);
        let begin = Instant::now();
        let file_text = file.to_string_lossy();
        let url = format!("http://{}/file", first_address());
        // As slow as a line to the internet, so that it lasts while the address moves.
        let slow = ["--limit-rate", "2M", "--connect-timeout", "1"];
        let given_up = ["--speed-limit", "1000", "--speed-time", "3"];
        let rest = ["--silent", "--fail", "--continue-at", "-", "--output", &file_text, &url];
        let args = [&slow[..], &given_up, &rest].concat();
        for attempt in 1..60 {
            if self.home.lab.namespace(Machine::Client).run("curl", &args).is_ok() {
                ensure!(fs::read(&file)? == self.original, "the download is another file");
                return Ok((attempt, begin.elapsed()));
            }
            thread::sleep(Duration::from_millis(200));
        }
        anyhow::bail!("the download is not whole after {:?}", begin.elapsed())
    }
}

fn server() -> SocketAddr {
    (first_address(), 53).into()
}

/// When questions were answered, one after the other, until `end`.
fn answers(end: Instant, ask: fn() -> io::Result<()>) -> Vec<Instant> {
    let mut answers = Vec::new();
    while Instant::now() < end {
        if ask().is_ok() {
            answers.push(Instant::now());
        }
        thread::sleep(PAUSE);
    }
    answers
}

/// The same by UDP, always from the same port, as a telephone does or QUIC.
fn answers_to_one_port(end: Instant) -> Vec<Instant> {
    let mut answers = Vec::new();
    let Ok(socket) = connected() else { return answers };
    let mut number = 0;
    while Instant::now() < end {
        number += 1;
        if ask_on(&socket, number).is_ok() {
            answers.push(Instant::now());
        }
        thread::sleep(PAUSE);
    }
    answers
}

fn ask_by_udp() -> io::Result<()> {
    ask_on(&connected()?, 1)
}

fn connected() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Asks, and waits for the answer to this question: an earlier one may come late.
fn ask_on(socket: &UdpSocket, number: u16) -> io::Result<()> {
    let question = question(number);
    socket.send(&question)?;
    let mut answer = [0; 512];
    loop {
        let length = uninterrupted(|| socket.recv(&mut answer))?;
        let answer = answer.get(..length).unwrap_or_default();
        if answer.starts_with(&number.to_be_bytes()) {
            return is_answer(answer);
        }
    }
}

fn ask_by_tcp() -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&server(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let question = question(1);
    let length = u16::try_from(question.len()).unwrap_or_default();
    stream.write_all(&[&length.to_be_bytes()[..], &question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    is_answer(&answer)
}

fn question(number: u16) -> Vec<u8> {
    let [_, _, rest @ ..] = QUESTION;
    [&number.to_be_bytes()[..], rest].concat()
}

fn is_answer(answer: &[u8]) -> io::Result<()> {
    let found = answer.windows(ANSWER.len()).any(|bytes| bytes == ANSWER);
    if found { Ok(()) } else { Err(io::Error::other("another answer")) }
}

//! An interface without a link-local IPv6 address: the kernel has nothing to report group memberships from.

use std::{
    io::{self, Write},
    net::{Ipv6Addr, UdpSocket},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use arpeggio_wire::{Asker, MacAddr, NdpFrame, Question, solicited_node};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Speaker, ndp_client, next, pair};

/// A name that no other test uses: all log to one place.
const INTERFACE: &str = "mute0";
const ADDRESS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 0x10);
const PATIENCE: Duration = Duration::from_secs(10);

/// What the speakers of all tests have said.
static SAID: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        SAID.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whether the speaker has said something about the interface.
fn is_said(words: &str) -> bool {
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let said = String::from_utf8_lossy(&said);
    said.lines().any(|line| line.contains(INTERFACE) && line.contains(words))
}

/// Hears the group reports on the segment (RFC 3810 section 5.2.14). The type stands for any socket that tells senders.
fn hear_reports(index: u32) -> UdpSocket {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
    socket.join_multicast_v6(&Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16), index).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    socket.into()
}

/// Whether the next message is a report of the address's group from `source`.
fn is_reported(reports: &UdpSocket, source: Ipv6Addr) -> bool {
    const REPORT: u8 = 143;
    let mut message = [0; 1500];
    let Ok((length, from)) = reports.recv_from(&mut message) else { return false };
    let group = solicited_node(ADDRESS).octets();
    message[0] == REPORT
        && from.ip() == source
        && message[..length].windows(group.len()).any(|it| it == group)
}

#[test]
fn a_missing_link_local_address_is_told_and_its_coming_too() {
    let Some(pair) = pair() else { return };
    tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).init();
    let mac: MacAddr = "02:00:00:00:00:80".parse().unwrap();
    pair.here
        .ip(&format!("link add link eth0 name {INTERFACE} address {mac} type macvlan mode bridge"));
    pair.here.ip(&format!("link set {INTERFACE} addrgenmode none"));
    pair.here.ip(&format!("address add 2001:db8:7::1/64 dev {INTERFACE} nodad"));
    pair.here.ip(&format!("link set {INTERFACE} up"));
    let speaker = Speaker::start(&pair.here);
    let client = ndp_client(&pair, [ADDRESS]);
    speaker.announce([ADDRESS.into()]);
    wait_until("warning", || is_said("no link-local IPv6 address"));

    // Switches aside, it can be reached.
    let asker = Asker {
        mac: pair.there.link().1,
        address: Some(Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 2)),
    };
    let question = Question { address: ADDRESS, asker }.multicast().to_bytes();
    wait_until("answer", || {
        client.send(&question).unwrap();
        let frame = next(&client, Instant::now() + Duration::from_millis(100));
        frame.is_some_and(|it| {
            NdpFrame::parse(&it).is_ok_and(|it| it.destination == asker.mac && it.source == mac)
        })
    });

    let (index, source) = (pair.there.link().0, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x80));
    let reports = pair.there.run(|| hear_reports(index));
    pair.here.ip(&format!("address add {source}/64 dev {INTERFACE} nodad"));
    wait_until("report", || is_reported(&reports, source));
    wait_until("word", || is_said("there is a link-local IPv6 address now"));
}

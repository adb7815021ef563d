//! Packet sockets between two kernels.
#![cfg(test)]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::thread::JoinHandleExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arpeggio_link::filter::ArpFilter;
use arpeggio_link::packet::{ArpSocket, Inbox, RECEIVE_TIMEOUT, SocketError};
use arpeggio_wire::{ArpFrame, ArpOperation, Asker, Claim, MacAddr, Question};
use nix::sys::pthread::pthread_kill;
use nix::sys::signal::Signal;

mod namespace;
use namespace::{Namespace, Pair, eventually};

const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
const STRANGER: MacAddr = MacAddr(0x02, 0, 0, 0, 0, 0x99);

fn set(addresses: &[Ipv4Addr]) -> BTreeSet<Ipv4Addr> {
    addresses.iter().copied().collect()
}

fn filter() -> ArpFilter {
    ArpFilter { ours: set(&[OURS]), peers: set(&[THERE]) }
}

impl Namespace {
    fn socket(&self, filter: &ArpFilter) -> ArpSocket {
        let index = self.link().0;
        self.run(|| ArpSocket::open(index, filter)).unwrap()
    }
}

/// The next frame, or `None` if there is none for the time-out.
fn next(socket: &ArpSocket) -> Option<ArpFrame> {
    let mut buffer = [0; 128];
    let length = socket.recv(&mut buffer).unwrap()?;
    Some(ArpFrame::parse(&buffer[..length]).unwrap())
}

/// The next frame, which has to come.
fn come(socket: &ArpSocket) -> ArpFrame {
    let begin = Instant::now();
    loop {
        assert!(begin.elapsed() < Duration::from_secs(30), "no frame comes");
        if let Some(frame) = next(socket) {
            return frame;
        }
    }
}

fn question(address: Ipv4Addr) -> ArpFrame {
    let asker = Asker { mac: STRANGER, address: Some(Ipv4Addr::new(192, 0, 2, 50)) };
    Question { address, asker }.broadcast()
}

fn claim(address: Ipv4Addr, operation: ArpOperation) -> ArpFrame {
    let mac = STRANGER;
    Claim { address, mac }.announcement(operation)
}

/// The frame with a VLAN tag (IEEE 802.1Q).
fn tagged(frame: &ArpFrame, tag: u16) -> Vec<u8> {
    let mut bytes = frame.to_bytes().to_vec();
    let [high, low] = tag.to_be_bytes();
    bytes.splice(12..12, [0x81, 0x00, high, low]);
    bytes
}

#[test]
fn exactly_the_wanted_frames_arrive() {
    let Some(pair) = Pair::new() else { return };
    // Now the interface hears frames for other machines too.
    pair.here.ip("link set eth0 promisc on");
    let listener = pair.here.socket(&filter());
    let sender = pair.there.socket(&ArpFilter::default());
    let probe = ArpFrame { sender_protocol: Ipv4Addr::UNSPECIFIED, ..question(OURS) };
    let wanted = [
        question(OURS),
        probe,
        claim(OURS, ArpOperation::Request),
        claim(OURS, ArpOperation::Reply),
        claim(THERE, ArpOperation::Reply),
    ];
    let unwanted = [
        question(OTHER),
        ArpFrame { destination: STRANGER, ..question(OURS) },
        claim(OTHER, ArpOperation::Reply),
        claim(THERE, ArpOperation::Request),
    ];
    // Our own announcement must not come back to us.
    listener.send(&claim(OURS, ArpOperation::Request).to_bytes()).unwrap();
    for frame in unwanted.iter().chain(&wanted) {
        sender.send(&frame.to_bytes()).unwrap();
    }
    sender.send(&tagged(&question(OURS), 5)).unwrap();
    sender.send(&question(OURS).to_bytes()[..41]).unwrap();
    let heard = wanted.map(|_| come(&listener));
    assert_eq!(heard, wanted);
    assert_eq!(next(&listener), None);
}

#[test]
fn a_priority_tag_names_no_other_network() {
    let Some(pair) = Pair::new() else { return };
    let listener = pair.here.socket(&filter());
    let sender = pair.there.socket(&ArpFilter::default());
    sender.send(&tagged(&question(OURS), 0xe000)).unwrap();
    assert_eq!(come(&listener), question(OURS));
}

/// The kernel shows such a frame to the sockets of the interface below, too.
#[test]
fn frames_for_an_interface_on_top_are_not_ours() {
    let Some(pair) = Pair::new() else { return };
    let on_top = MacAddr(0x02, 0, 0, 0, 0, 0x77);
    pair.here.ip("link add link eth0 name top0 type macvlan mode bridge");
    pair.here.ip(&format!("link set top0 address {on_top} up"));
    let listener = pair.here.socket(&filter());
    let sender = pair.there.socket(&ArpFilter::default());
    sender.send(&ArpFrame { destination: on_top, ..question(OURS) }.to_bytes()).unwrap();
    sender.send(&question(OURS).to_bytes()).unwrap();
    assert_eq!(come(&listener), question(OURS), "the broadcast");
    assert_eq!(next(&listener), None);
}

#[test]
fn a_card_that_leaves_out_too_much_is_told_to_let_everything_in() {
    let Some(pair) = Pair::new() else { return };
    let listener = pair.here.socket(&filter());
    let shown = || pair.here.ip("-details link show eth0");
    // Before Linux 6.0 the second count is not told.
    let counts = |times: u8| {
        let shown = shown();
        shown.contains(&format!("promiscuity {times} "))
            && (!shown.contains("allmulti") || shown.contains(&format!("allmulti {times} ")))
    };
    assert!(counts(0), "{}", shown());
    listener.hear_everything().unwrap();
    assert!(counts(1), "{}", shown());
    let sender = pair.there.socket(&ArpFilter::default());
    sender.send(&ArpFrame { destination: STRANGER, ..question(OURS) }.to_bytes()).unwrap();
    assert_eq!(next(&listener), None, "it is still for another machine");
    drop(listener);
    assert!(eventually(|| counts(0)), "{}", shown());
}

/// If a socket could receive before its filter is in place, some of these would.
#[test]
fn nothing_is_queued_before_the_filter() {
    let Some(pair) = Pair::new() else { return };
    let sender = pair.there.socket(&ArpFilter::default());
    let done = AtomicBool::new(false);
    let (opened, sent) = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let frame = question(OTHER).to_bytes();
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                // A machine that is busy has no room for some of them.
                sent += u32::from(sender.send(&frame).is_ok());
            }
            sent
        });
        let opened: Vec<_> = (0..50).map(|_| pair.here.socket(&filter())).collect();
        done.store(true, Ordering::Relaxed);
        (opened, flood.join().unwrap())
    });
    println!("{} sockets opened under {sent} frames", opened.len());
    assert!(sent > 200, "only {sent} frames were sent meanwhile");
    // One more frame, wanted: it must be the first that anybody has.
    assert!(eventually(|| sender.send(&question(OURS).to_bytes()).is_ok()));
    for listener in &opened {
        assert_eq!(come(listener), question(OURS));
    }
}

#[test]
fn a_new_filter_takes_effect_at_once() {
    let Some(pair) = Pair::new() else { return };
    let listener = pair.here.socket(&filter());
    let sender = pair.there.socket(&ArpFilter::default());
    let other = ArpFilter { ours: set(&[OTHER]), ..ArpFilter::default() };
    listener.set_filter(&other).unwrap();
    for address in [OURS, OTHER] {
        sender.send(&question(address).to_bytes()).unwrap();
    }
    assert_eq!(come(&listener), question(OTHER));
    assert_eq!(next(&listener), None);
}

#[test]
fn the_neighbours_kernel_answers_a_unicast_request() {
    let Some(pair) = Pair::new() else { return };
    let ((_, here), (_, there)) = (pair.here.link(), pair.there.link());
    let socket = pair.here.socket(&filter());
    let asker = Asker { mac: here, address: Some(HERE) };
    let address = THERE;
    let start = Instant::now();
    let request = Question { address, asker }.unicast(there);
    socket.send(&request.to_bytes()).unwrap();
    let answer = come(&socket);
    println!("answered after {:?}", start.elapsed());
    let mac = there;
    assert_eq!(answer.claim(), Some(Claim { address, mac }));
    assert_eq!(answer.destination, here);
}

#[test]
fn the_neighbours_kernel_believes_our_answer() {
    let Some(pair) = Pair::new() else { return };
    let mac = pair.here.link().1;
    let socket = pair.here.socket(&filter());
    let client = pair.there.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    client.send_to(b"hello", (OURS, 9)).unwrap();
    let question = come(&socket).question().unwrap();
    assert_eq!(question.address, OURS);
    socket.send(&question.answer(mac).to_bytes()).unwrap();
    let neighbour = || pair.there.ip(&format!("neighbour show {OURS}"));
    let expected = format!("lladdr {mac} REACHABLE");
    assert!(eventually(|| neighbour().contains(&expected)), "{}", neighbour());
}

/// Kernels before 6.8 have this little memory for filters by default.
#[test]
fn a_filter_that_does_not_fit_becomes_coarser() {
    let Some(pair) = Pair::new() else { return };
    let limit = "/proc/sys/net/core/optmem_max";
    // Older kernels do not show the limit in a namespace, and need not be told.
    pair.here.run(|| {
        if std::fs::exists(limit).unwrap() {
            std::fs::write(limit, "20480").unwrap();
        }
    });
    let many = |first: u32| {
        let first = u32::from(Ipv4Addr::new(10, 0, 0, 0)) + first;
        let ours = (0..10_000).map(|it| Ipv4Addr::from(first + 2 * it)).collect();
        let peers = set(&[THERE]);
        ArpFilter { ours, peers }
    };
    let listener = pair.here.socket(&many(0));
    let sender = pair.there.socket(&ArpFilter::default());
    let expected = question(Ipv4Addr::new(10, 0, 0, 41));
    for attempt in 0..20 {
        listener.set_filter(&many(attempt)).unwrap();
    }
    sender.send(&question(OTHER).to_bytes()).unwrap();
    sender.send(&expected.to_bytes()).unwrap();
    assert_eq!(come(&listener), expected);
}

#[test]
fn an_interface_that_is_down_comes_back() {
    let Some(pair) = Pair::new() else { return };
    let listener = pair.here.socket(&filter());
    let sender = pair.there.socket(&ArpFilter::default());
    pair.here.ip("link set eth0 down");
    let mut buffer = [0; 64];
    let down = listener.recv(&mut buffer);
    assert!(matches!(down, Err(SocketError::InterfaceDown)), "{down:?}");
    let waiting = Instant::now();
    assert!(matches!(listener.recv(&mut buffer), Ok(None)));
    assert!(waiting.elapsed() >= RECEIVE_TIMEOUT);
    let refused = listener.send(&question(OURS).to_bytes());
    assert!(matches!(refused, Err(SocketError::InterfaceDown)), "{refused:?}");

    let opened_late = pair.here.socket(&filter());
    let late = opened_late.recv(&mut buffer);
    assert!(matches!(late, Err(SocketError::InterfaceDown)), "{late:?}");

    pair.here.ip("link set eth0 up");
    let is_heard = || {
        sender.send(&question(OURS).to_bytes()).is_ok() && next(&listener) == Some(question(OURS))
    };
    assert!(eventually(is_heard));
    assert_eq!(come(&opened_late), question(OURS));
}

/// As a process that is stopped and goes on is (signal(7)).
#[test]
fn who_is_interrupted_goes_on_waiting() {
    let Some(pair) = Pair::new() else { return };
    let listener = pair.here.socket(&filter());
    signal_hook::flag::register(Signal::SIGUSR1 as i32, Arc::default()).unwrap();
    let listener = Arc::new(listener);
    let waits: [fn(&ArpSocket); 2] = [
        |listener| assert!(matches!(listener.recv(&mut [0; 64]), Ok(None))),
        |listener| listener.recv_batch(&mut Inbox::new(), || {}).unwrap(),
    ];
    for wait in waits {
        let begin = Instant::now();
        let listener = Arc::clone(&listener);
        let waiting = thread::spawn(move || wait(&listener));
        for _ in 0..4 {
            thread::sleep(RECEIVE_TIMEOUT / 5);
            pthread_kill(waiting.as_pthread_t(), Signal::SIGUSR1).unwrap();
        }
        waiting.join().unwrap();
        assert!(begin.elapsed() >= RECEIVE_TIMEOUT, "{:?}", begin.elapsed());
    }
}

#[test]
fn an_interface_that_is_gone_stays_gone() {
    let Some(pair) = Pair::new() else { return };
    let listener = pair.here.socket(&filter());
    pair.here.ip("link delete eth0");
    let mut buffer = [0; 64];
    let mut receive = || listener.recv(&mut buffer);
    // It goes down first, if we look early enough.
    let gone = (0..3).any(|_| matches!(receive(), Err(SocketError::InterfaceGone)));
    assert!(gone);
    assert!(matches!(receive(), Err(SocketError::InterfaceGone)));
    let refused = listener.send(&question(OURS).to_bytes());
    assert!(matches!(refused, Err(SocketError::InterfaceGone)), "{refused:?}");
}

#[test]
fn an_interface_that_never_was() {
    let Some(pair) = Pair::new() else { return };
    for index in [4711, u32::MAX] {
        let opened = pair.here.run(|| ArpSocket::open(index, &filter()));
        assert!(matches!(opened, Err(SocketError::InterfaceGone)), "{opened:?}");
    }
}

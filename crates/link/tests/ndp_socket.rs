//! NDP sockets and group memberships between two kernels.
#![cfg(test)]

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use arpeggio_link::filter::NdpFilter;
use arpeggio_link::groups::{GroupError, SolicitedNodes};
use arpeggio_link::packet::NdpSocket;
use arpeggio_wire::{Asker, Claim, MacAddr, NdpFrame, Question, solicited_node};

mod namespace;
use namespace::{Namespace, Pair, eventually};

const HERE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const THERE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const OURS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12, 0x3456);
const OTHER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12, 0x3457);
const STRANGER: MacAddr = MacAddr(0x02, 0, 0, 0, 0, 0x99);

fn set(addresses: &[Ipv6Addr]) -> BTreeSet<Ipv6Addr> {
    addresses.iter().copied().collect()
}

fn filter() -> NdpFilter {
    NdpFilter { ours: set(&[OURS]), peers: set(&[THERE]) }
}

impl Namespace {
    fn socket(&self, filter: &NdpFilter) -> NdpSocket {
        let index = self.link().0;
        self.run(|| NdpSocket::open(index, filter)).unwrap()
    }

    /// Whether the interface is a member of the group.
    fn has_joined(&self, group: Ipv6Addr) -> bool {
        let groups = self.ip("-6 maddress show dev eth0");
        groups.lines().any(|line| line.trim().split(' ').nth(1) == Some(&group.to_string()))
    }
}

fn pair() -> Option<Pair> {
    let pair = Pair::new()?;
    pair.here.ip(&format!("address add {HERE}/64 dev eth0 nodad"));
    pair.there.ip(&format!("address add {THERE}/64 dev eth0 nodad"));
    Some(pair)
}

fn next(socket: &NdpSocket) -> Option<NdpFrame> {
    let mut buffer = [0; 128];
    let length = socket.recv(&mut buffer).unwrap()?;
    Some(NdpFrame::parse(&buffer[..length]).unwrap())
}

/// The next frame, which has to come.
fn come(socket: &NdpSocket) -> NdpFrame {
    let begin = Instant::now();
    loop {
        assert!(begin.elapsed() < PATIENCE, "no frame comes");
        if let Some(frame) = next(socket) {
            return frame;
        }
    }
}

/// The next question that `is_it` likes, told where it went; or none for as long.
fn hear(
    socket: &NdpSocket,
    patience: Duration,
    is_it: impl Fn(MacAddr, &Question<Ipv6Addr>) -> bool,
) -> Option<Question<Ipv6Addr>> {
    let end = Instant::now() + patience;
    while Instant::now() < end {
        let Some(frame) = next(socket) else { continue };
        let Some(question) = frame.question() else { continue };
        if is_it(frame.destination, &question) {
            return Some(question);
        }
    }
    None
}

fn question(address: Ipv6Addr) -> Question<Ipv6Addr> {
    Question { address, asker: Asker { mac: STRANGER, address: Some(THERE) } }
}

fn claim(address: Ipv6Addr) -> NdpFrame {
    Claim { address, mac: STRANGER }.advertisement()
}

/// A machine that is emulated beside others can stand still for seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longer than all groups of a test take.
const LONG: Duration = Duration::from_mins(1);

#[test]
fn exactly_the_wanted_frames_arrive() {
    let Some(pair) = pair() else { return };
    pair.here.ip("link set eth0 promisc on");
    let (_, here) = pair.here.link();
    let listener = pair.here.socket(&filter());
    let sender = pair.there.socket(&NdpFilter::default());
    let probe = Question { address: OURS, asker: Asker { mac: STRANGER, address: None } };
    let wanted = [
        question(OURS).multicast(),
        question(OURS).unicast(here),
        probe.multicast(),
        claim(OURS),
        claim(THERE),
    ];
    let unwanted = [
        question(OTHER).multicast(),
        question(THERE).multicast(),
        question(OURS).unicast(STRANGER),
        claim(OTHER),
    ];
    // Our own advertisement must not come back to us.
    listener.send(&claim(OURS).to_bytes()).unwrap();
    for frame in unwanted.iter().chain(&wanted) {
        sender.send(&frame.to_bytes()).unwrap();
    }
    let heard = wanted.map(|_| come(&listener));
    assert_eq!(heard, wanted);
    assert_eq!(next(&listener), None);
}

/// The neighbour's kernel asks, believes the answer, and asks again by unicast when it doubts.
#[test]
fn the_neighbours_kernel_believes_us_and_checks_by_unicast() {
    let Some(pair) = pair() else { return };
    let (index, here) = pair.here.link();
    let listener = pair.here.socket(&filter());
    let mut groups = pair.here.run(|| {
        let mut groups = SolicitedNodes::new(index);
        groups.join(&set(&[OURS]), LONG).unwrap();
        groups
    });
    let neighbour = || pair.there.ip(&format!("-6 neighbour show {OURS} dev eth0"));
    // As long as it asks, since a kernel that is just setting up its interface may lose an answer.
    let is_reachable = || {
        let reachable = neighbour().contains(&format!("lladdr {here} REACHABLE"));
        if !reachable && let Some(question) = next(&listener).and_then(|frame| frame.question()) {
            listener.send(&question.answer(here).to_bytes()).unwrap();
        }
        reachable
    };
    pair.there.run(|| {
        let socket = std::net::UdpSocket::bind("[::]:0").unwrap();
        socket.send_to(b"hello", (OURS, 9)).unwrap();
    });
    let asked =
        hear(&listener, PATIENCE, |to, asked| to.is_multicast() && asked.asker.address.is_some())
            .expect("the neighbour asks the group");
    listener.send(&asked.answer(here).to_bytes()).unwrap();
    assert!(eventually(is_reachable), "{}", neighbour());

    // It asks three times, a second apart, and not at all while its link-local address is tentative.
    let doubts = |_| {
        pair.there.ip(&format!("neighbour replace {OURS} dev eth0 lladdr {here} nud probe"));
        hear(&listener, Duration::from_secs(4), |to, _| !to.is_multicast())
    };
    let asked = (0..8).find_map(doubts).expect("the neighbour asks again, by unicast");
    listener.send(&asked.answer(here).to_bytes()).unwrap();
    assert!(eventually(is_reachable), "{}", neighbour());
    groups.leave_all_but(&set(&[]));
}

#[test]
fn duplicate_address_detection_notices_us() {
    let Some(pair) = pair() else { return };
    let (index, here) = pair.here.link();
    let listener = pair.here.socket(&filter());
    let _groups = pair.here.run(|| {
        let mut groups = SolicitedNodes::new(index);
        groups.join(&set(&[OURS]), LONG).unwrap();
        groups
    });
    pair.there.ip(&format!("address add {OURS}/64 dev eth0"));
    let probe = hear(&listener, PATIENCE, |_, _| true).expect("the neighbour probes");
    assert_eq!(probe.asker.address, None);
    listener.send(&probe.answer(here).to_bytes()).unwrap();
    let addresses = || pair.there.ip("-6 address show dev eth0");
    assert!(eventually(|| addresses().contains("dadfailed")), "{}", addresses());
}

#[test]
fn the_neighbours_kernel_answers_a_unicast_solicitation() {
    let Some(pair) = pair() else { return };
    let ((_, here), (_, there)) = (pair.here.link(), pair.there.link());
    let socket = pair.here.socket(&filter());
    let asker = Asker { mac: here, address: Some(HERE) };
    let request = Question { address: THERE, asker }.unicast(there);
    // The interface may still be busy with its link-local address.
    let answered = eventually(|| {
        socket.send(&request.to_bytes()).unwrap();
        next(&socket).and_then(|it| it.claim()) == Some(Claim { address: THERE, mac: there })
    });
    assert!(answered);
}

#[test]
fn groups_are_joined_once_and_left_when_nobody_needs_them() {
    let Some(pair) = pair() else { return };
    let index = pair.here.link().0;
    pair.here.run(|| {
        let mut groups = SolicitedNodes::new(index);
        let twin = Ipv6Addr::from_bits(OURS.to_bits() ^ 1 << 64);
        groups.join(&set(&[OURS, twin, OTHER]), LONG).unwrap();
        assert_eq!(groups.len(), 2, "two addresses share a group");
        groups.leave_all_but(&set(&[twin]));
        assert_eq!(groups.len(), 1);
    });
    let joined = |address| pair.here.has_joined(solicited_node(address));
    assert!(eventually(|| !joined(OURS) && !joined(OTHER)), "left when it was dropped");
    let groups = pair.here.run(|| {
        let mut groups = SolicitedNodes::new(index);
        groups.join(&set(&[OURS]), LONG).unwrap();
        groups
    });
    assert!(joined(OURS));
    assert!(!joined(OTHER));
    drop(groups);
    assert!(eventually(|| !joined(OURS)));
}

/// Kernels before 6.8 remember 365 memberships in a socket by default.
#[test]
fn many_groups_take_several_sockets() {
    let Some(pair) = pair() else { return };
    let index = pair.here.link().0;
    pair.here.run(|| {
        let limit = "/proc/sys/net/core/optmem_max";
        if std::fs::exists(limit).unwrap() {
            std::fs::write(limit, "20480").unwrap();
        }
        let many = (0..5000_u32).map(|it| Ipv6Addr::from(u128::from(it))).collect();
        let mut groups = SolicitedNodes::new(index);
        let start = Instant::now();
        assert!(!groups.join(&many, Duration::ZERO).unwrap(), "there is no time for it");
        assert!(groups.is_empty());
        assert!(groups.join(&many, LONG).unwrap());
        println!("{} groups joined in {:?}", groups.len(), start.elapsed());
        assert_eq!(groups.len(), 5000);
    });
}

#[test]
fn a_group_on_no_interface() {
    let Some(pair) = pair() else { return };
    let refused = pair.here.run(|| SolicitedNodes::new(4711).join(&set(&[OURS]), LONG));
    assert!(matches!(refused, Err(GroupError::NoIpv6)), "{refused:?}");
}

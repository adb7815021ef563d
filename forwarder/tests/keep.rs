//! Connections go on when their address has moved, in network namespaces of the tests' own.
#![cfg(test)]

mod segment;

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, ErrorKind},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use arpeggio_forwarder::rules::{Counting, Rules};
use arpeggio_forwarding::{Passing, Plan, PlannedAddress, Reset, Way};
use arpeggio_netfilter::Netfilter;
use segment::{
    DNS, QUIC, Segment, Stream, Version, WEB, ask, both, both_on_a_vlan,
    raw::{ACK, FIN, PSH, RST, Raw},
    send_packet_too_big,
};

fn passed(rules: &mut Rules, counting: &Counting) -> u64 {
    let counters = rules.read_counters().unwrap();
    counters.iter().find(|counter| counter.counting == *counting).unwrap().packets
}

#[test]
fn without_rules_an_open_connection_is_reset() {
    both(|segment| {
        let mut open = segment.connect();
        assert_eq!(open.node(), 1);
        segment.move_to(2);
        let told = open.ask().unwrap_err();
        assert_eq!(told.kind(), ErrorKind::ConnectionReset, "{told}");
    });
}

#[test]
fn an_open_connection_goes_on_and_a_new_one_goes_to_the_new_owner() {
    both(goes_on);
}

#[test]
#[ignore = "needs VLAN devices: run 'make vm-tests'"]
fn an_open_connection_goes_on_between_nodes_on_a_vlan() {
    both_on_a_vlan(goes_on);
}

fn goes_on(segment: &Segment) {
    let mut open = segment.connect();
    assert_eq!(open.node(), 1);
    let mut rules = segment.rules(2, &segment.passing(2, segment.hop(2, 1), Way::Local));
    segment.move_to(2);
    (0..20).for_each(|_| assert_eq!(open.node(), 1));
    assert_eq!(open.ask().unwrap().1, open.address());
    let mut new = segment.connect();
    assert_eq!(new.node(), 2);
    assert_eq!(open.node(), 1);
    assert!(passed(&mut rules, &Counting::PassedFromOutside(segment.version.service())) > 20);
    let service = [(segment.version.service(), [QUIC].into())].into();
    let known = |node| {
        let mut netfilter = segment.node(node).run(|| Netfilter::open().unwrap());
        netfilter.connections(&service, &BTreeSet::new()).unwrap()[&segment.version.service()].tcp
    };
    assert_eq!((known(1), known(2)), (1, 1), "the new owner does not take it for its own");
    // The old owner has nothing left: what it does not know is reset.
    segment.node(2).run(|| rules.apply(&Plan::default()).unwrap());
    assert_eq!(open.ask().unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(new.node(), 2);
}

/// The backend that the new owner would give the packet to may be as dead as the node.
#[test]
fn connections_of_a_dead_node_are_reset_though_no_backend_does() {
    both(|segment| {
        let mut open = segment.connect();
        assert_eq!(open.node(), 1);
        let service = segment.version.service();
        let planned = PlannedAddress { reset: Reset::Everything, ..PlannedAddress::default() };
        let mut rules = segment.rules(2, &segment.plan(2, planned));
        let backends = segment.version.drop_all_to_backends();
        segment.node(2).nft(&backends);
        segment.move_to(2);
        let told = open.ask().unwrap_err();
        assert_eq!(told.kind(), ErrorKind::ConnectionReset, "{told}");
        assert!(passed(&mut rules, &Counting::Reset(service)) > 0);
        // New ones are let through to the backends.
        let to = SocketAddr::new(service, WEB);
        let new = segment.client.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(1)));
        assert_eq!(new.unwrap_err().kind(), ErrorKind::TimedOut);
        segment.node(2).command(&format!("nft delete table {} dead", segment.version.family()));
        assert_eq!(segment.connect().node(), 2);
    });
}

#[test]
fn what_a_living_node_knows_is_passed_on_and_only_the_rest_is_reset() {
    both(|segment| {
        let mut dead = segment.connect();
        segment.move_to(2);
        let mut living = segment.connect();
        assert_eq!((dead.ask().is_err(), living.node()), (true, 2));
        segment.move_to(1);
        let mut dead = segment.connect();
        assert_eq!(dead.node(), 1);
        // Node 1 dies. Node 3 has the address now, and node 2 what is left of its own.
        let resets = |passing| PlannedAddress {
            passing,
            reset: Reset::Everything,
            ..PlannedAddress::default()
        };
        let (to_2, stays) = (segment.hop(3, 2), Way::Local);
        let asks = Passing { from_outside: to_2, from_fellow: stays };
        let _three = segment.rules(3, &segment.plan(3, resets(asks)));
        let mut two = segment.rules(2, &segment.plan(2, resets(Passing::default())));
        segment.move_to(3);
        assert_eq!(living.node(), 2);
        assert_eq!(dead.ask().unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(passed(&mut two, &Counting::Reset(segment.version.service())) > 0);
        assert_eq!((living.node(), segment.connect().node()), (2, 3));
    });
}

/// The owner is dead, and the node that has its address now asks a third one, which has not heard of that.
#[test]
fn what_a_fellow_gives_and_nobody_knows_is_reset_where_the_address_is_not_served() {
    both(|segment| {
        let mut open = segment.connect();
        assert_eq!(open.node(), 1);
        let passing =
            |from, to| Passing { from_outside: segment.hop(from, to), from_fellow: Way::Local };
        let planned = |passing, reset| PlannedAddress {
            passing,
            reset,
            quic: [QUIC].into(),
            ..PlannedAddress::default()
        };
        let third = planned(passing(2, 1), Reset::FromFellow);
        let mut two = segment.rules(2, &segment.plan(2, third));
        let _three = segment.rules(3, &segment.plan(3, planned(passing(3, 2), Reset::Everything)));
        let quic = SocketAddr::new(segment.version.service(), QUIC);
        segment.move_to(3);
        assert_eq!(
            ask(&segment.socket(), quic, &[0x41, 1, 2, 3]),
            Some(2),
            "it is TCP that is reset"
        );
        segment.plug(1, false);
        segment.node(2).nft(&segment.version.drop_all_to_backends());
        assert_eq!(open.ask().unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(passed(&mut two, &Counting::Reset(segment.version.service())) > 0);
        assert_eq!(segment.connect().node(), 3);
    });
}

#[test]
fn an_address_moves_away_and_back() {
    both(|segment| {
        let mut first = segment.connect();
        assert_eq!(first.node(), 1);
        let _two = segment.rules(2, &segment.passing(2, segment.hop(2, 1), Way::Local));
        segment.move_to(2);
        let mut second = segment.connect();
        assert_eq!((first.node(), second.node()), (1, 2));
        let _one = segment.rules(1, &segment.passing(1, segment.hop(1, 2), segment.hop(1, 2)));
        segment.move_to(1);
        assert_eq!((first.node(), second.node()), (1, 2));
        assert_eq!(segment.connect().node(), 1);
    });
}

#[test]
fn a_chain_of_three_finds_the_node_that_knows() {
    both(|segment| {
        let mut open: Vec<Stream> = Vec::new();
        let rules = [
            segment.rules(2, &segment.passing(2, segment.hop(2, 1), segment.hop(2, 1))),
            segment.rules(3, &segment.passing(3, segment.hop(3, 2), Way::Local)),
        ];
        for node in 1..=3 {
            segment.move_to(node);
            open.push(segment.connect());
            let nodes: Vec<_> = open.iter_mut().map(Stream::node).collect();
            assert_eq!(nodes, (1..=node).collect::<Vec<_>>());
        }
        let [mut two, mut three] = rules;
        let service = segment.version.service();
        assert!(passed(&mut two, &Counting::PassedFromFellow(service)) > 0);
        assert!(passed(&mut three, &Counting::PassedFromOutside(service)) > 0);
    });
}

/// Both take the other's packets for packets from outside, as when the MAC addresses of both have just changed.
#[test]
fn a_packet_that_two_nodes_give_each_other_comes_to_an_end() {
    both(|segment| {
        let unaware = |node, to| {
            let plan = segment.passing(node, segment.hop(node, to), Way::Local);
            segment.rules(node, &Plan { fellows: BTreeSet::new(), ..plan })
        };
        let mut rules = [unaware(1, 2), unaware(2, 1)];
        let raw = Raw::new(segment, 44_000);
        raw.send(ACK, raw.next, &[]);
        let service = segment.version.service();
        let counting = Counting::PassedFromOutside(service);
        let mut passed = || rules.iter_mut().map(|it| passed(it, &counting)).sum::<u64>();
        thread::sleep(Duration::from_millis(300));
        let after = passed();
        assert!((2..=64).contains(&after), "passed on {after} times");
        assert_eq!(raw.receive(), None);
        assert_eq!(passed(), after, "it goes on and on");
    });
}

#[test]
fn a_packet_too_big_goes_to_the_node_that_knows_the_connection() {
    both(|segment| {
        let mut open = segment.connect();
        assert_eq!(open.node(), 1);
        segment.move_to(2);
        send_packet_too_big(segment, open.address());
        assert_eq!(segment.related(1), 0, "without rules it is lost");
        let _rules = segment.rules(2, &segment.passing(2, segment.hop(2, 1), Way::Local));
        send_packet_too_big(segment, open.address());
        thread::sleep(Duration::from_millis(100));
        assert_eq!((segment.related(1), segment.related(2)), (1, 0));
        assert_eq!(open.node(), 1);
    });
}

#[test]
fn quic_goes_on_and_plain_udp_goes_to_the_new_owner() {
    both(|segment| {
        let (long, short) = (&[0xc3, 1, 2, 3][..], &[0x41, 1, 2, 3][..]);
        let quic = SocketAddr::new(segment.version.service(), QUIC);
        let dns = SocketAddr::new(segment.version.service(), DNS);
        let (open, plain) = (segment.socket(), segment.socket());
        assert_eq!(ask(&open, quic, long), Some(1));
        assert_eq!(ask(&open, quic, short), Some(1));
        assert_eq!(ask(&plain, dns, short), Some(1));
        let _rules = segment.rules(2, &segment.passing(2, segment.hop(2, 1), Way::Local));
        segment.move_to(2);
        assert_eq!(ask(&open, quic, short), Some(1));
        assert_eq!(ask(&segment.socket(), quic, long), Some(2));
        assert_eq!(ask(&plain, dns, short), Some(2));
        let service = segment.version.service();
        let mut netfilter = segment.node(1).run(|| Netfilter::open().unwrap());
        let mut left = |ports: &[u16]| {
            let ports = ports.iter().copied().collect();
            netfilter.connections(&[(service, ports)].into(), &BTreeSet::new()).unwrap()[&service]
                .udp
        };
        assert_eq!(
            (left(&[QUIC]), left(&[QUIC, DNS])),
            (1, 2),
            "what is kept is left, and no other"
        );
    });
}

/// Conntrack finds nothing right in a packet far outside of the window, and gives it no connection, though it has one. No other node
/// knows it, and none has a backend reset it.
#[test]
fn a_packet_that_does_not_fit_a_known_connection_resets_it_nowhere() {
    both(|segment| {
        segment.move_to(2);
        let mut rules = segment.rules(2, &segment.passing(2, segment.hop(2, 1), segment.hop(2, 1)));
        let last = PlannedAddress { reset: Reset::FromFellow, ..PlannedAddress::default() };
        let mut one = segment.rules(1, &segment.plan(1, last));
        let mut open = Raw::open(segment, 40_001);
        assert_eq!(open.ask(), Some(2));
        for _ in 0..3 {
            open.send(PSH | ACK, open.next + 10_000_000, b"far\n");
            assert!(open.receive().is_none_or(|it| it.flags & RST == 0), "it was reset");
            assert_eq!(open.ask(), Some(2));
        }
        let service = segment.version.service();
        assert_eq!(passed(&mut rules, &Counting::PassedFromOutside(service)), 3);
        assert_eq!(passed(&mut one, &Counting::Reset(service)), 0);
        let kept = Passing { from_outside: segment.hop(1, 3), from_fellow: Way::Local };
        let last = PlannedAddress { passing: kept, ..PlannedAddress::default() };
        segment.node(1).run(|| one.apply(&segment.plan(1, last)).unwrap());
        open.send(PSH | ACK, open.next + 10_000_000, b"far\n");
        assert!(open.receive().is_none_or(|it| it.flags & RST == 0), "a backend has reset it");
        assert_eq!(open.ask(), Some(2));
        let planned = PlannedAddress { reset: Reset::Everything, ..PlannedAddress::default() };
        let plan = segment.plan(2, planned);
        segment.node(2).run(|| rules.apply(&plan).unwrap());
        open.send(PSH | ACK, open.next + 10_000_000, b"far\n");
        assert!(open.receive().is_none_or(|it| it.flags & RST == 0), "it was reset");
        assert_eq!(open.ask(), Some(2));
    });
}

/// It has no forwarder, or one of an earlier release: its conntrack takes the packet for the first of a connection.
#[test]
fn a_packet_that_does_not_fit_is_not_given_to_a_node_that_does_not_know_the_mark() {
    both(|segment| {
        segment.move_to(2);
        let to_earlier = || segment.hop_to_earlier(2, 1);
        let mut rules = segment.rules(2, &segment.passing(2, to_earlier(), to_earlier()));
        let mut open = Raw::open(segment, 40_001);
        assert_eq!(open.ask(), Some(2));
        open.send(PSH | ACK, open.next + 10_000_000, b"far\n");
        assert!(open.receive().is_none_or(|it| it.flags & RST == 0), "a backend has reset it");
        assert_eq!(open.ask(), Some(2));
        let service = segment.version.service();
        assert_eq!(passed(&mut rules, &Counting::PassedFromOutside(service)), 0);
    });
}

/// Where an address goes away and comes back, a client may have used a port again meanwhile. Who had the first connection of that port
/// remembers it for two minutes after its end, and finds nothing right in a packet of the second one.
#[test]
fn a_client_that_uses_a_port_again_is_not_left_without_an_answer() {
    both(|segment| {
        let mut first = Raw::open(segment, 45_001);
        assert_eq!(first.ask(), Some(1));
        first.close();
        segment.move_to(2);
        let mut second = first.open_again();
        assert_eq!(second.ask(), Some(2));
        let _one = segment.rules(1, &segment.passing(1, segment.hop(1, 2), segment.hop(1, 2)));
        segment.move_to(1);
        assert_eq!(second.ask(), Some(2));
    });
}

/// Whatever a client says first to the node that stands in for a dead one.
#[test]
fn every_packet_of_a_dead_nodes_connection_is_reset_at_once() {
    both(|segment| {
        let planned = PlannedAddress { reset: Reset::Everything, ..PlannedAddress::default() };
        let plan = segment.plan(2, planned);
        segment.move_to(2);
        segment.node(2).nft(&segment.version.drop_all_to_backends());
        // What came before its forwarder knew has gone to a dead backend, and conntrack has an entry of it.
        let early: Vec<_> = (1..=2).map(|n| Raw::new(segment, 41_000 + n)).collect();
        early.iter().for_each(|raw| raw.send(PSH | ACK, raw.next, b"x"));
        let mut rules = segment.rules(2, &plan);
        for raw in &early {
            raw.send(PSH | ACK, raw.next, b"x");
            assert!(raw.receive().is_some_and(|it| it.flags & RST != 0), "seen before");
        }
        for (port, loose) in [(42_000, "1"), (43_000, "0")] {
            segment.node(2).set("netfilter/nf_conntrack_tcp_loose", loose);
            segment.node(2).run(|| rules.apply(&plan).unwrap());
            for (n, flags) in (0..).zip([ACK, PSH | ACK, FIN | ACK, FIN | PSH | ACK, 0x30 | PSH]) {
                let raw = Raw::new(segment, port + n);
                let data: &[u8] = if flags & PSH == 0 { &[] } else { b"x" };
                raw.send(flags, raw.next, data);
                let answer = raw.receive();
                assert!(answer.is_some_and(|it| it.flags & RST != 0), "{flags:x}, loose {loose}");
            }
            let raw = Raw::new(segment, port + 100);
            raw.send(RST, raw.next, &[]);
            assert_eq!(raw.receive(), None, "no reset is answered by one");
        }
    });
}

/// Run by the test after it, as a process of its own.
#[test]
#[ignore = "holds rules until it is killed"]
fn holds_rules() {
    let version = Version::V4;
    let service = version.service();
    let mut planned = arpeggio_forwarding::PlannedAddress::default();
    planned.passing.from_outside = Way::To(std::sync::Arc::new(arpeggio_forwarding::Hop {
        node: arpeggio_election::Node::from("node-1"),
        interface: "eth0".to_owned(),
        next_hop: version.node(1),
        mac: segment::mac(1),
        own_mac: segment::mac(2),
        knows_mark: true,
    }));
    let plan = Plan { fellows: [segment::mac(1)].into(), addresses: [(service, planned)].into() };
    let mut rules = Rules::new().unwrap();
    rules.apply(&plan).unwrap();
    println!("holding");
    thread::sleep(Duration::from_mins(1));
}

#[test]
fn rules_go_with_a_process_that_is_killed() {
    let Some(segment) = Segment::new(Version::V4) else { return };
    let before = segment.node(2).command("nft list tables");
    let mut child = segment.node(2).run(|| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "holds_rules", "--ignored", "--nocapture"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("holding")));
    let mut open = segment.connect();
    assert_eq!(open.node(), 1);
    segment.move_to(2);
    assert_eq!(open.node(), 1, "its rules work");
    assert_ne!(segment.node(2).command("nft list tables"), before);
    child.kill().unwrap();
    child.wait().unwrap();
    let gone = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(20));
        segment.node(2).command("nft list tables") == before
    });
    assert!(gone, "{}", segment.node(2).command("nft list tables"));
    assert_eq!(open.ask().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// As the start of many a firewall does.
#[test]
fn rules_outlive_that_another_program_removes_all() {
    both(|segment| {
        let _rules = segment.rules(2, &segment.passing(2, segment.hop(2, 1), Way::Local));
        let mut open = segment.connect();
        assert_eq!(open.node(), 1);
        segment.move_to(2);
        segment.node(2).nft("flush ruleset");
        assert!(segment.node(2).ruleset().contains("table"), "{}", segment.node(2).ruleset());
        assert_eq!(open.node(), 1);
    });
}

/// A driver that is loaded anew, or a network configuration that is applied anew.
#[test]
fn rules_are_outdated_when_an_interface_was_made_anew() {
    both(|segment| {
        let plan = segment.passing(2, segment.hop(2, 1), Way::Local);
        let mut rules = segment.rules(2, &plan);
        let mut open = segment.connect();
        assert_eq!(open.node(), 1);
        let node = segment.node(2);
        let are_outdated = |rules: &Rules| node.run(|| rules.are_outdated());
        assert!(!are_outdated(&rules));
        segment.make_anew(2);
        assert!(are_outdated(&rules));
        drop(node.run(|| rules.apply(&plan).unwrap()));
        assert!(!are_outdated(&rules));
        segment.move_to(2);
        assert_eq!(open.node(), 1);
        node.set("netfilter/nf_conntrack_tcp_loose", "0");
        assert!(are_outdated(&rules), "other packets are unknown to conntrack");
    });
}

/// As there are during an upgrade.
#[test]
fn two_forwarders_on_one_node_do_what_one_does() {
    both(|segment| {
        let plan = segment.passing(2, segment.hop(2, 1), Way::Local);
        let rules = segment.rules(2, &plan);
        let mut open = segment.connect();
        assert_eq!(open.node(), 1);
        let mut later = segment.rules(2, &plan);
        segment.move_to(2);
        assert_eq!((open.node(), segment.connect().node()), (1, 2));
        drop(rules);
        assert_eq!((open.node(), segment.connect().node()), (1, 2));
        let service = segment.version.service();
        assert!(passed(&mut later, &Counting::PassedFromOutside(service)) > 0);
    });
}

/// The kernel joins packets that follow one another into larger ones before the rules see them.
#[test]
fn much_that_a_client_sends_comes_as_it_was() {
    both(|segment| {
        let mut open = segment.connect();
        assert_eq!(open.node(), 1);
        let _rules = segment.rules(2, &segment.passing(2, segment.hop(2, 1), Way::Local));
        segment.move_to(2);
        assert_eq!(open.ask_at_length(1_000_000).unwrap(), 1);
        assert_eq!(open.node(), 1);
    });
}

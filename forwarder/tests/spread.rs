//! One address that several nodes serve, in network namespaces of the tests' own.
#![cfg(test)]

mod segment;

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use arpeggio_forwarder::rules::{Counting, Rules};
use arpeggio_forwarding::{
    BUCKETS, Passing, Plan, PlannedAddress, Port, Protocol, Reset, Spread, SpreadBy, Way,
};
use arpeggio_link::calls::uninterrupted;
use segment::{
    DNS, Namespace, QUIC, Segment, Stream, Version, WEB, ask, both, both_on_a_vlan, raw::Raw,
};

const SEED: u32 = 0x5eed;
const LONG: Duration = Duration::from_secs(5);

/// What each bucket's primary is: one of some nodes.
type Table = fn(u16) -> usize;

/// Each node a third.
fn thirds(bucket: u16) -> usize {
    usize::from(bucket % 3) + 1
}

/// Node 3 is emptied.
fn halves(bucket: u16) -> usize {
    match thirds(bucket) {
        3 => usize::from(bucket / 3 % 2) + 1,
        node => node,
    }
}

/// `table`: who gets new connections; `before`: who got them before.
fn plan(segment: &Segment, node: usize, table: Table, before: Table) -> Plan {
    let way = |to: usize| if to == node { Way::Local } else { segment.hop(node, to) };
    let ways = |choose: &dyn Fn(u16) -> usize| {
        (0..BUCKETS).map(|bucket| way(choose(bucket))).collect::<Vec<_>>()
    };
    let below = |bucket| if before(bucket) == table(bucket) { node } else { before(bucket) };
    let spread = |by| Spread {
        by,
        seed: SEED,
        first: ways(&table),
        others: ways(&table),
        below: ways(&below),
    };
    let port = |protocol, number| Port { protocol, number };
    let planned = PlannedAddress {
        quic: [QUIC].into(),
        spread: BTreeMap::from([
            (port(Protocol::Tcp, WEB), Arc::new(spread(SpreadBy::ClientAndPort))),
            (port(Protocol::Udp, QUIC), Arc::new(spread(SpreadBy::Client))),
            (port(Protocol::Udp, DNS), Arc::new(spread(SpreadBy::Client))),
        ]),
        interfaces: if node == 1 { vec![segment.interface.to_owned()] } else { Vec::new() },
        ..PlannedAddress::default()
    };
    segment.plan(node, planned)
}

/// By node.
fn counted(rules: &mut Rules) -> BTreeMap<String, u64> {
    let counters = rules.read_counters().unwrap().into_iter();
    counters
        .filter_map(|counter| match counter.counting {
            Counting::Spread { node, .. } => Some((node, counter.packets)),
            Counting::Stayed(_) => Some(("node-1".to_owned(), counter.packets)),
            _ => None,
        })
        .collect()
}

#[test]
fn every_node_gets_its_share_and_sees_the_client() {
    both(|segment| {
        let mut rules: Vec<_> =
            (1..=3).map(|node| segment.rules(node, &plan(segment, node, thirds, thirds))).collect();
        let mut shares = [0; 3];
        let mut streams: Vec<_> = (0..300).map(|_| segment.connect()).collect();
        for stream in &mut streams {
            let (node, client) = stream.ask().unwrap();
            assert_eq!(client, stream.address());
            shares[node - 1] += 1;
        }
        println!("{:?}: {shares:?}", segment.version);
        assert!(shares.iter().all(|share| (65..=135).contains(share)), "{shares:?}");
        let counted = counted(&mut rules[0]);
        assert_eq!(counted.keys().collect::<Vec<_>>(), ["node-1", "node-2", "node-3"]);
        // The packets of a connection here: SYN, ACK, a question, an ACK of the answer.
        let (two, opened) = (counted["node-2"], shares[1]);
        assert!(two >= opened * 3 && two <= opened * 8, "{counted:?} of {shares:?}");
    });
}

#[test]
fn connections_of_a_node_that_is_emptied_go_on() {
    both(|segment| {
        let mut rules: Vec<_> =
            (1..=3).map(|node| segment.rules(node, &plan(segment, node, thirds, thirds))).collect();
        let mut streams: Vec<_> = (0..60).map(|_| segment.connect()).collect();
        let before: Vec<_> = streams.iter_mut().map(Stream::node).collect();
        assert!(before.contains(&3));
        for node in 1..=3 {
            let plan = plan(segment, node, halves, thirds);
            segment.node(node).run(|| rules[node - 1].apply(&plan).unwrap());
        }
        let after: Vec<_> = streams.iter_mut().map(Stream::node).collect();
        assert_eq!(before, after);
        let new: Vec<_> = (0..60).map(|_| segment.connect().node()).collect();
        assert!(new.contains(&1) && new.contains(&2) && !new.contains(&3), "{new:?}");
    });
}

/// A node whose part has gone, and has come back, remembers what a client had from that port before.
#[test]
fn a_client_that_uses_a_port_again_is_answered_by_the_node_that_has_its_connection() {
    both(|segment| {
        let (two, three): (Table, Table) = (|_| 2, |_| 3);
        let mut rules: Vec<_> =
            (1..=3).map(|node| segment.rules(node, &plan(segment, node, two, two))).collect();
        let mut apply = |table, before| {
            for node in 1..=3 {
                let plan = plan(segment, node, table, before);
                segment.node(node).run(|| rules[node - 1].apply(&plan).unwrap());
            }
        };
        let mut first = Raw::open(segment, 45_001);
        assert_eq!(first.ask(), Some(2));
        first.close();
        apply(three, two);
        let mut second = first.open_again();
        assert_eq!(second.ask(), Some(3));
        apply(two, three);
        assert_eq!(second.ask(), Some(3));
    });
}

/// An administrator lists all tables, with the program of Debian 12, too.
#[test]
fn the_program_nft_lists_the_rules() {
    both(|segment| {
        let mut rules: Vec<_> =
            (1..=3).map(|node| segment.rules(node, &plan(segment, node, halves, thirds))).collect();
        let passing = Passing { from_outside: segment.hop(1, 2), from_fellow: segment.hop(1, 3) };
        let mut kept = plan(segment, 1, halves, thirds);
        for address in kept.addresses.values_mut() {
            (address.passing, address.reset) = (passing.clone(), Reset::Everything);
        }
        segment.node(1).run(|| rules[0].apply(&kept).unwrap());
        for node in 1..=3 {
            let listed = segment.node(node).ruleset();
            assert!(listed.contains("arpeggio-") && listed.contains("jhash"), "{listed}");
        }
        let listed = segment.node(1).ruleset();
        for part in ["fwd to", "dup to", "reject with tcp reset"] {
            assert!(listed.contains(part), "{part} is not in {listed}");
        }
    });
}

#[test]
fn udp_and_its_fragments_go_where_the_clients_address_says() {
    both(|segment| {
        let tables: [Table; 3] = [|_| 1, |_| 2, |_| 3];
        for (node, table) in (1..=3).zip(tables) {
            let _rules: Vec<_> =
                (1..=3).map(|on| segment.rules(on, &plan(segment, on, table, table))).collect();
            let to = |port| SocketAddr::new(segment.version.service(), port);
            assert_eq!(ask(&segment.socket(), to(DNS), b"x"), Some(node));
            assert_eq!(ask(&segment.socket(), to(DNS), &[7; 4000]), Some(node), "in parts");
            let quic = segment.socket();
            assert_eq!(ask(&quic, to(QUIC), &[0xc0, 1]), Some(node));
            assert_eq!(ask(&quic, to(QUIC), &[0x40, 1]), Some(node));
        }
    });
}

#[test]
#[ignore = "needs VLAN devices: run 'make vm-tests'"]
fn an_address_on_a_vlan_is_spread() {
    both_on_a_vlan(|segment| {
        let tables: [Table; 3] = [|_| 1, |_| 2, |_| 3];
        for (node, table) in (1..=3).zip(tables) {
            let mut rules: Vec<_> =
                (1..=3).map(|on| segment.rules(on, &plan(segment, on, table, table))).collect();
            assert_eq!(segment.connect().node(), node);
            let to = SocketAddr::new(segment.version.service(), DNS);
            assert_eq!(ask(&segment.socket(), to, b"x"), Some(node));
            let counted = counted(&mut rules[0]);
            assert!(counted[&format!("node-{node}")] > 0, "where it comes in: {counted:?}");
        }
    });
}

/// Routers make fragments of IPv4; those of IPv6 the sender makes, behind a translation from IPv4, say.
#[test]
fn tcp_in_fragments_goes_where_its_connection_does() {
    both(|segment| {
        let tables: [Table; 3] = [|_| 1, |_| 2, |_| 3];
        for (node, table) in (1..=3).zip(tables) {
            let _rules: Vec<_> =
                (1..=3).map(|on| segment.rules(on, &plan(segment, on, table, table))).collect();
            let mut open = Raw::open(segment, 44_000 + u16::try_from(node).unwrap());
            assert_eq!(open.ask(), Some(node));
            assert_eq!(open.ask_in_fragments(), Some(node), "in fragments");
            assert_eq!(open.ask(), Some(node));
        }
    });
}

#[test]
fn tcp_that_a_router_has_cut_goes_where_its_connection_does() {
    let Some(segment) = Segment::new(Version::V4) else { return };
    let Some([behind]) = Namespace::several() else { return };
    segment.put_behind_the_client(&behind, 600);
    let _rules: Vec<_> =
        (1..=3).map(|node| segment.rules(node, &plan(&segment, node, |_| 2, |_| 2))).collect();
    let to = SocketAddr::new(segment.version.service(), WEB);
    let mut stream = behind.run(|| TcpStream::connect_timeout(&to, LONG)).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let fragments = |node: usize| segment.node(node).fragments();
    assert_eq!((fragments(1), fragments(2)), (0, 0));
    for _ in 0..5 {
        stream.write_all(&[vec![b'x'; 1300], vec![b'\n']].concat()).unwrap();
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).unwrap();
        assert!(answer.starts_with("2 198.51.100.2:"), "{answer}");
    }
    assert!(fragments(1) >= 10 && fragments(2) >= 10, "{} {}", fragments(1), fragments(2));
}

#[test]
fn other_ports_and_other_addresses_stay() {
    both(|segment| {
        let _rules = segment.rules(1, &plan(segment, 1, |_| 2, |_| 2));
        let client = segment.version.client();
        let node = segment.version.node(1);
        segment.client.command(&format!("ping -c 1 -W 2 -I {client} {node}"));
        assert_eq!(segment.connect().node(), 2);
    });
}

/// A switch that does not know where a node is sends its frames everywhere, and some interfaces take what is for others.
#[test]
fn a_frame_for_another_node_is_not_given_to_anybody() {
    both(|segment| {
        segment.flood();
        let announces = |node| {
            let mut plan = plan(segment, node, |_| 3, |_| 3);
            let planned = plan.addresses.get_mut(&segment.version.service()).unwrap();
            planned.interfaces = vec!["eth0".to_owned()];
            plan
        };
        let _rules: Vec<_> = (1..=3).map(|node| segment.rules(node, &announces(node))).collect();
        let to = SocketAddr::new(segment.version.service(), DNS);
        let socket = segment.socket();
        for _ in 0..3 {
            socket.set_read_timeout(Some(LONG)).unwrap();
            assert_eq!(ask(&socket, to, b"x"), Some(3));
            socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let again = uninterrupted(|| socket.recv(&mut [0; 100]));
            assert!(again.is_err(), "it was answered twice");
        }
        let mut stream = segment.connect();
        assert_eq!(stream.node(), 3);
    });
}

/// Its packets do not come in where the address does: kube-proxy of the node serves it, as without spread.
#[test]
fn a_pod_of_the_announcing_node_is_served_by_that_node() {
    both(|segment| {
        let Some([pod]) = Namespace::several() else { return };
        let (node, version) = (segment.node(1), segment.version);
        let (bits, [gateway, own]) = match version {
            Version::V4 => (24, ["10.8.0.1", "10.8.0.2"]),
            Version::V6 => (64, ["fd00:8::1", "fd00:8::2"]),
        };
        node.cable("pod", &pod);
        for (namespace, device, address) in [(node, "pod", gateway), (&pod, "eth0", own)] {
            let nodad = version.at_once();
            namespace.command(&format!("ip address add {address}/{bits} dev {device}{nodad}"));
            namespace.command(&format!("ip link set {device} up"));
        }
        pod.command(&format!("ip route add default via {gateway}"));
        let _rules: Vec<_> =
            (1..=3).map(|on| segment.rules(on, &plan(segment, on, |_| 2, |_| 2))).collect();
        let to = SocketAddr::new(version.service(), WEB);
        for _ in 0..3 {
            let stream = pod.run(|| TcpStream::connect_timeout(&to, LONG)).unwrap();
            stream.set_read_timeout(Some(LONG)).unwrap();
            let (mut asking, mut answer) = (stream.try_clone().unwrap(), String::new());
            asking.write_all(b"hello\n").unwrap();
            BufReader::new(stream).read_line(&mut answer).unwrap();
            assert!(answer.starts_with("1 ") && answer.contains(own), "{answer}");
        }
    });
}

/// A load balancer's health checks go to a port of each node itself, whatever is spread.
#[test]
fn health_checks_of_a_node_are_answered_by_that_node() {
    const PORT: u16 = 30_000;
    both(|segment| {
        let _rules: Vec<_> =
            (1..=3).map(|on| segment.rules(on, &plan(segment, on, |_| 2, |_| 2))).collect();
        for node in 1..=3 {
            let at = SocketAddr::new(segment.version.node(node), PORT);
            let listener = segment.node(node).run(|| TcpListener::bind(at)).unwrap();
            let checks = segment.client.run(|| TcpStream::connect_timeout(&at, LONG)).unwrap();
            let (_, from) = listener.accept().unwrap();
            assert_eq!(from, checks.local_addr().unwrap());
        }
    });
}

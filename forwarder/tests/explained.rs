//! What is explained is what kernels do: clients, ports and Services by chance, in network namespaces of the tests' own.
#![cfg(test)]

mod segment;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use arpeggio_election::{Epoch, Interface, Node, NodeFacts, Reach, Timestamp};
use arpeggio_forwarder::rules::Rules;
use arpeggio_forwarding::{
    Address, Endpoints, Fellow, Forwarder, Forwarding, Known, Life, Port, Protocol, Service,
    Settings, Wire, explain,
};
use segment::{DNS, QUIC, Segment, Version, WEB, both, mac, send_packet_too_big};
use socket2::{Domain, Socket, Type};

const LONG: Duration = Duration::from_secs(5);

/// Numbers that look like chance, and are the same in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    /// The address and the port of a client behind the router.
    fn client(&mut self, version: Version) -> SocketAddr {
        let last = u8::try_from(1 + self.below(250)).unwrap();
        let address: IpAddr = match version {
            Version::V4 => [198, 51, 100, last].into(),
            Version::V6 => [0x2001, 0xdb8, 1, 0, 0, 0, 0, u16::from(last)].into(),
        };
        SocketAddr::new(address, u16::try_from(20_000 + self.below(10_000)).unwrap())
    }
}

fn name(node: usize) -> Node {
    Node::from(format!("node-{node}").as_str())
}

fn fellow(version: Version, node: usize) -> Fellow {
    let prefix = if version == Version::V4 { 24 } else { 64 };
    let own = version.node(node);
    let subnets = vec![format!("{own}/{prefix}").parse().unwrap()];
    let lan = Interface { name: "eth0".into(), subnets, ..Interface::default() };
    Fellow {
        life: Life::Live,
        epoch: Epoch(1),
        wire: Wire::default(),
        reach: Reach { interfaces: vec![lan] },
        macs: BTreeMap::from([(own, mac(node))]),
        facts: Some(NodeFacts::default()),
        forwarder: Some(Forwarder::default()),
    }
}

fn known(version: Version, services: BTreeMap<Port, Service>) -> Known {
    let about = Address { holder: Some(name(1)), spread: true, services, ..Address::default() };
    Known {
        nodes: (1..=3).map(|node| (name(node), fellow(version, node))).collect(),
        addresses: [(version.service(), about)].into(),
        ..Known::default()
    }
}

/// What each node does about what is known, as its forwarder decides.
fn rules(segment: &Segment, known: &Known, keep: Duration) -> Vec<Rules> {
    let rules_of = |node| {
        let start = Timestamp::from_origin(Duration::ZERO);
        let mut forwarding = Forwarding::new(name(node), Settings { keep }, start);
        let plan = forwarding.decide(known, start + Duration::from_hours(1)).plan;
        segment.rules(node, &plan)
    };
    (1..=3).map(rules_of).collect()
}

/// Many clients behind a router.
fn route(segment: &Segment) {
    let (net, version) = match segment.version {
        Version::V4 => ("198.51.100.0/24", ""),
        Version::V6 => ("2001:db8:1::/64", "-6 "),
    };
    segment.client.set("ipv6/ip_nonlocal_bind", "1");
    segment.client.command(&format!("ip {version}route add local {net} dev lo"));
    for node in 1..=3 {
        let via = segment.version.client();
        segment.node(node).command(&format!("ip {version}route add {net} via {via}"));
    }
}

/// The node that serves a new TCP connection of a client.
fn by_tcp(segment: &Segment, client: SocketAddr) -> Option<usize> {
    let to = SocketAddr::new(segment.version.service(), WEB);
    let stream = segment.client.run(|| {
        let socket = Socket::new(Domain::for_address(client), Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&client.into()).unwrap();
        socket.connect_timeout(&to.into(), LONG).unwrap();
        TcpStream::from(socket)
    });
    stream.set_read_timeout(Some(LONG)).unwrap();
    (&stream).write_all(b"hello\n").unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    let mut words = line.split(' ');
    let node = words.next()?.parse().ok();
    assert_eq!(words.next()?, client.to_string(), "it sees the client");
    node
}

/// The nodes that serve some ports for a client, by one socket.
fn by_udp(segment: &Segment, client: SocketAddr, ports: [u16; 2]) -> [Option<usize>; 2] {
    let socket = segment.client.run(|| UdpSocket::bind(client).unwrap());
    socket.set_read_timeout(Some(LONG)).unwrap();
    let ask = |port| {
        let to = SocketAddr::new(segment.version.service(), port);
        segment::ask(&socket, to, &[0xc0, 1])
    };
    ports.map(ask)
}

#[test]
fn a_client_is_served_where_it_is_explained() {
    let port = |protocol, number| Port { protocol, number };
    let [web, quic, dns] = [(Protocol::Tcp, WEB), (Protocol::Udp, QUIC), (Protocol::Udp, DNS)]
        .map(|(a, b)| port(a, b));
    both(|segment| {
        route(segment);
        let mut chance = Chance(15);
        for affinity in [false, true] {
            let weights = || Endpoints::OnNodes([(name(1), 1), (name(2), 3), (name(3), 2)].into());
            let endpoints = || if affinity { Endpoints::Anywhere } else { weights() };
            let service = |quic| Service { affinity, quic, endpoints: endpoints() };
            let services = [(web, service(false)), (quic, service(true)), (dns, service(false))];
            let known = known(segment.version, services.into());
            let _rules = rules(segment, &known, Duration::from_mins(5));
            let mut served = BTreeSet::new();
            for _ in 0..40 {
                let client = chance.client(segment.version);
                let explained = |port| {
                    let to = (segment.version.service(), port);
                    explain(&known, to, (client.ip(), client.port())).node
                };
                let tcp = by_tcp(segment, client);
                assert_eq!(tcp.map(name), explained(web), "{client}, affinity {affinity}");
                let udp = by_udp(segment, client, [QUIC, DNS]);
                assert_eq!(udp.map(|it| it.map(name)), [quic, dns].map(explained), "{client}");
                served.insert(tcp);
            }
            assert_eq!(served.len(), 3);
        }
    });
}

/// The announcing node does not know the connection that they are about.
#[test]
fn icmp_errors_find_the_node_that_serves_the_connection() {
    let web = Port { protocol: Protocol::Tcp, number: WEB };
    for keep in [Duration::from_mins(5), Duration::ZERO] {
        both(|segment| {
            let known = known(segment.version, [(web, Service::default())].into());
            let _rules = rules(segment, &known, keep);
            let mut expected = [0; 4];
            let mut streams = Vec::new();
            while expected[1..].contains(&0) {
                let mut stream = segment.connect();
                let node = stream.node();
                send_packet_too_big(segment, stream.address());
                std::thread::sleep(Duration::from_millis(50));
                expected[node] += 1;
                let seen: Vec<_> = (1..=3).map(|node| segment.related(node)).collect();
                assert_eq!(seen, expected[1..], "of a connection on {node}, {keep:?}");
                assert_eq!(stream.node(), node);
                streams.push(stream);
            }
        });
    }
}

/// Something happens to the cluster.
fn happens(chance: &mut Chance, version: Version, known: &mut Known) {
    let node = name(usize::try_from(1 + chance.below(3)).unwrap());
    let what = chance.below(5);
    let about = known.addresses.get_mut(&version.service()).unwrap();
    let web = about.services.values_mut().next().unwrap();
    match what {
        0 => about.holder = Some(node),
        1 => about.spread = !about.spread,
        2 => web.affinity = !web.affinity,
        3 => {
            let weights = (1..=3).map(|n| (name(n), u32::try_from(chance.below(4)).unwrap()));
            web.endpoints = Endpoints::OnNodes(weights.collect());
        }
        _ => {
            let facts = known.nodes.get_mut(&node).unwrap().facts.as_mut().unwrap();
            facts.cordoned = !facts.cordoned;
        }
    }
}

/// Moves on top of moves, while spread comes and goes and its table changes.
#[test]
fn no_history_of_planned_changes_breaks_a_connection() {
    let web = Port { protocol: Protocol::Tcp, number: WEB };
    both(|segment| {
        let version = segment.version;
        let mut chance = Chance(2026);
        let mut known = known(version, [(web, Service::default())].into());
        let mut now = Timestamp::from_origin(Duration::from_hours(1));
        let settings = Settings { keep: Duration::from_hours(1) };
        let start = Timestamp::from_origin(Duration::ZERO);
        let mut nodes: Vec<_> = (1..=3)
            .map(|node| {
                let mut forwarding = Forwarding::new(name(node), settings, start);
                let plan = forwarding.decide(&known, now).plan;
                (forwarding, segment.rules(node, &plan))
            })
            .collect();
        let mut streams = Vec::new();
        for step in 0..40 {
            for _ in 0..2 {
                let mut stream = segment.connect();
                let (client, node) = (stream.address(), stream.node());
                let to = (version.service(), web);
                let explained = explain(&known, to, (client.ip(), client.port())).node;
                if let Some(explained) = explained {
                    assert_eq!(name(node), explained, "{client} in step {step}");
                }
                streams.push((stream, node));
            }
            happens(&mut chance, version, &mut known);
            now = now + Duration::from_secs(5);
            for (node, (forwarding, rules)) in (1..).zip(&mut nodes) {
                let plan = forwarding.decide(&known, now).plan;
                segment.node(node).run(|| rules.apply(&plan).unwrap());
            }
            let about = &known.addresses[&version.service()];
            let holder = (1..=3).find(|node| about.holder == Some(name(*node))).unwrap();
            segment.move_to(holder);
            for (stream, node) in &mut streams {
                let answered = stream.ask().unwrap_or_else(|error| {
                    panic!(
                        "step {step}, a connection of node {node} at {holder}: {error}; {about:?}"
                    )
                });
                assert_eq!(answered.0, *node);
            }
        }
        let met: BTreeSet<_> = streams.iter().map(|(_, node)| *node).collect();
        assert_eq!(met.len(), 3, "this shows little");
    });
}

/// Machines that have virtual ones beside them have their addresses on a bridge, which may have another MAC address than its port.
#[test]
fn an_address_on_a_bridge_is_spread_also_where_the_bridge_translates_it_first() {
    let web = Port { protocol: Protocol::Tcp, number: WEB };
    both(|segment| {
        segment.put_on_a_bridge(1, "lan0");
        let mut known = known(segment.version, [(web, Service::default())].into());
        known.nodes.get_mut(&name(1)).unwrap().reach.interfaces[0].name = "lan0".into();
        let _rules = rules(segment, &known, Duration::from_mins(5));
        for translates in segment.bridges_translate(1) {
            let mut met = BTreeSet::new();
            for _ in 0..20 {
                let mut stream = segment.connect();
                let client = stream.address();
                let to = (segment.version.service(), web);
                let explained = explain(&known, to, (client.ip(), client.port())).node;
                assert_eq!(Some(name(stream.node())), explained, "{translates}");
                assert_eq!(Some(name(stream.ask_at_length(200_000).unwrap())), explained);
                met.insert(stream.node());
            }
            assert_eq!(met.len(), 3, "{translates}");
        }
    });
}

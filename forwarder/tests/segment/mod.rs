//! A segment: a client and nodes at a bridge, each node with a backend of its own. All are network namespaces of the test.
#![allow(dead_code, reason = "not every test needs everything")]

#[path = "../../../crates/link/tests/namespace/mod.rs"]
mod namespace;
pub(crate) mod raw;

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::Arc,
    thread,
    time::Duration,
};

use arpeggio_election::Node;
use arpeggio_forwarder::rules::Rules;
use arpeggio_forwarding::{Hop, Mac, Passing, Plan, PlannedAddress, Way};
use arpeggio_link::calls::uninterrupted;
pub(crate) use namespace::Namespace;
use raw::checksum;
use socket2::{Domain, Protocol, Socket, Type};

/// The port of TCP.
pub(crate) const WEB: u16 = 80;
/// The port of QUIC.
pub(crate) const QUIC: u16 = 443;
/// The port of plain UDP.
pub(crate) const DNS: u16 = 53;

/// How addresses of one family look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V6,
}

pub(crate) struct Segment {
    pub(crate) client: Namespace,
    bridge: Namespace,
    nodes: Vec<Namespace>,
    pub(crate) version: Version,
    /// What has the address, on the client and on each node.
    pub(crate) interface: &'static str,
}

/// The end of each cable.
const CABLE: &str = "eth0";
/// A VLAN on it.
const VLAN: &str = "eth0.10";

/// Runs a test for both families.
pub(crate) fn both(test: impl Fn(&Segment)) {
    both_on(CABLE, test);
}

/// The same where all have their addresses in a VLAN of the segment. The kernel needs VLAN devices.
pub(crate) fn both_on_a_vlan(test: impl Fn(&Segment)) {
    both_on(VLAN, test);
}

fn both_on(interface: &'static str, test: impl Fn(&Segment)) {
    for version in [Version::V4, Version::V6] {
        let Some(segment) = Segment::on(interface, version) else { return };
        test(&segment);
    }
}

impl Version {
    /// The address that is served.
    pub(crate) fn service(self) -> IpAddr {
        self.address(200)
    }

    pub(crate) fn client(self) -> IpAddr {
        self.address(100)
    }

    pub(crate) fn node(self, node: usize) -> IpAddr {
        self.address(u8::try_from(node).unwrap())
    }

    pub(crate) fn address(self, last: u8) -> IpAddr {
        match self {
            Self::V4 => [192, 0, 2, last].into(),
            Self::V6 => [0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)].into(),
        }
    }

    /// Where the backend of every node listens.
    pub(crate) fn backend(self) -> IpAddr {
        match self {
            Self::V4 => [10, 9, 9, 9].into(),
            Self::V6 => [0xfd00, 0, 0, 0, 0, 0, 0, 9].into(),
        }
    }

    fn prefix(self) -> u8 {
        match self {
            Self::V4 => 24,
            Self::V6 => 64,
        }
    }

    /// For `ip address`: the address can be used at once, without duplicate address detection.
    pub(crate) fn at_once(self) -> &'static str {
        match self {
            Self::V4 => "",
            Self::V6 => " nodad",
        }
    }

    /// For `nft`: nothing gets to the backend of a node any more, and it answers nothing.
    pub(crate) fn drop_all_to_backends(self) -> String {
        let (family, backend) = (self.family(), self.backend());
        format!(
            "table {family} dead {{ chain c {{ type filter hook input priority 0;
             {family} daddr {backend} drop; }}
             }}",
        )
    }

    pub(crate) fn family(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

/// The MAC address of a node's `eth0`.
pub(crate) fn mac(node: usize) -> Mac {
    [2, 0, 0, 0, 0, u8::try_from(node).unwrap()]
}

fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

impl Segment {
    /// Three nodes. `None` when such tests are to be skipped.
    pub(crate) fn new(version: Version) -> Option<Self> {
        Self::on(CABLE, version)
    }

    fn on(interface: &'static str, version: Version) -> Option<Self> {
        let [bridge, client, one, two, three] = Namespace::several()?;
        bridge.command("ip link add br0 type bridge mcast_snooping 0");
        bridge.command("ip link set br0 up");
        let segment = Self { client, bridge, nodes: vec![one, two, three], version, interface };
        segment.join(&segment.client, "c", version.client(), [2, 0, 0, 0, 0, 100]);
        for (node, namespace) in segment.nodes.iter().enumerate().map(|(index, it)| (index + 1, it))
        {
            segment.join(namespace, &format!("n{node}"), version.node(node), mac(node));
            segment.serve(namespace, node);
        }
        segment.move_to(1);
        segment.wait();
        Some(segment)
    }

    /// Until the bridge forwards, which it does some moments after its ports are up.
    fn wait(&self) {
        for node in 1..=3 {
            self.client.command(&format!("ping -c 1 -w 10 {}", self.version.node(node)));
        }
    }

    fn join(&self, namespace: &Namespace, port: &str, address: IpAddr, mac: Mac) {
        let bridge = &self.bridge;
        let there = namespace.path();
        bridge.command(&format!("ip link add {port} type veth peer name eth0 netns {there}"));
        bridge.command(&format!("ip link set {port} master br0 up"));
        namespace.command("ip link set lo up");
        namespace.command(&format!("ip link set eth0 address {} up", text(mac)));
        let (prefix, nodad) = (self.version.prefix(), self.version.at_once());
        let interface = self.interface;
        if interface == VLAN {
            namespace.command(&format!("ip link add link eth0 name {VLAN} type vlan id 10"));
            namespace.command(&format!("ip link set {VLAN} up"));
        }
        namespace.command(&format!("ip address add {address}/{prefix} dev {interface}{nodad}"));
    }

    /// Takes the cable of a node away and lays another one: the interface has the name and the addresses that it had.
    pub(crate) fn make_anew(&self, node: usize) {
        let namespace = self.node(node);
        namespace.command("ip link delete eth0");
        self.join(namespace, &format!("n{node}"), self.version.node(node), mac(node));
        for fellow in (1..=3).filter(|fellow| *fellow != node) {
            self.tell_of(namespace, fellow);
        }
        self.client.command(&format!("ping -c 1 -w 10 {}", self.version.node(node)));
    }

    /// The kernel of a node knows the MAC address of another one from now on.
    fn tell_of(&self, node: &Namespace, fellow: usize) {
        let (address, mac) = (self.version.node(fellow), text(mac(fellow)));
        let at = format!("dev {} nud stale", self.interface);
        node.command(&format!("ip neigh replace {address} lladdr {mac} {at}"));
    }

    /// Gives the address of a node to a bridge, which has its `eth0`.
    pub(crate) fn put_on_a_bridge(&self, node: usize, name: &str) {
        let namespace = self.node(node);
        let (address, prefix) = (self.version.node(node), self.version.prefix());
        namespace.command(&format!("ip link add {name} type bridge mcast_snooping 0"));
        namespace.command(&format!("ip link set {name} address {} up", text(mac(node))));
        namespace.command("ip address flush dev eth0");
        namespace.command(&format!("ip link set eth0 address {}", text(mac(70 + node))));
        namespace.command(&format!("ip link set eth0 master {name}"));
        let nodad = self.version.at_once();
        namespace.command(&format!("ip address add {address}/{prefix} dev {name}{nodad}"));
        for fellow in (1..=3).filter(|fellow| *fellow != node) {
            let (address, mac) = (self.version.node(fellow), text(mac(fellow)));
            namespace
                .command(&format!("ip neigh replace {address} lladdr {mac} dev {name} nud stale"));
        }
        self.client.command(&format!("ping -c 1 -w 20 {address}"));
    }

    /// Goes through the ways in which a node's bridges may treat packets: not at all; and, where the kernel can, as if they were
    /// routed (`br_netfilter`), so that they are translated before the bridge has them as its own.
    pub(crate) fn bridges_translate(&self, node: usize) -> impl Iterator<Item = bool> {
        let name = match self.version {
            Version::V4 => "bridge/bridge-nf-call-iptables",
            Version::V6 => "bridge/bridge-nf-call-ip6tables",
        };
        let can = std::path::Path::new("/proc/sys/net").join(name).exists();
        let ways = if can { vec![false, true] } else { vec![false] };
        ways.into_iter().inspect(move |translates| {
            if can {
                self.node(node).set(name, if *translates { "1" } else { "0" });
            }
        })
    }

    /// A node translates as kube-proxy does, to a backend that says which node it is on and which client it sees.
    fn serve(&self, namespace: &Namespace, node: usize) {
        let (version, backend) = (self.version, self.version.backend());
        namespace.command(&format!("ip address add {backend} dev lo{}", version.at_once()));
        let (family, service) = (version.family(), version.service());
        namespace.nft(&format!(
            "table {family} proxy {{ chain c {{ type nat hook prerouting priority -100;
             {family} daddr {service} meta l4proto {{ tcp, udp }} dnat to {backend}; }}
             }}
             table {family} watch {{ chain c {{ type filter hook prerouting priority -110;
             meta l4proto {{ icmp, icmpv6 }} ct state related counter; }}
             }}",
        ));
        let listener = namespace.run(|| TcpListener::bind((backend, WEB)).unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(move || answer(stream.unwrap(), node));
            }
        });
        for port in [QUIC, DNS] {
            let socket = namespace.run(|| UdpSocket::bind((backend, port)).unwrap());
            thread::spawn(move || answer_datagrams(&socket, node));
        }
    }

    pub(crate) fn node(&self, node: usize) -> &Namespace {
        &self.nodes[node - 1]
    }

    /// Makes the client a router, of IPv4, before somebody with the address 198.51.100.2. What is longer than so many bytes it cuts.
    pub(crate) fn put_behind_the_client(&self, behind: &Namespace, longest: u16) {
        self.client.cable("behind", behind);
        self.client.command("ip address add 198.51.100.1/24 dev behind");
        self.client.command("ip link set behind up");
        self.client.set("ipv4/ip_forward", "1");
        let service = self.version.service();
        self.client.command(&format!("ip route add {service} dev eth0 mtu lock {longest}"));
        behind.command("ip address add 198.51.100.2/24 dev eth0");
        behind.command("ip link set eth0 up");
        behind.command("ip route add default via 198.51.100.1");
        // Or it would not let itself be cut.
        behind.set("ipv4/ip_no_pmtu_disc", "1");
        for node in &self.nodes {
            node.command(&format!("ip route add 198.51.100.0/24 via {}", self.version.client()));
        }
    }

    /// The bridge's end of each cable, and the other one.
    pub(crate) fn cables(&self) -> impl Iterator<Item = [(&Namespace, String); 2]> {
        let nodes = (1..).zip(&self.nodes).map(|(node, it)| (format!("n{node}"), it));
        let all = [("c".to_owned(), &self.client)].into_iter().chain(nodes);
        all.map(|(port, there)| [(&self.bridge, port), (there, "eth0".to_owned())])
    }

    /// Puts the cable of a node in, or pulls it.
    pub(crate) fn plug(&self, node: usize, is_in: bool) {
        let state = if is_in { "up" } else { "down" };
        self.bridge.command(&format!("ip link set n{node} {state}"));
    }

    /// The bridge sends every frame everywhere.
    pub(crate) fn flood(&self) {
        self.bridge.command("ip link set br0 type bridge ageing_time 0");
        for port in ["c", "n1", "n2", "n3"] {
            self.bridge.command(&format!("bridge link set dev {port} learning off"));
        }
        self.bridge.command("bridge fdb flush dev br0");
    }

    /// The client has the address at this node from now on.
    pub(crate) fn move_to(&self, node: usize) {
        let (service, mac) = (self.version.service(), text(mac(node)));
        let at = format!("dev {} nud permanent", self.interface);
        self.client.command(&format!("ip neigh replace {service} lladdr {mac} {at}"));
    }

    /// Opens a connection to the address.
    pub(crate) fn connect(&self) -> Stream {
        let to = SocketAddr::new(self.version.service(), WEB);
        let stream =
            self.client.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap());
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Stream(BufReader::new(stream))
    }

    pub(crate) fn socket(&self) -> UdpSocket {
        let socket = self.client.run(|| UdpSocket::bind((self.version.client(), 0)).unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }

    /// Rules of a node, which knows the MAC addresses of its fellows, as the program sees to it.
    pub(crate) fn rules(&self, node: usize, plan: &Plan) -> Rules {
        for fellow in (1..=3).filter(|fellow| *fellow != node) {
            self.tell_of(self.node(node), fellow);
        }
        self.node(node).run(|| {
            let mut rules = Rules::new().unwrap();
            assert_eq!(rules.apply(plan).unwrap().missing, BTreeSet::new());
            rules
        })
    }

    /// From one node to another.
    pub(crate) fn hop(&self, from: usize, to: usize) -> Way {
        Way::To(Arc::new(Hop {
            node: Node::from(format!("node-{to}").as_str()),
            interface: self.interface.to_owned(),
            next_hop: self.version.node(to),
            mac: mac(to),
            own_mac: mac(from),
            knows_mark: true,
        }))
    }

    /// From one node to another one that does not know the mark.
    pub(crate) fn hop_to_earlier(&self, from: usize, to: usize) -> Way {
        let Way::To(hop) = self.hop(from, to) else { return Way::Local };
        Way::To(Arc::new(Hop { knows_mark: false, ..(*hop).clone() }))
    }

    /// What a node does with packets that it does not know, when they come from outside and from a fellow.
    pub(crate) fn passing(&self, node: usize, from_outside: Way, from_fellow: Way) -> Plan {
        let passing = Passing { from_outside, from_fellow };
        let planned = PlannedAddress { passing, quic: [QUIC].into(), ..PlannedAddress::default() };
        self.plan(node, planned)
    }

    pub(crate) fn plan(&self, node: usize, planned: PlannedAddress) -> Plan {
        let fellows = (1..=self.nodes.len()).filter(|other| *other != node).map(mac).collect();
        Plan { fellows, addresses: [(self.version.service(), planned)].into() }
    }

    /// How many ICMP errors conntrack of a node has related to its connections.
    pub(crate) fn related(&self, node: usize) -> u32 {
        let seen =
            self.node(node).command(&format!("nft list table {} watch", self.version.family()));
        seen.split("packets ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
    }
}

/// An ICMP error about a packet of the address to the client, such as a router sends.
pub(crate) fn send_packet_too_big(segment: &Segment, client: SocketAddr) {
    let service = segment.version.service();
    let mut ports = WEB.to_be_bytes().to_vec();
    ports.extend(client.port().to_be_bytes());
    ports.extend([0; 16]);
    let (domain, protocol, mut error) = match (service, client.ip()) {
        (IpAddr::V4(service), IpAddr::V4(client)) => {
            let mut inner = vec![0x45, 0, 0x05, 0xdc, 0, 1, 0x40, 0, 64, 6, 0, 0];
            inner.extend(service.octets());
            inner.extend(client.octets());
            let sum = checksum(&inner);
            inner[10..12].copy_from_slice(&sum.to_be_bytes());
            (Domain::IPV4, Protocol::ICMPV4, [vec![3, 4, 0, 0, 0, 0, 0x05, 0x14], inner].concat())
        }
        (IpAddr::V6(service), IpAddr::V6(client)) => {
            let mut inner = vec![0x60, 0, 0, 0, 0x05, 0xb4, 6, 64];
            inner.extend(service.octets());
            inner.extend(client.octets());
            (Domain::IPV6, Protocol::ICMPV6, [vec![2, 0, 0, 0, 0, 0, 0x05, 0x14], inner].concat())
        }
        _ => unreachable!("one family at a time"),
    };
    error.extend(ports);
    if domain == Domain::IPV4 {
        let sum = checksum(&error);
        error[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    segment.client.run(|| {
        let socket = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
        socket.send_to(&error, &SocketAddr::new(service, 0).into()).unwrap();
    });
}

fn answer(stream: TcpStream, node: usize) {
    let mut writing = stream.try_clone().unwrap();
    let peer = stream.peer_addr().unwrap();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if writing.write_all(format!("{node} {peer} {line}\n").as_bytes()).is_err() {
            return;
        }
    }
}

fn answer_datagrams(socket: &UdpSocket, node: usize) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok((_, from)) = socket.recv_from(&mut bytes) {
        drop(socket.send_to(node.to_string().as_bytes(), from));
    }
}

/// An open connection.
pub(crate) struct Stream(BufReader<TcpStream>);

impl Stream {
    /// Asks who is at the other end: the node, and the client's address as it is seen there.
    pub(crate) fn ask(&mut self) -> std::io::Result<(usize, SocketAddr)> {
        self.0.get_mut().write_all(b"hello\n")?;
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut words = line.split(' ');
        Ok((words.next().unwrap().parse().unwrap(), words.next().unwrap().parse().unwrap()))
    }

    /// The node that answers to a question of so many bytes with all of them.
    pub(crate) fn ask_at_length(&mut self, length: usize) -> std::io::Result<usize> {
        let question = [vec![b'x'; length], vec![b'\n']].concat();
        let mut writing = self.0.get_ref().try_clone()?;
        let asking = thread::spawn(move || writing.write_all(&question));
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        asking.join().unwrap()?;
        let mut words = line.trim_end().split(' ');
        let node = words.next().unwrap().parse().unwrap();
        assert_eq!(words.nth(1).unwrap().len(), length);
        Ok(node)
    }

    pub(crate) fn node(&mut self) -> usize {
        self.ask().unwrap().0
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.get_ref().local_addr().unwrap()
    }
}

/// The node that answers a datagram, if one does in the socket's time.
pub(crate) fn ask(socket: &UdpSocket, to: SocketAddr, datagram: &[u8]) -> Option<usize> {
    socket.send_to(datagram, to).unwrap();
    let mut bytes = [0; 100];
    match uninterrupted(|| socket.recv(&mut bytes)) {
        Ok(length) => Some(String::from_utf8_lossy(&bytes[..length]).parse().unwrap()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("no answer from {to}: {error}"),
    }
}

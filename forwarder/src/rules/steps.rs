//! Parts of rules.

use std::net::IpAddr;

use arpeggio_forwarding::{BUCKETS, Hop, Protocol, Spread, SpreadBy};
use arpeggio_netfilter::{
    Comparison, Expression, Family, Field, Header, Meta, Register, Rule, Verdict, conntrack_state,
};

/// What is looked at by itself, and the first part of every key.
const FIRST: Register = Register::new(0);
/// A bucket, beside a key.
const BUCKET: Register = Register::new(8);
/// The bits of TCP that tell what a packet is.
const FIN_SYN_RST_ACK: u8 = 0x17;
/// Those of packets that end a connection.
const FIN_RST: u8 = 0x05;
/// Those of a packet that begins a connection.
const SYN: u8 = 0x02;

/// How the two versions of IP differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V6,
}

impl Version {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(super) fn family(self) -> Family {
        match self {
            Self::V4 => Family::Ip,
            Self::V6 => Family::Ip6,
        }
    }

    pub(super) fn field(self) -> Field {
        match self {
            Self::V4 => Field::Ip,
            Self::V6 => Field::Ip6,
        }
    }

    /// In the names of sets.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    fn ethernet_type(self) -> [u8; 2] {
        match self {
            Self::V4 => [0x08, 0x00],
            Self::V6 => [0x86, 0xdd],
        }
    }

    fn length(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    fn source(self) -> u32 {
        match self {
            Self::V4 => 12,
            Self::V6 => 8,
        }
    }

    /// The register behind an address in the first ones.
    fn second(self) -> Register {
        match self {
            Self::V4 => Register::new(1),
            Self::V6 => Register::new(4),
        }
    }

    fn third(self) -> Register {
        match self {
            Self::V4 => Register::new(2),
            Self::V6 => Register::new(5),
        }
    }

    fn load_source(self) -> Expression {
        let (offset, length) = (self.source(), self.length());
        Expression::Payload { header: Header::Network, offset, length, to: FIRST }
    }

    fn load_destination(self) -> Expression {
        let (offset, length) = (self.source() + self.length(), self.length());
        Expression::Payload { header: Header::Network, offset, length, to: FIRST }
    }

    /// Where the hop limit is.
    fn hop_limit(self) -> u32 {
        match self {
            Self::V4 => 8,
            Self::V6 => 7,
        }
    }

    /// The bits of DSCP in the first two bytes.
    fn dscp(self) -> [u8; 2] {
        match self {
            Self::V4 => [0x00, 0xfc],
            Self::V6 => [0x0f, 0xc0],
        }
    }

    /// Where the header has a checksum.
    fn checksum(self) -> Option<u32> {
        match self {
            Self::V4 => Some(10),
            Self::V6 => None,
        }
    }

    /// The transport protocol of ICMP, and the types of its errors.
    fn icmp_errors(self) -> (u8, &'static [u8]) {
        match self {
            Self::V4 => (1, &[3, 11, 12]),
            Self::V6 => (58, &[1, 2, 3, 4]),
        }
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

pub(super) fn number_of(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

pub(super) fn rule(parts: impl IntoIterator<Item = Vec<Expression>>) -> Rule {
    parts.into_iter().flatten().collect()
}

fn is(value: impl Into<Vec<u8>>) -> Expression {
    Expression::Compare { register: FIRST, comparison: Comparison::Equal, value: value.into() }
}

fn is_not(value: impl Into<Vec<u8>>) -> Expression {
    Expression::Compare { register: FIRST, comparison: Comparison::NotEqual, value: value.into() }
}

fn transport_bytes(offset: u32, length: u32, to: Register) -> Expression {
    Expression::Payload { header: Header::Transport, offset, length, to }
}

/// Judges by the destination address.
pub(super) fn by_destination(version: Version, map: &str) -> Vec<Expression> {
    vec![version.load_destination(), Expression::LookUpVerdict { map: map.to_owned(), key: FIRST }]
}

/// Judges by destination address, transport protocol and port.
pub(super) fn by_port(version: Version, map: &str) -> Vec<Expression> {
    vec![
        version.load_destination(),
        Expression::Meta { key: Meta::TransportProtocol, to: version.second() },
        transport_bytes(2, 2, version.third()),
        Expression::LookUpVerdict { map: map.to_owned(), key: FIRST },
    ]
}

/// The frame has this Ethernet type and, since it is the one on the wire, no VLAN tag.
pub(super) fn untagged(version: Version) -> Vec<Expression> {
    vec![
        Expression::Payload { header: Header::Link, offset: 12, length: 2, to: FIRST },
        is(version.ethernet_type()),
    ]
}

/// The frame is for this node. A switch that does not know where a node is sends its frames to all, and a device that watches for
/// others, or that is virtual, takes them.
pub(super) fn for_this_node() -> Vec<Expression> {
    vec![Expression::Meta { key: Meta::PacketType, to: FIRST }, is([0])]
}

/// The frame is for the node's interface with this MAC address, which is another one than the frame came in by.
pub(super) fn for_mac(mac: [u8; 6]) -> Vec<Expression> {
    vec![Expression::Payload { header: Header::Link, offset: 0, length: 6, to: FIRST }, is(mac)]
}

pub(super) fn from_fellow(set: &str) -> Vec<Expression> {
    vec![
        Expression::Payload { header: Header::Link, offset: 6, length: 6, to: FIRST },
        Expression::InSet { set: set.to_owned(), key: FIRST, inverted: false },
    ]
}

pub(super) fn known_to_conntrack() -> Vec<Expression> {
    let unknown = conntrack_state::NEW | conntrack_state::INVALID;
    vec![
        Expression::ConntrackState { to: FIRST },
        Expression::Mask { register: FIRST, mask: unknown.to_ne_bytes().to_vec() },
        is([0; 4]),
    ]
}

pub(super) fn protocol(protocol: u8) -> Vec<Expression> {
    vec![Expression::Meta { key: Meta::TransportProtocol, to: FIRST }, is([protocol])]
}

/// TCP that conntrack finds invalid: it knows a connection with these ends, and the packet is far outside of its window, or is of a later
/// connection from the same port. A packet of no connection is invalid to it only when it ends one; all others are new
/// ([`Here::strict`](super::here::Here)).
pub(super) fn tcp_that_does_not_fit() -> Vec<Expression> {
    let invalid = conntrack_state::INVALID.to_ne_bytes();
    let mut steps = vec![
        Expression::ConntrackState { to: FIRST },
        Expression::Mask { register: FIRST, mask: invalid.to_vec() },
        is_not([0; 4]),
    ];
    steps.extend(tcp_flags(FIN_RST, is([0])));
    steps
}

/// The first two bytes of IP's header, in which DSCP is.
fn load_first_bytes() -> Expression {
    Expression::Payload { header: Header::Network, offset: 0, length: 2, to: FIRST }
}

/// Marks a packet that conntrack here finds [invalid](tcp_that_does_not_fit): whoever knows its connection gets it, and nobody resets
/// it. In DSCP all bits are set, which is a value for local use (RFC 2474), and used by nobody.
pub(super) fn mark(version: Version) -> Vec<Expression> {
    let dscp = version.dscp();
    vec![
        load_first_bytes(),
        Expression::SetBits {
            register: FIRST,
            mask: dscp.map(|byte| !byte).to_vec(),
            bits: dscp.to_vec(),
        },
        Expression::SetPayload {
            header: Header::Network,
            offset: 0,
            length: 2,
            from: FIRST,
            checksum: version.checksum(),
        },
    ]
}

/// TCP that has the [`mark`], here or at a fellow.
fn marked(version: Version) -> Vec<Expression> {
    let dscp = version.dscp();
    let mut steps = protocol(number_of(Protocol::Tcp));
    steps.extend([
        load_first_bytes(),
        Expression::Mask { register: FIRST, mask: dscp.to_vec() },
        is(dscp),
    ]);
    steps
}

/// Nobody is left to ask for packets of `which`. Where one has the [`mark`], some node knows a connection with its ends, and a
/// backend here would reset that.
pub(super) fn stays(version: Version, which: &[Expression], verdict: Rule) -> [Rule; 2] {
    let which = which.to_vec();
    [rule([which.clone(), marked(version), drop()]), rule([which, verdict])]
}

fn tcp_flags(mask: u8, compared: Expression) -> Vec<Expression> {
    let mut steps = protocol(number_of(Protocol::Tcp));
    steps.push(transport_bytes(13, 1, FIRST));
    steps.push(Expression::Mask { register: FIRST, mask: vec![mask] });
    steps.push(compared);
    steps
}

/// TCP that begins a connection.
pub(super) fn tcp_first() -> Vec<Expression> {
    tcp_flags(FIN_SYN_RST_ACK, is([SYN]))
}

/// TCP of a connection that somebody knows.
pub(super) fn tcp_other() -> Vec<Expression> {
    tcp_flags(FIN_SYN_RST_ACK, is_not([SYN]))
}

fn quic(compare: fn([u8; 1]) -> Expression) -> Vec<Expression> {
    let mut steps = protocol(number_of(Protocol::Udp));
    steps.push(transport_bytes(8, 1, FIRST));
    steps.push(Expression::Mask { register: FIRST, mask: vec![0x80] });
    steps.push(compare([0]));
    steps
}

/// QUIC's long header.
pub(super) fn quic_first() -> Vec<Expression> {
    quic(is_not)
}

/// QUIC's short header.
pub(super) fn quic_other() -> Vec<Expression> {
    quic(is)
}

/// To one of the ports of a set.
pub(super) fn to_port_in(version: Version, set: &str) -> Vec<Expression> {
    vec![
        version.load_destination(),
        transport_bytes(2, 2, version.second()),
        Expression::InSet { set: set.to_owned(), key: FIRST, inverted: false },
    ]
}

/// One for each kind of ICMP error.
pub(super) fn icmp_errors(version: Version) -> impl Iterator<Item = Vec<Expression>> {
    let (number, types) = version.icmp_errors();
    types.iter().map(move |kind| {
        let mut steps = protocol(number);
        steps.push(transport_bytes(0, 1, FIRST));
        steps.push(is([*kind]));
        steps
    })
}

/// A part of a packet, the first part included.
pub(super) fn fragment(version: Version) -> Vec<Expression> {
    match version {
        Version::V4 => vec![
            Expression::Payload { header: Header::Network, offset: 6, length: 2, to: FIRST },
            Expression::Mask { register: FIRST, mask: vec![0x3f, 0xff] },
            is_not([0, 0]),
        ],
        Version::V6 => vec![Expression::HasExtension { kind: 44, to: FIRST }, is([1])],
    }
}

/// Loads the bucket of a packet.
fn bucket(version: Version, spread: &Spread) -> Vec<Expression> {
    let mut steps = vec![version.load_source()];
    let length = match spread.by {
        SpreadBy::Client => version.length(),
        SpreadBy::ClientAndPort => {
            steps.push(transport_bytes(0, 2, version.second()));
            version.length() + 4
        }
    };
    let (modulus, seed) = (u32::from(BUCKETS), spread.seed);
    steps.push(Expression::Hash { from: FIRST, length, modulus, seed, to: BUCKET });
    steps
}

/// Judges by the destination address and the node of the bucket. One that is not in the map stays.
///
/// The node's MAC address goes by way of the frame, where it is to be in the end: nft 1.0.6 (Debian 12) does not know how long what
/// comes from a map is, and stops when it is to list a rule that looks that up.
pub(super) fn by_bucket(version: Version, spread: &Spread, map: &str) -> Vec<Expression> {
    let (header, offset, length) = (Header::Link, 0, 6);
    let mut steps = bucket(version, spread);
    steps.extend([
        Expression::LookUp { map: map.to_owned(), key: BUCKET, to: FIRST },
        Expression::SetPayload { header, offset, length, from: FIRST, checksum: None },
        version.load_destination(),
        Expression::Payload { header, offset, length, to: version.second() },
        Expression::LookUpVerdict { map: nodes_map(version), key: FIRST },
    ]);
    steps
}

/// The map from addresses and nodes to the chains that send frames there.
pub(super) fn nodes_map(version: Version) -> String {
    format!("nodes {}", version.name())
}

/// Sends the packet to the next hop of its bucket. One that is not in the map stays. `unmarked`: the set of the buckets whose nodes do not
/// know the [`mark`], if there are any.
pub(super) fn pass_by_bucket(
    version: Version,
    spread: &Spread,
    (map, unmarked): (&str, Option<String>),
    counter: &str,
) -> Vec<Rule> {
    let bucket = bucket(version, spread);
    let mut steps = bucket.clone();
    steps.push(Expression::LookUp { map: map.to_owned(), key: BUCKET, to: FIRST });
    let unmarked = unmarked.map(|set| {
        let to_such = vec![Expression::InSet { set, key: BUCKET, inverted: false }];
        rule([marked(version), bucket, to_such, drop()])
    });
    let at_the_end = rule([spent(version), steps.clone(), drop()]);
    let passed = rule([steps, send_and_drop(version, counter)]);
    [at_the_end].into_iter().chain(unmarked).chain([passed]).collect()
}

/// Sends the packet to a next hop, unless it has the [`mark`] and the node does not know that; where these steps have it come to that.
pub(super) fn pass(
    version: Version,
    which: &[Expression],
    (hop, device): (&Hop, u32),
    counter: &str,
) -> Vec<Rule> {
    let which = which.to_vec();
    let to = vec![
        Expression::Load { value: octets(hop.next_hop), to: FIRST },
        Expression::Load { value: device.to_ne_bytes().to_vec(), to: version.second() },
    ];
    let at_the_end = rule([spent(version), which.clone(), drop()]);
    let unmarked = (!hop.knows_mark).then(|| rule([which.clone(), marked(version), drop()]));
    let passed = rule([which, to, send_and_drop(version, counter)]);
    [at_the_end].into_iter().chain(unmarked).chain([passed]).collect()
}

/// The packet has come to the end of its hop limit. To duplicate it takes one and does not look whether any is left: a packet that goes
/// round in circles would do so for ever.
fn spent(version: Version) -> Vec<Expression> {
    let (offset, comparison) = (version.hop_limit(), Comparison::Less);
    vec![
        Expression::Payload { header: Header::Network, offset, length: 1, to: FIRST },
        Expression::Compare { register: FIRST, comparison, value: vec![2] },
    ]
}

/// What is sent is a copy that conntrack does not see, and conntrack forgets what is dropped: the connection stays unknown here.
fn send_and_drop(version: Version, counter: &str) -> Vec<Expression> {
    let mut steps = vec![
        Expression::NamedCounter(counter.to_owned()),
        Expression::Duplicate { address: FIRST, device: version.second() },
    ];
    steps.extend(drop());
    steps
}

fn drop() -> Vec<Expression> {
    vec![Expression::Verdict(Verdict::Drop)]
}

/// Answers TCP by a reset.
pub(super) fn reset(counter: &str) -> Vec<Expression> {
    let mut steps = protocol(number_of(Protocol::Tcp));
    steps.extend([Expression::NamedCounter(counter.to_owned()), Expression::Reset]);
    steps
}

/// Sends the frame to another MAC address. It leaves with our own as its source, or a switch would look for the client here.
pub(super) fn readdress(to: [u8; 6], own: [u8; 6], device: u32, counter: &str) -> Vec<Expression> {
    vec![
        Expression::NamedCounter(counter.to_owned()),
        Expression::Load { value: [to, own].concat(), to: FIRST },
        Expression::SetPayload {
            header: Header::Link,
            offset: 0,
            length: 12,
            from: FIRST,
            checksum: None,
        },
        Expression::Load { value: device.to_ne_bytes().to_vec(), to: BUCKET },
        Expression::Forward { device: BUCKET },
    ]
}

pub(super) fn goto(chain: &str) -> Vec<Expression> {
    vec![Expression::Verdict(Verdict::Goto(chain.to_owned()))]
}

pub(super) fn accept() -> Vec<Expression> {
    vec![Expression::Verdict(Verdict::Accept)]
}

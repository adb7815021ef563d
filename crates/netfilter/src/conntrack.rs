//! Connections, as conntrack has them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use libc::{IPPROTO_TCP, IPPROTO_UDP};

use crate::{
    attributes::{self, Attributes},
    error::Error,
    message::CONNTRACK,
    socket::Netfilter,
};

/// `IPCTNL_MSG_CT_GET`.
const GET: u16 = (CONNTRACK as u16) << 8 | 1;
const TUPLE_ORIG: u16 = 1;
const PROTOINFO: u16 = 4;
const FILTER: u16 = 25;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SRC: u16 = 1;
const IP_V4_DST: u16 = 2;
const IP_V6_SRC: u16 = 3;
const IP_V6_DST: u16 = 4;
const PROTO_NUM: u16 = 1;
const PROTO_DST_PORT: u16 = 3;
/// `CTA_FILTER_F_CTA_IP_DST`: of a tuple, only the destination counts.
const BY_DESTINATION: u32 = 1 << 1;
/// `TCP_CONNTRACK_TIME_WAIT` and `TCP_CONNTRACK_CLOSE`: both sides are done.
const TCP_OVER: [u8; 2] = [7, 8];

/// How many connections there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connections {
    /// Of TCP, without those that both sides have closed or that were reset.
    pub tcp: u32,
    /// Of UDP, to the ports that were asked for: those that conntrack has not forgotten yet.
    pub udp: u32,
}

/// Which connections are counted.
struct Wanted<'a> {
    /// Those to these addresses; of UDP those to the ports beside an address.
    addresses: &'a BTreeMap<IpAddr, BTreeSet<u16>>,
    /// Those that do not come from these.
    own: &'a BTreeSet<IpAddr>,
}

/// One connection, as far as it matters here.
struct Connection {
    source: Option<IpAddr>,
    destination: IpAddr,
    protocol: u8,
    /// Of the destination.
    port: Option<u16>,
    over: bool,
}

impl Netfilter {
    /// Counts the connections that clients opened to these addresses, whatever they were translated to; of UDP those to the ports that
    /// stand beside an address. Those from the machine's `own` addresses do not count. An address of none has zeros. It takes no more
    /// memory when there are more connections.
    ///
    /// # Errors
    ///
    /// When the kernel does not list them.
    pub fn connections(
        &mut self,
        addresses: &BTreeMap<IpAddr, BTreeSet<u16>>,
        own: &BTreeSet<IpAddr>,
    ) -> Result<BTreeMap<IpAddr, Connections>, Error> {
        let (mut counts, wanted) = (BTreeMap::new(), Wanted { addresses, own });
        for family in [libc::AF_INET, libc::AF_INET6] {
            let of_family: Vec<_> =
                addresses.keys().filter(|a| a.is_ipv4() == (family == libc::AF_INET)).collect();
            let filter = match of_family[..] {
                [] => continue,
                [IpAddr::V4(only)] => filter(*only),
                // Of IPv6 the kernel lists all others instead (seen with 6.18).
                _ => Attributes::default(),
            };
            let family = u8::try_from(family).unwrap_or_default();
            let none = || of_family.iter().map(|address| (**address, Connections::default()));
            let of_family = self.list(
                (GET, family),
                filter.as_bytes(),
                || none().collect(),
                |counts, found| count(found, &wanted, counts),
            )?;
            counts.extend(of_family);
        }
        Ok(counts)
    }
}

/// What has the kernel (5.8 or later) list only connections to one address. Others list all.
fn filter(address: Ipv4Addr) -> Attributes {
    let mut filter = Attributes::default();
    filter.nest(TUPLE_ORIG, |tuple| {
        tuple.nest(TUPLE_IP, |ip| {
            ip.bytes(IP_V4_DST, &address.octets());
        });
    });
    // These two numbers are in the machine's byte order.
    filter.nest(FILTER, |flags| {
        flags.bytes(1, &BY_DESTINATION.to_ne_bytes()).bytes(2, &0_u32.to_ne_bytes());
    });
    filter
}

fn count(found: &[u8], wanted: &Wanted<'_>, counts: &mut BTreeMap<IpAddr, Connections>) {
    let counts_at_all = |it: &Connection| !it.over && !it.is_from_one_of(wanted.own);
    let Some(connection) = connection(found).filter(counts_at_all) else { return };
    let Some(count) = counts.get_mut(&connection.destination) else { return };
    match i32::from(connection.protocol) {
        IPPROTO_TCP => count.tcp += 1,
        IPPROTO_UDP if connection.is_to_one_of(wanted) => count.udp += 1,
        _ => {}
    }
}

impl Connection {
    fn is_from_one_of(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        self.source.is_some_and(|source| addresses.contains(&source))
    }

    fn is_to_one_of(&self, wanted: &Wanted<'_>) -> bool {
        let ports = wanted.addresses.get(&self.destination);
        self.port.zip(ports).is_some_and(|(port, ports)| ports.contains(&port))
    }
}

fn connection(found: &[u8]) -> Option<Connection> {
    let tuple = attributes::find(found, TUPLE_ORIG)?;
    let ip = attributes::find(tuple, TUPLE_IP)?;
    let destination = address(ip, IP_V4_DST, IP_V6_DST)?;
    let protocol = *attributes::find_path(tuple, &[TUPLE_PROTO, PROTO_NUM])?.first()?;
    let port = attributes::find_path(tuple, &[TUPLE_PROTO, PROTO_DST_PORT]);
    let port = port.and_then(|bytes| <[u8; 2]>::try_from(bytes).ok()).map(u16::from_be_bytes);
    // CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE
    let state = attributes::find_path(found, &[PROTOINFO, 1, 1]).and_then(|state| state.first());
    Some(Connection {
        source: address(ip, IP_V4_SRC, IP_V6_SRC),
        destination,
        protocol,
        port,
        over: state.is_some_and(|state| TCP_OVER.contains(state)),
    })
}

/// The address of either family.
fn address(ip: &[u8], v4: u16, v6: u16) -> Option<IpAddr> {
    let v4 = attributes::find(ip, v4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let v6 = attributes::find(ip, v6).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    v4.map(Ipv4Addr::from).map(IpAddr::from).or(v6.map(Ipv6Addr::from).map(IpAddr::from))
}

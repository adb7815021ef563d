//! From rtnetlink messages to a snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use arpeggio_wire::MacAddr;
use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RoutePreference,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{
    Address, AddressState, DefaultRoute, Family, Interface, Links, Medium, OnLink,
    RouterPreference, has_neighbours,
};

/// Of each family this many subnets that only routes name are taken of one interface: what programs write into the routing
/// table has no bound, and everybody reads what comes of it.
const MOST_ROUTED: usize = 16;

/// Whether a change that the kernel reports can change the snapshot.
///
/// Of routes only default routes and those to an interface's own subnet count: a node that routes
/// for its pods or runs a routing daemon changes thousands of others.
pub(super) fn concerns_snapshot(event: &RouteNetlinkMessage) -> bool {
    match event {
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            is_default(route) || connected(route).is_some()
        }
        _ => true,
    }
}

/// The snapshot that complete lists of links, addresses and routes make.
pub(super) fn snapshot(
    links: &[LinkMessage],
    addresses: &[AddressMessage],
    routes: &[RouteMessage],
) -> Links {
    let mut interfaces: Vec<_> = links.iter().map(interface).collect();
    interfaces.sort_by_key(|it| it.index);
    let metrics = metrics(routes);
    for message in addresses {
        let index = message.header.index;
        let owner = interfaces.binary_search_by_key(&index, |it| it.index);
        // An interface can appear between the two lists; its own event brings the next snapshot.
        if let (Ok(owner), Some(address)) = (owner, address(message)) {
            let metric = metrics.get(&(index, address.net.trunc())).copied();
            interfaces[owner].addresses.push(Address { metric, ..address });
        }
    }
    let mut default_routes: Vec<_> = routes.iter().flat_map(default_hops).collect();
    default_routes.sort_by_key(|route| (route.metric, route.preference, route.family));
    for interface in &mut interfaces {
        let here = metrics.range((interface.index, lowest_net())..);
        let here = here.take_while(|((index, _), _)| *index == interface.index);
        let here = here.map(|((_, net), metric)| OnLink { net: *net, metric: *metric });
        interface.on_link = routed(interface, here, &default_routes);
    }
    Links { interfaces, default_routes }
}

/// What comes before every other one.
fn lowest_net() -> IpNet {
    IpNet::V4(Ipv4Net::default())
}

/// Which of the routes without a router by an interface say on which segment it is, where no address of it says that.
///
/// A tunnel has no segment, and who has no address of the family there has nobody to ask from. Of each family the widest are
/// taken if there are too many.
fn routed(
    interface: &Interface,
    routes: impl Iterator<Item = OnLink>,
    default_routes: &[DefaultRoute],
) -> Vec<OnLink> {
    if interface.mac().is_none() || !leads_out(interface, default_routes) {
        return Vec::new();
    }
    let families: BTreeSet<Family> =
        interface.usable_addresses().map(|it| Family::of(it.net.addr())).collect();
    let named: BTreeSet<IpNet> = interface.nets().map(|net| net.trunc()).collect();
    let says_more = |it: &OnLink| {
        families.contains(&Family::of(it.net.addr()))
            && is_of_machines(it.net)
            && !named.contains(&it.net)
    };
    let (ipv4, ipv6): (Vec<OnLink>, Vec<OnLink>) =
        routes.filter(says_more).partition(|it| it.net.addr().is_ipv4());
    [ipv4, ipv6].into_iter().flat_map(widest).collect()
}

fn widest(mut routes: Vec<OnLink>) -> impl Iterator<Item = OnLink> {
    routes.sort_by_key(|it| it.net.prefix_len());
    routes.into_iter().take(MOST_ROUTED)
}

/// Whether what an interface leads to may be a segment of machines. Interfaces of pods and their networks have subnets, too,
/// and routes to the pods of other nodes: of their kinds only one with a default route leads out of the machine.
fn leads_out(interface: &Interface, default_routes: &[DefaultRoute]) -> bool {
    interface.may_be_named(&[])
        || default_routes.iter().any(|route| route.interface == interface.index)
}

/// Whether machines have addresses of their own in it. Many systems have routes for IPv4's link-local addresses, and for
/// those of groups, on each of their interfaces.
fn is_of_machines(net: IpNet) -> bool {
    let of_any_segment = |it: IpNet| match it.addr() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !net.addr().is_multicast() && !of_any_segment(net)
}

/// What one message says of an interface.
pub(super) fn interface(message: &LinkMessage) -> Interface {
    let flags = message.header.flags;
    let mut found = Interface {
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        carrier_ups: 0,
        ..Interface::new(message.header.index, "", Medium::Other)
    };
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::Address(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            LinkAttribute::CarrierUpCount(count) => found.carrier_ups = *count,
            LinkAttribute::LinkInfo(infos) => add_kinds(&mut found, infos),
            _ => {}
        }
    }
    found.medium = medium(message.header.link_layer_type, flags, mac.map(MacAddr::from));
    found
}

fn add_kinds(interface: &mut Interface, infos: &[LinkInfo]) {
    for info in infos {
        match info {
            LinkInfo::Kind(kind) => interface.kind = Some(kind.to_string()),
            LinkInfo::PortKind(kind) => interface.member_of = Some(kind.to_string()),
            _ => {}
        }
    }
}

fn medium(layer: LinkLayerType, flags: LinkFlags, mac: Option<MacAddr>) -> Medium {
    if flags.contains(LinkFlags::Loopback) {
        return Medium::Loopback;
    }
    if flags.contains(LinkFlags::Pointopoint) {
        return Medium::PointToPoint;
    }
    match (layer, mac) {
        (LinkLayerType::Ether, Some(mac)) if !flags.contains(LinkFlags::Noarp) => {
            Medium::Ethernet(mac)
        }
        _ => Medium::Other,
    }
}

fn address(message: &AddressMessage) -> Option<Address> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            // With a peer address (IPv4), `Local` is ours and `Address` is the peer's.
            AddressAttribute::Local(local) => found = Some(*local),
            AddressAttribute::Address(address) => found = found.or(Some(*address)),
            _ => {}
        }
    }
    let net = IpNet::new(found?, message.header.prefix_len).ok()?;
    Some(Address { net, state: state(message), metric: None })
}

fn state(message: &AddressMessage) -> AddressState {
    // The header has the first eight flags; all of them are in an attribute since Linux 3.14.
    let all = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    let first = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let flags = all.unwrap_or(first);
    // Of IPv4 the same bit says that the subnet has an earlier address (`IFA_F_SECONDARY`).
    let is_temporary =
        message.header.family == AddressFamily::Inet6 && flags.contains(AddressFlags::Secondary);
    if flags.contains(AddressFlags::Dadfailed) {
        AddressState::Duplicate
    } else if flags.contains(AddressFlags::Tentative) {
        AddressState::Tentative
    } else if flags.contains(AddressFlags::Deprecated) {
        AddressState::Deprecated
    } else if is_temporary {
        AddressState::Temporary
    } else {
        AddressState::Preferred
    }
}

fn is_default(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0 && is_for_everything(route)
}

fn is_for_everything(route: &RouteMessage) -> bool {
    route.header.table == RouteHeader::RT_TABLE_MAIN && route.header.kind == RouteType::Unicast
}

/// The lowest metric of the routes by which each interface leads to each subnet without a router.
fn metrics(routes: &[RouteMessage]) -> BTreeMap<(u32, IpNet), u32> {
    let mut found = BTreeMap::new();
    for route in routes {
        if let Some(way) = connected(route) {
            let lowest = found.entry(way).or_insert(u32::MAX);
            *lowest = (*lowest).min(metric(route));
        }
    }
    found
}

/// The interface and the subnet that a route without a router leads to.
fn connected(route: &RouteMessage) -> Option<(u32, IpNet)> {
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    let net = IpNet::new(destination?, route.header.destination_prefix_length).ok()?;
    // By a router of the other family, or in a tunnel's packets.
    let is_direct = !route.attributes.iter().any(|it| {
        matches!(
            it,
            RouteAttribute::Via(_) | RouteAttribute::Encap(_) | RouteAttribute::EncapType(_)
        )
    });
    match hops(&route.attributes)[..] {
        [(interface, None)] if is_for_everything(route) && is_direct && has_neighbours(&net) => {
            Some((interface, net))
        }
        _ => None,
    }
}

/// One that is not said is the lowest.
fn metric(route: &RouteMessage) -> u32 {
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    metric.unwrap_or_default()
}

fn default_hops(route: &RouteMessage) -> Vec<DefaultRoute> {
    let family = match route.header.address_family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return Vec::new(),
    };
    if !is_default(route) {
        return Vec::new();
    }
    let metric = metric(route);
    let preference = preference(route);
    let hop =
        |(interface, gateway)| DefaultRoute { family, interface, gateway, metric, preference };
    hops(&route.attributes).into_iter().map(hop).collect()
}

fn preference(route: &RouteMessage) -> RouterPreference {
    let said = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Preference(preference) => Some(*preference),
        _ => None,
    });
    match said {
        Some(RoutePreference::High) => RouterPreference::High,
        Some(RoutePreference::Low) => RouterPreference::Low,
        _ => RouterPreference::Medium,
    }
}

/// Interface and gateway of each way that a route goes, one or several.
fn hops(attributes: &[RouteAttribute]) -> Vec<(u32, Option<IpAddr>)> {
    let single = attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(interface) => Some(*interface),
        _ => None,
    });
    let several = attributes.iter().flat_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => hops.as_slice(),
        _ => &[],
    });
    let hop = |hop: &RouteNextHop| (hop.interface_index, gateway(&hop.attributes));
    single
        .map(|interface| (interface, gateway(attributes)))
        .into_iter()
        .chain(several.map(hop))
        .collect()
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}

/// What a kernel without bonds, VRFs and tunnels cannot be made to say.
#[cfg(test)]
mod tests {
    use netlink_packet_route::address::AddressHeaderFlags;
    use netlink_packet_route::link::{InfoKind, InfoPortKind};
    use netlink_packet_route::route::{RouteLwEnCapType, RouteVia};

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn link(layer: LinkLayerType, flags: LinkFlags, attributes: &[LinkAttribute]) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.link_layer_type = layer;
        message.header.flags = flags;
        message.attributes = attributes.to_vec();
        message
    }

    #[test]
    fn media() {
        let mac = LinkAttribute::Address(MAC.to_vec());
        let ethernet = Medium::Ethernet(MAC.into());
        let infiniband = LinkAttribute::Address(vec![0; 20]);
        let up = LinkFlags::Up;
        let table = [
            (LinkLayerType::Ether, up, &mac, ethernet),
            (LinkLayerType::Ether, up | LinkFlags::Noarp, &mac, Medium::Other),
            (LinkLayerType::Ether, up | LinkFlags::Pointopoint, &mac, Medium::PointToPoint),
            (LinkLayerType::Loopback, up | LinkFlags::Loopback, &mac, Medium::Loopback),
            (LinkLayerType::Infiniband, up, &infiniband, Medium::Other),
            (LinkLayerType::None, up, &mac, Medium::Other),
        ];
        for (layer, flags, address, expected) in table {
            let found = interface(&link(layer, flags, std::slice::from_ref(address)));
            assert_eq!(found.medium, expected, "{layer:?} {flags:?}");
        }
    }

    #[test]
    fn kinds_and_masters() {
        let info = |kind, port| {
            let infos = vec![LinkInfo::Kind(kind), LinkInfo::PortKind(port)];
            interface(&link(LinkLayerType::Ether, LinkFlags::Up, &[LinkAttribute::LinkInfo(infos)]))
        };
        for (port, expected) in [
            (InfoPortKind::Bond, "bond"),
            (InfoPortKind::Bridge, "bridge"),
            (InfoPortKind::Team, "team"),
            (InfoPortKind::Vrf, "vrf"),
            (InfoPortKind::Other("openvswitch".to_owned()), "openvswitch"),
        ] {
            let found = info(InfoKind::Vlan, port);
            assert_eq!(found.kind.as_deref(), Some("vlan"));
            assert_eq!(found.member_of.as_deref(), Some(expected));
        }
    }

    #[test]
    fn our_side_of_a_peer_address() {
        let ours: IpAddr = [10, 0, 0, 1].into();
        let peers: IpAddr = [10, 0, 0, 2].into();
        let mut message = AddressMessage::default();
        message.header.prefix_len = 24;
        for attributes in [
            vec![AddressAttribute::Address(peers), AddressAttribute::Local(ours)],
            vec![AddressAttribute::Local(ours), AddressAttribute::Address(peers)],
            vec![AddressAttribute::Address(ours)],
        ] {
            message.attributes = attributes;
            assert_eq!(address(&message).map(|it| it.net), IpNet::new(ours, 24).ok());
        }
    }

    #[test]
    fn what_flags_say_of_an_address() {
        let (v4, v6) = (IpAddr::from([192, 0, 2, 1]), "2001:db8::1".parse().unwrap());
        let [failed, optimistic] = [0x08, 0x04];
        let [tentative, deprecated, temporary, managed] = [0x40, 0x20, 0x01, 0x300];
        let table = [
            (v6, 0x80, AddressState::Preferred),
            (v6, managed, AddressState::Preferred),
            (v6, tentative, AddressState::Tentative),
            (v6, tentative | optimistic, AddressState::Tentative),
            (v6, tentative | failed | 0x80, AddressState::Duplicate),
            (v6, deprecated, AddressState::Deprecated),
            (v6, temporary | managed, AddressState::Temporary),
            (v6, temporary | deprecated, AddressState::Deprecated),
            (v6, temporary | tentative, AddressState::Tentative),
            (v4, 0x80, AddressState::Preferred),
            (v4, temporary | 0x80, AddressState::Preferred),
        ];
        for (ours, flags, expected) in table {
            let of_header =
                AddressHeaderFlags::from_bits_retain(u8::try_from(flags & 0xff).unwrap());
            let in_full = AddressAttribute::Flags(AddressFlags::from_bits_retain(flags));
            for attributes in [vec![], vec![in_full]] {
                let mut message = AddressMessage::default();
                message.header.family =
                    if ours.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
                message.header.prefix_len = 32;
                message.header.flags = of_header;
                message.attributes = [attributes, vec![AddressAttribute::Address(ours)]].concat();
                assert_eq!(address(&message).unwrap().state, expected, "{ours} {flags:#x}");
            }
        }
    }

    fn route(table: u8, prefix_length: u8, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = table;
        message.header.destination_prefix_length = prefix_length;
        message.header.kind = RouteType::Unicast;
        message.attributes = attributes;
        message
    }

    #[test]
    fn the_metric_of_the_route_to_an_addresss_subnet() {
        let subnet = RouteAttribute::Destination(RouteAddress::Inet([10, 0, 0, 0].into()));
        let by = |interface, metric| {
            vec![subnet.clone(), RouteAttribute::Oif(interface), RouteAttribute::Priority(metric)]
        };
        let gateway = RouteAttribute::Gateway(RouteAddress::Inet([10, 9, 0, 1].into()));
        let main = RouteHeader::RT_TABLE_MAIN;
        let table = [
            (vec![route(main, 24, by(7, 600))], Some(600)),
            (vec![route(main, 24, by(7, 600)), route(main, 24, by(7, 100))], Some(100)),
            (vec![route(main, 24, vec![subnet.clone(), RouteAttribute::Oif(7)])], Some(0)),
            (vec![route(main, 24, by(8, 100))], None),
            (vec![route(main, 16, by(7, 100))], None),
            (vec![route(100, 24, by(7, 100))], None),
            (vec![route(main, 24, [by(7, 100), vec![gateway]].concat())], None),
            (vec![], None),
        ];
        for (routes, expected) in table {
            let mut message = AddressMessage::default();
            message.header.index = 7;
            message.header.prefix_len = 24;
            message.attributes = vec![AddressAttribute::Local([10, 0, 0, 5].into())];
            let eth0 = link(LinkLayerType::Ether, LinkFlags::Up, &[]);
            let found = snapshot(&[eth0], &[message], &routes);
            assert_eq!(found.interfaces[0].addresses[0].metric, expected, "{routes:?}");
        }
        let of_pod = route(main, 32, by(7, 0));
        assert!(!concerns_snapshot(&RouteNetlinkMessage::NewRoute(of_pod)));
        let of_subnet = route(main, 24, by(7, 0));
        assert!(concerns_snapshot(&RouteNetlinkMessage::DelRoute(of_subnet)));
    }

    #[test]
    fn routes_without_a_router_say_what_is_on_the_segment_beside_the_addresses() {
        let to = |address: [u8; 4], prefix_length, more: &[RouteAttribute]| {
            let net = RouteAttribute::Destination(RouteAddress::Inet(address.into()));
            let attributes = [&[net, RouteAttribute::Oif(7)], more].concat();
            route(RouteHeader::RT_TABLE_MAIN, prefix_length, attributes)
        };
        let subnet = to([10, 9, 0, 0], 24, &[]);
        let router = RouteAttribute::Gateway(RouteAddress::Inet([10, 9, 0, 1].into()));
        let of_other_family = RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap()));
        let in_tunnel = RouteAttribute::EncapType(RouteLwEnCapType::Ip);
        let default = route(RouteHeader::RT_TABLE_MAIN, 0, vec![RouteAttribute::Oif(7)]);
        let own = Some((32, [10, 0, 0, 5]));
        let card: Option<&str> = None;
        let table: [(&str, _, _, Vec<RouteMessage>, &[&str]); 15] = [
            ("an address of its own", card, own, vec![subnet.clone()], &["10.9.0.0/24"]),
            ("twice", card, own, vec![subnet.clone(), subnet.clone()], &["10.9.0.0/24"]),
            ("named", card, Some((24, [10, 9, 0, 5])), vec![subnet.clone()], &[]),
            ("more", card, Some((16, [10, 9, 0, 5])), vec![subnet.clone()], &["10.9.0.0/24"]),
            ("no address", card, None, vec![subnet.clone()], &[]),
            ("a router", card, own, vec![to([10, 9, 0, 0], 24, &[router])], &[]),
            ("IPv6's router", card, own, vec![to([10, 9, 0, 0], 24, &[of_other_family])], &[]),
            ("a tunnel", card, own, vec![to([10, 9, 0, 0], 24, &[in_tunnel])], &[]),
            ("a pod", card, own, vec![to([10, 9, 0, 7], 32, &[])], &[]),
            ("link-local", card, own, vec![to([169, 254, 0, 0], 16, &[])], &[]),
            ("groups", card, own, vec![to([224, 0, 0, 0], 4, &[])], &[]),
            ("a bridge", Some("bridge"), own, vec![subnet.clone()], &["10.9.0.0/24"]),
            ("of a CNI", Some("vxlan"), own, vec![subnet.clone()], &[]),
            ("a container's card", Some("veth"), own, vec![subnet, default], &["10.9.0.0/24"]),
            (
                "of a CNI, with a subnet",
                Some("openvswitch"),
                Some((23, [10, 128, 0, 1])),
                vec![to([10, 128, 0, 0], 14, &[]), to([172, 30, 0, 0], 16, &[])],
                &[],
            ),
        ];
        for (what, kind, own, routes, expected) in table {
            let mac = LinkAttribute::Address(MAC.to_vec());
            let infos = kind.map(|it| LinkInfo::Kind(InfoKind::Other(it.to_owned())));
            let infos = LinkAttribute::LinkInfo(infos.into_iter().collect());
            let device = link(LinkLayerType::Ether, LinkFlags::Up, &[mac, infos]);
            let address = own.map(|(prefix_length, own): (u8, [u8; 4])| {
                let mut message = AddressMessage::default();
                message.header.index = 7;
                message.header.prefix_len = prefix_length;
                message.attributes = vec![AddressAttribute::Local(own.into())];
                message
            });
            let addresses: Vec<AddressMessage> = address.into_iter().collect();
            let found = snapshot(&[device], &addresses, &routes);
            let nets: Vec<String> =
                found.interfaces[0].on_link.iter().map(|it| it.net.to_string()).collect();
            assert_eq!(nets, expected, "{what}");
        }
    }

    /// A program wrote them, and there may be any number.
    #[test]
    fn of_many_routes_without_a_router_the_widest_count() {
        let to = |net: IpNet| {
            let destination = match net.addr() {
                IpAddr::V4(address) => RouteAddress::Inet(address),
                IpAddr::V6(address) => RouteAddress::Inet6(address),
            };
            let by = vec![RouteAttribute::Destination(destination), RouteAttribute::Oif(7)];
            route(RouteHeader::RT_TABLE_MAIN, net.prefix_len(), by)
        };
        let address = |net: IpNet| {
            let mut message = AddressMessage::default();
            message.header.index = 7;
            message.header.prefix_len = net.prefix_len();
            message.attributes = vec![AddressAttribute::Address(net.addr())];
            message
        };
        let narrow = |it: u32| IpNet::new(IpAddr::V4((0x0a00_0000 + 8 * it).into()), 29).unwrap();
        let wide = ["172.16.0.0/16", "2001:db8::/64"].map(|net| net.parse().unwrap());
        let routes: Vec<RouteMessage> = (0..20_000).map(narrow).chain(wide).map(to).collect();
        let own = ["192.0.2.1/24", "2001:db8::1/128"].map(|net| address(net.parse().unwrap()));
        let device = [LinkAttribute::Address(MAC.to_vec())];
        let device = link(LinkLayerType::Ether, LinkFlags::Up, &device);
        let found = snapshot(&[device], &own, &routes);
        let found: Vec<IpNet> = found.interfaces[0].on_link.iter().map(|it| it.net).collect();
        assert_eq!(found.len(), MOST_ROUTED + 1);
        assert!(wide.iter().all(|net| found.contains(net)), "{found:?}");
    }

    #[test]
    fn the_preference_of_a_router_decides_between_equal_metrics() {
        let by = |interface, metric, preference: Option<RoutePreference>| {
            let way = [RouteAttribute::Oif(interface), RouteAttribute::Priority(metric)];
            let preference = preference.map(RouteAttribute::Preference);
            route(RouteHeader::RT_TABLE_MAIN, 0, way.into_iter().chain(preference).collect())
        };
        let routes = [
            by(2, 1024, Some(RoutePreference::Low)),
            by(3, 1024, None),
            by(4, 1024, Some(RoutePreference::High)),
            by(5, 100, Some(RoutePreference::Low)),
        ];
        let found = snapshot(&[], &[], &routes).default_routes;
        assert_eq!(found.iter().map(|it| it.interface).collect::<Vec<_>>(), [5, 4, 3, 2]);
    }

    #[test]
    fn default_routes_by_several_ways() {
        let hop = |interface_index: u32, last: u8| {
            let address = RouteAddress::Inet([10, 0, 0, last].into());
            let mut hop = RouteNextHop::default();
            hop.interface_index = interface_index;
            hop.attributes = vec![RouteAttribute::Gateway(address)];
            hop
        };
        let several = RouteAttribute::MultiPath(vec![hop(2, 1), hop(3, 2)]);
        let attributes = vec![several, RouteAttribute::Priority(5)];
        let main = RouteHeader::RT_TABLE_MAIN;
        let found = snapshot(&[], &[], &[route(main, 0, attributes.clone())]).default_routes;
        let expected = |interface, last| DefaultRoute {
            family: Family::V4,
            interface,
            gateway: Some([10, 0, 0, last].into()),
            metric: 5,
            preference: RouterPreference::Medium,
        };
        assert_eq!(found, [expected(2, 1), expected(3, 2)]);
        for other in [route(main, 8, attributes.clone()), route(100, 0, attributes)] {
            assert_eq!(default_hops(&other), []);
            assert!(!concerns_snapshot(&RouteNetlinkMessage::NewRoute(other)));
        }
    }
}

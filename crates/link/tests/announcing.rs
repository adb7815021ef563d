//! Which interface an address is announced on, as a table.

#![cfg(test)]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use arpeggio_election::Pattern;
use arpeggio_link::interfaces::{
    Address, AddressState, DefaultRoute, Family, Flaw, Interface, Links, Medium, OnLink,
    RouterPreference, Unfit,
};
use arpeggio_wire::MacAddr;
use ipnet::IpNet;

const ETHERNET: Medium = Medium::Ethernet(MacAddr(2, 0, 0, 0, 0, 1));

fn interface(index: u32, name: &str, medium: Medium, addresses: &[&str]) -> Interface {
    let addresses = addresses.iter().map(|it| it.parse::<IpNet>().unwrap().into()).collect();
    Interface { addresses, ..Interface::new(index, name, medium) }
}

fn default_route(gateway: &str, interface: u32, metric: u32) -> DefaultRoute {
    let gateway: IpAddr = gateway.parse().unwrap();
    let (family, preference) = (Family::of(gateway), RouterPreference::Medium);
    DefaultRoute { family, interface, gateway: Some(gateway), metric, preference }
}

/// A node with everything: two segments, a cluster network, IPVS, a tunnel, a dead port.
fn node() -> Links {
    let down = Interface {
        up: false,
        carrier: false,
        ..interface(6, "eth2", ETHERNET, &["198.51.100.2/24"])
    };
    let unplugged =
        Interface { carrier: false, ..interface(7, "eth3", ETHERNET, &["192.0.2.3/24"]) };
    let services = ["192.0.2.77/32", "203.0.113.9/32"];
    let of_services = Interface {
        kind: Some("dummy".to_owned()),
        ..interface(5, "kube-ipvs0", Medium::Other, &services)
    };
    let member = Interface {
        member_of: Some("bond".to_owned()),
        ..interface(8, "eth4", ETHERNET, &["10.4.0.1/24"])
    };
    let in_vrf = Interface {
        member_of: Some("vrf".to_owned()),
        ..interface(9, "eth5", ETHERNET, &["10.5.0.1/24"])
    };
    Links {
        interfaces: vec![
            interface(1, "lo", Medium::Loopback, &["127.0.0.1/8", "::1/128"]),
            interface(2, "eth0", ETHERNET, &["192.0.2.2/24", "2001:db8::2/64"]),
            interface(3, "eth1", ETHERNET, &["10.0.0.2/8"]),
            interface(4, "cni0", ETHERNET, &["10.244.1.1/24"]),
            of_services,
            down,
            unplugged,
            member,
            in_vrf,
            interface(10, "tun0", Medium::PointToPoint, &["10.8.0.1/24"]),
            interface(11, "tun1", Medium::PointToPoint, &["172.20.0.1/24"]),
        ],
        default_routes: vec![
            default_route("192.0.2.254", 2, 100),
            default_route("10.0.0.1", 3, 200),
        ],
    }
}

fn names(found: Result<Vec<&Interface>, Unfit>) -> Result<Vec<&str>, Unfit> {
    Ok(found?.into_iter().map(|it| it.name.as_str()).collect())
}

#[test]
fn where_each_address_is_announced() {
    let flaw = |interface: &str, flaw| {
        let interface = interface.to_owned();
        Err(Unfit::Interface { interface, flaw })
    };
    let nowhere = |address: &str| Err(Unfit::NoInterface(address.parse().unwrap()));
    let table = [
        ("in one subnet, an unplugged port in it too", "192.0.2.50", Ok("eth0")),
        ("IPVS holds the address itself", "192.0.2.77", Ok("eth0")),
        ("IPVS holds it, no subnet does", "203.0.113.9", Ok("eth0")),
        ("in IPv6's subnet", "2001:db8::50", Ok("eth0")),
        ("the more specific subnet", "10.244.1.50", Ok("cni0")),
        ("the less specific subnet", "10.7.0.50", Ok("eth1")),
        ("more specific, but of a bond's member", "10.4.0.50", flaw("eth4", Flaw::Member)),
        ("more specific, but of a tunnel", "10.8.0.50", flaw("tun0", Flaw::PointToPoint)),
        ("in a VRF", "10.5.0.50", Ok("eth5")),
        ("in no subnet: preferred default route", "203.0.113.50", Ok("eth0")),
        ("in no subnet, no default route of its family", "2001:db8:1::1", nowhere("2001:db8:1::1")),
        ("in the subnet of a port that is down", "198.51.100.50", flaw("eth2", Flaw::Down)),
        ("in the subnet of a tunnel only", "172.20.0.5", flaw("tun1", Flaw::PointToPoint)),
    ];
    let node = node();
    for (name, address, expected) in table {
        let found = node.announcing(address.parse().unwrap());
        assert_eq!(found.map(|it| it.name.as_str()), expected, "{name}: {address}");
    }
}

/// Two interfaces in one subnet: by the metrics of their routes to it, and whether they are radios.
#[test]
fn of_equal_subnets_the_kernels_route_decides_and_then_a_wire() {
    const OFF: bool = true;
    let table = [
        ("metrics of NetworkManager", Some(100), Some(600), false, "eth0"),
        ("the radio is preferred by its metric", Some(600), Some(100), false, "wlan0"),
        ("no metrics", Some(0), Some(0), false, "eth0"),
        ("no route", None, Some(600), false, "wlan0"),
        ("no routes", None, None, false, "eth0"),
        ("the preferred one is unplugged", Some(100), Some(600), OFF, "wlan0"),
    ];
    for (name, wired, radio, unplugged, expected) in table {
        let with = |index, name, net, metric| {
            let mut it = interface(index, name, ETHERNET, &[net]);
            it.addresses[0].metric = metric;
            it
        };
        let wlan0 = with(2, "wlan0", "192.0.2.3/24", radio);
        let eth0 = with(3, "eth0", "192.0.2.2/24", wired);
        let interfaces =
            vec![Interface { wireless: true, ..wlan0 }, Interface { carrier: !unplugged, ..eth0 }];
        let links = Links { interfaces, ..Links::default() };
        let found = links.announcing("192.0.2.50".parse().unwrap());
        assert_eq!(found.map(|it| it.name.as_str()), Ok(expected), "{name}");
        let by_name = names(links.announcing_by("192.0.2.50".parse().unwrap(), &["wlan0".into()]));
        assert_eq!(by_name, Ok(vec!["wlan0"]), "{name}: a rule is a rule");
    }
}

#[test]
fn ranks_are_told_only_where_two_interfaces_share_a_subnet() {
    let ranks = |links: &Links| -> Vec<Vec<u8>> {
        links.reach(&[]).interfaces.into_iter().map(|it| it.ranks).collect()
    };
    let eth0 = interface(2, "eth0", ETHERNET, &["192.0.2.2/24", "2001:db8::2/64", "fe80::2/64"]);
    let eth1 = interface(3, "eth1", ETHERNET, &["10.0.0.2/24", "2001:db8::3/64", "fe80::3/64"]);
    let mut links = Links { interfaces: vec![eth0, eth1], ..Links::default() };
    assert_eq!(ranks(&links), [vec![], vec![0, 1]]);
    links.interfaces[1].addresses.truncate(1);
    assert_eq!(ranks(&links), [vec![], vec![]]);
}

#[test]
fn a_default_route_by_a_flawed_interface_is_no_way_out() {
    let mut node = node();
    let address = "203.0.113.50".parse().unwrap();
    node.interfaces[1].carrier = false;
    let found = node.announcing(address).map(|it| it.name.as_str());
    assert_eq!(found, Ok("eth1"), "there is another one");
    node.default_routes.pop();
    let expected = "interface eth0 has no carrier: check cable and switch port";
    assert_eq!(node.announcing(address).unwrap_err().to_string(), expected);
}

#[test]
fn the_default_route_with_the_lowest_metric_counts_whatever_the_index() {
    let mut node = node();
    node.default_routes =
        vec![default_route("10.0.0.1", 3, 50), default_route("192.0.2.254", 2, 100)];
    let found = node.announcing("203.0.113.50".parse().unwrap());
    assert_eq!(found.map(|it| it.name.as_str()), Ok("eth1"));
    let gateways: usize = node.reach(&[]).interfaces.iter().map(|it| it.gateways.len()).sum();
    assert_eq!(gateways, 2, "all of them are told");
}

#[test]
fn of_equal_default_routes_the_wired_one_counts() {
    let table = [(100, 100, "eth1"), (100, 200, "eth0"), (200, 100, "eth1")];
    for (of_radio, of_wire, expected) in table {
        let mut node = node();
        node.interfaces[1].wireless = true;
        node.default_routes =
            vec![default_route("192.0.2.254", 2, of_radio), default_route("10.0.0.1", 3, of_wire)];
        let found = node.announcing("203.0.113.50".parse().unwrap());
        assert_eq!(found.map(|it| it.name.as_str()), Ok(expected), "{of_radio} {of_wire}");
    }
}

#[test]
fn names_are_chosen_by_patterns() {
    let table = [
        (&["eth*"][..], Ok(vec!["eth0", "eth1", "eth5"])),
        (&["cni0", "eth1"], Ok(vec!["eth1", "cni0"])),
        (&["wlan*", "usb?"], Err("no interface here has a name like wlan* or usb?")),
        (&["eth3"], Err("interface eth3 has no carrier: check cable and switch port")),
    ];
    let node = node();
    for (patterns, expected) in table {
        let patterns: Vec<Pattern> = patterns.iter().map(|it| Pattern::from(*it)).collect();
        let found = names(node.announcing_by("192.0.2.50".parse().unwrap(), &patterns));
        let expected = expected.map_err(str::to_owned);
        assert_eq!(found.map_err(|it| it.to_string()), expected, "{patterns:?}");
    }
}

/// On a segment where this node has no address itself.
#[test]
fn an_interface_without_an_address_announces_by_its_name() {
    let without = |index, name: &str, kind: Option<&str>| Interface {
        kind: kind.map(str::to_owned),
        ..interface(index, name, ETHERNET, &["fe80::9/64"])
    };
    let mut node = node();
    node.interfaces.extend([
        without(12, "eth0.100", Some("vlan")),
        Interface { up: false, ..without(13, "eth0.200", Some("vlan")) },
        without(14, "eno9", None),
        without(15, "veth1234", Some("veth")),
        without(16, "flannel.1", Some("vxlan")),
        Interface { addresses: vec![], ..without(17, "br9", Some("bridge")) },
    ]);
    let table = [
        (&["eth0.100"][..], Ok(vec!["eth0.100"])),
        (&["eth0.1*"], Ok(vec!["eth0.100"])),
        (&["eno9", "eth1"], Ok(vec!["eth1", "eno9"])),
        (&["br?"], Ok(vec!["br9"])),
        (&["veth1234"], Ok(vec!["veth1234"])),
        (&["eth0.200"], Err("interface eth0.200 is down: bring it up")),
        (&["eth0.200", "eth0.100"], Ok(vec!["eth0.100"])),
        (
            &["veth*"],
            Err(
                "interface veth1234 has neither a subnet nor a default route: a rule has to name it in full, without * and ?",
            ),
        ),
        (&["*"], Ok(vec!["eth0", "eth1", "cni0", "eth5", "eth0.100", "eno9", "br9"])),
    ];
    for (patterns, expected) in table {
        let patterns: Vec<Pattern> = patterns.iter().map(|it| Pattern::from(*it)).collect();
        let found = names(node.announcing_by("10.0.100.50".parse().unwrap(), &patterns));
        let expected = expected.map_err(str::to_owned);
        assert_eq!(found.map_err(|it| it.to_string()), expected, "{patterns:?}");
    }
    let by_default = node.announcing("10.0.100.50".parse().unwrap());
    assert_eq!(by_default.map(|it| it.name.as_str()), Ok("eth1"), "no rule names another one");
}

#[test]
fn of_too_many_interfaces_those_with_a_default_route_are_told_and_the_rest_falls_back_nowhere() {
    let many = |count: u8| -> Vec<Interface> {
        let lan = |it: u8| format!("10.{it}.0.1/16");
        let one = |it: u8| interface(it.into(), &format!("eth{it}"), ETHERNET, &[&lan(it)]);
        (1..=count).map(one).collect()
    };
    let announced = |count, address: &str, named: &[Pattern]| {
        let default_routes = vec![default_route("10.33.0.254", 33, 0)];
        let links = Links { interfaces: many(count), default_routes };
        let reach = links.reach(&[]);
        assert_eq!(reach.interfaces.len(), usize::from(count.min(64)));
        assert_eq!(links.left_out(&[]).len(), usize::from(count.saturating_sub(64)));
        let found = names(links.announcing_by(address.parse().unwrap(), named));
        found.map(|it| it.join(" ")).map_err(|it| it.to_string())
    };
    let ok = |name: &str| Ok(name.to_owned());
    let too_many = Err(Unfit::TooMany.to_string());
    let table = [
        (64, "10.64.0.9", &[][..], ok("eth64")),
        (64, "192.0.2.9", &[], ok("eth33")),
        (65, "10.33.0.9", &[], ok("eth33")),
        (65, "10.64.0.9", &[], ok("eth64")),
        (65, "10.65.0.9", &[], too_many.clone()),
        (65, "192.0.2.9", &[], too_many.clone()),
        (65, "10.65.0.9", &["eth65".into()], too_many),
        (65, "10.65.0.9", &["eth64".into()], ok("eth64")),
    ];
    for (count, address, named, expected) in table {
        assert_eq!(announced(count, address, named), expected, "{address} of {count}");
    }
}

/// Each is in every session, which is written every few seconds and read by everybody.
#[test]
fn of_each_subnet_one_address_is_told_however_many_the_node_has() {
    let mut many = interface(2, "eth0", ETHERNET, &[]);
    many.addresses = (0..5000_u32)
        .map(|it| {
            let net = IpNet::new(IpAddr::V4((0x0a00_0001 + it).into()), 16).unwrap();
            let state = if it < 2 { AddressState::Deprecated } else { AddressState::Preferred };
            Address { state, ..net.into() }
        })
        .collect();
    let twin =
        Interface { addresses: many.addresses.clone(), ..interface(3, "eth1", ETHERNET, &[]) };
    let links = Links { interfaces: vec![many, twin], default_routes: vec![] };
    let begin = Instant::now();
    let reach = links.reach(&[]);
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    let told: Vec<_> = reach.interfaces.iter().map(|it| (&it.subnets[..], &it.ranks[..])).collect();
    let subnet: IpNet = "10.0.0.3/16".parse().unwrap();
    assert_eq!(told, [(&[subnet][..], &[][..]), (&[subnet][..], &[1][..])]);
    assert_eq!(links.own_addresses().len(), 5000);
}

#[test]
fn of_too_many_subnets_some_are_told_and_the_rest_falls_back_nowhere() {
    for count in [256, 257, 1000_u32] {
        let mut many = interface(2, "eth0", ETHERNET, &[]);
        let nets = (0..count).map(|it| IpNet::new(IpAddr::V4((0x0a00_0001 + 256 * it).into()), 24));
        many.addresses = nets.map(|it| it.unwrap().into()).collect();
        let default_routes = vec![default_route("10.0.0.254", 2, 0)];
        let links = Links { interfaces: vec![many], default_routes };
        let reach = links.reach(&[]);
        assert_eq!(reach.interfaces[0].subnets.len(), 256);
        let all = count == 256;
        assert_eq!(reach.interfaces[0].default_ipv4, all, "{count}");
        assert_eq!(links.left_out(&[]).is_empty(), all, "{count}");
        assert!(links.announcing("10.0.0.77".parse().unwrap()).is_ok());
        let outside = links.announcing("203.0.113.1".parse().unwrap());
        assert_eq!(outside.is_ok(), all, "{outside:?}");
    }
}

#[test]
fn subnets_that_only_routes_name_have_the_room_that_those_of_addresses_leave() {
    let mut routed = interface(2, "eth0", ETHERNET, &["10.0.0.1/24"]);
    let nets = (0..300_u32).map(|it| IpNet::new(IpAddr::V4((0x0b00_0000 + 8 * it).into()), 29));
    routed.on_link = nets.map(|net| OnLink { net: net.unwrap(), metric: 0 }).collect();
    let other = interface(3, "eth1", ETHERNET, &["192.0.2.1/24"]);
    let default_routes = vec![default_route("10.0.0.254", 2, 0)];
    let links = Links { interfaces: vec![routed, other], default_routes };
    let told = links.reach(&[]).interfaces;
    assert_eq!(told.iter().map(|it| it.subnets.len()).collect::<Vec<_>>(), [255, 1]);
    assert!(told[0].default_ipv4);
    assert!(links.left_out(&[]).is_empty());
}

#[test]
fn a_segment_has_an_address_with_neighbours() {
    let table = [
        ("192.0.2.2/24", Some(Family::V4)),
        ("192.0.2.2/32", None),
        ("2001:db8::2/64", Some(Family::V6)),
        ("2001:db8::2/128", None),
        ("fe80::2/64", None),
    ];
    for (address, expected) in table {
        let it = interface(2, "eth0", ETHERNET, &[address]);
        let found = [Family::V4, Family::V6].into_iter().find(|family| it.has_subnet(*family));
        assert_eq!(found, expected, "{address}");
    }
}

#[test]
fn own_address_to_ask_from() {
    let addresses = ["192.0.2.2/24", "198.51.100.2/24", "2001:db8::2/64"];
    let eth0 = interface(1, "eth0", ETHERNET, &addresses);
    let table = [
        ("192.0.2.9", Some("192.0.2.2")),
        ("198.51.100.9", Some("198.51.100.2")),
        ("203.0.113.9", Some("192.0.2.2")),
        ("2001:db8::9", Some("2001:db8::2")),
        ("fe80::9", Some("2001:db8::2")),
    ];
    for (peer, expected) in table {
        let expected = expected.map(|it| it.parse().unwrap());
        assert_eq!(eth0.source_for(peer.parse().unwrap()), expected, "{peer}");
    }
    let without = interface(1, "eth0", ETHERNET, &["2001:db8::2/64"]);
    assert_eq!(without.source_for("192.0.2.9".parse().unwrap()), None);
}

/// What an interface has by IPv6, in the kernel's order.
fn addresses(states: &[(&str, AddressState)]) -> Vec<Address> {
    states
        .iter()
        .map(|(net, state)| Address { state: *state, ..net.parse::<IpNet>().unwrap().into() })
        .collect()
}

#[test]
fn an_address_that_is_not_in_use_says_its_subnet_and_nothing_else() {
    use AddressState::{Deprecated, Duplicate, Preferred, Temporary, Tentative};
    let table = [
        (Preferred, "2001:db8::5/64", Some("2001:db8::5")),
        (Temporary, "2001:db8::5/64", Some("2001:db8::5")),
        (Deprecated, "2001:db8::5/64", Some("2001:db8::5")),
        (Tentative, "2001:db8::/64", None),
        (Duplicate, "2001:db8::/64", None),
    ];
    for (state, subnet, own) in table {
        let mut eth0 = interface(1, "eth0", ETHERNET, &[]);
        eth0.addresses = addresses(&[("2001:db8::5/64", state)]);
        let peer = "2001:db8::9".parse().unwrap();
        let own: Option<IpAddr> = own.map(|it| it.parse().unwrap());
        assert_eq!(eth0.source_for(peer), own, "{state:?}");
        assert!(eth0.has_subnet(Family::V6), "{state:?}");
        let links = Links { interfaces: vec![eth0], ..Links::default() };
        assert_eq!(links.own_addresses(), own.into_iter().collect(), "{state:?}");
        let reach = links.reach(&[]);
        assert_eq!(reach.interfaces[0].subnets, [subnet.parse().unwrap()], "{state:?}");
        let found = links.announcing("2001:db8::240".parse().unwrap());
        assert_eq!(found.map(|it| it.name.as_str()), Ok("eth0"), "{state:?}: the segment is there");
    }
}

#[test]
fn an_address_that_lasts_is_asked_from_rather() {
    use AddressState::{Deprecated, Preferred, Temporary, Tentative};
    let table = [
        (&[("2001:db8::5/64", Temporary), ("2001:db8::6/64", Preferred)][..], "2001:db8::6"),
        (&[("2001:db8::5/64", Deprecated), ("2001:db8::6/64", Temporary)], "2001:db8::6"),
        (&[("2001:db8::5/64", Tentative), ("2001:db8::6/64", Deprecated)], "2001:db8::6"),
        (&[("2001:db8:1::5/64", Preferred), ("2001:db8::6/64", Deprecated)], "2001:db8::6"),
    ];
    for (states, expected) in table {
        let mut eth0 = interface(1, "eth0", ETHERNET, &[]);
        eth0.addresses = addresses(states);
        let source = eth0.source_for("2001:db8::9".parse().unwrap());
        assert_eq!(source, expected.parse().ok(), "{states:?}");
    }
}

#[test]
fn own_addresses_are_all_that_the_kernel_answers_for_but_services() {
    let own = |interfaces: Vec<Interface>| -> Vec<String> {
        let links = Links { interfaces, ..Links::default() };
        links.own_addresses().iter().map(ToString::to_string).collect()
    };
    let dummy = |name: &str| Interface {
        kind: Some("dummy".to_owned()),
        ..interface(3, name, Medium::Other, &["192.0.2.78/32", "2001:db8::78/128"])
    };
    let lo = &["127.0.0.1/8", "127.0.0.53/8", "::1/128", "192.0.2.77/32"];
    let eth0 = &["192.0.2.2/24", "192.0.2.240/32", "fe80::2/64", "2001:db8::240/128"];
    let table = [
        (vec![interface(1, "lo", Medium::Loopback, lo)], &["192.0.2.77"][..]),
        (
            vec![interface(2, "eth0", ETHERNET, eth0)],
            &["192.0.2.2", "192.0.2.240", "2001:db8::240"],
        ),
        (vec![dummy("dummy0")], &["192.0.2.78", "2001:db8::78"]),
        (vec![dummy("kube-ipvs0")], &[]),
        (vec![dummy("kube-dummy-if")], &[]),
        (vec![Interface { kind: None, ..dummy("kube-ipvs0") }], &["192.0.2.78", "2001:db8::78"]),
        (vec![interface(4, "tun0", Medium::PointToPoint, &["10.8.0.1/32"])], &["10.8.0.1"]),
        (
            vec![Interface { up: false, ..interface(5, "eth1", ETHERNET, &["10.0.0.1/24"]) }],
            &["10.0.0.1"],
        ),
    ];
    for (interfaces, expected) in table {
        assert_eq!(own(interfaces.clone()), expected, "{interfaces:?}");
    }
    let node = node();
    assert!(node.is_for_services("192.0.2.77".parse().unwrap()));
    assert!(!node.is_for_services("192.0.2.2".parse().unwrap()));
}

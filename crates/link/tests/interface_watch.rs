//! What happens to a real interface, seen as snapshots.
#![cfg(test)]

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arpeggio_link::interfaces::{
    AddressState, Family, Flaw, Interface, Links, Medium, Unfit, watch,
};
use tokio::runtime;
use tokio::sync::watch::Receiver;
use tokio::time;

mod namespace;
use namespace::{Namespace, Pair};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const PATIENCE: Duration = Duration::from_secs(30);

type Snapshots = Receiver<Arc<Links>>;

/// Runs a test that watches the interfaces of one side.
fn watching(test: impl AsyncFnOnce(&Pair, Snapshots) + Send) {
    let Some(pair) = Pair::new() else { return };
    pair.here.run(|| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let snapshots = watch().await.unwrap();
            test(&pair, snapshots).await;
        });
    });
}

fn eth0(links: &Links) -> Option<&Interface> {
    links.interfaces.iter().find(|it| it.name == "eth0")
}

fn has(links: &Links, net: &str) -> bool {
    eth0(links).is_some_and(|it| it.addresses.iter().any(|own| own.net.to_string() == net))
}

/// Waits until the snapshot is as expected. The time runs from the start of the command that
/// causes it, so it includes that command.
async fn becomes(
    what: &str,
    snapshots: &mut Snapshots,
    cause: impl FnOnce(),
    expected: impl Fn(&Links) -> bool,
) {
    let start = Instant::now();
    cause();
    let seen = time::timeout(PATIENCE, snapshots.wait_for(|links| expected(links))).await;
    assert!(seen.is_ok_and(|it| it.is_ok()), "{what}: {:#?}", snapshots.borrow());
    println!("{what}: seen {:?} after the command was started", start.elapsed());
}

/// IPv6 is busy with its address for a second or two after the start.
async fn settle(snapshots: &mut Snapshots) {
    let quiet = Duration::from_secs(3);
    while time::timeout(quiet, snapshots.changed()).await.is_ok() {}
}

#[test]
fn first_snapshot() {
    watching(async |_, mut snapshots| {
        // Carrier can come a moment after the interface is up.
        becomes("carrier", &mut snapshots, || (), |it| eth0(it).is_some_and(|it| it.carrier)).await;
        let links = snapshots.borrow();
        let lo = &links.interfaces[0];
        assert_eq!((lo.name.as_str(), lo.medium), ("lo", Medium::Loopback));
        let eth0 = eth0(&links).unwrap();
        assert_eq!(eth0.kind.as_deref(), Some("veth"));
        assert_eq!((eth0.up, &eth0.member_of), (true, &None));
        assert!(eth0.mac().is_some());
        assert!(has(&links, "192.0.2.1/24"));
        assert_eq!(links.default_routes, []);
    });
}

/// An administrator writes in an alias what he likes, and a name is any bytes but a few.
#[test]
fn names_that_are_no_text_hide_no_interface() {
    watching(async |pair, mut snapshots| {
        let ip = |words: &[&[u8]]| {
            let words = words.iter().map(|word| OsStr::from_bytes(word));
            assert!(pair.here.run(|| Command::new("ip").args(words).status()).unwrap().success());
        };
        let alias = || ip(&[b"link", b"set", b"eth0", b"alias", b"K\xfcche"]);
        alias();
        let add = || drop(pair.here.ip("address add 198.51.100.1/24 dev eth0"));
        becomes("an alias", &mut snapshots, add, |it| has(it, "198.51.100.1/24")).await;
        let first = watch().await.unwrap();
        assert!(eth0(&first.borrow()).is_some(), "{:#?}", first.borrow());
        let rename = || {
            pair.here.ip("link set eth0 down");
            ip(&[b"link", b"set", b"eth0", b"name", b"eth\xff"]);
        };
        let is_renamed = |it: &Links| it.interfaces.iter().any(|it| it.name == "eth\u{fffd}");
        becomes("a name", &mut snapshots, rename, is_renamed).await;
    });
}

#[test]
fn addresses_come_and_go() {
    watching(async |pair, mut snapshots| {
        for net in ["198.51.100.1/24", "2001:db8::1/64"] {
            let add = || drop(pair.here.ip(&format!("address add {net} dev eth0")));
            becomes("address added", &mut snapshots, add, |it| has(it, net)).await;
            let delete = || drop(pair.here.ip(&format!("address delete {net} dev eth0")));
            becomes("address deleted", &mut snapshots, delete, |it| !has(it, net)).await;
        }
    });
}

/// The kernel asks its neighbours for a second or two before it uses an address.
#[test]
fn addresses_that_are_not_in_use_yet_or_any_more() {
    watching(async |pair, mut snapshots| {
        use AddressState::{Deprecated, Duplicate, Preferred, Temporary, Tentative};
        std::fs::write("/proc/sys/net/ipv6/conf/eth0/use_tempaddr", "2").unwrap();
        let state = |links: &Links, net: &str| {
            let mut addresses = eth0(links)?.addresses.iter();
            Some(addresses.find(|it| it.net.to_string() == net)?.state)
        };
        pair.there.ip("address add 2001:db8::9/64 dev eth0 nodad");
        settle(&mut snapshots).await;
        let add = |words: &str| drop(pair.here.ip(&format!("address add {words} dev eth0")));
        for (words, expected) in [
            ("2001:db8::5/64", Tentative),
            ("2001:db8::6/64 nodad", Preferred),
            ("2001:db8::7/64 nodad preferred_lft 0", Deprecated),
            ("2001:db8::9/64", Duplicate),
        ] {
            let net = words.split(' ').next().unwrap();
            let is_expected = |it: &Links| state(it, net) == Some(expected);
            becomes(words, &mut snapshots, || add(words), is_expected).await;
        }
        let checked = |it: &Links| state(it, "2001:db8::5/64") == Some(Preferred);
        becomes("nobody has it", &mut snapshots, || (), checked).await;
        let managed = || add("2001:db8:1::5/64 mngtmpaddr");
        let has_temporary = |it: &Links| {
            eth0(it).is_some_and(|it| it.addresses.iter().any(|own| own.state == Temporary))
        };
        becomes("one for today", &mut snapshots, managed, has_temporary).await;
    });
}

#[test]
fn carrier_mac_name_and_end() {
    watching(async |pair, mut snapshots| {
        let up = |it: &Links| eth0(it).is_some_and(|it| it.flaw().is_none());
        becomes("usable", &mut snapshots, || (), up).await;
        let index = eth0(&snapshots.borrow()).unwrap().index;
        // The kernel tells of lost carriers at most once a second, all interfaces taken together.
        settle(&mut snapshots).await;

        let cut = || drop(pair.there.ip("link set eth0 down"));
        let flaw = |it: &Links| it.interface(index).and_then(Interface::flaw);
        becomes("carrier lost", &mut snapshots, cut, |it| flaw(it) == Some(Flaw::NoCarrier)).await;
        let mend = || drop(pair.there.ip("link set eth0 up"));
        becomes("carrier back", &mut snapshots, mend, up).await;

        let mac = "02:00:00:00:00:77";
        let change = || drop(pair.here.ip(&format!("link set eth0 address {mac}")));
        let expected = mac.parse().ok();
        becomes("MAC changed", &mut snapshots, change, |it| {
            eth0(it).and_then(Interface::mac) == expected
        })
        .await;

        let down = || drop(pair.here.ip("link set eth0 down"));
        becomes("down", &mut snapshots, down, |it| flaw(it) == Some(Flaw::Down)).await;

        // Before Linux 6.2 an interface that is up keeps its name.
        let rename = || drop(pair.here.ip("link set eth0 name lan0"));
        let renamed = |it: &Links| it.interface(index).is_some_and(|it| it.name == "lan0");
        becomes("renamed", &mut snapshots, rename, renamed).await;

        let delete = || drop(pair.here.ip("link delete lan0"));
        becomes("removed", &mut snapshots, delete, |it| it.interface(index).is_none()).await;
    });
}

#[test]
fn default_routes_lead_to_addresses_outside_of_every_subnet() {
    watching(async |pair, mut snapshots| {
        let elsewhere: IpAddr = "203.0.113.5".parse().unwrap();
        let missing = Err(Unfit::NoInterface(elsewhere));
        assert_eq!(snapshots.borrow().announcing(elsewhere), missing);
        let add = || drop(pair.here.ip("route add default via 192.0.2.2 metric 7"));
        becomes("default route", &mut snapshots, add, |it| it.announcing(elsewhere).is_ok()).await;
        let route = snapshots.borrow().default_routes[0];
        assert_eq!((route.family, route.metric), (Family::V4, 7));
        assert_eq!(route.gateway, Some("192.0.2.2".parse().unwrap()));
        let add = || drop(pair.here.ip("-6 route add default dev eth0"));
        let is_v6 = |it: &Links| it.default_routes.iter().any(|it| it.family == Family::V6);
        becomes("IPv6 default route", &mut snapshots, add, is_v6).await;
    });
}

/// Two cables into one segment, and the kernel's routes say which of them counts.
#[test]
fn of_equal_subnets_the_kernels_route_decides() {
    watching(async |pair, mut snapshots| {
        let [other] = Namespace::several().unwrap();
        pair.here.cable("eth1", &other);
        other.ip("link set eth0 up");
        let is_on = |it: &Links, name: &str| {
            let found = it.announcing("192.0.2.77".parse().unwrap());
            found.is_ok_and(|it| it.name == name)
        };
        let add = || {
            pair.here.ip("link set eth1 up");
            pair.here.ip("address add 192.0.2.3/24 dev eth1 noprefixroute");
            pair.here.ip("route add 192.0.2.0/24 dev eth1 metric 100");
        };
        let both = |it: &Links| it.interfaces.iter().filter(|it| it.way_to(PEER).is_some()).count();
        becomes("both", &mut snapshots, add, |it| both(it) == 2 && is_on(it, "eth0")).await;
        let replace = || {
            pair.here.ip("route add 192.0.2.0/24 dev eth0 metric 600");
            pair.here.ip("route delete 192.0.2.0/24 dev eth0 metric 0");
        };
        becomes("lower metric", &mut snapshots, replace, |it| is_on(it, "eth1")).await;
        let cut = || drop(other.ip("link set eth0 down"));
        becomes("unplugged", &mut snapshots, cut, |it| is_on(it, "eth0")).await;
    });
}

/// A DHCP server of IPv6 gives an address alone, and the router says what is on the link; for IPv4 an administrator may say it.
#[test]
fn a_subnet_that_only_a_route_names_is_where_the_route_leads() {
    watching(async |pair, mut snapshots| {
        let [other] = Namespace::several().unwrap();
        pair.here.cable("port", &other);
        other.ip("link set eth0 up");
        let add = || {
            pair.here.ip("link add eth1 type bridge");
            pair.here.ip("link set port master eth1");
            pair.here.ip("link set port up");
            pair.here.ip("link set eth1 up");
            pair.here.ip("address add 2001:db8::11/128 dev eth1 nodad");
            pair.here.ip("address add 10.0.0.11/32 dev eth1");
            pair.here.ip("route add default via 192.0.2.2");
            pair.here.ip("-6 route add default dev eth0");
        };
        let pools: [IpAddr; 2] = ["2001:db8::240", "10.9.0.240"].map(|it| it.parse().unwrap());
        let are_on = |it: &Links, name: &str| {
            pools.iter().all(|pool| it.announcing(*pool).is_ok_and(|it| it.name == name))
        };
        becomes("no route", &mut snapshots, add, |it| {
            are_on(it, "eth0") && it.interfaces.iter().any(|it| it.name == "eth1" && it.carrier)
        })
        .await;
        let say = || {
            pair.here.ip("-6 route add 2001:db8::/64 dev eth1");
            pair.here.ip("route add 10.9.0.0/24 dev eth1");
        };
        becomes("routes", &mut snapshots, say, |it| are_on(it, "eth1")).await;
        {
            let links = snapshots.borrow();
            let eth1 = links.interfaces.iter().find(|it| it.name == "eth1").unwrap();
            let nets: Vec<String> = eth1.subnets().iter().map(|it| it.net.to_string()).collect();
            assert_eq!(nets, ["10.9.0.0/24", "2001:db8::11/64"]);
            let source = eth1.source_for(pools[0]);
            assert_eq!(source, "2001:db8::11".parse().ok());
            assert!(eth1.has_neighbour(pools[0]) && !eth1.has_neighbour(source.unwrap()));
        }
        let forget = || {
            pair.here.ip("-6 route delete 2001:db8::/64 dev eth1");
            pair.here.ip("route delete 10.9.0.0/24 dev eth1");
        };
        becomes("no route again", &mut snapshots, forget, |it| are_on(it, "eth0")).await;
    });
}

#[test]
fn members_of_a_bridge_are_left_alone() {
    watching(async |pair, mut snapshots| {
        let enslave = || {
            pair.here.ip("link add br0 type bridge");
            pair.here.ip("link set eth0 master br0");
        };
        let flaw = |it: &Links| eth0(it).and_then(Interface::flaw);
        becomes("bridge member", &mut snapshots, enslave, |it| flaw(it) == Some(Flaw::Member))
            .await;
        let move_address = || {
            pair.here.ip("address delete 192.0.2.1/24 dev eth0");
            pair.here.ip("address add 192.0.2.1/24 dev br0");
            pair.here.ip("link set br0 up");
        };
        let on_bridge = |it: &Links| {
            let found = it.announcing("192.0.2.77".parse().unwrap());
            found.is_ok_and(|it| it.kind.as_deref() == Some("bridge"))
        };
        becomes("bridge instead of its member", &mut snapshots, move_address, on_bridge).await;
    });
}

/// Routes that do not matter fill the socket's buffer, and the event that does matter is lost. Only
/// the kernel's word that something was lost remains.
#[test]
fn lost_events_are_made_up_for() {
    watching(async |pair, mut snapshots| {
        let routes =
            (0..4000).map(|it| format!("route add 10.1.{}.{} dev eth0", it / 250, it % 250));
        let address = "address add 198.51.100.1/24 dev eth0".to_owned();
        let commands: Vec<_> = routes.chain([address]).collect();
        let batch = std::env::temp_dir().join(format!("arpeggio-{}.batch", std::process::id()));
        std::fs::write(&batch, commands.join("\n")).unwrap();
        settle(&mut snapshots).await;
        // Nobody reads meanwhile: it is this thread that would.
        let flood = || drop(pair.here.ip(&format!("-batch {}", batch.display())));
        becomes("lost event", &mut snapshots, flood, |it| has(it, "198.51.100.1/24")).await;
        std::fs::remove_file(&batch).unwrap();
        let add = || drop(pair.here.ip("address add 198.51.100.2/24 dev eth0"));
        becomes("the next one", &mut snapshots, add, |it| has(it, "198.51.100.2/24")).await;
    });
}

/// Each change of one of them has all of them read again.
#[test]
fn a_node_with_thousands_of_addresses_is_followed() {
    watching(async |pair, mut snapshots| {
        let net = |it: u32| format!("10.1.{}.{}/16", it / 250, it % 250 + 1);
        let commands: Vec<_> =
            (0..5000).map(|it| format!("address add {} dev eth0", net(it))).collect();
        let batch = std::env::temp_dir().join(format!("arpeggio-many-{}", std::process::id()));
        std::fs::write(&batch, commands.join("\n")).unwrap();
        let add = || drop(pair.here.ip(&format!("-batch {}", batch.display())));
        becomes("5,000 addresses", &mut snapshots, add, |it| has(it, &net(4999))).await;
        std::fs::remove_file(&batch).unwrap();
        let one = || drop(pair.here.ip("address add 198.51.100.1/24 dev eth0"));
        becomes("one more", &mut snapshots, one, |it| has(it, "198.51.100.1/24")).await;
        let reach = snapshots.borrow().reach(&[]);
        assert_eq!(reach.interfaces[0].subnets.len(), 3, "{reach:?}");
    });
}

#[test]
fn nothing_is_published_when_nothing_changed() {
    watching(async |pair, mut snapshots| {
        let up = |it: &Links| eth0(it).is_some_and(|it| it.flaw().is_none());
        becomes("usable", &mut snapshots, || (), up).await;
        settle(&mut snapshots).await;
        // An event that changes nothing that a snapshot holds.
        pair.here.ip("link set eth0 txqueuelen 77");
        let published = time::timeout(Duration::from_millis(300), snapshots.changed()).await;
        assert!(published.is_err());
    });
}

//! What the kernel makes of it, in network namespaces of the tests' own.
//!
//! The program `nft` looks from outside: what it prints does not come by our own reading.
#![cfg(test)]

#[path = "../../link/tests/namespace/mod.rs"]
mod namespace;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use arpeggio_netfilter::{
    Batch, Chain, Comparison, Contents, Data, Error, Expression, Family, Feature, Field, Header,
    Hook, Meta, Netfilter, Register, Rule, Set, SetValue, Table, Tables, Verdict, conntrack_state,
};
use namespace::Namespace;

const R0: Register = Register::new(0);
const R1: Register = Register::new(1);
const R4: Register = Register::new(4);

fn table(family: Family) -> Table {
    Table { family, name: "test".to_owned() }
}

fn one(family: Family, contents: Contents) -> Tables {
    Tables::from([(table(family), contents)])
}

fn prerouting(rules: Vec<Rule>) -> Chain {
    Chain { hook: Some(Hook::Prerouting { priority: -150 }), rules }
}

fn transport(protocol: u8) -> [Expression; 2] {
    [
        Expression::Meta { key: Meta::TransportProtocol, to: R0 },
        Expression::Compare { register: R0, comparison: Comparison::Equal, value: vec![protocol] },
    ]
}

fn payload(header: Header, offset: u32, length: u32, to: Register) -> Expression {
    Expression::Payload { header, offset, length, to }
}

fn up(namespace: &Namespace) {
    namespace.command("ip link set lo up");
}

/// Everything of a table of IPv4.
fn everything() -> Contents {
    let mut addresses = Set::new([Field::Ip], SetValue::Verdict);
    addresses.elements.insert(vec![192, 0, 2, 1], Data::Verdict(Verdict::Jump("one".to_owned())));
    let mut fellows = Set::new([Field::Mac], SetValue::Nothing);
    fellows.elements.insert(vec![2, 0, 0, 0, 0, 1], Data::Nothing);
    let mut next = Set::new([Field::Number], SetValue::Data(vec![Field::Ip, Field::Device]));
    for bucket in 0..1024_u32 {
        let data = [[192, 0, 2, 9], 1_u32.to_ne_bytes()].concat();
        next.elements.insert(bucket.to_ne_bytes().to_vec(), Data::Bytes(data));
    }
    let mut ports = Set::new([Field::Ip, Field::Protocol, Field::Port], SetValue::Verdict);
    ports
        .elements
        .insert(vec![192, 0, 2, 1, 6, 0, 0, 0, 1, 187, 0, 0], Data::Verdict(Verdict::Accept));
    let base = vec![
        payload(Header::Network, 16, 4, R0),
        Expression::LookUpVerdict { map: "addresses".to_owned(), key: R0 },
    ];
    let state = vec![
        Expression::ConntrackState { to: R0 },
        Expression::Mask {
            register: R0,
            mask: (conntrack_state::NEW | conntrack_state::INVALID).to_ne_bytes().to_vec(),
        },
        Expression::Compare { register: R0, comparison: Comparison::NotEqual, value: vec![0; 4] },
        payload(Header::Link, 6, 6, R0),
        Expression::InSet { set: "fellows".to_owned(), key: R0, inverted: true },
        Expression::Verdict(Verdict::Return),
    ];
    let mark = vec![
        payload(Header::Network, 0, 2, R0),
        Expression::SetBits { register: R0, mask: vec![0xff, 0x03], bits: vec![0, 0xb8] },
        Expression::SetPayload {
            header: Header::Network,
            offset: 0,
            length: 2,
            from: R0,
            checksum: Some(10),
        },
    ];
    let pass = vec![
        payload(Header::Network, 12, 4, R0),
        payload(Header::Transport, 0, 2, R1),
        Expression::Hash { from: R0, length: 8, modulus: 1024, seed: 7, to: R4 },
        Expression::LookUp { map: "next".to_owned(), key: R4, to: R0 },
        Expression::NamedCounter("passed".to_owned()),
        Expression::Duplicate { address: R0, device: R1 },
        Expression::Verdict(Verdict::Drop),
    ];
    Contents {
        counters: ["passed".to_owned()].into(),
        sets: BTreeMap::from([
            ("addresses".to_owned(), addresses),
            ("fellows".to_owned(), fellows),
            ("next".to_owned(), next),
            ("ports".to_owned(), ports),
        ]),
        chains: BTreeMap::from([
            ("base".to_owned(), prerouting(vec![base])),
            ("one".to_owned(), Chain { hook: None, rules: vec![state, mark, pass] }),
        ]),
    }
}

#[test]
fn rules_are_what_nft_sees() {
    let Some([here]) = Namespace::several() else { return };
    up(&here);
    here.run(|| {
        let mut netfilter = Netfilter::open().unwrap();
        netfilter.require(&Feature::ALL).unwrap();
        assert_eq!(here.ruleset(), "", "asking leaves nothing behind");
        netfilter.commit(&Batch::between(&Tables::new(), &one(Family::Ip, everything()))).unwrap();
        let seen = here.ruleset();
        for expected in [
            "flags owner",
            "type filter hook prerouting priority mangle; policy accept;",
            "ip daddr vmap @addresses",
            "192.0.2.1 : jump one",
            "type ipv4_addr . inet_proto . inet_service : verdict",
            "192.0.2.1 . tcp . 443 : accept",
            "@ll,48,48 != @fellows return",
            "02:00:00:00:00:01",
            "ip dscp set ef",
            "jhash ip saddr . th sport mod 1024 seed 0x7",
            "counter name \"passed\"",
        ] {
            assert!(seen.contains(expected), "{expected} is not in\n{seen}");
        }
        assert_eq!(seen.matches("192.0.2.9 . \"lo\"").count(), 1024, "{seen}");
        drop(netfilter);
        gone_soon(&here);
    });
}

/// Whether this kernel is Linux 5.12 or newer.
fn has_owners() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers =
        release.split(|it: char| !it.is_ascii_digit()).map(|it| it.parse::<u32>().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (5, 12)
}

#[test]
fn a_kernel_without_owners_of_tables_is_told_from_others() {
    let Some([here]) = Namespace::several() else { return };
    here.run(|| {
        let found = Netfilter::open().unwrap().require(&Feature::ALL);
        assert_eq!(here.ruleset(), "", "asking leaves nothing behind");
        if has_owners() {
            return found.unwrap();
        }
        let lacks = found.unwrap_err();
        assert!(matches!(lacks, Error::Missing(Feature::Owner)), "{lacks}");
        assert!(lacks.to_string().contains("it needs Linux 5.12 or later"), "{lacks}");
    });
}

/// The kernel removes tables some moments after their socket has closed.
fn gone_soon(namespace: &Namespace) {
    let is_gone = || namespace.ruleset().is_empty();
    assert!(namespace::eventually(is_gone), "still there: {}", namespace.ruleset());
}

/// Run by the test after it, as a process of its own.
#[test]
#[ignore = "holds a table until it is killed"]
fn holds_a_table() {
    let mut netfilter = Netfilter::open().unwrap();
    netfilter.commit(&Batch::between(&Tables::new(), &one(Family::Ip, everything()))).unwrap();
    println!("holding");
    thread::sleep(Duration::from_mins(1));
}

#[test]
fn rules_go_with_a_process_that_is_killed() {
    let Some([here]) = Namespace::several() else { return };
    here.run(|| {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "holds_a_table", "--ignored", "--nocapture"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("holding")));
        assert!(here.ruleset().contains("flags owner"));
        child.kill().unwrap();
        child.wait().unwrap();
        gone_soon(&here);
    });
}

#[test]
fn a_refused_batch_changes_nothing_and_names_the_change() {
    let Some([here]) = Namespace::several() else { return };
    here.run(|| {
        let mut netfilter = Netfilter::open().unwrap();
        let wanted = one(Family::Ip, everything());
        netfilter.commit(&Batch::between(&Tables::new(), &wanted)).unwrap();
        let before = here.ruleset();
        let mut other = everything();
        other.counters.insert("more".to_owned());
        other
            .chains
            .get_mut("one")
            .unwrap()
            .rules
            .push(vec![Expression::Verdict(Verdict::Jump("nowhere".to_owned()))]);
        let refused =
            netfilter.commit(&Batch::between(&wanted, &one(Family::Ip, other))).unwrap_err();
        let Error::Refused { what, .. } = &refused else { panic!("{refused}") };
        assert_eq!(what, "add rule ip test one (immediate)");
        assert_eq!(refused.refusal(), Some(libc::ENOENT), "{refused}");
        assert_eq!(here.ruleset(), before);
    });
}

#[test]
fn another_process_cannot_change_a_table() {
    let Some([here]) = Namespace::several() else { return };
    here.run(|| {
        let mut netfilter = Netfilter::open().unwrap();
        netfilter.commit(&Batch::between(&Tables::new(), &one(Family::Ip, everything()))).unwrap();
        let mut other = Batch::new();
        other.delete_table(&table(Family::Ip));
        let refused = Netfilter::open().unwrap().commit(&other).unwrap_err();
        assert_eq!(refused.refusal(), Some(libc::EPERM), "{refused}");
        assert!(here.ruleset().contains("table ip test"));
    });
}

#[test]
fn a_change_costs_what_differs() {
    let Some([here]) = Namespace::several() else { return };
    here.run(|| {
        let mut netfilter = Netfilter::open().unwrap();
        let old = one(Family::Ip, everything());
        netfilter.commit(&Batch::between(&Tables::new(), &old)).unwrap();
        let mut contents = everything();
        let next = &mut contents.sets.get_mut("next").unwrap().elements;
        next.remove(&1_u32.to_ne_bytes()[..]);
        let other = Data::Bytes([[192, 0, 2, 8], 1_u32.to_ne_bytes()].concat());
        next.insert(2_u32.to_ne_bytes().to_vec(), other);
        let new = one(Family::Ip, contents.clone());
        let batch = Batch::between(&old, &new);
        assert_eq!(batch.len(), 2, "some elements go and some come");
        netfilter.commit(&batch).unwrap();
        let seen = here.ruleset();
        assert_eq!(seen.matches("192.0.2.9 . \"lo\"").count(), 1022);
        assert_eq!(seen.matches("192.0.2.8 . \"lo\"").count(), 1);

        // All that refers to something goes before that goes.
        contents.sets.remove("ports");
        contents.sets.get_mut("addresses").unwrap().elements.clear();
        contents.chains.remove("one");
        contents.counters.clear();
        contents.sets.remove("next");
        let least = one(Family::Ip, contents);
        netfilter.commit(&Batch::between(&new, &least)).unwrap();
        let seen = here.ruleset();
        assert!(
            !seen.contains("chain one")
                && !seen.contains("counter")
                && seen.contains("vmap @addresses"),
            "{seen}"
        );
        netfilter.commit(&Batch::between(&least, &old)).unwrap();
        // A set of another kind: the table is made anew.
        let mut kinds = everything();
        kinds.sets.insert("ports".to_owned(), Set::new([Field::Port], SetValue::Nothing));
        netfilter.commit(&Batch::between(&old, &one(Family::Ip, kinds.clone()))).unwrap();
        assert!(here.ruleset().contains("type inet_service\n"), "{}", here.ruleset());
        netfilter.commit(&Batch::between(&one(Family::Ip, kinds), &Tables::new())).unwrap();
        assert_eq!(here.ruleset(), "");
    });
}

/// `jhash` of `linux/jhash.h`, of four bytes.
fn jhash(bytes: [u8; 4], seed: u32) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(4).wrapping_add(seed);
    let mut words = [start.wrapping_add(u32::from_le_bytes(bytes)), start, start];
    // Which word changes by which other one, and how far that is rotated.
    let steps = [(2, 1, 14), (0, 2, 11), (1, 0, 25), (2, 1, 16), (0, 2, 4), (1, 0, 14), (2, 1, 24)];
    for (changed, by, rotation) in steps {
        words[changed] = (words[changed] ^ words[by]).wrapping_sub(words[by].rotate_left(rotation));
    }
    words[2]
}

/// How many outcomes the hash has in the test of it.
const PARTS: u32 = 16;
const SEED: u32 = 0x1234_5678;

#[test]
fn the_kernel_hashes_as_said() {
    let Some([here]) = Namespace::several() else { return };
    up(&here);
    let addresses: Vec<[u8; 4]> = (1..=40).map(|last| [127, 9, last, 200 - last]).collect();
    // One counter for each part that the hash may choose, and a rule for each.
    let rule = |part: u32| {
        let mut rule = transport(17).to_vec();
        rule.extend([
            payload(Header::Network, 12, 4, R0),
            Expression::Hash { from: R0, length: 4, modulus: PARTS, seed: SEED, to: R4 },
            Expression::Compare {
                register: R4,
                comparison: Comparison::Equal,
                value: part.to_ne_bytes().to_vec(),
            },
            Expression::NamedCounter(part.to_string()),
        ]);
        rule
    };
    let contents = Contents {
        counters: (0..PARTS).map(|part| part.to_string()).collect(),
        sets: BTreeMap::new(),
        chains: BTreeMap::from([("base".to_owned(), prerouting((0..PARTS).map(rule).collect()))]),
    };
    here.run(|| {
        let mut netfilter = Netfilter::open().unwrap();
        netfilter.commit(&Batch::between(&Tables::new(), &one(Family::Ip, contents))).unwrap();
        let mut expected = vec![0_u64; PARTS as usize];
        for address in &addresses {
            let from = UdpSocket::bind((IpAddr::from(*address), 0)).unwrap();
            from.send_to(b"12345", "127.0.0.1:9").unwrap();
            let hash = jhash(*address, SEED);
            expected[((u64::from(hash) * u64::from(PARTS)) >> 32) as usize] += 1;
        }
        let mut counted = vec![0; PARTS as usize];
        for counter in netfilter.counters(&table(Family::Ip)).unwrap() {
            counted[counter.name.parse::<usize>().unwrap()] = counter.packets;
            assert_eq!(counter.bytes, counter.packets * (20 + 8 + 5));
        }
        assert_eq!(counted, expected);
        assert!(expected.iter().filter(|count| **count > 0).count() > 8, "{expected:?}");
    });
}

#[test]
fn frames_are_written_to_and_forwarded() {
    let Some([here, there]) = Namespace::several() else { return };
    let index = |namespace: &Namespace, name: &str| -> u32 {
        let line = namespace.command(&format!("ip -oneline link show {name}"));
        line.split(':').next().unwrap().parse().unwrap()
    };
    here.command(&format!("ip link add in type veth peer name in netns {}", there.path()));
    here.command(&format!("ip link add out type veth peer name out netns {}", there.path()));
    for name in ["in", "out"] {
        here.command(&format!("ip link set {name} up"));
        there.command(&format!("ip link set {name} up"));
    }
    there.command("ip address add 192.0.2.2/24 dev in");
    there.command("ip neighbour add 192.0.2.1 lladdr 02:00:00:00:00:99 dev in");
    there.nft(
        "table netdev look { counter right { }
         chain out { type filter hook ingress device \"out\" priority 0;
         ether daddr 02:11:11:11:11:11 ether saddr 02:22:22:22:22:22 ip daddr 192.0.2.1 counter name \"right\"; }
         }",
    );
    let rule = vec![
        Expression::Meta { key: Meta::Protocol, to: R0 },
        Expression::Compare { register: R0, comparison: Comparison::Equal, value: vec![8, 0] },
        Expression::Load {
            value: [[2, 0x11, 0x11, 0x11, 0x11, 0x11], [2, 0x22, 0x22, 0x22, 0x22, 0x22]].concat(),
            to: R0,
        },
        Expression::SetPayload {
            header: Header::Link,
            offset: 0,
            length: 12,
            from: R0,
            checksum: None,
        },
        Expression::Load { value: index(&here, "out").to_ne_bytes().to_vec(), to: R4 },
        Expression::Forward { device: R4 },
    ];
    let hook = Hook::Ingress { device: "in".to_owned(), index: index(&here, "in"), priority: 0 };
    let contents = Contents {
        chains: BTreeMap::from([("in".to_owned(), Chain { hook: Some(hook), rules: vec![rule] })]),
        ..Contents::default()
    };
    let _netfilter = here.run(|| {
        let mut netfilter = Netfilter::open().unwrap();
        netfilter.commit(&Batch::between(&Tables::new(), &one(Family::Netdev, contents))).unwrap();
        netfilter
    });
    there.run(|| {
        let socket = UdpSocket::bind("192.0.2.2:0").unwrap();
        for _ in 0..5 {
            socket.send_to(b"x", "192.0.2.1:9").unwrap();
        }
    });
    let seen = there.command("nft list counters");
    assert!(seen.contains("packets 5"), "{seen}");
}

#[test]
fn connections_are_counted_by_the_address_that_clients_opened_them_to() {
    let Some([here]) = Namespace::several() else { return };
    up(&here);
    for address in ["192.0.2.1/32", "192.0.2.2/32"] {
        here.command(&format!("ip address add {address} dev lo"));
    }
    here.command("ip address add 2001:db8::1/128 dev lo nodad");
    here.nft(
        "table inet watch { chain c { type filter hook output priority 0; ct state new accept; }
         }
         table ip nat { chain c { type nat hook output priority -100; ip daddr 192.0.2.1 dnat to 127.0.0.1; }
         }",
    );
    here.run(|| {
        let listener = TcpListener::bind("[::]:7000").unwrap();
        let _open: Vec<_> =
            ["192.0.2.1:7000", "192.0.2.1:7000", "192.0.2.2:7000", "[2001:db8::1]:7000"]
                .map(|address| (TcpStream::connect(address).unwrap(), listener.accept().unwrap()))
                .into();
        for port in [7001, 7002] {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"x", ("192.0.2.1", port)).unwrap();
        }
        drop((TcpStream::connect("192.0.2.2:7000").unwrap(), listener.accept().unwrap()));
        thread::sleep(Duration::from_millis(100));
        let mut netfilter = Netfilter::open().unwrap();
        let mut count_without = |addresses: &[&str], own: &[&str]| -> Vec<(u32, u32)> {
            let own = own.iter().map(|it| it.parse().unwrap()).collect();
            let ports = || BTreeSet::from([7001, 10_000]);
            let addresses = addresses.iter().map(|it| (it.parse().unwrap(), ports())).collect();
            let counted = netfilter.connections(&addresses, &own).unwrap();
            counted.values().map(|count| (count.tcp, count.udp)).collect()
        };
        let mut count = |addresses: &[&str]| count_without(addresses, &[]);
        assert_eq!(
            count(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"]),
            [(2, 1), (1, 0), (0, 0), (1, 0)]
        );
        // The kernel filters.
        assert_eq!(count(&["192.0.2.1"]), [(2, 1)]);
        assert_eq!(count(&["2001:db8::1"]), [(1, 0)]);
        assert_eq!(count(&["127.0.0.1"]), [(0, 0)]);
        // A flood, of which nothing is kept.
        let flood = UdpSocket::bind("0.0.0.0:0").unwrap();
        for port in 10_000..14_000 {
            drop(flood.send_to(b"x", ("192.0.2.2", port)));
        }
        assert_eq!(count(&["192.0.2.2"]), [(1, 1)], "and UDP of other ports is not counted");
        // This machine is its own client.
        let mut without = |own: &[&str]| count_without(&["192.0.2.1", "2001:db8::1"], own);
        assert_eq!(without(&["192.0.2.1"]), [(0, 0), (1, 0)]);
        assert_eq!(without(&["192.0.2.3", "2001:db8::1"]), [(2, 1), (0, 0)]);
    });
}

#[test]
fn who_may_not_is_told() {
    let Some([here]) = Namespace::several() else { return };
    // As nobody, in a user namespace that has no power over the network namespace.
    let said = here.run(|| {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"]).arg(program);
        command.args(["--exact", "asks_without_the_capability", "--ignored", "--nocapture"]);
        command.output().expect("install util-linux")
    });
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
    assert!(String::from_utf8_lossy(&said.stdout).contains("1 passed"));
}

/// Run by the test before it, as a process of its own.
#[test]
#[ignore = "needs a process without a capability"]
fn asks_without_the_capability() {
    let mut netfilter = Netfilter::open().unwrap();
    let told = netfilter.require(&Feature::ALL).unwrap_err();
    assert!(matches!(told, Error::NotPermitted), "{told}");
    assert!(told.to_string().contains("NET_ADMIN"));
}

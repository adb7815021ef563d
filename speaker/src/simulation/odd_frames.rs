//! Frames that are valid and seldom seen, and frames that are not valid, about an address that is announced, and about one that
//! is asked for before its first use.

use std::net::IpAddr;

use arpeggio_wire::{ArpFrame, ArpOperation, Claim, MacAddr, NdpFrame, NdpMessage, Question};

use super::cluster::{Cluster, ip, ip6, millis, secs, v4, v6};

const STRANGER: MacAddr = MacAddr(6, 0, 0, 0, 0, 1);
const GROUP: MacAddr = MacAddr(3, 0, 0, 0, 0, 1);
/// A machine's own.
const FELLOW: MacAddr = MacAddr(2, 0, 0, 1, 0, 12);

/// What is to become of an address that is asked for while somebody says this again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is somebody's.
    PutAside,
    /// It is nobody's.
    Announced,
}

use Fate::{Announced, PutAside};

/// "May I have this address?"
fn arp_probe(address: IpAddr, mac: MacAddr) -> ArpFrame {
    let asker = arpeggio_wire::Asker { mac, address: None };
    Question { address: v4(address), asker }.broadcast()
}

fn gratuitous(address: IpAddr, mac: MacAddr, operation: ArpOperation) -> ArpFrame {
    Claim { address: v4(address), mac }.announcement(operation)
}

fn of_arp(address: IpAddr) -> Vec<(&'static str, Fate, Vec<u8>)> {
    use ArpOperation::{Reply, Request};
    let told = |mac, operation| gratuitous(address, mac, operation);
    let question = ArpFrame { target_protocol: [192, 168, 0, 1].into(), ..told(STRANGER, Request) };
    let frames = [
        ("a stranger's probe", PutAside, arp_probe(address, STRANGER)),
        ("a fellow's probe", Announced, arp_probe(address, FELLOW)),
        ("a probe of nobody", Announced, arp_probe(address, MacAddr::zero())),
        ("a probe of everybody", Announced, arp_probe(address, MacAddr::broadcast())),
        ("a probe of a group", Announced, arp_probe(address, GROUP)),
        ("a gratuitous request", PutAside, told(STRANGER, Request)),
        ("a gratuitous reply", PutAside, told(STRANGER, Reply)),
        ("a question for another address", PutAside, question),
        (
            "a stranger's word that a fellow passes on",
            PutAside,
            ArpFrame { source: FELLOW, ..told(STRANGER, Reply) },
        ),
        ("a word of a group, as a cluster of servers says it", PutAside, told(GROUP, Reply)),
    ];
    frames.map(|(what, fate, frame)| (what, fate, frame.to_bytes().to_vec())).into()
}

fn of_ndp(address: IpAddr) -> Vec<(&'static str, Fate, Vec<u8>)> {
    let probe = |mac| {
        let asker = arpeggio_wire::Asker { mac, address: None };
        Question { address: v6(address), asker }.multicast()
    };
    let told = Claim { address: v6(address), mac: STRANGER }.advertisement();
    let flags = |router, overriding| NdpFrame {
        message: NdpMessage::Advertisement { router, solicited: false, overriding },
        ..told
    };
    let frames = [
        ("a stranger's probe", PutAside, probe(STRANGER)),
        ("a fellow's probe", Announced, probe(FELLOW)),
        (
            "a probe with a link-layer address",
            Announced,
            NdpFrame { link_address: Some(STRANGER), ..probe(STRANGER) },
        ),
        ("a word that overrides", PutAside, told),
        ("a word that does not override", PutAside, flags(false, false)),
        ("a router's word", PutAside, flags(true, true)),
        (
            "a word without a link-layer address",
            PutAside,
            NdpFrame { link_address: None, ..flags(false, false) },
        ),
    ];
    let mut frames: Vec<_> =
        frames.map(|(what, fate, frame)| (what, fate, frame.to_bytes().to_vec())).into();
    let spoilt = |at: usize| {
        let mut bytes = told.to_bytes().to_vec();
        bytes[at] ^= 64;
        bytes
    };
    frames.push(("a word from beyond a router", Announced, spoilt(21)));
    frames.push(("a word with a wrong checksum", Announced, spoilt(57)));
    frames
}

fn says_again(cluster: &mut Cluster, frame: &[u8], times: usize) {
    for _ in 0..times {
        cluster.forge(0, frame);
        cluster.run(millis(50));
    }
}

#[test]
fn an_announced_address_stays_where_it_is_whatever_is_said_of_it() {
    for address in [ip(0, 100), ip6(0, 100)] {
        let frames = if address.is_ipv4() { of_arp(address) } else { of_ndp(address) };
        for (what, _, frame) in frames {
            let mut cluster = Cluster::settled(3, &[address]);
            let owner = cluster.owner(address);
            says_again(&mut cluster, &frame, 100);
            assert_eq!(cluster.owner(address), owner, "{what}: {cluster:?}");
            assert!(cluster.charges().is_empty(), "{what}: {cluster:?}");
            assert_eq!(cluster.longest_dark, millis(0), "{what}: {cluster:?}");
            assert_eq!(cluster.takes(), 0, "{what}: {cluster:?}");
            assert!(cluster.news().len() <= 1, "{what}: {cluster:?}");
            assert!(cluster.log().lines().count() <= 2, "{what}: {}", cluster.log());
            let writes = cluster.orders.len();
            assert!(writes <= 3 * 3 + 8, "{what}: {writes}: {cluster:?}");
        }
    }
}

#[test]
fn an_address_that_is_asked_for_is_announced_unless_somebody_has_or_wants_it() {
    for address in [ip(0, 100), ip6(0, 100)] {
        let frames = if address.is_ipv4() { of_arp(address) } else { of_ndp(address) };
        for (what, fate, frame) in frames {
            let mut cluster = Cluster::settled(3, &[ip(0, 99)]);
            cluster.claim(address);
            says_again(&mut cluster, &frame, 200);
            let (quarantines, owners) = (cluster.quarantines(), cluster.owners(address).len());
            let expected = if fate == PutAside { (1, 0) } else { (0, 1) };
            assert_eq!((quarantines, owners), expected, "{what}: {address}: {cluster:?}");
            assert_eq!(cluster.longest_overlap, millis(0), "{what}: {cluster:?}");
            cluster.run(secs(1));
        }
    }
}

/// A machine that starts with the address asks three times whether it may, and must hear that it may not.
#[test]
fn who_wants_an_address_that_is_announced_gets_an_answer_to_each_question() {
    for address in [ip(0, 100), ip6(0, 100)] {
        let mut cluster = Cluster::settled(2, &[address]);
        let owner = cluster.owner(address).unwrap();
        let (_, _, probe) =
            if address.is_ipv4() { of_arp(address) } else { of_ndp(address) }.remove(0);
        let sent = |cluster: &mut Cluster, frame: Option<&[u8]>| {
            cluster.mark();
            for _ in 0..10 {
                frame.into_iter().for_each(|it| cluster.forge(0, it));
                cluster.run(millis(100));
            }
            cluster.frames_sent.get(&owner).copied().unwrap_or_default()
        };
        cluster.run(secs(10));
        let at_rest = sent(&mut cluster, None);
        let asked = sent(&mut cluster, Some(&probe));
        assert!((asked - at_rest).abs_diff(10) <= 3, "{address}: {at_rest} {asked}");
    }
}

//! What happens to interfaces, and when the segment is told.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use arpeggio_link::{
    filter::ArpFilter,
    packet::{ArpSocket, FrameSocket},
};
use arpeggio_wire::{ArpFrame, ArpOperation, Asker, Claim, MacAddr, NdpFrame, Question};

use super::{
    OURS, OURS_V6, QUEUE, Speaker, THERE, Task, arp_client, namespace::Namespace, ndp_client, next,
    pair,
};

use crate::listener::Said;

/// Longer than the kernel holds back a carrier that changes twice within a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits until a client is told unasked that `address` is at `mac`; prints how long after the start of the command that
/// `cause` is.
macro_rules! told {
    ($what:literal, $client:expr, $address:expr, $mac:expr, $cause:expr) => {{
        let start = Instant::now();
        $cause;
        let claim = Claim { address: $address, mac: $mac };
        loop {
            let frame = next(&$client, start + PATIENCE).expect($what);
            if ArpFrame::parse(&frame).is_ok_and(|it| it.claim() == Some(claim)) {
                break;
            }
        }
        println!("{}: told {:?} after the command was started", $what, start.elapsed());
    }};
}

/// How many frames a client hears in a while.
fn heard_in(client: &arpeggio_link::packet::ArpSocket, time: Duration) -> usize {
    let end = Instant::now() + time;
    std::iter::from_fn(|| next(client, end)).count()
}

/// Until all four announcements after the first are over; the next one comes a minute later.
fn wait_for_the_repeats(client: &arpeggio_link::packet::ArpSocket) {
    heard_in(client, Duration::from_secs(5));
    while heard_in(client, Duration::from_millis(1500)) > 0 {}
}

#[test]
fn the_segment_is_told_after_each_change_of_an_interface_and_never_else() {
    let Some(pair) = pair() else { return };
    let speaker = Speaker::start(&pair.here);
    let client = arp_client(&pair, [OURS]);
    let mac = pair.here.link().1;
    told!("gained", client, OURS, mac, speaker.announce([OURS.into()]));
    wait_for_the_repeats(&client);
    // Whatever is said again, or changes elsewhere.
    for _ in 0..20 {
        speaker.announce([OURS.into()]);
    }
    pair.here.ip("link add other0 type bridge");
    pair.here.ip("address add 10.9.9.1/24 dev other0");
    assert_eq!(heard_in(&client, Duration::from_millis(700)), 0);

    let gained = Task {
        announced: [OURS.into()].into(),
        gained: vec![OURS.into(), THERE.into()],
        ..Task::default()
    };
    told!("another node had told of it", client, OURS, mac, speaker.set(&gained));
    wait_for_the_repeats(&client);

    let other: MacAddr = "02:00:00:00:00:77".parse().unwrap();
    let change = || pair.here.ip(&format!("link set eth0 address {other}"));
    told!("MAC address changed", client, OURS, other, change());

    wait_for_the_repeats(&client);
    let batch = std::env::temp_dir().join(format!("arpeggio-flap-{}", std::process::id()));
    std::fs::write(&batch, "link set eth0 down\nlink set eth0 up\n").unwrap();
    let flap = || pair.there.ip(&format!("-batch {}", batch.display()));
    told!("carrier lost and back at once", client, OURS, other, flap());
    std::fs::remove_file(&batch).unwrap();
    wait_for_the_repeats(&client);
    pair.there.ip("link set eth0 down");
    std::thread::sleep(Duration::from_millis(1500));
    told!("carrier back", client, OURS, other, pair.there.ip("link set eth0 up"));

    pair.here.ip("address delete 192.0.2.1/24 dev eth0");
    while heard_in(&client, Duration::from_millis(500)) > 0 {}
    assert_eq!(heard_in(&client, Duration::from_millis(1500)), 0, "no subnet, no announcement");
    let add = || pair.here.ip("address add 192.0.2.1/24 dev eth0");
    told!("address came back", client, OURS, other, add());
}

#[test]
fn an_interface_that_comes_later_announces_also_when_it_takes_the_place_of_another() {
    let Some(pair) = pair() else { return };
    let address = std::net::Ipv4Addr::new(198, 51, 100, 10);
    let mac: MacAddr = "02:00:00:00:00:78".parse().unwrap();
    let speaker = Speaker::start(&pair.here);
    let client = arp_client(&pair, [address]);
    speaker.announce([address.into()]);
    let add =
        format!("link add link eth0 name late0 index 77 address {mac} type macvlan mode bridge");
    told!("interface came", client, address, mac, {
        pair.here.ip(&add);
        pair.here.ip("address add 198.51.100.1/24 dev late0");
        pair.here.ip("link set late0 up");
    });
    // Same name, index and MAC address; it may go and come between two looks.
    pair.here.ip("link delete late0");
    pair.here.ip(&add);
    pair.here.ip("address add 198.51.100.1/24 dev late0");
    pair.here.ip("link set late0 up");
    let asker = Asker { mac: pair.there.link().1, address: Some(THERE) };
    let request = Question { address, asker }.broadcast();
    let start = Instant::now();
    let answered = std::iter::repeat_with(|| {
        client.send(&request.to_bytes()).unwrap();
        next(&client, Instant::now() + Duration::from_millis(50))
    });
    let is_answer = |frame: &Vec<u8>| {
        ArpFrame::parse(frame).is_ok_and(|it| it.destination == asker.mac && it.source == mac)
    };
    let until = answered.take_while(|_| start.elapsed() < PATIENCE).flatten().find(is_answer);
    assert!(until.is_some(), "the new interface answers");
    println!("interface replaced: answers {:?} after it came", start.elapsed());
}

/// Whether anybody answers at `mac` who is asked again and again for a while.
fn is_answered(
    client: &ArpSocket,
    asker: Asker<Ipv4Addr>,
    address: Ipv4Addr,
    mac: MacAddr,
) -> bool {
    let request = Question { address, asker }.broadcast().to_bytes();
    let start = Instant::now();
    let mut heard = std::iter::repeat_with(|| {
        client.send(&request).unwrap();
        next(client, Instant::now() + Duration::from_millis(50))
    });
    let is_answer = |frame: Vec<u8>| {
        ArpFrame::parse(&frame).is_ok_and(|it| it.destination == asker.mac && it.source == mac)
    };
    heard.by_ref().take_while(|_| start.elapsed() < PATIENCE).flatten().any(is_answer)
}

/// Before Linux 6.2 an interface that is up keeps its name.
#[test]
fn an_interface_with_another_name_answers_as_before() {
    let Some(pair) = pair() else { return };
    let speaker = Speaker::start(&pair.here);
    let client = arp_client(&pair, [OURS]);
    let mac = pair.here.link().1;
    let asker = Asker { mac: pair.there.link().1, address: Some(THERE) };
    told!("gained", client, OURS, mac, speaker.announce([OURS.into()]));
    wait_for_the_repeats(&client);
    told!("renamed and up again", client, OURS, mac, {
        pair.here.ip("link set eth0 down");
        pair.here.ip("link set eth0 name lan0");
        pair.here.ip("link set lan0 up");
    });
    assert!(is_answered(&client, asker, OURS, mac));
    // At once, so that no look shows it down.
    let batch = std::env::temp_dir().join(format!("arpeggio-name-{}", std::process::id()));
    let commands = "link set lan0 down\nlink set lan0 name lan1\nlink set lan1 up\n";
    std::fs::write(&batch, commands).unwrap();
    pair.here.ip(&format!("-batch {}", batch.display()));
    std::fs::remove_file(&batch).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(is_answered(&client, asker, OURS, mac));
}

/// The other interface goes on all the while.
#[test]
fn an_interface_that_goes_to_another_namespace_is_missed_until_it_is_back() {
    let Some(pair) = pair() else { return };
    let [elsewhere, other] = Namespace::several().unwrap();
    pair.here.cable("eth1", &other);
    pair.here.ip("address add 198.51.100.1/24 dev eth1");
    pair.here.ip("link set eth1 up");
    other.ip("link set eth0 up");
    let there: Ipv4Addr = "198.51.100.10".parse().unwrap();
    let speaker = Speaker::start(&pair.here);
    let client = arp_client(&pair, [OURS]);
    let mac = pair.here.link().1;
    told!("gained", client, OURS, mac, speaker.announce([OURS.into(), there.into()]));
    let filter = ArpFilter { ours: [there].into(), peers: BTreeSet::new() };
    let (index, other_mac) = other.link();
    let second = other.run(|| FrameSocket::open(index, &filter)).unwrap();
    let line = pair.here.ip("-oneline link show eth1");
    let second_mac = line.split("link/ether ").nth(1).unwrap()[..17].parse().unwrap();
    let asker = Asker { mac: other_mac, address: Some("198.51.100.2".parse().unwrap()) };
    assert!(is_answered(&second, asker, there, second_mac));

    pair.here.ip(&format!("link set eth0 netns {}", elsewhere.path()));
    assert!(is_answered(&second, asker, there, second_mac), "the other goes on");
    while heard_in(&client, Duration::from_millis(500)) > 0 {}
    told!("back", client, OURS, mac, {
        elsewhere.ip(&format!("link set eth0 netns {}", pair.here.path()));
        pair.here.ip("address add 192.0.2.1/24 dev eth0");
        pair.here.ip("link set eth0 up");
    });
    assert!(is_answered(&second, asker, there, second_mac), "the other goes on");
}

/// Below 1,280 bytes there is no IPv6 on a link (RFC 8200 section 5), and the kernel forgets all that it knows of it there.
#[test]
fn groups_are_joined_again_when_ipv6_is_back_on_an_interface() {
    let Some(pair) = pair() else { return };
    let speaker = Speaker::start(&pair.here);
    let task = Task {
        announced: [OURS_V6.into()].into(),
        patterns: vec!["eth0".into()],
        ..Task::default()
    };
    speaker.set(&task);
    let is_joined = || {
        let joined = pair.here.ip("maddress show dev eth0");
        joined.contains("ff02::1:ff00:10")
    };
    let becomes = |expected: bool, what: &str| {
        let start = Instant::now();
        while is_joined() != expected {
            assert!(start.elapsed() < PATIENCE, "{what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    becomes(true, "at first");
    pair.here.ip("link set eth0 mtu 1200");
    becomes(false, "without IPv6");
    std::thread::sleep(Duration::from_millis(300));
    pair.here.ip("link set eth0 mtu 1500");
    becomes(true, "with IPv6 again");
}

/// Whoever asks at that moment must not be told where the address was.
#[test]
fn nobody_answers_with_the_old_mac_address_once_the_new_one_is_told() {
    let Some(pair) = pair() else { return };
    let speaker = Speaker::start(&pair.here);
    let client = arp_client(&pair, [OURS]);
    told!("gained", client, OURS, pair.here.link().1, speaker.announce([OURS.into()]));
    let asker = Asker { mac: pair.there.link().1, address: Some(THERE) };
    let question = Question { address: OURS, asker }.broadcast().to_bytes();
    for last in 0x81..0x86 {
        let mac = MacAddr(2, 0, 0, 0, 0, last);
        let change = || pair.here.ip(&format!("link set eth0 address {mac}"));
        told!("MAC address changed", client, OURS, mac, change());
        client.send(&question).unwrap();
        let end = Instant::now() + Duration::from_millis(100);
        let heard = std::iter::from_fn(|| next(&client, end));
        let macs: BTreeSet<_> =
            heard.filter_map(|it| ArpFrame::parse(&it).ok()?.claim()).map(|it| it.mac).collect();
        assert_eq!(macs, [mac].into());
    }
}

#[test]
fn a_rule_names_the_interfaces_to_announce_on() {
    let Some(pair) = pair() else { return };
    let mac: MacAddr = "02:00:00:00:00:79".parse().unwrap();
    pair.here.ip(&format!("link add link eth0 name top0 address {mac} type macvlan mode bridge"));
    pair.here.ip("address add 198.51.100.1/24 dev top0");
    pair.here.ip("link set top0 up");
    let speaker = Speaker::start(&pair.here);
    let client = arp_client(&pair, [OURS]);
    let ndp = ndp_client(&pair, [OURS_V6]);
    let announced: BTreeSet<IpAddr> = [OURS.into(), OURS_V6.into()].into();
    let task = Task { announced, patterns: vec!["top*".into(), "eth?".into()], ..Task::default() };
    speaker.set(&task);
    let end = Instant::now() + Duration::from_millis(900);
    let arp: BTreeSet<_> = std::iter::from_fn(|| next(&client, end))
        .filter_map(|frame| ArpFrame::parse(&frame).ok()?.claim())
        .map(|claim| claim.mac)
        .collect();
    assert_eq!(arp, [mac, pair.here.link().1].into(), "on both");
    let end = Instant::now() + Duration::from_millis(300);
    let ndp: BTreeSet<_> = std::iter::from_fn(|| next(&ndp, end))
        .filter_map(|frame| NdpFrame::parse(&frame).ok()?.claim())
        .map(|claim| claim.mac)
        .collect();
    assert_eq!(ndp, [mac, pair.here.link().1].into(), "also where the node has no IPv6 subnet");
}

/// Whoever claims an address of ours again and again fills one queue, and it is not the one of the answers.
#[test]
fn a_flood_of_claims_hides_no_answer() {
    let Some(pair) = pair() else { return };
    let speaker = Speaker::start(&pair.here);
    let client = arp_client(&pair, [OURS]);
    let (awaited, announced) = ([THERE.into()].into(), [OURS.into()].into());
    speaker.set(&Task { announced, awaited, ..Task::default() });
    let end = Instant::now() + PATIENCE;
    assert!(next(&client, end).is_some(), "it announces its address");
    let stranger = MacAddr(2, 0, 0, 0, 0, 0x99);
    let claim =
        Claim { address: OURS, mac: stranger }.announcement(ArpOperation::Request).to_bytes();
    let asker = Asker { mac: pair.here.link().1, address: Some("192.0.2.1".parse().unwrap()) };
    let answer = Question { address: THERE, asker }.answer(pair.there.link().1).to_bytes();
    for _ in 0..2 * QUEUE {
        client.send(&claim).unwrap();
    }
    client.send(&answer).unwrap();
    let heard = speaker.answers.recv_timeout(PATIENCE).unwrap();
    assert_eq!((heard.claim.address, heard.said), (THERE.into(), Said::Replied));
    let counted = || speaker.counts("ignored_total", "reason").get("sightings_overflow").copied();
    while Instant::now() < end && counted().unwrap_or_default() == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(counted() > Some(0), "nobody has read the others");
    assert_eq!(speaker.sightings.len(), QUEUE);
}

/// A pod may answer in a fellow's name on the bridge of pods.
#[test]
fn a_fellows_answers_are_heard_on_the_segment_of_its_address_only() {
    let Some(pair) = pair() else { return };
    let [pods] = Namespace::several().unwrap();
    pair.here.cable("cni0", &pods);
    pair.here.ip("address add 10.244.1.1/24 dev cni0");
    pair.here.ip("link set cni0 up");
    pods.ip("link set eth0 up");
    let index = |name: &str| {
        let line = pair.here.ip(&format!("-oneline link show {name}"));
        line.split(':').next().unwrap().parse::<u32>().unwrap()
    };
    let mac_of_pods = pair.here.ip("-oneline link show cni0");
    let mac_of_pods = mac_of_pods.split("link/ether ").nth(1).unwrap()[..17].parse().unwrap();
    let nowhere = Ipv4Addr::new(10, 99, 0, 1);
    let speaker = Speaker::start(&pair.here);
    let awaited = [OURS.into(), nowhere.into()].into();
    speaker.set(&Task { awaited, ..Task::default() });
    // A client that hears nothing sends as well as any other.
    let pod = pods.run(|| FrameSocket::open(pods.link().0, &ArpFilter::default())).unwrap();
    let fellow = arp_client(&pair, []);
    let reply = |address: Ipv4Addr, mac| {
        let asker = Asker { mac, address: Some("192.0.2.1".parse().unwrap()) };
        Question { address, asker }.answer(MacAddr(2, 0, 0, 0, 0, 0x99)).to_bytes()
    };
    let mut heard = BTreeSet::new();
    let end = Instant::now() + PATIENCE;
    let expected = [(index("eth0"), OURS), (index("eth0"), nowhere), (index("cni0"), nowhere)];
    while heard.len() < expected.len() && Instant::now() < end {
        for address in [OURS, nowhere] {
            pod.send(&reply(address, mac_of_pods)).unwrap();
            fellow.send(&reply(address, pair.here.link().1)).unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
        heard.extend(speaker.answers.try_iter().map(|it| (it.interface, it.claim.address)));
    }
    assert_eq!(heard, expected.map(|(index, address)| (index, IpAddr::V4(address))).into());
}

/// As on a VLAN where the node has no address of its own.
#[test]
fn an_interface_without_an_address_announces_and_answers_when_a_rule_names_it() {
    let Some(pair) = pair() else { return };
    let mac: MacAddr = "02:00:00:00:00:7a".parse().unwrap();
    pair.here.ip(&format!("link add link eth0 name lan.9 address {mac} type macvlan mode bridge"));
    pair.here.ip("link set lan.9 up");
    let speaker = Speaker::start(&pair.here);
    let elsewhere = [10, 9, 0, 240].into();
    let elsewhere_v6 = "2001:db8:9::240".parse().unwrap();
    let (client, ndp) = (arp_client(&pair, [elsewhere]), ndp_client(&pair, [elsewhere_v6]));
    let announced = [elsewhere.into(), elsewhere_v6.into()].into();
    let task = Task { announced, patterns: vec!["lan.*".into()], ..Task::default() };
    told!("named", client, elsewhere, mac, speaker.set(&task));
    let end = Instant::now() + PATIENCE;
    let mut claims = std::iter::from_fn(|| next(&ndp, end))
        .filter_map(|frame| NdpFrame::parse(&frame).ok()?.claim());
    assert_eq!(claims.next().map(|claim| claim.mac), Some(mac));
    let asker = Asker { mac: pair.there.link().1, address: Some(THERE) };
    client.send(&Question { address: elsewhere, asker }.broadcast().to_bytes()).unwrap();
    let end = Instant::now() + Duration::from_millis(900);
    let mut heard = std::iter::from_fn(|| next(&client, end));
    let is_answer = |frame: Vec<u8>| {
        ArpFrame::parse(&frame).is_ok_and(|it| it.destination == asker.mac && it.source == mac)
    };
    assert!(heard.any(is_answer));
}

#[test]
fn what_was_decided_too_long_ago_is_neither_told_nor_answered_but_told_later() {
    let Some(pair) = pair() else { return };
    let speaker = Speaker::start(&pair.here);
    let client = arp_client(&pair, [OURS]);
    let task = Task { announced: [OURS.into()].into(), stale: true, ..Task::default() };
    speaker.set(&task);
    let asker = Asker { mac: pair.there.link().1, address: Some(THERE) };
    let question = Question { address: OURS, asker }.broadcast().to_bytes();
    let end = Instant::now() + PATIENCE;
    while speaker.counts("ignored_total", "reason").get("stale_decision").is_none_or(|it| *it < 3) {
        assert!(Instant::now() < end, "{:?}", speaker.counts("ignored_total", "reason"));
        client.send(&question).unwrap();
        assert_eq!(next(&client, Instant::now() + Duration::from_millis(50)), None);
    }
    let mac = pair.here.link().1;
    told!("decided anew", client, OURS, mac, speaker.set(&Task { stale: false, ..task }));
}

#[test]
fn a_thousand_addresses_gained_at_once_are_told_at_once() {
    let Some(pair) = pair() else { return };
    pair.here.ip("address add 10.0.0.1/16 dev eth0");
    let speaker = Speaker::start(&pair.here);
    let many = (0..1000_u32).map(|it| std::net::Ipv4Addr::from(0x0a00_0100 + it));
    let client = arp_client(&pair, many.clone());
    // The address has to be seen first.
    std::thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    speaker.announce(many.map(IpAddr::V4));
    let mut told = BTreeSet::new();
    while told.len() < 1000 {
        let frame = next(&client, start + PATIENCE).expect("more addresses");
        told.insert(ArpFrame::parse(&frame).unwrap().sender_protocol);
    }
    let took = start.elapsed();
    println!("1,000 addresses: all told within {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

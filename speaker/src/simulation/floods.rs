//! What a neighbour can make speakers do, by frames that it makes up, is bounded.

use std::net::Ipv4Addr;

use arpeggio_wire::{ArpOperation, Asker, Claim, MacAddr, Question};

use super::{
    cluster::{Cluster, Host, ip, millis, secs, v4},
    random::Random,
};

const ADDRESSES: u8 = 4;

/// What a flood may cost all speakers together, each second of it, beyond what they do at rest.
struct Bounds {
    frames: usize,
    writes: usize,
    news: usize,
    lines: usize,
}

fn cluster(machines: usize) -> Cluster {
    let addresses: Vec<_> = (0..ADDRESSES).map(|last| ip(0, 100 + last)).collect();
    Cluster::settled(machines, &addresses)
}

/// What speakers do at rest.
fn at_rest(machines: usize, seconds: u64) -> (usize, usize) {
    let mut cluster = cluster(machines);
    cluster.run(secs(seconds));
    (cluster.frames_sent.values().sum(), cluster.orders.len())
}

/// Floods a cluster with frames, one or more in each millisecond, and looks at what has come of it.
fn flood(
    machines: usize,
    seed: u64,
    bounds: &Bounds,
    frames: impl Fn(&mut Random) -> Vec<Vec<u8>>,
) {
    const SECONDS: u64 = 10;
    let (frames_at_rest, writes_at_rest) = at_rest(machines, SECONDS);
    let (mut cluster, mut random) = (cluster(machines), Random(seed));
    for _ in 0..SECONDS * 1000 {
        frames(&mut random).iter().for_each(|frame| cluster.forge(0, frame));
        cluster.run(millis(1));
    }
    let seconds = usize::try_from(SECONDS).unwrap();
    let sent: usize = cluster.frames_sent.values().sum();
    let (writes, news) = (cluster.orders.len(), cluster.news());
    let lines = cluster.log().lines().count();
    let what = format!("{machines} machines, seed {seed}");
    assert!(cluster.charges().is_empty(), "{what}: {:?}", cluster.charges());
    assert_eq!(cluster.longest_dark, millis(0), "{what}: {cluster:?}");
    assert!(
        sent <= frames_at_rest + bounds.frames * seconds,
        "{what}: {sent} frames, at rest {frames_at_rest}"
    );
    assert!(
        writes <= writes_at_rest + bounds.writes * seconds,
        "{what}: {writes} writes, at rest {writes_at_rest}"
    );
    assert!(news.len() <= bounds.news, "{what}: {news:#?}");
    assert!(lines <= bounds.lines, "{what}: {lines} lines: {}", cluster.log());
    cluster.run(secs(15));
    for last in 0..ADDRESSES {
        assert!(cluster.owner(ip(0, 100 + last)).is_some(), "{what}: {cluster:?}");
    }
}

fn address(random: &mut Random) -> Ipv4Addr {
    [192, 168, 0, 100 + u8::try_from(random.below(ADDRESSES.into())).unwrap()].into()
}

/// Says unasked, or as if asked, that one of the addresses is at `mac`.
fn claim(random: &mut Random, mac: MacAddr) -> Vec<u8> {
    let claim = Claim { address: address(random), mac };
    let operation = if random.below(2) == 0 { ArpOperation::Request } else { ArpOperation::Reply };
    claim.announcement(operation).to_bytes().to_vec()
}

fn node_mac(random: &mut Random, machines: usize) -> MacAddr {
    MacAddr(2, 0, 0, 1, 0, 11 + u8::try_from(random.index(machines)).unwrap())
}

#[test]
fn claims_of_invented_strangers_cost_little() {
    let bounds = Bounds { frames: 4, writes: 1, news: 24, lines: 60 };
    for machines in [2, 4] {
        flood(machines, 1, &bounds, |random| {
            let octets = [0; 3].map(|_| u8::try_from(random.below(256)).unwrap());
            vec![claim(random, MacAddr(6, 0, 0, octets[0], octets[1], octets[2]))]
        });
    }
}

#[test]
fn claims_in_the_name_of_the_machines_themselves_cost_little() {
    let bounds = Bounds { frames: 8, writes: 4, news: 24, lines: 60 };
    for machines in [2, 4] {
        flood(machines, 2, &bounds, |random| {
            let mac = node_mac(random, machines);
            vec![claim(random, mac)]
        });
    }
}

/// Who looks for the cause of answers that change is told which node it is, once.
#[test]
fn a_node_that_goes_on_claiming_what_another_one_holds_is_named_once() {
    let mut cluster = cluster(3);
    let owner = cluster.owner(ip(0, 100)).unwrap();
    let other = (owner + 1) % 3;
    let mac = cluster.machines[other].cards[0].mac;
    for _ in 0..40 {
        let claim = Claim { address: v4(ip(0, 100)), mac };
        cluster.forge(0, &claim.announcement(ArpOperation::Request).to_bytes());
        cluster.run(millis(500));
    }
    let (news, by) =
        (cluster.news(), format!("Node node-{other} answers for 192.168.0.100 as well"));
    let [told] = &news[..] else { panic!("{news:#?}") };
    assert!(told.starts_with(&by) && told.contains("strictARP"), "{told}");
    assert_eq!(cluster.owner(ip(0, 100)), Some(owner), "{cluster:?}");
    assert_eq!(cluster.longest_dark, millis(0), "{cluster:?}");
}

#[test]
fn answers_in_the_name_of_the_machines_hide_nothing() {
    let bounds = Bounds { frames: 8, writes: 4, news: 24, lines: 60 };
    let machines = 3;
    flood(machines, 3, &bounds, |random| {
        // The node's own address, at a MAC address that is nobody's.
        let last = 11 + u8::try_from(random.index(machines)).unwrap();
        let to = node_mac(random, machines);
        let octet = u8::try_from(random.below(256)).unwrap();
        let asker = Asker { mac: to, address: Some([192, 168, 0, to.5].into()) };
        let question = Question::<Ipv4Addr> { address: [192, 168, 0, last].into(), asker };
        vec![question.answer(MacAddr(6, 0, 0, 0, 0, octet)).to_bytes().to_vec()]
    });
}

/// Every new address is put aside, which its Service is told by a condition. Events and lines of the log are fewer.
#[test]
fn who_answers_every_question_costs_a_write_for_each_new_address_and_little_else() {
    let new: Vec<_> = (100..250).map(|last| ip(0, last)).collect();
    let mut cluster = Cluster::settled(3, &[ip(0, 99)]);
    let mac = MacAddr(6, 0, 0, 0, 0, 1);
    cluster.hosts.push(Host { segment: 0, mac, addresses: new.clone() });
    new.iter().for_each(|address| cluster.claim(*address));
    cluster.run(secs(60));
    let quarantines = cluster.quarantines();
    assert!((new.len()..=new.len() + 10).contains(&quarantines), "{quarantines}");
    let (news, lines) = (cluster.news().len(), cluster.log().lines().count());
    assert!(news <= 3 * 30, "{news}");
    assert!(lines <= 3 * 30 + 10, "{lines}: {}", cluster.log());
    assert!(cluster.owner(ip(0, 99)).is_some(), "{cluster:?}");
}

#[test]
fn questions_cost_an_answer_each_and_nothing_else() {
    let bounds = Bounds { frames: 2100, writes: 1, news: 0, lines: 0 };
    flood(3, 4, &bounds, |random| {
        let question = |address| {
            let asker =
                Asker { mac: MacAddr(6, 0, 0, 0, 0, 1), address: Some([192, 168, 0, 77].into()) };
            Question { address, asker }.broadcast().to_bytes().to_vec()
        };
        vec![question(address(random)), question(address(random))]
    });
}

//! Has all nodes look at the segment at once: `arpeggio survey` in the speakers' pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use arpeggio_doctor::{
    Facts, Known,
    facts::{Asking, Lock, Pool, Service, Session, Unasked},
    survey::{Questions, Survey, Wanted},
};
use arpeggio_ipam::AddressRange;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use tokio::sync::Barrier;

use super::kubernetes::within;
use crate::in_pod::InPod;

/// How long a pod may take to start a program.
const START: Duration = Duration::from_secs(6);
/// How long those that are ready wait for the others.
const TOGETHER: Duration = Duration::from_secs(6);
/// How long a survey may take.
const PATIENCE: Duration = Duration::from_secs(9);
/// A node asks for so many other nodes' addresses at most: those that follow it by name.
const PEERS: usize = 16;
/// A node asks for so many announced addresses at most.
const ANNOUNCED: usize = 64;
/// So many free addresses of each range are asked for, by one node.
const FREE: usize = 16;
/// So many ports are tried from one node.
pub(super) const PORTS: usize = 48;
/// DHCP servers are asked for so many addresses by one node: they look whether each is in use before they offer it, one after the
/// other.
const LEASES: usize = 3;

/// What each of these nodes is to find out; the pods are those of its speakers. Where switches may close a port that sends many
/// ARP frames, nobody asks the segment.
pub(super) fn questions(
    facts: &Facts,
    nodes: &[String],
    with_leases: bool,
) -> (BTreeMap<String, Questions>, Vec<Unasked>) {
    let sessions = facts.sessions.as_deref().unwrap_or_default();
    let locks = facts.locks.as_deref().unwrap_or_default();
    let mut questions: BTreeMap<String, Questions> = BTreeMap::new();
    let mut unasked = Vec::new();
    for node in nodes {
        let Some(own) = sessions.iter().find(|it| it.node == *node) else {
            questions.insert(node.clone(), Questions::default());
            continue;
        };
        let peers = at_most(PEERS, peers(own, sessions), Asking::Nodes, node, &mut unasked);
        let announced = announced(own, locks, sessions);
        let announced = at_most(ANNOUNCED, announced, Asking::Announced, node, &mut unasked);
        let peers = peers.into_iter().flatten();
        let ask = peers.chain(announced).chain(routers(own));
        questions.insert(node.clone(), Questions { ask: ask.collect(), ..Questions::default() });
    }
    free(facts, &mut questions, &mut unasked);
    if facts.is_sparse() {
        questions.values_mut().for_each(|it| it.ask.clear());
        unasked.clear();
    }
    if with_leases {
        leases(facts, &mut questions, &mut unasked);
    }
    connects(facts, nodes, &mut questions, &mut unasked);
    (questions, unasked)
}

/// The first ones of them; where there are more, that is taken note of.
pub(super) fn at_most<T>(
    limit: usize,
    mut all: Vec<T>,
    what: Asking,
    at: &str,
    unasked: &mut Vec<Unasked>,
) -> Vec<T> {
    let of = all.len();
    all.truncate(limit);
    if all.len() < of {
        unasked.push(Unasked { what, at: at.to_owned(), asked: limit, of: number(of) });
    }
    all
}

fn number(count: usize) -> u128 {
    u128::try_from(count).unwrap_or(u128::MAX)
}

/// Whether an address is in one of the node's subnets, so that it is found without a router.
fn is_neighbour(own: &Session, address: IpAddr) -> bool {
    own.subnets.iter().any(|net| net.prefix_len() < net.max_prefix_len() && net.contains(&address))
}

/// Of each other node that shares a subnet with this one what it is asked for by.
fn peers(own: &Session, sessions: &[Session]) -> Vec<Vec<Wanted>> {
    let later = sessions.iter().filter(|it| it.node > own.node);
    let earlier = sessions.iter().filter(|it| it.node < own.node);
    let of = |it: &Session| {
        let near = it.links.iter().filter(|(address, _)| is_neighbour(own, *address));
        near.map(|(address, mac)| wanted(*address, Some(mac))).collect::<Vec<_>>()
    };
    let all = later.chain(earlier).filter(|it| it.is_live()).map(of);
    all.filter(|it| !it.is_empty()).collect()
}

fn announced(own: &Session, locks: &[Lock], sessions: &[Session]) -> Vec<Wanted> {
    let in_use = locks.iter().filter(|it| it.holder.is_some() && is_neighbour(own, it.address));
    let of = |lock: &Lock| {
        let holder = sessions.iter().find(|it| Some(&it.node) == lock.holder.as_ref())?;
        // Its own address in the subnet tells on which interface it announces.
        let on = |(address, _): &&(IpAddr, String)| {
            own.subnets.iter().any(|net| net.contains(address) && net.contains(&lock.address))
        };
        let mac = (holder.node != own.node).then(|| holder.links.iter().find(on)).flatten();
        Some(wanted(lock.address, mac.map(|(_, mac)| mac)))
    };
    in_use.filter_map(of).collect()
}

fn routers(own: &Session) -> Vec<Wanted> {
    let wanted = |(interface, address): &(String, IpAddr)| Wanted {
        address: *address,
        mac: None,
        interface: Some(interface.clone()),
    };
    own.gateways.iter().map(wanted).collect()
}

fn wanted(address: IpAddr, mac: Option<&String>) -> Wanted {
    Wanted { address, mac: mac.cloned(), interface: None }
}

/// The ranges of pools on the nodes' segments, with the node that is asked about each.
fn near<'a>(
    facts: &'a Facts,
    questions: &BTreeMap<String, Questions>,
) -> Vec<(&'a Pool, &'a AddressRange, &'a str)> {
    let sessions = facts.sessions.as_deref().unwrap_or_default();
    let pools = facts.pools.as_deref().unwrap_or_default().iter().filter(|it| !it.routed);
    let asker = |range: &AddressRange| {
        let near =
            |it: &&Session| is_neighbour(it, range.first()) && questions.contains_key(&it.node);
        sessions.iter().find(near).map(|it| it.node.as_str())
    };
    let ranges = pools.flat_map(|pool| pool.ranges.iter().map(move |it| (pool, it)));
    ranges.filter_map(|(pool, it)| Some((pool, it, asker(it)?))).collect()
}

/// The addresses that are announced, and the nodes' own.
fn taken(facts: &Facts) -> BTreeSet<IpAddr> {
    let taken = facts.locks.as_deref().unwrap_or_default().iter().map(|it| it.address);
    let nodes =
        facts.nodes.as_deref().unwrap_or_default().iter().flat_map(|it| it.addresses.clone());
    taken.chain(nodes).collect()
}

/// Some addresses that nobody should have: one node asks for those of each range.
fn free(facts: &Facts, questions: &mut BTreeMap<String, Questions>, unasked: &mut Vec<Unasked>) {
    let taken = taken(facts);
    for (pool, range, asker) in near(facts, questions) {
        let mut free = addresses(range).filter(|it| pool.has(*it) && !taken.contains(it));
        let ask: Vec<Wanted> = free.by_ref().take(FREE).map(|it| wanted(it, None)).collect();
        let gone = taken.iter().filter(|it| range.contains(**it)).count();
        let of = range.size().saturating_sub(number(gone));
        if free.next().is_some() {
            let at = range.to_string();
            unasked.push(Unasked { what: Asking::Free, at, asked: ask.len(), of });
        }
        questions.entry(asker.to_owned()).or_default().ask.extend(ask);
    }
}

/// Of each range the first and the last address that nobody has: if a DHCP server has some of the range, it has one of these as
/// a rule.
fn leases(facts: &Facts, questions: &mut BTreeMap<String, Questions>, unasked: &mut Vec<Unasked>) {
    let taken = taken(facts);
    for (pool, range, asker) in near(facts, questions) {
        let is_free = |it: &IpAddr| pool.has(*it) && !taken.contains(it);
        let ends = [addresses(range).find(is_free), back(range).find(is_free)];
        let ends = ends.into_iter().flatten().filter_map(|it| match it {
            IpAddr::V4(end) => Some(end),
            IpAddr::V6(_) => None,
        });
        let asked = &mut questions.entry(asker.to_owned()).or_default().lease;
        let ends: BTreeSet<Ipv4Addr> = ends.filter(|it| !asked.contains(it)).collect();
        let room = LEASES.saturating_sub(asked.len());
        let ends = ends.into_iter().collect();
        asked.extend(at_most(room, ends, Asking::Leases, &range.to_string(), unasked));
    }
}

/// The addresses of a range, from its first one on.
fn addresses(range: &AddressRange) -> impl Iterator<Item = IpAddr> + '_ {
    steps(range, range.first(), u32::checked_add, u128::checked_add)
}

/// The same from its last one back.
fn back(range: &AddressRange) -> impl Iterator<Item = IpAddr> + '_ {
    steps(range, range.last(), u32::checked_sub, u128::checked_sub)
}

fn steps(
    range: &AddressRange,
    begin: IpAddr,
    ipv4: fn(u32, u32) -> Option<u32>,
    ipv6: fn(u128, u128) -> Option<u128>,
) -> impl Iterator<Item = IpAddr> + '_ {
    let next = move |address: &IpAddr| match address {
        IpAddr::V4(address) => ipv4(address.to_bits(), 1).map(|it| IpAddr::V4(it.into())),
        IpAddr::V6(address) => ipv6(address.to_bits(), 1).map(|it| IpAddr::V6(it.into())),
    };
    std::iter::successors(Some(begin), next).take_while(|it| range.contains(*it))
}

/// Each port is tried from the node that announces the address and from another one, where they are let in.
fn connects(
    facts: &Facts,
    nodes: &[String],
    questions: &mut BTreeMap<String, Questions>,
    unasked: &mut Vec<Unasked>,
) {
    type Asked = fn(&mut Questions) -> &mut Vec<SocketAddr>;
    type Ports = fn(&Service) -> &Vec<u16>;
    let ways: [(Ports, Asked); 2] =
        [(|it| &it.tcp, |it| &mut it.connect), (|it| &it.udp, |it| &mut it.knock)];
    for (ports, asked) in ways {
        for (service, place) in announced_places(facts, ports) {
            for node in askers(facts, nodes, service, place.ip()) {
                if let Some(asked) = questions.get_mut(node).map(asked) {
                    asked.push(place);
                }
            }
        }
        for (node, questions) in questions.iter_mut() {
            let asked = asked(questions);
            let all = std::mem::take(asked);
            *asked = at_most(PORTS, all, Asking::Ports, node, unasked);
        }
    }
}

/// The node that announces the address and another one, of those that the Service lets in.
fn askers<'a>(
    facts: &'a Facts,
    nodes: &'a [String],
    service: &Service,
    address: IpAddr,
) -> Vec<&'a String> {
    let sessions = facts.sessions.as_deref().unwrap_or_default();
    let own = |node: &str| {
        let session = sessions.iter().find(|it| it.node == node);
        session.into_iter().flat_map(|it| &it.links).map(|(address, _)| *address)
    };
    let holder = holder(facts, address);
    let let_in = nodes.iter().filter(|it| service.lets_in(own(it), address));
    let (its, others): (Vec<&String>, Vec<&String>) =
        let_in.partition(|it| Some(it.as_str()) == holder);
    its.into_iter().chain(others.into_iter().take(1)).collect()
}

fn holder(facts: &Facts, address: IpAddr) -> Option<&str> {
    let locks = facts.locks.as_deref().unwrap_or_default();
    locks.iter().find(|it| it.address == address)?.holder.as_deref()
}

/// The Services that somebody announces and that have ready pods, with each address and port.
pub(super) fn announced_places(
    facts: &Facts,
    ports: impl Fn(&Service) -> &Vec<u16>,
) -> Vec<(&Service, SocketAddr)> {
    let services = facts.services.as_deref().unwrap_or_default();
    let mut places = Vec::new();
    for service in services.iter().filter(|it| it.is_ours() && it.has_endpoints) {
        let announced = service.addresses.iter().filter(|it| holder(facts, **it).is_some());
        for ip in announced {
            let of = |port: &u16| (service, SocketAddr::new(*ip, *port));
            places.extend(ports(service).iter().map(of));
        }
    }
    places
}

/// Asks all of them, so that they ask the segment at the same time. `speakers`: nodes and pods.
pub(super) async fn ask(
    client: &Client,
    namespace: &str,
    speakers: &[(String, String)],
    questions: &BTreeMap<String, Questions>,
) -> BTreeMap<String, Known<Survey>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let together = Barrier::new(speakers.len());
    let surveys = speakers.iter().map(|(node, pod)| {
        let (pods, together) = (&pods, &together);
        let questions = questions.get(node).cloned().unwrap_or_default();
        async move { (node.clone(), surveyed(pods, pod, &questions, together).await) }
    });
    join_all(surveys).await.into_iter().collect()
}

async fn surveyed(
    pods: &Api<Pod>,
    pod: &str,
    questions: &Questions,
    together: &Barrier,
) -> Known<Survey> {
    let questions = serde_json::to_string(questions).map_err(|error| error.to_string())?;
    let args = ["survey", &questions];
    let started = within(START, InPod::start(pods, pod, &args)).await.and_then(|it| it);
    // Also who could not start comes here, so that nobody waits for it.
    let _ = within(TOGETHER, together.wait()).await;
    within(PATIENCE, finish(started?)).await?
}

async fn finish(mut survey: InPod) -> Known<Survey> {
    survey.go_on().await?;
    let line = survey.answer().await?;
    serde_json::from_str(&line).map_err(|error| format!("its answer is not understood: {error}"))
}

#[cfg(test)]
mod tests {
    use arpeggio_doctor::Stage;

    use super::*;
    use crate::doctor::nothing_known;

    fn session(number: u8) -> Session {
        let address: IpAddr = [192, 168, 0, number].into();
        Session {
            node: format!("node-{number}"),
            links: vec![(address, format!("02:00:00:00:00:{number:02x}"))],
            subnets: vec![format!("{address}/24").parse().unwrap()],
            gateways: vec![("eth0".into(), [192, 168, 0, 254].into())],
            ..Session::default()
        }
    }

    #[test]
    fn each_node_asks_for_the_others() {
        let sessions: Vec<Session> = (1..=3).map(session).collect();
        let asked = |own: &Session| {
            let peers = peers(own, &sessions).into_iter().flatten();
            peers.map(|it| it.address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(asked(&sessions[1]), ["192.168.0.3", "192.168.0.1"]);
    }

    /// Each node announces an address, and there are so many of them, with a Service of as many ports and a pool for more.
    fn many(number: u8) -> Facts {
        let address = |last: u8| IpAddr::from([192, 168, 0, 100 + last]);
        let mut facts = facts(Service {
            addresses: vec![address(1)],
            tcp: (1..=number).map(u16::from).collect(),
            has_endpoints: true,
            ..Service::default()
        });
        facts.sessions = Ok((1..=number).map(session).collect());
        let lock = facts.locks.as_ref().unwrap()[0].clone();
        let lock =
            |it| Lock { address: address(it), holder: Some(format!("node-{it}")), ..lock.clone() };
        facts.locks = Ok((1..=number).map(lock).collect());
        facts
    }

    #[test]
    fn what_is_too_much_for_one_look_is_taken_note_of() {
        let asked = |number: u8| {
            let facts = many(number);
            let nodes: Vec<String> = (1..=number).map(|it| format!("node-{it}")).collect();
            let (questions, unasked) = questions(&facts, &nodes, true);
            let of = |what: Asking| {
                let first = unasked.iter().find(|it| it.what == what && it.at != "node-2")?;
                Some((first.at.clone(), first.asked, first.of))
            };
            let node_1 = questions["node-1"].clone();
            ([Asking::Nodes, Asking::Announced, Asking::Ports].map(of), node_1)
        };
        assert_eq!(asked(16).0, [None, None, None]);
        let (unasked, node_1) = asked(70);
        let of = |asked, of| Some(("node-1".to_owned(), asked, of));
        assert_eq!(unasked, [of(PEERS, 69), of(ANNOUNCED, 70), of(PORTS, 70)]);
        assert_eq!(node_1.ask.len(), PEERS + ANNOUNCED + 1 + 11, "a router, and what is free");
        assert_eq!(node_1.connect.len(), PORTS);
    }

    #[test]
    fn what_is_left_out_of_ranges_is_taken_note_of() {
        let mut facts = facts(Service::default());
        let range = |it: &str| it.parse().unwrap();
        facts.pools.as_mut().unwrap()[0].ranges =
            vec![range("192.168.0.240-192.168.0.250"), range("192.168.0.100-192.168.0.199")];
        let (_, unasked) = questions(&facts, &["node-1".to_owned()], true);
        let left = |what, asked, of| Unasked {
            what,
            at: "192.168.0.100-192.168.0.199".to_owned(),
            asked,
            of,
        };
        assert_eq!(unasked, [left(Asking::Free, FREE, 100), left(Asking::Leases, 1, 2)]);
    }

    #[test]
    fn where_a_port_may_be_closed_for_its_arp_frames_nobody_asks() {
        let nodes: Vec<String> = (1..=3).map(|it| format!("node-{it}")).collect();
        let asked = |profile: &str| {
            let mut facts = facts(Service {
                addresses: vec![[192, 168, 0, 240].into()],
                tcp: vec![80],
                has_endpoints: true,
                ..Service::default()
            });
            let paths = [("node-1".to_owned(), profile.to_owned())].into();
            facts.sessions.as_mut().unwrap()[1].paths = paths;
            let (asked, _) = questions(&facts, &nodes, false);
            let frames: usize = asked.values().map(|it| it.ask.len()).sum();
            (frames > 0, asked["node-1"].connect.len())
        };
        assert_eq!(asked("standard (new)"), (true, 1));
        assert_eq!(asked("sparse (fixed)"), (false, 1), "what makes no such burst is done");
    }

    #[test]
    fn nobody_is_asked_for_on_another_network() {
        let mut far = session(9);
        far.links = vec![([10, 0, 0, 9].into(), "02:00:00:00:00:09".into())];
        assert!(peers(&session(1), &[far]).is_empty());
    }

    #[test]
    fn ranges_are_walked_to_their_end() {
        let range: AddressRange = "255.255.255.254-255.255.255.255".parse().unwrap();
        assert_eq!((addresses(&range).count(), back(&range).count()), (2, 2));
    }

    /// node-1 announces 192.168.0.240, and there are three nodes.
    fn facts(service: Service) -> Facts {
        let pool = Pool {
            ranges: vec!["192.168.0.240-192.168.0.250".parse().unwrap()],
            ..Pool::default()
        };
        let lock = Lock {
            address: [192, 168, 0, 240].into(),
            holder: Some("node-1".to_owned()),
            former: None,
            stranger: None,
            unannounced: false,
            rests: false,
            spread: false,
            services: vec![],
            pool: String::new(),
        };
        Facts {
            sessions: Ok((1..=3).map(session).collect()),
            locks: Ok(vec![lock]),
            pools: Ok(vec![pool]),
            services: Ok(vec![service]),
            ..nothing_known(Stage::Installed, "arpeggio-system")
        }
    }

    #[test]
    fn one_node_asks_dhcp_servers_for_both_ends_of_what_is_free() {
        let nodes: Vec<String> = (1..=3).map(|it| format!("node-{it}")).collect();
        let facts = facts(Service::default());
        let (asked, _) = questions(&facts, &nodes, true);
        let leases = |node: &str| asked[node].lease.iter().map(ToString::to_string);
        assert_eq!(leases("node-1").collect::<Vec<_>>(), ["192.168.0.241", "192.168.0.250"]);
        assert_eq!((leases("node-2").count(), leases("node-3").count()), (0, 0));
        let (asked, _) = questions(&facts, &nodes, false);
        assert!(asked["node-1"].lease.is_empty());
        let mut facts = facts;
        let pool = &mut facts.pools.as_mut().unwrap()[0];
        pool.ranges = vec!["192.168.0.252-192.168.1.0".parse().unwrap()];
        pool.avoid_buggy_ips = true;
        let (asked, unasked) = questions(&facts, &nodes, true);
        let ends = asked["node-1"].lease.iter().map(ToString::to_string);
        assert_eq!(ends.collect::<Vec<_>>(), ["192.168.0.252", "192.168.0.254"]);
        assert_eq!(unasked, [], "it never gives out the others");
    }

    #[test]
    fn ports_are_tried_by_those_who_are_let_in() {
        let nodes: Vec<String> = (1..=3).map(|it| format!("node-{it}")).collect();
        let asks = |ranges: &[&str]| {
            let lets_in = ranges.iter().map(|it| it.parse().unwrap()).collect();
            let facts = facts(Service {
                addresses: vec![[192, 168, 0, 240].into()],
                tcp: vec![80],
                udp: vec![53],
                has_endpoints: true,
                lets_in: Some(lets_in),
                ..Service::default()
            });
            let (asked, _) = questions(&facts, &nodes, false);
            let asks = nodes.iter().map(|it| (asked[it].connect.len(), asked[it].knock.len()));
            asks.collect::<Vec<_>>()
        };
        assert_eq!(asks(&["0.0.0.0/0"]), [(1, 1), (1, 1), (0, 0)]);
        assert_eq!(asks(&["192.168.0.2/31"]), [(0, 0), (1, 1), (0, 0)]);
        assert_eq!(asks(&["10.0.0.0/8"]), [(0, 0), (0, 0), (0, 0)]);
    }
}

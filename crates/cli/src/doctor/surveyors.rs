//! Has all nodes look at the segment at once: `arpeggio survey` in the speakers' pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use arpeggio_doctor::{
    Facts, Known,
    facts::{Lock, Service, Session},
    survey::{Questions, Survey, Wanted},
};
use arpeggio_ipam::AddressRange;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{AttachParams, AttachedProcess},
};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    sync::Barrier,
};

use super::kubernetes::within;
use crate::survey::READY;

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
const PORTS: usize = 48;

/// What each of these nodes is to find out; the pods are those of its speakers.
pub(super) fn questions(facts: &Facts, nodes: &[String]) -> BTreeMap<String, Questions> {
    let sessions = facts.sessions.as_deref().unwrap_or_default();
    let locks = facts.locks.as_deref().unwrap_or_default();
    let mut questions: BTreeMap<String, Questions> = BTreeMap::new();
    for node in nodes {
        let Some(own) = sessions.iter().find(|it| it.node == *node) else {
            questions.insert(node.clone(), Questions::default());
            continue;
        };
        let ask = peers(own, sessions)
            .into_iter()
            .chain(announced(own, locks, sessions))
            .chain(routers(own));
        questions.insert(node.clone(), Questions { ask: ask.collect(), connect: Vec::new() });
    }
    free(facts, &mut questions);
    connects(facts, nodes, &mut questions);
    questions
}

/// Whether an address is in one of the node's subnets, so that it is found without a router.
fn is_neighbour(own: &Session, address: IpAddr) -> bool {
    own.subnets.iter().any(|net| net.prefix_len() < net.max_prefix_len() && net.contains(&address))
}

fn peers(own: &Session, sessions: &[Session]) -> Vec<Wanted> {
    let later = sessions.iter().filter(|it| it.node > own.node);
    let earlier = sessions.iter().filter(|it| it.node < own.node);
    let links = later.chain(earlier).filter(|it| it.is_live()).take(PEERS).flat_map(|it| &it.links);
    let near = links.filter(|(address, _)| is_neighbour(own, *address));
    near.map(|(address, mac)| wanted(*address, Some(mac))).collect()
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
    in_use.filter_map(of).take(ANNOUNCED).collect()
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

/// Some addresses that nobody should have: one node asks for those of each range.
fn free(facts: &Facts, questions: &mut BTreeMap<String, Questions>) {
    let sessions = facts.sessions.as_deref().unwrap_or_default();
    let taken = facts.locks.as_deref().unwrap_or_default().iter().map(|it| it.address);
    let nodes =
        facts.nodes.as_deref().unwrap_or_default().iter().flat_map(|it| it.addresses.clone());
    let taken: BTreeSet<IpAddr> = taken.chain(nodes).collect();
    let pools = facts.pools.as_deref().unwrap_or_default().iter().filter(|it| !it.routed);
    for range in pools.flat_map(|it| &it.ranges) {
        let near =
            |it: &&Session| is_neighbour(it, range.first()) && questions.contains_key(&it.node);
        let Some(asker) = sessions.iter().find(near) else { continue };
        let free = addresses(range).filter(|it| !taken.contains(it)).take(FREE);
        let ask: Vec<Wanted> = free.map(|it| wanted(it, None)).collect();
        questions.entry(asker.node.clone()).or_default().ask.extend(ask);
    }
}

/// The first addresses of a range.
fn addresses(range: &AddressRange) -> impl Iterator<Item = IpAddr> + '_ {
    let next = |address: &IpAddr| match address {
        IpAddr::V4(address) => u32::from(*address).checked_add(1).map(|it| IpAddr::V4(it.into())),
        IpAddr::V6(address) => u128::from(*address).checked_add(1).map(|it| IpAddr::V6(it.into())),
    };
    std::iter::successors(Some(range.first()), next).take_while(|it| range.contains(*it))
}

/// Each port is tried from the node that announces the address and from another one.
fn connects(facts: &Facts, nodes: &[String], questions: &mut BTreeMap<String, Questions>) {
    let locks = facts.locks.as_deref().unwrap_or_default();
    let services = facts.services.as_deref().unwrap_or_default();
    let ours = services.iter().filter(|it| it.is_ours() && it.has_endpoints && !it.restricted);
    for service in ours {
        for place in places(service) {
            let lock = locks.iter().find(|it| it.address == place.ip());
            let Some(holder) = lock.and_then(|it| it.holder.as_ref()) else { continue };
            let other = nodes.iter().find(|it| *it != holder);
            for node in [Some(holder), other].into_iter().flatten() {
                if let Some(questions) = questions.get_mut(node)
                    && questions.connect.len() < PORTS
                {
                    questions.connect.push(place);
                }
            }
        }
    }
}

fn places(service: &Service) -> impl Iterator<Item = SocketAddr> + '_ {
    let of = |ip: IpAddr| service.tcp.iter().map(move |port| SocketAddr::new(ip, *port));
    service.addresses.iter().copied().flat_map(of)
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
    let started = within(START, start(pods, pod, questions)).await.and_then(|it| it);
    // Also who could not start comes here, so that nobody waits for it.
    let _ = within(TOGETHER, together.wait()).await;
    let (mut process, mut lines) = started?;
    within(PATIENCE, finish(&mut process, &mut lines)).await?
}

type Lines = Box<dyn AsyncBufRead + Send + Unpin>;

/// Starts a survey, and waits until it listens.
async fn start(
    pods: &Api<Pod>,
    pod: &str,
    questions: &Questions,
) -> Known<(AttachedProcess, Lines)> {
    let text = serde_json::to_string(questions).map_err(|error| error.to_string())?;
    let command = ["/arpeggio", "survey", &text];
    let streams =
        AttachParams::default().container("speaker").stdin(true).stdout(true).stderr(true);
    let mut process = pods.exec(pod, command, &streams).await.map_err(|error| refused(&error))?;
    let out = process.stdout().ok_or("no output")?;
    let mut lines: Lines = Box::new(BufReader::new(out));
    if next(&mut lines).await?.trim() == READY {
        return Ok((process, lines));
    }
    Err(complaint(&mut process).await)
}

async fn finish(process: &mut AttachedProcess, lines: &mut Lines) -> Known<Survey> {
    let mut input = process.stdin().ok_or("no input")?;
    input.write_all(b"go\n").await.map_err(|error| error.to_string())?;
    let line = next(lines).await?;
    if line.is_empty() {
        return Err(complaint(process).await);
    }
    serde_json::from_str(&line).map_err(|error| format!("its answer is not understood: {error}"))
}

async fn next(lines: &mut Lines) -> Known<String> {
    let mut line = String::new();
    lines.read_line(&mut line).await.map_err(|error| error.to_string())?;
    Ok(line)
}

/// What a survey that failed has written.
async fn complaint(process: &mut AttachedProcess) -> String {
    let Some(errors) = process.stderr() else { return "it said nothing".to_owned() };
    let mut lines: Lines = Box::new(BufReader::new(errors));
    let mut said = String::new();
    while let Ok(line) = next(&mut lines).await
        && !line.is_empty()
    {
        said.push_str(&line);
    }
    format!("its speaker's pod could not look: {}", said.trim())
}

fn refused(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            "you need the permission to \"create\" and \"get\" pods/exec in Arpeggio's namespace"
                .to_owned()
        }
        error => format!("no program could be started in its speaker's pod: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            peers(own, &sessions).iter().map(|it| it.address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(asked(&sessions[1]), ["192.168.0.3", "192.168.0.1"]);
        let many: Vec<Session> = (1..=40).map(session).collect();
        assert_eq!(peers(&many[0], &many).len(), PEERS);
    }

    #[test]
    fn nobody_is_asked_for_on_another_network() {
        let mut far = session(9);
        far.links = vec![([10, 0, 0, 9].into(), "02:00:00:00:00:09".into())];
        assert_eq!(peers(&session(1), &[far]), []);
    }

    #[test]
    fn ranges_are_walked_to_their_end() {
        let range: AddressRange = "255.255.255.254-255.255.255.255".parse().unwrap();
        assert_eq!(addresses(&range).count(), 2);
    }
}

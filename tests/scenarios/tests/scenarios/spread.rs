//! One address that all nodes serve: `docs/spread.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    ops::RangeInclusive,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Machine, web::NGINX_IMAGE};
use arpeggio_scenarios::{
    Home, POOL, STREAMS, StreamsSeen, connect_from, eprint_line, first_address, install_overlay,
    service,
};
use serde_json::{Value, json};

use crate::{
    connections::{LATEST, NAMESPACE, RESET_WITHIN, every_node_is_able, through, through_from},
    setups::with_image,
};

/// Nginx says which pod it is, and whom it sees.
const WEB: &str = include_str!("../../../../docs/setups/client-addresses/web.yaml");

/// Ports from which a client begins connections twice, one for each of the streams. No other one gets them.
const USED_AGAIN: RangeInclusive<u16> = 900..=999;

/// So many that a third is met within 15 % by all but one of thousands of runs.
const CONNECTIONS: usize = 1200;

/// What the announcing node served is a third of the connections, give or take: of 100, more than this are met once in thousands of runs.
const ITS_OWN: usize = 50;

pub(crate) fn all_nodes_serve_one_address(home: &Home) -> anyhow::Result<()> {
    install_overlay(&home.lab, NAMESPACE, &["admission", "forwarder"])?;
    every_node_is_able(home)?;
    serve(home)?;
    each_pod_gets_its_share(home)?;
    clients_go_where_explain_says(home)?;
    others_at_the_address_are_right(home)?;
    each_node_says_how_healthy_it_is(home)?;
    a_cordoned_node_breaks_nothing(home)?;
    every_node_lists_its_rules(home)?;
    a_killed_forwarder_is_told_of(home)?;
    another_node_dies(home)?;
    the_announcing_node_dies(home)
}

/// The same where kube-proxy uses iptables, in short.
pub(crate) fn all_nodes_serve_one_address_with_iptables(home: &Home) -> anyhow::Result<()> {
    install_overlay(&home.lab, NAMESPACE, &["admission", "forwarder"])?;
    every_node_is_able(home)?;
    serve(home)?;
    each_pod_gets_its_share(home)?;
    others_at_the_address_are_right(home)?;
    a_cordoned_node_breaks_nothing(home)?;
    every_node_lists_its_rules(home)?;
    the_announcing_node_dies(home)
}

/// When it is back, clients have used ports again that it had connections from: it remembers those for two minutes after their end.
fn a_cordoned_node_breaks_nothing(home: &Home) -> anyhow::Result<()> {
    let other = another_node(home)?;
    let used = || USED_AGAIN.map(|port| ask(80, port)).collect::<io::Result<Vec<_>>>();
    home.lab.namespace(Machine::Client).enter(used)??;
    let ports = [
        ("another node is cordoned", "cordon", None),
        ("it is back", "uncordon", Some(USED_AGAIN)),
    ];
    for (what, verb, ports) in ports {
        let at = (&[first_address().into()][..], ports);
        let seen = through_from(home, &format!("spread, {what}"), at, || {
            home.lab.kubectl(&[verb, &other.to_string()])?;
            Ok(())
        })?;
        ensure!(seen.broken() == 0, "connections broke: {:?}", seen.broken);
        let slowest = seen.slowest();
        ensure!(slowest < LATEST, "{what}: an answer took {slowest:?}");
    }
    home.wait_until("all pods answer again", || all_pods_answer(home))
}

/// An administrator looks at all rules of a node, those of kube-proxy among them.
fn every_node_lists_its_rules(home: &Home) -> anyhow::Result<()> {
    let owner = home.wait_for_owner(first_address())?;
    for node in home.lab.options().node_machines() {
        let rules = home.lab.namespace(node).run("nft", &["list", "ruleset"])?;
        ensure!(node != owner || rules.contains("fwd to"), "{node} spreads nothing: {rules}");
    }
    Ok(())
}

/// The connections of other nodes come to the announcing one alone: they are reset, or go on when the next forwarder is there first.
fn a_killed_forwarder_is_told_of(home: &Home) -> anyhow::Result<()> {
    let owner = home.wait_for_owner(first_address())?;
    let pod = home.speaker_on(owner)?;
    let seen = through_at_the_address(home, "the announcing node's forwarder is killed", || {
        home.kill_container(&pod, "forwarder")
    })?;
    told(&seen)?;
    ensure!(seen.broken() < STREAMS, "the announcing node has lost its own connections");
    every_node_is_able(home)?;
    home.wait_until("all pods answer again", || all_pods_answer(home))
}

/// A node that does not announce the address. Its part is lost, and no more.
fn another_node_dies(home: &Home) -> anyhow::Result<()> {
    let other = another_node(home)?;
    let seen = through_at_the_address(home, "another node loses power", || {
        home.lab.power_off(other)?;
        home.wait_until("the others have all new connections", || match answers(home, 80, 60) {
            Ok(pods) if pods.len() == 2 => Ok(()),
            other => Err(format!("{other:?}").into()),
        })
    })?;
    lost_a_part(&seen)?;
    home.switch_on(other)?;
    every_node_is_able(home)?;
    home.wait_until("all pods answer again", || all_pods_answer(home))
}

fn the_announcing_node_dies(home: &Home) -> anyhow::Result<()> {
    let owner = home.wait_for_owner(first_address())?;
    let seen = through_at_the_address(home, "the announcing node loses power", || {
        Ok(home.lab.power_off(owner).map(drop)?)
    })?;
    lost_a_part(&seen)
}

/// What one of three nodes had is lost, and its clients are told.
fn lost_a_part(seen: &StreamsSeen) -> anyhow::Result<()> {
    let broken = seen.broken();
    ensure!(broken > 0, "the node served nothing: this shows nothing");
    ensure!(broken < ITS_OWN, "{broken} of {STREAMS} connections broke");
    told(seen)
}

/// Nobody waits: what breaks does so by a reset, and soon, and what goes on is answered.
fn told(seen: &StreamsSeen) -> anyhow::Result<()> {
    let by_reset = seen.broken.keys().all(|why| why.contains("reset"));
    ensure!(by_reset, "connections end with {:?}", seen.broken);
    let end = seen.slowest_end();
    ensure!(end < RESET_WITHIN, "a connection was reset after {end:?}");
    ensure!(seen.slowest() < LATEST, "an answer took {:?}", seen.slowest());
    Ok(())
}

/// kube-proxy of each node tells a load balancer how many pods it has, whatever is spread.
fn each_node_says_how_healthy_it_is(home: &Home) -> anyhow::Result<()> {
    let port = home.lab.get(&["service", "whoami"])?["spec"]["healthCheckNodePort"].as_u64();
    let port = port.context("a Service with the policy Local has such a port")?;
    let client = home.lab.namespace(Machine::Client);
    for node in home.lab.options().node_machines() {
        let own = node.lan_v4().context("a node has an address")?;
        let url = format!("http://{own}:{port}/");
        home.wait_until(&format!("{node} says that it has a pod"), || {
            let said = client.run("curl", &["--silent", "--fail", "--max-time", "2", &url]);
            let said = said.map_err(anyhow::Error::from)?;
            let said: Value = serde_json::from_str(&said).map_err(anyhow::Error::from)?;
            if said["localEndpoints"] == 1 { Ok(()) } else { Err(said.to_string().into()) }
        })?;
    }
    Ok(())
}

/// One that does not announce the address.
fn another_node(home: &Home) -> anyhow::Result<Machine> {
    let owner = home.wait_for_owner(first_address())?;
    let nodes = home.lab.options().node_machines();
    nodes.into_iter().find(|node| *node != owner).context("another node")
}

fn through_at_the_address(
    home: &Home,
    what: &str,
    act: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<StreamsSeen> {
    through(home, &format!("spread, {what}"), &[first_address().into()], act)
}

/// A pod on each node, of a Service whose pods see their clients.
fn serve(home: &Home) -> anyhow::Result<()> {
    home.add_pool()?;
    home.lab.apply(&with_image(WEB, "nginx", NGINX_IMAGE).context("the pods' image")?)?;
    let apart = json!({ "spec": { "replicas": 3, "template": { "spec": {
        "topologySpreadConstraints": [{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": { "matchLabels": { "app": "whoami" } },
            "matchLabelKeys": ["pod-template-hash"],
        }],
    } } } });
    let patch = apart.to_string();
    home.lab.kubectl(&["patch", "deployment", "whoami", "--type=merge", "-p", &patch])?;
    home.lab.wait_for_rollout("default", "deployment/whoami", Duration::from_mins(1))?;
    let mut whoami = service("whoami", "arpeggio.dev/address-pool", POOL);
    whoami["metadata"]["annotations"]["arpeggio.dev/spread"] = json!("nodes");
    whoami["spec"]["selector"] = json!({ "app": "whoami" });
    whoami["metadata"]["annotations"]["arpeggio.dev/sharing-key"] = json!("whoami");
    whoami["spec"]["externalTrafficPolicy"] = json!("Local");
    whoami["spec"]["ports"] = json!([
        { "name": "one", "port": 80, "targetPort": 80 },
        { "name": "another", "port": 8080, "targetPort": 80 },
    ]);
    home.apply(&whoami)?;
    ensure!(home.wait_for_address("whoami")? == first_address(), "the first address");
    home.wait_until("all pods answer", || all_pods_answer(home))
}

fn all_pods_answer(home: &Home) -> Result<(), arpeggio_scenarios::NotYet> {
    match answers(home, 80, 60) {
        Ok(pods) if pods.len() == 3 => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn each_pod_gets_its_share(home: &Home) -> anyhow::Result<()> {
    let pods = answers(home, 80, CONNECTIONS)?;
    eprint_line(&format!("spread: of {CONNECTIONS} connections {pods:?}"));
    let share = CONNECTIONS / 3;
    let right = pods.values().all(|count| count.abs_diff(share) * 100 <= share * 15);
    ensure!(right && pods.len() == 3, "each pod gets {share} within 15 %: {pods:?}");
    Ok(())
}

/// The node that `arpeggio explain` names for a client is the one whose pod answers it.
fn clients_go_where_explain_says(home: &Home) -> anyhow::Result<()> {
    let pods = home.lab.get(&["pods", "-lapp=whoami"])?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pods = pods["items"].as_array().into_iter().flatten();
    let nodes: BTreeMap<String, String> =
        pods.map(|it| (text(&it["metadata"]["name"]), text(&it["spec"]["nodeName"]))).collect();
    let mut met = BTreeSet::new();
    for Answer { pod, client } in ask_again(home, 80, 12)? {
        let node = nodes.get(&pod).with_context(|| pod.clone())?;
        let client = client.to_string();
        let asked = ["explain", "service", "whoami", "-n", "default", "--client", &client];
        let said = home.arpeggio(&[&asked[..], &["--system-namespace", NAMESPACE]].concat())?;
        let words = said.lines().map(|it| it.split_whitespace().collect::<Vec<_>>());
        let row = words.into_iter().find(|it| it.get(1) == Some(&"80/TCP"));
        let named = row.as_ref().and_then(|it| it.get(2));
        ensure!(named == Some(&node.as_str()), "{client} is served by {node}: {said}");
        met.insert(node.clone());
    }
    ensure!(met.len() > 1, "all by one node: this shows little");
    Ok(())
}

/// Another port, and Services that share the address: one that keeps each client at one pod, and is for this client; and one
/// that is for others.
fn others_at_the_address_are_right(home: &Home) -> anyhow::Result<()> {
    let pods = answers(home, 8080, 60)?;
    ensure!(pods.len() == 3, "by another port: {pods:?}");
    let client = Machine::Client.lan_v4().context("the client has an address")?;
    for (name, port, range) in
        [("sticky", 81, format!("{client}/32")), ("closed", 82, "192.0.2.0/24".to_owned())]
    {
        let mut shared = service(name, "arpeggio.dev/addresses", &first_address().to_string());
        shared["metadata"]["annotations"]["arpeggio.dev/sharing-key"] = json!("whoami");
        shared["spec"]["selector"] = json!({ "app": "whoami" });
        shared["spec"]["externalTrafficPolicy"] = json!("Local");
        shared["spec"]["sessionAffinity"] = json!("ClientIP");
        shared["spec"]["loadBalancerSourceRanges"] = json!([range]);
        shared["spec"]["ports"] = json!([{ "port": port, "targetPort": 80 }]);
        home.apply(&shared)?;
        ensure!(home.wait_for_address(name)? == first_address(), "{name} has another address");
    }
    home.wait_until("the Service with session affinity answers", || {
        Ok(answers(home, 81, 1).map(drop)?)
    })?;
    let pods = answers(home, 81, 60)?;
    ensure!(pods.len() == 1, "one pod has all connections of a client: {pods:?}");
    ensure!(answers(home, 82, 1).is_err(), "the Service is for others");
    home.wait_until("all pods answer by the first port, too", || all_pods_answer(home))?;
    home.lab.kubectl(&["delete", "service", "sticky", "closed"])?;
    Ok(())
}

/// How often each pod answers as many new connections.
fn answers(home: &Home, port: u16, count: usize) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut pods = BTreeMap::new();
    for answer in ask_again(home, port, count)? {
        *pods.entry(answer.pod).or_default() += 1;
    }
    Ok(pods)
}

/// What one new connection met.
struct Answer {
    pod: String,
    client: SocketAddr,
}

/// As many new connections. The pods see the client.
fn ask_again(home: &Home, port: u16, count: usize) -> anyhow::Result<Vec<Answer>> {
    let ask = || (0..count).map(|_| ask(port, 0)).collect::<io::Result<Vec<_>>>();
    let said = home.lab.namespace(Machine::Client).enter(ask)??;
    let read = |(client, said): (SocketAddr, String)| {
        let line = said.lines().last().unwrap_or_default();
        let (pod, seen) = line.split_once(" sees ").with_context(|| said.clone())?;
        ensure!(seen == client.ip().to_string(), "a pod sees {seen}, and not {client}");
        Ok(Answer { pod: pod.to_owned(), client })
    };
    said.into_iter().map(read).collect()
}

/// A page by a connection of its own, from a port of the client; from port 0: from any.
fn ask(port: u16, from: u16) -> io::Result<(SocketAddr, String)> {
    let patience = Duration::from_secs(1);
    let to = SocketAddr::from((first_address(), port));
    let mut stream = connect_from((to, from), patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok((stream.local_addr()?, said))
}

//! One address that all nodes serve: `docs/spread.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Machine, web::NGINX_IMAGE};
use arpeggio_scenarios::{
    Home, POOL, STREAMS, eprint_line, first_address, install_overlay, service,
};
use serde_json::{Value, json};

use crate::{
    connections::{NAMESPACE, every_node_is_able, through},
    setups::with_image,
};

/// Nginx says which pod it is, and whom it sees.
const WEB: &str = include_str!("../../../../docs/setups/client-addresses/web.yaml");

/// So many that a third is met within 15 % by all but one of thousands of runs.
const CONNECTIONS: usize = 1200;

/// What the announcing node served is a third of the connections, give or take: of 100, more than this are met once in thousands of runs.
const ITS_OWN: usize = 50;

/// A failover, and then the client's next attempt. Generous: this may be a busy machine.
const LATEST: Duration = Duration::from_secs(3);

pub(crate) fn all_nodes_serve_one_address(home: &Home) -> anyhow::Result<()> {
    install_overlay(&home.lab, NAMESPACE, &["admission", "forwarder"])?;
    every_node_is_able(home)?;
    serve(home)?;
    each_pod_gets_its_share(home)?;
    clients_go_where_explain_says(home)?;
    others_at_the_address_are_right(home)?;

    let address = [IpAddr::from(first_address())];
    let owner = home.wait_for_owner(first_address())?;
    let nodes = home.lab.options().node_machines();
    let other = nodes.into_iter().find(|node| *node != owner).context("another node")?;
    let seen = through(home, "spread, another node is drained", &address, || {
        home.lab.kubectl(&["cordon", &other.to_string()])?;
        Ok(())
    })?;
    ensure!(seen.broken() == 0, "connections broke: {:?}", seen.broken);
    let seen = through(home, "spread, and it is back", &address, || {
        home.lab.kubectl(&["uncordon", &other.to_string()])?;
        Ok(())
    })?;
    ensure!(seen.broken() == 0, "connections broke: {:?}", seen.broken);
    home.wait_until("all pods answer again", || all_pods_answer(home))?;

    let seen = through(home, "spread, the announcing node loses power", &address, || {
        Ok(home.lab.power_off(owner).map(drop)?)
    })?;
    let broken = seen.broken();
    ensure!(broken > 0, "the announcing node served nothing: this shows nothing");
    ensure!(broken < ITS_OWN, "{broken} of {STREAMS} connections broke");
    ensure!(seen.slowest() < LATEST, "an answer took {:?}", seen.slowest());
    Ok(())
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
    let ask = || (0..count).map(|_| ask(port)).collect::<io::Result<Vec<_>>>();
    let said = home.lab.namespace(Machine::Client).enter(ask)??;
    let read = |(client, said): (SocketAddr, String)| {
        let line = said.lines().last().unwrap_or_default();
        let (pod, seen) = line.split_once(" sees ").with_context(|| said.clone())?;
        ensure!(seen == client.ip().to_string(), "a pod sees {seen}, and not {client}");
        Ok(Answer { pod: pod.to_owned(), client })
    };
    said.into_iter().map(read).collect()
}

/// A page by a connection of its own.
fn ask(port: u16) -> io::Result<(SocketAddr, String)> {
    let patience = Duration::from_secs(1);
    let to = SocketAddr::from((first_address(), port));
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok((stream.local_addr()?, said))
}

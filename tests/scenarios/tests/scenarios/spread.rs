//! One address that all nodes serve: `docs/spread.md`.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Machine, web::NGINX_IMAGE};
use arpeggio_scenarios::{
    Home, POOL, STREAMS, eprint_line, first_address, install_overlay, service,
};
use serde_json::json;

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
    whoami["spec"]["externalTrafficPolicy"] = json!("Local");
    home.apply(&whoami)?;
    ensure!(home.wait_for_address("whoami")? == first_address(), "the first address");
    home.wait_until("all pods answer", || all_pods_answer(home))
}

fn all_pods_answer(home: &Home) -> Result<(), arpeggio_scenarios::NotYet> {
    match answers(home, 60) {
        Ok(pods) if pods.len() == 3 => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn each_pod_gets_its_share(home: &Home) -> anyhow::Result<()> {
    let pods = answers(home, CONNECTIONS)?;
    eprint_line(&format!("spread: of {CONNECTIONS} connections {pods:?}"));
    let share = CONNECTIONS / 3;
    let right = pods.values().all(|count| count.abs_diff(share) * 100 <= share * 15);
    ensure!(right && pods.len() == 3, "each pod gets {share} within 15 %: {pods:?}");
    Ok(())
}

/// How often each pod answers as many new connections. Each sees the client.
fn answers(home: &Home, count: usize) -> anyhow::Result<BTreeMap<String, usize>> {
    let client = Machine::Client.lan_v4().context("the client has an address")?.to_string();
    let ask = || (0..count).map(|_| ask()).collect::<io::Result<Vec<_>>>();
    let mut pods = BTreeMap::new();
    for said in home.lab.namespace(Machine::Client).enter(ask)?? {
        let line = said.lines().last().unwrap_or_default();
        let (pod, seen) = line.split_once(" sees ").with_context(|| said.clone())?;
        ensure!(seen == client, "a pod sees {seen}, and not {client}");
        *pods.entry(pod.to_owned()).or_default() += 1;
    }
    Ok(pods)
}

/// A page by a connection of its own.
fn ask() -> io::Result<String> {
    let patience = Duration::from_secs(1);
    let to = SocketAddr::from((first_address(), 80));
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

use std::{collections::BTreeSet, time::Duration};

use arpeggio_api::{
    forwarder::Forwarder,
    lock::{Claim, ServiceRef},
    session::{LinkAddress, OwnSession, Whereabouts},
    terms::WrittenAnnounceTerms,
};
use arpeggio_election::{Epoch, Interface, Reach, Timestamp};
use arpeggio_forwarding::{Forwarding, Settings, Way, bucket};
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff,
};
use serde_json::{Value, from_value, json};

use super::*;

const V4: &str = "192.168.0.240";
const V6: &str = "fd00::f0";

fn time() -> MicroTime {
    MicroTime(jiff::Timestamp::UNIX_EPOCH)
}

fn versioned(mut lease: Lease) -> Lease {
    lease.metadata.resource_version = Some("1".to_owned());
    lease
}

fn name(n: u8) -> String {
    format!("node-{n}")
}

fn session(n: u8) -> Lease {
    let own = [IpAddr::from([192, 168, 0, n]), format!("fd00::{n}").parse().unwrap()];
    let subnets = [format!("192.168.0.{n}/24"), format!("fd00::{n}/64")];
    let interface = Interface {
        name: "eth0".to_owned(),
        subnets: subnets.iter().map(|it| it.parse().unwrap()).collect(),
        ..Interface::default()
    };
    let links = own.map(|address| LinkAddress { address, mac: [2, 0, 0, 0, 0, n] });
    let whereabouts = Whereabouts {
        reach: Reach { interfaces: vec![interface] },
        links: links.to_vec(),
        ..Whereabouts::default()
    };
    let own = OwnSession {
        node: name(n).as_str().into(),
        instance: "speaker-x7".into(),
        duration: Duration::from_secs(10),
        whereabouts,
        hears: BTreeSet::new(),
    };
    versioned(own.created(Epoch(1), time()))
}

fn forwarder(n: u8, left: &[(&str, u32)]) -> Lease {
    let connections = left.iter().map(|(address, count)| (address.parse().unwrap(), *count));
    let connections = Some(connections.collect());
    let says = Forwarder { instance: "forwarder-x7".into(), connections, ..Forwarder::default() };
    versioned(says.created(&name(n).as_str().into(), time()))
}

/// The lock of an address that these Services share.
fn lock(address: &str, services: &[&str], holder: Option<u8>, spread: bool) -> Lease {
    let of = |name: &&str| ServiceRef {
        namespace: "shop".into(),
        name: (*name).into(),
        uid: (*name).into(),
    };
    let services = services.iter().map(of).collect();
    let terms = WrittenAnnounceTerms::default();
    let address = address.parse().unwrap();
    let claim = Claim { address, pool: "home".into(), services, terms, spread };
    let mut lease = versioned(claim.created());
    lease.spec.get_or_insert_default().holder_identity = holder.map(name);
    let annotations = lease.metadata.annotations.get_or_insert_default();
    annotations.insert("arpeggio.dev/session".into(), "1".into());
    lease
}

fn service(name: &str, spec: Value) -> v1::Service {
    let mut spec = spec;
    spec["type"] = json!("LoadBalancer");
    let metadata = json!({ "namespace": "shop", "name": name, "uid": name });
    from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
}

/// A slice of `web` with ready endpoints on these nodes.
fn slice(family: &str, nodes: &[u8]) -> EndpointSlice {
    let endpoint = |n: &u8| json!({ "addresses": ["10.0.0.1"], "nodeName": name(*n), "conditions": { "ready": true } });
    let labels = json!({ "kubernetes.io/service-name": "web" });
    from_value(json!({
        "addressType": family,
        "metadata": { "namespace": "shop", "name": format!("web-{family}"), "labels": labels },
        "ports": [{ "name": "http", "port": 8080 }],
        "endpoints": nodes.iter().map(endpoint).collect::<Vec<_>>(),
    }))
    .unwrap()
}

fn node(n: u8, spec: &Value) -> v1::Node {
    let condition = json!({ "type": "Ready", "status": "True" });
    from_value(json!({
        "metadata": { "name": name(n) }, "spec": spec, "status": { "conditions": [condition] },
    }))
    .unwrap()
}

/// Three nodes with forwarders; node-1 has both addresses, which all are to serve; `web` is what is asked about.
fn evidence(web: Value) -> Evidence {
    let web = service("web", web);
    let dns = service("dns", json!({ "ports": [{ "port": 53, "protocol": "UDP" }] }));
    let locks = [V4, V6].map(|address| lock(address, &["web", "dns"], Some(1), true));
    let sessions = (1..=3).map(session);
    let forwarders = (1..=3).map(|n| forwarder(n, &[]));
    Evidence {
        service: web.clone(),
        services: vec![web, dns],
        nodes: (1..=3).map(|n| node(n, &json!({}))).collect(),
        leases: sessions.chain(forwarders).chain(locks).collect(),
        slices: vec![slice("IPv4", &[1, 2, 2, 3]), slice("IPv6", &[2, 3])],
        ..Evidence::default()
    }
}

fn cluster() -> Value {
    let port = |number: u16, protocol: &str| json!({ "name": format!("p{number}{protocol}"), "port": number, "protocol": protocol });
    json!({ "ports": [port(80, "TCP"), port(443, "UDP"), port(9, "SCTP")] })
}

fn local(affinity: &str) -> Value {
    let ports = json!([{ "name": "http", "port": 80 }]);
    json!({ "externalTrafficPolicy": "Local", "sessionAffinity": affinity, "ports": ports })
}

fn said(evidence: &Evidence, client: &str) -> String {
    let client =
        ClientArgs { client: Some(client.parse().unwrap()), ignore_exclusion_label: false };
    client.told(evidence).unwrap()
}

/// The node of the row of this port.
fn node_of(text: &str, port: &str) -> String {
    let row = text.lines().find(|it| it.split_whitespace().nth(1) == Some(port));
    row.unwrap_or_else(|| panic!("{port}: {text}")).split_whitespace().nth(2).unwrap().to_owned()
}

/// Where the rules of the announcing node send the first packet.
fn planned(known: &Known, address: IpAddr, port: Port, client: SocketAddr) -> String {
    let settings = Settings { keep: Duration::from_mins(5) };
    let at = Timestamp::from_origin(Duration::from_secs(1));
    let plan = Forwarding::new(name(1).as_str().into(), settings, at).decide(known, at).plan;
    let spread = &plan.addresses[&address].spread[&port];
    let bucket = bucket(spread.by, spread.seed, client.ip(), client.port());
    match &spread.first[usize::from(bucket)] {
        Way::Local => name(1),
        Way::To(hop) => hop.node.to_string(),
    }
}

#[test]
fn what_is_said_is_what_the_rules_do() {
    let port = |protocol, number| Port { protocol, number };
    let (tcp, udp) = (port(Protocol::Tcp, 80), port(Protocol::Udp, 443));
    let cases = [
        (cluster(), vec![(tcp, "80/TCP"), (udp, "443/UDP")]),
        (local("None"), vec![(tcp, "80/TCP")]),
        (local("ClientIP"), vec![(tcp, "80/TCP")]),
    ];
    for (spec, ports) in cases {
        let evidence = evidence(spec);
        let knowledge = knowledge(&evidence, true);
        let mut seen = BTreeSet::new();
        for n in 0..60_u16 {
            for client in [format!("10.1.2.{n}:{}", 40_000 + n), format!("[fd01::{n}]:{n}")] {
                let text = said(&evidence, &client);
                let client: SocketAddr = client.parse().unwrap();
                let address = if client.is_ipv4() { V4 } else { V6 }.parse().unwrap();
                for (port, shown) in &ports {
                    let expected = planned(knowledge.known(), address, *port, client);
                    assert_eq!(node_of(&text, shown), expected, "{client} {text}");
                    seen.insert((client.is_ipv4(), expected));
                }
            }
        }
        let is_local = ports.len() == 1;
        assert_eq!(seen.len(), if is_local { 5 } else { 6 }, "no pod of node-1 has IPv6");
    }
}

#[test]
fn all_that_bears_on_it_is_said() {
    let mut evidence = evidence(local("None"));
    evidence.leases.retain(|it| it.name_any() != "forwarder-node-2");
    evidence.leases.push(forwarder(2, &[(V4, 7)]));
    evidence.nodes[2] = node(3, &json!({ "unschedulable": true }));
    let text = said(&evidence, "10.1.2.3:40000");
    assert!(text.contains("the client's address and port is in bucket "), "{text}");
    assert!(text.contains("buckets of 192.168.0.240 80/TCP: node-2 683, node-1 341\n"), "{text}");
    assert!(text.contains("node-3 serves nothing of 192.168.0.240: it is cordoned\n"), "{text}");
    let open = "node-2 still has 7 of the connections to 192.168.0.240 that were open before";
    assert!(text.contains(open), "{text}");
    assert!(!text.contains(V6), "{text}");
    let mapped = said(&evidence, "[::ffff:10.1.2.3]:40000");
    assert_eq!(mapped, text, "it is the same client");
}

#[test]
fn without_a_forwarder_it_is_the_node_that_announces_the_address() {
    let mut evidence = evidence(cluster());
    evidence.leases.retain(|it| !it.name_any().starts_with("forwarder-"));
    let text = said(&evidence, "10.1.2.3:40000");
    for port in ["80/TCP", "443/UDP", "9/SCTP"] {
        assert_eq!(node_of(&text, port), "node-1", "{text}");
    }
    let why = "one node serves the address, though all are to: node-1, which announces it, has no forwarder";
    assert!(text.contains(why), "{text}");
    let lock = lock(V4, &["web"], Some(1), false);
    evidence.leases.retain(|it| !it.name_any().starts_with("address-"));
    evidence.leases.push(lock);
    let text = said(&evidence, "10.1.2.3:40000");
    assert!(text.contains("one node serves the address: the one that announces it\n"), "{text}");
    let none = "nowhere: the Service has no address of the client's family, or no port\n";
    assert_eq!(said(&evidence, "[fd01::1]:1"), none);
}

#[test]
fn what_nobody_announces_goes_nowhere() {
    let mut evidence = evidence(cluster());
    let lock = lock(V4, &["web"], None, true);
    evidence.leases.retain(|it| !it.name_any().starts_with("address-"));
    evidence.leases.push(lock);
    let text = said(&evidence, "10.1.2.3:40000");
    assert_eq!(node_of(&text, "80/TCP"), "-");
    assert!(text.contains("no node announces the address now\n"), "{text}");
}

#[test]
fn excluded_nodes_serve_where_the_speakers_ignore_the_label() {
    let mut evidence = evidence(cluster());
    for node in &mut evidence.nodes {
        let label = "node.kubernetes.io/exclude-from-external-load-balancers".to_owned();
        node.metadata.labels.get_or_insert_default().insert(label, String::new());
    }
    let said = |ignore_exclusion_label| {
        let client = Some("10.1.2.3:40000".parse().unwrap());
        ClientArgs { client, ignore_exclusion_label }.told(&evidence).unwrap()
    };
    assert!(said(false).contains("no other node can serve it"), "{}", said(false));
    assert!(said(true).contains("is in bucket"), "{}", said(true));
}

use serde_json::{Value, from_value, json};

use super::*;
use crate::{
    lock::{Claim, ServiceRef},
    session::{OwnSession, Whereabouts},
    terms::WrittenAnnounceTerms,
};
use arpeggio_election::Epoch;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};

fn address() -> IpAddr {
    [192, 168, 0, 240].into()
}

fn lock(services: &[&str], spread: bool) -> Lease {
    let of = |name: &&str| ServiceRef {
        namespace: "shop".into(),
        name: (*name).into(),
        uid: "6f".into(),
    };
    let services = services.iter().map(of).collect();
    let terms = WrittenAnnounceTerms::default();
    let claim = Claim { address: address(), pool: "home".into(), services, terms, spread };
    let mut lease = claim.created();
    lease.metadata.resource_version = Some("1".into());
    lease
}

fn session(node: &str) -> Lease {
    let own = OwnSession {
        node: node.into(),
        instance: "speaker-x7".into(),
        duration: std::time::Duration::from_secs(10),
        whereabouts: Whereabouts::default(),
        hears: BTreeSet::new(),
    };
    let mut lease = own.created(Epoch(1), MicroTime(Timestamp::default()));
    lease.metadata.resource_version = Some("1".into());
    lease
}

fn service(name: &str, spec: Value) -> v1::Service {
    let mut spec = spec;
    spec["type"] = json!("LoadBalancer");
    from_value(json!({ "metadata": { "namespace": "shop", "name": name }, "spec": spec })).unwrap()
}

fn local(name: &str) -> v1::Service {
    let ports = json!([{ "port": 80, "name": "http" }, { "port": 443, "name": "tls" }]);
    service(name, json!({ "externalTrafficPolicy": "Local", "ports": ports }))
}

/// A slice of `web`, each of whose endpoints is a node and whether it is ready.
fn slice(name: &str, family: &str, port: &str, endpoints: &[(&str, bool)]) -> EndpointSlice {
    let endpoint = |(node, ready): &(&str, bool)| {
        let conditions = json!({ "ready": ready, "serving": true, "terminating": !ready });
        json!({ "addresses": ["10.0.0.1"], "nodeName": node, "conditions": conditions })
    };
    let labels = json!({ "kubernetes.io/service-name": "web" });
    from_value(json!({
        "addressType": family,
        "metadata": { "namespace": "shop", "name": name, "labels": labels },
        "ports": [{ "name": port, "port": 8080 }],
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    }))
    .unwrap()
}

fn nodes(names: &[&str]) -> BTreeMap<Node, NodeFacts> {
    names.iter().map(|it| (Node::from(*it), NodeFacts::default())).collect()
}

fn about(knowledge: &Knowledge) -> &Address {
    &knowledge.known().addresses[&address()]
}

fn on_nodes(knowledge: &Knowledge, number: u16) -> Vec<(String, u32)> {
    let port = Port { protocol: Protocol::Tcp, number };
    match &about(knowledge).services[&port].endpoints {
        Endpoints::OnNodes(counts) => {
            counts.iter().map(|(node, count)| (node.to_string(), *count)).collect()
        }
        Endpoints::Anywhere => panic!("anywhere"),
    }
}

#[test]
fn nothing_is_spread_before_all_is_listed() {
    let mut knowledge = Knowledge::default();
    assert!(knowledge.learn_lease(&lock(&["web"], true)).unwrap());
    assert!(!about(&knowledge).spread);
    assert!(about(&knowledge).services[&QUIC].quic, "connections are kept as without Services");
    assert!(knowledge.wants().nodes && !knowledge.wants().slices);
    assert!(knowledge.list_services([&local("web")].into_iter()));
    assert!(knowledge.wants().slices);
    assert!(!about(&knowledge).spread);
    knowledge.list_nodes(nodes(&["a"]));
    assert!(!about(&knowledge).spread, "who has endpoints is not known");
    assert!(knowledge.list_slices([].into_iter()));
    assert!(about(&knowledge).spread, "there are none, and that is known");
    assert!(on_nodes(&knowledge, 80).is_empty());
}

/// As the speakers do, so that both send to the same nodes.
#[test]
fn of_rules_that_are_damaged_the_last_ones_stay_in_force() {
    let damaged = || {
        let mut lease = lock(&["web"], true);
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert("arpeggio.dev/announce".into(), "{damaged".into());
        lease
    };
    let mut knowledge = Knowledge::default();
    knowledge.learn_lease(&lock(&["web"], true)).unwrap();
    let good = about(&knowledge).terms.clone();
    assert!(!knowledge.learn_lease(&damaged()).unwrap(), "nothing is new");
    assert_eq!(about(&knowledge).terms, good);
    let mut late = Knowledge::default();
    late.learn_lease(&damaged()).unwrap();
    assert_ne!(about(&late).terms, good, "who knows none has it nowhere");
}

#[test]
fn slices_do_not_matter_where_every_node_serves() {
    let mut knowledge = Knowledge::default();
    knowledge.learn_lease(&lock(&["web"], true)).unwrap();
    knowledge.list_nodes(nodes(&["a"]));
    let web = service("web", json!({ "ports": [{ "port": 80 }], "sessionAffinity": "ClientIP" }));
    knowledge.list_services([&web].into_iter());
    assert!(about(&knowledge).spread && !knowledge.wants().slices);
    let port = Port { protocol: Protocol::Tcp, number: 80 };
    let expected = Service { affinity: true, quic: false, endpoints: Endpoints::Anywhere };
    assert_eq!(about(&knowledge).services, [(port, expected)].into());
    let one = slice("web-1", "IPv4", "", &[("a", true)]);
    assert!(!knowledge.list_slices([&one].into_iter()), "no news");
}

#[test]
fn nothing_of_this_is_asked_where_nothing_is_spread() {
    let mut knowledge = Knowledge::default();
    knowledge.learn_lease(&lock(&["web"], false)).unwrap();
    knowledge.list_services([&local("web")].into_iter());
    assert!(!knowledge.wants().nodes && !knowledge.wants().slices);
    assert!(!about(&knowledge).spread);
    knowledge.learn_lease(&lock(&["web"], true)).unwrap();
    assert!(knowledge.wants().nodes && knowledge.wants().slices);
}

#[test]
fn ready_endpoints_are_counted_by_family_and_port() {
    let mut knowledge = Knowledge::default();
    knowledge.learn_lease(&lock(&["web"], true)).unwrap();
    knowledge.list_nodes(nodes(&["a", "b"]));
    knowledge.list_services([&local("web")].into_iter());
    let all = [
        slice("web-1", "IPv4", "http", &[("a", true), ("a", true), ("b", false)]),
        slice("web-2", "IPv4", "tls", &[("b", true)]),
        slice("web-3", "IPv6", "http", &[("b", true)]),
        slice("web-4", "IPv4", "http", &[("b", true)]),
    ];
    knowledge.list_slices(all.iter());
    let of = |text: &str, count| (text.to_owned(), count);
    assert_eq!(on_nodes(&knowledge, 80), [of("a", 2), of("b", 1)]);
    assert_eq!(on_nodes(&knowledge, 443), [of("b", 1)]);
    let name = |slice| slice_name(slice);
    assert!(!knowledge.learn_slice(&name(&all[0]), Some(&all[0])), "nothing new");
    assert!(knowledge.learn_slice(&name(&all[3]), None));
    assert_eq!(on_nodes(&knowledge, 80), [of("a", 2)]);
    assert!(!knowledge.learn_slice(&name(&all[3]), None));
}

#[test]
fn who_speaks_quic_says_so() {
    let mut knowledge = Knowledge::default();
    knowledge.learn_lease(&lock(&["web"], false)).unwrap();
    let ports = json!([
        { "name": "a", "port": 443, "protocol": "UDP" },
        { "name": "b", "port": 444, "protocol": "UDP", "appProtocol": "QUIC" },
        { "name": "c", "port": 445, "protocol": "UDP", "appProtocol": "dns" },
        { "name": "d", "port": 446, "protocol": "TCP", "appProtocol": "https" },
        { "name": "e", "port": 447, "protocol": "SCTP" },
    ]);
    assert!(knowledge.list_services([&service("web", json!({ "ports": ports }))].into_iter()));
    let quic = about(&knowledge).services.iter().map(|(port, it)| (port.number, it.quic));
    let quic: Vec<_> = quic.collect();
    assert_eq!(quic, [(446, false), (443, true), (444, true), (445, false)]);
}

#[test]
fn all_services_at_an_address_count_and_others_are_no_news() {
    let mut knowledge = Knowledge::default();
    knowledge.learn_lease(&lock(&["web", "dns"], true)).unwrap();
    knowledge.list_nodes(nodes(&[]));
    let of = |port: u16| json!({ "ports": [{ "port": port }] });
    let name = |name: &str| ("shop".to_owned(), name.to_owned());
    assert!(knowledge.list_services([&service("web", of(80))].into_iter()));
    assert!(about(&knowledge).spread, "the other one may be gone");
    assert!(!knowledge.learn_service(&name("other"), Some(&service("other", of(1)))));
    assert!(knowledge.learn_service(&name("dns"), Some(&service("dns", of(53)))));
    assert_eq!(about(&knowledge).services.len(), 2);
    assert!(knowledge.learn_service(&name("dns"), None));
    assert!(knowledge.learn_lease(&lock(&["dns"], true)).unwrap());
    assert!(!knowledge.learn_service(&name("web"), None), "it is not there any more");
    assert!(!about(&knowledge).spread, "its Service is not known");
    knowledge.forget_lease(&lock::name(address()));
    assert!(knowledge.behind.is_empty());
}

#[test]
fn what_kubernetes_says_of_a_node_is_known_before_and_after_its_session() {
    let mut knowledge = Knowledge::default();
    let facts = |knowledge: &Knowledge, node: &str| {
        knowledge.known().nodes[&Node::from(node)].facts.clone()
    };
    knowledge.learn_lease(&session("a")).unwrap();
    assert_eq!(facts(&knowledge, "a"), None);
    assert!(knowledge.list_nodes(nodes(&["a", "b"])));
    assert!(facts(&knowledge, "a").is_some());
    knowledge.learn_lease(&session("b")).unwrap();
    assert!(facts(&knowledge, "b").is_some());
    let cordoned = NodeFacts { cordoned: true, ..NodeFacts::default() };
    assert!(knowledge.learn_node(&"a".into(), Some(cordoned.clone())));
    assert!(!knowledge.learn_node(&"a".into(), Some(cordoned)));
    assert!(!knowledge.learn_node(&"c".into(), Some(NodeFacts::default())), "it has no session");
    assert!(knowledge.list_nodes(nodes(&["b"])));
    assert_eq!(facts(&knowledge, "a"), None);
}

#[test]
fn of_a_forwarder_all_is_news_that_a_decision_goes_by() {
    let written = |version: &str, says: forwarder::Forwarder| {
        let mut lease = says.created(&"node-1".into(), MicroTime(Timestamp::default()));
        lease.metadata.resource_version = Some(version.into());
        lease
    };
    let first = || forwarder::Forwarder {
        instance: "speaker-x7".into(),
        connections: Some(BTreeMap::new()),
        knows_mark: true,
        ..forwarder::Forwarder::default()
    };
    let table = [
        (first(), false),
        (forwarder::Forwarder { knows_mark: false, ..first() }, true),
        (forwarder::Forwarder { connections: None, ..first() }, true),
        (forwarder::Forwarder { unable: Some("no nf_tables".into()), ..first() }, true),
        (forwarder::Forwarder { not_spread: [(address(), "why".into())].into(), ..first() }, false),
    ];
    for (says, is_news) in table {
        let mut knowledge = Knowledge::default();
        knowledge.learn_lease(&session("node-1")).unwrap();
        assert!(knowledge.learn_lease(&written("2", first())).unwrap());
        let case = format!("{says:?}");
        assert_eq!(knowledge.learn_lease(&written("3", says)).unwrap(), is_news, "{case}");
    }
}

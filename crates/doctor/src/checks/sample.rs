//! A healthy cluster of three nodes, for tests to break.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::{
    code::Code,
    facts::{
        Component, Definition, Facts, Installation, Leader, Lock, Node, Pod, Pool, Proxy, Service,
        Session, Stage,
    },
    finding::{Finding, Severity},
    survey::{Answers, Connect, Heard, Offer, Survey},
};

/// The MAC address that ends in this number.
pub(super) fn mac(last: u8) -> String {
    format!("02:00:c0:a8:00:{last:02x}")
}

/// What was found, without the words.
pub(super) fn codes(findings: &[Finding]) -> Vec<(Code, Severity)> {
    findings.iter().map(|it| (it.code, it.severity)).collect()
}

/// What a node has seen, to be changed.
pub(super) fn survey_of<'a>(facts: &'a mut Facts, node: &str) -> &'a mut Survey {
    facts.surveys.get_mut(node).unwrap().as_mut().unwrap()
}

/// Three nodes on a segment, a router, a pool and a Service that node-1 announces.
pub(super) fn facts() -> Facts {
    let numbers = [1, 2, 3];
    Facts {
        stage: Stage::Installed,
        namespace: "arpeggio-system".into(),
        program: "0.1.0".into(),
        revision: Some("c0ffee".into()),
        kubernetes: Ok((1, 36)),
        definition: Ok(Definition { installed: true, ..Definition::default() }),
        permissions: Ok(vec![]),
        installation: Ok(installation()),
        class: Ok(None),
        rivals: Ok(vec![]),
        elsewhere: Ok(vec![]),
        proxy: Ok(Proxy { mode: Some("nftables".into()), ..Proxy::default() }),
        nodes: Ok(numbers.map(node).into()),
        service_ranges: Ok(vec![(
            "ServiceCIDR kubernetes".into(),
            "10.96.0.0/16".parse().unwrap(),
        )]),
        pools: Ok(vec![Pool {
            name: "home".into(),
            plain_name: "home".into(),
            ranges: vec!["192.168.0.240-192.168.0.250".parse().unwrap()],
            ..Pool::default()
        }]),
        sessions: Ok(numbers.map(session).into()),
        forwarders: Ok(vec![]),
        locks: Ok(vec![Lock {
            address: [192, 168, 0, 240].into(),
            holder: Some("node-1".into()),
            former: None,
            stranger: None,
            unannounced: false,
            rests: false,
            spread: false,
            services: vec!["default/web".into()],
            pool: "home".into(),
        }]),
        damaged: vec![],
        services: Ok(vec![Service {
            path: "default/web".into(),
            addresses: vec![[192, 168, 0, 240].into()],
            tcp: vec![80],
            selects: true,
            ready_on: Some([name(1), name(2)].into()),
            has_endpoints: true,
            ..Service::default()
        }]),
        uses: vec![],
        metrics: BTreeMap::new(),
        surveys: numbers.map(|number| (name(number), Ok(survey(number)))).into(),
        pods: [(name(1), Ok(vec![reached("192.168.0.240:80")]))].into(),
        unasked: vec![],
    }
}

/// A connection that was established.
pub(super) fn reached(to: &str) -> Connect {
    Connect { to: to.parse().unwrap(), error: None }
}

fn name(number: u8) -> String {
    format!("node-{number}")
}

fn address(number: u8) -> IpAddr {
    [192, 168, 0, 10 + number].into()
}

fn installation() -> Installation {
    let pod = |component: Component, number| Pod {
        name: format!("{}-{number}", component.as_str()),
        component,
        node: Some(name(number)),
        ready: true,
        ending: false,
        waiting: None,
        beside: None,
        restarts: 0,
        ended: None,
        age: Some(Duration::from_hours(1)),
        image: format!("docker.io/arpeggio/{}:0.1.0", component.as_str()),
        addresses: vec![],
    };
    let pods = [
        pod(Component::Controller, 1),
        pod(Component::Speaker, 1),
        pod(Component::Speaker, 2),
        pod(Component::Speaker, 3),
    ];
    Installation {
        controllers: Some(2),
        has_speakers: true,
        obeys_exclusion: true,
        pods: pods.into(),
        refused: BTreeMap::new(),
        leader: Some(Leader { holder: "controller-1".into(), renewed: true }),
        elects: true,
    }
}

fn node(number: u8) -> Node {
    Node {
        name: name(number),
        ready: true,
        excluded: false,
        barred: None,
        hosts_speakers: true,
        kept_off: None,
        labels: [("kubernetes.io/hostname".into(), name(number))].into(),
        addresses: vec![address(number)],
        internal: vec![address(number)],
        pod_ranges: vec![format!("10.244.{number}.0/24").parse().unwrap()],
    }
}

/// node-1 is on a second segment, too.
fn session(number: u8) -> Session {
    let second = (number == 1).then(|| "192.168.1.1/24".parse().unwrap());
    Session {
        node: name(number),
        lasts: Duration::from_secs(10),
        renewed: Some(-2),
        alive: true,
        links: vec![(address(number), mac(10 + number))],
        subnets: [
            format!("{}/24", address(number)).parse().unwrap(),
            format!("fd00:a0::1{number}/64").parse().unwrap(),
        ]
        .into_iter()
        .chain(second)
        .collect(),
        interfaces: ["eth0".to_owned()].into(),
        gateways: vec![("eth0".into(), [192, 168, 0, 1].into())],
        hears: Some([1, 2, 3].into_iter().filter(|it| *it != number).map(name).collect()),
        ..Session::default()
    }
}

/// The router offers the address that ends in this number to who asks for one of the pool.
pub(super) fn offer(last: u8) -> Offer {
    let address = |last| [192, 168, 0, last].into();
    Offer { wanted: address(241), address: address(last), server: address(1) }
}

fn survey(number: u8) -> Survey {
    let others = [1, 2, 3].into_iter().filter(|it| *it != number);
    let answer = |address: IpAddr, mac: String| Answers {
        address,
        broadcast: [(mac.clone(), 3)].into(),
        unicast: Some([(mac, 3)].into()),
        unasked: None,
    };
    let nodes = others.clone().map(|it| answer(address(it), mac(10 + it)));
    let router = answer([192, 168, 0, 1].into(), mac(1));
    let mut announced = answer([192, 168, 0, 240].into(), mac(11));
    if number == 1 {
        // Nobody hears his own questions.
        (announced.broadcast, announced.unicast) = (BTreeMap::new(), None);
    }
    Survey {
        answers: nodes.chain([router, announced]).collect(),
        heard: others.map(|it| Heard { address: address(it), broadcast: 3, unicast: 3 }).collect(),
        proxy_mode: Some("nftables".into()),
        strict_arp: Some(false),
        offers: if number == 1 { vec![offer(100)] } else { vec![] },
        ..Survey::default()
    }
}

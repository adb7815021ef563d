//! The pools' addresses: what they are on the nodes' network, and who else uses them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use arpeggio_election::{NodeFacts, Pattern, Rule, own_address};
use arpeggio_ipam::AddressRange;
use ipnet::IpNet;

use super::{
    known, list,
    pods::{candidates, hosts},
    unasked,
};
use crate::{
    code::Code,
    facts::{Asking, Facts, Node, Pool, Service, Session, Stage, User},
    finding::{Finding, Severity},
    survey::Survey,
};

/// A pool of fewer addresses is most often full on purpose, as the alert `ArpeggioPoolNearlyFull` has it.
const SPACIOUS: u128 = 5;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    known(Code::A701, "pools", &facts.pools, |pools| {
        let mut findings: Vec<Finding> = none(pools, facts).into_iter().collect();
        findings.extend(overlaps(pools));
        for pool in pools {
            findings.extend(said(pool));
            findings.extend(cluster_ranges(pool, facts));
            findings.extend(reserved(pool, facts));
            findings.extend(places(pool, facts));
            findings.extend(by_rules(pool, facts));
        }
        findings.extend(leased(pools, facts));
        if !pools.is_empty() && facts.nodes.as_ref().is_ok_and(|it| !it.iter().any(tells_pods)) {
            let why = "no node says where its pods are (spec.podCIDRs)";
            findings.push(Finding::unchecked(Code::A704, "addresses of pods", why));
        }
        if let Err(why) = &facts.service_ranges {
            findings.push(Finding::unchecked(Code::A705, "cluster addresses of Services", why));
        }
        findings
    })
}

/// Some network plugins assign ranges by themselves.
fn tells_pods(node: &Node) -> bool {
    !node.pod_ranges.is_empty()
}

fn about(pool: &Pool) -> String {
    format!("pool {}", pool.name)
}

fn none(pools: &[Pool], facts: &Facts) -> Option<Finding> {
    if !pools.is_empty() || facts.stage == Stage::Before {
        return None;
    }
    let wanted = facts.services.as_ref().is_ok_and(|it| it.iter().any(Service::is_ours));
    let severity = if wanted { Severity::Warning } else { Severity::Info };
    Some(
        Finding::new(Code::A701, "pools", "there is none, so no Service gets an address")
            .with(severity),
    )
}

/// What the controller, or the pool itself, says of it.
fn said(pool: &Pool) -> Vec<Finding> {
    let unready = pool.unready.as_ref().map(|why| Finding::new(Code::A702, about(pool), why));
    let full = pool.full.map(|size| {
        let severity = if size < SPACIOUS { Severity::Info } else { Code::A712.severity() };
        let seen = "all addresses of a family are in use";
        Finding::new(Code::A712, about(pool), seen).with(severity)
    });
    unready.into_iter().chain(full).collect()
}

fn shared(one: &[AddressRange], other: &[AddressRange]) -> Option<AddressRange> {
    one.iter().find_map(|range| other.iter().find_map(|it| range.intersection(it)))
}

fn overlaps(pools: &[Pool]) -> Vec<Finding> {
    let pairs = pools
        .iter()
        .enumerate()
        .flat_map(|(at, one)| pools[at + 1..].iter().map(move |other| (one, other)));
    let finding = |(one, other): (&Pool, &Pool)| {
        let shared = shared(&one.ranges, &other.ranges)?;
        let seen = format!("it has {shared} in common with pool {}", other.name);
        Some(Finding::new(Code::A703, about(one), seen))
    };
    pairs.filter_map(finding).collect()
}

fn cluster_ranges(pool: &Pool, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let nodes = facts.nodes.as_deref().unwrap_or_default();
    let pods = nodes.iter().find_map(|node| Some((node, shared(&pool.ranges, &node.pod_ranges)?)));
    if let Some((node, shared)) = pods {
        let seen = format!("{shared} are addresses of the pods of node {}", node.name);
        findings.push(Finding::new(Code::A704, about(pool), seen));
    }
    let services = facts.service_ranges.as_deref().unwrap_or_default();
    let services =
        services.iter().find_map(|(by, range)| Some((by, shared(&pool.ranges, &[*range])?)));
    if let Some((by, shared)) = services {
        let seen = format!("{shared} are cluster addresses of Services ({by})");
        findings.push(Finding::new(Code::A705, about(pool), seen));
    }
    // Where nobody tells the ranges, what is used of them does.
    let is_new = |found: &[Finding], code| !found.iter().any(|it| it.code == code);
    for (code, by, what) in [
        (Code::A704, User::Pod, "are addresses of pods behind Services"),
        (Code::A705, User::ClusterIp, "are cluster addresses of Services"),
    ] {
        let used = used(pool, facts, by);
        if !used.is_empty() && is_new(&findings, code) {
            let seen = format!("{} {what}", list(used.keys()));
            findings.push(Finding::new(code, about(pool), seen));
        }
    }
    let external = used(pool, facts, User::ExternalIp).into_iter().filter(|(address, service)| {
        !given(facts).any(|(its, to)| its == *address && to == *service)
    });
    findings.extend(external.map(|(address, service)| {
        let seen = format!("Service {service} has {address} in spec.externalIPs");
        Finding::new(Code::A716, about(pool), seen)
    }));
    let foreign = facts.services.as_deref().unwrap_or_default().iter().filter(|it| !it.is_ours());
    let foreign = foreign.flat_map(|it| it.addresses.iter().map(move |address| (it, *address)));
    let foreign = foreign.filter(|(it, address)| {
        pool.has(*address) && !given(facts).any(|(its, to)| its == *address && to == it.path)
    });
    findings.extend(foreign.map(|(service, address)| {
        let seen = format!("another load balancer has given {address} to Service {}", service.path);
        Finding::new(Code::A716, about(pool), seen)
    }));
    findings
}

/// The addresses of the pool that somebody has in this way, and one Service of each.
fn used<'a>(pool: &Pool, facts: &'a Facts, by: User) -> BTreeMap<IpAddr, &'a str> {
    // Pods on their node's own network have its addresses, of which another finding tells.
    let of_nodes = node_addresses(facts);
    let uses = facts.uses.iter().filter(|it| it.by == by && pool.has(it.address));
    let uses = uses.filter(|it| !of_nodes.contains(&it.address));
    uses.map(|it| (it.address, it.service.as_str())).collect()
}

/// The addresses that Arpeggio has given, and to whom.
fn given(facts: &Facts) -> impl Iterator<Item = (IpAddr, &str)> {
    let locks = facts.locks.as_deref().unwrap_or_default().iter();
    locks.flat_map(|it| it.services.iter().map(|service| (it.address, service.as_str())))
}

/// Whether DHCP servers give out what is in a pool: nodes have asked them for some of its addresses.
fn leased(pools: &[Pool], facts: &Facts) -> Vec<Finding> {
    let on_segments = || pools.iter().filter(|it| !it.routed);
    let has =
        |ipv4: bool| on_segments().flat_map(|it| &it.ranges).any(|it| it.first().is_ipv4() == ipv4);
    let mut findings: Vec<Finding> = on_segments().flat_map(|it| given_out(it, facts)).collect();
    if has(true)
        && let Some(why) = nothing_offered(facts)
    {
        findings.push(Finding::unchecked(Code::A711, "DHCP range", &why));
    }
    findings.extend(unasked(facts, Asking::Leases, Code::A711, "ends of ranges"));
    if has(false) {
        let why = "no node asks for an address by DHCPv6";
        findings.push(Finding::unchecked(Code::A711, "DHCPv6 range", why));
    }
    findings
}

fn surveys(facts: &Facts) -> impl Iterator<Item = &Survey> {
    facts.surveys.values().filter_map(|it| it.as_ref().ok())
}

fn given_out(pool: &Pool, facts: &Facts) -> Vec<Finding> {
    let offers = surveys(facts).flat_map(|it| &it.offers);
    let mut given: BTreeMap<Ipv4Addr, BTreeSet<IpAddr>> = BTreeMap::new();
    for offer in offers.filter(|it| pool.has(it.address.into())) {
        given.entry(offer.server).or_default().insert(offer.address.into());
    }
    let finding = |(server, addresses): (Ipv4Addr, BTreeSet<IpAddr>)| {
        let seen = format!("the DHCP server {server} offers addresses of it: {}", list(addresses));
        Finding::new(Code::A711, about(pool), seen)
    };
    given.into_iter().map(finding).collect()
}

/// Why it is not known what DHCP servers give out.
fn nothing_offered(facts: &Facts) -> Option<String> {
    if surveys(facts).any(|it| !it.offers.is_empty()) {
        return None;
    }
    let unasked = surveys(facts).find_map(|it| it.unleased.first());
    Some(match unasked {
        _ if facts.stage == Stage::Before => "speakers ask for it, once there are any".to_owned(),
        _ if facts.surveys.is_empty() => "no node was asked".to_owned(),
        Some(why) => why.clone(),
        None => "no DHCP server has answered a node".to_owned(),
    })
}

fn live(facts: &Facts) -> impl Iterator<Item = &Session> {
    facts.sessions.as_deref().unwrap_or_default().iter().filter(|it| it.is_live())
}

/// The nodes' own addresses, by what Kubernetes and the speakers say.
pub(super) fn node_addresses(facts: &Facts) -> BTreeSet<IpAddr> {
    let nodes =
        facts.nodes.as_deref().unwrap_or_default().iter().flat_map(|it| it.addresses.clone());
    let sessions = live(facts)
        .flat_map(|it| it.own.iter().copied().chain(it.subnets.iter().filter_map(own_address)));
    nodes.chain(sessions).collect()
}

fn reserved(pool: &Pool, facts: &Facts) -> Vec<Finding> {
    let own: Vec<IpAddr> = node_addresses(facts).into_iter().filter(|it| pool.has(*it)).collect();
    let gateways: BTreeSet<IpAddr> =
        live(facts).flat_map(|it| it.gateways.iter().map(|(_, it)| *it)).collect();
    let gateways: Vec<IpAddr> = gateways.into_iter().filter(|it| pool.has(*it)).collect();
    let ends: BTreeSet<IpAddr> = live(facts).flat_map(|it| &it.subnets).flat_map(ends).collect();
    let ends: Vec<IpAddr> = ends.into_iter().filter(|it| pool.has(*it)).collect();
    let finding = |code, what: &str, addresses: Vec<IpAddr>| {
        (!addresses.is_empty()).then(|| {
            Finding::new(code, about(pool), format!("{what} are in it: {}", list(addresses)))
        })
    };
    let findings = [
        finding(Code::A706, "addresses of nodes", own),
        finding(Code::A707, "default routers", gateways),
        finding(Code::A708, "network or broadcast addresses", ends),
    ];
    findings.into_iter().flatten().collect()
}

/// The network and the broadcast address of an IPv4 subnet.
fn ends(net: &IpNet) -> Vec<IpAddr> {
    match net {
        IpNet::V4(net) if net.prefix_len() < 31 => {
            vec![net.network().into(), net.broadcast().into()]
        }
        _ => Vec::new(),
    }
}

/// Whether the pool's rules leave anybody who announces.
fn by_rules(pool: &Pool, facts: &Facts) -> Vec<Finding> {
    if facts.nodes.is_err() || pool.rules.is_empty() || pool.routed {
        return Vec::new();
    }
    let selected: BTreeSet<&str> = hosts(facts)
        .into_iter()
        .filter(|node| pool.rules.iter().any(|rule| selects(rule, node)))
        .map(|node| node.name.as_str())
        .collect();
    let finding = |code, seen| vec![Finding::new(code, about(pool), seen)];
    if selected.is_empty() {
        return finding(Code::A713, "its nodeSelectors select no node".to_owned());
    }
    let findings = unnamed(pool, facts);
    if !findings.is_empty() {
        return findings;
    }
    let Some(able) = candidates(facts) else { return Vec::new() };
    let left: Vec<&str> = able.iter().copied().filter(|it| selected.contains(it)).collect();
    match left[..] {
        [] if !able.is_empty() => {
            let seen = format!(
                "the nodes that its nodeSelectors select may not announce, or have no ready speaker: {}",
                list(selected)
            );
            finding(Code::A713, seen)
        }
        [only] if able.len() > 1 => {
            finding(Code::A714, format!("of {} nodes, only {only} may announce it", able.len()))
        }
        _ => Vec::new(),
    }
}

fn selects(rule: &Rule, node: &Node) -> bool {
    let facts = NodeFacts { labels: node.labels.clone(), ..NodeFacts::default() };
    rule.selects(Some(&facts))
}

/// Interfaces that no node has that is to announce on them.
fn unnamed(pool: &Pool, facts: &Facts) -> Vec<Finding> {
    let nodes = facts.nodes.as_deref().unwrap_or_default();
    // Speakers that say nothing of interfaces are of an earlier release, or have none yet.
    let sessions = || live(facts).filter(|it| !it.interfaces.is_empty());
    let sessions_of = |rule: &Rule| {
        let named: BTreeSet<&str> = nodes
            .iter()
            .filter(|node| selects(rule, node))
            .map(|node| node.name.as_str())
            .collect();
        sessions().filter(move |it| named.contains(it.node.as_str()))
    };
    let has = |rule: &Rule, it: &Session| {
        rule.interfaces.is_empty()
            || it.interfaces.iter().any(|name| rule.interfaces.iter().any(|by| by.matches(name)))
    };
    if sessions().next().is_none() {
        return Vec::new();
    }
    let can = pool.rules.iter().any(|rule| sessions_of(rule).any(|it| has(rule, it)));
    let severity = if can { Code::A715.severity() } else { Severity::Error };
    let mut lost = BTreeSet::new();
    for rule in &pool.rules {
        let of_rule: Vec<&Session> = sessions_of(rule).collect();
        let is_lost = |name: &&str| {
            let by = rule.interfaces.iter().find(|it| it.as_str() == *name);
            let names = of_rule.iter().flat_map(|it| &it.interfaces);
            !of_rule.is_empty() && by.is_some_and(|by| !names.into_iter().any(|it| by.matches(it)))
        };
        lost.extend(rule.interfaces.iter().map(Pattern::as_str).filter(is_lost));
    }
    let seen = |lost| format!("no node that is to announce it there has such an interface: {lost}");
    let finding = |lost| Finding::new(Code::A715, about(pool), seen(lost)).with(severity);
    (!lost.is_empty()).then(|| finding(list(lost))).into_iter().collect()
}

/// Whether the pool's addresses are on the nodes' segments at all, and on how many nodes'.
fn places(pool: &Pool, facts: &Facts) -> Option<Finding> {
    let names_interfaces = pool.rules.iter().any(|rule| !rule.interfaces.is_empty());
    if pool.routed || names_interfaces || live(facts).next().is_none() {
        return None;
    }
    let outside = pool.ranges.iter().filter(|range| nodes_at(range, facts).is_empty());
    let outside: Vec<String> = outside.map(ToString::to_string).collect();
    if !outside.is_empty() {
        let seen = format!(
            "not within a subnet of any node: {}; only a router with a route to them reaches them",
            list(outside)
        );
        return Some(Finding::new(Code::A709, about(pool), seen));
    }
    let all: BTreeSet<&str> = live(facts).map(|it| it.node.as_str()).collect();
    let few = pool.ranges.iter().map(|range| (range, nodes_at(range, facts)));
    let (range, nodes) = few.min_by_key(|(_, nodes)| nodes.len())?;
    let seen = format!(
        "of {} nodes, {} of them in the subnet of {range}: {}",
        all.len(),
        nodes.len(),
        list(&nodes)
    );
    match nodes.len() {
        1 if all.len() > 1 => Some(Finding::new(Code::A710, about(pool), seen)),
        some if some < all.len() => {
            Some(Finding::new(Code::A710, about(pool), seen).with(Severity::Info))
        }
        _ => None,
    }
}

/// The nodes that have both ends of the range in one of their subnets.
fn nodes_at<'a>(range: &AddressRange, facts: &'a Facts) -> BTreeSet<&'a str> {
    let is_there = |net: &IpNet| {
        net.prefix_len() < net.max_prefix_len()
            && net.contains(&range.first())
            && net.contains(&range.last())
    };
    live(facts).filter(|it| it.subnets.iter().any(is_there)).map(|it| it.node.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use arpeggio_labels::Selector;

    use super::*;
    use crate::{
        checks::sample::{codes, facts, offer, survey_of},
        facts::Use,
    };

    fn pool(name: &str, ranges: &[&str]) -> Pool {
        let ranges = ranges.iter().map(|it| it.parse().unwrap()).collect();
        Pool { name: name.to_owned(), ranges, ..Pool::default() }
    }

    fn found(pools: Vec<Pool>) -> Vec<Code> {
        let findings = check(&Facts { pools: Ok(pools), ..facts() });
        findings.into_iter().map(|it| it.code).collect()
    }

    #[test]
    fn addresses_are_judged() {
        let table: [(&[&str], &[Code]); 12] = [
            (&["192.168.0.240-192.168.0.250"], &[]),
            (&["192.168.0.240-192.168.0.250", "fd00:a0::240-fd00:a0::250"], &[Code::A711]),
            (&["192.168.0.11-192.168.0.12"], &[Code::A706]),
            (&["192.168.0.1/32"], &[Code::A707]),
            (&["192.168.0.255/32"], &[Code::A708]),
            (&["10.244.1.7/32"], &[Code::A704, Code::A709]),
            (&["10.96.0.0/24"], &[Code::A705, Code::A709]),
            (&["172.16.0.0/24"], &[Code::A709]),
            (&["192.168.0.240/32", "172.16.0.1/32"], &[Code::A709]),
            (&["fd00:b0::/64"], &[Code::A709, Code::A711]),
            (&["192.168.1.10/32"], &[Code::A710]),
            (&["192.168.0.240-192.168.1.3"], &[Code::A706, Code::A708, Code::A709]),
        ];
        for (ranges, expected) in table {
            assert_eq!(found(vec![pool("p", ranges)]), expected, "{ranges:?}");
        }
    }

    #[test]
    fn pools_must_not_overlap() {
        let pools = vec![pool("a", &["192.168.0.240/31"]), pool("b", &["192.168.0.241/32"])];
        assert_eq!(found(pools), [Code::A703]);
    }

    #[test]
    fn what_is_routed_or_named_need_not_be_on_the_segment() {
        let far = pool("far", &["172.16.0.0/24"]);
        assert_eq!(found(vec![Pool { routed: true, ..far.clone() }]), []);
        let rules = vec![Rule { interfaces: vec!["eth0".into()], ..Rule::default() }];
        assert_eq!(found(vec![Pool { rules, ..far.clone() }]), []);
        let nobody = Facts { pools: Ok(vec![far]), sessions: Ok(vec![]), ..facts() };
        assert_eq!(codes(&check(&nobody)), [], "nothing is known of subnets");
    }

    /// A rule for the node of this name, on interfaces of these names.
    fn rule(node: &str, interfaces: &[&str]) -> Rule {
        let selector = Selector::default().with_label("kubernetes.io/hostname", node).unwrap();
        Rule {
            nodes: vec![selector],
            interfaces: interfaces.iter().map(|it| (*it).into()).collect(),
            ..Rule::default()
        }
    }

    #[test]
    fn rules_that_leave_nobody_are_found() {
        use Severity::{Error, Info, Warning};
        let found = |rules: Vec<Rule>, change: &dyn Fn(&mut Facts)| {
            let mut facts = facts();
            facts.pools = Ok(vec![Pool { rules, ..pool("p", &["192.168.0.240/32"]) }]);
            change(&mut facts);
            codes(&check(&facts))
        };
        let unchanged: &dyn Fn(&mut Facts) = &|_| {};
        let two = || vec![rule("node-1", &[]), rule("node-2", &[])];
        assert_eq!(found(two(), unchanged), []);
        assert_eq!(found(vec![rule("nodde-1", &[])], unchanged), [(Code::A713, Error)]);
        assert_eq!(found(vec![rule("node-1", &[])], unchanged), [(Code::A714, Info)]);
        let excluded: &dyn Fn(&mut Facts) = &|it| it.nodes.as_mut().unwrap()[0].excluded = true;
        assert_eq!(found(vec![rule("node-1", &[])], excluded), [(Code::A713, Error)]);
        let before: &dyn Fn(&mut Facts) = &|it| {
            (it.stage, it.installation, it.sessions) =
                (Stage::Before, Err("before".into()), Err("before".into()));
        };
        assert_eq!(found(vec![rule("nodde-1", &[])], before)[0], (Code::A713, Error));

        let on = |names: &[&str]| {
            vec![Rule { interfaces: rule("", names).interfaces, ..Rule::default() }]
        };
        assert_eq!(found(on(&["eth*"]), unchanged), []);
        assert_eq!(found(on(&["ens192"]), unchanged), [(Code::A715, Error)]);
        assert_eq!(found(on(&["ens192", "eth0"]), unchanged), [(Code::A715, Warning)]);
        let mixed = vec![rule("node-1", &["eth0"]), rule("node-2", &["eth7"])];
        assert_eq!(found(mixed, unchanged), [(Code::A715, Warning)]);
        let silent: &dyn Fn(&mut Facts) = &|it| {
            it.sessions.as_mut().unwrap().iter_mut().for_each(|it| it.interfaces.clear());
        };
        assert_eq!(found(on(&["ens192"]), silent), [], "nothing is known of them");
    }

    #[test]
    fn what_is_used_of_a_pool_tells_of_ranges_that_nobody_tells() {
        let found = |ranges: &[&str], address: [u8; 4], by: User| {
            let used = Use { address: address.into(), by, service: "shop/db".into() };
            let mut facts = Facts { uses: vec![used], service_ranges: Ok(vec![]), ..facts() };
            facts.nodes.as_mut().unwrap().iter_mut().for_each(|it| it.pod_ranges.clear());
            facts.sessions = Ok(vec![]);
            facts.pools = Ok(vec![pool("p", ranges)]);
            let found = codes(&check(&facts)).into_iter();
            found.filter(|(_, severity)| *severity > Severity::Unchecked).collect::<Vec<_>>()
        };
        let pods = &["10.42.0.0/24"][..];
        assert_eq!(found(pods, [10, 42, 0, 7], User::Pod), [(Code::A704, Severity::Error)]);
        assert_eq!(found(pods, [10, 42, 1, 7], User::Pod), []);
        let of_node = [(Code::A706, Severity::Warning)];
        assert_eq!(found(&["192.168.0.11/32"], [192, 168, 0, 11], User::Pod), of_node);
        assert_eq!(found(pods, [10, 42, 0, 1], User::ClusterIp), [(Code::A705, Severity::Error)]);
    }

    #[test]
    fn an_address_of_a_pool_is_nobody_elses() {
        let found = |change: &dyn Fn(&mut Facts)| {
            let mut facts = facts();
            change(&mut facts);
            codes(&check(&facts))
        };
        let external = |service: &str, last| {
            let address = [192, 168, 0, last].into();
            vec![Use { address, by: User::ExternalIp, service: service.into() }]
        };
        let wrong = [(Code::A716, Severity::Warning)];
        assert_eq!(found(&|it| it.uses = external("shop/db", 240)), wrong);
        assert_eq!(found(&|it| it.uses = external("shop/db", 9)), []);
        assert_eq!(found(&|it| it.uses = external("default/web", 240)), [], "it was given it");
        let theirs = |it: &mut Facts| {
            let path = "shop/theirs".to_owned();
            it.services.as_mut().unwrap().push(Service {
                path,
                other_class: Some("kube-vip".into()),
                addresses: vec![[192, 168, 0, 245].into()],
                ..Service::default()
            });
        };
        assert_eq!(found(&theirs), wrong);
    }

    #[test]
    fn what_the_controller_says_counts() {
        let said = Pool {
            unready: Some("Invalid".into()),
            full: Some(5),
            ..pool("p", &["192.168.0.240/32"])
        };
        assert_eq!(found(vec![said]), [Code::A702, Code::A712]);
    }

    #[test]
    fn a_small_pool_may_be_full_on_purpose() {
        for (size, severity) in [(1, Severity::Info), (4, Severity::Info), (5, Severity::Warning)] {
            let full = Pool { full: Some(size), ..pool("p", &["192.168.0.240/32"]) };
            let facts = Facts { pools: Ok(vec![full]), ..facts() };
            assert_eq!(codes(&check(&facts)), [(Code::A712, severity)], "{size}");
        }
        let rules = include_str!("../../../../manifests/components/monitoring/rules.yaml");
        let alert =
            format!("arpeggio_pool_addresses - arpeggio_pool_addresses_reserved >= {SPACIOUS}");
        assert!(rules.contains(&alert), "{alert}");
    }

    #[test]
    fn what_a_pool_avoids_is_not_of_it() {
        let ends = pool("p", &["192.168.0.240-192.168.0.255"]);
        assert_eq!(found(vec![ends.clone()]), [Code::A708]);
        assert_eq!(found(vec![Pool { avoid_buggy_ips: true, ..ends }]), []);
    }

    #[test]
    fn that_nobody_says_where_pods_are_is_told() {
        let mut facts = facts();
        facts.nodes.as_mut().unwrap().iter_mut().for_each(|it| it.pod_ranges.clear());
        let unchecked = |code| (code, Severity::Unchecked);
        assert_eq!(codes(&check(&facts)), [unchecked(Code::A704)]);
    }

    #[test]
    fn a_dhcp_server_must_not_give_out_what_is_in_a_pool() {
        let leased = |change: &dyn Fn(&mut Facts)| {
            let mut facts = facts();
            change(&mut facts);
            codes(&check(&facts))
        };
        let offers = |facts: &mut Facts, offers| survey_of(facts, "node-1").offers = offers;
        assert_eq!(leased(&|_| {}), [], "it gives out others");
        let wrong = [(Code::A711, Severity::Error)];
        assert_eq!(leased(&|it| offers(it, vec![offer(100), offer(241)])), wrong);
        assert_eq!(
            leased(&|it| offers(it, vec![offer(245)])),
            wrong,
            "nobody has asked for this one"
        );
        let unknown = [(Code::A711, Severity::Unchecked)];
        assert_eq!(leased(&|it| offers(it, vec![])), unknown, "nobody answers");
        assert_eq!(leased(&|it| it.surveys.clear()), unknown);
        let routed = |it: &mut Facts| {
            offers(it, vec![offer(241)]);
            it.pools.as_mut().unwrap()[0].routed = true;
        };
        assert_eq!(leased(&routed), [], "nobody is to announce them");
    }

    #[test]
    fn no_pool_is_bad_where_somebody_waits() {
        let mut facts = Facts { pools: Ok(vec![]), ..facts() };
        assert_eq!(codes(&check(&facts)), [(Code::A701, Severity::Warning)]);
        facts.services = Ok(vec![]);
        assert_eq!(codes(&check(&facts)), [(Code::A701, Severity::Info)]);
        facts.stage = Stage::Before;
        assert_eq!(codes(&check(&facts)), []);
    }
}

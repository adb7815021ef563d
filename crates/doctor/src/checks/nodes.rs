//! The nodes themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    answered, known, list,
    pods::{candidates, hosts, names},
};
use crate::{
    code::Code,
    facts::{Facts, Node, Session, Stage},
    finding::Finding,
    survey::{Neighbours, StrictPath},
};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = of_objects(facts);
    findings.extend(crowded(facts));
    findings.extend(strict(facts));
    findings.extend(cloned(facts));
    findings
}

fn of_objects(facts: &Facts) -> Vec<Finding> {
    known(Code::A601, "nodes", &facts.nodes, |nodes| {
        let hosts = hosts(facts);
        let mut findings: Vec<Finding> =
            hosts.iter().filter_map(|node| unready(node).or_else(|| barred(node))).collect();
        findings.extend(shared(nodes));
        findings.extend(excluded(&hosts, facts).or_else(|| alone(&hosts, facts)));
        findings
    })
}

fn unready(node: &Node) -> Option<Finding> {
    let about = format!("node {}", node.name);
    let seen = "Kubernetes does not call it Ready: it announces only when no other node may";
    (!node.ready).then(|| Finding::new(Code::A604, about, seen))
}

fn barred(node: &Node) -> Option<Finding> {
    let seen = format!("it never announces: {}", node.barred.as_ref()?);
    Some(Finding::new(Code::A608, format!("node {}", node.name), seen))
}

/// Addresses that several nodes say are theirs, as machines do that have the same one behind a NAT each.
fn shared(nodes: &[Node]) -> Vec<Finding> {
    let mut nodes_of: BTreeMap<IpAddr, BTreeSet<&str>> = BTreeMap::new();
    for node in nodes {
        for address in &node.internal {
            nodes_of.entry(*address).or_default().insert(&node.name);
        }
    }
    let shared = nodes_of.into_iter().filter(|(_, nodes)| nodes.len() > 1);
    let finding = |(address, nodes): (IpAddr, BTreeSet<&str>)| {
        let seen = format!("several nodes have it: {}", list(nodes));
        Finding::new(Code::A607, format!("address {address}"), seen)
    };
    shared.map(finding).collect()
}

/// Nodes with one MAC address on one segment, as machines have that were copied.
fn cloned(facts: &Facts) -> Vec<Finding> {
    let sessions = facts.sessions.as_deref().unwrap_or_default().iter().filter(|it| it.is_live());
    let mut links: BTreeMap<&str, Vec<(&Session, IpAddr)>> = BTreeMap::new();
    for session in sessions {
        for (address, mac) in &session.links {
            links.entry(mac).or_default().push((session, *address));
        }
    }
    let mut findings = Vec::new();
    for (mac, links) in links {
        let has_twin = |(session, address): &&(&Session, IpAddr)| {
            links.iter().any(|(other, at)| {
                // Machines behind a NAT each may have all of this in common, and never meet.
                other.node != session.node
                    && at != address
                    && session.subnets.iter().any(|it| it.contains(address) && it.contains(at))
            })
        };
        let twins: BTreeSet<&str> =
            links.iter().filter(has_twin).map(|(it, _)| it.node.as_str()).collect();
        if !twins.is_empty() {
            let seen = format!("several nodes have it on one segment: {}", list(twins));
            findings.push(Finding::new(Code::A606, format!("MAC address {mac}"), seen));
        }
    }
    findings
}

/// Nodes whose kernels have no room for another neighbour.
fn crowded(facts: &Facts) -> impl Iterator<Item = Finding> {
    answered(&facts.surveys).flat_map(|(node, survey)| {
        let crowded = survey.neighbours.iter().filter(|it| it.are_many());
        crowded.map(move |it| {
            let Neighbours { setting, entries, limit } = it;
            let seen = format!(
                "its kernel knows {entries} neighbours, and {setting} lets it know {limit}"
            );
            Finding::new(Code::A605, format!("node {node}"), seen)
        })
    })
}

/// Nodes whose kernels drop what clients beyond a router send to addresses of pools.
fn strict(facts: &Facts) -> Vec<Finding> {
    let pools = facts.pools.as_deref().unwrap_or_default();
    let ranges: Vec<_> = pools.iter().flat_map(|pool| &pool.ranges).collect();
    let is_of_a_pool = |path: &&StrictPath| {
        path.subnets.iter().any(|net| {
            ranges.iter().any(|range| net.contains(&range.first()) || range.contains(net.addr()))
        })
    };
    let finding = |node: &String, path: &StrictPath| {
        let StrictPath { interface, default_by, .. } = path;
        let seen = format!(
            "it drops what clients beyond a router send to addresses on {interface}: rp_filter is 1 there, and the default route leaves by {default_by}"
        );
        Finding::new(Code::A609, format!("node {node}"), seen)
    };
    let of_nodes = answered(&facts.surveys).flat_map(|(node, survey)| {
        survey.strict_paths.iter().filter(is_of_a_pool).map(move |path| finding(node, path))
    });
    of_nodes.collect()
}

fn excluded(nodes: &[&Node], facts: &Facts) -> Option<Finding> {
    let obeyed = facts
        .installation
        .as_ref()
        .map_or(true, |it| it.obeys_exclusion || facts.stage == Stage::Before);
    let all = !nodes.is_empty() && nodes.iter().all(|node| node.excluded);
    (all && obeyed).then(|| {
        let nodes = names(nodes.iter().copied());
        let label = "node.kubernetes.io/exclude-from-external-load-balancers";
        Finding::new(
            Code::A601,
            "nodes",
            format!("all have the label {label}, so none announces: {nodes}"),
        )
    })
}

fn alone(nodes: &[&Node], facts: &Facts) -> Option<Finding> {
    if let [only] = nodes {
        let seen = "the cluster has one node: addresses die with it";
        return Some(Finding::new(Code::A603, format!("node {}", only.name), seen));
    }
    let candidates = match facts.stage {
        Stage::Before => {
            let may = |it: &&&Node| it.ready && !it.excluded && it.barred.is_none();
            nodes.iter().filter(may).map(|it| it.name.as_str()).collect()
        }
        Stage::Installed => candidates(facts)?,
    };
    match candidates[..] {
        [only] => {
            let seen = "only this node may announce: the others are excluded, not Ready, or have no ready speaker";
            Some(Finding::new(Code::A602, format!("node {only}"), seen))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::sample::{codes, facts},
        finding::Severity,
    };

    #[test]
    fn a_full_table_of_neighbours_is_told_before_it_is_full() {
        let with = |entries| {
            let setting = "net.ipv4.neigh.default.gc_thresh3".into();
            let neighbours = vec![Neighbours { setting, entries, limit: 1024 }];
            let mut facts = facts();
            facts.surveys.values_mut().flatten().for_each(|it| it.neighbours = neighbours.clone());
            check(&facts)
        };
        assert!(with(900).is_empty());
        let told = with(1_000);
        assert_eq!(told.len(), facts().surveys.len());
        assert_eq!(codes(&told[..1]), [(Code::A605, Severity::Warning)]);
    }

    #[test]
    fn a_strict_kernel_matters_where_addresses_of_pools_are() {
        let with = |net: &str| {
            let path = StrictPath {
                interface: "eth1".into(),
                subnets: vec![net.parse().unwrap()],
                default_by: "eth0".into(),
            };
            let mut facts = facts();
            let survey = facts.surveys.values_mut().next().unwrap().as_mut().unwrap();
            survey.strict_paths = vec![path];
            codes(&check(&facts))
        };
        assert_eq!(with("192.168.0.11/24"), [(Code::A609, Severity::Warning)]);
        assert_eq!(with("10.7.0.11/24"), []);
    }

    #[test]
    fn machines_that_were_copied_are_found() {
        let changed = |change: &dyn Fn(&mut Facts)| {
            let mut facts = facts();
            change(&mut facts);
            codes(&check(&facts))
        };
        let mac = |facts: &mut Facts| {
            let sessions = facts.sessions.as_mut().unwrap();
            sessions[1].links[0].1 = sessions[0].links[0].1.clone();
        };
        assert_eq!(changed(&mac), [(Code::A606, Severity::Error)]);
        let behind_nat = |facts: &mut Facts| {
            for session in facts.sessions.as_mut().unwrap() {
                session.links.push(([10, 0, 2, 15].into(), "08:00:27:00:00:01".into()));
                session.subnets.push("10.0.2.15/24".parse().unwrap());
            }
        };
        assert_eq!(changed(&behind_nat), [], "each is on a segment of its own");
        let address = |facts: &mut Facts| {
            for node in facts.nodes.as_mut().unwrap() {
                node.internal = vec![[10, 0, 2, 15].into()];
            }
        };
        let router = |facts: &mut Facts| {
            for node in facts.nodes.as_mut().unwrap() {
                node.addresses.push([203, 0, 113, 1].into());
            }
        };
        assert_eq!(changed(&router), [], "they are behind it");
        assert_eq!(changed(&address), [(Code::A607, Severity::Error)]);
        let barred = |facts: &mut Facts| {
            facts.nodes.as_mut().unwrap()[0].barred = Some("NetworkUnavailable".into());
        };
        assert_eq!(changed(&barred), [(Code::A608, Severity::Warning)]);
    }

    fn changed(change: impl Fn(usize, &mut Node)) -> Facts {
        let mut facts = facts();
        let nodes = facts.nodes.as_mut().unwrap();
        nodes.iter_mut().enumerate().for_each(|(index, node)| change(index, node));
        facts
    }

    #[test]
    fn labels_and_numbers_count() {
        use Severity::{Error, Info, Warning};
        assert!(check(&facts()).is_empty());
        assert_eq!(codes(&check(&changed(|_, it| it.excluded = true))), [(Code::A601, Error)]);
        assert_eq!(codes(&check(&changed(|at, it| it.excluded = at > 0))), [(Code::A602, Warning)]);
        assert_eq!(codes(&check(&changed(|at, it| it.excluded = at > 1))), []);
        assert_eq!(codes(&check(&changed(|at, it| it.ready = at > 0))), [(Code::A604, Warning)]);
        let mut one = facts();
        one.nodes.as_mut().unwrap().truncate(1);
        assert_eq!(codes(&check(&one)), [(Code::A603, Info)]);
        let mut ignored = changed(|_, it| it.excluded = true);
        ignored.installation.as_mut().unwrap().obeys_exclusion = false;
        assert_eq!(codes(&check(&ignored)), []);
        let mut before = changed(|_, it| it.excluded = true);
        before.stage = Stage::Before;
        before.installation = Err("before".to_owned());
        assert_eq!(codes(&check(&before)), [(Code::A601, Error)]);
    }
}

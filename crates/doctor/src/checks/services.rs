//! What is behind the addresses.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{known, list, pods::candidates};
use crate::{
    code::Code,
    facts::{Facts, Service},
    finding::Finding,
};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    known(Code::S101, "Services", &facts.services, |services| {
        let (ours, theirs): (Vec<&Service>, Vec<&Service>) =
            services.iter().filter(|it| !it.ending).partition(|it| it.is_ours());
        let mut findings: Vec<Finding> = ours.iter().flat_map(|it| one(it, facts)).collect();
        if !theirs.is_empty() {
            let seen = format!(
                "they are of another load balancer's class: {}",
                list(theirs.iter().map(|it| &it.path))
            );
            findings.push(Finding::new(Code::S106, "Services", seen));
        }
        if ours.iter().any(|it| !it.addresses.is_empty()) {
            findings.extend(untried(&ours));
        }
        findings
    })
}

fn about(service: &Service) -> String {
    format!("Service {}", service.path)
}

fn one(service: &Service, facts: &Facts) -> Vec<Finding> {
    let waits =
        service.waits.as_ref().map(|why| Finding::new(Code::S101, about(service), said(why)));
    let behind = unready(service).or_else(|| stranded(service, facts));
    let ports = if behind.is_none() { unanswered(service, facts) } else { Vec::new() };
    waits.into_iter().chain(behind).chain(ports).collect()
}

fn said(why: &str) -> &str {
    if why.is_empty() { "no controller has looked at it" } else { why }
}

fn unready(service: &Service) -> Option<Finding> {
    let Some(_) = &service.ready_on else {
        return Some(Finding::unchecked(
            Code::S102,
            about(service),
            "its EndpointSlices could not be read",
        ));
    };
    let seen = if service.selects {
        "no pod that it selects is ready"
    } else {
        "it has no selector and no ready endpoint"
    };
    (!service.has_endpoints).then(|| Finding::new(Code::S102, about(service), seen))
}

/// With `externalTrafficPolicy: Local`, the pods must be where the address can be.
fn stranded(service: &Service, facts: &Facts) -> Option<Finding> {
    let ready = service.ready_on.as_ref().filter(|_| service.local)?;
    let candidates = candidates(facts)?;
    let is_none = !candidates.iter().any(|node| ready.contains(*node));
    let seen = format!(
        "externalTrafficPolicy is Local, and its ready pods are on nodes that may not announce: {}",
        list(ready)
    );
    is_none.then(|| Finding::new(Code::S103, about(service), seen))
}

fn unanswered(service: &Service, facts: &Facts) -> Vec<Finding> {
    if service.restricted {
        return Vec::new();
    }
    let places = service
        .addresses
        .iter()
        .flat_map(|ip| service.tcp.iter().map(|port| SocketAddr::new(*ip, *port)));
    places.filter_map(|place| port(service, place, facts)).collect()
}

fn port(service: &Service, place: SocketAddr, facts: &Facts) -> Option<Finding> {
    let surveys = facts.surveys.iter().filter_map(|(node, it)| Some((node, it.as_ref().ok()?)));
    let tried = surveys
        .filter_map(|(node, it)| Some((node, it.connects.iter().find(|it| it.to == place)?)));
    // From a node without a pod of its own a Service with Local need not be reached.
    let counts = |node: &str| {
        !service.local || service.ready_on.as_ref().is_some_and(|it| it.contains(node))
    };
    let tried: BTreeMap<&str, Option<&str>> = tried
        .filter(|(node, _)| counts(node))
        .map(|(node, connect)| (node.as_str(), connect.error.as_deref()))
        .collect();
    let failed =
        tried.iter().filter_map(|(node, error)| Some(format!("from {node}: {}", (*error)?)));
    let failed: Vec<String> = failed.collect();
    if failed.is_empty() {
        return None;
    }
    let (code, which) = if failed.len() == tried.len() {
        (Code::S104, "no node reaches it")
    } else {
        (Code::S105, "not all nodes reach it")
    };
    Some(Finding::new(code, about(service), format!("{place}: {which}; {}", list(failed))))
}

/// What nobody has tried, so that nobody takes silence for health.
fn untried(ours: &[&Service]) -> Vec<Finding> {
    let mut findings = vec![Finding::unchecked(
        Code::S107,
        "pods",
        "whether pods reach these addresses, too; nodes were asked only",
    )];
    let other = ours.iter().filter(|it| it.other_ports > 0).map(|it| &it.path);
    let restricted = ours.iter().filter(|it| it.restricted).map(|it| &it.path);
    let why = [
        ("ports that are not TCP", other.collect::<Vec<_>>()),
        ("Services with loadBalancerSourceRanges", restricted.collect()),
    ];
    for (what, which) in why.into_iter().filter(|(_, which)| !which.is_empty()) {
        findings.push(Finding::unchecked(Code::S104, what, &list(which)));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::sample::{codes, facts, survey_of},
        finding::Severity::{self, Error, Info, Unchecked, Warning},
        survey::Connect,
    };

    const HAIRPIN: (Code, Severity) = (Code::S107, Unchecked);

    fn changed(change: impl FnOnce(&mut Service)) -> Vec<(Code, Severity)> {
        let mut facts = facts();
        change(&mut facts.services.as_mut().unwrap()[0]);
        codes(&check(&facts))
    }

    #[test]
    fn each_fault_has_its_code() {
        assert_eq!(changed(|_| {}), [HAIRPIN]);
        assert_eq!(changed(|it| it.waits = Some(String::new())), [(Code::S101, Warning), HAIRPIN]);
        assert_eq!(changed(|it| it.has_endpoints = false), [(Code::S102, Warning), HAIRPIN]);
        assert_eq!(changed(|it| it.ready_on = None), [(Code::S102, Unchecked), HAIRPIN]);
        assert_eq!(changed(|it| it.other_class = Some("x".into())), [(Code::S106, Info)]);
        assert_eq!(changed(|it| it.other_ports = 1), [HAIRPIN, (Code::S104, Unchecked)]);
        let elsewhere =
            |it: &mut Service| (it.local, it.ready_on) = (true, Some(["far".to_owned()].into()));
        assert_eq!(changed(elsewhere), [(Code::S103, Error), HAIRPIN]);
        let here = |it: &mut Service| it.local = true;
        assert_eq!(changed(here), [HAIRPIN]);
    }

    #[test]
    fn ports_are_tried_from_several_nodes() {
        let connect = |error: Option<&str>| Connect {
            to: "192.168.0.240:80".parse().unwrap(),
            error: error.map(str::to_owned),
        };
        let tried = |one: Option<&str>, other: Option<&str>, local| {
            let mut facts = facts();
            survey_of(&mut facts, "node-1").connects = vec![connect(one)];
            survey_of(&mut facts, "node-2").connects = vec![connect(other)];
            let service = &mut facts.services.as_mut().unwrap()[0];
            (service.local, service.ready_on) = (local, Some(["node-1".to_owned()].into()));
            codes(&check(&facts))
        };
        assert_eq!(tried(None, None, false), [HAIRPIN]);
        assert_eq!(tried(Some("refused"), Some("refused"), false), [(Code::S104, Error), HAIRPIN]);
        assert_eq!(tried(None, Some("refused"), false), [(Code::S105, Warning), HAIRPIN]);
        assert_eq!(tried(None, Some("refused"), true), [HAIRPIN], "no pod of it is there");
    }
}

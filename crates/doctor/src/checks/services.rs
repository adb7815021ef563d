//! What is behind the addresses.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::{answered, known, list, pods::candidates, unasked};
use crate::{
    code::Code,
    facts::{Asking, Facts, Service},
    finding::Finding,
    survey::{Connect, Survey},
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
            findings.extend(untried(&ours, facts));
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
    let lonely = if behind.is_none() { lonely(service, facts) } else { None };
    let ports = if behind.is_none() { unanswered(service, facts) } else { Vec::new() };
    waits.into_iter().chain(behind).chain(lonely).chain(ports).collect()
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

/// With `externalTrafficPolicy: Local`, an address only outlives its node where pods are elsewhere, too.
fn lonely(service: &Service, facts: &Facts) -> Option<Finding> {
    let ready =
        service.ready_on.as_ref().filter(|_| service.local && !service.addresses.is_empty())?;
    let able = candidates(facts)?;
    let holding: Vec<&str> = able.iter().copied().filter(|it| ready.contains(*it)).collect();
    let [only] = holding[..] else { return None };
    let seen = format!(
        "externalTrafficPolicy is Local, and of {} nodes that may announce only {only} has ready pods",
        able.len()
    );
    (able.len() > 1).then(|| Finding::new(Code::S108, about(service), seen))
}

/// How a port is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A connection, which somebody has to accept.
    Tcp,
    /// A datagram, which somebody may refuse. Silence says nothing.
    Udp,
}

impl Way {
    fn attempts(self, survey: &Survey) -> &[Connect] {
        match self {
            Self::Tcp => &survey.connects,
            Self::Udp => &survey.knocks,
        }
    }

    fn name(self, place: SocketAddr) -> String {
        match self {
            Self::Tcp => place.to_string(),
            Self::Udp => format!("{place}/UDP"),
        }
    }
}

fn places<'a>(service: &'a Service, ports: &'a [u16]) -> impl Iterator<Item = SocketAddr> + 'a {
    let of = |ip: IpAddr| ports.iter().map(move |port| SocketAddr::new(ip, *port));
    service.addresses.iter().copied().flat_map(of)
}

/// All ports, and how each is tried.
fn ways(service: &Service) -> impl Iterator<Item = (SocketAddr, Way)> + '_ {
    let tcp = places(service, &service.tcp).map(|it| (it, Way::Tcp));
    tcp.chain(places(service, &service.udp).map(|it| (it, Way::Udp)))
}

fn unanswered(service: &Service, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (place, way) in ways(service) {
        match port(service, place, way, facts) {
            Some(finding) => findings.push(finding),
            None => findings.extend(from_pods(service, place, facts).filter(|_| way == Way::Tcp)),
        }
    }
    findings
}

fn port(service: &Service, place: SocketAddr, way: Way, facts: &Facts) -> Option<Finding> {
    let tried = tried(place, way, facts);
    // From a node without a pod of its own a Service with Local need not be reached.
    let counts = tried.iter().filter(|(node, _)| service.has_pod_for(node));
    let counts: BTreeMap<&str, Option<&str>> =
        counts.map(|(node, error)| (node.as_str(), *error)).collect();
    let failed =
        counts.iter().filter_map(|(node, error)| Some(format!("from {node}: {}", (*error)?)));
    let failed: Vec<String> = failed.collect();
    if failed.is_empty() {
        return None;
    }
    let (code, which) = if failed.len() == counts.len() {
        (Code::S104, "no node reaches it")
    } else {
        (Code::S105, "not all nodes reach it")
    };
    let seen = format!("{}: {which}; {}", way.name(place), list(failed));
    Some(Finding::new(code, about(service), seen))
}

/// The nodes that have tried it, and what kept them from reaching it.
fn tried(place: SocketAddr, way: Way, facts: &Facts) -> BTreeMap<&String, Option<&str>> {
    let attempt = |survey| way.attempts(survey).iter().find(|it| it.to == place);
    let tried = answered(&facts.surveys)
        .filter_map(|(node, it)| Some((node, attempt(it)?.error.as_deref())));
    tried.collect()
}

/// That pods do not reach what nodes do reach.
fn from_pods(service: &Service, place: SocketAddr, facts: &Facts) -> Option<Finding> {
    let pods = answered(&facts.pods).filter(|(node, _)| service.has_pod_for(node));
    let failed = pods.filter_map(|(node, it)| {
        let error = it.iter().find(|it| it.to == place)?.error.as_deref()?;
        Some(format!("from a pod on {node}: {error}"))
    });
    let failed: Vec<String> = failed.collect();
    let seen = || format!("{place}: nodes reach it, and pods do not; {}", list(&failed));
    (!failed.is_empty()).then(|| Finding::new(Code::S107, about(service), seen()))
}

/// What nobody has tried, so that nobody takes silence for health.
fn untried(ours: &[&Service], facts: &Facts) -> Vec<Finding> {
    let paths = |which: &dyn Fn(&Service) -> bool| {
        let which = ours.iter().filter(|it| which(it)).map(|it| &it.path);
        which.collect::<Vec<_>>()
    };
    // All that can be known of UDP is that nobody refuses.
    let silent = |it: &Service| {
        ways(it).any(|(place, way)| {
            let tried = tried(place, way, facts);
            way == Way::Udp && !tried.is_empty() && tried.values().all(Option::is_none)
        })
    };
    let closed = |it: &Service| {
        it.lets_in.is_some() && ways(it).all(|(place, way)| tried(place, way, facts).is_empty())
    };
    let why = [
        ("UDP ports, which nobody refuses: whether somebody answers", paths(&silent)),
        ("ports that are neither TCP nor UDP", paths(&|it| it.other_ports > 0)),
        ("loadBalancerSourceRanges that let no node in", paths(&closed)),
    ];
    let why = why.into_iter().filter(|(_, which)| !which.is_empty());
    let mut findings: Vec<Finding> =
        why.map(|(what, which)| Finding::unchecked(Code::S104, what, &list(which))).collect();
    findings.extend(unasked(facts, Asking::Ports, Code::S104, "ports of Services"));
    findings.extend(no_pod(facts));
    findings.extend(unasked(facts, Asking::PodPorts, Code::S107, "ports of Services"));
    findings
}

/// That no pod has tried anything, and why.
fn no_pod(facts: &Facts) -> Option<Finding> {
    if facts.pods.values().any(Result::is_ok) {
        return None;
    }
    let why = facts.pods.values().find_map(|it| it.as_ref().err());
    let why = why.map_or("no pod of the controller was asked", String::as_str);
    Some(Finding::unchecked(Code::S107, "pods", why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::sample::{codes, facts, survey_of},
        finding::Severity::{self, Error, Info, Unchecked, Warning},
        survey::Connect,
    };

    const NO_POD: (Code, Severity) = (Code::S107, Unchecked);

    fn changed(change: impl FnOnce(&mut Service)) -> Vec<(Code, Severity)> {
        let mut facts = facts();
        change(&mut facts.services.as_mut().unwrap()[0]);
        codes(&check(&facts))
    }

    #[test]
    fn each_fault_has_its_code() {
        assert_eq!(changed(|_| {}), []);
        assert_eq!(changed(|it| it.waits = Some(String::new())), [(Code::S101, Warning)]);
        assert_eq!(changed(|it| it.has_endpoints = false), [(Code::S102, Warning)]);
        assert_eq!(changed(|it| it.ready_on = None), [(Code::S102, Unchecked)]);
        assert_eq!(changed(|it| it.other_class = Some("x".into())), [(Code::S106, Info)]);
        assert_eq!(changed(|it| it.other_ports = 1), [(Code::S104, Unchecked)]);
        let elsewhere =
            |it: &mut Service| (it.local, it.ready_on) = (true, Some(["far".to_owned()].into()));
        assert_eq!(changed(elsewhere), [(Code::S103, Error)]);
        let here = |it: &mut Service| it.local = true;
        assert_eq!(changed(here), []);
        let once =
            |it: &mut Service| (it.local, it.ready_on) = (true, Some(["node-1".to_owned()].into()));
        assert_eq!(changed(once), [(Code::S108, Info)]);
    }

    fn attempt(to: &str, error: Option<&str>) -> Connect {
        Connect { to: to.parse().unwrap(), error: error.map(str::to_owned) }
    }

    const WEB: &str = "192.168.0.240:80";

    #[test]
    fn ports_are_tried_from_several_nodes() {
        let tried = |one: Option<&str>, other: Option<&str>, local| {
            let mut facts = facts();
            survey_of(&mut facts, "node-1").connects = vec![attempt(WEB, one)];
            survey_of(&mut facts, "node-2").connects = vec![attempt(WEB, other)];
            let service = &mut facts.services.as_mut().unwrap()[0];
            (service.local, service.ready_on) = (local, Some(["node-1".to_owned()].into()));
            codes(&check(&facts))
        };
        assert_eq!(tried(None, None, false), []);
        assert_eq!(tried(Some("refused"), Some("refused"), false), [(Code::S104, Error)]);
        assert_eq!(tried(None, Some("refused"), false), [(Code::S105, Warning)]);
        let alone = [(Code::S108, Info)];
        assert_eq!(tried(None, Some("refused"), true), alone, "no pod of it is there");
    }

    #[test]
    fn a_udp_port_may_be_refused_and_its_silence_says_nothing() {
        let tried = |error: Option<&str>| {
            let mut facts = facts();
            facts.services.as_mut().unwrap()[0].udp = vec![53];
            survey_of(&mut facts, "node-1").knocks = vec![attempt("192.168.0.240:53", error)];
            codes(&check(&facts))
        };
        assert_eq!(tried(Some("refused")), [(Code::S104, Error)]);
        assert_eq!(tried(None), [(Code::S104, Unchecked)]);
    }

    #[test]
    fn who_is_not_let_in_tries_nothing() {
        let ranges = |ranges: &[&str]| Service {
            lets_in: Some(ranges.iter().map(|it| it.parse().unwrap()).collect()),
            ..Service::default()
        };
        let (node, pod): (IpAddr, IpAddr) = ([192, 168, 0, 11].into(), [10, 244, 1, 2].into());
        let to: IpAddr = [192, 168, 0, 240].into();
        assert!(Service::default().lets_in([node], to), "everybody is");
        assert!(ranges(&["192.168.0.0/24"]).lets_in([node], to));
        assert!(!ranges(&["192.168.0.0/24"]).lets_in([pod], to));
        assert!(
            !ranges(&["192.168.0.0/24"]).lets_in([node, pod], to),
            "it may come from the other"
        );
        assert!(!ranges(&["192.168.0.0/24"]).lets_in([node], "fd00::1".parse().unwrap()));
        let nobody = |it: &mut Service| it.lets_in = ranges(&["10.9.9.0/24"]).lets_in;
        assert_eq!(changed(nobody), [(Code::S104, Unchecked)], "and that is said");
    }

    #[test]
    fn what_nodes_reach_pods_are_to_reach_too() {
        let from_pod = |attempts: Result<Vec<Connect>, String>, local| {
            let mut facts = facts();
            facts.pods = [("node-3".to_owned(), attempts)].into();
            facts.services.as_mut().unwrap()[0].local = local;
            codes(&check(&facts))
        };
        let lost = || Ok(vec![attempt(WEB, Some("no answer"))]);
        assert_eq!(from_pod(lost(), false), [(Code::S107, Warning)]);
        assert_eq!(from_pod(lost(), true), [], "no pod of it is there");
        assert_eq!(from_pod(Err("why".into()), false), [NO_POD]);
        let mut facts = facts();
        facts.pods.clear();
        assert_eq!(codes(&check(&facts)), [NO_POD]);
        facts.pods = [("node-1".to_owned(), lost())].into();
        survey_of(&mut facts, "node-1").connects = vec![attempt(WEB, Some("refused"))];
        assert_eq!(codes(&check(&facts)), [(Code::S104, Error)], "once is enough");
    }
}

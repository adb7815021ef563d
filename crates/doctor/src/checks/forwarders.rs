//! Whether connections outlive moves, where forwarders are installed.

use std::{collections::BTreeSet, net::IpAddr};

use super::{answered, known, list, pods::with_ready_speaker};
use crate::{
    code::Code,
    facts::{Facts, Forwarder, Installation, Lock},
    finding::Finding,
};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    known(Code::F101, "forwarders", &facts.forwarders, |forwarders| {
        let installation = facts.installation.as_ref().ok();
        let spread = spread(facts);
        let lacks = lacks(&spread);
        let finding = |it: &Forwarder| {
            let left = left(it, facts, installation);
            left.or_else(|| stale(it, &lacks)).or_else(|| unable(it, &lacks))
        };
        let mut findings: Vec<Finding> = forwarders.iter().filter_map(finding).collect();
        findings.extend(forwarders.iter().any(runs).then(|| without_effect(facts)).flatten());
        if let Some(installation) = installation {
            let speakers = with_ready_speaker(installation);
            findings.extend(missing(forwarders, &speakers, &spread, &lacks));
        }
        findings
    })
}

fn runs(forwarder: &Forwarder) -> bool {
    forwarder.running.is_some() || forwarder.newer
}

/// Its rules act on what the kernel's connection tracking knows and kube-proxy translates. It cannot tell by itself that something else
/// translates before them.
fn without_effect(facts: &Facts) -> Option<Finding> {
    let proxy = facts.proxy.as_ref().ok();
    if let Some(program) = proxy.and_then(|it| it.replaced_by.as_ref()) {
        let seen = format!(
            "{program} does kube-proxy's work, and may translate packets before the forwarder's rules: moves reset connections, and one node serves what all are to, though nothing says so"
        );
        return Some(Finding::new(Code::F105, "forwarders", seen));
    }
    let is_ipvs = |mode: Option<&str>| mode == Some("ipvs");
    let on_nodes = answered(&facts.surveys).any(|(_, it)| is_ipvs(it.proxy_mode.as_deref()));
    let seen = "kube-proxy runs in the mode ipvs, with which the forwarder was not tried";
    let found = on_nodes || is_ipvs(proxy.and_then(|it| it.mode.as_deref()));
    found.then(|| Finding::new(Code::F106, "forwarders", seen))
}

/// The addresses that all nodes are to serve.
fn spread(facts: &Facts) -> Vec<IpAddr> {
    let is_spread = |lock: &&Lock| lock.spread && !lock.rests;
    let locks = facts.locks.as_ref().ok().into_iter().flatten();
    locks.filter(is_spread).map(|lock| lock.address).collect()
}

/// What a node without a forwarder that works does not do.
fn lacks(spread: &[IpAddr]) -> String {
    let moves = "moves to and from it reset connections";
    if spread.is_empty() {
        return moves.to_owned();
    }
    let addresses = list(spread);
    format!(
        "{moves}, and of {addresses}, which all nodes are to serve, it serves only what it announces, alone"
    )
}

fn unable(forwarder: &Forwarder, lacks: &str) -> Option<Finding> {
    let why = forwarder.unable.as_ref()?;
    let seen = format!("{lacks}: {why}");
    Some(Finding::new(Code::F101, format!("node {}", forwarder.node), seen))
}

/// What it says of itself is old then.
fn stale(forwarder: &Forwarder, lacks: &str) -> Option<Finding> {
    let why = forwarder.stale.as_ref().filter(|_| runs(forwarder))?;
    let seen = format!("{lacks}: {why}");
    Some(Finding::new(Code::F107, format!("node {}", forwarder.node), seen))
}

/// Where nobody has a forwarder, nobody wants one, unless an address needs it.
fn missing(
    forwarders: &[Forwarder],
    speakers: &BTreeSet<&str>,
    spread: &[IpAddr],
    lacks: &str,
) -> Vec<Finding> {
    let with: Vec<&str> = forwarders.iter().filter(|it| runs(it)).map(|it| &*it.node).collect();
    if !with.iter().any(|node| speakers.contains(node)) {
        let is_needed = !spread.is_empty() && !speakers.is_empty();
        return is_needed.then(|| nowhere(spread)).into_iter().collect();
    }
    let without = speakers.iter().filter(|node| !with.contains(node));
    let seen = format!(
        "its speaker runs, and other nodes have a forwarder, but this one has none: {lacks}"
    );
    without.map(|node| Finding::new(Code::F102, format!("node {node}"), &*seen)).collect()
}

fn nowhere(spread: &[IpAddr]) -> Finding {
    let seen = format!(
        "no node has one, and all nodes are to serve {}: the node that announces it serves it alone",
        list(spread)
    );
    Finding::new(Code::F104, "forwarders", seen)
}

/// A Lease that a process has left which cannot be there any more.
fn left(
    forwarder: &Forwarder,
    facts: &Facts,
    installation: Option<&Installation>,
) -> Option<Finding> {
    let (node, pod) = (forwarder.node.as_str(), forwarder.running.as_deref()?);
    let is_node = facts.nodes.as_ref().map_or(true, |nodes| nodes.iter().any(|it| it.name == node));
    let has_pod = installation.is_none_or(|it| {
        !with_ready_speaker(it).contains(node) || it.pods.iter().any(|it| it.name == pod)
    });
    let seen = if !is_node {
        "there is no such node".to_owned()
    } else if !has_pod {
        format!("pod {pod}, which wrote it, is gone, and the pod that is there has not written")
    } else {
        return None;
    };
    Some(Finding::new(Code::F103, format!("Lease forwarder-{node}"), seen))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::sample::{codes, facts},
        facts::Proxy,
        finding::Severity::{self, Unchecked, Warning},
    };

    fn running(number: u8) -> Forwarder {
        Forwarder {
            node: format!("node-{number}"),
            running: Some(format!("speaker-{number}")),
            ..Forwarder::default()
        }
    }

    fn changed(change: impl FnOnce(&mut Vec<Forwarder>)) -> Vec<(Code, Severity)> {
        let mut facts = facts();
        let mut forwarders: Vec<Forwarder> = [1, 2, 3].map(running).into();
        change(&mut forwarders);
        facts.forwarders = Ok(forwarders);
        codes(&check(&facts))
    }

    #[test]
    fn each_fault_has_its_code() {
        assert_eq!(changed(|_| {}), []);
        assert_eq!(changed(Vec::clear), [], "it is not installed");
        let stopped = |it: &mut Vec<Forwarder>| it.iter_mut().for_each(|it| it.running = None);
        assert_eq!(changed(stopped), [], "nor is it any more");
        assert_eq!(
            changed(|it| it[0].unable = Some("no nf_tables".into())),
            [(Code::F101, Warning)]
        );
        assert_eq!(changed(|it| _ = it.remove(0)), [(Code::F102, Warning)]);
        assert_eq!(changed(|it| it[0].running = None), [(Code::F102, Warning)]);
        assert_eq!(changed(|it| (it[0].running, it[0].newer) = (None, true)), []);
        assert_eq!(changed(|it| it[0].running = Some("old".into())), [(Code::F103, Warning)]);
        let stale = |it: &mut Forwarder| it.stale = Some("not renewed".into());
        assert_eq!(changed(|it| stale(&mut it[0])), [(Code::F107, Warning)]);
        let unable = |it: &mut Forwarder| it.unable = Some("no nf_tables".into());
        let both = |it: &mut Vec<Forwarder>| (unable(&mut it[0]), stale(&mut it[0]));
        assert_eq!(changed(|it| _ = both(it)), [(Code::F107, Warning)], "what it said is old");
        let stopped = |it: &mut Vec<Forwarder>| (stale(&mut it[0]), it[0].running = None);
        assert_eq!(changed(|it| _ = stopped(it)), [(Code::F102, Warning)]);
        let gone = Forwarder {
            node: "gone".into(),
            running: Some("speaker-4".into()),
            unable: Some("no nf_tables".into()),
            ..Forwarder::default()
        };
        assert_eq!(changed(|it| it.push(gone)), [(Code::F103, Warning)]);
    }

    #[test]
    fn spread_needs_forwarders() {
        let found = |forwarders: Vec<Forwarder>, spread| {
            let mut facts = facts();
            facts.forwarders = Ok(forwarders);
            facts.locks.as_mut().unwrap()[0].spread = spread;
            check(&facts)
        };
        let stopped = Forwarder { node: "node-1".into(), ..Forwarder::default() };
        assert_eq!(codes(&found(vec![], true)), [(Code::F104, Warning)]);
        assert_eq!(codes(&found(vec![stopped], true)), [(Code::F104, Warning)]);
        assert_eq!(codes(&found([1, 2, 3].map(running).into(), true)), []);
        let unable = Forwarder { unable: Some("no nft_hash".into()), ..running(1) };
        let [two, three] = [2, 3].map(running);
        for forwarders in [vec![unable, two.clone(), three.clone()], vec![two, three]] {
            let told = |spread| found(forwarders.clone(), spread).remove(0).seen;
            assert!(told(true).contains("of 192.168.0.240, which all nodes"), "{}", told(true));
            assert!(!told(false).contains("192.168.0.240"), "{}", told(false));
        }
    }

    #[test]
    fn what_translates_beside_kube_proxy_is_told_where_forwarders_run() {
        let found = |proxy: Proxy, forwarders: Vec<Forwarder>| {
            codes(&check(&Facts { proxy: Ok(proxy), forwarders: Ok(forwarders), ..facts() }))
        };
        let all = || Vec::from([1, 2, 3].map(running));
        let cilium = || Proxy { replaced_by: Some("Cilium".into()), ..Proxy::default() };
        let mode = |mode: &str| Proxy { mode: Some(mode.into()), ..Proxy::default() };
        assert_eq!(found(cilium(), all()), [(Code::F105, Warning)]);
        assert_eq!(found(mode("ipvs"), all()), [(Code::F106, Severity::Info)]);
        for tried in ["nftables", "iptables"] {
            assert_eq!(found(mode(tried), all()), [], "{tried}");
        }
        for proxy in [cilium(), mode("ipvs")] {
            assert_eq!(found(proxy, vec![]), [], "it is not installed");
        }
    }

    #[test]
    fn without_leases_nothing_is_known() {
        let unread = Facts { forwarders: Err("forbidden".into()), ..facts() };
        assert_eq!(codes(&check(&unread)), [(Code::F101, Unchecked)]);
    }
}

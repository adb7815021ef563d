//! What translates Service addresses on the nodes.

use std::collections::BTreeMap;

use super::{answered, list};
use crate::{
    code::Code,
    facts::{Facts, Proxy},
    finding::Finding,
};

const ABOUT: &str = "kube-proxy";

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let configured = facts.proxy.as_ref().ok();
    if let Some(program) = configured.and_then(|it| it.replaced_by.as_deref()) {
        return vec![Finding::new(
            Code::A503,
            program,
            "it does kube-proxy's work in this cluster",
        )];
    }
    let mut findings: Vec<Finding> = configured.and_then(by_configuration).into_iter().collect();
    if findings.is_empty() {
        findings.extend(by_nodes(facts));
    }
    findings.extend(differing(configured, facts));
    let is_known = configured.is_some_and(|it| it.mode.is_some()) || !modes(facts).is_empty();
    if !is_known {
        let why = match &facts.proxy {
            Err(why) => why,
            Ok(_) => "no ConfigMap kube-system/kube-proxy, and no node's kube-proxy says its mode",
        };
        findings.push(Finding::unchecked(Code::A502, ABOUT, why));
    }
    findings
}

fn by_configuration(proxy: &Proxy) -> Option<Finding> {
    let is_loose = proxy.mode.as_deref() == Some("ipvs") && !proxy.strict_arp;
    let seen = "its ConfigMap says mode ipvs without strictARP: every node's kernel answers ARP for every Service address";
    is_loose.then(|| Finding::new(Code::A501, ABOUT, seen))
}

/// What kube-proxy says on the nodes, and what their kernels do.
fn by_nodes(facts: &Facts) -> Option<Finding> {
    let loose = answered(&facts.surveys)
        .filter(|(_, it)| it.proxy_mode.as_deref() == Some("ipvs") && it.strict_arp == Some(false));
    let nodes: Vec<&String> = loose.map(|(node, _)| node).collect();
    let seen = || {
        format!(
            "mode ipvs, and the kernel answers ARP for every Service address, on {}",
            list(&nodes)
        )
    };
    (!nodes.is_empty()).then(|| Finding::new(Code::A501, ABOUT, seen()))
}

/// A node that was not restarted with its configuration, or has one of its own, serves in another way than the others.
fn differing(configured: Option<&Proxy>, facts: &Facts) -> Option<Finding> {
    let mut nodes_of: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (node, mode) in modes(facts) {
        nodes_of.entry(mode).or_default().push(node);
    }
    let configured = configured.and_then(|it| it.mode.as_deref());
    let others: Vec<&&str> = nodes_of.keys().filter(|mode| Some(**mode) != configured).collect();
    let differs = nodes_of.len() > 1 || configured.is_some() && !others.is_empty();
    let of_mode = |(mode, nodes): (&&str, &Vec<&str>)| format!("{mode} on {}", list(nodes));
    differs.then(|| {
        let mut seen: Vec<String> = nodes_of.iter().map(of_mode).collect();
        seen.extend(configured.map(|mode| format!("its ConfigMap says {mode}")));
        Finding::new(Code::A504, ABOUT, format!("its modes differ: {}", seen.join("; ")))
    })
}

fn modes(facts: &Facts) -> BTreeMap<&str, &str> {
    answered(&facts.surveys)
        .filter_map(|(node, it)| Some((node.as_str(), it.proxy_mode.as_deref()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::sample::{codes, facts},
        finding::Severity,
        survey::Survey,
    };

    fn with(mode: Option<&str>, strict_arp: bool) -> Facts {
        let proxy = Proxy { mode: mode.map(str::to_owned), strict_arp, replaced_by: None };
        let mut facts = Facts { proxy: Ok(proxy), ..facts() };
        for survey in facts.surveys.values_mut().flatten() {
            survey.proxy_mode = mode.map(str::to_owned);
            survey.strict_arp = Some(strict_arp);
        }
        facts
    }

    #[test]
    fn ipvs_needs_strict_arp() {
        assert_eq!(codes(&check(&with(Some("ipvs"), false))), [(Code::A501, Severity::Error)]);
        for right in
            [with(Some("ipvs"), true), with(Some("iptables"), false), with(Some("nftables"), false)]
        {
            assert!(check(&right).is_empty(), "{:?}", right.proxy);
        }
    }

    #[test]
    fn nodes_know_where_the_cluster_does_not() {
        let mut facts = with(None, false);
        facts.surveys.clear();
        assert_eq!(codes(&check(&facts)), [(Code::A502, Severity::Unchecked)]);
        let mode = |mode: &str, strict| {
            Ok(Survey {
                proxy_mode: Some(mode.into()),
                strict_arp: Some(strict),
                ..Survey::default()
            })
        };
        facts.surveys = [("node-1".to_owned(), mode("ipvs", false))].into();
        assert_eq!(codes(&check(&facts)), [(Code::A501, Severity::Error)]);
        facts.surveys = [("node-1".to_owned(), mode("ipvs", true))].into();
        assert!(check(&facts).is_empty());
    }

    #[test]
    fn nodes_with_another_mode_are_named() {
        let told = |configured: Option<&str>, modes: &[&str]| {
            let of = |(number, mode): (usize, &&str)| {
                let survey = Survey { proxy_mode: Some((*mode).into()), ..Survey::default() };
                (format!("node-{number}"), Ok(survey))
            };
            let surveys = modes.iter().enumerate().map(of).collect();
            check(&Facts { surveys, ..with(configured, false) })
        };
        for same in [told(Some("iptables"), &["iptables"; 2]), told(None, &["nftables"; 2])] {
            assert!(same.is_empty(), "{same:?}");
        }
        let mixed = told(None, &["iptables", "nftables", "nftables"]);
        assert_eq!(codes(&mixed), [(Code::A504, Severity::Warning)]);
        let seen = "its modes differ: iptables on node-0; nftables on node-1, node-2";
        assert_eq!(mixed[0].seen, seen);
        let not_restarted = told(Some("nftables"), &["iptables"]);
        let seen = "its modes differ: iptables on node-0; its ConfigMap says nftables";
        assert_eq!((codes(&not_restarted), &*not_restarted[0].seen), (codes(&mixed), seen));
    }

    #[test]
    fn who_replaces_it_is_named() {
        let proxy = Proxy { replaced_by: Some("Cilium".into()), ..Proxy::default() };
        let facts = Facts { proxy: Ok(proxy), ..facts() };
        assert_eq!(codes(&check(&facts)), [(Code::A503, Severity::Info)]);
    }
}

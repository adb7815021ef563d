//! Whether connections outlive moves, where forwarders are installed.

use super::{known, pods::with_ready_speaker};
use crate::{
    code::Code,
    facts::{Facts, Forwarder, Installation},
    finding::Finding,
};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    known(Code::F101, "forwarders", &facts.forwarders, |forwarders| {
        let installation = facts.installation.as_ref().ok();
        let finding = |it: &Forwarder| left(it, facts, installation).or_else(|| unable(it));
        let mut findings: Vec<Finding> = forwarders.iter().filter_map(finding).collect();
        findings.extend(installation.into_iter().flat_map(|it| missing(forwarders, it)));
        findings
    })
}

fn unable(forwarder: &Forwarder) -> Option<Finding> {
    let why = forwarder.unable.as_ref()?;
    let seen = format!("moves to and from it reset connections: {why}");
    Some(Finding::new(Code::F101, format!("node {}", forwarder.node), seen))
}

/// Where nobody has a forwarder, nobody wants one.
fn missing(forwarders: &[Forwarder], installation: &Installation) -> Vec<Finding> {
    let speakers = with_ready_speaker(installation);
    let is_there = |it: &&Forwarder| it.running.is_some() || it.newer;
    let with: Vec<&str> = forwarders.iter().filter(is_there).map(|it| &*it.node).collect();
    if !with.iter().any(|node| speakers.contains(node)) {
        return Vec::new();
    }
    let without = speakers.into_iter().filter(|node| !with.contains(node));
    let seen = "its speaker runs, and other nodes have a forwarder, but this one has none: moves to and from it reset connections";
    without.map(|node| Finding::new(Code::F102, format!("node {node}"), seen)).collect()
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
        finding::Severity::{self, Unchecked, Warning},
    };

    fn changed(change: impl FnOnce(&mut Vec<Forwarder>)) -> Vec<(Code, Severity)> {
        let mut facts = facts();
        let running = |number| Forwarder {
            node: format!("node-{number}"),
            running: Some(format!("speaker-{number}")),
            ..Forwarder::default()
        };
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
        let gone = Forwarder {
            node: "gone".into(),
            running: Some("speaker-4".into()),
            unable: Some("no nf_tables".into()),
            newer: false,
        };
        assert_eq!(changed(|it| it.push(gone)), [(Code::F103, Warning)]);
    }

    #[test]
    fn without_leases_nothing_is_known() {
        let unread = Facts { forwarders: Err("forbidden".into()), ..facts() };
        assert_eq!(codes(&check(&unread)), [(Code::F101, Unchecked)]);
    }
}

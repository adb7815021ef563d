//! Whether Arpeggio's programs run.

use std::{collections::BTreeSet, time::Duration};

use super::{known, list};
use crate::{
    code::Code,
    facts::{Component, Facts, Installation, Leader, Node, Pod},
    finding::{Finding, Severity},
};

/// Who has ended longer ago than this has got over it.
const RECENT: Duration = Duration::from_hours(1);

/// A pod that is younger may still become ready.
const YOUNG: Duration = Duration::from_secs(30);

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    known(Code::A301, "Arpeggio", &facts.installation, |installation| {
        if installation.controllers.is_none() && !installation.has_speakers {
            let seen = format!("nothing of it is in namespace {}", facts.namespace);
            return vec![Finding::new(Code::A301, "Arpeggio", seen)];
        }
        let mut findings = controllers(installation);
        findings.extend(speakers(installation, facts));
        let lasting = installation.pods.iter().filter(|pod| !pod.ending);
        findings.extend(
            lasting.flat_map(|pod| [unready(pod), incomplete(pod), restarted(pod)]).flatten(),
        );
        findings
    })
}

fn controllers(installation: &Installation) -> Vec<Finding> {
    let about = "Deployment arpeggio-controller";
    let Some(wanted) = installation.controllers else {
        return vec![Finding::new(Code::A302, about, "there is none")];
    };
    let pods = installation.pods.iter().filter(|it| it.component == Component::Controller);
    let lacks = pods.clone().count() < usize::try_from(wanted).unwrap_or(usize::MAX);
    let refused = if lacks { refused(installation, Component::Controller, about) } else { None };
    if !pods.clone().any(|it| it.ready) {
        let seen = format!("none of {wanted} controllers is ready");
        let none = Finding::new(Code::A302, about, seen);
        return [none].into_iter().chain(refused).collect();
    }
    let alone = (wanted == 1).then(|| {
        Finding::new(Code::A307, about, "one controller: when its node dies, new Services wait")
    });
    let leader = if installation.elects { leaderless(installation.leader.as_ref()) } else { None };
    alone.into_iter().chain(leader).chain(refused).collect()
}

/// Why the API server takes no pods of this program.
fn refused(installation: &Installation, component: Component, about: &str) -> Option<Finding> {
    let why = installation.refused.get(&component)?;
    Some(Finding::new(Code::A308, about, format!("its pods are refused: {why}")))
}

fn leaderless(leader: Option<&Leader>) -> Option<Finding> {
    let seen = match leader {
        None => "there is none: no controller has led yet".to_owned(),
        Some(leader) if leader.holder.is_empty() => "no controller leads".to_owned(),
        Some(leader) if !leader.renewed => {
            format!("{} did not renew it while it was looked at", leader.holder)
        }
        Some(_) => return None,
    };
    Some(Finding::new(Code::A303, "Lease controller-leader", seen))
}

fn speakers(installation: &Installation, facts: &Facts) -> Vec<Finding> {
    let about = "DaemonSet arpeggio-speaker";
    if !installation.has_speakers {
        return vec![Finding::new(
            Code::A304,
            about,
            "there is none, so no node announces anything",
        )];
    }
    known(Code::A304, "nodes", &facts.nodes, |nodes| {
        let speakers = installation.pods.iter().filter(|it| it.component == Component::Speaker);
        let have: BTreeSet<&str> = speakers.filter_map(|it| it.node.as_deref()).collect();
        let lacks = |node: &&Node| node.hosts_speakers && !have.contains(node.name.as_str());
        let without: Vec<&Node> = nodes.iter().filter(lacks).collect();
        let refused = if without.is_empty() {
            None
        } else {
            refused(installation, Component::Speaker, about)
        };
        let finding = |node: &&Node| {
            let about = format!("node {}", node.name);
            Finding::new(Code::A304, about, "no speaker runs on it, so it announces nothing")
        };
        let soft = |node: &&Node| node.excluded && installation.obeys_exclusion;
        let severity = |node: &&Node| if soft(node) { Severity::Info } else { Severity::Error };
        let lacking = without.iter().map(|node| finding(node).with(severity(node)));
        let kept_off = nodes.iter().filter(|it| !have.contains(it.name.as_str()));
        lacking.chain(kept_off.filter_map(kept)).chain(refused).collect()
    })
}

/// A node that the installation does without.
fn kept(node: &Node) -> Option<Finding> {
    let why = node.kept_off.as_ref()?;
    let seen = format!("the DaemonSet has no speaker on it ({why}), so it announces nothing");
    Some(Finding::new(Code::A304, format!("node {}", node.name), seen).with(Severity::Info))
}

/// The nodes on which speakers run, or can run. A taint that has come later lets those run on that do.
pub(super) fn hosts(facts: &Facts) -> Vec<&Node> {
    let pods = facts.installation.as_ref().map(|it| it.pods.as_slice()).unwrap_or_default();
    let speakers = pods.iter().filter(|it| it.component == Component::Speaker && !it.ending);
    let have: BTreeSet<&str> = speakers.filter_map(|it| it.node.as_deref()).collect();
    let nodes = facts.nodes.as_deref().unwrap_or_default().iter();
    nodes.filter(|it| it.hosts_speakers || have.contains(it.name.as_str())).collect()
}

fn unready(pod: &Pod) -> Option<Finding> {
    let waits = pod.waiting.as_deref().filter(|reason| is_fault(reason));
    let is_old = pod.age.is_none_or(|age| age > YOUNG);
    if pod.ready || (waits.is_none() && !is_old) {
        return None;
    }
    let node = pod.node.as_deref().map_or("on no node".to_owned(), |node| format!("on {node}"));
    let why = waits.map(|reason| format!(": {reason}")).unwrap_or_default();
    Some(Finding::new(
        Code::A305,
        format!("pod {}", pod.name),
        format!("it is not ready, {node}{why}"),
    ))
}

/// A program that runs without another one that belongs to its pod.
fn incomplete(pod: &Pod) -> Option<Finding> {
    let (container, why) = pod.beside.as_ref().filter(|(_, why)| is_fault(why))?;
    let seen = format!("its container {container} does not run: {why}");
    Some(Finding::new(Code::A305, format!("pod {}", pod.name), seen))
}

/// Every container waits for its volumes and its image once.
fn is_fault(reason: &str) -> bool {
    !["ContainerCreating", "PodInitializing"].contains(&reason)
}

fn restarted(pod: &Pod) -> Option<Finding> {
    let (ago, why) = pod.ended.as_ref().filter(|_| pod.restarts > 0)?;
    let severity = if *ago <= RECENT { Severity::Warning } else { Severity::Info };
    let seen = format!(
        "its container was started again {} times, the last time {} min ago ({why})",
        pod.restarts,
        ago.as_secs() / 60
    );
    Some(Finding::new(Code::A306, format!("pod {}", pod.name), seen).with(severity))
}

/// The nodes on which a speaker runs and is ready.
pub(super) fn with_ready_speaker(installation: &Installation) -> BTreeSet<&str> {
    let ready = |pod: &&Pod| pod.component == Component::Speaker && pod.ready && !pod.ending;
    installation.pods.iter().filter(ready).filter_map(|pod| pod.node.as_deref()).collect()
}

/// The nodes that may announce: a speaker runs there, and nothing excludes them.
pub(super) fn candidates(facts: &Facts) -> Option<Vec<&str>> {
    let (nodes, installation) = (facts.nodes.as_ref().ok()?, facts.installation.as_ref().ok()?);
    let speakers = with_ready_speaker(installation);
    let may = |node: &&Node| {
        node.ready
            && node.barred.is_none()
            && speakers.contains(node.name.as_str())
            && !(node.excluded && installation.obeys_exclusion)
    };
    Some(nodes.iter().filter(may).map(|node| node.name.as_str()).collect())
}

/// All of these nodes, for people.
pub(super) fn names<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> String {
    list(nodes.into_iter().map(|node| &node.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::sample::{codes, facts};

    fn changed(change: impl FnOnce(&mut Installation)) -> Vec<(Code, Severity)> {
        let mut facts = facts();
        change(facts.installation.as_mut().unwrap());
        codes(&check(&facts))
    }

    #[test]
    fn what_runs_is_right() {
        assert!(changed(|_| {}).is_empty());
    }

    #[test]
    fn each_fault_has_its_code() {
        use Severity::{Error, Info, Warning};
        let of = |it: &mut Installation, component| {
            it.pods.retain(|pod| pod.component != component);
        };
        assert_eq!(changed(|it| *it = Installation::default()), [(Code::A301, Error)]);
        assert_eq!(changed(|it| of(it, Component::Controller)), [(Code::A302, Error)]);
        assert_eq!(changed(|it| it.controllers = Some(1)), [(Code::A307, Info)]);
        assert_eq!(changed(|it| it.leader = None), [(Code::A303, Error)]);
        assert_eq!(
            changed(|it| it.leader.as_mut().unwrap().renewed = false),
            [(Code::A303, Error)]
        );
        assert_eq!(changed(|it| it.leader.as_mut().unwrap().holder.clear()), [(Code::A303, Error)]);
        let silent = changed(|it| (it.leader, it.elects) = (None, false));
        assert!(silent.is_empty(), "no election: {silent:?}");
        assert_eq!(changed(|it| of(it, Component::Speaker)), [(Code::A304, Error); 3]);
        assert_eq!(changed(|it| it.has_speakers = false), [(Code::A304, Error)]);
        assert_eq!(changed(|it| it.pods[1].ready = false), [(Code::A305, Warning)]);
        let beside =
            |why: &str| changed(|it| it.pods[1].beside = Some(("forwarder".into(), why.into())));
        assert_eq!(beside("ImagePullBackOff"), [(Code::A305, Warning)]);
        assert_eq!(beside("ContainerCreating"), []);
        let young = changed(|it| {
            (it.pods[1].ready, it.pods[1].age) = (false, Some(Duration::from_secs(2)));
        });
        assert!(young.is_empty(), "{young:?}");
        let ended = |minutes| Some((Duration::from_mins(minutes), "Error".to_owned()));
        assert_eq!(
            changed(|it| (it.pods[1].restarts, it.pods[1].ended) = (2, ended(5))),
            [(Code::A306, Warning)]
        );
        assert_eq!(
            changed(|it| (it.pods[1].restarts, it.pods[1].ended) = (2, ended(500))),
            [(Code::A306, Info)]
        );
    }

    #[test]
    fn why_pods_are_refused_is_told_while_some_are_missing() {
        use Severity::Error;
        let why = || [(Component::Speaker, "violates PodSecurity".to_owned())].into();
        assert_eq!(changed(|it| it.refused = why()), [], "it was so, and is no more");
        let without_one = |it: &mut Installation| {
            it.refused = why();
            it.pods.pop();
        };
        assert_eq!(changed(without_one), [(Code::A304, Error), (Code::A308, Error)]);
        let of_controller = |it: &mut Installation| {
            it.refused = [(Component::Controller, "exceeded quota".to_owned())].into();
            it.pods.retain(|pod| pod.component == Component::Speaker);
        };
        assert_eq!(changed(of_controller), [(Code::A302, Error), (Code::A308, Error)]);
    }

    #[test]
    fn a_node_that_the_daemon_set_keeps_its_pods_off_needs_no_speaker() {
        let mut facts = facts();
        let node = &mut facts.nodes.as_mut().unwrap()[2];
        (node.hosts_speakers, node.kept_off) = (false, Some("its nodeSelector".into()));
        assert_eq!(codes(&check(&facts)), [], "it runs still");
        assert_eq!(hosts(&facts).len(), 3);
        let pods = &mut facts.installation.as_mut().unwrap().pods;
        pods.pop();
        assert_eq!(codes(&check(&facts)), [(Code::A304, Severity::Info)]);
        assert_eq!(hosts(&facts).len(), 2);
    }

    #[test]
    fn an_excluded_node_needs_no_speaker() {
        let mut facts = facts();
        facts.nodes.as_mut().unwrap()[0].excluded = true;
        let name = facts.nodes.as_ref().unwrap()[0].name.clone();
        let pods = &mut facts.installation.as_mut().unwrap().pods;
        pods.retain(|pod| {
            pod.component == Component::Controller || pod.node.as_ref() != Some(&name)
        });
        assert_eq!(codes(&check(&facts)), [(Code::A304, Severity::Info)]);
    }
}

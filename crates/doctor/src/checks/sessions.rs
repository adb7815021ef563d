//! The nodes' proofs of life, and who watches whom.

use std::collections::{BTreeMap, BTreeSet};

use super::{known, list, pods::with_ready_speaker};
use crate::{
    code::Code,
    facts::{Facts, Known, Metrics, Session},
    finding::{Finding, Severity},
};

/// By so many seconds a clock may be wrong before somebody should set it.
const SKEW: i64 = 5;

/// A session that was not renewed for so many seconds has been left behind.
const LEFT_BEHIND: i64 = 300;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = known(Code::A801, "sessions", &facts.sessions, |sessions| {
        let mut findings = missing(sessions, facts);
        let (of_nodes, left): (Vec<&Session>, Vec<&Session>) =
            sessions.iter().partition(|it| is_of_node(it, facts));
        findings.extend(left.into_iter().map(leftover));
        let live: Vec<&Session> = of_nodes.into_iter().filter(|it| it.is_live()).collect();
        findings.extend(live.iter().filter_map(|it| late(it).or_else(|| skewed(it))));
        findings.extend(live.iter().filter_map(|it| accused(it)));
        findings.extend(unwatched(&live, facts));
        findings.extend(slow(&live));
        findings
    });
    let damaged = |what: &String| Finding::new(Code::A809, "Leases", what);
    findings.extend(facts.damaged.iter().map(damaged));
    findings.extend(accusations(&facts.metrics));
    findings
}

fn about(node: &str) -> String {
    format!("node {node}")
}

fn is_of_node(session: &Session, facts: &Facts) -> bool {
    facts.nodes.as_ref().map_or(true, |nodes| nodes.iter().any(|node| node.name == session.node))
}

fn missing(sessions: &[Session], facts: &Facts) -> Vec<Finding> {
    let Ok(installation) = &facts.installation else { return Vec::new() };
    let of = |node: &str| sessions.iter().find(|it| it.node == node);
    let finding = |node: &str| {
        let seen = match of(node) {
            Some(session) if session.is_live() => return None,
            Some(Session { ended: Some(why), .. }) => {
                format!("its session has ended ({why}), and its speaker runs")
            }
            _ => "it has no session, and its speaker runs".to_owned(),
        };
        Some(Finding::new(Code::A801, about(node), seen))
    };
    with_ready_speaker(installation).into_iter().filter_map(finding).collect()
}

fn leftover(session: &Session) -> Finding {
    let old = session.renewed.is_none_or(|at| at < -LEFT_BEHIND);
    let severity = if old { Code::A804.severity() } else { Severity::Info };
    let seen = "there is no such node; what its session says of addresses still counts";
    Finding::new(Code::A804, format!("Lease session-{}", session.node), seen).with(severity)
}

fn lasts(session: &Session) -> i64 {
    i64::try_from(session.lasts.as_secs()).unwrap_or(i64::MAX)
}

fn late(session: &Session) -> Option<Finding> {
    let renewed = session.renewed?;
    let is_late = !session.alive && renewed < -lasts(session);
    let seen =
        format!("its session was renewed {} s ago, and counts for {} s", -renewed, lasts(session));
    is_late.then(|| Finding::new(Code::A802, about(&session.node), seen))
}

/// It was renewed while we looked, or is said to be in the future.
fn skewed(session: &Session) -> Option<Finding> {
    let renewed = session.renewed?;
    let off = if renewed > SKEW { renewed } else { renewed + lasts(session) };
    let is_skewed = renewed > SKEW || (session.alive && off < -SKEW);
    let seen = format!(
        "by the API server's clock its session was renewed {renewed:+} s from now: the node's clock or that one is wrong"
    );
    is_skewed.then(|| Finding::new(Code::A803, about(&session.node), seen))
}

fn accused(session: &Session) -> Option<Finding> {
    let by = session.accused_by.as_ref()?;
    Some(Finding::new(
        Code::A806,
        about(&session.node),
        format!("node {by} does not hear it on the wire"),
    ))
}

/// Nodes that no other one hears, where others share a subnet with them.
fn unwatched(live: &[&Session], facts: &Facts) -> Vec<Finding> {
    let Ok(installation) = &facts.installation else { return Vec::new() };
    let speakers = with_ready_speaker(installation);
    let finding = |session: &&Session| {
        let others = live.iter().filter(|it| it.node != session.node);
        let neighbours: Vec<&&Session> = others.filter(|it| shares_subnet(it, session)).collect();
        // Speakers of earlier releases do not say whom they hear.
        let says = neighbours.iter().any(|it| it.hears.is_some());
        let hears =
            |it: &&&Session| it.hears.as_ref().is_some_and(|hears| hears.contains(&session.node));
        if live.len() < 2
            || !speakers.contains(session.node.as_str())
            || neighbours.iter().any(hears)
        {
            return None;
        }
        let seen = if neighbours.is_empty() {
            "no other node is in any of its subnets, so nobody watches it on the wire"
        } else if says {
            "no other node hears it on the wire"
        } else {
            return None;
        };
        Some(Finding::new(Code::A805, about(&session.node), seen))
    };
    live.iter().filter_map(finding).collect()
}

fn shares_subnet(one: &Session, other: &Session) -> bool {
    let contains = |it: &Session| {
        other.subnets.iter().any(|net| it.subnets.iter().any(|own| net.contains(&own.addr())))
    };
    contains(one)
}

/// The ways on which a dead node is noticed more slowly than on a wire.
fn slow(live: &[&Session]) -> Vec<Finding> {
    let mut ways: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for session in live {
        for (node, profile) in &session.paths {
            if profile.starts_with("patient") || profile.starts_with("sparse") {
                ways.entry(node).or_default().insert(profile);
            }
        }
    }
    let finding = |(node, profiles): (&str, BTreeSet<&str>)| {
        Finding::new(Code::A808, about(node), format!("it is asked slowly: {}", list(profiles)))
    };
    ways.into_iter().map(finding).collect()
}

fn accusations(metrics: &BTreeMap<String, Known<Metrics>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (node, metrics) in metrics {
        match metrics {
            Ok(metrics) if metrics.patient_wrong > 0 => {
                let seen = format!(
                    "{} times it would have taken a living node for dead by the most patient profile",
                    metrics.patient_wrong
                );
                findings.push(Finding::new(Code::A807, about(node), seen));
            }
            Ok(_) => {}
            Err(why) => findings.push(Finding::unchecked(Code::A807, about(node), why)),
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::sample::{codes, facts};

    fn changed(change: impl FnOnce(&mut Vec<Session>)) -> Vec<(Code, Severity)> {
        let mut facts = facts();
        change(facts.sessions.as_mut().unwrap());
        codes(&check(&facts))
    }

    #[test]
    fn each_fault_has_its_code() {
        use Severity::{Error, Info, Warning};
        assert_eq!(changed(|_| {}), []);
        assert_eq!(changed(|it| it[0].ended = Some("Expired".into())), [(Code::A801, Error)]);
        assert_eq!(changed(|it| _ = it.remove(0)), [(Code::A801, Error)]);
        assert_eq!(
            changed(|it| (it[0].alive, it[0].renewed) = (false, Some(-60))),
            [(Code::A802, Warning)]
        );
        assert_eq!(changed(|it| it[0].renewed = Some(-60)), [(Code::A803, Warning)]);
        assert_eq!(changed(|it| it[0].renewed = Some(90)), [(Code::A803, Warning)]);
        assert_eq!(changed(|it| (it[0].alive, it[0].renewed) = (false, Some(-9))), []);
        assert_eq!(changed(|it| it[0].accused_by = Some("node-2".into())), [(Code::A806, Warning)]);
        let slow = [("node-2".to_owned(), "patient (wireless)".to_owned())].into();
        assert_eq!(changed(|it| it[0].paths = slow), [(Code::A808, Info)]);
        let deaf =
            |it: &mut Vec<Session>| it.iter_mut().for_each(|it| it.hears = Some(BTreeSet::new()));
        assert_eq!(changed(deaf), [(Code::A805, Warning); 3]);
        let silent = |it: &mut Vec<Session>| it.iter_mut().for_each(|it| it.hears = None);
        assert_eq!(changed(silent), [], "speakers of earlier releases do not say");
        let gone =
            |renewed| Session { node: "gone".into(), renewed: Some(renewed), ..Session::default() };
        assert_eq!(changed(|it| it.push(gone(-3600))), [(Code::A804, Warning)]);
        assert_eq!(changed(|it| it.push(gone(-30))), [(Code::A804, Info)]);
    }

    #[test]
    fn what_speakers_count_is_told() {
        let mut facts = facts();
        facts
            .metrics
            .insert("node-1".into(), Ok(Metrics { patient_wrong: 2, ..Metrics::default() }));
        facts.metrics.insert("node-2".into(), Err("forbidden".into()));
        facts.damaged.push("Lease x: bad".into());
        let expected = [
            (Code::A809, Severity::Warning),
            (Code::A807, Severity::Warning),
            (Code::A807, Severity::Unchecked),
        ];
        assert_eq!(codes(&check(&facts)), expected);
    }
}

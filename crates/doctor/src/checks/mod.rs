//! The checks, one module for each group.

mod addresses;
mod forwarders;
mod nodes;
mod permissions;
mod pods;
mod pools;
mod proxy;
mod rivals;
mod services;
mod sessions;
mod versions;
mod wire;

#[cfg(test)]
mod sample;

use std::collections::BTreeMap;

use crate::{
    code::{Code, Group, Selection},
    facts::{Asking, Facts, Known, Stage},
    finding::Finding,
};

/// What is to be said about an installation, group by group, the worst of each first.
pub fn examine(facts: &Facts, selection: &Selection) -> Vec<Finding> {
    let groups = Group::ALL.into_iter().filter(|group| concerns(*group, facts.stage));
    let wanted = groups.filter(|group| selection.wants_any(*group));
    wanted.flat_map(|group| sorted(group, facts, selection)).collect()
}

/// Whether a group has something to say before Arpeggio is installed, too.
fn concerns(group: Group, stage: Stage) -> bool {
    let before =
        [Group::Versions, Group::Rivals, Group::Proxy, Group::Nodes, Group::Pools].contains(&group);
    before || stage == Stage::Installed
}

fn sorted(group: Group, facts: &Facts, selection: &Selection) -> Vec<Finding> {
    let mut findings = match group {
        Group::Versions => versions::check(facts),
        Group::Permissions => permissions::check(facts),
        Group::Pods => pods::check(facts),
        Group::Rivals => rivals::check(facts),
        Group::Proxy => proxy::check(facts),
        Group::Nodes => nodes::check(facts),
        Group::Pools => pools::check(facts),
        Group::Sessions => sessions::check(facts),
        Group::Addresses => addresses::check(facts),
        Group::Wire => wire::check(facts),
        Group::Services => services::check(facts),
        Group::Forwarders => forwarders::check(facts),
    };
    findings.retain(|finding| selection.wants(finding.code));
    findings.sort_by(|one, other| {
        other.severity.cmp(&one.severity).then_with(|| one.code.cmp(&other.code))
    });
    findings
}

/// Whether a finding is about what was seen in a moment, and so has to be seen twice to count.
pub fn is_repeatable(code: Code) -> bool {
    let of_moment = [Code::S104, Code::S105, Code::S107, Code::A902, Code::A903];
    code.group() == Group::Wire || of_moment.contains(&code)
}

/// What `check` finds, or that nothing is known.
fn known<T>(
    code: Code,
    about: &str,
    facts: &Known<T>,
    check: impl FnOnce(&T) -> Vec<Finding>,
) -> Vec<Finding> {
    match facts {
        Ok(facts) => check(facts),
        Err(why) => vec![Finding::unchecked(code, about, why)],
    }
}

/// What the nodes that have answered say.
fn answered<T>(of_nodes: &BTreeMap<String, Known<T>>) -> impl Iterator<Item = (&String, &T)> {
    of_nodes.iter().filter_map(|(node, it)| Some((node, it.as_ref().ok()?)))
}

/// That there was too much of it to ask for all, and how much was asked.
fn unasked(facts: &Facts, what: Asking, code: Code, about: &str) -> Option<Finding> {
    let at = match what {
        Asking::Free | Asking::Leases => "in",
        Asking::Nodes | Asking::Announced | Asking::Ports | Asking::PodPorts => "by",
    };
    let some = facts.unasked.iter().filter(|it| it.what == what);
    let some = list(some.map(|it| format!("{} of {} {at} {}", it.asked, it.of, it.at)));
    let why = format!("all of them at once would be too much, and only some were tried: {some}");
    (!some.is_empty()).then(|| Finding::unchecked(code, about, &why))
}

/// `a, b and 3 more`.
fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 4;
    let items: Vec<String> = items.into_iter().map(|it| it.to_string()).collect();
    let shown = items.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match items.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

//! Which releases of everything there are.

use std::collections::{BTreeMap, BTreeSet};

use super::{answered, known, list};
use crate::{
    code::Code,
    facts::{Component, Definition, Facts, Installation, Stage},
    finding::{Finding, Severity},
};

/// The oldest Kubernetes that we support.
const OLDEST: (u32, u32) = (1, 29);

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = known(Code::A101, "Kubernetes", &facts.kubernetes, |version| {
        kubernetes(*version).into_iter().collect()
    });
    if facts.stage == Stage::Installed {
        let pools = "CustomResourceDefinition addresspools.arpeggio.dev";
        findings.extend(known(Code::A102, pools, &facts.definition, |it| definition(it, facts)));
        if let Ok(installation) = &facts.installation {
            let of_images = images(installation, &facts.program);
            // Those of several releases were built from several commits.
            if of_images.is_empty() {
                findings.extend(builds(facts));
            }
            findings.extend(of_images);
        }
    }
    findings
}

fn kubernetes(version: (u32, u32)) -> Option<Finding> {
    let (major, minor) = version;
    (version < OLDEST).then(|| {
        Finding::new(
            Code::A101,
            "Kubernetes",
            format!("the API server is of release {major}.{minor}"),
        )
    })
}

fn definition(definition: &Definition, facts: &Facts) -> Vec<Finding> {
    let about = "CustomResourceDefinition addresspools.arpeggio.dev";
    if !definition.installed {
        // Pools can stand in a ConfigMap instead.
        let has_pools = facts.pools.as_ref().is_ok_and(|pools| !pools.is_empty());
        let severity = if has_pools { Severity::Info } else { Severity::Error };
        return vec![Finding::new(Code::A102, about, "there is none").with(severity)];
    }
    let mut findings = Vec::new();
    if !definition.lacks.is_empty() {
        let lacks = list(&definition.lacks);
        let seen =
            format!("it lacks what this release has: {lacks}; the API server drops such fields");
        findings.push(Finding::new(Code::A103, about, seen));
    }
    if !definition.unknown.is_empty() {
        let unknown = list(&definition.unknown);
        let seen = format!("it has what this release does not know: {unknown}");
        findings.push(Finding::new(Code::A103, about, seen).with(Severity::Info));
    }
    findings
}

fn images(installation: &Installation, program: &str) -> Vec<Finding> {
    let running = installation.pods.iter().filter(|pod| !pod.ending);
    let tags: BTreeSet<(Component, &str)> =
        running.map(|pod| (pod.component, tag(&pod.image))).collect();
    let releases: BTreeSet<&str> = tags.iter().map(|(_, tag)| *tag).collect();
    if releases.len() > 1 {
        let each = tags.iter().map(|(component, tag)| format!("{} {tag}", component.as_str()));
        let seen = format!("pods of several releases run: {}", list(each));
        return vec![Finding::new(Code::A104, "images", seen)];
    }
    let other = releases.into_iter().find(|tag| !tag.is_empty() && *tag != program);
    let seen = |tag| format!("release {tag} runs in the cluster, and this command is of {program}");
    other.map(|tag| Finding::new(Code::A105, "images", seen(tag))).into_iter().collect()
}

/// Whether all that is called by one release was built from one commit: a pod runs on with the image that it was started with.
fn builds(facts: &Facts) -> Option<Finding> {
    let mut nodes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (node, metrics) in answered(&facts.metrics) {
        if let Some(revision) = &metrics.revision {
            nodes.entry(revision).or_default().insert(node);
        }
    }
    if nodes.len() > 1 {
        let each = nodes.iter().map(|(revision, nodes)| format!("{revision} on {}", list(nodes)));
        let seen =
            format!("they are called by one release, and are of several commits: {}", list(each));
        return Some(Finding::new(Code::A106, "speakers", seen));
    }
    let (theirs, own) = (nodes.into_keys().next()?, facts.revision.as_deref()?);
    let seen = format!("they are of commit {theirs}, and this command is of {own}");
    (theirs != own).then(|| Finding::new(Code::A106, "speakers", seen).with(Severity::Info))
}

/// `0.1.0` of `docker.io/arpeggio/speaker:0.1.0@sha256:...`.
fn tag(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or_default();
    let last = name.rsplit('/').next().unwrap_or_default();
    last.split_once(':').map_or("", |(_, tag)| tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::sample::{codes, facts},
        facts::Metrics,
    };

    #[test]
    fn old_kubernetes_is_an_error() {
        for (version, expected) in
            [((1, 28), true), ((1, 29), false), ((1, 36), false), ((0, 99), true), ((2, 0), false)]
        {
            assert_eq!(kubernetes(version).is_some(), expected, "{version:?}");
        }
    }

    #[test]
    fn definitions_differ() {
        let with = |definition: Definition| {
            codes(&check(&Facts { definition: Ok(definition), ..facts() }))
        };
        assert!(with(Definition { installed: true, ..Definition::default() }).is_empty());
        let lacks = vec!["spec.routed".to_owned()];
        let lacking = Definition { installed: true, lacks, ..Definition::default() };
        assert_eq!(with(lacking), [(Code::A103, Severity::Warning)]);
        assert_eq!(
            with(Definition::default()),
            [(Code::A102, Severity::Info)],
            "the pools are elsewhere"
        );
        let without = Facts { definition: Ok(Definition::default()), pools: Ok(vec![]), ..facts() };
        assert_eq!(codes(&check(&without)), [(Code::A102, Severity::Error)]);
        let unknown = Facts { definition: Err("no".to_owned()), ..facts() };
        assert_eq!(codes(&check(&unknown)), [(Code::A102, Severity::Unchecked)]);
    }

    #[test]
    fn releases_are_told_apart() {
        let mut facts = facts();
        let pods = &mut facts.installation.as_mut().unwrap().pods;
        pods[1].image = "docker.io/arpeggio/speaker:0.2.0".to_owned();
        assert_eq!(codes(&check(&facts)), [(Code::A104, Severity::Warning)]);
        let pods = &mut facts.installation.as_mut().unwrap().pods;
        pods.iter_mut().for_each(|pod| pod.image = "a/b:0.2.0".to_owned());
        assert_eq!(codes(&check(&facts)), [(Code::A105, Severity::Info)]);
    }

    #[test]
    fn commits_of_one_release_are_told_apart() {
        let found = |revisions: &[Option<&str>]| {
            let mut facts = facts();
            let metrics = revisions.iter().zip(1..).map(|(revision, node)| {
                let revision = revision.map(str::to_owned);
                (format!("node-{node}"), Ok(Metrics { revision, ..Metrics::default() }))
            });
            facts.metrics = metrics.collect();
            check(&facts)
        };
        let own = Some("c0ffee");
        for fine in [&[own, own][..], &[own, None], &[None], &[]] {
            assert_eq!(codes(&found(fine)), [], "{fine:?}");
        }
        let several = found(&[own, Some("beef"), Some("beef")]);
        assert_eq!(codes(&several), [(Code::A106, Severity::Warning)]);
        assert!(
            several[0].seen.ends_with("beef on node-2, node-3, c0ffee on node-1"),
            "{several:?}"
        );
        assert_eq!(codes(&found(&[Some("beef"), None])), [(Code::A106, Severity::Info)]);
    }

    #[test]
    fn tags_are_found() {
        let table =
            [("a/b:1", "1"), ("host:5000/a/b:1@sha256:00", "1"), ("host:5000/a/b", ""), ("", "")];
        for (image, expected) in table {
            assert_eq!(tag(image), expected, "{image}");
        }
    }
}

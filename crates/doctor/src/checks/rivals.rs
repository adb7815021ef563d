//! Other load balancers in the cluster.

use std::collections::BTreeMap;

use super::{known, list};
use crate::{
    code::Code,
    facts::{Facts, Rival, Service, Stage},
    finding::{Finding, Severity},
};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = known(Code::A401, "other load balancers", &facts.rivals, |rivals| {
        rivals.iter().map(|it| rival(it, it.is_apart(&facts.class))).collect()
    });
    findings.extend(known(Code::A402, "Services", &facts.services, |services| {
        writers(services, facts.stage)
    }));
    if facts.stage == Stage::Installed {
        findings.extend(known(Code::A403, "other installations", &facts.elsewhere, |elsewhere| {
            let about = |namespace: &String| format!("namespace {namespace}");
            let seen = "a controller of another installation of Arpeggio leads there";
            elsewhere.iter().map(|it| Finding::new(Code::A403, about(it), seen)).collect()
        }));
    }
    findings
}

fn rival(rival: &Rival, is_apart: bool) -> Finding {
    let finding = |what: &str| {
        let seen = format!("{} is installed: it serves {what}", rival.product);
        Finding::new(Code::A401, &rival.object, seen)
    };
    if is_apart {
        return finding("Services of another spec.loadBalancerClass").with(Severity::Info);
    }
    finding("the same Services")
}

fn writers(services: &[Service], stage: Stage) -> Vec<Finding> {
    let mut served: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for service in services.iter().filter(|it| it.is_ours()) {
        for writer in &service.writers {
            served.entry(writer).or_default().push(&service.path);
        }
    }
    // Before Arpeggio is there, somebody else does its work.
    let severity = if stage == Stage::Before { Severity::Info } else { Code::A402.severity() };
    let finding = |(writer, paths): (&str, Vec<&str>)| {
        let seen = format!("it writes status.loadBalancer of {}", list(paths));
        Finding::new(Code::A402, format!("field manager {writer}"), seen).with(severity)
    };
    served.into_iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::sample::{codes, facts};

    #[test]
    fn who_serves_other_services_is_no_rival() {
        use Severity::{Info, Warning};
        let class = |name: &str| Some(name.to_owned());
        let table = [
            (Ok(None), None, Warning),
            (Ok(None), Some(vec![None]), Warning),
            (Ok(None), Some(vec![class("theirs")]), Info),
            (Ok(class("ours")), Some(vec![None]), Info),
            (Ok(class("ours")), Some(vec![None, class("ours")]), Warning),
            (Ok(class("ours")), Some(vec![class("theirs")]), Info),
            (Ok(class("ours")), None, Warning),
            (Err("forbidden".to_owned()), Some(vec![class("theirs")]), Warning),
        ];
        for (ours, classes, severity) in table {
            let rival = Rival { product: "a".into(), object: "b".into(), classes };
            let with = Facts { class: ours.clone(), rivals: Ok(vec![rival.clone()]), ..facts() };
            let found = check(&with);
            assert_eq!(codes(&found), [(Code::A401, severity)], "{ours:?} {rival:?}");
            let is_told_to_do_nothing = found[0].advice().unwrap().starts_with("Nothing");
            assert_eq!(is_told_to_do_nothing, severity == Info, "{ours:?} {rival:?}");
        }
    }

    #[test]
    fn each_rival_is_found() {
        use Severity::{Error, Info, Unchecked, Warning};
        assert!(check(&facts()).is_empty());
        let rival = Rival {
            product: "MetalLB".into(),
            object: "DaemonSet metallb-system/speaker".into(),
            classes: None,
        };
        let with = Facts { rivals: Ok(vec![rival]), ..facts() };
        assert_eq!(codes(&check(&with)), [(Code::A401, Warning)]);
        let with = Facts { elsewhere: Ok(vec!["other".into()]), ..facts() };
        assert_eq!(codes(&check(&with)), [(Code::A403, Error)]);
        let with = Facts { elsewhere: Err("forbidden".into()), ..facts() };
        assert_eq!(codes(&check(&with)), [(Code::A403, Unchecked)]);
        let mut with = facts();
        with.services.as_mut().unwrap()[0].writers = vec!["k3s".into()];
        assert_eq!(codes(&check(&with)), [(Code::A402, Warning)]);
        with.stage = Stage::Before;
        assert_eq!(codes(&check(&with)), [(Code::A402, Info)]);
        with.services.as_mut().unwrap()[0].other_class = Some("theirs".into());
        assert!(check(&with).is_empty(), "it is theirs");
    }
}

//! Who announces what, by the Leases.

use std::net::IpAddr;

use super::known;
use crate::{
    code::Code,
    facts::{Facts, Lock, Service},
    finding::Finding,
};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = known(Code::A902, "locks", &facts.locks, |locks| {
        let in_use = locks.iter().filter(|lock| !lock.rests || lock.stranger.is_some());
        in_use.filter_map(|lock| quarantined(lock).or_else(|| unheld(lock, facts))).collect()
    });
    if let (Ok(locks), Ok(services)) = (&facts.locks, &facts.services) {
        let ours = services.iter().filter(|it| it.is_ours());
        findings.extend(ours.flat_map(|service| dead(service, locks)));
    }
    findings.extend(counted(facts));
    findings
}

fn about(address: IpAddr) -> String {
    format!("address {address}")
}

fn of(lock: &Lock) -> String {
    lock.services.join(", ")
}

fn quarantined(lock: &Lock) -> Option<Finding> {
    let mac = lock.stranger.as_ref()?;
    let seen = format!("a machine with MAC address {mac} has it, so it is not announced");
    Some(Finding::new(Code::A901, about(lock.address), seen))
}

fn unheld(lock: &Lock, facts: &Facts) -> Option<Finding> {
    let is_routed = facts
        .pools
        .as_ref()
        .is_ok_and(|pools| pools.iter().any(|it| it.routed && it.plain_name == lock.pool));
    if lock.holder.is_some() || lock.services.is_empty() || is_routed {
        return None;
    }
    let seen = match &lock.former {
        Some(node) => format!(
            "nobody announces it for {}; node {node} did, and its session counts no more",
            of(lock)
        ),
        None => format!("nobody announces it for {}", of(lock)),
    };
    Some(Finding::new(Code::A902, about(lock.address), seen))
}

/// Addresses in the status that no lock gives the Service.
fn dead(service: &Service, locks: &[Lock]) -> Vec<Finding> {
    let is_given = |address: IpAddr| {
        locks.iter().any(|it| it.address == address && it.services.contains(&service.path))
    };
    let lost = service.addresses.iter().filter(|it| !is_given(**it));
    let finding = |address: &IpAddr| {
        let seen = format!(
            "its status has {address}, which Arpeggio has not given it: nobody announces it"
        );
        Finding::new(Code::A903, format!("Service {}", service.path), seen)
    };
    lost.map(finding).collect()
}

fn counted(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (node, metrics) in &facts.metrics {
        let Ok(metrics) = metrics else { continue };
        let node = format!("node {node}");
        if metrics.contested > 0 {
            let seen = format!(
                "a stranger has announced {} of its addresses in the last two minutes",
                metrics.contested
            );
            findings.push(Finding::new(Code::A904, &node, seen));
        }
        if metrics.unannounceable > 0 {
            let seen = format!(
                "it holds {} addresses that none of its interfaces can announce",
                metrics.unannounceable
            );
            findings.push(Finding::new(Code::A905, &node, seen));
        }
    }
    let services = facts.services.as_deref().unwrap_or_default().iter().filter(|it| it.is_ours());
    findings.extend(services.filter_map(|it| {
        Some(Finding::new(Code::A904, format!("Service {}", it.path), it.conflict.as_ref()?))
    }));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::sample::{codes, facts},
        facts::Metrics,
        finding::Severity,
    };

    fn changed(change: impl FnOnce(&mut Lock)) -> Vec<(Code, Severity)> {
        let mut facts = facts();
        change(&mut facts.locks.as_mut().unwrap()[0]);
        codes(&check(&facts))
    }

    #[test]
    fn each_fault_has_its_code() {
        use Severity::{Error, Warning};
        assert_eq!(changed(|_| {}), []);
        assert_eq!(changed(|it| it.holder = None), [(Code::A902, Error)]);
        assert_eq!(
            changed(|it| it.stranger = Some("02:00:00:00:00:09".into())),
            [(Code::A901, Warning)]
        );
        assert_eq!(
            changed(|it| it.services = vec!["default/other".into()]),
            [(Code::A903, Warning)]
        );
        let mut routed = facts();
        routed.pools.as_mut().unwrap()[0].routed = true;
        routed.pools.as_mut().unwrap()[0].name = "home (ConfigMap lb/arpeggio, line 1)".into();
        routed.locks.as_mut().unwrap()[0].holder = None;
        assert_eq!(codes(&check(&routed)), []);
        let mut theirs = facts();
        theirs.services.as_mut().unwrap()[0].other_class = Some("theirs".into());
        theirs.locks = Ok(vec![]);
        assert_eq!(codes(&check(&theirs)), []);
    }

    #[test]
    fn what_speakers_count_is_told() {
        let mut facts = facts();
        let metrics = Metrics { contested: 1, unannounceable: 1, ..Metrics::default() };
        facts.metrics.insert("node-1".into(), Ok(metrics));
        assert_eq!(
            codes(&check(&facts)),
            [(Code::A904, Severity::Warning), (Code::A905, Severity::Error)]
        );
    }
}

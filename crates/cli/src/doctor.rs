//! `arpeggio doctor`: is the installation right, and would it fail over?
//!
//! What is wrong follows from facts alone ([`arpeggio_doctor`]). Here they are gathered, and what was found is written.

mod gather;
mod kubernetes;
mod leases;
mod metrics;
mod nodes;
mod permissions;
mod placement;
mod pods;
mod pools;
mod report;
mod rivals;
mod services;
mod surveyors;
mod workloads;

use std::{collections::BTreeSet, io::IsTerminal as _, process::ExitCode};

use arpeggio_doctor::{
    Code, Facts, Finding, Group, Selection, Selector, Severity, Stage, examine, is_repeatable,
};
use arpeggio_ipam::AddressRange;
use arpeggio_runtime::version::{REVISION, VERSION};

use self::{gather::Gatherer, report::Report};
use crate::{
    global::Global,
    outcome::{Format, Outcome},
};

/// Exit code: something is wrong.
const WRONG: u8 = 2;
/// Exit code: something should be looked at.
const WARNING: u8 = 1;

/// Arguments of `arpeggio doctor`.
#[derive(Debug, clap::Args)]
#[allow(clippy::doc_markdown, reason = "it is shown on a terminal")]
pub(crate) struct DoctorArgs {
    /// Before Arpeggio is installed: only what can be judged without it.
    #[arg(long)]
    pre: bool,
    /// Judge these addresses as if they were in a pool: a CIDR, a range or a single address. Can be repeated.
    #[arg(long, value_name = "RANGE", value_delimiter = ',')]
    addresses: Vec<AddressRange>,
    /// Only these checks: codes (A101) and groups (pools). Can be repeated.
    #[arg(long, value_name = "CHECKS", value_delimiter = ',')]
    only: Vec<Selector>,
    /// Not these checks.
    #[arg(long, value_name = "CHECKS", value_delimiter = ',')]
    skip: Vec<Selector>,
    /// The spec.loadBalancerClass that the controller serves. Default: what its Deployment says.
    #[arg(long, env = "ARPEGGIO_LOAD_BALANCER_CLASS", value_name = "CLASS")]
    load_balancer_class: Option<String>,
    /// How the result is written.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

impl DoctorArgs {
    fn stage(&self) -> Stage {
        if self.pre { Stage::Before } else { Stage::Installed }
    }

    /// An empty one, as an unset value in a manifest gives, means none.
    fn class(&self) -> Option<&str> {
        self.load_balancer_class.as_deref().filter(|class| !class.is_empty())
    }
}

/// Looks at everything and says what was found.
pub(crate) async fn run(global: &Global, args: &DoctorArgs) -> anyhow::Result<Outcome> {
    let selection = Selection { only: args.only.clone(), skip: args.skip.clone() };
    let mut gatherer = Gatherer::new(global, args, &selection).await?;
    let facts = gatherer.gather().await;
    let mut findings = examine(&facts, &selection);
    if findings.iter().any(needs_second_look) {
        progress("looking a second time at what may have been a moment's doing");
        let again = examine(&gatherer.gather().await, &selection);
        findings = confirmed(findings, &again);
    }
    let is_blank = is_blank(&facts, &selection);
    let report = Report::of(&findings, is_blank);
    let code = match worst(&findings) {
        Some(Severity::Error) => ExitCode::from(WRONG),
        Some(Severity::Warning) => ExitCode::from(WARNING),
        _ if is_blank => ExitCode::FAILURE,
        Some(Severity::Unchecked | Severity::Info) | None => ExitCode::SUCCESS,
    };
    Ok(Outcome { text: args.output.of(&report, Report::to_text)?, code })
}

/// Whether too little may be read to say that anything is right. Who has named checks knows what they need.
fn is_blank(facts: &Facts, selection: &Selection) -> bool {
    let is_done = |code: &Code| selection.wants(*code) && can_be_done(*code, facts);
    facts.nodes.is_err()
        && facts.services.is_err()
        && facts.pools.is_err()
        && (selection.only.is_empty() || !Code::ALL.iter().any(is_done))
}

/// Whether a check can be made that needs neither nodes nor Services nor pools.
fn can_be_done(code: Code, facts: &Facts) -> bool {
    match (code, code.group()) {
        (Code::A101, _) => facts.kubernetes.is_ok(),
        (Code::A102 | Code::A103, _) => facts.definition.is_ok(),
        (Code::A401, _) => facts.rivals.is_ok(),
        (Code::A403, _) => facts.elsewhere.is_ok(),
        (_, Group::Versions) => facts.installation.is_ok(),
        (_, Group::Pods) => facts.installation.is_ok() && code != Code::A304,
        (_, Group::Permissions) => facts.permissions.is_ok(),
        (_, Group::Proxy) => facts.proxy.is_ok(),
        (_, Group::Sessions) => facts.sessions.is_ok(),
        (_, Group::Addresses) => facts.locks.is_ok(),
        (_, Group::Forwarders) => facts.forwarders.is_ok(),
        (_, Group::Wire) => facts.surveys.values().any(Result::is_ok),
        (_, Group::Rivals | Group::Nodes | Group::Pools | Group::Services) => false,
    }
}

fn needs_second_look(finding: &Finding) -> bool {
    is_repeatable(finding.code) && finding.severity >= Severity::Warning
}

/// Without what was seen once only.
fn confirmed(findings: Vec<Finding>, again: &[Finding]) -> Vec<Finding> {
    let seen: BTreeSet<(Code, &str)> =
        again.iter().map(|it| (it.code, it.about.as_str())).collect();
    let is_lasting =
        |it: &Finding| !needs_second_look(it) || seen.contains(&(it.code, it.about.as_str()));
    findings.into_iter().filter(is_lasting).collect()
}

fn worst(findings: &[Finding]) -> Option<Severity> {
    findings.iter().map(|finding| finding.severity).max()
}

/// Says what is being done, to somebody who waits for it.
fn progress(what: &str) {
    if std::io::stderr().is_terminal() {
        anstream::eprintln!("doctor: {what} ...");
    }
}

/// Nothing is known, since nobody was asked.
fn nothing_known(stage: Stage, namespace: &str) -> Facts {
    let unasked = || "it was not asked for".to_owned();
    Facts {
        stage,
        namespace: namespace.to_owned(),
        program: VERSION.to_owned(),
        revision: metrics::known_revision(REVISION),
        kubernetes: Err(unasked()),
        definition: Err(unasked()),
        permissions: Err(unasked()),
        installation: Err(unasked()),
        class: Err(unasked()),
        rivals: Err(unasked()),
        elsewhere: Err(unasked()),
        proxy: Err(unasked()),
        nodes: Err(unasked()),
        service_ranges: Err(unasked()),
        pools: Err(unasked()),
        sessions: Err(unasked()),
        forwarders: Err(unasked()),
        locks: Err(unasked()),
        damaged: Vec::new(),
        services: Err(unasked()),
        uses: Vec::new(),
        metrics: std::collections::BTreeMap::new(),
        surveys: std::collections::BTreeMap::new(),
        pods: std::collections::BTreeMap::new(),
        unasked: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        doctor: DoctorArgs,
    }

    pub(super) fn args(flags: &[&str]) -> DoctorArgs {
        <Line as clap::Parser>::parse_from([&["doctor"], flags].concat()).doctor
    }

    #[test]
    fn what_was_seen_once_on_the_wire_does_not_count() {
        let finding = |code, about: &str| Finding::new(code, about, "seen");
        let first = vec![
            finding(Code::W101, "a to b"),
            finding(Code::W101, "b to a"),
            finding(Code::A703, "pool a"),
        ];
        let again = [finding(Code::W101, "b to a")];
        let left: Vec<String> = confirmed(first, &again).into_iter().map(|it| it.about).collect();
        assert_eq!(left, ["b to a", "pool a"]);
    }

    #[test]
    fn a_check_that_was_named_and_made_is_not_nothing() {
        let facts = Facts { kubernetes: Ok((1, 36)), ..nothing_known(Stage::Installed, "lb") };
        let is_blank = |only: &[&str], facts: &Facts| {
            let only = only.iter().map(|it| it.parse().unwrap()).collect();
            is_blank(facts, &Selection { only, skip: Vec::new() })
        };
        assert!(is_blank(&[], &facts), "of all that was wanted that is next to nothing");
        assert!(!is_blank(&["A101"], &facts));
        assert!(!is_blank(&["versions", "wire"], &facts));
        assert!(is_blank(&["A102", "pods"], &facts));
        let some = Facts { nodes: Ok(Vec::new()), ..facts };
        assert!(!is_blank(&[], &some));
    }
}

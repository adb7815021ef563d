//! What a drill has shown.

use std::{fmt::Write as _, net::IpAddr, time::Duration};

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::{
    gap::longest,
    junit::{Case, Verdict},
    nodes::WHO_HAS,
    plan::{Kind, Plan},
    probe::{EVERY, Series},
    rehearsal::Observation,
};
use crate::{changes::What, paint};

/// A picture is no wider than this.
const COLUMNS: u32 = 80;

/// How much of a picture is before it was done.
const BEFORE: Duration = Duration::from_millis(400);

/// The names of the fields are part of the interface: `docs/user-guide.md` lists them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    kind: &'static str,
    service: String,
    address: IpAddr,
    started: Timestamp,
    from: String,
    /// Who has the address in the end.
    to: Option<String>,
    /// After how long its name was on the lock, as seen from here.
    taken_over_after_ms: Option<u64>,
    /// After how long the owner of before took part again.
    back_after_ms: Option<u64>,
    probes: Vec<Probe>,
    /// The longest gap of any probe. Without probes, and after a silence or from a node at least, the time until somebody else had the
    /// address.
    gap_ms: Option<u64>,
    budget_ms: Option<u64>,
    /// `None`: there is no budget.
    within_budget: Option<bool>,
    timeline: Vec<Entry>,
    also_moved: Vec<Moved>,
    events: Vec<String>,
    /// What to know about the figures.
    remarks: Vec<String>,
    #[serde(skip)]
    picture: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    name: String,
    attempts: usize,
    failed: usize,
    /// The longest time without an answer.
    gap_ms: u64,
    /// When it began, after it was done.
    gap_from_ms: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Entry {
    /// Milliseconds after it was done.
    ms: i64,
    what: String,
}

#[derive(Debug, Serialize)]
struct Moved {
    address: String,
    services: Vec<String>,
    from: Option<String>,
    to: Option<String>,
}

impl Report {
    pub(super) fn of(
        plan: &Plan,
        seen: &Observation,
        budget: Option<Duration>,
        started: Timestamp,
    ) -> Self {
        let after = |at: Duration| millis(at.saturating_sub(seen.acted));
        let probes: Vec<Probe> = seen.series.iter().map(|it| Probe::of(it, seen.acted)).collect();
        let taken = seen.taken.as_ref().map(|(at, _)| after(*at));
        let longest_gap = probes.iter().map(|it| it.gap_ms).max();
        let gap_ms = match plan.kind {
            // Who asks who has the address got no answer for so long, whatever the silent node's kernel went on to forward.
            Kind::Silence => longest_gap.max(taken),
            _ if sees_nothing(seen) => longest_gap.max(taken),
            Kind::Handover | Kind::StopSpeaker => longest_gap.or(taken),
        };
        let budget_ms = budget.map(millis);
        let entry = |(at, told): &(Duration, crate::changes::Told)| Entry {
            ms: offset(*at, seen.acted),
            what: paint::plain(&told.words()),
        };
        Self {
            kind: plan.kind.as_str(),
            service: plan.service.clone(),
            address: plan.address,
            started,
            from: plan.owner.session.node.to_string(),
            to: seen.taken.as_ref().map(|(_, to)| to.clone()),
            taken_over_after_ms: taken,
            back_after_ms: seen.back.map(after),
            probes,
            gap_ms,
            budget_ms,
            within_budget: budget_ms.map(|budget| gap_ms.is_some_and(|gap| gap <= budget)),
            timeline: seen.changes.iter().map(entry).collect(),
            also_moved: also_moved(plan, seen),
            events: seen.events.clone(),
            remarks: remarks(plan, seen),
            picture: picture(plan, seen),
        }
    }

    pub(super) fn is_over_budget(&self) -> bool {
        self.within_budget == Some(false)
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = format!("{}\n", self.picture);
        // Writing to a string cannot fail.
        for Entry { ms, what } in &self.timeline {
            let _ = writeln!(text, "{ms:>7} ms  {}", paint::one_line(what));
        }
        text.push('\n');
        for probe in &self.probes {
            let _ = writeln!(text, "{}", probe.to_text());
        }
        if let (Some(to), Some(after)) = (&self.to, self.taken_over_after_ms) {
            let _ = writeln!(text, "{} was on the lock of {} after {after} ms", to, self.address);
        }
        if let Some(back) = self.back_after_ms {
            let _ = writeln!(text, "{} took part again after {back} ms", self.from);
        }
        let _ = writeln!(text, "{} other addresses moved", self.also_moved.len());
        for event in &self.events {
            let _ = writeln!(text, "event: {}", paint::one_line(event));
        }
        for remark in &self.remarks {
            let _ = writeln!(text, "note: {}", paint::one_line(remark));
        }
        text + &self.verdict()
    }

    fn verdict(&self) -> String {
        let (Some(budget), Some(gap)) = (self.budget_ms, self.gap_ms) else { return String::new() };
        match self.within_budget {
            Some(true) => paint::good(&format!("within the budget: {gap} of {budget} ms")) + "\n",
            _ => {
                paint::bad(&format!("over the budget: {gap} ms, and {budget} ms are allowed"))
                    + "\n"
            }
        }
    }

    /// One test case, as CI systems read it.
    pub(super) fn to_junit(&self) -> String {
        let words = self.verdict();
        let verdict = if self.is_over_budget() { Verdict::Failure(&words) } else { Verdict::Good };
        let case = Case {
            name: &format!("{} of {} ({})", self.kind, self.service, self.address),
            started: Some(self.started.to_string()),
            seconds: self.gap_ms.map_or(0.0, |ms| Duration::from_millis(ms).as_secs_f64()),
            verdict,
            output: &self.to_text(),
        };
        case.to_xml()
    }
}

impl Probe {
    fn of(series: &Series, acted: Duration) -> Self {
        let gap = longest(series);
        Self {
            name: series.name.clone(),
            attempts: series.tries.len(),
            failed: series.tries.iter().filter(|it| !it.answered).count(),
            gap_ms: gap.map_or(0, |gap| millis(gap.length)),
            gap_from_ms: gap.map(|gap| offset(gap.from, acted)),
        }
    }

    fn to_text(&self) -> String {
        let Self { name, attempts, failed, gap_ms, .. } = self;
        match self.gap_from_ms {
            None => format!("{name}: each of {attempts} attempts was answered"),
            Some(from) => format!(
                "{name}: {failed} of {attempts} attempts failed; without an answer for {gap_ms} ms, from {from} ms on"
            ),
        }
    }
}

fn also_moved(plan: &Plan, seen: &Observation) -> Vec<Moved> {
    let address = plan.address.to_string();
    let moves = seen.changes.iter().map(|(_, told)| told).filter(|it| it.change == What::Moved);
    let others = moves.filter(|it| it.address.as_deref() != Some(&address));
    others
        .map(|told| Moved {
            address: told.address.clone().unwrap_or_default(),
            services: told.services.clone(),
            from: told.from.clone(),
            to: told.to.clone(),
        })
        .collect()
}

/// Whether other nodes asked who has the address.
fn is_asked(series: &Series) -> bool {
    series.name.starts_with(WHO_HAS)
}

/// Whether nobody noticed what clients do: connections from a node never leave it.
fn sees_nothing(seen: &Observation) -> bool {
    seen.on_node && !seen.series.is_empty() && !seen.series.iter().any(is_asked)
}

fn remarks(plan: &Plan, seen: &Observation) -> Vec<String> {
    let owner = &plan.owner.session.node;
    let connects = seen.series.iter().any(|it| !is_asked(it));
    let own = seen.taken.as_ref().map(|(_, to)| to.as_str()).filter(|to| {
        seen.series
            .iter()
            .any(|it| it.name.strip_prefix(WHO_HAS).is_some_and(|it| it.trim() == *to))
    });
    let own = own.map(|to| {
        format!("{to} asked until it had the address itself: nobody answers its own questions")
    });
    let forwards = (plan.kind == Kind::Silence && connects).then(|| {
        format!(
            "the kernel of {owner} went on forwarding for those who knew its MAC address, so the time until another node had the address counts, too"
        )
    });
    let stays = sees_nothing(seen).then(|| {
        "this machine is a node, whose own service proxy takes connections to the address, so the time until another node had it counts, too: have other nodes ask by --ask-from, or connect from elsewhere".to_owned()
    });
    let probes = (!seen.series.is_empty()).then(|| {
        format!("a new attempt every {} ms, so gaps are exact to that", EVERY.as_millis())
    });
    let unread = seen.gaps.iter().map(|gap| format!("not read: {gap}"));
    forwards.into_iter().chain(stays).chain(own).chain(probes).chain(unread).collect()
}

/// A row for each probe and one for the lock, around the moment when it was done.
fn picture(plan: &Plan, seen: &Observation) -> String {
    let begin = seen.acted.saturating_sub(BEFORE);
    let ends = seen.series.iter().filter_map(longest).map(|gap| gap.from + gap.length);
    let end = ends.chain(seen.taken.iter().map(|(at, _)| *at)).max().unwrap_or(seen.acted);
    let column = column(end.saturating_sub(begin) + BEFORE);
    let zero = usize::try_from(seen.acted.saturating_sub(begin).as_millis() / column.as_millis());
    let zero = zero.unwrap_or_default();
    let width = label_width(&seen.series);
    let mut text = format!("{:width$} {:zero$}▼ {}\n", "", "", plan.kind.as_str());
    let columns = |number: u32| (begin + column * number, begin + column * (number + 1));
    for series in &seen.series {
        let row: String = (0..COLUMNS).map(columns).map(|span| mark(series, span)).collect();
        let _ = writeln!(text, "{:width$} {}", series.name, row.trim_end());
    }
    let row: String = (0..COLUMNS).map(columns).map(|(_, to)| owner(seen, to)).collect();
    let (from, to) = (&plan.owner.session.node, seen.taken.as_ref().map(|(_, to)| to.as_str()));
    let _ = writeln!(text, "{:width$} {row}", "lock");
    let legend = format!("█ answered  · failed  a {from}  b {}", to.unwrap_or("nobody"));
    text + &format!("{:width$} one column is {} ms; {legend}\n", "", column.as_millis())
}

fn label_width(series: &[Series]) -> usize {
    series.iter().map(|it| it.name.len()).chain(["lock".len()]).max().unwrap_or_default()
}

/// As many probes' time as it takes for all to be seen.
fn column(all: Duration) -> Duration {
    let needed = all.as_millis().div_ceil(EVERY.as_millis() * u128::from(COLUMNS));
    EVERY * u32::try_from(needed.max(1)).unwrap_or(u32::MAX)
}

fn mark(series: &Series, (from, to): (Duration, Duration)) -> char {
    let mut tries = series.tries.iter().filter(|it| (from..to).contains(&it.at));
    match (tries.clone().next(), tries.all(|it| it.answered)) {
        (None, _) => ' ',
        (Some(_), true) => '█',
        (Some(_), false) => '·',
    }
}

fn owner(seen: &Observation, at: Duration) -> char {
    if seen.taken.as_ref().is_some_and(|(taken, _)| *taken < at) { 'b' } else { 'a' }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds from `zero`, negative before it.
fn offset(at: Duration, zero: Duration) -> i64 {
    let signed = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    signed(at).saturating_sub(signed(zero))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arpeggio_api::{
        lock::{self, Claim},
        session::SessionRecord,
        terms::WrittenAnnounceTerms,
    };
    use arpeggio_election::{Epoch, Session, Version};

    use super::{super::probe::Try, *};

    fn plan(kind: Kind) -> Plan {
        let address: IpAddr = [192, 168, 0, 240].into();
        let terms = WrittenAnnounceTerms::default();
        let claim =
            Claim { address, pool: "home".into(), services: Vec::new(), terms, spread: false };
        let mut lease = claim.created();
        lease.metadata.resource_version = Some("1".into());
        let session = Session::live("node-1".into(), Epoch(1), Version(1));
        let owner = SessionRecord {
            session,
            newer: None,
            instance: "speaker-1".into(),
            links: Vec::new(),
            own: None,
            paths: BTreeMap::new(),
            heard_on: arpeggio_api::session::HeardOn::default(),
            silence: None,
        };
        Plan {
            kind,
            service: "shop/web".into(),
            address,
            lock: lock::parse(&lease).unwrap(),
            owner,
            candidates: vec!["node-2".into()],
            others: Vec::new(),
        }
    }

    /// Every attempt is answered, as from a node.
    fn on_node(series: &[&str]) -> Report {
        let tries = seen().series.remove(0).tries.into_iter();
        let tries: Vec<Try> = tries.map(|it| Try { answered: true, ..it }).collect();
        let series =
            series.iter().map(|name| Series { name: (*name).into(), tries: tries.clone() });
        let seen = Observation { on_node: true, series: series.collect(), ..seen() };
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        Report::of(&plan(Kind::Handover), &seen, Some(Duration::from_millis(249)), now)
    }

    #[test]
    fn what_never_leaves_a_node_keeps_no_budget() {
        let said = |report: &Report| report.remarks.iter().any(|it| it.contains("--ask-from"));
        let connected = on_node(&["tcp 80"]);
        assert_eq!(connected.gap_ms, Some(250), "the takeover counts");
        assert!(connected.is_over_budget() && said(&connected), "{:?}", connected.remarks);
        let asked = on_node(&["tcp 80", "who-has node-3"]);
        assert!(!asked.is_over_budget() && !said(&asked), "{:?}", asked.remarks);
    }

    /// Done after one second; no answer from 1.1 s until 1.3 s; taken over after 1.25 s.
    fn seen() -> Observation {
        let at = Duration::from_millis;
        let tries = (0..150).map(|number| at(20 * number));
        let tries = tries.map(|at| Try { at, answered: !(1100..1300).contains(&at.as_millis()) });
        Observation {
            acted: at(1000),
            taken: Some((at(1250), "node-2".into())),
            back: Some(at(6200)),
            series: vec![Series { name: "tcp 80".into(), tries: tries.collect() }],
            ..Observation::default()
        }
    }

    fn report(budget: Option<u64>) -> Report {
        let budget = budget.map(Duration::from_millis);
        Report::of(&plan(Kind::Silence), &seen(), budget, "2026-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn gaps_and_takeovers_can_be_read_off() {
        let text = paint::plain(&report(Some(300)).to_text());
        let lines: Vec<&str> = text.lines().collect();
        let row = ["█".repeat(25), "·".repeat(10), "█".repeat(45)].concat();
        assert_eq!(lines[1], format!("tcp 80 {row}"), "{text}");
        assert_eq!(lines[0].find('▼'), Some(7 + 20), "{text}");
        assert!(lines[2].starts_with(&format!("lock   {}b", "a".repeat(32))), "{text}");
        assert!(
            text.contains(
                "10 of 150 attempts failed; without an answer for 200 ms, from 100 ms on"
            ),
            "{text}"
        );
        assert!(text.contains("node-2 was on the lock of 192.168.0.240 after 250 ms"), "{text}");
        assert!(text.contains("node-1 took part again after 5200 ms"), "{text}");
        assert!(text.contains("the kernel of node-1 went on forwarding"), "{text}");
        assert!(text.ends_with("within the budget: 250 of 300 ms\n"), "{text}");
    }

    #[test]
    fn a_budget_is_kept_or_not() {
        assert!(!report(None).is_over_budget());
        assert!(!report(Some(250)).is_over_budget());
        assert!(report(Some(249)).is_over_budget(), "the takeover counts after a silence");
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let handover = |budget| Report::of(&plan(Kind::Handover), &seen(), Some(budget), now);
        assert!(!handover(Duration::from_millis(200)).is_over_budget());
        assert!(handover(Duration::from_millis(199)).is_over_budget());
        let unprobed = Observation { series: Vec::new(), ..seen() };
        let budget = Some(Duration::from_millis(249));
        let report = Report::of(&plan(Kind::Handover), &unprobed, budget, now);
        assert!(report.is_over_budget(), "the takeover counts where nobody looked");
    }

    #[test]
    fn ci_systems_read_it() {
        let good = report(Some(300)).to_junit();
        assert!(good.contains("tests=\"1\" failures=\"0\""), "{good}");
        let bad = report(Some(100)).to_junit();
        let failure = "<failure message=\"over the budget: 250 ms, and 100 ms are allowed\"/>";
        assert!(bad.contains(failure), "{bad}");
    }

    /// Programs rely on these names.
    #[test]
    fn the_names_of_fields_stay() {
        let value = serde_json::to_value(report(Some(300))).unwrap();
        let names: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "address",
            "alsoMoved",
            "backAfterMs",
            "budgetMs",
            "events",
            "from",
            "gapMs",
            "kind",
            "probes",
            "remarks",
            "service",
            "started",
            "takenOverAfterMs",
            "timeline",
            "to",
            "withinBudget",
        ];
        assert_eq!(names, expected);
        let probe = serde_json::json!({
            "name": "tcp 80", "attempts": 150, "failed": 10, "gapMs": 200, "gapFromMs": 100,
        });
        assert_eq!(value["probes"][0], probe);
    }
}

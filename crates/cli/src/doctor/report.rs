//! What was found, for people and for programs.

use arpeggio_doctor::{Finding, Severity};
use serde::Serialize;

use crate::paint;

/// Where each code is explained.
const DOCUMENT: &str = "docs/troubleshooting.md";

/// All findings, and how many of each kind there are.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    errors: usize,
    warnings: usize,
    unchecked: usize,
    findings: Vec<Line>,
    /// Whether too little may be read to say that anything is right.
    #[serde(rename = "blank")]
    is_blank: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    code: String,
    group: &'static str,
    severity: &'static str,
    about: String,
    seen: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
    documentation: String,
}

impl Report {
    pub(super) fn of(findings: &[Finding], is_blank: bool) -> Self {
        let count = |severity| findings.iter().filter(|it| it.severity == severity).count();
        Self {
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            unchecked: count(Severity::Unchecked),
            findings: findings.iter().map(Line::of).collect(),
            is_blank,
        }
    }

    pub(super) fn to_text(&self) -> String {
        let lines = self.findings.iter().map(Line::to_text);
        lines.chain([self.summary()]).collect()
    }

    fn summary(&self) -> String {
        let of = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            count => format!("{count} {what}s"),
        };
        let verdict = match (self.errors, self.warnings) {
            (0, 0) if self.is_blank => paint::bad("next to nothing could be checked"),
            (0, 0) => paint::good("nothing is wrong"),
            (0, warnings) => paint::warn(&of(warnings, "warning")),
            (errors, 0) => paint::bad(&of(errors, "error")),
            (errors, warnings) => {
                paint::bad(&format!("{}, {}", of(errors, "error"), of(warnings, "warning")))
            }
        };
        match self.unchecked {
            0 => format!("{verdict}\n"),
            unchecked => format!("{verdict}; not checked: {unchecked}\n"),
        }
    }
}

impl Line {
    fn of(finding: &Finding) -> Self {
        Self {
            code: finding.code.to_string(),
            group: finding.code.group().as_str(),
            severity: finding.severity.as_str(),
            about: finding.about.clone(),
            seen: finding.seen.clone(),
            advice: finding.advice(),
            documentation: format!("{DOCUMENT}{}", finding.code.anchor()),
        }
    }

    fn to_text(&self) -> String {
        let severity = format!("{:9}", self.severity);
        let severity = match self.severity {
            "error" => paint::bad(&severity),
            "warning" => paint::warn(&severity),
            _ => severity,
        };
        let Self { code, about, seen, advice, documentation, .. } = self;
        let (about, seen) = (paint::one_line(about), paint::one_line(&one_line(seen)));
        let advice = advice.map(|it| format!(" {it}")).unwrap_or_default();
        format!("{severity} {code}  {about}: {seen}.{advice} [{documentation}]\n")
    }
}

/// What others say may have line breaks and a full stop.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use arpeggio_doctor::Code;

    use super::*;

    #[test]
    fn each_finding_is_a_line() {
        let findings = [
            Finding::new(Code::A601, "nodes", "all are excluded"),
            Finding::unchecked(Code::A711, "DHCP range", "nobody\nasks."),
        ];
        let report = Report::of(&findings, false);
        let text = paint::plain(&report.to_text());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("error     A601  nodes: all are excluded. Remove"), "{text}");
        assert!(lines[0].ends_with("[docs/troubleshooting.md#a601]"), "{text}");
        assert!(
            lines[1].starts_with("unchecked A711  DHCP range: not checked: nobody asks. [docs"),
            "{text}"
        );
        assert_eq!(lines[2], "1 error; not checked: 1");
        assert_eq!(paint::plain(&Report::of(&[], false).to_text()), "nothing is wrong\n");
        let blank = paint::plain(&Report::of(&findings[1..], true).to_text());
        assert!(blank.ends_with("next to nothing could be checked; not checked: 1\n"), "{blank}");
        for is_blank in [false, true] {
            let written = serde_json::to_value(Report::of(&findings[1..], is_blank)).unwrap();
            assert_eq!(written["blank"], is_blank, "programs see why it ends with 1");
        }
    }
}

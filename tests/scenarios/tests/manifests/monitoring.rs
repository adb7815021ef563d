//! The alert rules: one source, what is written from it, their own tests, and the page that says what to do.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use arpeggio_scenarios::helm_program;
use serde_json::Value;

use crate::rendered::{is_up_to_date, manifests, output, text};

const HEAD: &str = concat!(
    "\
# `make generate` writes this from manifests/monitoring/rules.yaml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: arpeggio
  labels: {app.kubernetes.io/name: arpeggio, app.kubernetes.io/part-of: arpeggio, app.kubernetes.io/version: ",
    env!("CARGO_PKG_VERSION"),
    "}
spec:
"
);

/// The rules from their first group on, without the remarks before it.
fn groups() -> String {
    let rules = text("manifests/monitoring/rules.yaml");
    rules[rules.find("groups:").unwrap()..].to_owned()
}

#[test]
fn the_operators_rules_are_up_to_date() {
    let indented = groups().trim_end().replace('\n', "\n  ");
    let file = manifests().join("components/monitoring/rules.yaml");
    is_up_to_date(&file, &format!("{HEAD}  {indented}\n"));
}

/// Its API server would drop a field that it does not know, and nobody would be scraped.
#[test]
fn the_operators_own_types_have_every_field_of_ours() {
    let check = |objects: &str| {
        let mut program = Command::new(helm_program("operator-objects").unwrap());
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = program.spawn().unwrap();
        child.stdin.take().unwrap().write_all(objects.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    };
    let component = |file: &str| text(&format!("manifests/components/monitoring/{file}"));
    assert_eq!(check(&component("pod-monitors.yaml")), Ok("3".to_owned()));
    assert_eq!(check(&component("rules.yaml")), Ok("1".to_owned()));
    let wrong = component("pod-monitors.yaml").replace("targetLabel", "targetlabels");
    assert!(check(&wrong).is_err_and(|error| error.contains("targetlabels")));
}

/// Real Prometheus judges each alert at a time at which it is to fire, and at one at which it is not.
#[test]
fn every_alert_fires_and_is_silent_when_it_is_to() {
    let folder = manifests().join("monitoring");
    let promtool = |args: &[&str]| output(Command::new("promtool").args(args).current_dir(&folder));
    promtool(&["check", "rules", "--lint-fatal", "rules.yaml"]);
    promtool(&["test", "rules", "rules.test.yaml"]);
    let tests = text("manifests/monitoring/rules.test.yaml");
    let tests: Value = serde_saphyr::from_str(&tests).unwrap();
    for alert in alerts() {
        let name = &alert["alert"];
        let of_alert = tests["tests"].as_array().unwrap().iter();
        let of_alert = of_alert.map(|test| &test["alert_rule_test"][0]);
        let outcomes = of_alert.filter(|test| test["alertname"] == *name);
        let fires: Vec<bool> =
            outcomes.map(|test| !test["exp_alerts"].as_array().unwrap().is_empty()).collect();
        assert!(fires.contains(&true) && fires.contains(&false), "{name} has {fires:?}");
    }
}

fn alerts() -> Vec<Value> {
    let rules: Value = serde_saphyr::from_str(&groups()).unwrap();
    rules["groups"][0]["rules"].as_array().unwrap().clone()
}

#[test]
fn every_alert_says_where_it_is_explained() {
    let page = text("docs/monitoring.md");
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        let anchor = format!("docs/monitoring.md#{}", name.to_lowercase());
        assert_eq!(alert["annotations"]["runbook_url"], anchor);
        assert!(page.contains(&format!("\n### {name}\n")), "docs/monitoring.md lacks {name}");
    }
    let explained = page.lines().filter(|line| line.starts_with("### Arpeggio")).count();
    assert_eq!(explained, alerts().len(), "an alert is explained that does not exist");
}

/// What an expression names that begins as our metrics do, without the suffixes of histograms.
fn metrics_in(expression: &str) -> Vec<String> {
    let words = expression.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    let ours = words.filter(|word| word.starts_with("arpeggio_"));
    let name = |word: &str| {
        let suffixes = ["_bucket", "_count"];
        suffixes.iter().find_map(|it| word.strip_suffix(it)).unwrap_or(word).to_owned()
    };
    ours.map(name).collect()
}

/// What alerts and dashboard ask Prometheus for.
fn expressions() -> Vec<String> {
    let dashboard: Value =
        serde_json::from_str(&text("manifests/monitoring/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let shown = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let rules = alerts();
    let all: Vec<String> =
        shown.chain(&rules).map(|it| it["expr"].as_str().unwrap().to_owned()).collect();
    assert!(all.len() > rules.len() + 10, "{all:?}");
    all
}

/// Prometheus 3 keeps the bound 1 as 1.0, so a selector that knows one way to write it is empty in one of the two.
#[test]
fn bounds_of_histograms_are_selected_as_every_prometheus_writes_them() {
    for expression in expressions() {
        for selector in expression.split("le=\"").skip(1) {
            let bound = selector.split('"').next().unwrap();
            let is_whole = bound.parse::<f64>().is_ok_and(|it| it.fract() == 0.0);
            assert!(!is_whole, "le=\"{bound}\" of {expression} has to match with and without .0");
        }
    }
}

/// The page has a table of all metrics, which the programs' own tests compare with what they serve.
#[test]
fn alerts_and_dashboard_use_metrics_that_exist() {
    let page = text("docs/monitoring.md");
    for expression in expressions() {
        for metric in metrics_in(&expression) {
            let of_one = ["arpeggio_speaker_", "arpeggio_forwarder_"];
            let short = of_one.iter().find_map(|it| metric.strip_prefix(it));
            let mut names = [Some(metric.as_str()), short].into_iter().flatten();
            let documented = names.any(|it| page.contains(&format!("`{it}`")));
            assert!(documented, "{metric} of {expression} is not in docs/monitoring.md");
        }
    }
}

//! A real Prometheus that scrapes a lab's controllers and speakers, and judges our alert rules.

use std::{fs, process::Command};

use anyhow::{Context as _, ensure};
use arpeggio_lab::Machine;
use serde_json::{Value, json};

use crate::{home::Home, install, process::HostProcess};

/// Where it is asked, on the control plane.
const ADDRESS: &str = "127.0.0.1:9090";

/// A running one.
#[derive(Debug)]
pub struct Prometheus<'a> {
    home: &'a Home,
    _process: HostProcess,
}

/// One series of an answer: its labels and its value now.
#[derive(Debug)]
pub struct Sample {
    /// The labels, as a JSON object.
    pub labels: Value,
    /// The value; not a number where a quantile of nothing was asked for.
    pub value: f64,
}

impl<'a> Prometheus<'a> {
    /// Starts it. It scrapes and judges every second, and alerts whose rule says `for` wait two seconds.
    ///
    /// # Errors
    /// When its files cannot be written, or it is not installed.
    pub fn start(home: &'a Home) -> anyhow::Result<Self> {
        let folder = home.lab.folders().kubeconfig().with_file_name("prometheus");
        fs::create_dir_all(&folder)?;
        let rules = fs::read_to_string(install::root().join("manifests/monitoring/rules.yaml"))?;
        fs::write(folder.join("rules.yaml"), impatient(&rules))?;
        fs::write(folder.join("prometheus.json"), configuration(home)?.to_string())?;
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", folder.join("prometheus.json").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        command.arg(format!("--web.listen-address={ADDRESS}"));
        let process = HostProcess::start(&home.lab, "prometheus", &mut command)?;
        Ok(Self { home, _process: process })
    }

    /// What an expression gives now.
    ///
    /// # Errors
    /// When Prometheus does not answer, or does not understand it.
    pub fn query(&self, expression: &str) -> anyhow::Result<Vec<Sample>> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--get", "--max-time", "10"]);
        curl.arg(format!("http://{ADDRESS}/api/v1/query"));
        curl.args(["--data-urlencode", &format!("query={expression}")]);
        let output = self.home.lab.namespace(Machine::Control).output(&mut curl)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        ensure!(answer["status"] == "success", "{expression}: {answer}");
        let results = answer["data"]["result"].as_array().context("no vector")?;
        results.iter().map(sample).collect()
    }

    /// The names of the alerts that fire.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub fn firing(&self) -> anyhow::Result<Vec<String>> {
        let alerts = self.query("ALERTS{alertstate=\"firing\"}")?;
        let names = alerts.iter().filter_map(|alert| alert.labels["alertname"].as_str());
        Ok(names.map(str::to_owned).collect())
    }
}

fn sample(result: &Value) -> anyhow::Result<Sample> {
    let value = result["value"][1].as_str().context("no value")?;
    Ok(Sample { labels: result["metric"].clone(), value: value.parse()? })
}

/// Rules whose alerts need not wait for minutes.
fn impatient(rules: &str) -> String {
    let line = |line: &str| {
        let indent = line.len() - line.trim_start().len();
        if line.trim_start().starts_with("for: ") {
            format!("{}for: 2s", &line[..indent])
        } else {
            line.to_owned()
        }
    };
    rules.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// JSON is YAML. Debian's build cannot look for pods by itself, so they are named.
fn configuration(home: &Home) -> anyhow::Result<Value> {
    Ok(json!({
        "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
        "rule_files": ["rules.yaml"],
        "scrape_configs": [job(home, "controller")?, job(home, "speaker")?],
    }))
}

/// The pods of a component, where their annotations say that they are to be scraped.
fn job(home: &Home, component: &str) -> anyhow::Result<Value> {
    let label = format!("-lapp.kubernetes.io/component={component}");
    let pods = home.lab.get(&["pods", "-n", install::NAMESPACE, &label])?;
    let pods = pods["items"].as_array().context("no list of pods")?;
    let target = |pod: &Value| {
        let port = pod["metadata"]["annotations"]["prometheus.io/port"].as_str()?;
        Some(format!("{}:{port}", pod["status"]["podIP"].as_str()?))
    };
    let targets: Vec<String> = pods.iter().filter_map(target).collect();
    Ok(json!({
        "job_name": format!("arpeggio-{component}"),
        "static_configs": [{ "targets": targets }],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_lose_their_patience_and_nothing_else() {
        let rules = "a:\n  - expr: x\n    for: 15m\n    labels: {}";
        assert_eq!(impatient(rules), "a:\n  - expr: x\n    for: 2s\n    labels: {}");
    }
}

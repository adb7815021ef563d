//! A real Prometheus looks at a real cluster: what it scrapes, what our rules and our dashboard make of it.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, ensure};
use arpeggio_lab::Machine;
use arpeggio_scenarios::{Home, POOL, Prometheus, first_address, service};
use serde_json::Value;

/// Three speakers, two controllers.
const TARGETS: f64 = 5.0;

/// An address of the pool that another machine has.
const OCCUPIED: &str = "192.168.0.241/32";

pub(crate) fn prometheus_sees_faults_and_their_end(home: &Home) -> anyhow::Result<()> {
    let owner = home.serve_page()?;
    let prometheus = Prometheus::start(home)?;
    home.wait_until("all targets are up", || {
        let up = prometheus.query("sum(up)")?;
        let all = up.first().is_some_and(|sample| sample.value >= TARGETS);
        if all { Ok(()) } else { Err(format!("{up:?}").into()) }
    })?;
    every_metric_is_documented(&prometheus)?;
    fires(home, &prometheus, &[])?;

    let machine = home.lab.namespace(Machine::Client);
    machine.run("ip", &["address", "add", OCCUPIED, "dev", "eth0"])?;
    home.apply(&service("second", "arpeggio.dev/address-pool", POOL))?;
    home.apply(&service("waits", "arpeggio.dev/address-pool", "none"))?;
    home.lab.power_off(owner)?;
    home.wait_for_another_owner(first_address(), owner)?;
    let expected =
        ["ArpeggioAddressQuarantined", "ArpeggioServiceWithoutAddress", "ArpeggioSpeakerDown"];
    fires(home, &prometheus, &expected)?;
    every_expression_gives_data(home, &prometheus)?;

    home.lab.kubectl(&["delete", "service", "second", "waits"])?;
    machine.run("ip", &["address", "delete", OCCUPIED, "dev", "eth0"])?;
    home.switch_on(owner)?;
    home.wait_until("no alert is left but that of the address at rest", || {
        let firing = prometheus.firing()?;
        let left = firing.iter().any(|it| it != "ArpeggioAddressQuarantined");
        if left { Err(format!("{firing:?}").into()) } else { Ok(()) }
    })
}

/// Waits until exactly these alerts fire.
fn fires(home: &Home, prometheus: &Prometheus<'_>, expected: &[&str]) -> anyhow::Result<()> {
    home.wait_until(&format!("{expected:?} fire, and nothing else"), || {
        let firing: BTreeSet<String> = prometheus.firing()?.into_iter().collect();
        let same = firing.iter().map(String::as_str).eq(expected.iter().copied());
        if same { Ok(()) } else { Err(format!("{firing:?}").into()) }
    })
}

/// What real programs serve is what the page says that they do.
fn every_metric_is_documented(prometheus: &Prometheus<'_>) -> anyhow::Result<()> {
    let page = file("docs/monitoring.md")?;
    let served = prometheus.query("group by (__name__) ({__name__=~\"arpeggio_.*\"})")?;
    ensure!(served.len() > 30, "so few metrics: {served:?}");
    for sample in served {
        let name = sample.labels["__name__"].as_str().context("no name")?;
        let suffixes = ["_bucket", "_count", "_sum"];
        let name = suffixes.iter().find_map(|it| name.strip_suffix(it)).unwrap_or(name);
        let short = name.strip_prefix("arpeggio_speaker_").unwrap_or(name);
        ensure!(page.contains(&format!("`{short}`")), "docs/monitoring.md lacks {name}");
    }
    Ok(())
}

/// Of an alert, without the comparison: what is judged has to be there before it can be judged.
fn every_expression_gives_data(home: &Home, prometheus: &Prometheus<'_>) -> anyhow::Result<()> {
    let dashboard: Value = serde_json::from_str(&file("manifests/monitoring/dashboard.json")?)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let shown = targets.filter_map(|target| target["expr"].as_str());
    let shown = shown.map(|it| it.replace("$__range", "5m").replace("$__rate_interval", "1m"));
    let rules: Value = serde_saphyr::from_str(&file("manifests/monitoring/rules.yaml")?)?;
    let alerts = rules["groups"][0]["rules"].as_array().context("no rules")?;
    let judged = alerts.iter().filter_map(|rule| rule["expr"].as_str());
    let judged = judged.filter_map(|expression| measured(expression).map(str::to_owned));
    let expressions: Vec<String> = shown.chain(judged).collect();
    ensure!(expressions.len() > alerts.len() + panels.len(), "{expressions:?}");
    for expression in expressions {
        home.wait_until(&format!("{expression} gives data"), || {
            let samples = prometheus.query(&expression)?;
            let some = samples.iter().any(|sample| sample.value.is_finite());
            if some { Ok(()) } else { Err(format!("{samples:?}").into()) }
        })?;
    }
    Ok(())
}

/// What stands before the first comparison.
fn measured(expression: &str) -> Option<&str> {
    let end = [" > ", " == "].iter().filter_map(|comparison| expression.find(comparison)).min();
    end.map(|end| &expression[..end])
}

fn file(path: &str) -> anyhow::Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

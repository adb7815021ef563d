//! What was measured, for programs and for people.

use std::{fs, thread};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    lines::Lines,
    narrator::{chapter, say},
};

/// All results of one run.
pub(super) struct Results {
    lines: Lines,
    rows: Vec<Row>,
    machine: Machine,
}

/// How busy the machine was before anything was started.
struct Machine {
    cores: usize,
    /// How many threads wanted to run in the last minute.
    load: f64,
}

/// One thing that is to be reached.
pub(super) struct Row {
    pub(super) what: &'static str,
    /// The kernel's figure, where it has one.
    pub(super) kernel: Option<f64>,
    /// Ours.
    pub(super) ours: f64,
    /// MetalLB's, where it was measured.
    pub(super) metallb: Option<f64>,
    /// What ours is to be.
    pub(super) target: String,
    /// Whether it is.
    pub(super) reached: bool,
}

impl Results {
    /// Begins `target/bench/wire.jsonl` anew.
    pub(super) fn create() -> anyhow::Result<Self> {
        let machine = Machine::now()?;
        let mut lines = Lines::create("wire.jsonl")?;
        lines.write(&machine.line())?;
        Ok(Self { lines, rows: Vec::new(), machine })
    }

    /// Adds a line of JSON.
    pub(super) fn line(&mut self, line: &Value) -> anyhow::Result<()> {
        self.lines.write(line)
    }

    /// Adds a row to the table that is shown at the end.
    pub(super) fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Shows the table.
    pub(super) fn show(&self) {
        chapter("What it must reach");
        say(cells(["", "kernel", "arpeggio", "metallb", "", "target"]));
        self.rows.iter().for_each(|row| say(row.text()));
        if let Some(doubt) = self.machine.doubt() {
            say(doubt);
        }
        say(format!("The lines are in {}", self.lines.path().display()));
    }
}

impl Machine {
    fn now() -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
        let load = text.split(' ').next().and_then(|word| word.parse().ok());
        let load = load.with_context(|| format!("/proc/loadavg says {text:?}"))?;
        Ok(Self { cores: thread::available_parallelism()?.get(), load })
    }

    fn line(&self) -> Value {
        json!({ "bench": "machine", "cores": self.cores, "load_before": self.load })
    }

    /// Whoever has to wait for a core answers late, and the kernel itself does not have to.
    fn doubt(&self) -> Option<String> {
        let Self { cores, load } = self;
        let idle = f64::from(u32::try_from(*cores).unwrap_or(u32::MAX)) / 2.0;
        (*load > idle).then(|| {
            format!(
                "The machine was busy before (load {load}, {cores} cores): latencies and rates are worse than they could be."
            )
        })
    }
}

impl Row {
    fn text(&self) -> String {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |it| it.to_string());
        let verdict = if self.reached { "reached" } else { "NOT reached" };
        cells([
            self.what,
            &number(self.kernel),
            &number(Some(self.ours)),
            &number(self.metallb),
            verdict,
            &self.target,
        ])
    }
}

fn cells([what, kernel, ours, metallb, verdict, target]: [&str; 6]) -> String {
    format!("{what:<52} {kernel:>8} {ours:>10} {metallb:>9}   {verdict:<12} {target}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_is_told() {
        let machine = |load| Machine { cores: 2, load };
        assert_eq!(machine(0.7).doubt(), None);
        assert!(machine(9.5).doubt().is_some_and(|doubt| doubt.contains("load 9.5")));
    }

    #[test]
    fn a_row_says_whether_its_target_is_reached() {
        let row = Row {
            what: "memory",
            kernel: None,
            ours: 12.5,
            metallb: Some(59.0),
            target: "under 15".to_owned(),
            reached: true,
        };
        let words: Vec<String> = row.text().split_whitespace().map(str::to_owned).collect();
        assert_eq!(words, ["memory", "-", "12.5", "59", "reached", "under", "15"]);
    }
}

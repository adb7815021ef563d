//! What was measured, for programs and for people.

use std::{fmt::Display, fs, thread};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    lines::Lines,
    narrator::{chapter, say},
};

/// All results of one run. `Row` is one thing that is to be reached, and says so when it is shown.
pub(crate) struct Results<Row> {
    lines: Lines,
    head: String,
    rows: Vec<Row>,
    machine: Machine,
}

/// How busy the machine was before anything was started.
struct Machine {
    cores: usize,
    /// How many threads wanted to run in the last minute.
    load: f64,
}

impl<Row: Display> Results<Row> {
    /// Begins a file below `target/bench` anew. `head` stands above the rows.
    pub(crate) fn create(file: &str, head: String) -> anyhow::Result<Self> {
        let machine = Machine::now()?;
        let mut lines = Lines::create(file)?;
        lines.write(&machine.line())?;
        Ok(Self { lines, head, rows: Vec::new(), machine })
    }

    /// Adds a line of JSON.
    pub(crate) fn line(&mut self, line: &Value) -> anyhow::Result<()> {
        self.lines.write(line)
    }

    /// Adds a row to the table that is shown at the end.
    pub(crate) fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Shows the table.
    pub(crate) fn show(&self) {
        chapter("What it must reach");
        say(&self.head);
        self.rows.iter().for_each(say);
        if let Some(doubt) = self.machine.doubt() {
            say(doubt);
        }
        say(format!("The lines are in {}", self.lines.path().display()));
    }
}

/// Whether a target is reached, for people.
pub(crate) fn verdict(reached: bool) -> &'static str {
    if reached { "reached" } else { "NOT reached" }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_is_told() {
        let machine = |load| Machine { cores: 2, load };
        assert_eq!(machine(0.7).doubt(), None);
        assert!(machine(9.5).doubt().is_some_and(|doubt| doubt.contains("load 9.5")));
    }
}

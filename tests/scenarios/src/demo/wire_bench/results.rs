//! What was measured, for programs and for people.

use serde_json::Value;

use crate::{
    lines::Lines,
    narrator::{chapter, say},
};

/// All results of one run.
pub(super) struct Results {
    lines: Lines,
    rows: Vec<Row>,
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
        Ok(Self { lines: Lines::create("wire.jsonl")?, rows: Vec::new() })
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
        say(format!("The lines are in {}", self.lines.path().display()));
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

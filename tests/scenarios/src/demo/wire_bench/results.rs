//! The rows of this bench's table.

use std::fmt;

use crate::results::{self, verdict};

/// All results of one run.
pub(super) type Results = results::Results<Row>;

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

/// What stands above the rows.
pub(super) fn head() -> String {
    cells(["", "kernel", "arpeggio", "metallb", "", "target"])
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |it| it.to_string());
        f.write_str(&cells([
            self.what,
            &number(self.kernel),
            &number(Some(self.ours)),
            &number(self.metallb),
            verdict(self.reached),
            &self.target,
        ]))
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
        let text = row.to_string();
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words, ["memory", "-", "12.5", "59", "reached", "under", "15"]);
    }
}

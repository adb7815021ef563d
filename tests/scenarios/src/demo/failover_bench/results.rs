//! The rows of this bench's table.

use std::fmt;

use crate::results::{self, verdict};

/// All results of one run.
pub(super) type Results = results::Results<Row>;

/// One thing that is to be reached.
pub(super) struct Row {
    pub(super) what: String,
    /// Ours.
    pub(super) ours: f64,
    /// keepalived's and MetalLB's, where they were measured.
    pub(super) peers: [Option<f64>; 2],
    /// What ours is to be.
    pub(super) target: String,
    /// Whether it is.
    pub(super) reached: bool,
}

impl Row {
    /// A figure that must not exceed a limit.
    pub(super) fn at_most(what: impl Into<String>, ours: f64, limit: f64) -> Self {
        let target = format!("at most {limit}");
        Self { what: what.into(), ours, peers: [None; 2], target, reached: ours <= limit }
    }
}

/// What stands above the rows.
pub(super) fn head() -> String {
    cells(["", "arpeggio", "keepalived", "metallb", "", "target"])
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |it| self.beside(it));
        let [keepalived, metallb] = self.peers.map(peer);
        let ours = self.ours.to_string();
        let verdict = verdict(self.reached);
        f.write_str(&cells([&self.what, &ours, &keepalived, &metallb, verdict, &self.target]))
    }
}

impl Row {
    /// A peer's figure, and how many times ours it is.
    fn beside(&self, value: f64) -> String {
        if self.ours > 0.0 {
            format!("{value} ({:.1}x)", value / self.ours)
        } else {
            value.to_string()
        }
    }
}

fn cells([what, ours, keepalived, metallb, verdict, target]: [&str; 6]) -> String {
    format!("{what:<58} {ours:>8} {keepalived:>13} {metallb:>13}   {verdict:<12} {target}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_compares_and_judges() {
        let row = Row { peers: [Some(0.3), None], ..Row::at_most("p50, s", 0.2, 0.3) };
        let text = row.to_string();
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(
            words,
            ["p50,", "s", "0.2", "0.3", "(1.5x)", "-", "reached", "at", "most", "0.3"]
        );
        assert!(Row::at_most("failed", 0.0, 0.0).reached);
        assert!(!Row::at_most("failed", 1.0, 0.0).reached);
    }
}

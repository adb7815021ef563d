//! What a command prints and how it ends.

use std::process::ExitCode;

use arpeggio_text::{is_hidden, printable_json, printable_yaml};
use clap::ValueEnum;
use serde::Serialize;

use crate::paint;

/// The end of a command that could do its work.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// For standard output, with its last line break.
    pub(crate) text: String,
    /// What the work has shown, where a command says so in its help.
    pub(crate) code: ExitCode,
}

impl From<String> for Outcome {
    fn from(text: String) -> Self {
        Self { text, code: ExitCode::SUCCESS }
    }
}

/// How a result is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    #[value(alias = "text")]
    Table,
    /// For people with wide terminals: more columns, where there are any.
    Wide,
    /// For programs.
    Json,
    /// For programs, and easier to read.
    Yaml,
}

/// Why a result could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("the result cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("the result cannot be written as YAML")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

impl Format {
    /// Whether people read it.
    pub(crate) fn is_for_people(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }

    /// The report for programs, or as `text` renders it.
    pub(crate) fn of<R: Serialize>(
        self,
        report: &R,
        text: impl FnOnce(&R) -> String,
    ) -> Result<String, FormatError> {
        match self {
            Self::Table | Self::Wide => Ok(paint::shown(&text(report))),
            Self::Json => {
                Ok(printable_json(&serde_json::to_string_pretty(report)?).into_owned() + "\n")
            }
            Self::Yaml => yaml(report),
        }
    }
}

/// The report as YAML. What others wrote moves no cursor and turns no writing direction round: where something of the kind
/// is in it, all of it is written as JSON is, in quotes, which YAML has escapes for.
pub(crate) fn yaml(report: &impl Serialize) -> Result<String, FormatError> {
    let plain = serde_saphyr::to_string(report)?;
    let hides = |it| it != '\n' && is_hidden(it);
    if !plain.contains(hides) {
        return Ok(plain);
    }
    Ok(printable_yaml(&serde_json::to_string_pretty(report)?).into_owned() + "\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn programs_get_the_same_in_two_notations() {
        let report = json!({ "items": [{ "name": "a", "since": null }] });
        let text = |_: &_| "a table\n".to_owned();
        assert_eq!(Format::Table.of(&report, text).unwrap(), "a table\n");
        let as_json = Format::Json.of(&report, text).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&as_json).unwrap(), report);
        let yaml = Format::Yaml.of(&report, text).unwrap();
        assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&yaml).unwrap(), report);
    }

    #[test]
    fn what_others_wrote_is_seen_in_yaml_and_says_the_same() {
        for hidden in
            ["\u{1b}[2J", "\u{9b}2J", "\u{202e}", "\r", "\u{e0041}", "\t", "\u{2028}x", "\n---\n"]
        {
            let report = json!({ "items": [{ "name": format!("a{hidden}b"), hidden: "é" }] });
            let yaml = yaml(&report).unwrap();
            assert!(!yaml.contains(|it| it != '\n' && is_hidden(it)), "{yaml:?}");
            assert!(!yaml.lines().any(|it| it == "---"), "{yaml}");
            assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&yaml).unwrap(), report);
        }
    }
}

//! What a command prints and how it ends.

use std::process::ExitCode;

use clap::ValueEnum;
use serde::Serialize;

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
    Text,
    /// For programs.
    Json,
}

impl Format {
    /// The report as JSON, or as `text` renders it.
    pub(crate) fn of<R: Serialize>(
        self,
        report: &R,
        text: impl FnOnce(&R) -> String,
    ) -> serde_json::Result<String> {
        match self {
            Self::Text => Ok(text(report)),
            Self::Json => Ok(serde_json::to_string_pretty(report)? + "\n"),
        }
    }
}

//! The demo's figures, for programs.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Context as _;
use serde_json::json;

/// What `target/demo/report.json` says.
pub(crate) struct Report {
    /// The longest time without an answered request.
    pub(crate) outage: Duration,
    /// Requests that were not answered.
    pub(crate) failed_requests: usize,
    /// The node whose power was cut.
    pub(crate) old_owner: String,
    /// The node that took over.
    pub(crate) new_owner: String,
    /// The address.
    pub(crate) address: String,
    /// From the start of the command that creates the Service to the first ARP answer.
    pub(crate) create_to_answer: Duration,
}

impl Report {
    /// Writes the file and returns its path.
    pub(crate) fn write(&self) -> anyhow::Result<PathBuf> {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/demo"));
        fs::create_dir_all(&folder).context("cannot make target/demo")?;
        let path = folder.join("report.json");
        let report = json!({
            "outage_ms": millis(self.outage),
            "failed_requests": self.failed_requests,
            "old_owner": self.old_owner,
            "new_owner": self.new_owner,
            "address": self.address,
            "create_to_answer_ms": millis(self.create_to_answer),
        });
        fs::write(&path, format!("{report:#}\n")).context("cannot write the report")?;
        Ok(path.canonicalize()?)
    }
}

/// Milliseconds with one decimal.
pub(crate) fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 10_000.0).round() / 10.0
}

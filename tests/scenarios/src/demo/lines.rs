//! Results of measurements.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::Value;

use crate::narrator::say;

/// A file of JSON lines below `target/bench`; each line is shown as well.
pub(crate) struct Lines {
    path: PathBuf,
    file: fs::File,
}

impl Lines {
    /// Begins the file anew.
    pub(crate) fn create(name: &str) -> anyhow::Result<Self> {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/bench"));
        fs::create_dir_all(&folder).context("cannot make target/bench")?;
        let path = folder.canonicalize()?.join(name);
        Ok(Self { file: fs::File::create(&path).context("cannot write to target/bench")?, path })
    }

    /// Adds a line.
    pub(crate) fn write(&mut self, line: &Value) -> anyhow::Result<()> {
        say(line);
        Ok(writeln!(self.file, "{line}")?)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

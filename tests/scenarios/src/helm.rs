//! The real Helm, and two programs beside it: one writes the chart's table of values, one knows the Prometheus Operator's types.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

/// `helm`, `helm-docs` or `operator-objects`, built once.
///
/// # Errors
/// When they cannot be built.
pub fn helm_program(name: &str) -> anyhow::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm/build.sh");
    let mut build = Command::new(&script);
    let output = build.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", script.display()))?;
    ensure!(output.status.success(), "{} failed, see above", script.display());
    Ok(Path::new(String::from_utf8_lossy(&output.stdout).trim()).join(name))
}

//! The real Helm, and two programs beside it: one writes the chart's table of values, one knows the Prometheus Operator's types.

use std::path::PathBuf;

use crate::built::built;

/// `helm`, `helm-docs` or `operator-objects`, built once.
///
/// # Errors
/// When they cannot be built.
pub fn helm_program(name: &str) -> anyhow::Result<PathBuf> {
    Ok(built("helm")?.join(name))
}

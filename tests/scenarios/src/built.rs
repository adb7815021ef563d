//! Programs that tests need and that are built or fetched once, by a script of their folder below `tests`.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

/// The folder of what `tests/FOLDER/build.sh` has built or fetched, now or before.
///
/// # Errors
/// When it cannot be built; the script has said why by then.
pub fn built(folder: &str) -> anyhow::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder).join("build.sh");
    let output = Command::new(&script).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", script.display()))?;
    ensure!(output.status.success(), "{} failed, see above", script.display());
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

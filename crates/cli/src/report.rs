//! `arpeggio report`: an archive with what a bug report needs, and no secrets.

mod archive;
mod collect;
mod redact;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use arpeggio_runtime::wall_clock;

use self::{
    archive::Archive,
    collect::{Collected, Collector},
};
use crate::{global::Global, outcome::Outcome, paint};

/// Arguments of `arpeggio report`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// Where it is written. Default: arpeggio-report-TIME.tar.gz in this folder.
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// So many lines of each log, the last ones.
    #[arg(long, default_value_t = 5000, value_name = "LINES", value_parser = clap::value_parser!(i64).range(1..))]
    lines: i64,
}

/// Collects and writes it, unless there is nothing to write.
pub(crate) async fn write(global: &Global, args: &ReportArgs) -> anyhow::Result<Outcome> {
    let now = wall_clock::now();
    let name = format!("arpeggio-report-{}", now.strftime("%Y%m%d-%H%M%S"));
    let file = args.file.clone().unwrap_or_else(|| format!("{name}.tar.gz").into());
    let collected = Collector::new(global, args.lines).await?.collect().await?;
    if collected.is_blank {
        let text = format!("nothing was read, so there is no archive\n{}", missing(&collected));
        return Ok(Outcome { text, code: ExitCode::FAILURE });
    }
    let packed = Archive { name: &name, files: &collected.files, time: now }.pack()?;
    std::fs::write(&file, packed).with_context(|| format!("cannot write {}", file.display()))?;
    let mut text = format!("{} holds {} files", file.display(), collected.files.len());
    text.push_str("; look through it before you give it to anybody\n");
    text.push_str(&missing(&collected));
    Ok(text.into())
}

fn missing(collected: &Collected) -> String {
    collected.gaps.iter().map(|gap| paint::shown(&format!("not read: {gap}")) + "\n").collect()
}

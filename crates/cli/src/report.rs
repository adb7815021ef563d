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
        return Ok(Outcome { text: without_archive(&collected), code: ExitCode::FAILURE });
    }
    let packed = Archive { name: &name, files: &collected.files, time: now }.pack()?;
    std::fs::write(&file, packed).with_context(|| format!("cannot write {}", file.display()))?;
    let mut text = format!("{} holds {} files", file.display(), collected.files.len());
    text.push_str("; look through it before you give it to anybody\n");
    text.push_str(&missing(&collected));
    Ok(text.into())
}

/// Some lists may have been read and been empty.
fn without_archive(collected: &Collected) -> String {
    let missing = missing(collected);
    format!("no object was found that could be read, so there is no archive\n{missing}")
}

fn missing(collected: &Collected) -> String {
    collected.gaps.iter().map(|gap| paint::shown(&format!("not read: {gap}")) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_no_archive_is_told_what_could_not_be_read() {
        let gaps = vec!["nodes: forbidden".to_owned()];
        let collected = Collected { files: [].into(), gaps, is_blank: true };
        let told = "no object was found that could be read, so there is no archive\n\
                    not read: nodes: forbidden\n";
        assert_eq!(without_archive(&collected), told);
    }
}

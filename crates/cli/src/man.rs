//! `arpeggio man`: the manual pages.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Command;

/// Arguments of `arpeggio man`.
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// Where the pages are written, one for each command. Default: the page of the program, to standard output.
    #[arg(long, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

/// Writes the pages; what is to be printed.
pub(crate) fn write(command: Command, args: &ManArgs) -> anyhow::Result<String> {
    let Some(folder) = &args.dir else { return page(command) };
    let failed = || format!("cannot write manual pages to {}", folder.display());
    fs::create_dir_all(folder).with_context(failed)?;
    clap_mangen::generate_to(command, folder).with_context(failed)?;
    Ok(format!("the manual pages are in {}; read them with man -l FILE\n", folder.display()))
}

fn page(command: Command) -> anyhow::Result<String> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(String::from_utf8(page)?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::Args;

    #[test]
    fn there_is_a_page_for_each_command() {
        let folder = std::env::temp_dir().join(format!("arpeggio-man-{}", std::process::id()));
        write(Args::command(), &ManArgs { dir: Some(folder.clone()) }).unwrap();
        let has = |name: &str| folder.join(name).is_file();
        assert!(has("arpeggio.1") && has("arpeggio-status.1") && has("arpeggio-explain-service.1"));
        assert!(!has("arpeggio-__complete.1"), "it is not for people");
        fs::remove_dir_all(folder).unwrap();
        let page = write(Args::command(), &ManArgs { dir: None }).unwrap();
        assert!(page.contains(".TH arpeggio 1"), "{page}");
    }
}

//! Types what a page says to type, word for word, in a shell.
//!
//! The shell finds programs of ours in the place of a few: `kubectl`, `arpeggio` and `helm` for this cluster; `sudo`, which does
//! what it is told; `make`, which only looks whether there is such a target, since what it makes is there; and `ctr`, which notes what
//! it is to import, so that all nodes get it. It is in a folder that looks like a clone.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use arpeggio_documents::{Block, Page, Typed};
use arpeggio_lab::Machine;

use crate::{Home, eprint_line, helm_program, install};

/// What of a clone pages speak of.
const CLONE: [&str; 3] = ["Makefile", "docs", "manifests"];

/// Somebody who types.
pub struct Typist<'a> {
    home: &'a Home,
    clone: PathBuf,
    programs: PathBuf,
    /// What was imported.
    imports: PathBuf,
}

impl<'a> Typist<'a> {
    /// Makes the folder and the programs.
    ///
    /// # Errors
    /// When something was not built.
    pub fn new(home: &'a Home) -> anyhow::Result<Self> {
        let folder = home.lab.folders().kubeconfig().with_file_name("typist");
        let (clone, programs) = (folder.join("clone"), folder.join("programs"));
        let imports = folder.join("imports");
        for folder in [&clone.join("target/images"), &programs] {
            fs::create_dir_all(folder)?;
        }
        for name in CLONE {
            symlink(install::root().join(name), clone.join(name))?;
        }
        let images = install::image_folder()?;
        let machine = images.file_name().context("ARPEGGIO_IMAGES names no folder")?;
        symlink(&images, clone.join("target/images").join(machine))?;
        let typist = Self { home, clone, programs, imports };
        typist.write_programs()?;
        Ok(typist)
    }

    fn write_programs(&self) -> anyhow::Result<()> {
        let kubectl = self.home.lab.kubectl_command(&[]);
        let kubectl = Path::new(kubectl.get_program()).to_string_lossy().into_owned();
        let arpeggio = install::program("arpeggio")?;
        let imports = self.imports.display();
        let programs = [
            ("kubectl", format!("exec {kubectl} kubectl \"$@\"")),
            ("arpeggio", format!("exec {} \"$@\"", arpeggio.display())),
            ("helm", format!("exec {} \"$@\"", helm_program("helm")?.display())),
            ("sudo", "exec \"$@\"".to_owned()),
            ("make", "exec /usr/bin/make --dry-run \"$@\" >/dev/null".to_owned()),
            ("ctr", format!("printf '%s\\n' \"$*\" >>{imports}")),
        ];
        for (name, does) in programs {
            let path = self.programs.join(name);
            fs::write(&path, format!("#!/bin/sh\n{does}\n"))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    /// The blocks of a page that `test` types.
    ///
    /// # Errors
    /// When the page is not there.
    pub fn blocks(&self, page: &str, test: &str) -> anyhow::Result<Vec<Block>> {
        let by = Some(Typed::By(test.to_owned()));
        Ok(read(page)?.blocks.into_iter().filter(|block| block.typed() == by).collect())
    }

    /// Writes a file of their own, beside what is in the clone.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn writes(&self, name: &str, text: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.clone.join(name), text)?)
    }

    /// Types all commands of a block.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn types(&self, block: &Block) -> anyhow::Result<String> {
        let typed = block.commands().into_iter().map(|command| self.types_command(&command));
        typed.collect()
    }

    /// Types one command; what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn types_command(&self, command: &str) -> anyhow::Result<String> {
        eprint_line(&format!("$ {command}"));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", command]).current_dir(&self.clone);
        shell.env("PATH", format!("{}:{path}", self.programs.display()));
        shell.env("KUBECONFIG", self.home.lab.folders().kubeconfig());
        shell.env("HOME", &self.clone);
        let output = self.home.lab.namespace(Machine::Control).output(&mut shell)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command}: {said}{errors}");
        self.import()?;
        Ok(said)
    }

    /// Gives all nodes what was imported, as somebody does who types the command on each of them.
    fn import(&self) -> anyhow::Result<()> {
        let Ok(calls) = fs::read_to_string(&self.imports) else { return Ok(()) };
        fs::remove_file(&self.imports)?;
        let archive = |call: &str| match call.strip_prefix("-n k8s.io images import ") {
            Some(file) => Ok(self.clone.join(file)),
            None => bail!("no node knows what to do with: ctr {call}"),
        };
        let archives = calls.lines().map(archive).collect::<anyhow::Result<Vec<PathBuf>>>()?;
        Ok(self.home.lab.import_archives(&archives)?)
    }

    /// The objects that a page shows, in its first block of YAML.
    ///
    /// # Errors
    /// When there is none.
    pub fn objects(&self, page: &str) -> anyhow::Result<String> {
        let blocks = read(page)?.blocks.into_iter();
        let yaml = blocks.filter(|block| block.language() == "yaml").map(|block| block.text);
        yaml.into_iter().next().with_context(|| format!("{page} shows no object"))
    }
}

fn read(page: &str) -> anyhow::Result<Page> {
    let path = install::root().join(page);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {page}"))?;
    Ok(Page::parse(&text))
}

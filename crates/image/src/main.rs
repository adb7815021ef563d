//! Writes Arpeggio's images as archives, and the licences that go into them. `make images` calls it.

#![forbid(unsafe_code)]
// This is a command: its output is its purpose.
#![allow(clippy::print_stdout)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use arpeggio_image::{
    Architecture, Image, component::Component, licences, packages::Metadata, sbom::sbom,
};
use clap::{Parser, Subcommand};

/// Where the licences are in an image.
const LICENCES: &str = "/licenses";

/// Where the list of what is in an image is.
const SBOM: &str = "/sbom.json";

/// How glibc names itself in programs that it is linked into, before its version.
const GLIBC: &[u8] = b"stable release version ";

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Writes Arpeggio's images without a container engine.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Write the licences of everything that the programs are made of into a folder.
    Licences {
        /// The target that the programs are built for, as Rust calls it.
        #[arg(long, value_name = "TRIPLE")]
        target: String,
        /// Further texts: of libraries that are linked in and that cargo does not know.
        #[arg(long, value_name = "FILE")]
        also: Vec<PathBuf>,
        /// Where to.
        folder: PathBuf,
    },
    /// Write an archive for each image into a folder, with a list of what is in it beside it, and print their paths.
    Write(WriteArgs),
}

#[derive(Debug, clap::Args)]
struct WriteArgs {
    /// The folder with the static programs. Their processor is that of the images.
    #[arg(long, value_name = "FOLDER")]
    programs: PathBuf,
    /// The target that they were built for, as Rust calls it.
    #[arg(long, value_name = "TRIPLE")]
    target: String,
    /// The folder with the licences.
    #[arg(long, value_name = "FOLDER")]
    licences: PathBuf,
    /// The commit that the programs were built from.
    #[arg(long, env = "ARPEGGIO_REVISION", default_value = "unknown")]
    revision: String,
    /// Where the sources are.
    #[arg(long, value_name = "URL")]
    source: Option<String>,
    /// Where to.
    folder: PathBuf,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Task::Licences { target, also, folder } => write_licences(&target, &also, &folder),
        Task::Write(args) => args.write(),
    }
}

fn write_licences(target: &str, also: &[PathBuf], folder: &Path) -> anyhow::Result<()> {
    let text = licences::text(&metadata(target)?, &packages())?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    fs::write(folder.join("LICENSE"), licences::OWN.1)?;
    fs::write(folder.join("PACKAGES"), text)?;
    for file in also {
        let copied = read(file)?;
        // Debian calls all of them `copyright`, in a folder that says of what.
        let name = |path: Option<&Path>| {
            path.and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned()
        };
        let copy = format!("{}-{}", name(file.parent()), name(Some(file)));
        fs::write(folder.join(copy), copied)?;
    }
    Ok(())
}

/// The packages whose programs are in the images.
fn packages() -> Vec<&'static str> {
    Component::ALL.iter().flat_map(|component| component.packages()).copied().collect()
}

/// Asked in this repository, whose dependencies are what counts.
fn metadata(target: &str) -> anyhow::Result<Metadata> {
    let args = ["metadata", "--format-version", "1", "--locked", "--filter-platform", target];
    let output = Command::new("cargo").args(args).output().context("run cargo")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("read {}", file.display()))
}

/// The release of Rust, whose library is in every program.
fn rust_release() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let release = text.lines().find_map(|line| line.strip_prefix("release: "));
    Ok(release.context("rustc -vV names no release")?.to_owned())
}

/// The version of the glibc that is linked into a program.
fn glibc_version(program: &[u8]) -> Option<String> {
    let begin = program.windows(GLIBC.len()).position(|window| window == GLIBC)? + GLIBC.len();
    let version = program[begin..].iter().take_while(|it| it.is_ascii_digit() || **it == b'.');
    let version: String = version.map(|byte| char::from(*byte)).collect();
    Some(version.trim_end_matches('.').to_owned())
}

impl WriteArgs {
    fn write(&self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("create {}", self.folder.display()))?;
        let metadata = metadata(&self.target)?;
        for component in Component::ALL {
            let program = component.program(&self.programs);
            let content = read(&program)?;
            let architecture = Architecture::of_program(&content)
                .with_context(|| format!("{} is no program for Linux", program.display()))?;
            let archive = self.folder.join(component.archive_name(VERSION, architecture));
            let list = archive.with_extension("cdx.json");
            let sbom = Self::sbom(&metadata, component, &content)?;
            let image = self.image(component)?.for_architecture(architecture);
            let image = image.with_text(SBOM, &sbom);
            image.write(&archive).with_context(|| format!("write {}", archive.display()))?;
            fs::write(&list, sbom).with_context(|| format!("write {}", list.display()))?;
            println!("{}\n{}", archive.display(), list.display());
        }
        Ok(())
    }

    fn sbom(metadata: &Metadata, component: Component, program: &[u8]) -> anyhow::Result<String> {
        let (name, rust) = (component.image_name(VERSION), rust_release()?);
        let name = name.rsplit_once(':').map_or(name.as_str(), |(name, _)| name);
        let glibc = glibc_version(program);
        let mut libraries = vec![("rust-std", rust.as_str())];
        libraries.extend(glibc.as_deref().map(|version| ("glibc", version)));
        let list = sbom(metadata, (name, VERSION), component.packages(), &libraries)?;
        Ok(format!("{list:#}\n"))
    }

    fn image(&self, component: Component) -> anyhow::Result<Image> {
        let image = self.labelled(component.image(&self.programs, VERSION), component);
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.licences).context("list the licences")? {
            files.push(entry?.path());
        }
        // In the same order each time, so that the same files give the same image.
        files.sort();
        Ok(files.into_iter().fold(image, |image, file| {
            let inside = Path::new(LICENCES).join(file.file_name().unwrap_or_default());
            image.with_file(inside, file)
        }))
    }

    /// The labels that OCI's image specification names (annotations.md).
    fn labelled(&self, image: Image, component: Component) -> Image {
        let title = format!("Arpeggio {}", component.name());
        let labels = [
            ("title", title.as_str()),
            ("version", VERSION),
            ("revision", self.revision.as_str()),
            ("licenses", licences::OWN.0),
        ];
        let source = self.source.as_deref().map(|source| ("source", source));
        labels.into_iter().chain(source).fold(image, |image, (key, value)| {
            image.with_label(&format!("org.opencontainers.image.{key}"), value)
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_package_in_our_programs_has_a_licence_and_its_text() {
        let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let text = licences::text(&metadata(&target).unwrap(), &packages()).unwrap();
        for package in ["kube-client", "ring", "prometheus"] {
            assert!(text.contains(&format!("\n{package} ")), "{package} is missing");
        }
        assert!(!text.contains("\nproptest "), "it is only in tests");
    }

    #[test]
    fn the_version_of_glibc_is_read_from_the_program() {
        let banner =
            b"\0GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\nCopyright";
        assert_eq!(glibc_version(banner), Some("2.36".to_owned()));
        assert_eq!(glibc_version(b"\x7fELF"), None);
    }

    #[test]
    fn the_list_of_each_image_has_what_is_linked_in_and_no_more() {
        let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let metadata = metadata(&target).unwrap();
        for (component, other) in
            [(Component::Controller, "speaker"), (Component::Speaker, "controller")]
        {
            let list = WriteArgs::sbom(&metadata, component, b"").unwrap();
            for package in
                ["kube-client", "ring", "rust-std", &format!("arpeggio-{}", component.name())]
            {
                assert!(list.contains(&format!("\"name\": \"{package}\"")), "{package} is missing");
            }
            for package in ["proptest", &format!("arpeggio-{other}")] {
                assert!(
                    !list.contains(&format!("\"name\": \"{package}\"")),
                    "{package} is not in it"
                );
            }
        }
    }
}

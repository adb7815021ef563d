//! The licences of everything that is linked into programs, as `cargo metadata` knows them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// How the files begin that have a licence in them.
const TEXTS: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// Our own licence is also that of packages which say so and have no text with them.
pub const OWN: (&str, &str) = ("Apache-2.0", include_str!("../../../LICENSE"));

/// Why the licences are not complete.
#[derive(Debug, thiserror::Error)]
pub enum LicenceError {
    /// Nothing is known of a program, or of what it needs.
    #[error("cargo metadata does not know package {0}")]
    Unknown(String),
    /// Whoever may use it is not told how.
    #[error("package {0} names no licence: replace it, or ask its author")]
    Unlicensed(String),
    /// The licence is named, and its text is not in the package.
    #[error(
        "package {package} is under {licence} and has no text of it: add one to crates/image/src/licences.rs"
    )]
    NoText {
        /// Name and version.
        package: String,
        /// What it says of itself.
        licence: String,
    },
    /// A file or folder of a package cannot be read.
    #[error("{}: {source}", .path.display())]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What `cargo metadata --format-version 1` prints, as far as it matters here.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// `None`: a package of this workspace.
    source: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Debug, Deserialize)]
struct DependencyKind {
    /// `build` or `dev`; `None`: part of the program.
    kind: Option<String>,
}

/// One text with all the licences of what `programs` (names of packages) are made of: first who is under which, then each
/// text once, with those that it came with.
///
/// # Errors
/// When a licence or its text is missing.
pub fn text(metadata: &Metadata, programs: &[&str]) -> Result<String, LicenceError> {
    let mut text =
        String::from("Arpeggio's programs contain these packages, under these licences:\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in metadata.parts_of(programs)? {
        let (name, licence) = (package.named(), package.licence()?);
        let _ = writeln!(text, "{name}: {licence}"); // Writing to a String never fails.
        for found in package.texts()? {
            texts.entry(found).or_default().push(name.clone());
        }
    }
    for (found, packages) in texts {
        let _ = write!(text, "\n{}\n{}\n\n{found}\n", "=".repeat(80), packages.join(", "));
    }
    Ok(text)
}

impl Metadata {
    /// The packages from elsewhere that programs are made of, by name.
    fn parts_of(&self, programs: &[&str]) -> Result<Vec<&Package>, LicenceError> {
        let is_program = |package: &&Package| programs.contains(&package.name.as_str());
        let mut open: Vec<&str> =
            self.packages.iter().filter(is_program).map(|package| package.id.as_str()).collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                let dependencies = self.node(id)?.deps.iter().filter(|it| it.is_linked());
                open.extend(dependencies.map(|dependency| dependency.pkg.as_str()));
            }
        }
        let foreign =
            |package: &&Package| package.source.is_some() && seen.contains(package.id.as_str());
        let mut parts: Vec<&Package> = self.packages.iter().filter(foreign).collect();
        parts.sort_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
        Ok(parts)
    }

    fn node(&self, id: &str) -> Result<&Node, LicenceError> {
        let node = self.resolve.nodes.iter().find(|node| node.id == id);
        node.ok_or_else(|| LicenceError::Unknown(id.to_owned()))
    }
}

impl Dependency {
    fn is_linked(&self) -> bool {
        self.dep_kinds.iter().any(|it| it.kind.is_none())
    }
}

impl Package {
    fn named(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    fn licence(&self) -> Result<&str, LicenceError> {
        self.license.as_deref().ok_or_else(|| LicenceError::Unlicensed(self.named()))
    }

    /// The texts in the package's folder, or the one that it must mean.
    fn texts(&self) -> Result<BTreeSet<String>, LicenceError> {
        let folder = self.manifest_path.parent().unwrap_or(Path::new("."));
        let mut texts = BTreeSet::new();
        for file in licence_files(folder).map_err(unreadable(folder))? {
            let bytes = fs::read(&file).map_err(unreadable(&file))?;
            texts.insert(tidy(&String::from_utf8_lossy(&bytes)));
        }
        match self.licence()? {
            _ if !texts.is_empty() => Ok(texts),
            licence if licence == OWN.0 => Ok(BTreeSet::from([tidy(OWN.1)])),
            licence => {
                Err(LicenceError::NoText { package: self.named(), licence: licence.to_owned() })
            }
        }
    }
}

/// One text is not two because of its line ends.
fn tidy(text: &str) -> String {
    text.replace('\r', "").trim().to_owned()
}

fn licence_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_uppercase();
        if entry.file_type()?.is_file() && TEXTS.iter().any(|start| name.starts_with(start)) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> LicenceError {
    let path = path.to_owned();
    |source| LicenceError::Unreadable { path, source }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is known of a program `tool` that needs the packages given, with files of these names in their folders.
    fn metadata(test: &str, packages: &[(&str, Option<&str>, &[&str])]) -> Metadata {
        let folder =
            std::env::temp_dir().join(format!("arpeggio-licences-{}-{test}", std::process::id()));
        let mut listed = vec![json!({
            "id": "tool", "name": "tool", "version": "0.0.0", "license": null, "source": null,
            "manifest_path": "Cargo.toml",
        })];
        let mut nodes = Vec::new();
        for (name, licence, files) in packages {
            let place = folder.join(name);
            fs::create_dir_all(&place).unwrap();
            files.iter().for_each(|file| {
                fs::write(place.join(file), format!("You may {file}.\r\n")).unwrap();
            });
            listed.push(json!({
                "id": name, "name": name, "version": "1.0.0", "license": licence, "source": "registry",
                "manifest_path": place.join("Cargo.toml"),
            }));
            nodes.push(json!({"id": name, "deps": []}));
        }
        let kind =
            |name: &str| if name.starts_with("build") { json!("build") } else { json!(null) };
        let needed = packages
            .iter()
            .map(|(name, ..)| json!({"pkg": name, "dep_kinds": [{"kind": kind(name)}]}));
        nodes.push(json!({"id": "tool", "deps": needed.collect::<Vec<_>>()}));
        serde_json::from_value(json!({"packages": listed, "resolve": {"nodes": nodes}})).unwrap()
    }

    #[test]
    fn each_package_is_named_and_each_text_is_there_once() {
        let metadata = metadata(
            "complete",
            &[
                ("beta", Some("MIT"), &["LICENSE-MIT", "NOTICE", "README"]),
                ("alpha", Some("MIT"), &["LICENSE-MIT"]),
                ("gamma", Some("Apache-2.0"), &[]),
                ("build-only", None, &[]),
            ],
        );
        let text = text(&metadata, &["tool"]).unwrap();
        assert!(
            text.contains("\nalpha 1.0.0: MIT\nbeta 1.0.0: MIT\ngamma 1.0.0: Apache-2.0\n"),
            "{text}"
        );
        assert!(text.contains("\nalpha 1.0.0, beta 1.0.0\n\nYou may LICENSE-MIT.\n"), "{text}");
        assert!(text.contains("\nbeta 1.0.0\n\nYou may NOTICE.\n"), "{text}");
        assert_eq!(text.matches("Apache License").count(), OWN.1.matches("Apache License").count());
        assert!(!text.contains("README") && !text.contains("build-only"), "{text}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let unlicensed = metadata("unlicensed", &[("alpha", None, &["LICENSE"])]);
        let error = text(&unlicensed, &["tool"]).unwrap_err().to_string();
        assert!(error.contains("alpha 1.0.0 names no licence"), "{error}");
        let textless = metadata("textless", &[("alpha", Some("MIT"), &[])]);
        let error = text(&textless, &["tool"]).unwrap_err().to_string();
        assert!(error.contains("alpha 1.0.0 is under MIT and has no text"), "{error}");
    }
}

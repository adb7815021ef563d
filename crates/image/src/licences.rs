//! The licences of everything that is linked into programs, as `cargo metadata` knows them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use crate::packages::{Metadata, Package, UnknownPackage};

/// How the files begin that have a licence in them.
const TEXTS: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// Our own licence is also that of packages which say so and have no text with them.
pub const OWN: (&str, &str) = ("Apache-2.0", include_str!("../../../LICENSE"));

/// Why the licences are not complete.
#[derive(Debug, thiserror::Error)]
pub enum LicenceError {
    /// Nothing is known of a program, or of what it needs.
    #[error(transparent)]
    Unknown(#[from] UnknownPackage),
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

/// One text with all the licences of what `programs` (names of packages) are made of: first who is under which, then each
/// text once, with those that it came with.
///
/// # Errors
/// When a licence or its text is missing.
pub fn text(metadata: &Metadata, programs: &[&str]) -> Result<String, LicenceError> {
    let mut text =
        String::from("Arpeggio's programs contain these packages, under these licences:\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in metadata.linked_into(programs)?.into_iter().filter(|it| it.is_foreign()) {
        let (name, licence) = (package.named(), licence_of(package)?);
        let _ = writeln!(text, "{name}: {licence}"); // Writing to a String never fails.
        for found in texts_of(package)? {
            texts.entry(found).or_default().push(name.clone());
        }
    }
    for (found, packages) in texts {
        let _ = write!(text, "\n{}\n{}\n\n{found}\n", "=".repeat(80), packages.join(", "));
    }
    Ok(text)
}

fn licence_of(package: &Package) -> Result<&str, LicenceError> {
    package.license.as_deref().ok_or_else(|| LicenceError::Unlicensed(package.named()))
}

/// The texts in the package's folder, or the one that it must mean.
fn texts_of(package: &Package) -> Result<BTreeSet<String>, LicenceError> {
    let folder = package.manifest_path.parent().unwrap_or(Path::new("."));
    let mut texts = BTreeSet::new();
    for file in licence_files(folder).map_err(unreadable(folder))? {
        let bytes = fs::read(&file).map_err(unreadable(&file))?;
        texts.insert(tidy(&String::from_utf8_lossy(&bytes)));
    }
    match licence_of(package)? {
        _ if !texts.is_empty() => Ok(texts),
        licence if licence == OWN.0 => Ok(BTreeSet::from([tidy(OWN.1)])),
        licence => {
            Err(LicenceError::NoText { package: package.named(), licence: licence.to_owned() })
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

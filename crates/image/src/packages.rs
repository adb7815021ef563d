//! What programs are made of, as `cargo metadata` knows it.

use std::{collections::BTreeSet, path::PathBuf};

use serde::Deserialize;

/// Nothing is known of a program, or of what it needs.
#[derive(Debug, thiserror::Error)]
#[error("cargo metadata does not know package {0}")]
pub struct UnknownPackage(String);

/// What `cargo metadata --format-version 1` prints, as far as it matters here.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    /// `None`: a package of this workspace.
    source: Option<String>,
    pub(crate) manifest_path: PathBuf,
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

impl Metadata {
    /// The packages that programs are made of, with those of the programs themselves, by name.
    pub(crate) fn linked_into(&self, programs: &[&str]) -> Result<Vec<&Package>, UnknownPackage> {
        let is_program = |package: &&Package| programs.contains(&package.name.as_str());
        let mut open: Vec<&str> =
            self.packages.iter().filter(is_program).map(|package| package.id.as_str()).collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                open.extend(self.needs(id)?);
            }
        }
        let is_seen = |package: &&Package| seen.contains(package.id.as_str());
        let mut parts: Vec<&Package> = self.packages.iter().filter(is_seen).collect();
        parts.sort_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
        Ok(parts)
    }

    /// What is linked in because of the package with this id: the next ones only.
    pub(crate) fn needs(&self, id: &str) -> Result<impl Iterator<Item = &str>, UnknownPackage> {
        let node = self.resolve.nodes.iter().find(|node| node.id == id);
        let node = node.ok_or_else(|| UnknownPackage(id.to_owned()))?;
        Ok(node.deps.iter().filter(|it| it.is_linked()).map(|it| it.pkg.as_str()))
    }
}

impl Dependency {
    fn is_linked(&self) -> bool {
        self.dep_kinds.iter().any(|it| it.kind.is_none())
    }
}

impl Package {
    pub(crate) fn named(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    /// Whether somebody else wrote it.
    pub(crate) fn is_foreign(&self) -> bool {
        self.source.is_some()
    }
}

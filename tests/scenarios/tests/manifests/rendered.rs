//! Files that are rendered from others, and the programs that render.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use arpeggio_lab::programs::build_cluster;
use arpeggio_scenarios::write_overlay;

use crate::objects::Objects;

/// Set to 1, tests write generated files instead of comparing them.
const UPDATE: &str = "UPDATE_GENERATED";

/// The folder `manifests`.
pub(crate) fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests")
}

/// A file of this repository, as text.
pub(crate) fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// By the kubectl of the lab's cluster.
pub(crate) fn kustomized(folder: &Path) -> String {
    let mut kubectl = Command::new(build_cluster().unwrap().join("cluster"));
    output(kubectl.args(["kubectl", "kustomize"]).arg(folder))
}

/// The base in a namespace, with components: what a user writes and applies.
pub(crate) fn overlay(name: &str, namespace: &str, components: &[&str]) -> Objects {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    write_overlay(&folder, namespace, components).unwrap();
    Objects::parse(&kustomized(&folder))
}

/// What a program prints, which has to succeed.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Compares a committed file with what it is to be, or writes it.
pub(crate) fn is_up_to_date(file: &Path, expected: &str) {
    if env::var(UPDATE).is_ok_and(|value| value == "1") {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, expected).unwrap();
    } else {
        let committed = fs::read_to_string(file).unwrap_or_default();
        assert!(committed == expected, "{} is out of date: run 'make generate'", file.display());
    }
}

//! What a release is made of names one version, and its scripts do what they should.

// As in unit tests: what is not there is a failure.
#![allow(clippy::unwrap_used)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The files that name a version, and between which texts it stands there.
const PLACES: [(&str, &[(&str, &str)]); 7] = [
    ("manifests/base/controller.yaml", &[("docker.io/arpeggio/controller:", "\n")]),
    ("manifests/base/speaker.yaml", &[("docker.io/arpeggio/speaker:", "\n")]),
    (
        "manifests/install.yaml",
        &[("docker.io/arpeggio/controller:", "\n"), ("docker.io/arpeggio/speaker:", "\n")],
    ),
    ("manifests/components/forwarder/speaker.yaml", &[("docker.io/arpeggio/forwarder:", "\n")]),
    ("manifests/base/kustomization.yaml", &[("app.kubernetes.io/version: ", "\n")]),
    ("manifests/chart/Chart.yaml", &[("\nversion: ", "\n"), ("appVersion: ", "\n")]),
    (
        "Dockerfile",
        &[
            ("docker.io/arpeggio/controller:", " "),
            ("docker.io/arpeggio/speaker:", " "),
            ("docker.io/arpeggio/forwarder:", " "),
            ("org.opencontainers.image.version=", " "),
        ],
    ),
];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn script(name: &str, args: &[&str]) -> Output {
    Command::new(top().join(".github/release").join(name)).args(args).output().unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn one_version_is_named_everywhere() {
    for (file, places) in PLACES {
        let text = fs::read_to_string(top().join(file)).unwrap();
        for (before, after) in places {
            let found: Vec<&str> =
                text.split(before).skip(1).map(|rest| rest.split(after).next().unwrap()).collect();
            assert!(!found.is_empty(), "{file} has no {before}");
            assert!(
                found.iter().all(|version| *version == VERSION),
                "{file}: {before}{found:?} and not {VERSION}"
            );
        }
    }
}

#[test]
fn a_version_without_notes_is_no_release() {
    let output = script("notes.sh", &["0.0.0"]);
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("no section '## 0.0.0'"), "{message}");
    let notes = printed(&script("notes.sh", &["Unreleased"]));
    assert!(!notes.contains("\n## "), "the notes of other releases are in it");
}

#[test]
fn what_is_published_asks_the_registry_that_it_was_pushed_to() {
    for file in
        ["manifests/install.yaml", "manifests/chart/values.yaml", "manifests/chart/README.md"]
    {
        let path = top().join(file);
        let before = fs::read_to_string(&path).unwrap();
        let path = path.to_string_lossy();
        let after = printed(&script("registry.sh", &["ghcr.io/somebody/lb", &path]));
        assert!(!after.contains("docker.io/arpeggio"), "{file}");
        assert_eq!(after.replace("ghcr.io/somebody/lb/", "docker.io/arpeggio/"), before, "{file}");
        assert_eq!(
            printed(&script("registry.sh", &["docker.io/arpeggio", &path])),
            before,
            "{file}"
        );
    }
    assert!(!script("registry.sh", &["a#b", "Cargo.toml"]).status.success());
}

/// Docker Hub refuses names of more parts than a user's and a repository's.
#[test]
fn the_chart_goes_where_the_default_registry_takes_it() {
    let read = |file: &str| fs::read_to_string(top().join(file)).unwrap();
    let between = |text: &str, before: &str, after: &str| {
        let rest = text.split_once(before).unwrap().1;
        rest.split_once(after).unwrap().0.to_owned()
    };
    let workflow = read(".github/workflows/release.yaml");
    let registry = between(&workflow, "vars.REGISTRY || '", "'");
    let folder = between(&workflow, "oci://$REGISTRY", "\"");
    // Helm adds the chart's name.
    let chart = between(&read("manifests/chart/Chart.yaml"), "name: ", "\n");
    let address = format!("{registry}{folder}/{chart}");
    assert_eq!(address.split('/').count(), 3, "{address}");
    let documented = format!("oci://{address}");
    assert!(read("docs/releasing.md").contains(&documented), "{documented}");
    // It has a name of its own there.
    let images = between(&read(".github/release/push.sh"), "for name in ", ";");
    assert!(!images.split(' ').any(|image| image == chart), "{images}");
}

#[test]
fn archives_are_the_same_each_time() {
    let folder = env::temp_dir().join(format!("arpeggio-release-{}", std::process::id()));
    let licences = folder.join("licences");
    fs::create_dir_all(&licences).unwrap();
    fs::write(licences.join("LICENSE"), "You may.").unwrap();
    let program = folder.join("program");
    fs::write(&program, "not really a program").unwrap();
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let archives = ["first.tar.gz", "second.tar.gz"].map(path);
    for archive in &archives {
        printed(&script("bundle.sh", &[&path("program"), &path("licences"), archive]));
    }
    let [first, second] = archives.map(|archive| fs::read(archive).unwrap());
    fs::remove_dir_all(&folder).unwrap();
    assert!(!first.is_empty() && first == second);
}

//! The committed file that installs everything is what kubectl makes of `manifests/base`.

#![allow(clippy::unwrap_used, reason = "a test may fail here")]

use std::{env, fs, path::Path, process::Command};

use arpeggio_lab::programs::build_cluster;

/// Set to 1, the test writes the file instead of comparing it.
const UPDATE: &str = "UPDATE_GENERATED";

const HEAD: &str = "\
# Everything that a cluster needs, in one file: kubectl apply -f manifests/install.yaml
# `make generate` writes it from manifests/base, where each object says why it is there.
";

#[test]
fn the_file_that_installs_everything_is_up_to_date() {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests");
    let expected = format!("{HEAD}{}", kustomized(&manifests.join("base")));
    let file = manifests.join("install.yaml");
    if env::var(UPDATE).is_ok_and(|value| value == "1") {
        fs::write(&file, expected).unwrap();
    } else {
        let committed = fs::read_to_string(&file).unwrap_or_default();
        assert!(committed == expected, "{} is out of date: run 'make generate'", file.display());
    }
}

/// By the kubectl of the lab's cluster: the same version on every machine.
fn kustomized(folder: &Path) -> String {
    let mut kubectl = Command::new(build_cluster().unwrap().join("cluster"));
    let output = kubectl.args(["kubectl", "kustomize"]).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

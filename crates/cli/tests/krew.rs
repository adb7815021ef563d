//! The plugin for krew: what `manifests/krew/release.sh` writes is what krew accepts, as far as its rules go
//! (`sigs.k8s.io/krew`, internal/index/validation).

#![allow(clippy::unwrap_used, reason = "a test may fail here")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

#[test]
fn the_manifest_is_one_that_krew_accepts() {
    let krew = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/krew");
    let out = std::env::temp_dir().join(format!("arpeggio-krew-{}", std::process::id()));
    // Any file will do.
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let status = Command::new(krew.join("release.sh"))
        .args([VERSION, "https://example.org/v", "https://example.org"])
        .arg(format!("amd64={program}"))
        .env("KREW_OUT", &out)
        .status()
        .unwrap();
    assert!(status.success());

    let text = fs::read_to_string(out.join("arpeggio.yaml")).unwrap();
    assert!(!text.contains("${"), "everything is filled in: {text}");
    let manifest: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(manifest["apiVersion"], "krew.googlecontainertools.github.com/v1alpha2");
    assert_eq!(manifest["kind"], "Plugin");
    assert_eq!(manifest["metadata"]["name"], "arpeggio");
    let spec = &manifest["spec"];
    assert_eq!(spec["version"], VERSION);
    assert!(!spec["shortDescription"].as_str().unwrap().contains('\n'));
    let platforms = spec["platforms"].as_array().unwrap();
    assert_eq!(platforms.len(), 1, "only what was built");
    platforms.iter().for_each(|platform| check(platform, &out));
    fs::remove_dir_all(out).unwrap();
}

fn check(platform: &Value, folder: &Path) {
    let uri = platform["uri"].as_str().unwrap();
    let archive = folder.join(uri.strip_prefix("https://example.org/v/").unwrap());
    let sum = Command::new("sha256sum").arg(&archive).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    assert_eq!(sum.split_whitespace().next(), platform["sha256"].as_str(), "{uri}");
    let listed = Command::new("tar").arg("-tzf").arg(&archive).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let inside: BTreeSet<&str> = listed.lines().collect();
    let files = platform["files"].as_array().unwrap();
    let moved: BTreeSet<&str> = files.iter().map(|it| it["from"].as_str().unwrap()).collect();
    assert_eq!(inside, moved, "everything in the archive is installed");
    assert!(moved.contains(platform["bin"].as_str().unwrap()));
    assert_eq!(platform["selector"]["matchLabels"]["os"], "linux", "the sockets are Linux's");
}

//! The plugin for krew: what `manifests/krew/manifest.sh` prints is what krew accepts, as far as its rules go
//! (`sigs.k8s.io/krew`, internal/index/validation).

#![allow(clippy::unwrap_used, reason = "a test may fail here")]

use std::{fs, path::Path, process::Command};

use serde_json::Value;

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[test]
fn the_manifest_is_one_that_krew_accepts() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let out = std::env::temp_dir().join(format!("arpeggio-krew-{}", std::process::id()));
    fs::create_dir_all(&out).unwrap();
    // Any file will do for a program, and any folder for licences.
    let bundled = Command::new(top.join(".github/release/bundle.sh"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .arg(top.join("manifests/krew"))
        .arg(out.join(format!("arpeggio-{VERSION}-linux-armv7.tar.gz")))
        .status();
    assert!(bundled.unwrap().success());
    let printed = Command::new(top.join("manifests/krew/manifest.sh"))
        .args([VERSION, "https://example.org/v", "https://example.org"])
        .arg(&out)
        .output()
        .unwrap();
    assert!(printed.status.success());

    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(!text.contains("${"), "everything is filled in: {text}");
    let manifest: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(manifest["apiVersion"], "krew.googlecontainertools.github.com/v1alpha2");
    assert_eq!(manifest["kind"], "Plugin");
    assert_eq!(manifest["metadata"]["name"], "arpeggio");
    let spec = &manifest["spec"];
    assert_eq!(spec["version"], format!("v{VERSION}"));
    assert!(!spec["shortDescription"].as_str().unwrap().contains('\n'));
    let platforms = spec["platforms"].as_array().unwrap();
    assert_eq!(platforms.len(), 1, "only what was built");
    assert_eq!(platforms[0]["selector"]["matchLabels"]["arch"], "arm", "as Go calls it");
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
    let bin = format!("./{}", platform["bin"].as_str().unwrap());
    assert!(listed.lines().any(|file| file == bin), "{listed}");
    assert!(listed.contains("./licenses/"), "{listed}");
    assert_eq!(platform["selector"]["matchLabels"]["os"], "linux", "the sockets are Linux's");
}

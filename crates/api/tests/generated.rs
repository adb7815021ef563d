//! The committed custom resource definitions are those of the Rust types.

#![allow(clippy::unwrap_used, reason = "a test may fail here")]

use std::{env, fs, path::Path};

use arpeggio_api::crds;

/// Set to 1, the test writes the files instead of comparing them.
const UPDATE: &str = "UPDATE_GENERATED";

#[test]
fn the_committed_definitions_are_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/crds");
    for crd in crds::crds() {
        let file = folder.join(format!("{}.yaml", crd.spec.names.plural));
        let expected = crds::to_yaml(&crd).unwrap();
        if env::var(UPDATE).is_ok_and(|value| value == "1") {
            fs::write(&file, expected).unwrap();
        } else {
            let committed = fs::read_to_string(&file).unwrap_or_default();
            assert!(
                committed == expected,
                "{} is not what the types say: run `{UPDATE}=1 cargo test -p arpeggio-api`",
                file.display()
            );
        }
    }
}

//! The committed file that installs everything is what kubectl makes of `manifests/base`.

use crate::rendered::{is_up_to_date, kustomized, manifests};

const HEAD: &str = "\
# Everything that a cluster needs, in one file: kubectl apply -f manifests/install.yaml
# `make generate` writes it from manifests/base, where each object says why it is there.
";

#[test]
fn the_file_that_installs_everything_is_up_to_date() {
    let expected = format!("{HEAD}{}", kustomized(&manifests().join("base")));
    is_up_to_date(&manifests().join("install.yaml"), &expected);
}

//! A user's own kustomization above our manifests: another namespace, and components, as `docs/install.md` says it.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use crate::install;

/// What the kustomizations begin with.
const HEAD: &str = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n";

/// Writes one into `folder`: the base in `namespace`, and above it the components of these names.
///
/// # Errors
/// When the folder cannot be written.
pub fn write_overlay(folder: &Path, namespace: &str, components: &[&str]) -> io::Result<()> {
    let namespaced = folder.join("namespaced");
    fs::create_dir_all(&namespaced)?;
    let manifests = install::root().canonicalize()?.join("manifests");
    let base = relative(&namespaced.canonicalize()?, &manifests.join("base"));
    let text = format!("{HEAD}namespace: {namespace}\nresources: [{}]\n", base.display());
    fs::write(namespaced.join("kustomization.yaml"), text)?;
    let mut text = format!("{HEAD}resources: [namespaced]\ncomponents:\n");
    let here = folder.canonicalize()?;
    for component in components {
        let path = relative(&here, &manifests.join("components").join(component));
        _ = writeln!(text, "  - {}", path.display());
    }
    fs::write(folder.join("kustomization.yaml"), text)
}

/// Kustomize takes no absolute path.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let up = from.components().skip(1).map(|_| "..");
    up.collect::<PathBuf>().join(to.strip_prefix("/").unwrap_or(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_leads_up_and_down_again() {
        assert_eq!(relative(Path::new("/a/b"), Path::new("/c/d")), Path::new("../../c/d"));
    }
}

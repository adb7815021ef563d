//! Installs Arpeggio in a lab: images from static programs, then `kubectl apply -k`.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::{Image, Lab, progress::Progress, web};

/// The namespace of the manifests.
pub(crate) const NAMESPACE: &str = "arpeggio-system";

/// The tag that the manifests ask for.
const TAG: &str = "0.1.0";

/// A rollout takes two seconds on a machine at rest.
const PATIENCE: Duration = Duration::from_secs(90);

/// Builds and imports the images, applies the manifests, waits until everything is ready.
pub(crate) fn install(lab: &Lab) -> anyhow::Result<()> {
    let progress = Progress::new(lab.name());
    let begin = Instant::now();
    // On each node somebody may want to look at the interfaces and ask the segment.
    let speaker = image("speaker")?.with_file("/arpeggio", program("arpeggio")?);
    let images = [image("controller")?, speaker, web::nginx_image()?];
    lab.import(&images)?;
    progress.done("images built and imported", begin);
    let begin = Instant::now();
    let manifests = root().join("manifests");
    lab.kubectl(&["apply", "-k", &manifests.join("base").to_string_lossy()])?;
    // All that speakers do, they do under the policy that narrows it.
    let policy = manifests.join("components/admission/policy.yaml");
    lab.kubectl(&["apply", "-f", &policy.to_string_lossy()])?;
    lab.wait_for_rollout(NAMESPACE, "deployment/arpeggio-controller", PATIENCE)?;
    lab.wait_for_rollout(NAMESPACE, "daemonset/arpeggio-speaker", PATIENCE)?;
    lab.wait_for(&["crd/addresspools.arpeggio.dev"], "condition=Established", PATIENCE)?;
    progress.done("Arpeggio installed from manifests/base", begin);
    Ok(())
}

/// Removes Arpeggio and everything that it has written.
pub(crate) fn uninstall(lab: &Lab) -> anyhow::Result<()> {
    let base = root().join("manifests/base");
    let timeout = format!("--timeout={}s", PATIENCE.as_secs());
    lab.kubectl(&["delete", "--wait", &timeout, "-k", &base.to_string_lossy()])?;
    Ok(())
}

/// Installs only what a controller outside of the cluster needs: the definitions and the namespace.
///
/// # Errors
/// When the API server refuses them.
pub fn install_definitions(lab: &Lab) -> anyhow::Result<()> {
    let path = |name: &str| root().join("manifests").join(name).to_string_lossy().into_owned();
    lab.kubectl(&["apply", "-k", &path("crds")])?;
    lab.kubectl(&["apply", "-f", &path("base/namespace.yaml")])?;
    let crd = ["crd/addresspools.arpeggio.dev"];
    Ok(lab.wait_for(&crd, "condition=Established", PATIENCE)?)
}

fn image(component: &str) -> anyhow::Result<Image> {
    let program = program(&format!("arpeggio-{component}"))?;
    let name = format!("docker.io/arpeggio/{component}:{TAG}");
    Ok(Image::of_static_program(&name, &program))
}

/// The static program that `make programs` has built.
pub(crate) fn program(name: &str) -> anyhow::Result<PathBuf> {
    let folder = std::env::var_os("ARPEGGIO_PROGRAMS")
        .map(PathBuf::from)
        .context("ARPEGGIO_PROGRAMS is not set: run this by way of make, which builds Arpeggio first and says where it is")?;
    let path = folder.join(name);
    ensure!(path.is_file(), "{} does not exist: run 'make programs'", path.display());
    Ok(path)
}

/// The root of this repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

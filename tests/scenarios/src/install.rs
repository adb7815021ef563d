//! Installs Arpeggio in a lab: images from static programs, then `kubectl apply -k`.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use arpeggio_image::{Architecture, component::Component};
use arpeggio_lab::{Image, Lab, progress::Progress, web};

use crate::overlay::write_overlay;

/// The namespace of the manifests.
pub(crate) const NAMESPACE: &str = "arpeggio-system";

/// The tag that the manifests ask for.
const TAG: &str = env!("CARGO_PKG_VERSION");

/// The tag of an earlier commit's programs.
const EARLIER_TAG: &str = "earlier";

/// A rollout takes two seconds on a machine at rest.
const PATIENCE: Duration = Duration::from_secs(90);

/// Builds and imports the images, applies the manifests, waits until everything is ready.
pub(crate) fn install(lab: &Lab) -> anyhow::Result<()> {
    let progress = Progress::new(lab.name());
    let begin = Instant::now();
    import_all(lab)?;
    progress.done("images built and imported", begin);
    let begin = Instant::now();
    apply(lab)?;
    progress.done("Arpeggio installed from manifests/base", begin);
    Ok(())
}

/// Applies the manifests, and waits until everything is ready.
pub(crate) fn apply(lab: &Lab) -> anyhow::Result<()> {
    let manifests = root().join("manifests");
    lab.kubectl(&["apply", "-k", &manifests.join("base").to_string_lossy()])?;
    // All that speakers do, they do under the policy that narrows it.
    let policy = manifests.join("components/admission/policy.yaml");
    lab.kubectl(&["apply", "-f", &policy.to_string_lossy()])?;
    if with_forwarder() {
        let folder = lab.folders().kubeconfig().with_file_name("with-forwarder");
        write_overlay(&folder, NAMESPACE, &["forwarder"])?;
        lab.apply_folder(&folder)?;
    }
    wait_until_ready(lab)
}

/// Whether clusters get the forwarder, too, where a test does not say it itself.
pub(crate) fn with_forwarder() -> bool {
    std::env::var_os("ARPEGGIO_WITH_FORWARDER").is_some()
}

/// Imports all images: ours and that of the page.
///
/// # Errors
/// When ours were not built, or a node does not take one.
pub fn import_all(lab: &Lab) -> anyhow::Result<()> {
    let ours = Component::ALL.into_iter().map(image).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(lab.import(&[ours, vec![web::nginx_image()?]].concat())?)
}

/// Imports our images with another tag.
///
/// # Errors
/// When they were not built, or a node does not take one.
pub fn import_as(lab: &Lab, tag: &str) -> anyhow::Result<()> {
    let programs = programs()?;
    Ok(lab.import(&Component::ALL.map(|component| component.image(&programs, tag)))?)
}

/// The folder of the chart.
pub fn chart_folder() -> PathBuf {
    root().join("manifests/chart")
}

/// Installs the base in another namespace, with components, as `docs/install.md` says it.
///
/// # Errors
/// When something does not become ready.
pub fn install_overlay(lab: &Lab, namespace: &str, components: &[&str]) -> anyhow::Result<()> {
    import_all(lab)?;
    let folder = lab.folders().kubeconfig().with_file_name("overlay");
    write_overlay(&folder, namespace, components)?;
    lab.apply_folder(&folder)?;
    wait_for_pods(lab, namespace)
}

fn wait_until_ready(lab: &Lab) -> anyhow::Result<()> {
    wait_for_pods(lab, NAMESPACE)?;
    Ok(lab.wait_for(&["crd/addresspools.arpeggio.dev"], "condition=Established", PATIENCE)?)
}

/// Waits until the controller and all speakers are ready.
///
/// # Errors
/// When they are not in time.
pub fn wait_for_pods(lab: &Lab, namespace: &str) -> anyhow::Result<()> {
    lab.wait_for_rollout(namespace, "deployment/arpeggio-controller", PATIENCE)?;
    Ok(lab.wait_for_rollout(namespace, "daemonset/arpeggio-speaker", PATIENCE)?)
}

/// Installs what users get: the archives that `make images` has written, and the one file.
///
/// # Errors
/// When they were not written, or something does not become ready.
pub fn install_release(lab: &Lab) -> anyhow::Result<()> {
    lab.import_archives(&archives()?)?;
    lab.import(&[web::nginx_image()?])?;
    lab.kubectl(&["apply", "-f", &install_file()])?;
    wait_until_ready(lab)
}

/// Removes what the one file has installed.
///
/// # Errors
/// When it is not gone in time.
pub fn remove_release(lab: &Lab) -> anyhow::Result<()> {
    let timeout = format!("--timeout={}s", PATIENCE.as_secs());
    lab.kubectl(&["delete", "--wait", &timeout, "-f", &install_file()])?;
    Ok(())
}

fn install_file() -> String {
    root().join("manifests/install.yaml").to_string_lossy().into_owned()
}

/// Where `make images` has written the images.
pub(crate) fn image_folder() -> anyhow::Result<PathBuf> {
    std::env::var_os("ARPEGGIO_IMAGES").map(PathBuf::from).context(
        "ARPEGGIO_IMAGES is not set: run this by way of make, which says where the images are",
    )
}

/// The images for this machine, as `make images` has written them.
fn archives() -> anyhow::Result<Vec<PathBuf>> {
    let folder = image_folder()?;
    let archive = |component: Component| {
        let file = component.archive_name(TAG, Architecture::default());
        let path = folder.join(file);
        ensure!(path.is_file(), "{} does not exist: run 'make images'", path.display());
        Ok(path)
    };
    Component::ALL.into_iter().map(archive).collect()
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

/// The folder with the programs of an earlier commit, which are built when they are not there yet.
fn earlier_programs() -> anyhow::Result<PathBuf> {
    let script = root().join("tests/earlier.sh");
    let output = Command::new(&script).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", script.display()))?;
    ensure!(output.status.success(), "{} failed, see above", script.display());
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// Imports the images of an earlier commit's programs, with the tag `earlier`.
///
/// # Errors
/// When they were not built, or a node does not take them.
pub fn import_earlier(lab: &Lab) -> anyhow::Result<()> {
    let folder = earlier_programs()?;
    let components = [Component::Controller, Component::Speaker];
    Ok(lab.import(&components.map(|component| component.image(&folder, EARLIER_TAG)))?)
}

/// Has a component run in this release's version, or in the earlier one.
///
/// # Errors
/// When the API server refuses.
pub fn set_version(
    lab: &Lab,
    workload: &str,
    component: Component,
    earlier: bool,
) -> anyhow::Result<()> {
    let tag = if earlier { EARLIER_TAG } else { TAG };
    let image = format!("{}={}", component.name(), component.image_name(tag));
    Ok(lab.kubectl(&["set", "image", "-n", NAMESPACE, workload, &image]).map(drop)?)
}

fn image(component: Component) -> anyhow::Result<Image> {
    Ok(component.image(&programs()?, TAG))
}

/// The static program that `make programs` has built.
///
/// # Errors
/// When nobody says where, or it is not there.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = programs()?.join(name);
    ensure!(path.is_file(), "{} does not exist: run 'make programs'", path.display());
    Ok(path)
}

fn programs() -> anyhow::Result<PathBuf> {
    std::env::var_os("ARPEGGIO_PROGRAMS")
        .map(PathBuf::from)
        .context("ARPEGGIO_PROGRAMS is not set: run this by way of make, which builds Arpeggio first and says where it is")
}

/// The root of this repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

//! Programs of others that tests need: built or fetched once, by a script of their folder below `tests`, and kept in the user's cache.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use arpeggio_lab::Image;

/// The folder of what `build.sh` in a folder of `tests` builds.
///
/// # Errors
/// When it cannot be built; the script has said why by then.
pub fn built(folder: &str) -> anyhow::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder).join("build.sh");
    let output = Command::new(&script).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", script.display()))?;
    ensure!(output.status.success(), "{} failed, see above", script.display());
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// What the `image` field of Traefik's pods says.
pub const TRAEFIK_IMAGE: &str = "lab.local/traefik:lab";

/// What the `image` field of OAuth2 Proxy's pods says.
pub const OAUTH2_PROXY_IMAGE: &str = "lab.local/oauth2-proxy:lab";

/// Traefik, which serves Ingresses and Gateways.
///
/// # Errors
/// When it cannot be built.
pub fn traefik_image() -> anyhow::Result<Image> {
    let program = built("ingress")?.join("traefik");
    Ok(Image::of_static_program(TRAEFIK_IMAGE, &program))
}

/// The folder with the definitions of the Gateway API.
///
/// # Errors
/// When Traefik, beside which they are kept, cannot be built.
pub fn gateway_api_definitions() -> anyhow::Result<PathBuf> {
    Ok(built("ingress")?.join("crds"))
}

/// OAuth2 Proxy, which knows who has signed in.
///
/// # Errors
/// When it cannot be built.
pub fn oauth2_proxy_image() -> anyhow::Result<Image> {
    let program = built("oauth2-proxy")?.join("oauth2-proxy");
    Ok(Image::of_static_program(OAUTH2_PROXY_IMAGE, &program))
}

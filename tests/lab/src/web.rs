//! A workload to ask: real nginx from the host's package, whose answer says which pod it is and on
//! which node.

use crate::error::Result;
use crate::image::{self, Image};

/// What the pods' `image` field says.
pub const NGINX_IMAGE: &str = "lab.local/nginx:lab";

/// nginx, and the shell that writes each pod's answer into its configuration.
///
/// # Errors
/// When the host has no nginx.
pub fn nginx_image() -> Result<Image> {
    image::of_host_programs(NGINX_IMAGE, &["nginx", "sh"])
}

/// A `ConfigMap` and a Deployment, both called `web` with the label `app: web`; nginx listens on
/// port 80 of both families. To be applied into the default namespace, or another with `kubectl
/// -n`.
pub fn manifest(replicas: u32) -> String {
    include_str!("web.yaml").replace("REPLICAS", &replicas.to_string())
}

/// Takes an answer apart: the pod and the node. `None` if it is somebody else's answer.
pub fn read_answer(body: &str) -> Option<(&str, &str)> {
    body.trim_end().split_once(" on ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        assert_eq!(read_answer("web-1 on node-2\n"), Some(("web-1", "node-2")));
        assert_eq!(read_answer("404 Not Found"), None);
    }

    #[test]
    fn the_manifest_names_the_image_and_the_number() {
        let manifest = manifest(7);
        assert!(manifest.contains("replicas: 7"));
        assert!(manifest.contains(NGINX_IMAGE));
    }
}

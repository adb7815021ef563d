//! What Arpeggio's own images hold.

use std::path::{Path, PathBuf};

use crate::{Architecture, Image};

/// A part of Arpeggio that has an image of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// Gives addresses; runs where Kubernetes likes.
    Controller,
    /// Announces addresses; runs on each node.
    Speaker,
    /// Passes packets on, where somebody installs it; runs beside the speaker.
    Forwarder,
}

impl Component {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Controller, Self::Speaker, Self::Forwarder];

    /// One word, as in the manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Speaker => "speaker",
            Self::Forwarder => "forwarder",
        }
    }

    /// The image that the manifests ask for, with a tag.
    pub fn image_name(self, tag: &str) -> String {
        format!("docker.io/arpeggio/{}:{tag}", self.name())
    }

    /// The image, from a folder with the static programs.
    pub fn image(self, programs: &Path, tag: &str) -> Image {
        let name = self.image_name(tag);
        let image = Image::of_static_program(&name, &self.program(programs)).with_user(self.user());
        match self {
            Self::Controller | Self::Forwarder => image,
            // On each node somebody may want to look at the interfaces and ask the segment.
            Self::Speaker => image.with_file("/arpeggio", programs.join("arpeggio")),
        }
    }

    /// The packages whose programs are in the image.
    pub const fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Controller => &["arpeggio-controller"],
            Self::Speaker => &["arpeggio-speaker", "arpeggio-cli"],
            Self::Forwarder => &["arpeggio-forwarder"],
        }
    }

    /// The file that the image is in, for a processor.
    pub fn archive_name(self, version: &str, architecture: Architecture) -> String {
        format!("arpeggio-{}-{version}-{}.tar", self.name(), architecture.name())
    }

    /// The program that the image runs.
    pub fn program(self, programs: &Path) -> PathBuf {
        programs.join(format!("arpeggio-{}", self.name()))
    }

    /// As the manifests say. Kubernetes gives capabilities to uid 0 only, and speaker and forwarder need one each.
    const fn user(self) -> &'static str {
        match self {
            Self::Controller => "65532:65532",
            Self::Speaker | Self::Forwarder => "0:0",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_is_built_by_docker_and_released() {
        let names = Component::ALL.map(Component::name);
        let push = include_str!("../../../.github/release/push.sh");
        assert!(push.contains(&format!("for name in {}; do\n", names.join(" "))), "{push}");
        let dockerfile = include_str!("../../../Dockerfile");
        for name in names {
            assert!(dockerfile.contains(&format!("FROM base AS {name}\n")), "{name}");
        }
    }

    #[test]
    fn the_manifests_ask_for_these_images_of_this_version() {
        let manifests = [
            (Component::Controller, include_str!("../../../manifests/base/controller.yaml")),
            (Component::Speaker, include_str!("../../../manifests/base/speaker.yaml")),
            (
                Component::Forwarder,
                include_str!("../../../manifests/components/forwarder/speaker.yaml"),
            ),
        ];
        for (component, manifest) in manifests {
            let image = format!("image: {}\n", component.image_name(env!("CARGO_PKG_VERSION")));
            let user = component.user().split(':').next().unwrap_or_default();
            assert!(manifest.contains(&image), "{image}");
            assert!(manifest.contains(&format!("runAsUser: {user}\n")), "{user}");
        }
    }
}

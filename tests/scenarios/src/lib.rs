//! What users do with Arpeggio, end to end in the lab.
//!
//! [`Home`] is a home network with a Kubernetes cluster that Arpeggio is installed in, from the manifests and as a user
//! does it. The demo (`make demo`) and the tests (`tests/`) both live in it.

#![forbid(unsafe_code)]

mod built;
mod fault;
mod helm;
mod home;
mod install;
pub mod kafka;
pub mod metallb;
mod overlay;
mod page;
mod pods;
mod process;
mod prometheus;
mod renewal;
mod streams;
mod typist;

pub use built::{
    OAUTH2_PROXY_IMAGE, TRAEFIK_IMAGE, built, gateway_api_definitions, oauth2_proxy_image,
    traefik_image,
};
pub use fault::{FAULTS_SEEN, Seen};
pub use helm::helm_program;
pub use home::{
    EXCLUDE, Home, KubernetesEvent, NotYet, POOL, POOL_RANGE, collect, eprint_line, first_address,
    pool, service,
};
pub use install::{
    chart_folder, import_all, import_as, import_earlier, install_definitions, install_overlay,
    install_release, program, remove_release, set_version, wait_for_pods,
};
pub use overlay::write_overlay;
pub use page::page;
pub use process::{Cost, HostProcess};
pub use prometheus::{Prometheus, Sample};
pub use renewal::AsNew;
pub use streams::{STREAMS, Streams, StreamsSeen, connect_from};
pub use typist::Typist;

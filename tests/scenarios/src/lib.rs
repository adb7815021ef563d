//! What users do with Arpeggio, end to end in the lab.
//!
//! [`Home`] is a home network with a Kubernetes cluster that Arpeggio is installed in, from the manifests and as a user
//! does it. The demo (`make demo`) and the tests (`tests/`) both live in it.

#![forbid(unsafe_code)]

mod home;
mod install;
mod process;

pub use home::{
    Home, KubernetesEvent, NotYet, POOL, POOL_RANGE, collect, eprint_line, first_address, pool,
    service,
};
pub use install::install_definitions;
pub use process::{Cost, HostProcess};

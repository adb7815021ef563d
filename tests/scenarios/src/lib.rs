//! What users do with Arpeggio, end to end in the lab.
//!
//! [`Home`] is a home network with a Kubernetes cluster that Arpeggio is installed in, from the manifests and as a user
//! does it. The demo (`make demo`) and the tests (`tests/`) both live in it.

#![forbid(unsafe_code)]

mod fault;
mod home;
mod install;
pub mod metallb;
mod page;
mod pods;
mod process;

pub use fault::{FAULTS_SEEN, Seen};
pub use home::{
    EXCLUDE, Home, KubernetesEvent, NotYet, POOL, POOL_RANGE, collect, eprint_line, first_address,
    pool, service,
};
pub use install::{
    import_earlier, install_definitions, install_release, remove_release, set_version,
};
pub use page::page;
pub use process::{Cost, HostProcess};

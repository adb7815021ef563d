//! A real Kubernetes cluster in network namespaces.
mod components;
pub mod error;
pub mod folders;
pub mod guard;
pub mod image;
mod kubernetes;
mod lab;
mod machine;
pub mod namespace;
pub mod network;
mod pki;
pub mod plan;
pub mod process;
pub mod programs;
pub mod progress;
pub mod teardown;

pub use components::ProxyMode;
pub use error::{LabError, Result};
pub use image::Image;
pub use lab::{Lab, Options};
pub use plan::{LabName, Machine};

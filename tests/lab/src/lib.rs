//! A real Kubernetes cluster in network namespaces.
//!
//! A [`Lab`] is a switch, a home router with an internet host behind it, a client on the LAN, a
//! control plane, and nodes with kubelet, containerd and kube-proxy of their own, all on one
//! machine and none of them a mock:
//!
//! ```text
//!   internet ── router ──┬── client
//!                        ├── control   etcd, kube-apiserver, kube-controller-manager, kube-scheduler
//!                        ├── node-1    containerd, kubelet, kube-proxy, pods
//!                        └── node-2 …
//! ```
//!
//! A lab of [`Options::oldest_api`] has only the API server of the oldest Kubernetes that Arpeggio
//! supports, and etcd.
//!
//! Any program that starts labs calls [`guard::run_if_asked`] first in its `main()`: a process of
//! its own sees to it that nothing of a lab is left, however its owner ends.
//!
//! ```no_run
//! use arpeggio_lab::{Lab, Machine, Options, guard};
//!
//! fn main() -> arpeggio_lab::Result<()> {
//!     guard::run_if_asked();
//!     let lab = Lab::start("example".parse()?, Options::default())?;
//!     println!("{}", lab.kubectl(&["get", "nodes"])?);
//!     lab.power_off(Machine::Node(1))?;
//!     lab.stop()
//! }
//! ```

mod arp;
mod backup;
mod cgroup;
mod collect;
mod components;
pub mod error;
pub mod flood;
pub mod folders;
pub mod guard;
pub mod image;
mod kubernetes;
mod lab;
mod machine;
pub mod namespace;
pub mod network;
pub mod observe;
mod pki;
pub mod plan;
mod power;
pub mod process;
pub mod programs;
pub mod progress;
mod repair;
pub mod slow;
pub mod teardown;
pub mod web;

pub use components::ProxyMode;
pub use error::{LabError, Result};
pub use image::Image;
pub use lab::{Lab, Options};
pub use plan::{Families, LabName, Machine};

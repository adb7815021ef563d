//! What the manifests are rendered to, by the same kubectl, Helm and promtool on every machine.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test may fail here")]

mod chart;
mod components;
mod install_file;
mod monitoring;
mod objects;
mod rendered;

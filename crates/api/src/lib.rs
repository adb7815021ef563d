//! Kubernetes types of Arpeggio and their conversion into the pure models.
//!
//! Everything that a user or another process wrote is converted here, once; what cannot be converted is an error that
//! the caller makes visible.

#![forbid(unsafe_code)]

pub mod address_pool;
pub mod cluster;
pub mod condition;
pub mod config_map;
pub mod crds;
pub mod declaration;
pub mod endpoints;
pub mod forwarder;
pub mod knowledge;
pub mod last_good;
pub mod leader;
pub mod lease;
pub mod lock;
pub mod metallb;
pub mod node;
mod reach;
pub mod reservations;
pub mod selector;
pub mod service;
pub mod session;
pub mod terms;

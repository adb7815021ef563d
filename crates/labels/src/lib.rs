//! Labels and label selectors, with the meaning that Kubernetes gives them.
//!
//! Pools select Services and namespaces by them, announce rules select nodes.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod selector;

pub use selector::{Labels, Selector, SelectorError};

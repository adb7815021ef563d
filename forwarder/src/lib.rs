//! The forwarder: it gives packets of connections to the node that knows them.

#![forbid(unsafe_code)]

pub mod neighbours;
pub mod rules;

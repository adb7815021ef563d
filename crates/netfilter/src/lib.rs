//! `nf_tables` and conntrack over netlink: typed messages, no C library and no program `nft`.
//!
//! [`Netfilter`] is one socket. What it is told comes as a [`Batch`], which the kernel takes as a whole or not at all.
//! All tables are *owned* by the socket: the kernel removes them when the socket closes, however the process ends.
//! [`Tables`] describes what is wanted, and [`Batch::between`] says what brings the kernel there, naming only what differs.

#![forbid(unsafe_code)]

mod attributes;
mod batch;
mod conntrack;
mod counters;
mod error;
mod expression;
mod feature;
mod message;
mod socket;
mod tables;

pub use batch::Batch;
pub use conntrack::Connections;
pub use counters::Counted;
pub use error::Error;
pub use expression::{Comparison, Expression, Header, Meta, Register, Verdict, conntrack_state};
pub use feature::Feature;
pub use socket::Netfilter;
pub use tables::{
    Chain, Contents, Data, Family, Field, Hook, Rule, Set, SetKind, SetValue, Table, Tables,
};

//! Raw sockets, packet filters and netlink: where the speaker touches the kernel.
//!
//! * [`calls`] has what every call that waits needs.
//! * [`clock`] reads the clock that all freshness is judged by.
//! * [`filter`] builds the programs that keep foreign frames out of this process.
//! * [`packet`] receives and sends ARP or NDP frames on one interface; it needs `NET_RAW`, no more.
//! * [`groups`] makes switches deliver the questions for IPv6 addresses; it needs nothing.
//! * [`interfaces`] knows which interfaces this node has, and on which one to announce an address.
//!
//! This crate alone contains `unsafe` code, each use with the reason why it is sound.
#![deny(unsafe_op_in_unsafe_fn)]
#![deny(clippy::undocumented_unsafe_blocks)]

pub mod calls;
pub mod clock;
pub mod filter;
pub mod groups;
pub mod interfaces;
pub mod packet;

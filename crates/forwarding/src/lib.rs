//! Which node gets a packet, without I/O.
//!
//! Two things are decided here. *Keeping connections*: when an address moves, the node that has it now gives the packets of
//! connections that it does not know to a node that may know them. *Spread*: the node that announces an address gives each new
//! connection to one of the nodes that serve the address.
//!
//! # Contract
//!
//! One thread drives a [`Forwarding`]. It gives all that is known ([`Known`]) and the time to [`Forwarding::decide`], brings the
//! kernel to the [`Plan`] that comes back, counts and publishes what [`Draining`] says, tells the [`Notes`], and asks again
//! when something has changed, when [`Forwarding::hear`] says so, or at [`Decision::next`].
//!
//! # Why no packet goes round in circles
//!
//! Every node has a rank for each class of packets, and the rank follows from names alone: no two nodes can be of different minds
//! about it. Who gets a packet from a fellow passes it on only to a node of a lower rank than its own. So a packet that was passed on
//! once only goes down, whatever each node believes of the others, and n nodes pass it on n times at most.
//! A fellow is told by its MAC address, so a [`Plan`] names all that any node has ever said.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod explain;
mod forwarding;
mod hops;
mod jhash;
mod known;
mod memory;
mod notes;
mod packet;
mod plan;
mod rank;
mod serving;
mod table;

pub use explain::{Because, Explanation, Share, explain};
pub use forwarding::{Decision, Forwarding, Settings};
pub use jhash::{bucket, jhash};
pub use known::{
    Address, Endpoints, Fellow, Forwarder, Known, Life, Mac, Port, Protocol, Service, Wire, Written,
};
pub use memory::STALE;
pub use notes::{LeftOut, Notes, OneNode};
pub use packet::{BUCKETS, Kind, SpreadBy};
pub use plan::{Drain, Draining, Hop, Passing, Plan, PlannedAddress, Reset, Spread, Way};

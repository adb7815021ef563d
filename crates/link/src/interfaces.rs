//! Which interfaces this node has, and on which one an address is announced.
//!
//! [`watch()`] keeps a [`Links`] snapshot current; everything that is asked of a snapshot is pure.

mod announcing;
mod bridge;
mod decode;
mod layers;
mod message;
mod snapshot;
mod watch;
mod wireless;

pub use announcing::Unfit;
pub use bridge::Bridge;
pub use snapshot::{
    Address, AddressState, DefaultRoute, Family, Flaw, Interface, Links, Medium, OnLink,
    RouterPreference, Subnet, Way, has_neighbours,
};
pub use watch::{NetlinkError, watch};

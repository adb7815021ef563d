//! Which interfaces this node has, and on which one an address is announced.
//!
//! [`watch()`] keeps a [`Links`] snapshot current; everything that is asked of a snapshot is pure.

mod decode;
mod snapshot;
mod watch;
mod wireless;

pub use snapshot::{DefaultRoute, Family, Flaw, Interface, Links, Medium, Unfit};
pub use watch::{NetlinkError, watch};
pub use wireless::is_wireless;

//! Address pools and the allocator, without I/O.
//!
//! The caller tells the [`Allocator`] which pools exist ([`Allocator::set_pools`]) and who holds which address
//! ([`Allocator::claim`], [`Allocator::release`]); [`Allocator::choose`] answers which address a newcomer may have, or
//! why none. Choosing records nothing: the caller claims the address wherever claims are made durable, and records it
//! here.
//!
//! Claims are independent of pools. An address that is held stays held when its pool shrinks or goes, and nothing that
//! happens to pools changes who holds what.
//!
//! Free space is kept as intervals, so a pool of 2^64 addresses costs what a pool of two costs, and choosing costs
//! O(pools × log intervals) however full they are.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod allocator;
mod free;
mod names;
mod pool;
mod range;
mod refusal;
mod request;
mod reserved;
mod selector;
mod sharing;

pub use allocator::{AddressTaken, Allocator, Choice, FamilyRequest, Overlap, PoolState, Usage};
pub use names::{Owner, PoolName, SharingKey};
pub use pool::{AllocationRules, InvalidPool, Outsider, Pool, PoolError, parse_ranges};
pub use range::{AddressRange, Family, RangeError};
pub use refusal::{Refusal, Unfit, Unfitness};
pub use request::{Families, PoolChoice, Request, Requester};
pub use reserved::{Reservation, Special};
pub use selector::{Labels, Selector, SelectorError};
pub use sharing::{Backend, Port, Protocol, Sharing};

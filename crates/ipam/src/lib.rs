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

pub use allocator::{AddressTaken, Allocator, Choice, Overlap, PoolState, Request, Usage};
pub use names::{Owner, PoolName};
pub use pool::{InvalidPool, Pool};
pub use range::{AddressRange, Family, RangeError};
pub use refusal::{Refusal, Unfit, Unfitness};

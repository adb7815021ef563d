//! Address pools and the allocator, without I/O.
//!
//! The caller tells the [`Allocator`] which pools exist ([`Allocator::set_pools`]), who holds which address
//! ([`Allocator::claim`], [`Allocator::release`]) and what is reserved ([`Allocator::reserve`]); [`Allocator::plan`]
//! answers what is to become of somebody's addresses: which stay, which go, which are to be claimed, and why not more.
//! A plan records nothing: the caller claims addresses wherever claims are made durable, and records them here.
//!
//! Claims are independent of pools. An address that is held stays held when its pool shrinks or goes, and nothing that
//! happens to pools changes who holds what.
//!
//! # Which address
//!
//! 1. Requested addresses, and no others.
//! 2. Else the pools that the request names, in its order, whether or not they assign automatically.
//! 3. Else pools with rules that assign automatically, by priority (0 last) and name, then those without, by name.
//!
//! Within a pool: the lowest address that the Service may share, else the lowest free one; the highest, while one machine that
//! is not ours answers at several. One pool that has both families comes before two that have one each. Nothing is left to chance, so any two controllers choose alike.
//!
//! # Cost
//!
//! Addresses are kept as intervals, so a pool of 2^120 addresses costs what a pool of two costs. To choose costs
//! O(log n) for each pool that is tried, however full it is.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod allocator;
mod answers;
mod choose;
mod holders;
mod intervals;
mod names;
mod plan;
mod pool;
mod range;
mod refusal;
mod request;
mod reserved;
mod sharing;
mod space;

pub use allocator::{Allocator, Overlap, PoolState, Unusable};
pub use choose::Choice;
pub use names::{Owner, PoolName, SharingKey};
pub use plan::{Grace, Held, Leaving, Misfit, Plan, Unwanted};
pub use pool::{
    AllocationRules, Audience, InvalidPool, Outsider, Pool, PoolError, is_buggy, parse_ranges,
};
pub use range::{AddressRange, Family, RangeError};
pub use refusal::{Refusal, Unfit, UnfitAddress, Unfitness};
pub use request::{Families, PoolChoice, Request, Requester};
pub use reserved::{Reservation, Special};
pub use sharing::{
    Backend, Clash, Disagreement, Port, Protocol, Sharing, SharingScope, SharingTerms,
};
pub use space::Usage;

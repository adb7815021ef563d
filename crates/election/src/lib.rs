//! Sessions, locks and placement: who announces which address, without I/O.
//!
//! A *session* is a node's proof of life; a *lock* records who announces one address. Both are records with a version,
//! kept by an API server that refuses a write whose expected version is not the current one (compare-and-swap).
//! [`Elector`] is one speaker's view of them and of the wire, and the only place where ownership is decided.
//!
//! # Contract
//!
//! One thread drives an [`Elector`]:
//!
//! 1. feed everything that has happened with [`Elector::handle`];
//! 2. then call [`Elector::decide`], and carry out the [`Effect`]s that it returns: frames at once, writes in any order
//!    and at the same time. Of each write the [`Outcome`] is fed back, after the record that the API server answered
//!    with (also after a conflict: read the record again and feed it first);
//! 3. announce exactly [`Elector::announcing`], and for no longer than [`Settings::freshness`] after that call;
//! 4. call again at [`Decision::next`], or earlier when something happens.
//!
//! Time is a [`Timestamp`] on a clock that never steps and that counts suspended time. Nothing here reads a clock.
//!
//! # Why there is one owner
//!
//! A lock is taken from a holder only after the holder's session has been *ended*, which is a write to that session
//! like its renewal is. So the API server orders the two: either the renewal comes first and the end is refused, or the
//! end comes first, the renewal is refused, and the holder knows. A session write of ours that succeeds proves that all
//! our locks are still ours; this is what a speaker waits for before its first answer, and again after it was paused.
//!
//! There are two ways to announce without a lock: the heir of a silent node's address announces it while its take is still in
//! flight, and a speaker that cannot reach the API server may announce what nobody answers for. Both give way to every
//! fellow that they hear.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod bucket;
mod disputes;
mod earshot;
mod elector;
mod eligibility;
mod exchange;
mod facts;
mod families;
mod flaps;
mod intruders;
pub mod leader;
mod leaving;
mod loads;
mod model;
mod own;
mod own_merits;
mod pattern;
mod placement;
mod proxies;
mod questions;
mod reach;
pub mod rebalance;
mod role;
mod settings;
mod speakers;
mod stranded;
mod succession;
mod terms;
mod unaided;
mod vacancy;
mod view;
mod wire;
mod witnesses;
mod writes;

pub use bucket::Bucket;
pub use elector::Elector;
pub use eligibility::{Backends, Merit, Standing, Unfit};
pub use exchange::{Decision, Effect, Event, Occupant};
pub use facts::NodeFacts;
pub use families::Families;
pub use model::{
    Claimant, EndReason, Epoch, Holder, Lock, Node, Renewal, Session, SessionState, Timestamp,
    Version,
};
pub use pattern::Pattern;
pub use questions::{Purpose, Question};
pub use reach::{Interface, Reach, own_address};
pub use role::Role;
pub use settings::{Profile, Settings, UnsafeSettings};
pub use stranded::Stranded;
pub use terms::{AnnounceTerms, Places, Preference, Rule};
pub use writes::{GiveReason, LockChange, Outcome, Refusal, TakeReason, Target, Write};

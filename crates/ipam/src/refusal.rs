//! Why a request gets no address, in words that say what to do.

use alloc::{boxed::Box, vec::Vec};
use core::fmt;

use crate::{allocator::Overlap, names::PoolName, pool::InvalidPool, range::Family};

/// Why [`crate::Allocator::choose`] has no address to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no pool at all.
    NoPools,
    /// The request names a pool that does not exist.
    UnknownPool {
        /// The name that was asked for.
        name: PoolName,
        /// The names that could have been meant, in alphabetical order.
        existing: Vec<PoolName>,
    },
    /// The named pool exists but has nothing to give.
    NamedPool {
        /// The family that was asked for.
        family: Family,
        /// The pool and its reason.
        pool: Box<Unfit>,
    },
    /// The request names no pool, and none has anything to give.
    EveryPool {
        /// The family that was asked for.
        family: Family,
        /// Every pool with its reason, in the order in which they were tried.
        pools: Vec<Unfit>,
    },
}

/// A pool that was tried in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// The pool.
    pub pool: PoolName,
    /// Why it has nothing to give.
    pub why: Unfitness,
}

/// Why one pool has nothing to give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfitness {
    /// Every address of the family is taken.
    #[error("all its addresses ({total}) are in use: add addresses to it")]
    Full {
        /// How many there are.
        total: u128,
    },
    /// It has no address of the family at all.
    #[error("it has no {0} addresses: add some to it")]
    NoSuchFamily(Family),
    /// It gives addresses only to those who ask for it.
    #[error("it is only for those who ask for it by name: do so, or let it assign automatically")]
    NotAutomatic,
    /// It cannot be used at all.
    #[error("it is not used, since it is invalid: {0}")]
    Invalid(InvalidPool),
    /// It cannot be used while another pool has the same addresses.
    #[error("it is not used: {0}")]
    Overlapping(Overlap),
}

impl Refusal {
    /// One word for the reason, for metrics and machines; the set of words is closed.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoPools => "NoPools",
            Self::UnknownPool { .. } => "UnknownPool",
            Self::NamedPool { pool, .. } => pool.why.reason(),
            Self::EveryPool { .. } => "EveryPoolUnfit",
        }
    }
}

impl Unfitness {
    fn reason(&self) -> &'static str {
        match self {
            Self::Full { .. } => "PoolFull",
            Self::NoSuchFamily(_) => "NoSuchFamily",
            Self::NotAutomatic => "NotAutomatic",
            Self::Invalid(_) => "PoolInvalid",
            Self::Overlapping(_) => "PoolOverlapping",
        }
    }
}

impl core::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPools => f.write_str("there are no pools: create one"),
            Self::UnknownPool { name, existing } if existing.is_empty() => {
                write!(f, "no pool named \"{name}\", and no other pools: create it")
            }
            Self::UnknownPool { name, existing } => {
                write!(f, "no pool named \"{name}\"; existing pools: ")?;
                join(f, existing, ", ")
            }
            Self::NamedPool { family, pool } => write!(f, "no {family} address to give: {pool}"),
            Self::EveryPool { family, pools } => {
                write!(f, "no pool has an {family} address to give: ")?;
                join(f, pools, "; ")
            }
        }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool \"{}\": {}", self.pool, self.why)
    }
}

fn join<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T], between: &str) -> fmt::Result {
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            f.write_str(between)?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

//! Why a request gets no address, in words that say what to do.

use alloc::{
    boxed::Box,
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt, net::IpAddr};

use crate::{
    allocator::Overlap,
    names::PoolName,
    pool::{INVALID, Outsider},
    range::Family,
    reserved::{Reservation, Special},
    sharing::{Clash, Disagreement},
};

/// Why [`crate::Allocator::plan`] has no address to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no pool at all.
    NoPools,
    /// No pool that was tried has an address of this family to give.
    Pools {
        /// The family that was asked for.
        family: Family,
        /// Whether the request names the pools.
        named: bool,
        /// Every pool with its reason, in the order in which they were tried.
        pools: Vec<Unfit>,
    },
    /// A requested address cannot be given.
    Address {
        /// The address.
        address: IpAddr,
        /// Why not.
        why: UnfitAddress,
    },
    /// One address is requested where one of each family is needed.
    OneAddressForTwo {
        /// The family of which none is requested.
        missing: Family,
    },
}

/// A pool that was tried in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// The pool.
    pub pool: PoolName,
    /// Why it has nothing to give.
    pub why: Box<Unfitness>,
}

/// Why one pool has nothing to give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfitness {
    /// There is no pool of that name.
    #[error("it does not exist: create it, or name another one in arpeggio.dev/address-pool")]
    Unknown,
    /// Every address of the family is taken. How many there are the pool's status says: were it said here, it would be
    /// news for all who wait each time that one comes free.
    #[error("all its {0} addresses are in use, reserved or excluded: add addresses to it")]
    Full(Family),
    /// It has no address of the family at all.
    #[error("it has no {0} addresses: add some to it")]
    NoSuchFamily(Family),
    /// It gives addresses only to those who ask for it.
    #[error(
        "autoAssign is off: name the pool in arpeggio.dev/address-pool, or set autoAssign: true"
    )]
    NotAutomatic,
    /// It is not for this Service.
    #[error("{0}")]
    Outsider(Outsider),
    /// It cannot be used at all.
    #[error("{}", INVALID)]
    Invalid,
    /// It cannot be used while another pool has the same addresses.
    #[error(
        "it is not used, since another pool has some of its addresses: the pool's conditions or events say which"
    )]
    Overlapping(Overlap),
    /// It is being deleted.
    #[error(
        "it has a metadata.deletionTimestamp, and gives no more addresses: name another pool, or create it again when it is gone"
    )]
    Ending,
}

/// Why a requested address cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnfitAddress {
    /// The Service has no cluster address of this family.
    #[error(
        "the Service has no {0} cluster address: request another address, or set spec.ipFamilies"
    )]
    Family(Family),
    /// No Service can be reached there.
    #[error("it is {0}, at which no Service can be reached: request another one")]
    Special(Special),
    /// No pool in use has it.
    #[error("no pool in use has it: request another one, or add it to a pool")]
    NoPool,
    /// A pool has it, but not one of those that the request names.
    #[error("{}", OtherPool(.0.as_ref()))]
    OtherPool(Option<PoolName>),
    /// Its pool is not for this Service.
    #[error("{}", Outside { pool: pool.as_ref(), why })]
    Outsider {
        /// The pool, if the Service knows its name.
        pool: Option<PoolName>,
        /// How the Service does not fit.
        why: Outsider,
    },
    /// Its pool leaves it out.
    #[error(
        "pool \"{0}\" leaves it out (excluded, or avoided for its last byte): request another one"
    )]
    LeftOut(PoolName),
    /// Its pool is being deleted.
    #[error(
        "pool \"{0}\" has a metadata.deletionTimestamp, and gives no more addresses: request another one"
    )]
    PoolEnding(PoolName),
    /// It is reserved.
    #[error("{0}: request another one")]
    Reserved(Reservation),
    /// Somebody else holds it.
    #[error("{}", Taken(.0))]
    Held(Clash),
}

impl Refusal {
    /// Whether `earlier`, which was the text of a refusal of the same request, still says why: of a pool that has nothing to
    /// give, and of none what is so no more. It may lack other pools that have nothing to give either, and name some that
    /// are gone. To tell that to everybody who waits would be a write for each of them, and help nobody.
    pub fn upholds(&self, earlier: &str) -> bool {
        let Self::Pools { family, named: false, pools } = self else { return false };
        let told = earlier.strip_prefix(Unnamed(*family).to_string().as_str());
        let Some(told) = told.and_then(|told| told.strip_prefix(POOL)) else { return false };
        let present: Vec<String> = pools.iter().map(ToString::to_string).collect();
        let still_so = |told: &str| present.iter().any(|it| it.strip_prefix(POOL) == Some(told));
        let is_there = |told: &str| {
            let name = |pool: &Unfit| told.strip_prefix(pool.pool.as_str());
            pools.iter().filter_map(name).any(|rest| rest.starts_with(AFTER_NAME))
        };
        let next = BETWEEN_POOLS.to_string() + POOL;
        let (so, not_so): (Vec<&str>, Vec<&str>) =
            told.split(next.as_str()).partition(|it| still_so(it));
        !so.is_empty() && !not_so.into_iter().any(is_there)
    }

    /// One word for the reason, for metrics and machines; the set of words is closed.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoPools => "NoPools",
            Self::Pools { pools, .. } => {
                let mut reasons = pools.iter().map(|pool| pool.why.reason());
                let first = reasons.next();
                // Who sums up by reason learns most from one that all pools have in common.
                first.filter(|first| reasons.all(|it| it == *first)).unwrap_or("EveryPoolUnfit")
            }
            Self::Address { why, .. } => why.reason(),
            Self::OneAddressForTwo { .. } => "OneAddressForTwo",
        }
    }
}

impl Unfit {
    pub(crate) fn new(pool: &PoolName, why: Unfitness) -> Self {
        Self { pool: pool.clone(), why: Box::new(why) }
    }
}

impl Unfitness {
    fn reason(&self) -> &'static str {
        match self {
            Self::Unknown => "UnknownPool",
            Self::Full(_) => "PoolFull",
            Self::NoSuchFamily(_) => "NoSuchFamily",
            Self::NotAutomatic => "NotAutomatic",
            Self::Invalid | Self::Outsider(Outsider::Unreadable) => "PoolInvalid",
            Self::Outsider(_) => "NotAllowed",
            Self::Overlapping(_) => "PoolOverlapping",
            Self::Ending => "PoolTerminating",
        }
    }
}

impl UnfitAddress {
    fn reason(&self) -> &'static str {
        match self {
            Self::Family(_) => "AddressOfOtherFamily",
            Self::Special(_) => "AddressSpecial",
            Self::NoPool => "AddressInNoPool",
            Self::OtherPool(_) => "AddressInOtherPool",
            Self::Outsider { .. } => "NotAllowed",
            Self::LeftOut(_) => "AddressLeftOut",
            Self::PoolEnding(_) => "PoolTerminating",
            Self::Reserved(_) => "AddressReserved",
            Self::Held(_) => "AddressHeld",
        }
    }
}

impl core::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPools => f.write_str("there are no pools: create one, or have MetalLB's read (manifests/components/metallb)"),
            Self::Pools { pools, .. } if pools.is_empty() => f.write_str(
                "no pool is for this Service: add its namespace and labels to the spec.allocation of one (of an IPAddressPool: \
                 spec.serviceAllocation), or name a pool in arpeggio.dev/address-pool",
            ),
            Self::Pools { family, named: true, pools } => {
                write!(f, "no {family} address to give: ")?;
                join(f, pools, BETWEEN_POOLS)
            }
            Self::Pools { family, named: false, pools } => {
                Unnamed(*family).fmt(f)?;
                join(f, pools, BETWEEN_POOLS)
            }
            Self::Address { address, why } => write!(f, "{address} cannot be given: {why}"),
            Self::OneAddressForTwo { missing } => write!(
                f,
                "the Service needs an IPv4 and an IPv6 address and requests one only: request an {missing} address \
                 too, or set spec.ipFamilyPolicy to PreferDualStack or SingleStack"
            ),
        }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{POOL}{}{AFTER_NAME}{}", self.pool, self.why)
    }
}

/// What stands before and after the name of a pool in the text of a refusal.
const POOL: &str = "pool \"";
const AFTER_NAME: &str = "\": ";

/// Between what is said of one pool and of the next.
const BETWEEN_POOLS: &str = "; ";

/// How a refusal begins for those who name no pool.
struct Unnamed(Family);

impl fmt::Display for Unnamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no pool has an {} address to give: ", self.0)
    }
}

/// Writes that another pool has an address. Its name is for those only whom it is for.
struct OtherPool<'a>(Option<&'a PoolName>);

impl fmt::Display for OtherPool<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pool) => write!(
                f,
                "it is in pool \"{pool}\", which the Service does not ask for: name that pool, or request another address"
            ),
            None => {
                f.write_str("it is not in a pool that the Service asks for: request another one")
            }
        }
    }
}

/// Writes that the pool of an address is not for a Service.
struct Outside<'a> {
    pool: Option<&'a PoolName>,
    why: &'a Outsider,
}

impl fmt::Display for Outside<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pool {
            Some(pool) => write!(f, "pool \"{pool}\": {}", self.why),
            None => f.write_str("its pool is not for this Service: request another one"),
        }
    }
}

/// Writes that somebody has an address, and what to do. It stays true when the address goes from one to another of those who
/// wait for it, so that the others need not be told: neither which Service has it is said nor which of two has no sharing key.
struct Taken<'a>(&'a Clash);

impl fmt::Display for Taken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(other) = self.0.with_no_service() {
            return write!(f, "{other}, or request another one");
        }
        match &self.0.why {
            _ if self.0.is_elsewhere => f.write_str("a Service of another namespace has it:")?,
            Disagreement::Namespace => f.write_str("a Service of another namespace has it:")?,
            Disagreement::TheyAreAlone | Disagreement::WeAreAlone | Disagreement::Key => f.write_str(
                "another Service of this namespace has it: give both the same sharing key, or",
            )?,
            Disagreement::Backend => f.write_str(
                "a Service of this namespace with the same sharing key has it, and its externalTrafficPolicy or selector differs: \
                 set Cluster on both, or Local on both with the same selector, or",
            )?,
            Disagreement::Port(port) => write!(
                f,
                "a Service of this namespace with the same sharing key has it and listens on {port} too: choose another port, or"
            )?,
            Disagreement::Unknown => f.write_str(
                "another Service of this namespace has it, of which nothing is known yet: wait, or",
            )?,
        }
        f.write_str(" request another one")
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

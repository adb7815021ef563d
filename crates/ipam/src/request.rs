//! What a Service asks for.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use arpeggio_labels::Labels;
use core::{fmt, net::IpAddr};

use crate::{names::PoolName, range::Family, sharing::Sharing};

/// All that a Service asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub requester: Requester,
    /// How many addresses of which families.
    pub families: Families,
    /// The only addresses that will do: one, or two of different families. Empty: any. With [`Families::Prefer`], one
    /// address is enough; with [`Families::Both`] one of each is needed.
    pub addresses: Vec<IpAddr>,
    /// The only pools that will do.
    pub pools: PoolChoice,
    /// On which terms the address may be shared with other Services; `None`: not at all.
    pub sharing: Option<Sharing>,
}

/// Who asks: what the rules of pools look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requester {
    /// The Service's namespace.
    pub namespace: String,
    /// The labels of its namespace; `None`: they cannot be read. Then no selector selects it, and what it has it keeps.
    pub namespace_labels: Option<Labels>,
    /// Its own labels.
    pub labels: Labels,
}

/// How many addresses of which families. A Service with a single cluster address is [`Families::One`], whatever its
/// `ipFamilyPolicy` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// One address of this family.
    One(Family),
    /// One of each if one pool has both (or the pools are named for each family), else one; rather of this family
    /// (`PreferDualStack`).
    Prefer(Family),
    /// One of each, or none; this family's comes first (`RequireDualStack`).
    Both(Family),
}

/// Which pools will do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PoolChoice {
    /// Any that assigns automatically.
    #[default]
    Any,
    /// These, in this order.
    Named(Vec<PoolName>),
    /// These for each family, in this order. A family that is not named gets its address from any that assigns
    /// automatically.
    PerFamily(BTreeMap<Family, Vec<PoolName>>),
}

impl Default for Families {
    fn default() -> Self {
        Self::One(Family::V4)
    }
}

impl Families {
    /// The family that counts more, or the only one.
    pub const fn first(self) -> Family {
        match self {
            Self::One(family) | Self::Prefer(family) | Self::Both(family) => family,
        }
    }

    /// Whether an address of `family` is wanted.
    pub fn want(self, family: Family) -> bool {
        !matches!(self, Self::One(only) if only != family)
    }

    /// Every family that is wanted, the first one first.
    pub fn wanted(self) -> impl Iterator<Item = Family> {
        let first = self.first();
        [first, first.other()].into_iter().filter(move |family| self.want(*family))
    }
}

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(family) => family.fmt(f),
            Self::Prefer(_) => f.write_str("IPv4 or IPv6"),
            Self::Both(_) => f.write_str("IPv4 and IPv6"),
        }
    }
}

impl PoolChoice {
    /// The pools that are named for `family`; `None` when any will do.
    pub fn named(&self, family: Family) -> Option<&[PoolName]> {
        match self {
            Self::Any => None,
            Self::Named(pools) => Some(pools),
            Self::PerFamily(pools) => pools.get(&family).map(Vec::as_slice),
        }
    }

    /// Whether the families' addresses are meant to come from different pools.
    pub const fn is_per_family(&self) -> bool {
        matches!(self, Self::PerFamily(_))
    }
}

//! Why a Service's wish cannot be understood.

use std::net::{IpAddr, Ipv4Addr};

use arpeggio_ipam::Family;

/// Why a Service's wish cannot be understood. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Nothing before, between or after commas.
    #[error(
        "{place}: item {position} of {value:?} is empty: remove the comma or write something there"
    )]
    EmptyItem {
        /// The annotation or field.
        place: &'static str,
        /// Its value.
        value: String,
        /// Which item, from 1.
        position: usize,
    },
    /// More pools than anybody would mean.
    #[error("{place}: it names {count} pools, and no more than {most} are tried: name fewer")]
    TooManyPools {
        /// The annotation.
        place: &'static str,
        /// How many it names.
        count: usize,
        /// How many it may name.
        most: usize,
    },
    /// Some pools with a family and some without.
    #[error(
        "{place}: {value:?} names pools with and without a family: write either a,b or ipv4=a,ipv6=b"
    )]
    MixedPools {
        /// The annotation.
        place: &'static str,
        /// Its value.
        value: String,
    },
    /// Not `ipv4=` or `ipv6=`.
    #[error("{place}: {family:?} is no family: write ipv4=POOL or ipv6=POOL")]
    UnknownFamily {
        /// The annotation.
        place: &'static str,
        /// What stands before the equals sign.
        family: String,
    },
    /// Neither IPv4 nor IPv6.
    #[error(
        "{place}: {text:?} is not an address: write one like 192.168.1.240 or fd00::240, and a comma between two"
    )]
    NotAnAddress {
        /// The annotation or field.
        place: &'static str,
        /// What was written.
        text: String,
    },
    /// Addresses of Services are valid on a whole segment, a zone only on one machine.
    #[error("{place}: {text:?} has a zone: leave out the part from % on")]
    Zone {
        /// The annotation or field.
        place: &'static str,
        /// What was written.
        text: String,
    },
    /// An IPv4 address in IPv6 clothes (RFC 4291 section 2.5.5.2).
    #[error("{place}: {text:?} is an IPv4 address written as IPv6: write {plain}")]
    MappedIpv4 {
        /// The annotation or field.
        place: &'static str,
        /// What was written.
        text: String,
        /// The IPv4 address in it.
        plain: Ipv4Addr,
    },
    /// More than one of each family.
    #[error(
        "{place}: {value:?} has two {family} addresses: a Service has one of each family at most, remove one"
    )]
    TwoOfOneFamily {
        /// The annotation or field.
        place: &'static str,
        /// Its value.
        value: String,
        /// The family.
        family: Family,
    },
    /// Both ways of asking, for different addresses.
    #[error(
        "{annotation} and spec.loadBalancerIP ask for different addresses: remove one of them, rather the deprecated field"
    )]
    AddressesTwice {
        /// The annotation.
        annotation: &'static str,
    },
    /// An address that the Service's pods could not be reached at.
    #[error(
        "{place}: {address} is requested, but the Service has no {family} cluster address: ask for another \
             address or set spec.ipFamilies"
    )]
    FamilyNotServed {
        /// The annotation or field.
        place: &'static str,
        /// The address.
        address: IpAddr,
        /// Its family.
        family: Family,
    },
    /// `RequireDualStack` with one requested address.
    #[error(
        "{place}: spec.ipFamilyPolicy is RequireDualStack, and only one address is requested: add an {missing} \
             address or set PreferDualStack"
    )]
    OneOfTwo {
        /// The annotation or field.
        place: &'static str,
        /// The family without an address.
        missing: Family,
    },
    /// Neither `nodes` nor `none`.
    #[error(
        "{place}: {value:?} is not known: write nodes (all nodes that can serve the address) or none (the one that \
             announces it)"
    )]
    UnknownSpread {
        /// The annotation.
        place: &'static str,
        /// Its value.
        value: String,
    },
    /// `RequireDualStack` where the cluster gave one address.
    #[error(
        "spec.ipFamilyPolicy is RequireDualStack, but the Service has {have} cluster addresses instead of two: \
             the cluster must be dual-stack, or set SingleStack"
    )]
    TooFewClusterAddresses {
        /// How many it has.
        have: usize,
    },
}

impl RequestError {
    /// One word for the reason, for metrics and machines; the set of words is closed.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::EmptyItem { .. }
            | Self::MixedPools { .. }
            | Self::UnknownFamily { .. }
            | Self::TooManyPools { .. } => "MalformedPools",
            Self::NotAnAddress { .. } | Self::Zone { .. } | Self::MappedIpv4 { .. } => {
                "MalformedAddresses"
            }
            Self::TwoOfOneFamily { .. }
            | Self::AddressesTwice { .. }
            | Self::FamilyNotServed { .. }
            | Self::OneOfTwo { .. } => "ContradictoryAddresses",
            Self::UnknownSpread { .. } => "MalformedSpread",
            Self::TooFewClusterAddresses { .. } => "TooFewClusterAddresses",
        }
    }
}

//! The families of addresses that something is about.

use core::{net::IpAddr, ops::BitOr};

/// IPv4, IPv6, both or none of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Families {
    /// It is about IPv4 addresses.
    pub ipv4: bool,
    /// It is about IPv6 addresses.
    pub ipv6: bool,
}

impl Families {
    /// Neither.
    pub const NONE: Self = Self { ipv4: false, ipv6: false };
    /// Both.
    pub const ALL: Self = Self { ipv4: true, ipv6: true };

    /// The one that an address is of.
    pub const fn of(address: IpAddr) -> Self {
        Self { ipv4: address.is_ipv4(), ipv6: address.is_ipv6() }
    }

    /// Whether the family of an address is among them.
    pub const fn contain(self, address: IpAddr) -> bool {
        self.ipv4 && address.is_ipv4() || self.ipv6 && address.is_ipv6()
    }

    /// Those of them that are not among `others`.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self { ipv4: self.ipv4 && !others.ipv4, ipv6: self.ipv6 && !others.ipv6 }
    }
}

impl BitOr for Families {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self { ipv4: self.ipv4 || other.ipv4, ipv6: self.ipv6 || other.ipv6 }
    }
}

//! Intervals of addresses, and how people write them.

use alloc::{
    borrow::ToOwned,
    string::{String, ToString},
};
use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of `address`.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }

    /// The length of an address, in bits.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The address with this number. Only numbers that [`to_number`] gave, or that lie between two such, are passed.
    pub(crate) fn address(self, number: u128) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
            Self::V6 => Ipv6Addr::from(number).into(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The address as a number, comparable within its family.
pub(crate) fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// A non-empty interval of addresses of one family, both ends included.
///
/// It is written as a CIDR (`192.168.1.240/28`), as a range with optional spaces (`192.168.1.240 - 192.168.1.250`), or
/// as a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    family: Family,
    first: u128,
    last: u128,
}

/// Why a text is not an [`AddressRange`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Nothing that looks like an address.
    #[error(
        "{0:?} is not an address: write a CIDR (192.168.1.240/28), a range (192.168.1.240-192.168.1.250) or a single address"
    )]
    NotAnAddress(String),
    /// Addresses of Services are valid on a whole segment, a zone only on one machine.
    #[error("{0:?} has a zone: leave out the part from % on")]
    Zone(String),
    /// An IPv4 address in IPv6 clothes (RFC 4291 section 2.5.5.2).
    #[error("{text:?} is an IPv4 address written as IPv6: did you mean {plain}?")]
    MappedIpv4 {
        /// What was written.
        text: String,
        /// The IPv4 address in it.
        plain: Ipv4Addr,
    },
    /// Some of its addresses are such.
    #[error(
        "{first}-{last} contains IPv4 addresses written as IPv6 (::ffff:0:0/96): leave these out, and write IPv4 addresses as such"
    )]
    ContainsMappedIpv4 {
        /// The first address.
        first: IpAddr,
        /// The last address.
        last: IpAddr,
    },
    /// The part after the slash is not a number of this family's bits.
    #[error("{text:?}: the prefix length must be a number from 0 to {}", family.bits())]
    PrefixLength {
        /// What was written.
        text: String,
        /// The family of the address before the slash.
        family: Family,
    },
    /// The address of a CIDR is not the first one of its network, so that it is unclear what is meant.
    #[error("{text} has host bits set: did you mean {address}/{} or {network}?", Family::of(*address).bits())]
    HostBits {
        /// What was written.
        text: String,
        /// The single address that may be meant.
        address: IpAddr,
        /// The network that may be meant, as a CIDR.
        network: String,
    },
    /// The ends of a range are of different families.
    #[error("{first}-{last} mixes IPv4 and IPv6: write one range for each family")]
    MixedFamilies {
        /// The first address.
        first: IpAddr,
        /// The last address.
        last: IpAddr,
    },
    /// The range runs backwards.
    #[error("{first}-{last} starts after its end: did you mean {last}-{first}?")]
    StartAfterEnd {
        /// What was written first.
        first: IpAddr,
        /// What was written last.
        last: IpAddr,
    },
}

/// IPv4 addresses in IPv6 clothes (RFC 4291 section 2.5.5.2).
pub(crate) const MAPPED_IPV4: AddressRange =
    AddressRange::between(Family::V6, 0xffff_0000_0000, 0xffff_ffff_ffff);

impl AddressRange {
    /// The range from `first` to `last`, both included.
    ///
    /// # Errors
    /// When the families differ, `first` is greater than `last`, or some of it are IPv4 addresses written as IPv6.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, RangeError> {
        if Family::of(first) != Family::of(last) {
            return Err(RangeError::MixedFamilies { first, last });
        }
        if first > last {
            return Err(RangeError::StartAfterEnd { first, last });
        }
        Self::between(Family::of(first), to_number(first), to_number(last)).checked()
    }

    fn checked(self) -> Result<Self, RangeError> {
        match self.intersection(&MAPPED_IPV4) {
            Some(_) => {
                Err(RangeError::ContainsMappedIpv4 { first: self.first(), last: self.last() })
            }
            None => Ok(self),
        }
    }

    pub(crate) const fn between(family: Family, first: u128, last: u128) -> Self {
        Self { family, first, last }
    }

    /// The family of all its addresses.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// Its lowest address.
    pub fn first(&self) -> IpAddr {
        self.family.address(self.first)
    }

    /// Its highest address.
    pub fn last(&self) -> IpAddr {
        self.family.address(self.last)
    }

    /// Both ends as numbers.
    pub(crate) const fn numbers(&self) -> (u128, u128) {
        (self.first, self.last)
    }

    /// How many addresses it has.
    pub fn size(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// Whether `address` is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let number = to_number(address);
        self.family == Family::of(address) && self.first <= number && number <= self.last
    }

    /// The addresses that both have, if any.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let first = self.first.max(other.first);
        let last = self.last.min(other.last);
        (self.family == other.family && first <= last)
            .then(|| Self::between(self.family, first, last))
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first())
        } else {
            write!(f, "{}-{}", self.first(), self.last())
        }
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let text = text.trim();
        if let Some((first, last)) = text.split_once('-') {
            return Self::new(
                parse_address(first.trim(), text)?,
                parse_address(last.trim(), text)?,
            );
        }
        match text.split_once('/') {
            Some((address, length)) => parse_cidr(parse_address(address, text)?, length, text),
            None => parse_address(text, text).and_then(|address| Self::new(address, address)),
        }
    }
}

/// Parses one address of the item `whole`, which the error shows.
fn parse_address(text: &str, whole: &str) -> Result<IpAddr, RangeError> {
    if text.contains('%') {
        return Err(RangeError::Zone(whole.to_owned()));
    }
    let address: IpAddr = text.parse().map_err(|_| RangeError::NotAnAddress(whole.to_owned()))?;
    match address {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(plain) => Err(RangeError::MappedIpv4 { text: text.to_owned(), plain }),
            None => Ok(address),
        },
        IpAddr::V4(_) => Ok(address),
    }
}

fn parse_cidr(address: IpAddr, length: &str, text: &str) -> Result<AddressRange, RangeError> {
    let family = Family::of(address);
    let length = parse_prefix_length(length, family)
        .ok_or_else(|| RangeError::PrefixLength { text: text.to_owned(), family })?;
    let number = to_number(address);
    let hosts = host_mask(family, length);
    if number & hosts != 0 {
        let network = family.address(number & !hosts);
        return Err(RangeError::HostBits {
            text: text.to_owned(),
            address,
            network: network.to_string() + "/" + &length.to_string(),
        });
    }
    AddressRange::between(family, number, number | hosts).checked()
}

/// Digits only, without a leading zero or sign, as everybody else on the machine will read it.
fn parse_prefix_length(text: &str, family: Family) -> Option<u8> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    let length = plain.then(|| text.parse::<u8>().ok()).flatten()?;
    (length <= family.bits()).then_some(length)
}

/// The bits after the prefix. A shift by all 128 bits is what makes `::/0` special.
fn host_mask(family: Family, length: u8) -> u128 {
    let host_bits = u32::from(family.bits() - length);
    1u128.checked_shl(host_bits).map_or(u128::MAX, |bit| bit - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn parse(text: &str) -> Result<String, String> {
        text.parse::<AddressRange>().map(|range| range.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn every_way_to_write_a_range() {
        let table = [
            ("192.168.1.240/28", "192.168.1.240-192.168.1.255"),
            (" 192.168.1.240 -  192.168.1.250 ", "192.168.1.240-192.168.1.250"),
            ("192.168.1.5-192.168.1.5", "192.168.1.5"),
            ("192.168.1.5/32", "192.168.1.5"),
            ("192.168.1.5", "192.168.1.5"),
            ("0.0.0.0/0", "0.0.0.0-255.255.255.255"),
            ("fd00::/126", "fd00::-fd00::3"),
            ("fd00::1", "fd00::1"),
            ("fd00::1-fd00::a", "fd00::1-fd00::a"),
            ("8000::/1", "8000::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("::/81", "::-::7fff:ffff:ffff"),
            ("::fffe:0:0/96", "::fffe:0:0-::fffe:ffff:ffff"),
            ("0:0:0:1::/64", "0:0:0:1::-::1:ffff:ffff:ffff:ffff"),
        ];
        for (text, range) in table {
            assert_eq!(parse(text).as_deref(), Ok(range), "{text}");
        }
    }

    #[test]
    fn every_mistake_names_its_remedy() {
        let how_to_write = "write a CIDR (192.168.1.240/28), a range (192.168.1.240-192.168.1.250) or a single address";
        let mapped = "contains IPv4 addresses written as IPv6 (::ffff:0:0/96): leave these out, and write IPv4 addresses as such";
        let table = [
            ("", format!("\"\" is not an address: {how_to_write}")),
            ("home", format!("\"home\" is not an address: {how_to_write}")),
            ("192.168.01.1", format!("\"192.168.01.1\" is not an address: {how_to_write}")),
            ("10.0.0.1-10", format!("\"10.0.0.1-10\" is not an address: {how_to_write}")),
            ("10.0.0.1-", format!("\"10.0.0.1-\" is not an address: {how_to_write}")),
            ("fe80::1%eth0", "\"fe80::1%eth0\" has a zone: leave out the part from % on".into()),
            (
                "::ffff:10.0.0.1",
                "\"::ffff:10.0.0.1\" is an IPv4 address written as IPv6: did you mean 10.0.0.1?".into(),
            ),
            ("10.0.0.0/33", "\"10.0.0.0/33\": the prefix length must be a number from 0 to 32".into()),
            ("10.0.0.0/", "\"10.0.0.0/\": the prefix length must be a number from 0 to 32".into()),
            ("10.0.0.0/+8", "\"10.0.0.0/+8\": the prefix length must be a number from 0 to 32".into()),
            ("10.0.0.0/08", "\"10.0.0.0/08\": the prefix length must be a number from 0 to 32".into()),
            ("fd00::/129", "\"fd00::/129\": the prefix length must be a number from 0 to 128".into()),
            (
                "192.168.1.240/24",
                "192.168.1.240/24 has host bits set: did you mean 192.168.1.240/32 or 192.168.1.0/24?".into(),
            ),
            ("fd00::5/64", "fd00::5/64 has host bits set: did you mean fd00::5/128 or fd00::/64?".into()),
            ("::/0", format!("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff {mapped}")),
            ("::/80", format!("::-::ffff:255.255.255.255 {mapped}")),
            ("::fffe:0:1-::1:0:0:0", format!("::fffe:0:1-::1:0:0:0 {mapped}")),
            ("10.0.0.1-fd00::1", "10.0.0.1-fd00::1 mixes IPv4 and IPv6: write one range for each family".into()),
            ("10.0.0.9-10.0.0.1", "10.0.0.9-10.0.0.1 starts after its end: did you mean 10.0.0.1-10.0.0.9?".into()),
        ];
        for (text, message) in table {
            assert_eq!(parse(text), Err(message), "{text}");
        }
    }

    #[test]
    fn sizes_never_overflow() {
        let size = |text: &str| text.parse::<AddressRange>().unwrap().size();
        assert_eq!(size("10.0.0.1"), 1);
        assert_eq!(size("0.0.0.0/0"), 1 << 32);
        assert_eq!(size("fd00::/64"), 1 << 64);
        assert_eq!(size("8000::/1"), 1 << 127);
        assert_eq!(
            size("::1:0:0:0-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            0u128.wrapping_sub(1 << 48)
        );
    }

    #[test]
    fn families_never_meet() {
        let v4: AddressRange = "0.0.0.0/0".parse().unwrap();
        let v6: AddressRange = "::/81".parse().unwrap();
        assert_eq!(v4.intersection(&v6), None);
        assert!(!v6.contains("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn intersections_are_what_both_have() {
        let range = |text: &str| text.parse::<AddressRange>().unwrap();
        let meet = |a: &str, b: &str| range(a).intersection(&range(b)).map(|c| c.to_string());
        assert_eq!(meet("10.0.0.0/24", "10.0.0.250-10.0.1.9").unwrap(), "10.0.0.250-10.0.0.255");
        assert_eq!(meet("10.0.0.0/24", "10.0.1.0/24"), None);
        assert_eq!(meet("10.0.0.0/24", "10.0.0.7").unwrap(), "10.0.0.7");
    }
}

//! What the frames of either protocol mean: somebody asks for an address, or says where it is.
//!
//! ARP does so for [`core::net::Ipv4Addr`], NDP for [`core::net::Ipv6Addr`]; each adds the methods
//! that turn a meaning into a frame of its own.

use core::net::IpAddr;

use pnet_base::MacAddr;

/// "Who has this address?", and who wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Question<Address> {
    /// The address asked for.
    pub address: Address,
    /// Whom to answer.
    pub asker: Asker<Address>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asker<Address> {
    /// Where the answer goes.
    pub mac: MacAddr,
    /// `None` in a probe: the asker wants to know whether it may use the address itself and must
    /// not disturb anybody's cache meanwhile (RFC 5227 section 2.1.1, RFC 4862 section 5.4).
    /// Never `Some` of 0.0.0.0 or `::`.
    pub address: Option<Address>,
}

/// "This address is at that MAC."
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim<Address> {
    /// The address; never 0.0.0.0 or `::`.
    pub address: Address,
    /// Where it is said to be. Can be a group address when a stranger says so.
    pub mac: MacAddr,
}

impl<Address: Into<IpAddr>> Claim<Address> {
    /// The same claim for whoever does not care about the family.
    pub fn of_any_family(self) -> Claim<IpAddr> {
        Claim { address: self.address.into(), mac: self.mac }
    }
}

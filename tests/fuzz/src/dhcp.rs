//! DHCP offers.

use arpeggio_wire::{DhcpDiscover, DhcpOffer};

/// Any bytes are read or refused as an offer. What is read offers an address, and what this program itself would send to such a
/// client is a question and no offer.
pub fn check(bytes: &[u8]) {
    let Some(offer) = DhcpOffer::parse(bytes) else { return };
    assert!(!offer.address.is_unspecified());
    let question = DhcpDiscover {
        source: offer.client,
        client: offer.client,
        transaction: offer.transaction,
        wanted: Some(offer.address),
    };
    assert_eq!(DhcpOffer::parse(&question.to_bytes()), None);
}

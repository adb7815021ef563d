//! What every Ethernet II frame shares.

use pnet_base::MacAddr;
use pnet_packet::ethernet::{EtherType, EtherTypes};

/// Bytes of the shortest Ethernet frame, without preamble and frame check sequence
/// (IEEE 802.3: 64 with the check sequence). Shorter content is padded with zeros.
pub const MIN_FRAME_LEN: usize = 60;

/// Bytes of the header: destination, source, Ethernet type.
pub(crate) const HEADER_LEN: usize = 14;

/// The header as it goes on the wire, untagged.
pub(crate) fn header(
    destination: MacAddr,
    source: MacAddr,
    content: EtherType,
) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[0..6].copy_from_slice(&destination.octets());
    bytes[6..12].copy_from_slice(&source.octets());
    bytes[12..14].copy_from_slice(&content.0.to_be_bytes());
    bytes
}

/// Whether a VLAN tag stands where the Ethernet type is expected (IEEE 802.1Q, 802.1ad).
pub(crate) fn is_vlan_tag(content: EtherType) -> bool {
    matches!(content, EtherTypes::Vlan | EtherTypes::PBridge | EtherTypes::QinQ)
}

/// Whether exactly one machine can be reached at this address.
pub(crate) fn is_station(mac: MacAddr) -> bool {
    mac.is_unicast() && !mac.is_zero()
}

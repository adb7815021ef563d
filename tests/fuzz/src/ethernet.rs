//! Frames of other networks are nobody's: whatever carries a VLAN tag is refused as such.

use arpeggio_wire::{ArpError, ArpFrame, NdpError, NdpFrame};

/// The types of a tag: IEEE 802.1Q, 802.1ad, and the one in use before the latter.
const TAGS: [[u8; 2]; 3] = [[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00]];

/// Where the Ethernet type stands, and a tag before it.
const TYPE: usize = 12;

/// A frame with any tag is refused by either parser, and for that reason.
pub fn check(bytes: &[u8]) {
    if bytes.len() < TYPE {
        assert_eq!(ArpFrame::parse(bytes), Err(ArpError::Truncated));
        assert_eq!(NdpFrame::parse(bytes), Err(NdpError::Truncated));
        return;
    }
    for [high, low] in TAGS {
        let mut tagged = bytes.to_vec();
        tagged.splice(TYPE..TYPE, [high, low, 0, 5]);
        assert_eq!(ArpFrame::parse(&tagged), Err(ArpError::VlanTagged));
        assert_eq!(NdpFrame::parse(&tagged), Err(NdpError::VlanTagged));
    }
}

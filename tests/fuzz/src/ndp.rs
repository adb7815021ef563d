//! NDP frames.

use arpeggio_wire::{NdpError, NdpFrame};

/// Where the IPv6 addresses, the ICMPv6 message and its checksum begin.
const ADDRESSES: usize = 22;
const MESSAGE: usize = 54;
const CHECKSUM: usize = 56;

/// Any bytes are read or refused as NDP, and what is read is written back with the same meaning.
///
/// A checksum is hard to guess, so each input is tried a second time with the right one.
pub fn check(bytes: &[u8]) {
    read_through(bytes);
    let mut bytes = bytes.to_vec();
    if mend(&mut bytes).is_some() {
        assert_ne!(NdpFrame::parse(&bytes), Err(NdpError::Checksum));
        read_through(&bytes);
    }
}

fn read_through(bytes: &[u8]) {
    let Ok(frame) = NdpFrame::parse(bytes) else { return };
    assert_eq!(NdpFrame::parse(&frame.to_bytes()), Ok(frame));
    if let Some(question) = frame.question() {
        assert_eq!(question.multicast().question(), Some(question));
        let answer = question.answer(frame.destination);
        assert_eq!(NdpFrame::parse(&answer.to_bytes()), Ok(answer));
    }
    assert!(frame.claim().is_none_or(|claim| !claim.address.is_unspecified()));
}

/// Puts the right payload length and checksum in; `None` if there is no room for them.
fn mend(bytes: &mut [u8]) -> Option<()> {
    let length = u16::try_from(bytes.get(MESSAGE..)?.len()).ok()?;
    bytes.get_mut(18..20)?.copy_from_slice(&length.to_be_bytes());
    bytes.get_mut(CHECKSUM..CHECKSUM + 2)?.fill(0);
    let words = bytes
        .get(ADDRESSES..)?
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or_default()));
    let mut sum = words.sum::<u64>() + u64::from(length) + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !u16::try_from(sum).ok()?;
    bytes.get_mut(CHECKSUM..CHECKSUM + 2)?.copy_from_slice(&checksum.to_be_bytes());
    Some(())
}
